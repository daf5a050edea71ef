"""The agent of a node whose console ends in the simulator: requests, and the answers with their virtual times."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from harness.tasks import Mailbox, Timeline
from topology.lab.virtual.simulator import Simulator

__all__ = ["FRAME_BYTES", "Guest", "Message"]

Message = dict[str, Any]

FRAME_BYTES = 1000
"""Below the 4096 bytes that a terminal's line discipline buffers (n_tty.c, N_TTY_BUF_SIZE)."""


class Guest:
    """Requests to one agent, and what it sends on its own."""

    def __init__(self, name: str, simulator: Simulator, timeline: Timeline) -> None:
        self.name = name
        self._simulator, self._timeline = simulator, timeline
        # Whoever used the lab before may have left jobs there: no number is used twice.
        self._next = simulator.now_ns + 1
        self._rest = b""
        self._frames: list[bytes] = []
        self._in_flight = False
        self._calls: dict[int, Mailbox[Message]] = {}
        self.hello: Mailbox[Message] = Mailbox(timeline)
        self.on_addresses: Callable[[int, list[str]], None] = lambda _time_ns, _addresses: None

    def start(self, request: Message) -> int:
        """Send a request; -> the number under which its answers are read."""
        number, self._next = self._next, self._next + 1
        self._calls[number] = Mailbox(self._timeline)
        self._send({**request, "id": number})
        return number

    def answer(self, number: int, timeout_s: float | None) -> Message:
        """The next answer. Raises TimeoutError, and KeyError for a request that has ended."""
        message = self._calls[number].get(timeout_s)
        if "done" in message or "error" in message:
            self._calls.pop(number, None)
        return message

    def tell(self, request: Message) -> None:
        """A request without an answer."""
        self._send({**request, "id": 0})

    def signal(self, number: int, what: int) -> None:
        """Signal the job of a request, if it still runs."""
        if number in self._calls:
            self.tell({"do": "signal", "job": number, "number": what})

    def running(self) -> list[int]:
        """The requests that have not ended."""
        return list(self._calls)

    def down(self, time_ns: int) -> None:
        """The machine is down: its requests ended with it, and what was not sent is dropped."""
        self._rest, self._frames, self._in_flight = b"", [], False
        for box in self._calls.values():
            box.put({"t": time_ns, "error": "the machine went down"})

    def heard(self, time_ns: int, data: bytes) -> None:
        """Bytes of the agent."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            text = line.strip(b"\r")
            if text == b"+":
                self._in_flight = False
                self._next_frame()
            elif text:
                self._received(time_ns, json.loads(text))

    def _received(self, time_ns: int, message: Message) -> None:
        if "hello" in message:
            self.hello.put(message)
        elif message["id"] == 0:
            if "addresses" in message:
                self.on_addresses(time_ns, message["addresses"])
        elif message["id"] in self._calls:
            self._calls[message["id"]].put({"t": time_ns, **message})

    def _send(self, message: Message) -> None:
        data = json.dumps(message, separators=(",", ":")).encode()
        pieces = [data[at : at + FRAME_BYTES] for at in range(0, len(data), FRAME_BYTES)]
        self._frames += [(b"." if piece is pieces[-1] else b"-") + piece + b"\n" for piece in pieces]
        self._next_frame()

    def _next_frame(self) -> None:
        if self._frames and not self._in_flight:
            self._in_flight = True
            self._simulator.say(self.name, self._frames.pop(0))
