"""Linux Directors: 2, active/active, each with its own VIP; one serves both VIPs when the other is down."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict

from harness.records import StaleNeighbour
from topology.model import Machine, Topology
from topology.parts.part import Judgement, Observations, Part


class Directors(Part):
    """Which director holds which VIP, and whether all neighbours send packets for the VIP to that director."""

    name = "Linux Directors"

    def probe_command(self, topology: Topology, machine: Machine) -> str:
        """The MAC addresses of a director; the neighbour tables of the other nodes (ip-neighbour(8))."""
        if machine.role == "director":
            return "ip -o link"
        return "ip -4 neighbour" if machine.role in ("client", "web") else ""

    def judge(self, seen: Observations) -> Judgement:
        """Healthy: each VIP has 1 owner (its home director, with auto_failback), and no neighbour entry is stale.

        A director that kept its addresses all along does not announce them again, even if its peer took and announced
        them in the meantime: after a freeze, or while heartbeat was stalled. Packets then go through the peer, which
        forwards them, until the peer loses power.
        """
        held = owners_of(seen.topology, seen.addresses)
        stale = stale_neighbours(seen)
        problems = [*misplaced(seen.topology, held), *map(str, stale)]
        line = ", ".join(f"{vip} on {' and '.join(names) or 'no director'}" for vip, names in held.items())
        facts = {
            "owners": {vip: list(names) for vip, names in held.items()},
            "stale_neighbours": [asdict(each) for each in stale],
        }
        return Judgement(line, tuple(problems), facts)


def misplaced(topology: Topology, held: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """A sentence for each VIP that does not have exactly 1 owner; with auto_failback, its home director."""
    for vip in topology.vips:
        names, failback = held[str(vip.address)], topology.directors.auto_failback
        if names != (vip.home,) if failback else len(names) != 1:
            instead = vip.home if failback else "one director"
            if names:
                yield f"{vip.address} is held by {' and '.join(names)} instead of {instead}"
            else:
                yield f"{vip.address} is held by no director" + (f"; its home is {vip.home}" if failback else "")


def owners_of(topology: Topology, addresses: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Each VIP -> the directors that hold it, from each director's addresses."""
    return _holders(addresses, (str(vip.address) for vip in topology.vips))


def _holders(addresses: Mapping[str, tuple[str, ...]], wanted: Iterable[str]) -> dict[str, tuple[str, ...]]:
    return {address: tuple(name for name, held in addresses.items() if address in held) for address in wanted}


_MAC = re.compile(r"link/ether (\S+)")
_NEIGHBOUR = re.compile(r"^(\S+) dev \S+ lladdr (\S+)", re.MULTILINE)


def stale_neighbours(seen: Observations) -> list[StaleNeighbour]:
    """The nodes with a wrong neighbour entry for a VIP, or for the inside gateway that moves with it. Pure.

    Addresses without exactly 1 owner are left out: no neighbour entry for them is right or wrong.
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
