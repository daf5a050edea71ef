"""Faults of a cable's traffic: delay, jitter, duplicates, reordering, corruption, a limited rate.

The node's own kernel makes them at its end of the cable (tc-netem(8), program ``shape``), and they can be combined.
The switch proves them: it asks the node for answers and measures them on the cable (program ``probe``).
A simulated switch makes them itself, and counts the frames.
"""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import ClassVar

from pydantic import Field

from faults.fault import EVERY_S, PROOF_WITHIN_S, Change, must, running, wires_of
from faults.network import rules
from faults.network.cables import (
    FRAMES,
    FULL_BYTES,
    MS_NS,
    Burst,
    CableFault,
    neighbours,
    plugged,
    send_simulated,
)
from faults.network.nft import Frames
from faults.programs import PROGRAMS, STATE, containing, ended
from harness.protocols import Lab, Node, Wires
from harness.records import Cable, EffectKind, LabError, Undo
from harness.wait import NotYet, until

SHAPE = f"{PROGRAMS}/shape"
PROBE = f"{PROGRAMS}/probe"
ECHO = f"{FRAMES} echo"
"""Answers the datagrams of a probe. It ends on its own, but an undo does not wait for that."""

SHAPED = f"{STATE}/shape-"

MOST_QUESTIONS = 600
"""Per proof: the node would take seconds to answer more."""

ASKED_IN = {"any": "icmp"}
"""The protocol of a fault -> the protocol of the probe, where they differ."""


@dataclass(frozen=True)
class Answers:
    """The answers: each round trip in ms, in the order of the answers."""

    rtt_ms: tuple[float, ...]
    order: tuple[int, ...]
    again: int
    damaged: int
    span_ms: float

    @property
    def overtaken(self) -> int:
        """Number of answers that came after the answer to a later question."""
        return sum(later < earlier for earlier, later in pairwise(self.order))


@dataclass(frozen=True)
class Questions:
    """How to probe a node."""

    count: int
    size: int = 64
    every_ms: int = 5


LOOKS = 3
"""Before the fault: a node that is paused for a moment must not set the baseline."""


def usual(lab: Lab, cable: Cable, frames: Frames, questions: Questions) -> Answers:
    """The answers before the fault: the best of some looks. Raises Timeout."""
    what = f"answers of {cable.name} before the fault"
    looks = [
        until(lambda: answered(ask(lab, cable, frames, questions)), PROOF_WITHIN_S, what, EVERY_S, lab.clock)
        for _ in range(LOOKS)
    ]
    return min(looks, key=lambda each: (-len(each.rtt_ms), each.span_ms))


class _Shaped(CableFault):
    """A fault of a cable that the node's own kernel makes."""

    kind: ClassVar[str]
    asked_in: ClassVar[tuple[str, ...]] = ("any", "icmp", "tcp", "udp")
    """The protocols whose effect can be proven."""

    @property
    @abstractmethod
    def numbers(self) -> tuple[float, ...]:
        """The arguments of the kind, as the program ``shape`` takes them."""

    @property
    @abstractmethod
    def questions(self) -> Questions:
        """The probe that shows it."""

    @property
    @abstractmethod
    def action(self) -> str:
        """What a simulated switch does to the frames."""

    @abstractmethod
    def effect(self, before: Answers, now: Answers) -> str:
        """What the answers show. Raises NotYet while they show no effect. Pure."""

    def require(self, lab: Lab, cable: Cable) -> None:
        """A kernel of its own with netem, and a protocol whose effect can be proven."""
        if lab.node(cable.node).kernel != "uml":
            raise LabError(
                f"{cable.node} runs on the host's kernel, which has no netem; {self.name} needs its own kernel"
            )
        if self.protocol not in self.asked_in and not wires_of(lab):
            raise LabError(f"{self.name} of {self.protocol} alone cannot be proven; use {', '.join(self.asked_in)}")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """A shaping for each direction."""
        cable = plugged(lab, self.cable)
        if wires := wires_of(lab):
            return [self.simulated(lab, wires, cable)]
        node = running(lab.node(cable.node))
        before = usual(lab, cable, self.frames, self.questions)
        proven: list[str] = []

        def effect() -> str:
            if not proven:
                proven.append(self.seen(lab, cable, before))
            return proven[0]

        return [self._change(node, cable, way, effect) for way in self.ways]

    def simulated(self, lab: Lab, wires: Wires, cable: Cable) -> Change:
        """The same by a rule for each direction."""
        name = wires.fresh(self.kind)
        made = rules.each_way(name, cable, self.ways, self.action, rules.pcap(self.frames))
        burst = Burst(self.frames, self.questions.count if isinstance(self, _Chance) else 1)

        def proof() -> str:
            hits = rules.of_all(wires, made, lambda way: send_simulated(lab, wires, cable, way, burst))
            return f"{cable.name}: the switch has done `{self.action}` to {rules.shares(hits)}"

        return rules.change(lab, wires, name, made, proof)

    def seen(self, lab: Lab, cable: Cable, before: Answers) -> str:
        """Look once. Raises NotYet."""
        return self.effect(before, ask(lab, cable, self.frames, self.questions))

    def _change(self, node: Node, cable: Cable, way: str, effect: Callable[[], str]) -> Change:
        claim = f"{self.kind} {way} {cable.name} ({self.frames})"
        place = shaping(self.kind, way, cable, self.frames)
        put = (SHAPE, "put", *place, self.protocol, str(self.port or 0), self.kind, *(f"{n:g}" for n in self.numbers))

        def proof() -> str:
            seen = effect()  # of both directions together; then that frames pass through each
            passed(node, cable, way)
            return seen if way == self.ways[0] else f"frames {way} {cable.name} pass through its netem, too"

        def gone() -> None:
            if node.exec("test", "-e", SHAPED + place[0]).ok:
                raise NotYet(f"{place[0]} still exists")

        undo = [Undo((SHAPE, "drop", *place))]
        if self.protocol == "udp":
            undo.append(ended(containing(ECHO)))
        return Change(node, claim, lambda: must(node, *put, timeout_s=20), tuple(undo), proof, gone, again=(Undo(put),))


class Delay(_Shaped):
    """Delay all frames of a cable."""

    name: ClassVar[str] = "network.delay"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.SLOWS,)
    kind: ClassVar[str] = "delay"
    asked_in: ClassVar[tuple[str, ...]] = ("any", "icmp", "tcp", "udp", "arp")
    delay_ms: int = Field(100, ge=20, le=2000, description="Delay in each direction, in ms")

    @property
    def numbers(self) -> tuple[float, ...]:
        """The delay in ms."""
        return (self.delay_ms,)

    @property
    def action(self) -> str:
        """All of them."""
        return f"delay ns={self.delay_ms * MS_NS}"

    @property
    def questions(self) -> Questions:
        """A few, but only 1 of ARP, whose answers have no number."""
        return Questions(1 if self.protocol == "arp" else 5)

    def effect(self, before: Answers, now: Answers) -> str:
        """Even the quickest answer is later by the delay."""
        took_ms, took_before_ms = least_ms(now), least_ms(before)
        if took_ms - took_before_ms < 0.8 * self.delay_ms * len(self.ways):
            raise NotYet(f"round trip {took_before_ms:g} ms before, {took_ms:g} ms now")
        return f"{self.cable}: the round trip took {took_before_ms:g} ms and now takes {took_ms:g} ms"


class Jitter(_Shaped):
    """Delay each frame of a cable by a random time, so that some frames overtake others."""

    name: ClassVar[str] = "network.jitter"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.SLOWS,)
    kind: ClassVar[str] = "jitter"
    jitter_ms: int = Field(50, ge=20, le=500, description="Mean delay in ms; delays range from 0 to twice the mean")

    @property
    def numbers(self) -> tuple[float, ...]:
        """The jitter in ms."""
        return (self.jitter_ms,)

    @property
    def action(self) -> str:
        """Evenly from 0 to twice the mean, as netem does."""
        return f"delay ns={self.jitter_ms * MS_NS} jitter={self.jitter_ms * MS_NS}"

    @property
    def questions(self) -> Questions:
        """Enough to show a range."""
        return Questions(25)

    def effect(self, before: Answers, now: Answers) -> str:
        """The answers vary by the jitter, and are later by the mean."""
        later_ms = middle_ms(now) - middle_ms(before)
        range_ms = max(now.rtt_ms) - min(now.rtt_ms)
        if later_ms < 0.5 * self.jitter_ms * len(self.ways) or range_ms < self.jitter_ms:
            raise NotYet(f"the round trip takes {later_ms:.0f} ms longer than before, within +/-{range_ms / 2:.0f} ms")
        return f"{self.cable}: the round trip takes {min(now.rtt_ms):g} to {max(now.rtt_ms):g} ms"


class _Chance(_Shaped):
    """A fault of a random share of frames."""

    percent: float = Field(10, ge=1, le=100, description="Percentage of frames in each direction")

    @property
    def numbers(self) -> tuple[float, ...]:
        """The percentage."""
        return (self.percent,)

    @property
    def questions(self) -> Questions:
        """Enough to show it with 95% probability."""
        return Questions(min(MOST_QUESTIONS, max(20, math.ceil(300 / self.percent))), every_ms=2)


class Duplicate(_Chance):
    """Duplicate a random share of a cable's frames."""

    name: ClassVar[str] = "network.duplicate"
    kind: ClassVar[str] = "duplicate"

    @property
    def action(self) -> str:
        """By chance."""
        return f"duplicate p={self.percent / 100:g}"

    def effect(self, before: Answers, now: Answers) -> str:
        """Some answers come twice."""
        if not now.again:
            raise NotYet(f"none of {len(now.rtt_ms)} answers came twice")
        return f"{self.cable}: {now.again} of {len(now.rtt_ms)} answers came twice"


class Reorder(_Chance):
    """Let a random share of a cable's frames overtake the others, which are delayed."""

    name: ClassVar[str] = "network.reorder"
    kind: ClassVar[str] = "reorder"
    percent: float = Field(25, ge=1, le=99, description="Percentage of frames in each direction that are sent at once")
    by_ms: int = Field(50, ge=20, le=500, description="Delay of the other frames, in ms")

    @property
    def numbers(self) -> tuple[float, ...]:
        """The percentage and the delay in ms."""
        return (self.percent, self.by_ms)

    @property
    def action(self) -> str:
        """By chance, those that are not sent at once."""
        return f"delay ns={self.by_ms * MS_NS} p={1 - self.percent / 100:g}"

    def effect(self, before: Answers, now: Answers) -> str:
        """Some answers come before the answer to an earlier question."""
        if not now.overtaken:
            raise NotYet(f"{len(now.rtt_ms)} answers came in order")
        return f"{self.cable}: {now.overtaken} of {len(now.rtt_ms)} answers were overtaken"


class Corrupt(_Chance):
    """Flip a bit in a random share of a cable's frames."""

    name: ClassVar[str] = "network.corrupt"
    kind: ClassVar[str] = "corrupt"

    @property
    def action(self) -> str:
        """By chance."""
        return f"corrupt p={self.percent / 100:g}"

    @property
    def questions(self) -> Questions:
        """Long ones, so that the flipped bit is mostly in the content and not in an address."""
        return replace(super().questions, size=400)

    def effect(self, before: Answers, now: Answers) -> str:
        """Some checksums of frames from the node are wrong."""
        if not now.damaged:
            raise NotYet(f"no wrong checksum in {len(now.rtt_ms)} answers")
        return f"{self.cable}: {now.damaged} answers with a wrong checksum"

    def seen(self, lab: Lab, cable: Cable, before: Answers) -> str:
        """The node's kernel finds wrong checksums in what it receives, and the switch in what the node sends."""
        node = lab.node(cable.node)
        errors = checksum_errors(node)
        now = ask(lab, cable, self.frames, self.questions)
        shown = [self.effect(before, now)] if "from" in self.ways else []
        if "to" in self.ways:
            if not (found := checksum_errors(node) - errors):
                raise NotYet(f"{node.name} found no wrong checksum")
            shown.append(f"{node.name} found {found} wrong checksums")
        return "; ".join(shown)


class Rate(_Shaped):
    """Limit the rate of a cable; frames wait for their turn."""

    name: ClassVar[str] = "network.rate"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.SLOWS,)
    kind: ClassVar[str] = "rate"
    asked_in: ClassVar[tuple[str, ...]] = ("any", "icmp", "udp")
    kbit: int = Field(256, ge=64, le=2000, description="Rate in each direction, in kbit/s")

    @property
    def numbers(self) -> tuple[float, ...]:
        """The rate in kbit/s."""
        return (self.kbit,)

    @property
    def action(self) -> str:
        """With a queue as long as netem's."""
        return f"rate bits_per_s={self.kbit * 1000} queue={NETEM_LIMIT * FULL_BYTES}"

    @property
    def questions(self) -> Questions:
        """Long ones at once, as many as take 300 ms at that rate."""
        return Questions(max(4, math.ceil(self.kbit * 0.3 / WIRE_KBIT)), BIG_BYTES, 0)

    def effect(self, before: Answers, now: Answers) -> str:
        """The answers come at the limited rate, and came faster before."""
        kbit, kbit_before = rate_kbit(now), rate_kbit(before)
        if kbit > 1.4 * self.kbit or kbit_before < 1.4 * kbit:
            raise NotYet(f"{kbit_before:.0f} kbit/s before, {kbit:.0f} kbit/s now")
        return f"{self.cable} carried {kbit_before:.0f} kbit/s and now carries {kbit:.0f} kbit/s"


NETEM_LIMIT = 10_000
"""Frames that wait in the node's netem (program ``shape``)."""
BIG_BYTES = 1400
WIRE_KBIT = (BIG_BYTES + 14) * 8 / 1000
"""Such a packet with its frame, in kbit."""


def shaping(kind: str, way: str, cable: Cable, frames: Frames) -> tuple[str, str, str]:
    """The name, interface and direction of a shaping. Pure."""
    return (f"{kind}-{way}-{cable.interface}-{frames.protocol}-{frames.port or 0}", cable.interface, way)


def ask(lab: Lab, cable: Cable, frames: Frames, questions: Questions) -> Answers:
    """Probe a node from the switch."""
    sources = ",".join(each.addresses[0] for each in neighbours(lab, cable) if each.addresses)
    numbers = (frames.port or 0, questions.count, questions.size, questions.every_ms)
    protocol = ASKED_IN.get(frames.protocol, frames.protocol)
    if protocol == "udp":
        must(lab.node(cable.node), *ECHO.split(), cable.interface, cable.addresses[0])
    argv = (PROBE, cable.name, cable.mac, cable.addresses[0], sources, protocol, *map(str, numbers))
    return parse_answers(must(lab.switch, *argv, timeout_s=30).stdout)


def answered(answers: Answers) -> Answers:
    """The same answers. Raises NotYet when there is none."""
    if not answers.rtt_ms:
        raise NotYet("no answer came")
    return answers


def parse_answers(printed: str) -> Answers:
    """The answers that the program ``probe`` printed. Pure."""
    seen = json.loads(printed)
    return Answers(tuple(seen["rtt_ms"]), tuple(seen["order"]), seen["again"], seen["damaged"], seen["span_ms"])


def least_ms(answers: Answers) -> float:
    """The shortest round trip. Raises NotYet when there is none."""
    return min(answered(answers).rtt_ms)


def middle_ms(answers: Answers) -> float:
    """The median round trip. Raises NotYet when there is none."""
    return median(answered(answers).rtt_ms)


def rate_kbit(answers: Answers) -> float:
    """The rate of the answers. Raises NotYet when there are too few."""
    if len(answers.rtt_ms) < 3:
        raise NotYet(f"{len(answers.rtt_ms)} answers came")
    return len(answers.rtt_ms) * WIRE_KBIT / answers.span_ms * 1000


def passed(node: Node, cable: Cable, way: str) -> None:
    """See that frames pass through the queue of a shaped direction. Raises NotYet."""
    device = cable.interface if way == "from" else f"mw-{cable.interface}"
    listed = json.loads(must(node, "tc", "-s", "-j", "qdisc", "show", "dev", device).stdout)
    if not any(each["kind"] == "netem" and each["packets"] + each["qlen"] for each in listed):
        raise NotYet(f"no frame has passed through the netem of {device} on {node.name}")


def checksum_errors(node: Node) -> int:
    """Number of packets in which the node's kernel found a wrong checksum or header."""
    headers, total = dict[str, list[str]](), 0
    for line in must(node, "cat", "/proc/net/snmp").stdout.splitlines():
        group, *fields = line.split()
        if group not in headers:
            headers[group] = fields
            continue
        found = dict(zip(headers.pop(group), map(int, fields), strict=True))
        total += sum(found.get(key, 0) for key in ("InCsumErrors", "InHdrErrors"))
    return total
