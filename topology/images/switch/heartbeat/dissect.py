#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Print each heartbeat message of a capture as a JSON line: ``dissect.py CAPTURE [AUTHKEYS]``.

Lines: ``{"time_s": since the epoch, "interface": name, "source": address, "destination": address, "type": "status",
"seq": number, "ackseq": number}``; the last three are null where absent. With a copy of heartbeat's authkeys also
``"verified": bool``; for a datagram that is not a message ``"unread": why`` instead. CAPTURE is pcap or pcapng.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from messages import (
    PORT,
    ClassicMessage,
    Key,
    MalformedError,
    Message,
    UnsignableError,
    parse,
    parse_authkeys,
    verified,
)
from scapy.error import Scapy_Exception
from scapy.layers.inet import IP, UDP
from scapy.packet import Packet
from scapy.utils import PcapReader


class UnreadableError(Exception):
    """A file that is not pcap or pcapng, or is damaged."""


def lines(capture: str, keys: Mapping[int, Key] | None = None, port: int = PORT) -> Iterator[dict[str, Any]]:
    """The lines to print. Raises OSError, and UnreadableError for what is not a capture."""
    for packet in _packets(capture):
        if IP not in packet or UDP not in packet or packet[UDP].dport != port:
            continue
        line = {"time_s": float(packet.time), "interface": _text(packet.sniffed_on)}
        line |= {"source": packet[IP].src, "destination": packet[IP].dst}
        try:
            message = parse(bytes(packet[UDP].payload))
        except MalformedError as error:
            yield line | {"unread": str(error)}
            continue
        line |= {"type": _text(message.get(b"t")), "seq": message.number(b"seq"), "ackseq": message.number(b"ackseq")}
        yield line if keys is None else line | {"verified": _right(message, keys)}


def _packets(capture: str) -> Iterator[Packet]:
    try:
        yield from PcapReader(capture)
    except (Scapy_Exception, struct.error, ValueError, IndexError) as error:
        raise UnreadableError(f"{capture} is not a whole capture: {error}") from error


def _right(message: Message | ClassicMessage, keys: Mapping[int, Key]) -> bool:
    try:
        return verified(message, keys)
    except UnsignableError:
        return False


def _text(name: object) -> str | None:
    if isinstance(name, bytes):
        return name.decode("latin-1")
    return None if name is None else str(name)


def main(argv: list[str]) -> int:
    """The program. Exit 1 for a capture that cannot be read, 2 for wrong usage."""
    if len(argv) not in (1, 2):
        print("usage: dissect.py CAPTURE [AUTHKEYS]", file=sys.stderr)
        return 2
    keys = parse_authkeys(Path(argv[1]).read_text(encoding="utf-8")) if argv[1:] else None
    try:
        for line in lines(argv[0], keys):
            print(json.dumps(line))
    except (OSError, UnreadableError) as error:
        print(f"dissect.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
