"""Faults that part the directors: split brain, a cut path, both off, a return in the middle of a takeover."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from pydantic import Field

from faults.cluster.directors import TAKEOVER_S, DirectorFault, each_serves_all, heartbeat_paths, says
from faults.cluster.operator import OPERATOR, SETTLED, settled
from faults.fault import EVERY_S, Change, SimpleFault, must, running, wires_of
from faults.network import nft
from faults.network.cables import counted, table_change
from faults.network.nft import Frames, Hook
from faults.network.rules import acted, change, pcap
from faults.node import BOOT, answers
from faults.targets import other_director, pair
from harness.protocols import Lab, Node, Wires
from harness.records import Cable, EffectKind, FrameRule, LabError, Power, Undo
from harness.wait import NotYet, until


def silence(cables: Sequence[Cable], frames: Frames) -> list[Hook]:
    """The hooks where the switch forwards heartbeat messages from these cables. Pure."""
    return [
        Hook(f"from_{number}", "forward", (), tuple(f'iifname "{cable.name}" {match}' for match in frames.matches()))
        for number, cable in enumerate(cables, start=1)
    ]


class _Silence(SimpleFault):
    """The switch drops heartbeat messages, and nothing else."""

    def affected(self, lab: Lab) -> tuple[str, ...]:
        """Both directors."""
        return tuple(lab.cluster.directors)

    def cut(self, lab: Lab, segment: str, cables: Sequence[Cable], frames: Frames) -> Change:
        """Drop the messages of one path in both directions."""
        if wires := wires_of(lab):
            return self.simulated(lab, wires, segment, cables, frames)
        table = nft.fresh()
        ruleset = nft.dropping(table, silence(cables, frames))

        def dropped() -> str:
            hits = {way: n for way, n in counted(lab, "bridge", table).items() if way.startswith("hit_")}
            return self.dropped(hits, segment)

        return table_change(lab, table, "bridge", lambda: must(lab.switch, "nft", ruleset), dropped, frames)

    def simulated(self, lab: Lab, wires: Wires, segment: str, cables: Sequence[Cable], frames: Frames) -> Change:
        """The same in a simulated switch."""
        name = wires.fresh(f"silence-{segment}")
        made = {
            each.name: [FrameRule(f"{name}-{each.node}", each.name, "from", "drop", pcap(frames))] for each in cables
        }

        def dropped() -> str:
            return self.dropped({way: each.acted for way, each in acted(wires, made).items()}, segment)

        return change(lab, wires, name, made, dropped)

    def dropped(self, hits: Mapping[str, int], segment: str) -> str:
        """The proof, from the number of lost messages of each director. Raises NotYet. Pure."""
        if not all(hits.values()):
            raise NotYet(f"dropped so far: {dict(hits)}")
        return f"dropped {sum(hits.values())} heartbeat messages of both directors on {segment}"


class SplitBrain(_Silence):
    """Drop heartbeat messages on all paths in both directions, so that each director considers the other dead.

    All other traffic passes. Undone by letting the messages through; the directors then recover on their own, unless
    ``settle`` is set.
    """

    name: ClassVar[str] = "cluster.split-brain"
    does: ClassVar[tuple[EffectKind, ...]] = (
        EffectKind.IMPAIRS_PATH,
        EffectKind.DOUBLES_ADDRESS,
    )
    settle: bool = SETTLED

    def changes(self, lab: Lab) -> Sequence[Change]:
        """A cut of each path, and the split brain that follows."""
        paths, port = heartbeat_paths(lab)
        cuts = [self.cut(lab, segment, cables, Frames("udp", port)) for segment, cables in paths.items()]
        director = pair(lab)[0]
        split = Change(
            director,
            "sight of its peer",
            lambda: None,
            (OPERATOR,) if self.settle else (),
            lambda: each_serves_all(lab),
            lambda: settled(lab, director) if self.settle else None,
            proof_within_s=lab.cluster.deadtime_ms / 1000 + TAKEOVER_S,
        )
        return [split, *cuts]  # undone last to first


class OnePathCut(_Silence):
    """Drop heartbeat messages on one path in both directions, which should cause no takeover."""

    name: ClassVar[str] = "cluster.one-path-cut"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.IMPAIRS_PATH,)
    path: str = Field("heartbeat", min_length=1, description="Segment of the path")

    def target(self, lab: Lab) -> str:
        """The segment."""
        segments = {cable.segment for cable in lab.cables}
        if self.path not in segments:
            raise LabError(f"unknown segment {self.path!r}", f"Segments: {', '.join(sorted(segments))}.")
        return self.path

    def changes(self, lab: Lab) -> Sequence[Change]:
        """The messages on that path."""
        paths, port = heartbeat_paths(lab)
        if self.path not in paths:
            raise LabError(f"heartbeat has no path on {self.path}", f"It has: {', '.join(paths)}.")
        return [self.cut(lab, self.path, paths[self.path], Frames("udp", port))]


# --- power, and a return at a bad moment


class BothDirectors(SimpleFault):
    """Cut the power of both directors at once, so that no VIP answers. Undone by powering them on."""

    name: ClassVar[str] = "cluster.both-directors"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.NODE_DOWN,)

    def affected(self, lab: Lab) -> tuple[str, ...]:
        """Both directors."""
        return tuple(lab.cluster.directors)

    def changes(self, lab: Lab) -> Sequence[Change]:
        """The power of each."""
        client, vips = lab.nodes("client")[0], tuple(lab.cluster.vips)  # read now: later no director answers

        def dark(node: Node) -> Callable[[], str]:
            def look() -> str:
                if node.power() is not Power.OFF:
                    raise NotYet(f"{node.name} is {node.power()}")
                return f"{node.name} is off"

            return look

        def silent() -> str:
            for vip in vips:
                if client.exec("ping", "-q", "-c", "1", "-W", "1", vip).ok:
                    raise NotYet(f"{vip} answers")
            return f"{client.name} gets no answer from any VIP"

        def last(node: Node) -> Callable[[], str]:
            return lambda: f"{dark(node)()}; {silent()}"

        one, two = pair(lab)
        return [
            Change(one, "power", one.power_off, (BOOT,), dark(one), lambda: answers(one)),
            Change(two, "power", two.power_off, (BOOT,), last(two), lambda: answers(two)),
        ]


class FailbackDuringRecovery(DirectorFault):
    """Let a director return with its VIPs just when its peer takes them over, so that both hold them.

    The node is frozen until its peer declares it dead, and thawed at that moment. Undone as an operator would, if the
    directors do not recover on their own: stop heartbeat on one, and start it again when the peer holds every VIP.
    """

    name: ClassVar[str] = "cluster.failback-during-recovery"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.DOUBLES_ADDRESS,)

    def affected(self, lab: Lab) -> tuple[str, ...]:
        """Both directors."""
        return tuple(lab.cluster.directors)

    def changes(self, lab: Lab) -> Sequence[Change]:
        """A node that was frozen for a while."""
        node, peer = running(lab.node(self.node)), running(other_director(lab, self.node))
        mine = [vip for vip, holders in lab.owners().items() if holders == (node.name,)]
        if not mine:
            raise LabError(f"{node.name} holds no VIP alone, so it cannot return with one")

        within_s = lab.cluster.deadtime_ms / 1000 + TAKEOVER_S

        def away() -> None:
            node.freeze()
            try:
                until(
                    lambda: says(peer, "nodestatus", node.name) == "dead",
                    within_s,
                    f"{peer.name} to declare {node.name} dead",
                    EVERY_S,
                    lab.clock,
                )
            finally:
                node.thaw()

        def both() -> str:
            now = lab.owners()
            doubled = [vip for vip in mine if len(now[vip]) > 1]
            if not doubled:
                raise NotYet(f"holders: { {vip: now[vip] for vip in mine} }")
            return f"{peer.name} declared {node.name} dead, and {node.name} returned; both hold {', '.join(doubled)}"

        undo = (Undo(("thaw",), "power"), OPERATOR)
        return [Change(node, "power", away, undo, both, lambda: settled(lab, node), proof_within_s=TAKEOVER_S)]
