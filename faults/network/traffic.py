"""Faults of how a cable carries its traffic: delayed, jittered, duplicated, reordered, corrupted, slow.

All are done by the machine's own kernel (tc-netem(8)) at its end of the cable, and compose: see the program ``shape``.
They are proven from the switch, which asks the node for answers and measures them on the cable: see ``probe``.
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

from faults.fault import EVERY_S, PROOF_WITHIN_S, Change, must, running
from faults.network.cables import FRAMES, PROGRAMS, CableFault, ended, neighbours, plugged
from faults.network.nft import Frames
from harness.protocols import Lab, Node
from harness.records import Cable, Undo
from harness.wait import NotYet, until

SHAPE = f"{PROGRAMS}/shape"
PROBE = f"{PROGRAMS}/probe"
ECHO = f"{FRAMES} echo"
"""Answers datagrams while they are what is asked with; it ends by itself, but an undo does not wait for that."""

STATE = "/run/monkeywrench/faults/shape-"

MOST_QUESTIONS = 600
"""Asked for one proof: more would take the node seconds to answer."""

TOLD = {"any": "icmp"}
"""The protocol in which a node is asked."""


@dataclass(frozen=True)
class Answers:
    """What came back: each time in ms, in the order of the answers."""

    rtt_ms: tuple[float, ...]
    order: tuple[int, ...]
    again: int
    damaged: int
    span_ms: float

    @property
    def overtaken(self) -> int:
        """How many answers came after one of a later question."""
        return sum(later < earlier for earlier, later in pairwise(self.order))


@dataclass(frozen=True)
class Questions:
    """How a node is asked."""

    count: int
    size: int = 64
    every_ms: int = 5


LOOKS = 3
"""Before the fault: a machine that stands still for a moment must not be taken for its usual self."""


def usual(lab: Lab, cable: Cable, frames: Frames, questions: Questions) -> Answers:
    """What comes back while nothing is wrong: the best of some looks. Raises Timeout."""
    what = f"answers of {cable.name} before the fault"
    looks = [
        until(lambda: answered(ask(lab, cable, frames, questions)), PROOF_WITHIN_S, what, EVERY_S) for _ in range(LOOKS)
    ]
    return min(looks, key=lambda each: (-len(each.rtt_ms), each.span_ms))


class _Shaped(CableFault):
    """A fault of a cable that the machine's own kernel does."""

    kind: ClassVar[str]
    asked_in: ClassVar[tuple[str, ...]] = ("any", "icmp", "tcp", "udp")
    """The protocols in which its effect can be proven."""

    @property
    @abstractmethod
    def numbers(self) -> tuple[float, ...]:
        """What the kind takes, as the program ``shape`` says."""

    @property
    @abstractmethod
    def questions(self) -> Questions:
        """What shows it."""

    @abstractmethod
    def effect(self, before: Answers, now: Answers) -> str:
        """What the answers show. Raises NotYet while they do not. Pure."""

    def possible(self, lab: Lab, cable: Cable) -> str | None:
        """Needs a kernel with netem, which is the machine's own, and a protocol in which it can be seen."""
        if lab.node(cable.node).kernel != "uml":
            return f"{cable.node} is on the host's kernel, which has no netem: {self.name} needs a kernel of its own"
        if self.protocol not in self.asked_in:
            return f"{self.name} of {self.protocol} alone cannot be proven; it can of {', '.join(self.asked_in)}"
        return None

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change for each direction."""
        cable = plugged(lab, self.cable)
        node = running(lab.node(cable.node))
        before = usual(lab, cable, self.frames, self.questions)
        proven: list[str] = []

        def effect() -> str:
            if not proven:
                proven.append(self.seen(lab, cable, before))
            return proven[0]

        return [self._change(node, cable, way, effect) for way in self.ways]

    def seen(self, lab: Lab, cable: Cable, before: Answers) -> str:
        """Look once. Raises NotYet."""
        return self.effect(before, ask(lab, cable, self.frames, self.questions))

    def _change(self, node: Node, cable: Cable, way: str, effect: Callable[[], str]) -> Change:
        claim = f"{self.kind} {way} {cable.name} ({self.frames})"
        place = shaping(self.kind, way, cable, self.frames)
        put = (SHAPE, "put", *place, self.protocol, str(self.port or 0), self.kind, *(f"{n:g}" for n in self.numbers))

        def proof() -> str:
            seen = effect()  # of all directions together, and then of each that frames pass through it
            passed(node, cable, way)
            return seen if way == self.ways[0] else f"frames {way} {cable.name} pass through its netem too"

        def gone() -> None:
            if node.exec("test", "-e", STATE + place[0]).ok:
                raise NotYet(f"{place[0]} is still there")

        undo = [Undo((SHAPE, "drop", *place))]
        if self.protocol == "udp":
            undo.append(ended(ECHO))
        return Change(node, claim, lambda: must(node, *put, timeout_s=20), tuple(undo), proof, gone, again=(Undo(put),))


class Delay(_Shaped):
    """Delay all frames of a cable, in each direction."""

    name: ClassVar[str] = "network.delay"
    kind: ClassVar[str] = "delay"
    asked_in: ClassVar[tuple[str, ...]] = ("any", "icmp", "tcp", "udp", "arp")
    delay_ms: int = Field(100, ge=20, le=2000, description="In each direction")

    @property
    def numbers(self) -> tuple[float, ...]:
        """The delay."""
        return (self.delay_ms,)

    @property
    def questions(self) -> Questions:
        """A few; of ARP one, because its answers cannot be told apart."""
        return Questions(1 if self.protocol == "arp" else 5)

    def effect(self, before: Answers, now: Answers) -> str:
        """Even the quickest answer is later by that."""
        took_ms, took_before_ms = least_ms(now), least_ms(before)
        if took_ms - took_before_ms < 0.8 * self.delay_ms * len(self.ways):
            raise NotYet(f"the round trip took {took_before_ms:g} ms, and takes {took_ms:g} ms")
        return f"{self.cable}: the round trip took {took_before_ms:g} ms, and takes {took_ms:g} ms"


class Jitter(_Shaped):
    """Delay each frame of a cable by another time, from none to twice ``jitter_ms``; so some overtake others."""

    name: ClassVar[str] = "network.jitter"
    kind: ClassVar[str] = "jitter"
    jitter_ms: int = Field(50, ge=20, le=500, description="The mean, and how far it goes to either side")

    @property
    def numbers(self) -> tuple[float, ...]:
        """The jitter."""
        return (self.jitter_ms,)

    @property
    def questions(self) -> Questions:
        """Enough to see a range."""
        return Questions(25)

    def effect(self, before: Answers, now: Answers) -> str:
        """The answers differ by that, and are later by the mean."""
        later_ms = middle_ms(now) - middle_ms(before)
        range_ms = max(now.rtt_ms) - min(now.rtt_ms)
        if later_ms < 0.5 * self.jitter_ms * len(self.ways) or range_ms < self.jitter_ms:
            raise NotYet(f"the round trip takes {later_ms:.0f} ms more, give or take {range_ms / 2:.0f} ms")
        return f"{self.cable}: the round trip takes {min(now.rtt_ms):g} to {max(now.rtt_ms):g} ms"


class _Chance(_Shaped):
    """A fault of some frames, by chance."""

    percent: float = Field(10, ge=1, le=100, description="Of the frames in each direction")

    @property
    def numbers(self) -> tuple[float, ...]:
        """The chance."""
        return (self.percent,)

    @property
    def questions(self) -> Questions:
        """As many as show it, 95 times of a hundred."""
        return Questions(min(MOST_QUESTIONS, max(20, math.ceil(300 / self.percent))), every_ms=2)


class Duplicate(_Chance):
    """Send some frames of a cable twice."""

    name: ClassVar[str] = "network.duplicate"
    kind: ClassVar[str] = "duplicate"

    def effect(self, before: Answers, now: Answers) -> str:
        """Some answers come twice."""
        if not now.again:
            raise NotYet(f"of {len(now.rtt_ms)} answers none came twice")
        return f"{self.cable}: of {len(now.rtt_ms)} answers {now.again} came twice"


class Reorder(_Chance):
    """Let some frames of a cable overtake the others, which are delayed for that."""

    name: ClassVar[str] = "network.reorder"
    kind: ClassVar[str] = "reorder"
    percent: float = Field(25, ge=1, le=99, description="Of the frames in each direction: these go at once")
    by_ms: int = Field(50, ge=20, le=500, description="How long the others are delayed")

    @property
    def numbers(self) -> tuple[float, ...]:
        """The chance, and the delay."""
        return (self.percent, self.by_ms)

    def effect(self, before: Answers, now: Answers) -> str:
        """Some answers come before those of earlier questions."""
        if not now.overtaken:
            raise NotYet(f"{len(now.rtt_ms)} answers came in order")
        return f"{self.cable}: of {len(now.rtt_ms)} answers {now.overtaken} were overtaken"


class Corrupt(_Chance):
    """Flip a bit of some frames of a cable."""

    name: ClassVar[str] = "network.corrupt"
    kind: ClassVar[str] = "corrupt"

    @property
    def questions(self) -> Questions:
        """Long ones, so that what is flipped is mostly theirs, not an address."""
        return replace(super().questions, size=400)

    def effect(self, before: Answers, now: Answers) -> str:
        """Of what comes from the node, some checksums are wrong."""
        if not now.damaged:
            raise NotYet(f"of {len(now.rtt_ms)} answers no checksum was wrong")
        return f"{self.cable}: {now.damaged} answers with a wrong checksum"

    def seen(self, lab: Lab, cable: Cable, before: Answers) -> str:
        """Of what comes to the node, its kernel finds wrong checksums; what comes from it, the switch does."""
        node = lab.node(cable.node)
        errors = checksum_errors(node)
        now = ask(lab, cable, self.frames, self.questions)
        told = [self.effect(before, now)] if "from" in self.ways else []
        if "to" in self.ways:
            if not (found := checksum_errors(node) - errors):
                raise NotYet(f"{node.name} found no wrong checksum")
            told.append(f"{node.name} found {found} wrong checksums")
        return "; ".join(told)


class Rate(_Shaped):
    """Let a cable carry no more than so much, in each direction; frames wait for their turn."""

    name: ClassVar[str] = "network.rate"
    kind: ClassVar[str] = "rate"
    asked_in: ClassVar[tuple[str, ...]] = ("any", "icmp", "udp")
    kbit: int = Field(256, ge=64, le=2000, description="kbit/s")

    @property
    def numbers(self) -> tuple[float, ...]:
        """The rate."""
        return (self.kbit,)

    @property
    def questions(self) -> Questions:
        """Big ones, all at once, as many as take 300 ms at that rate."""
        return Questions(max(4, math.ceil(self.kbit * 0.3 / WIRE_KBIT)), BIG_BYTES, 0)

    def effect(self, before: Answers, now: Answers) -> str:
        """They come that slowly, and came quicker."""
        kbit, kbit_before = rate_kbit(now), rate_kbit(before)
        if kbit > 1.4 * self.kbit or kbit_before < 1.4 * kbit:
            raise NotYet(f"it carried {kbit_before:.0f} kbit/s, and carries {kbit:.0f} kbit/s")
        return f"{self.cable} carried {kbit_before:.0f} kbit/s, and carries {kbit:.0f} kbit/s"


BIG_BYTES = 1400
WIRE_KBIT = (BIG_BYTES + 14) * 8 / 1000
"""Such a packet in its frame."""


def shaping(kind: str, way: str, cable: Cable, frames: Frames) -> tuple[str, str, str]:
    """What a shaping is known by, its interface and its direction. Pure."""
    return (f"{kind}-{way}-{cable.interface}-{frames.protocol}-{frames.port or 0}", cable.interface, way)


def ask(lab: Lab, cable: Cable, frames: Frames, questions: Questions) -> Answers:
    """Ask a node from the switch."""
    sources = ",".join(each.addresses[0] for each in neighbours(lab, cable) if each.addresses)
    numbers = (frames.port or 0, questions.count, questions.size, questions.every_ms)
    protocol = TOLD.get(frames.protocol, frames.protocol)
    if protocol == "udp":
        must(lab.node(cable.node), *ECHO.split(), cable.interface, cable.addresses[0])
    argv = (PROBE, cable.name, cable.mac, cable.addresses[0], sources, protocol, *map(str, numbers))
    return parse_answers(must(lab.switch, *argv, timeout_s=30).stdout)


def answered(answers: Answers) -> Answers:
    """The same. Raises NotYet when none came."""
    if not answers.rtt_ms:
        raise NotYet("no answer came")
    return answers


def parse_answers(said: str) -> Answers:
    """What the program ``probe`` prints. Pure."""
    seen = json.loads(said)
    return Answers(tuple(seen["rtt_ms"]), tuple(seen["order"]), seen["again"], seen["damaged"], seen["span_ms"])


def least_ms(answers: Answers) -> float:
    """The quickest. Raises NotYet when there is none."""
    return min(answered(answers).rtt_ms)


def middle_ms(answers: Answers) -> float:
    """The median. Raises NotYet when there is none."""
    return median(answered(answers).rtt_ms)


def rate_kbit(answers: Answers) -> float:
    """What was carried. Raises NotYet when that cannot be told."""
    if len(answers.rtt_ms) < 3:
        raise NotYet(f"{len(answers.rtt_ms)} answers came")
    return len(answers.rtt_ms) * WIRE_KBIT / answers.span_ms * 1000


def passed(node: Node, cable: Cable, way: str) -> None:
    """See that frames pass the queue of a shaped direction. Raises NotYet."""
    device = cable.interface if way == "from" else f"mw-{cable.interface}"
    listed = json.loads(must(node, "tc", "-s", "-j", "qdisc", "show", "dev", device).stdout)
    if not any(each["kind"] == "netem" and each["packets"] + each["qlen"] for each in listed):
        raise NotYet(f"no frame has passed the netem of {device} on {node.name}")


def checksum_errors(node: Node) -> int:
    """Packets that the node's kernel has found damaged."""
    headers, total = dict[str, list[str]](), 0
    for line in must(node, "cat", "/proc/net/snmp").stdout.splitlines():
        group, *fields = line.split()
        if group not in headers:
            headers[group] = fields
            continue
        found = dict(zip(headers.pop(group), map(int, fields), strict=True))
        total += sum(found.get(key, 0) for key in ("InCsumErrors", "InHdrErrors"))
    return total
