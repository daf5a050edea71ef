"""What an operator does after a split brain: restart heartbeat where needed, and announce the addresses again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from faults.cluster.directors import held_by, one_owner
from faults.fault import Change, SimpleFault, must
from faults.programs import PROGRAMS
from faults.targets import pair
from harness.protocols import Lab, Node
from harness.records import Undo
from harness.wait import NotYet, Timeout, until

SETTLE = f"{PROGRAMS}/settle"
ANNOUNCE = f"{PROGRAMS}/announce"

ON_THEIR_OWN_S = 60.0
"""A failback takes 5 s to 10 s, and some 40 s on a crowded machine."""

ANNOUNCE_S = 30.0
"""2 announcements of each address, 1 s apart (arping(8))."""

FOLLOW_S = 30.0
"""An announcement is heard at once; a crowded machine needs a while to look at all nodes."""

RESTART_S = 150.0
"""heartbeat stops its resources, the peer starts them, and then heartbeat starts again: all of it scripts."""

OPERATOR = Undo((SETTLE, "--if-needed"))
"""The undo step by which an operator restores one owner per VIP, if the directors have not done so on their own."""

SETTLES = 3


def settled(lab: Lab, director: Node) -> None:
    """Wait until each VIP is where it belongs, and settle the directors where it is not. Raises Timeout."""
    for _ in range(SETTLES):
        try:
            until(lambda: in_place(lab), ON_THEIR_OWN_S, "each VIP to be on its home director", 0.5, lab.clock)
            break
        except Timeout:
            must(director, SETTLE, timeout_s=RESTART_S)
    else:
        until(lambda: in_place(lab), ON_THEIR_OWN_S, "each VIP to be on its home director", 0.5, lab.clock)
    for node in pair(lab):
        must(node, ANNOUNCE, timeout_s=ANNOUNCE_S)
    until(lambda: all_follow(lab), FOLLOW_S, "all nodes to send each VIP's traffic to its holder", 0.5, lab.clock)


def in_place(lab: Lab) -> str:
    """See that each VIP has one owner: with auto_failback its home director. Raises NotYet."""
    if lab.cluster.auto_failback:
        held_by(lab, {vip: (home,) for vip, home in lab.cluster.vips.items()})
        return "Each VIP is on its home director"
    one_owner(lab)
    return "Each VIP has one owner"


def all_follow(lab: Lab) -> str:
    """See that no node sends a VIP's traffic to a director that does not hold it. Raises NotYet."""
    if stale_neighbours := lab.status().stale_neighbours:
        raise NotYet("; ".join(map(str, stale_neighbours)))
    return "No node has a stale ARP entry for a VIP"


SETTLED: bool = Field(
    False,
    description="After the undo, restart heartbeat on one director if they do not recover on their own",
)


class Settle(SimpleFault):
    """Recover from a split brain as an operator would, if the directors do not recover on their own.

    It restarts heartbeat cleanly on one director if a VIP stays away from its home director. Then each director
    announces the VIPs that it holds (gratuitous ARP): a director that held them all the time has not announced them,
    though its peer may have, meanwhile. There is nothing to undo.
    """

    name: ClassVar[str] = "cluster.settle"

    def changes(self, lab: Lab) -> Sequence[Change]:
        """The holders of the VIPs, and the neighbours' entries."""
        director = pair(lab)[0]

        def in_order() -> str:
            return f"{in_place(lab)}. {all_follow(lab)}"

        return [Change(director, "peace", lambda: settled(lab, director), (), in_order, proof_within_s=FOLLOW_S)]
