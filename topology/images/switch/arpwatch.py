#!/usr/bin/env python3
"""Print every ARP frame on an interface, one JSON line per frame: ``arpwatch.py br-internet``.

Lines: ``{"t": ns, "op": "request"|"reply", "ip": sender, "mac": sender, "target": ip, "gratuitous": bool}`` and, every
second, ``{"t": ns, "alive": true}``, so that silence on the wire and a dead watcher are different things. ``t`` is
CLOCK_MONOTONIC in ns. Needs CAP_NET_RAW. Standard library only: it runs in the switch, where nothing else is installed.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass
from typing import Any

ETH_P_ARP = 0x0806
"""linux/if_ether.h."""
SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP = 1
PACKET_MR_PROMISC = 1
"""linux/if_packet.h. Promiscuous, because unicast replies pass the bridge without being for it."""
SO_TIMESTAMPNS = 35
"""asm-generic/socket.h; the ancillary message has the same number and holds a struct timespec."""
TIMESPEC = struct.Struct("@ll")
ETHERNET_ARP = struct.Struct("!6s6sH HHBBH 6s4s6s4s")
"""RFC 826 for Ethernet and IPv4: destination, source, type; hrd, pro, hln, pln, op; sha, spa, tha, tpa."""
IPV4_OVER_ETHERNET = (1, 0x0800, 6, 4)
OPS = {1: "request", 2: "reply"}
SECOND_NS = 1_000_000_000
OLDEST_NS = SECOND_NS
"""A timestamp that seems older than this was made before the wall clock was stepped."""


@dataclass(frozen=True)
class Arp:
    """One ARP frame. ``gratuitous``: it announces (RFC 5227 3), its target is its own sender."""

    op: str
    ip: str
    mac: str
    target: str
    gratuitous: bool


def parse(frame: bytes) -> Arp | None:
    """Read an Ethernet frame; None for anything but an untagged ARP request or reply for IPv4."""
    if len(frame) < ETHERNET_ARP.size:
        return None
    _, _, ethertype, *kind, op, mac, ip, _, target = ETHERNET_ARP.unpack_from(frame)
    if ethertype != ETH_P_ARP or tuple(kind) != IPV4_OVER_ETHERNET or op not in OPS:
        return None
    return Arp(OPS[op], socket.inet_ntoa(ip), mac.hex(":"), socket.inet_ntoa(target), ip == target and any(ip))


def monotonic_ns(stamp_ns: int | None, realtime_ns: int, now_ns: int) -> int:
    """A frame's kernel timestamp (wall clock) as CLOCK_MONOTONIC, given both clocks read now.

    Without a timestamp, or with a wrong one because the wall clock was stepped since, it is now.
    """
    if stamp_ns is None or not 0 <= realtime_ns - stamp_ns <= OLDEST_NS:
        return now_ns
    return now_ns - (realtime_ns - stamp_ns)


def clocks() -> tuple[int, int]:
    """Wall clock and CLOCK_MONOTONIC of the same moment, in ns: the closest of three tries."""
    tries = []
    for _ in range(3):
        before, realtime, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        tries.append((after - before, realtime, (before + after) // 2))
    _, realtime, monotonic = min(tries)
    return realtime, monotonic


def stamp(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    """The kernel's receive timestamp in a message's ancillary data, in ns of the wall clock."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS) and len(data) >= TIMESPEC.size:
            seconds, nanoseconds = TIMESPEC.unpack_from(data)
            return int(seconds) * SECOND_NS + int(nanoseconds)
    return None


def listen(interface: str) -> socket.socket:
    """A promiscuous packet socket for ARP on one interface. Raises OSError."""
    index = socket.if_nametoindex(interface)
    # No protocol until it is bound, or it would hear other interfaces in between.
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    wire.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    wire.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, struct.pack("@iHH8s", index, PACKET_MR_PROMISC, 0, b""))
    wire.bind((interface, ETH_P_ARP))
    wire.setblocking(False)
    return wire


def emit(line: dict[str, Any]) -> None:
    """Print one line at once."""
    # straight to the descriptor: a buffer that still holds lines when the reader is gone would fail again at exit
    os.write(sys.stdout.fileno(), json.dumps(line, separators=(",", ":")).encode() + b"\n")


def receive(wire: socket.socket, interface: str) -> None:
    """Print the next frame. Raises OSError when the interface is gone."""
    try:
        frame, ancillary, _, _ = wire.recvmsg(2048, 256)
    except BlockingIOError:
        return
    except OSError as error:
        if error.errno != errno.ENETDOWN:
            raise
        # The interface went down, and its socket works again when it is up; if it was removed, this raises.
        socket.if_nametoindex(interface)
        return
    arp = parse(frame)
    if arp is not None:
        emit({"t": monotonic_ns(stamp(ancillary), *clocks()), **vars(arp)})


def watch(interface: str) -> None:
    """Print frames and signs of life until the interface or the reader goes away. Raises OSError."""
    wire = listen(interface)
    due = time.monotonic_ns()
    while True:
        now = time.monotonic_ns()
        if now >= due:
            # an interface that is removed goes down first, which is reported once: it may still have existed then
            socket.if_nametoindex(interface)
            emit({"t": now, "alive": True})
            due = now + SECOND_NS
        ready, _, _ = select.select([wire], [], [], (due - now) / SECOND_NS if due > now else 0)
        if ready:
            receive(wire, interface)


def main(argv: list[str]) -> int:
    """The program. Exit 0 when the reader is gone, 1 when the interface cannot be watched, 2 for wrong usage."""
    if len(argv) != 1:
        print("usage: arpwatch.py INTERFACE", file=sys.stderr)
        return 2
    try:
        watch(argv[0])
    except (KeyboardInterrupt, BrokenPipeError):
        return 0
    except OSError as error:
        print(f"arpwatch: cannot watch {argv[0]}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
