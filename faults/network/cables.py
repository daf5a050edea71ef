"""Faults of the network between the machines: cables that are cut, lossy or slow, and partitions. All in the switch."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from faults.fault import Change, SimpleFault, must, seen, sh
from faults.network import nft
from faults.network.nft import Frames, Hook
from harness.protocols import Lab, Node
from harness.records import Cable, LabError, Undo
from harness.wait import NotYet

PROGRAMS = "/usr/lib/monkeywrench/faults"
FRAMES = f"{PROGRAMS}/frames"
DETACH = "/usr/lib/monkeywrench/detach"
"""Starts a program that outlives the command that started it."""

FULL_BYTES = 1500
"""The MTU of every segment."""

Direction = Literal["both", "from", "to"]
Protocol = Literal["any", "tcp", "udp", "icmp", "arp"]


class CableFault(SimpleFault):
    """A fault of one cable: of all its frames, or of some."""

    cable: str = Field(min_length=1, description="Its name: node.interface, such as lb-1.eth0")
    direction: Direction = Field("both", description="Frames from the node, to the node, or both")
    protocol: Protocol = Field("any", description="Only frames of this protocol")
    port: int | None = Field(None, ge=1, le=65535, description="Only frames from or to this port (tcp or udp)")

    @model_validator(mode="after")
    def _has_ports(self) -> Self:
        if self.port is not None and self.protocol not in {"tcp", "udp"}:
            raise ValueError(f"a port needs the protocol tcp or udp, not {self.protocol}")
        return self

    @property
    def frames(self) -> Frames:
        """Which frames of the cable it takes."""
        return Frames(self.protocol, self.port)

    @property
    def ways(self) -> tuple[str, ...]:
        """The directions it works in."""
        return ("from", "to") if self.direction == "both" else (self.direction,)

    def available(self, lab: Lab) -> str | None:
        """None, or the reason why this lab cannot do it."""
        try:
            return self.possible(lab, plugged(lab, self.cable))
        except LabError as error:
            return f"{error} {error.next_step}".strip()

    def possible(self, lab: Lab, cable: Cable) -> str | None:
        """None, or the reason why this cable cannot have it."""
        return None


class _InSwitch(CableFault):
    """A fault that is a table of the switch."""

    takes: ClassVar[str] = "dropped"

    @abstractmethod
    def ruleset(self, table: str, lab: Lab, cable: Cable) -> str:
        """The commands that make its table."""

    def provoke(self, lab: Lab, cable: Cable, way: str) -> None:
        """Send what it has to take, in case that the cable is idle."""
        send(lab, cable, way, Burst(self.frames))

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: a table of its own, so that its claim is its own too."""
        cable, table = plugged(lab, self.cable), nft.fresh()
        ruleset = self.ruleset(table, lab, cable)

        def proof() -> str:
            counts = counted(lab, "netdev", table)
            idle = [way for way in self.ways if not counts[f"hit_{way}"]]
            for way in idle:
                self.provoke(lab, cable, way)
            if idle:
                raise NotYet(f"{cable.name}: no frame was {self.takes} yet")
            told = [f"{counts[f'hit_{way}']} of {counts[f'seen_{way}']} {way} it" for way in self.ways]
            return f"frames of {cable.name} {self.takes}: {', '.join(told)}"

        return [table_change(lab, table, "netdev", lambda: must(lab.switch, "nft", ruleset), proof, self.frames)]


class Cut(_InSwitch):
    """Drop all frames of a cable, as if it were unplugged."""

    name: ClassVar[str] = "network.cut"

    def ruleset(self, table: str, lab: Lab, cable: Cable) -> str:
        """Every frame."""
        return nft.dropping(table, hooks(self, cable))


class Unplugged(SimpleFault):
    """Take a cable's link down at the switch. A node on the host's kernel sees it (no carrier); others do not."""

    name: ClassVar[str] = "network.unplugged"
    cable: str = Field(min_length=1, description="Its name: node.interface, such as lb-1.eth0")

    def available(self, lab: Lab) -> str | None:
        """None, or the reason why this lab cannot do it."""
        return _reason(lambda: neighbours(lab, plugged(lab, self.cable)))

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: the link at the cable's end in the switch."""
        cable = plugged(lab, self.cable)
        neighbour, address = lab.node(neighbours(lab, cable)[0].node), cable.addresses[0]
        if not reaches(neighbour, address):
            raise LabError(f"{neighbour.name} does not reach {address} anyway, so it would not be seen to be unplugged")

        def out() -> str:
            seen(lab.switch, lambda said: said.stdout.split() == ["down"], "down", "cat", operstate(cable))
            what = f"{cable.name} is down, and {neighbour.name} does not reach {address}"
            return seen(neighbour, lambda said: not said.ok, what, *ping(address))

        def back() -> None:
            seen(neighbour, lambda said: said.ok, "reached", *ping(address))

        link = ("ip", "link", "set", cable.name)
        undo = (Undo((*link, "up")),)
        return [Change(lab.switch, f"link {cable.name}", lambda: must(lab.switch, *link, "down"), undo, out, back)]


class Loss(_InSwitch):
    """Lose some frames of a cable, each by chance."""

    name: ClassVar[str] = "network.loss"
    percent: float = Field(10, ge=0.1, le=100, description="Of the frames in each direction")

    def ruleset(self, table: str, lab: Lab, cable: Cable) -> str:
        """Frames drawn by lot."""
        return nft.dropping(table, hooks(self, cable), f"numgen random mod 100000 < {round(self.percent * 1000)}")

    def provoke(self, lab: Lab, cable: Cable, way: str) -> None:
        """As many as lose one, 95 times of a hundred."""
        send(lab, cable, way, Burst(self.frames, count=math.ceil(300 / self.percent)))


class SmallMtu(_InSwitch):
    """Drop the big packets of a cable without a word, as a segment does whose MTU is less than its nodes believe."""

    name: ClassVar[str] = "network.mtu"
    mtu: int = Field(1400, ge=68, lt=FULL_BYTES, description="The longest IPv4 packet that passes, in bytes (RFC 791)")

    def possible(self, lab: Lab, cable: Cable) -> str | None:
        """ARP has no big packets."""
        return "no ARP packet is big" if self.protocol == "arp" else None

    def ruleset(self, table: str, lab: Lab, cable: Cable) -> str:
        """Packets longer than that."""
        return nft.dropping(table, hooks(self, cable), f"ip length > {self.mtu}")

    def provoke(self, lab: Lab, cable: Cable, way: str) -> None:
        """A packet as long as its node may send."""
        send(lab, cable, way, Burst(self.frames, size=FULL_BYTES))


class Reject(_InSwitch):
    """Answer packets of a cable as a firewall does: TCP with a reset, all else with ICMP host unreachable."""

    name: ClassVar[str] = "network.reject"
    takes: ClassVar[str] = "rejected"

    def possible(self, lab: Lab, cable: Cable) -> str | None:
        """ARP knows no refusal."""
        return "ARP cannot be rejected: it knows no refusal" if self.protocol == "arp" else None

    def ruleset(self, table: str, lab: Lab, cable: Cable) -> str:
        """Each packet is answered where it comes into the switch: its answer goes back through the same cable."""
        found = {"from": nft.leaving(cable.name, self.frames)}
        to_it = tuple(f"ether daddr {cable.mac} {match}".strip() for match in self.frames.matches())
        found["to"] = Hook("to", "ingress", tuple(each.name for each in neighbours(lab, cable)), to_it)
        return nft.rejecting(table, [found[way] for way in self.ways])

    def provoke(self, lab: Lab, cable: Cable, way: str) -> None:
        """From a neighbour, because only what comes through a cable is rejected."""
        one, other = (cable, neighbours(lab, cable)[0]) if way == "from" else (neighbours(lab, cable)[0], cable)
        send_between(lab, one, other, Burst(self.frames))


class Flapping(CableFault):
    """Plug a cable out and in again and again: all its frames are dropped for a while, and pass for a while."""

    name: ClassVar[str] = "network.flapping"
    down_ms: int = Field(1000, ge=100, le=4000, description="How long it is out")
    up_ms: int = Field(1000, ge=100, le=4000, description="How long it is in")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: a table, and a process that fills and empties it."""
        cable, table = plugged(lab, self.cable), nft.fresh()
        places = hooks(self, cable)
        up, down = nft.blinking(table, places)
        ruleset = nft.dropping(table, places)
        flap = (DETACH, f"{PROGRAMS}/flap", str(self.down_ms), str(self.up_ms), down, up)

        def proof() -> str:
            counts = counted(lab, "netdev", table)
            dropped = {way: counts[f"hit_{way}"] for way in self.ways}
            passed = {way: counts[f"seen_{way}"] - counts[f"hit_{way}"] for way in self.ways}
            if not all((*dropped.values(), *passed.values())):
                for way in self.ways:
                    send(lab, cable, way, Burst(self.frames))
                raise NotYet(f"{cable.name}: dropped {dropped}, passed {passed}")
            return f"{cable.name} flaps: {sum(dropped.values())} frames dropped, {sum(passed.values())} passed"

        def apply() -> None:
            must(lab.switch, "nft", ruleset)
            must(lab.switch, *flap)

        return [table_change(lab, table, "netdev", apply, proof, self.frames, (ended(table),))]


class Partition(SimpleFault):
    """Let no frame pass between two sets of nodes, on all segments that they share."""

    name: ClassVar[str] = "network.partition"
    one: tuple[str, ...] = Field(min_length=1, description="Nodes on the one side")
    other: tuple[str, ...] = Field((), description="Nodes on the other side; none: all that are not on the one side")
    mode: Literal["complete", "one-way", "bridge"] = Field(
        "complete", description="one-way: only frames from the one side are lost; bridge: one node still reaches all"
    )
    through: str | None = Field(None, description="The node that still reaches both sides (mode bridge)")
    segments: tuple[str, ...] = Field((), description="Only on these segments; none: on all")

    @model_validator(mode="after")
    def _names_its_bridge(self) -> Self:
        if (self.mode == "bridge") != (self.through is not None):
            raise ValueError("the mode bridge, and only that, needs the node `through` that still reaches both sides")
        if both := set(self.one) & set(self.other) - {self.through}:
            raise ValueError(f"on both sides: {', '.join(sorted(both))}")
        return self

    def available(self, lab: Lab) -> str | None:
        """None, or the reason why this lab cannot do it."""
        return _reason(lambda: self.pairs(lab))

    def pairs(self, lab: Lab) -> list[tuple[Cable, Cable]]:
        """Each cable of the one side with each of the other that it could reach. Raises LabError when there is none."""
        for name in (*self.one, *self.other, *([self.through] if self.through else [])):
            lab.node(name)
        known = {cable.segment for cable in lab.cables}
        for segment in self.segments:
            if segment not in known:
                raise LabError(f"there is no segment {segment!r}", f"There are: {', '.join(sorted(known))}.")
        one = [cable for cable in lab.cables if cable.node in self.one and cable.node != self.through]
        rest = self.other or {node.name for node in lab.nodes()} - set(self.one)
        other = [cable for cable in lab.cables if cable.node in rest and cable.node != self.through]
        found = [
            (a, b)
            for a, b in itertools.product(one, other)
            if a.segment == b.segment and (not self.segments or a.segment in self.segments)
        ]
        if not found:
            raise LabError(f"{', '.join(self.one)} and {', '.join(self.other) or 'the others'} share no such segment")
        return found

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: a table of the bridges."""
        pairs, table = self.pairs(lab), nft.fresh()
        places = partition_hooks(pairs, one_way=self.mode == "one-way")
        ruleset = nft.dropping(table, places)
        turns = {"there": itertools.cycle(pairs), "back": itertools.cycle([(b, a) for a, b in pairs])}

        def proof() -> str:
            counts = counted(lab, "bridge", table)
            idle = [place.way for place in places if not counts[f"hit_{place.way}"]]
            for way in idle:
                _try_between(lab, turns[way])
            if idle:
                raise NotYet(f"no frame was lost on its way {' and '.join(idle)}")
            told = [f"{counts[f'hit_{place.way}']} frames {place.way}" for place in places]
            return f"between {', '.join(self.one)} and {', '.join(self.other) or 'the others'} lost: {', '.join(told)}"

        return [table_change(lab, table, "bridge", lambda: must(lab.switch, "nft", ruleset), proof, Frames())]


def partition_hooks(pairs: Sequence[tuple[Cable, Cable]], one_way: bool) -> list[Hook]:
    """Where a partition's frames pass: ``there`` from the one side, and ``back`` to it. Pure."""
    one, other = (list(dict.fromkeys(pair[side].name for pair in pairs)) for side in (0, 1))
    there = nft.between("there", one, other)
    return [there] if one_way else [there, nft.between("back", other, one)]


def hooks(fault: CableFault, cable: Cable) -> list[Hook]:
    """Where a fault's frames pass. Pure."""
    places = {"from": nft.leaving, "to": nft.arriving}
    return [places[way](cable.name, fault.frames) for way in fault.ways]


def table_change(  # noqa: PLR0913, PLR0917 - what a table's fault consists of
    lab: Lab,
    table: str,
    family: str,
    apply: Callable[[], object],
    proof: Callable[[], str],
    frames: Frames,
    first: tuple[Undo, ...] = (),
) -> Change:
    """A change of the switch that is a table; ``first`` is undone before it."""
    undo = (Undo(("nft", nft.deleting(family, table))),)

    def gone() -> None:
        if table in must(lab.switch, "nft", "list", "tables").stdout:
            raise NotYet(f"its table {table} is still there")

    detail = {"table": f"{family} {table}", "frames": str(frames)}
    return Change(lab.switch, f"table {table}", apply, (*first, *undo), proof, gone, detail=detail)


def ended(name: str) -> Undo:
    """Ends the processes whose command line contains a name; the pattern does not match itself."""
    return Undo(sh('pkill -KILL -f "$1"; true', f"[{name[0]}]{name[1:]}"))


def ping(address: str) -> tuple[str, ...]:
    """The command that sees whether an address answers."""
    return ("ping", "-n", "-c", "1", "-W", "1", address)


def reaches(node: Node, address: str) -> bool:
    """Whether an address answers a node; one that is silent for a moment is asked for longer."""
    patient = ("ping", "-n", "-c", "5", "-W", "3", address)
    return node.exec(*ping(address)).ok or node.exec(*patient, timeout_s=30).ok


def operstate(cable: Cable) -> str:
    """The file that says whether a cable's link is up."""
    return f"/sys/class/net/{cable.name}/operstate"


def _reason(look: Callable[[], object]) -> str | None:
    """What a look at the lab says against a fault."""
    try:
        look()
    except LabError as error:
        return f"{error} {error.next_step}".strip()
    return None


def plugged(lab: Lab, name: str) -> Cable:
    """The cable of that name. Raises LabError naming those there are."""
    for cable in lab.cables:
        if cable.name == name:
            return cable
    raise LabError(f"there is no cable {name!r}", f"There are: {', '.join(cable.name for cable in lab.cables)}.")


def neighbours(lab: Lab, cable: Cable) -> list[Cable]:
    """The other cables of a segment. Raises LabError when there is none."""
    found = [each for each in lab.cables if each.segment == cable.segment and each != cable]
    if not found:
        raise LabError(f"{cable.name} is alone on its segment, so nothing can be seen to be lost")
    return found


def counted(lab: Lab, family: str, table: str) -> dict[str, int]:
    """A table's counters."""
    return nft.counted(must(lab.switch, "nft", "-j", "list", "counters", "table", family, table).stdout)


@dataclass(frozen=True)
class Burst:
    """Frames to send: which, how many, and packets of how many bytes (0: the least)."""

    frames: Frames
    count: int = 1
    size: int = 0


def send(lab: Lab, cable: Cable, way: str, burst: Burst) -> None:
    """Put frames on a cable: the node sends, or the switch does, for which it does not matter what the others do."""
    neighbour = neighbours(lab, cable)[0]
    if way == "from":
        send_between(lab, cable, neighbour, burst)
    else:
        must(lab.switch, *sending(cable.name, neighbour, cable, burst))


def send_between(lab: Lab, one: Cable, other: Cable, burst: Burst) -> None:
    """Let one node send frames to another on its segment."""
    must(lab.node(one.node), *sending(one.interface, one, other, burst))


def sending(interface: str, one: Cable, other: Cable, burst: Burst) -> tuple[str, ...]:
    """The command that sends frames to a node, as if from another. Pure."""
    source, destination = (next(iter(cable.addresses), "0.0.0.0") for cable in (one, other))
    what = (burst.frames.protocol, str(burst.frames.port or 0), str(burst.count), str(burst.size))
    return (FRAMES, interface, other.mac, source, destination, *what)


def _try_between(lab: Lab, turns: Iterator[tuple[Cable, Cable]]) -> None:
    """Let the next pair try; its node may be one that does not run."""
    one, other = next(turns)
    with suppress(LabError):
        send_between(lab, one, other, Burst(Frames()))
