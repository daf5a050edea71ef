# SPDX-License-Identifier: GPL-2.0-only
"""heartbeat's messages as scapy layers, against messages of the real daemon (Debian's heartbeat 3.0.6).

``heartbeat_messages.json``: for each of its three methods an authkeys file of a lab that is gone, and UDP payloads.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP

import topology
from harness.formats import heartbeat

sys.path.append(str(Path(topology.__file__).parent / "images" / "switch" / "heartbeat"))  # as in the switch
from messages import (
    BINARY,
    ClassicMessage,
    Entry,
    Key,
    Line,
    MalformedError,
    Message,
    UnsignableError,
    parse,
    parse_authkeys,
    rebuilt,
    sign,
    spoil,
    verified,
)

CAPTURED = json.loads((Path(__file__).parents[1] / "support" / "heartbeat_messages.json").read_text())


def captured() -> Iterator[Any]:
    for capture in CAPTURED:
        keys = parse_authkeys(capture["authkeys"])
        for number, payload in enumerate(capture["messages"]):
            yield pytest.param(keys, bytes.fromhex(payload), id=f"{keys[max(keys)].method}-{number}")


def classic(message: Any) -> ClassicMessage:
    """The same message in the other form."""
    return ClassicMessage(entries=[Line(kind=each.kind, key=each.key, value=each.value) for each in message.entries])


each = pytest.mark.parametrize(("keys", "payload"), list(captured()))


@each
def test_is_dissected_rebuilt_and_verified(keys: dict[int, Key], payload: bytes) -> None:
    message = parse(payload)
    assert isinstance(message, Message)
    assert rebuilt(message) == payload
    assert verified(message, keys)


@each
def test_the_harness_reads_and_spoils_the_same(keys: dict[int, Key], payload: bytes) -> None:
    message = parse(payload)
    entries = heartbeat.entries(payload)
    assert entries == {entry.key.decode(): entry.value for entry in message.entries}
    assert heartbeat.number(entries, "seq") == message.number(b"seq")
    assert heartbeat.number(entries, "ackseq") == message.number(b"ackseq")
    spoil(message)
    assert heartbeat.spoilt(payload) == rebuilt(message)


@each
def test_what_is_cut_off_is_no_message_for_the_harness(keys: dict[int, Key], payload: bytes) -> None:
    for end in (0, 3, 4, len(payload) // 2, len(payload) - 1):
        with pytest.raises(heartbeat.MalformedError):
            heartbeat.entries(payload[:end])
    with pytest.raises(heartbeat.MalformedError):
        heartbeat.entries(payload + b",")


@given(st.binary(max_size=60))
def test_no_junk_breaks_what_the_harness_reads(junk: bytes) -> None:
    for payload in (junk, b"###\n" + junk, b"###\n9:(0)seq=xyz," + junk):
        with pytest.raises(heartbeat.MalformedError):
            heartbeat.number(heartbeat.entries(payload), "seq")


@each
def test_comes_out_of_a_datagram(keys: dict[int, Key], payload: bytes) -> None:
    datagram = IP(bytes(IP(dst="198.18.2.12") / UDP(dport=694) / payload))
    assert isinstance(datagram[UDP].payload, Message)


@each
def test_is_signed_as_the_daemon_does(keys: dict[int, Key], payload: bytes) -> None:
    message = parse(payload)
    entries = [Entry(kind=each.kind, key=each.key, value=each.value) for each in message.entries]
    anew = Message(entries=[each for each in entries if each.key != b"auth"])
    sign(anew, keys[message.signature.number])
    assert bytes(anew) == payload


@each
def test_any_other_digit_is_a_wrong_signature(keys: dict[int, Key], payload: bytes) -> None:
    message = parse(payload)
    spoil(message)
    spoilt = parse(rebuilt(message))
    assert len(rebuilt(spoilt)) == len(payload)
    assert not verified(spoilt, keys)


@each
def test_the_classic_form_carries_the_same(keys: dict[int, Key], payload: bytes) -> None:
    built = bytes(classic(parse(payload)))
    message = parse(built)
    assert isinstance(message, ClassicMessage)
    assert rebuilt(message) == built
    assert verified(message, keys)
    spoil(message)
    assert not verified(parse(rebuilt(message)), keys)


@each
def test_what_is_cut_off_is_no_message(keys: dict[int, Key], payload: bytes) -> None:
    for length in range(0, len(payload), 7):
        with pytest.raises(MalformedError):
            parse(payload[:length])


def test_values() -> None:
    message = parse(bytes.fromhex(CAPTURED[0]["messages"][0]))
    assert message.get(b"t") == b"status"
    assert message.get(b"src") == b"lb-2"
    assert message.number(b"seq") == 0xF2
    assert message.number(b"dt") == 3000
    assert message.number(b"ackseq") is None
    assert next(each for each in message.entries if each.key == b"srcuuid").kind == BINARY


def test_a_form_that_is_written_by_hand() -> None:
    entries = [Entry(key=b"t", value=b"status"), Entry(kind=BINARY, key=b"srcuuid", value=b"=,\n\0" * 4)]
    message = Message(entries=entries)
    sign(message, Key(7, "sha1", b"secret"))
    start = b"###\n11:(0)t=status,27:(1)srcuuid=" + b"=,\n\0" * 4 + b",50:(0)auth=7 "
    assert bytes(message).startswith(start)
    assert verified(parse(bytes(message)), {7: Key(7, "sha1", b"secret")})
    assert bytes(classic(message)).startswith(b">>>\nt=status\n(1)srcuuid=PSwKAD0sCgA9LAoAPSwKAA==\nauth=7 ")
    assert bytes(classic(message)).endswith(b"\n<<<\n\0")


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"x",
        b"###\n",
        b"###\n%%%\n1:1,",
        b"###\n6:(0)t=1,%%%\n",  # no signature
        b"###\n6:(0)t=1,%%%\n3:1 a,more",
        b"###\n7:(0)t=1,%%%\n3:1 a,",  # a wrong length
        b"###\n6:[0]t=1,%%%\n3:1 a,",
        b">>>\nt=1\n<<<\n",  # no zero byte
        b">>>\nt\n<<<\n\0",
    ],
)
def test_junk_is_no_message(junk: bytes) -> None:
    with pytest.raises(MalformedError):
        parse(junk)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_no_junk_breaks_it(junk: bytes) -> None:
    for start in (b"###\n", b">>>\n", b""):
        try:
            parse(start + junk)
        except MalformedError:
            continue


def test_signatures_that_cannot_be_computed() -> None:
    message = parse(bytes.fromhex(CAPTURED[0]["messages"][0]))
    with pytest.raises(UnsignableError, match="key 1 is not known"):
        verified(message, {})
    message.entries.append(Entry(kind=2, key=b"nested", value=b"###\n%%%\n"))
    with pytest.raises(UnsignableError, match="struct"):
        sign(message, Key(1, "sha1", b"secret"))


def test_authkeys() -> None:
    keys = parse_authkeys("# all three\nauth 2\n1 crc\n2 sha1 one two\n\n3 md5 three\n")
    assert keys[1] == Key(1, "crc")
    assert keys[3] == Key(3, "md5", b"three")
