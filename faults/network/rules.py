"""Faults of simulated cables: the rules that make them, what proves them, and how they end.

Where a real switch has nft rulesets (``faults.network.nft``) and a node has netem, a simulated switch has rules. It
counts the frames on which each rule acts, so these numbers are the proof.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from faults.fault import Change
from faults.network.nft import Frames
from harness.frames import ANY_ADDRESS, datagram
from harness.protocols import Lab, Wires
from harness.records import Cable, FrameRule, Hits, LabError, Undo
from harness.wait import NotYet

__all__ = ["Sending", "acted", "all_of", "change", "each_way", "of_all", "pcap", "sample", "shares"]

Sending = Callable[[str], None]
"""Sends frames one way that a fault affects, in case the cable is idle."""


def pcap(frames: Frames) -> str:
    """The pcap filter of these frames (pcap-filter(7)); empty: all. Pure.

    >>> pcap(Frames("udp", 694))
    'ip and udp port 694'
    """
    if frames.protocol in {"any", "arp"}:
        return frames.protocol.removeprefix("any")
    return f"ip and {frames.protocol}" + (f" port {frames.port}" if frames.port else "")


def all_of(*filters: str) -> str:
    """The filter of what passes all of these. Pure.

    >>> all_of("", "arp", "ether src 02:00:00:00:00:01 or ether src 02:00:00:00:00:02")
    '(arp) and (ether src 02:00:00:00:00:01 or ether src 02:00:00:00:00:02)'
    """
    given = [each for each in filters if each]
    return given[0] if len(given) == 1 else " and ".join(f"({each})" for each in given)


def each_way(name: str, cable: Cable, ways: Sequence[str], does: str, frames: str) -> dict[str, list[FrameRule]]:
    """A rule of a cable for each direction: way -> its rules. Pure."""
    return {way: [FrameRule(f"{name}-{way}", cable.name, way, does, frames)] for way in ways}


def acted(wires: Wires, rules: Mapping[str, Sequence[FrameRule]]) -> dict[str, Hits]:
    """What the rules of each way have done together."""
    found = {way: [wires.hits(rule.name) or Hits(0, 0) for rule in several] for way, several in rules.items()}
    return {way: Hits(sum(n.acted for n in each), sum(n.seen for n in each)) for way, each in found.items()}


def of_all(wires: Wires, rules: Mapping[str, Sequence[FrameRule]], send: Sending) -> dict[str, Hits]:
    """The same, once the rules of each way have acted. Raises NotYet, after it has sent frames."""
    hits = acted(wires, rules)
    if idle := [way for way, each in hits.items() if not each.acted]:
        for way in idle:
            send(way)
        raise NotYet(f"no frame affected yet on its way {' and '.join(idle)}")
    return hits


def shares(hits: Mapping[str, Hits]) -> str:
    """The numbers as a proof says them. Pure.

    >>> shares({"from": Hits(2, 9)})
    '2 of 9 from it'
    """
    return ", ".join(f"{each.acted} of {each.seen} {way} it" for way, each in hits.items())


def change(
    lab: Lab, wires: Wires, name: str, rules: Mapping[str, Sequence[FrameRule]], proof: Callable[[], str]
) -> Change:
    """A change that adds rules to the switch, and is undone by their removal."""
    every = [rule for several in rules.values() for rule in several]

    def apply() -> int:
        for rule in every:
            wires.rule(rule)
        return lab.now_ns()

    def gone() -> None:
        if left := [rule.name for rule in every if wires.hits(rule.name)]:
            raise NotYet(f"rules that still exist: {', '.join(left)}")

    undo = tuple(Undo(("remove", rule.name), "wires") for rule in every)
    detail = {"rules": [rule.name for rule in every]}
    return Change(lab.switch, f"rules {name}", apply, undo, proof, gone, detail=detail)


def sample(one: Cable, other: Cable, frames: Frames, size: int = 0) -> bytes:
    """A frame from one node to another on its segment. Pure."""
    source, destination = (next(iter(each.addresses), ANY_ADDRESS) for each in (one, other))
    return datagram(other.mac, one.mac, source, destination, frames.protocol, frames.port or 0, size)


def send_between(wires: Wires, one: Cable, other: Cable, frames: Frames) -> None:
    """Send a frame from one node to another; a cable that cannot carry it is no error here."""
    with suppress(LabError):
        wires.send(one, "from", sample(one, other, frames))
