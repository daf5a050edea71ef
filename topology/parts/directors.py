"""Linux Directors: two, active/active, each with one VIP of its own; each serves both when the other is gone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict

from harness.records import StaleNeighbour
from topology.model import Machine, Topology
from topology.parts.part import Part, Report, Seen


class Directors(Part):
    """Who holds which VIP, and whether everybody else sends there what is for it."""

    name = "Linux Directors"

    def probe_command(self, topology: Topology, machine: Machine) -> str:
        """The MAC addresses of a director; the neighbours that others know (ip-neighbour(8))."""
        if machine.role == "director":
            return "ip -o link"
        return "ip -4 neighbour" if machine.role in ("client", "web") else ""

    def judge(self, seen: Seen) -> Report:
        """Each VIP has one owner, with auto_failback that is its home, and no neighbour takes another for it.

        A director that held its addresses all the time does not announce them, though its peer may have had them for
        a while, and announced that: after a freeze, or when heartbeat stood still. Then all goes on through the peer,
        which forwards it, until the peer's power fails.
        """
        held = owners_of(seen.topology, seen.addresses)
        misled = stale_neighbours(seen)
        problems = [*misplaced(seen.topology, held), *map(str, misled)]
        line = ", ".join(f"{vip} on {' and '.join(names) or 'nobody'}" for vip, names in held.items())
        facts = {
            "owners": {vip: list(names) for vip, names in held.items()},
            "stale_neighbours": [asdict(each) for each in misled],
        }
        return Report(line, tuple(problems), facts)


def misplaced(topology: Topology, held: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """A sentence for each VIP without one owner; one that is its home, where VIPs come home by themselves."""
    for vip in topology.vips:
        names, failback = held[str(vip.address)], topology.directors.auto_failback
        if names != (vip.home,) if failback else len(names) != 1:
            instead = vip.home if failback else "one director"
            yield f"{vip.address} is held by {' and '.join(names) or 'nobody'} instead of {instead}"


def owners_of(topology: Topology, addresses: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Each VIP -> the directors that hold it, from each director's addresses."""
    return _holders(addresses, (str(vip.address) for vip in topology.vips))


def _holders(addresses: Mapping[str, tuple[str, ...]], wanted: Iterable[str]) -> dict[str, tuple[str, ...]]:
    return {address: tuple(name for name, held in addresses.items() if address in held) for address in wanted}


_MAC = re.compile(r"link/ether (\S+)")
_NEIGHBOUR = re.compile(r"^(\S+) dev \S+ lladdr (\S+)", re.MULTILINE)


def stale_neighbours(seen: Seen) -> list[StaleNeighbour]:
    """The nodes that take another machine for the owner of a VIP, or of the inside gateway that moves with it. Pure.

    Of an address that nobody holds, or two, nothing is said: neighbours cannot know better.
    """
    answers = seen.answers.get(Directors.name, {})
    macs = {mac: name for name in seen.addresses for mac in _MAC.findall(answers.get(name, ""))}
    floating = _floating(seen.topology)
    owner = {address: names[0] for address, names in _holders(seen.addresses, floating).items() if len(names) == 1}
    return [
        StaleNeighbour(node, address, macs.get(mac, mac))
        for node, answer in sorted(answers.items())
        if node not in seen.addresses
        for address, mac in _NEIGHBOUR.findall(answer)
        if address in owner and macs.get(mac) != owner[address]
    ]


def _floating(topology: Topology) -> list[str]:
    """The VIPs, and the inside gateways that move with them."""
    gateways = () if topology.answers_directly else (vip.gateway for vip in topology.vips if vip.gateway)
    return [str(address) for address in (*(vip.address for vip in topology.vips), *gateways)]
