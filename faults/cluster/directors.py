"""What the 2 directors report, hold and use: the looks that faults of the cluster share."""

from __future__ import annotations

from collections.abc import Mapping

from faults.fault import NodeFault, must
from faults.targets import pair
from harness.formats import ha_cf
from harness.protocols import Lab, Node
from harness.records import Cable, LabError
from harness.wait import NotYet

TAKEOVER_S = 120.0
"""A death is noticed after deadtime; then scripts start one resource after another, which takes 3 s on an idle machine
and can take 10 times as long on a crowded one."""


class DirectorFault(NodeFault):
    """A fault of one director."""

    def require(self, node: Node) -> None:
        """A director."""
        if node.role != "director":
            raise LabError(f"{node.name} is not a director: its role is {node.role}")


def says(node: Node, *question: str) -> str:
    """The answer of a director's heartbeat (cl_status(1)); empty when it does not run."""
    return node.exec("cl_status", *question).stdout.strip()


def each_serves_all(lab: Lab) -> str:
    """See that each director considers the other dead, and holds every VIP. Raises NotYet.

    It does not ask heartbeat which resources it holds: mach_down's message that a takeover is complete can get lost
    (``ERROR: msg2string: Message with zero fields``), and then the answer stays "transition".
    """
    one, two = pair(lab)
    for vip, holders in lab.owners().items():
        if len(holders) < 2:
            raise NotYet(f"{vip} is held by {' and '.join(holders) or 'no director'}")
    for node, peer in ((one, two), (two, one)):
        if (status := says(node, "nodestatus", peer.name)) != "dead":
            raise NotYet(f"{node.name} considers {peer.name} {status or 'unknown'}")
    return f"{one.name} and {two.name} consider each other dead, and each holds every VIP"


def serves_all_alone(lab: Lab, node: Node) -> str:
    """See that one director holds every VIP and no takeover is under way. Raises NotYet."""
    held_by(lab, dict.fromkeys(lab.cluster.vips, (node.name,)))
    if (resources := says(node, "rscstatus")) != "all":
        raise NotYet(f"{node.name} reports its resources as {resources or 'unknown'}")
    return f"{node.name} alone holds every VIP"


def held_by(lab: Lab, wanted: Mapping[str, tuple[str, ...]]) -> bool:
    """See that the given directors, and no others, hold the VIPs. Raises NotYet."""
    now = lab.owners()
    for vip, names in wanted.items():
        if now[vip] != names:
            raise NotYet(f"{vip} is held by {' and '.join(now[vip]) or 'no director'}")
    return True


def one_owner(lab: Lab) -> bool:
    """See that every VIP has exactly one holder. Raises NotYet."""
    for vip, holders in lab.owners().items():
        if len(holders) != 1:
            raise NotYet(f"{vip} is held by {' and '.join(holders) or 'no director'}")
    return True


def heartbeat_paths(lab: Lab) -> tuple[dict[str, list[Cable]], int]:
    """The directors' cables on each segment that ha.cf uses, and the port. Raises LabError."""
    found: dict[str, list[Cable]] = {}
    port = 0
    for node in pair(lab):
        config = ha_cf.parse(must(node, "cat", ha_cf.PATH).stdout)
        port = config.udpport
        for cable in lab.cables:
            if cable.node == node.name and cable.interface in config.interfaces:
                found.setdefault(cable.segment, []).append(cable)
    return {segment: cables for segment, cables in found.items() if len(cables) == 2}, port
