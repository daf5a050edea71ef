"""The middlebox for heartbeat's messages in virtual time: it decides as the one in a real switch does.

Here a message is read by ``harness.formats.heartbeat``. The real one reads it with scapy, in a process of its own.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.formats import heartbeat
from harness.frames import UDP_HEADER, ipv4_of, rewritten
from harness.wait import Clock
from topology.lab.virtual.simulator import Frame, Simulator

if TYPE_CHECKING:
    import decide
else:
    PATH = Path(__file__).parents[2] / "images/switch/heartbeat/decide.py"
    spec = spec_from_file_location("monkeywrench_decide", PATH)
    decide = module_from_spec(spec)
    sys.modules[spec.name] = decide  # dataclasses look their module up
    spec.loader.exec_module(decide)

__all__ = ["Middlebox", "Outlet"]


class Outlet:
    """Where the frames of one rule go on."""

    def __init__(self, simulator: Simulator, place: str, rule: str) -> None:
        self._simulator, self._place, self._rule = simulator, place, rule

    def verdict(self, frame: Frame, what: str) -> None:
        """A held frame passes, or is dropped."""
        self._simulator.post("verdict", frame.number, what)

    def send(self, data: bytes, now_ns: int) -> None:
        """A frame goes on now, from behind the rule: the rules before it have seen the original."""
        self._simulator.post("inject", self._place, "in", now_ns, base64.b64encode(data).decode(), self._rule)

    @property
    def now_ns(self) -> int:
        """The virtual time."""
        return self._simulator.now_ns


class Middlebox:
    """One sender's messages on their way into one cable."""

    def __init__(self, settings: Mapping[str, Any], outlet: Outlet, clock: Clock) -> None:
        choice = decide.Choice(**{**settings["choice"], "types": tuple(settings["choice"]["types"])})
        self._decider = decide.Decider(choice, decide.Verb(**settings["verb"]), self._send, spoilt, self._log)
        self._outlet, self._clock = outlet, clock
        self._frame: Frame | None = None
        """The frame that waits for its verdict."""
        self._now_ns = outlet.now_ns
        self._ended = False
        self._timers = set[int]()
        self.lines: list[dict[str, Any]] = []

    def held(self, frame: Frame) -> None:
        """Decide about a frame, while time stands still."""
        self._frame, self._now_ns = frame, frame.time_ns
        try:
            message = heard(frame.data)
        except heartbeat.MalformedError as error:
            self._send(frame.data)
            self.lines.append({"t": frame.time_ns, "decision": "pass", "why": str(error)})
        else:
            self._decider.decide(message, frame.data, frame.time_ns)
        if self._frame:
            self._outlet.verdict(frame, "drop")
        self._frame = None
        self._set_timer()

    def end(self) -> None:
        """Decide no more; what is held back goes on."""
        if not self._ended:
            self._ended, self._now_ns = True, self._outlet.now_ns
            self._decider.flush()

    def _set_timer(self) -> None:
        due_ns = self._decider.due_ns()
        if due_ns is not None and due_ns not in self._timers:
            self._timers.add(due_ns)
            self._clock.spawn(lambda: self._pass_time(due_ns), "middlebox")

    def _pass_time(self, due_ns: int) -> None:
        self._clock.sleep((due_ns - self._outlet.now_ns) / 1e9)
        if not self._ended:
            self._now_ns = self._outlet.now_ns
            self._decider.pass_time(self._now_ns)
            self._set_timer()

    def _send(self, data: bytes) -> None:
        """The original goes on itself; each further frame is made for it."""
        frame = self._frame
        if frame and data == frame.data:
            self._outlet.verdict(frame, "pass")
            self._frame = None
        else:
            self._outlet.send(data, self._now_ns)

    def _log(self, line: decide.LogLine) -> None:
        numbers = {"seq": line.message.seq, "ackseq": line.message.ackseq}
        more = {"decision": line.decision, "effect": line.effect}
        found = {name: value for name, value in (numbers | more).items() if value not in (None, "")}
        self.lines.append({"t": self._now_ns, "type": line.message.type, **found})


def heard(frame: bytes) -> decide.Heard:
    """The message in a frame, for the decider. Raises MalformedError. Pure."""
    found = heartbeat.entries(payload(frame))
    numbers = [heartbeat.number(found, name) for name in ("seq", "ackseq")]
    return decide.Heard(found.get("t", b"").decode("latin-1"), *numbers)


def spoilt(frame: bytes) -> bytes:
    """The same frame with a wrong signature, and the checksum that goes with it. Pure."""
    return rewritten(frame, heartbeat.spoilt(payload(frame)))


def payload(frame: bytes) -> bytes:
    """The content of a datagram. Raises MalformedError. Pure."""
    packet = ipv4_of(frame)
    if packet is None or len(packet.content) < UDP_HEADER:
        raise heartbeat.MalformedError("no datagram")
    return packet.content[UDP_HEADER:]
