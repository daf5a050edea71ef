#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Decide about each heartbeat message of one sender on its way into one cable: ``middlebox.py KEY SETTINGS``.

An nft rule diverts the frames to the interface ``KEY-in``, where they are read. Frames that pass are sent on the cable
with a mark, which the rule ignores. The rule is added once all is ready to read, so that no message waits for this
program's start. SETTINGS is a JSON object::

    {"cable": "lb-2.eth2", "source": "198.18.2.11", "port": 694, "verb": {...}, "choice": {...}}

with the settings of ``decide.Verb`` and ``decide.Choice``. Prints a JSON line when the rule is active,
``{"t": ns, "in": ns}``, and for each decision and each later effect; times are CLOCK_MONOTONIC. SIGTERM ends it:
messages that are still held back are sent then. Needs CAP_NET_RAW and CAP_NET_ADMIN. It is a process of its own,
because scapy is under the GPL.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from decide import Choice, Decider, Heard, LogLine, Verb
from messages import MalformedError, parse, spoil
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

ETH_P_IP = 0x0800
"""linux/if_ether.h."""
SO_MARK = 36
"""asm-generic/socket.h."""
MARK = 0x10000
"""The middlebox's bit of the mark; the lower bits belong to other faults (faults/network/nft.py)."""
SOL_PACKET = 263
PACKET_AUXDATA = 8
TP_STATUS_CSUMNOTREADY = 8
"""linux/if_packet.h: the frame's checksum was left to a network card, which a sender without a wire does not have."""
LONGEST = 65535
SECOND_NS = 1_000_000_000

RULES = """
table netdev {key} {{
    chain to-the-middlebox {{
        type filter hook egress device "{cable}" priority -400; policy accept;
        ip saddr {source} ip frag-off & 0x3fff == 0 udp dport {port} meta mark & {mark:#x} == 0 counter fwd to "{key}"
    }}
}}
"""
"""nft(8). The hook comes after bridging, so frames dropped there never come here; before other faults' rules for the
cable, so that each frame that is sent on meets them once; and before packet taps, so that a capture of the cable
shows what arrives. Fragments have no port and pass."""


def emit(**line: object) -> None:
    """Print one line at once."""
    os.write(sys.stdout.fileno(), json.dumps({"t": time.monotonic_ns(), **line}).encode() + b"\n")


def emit_decision(line: LogLine) -> None:
    """Print a decision, or an effect."""
    numbers = {"seq": line.message.seq, "ackseq": line.message.ackseq}
    more = {"decision": line.decision, "effect": line.effect}
    found = {name: value for name, value in (numbers | more).items() if value not in (None, "")}
    emit(type=line.message.type, **found)


def heard(frame: bytes) -> Heard:
    """The message in a frame, for the decider. Raises MalformedError."""
    message = parse(bytes(Ether(frame)[UDP].payload))
    try:
        return Heard((message.get(b"t") or b"").decode("latin-1"), message.number(b"seq"), message.number(b"ackseq"))
    except ValueError as error:
        raise MalformedError(str(error)) from error


def with_wrong_signature(frame: bytes) -> bytes:
    """The same frame with another signature and the checksum that goes with it."""
    whole = Ether(frame)
    message = parse(bytes(whole[UDP].payload))
    spoil(message)
    whole[UDP].remove_payload()
    whole[UDP].add_payload(message)
    return with_checksum(bytes(whole))


def with_checksum(frame: bytes) -> bytes:
    """The same frame with the right checksum."""
    whole = Ether(frame)
    whole[UDP].chksum = None  # computed when it is built
    return bytes(whole)


def reader(interface: str) -> socket.socket:
    """A packet socket for the IP frames that come in on an interface. Raises OSError."""
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    wire.bind((interface, ETH_P_IP))
    wire.setblocking(False)
    return wire


def read(wire: socket.socket) -> bytes | None:
    """The next frame, as it would be on a wire; None if none waits. Raises OSError."""
    try:
        frame, ancillary, _, _ = wire.recvmsg(LONGEST, 256)
    except BlockingIOError:
        return None
    for level, kind, data in ancillary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA) and int.from_bytes(
            data[:4], sys.byteorder
        ) & TP_STATUS_CSUMNOTREADY:
            return with_checksum(frame)
    return frame


def writer(cable: str) -> socket.socket:
    """A packet socket that sends marked frames on a cable, and receives nothing. Raises OSError."""
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    wire.setsockopt(socket.SOL_SOCKET, SO_MARK, MARK)
    wire.bind((cable, 0))
    return wire


class Middlebox:
    """One sender's messages into one cable."""

    def __init__(self, key: str, settings: dict[str, Any]) -> None:
        self.inward, self.outward = reader(f"{key}-in"), writer(settings["cable"])
        choice = Choice(**{**settings["choice"], "types": tuple(settings["choice"]["types"])})
        self.decider = Decider(choice, Verb(**settings["verb"]), self.send, with_wrong_signature, emit_decision)

    def send(self, frame: bytes) -> None:
        """Send a frame on the cable; a cable that is down loses it."""
        try:
            self.outward.send(frame)
        except OSError as error:
            if error.errno not in (errno.ENETDOWN, errno.ENOBUFS):
                raise

    def receive(self) -> bool:
        """Decide about the next frame; False if none waits. Unreadable frames pass."""
        frame = read(self.inward)
        if frame is None:
            return False
        try:
            message = heard(frame)
        except MalformedError as error:
            self.send(frame)
            emit(decision="pass", why=str(error))
        else:
            self.decider.decide(message, frame, time.monotonic_ns())
        return True

    def run(self, stop: socket.socket) -> None:
        """Decide until ``stop`` receives a byte."""
        ready: list[socket.socket] = []
        while stop not in ready:
            due_ns = self.decider.due_ns()
            wait_s = None if due_ns is None else max(0.0, (due_ns - time.monotonic_ns()) / SECOND_NS)
            ready, _, _ = select.select([self.inward, stop], [], [], wait_s)
            self.decider.pass_time(time.monotonic_ns())
            if self.inward in ready:
                self.receive()
        while self.receive():
            pass
        self.decider.flush()


def stop_socket() -> socket.socket:
    """A socket that receives a byte at SIGTERM."""
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.set_wakeup_fd(sender.detach())
    return receiver


def main(argv: list[str]) -> int:
    """The program. Exit 0 after SIGTERM, 2 for wrong usage; anything else is a traceback."""
    if len(argv) != 2:
        print("usage: middlebox.py KEY SETTINGS", file=sys.stderr)
        return 2
    key, settings = argv[0], json.loads(argv[1])
    stop, middlebox = stop_socket(), Middlebox(key, settings)
    rules = RULES.format(key=key, cable=settings["cable"], source=settings["source"], port=settings["port"], mark=MARK)
    before_ns = time.monotonic_ns()
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    emit(**{"in": before_ns})
    middlebox.run(stop)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
