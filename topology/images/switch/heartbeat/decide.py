# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Decides what happens to each message. Pure: the same settings and messages give the same decisions everywhere.

Standard library only. All times are nanoseconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass

MS = 1_000_000
OVERTAKEN_WITHIN_MS = 5000
"""How long a message waits to be overtaken: 10 of heartbeat's usual intervals; then the sender is silent."""


def draw(seed: int, path: str, sender: str, seq: int | None) -> float:
    """A number from 0 up to 1 that depends only on the arguments: not on timing, nor on earlier draws."""
    key = f"{seed}/{path}/{sender}/{seq}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") / 2**64


@dataclass(frozen=True)
class Heard:
    """What decisions depend on. A message without a sequence number has the number of the message it acknowledges."""

    type: str
    seq: int | None = None
    ackseq: int | None = None


@dataclass(frozen=True)
class Choice:
    """Which messages are chosen."""

    sender: str
    path: str
    types: tuple[str, ...] = ()
    first_seq: int | None = None
    last_seq: int | None = None
    rate: float = 1.0
    seed: int = 0

    def takes(self, message: Heard) -> bool:
        """True for a chosen message. A message without a sequence number is in no range of numbers."""
        if self.types and message.type not in self.types:
            return False
        if self.first_seq is not None and (message.seq is None or message.seq < self.first_seq):
            return False
        if self.last_seq is not None and (message.seq is None or message.seq > self.last_seq):
            return False
        number = message.ackseq if message.seq is None else message.seq
        return draw(self.seed, self.path, self.sender, number) < self.rate


@dataclass(frozen=True)
class Verb:
    """What happens to the chosen messages."""

    name: str
    """``drop``, ``delay``, ``duplicate``, ``reorder``, ``replay`` or ``corrupt``."""
    delay_ms: int = 0
    """``delay``: how late it is sent. ``replay``: how much later it is sent again."""
    copies: int = 1
    """``duplicate``: number of additional copies. ``reorder``: number of later messages that overtake it."""


@dataclass(frozen=True)
class LogLine:
    """A line of the log: the decision about a message, or its later effect."""

    message: Heard
    decision: str = ""
    effect: str = ""
    """Only once it has happened."""


@dataclass
class _Held:
    message: Heard
    frame: bytes
    left: int
    until_ns: int


class Decider:
    """Decides about the messages of one sender on one path, in the order in which they arrive.

    ``send`` puts a frame on the cable, ``spoil`` returns it with a wrong signature, ``log`` gets the lines of the log.
    """

    def __init__(
        self,
        choice: Choice,
        verb: Verb,
        send: Callable[[bytes], None],
        spoil: Callable[[bytes], bytes],
        log: Callable[[LogLine], None],
    ) -> None:
        self.choice, self.verb = choice, verb
        self.send, self.spoil, self.log = send, spoil, log
        self._later: list[tuple[int, int, Heard, bytes]] = []
        self._order = itertools.count()
        self._held: _Held | None = None

    def decide(self, message: Heard, frame: bytes, now_ns: int) -> None:
        """A message arrived."""
        if not self.choice.takes(message) or (self.verb.name == "reorder" and self._held):
            self.send(frame)
            self.log(LogLine(message, "pass"))
            self._overtaken()
            return
        effect = getattr(self, f"_{self.verb.name}")(message, frame, now_ns)
        self.log(LogLine(message, self.verb.name, effect))

    def due_ns(self) -> int | None:
        """When ``pass_time`` has something to do."""
        times = [at_ns for at_ns, *_ in self._later[:1]] + ([self._held.until_ns] if self._held else [])
        return min(times, default=None)

    def pass_time(self, now_ns: int) -> None:
        """Send what is due."""
        while self._later and self._later[0][0] <= now_ns:
            _, _, message, frame = heapq.heappop(self._later)
            self.send(frame)
            came = "again after" if self.verb.name == "replay" else "late, by"
            self.log(LogLine(message, effect=f"arrived {came} {self.verb.delay_ms} ms"))
        if self._held and self._held.until_ns <= now_ns:
            self._send_held("")

    def flush(self) -> None:
        """Send everything that was not sent yet, and nothing twice."""
        if self._held:
            self._send_held("")
        while self._later:
            *_, frame = heapq.heappop(self._later)
            if self.verb.name == "delay":
                self.send(frame)

    def _drop(self, *_: object) -> str:
        return "was dropped"

    def _delay(self, message: Heard, frame: bytes, now_ns: int) -> str:
        heapq.heappush(self._later, (now_ns + self.verb.delay_ms * MS, next(self._order), message, frame))
        return ""

    def _duplicate(self, _: Heard, frame: bytes, *__: object) -> str:
        for _copy in range(1 + self.verb.copies):
            self.send(frame)
        return f"arrived {1 + self.verb.copies} times"

    def _reorder(self, message: Heard, frame: bytes, now_ns: int) -> str:
        self._held = _Held(message, frame, self.verb.copies, now_ns + OVERTAKEN_WITHIN_MS * MS)
        return ""

    def _replay(self, message: Heard, frame: bytes, now_ns: int) -> str:
        self.send(frame)
        return self._delay(message, frame, now_ns)

    def _corrupt(self, _: Heard, frame: bytes, *__: object) -> str:
        self.send(self.spoil(frame))
        return "arrived with a wrong signature"

    def _overtaken(self) -> None:
        if self._held:
            self._held.left -= 1
            if self._held.left <= 0:
                self._send_held(f"arrived behind {self.verb.copies} of its successors")

    def _send_held(self, effect: str) -> None:
        held, self._held = self._held, None
        if held:
            self.send(held.frame)
            self.log(LogLine(held.message, effect=effect))
