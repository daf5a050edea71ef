"""Faults of the network between nodes that the switch makes: cut, lossy or flapping cables, and partitions."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from faults.fault import Change, SimpleFault, must, seen, wires_of
from faults.network import nft, rules
from faults.network.nft import Frames, Hook
from faults.programs import PROGRAMS, containing, detached, ended
from harness.protocols import Lab, Node, Wires
from harness.records import Cable, Effect, EffectKind, FrameRule, LabError, Undo
from harness.wait import NotYet

FRAMES = f"{PROGRAMS}/frames"

FULL_BYTES = 1500
"""The MTU of every segment."""
MS_NS = 1_000_000

Direction = Literal["both", "from", "to"]
Protocol = Literal["any", "tcp", "udp", "icmp", "arp"]


class CableFault(SimpleFault):
    """A fault of one cable: of all its frames, or of some."""

    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.IMPAIRS_PATH,)

    cable: str = Field(min_length=1, description="Name of the cable: node.interface, such as lb-1.eth0")
    direction: Direction = Field("both", description="Affected frames: from the node, to the node, or both")
    protocol: Protocol = Field("any", description="Affect only frames of this protocol")
    port: int | None = Field(None, ge=1, le=65535, description="Affect only frames from or to this port (tcp or udp)")

    @model_validator(mode="after")
    def _has_ports(self) -> Self:
        if self.port is not None and self.protocol not in {"tcp", "udp"}:
            raise ValueError(f"port works only with protocol tcp or udp, not {self.protocol}")
        return self

    def affected(self, lab: Lab) -> tuple[str, ...]:
        """The node at the cable's end."""
        return (self.cable.partition(".")[0],)

    @property
    def frames(self) -> Frames:
        """The frames of the cable that it affects."""
        return Frames(self.protocol, self.port)

    @property
    def ways(self) -> tuple[str, ...]:
        """The affected directions."""
        return ("from", "to") if self.direction == "both" else (self.direction,)

    def target(self, lab: Lab) -> Cable:
        """The cable, if it can have the fault."""
        cable = plugged(lab, self.cable)
        self.require(lab, cable)
        return cable

    def require(self, lab: Lab, cable: Cable) -> None:
        """What the fault needs of its cable. Raises LabError."""


class _InSwitch(CableFault):
    """A fault that is a table of the switch, or a rule for each direction where the switch is simulated."""

    takes: ClassVar[str] = "dropped"

    @property
    def only(self) -> str:
        """The pcap filter of the frames on which it acts, of all its frames; empty: all of them."""
        return ""

    def burst(self) -> Burst:
        """The frames that show it on an idle cable."""
        return Burst(self.frames)

    @abstractmethod
    def ruleset(self, table: str, lab: Lab, cable: Cable) -> str:
        """The nft commands that make its table."""

    def provoke(self, lab: Lab, cable: Cable, way: str) -> None:
        """Send frames that it affects, in case the cable is idle."""
        send(lab, cable, way, self.burst())

    def frame_rules(self, name: str, lab: Lab, cable: Cable) -> dict[str, list[FrameRule]]:
        """The rules of a simulated switch, for each direction."""
        return rules.each_way(name, cable, self.ways, self.action, rules.all_of(rules.pcap(self.frames), self.only))

    @property
    def action(self) -> str:
        """What the rules do, with its settings."""
        return "drop"

    def changes(self, lab: Lab) -> Sequence[Change]:
        """A table of its own, with a claim of its own, so that faults of one cable compose."""
        if wires := wires_of(lab):
            return [self.simulated(lab, wires)]
        cable, table = plugged(lab, self.cable), nft.fresh()
        ruleset = self.ruleset(table, lab, cable)

        def proof() -> str:
            counts = counted(lab, "netdev", table)
            idle = [way for way in self.ways if not counts[f"hit_{way}"]]
            for way in idle:
                self.provoke(lab, cable, way)
            if idle:
                raise NotYet(f"{cable.name}: no frame {self.takes} yet")
            shares = [f"{counts[f'hit_{way}']} of {counts[f'seen_{way}']} {way} it" for way in self.ways]
            return f"frames of {cable.name} {self.takes}: {', '.join(shares)}"

        return [table_change(lab, table, "netdev", lambda: must(lab.switch, "nft", ruleset), proof, self.frames)]

    def simulated(self, lab: Lab, wires: Wires) -> Change:
        """The same in a simulated switch."""
        cable, name = plugged(lab, self.cable), wires.fresh(self.name.partition(".")[2])
        made = self.frame_rules(name, lab, cable)

        def proof() -> str:
            hits = rules.of_all(wires, made, lambda way: self.send(lab, wires, cable, way))
            return f"frames of {cable.name} {self.takes}: {rules.shares(hits)}"

        return rules.change(lab, wires, name, made, proof)

    def send(self, lab: Lab, wires: Wires, cable: Cable, way: str) -> None:
        """``provoke`` for simulated cables."""
        send_simulated(lab, wires, cable, way, self.burst())


class Cut(_InSwitch):
    """Drop all frames of a cable, or those of one direction, protocol or port."""

    name: ClassVar[str] = "network.cut"

    def effects(self, lab: Lab) -> tuple[Effect, ...]:
        """A node that loses all frames of its only cable reaches no other node."""
        whole = self.direction == "both" and self.frames == Frames()
        return cut_off(lab, self.cable) if whole else super().effects(lab)

    def ruleset(self, table: str, lab: Lab, cable: Cable) -> str:
        """Every frame is dropped."""
        return nft.dropping(table, hooks(self, cable))


class Unplugged(SimpleFault):
    """Take a cable's link down at the switch.

    A node on the host's kernel sees that it has no carrier; other nodes do not.
    """

    name: ClassVar[str] = "network.unplugged"
    cable: str = Field(min_length=1, description="Name of the cable: node.interface, such as lb-1.eth0")

    def effects(self, lab: Lab) -> tuple[Effect, ...]:
        """A node whose only cable is unplugged reaches no other node."""
        return cut_off(lab, self.cable)

    def target(self, lab: Lab) -> list[Cable]:
        """The other cables of its segment, whose nodes can observe it."""
        return neighbours(lab, plugged(lab, self.cable))

    def changes(self, lab: Lab) -> Sequence[Change]:
        """The link at the cable's end in the switch."""
        cable = plugged(lab, self.cable)
        neighbour, address = lab.node(neighbours(lab, cable)[0].node), cable.addresses[0]
        if not reaches(neighbour, address):
            raise LabError(f"{neighbour.name} does not reach {address}, so the fault could not be proven")
        wires = wires_of(lab)

        def out() -> str:
            if not wires:
                seen(lab.switch, lambda done: done.stdout.split() == ["down"], "down", "cat", operstate(cable))
            what = f"{cable.name} is down, and {neighbour.name} does not reach {address}"
            return seen(neighbour, lambda done: not done.ok, what, *ping(address))

        def back() -> None:
            seen(neighbour, lambda done: done.ok, "reached", *ping(address))

        link = ("ip", "link", "set", cable.name)
        undo = Undo(("plug", cable.name), "wires") if wires else Undo((*link, "up"))

        def unplug() -> None:
            if wires:
                wires.unplug(cable)
            else:
                must(lab.switch, *link, "down")

        return [Change(lab.switch, f"link {cable.name}", unplug, (undo,), out, back)]


class Loss(_InSwitch):
    """Drop a random share of a cable's frames."""

    name: ClassVar[str] = "network.loss"
    percent: float = Field(10, ge=0.1, le=100, description="Percentage of frames in each direction")

    def ruleset(self, table: str, lab: Lab, cable: Cable) -> str:
        """Random frames are dropped."""
        return nft.dropping(table, hooks(self, cable), f"numgen random mod 100000 < {round(self.percent * 1000)}")

    @property
    def action(self) -> str:
        """By chance."""
        return f"drop p={self.percent / 100:g}"

    def burst(self) -> Burst:
        """Enough frames to lose at least 1 with 95% probability."""
        return Burst(self.frames, count=math.ceil(300 / self.percent))


class SmallMtu(_InSwitch):
    """Silently drop packets above a size, as a segment does whose MTU is smaller than its nodes assume."""

    name: ClassVar[str] = "network.mtu"
    mtu: int = Field(1400, ge=68, lt=FULL_BYTES, description="Longest IPv4 packet that passes, in bytes (RFC 791)")

    def require(self, lab: Lab, cable: Cable) -> None:
        """A protocol with long packets."""
        if self.protocol == "arp":
            raise LabError("ARP packets are never longer than the MTU")

    def ruleset(self, table: str, lab: Lab, cable: Cable) -> str:
        """Longer packets are dropped."""
        return nft.dropping(table, hooks(self, cable), f"ip length > {self.mtu}")

    @property
    def only(self) -> str:
        """Longer packets."""
        return f"ip[2:2] > {self.mtu}"

    def burst(self) -> Burst:
        """A packet of the segment's full MTU."""
        return Burst(self.frames, size=FULL_BYTES)


class Reject(_InSwitch):
    """Reject packets of a cable as a firewall does: TCP with a reset, others with ICMP host unreachable."""

    name: ClassVar[str] = "network.reject"
    takes: ClassVar[str] = "rejected"

    def require(self, lab: Lab, cable: Cable) -> None:
        """A protocol that has an answer for it."""
        if self.protocol == "arp":
            raise LabError("ARP cannot be rejected: the protocol has no such answer")

    def ruleset(self, table: str, lab: Lab, cable: Cable) -> str:
        """Each packet is answered where it enters the switch, so the answer goes back through the same cable."""
        found = {"from": nft.leaving(cable.name, self.frames)}
        to_it = tuple(f"ether daddr {cable.mac} {match}".strip() for match in self.frames.matches())
        found["to"] = Hook("to", "ingress", tuple(each.name for each in neighbours(lab, cable)), to_it)
        return nft.rejecting(table, [found[way] for way in self.ways])

    def frame_rules(self, name: str, lab: Lab, cable: Cable) -> dict[str, list[FrameRule]]:
        """Also where each packet enters the switch."""
        frames = rules.all_of("ip", rules.pcap(self.frames))
        found = {"from": [FrameRule(f"{name}-from", cable.name, "from", "", frames)]}
        to_it = rules.all_of(f"ether dst {cable.mac}", frames)
        found["to"] = [
            FrameRule(f"{name}-to-{number}", each.name, "from", "", to_it)
            for number, each in enumerate(neighbours(lab, cable))
        ]
        return {way: found[way] for way in self.ways}

    def simulated(self, lab: Lab, wires: Wires) -> Change:
        """The harness answers, while time stands still."""
        change = super().simulated(lab, wires)
        made = self.frame_rules(change.claim.removeprefix("rules "), lab, plugged(lab, self.cable))
        return replace(change, apply=lambda: wires.reject([rule for several in made.values() for rule in several]))

    def send(self, lab: Lab, wires: Wires, cable: Cable, way: str) -> None:
        """From a neighbour, too."""
        if way == "from":
            super().send(lab, wires, cable, way)
        else:
            rules.send_between(wires, neighbours(lab, cable)[0], cable, self.frames)

    def provoke(self, lab: Lab, cable: Cable, way: str) -> None:
        """From a neighbour, because only packets that enter through a cable are rejected."""
        one, other = (cable, neighbours(lab, cable)[0]) if way == "from" else (neighbours(lab, cable)[0], cable)
        send_between(lab, one, other, Burst(self.frames))


class Flapping(CableFault):
    """Drop all frames of a cable for a while, let them pass for a while, and repeat."""

    name: ClassVar[str] = "network.flapping"
    down_ms: int = Field(1000, ge=100, le=4000, description="Time without frames, in ms")
    up_ms: int = Field(1000, ge=100, le=4000, description="Time with frames, in ms")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """A table, and a program that fills and empties it in turn."""
        if wires := wires_of(lab):
            return [self.simulated(lab, wires)]
        cable, table = plugged(lab, self.cable), nft.fresh()
        places = hooks(self, cable)
        up, down = nft.blinking(table, places)
        ruleset = nft.dropping(table, places)
        flap = detached(f"{PROGRAMS}/flap", str(self.down_ms), str(self.up_ms), down, up)

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

        return [table_change(lab, table, "netdev", apply, proof, self.frames, (ended(containing(table)),))]

    def simulated(self, lab: Lab, wires: Wires) -> Change:
        """Rules that act and rest in turns."""
        cable, name = plugged(lab, self.cable), wires.fresh("flapping")
        turns = f"drop on={self.down_ms * MS_NS} off={self.up_ms * MS_NS}"
        made = rules.each_way(name, cable, self.ways, turns, rules.pcap(self.frames))

        def proof() -> str:
            hits = rules.acted(wires, made)
            dropped = {way: each.acted for way, each in hits.items()}
            passed = {way: each.seen - each.acted for way, each in hits.items()}
            if not all((*dropped.values(), *passed.values())):
                for way in self.ways:
                    send_simulated(lab, wires, cable, way, Burst(self.frames))
                raise NotYet(f"{cable.name}: dropped {dropped}, passed {passed}")
            return f"{cable.name} flaps: {sum(dropped.values())} frames dropped, {sum(passed.values())} passed"

        return rules.change(lab, wires, name, made, proof)


class Partition(SimpleFault):
    """Drop all frames between 2 sets of nodes, on all segments that they share."""

    name: ClassVar[str] = "network.partition"
    one: tuple[str, ...] = Field(min_length=1, description="Nodes on one side")
    other: tuple[str, ...] = Field((), description="Nodes on the other side (default: all that are not in `one`)")
    mode: Literal["complete", "one-way", "bridge"] = Field(
        "complete",
        description="complete: drop all frames; one-way: drop only frames from `one` to `other`; "
        "bridge: one node still reaches both sides",
    )
    through: str | None = Field(None, description="Node that still reaches both sides (mode bridge)")
    segments: tuple[str, ...] = Field((), description="Segments (default: all)")

    @model_validator(mode="after")
    def _names_its_bridge(self) -> Self:
        if (self.mode == "bridge") != (self.through is not None):
            raise ValueError(
                "mode bridge needs `through`, the node that still reaches both sides; other modes reject it"
            )
        if both := set(self.one) & set(self.other) - {self.through}:
            raise ValueError(f"in both `one` and `other`: {', '.join(sorted(both))}")
        return self

    def target(self, lab: Lab) -> list[tuple[Cable, Cable]]:
        """The pairs of cables between which frames are dropped."""
        return self.pairs(lab)

    def effects(self, lab: Lab) -> tuple[Effect, ...]:
        """A node alone on its side reaches no other node; otherwise each side still reaches some nodes."""
        nodes = [node.name for node in lab.nodes()]
        other = self.other or tuple(node for node in nodes if node not in self.one)
        sides = [node for node in nodes if node in {*self.one, *other} - {self.through}]
        alone = self.mode == "complete" and len(self.one) == 1 and not self.other and not self.segments
        kinds = dict.fromkeys(self.one, EffectKind.CUTS_PATH) if alone else {}
        return tuple(Effect(kinds.get(node, EffectKind.IMPAIRS_PATH), node) for node in sides)

    def pairs(self, lab: Lab) -> list[tuple[Cable, Cable]]:
        """Each cable of one side with each cable of the other that it reaches. Raises LabError when there is none."""
        for name in (*self.one, *self.other, *([self.through] if self.through else [])):
            lab.node(name)
        known = {cable.segment for cable in lab.cables}
        for segment in self.segments:
            if segment not in known:
                raise LabError(f"unknown segment {segment!r}", f"Segments: {', '.join(sorted(known))}.")
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
        """A table of the switch's bridges."""
        if wires := wires_of(lab):
            return [self.simulated(lab, wires)]
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
                raise NotYet(f"no frame dropped yet on its way {' and '.join(idle)}")
            return self.said({place.way: counts[f"hit_{place.way}"] for place in places})

        return [table_change(lab, table, "bridge", lambda: must(lab.switch, "nft", ruleset), proof, Frames())]

    def said(self, dropped: Mapping[str, int]) -> str:
        """The proof. Pure."""
        sides = f"{', '.join(self.one)} and {', '.join(self.other) or 'the others'}"
        return f"dropped between {sides}: {', '.join(f'{count} frames {way}' for way, count in dropped.items())}"

    def simulated(self, lab: Lab, wires: Wires) -> Change:
        """Rules of the receivers' cables."""
        pairs, name = self.pairs(lab), wires.fresh("partition")
        made = partition_rules(name, pairs, one_way=self.mode == "one-way")
        turns = {"there": itertools.cycle(pairs), "back": itertools.cycle([(b, a) for a, b in pairs])}

        def proof() -> str:
            hits = rules.of_all(wires, made, lambda way: rules.send_between(wires, *next(turns[way]), Frames()))
            return self.said({way: each.acted for way, each in hits.items()})

        return rules.change(lab, wires, name, made, proof)


def partition_rules(name: str, pairs: Sequence[tuple[Cable, Cable]], one_way: bool) -> dict[str, list[FrameRule]]:
    """The rules of a partition: on the way to each receiver, what any sender of the other side sent. Pure."""

    def dropped(way: str, turned: Sequence[tuple[Cable, Cable]]) -> list[FrameRule]:
        senders: dict[str, list[str]] = {}
        for sender, receiver in turned:
            senders.setdefault(receiver.name, []).append(f"ether src {sender.mac}")
        return [
            FrameRule(f"{name}-{way}-{number}", receiver, "to", "drop", " or ".join(macs))
            for number, (receiver, macs) in enumerate(senders.items())
        ]

    there = {"there": dropped("there", pairs)}
    return there if one_way else there | {"back": dropped("back", [(b, a) for a, b in pairs])}


def partition_hooks(pairs: Sequence[tuple[Cable, Cable]], one_way: bool) -> list[Hook]:
    """The hooks of a partition's frames: ``there`` from one side, ``back`` to it. Pure."""
    one, other = (list(dict.fromkeys(pair[side].name for pair in pairs)) for side in (0, 1))
    there = nft.between("there", one, other)
    return [there] if one_way else [there, nft.between("back", other, one)]


def cut_off(lab: Lab, name: str) -> tuple[Effect, ...]:
    """The effects of losing a whole cable, which may be the node's only one."""
    node = name.partition(".")[0]
    only = [cable.name for cable in lab.cables if cable.node == node] == [name]
    return (Effect(EffectKind.CUTS_PATH if only else EffectKind.IMPAIRS_PATH, node),)


def hooks(fault: CableFault, cable: Cable) -> list[Hook]:
    """The hooks of a fault's frames. Pure."""
    places = {"from": nft.leaving, "to": nft.arriving}
    return [places[way](cable.name, fault.frames) for way in fault.ways]


def table_change(  # noqa: PLR0913, PLR0917 - the parts of a change
    lab: Lab,
    table: str,
    family: str,
    apply: Callable[[], object],
    proof: Callable[[], str],
    frames: Frames,
    first: tuple[Undo, ...] = (),
) -> Change:
    """A change that adds a table to the switch; ``first`` are undo steps before its deletion."""
    undo = (Undo(("nft", nft.deleting(family, table))),)

    def gone() -> None:
        if table in must(lab.switch, "nft", "list", "tables").stdout:
            raise NotYet(f"the table {table} still exists")

    detail = {"table": f"{family} {table}", "frames": str(frames)}
    return Change(lab.switch, f"table {table}", apply, (*first, *undo), proof, gone, detail=detail)


def ping(address: str) -> tuple[str, ...]:
    """The command that succeeds if an address answers."""
    return ("ping", "-n", "-c", "1", "-W", "1", address)


def reaches(node: Node, address: str) -> bool:
    """True if an address answers a node, at first or within several tries."""
    patient = ("ping", "-n", "-c", "5", "-W", "3", address)
    return node.exec(*ping(address)).ok or node.exec(*patient, timeout_s=30).ok


def operstate(cable: Cable) -> str:
    """The file with the state of a cable's link."""
    return f"/sys/class/net/{cable.name}/operstate"


def plugged(lab: Lab, name: str) -> Cable:
    """The cable of that name. Raises LabError that lists the cables."""
    for cable in lab.cables:
        if cable.name == name:
            return cable
    raise LabError(f"unknown cable {name!r}", f"Cables: {', '.join(cable.name for cable in lab.cables)}.")


def neighbours(lab: Lab, cable: Cable) -> list[Cable]:
    """The other cables of a segment. Raises LabError when there is none."""
    found = [each for each in lab.cables if each.segment == cable.segment and each != cable]
    if not found:
        raise LabError(f"{cable.name} is the only cable of its segment, so no fault of it could be proven")
    return found


def counted(lab: Lab, family: str, table: str) -> dict[str, int]:
    """A table's counters."""
    return nft.counted(must(lab.switch, "nft", "-j", "list", "counters", "table", family, table).stdout)


@dataclass(frozen=True)
class Burst:
    """Frames to send: which, how many, and the bytes of each packet (0: minimal)."""

    frames: Frames
    count: int = 1
    size: int = 0


def send(lab: Lab, cable: Cable, way: str, burst: Burst) -> None:
    """Send frames on a cable: from its node, or to its node from the switch, which needs no other node."""
    neighbour = neighbours(lab, cable)[0]
    if way == "from":
        send_between(lab, cable, neighbour, burst)
    else:
        must(lab.switch, *sending(cable.name, neighbour, cable, burst))


def send_simulated(lab: Lab, wires: Wires, cable: Cable, way: str, burst: Burst) -> None:
    """The same on a simulated cable."""
    neighbour = neighbours(lab, cable)[0]
    one, other = (cable, neighbour) if way == "from" else (neighbour, cable)
    for _ in range(burst.count):
        wires.send(cable, way, rules.sample(one, other, burst.frames, burst.size))


def send_between(lab: Lab, one: Cable, other: Cable, burst: Burst) -> None:
    """Send frames from one node to another on its segment."""
    must(lab.node(one.node), *sending(one.interface, one, other, burst))


def sending(interface: str, one: Cable, other: Cable, burst: Burst) -> tuple[str, ...]:
    """The command that sends frames to a node as if from another. Pure."""
    source, destination = (next(iter(cable.addresses), "0.0.0.0") for cable in (one, other))
    what = (burst.frames.protocol, str(burst.frames.port or 0), str(burst.count), str(burst.size))
    return (FRAMES, interface, other.mac, source, destination, *what)


def _try_between(lab: Lab, turns: Iterator[tuple[Cable, Cable]]) -> None:
    """Send from the next pair's first node, which may be down."""
    one, other = next(turns)
    with suppress(LabError):
        send_between(lab, one, other, Burst(Frames()))
