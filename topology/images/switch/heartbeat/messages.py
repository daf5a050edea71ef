# SPDX-License-Identifier: GPL-2.0-only
"""heartbeat 3's messages as scapy layers: dissect, build, sign and verify.

A message is a list of typed ``name=value`` entries in one of two forms (cluster-glue's lib/clplumbing/cl_netstring.c
and cl_msg.c):

- ``Message``, netstrings, which is what heartbeat puts on the wire (UDP port 694)::

      ###\\n 11:(0)t=status, 9:(0)seq=36, ... %%%\\n 42:1 ac11f00a...,

  Each length covers all between its colon and its comma. The last netstring is the signature: the number of a key in
  authkeys, and the HMAC of all before it.
- ``ClassicMessage``, lines: ``>>>\\n``, ``t=status\\n``, ``(1)srcuuid=base64\\n``, ..., ``<<<\\n`` and a zero byte.

In both, the entry ``auth`` is a signature too: over the classic lines of all other entries. All text is ASCII bytes.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from scapy.fields import Field, PacketField, PacketListField, StrFixedLenField
from scapy.layers.inet import UDP
from scapy.packet import Packet, Raw, bind_layers

PORT = 694
"""ha-cluster in the IANA registry; heartbeat's default ``udpport`` (ha.cf)."""

NETSTRING_START, NETSTRING_END = b"###\n", b"%%%\n"
CLASSIC_START, CLASSIC_END = b">>>\n", b"<<<\n\0"
"""ha_msg.h: MSG_START_NETSTRING, MSG_END_NETSTRING, MSG_START, MSG_END, which goes out with its final zero byte."""

KINDS = {0: "string", 1: "binary", 2: "struct", 3: "list", 4: "compressed", 5: "uncompressed"}
"""ha_msg.h: FT_STRING to FT_UNCOMPRESS."""
STRING, BINARY = 0, 1

AUTH = b"auth"


class MalformedError(ValueError):
    """Bytes that are not a heartbeat message."""


class UnsignableError(ValueError):
    """A signature that cannot be computed: its key is unknown, or a kind of entry has no classic line."""


# --- fields: how one value is written


class _Length(Field[Any, Any]):
    """A netstring's length, ``27:``; None is computed when it is built."""

    def addfield(self, pkt: Any, s: bytes, val: Any) -> bytes:
        return s + b"%d:" % (pkt.covered() if val is None else val)

    def getfield(self, pkt: Any, s: bytes) -> tuple[bytes, int]:
        found = _match(rb"(\d+):", s)
        return s[found.end() :], int(found[1])


class _Kind(Field[Any, Any]):
    """An entry's type, ``(0)``; where it is optional, strings have none."""

    __slots__ = ("optional",)  # scapy gives its fields no dictionary

    def __init__(self, name: str, default: int, optional: bool = False) -> None:
        super().__init__(name, default)
        self.optional = optional

    def addfield(self, pkt: Any, s: bytes, val: Any) -> bytes:
        return s if self.optional and val == STRING else s + b"(%d)" % val

    def getfield(self, pkt: Any, s: bytes) -> tuple[bytes, int]:
        found = _match(rb"\((\d)\)", s, self.optional)
        return s[found.end() :], int(found[1] or STRING)

    def i2repr(self, pkt: Any, x: Any) -> str:
        return KINDS.get(x, str(x))


class _Until(Field[Any, Any]):
    """Bytes up to a delimiter."""

    __slots__ = ("delimiter",)

    def __init__(self, name: str, default: Any, delimiter: bytes) -> None:
        super().__init__(name, default)
        self.delimiter = delimiter

    def addfield(self, pkt: Any, s: bytes, val: Any) -> bytes:
        return b"".join((s, self.i2m(pkt, val), self.delimiter))

    def getfield(self, pkt: Any, s: bytes) -> tuple[bytes, bytes]:
        value, delimiter, rest = s.partition(self.delimiter)
        if not delimiter:
            raise MalformedError(f"no {self.delimiter!r} in {s[:40]!r}")
        return rest, self.m2i(pkt, value)


class _Number(_Until):
    """A decimal number up to a delimiter."""

    def i2m(self, pkt: Any, x: Any) -> bytes:
        return b"%d" % x

    def m2i(self, pkt: Any, x: Any) -> int:
        return int(x)


class _LineValue(_Until):
    """A classic line's value: binary ones are in base64."""

    def i2m(self, pkt: Any, x: Any) -> bytes:
        return base64.b64encode(x) if pkt.kind == BINARY else x

    def m2i(self, pkt: Any, x: Any) -> bytes:
        return base64.b64decode(x) if pkt.kind == BINARY else x


class _Rest(Field[Any, Any]):
    """The rest of a netstring, and its comma."""

    def addfield(self, pkt: Any, s: bytes, val: Any) -> bytes:
        return b"".join((s, val, b","))

    def getfield(self, pkt: Any, s: bytes) -> tuple[bytes, bytes]:
        size = pkt.length - pkt.before_rest()
        if size < 0 or s[size : size + 1] != b",":
            raise MalformedError(f"a netstring of {pkt.length} bytes does not end in a comma: {s[:40]!r}")
        return s[size + 1 :], s[:size]


def _match(pattern: bytes, s: bytes, optional: bool = False) -> re.Match[bytes]:
    found = re.match(b"(?:%s)?" % pattern if optional else pattern, s)
    if not found:
        raise MalformedError(f"{pattern!r} expected, found {s[:40]!r}")
    return found


# --- layers


class _Part(Packet):
    """A part of a message: the bytes after it belong to the next part."""

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        """It has no payload."""
        return b"", s


class Entry(_Part):
    """One entry as a netstring: ``9:(0)seq=36,``."""

    name = "heartbeat entry"
    fields_desc = [_Length("length", None), _Kind("kind", STRING), _Until("key", b"t", b"="), _Rest("value", b"")]

    def before_rest(self) -> int:
        """Number of bytes that its length counts before the value."""
        return len(b"(0)=") + len(self.key)

    def covered(self) -> int:
        """The right length."""
        return self.before_rest() + len(self.value)


class Signature(_Part):
    """The signature of a message as a netstring: ``42:1 ac11f00a...,``."""

    name = "heartbeat signature"
    fields_desc = [_Length("length", None), _Number("number", 1, b" "), _Rest("digest", b"")]

    def before_rest(self) -> int:
        """Number of bytes that its length counts before the digest."""
        return len(b"%d " % self.number)

    def covered(self) -> int:
        """The right length."""
        return self.before_rest() + len(self.digest)


class Line(_Part):
    """One entry as a classic line: ``seq=36``."""

    name = "heartbeat line"
    fields_desc = [_Kind("kind", STRING, optional=True), _Until("key", b"t", b"="), _LineValue("value", b"", b"\n")]


def _parts(of: type[Packet], end: bytes) -> Callable[[Any, Any, Any, bytes], type[Packet] | None]:
    return lambda pkt, parts, current, rest: None if rest.startswith(end) else of


class _Entries(Packet):
    """What both forms share: entries in order."""

    @classmethod
    def dispatch_hook(cls, _pkt: bytes | None = None, *_: Any, **__: Any) -> type[Packet]:
        """Distinguish the forms."""
        return cls if _pkt is None else _form(_pkt)

    def get(self, key: bytes) -> bytes | None:
        """The value of an entry."""
        return next((bytes(entry.value) for entry in self.entries if entry.key == key), None)

    def number(self, key: bytes) -> int | None:
        """The value of an entry that heartbeat writes in hexadecimal: seq, hg, ts, dt (ms), ackseq."""
        value = self.get(key)
        return None if value is None else int(value, 16)

    def signed_lines(self) -> bytes:
        """The bytes that the entry ``auth`` signs: all other entries as classic lines. Raises UnsignableError."""
        others = [entry for entry in self.entries if entry.key != AUTH]
        for entry in others:
            if entry.kind not in (STRING, BINARY):
                raise UnsignableError(f"{entry.key!r} is a {KINDS.get(entry.kind, entry.kind)}")
        return b"".join(bytes(Line(kind=entry.kind, key=entry.key, value=entry.value)) for entry in others)

    def set(self, key: bytes, value: bytes) -> None:
        """Change the value of an entry; a new entry comes last."""
        for entry in self.entries:
            if entry.key == key:
                entry.value = value
                if isinstance(entry, Entry):
                    entry.length = None
                return
        self.entries.append((Entry if isinstance(self, Message) else Line)(key=key, value=value))


class Message(_Entries):
    """A message as netstrings."""

    name = "heartbeat"
    fields_desc = [
        StrFixedLenField("start", NETSTRING_START, len(NETSTRING_START)),
        PacketListField("entries", [], Entry, next_cls_cb=_parts(Entry, NETSTRING_END)),
        StrFixedLenField("end", NETSTRING_END, len(NETSTRING_END)),
        PacketField("signature", Signature(), Signature),
    ]

    def signed(self) -> bytes:
        """The bytes that the signature signs: all before it."""
        built = rebuilt(self)
        return built[: len(built) - len(rebuilt(self.signature))]


class ClassicMessage(_Entries):
    """A message as lines."""

    name = "heartbeat classic"
    fields_desc = [
        StrFixedLenField("start", CLASSIC_START, len(CLASSIC_START)),
        PacketListField("entries", [], Line, next_cls_cb=_parts(Line, CLASSIC_END)),
        StrFixedLenField("end", CLASSIC_END, len(CLASSIC_END)),
    ]


bind_layers(UDP, Message, dport=PORT)


def _form(data: bytes) -> type[Message | ClassicMessage]:
    """Distinguish the forms by their first bytes."""
    return ClassicMessage if data.startswith(CLASSIC_START) else Message


def parse(data: bytes) -> Message | ClassicMessage:
    """Dissect the payload of a datagram. Raises MalformedError unless all of it is a message."""
    try:
        found = _form(data)(data) if data else None
    except (ValueError, IndexError) as error:
        raise MalformedError(str(error)) from error
    if found is None or not _whole(found):
        raise MalformedError(f"no heartbeat message: {data[:40]!r}")
    return found


def _whole(found: Message | ClassicMessage) -> bool:
    """Whether scapy dissected all bytes: it keeps the others as Raw, or as a payload."""
    if found.payload or not found.entries or any(isinstance(entry, Raw) for entry in found.entries):
        return False
    if isinstance(found, ClassicMessage):
        return (found.start, found.end) == (CLASSIC_START, CLASSIC_END)
    ends = (found.start, found.end) == (NETSTRING_START, NETSTRING_END)
    return ends and isinstance(found.signature, Signature) and found.signature.length is not None


def rebuilt(packet: Packet) -> bytes:
    """A packet built from its fields, not from its original bytes."""
    copy = packet.copy()
    copy.clear_cache()
    return bytes(copy)


# --- signatures


@dataclass(frozen=True)
class Key:
    """One line of authkeys: ``1 sha1 secret``."""

    number: int
    method: str
    secret: bytes = b""

    def digest(self, data: bytes) -> bytes:
        """In lower-case hexadecimal, as heartbeat writes it (its plugins HBauth/sha1.c, md5.c, crc.c)."""
        if self.method == "crc":
            return b"%x" % _crc(data)
        return hmac.new(self.secret, data, self.method).hexdigest().encode()


def _crc(data: bytes) -> int:
    """The checksum of POSIX cksum(1) without the length: polynomial 0x04C11DB7, most significant bit first."""
    crc = 0
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc ^ 0xFFFFFFFF


def parse_authkeys(text: str) -> dict[int, Key]:
    """The keys of an authkeys file by their number."""
    words = [line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    keys = [Key(int(number), method, "".join(secret).encode()) for number, method, *secret in words if number != "auth"]
    return {key.number: key for key in keys}


def verified(message: Message | ClassicMessage, keys: Mapping[int, Key]) -> bool:
    """True when all signatures of a message are right. Raises UnsignableError."""
    number, _, digest = (message.get(AUTH) or b"").partition(b" ")
    if digest != _key(keys, int(number or 0)).digest(message.signed_lines()):
        return False
    if isinstance(message, ClassicMessage):
        return True
    signature = message.signature
    return bool(signature.digest == _key(keys, signature.number).digest(message.signed()))


def sign(message: Message | ClassicMessage, key: Key) -> None:
    """Set all signatures of a message. Raises UnsignableError."""
    message.set(AUTH, b"%d " % key.number + key.digest(message.signed_lines()))
    if isinstance(message, Message):
        message.signature = Signature(number=key.number, digest=key.digest(message.signed()))


def spoil(message: Message | ClassicMessage) -> None:
    """Make the outer signature, or the only one, wrong: change one of its digits."""
    if isinstance(message, Message):
        message.signature.digest = _spoilt(message.signature.digest)
    else:
        message.set(AUTH, _spoilt(message.get(AUTH) or b"1 0"))


def _spoilt(digest: bytes) -> bytes:
    return digest[:-1] + (b"0" if digest[-1:] != b"0" else b"1")


def _key(keys: Mapping[int, Key], number: int) -> Key:
    if number not in keys:
        raise UnsignableError(f"key {number} is not known")
    return keys[number]
