"""Asks a resolver for the addresses of a name, as a client does (RFC 1035). Standard library only, and little of it.

``dnsquery.py RESOLVER NAME udp|tcp TIMES TIMEOUT_S`` prints the answers as a JSON list of
``{"end": "answered", "rcode": 0, "truncated": false, "records": [[ADDRESS, TTL_S], ...], "ms": 3}``; ``end`` is
``answered``, ``silent``, ``refused``, ``reset`` or ``closed``, and only the first has an answer.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time

TYPE_CHECKING = False  # as in wire.py
if TYPE_CHECKING:
    from typing import Any

PORT = 53
TYPE_A, CLASS_IN = 1, 1
RECURSION_DESIRED, TRUNCATED, RCODE = 0x100, 0x200, 0x0F
HEADER_BYTES, MAX_BYTES = 12, 65535
ANSWER_A = b"\xc0\x0c\x00\x01\x00\x01"  # a record whose name points to the question's (4.1.4), type A, class IN


def query(name: str, number: int) -> bytes:
    """A query for the addresses of a name; ``number`` identifies its answer. Pure."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    head = struct.pack(">HHHHHH", number & 0xFFFF, RECURSION_DESIRED, 1, 0, 0, 0)
    return head + labels + struct.pack(">HH", TYPE_A, CLASS_IN)


def read(question: bytes, answer: bytes) -> dict[str, Any]:
    """``rcode``, ``truncated`` and ``records``: address and TTL in s of each, in order. Pure. Raises ValueError."""
    if len(answer) < HEADER_BYTES or answer[:2] != question[:2]:
        raise ValueError("no answer to this question")
    (flags,) = struct.unpack(">H", answer[2:4])
    records = answer[len(question) :].split(ANSWER_A)[1:]
    return {
        "rcode": flags & RCODE,
        "truncated": bool(flags & TRUNCATED),
        "records": [(socket.inet_ntoa(record[6:10]), int.from_bytes(record[:4], "big")) for record in records],
    }


def ask(resolver: str, question: bytes, timeout_s: float, kind: str = "udp") -> bytes:
    """Send a query over ``udp`` or ``tcp``; the raw answer, empty where the resolver closes. Raises OSError."""
    with socket.socket(type=socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as connection:
        connection.settimeout(timeout_s)
        connection.connect((resolver, PORT))
        if kind == "udp":
            connection.send(question)
            return connection.recv(MAX_BYTES)
        connection.sendall(struct.pack(">H", len(question)) + question)
        return _received(connection, int.from_bytes(_received(connection, 2), "big"))


def _received(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length and (more := connection.recv(length - len(data))):
        data += more
    return data


def outcome(resolver: str, question: bytes, timeout_s: float, kind: str) -> dict[str, Any]:
    """Ask once, and say how that ended."""
    try:
        answer = ask(resolver, question, timeout_s, kind)
    except TimeoutError:
        return {"end": "silent"}
    except ConnectionRefusedError:
        return {"end": "refused"}
    except ConnectionError:
        return {"end": "reset"}
    return {"end": "answered", **read(question, answer)} if answer else {"end": "closed"}


def main(resolver: str, name: str, kind: str, times: str, timeout_s: str) -> None:
    """Ask several times, one query after another."""
    found = []
    for number in range(1, int(times) + 1):
        began = time.monotonic()
        ended = outcome(resolver, query(name, number), float(timeout_s), kind)
        found.append({**ended, "ms": round((time.monotonic() - began) * 1000)})
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
