"""Does a persistent client stay with its real server while that is in service?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from pydantic import BaseModel, ConfigDict, Field

from harness.history import History, Op, Pair
from harness.history.client_ops import too_few
from harness.history.injections import injections
from harness.history.intervals import Interval, Intervals
from harness.history.ipvs_tables import Tables, tables
from harness.history.timeline import MS, count_of, holdings, moment, ms, span_of, watched
from harness.verdict import Finding, Verdict, conclude, invalid, not_tried

NAME = "persistence"

SHOWN = 5


class PersistenceSettings(BaseModel):
    """``[checks.persistence]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    visits: int = Field(default=50, ge=1, description="Minimum number of answers that follow another one")
    changes: int = Field(default=0, ge=0, description="Allowed number of moves of a client without a reason")
    settle_ms: float = Field(default=20_000, ge=0, description="How long after its undo a fault still explains a move")
    handover_ms: float = Field(
        default=5000, ge=0, description="How long before and after it a change of a VIP's owner explains a move"
    )


def check(history: History, settings: PersistenceSettings) -> Verdict:
    """A client that returns within the persistence time is served by the same real server, while that is in service.

    A client is an address, and the client node has one: all its requests to one VIP belong together, probes and users
    alike. An answer from another real server than the one before counts against the cluster when the one before was in
    service all the time, no fault that touches either of them was active or settling, and the VIP kept its owner.

    It needs the persistence of the virtual services as ldirectord.cf has it; without any, and with too few answers, it
    is unknown. Without tables it assumes that a real server is in service while no fault touches it. It cannot see
    clients with other addresses. Whether the directors synchronize a client's real server is not judged.
    """
    seconds = history.cluster.persistence_s
    if not seconds:
        return conclude(NAME, [not_tried("The virtual services are not persistent.")], "")
    judge = _PersistenceJudge(history, settings)
    judged, moves = judge.visits
    findings = [*too_few("Answers that follow another one", judged, settings.visits), *judge.moved()]
    held = f"All {judged:,} answers came from the client's own real server."
    numbers = {
        "persistence_ms": 1000 * seconds,
        "judged": judged,
        "moved": len(moves),
        "servers": {
            vip: {"answers": len(answers), "servers": len({_node(op) for op in answers})}
            for vip, answers in judge.answers.items()
        },
    }
    evidence = [op.index for answers in judge.answers.values() for op in (answers[0], answers[-1])]
    return conclude(NAME, findings, held, numbers, evidence)


@dataclass(frozen=True)
class Moved:
    """A client was served by another real server than the time before."""

    vip: str
    before: Op
    after: Op


class _PersistenceJudge:
    """Finds the answers that came from another real server than the one before, and what explains them."""

    def __init__(self, history: History, settings: PersistenceSettings) -> None:
        self.history, self.settings = history, settings
        self.injections = injections(history, settings.settle_ms)
        self.tables = tables(history)
        self.excused = {node: self._excused(node) for node in history.cluster.web}
        self.handovers = {vip: self._handovers(vip) for vip in history.cluster.vips}
        self.pairs = _asked(history)
        self.answers = {
            vip: [pair.completion for pair in pairs if pair.completion is not None] for vip, pairs in self.pairs.items()
        }

    def _excused(self, node: str) -> Intervals:
        """When a client may be moved away from a real server, or to it."""
        spans = [(fault.start, fault.settled) for fault in self.injections if fault.touches(node)]
        return Intervals([*spans, *_out(self.tables, node)])

    def _handovers(self, vip: str) -> Intervals:
        slack = round(self.settings.handover_ms * MS)
        changes = [time for span in holdings(self.history).get(vip, []) for time in (span.start, span.end)]
        since, until = watched(self.history)
        return Intervals((time - slack, time + slack) for time in changes if since < time < until)

    @cached_property
    def visits(self) -> tuple[int, list[Moved]]:
        """How many answers follow another one of their client and must be alike, and those that are not."""
        judged, moves = 0, []
        for vip, pairs in self.pairs.items():
            for before, after in pairwise(pairs):
                if self._must_be_alike(vip, before, after):
                    judged += 1
                    if before.completion and after.completion and _node(before.completion) != _node(after.completion):
                        moves.append(Moved(vip, before.completion, after.completion))
        return judged, moves

    def _must_be_alike(self, vip: str, before: Pair, after: Pair) -> bool:
        """Whether two answers came within the persistence time, and nothing explains that their servers differ."""
        if before.completion is None or after.completion is None:
            return False
        if after.invoke.time - before.completion.time >= self.history.cluster.persistence_s * 1000 * MS:
            return False
        nodes = {_node(before.completion), _node(after.completion)}
        reasons = [self.handovers[vip], *(self.excused.get(node, Intervals()) for node in nodes)]
        return not any(reason.overlaps(before.invoke.time, after.completion.time) for reason in reasons)

    def moved(self) -> Iterator[Finding]:
        """Clients that were moved without a reason."""
        moves = self.visits[1]
        if len(moves) > self.settings.changes:
            first = moves[0]
            yield invalid(
                f"The client was moved {count_of(len(moves), 'time')} without a reason, first for {first.vip} from "
                f"{_node(first.before)} to {_node(first.after)} at {moment(first.after.time)}, "
                f"{span_of(ms(first.after.time - first.before.time))} after its last answer.",
                *(op.index for move in moves[:SHOWN] for op in (move.before, move.after)),
            )


def _asked(history: History) -> dict[str, list[Pair]]:
    """Each VIP -> the client's answered requests to it, by time of sending."""
    fs = dict.fromkeys(op.f for op in history if op.type == "ok" and op.get("node") and op.get("vip"))
    found: dict[str, list[Pair]] = defaultdict(list)
    for pair in sorted((pair for f in fs for pair in history.pairs(f)), key=lambda pair: pair.invoke.time):
        vip = str(pair.invoke.get("vip"))
        if pair.ok and pair.completion is not None and pair.completion.get("node") and vip in history.cluster.vips:
            found[vip].append(pair)
    return found


def _out(found: Tables, node: str) -> Iterator[Interval]:
    """From the last sample before a real server was out to the first after it, in any table."""
    for _, entries in found.of_server(node):
        times = [entry.time for entry in entries]
        for place, entry in enumerate(entries):
            if entry.out:
                yield times[max(0, place - 1)], times[min(len(times) - 1, place + 1)]


def _node(op: Op) -> str:
    return str(op.get("node"))
