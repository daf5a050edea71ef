"""The harness's end of the simulator's control socket. docs/virtual-time.md has the protocol."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from harness.records import LabError

__all__ = ["BEGIN_NS", "CONNECT", "FOLDER", "Frame", "Handler", "Simulator", "Wire"]

FOLDER = "/run/monkeywrench-sim"
"""In the switch and in all nodes: the folder of the simulator's sockets."""

BEGIN_NS = 1_893_456_000 * 1_000_000_000
"""The time of day at virtual time 0, 2030-01-01 00:00 UTC: later than the files of any image, and always the same."""

CONNECT = ["/usr/bin/python3", "-I", "-S", "/usr/lib/monkeywrench/connect.py", f"{FOLDER}/control"]


class Wire(Protocol):
    """Bytes to the simulator, and from it."""

    def send(self, data: bytes) -> None:
        """Write all of it."""

    def pieces(self) -> Iterator[bytes]:
        """What it writes, as it comes."""

    def close(self) -> None:
        """End the connection: time stands still."""


@dataclass(frozen=True)
class Frame:
    """A frame that a rule reports."""

    rule: str
    number: int
    time_ns: int
    place: str
    data: bytes


class Handler(Protocol):
    """Gets what happens while time passes."""

    def said(self, node: str, time_ns: int, data: bytes) -> None:
        """Bytes of a node's console."""

    def ended(self, node: str, time_ns: int) -> None:
        """A kernel ended on its own."""

    def framed(self, frame: Frame) -> None:
        """A frame matched a rule that tells."""


class Simulator:
    """Requests to the simulator, one at a time. Raises LabError with its sentence when it refuses one."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._lines = self._read(wire)
        self.now_ns = 0
        self.handler: Handler | None = None
        self._broken = ""
        self._changed: list[str] = []
        self._waiting: list[str] = []
        """Requests that are sent with the next one."""
        self.now_ns = int(self.ask("now")[0])

    @staticmethod
    def _read(wire: Wire) -> Iterator[str]:
        rest = b""
        for piece in wire.pieces():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield line.decode()

    def ask(self, *words: object) -> list[str]:
        """One request; -> the words of its answer. Events before the answer go to the handler."""
        self._broken = ""
        waiting, self._waiting = [*self._waiting, " ".join(str(word) for word in words)], []
        try:
            self._wire.send("".join(f"{line}\n" for line in waiting).encode())
            answers = [self._answer() for _ in waiting]
        except OSError:
            raise gone() from None
        for line, answer in zip(waiting, answers, strict=True):
            if answer[0] == "error":
                raise LabError(f"the simulator refused `{line[:200]}`: {' '.join(answer[1:])}")
        if self._broken:
            raise LabError(self._broken)
        return answers[-1][1:]

    def changed(self) -> list[str]:
        """All rules, cut cables and nodes that get no time."""
        self._changed.clear()
        self.ask("changed")
        return list(self._changed)

    def post(self, *words: object) -> None:
        """A request without a result, before time goes on. Safe to call while an event is handled."""
        self._waiting.append(" ".join(str(word) for word in words))

    def say(self, node: str, data: bytes) -> None:
        """Bytes to a node's console, before time goes on. Safe to call while an event is handled."""
        self.post("say", node, base64.b64encode(data).decode())

    def forget(self, node: str) -> None:
        """A kernel is gone: its connections and what is on the way to it are dropped. As safe as ``say``."""
        self.post("gone", node)

    def time_of_day_ns(self) -> int:
        """The right time of day, in ns since 1970."""
        return BEGIN_NS + self.now_ns

    def _answer(self) -> list[str]:
        """The words of the next answer, ``ok`` or ``error`` first."""
        for answer in self._lines:
            if answer.startswith("+"):
                self._event(answer[1:].split(" "))
            elif answer.startswith("refused"):
                raise LabError(
                    "the lab is driven by another process: in virtual time there is one at a time",
                    "Wait for it to end, or stop it.",
                )
            else:
                return answer.split(" ")
        raise gone()

    def run(self, until_ns: int) -> None:
        """Let time pass until then, or until a node said something."""
        answer = self.ask("run", until_ns, "*")
        self.now_ns = int(answer[0])
        if answer[1] == "spin":
            raise LabError(
                f"{answer[2]} computed for 30 s within one instant of virtual time: a program there loops for ever",
                "Look at its console, or run this on a lab in real time (--clock real).",
            )

    def close(self) -> None:
        """Let go of the lab: its time stands still."""
        self._wire.close()

    def _event(self, words: list[str]) -> None:
        if words[0] == "changed":
            self._changed.append(" ".join(words[1:]))
        handler = self.handler
        if handler is None:
            return
        if words[0] == "said":
            handler.said(words[1], int(words[2]), base64.b64decode(words[3]))
        elif words[0] == "lost":
            handler.ended(words[1], int(words[2]))
        elif words[0] == "frame":
            handler.framed(Frame(words[1], int(words[2]), int(words[3]), words[4], base64.b64decode(words[5])))
        elif words[0] == "broken":
            self._broken = f"{words[1]}: its kernel broke the protocol of its devices: {' '.join(words[3:])}"


def gone() -> LabError:
    """The simulator ended, and with it the lab's time."""
    return LabError("the simulator is gone", "Run `monkeywrench down`, then `monkeywrench up`, for a new lab.")
