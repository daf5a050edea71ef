"""The guest's end of the control channel: a serial line, which no network fault can cut.

The chassis sends lines of at most FRAME_BYTES and waits for a ``+`` after each, because the line discipline of a serial
port drops or stalls input that comes faster than it is read. A frame starts with ``-`` (more follows) or ``.`` (last).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import tty

sys.path.insert(0, os.path.dirname(__file__))  # python -I leaves this folder out of the path
from wire import WATCH_EVERY_MS, Addresses, Children, Jobs, Lines, Poller, encode

TYPE_CHECKING = False  # as in wire.py
if TYPE_CHECKING:
    from wire import Message


class Agent:
    """Carries out the requests of the chassis."""

    def __init__(self, port: str) -> None:
        self.fd = os.open(port, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self.fd)
        self.poller, self.lines, self.frame = Poller(), Lines(), b""
        self.jobs = Jobs(self.poller)
        self.addresses = Addresses()
        self.watched, self.next_sample = False, 0.0
        self.poller.add(self.fd, self.readable)
        self.poller.add(self.addresses.fileno(), self.addresses_changed)
        Children(self.poller, self.jobs.reaped)

    def write(self, data: bytes) -> None:
        """Write all of it: a serial line accepts only what fits."""
        while data:
            data = data[os.write(self.fd, data) :]

    def send(self, message: Message) -> None:
        """Send one message to the chassis."""
        self.write(encode(message))

    def readable(self) -> None:
        """Frames arrived; a message is handled at its last frame."""
        for line in self.lines.feed(os.read(self.fd, 65536)):
            if not line:
                continue  # a nudge: see serial.py
            self.write(b"+\n")
            self.frame += line[1:]
            if line[:1] == b".":
                message, self.frame = self.frame, b""
                self.handle(json.loads(message))

    def handle(self, message: Message) -> None:
        """Carry out one request."""
        key, verb = message["id"], message["do"]

        def reply(answer: Message) -> None:
            self.send({"id": key, **answer})

        if verb == "exec":
            self.jobs.start(key, message["argv"], reply)
        elif verb == "signal":
            self.jobs.signal(message["job"], message["number"])
        elif verb == "forget":
            for job in self.jobs.running():
                self.jobs.signal(job, signal.SIGKILL)
        elif verb == "addresses":
            reply({"addresses": self.addresses.now(), "done": 0})
        elif verb == "watch":
            self.watched = message["on"]
            self.sample()
        else:
            reply({"error": f"unknown request {verb!r}"})

    def addresses_changed(self) -> None:
        """The kernel reports that an address was added or removed."""
        self.addresses.drain()
        if self.watched:
            self.sample()

    def sample(self) -> None:
        """Send the addresses to the chassis, changed or not: silence would look like a dead agent."""
        self.send({"id": 0, "addresses": self.addresses.now()})
        self.next_sample = time.monotonic() + WATCH_EVERY_MS / 1000

    def run(self) -> None:
        """Serve until the machine goes down."""
        self.send({"id": 0, "hello": os.uname().release, "monotonic_ns": time.monotonic_ns()})
        while True:
            wait_ms = max(0, (self.next_sample - time.monotonic()) * 1000) if self.watched else None
            self.poller.turn(wait_ms)
            if self.watched and time.monotonic() >= self.next_sample:
                self.sample()


Agent(sys.argv[1]).run()
