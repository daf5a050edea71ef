"""Faults of who has which address on a segment: announcements that are lost, addresses held twice, wrong neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field, field_validator

from faults.fault import Change, SimpleFault, must, seen, sh
from faults.network import nft
from faults.network.cables import (
    DETACH,
    PROGRAMS,
    counted,
    ended,
    neighbours,
    ping,
    plugged,
    reaches,
    table_change,
)
from faults.network.nft import Frames
from harness.protocols import Lab, Node
from harness.records import Cable, LabError, Output, Undo
from harness.wait import NotYet

NOBODY = "00:00:5e:00:53:01"
"""A MAC address that is reserved for documentation (RFC 7042, 2.1.2), so nobody has it."""

IPV4 = r"^(\d{1,3}\.){3}\d{1,3}$"
MAC = r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$"


class _OfCable(SimpleFault):
    """A fault of one cable's node, or of what it is told."""

    cable: str = Field(min_length=1, description="Its name: node.interface, such as lb-1.eth0")

    def available(self, lab: Lab) -> str | None:
        """None, or the reason why this lab cannot do it."""
        try:
            neighbours(lab, plugged(lab, self.cable))
        except LabError as error:
            return f"{error} {error.next_step}".strip()
        return None


class LostAnnouncements(_OfCable):
    """Drop what a node announces of its addresses (gratuitous ARP): its neighbours miss a takeover."""

    name: ClassVar[str] = "network.lost-announcements"

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: a table of the switch."""
        cable, table = plugged(lab, self.cable), nft.fresh()
        known = [address for each in (cable, *neighbours(lab, cable)) for address in each.addresses]
        announced = f"arp saddr ip . arp daddr ip {announcements(known)}"
        ruleset = nft.dropping(table, [nft.leaving(cable.name, Frames("arp"))], announced)
        node = lab.node(cable.node)

        def proof() -> str:
            if not (lost := counted(lab, "netdev", table)["hit_from"]):
                must(node, "arping", "-U", "-c", "1", "-I", cable.interface, cable.addresses[0])
                raise NotYet(f"{cable.name} announced nothing yet")
            return f"{lost} announcements of {cable.name} dropped"

        return [table_change(lab, table, "netdev", lambda: must(lab.switch, "nft", ruleset), proof, Frames("arp"))]


def announcements(addresses: Sequence[str]) -> str:
    """The set, as nft writes it, of an ARP message's sender and target that are the same address (RFC 5227, 3).

    nft cannot compare the two, so it is every address of the given ones' /24 networks, virtual ones included. Pure.
    """
    networks = dict.fromkeys(address.rpartition(".")[0] for address in addresses)
    found = [f"{network}.{host}" for network in networks for host in range(1, 255)]
    return "{ " + ", ".join(f"{address} . {address}" for address in found) + " }"


class DuplicateAddress(_OfCable):
    """Give a node an address that another one on the segment has, as a careless administrator does.

    Undone by taking it away, and by telling the segment who has it.
    """

    name: ClassVar[str] = "network.duplicate-address"
    address: str = Field(pattern=IPV4, description="The address of another node there, or a virtual one")
    announce: bool = Field(True, description="Also announce it, as ifup does: neighbours then believe the newcomer")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """Two changes, of which the first is undone last: what neighbours believe, and the address."""
        cable = plugged(lab, self.cable)
        node, address = lab.node(cable.node), self.address
        if (
            address
            in must(node, "ip", "-4", "-o", "addr", "show", "dev", cable.interface).stdout.replace("/", " ").split()
        ):
            raise LabError(f"{node.name} has {address} itself")
        if not (holders := anybody(lab, cable, address)):
            raise LabError(f"nobody on the segment of {cable.name} has {address}, so it would not be there twice")
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
            if cable.mac not in (found := who(lab, cable, address)) or len(found) < 2:
                raise NotYet(f"{address} is claimed by {' and '.join(found) or 'nobody'}")
            return f"{address} is claimed by {' and '.join(found)}"

        def single() -> None:
            if cable.mac in who(lab, cable, address):
                raise NotYet(f"{node.name} still claims {address}")

        believed = Change(lab.switch, f"who has {address}", lambda: None, (restored(cable, address),), twice)
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
    """A fault after which a node sends what is for an address to a wrong MAC address."""

    address: str = Field(pattern=IPV4, description="An address on its segment that the node talks to")
    mac: str = Field(NOBODY, pattern=MAC, description="The wrong MAC address; by default one that nobody has")

    @field_validator("mac", mode="before")
    @classmethod
    def _lower(cls, mac: object) -> object:
        return mac.lower() if isinstance(mac, str) else mac

    def reachable(self, node: Node) -> None:
        """See that the address is reached. Raises NotYet."""
        seen(node, lambda said: said.ok, "reached", *ping(self.address))

    def reached_before(self, node: Node) -> None:
        """What is not reached anyway cannot be seen to get lost. Raises LabError."""
        if not reaches(node, self.address):
            raise LabError(f"{node.name} does not reach {self.address} anyway")

    def unreachable(self, node: Node, cable: Cable) -> str:
        """See the wrong entry, and that nothing comes back from there."""
        seen(node, self._wrong, "wrong", *neighbour(self.address, cable))
        what = f"{node.name} sends what is for {self.address} to {self.mac}, and gets no answer"
        return seen(node, lambda said: not said.ok, what, *ping(self.address))

    def _wrong(self, said: Output) -> bool:
        return self.mac in said.stdout


class StaleNeighbour(_WrongMac):
    """Keep a wrong MAC address in a node's neighbour table, as one that has missed a takeover for ever."""

    name: ClassVar[str] = "network.stale-neighbour"

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: a permanent entry of the neighbour table."""
        cable = plugged(lab, self.cable)
        node, interface = lab.node(cable.node), cable.interface
        self.reached_before(node)
        if "PERMANENT" in must(node, *neighbour(self.address, cable)).stdout:
            raise LabError(f"{node.name} has a permanent entry for {self.address} already")
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
    """Tell a node again and again that an address is at a wrong MAC address, as an ARP spoofer does.

    The forged announcements are for this node alone. Undone by telling the segment who really has the address.
    """

    name: ClassVar[str] = "network.poisoned-arp"
    every_ms: int = Field(250, ge=50, le=5000, description="How often the lie is told")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: a process in the switch."""
        cable, told = plugged(lab, self.cable), nft.fresh()
        node = lab.node(cable.node)
        self.reached_before(node)
        forge = ("forge", cable.name, self.address, self.mac, cable.mac, str(self.every_ms), told)
        start = (DETACH, f"{PROGRAMS}/arp", *forge)
        return [
            Change(
                lab.switch,
                f"what {cable.name} is told of {self.address}",
                lambda: must(lab.switch, *start),
                (ended(told), restored(cable, self.address)),
                lambda: self.unreachable(node, cable),
                lambda: self.reachable(node),
            )
        ]


def neighbour(address: str, cable: Cable) -> tuple[str, ...]:
    """The command that shows a node's neighbour entry of an address."""
    return ("ip", "neigh", "show", address, "dev", cable.interface)


def who(lab: Lab, cable: Cable, address: str) -> list[str]:
    """The MAC addresses that claim an address on a cable's segment."""
    return must(lab.switch, f"{PROGRAMS}/arp", "who", cable.name, address).stdout.split()


LOOKS = 6
"""A node that stands still for a moment is there all the same."""


def anybody(lab: Lab, cable: Cable, address: str) -> list[str]:
    """The same, asked again while nobody answers, some times at most."""
    return next(filter(None, (who(lab, cable, address) for _ in range(LOOKS))), [])


def restored(cable: Cable, address: str) -> Undo:
    """Tells a cable's segment who has an address."""
    return Undo((f"{PROGRAMS}/arp", "restore", cable.name, address))
