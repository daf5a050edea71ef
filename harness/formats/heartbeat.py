"""A message of heartbeat 3 on the wire: netstrings, ``###\\n 11:(0)t=status, ... %%%\\n 42:1 ac11f00a...,``. Pure.

Each length covers all between its colon and its comma; the last netstring is the signature: a key's number and a digest
in hexadecimal (cluster-glue, lib/clplumbing/cl_netstring.c). What deals with all of a message, signatures and the older
form included, is in the switch (topology/images/switch/heartbeat).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["MalformedError", "entries", "spoilt"]

START, END = b"###\n", b"%%%\n"
LENGTH = re.compile(rb"(\d{1,6}):")
ENTRY = re.compile(rb"\((\d)\)([^=]*)=(.*)", re.DOTALL)


class MalformedError(ValueError):
    """Bytes that are not a message of heartbeat."""


def entries(payload: bytes) -> Mapping[str, bytes]:
    """The entries of a message: name -> value. Raises MalformedError."""
    if not payload.startswith(START):
        raise MalformedError(f"no message: {payload[:40]!r}")
    at, found = len(START), dict[str, bytes]()
    while not payload.startswith(END, at):
        content, at = _netstring(payload, at)
        entry = ENTRY.fullmatch(content)
        if not entry:
            raise MalformedError(f"no entry: {content[:40]!r}")
        found.setdefault(entry[2].decode("latin-1"), entry[3])
    _, end = _netstring(payload, at + len(END))
    if end != len(payload) or not found:
        raise MalformedError(f"{len(payload) - end} bytes after the signature")
    return found


def number(found: Mapping[str, bytes], name: str) -> int | None:
    """The value of an entry that heartbeat writes in hexadecimal, such as ``seq``; None without one."""
    if name not in found:
        return None
    try:
        return int(found[name], 16)
    except ValueError:
        raise MalformedError(f"{name} is no number: {found[name][:40]!r}") from None


def spoilt(payload: bytes) -> bytes:
    """A whole message with another last digit of its signature."""
    digit = payload[-2:-1]
    return payload[:-2] + (b"0" if digit != b"0" else b"1") + payload[-1:]


def _netstring(payload: bytes, at: int) -> tuple[bytes, int]:
    """The content of the netstring that begins there, and where it ends."""
    length = LENGTH.match(payload, at)
    if not length:
        raise MalformedError(f"no length: {payload[at : at + 40]!r}")
    end = length.end() + int(length[1])
    if payload[end : end + 1] != b",":
        raise MalformedError(f"a netstring of {int(length[1])} bytes does not end in a comma")
    return payload[length.end() : end], end + 1
