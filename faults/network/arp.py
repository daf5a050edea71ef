"""Faults of addresses on a segment: lost announcements, duplicate addresses, wrong neighbour entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from pydantic import Field, field_validator

from faults.fault import Change, SimpleFault, must, seen, sh, wires_of
from faults.network import nft, rules
from faults.network.cables import (
    counted,
    neighbours,
    ping,
    plugged,
    reaches,
    table_change,
)
from faults.network.nft import Frames
from faults.programs import PROGRAMS, containing, detached, ended
from harness.protocols import Lab, Node, Wires
from harness.records import Cable, EffectKind, LabError, Output, Undo
from harness.wait import NotYet

UNUSED_MAC = "00:00:5e:00:53:01"
"""A MAC address for documentation (RFC 7042, 2.1.2), which no interface has."""

ANNOUNCED = "arp and arp[14:4] = arp[24:4]"
"""The pcap filter of ARP messages whose sender and target are the same address (RFC 826; RFC 5227, 3)."""

IPV4 = r"^(\d{1,3}\.){3}\d{1,3}$"
MAC = r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$"


class _OfCable(SimpleFault):
    """A fault of the node at one end of a cable, or of its neighbour table."""

    cable: str = Field(min_length=1, description="Name of the cable: node.interface, such as lb-1.eth0")

    def affected(self, lab: Lab) -> tuple[str, ...]:
        """The node at the cable's end."""
        return (self.cable.partition(".")[0],)

    def target(self, lab: Lab) -> list[Cable]:
        """The other cables of its segment."""
        return neighbours(lab, plugged(lab, self.cable))


class LostAnnouncements(_OfCable):
    """Drop a node's gratuitous ARP, so that its neighbours miss a takeover."""

    name: ClassVar[str] = "network.lost-announcements"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.MISDIRECTS,)

    def changes(self, lab: Lab) -> Sequence[Change]:
        """A table of the switch, or a rule of a simulated one."""
        if wires := wires_of(lab):
            return [self.simulated(lab, wires)]
        cable, table = plugged(lab, self.cable), nft.fresh()
        known = [address for each in (cable, *neighbours(lab, cable)) for address in each.addresses]
        announced = f"arp saddr ip . arp daddr ip {announcements(known)}"
        ruleset = nft.dropping(table, [nft.leaving(cable.name, Frames("arp"))], announced)
        node = lab.node(cable.node)

        def proof() -> str:
            return self.lost(counted(lab, "netdev", table)["hit_from"], node, cable)

        return [table_change(lab, table, "netdev", lambda: must(lab.switch, "nft", ruleset), proof, Frames("arp"))]

    def simulated(self, lab: Lab, wires: Wires) -> Change:
        """The same in a simulated switch, whose filter can compare the 2 addresses."""
        cable, name = plugged(lab, self.cable), wires.fresh("lost-announcements")
        made = rules.each_way(name, cable, ("from",), "drop", ANNOUNCED)
        node = lab.node(cable.node)

        def proof() -> str:
            return self.lost(rules.acted(wires, made)["from"].acted, node, cable)

        return rules.change(lab, wires, name, made, proof)

    def lost(self, count: int, node: Node, cable: Cable) -> str:
        """The proof, for this number of lost announcements. Raises NotYet, after the node has announced itself."""
        if not count:
            must(node, "arping", "-U", "-c", "1", "-I", cable.interface, cable.addresses[0])
            raise NotYet(f"no announcement of {cable.name} yet")
        return f"{count} announcements of {cable.name} dropped"


def announcements(addresses: Sequence[str]) -> str:
    """The nft set of ARP messages whose sender and target are the same address (RFC 5227, 3). Pure.

    nft cannot compare the 2 fields, so the set lists every address of the given addresses' /24 networks, VIPs included.
    """
    networks = dict.fromkeys(address.rpartition(".")[0] for address in addresses)
    found = [f"{network}.{host}" for network in networks for host in range(1, 255)]
    return "{ " + ", ".join(f"{address} . {address}" for address in found) + " }"


class DuplicateAddress(_OfCable):
    """Give a node an address that another node on its segment has, as a careless administrator does.

    Undone by removing it, and by announcing the true holder on the segment.
    """

    name: ClassVar[str] = "network.duplicate-address"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.DOUBLES_ADDRESS,)
    address: str = Field(pattern=IPV4, description="Address of another node on the segment, or a VIP")
    announce: bool = Field(True, description="Announce it, too, as ifup does, so that neighbours use the new holder")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """Undone last to first: the address, then the neighbours' entries."""
        cable = plugged(lab, self.cable)
        node, address = lab.node(cable.node), self.address
        if (
            address
            in must(node, "ip", "-4", "-o", "addr", "show", "dev", cable.interface).stdout.replace("/", " ").split()
        ):
            raise LabError(f"{node.name} already has {address}")
        if not (holders := claimants_at_last(lab, cable, address)):
            raise LabError(f"no node on the segment of {cable.name} has {address}, so it would not be a duplicate")
        announced = 'arping -q -U -c 1 -I "$2" "$1"' if self.announce else "true"
        apply = sh(f'ip addr add "$1/32" dev "$2" 2>&1 | grep -v "File exists"; {announced}', address, cable.interface)
        undo = Undo(
            sh(
                'ip addr del "$1/32" dev "$2" 2> /dev/null; ! ip -4 -o addr show dev "$2" | grep -q -F " $1/32 "',
                address,
                cable.interface,
            )
        )

        def twice() -> str:
            if cable.mac not in (found := claimants(lab, cable, address)) or len(found) < 2:
                raise NotYet(f"{address} is claimed by {' and '.join(found) or 'no node'}")
            return f"{address} is claimed by {' and '.join(found)}"

        def single() -> None:
            if cable.mac in claimants(lab, cable, address):
                raise NotYet(f"{node.name} still claims {address}")

        restore = restored(lab, cable, address)
        believed = Change(lab.switch, f"holder of {address}", lambda: None, (restore,), twice)
        held = Change(
            node,
            f"address {address}",
            lambda: must(node, *apply),
            (undo,),
            twice,
            single,
            again=(Undo(apply),),
            detail={"holders": holders},
        )
        return [believed, held]


class _WrongMac(_OfCable):
    """A fault that makes a node send traffic for an address to a wrong MAC address."""

    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.MISDIRECTS,)

    address: str = Field(pattern=IPV4, description="Address on its segment that the node talks to")
    mac: str = Field(UNUSED_MAC, pattern=MAC, description="Wrong MAC address (the default belongs to no interface)")

    @field_validator("mac", mode="before")
    @classmethod
    def _lower(cls, mac: object) -> object:
        return mac.lower() if isinstance(mac, str) else mac

    def reachable(self, node: Node) -> None:
        """See that the node reaches the address. Raises NotYet."""
        seen(node, lambda done: done.ok, "reached", *ping(self.address))

    def reached_before(self, node: Node) -> None:
        """Raises LabError if the node does not reach the address, so that the effect could not be proven."""
        if not reaches(node, self.address):
            raise LabError(f"{node.name} does not reach {self.address}, so the fault could not be proven")

    def unreachable(self, node: Node, cable: Cable) -> str:
        """See the wrong entry, and that no answer comes. Raises NotYet."""
        seen(node, self._wrong, "wrong", *neighbour(self.address, cable))
        what = f"{node.name} sends traffic for {self.address} to {self.mac}, and gets no answer"
        return seen(node, lambda done: not done.ok, what, *ping(self.address))

    def _wrong(self, done: Output) -> bool:
        return self.mac in done.stdout


class StaleNeighbour(_WrongMac):
    """Pin a wrong MAC address in a node's neighbour table, as if it had missed a takeover."""

    name: ClassVar[str] = "network.stale-neighbour"

    def changes(self, lab: Lab) -> Sequence[Change]:
        """A permanent entry of the neighbour table."""
        cable = plugged(lab, self.cable)
        node, interface = lab.node(cable.node), cable.interface
        self.reached_before(node)
        if "PERMANENT" in must(node, *neighbour(self.address, cable)).stdout:
            raise LabError(f"{node.name} already has a permanent entry for {self.address}")
        entry = (self.address, "lladdr", self.mac, "nud", "permanent", "dev", interface)
        apply = ("ip", "neigh", "replace", *entry)
        undo = Undo(
            sh(
                'ip neigh show "$1" dev "$2" | grep -q "lladdr $3 PERMANENT" || exit 0; ip neigh del "$1" dev "$2"',
                self.address,
                interface,
                self.mac,
            )
        )
        return [
            Change(
                node,
                f"neighbour {self.address} on {interface}",
                lambda: must(node, *apply),
                (undo,),
                lambda: self.unreachable(node, cable),
                lambda: self.reachable(node),
                again=(Undo(apply),),
            )
        ]


class PoisonedArp(_WrongMac):
    """Announce a wrong MAC address for an address to a node repeatedly, as an ARP spoofer does.

    Only this node gets the forged announcements. Undone by announcing the true holder on the segment.
    """

    name: ClassVar[str] = "network.poisoned-arp"
    every_ms: int = Field(250, ge=50, le=5000, description="Interval of the forged announcements, in ms")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """A program in the switch."""
        cable = plugged(lab, self.cable)
        node = lab.node(cable.node)
        self.reached_before(node)
        start, end = self.forging(lab, cable)
        return [
            Change(
                lab.switch,
                f"announcements of {self.address} to {cable.name}",
                start,
                (end, restored(lab, cable, self.address)),
                lambda: self.unreachable(node, cable),
                lambda: self.reachable(node),
            )
        ]

    def forging(self, lab: Lab, cable: Cable) -> tuple[Callable[[], object], Undo]:
        """What begins the announcements, and what ends them."""
        if wires := wires_of(lab):
            name = wires.fresh("forge")
            settings = (name, cable, self.address, self.mac, self.every_ms)
            return lambda: wires.forge(*settings), Undo(("remove", name), "wires")
        label = nft.fresh()
        forge = ("forge", cable.name, self.address, self.mac, cable.mac, str(self.every_ms), label)
        return lambda: must(lab.switch, *detached(f"{PROGRAMS}/arp", *forge)), ended(containing(label))


def neighbour(address: str, cable: Cable) -> tuple[str, ...]:
    """The command that shows a node's neighbour entry for an address."""
    return ("ip", "neigh", "show", address, "dev", cable.interface)


def claimants(lab: Lab, cable: Cable, address: str) -> list[str]:
    """The MAC addresses that claim an address on a cable's segment."""
    if wires := wires_of(lab):
        return wires.claimants(cable, address)
    return must(lab.switch, f"{PROGRAMS}/arp", "who", cable.name, address).stdout.split()


LOOKS = 6
"""A paused node answers later."""


def claimants_at_last(lab: Lab, cable: Cable, address: str) -> list[str]:
    """The same, but repeated up to ``LOOKS`` times while no node answers."""
    return next(filter(None, (claimants(lab, cable, address) for _ in range(LOOKS))), [])


def restored(lab: Lab, cable: Cable, address: str) -> Undo:
    """The step that announces the true holder of an address on a cable's segment."""
    if wires_of(lab):
        return Undo(("announce", cable.name, address), "wires")
    return Undo((f"{PROGRAMS}/arp", "restore", cable.name, address))
