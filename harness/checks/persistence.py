"""Does a persistent client stay with its real server while that lives?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from harness.history import History, Op, Pair
from harness.history.client_ops import too_few
from harness.history.injections import Stretch, injections, merged, overlaps
from harness.history.ipvs_tables import Tables, tables
from harness.history.timeline import MS, holdings, moment, ms, watched
from harness.verdict import Finding, Verdict, conclude, invalid, unknown

NAME = "persistence"

SHOWN = 5


class PersistenceSettings(BaseModel):
    """``[checks.persistence]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    visits: int = Field(default=50, ge=1, description="How many answers after another one it takes to tell")
    changes: int = Field(default=0, ge=0, description="How often a client may be moved for no reason")
    settle_ms: float = Field(
        default=20_000, ge=0, description="How long after the undo of a fault a move is still put down to it"
    )
    handover_ms: float = Field(
        default=5000, ge=0, description="How long around a change of a VIP's owner a move is put down to it"
    )


def check(history: History, settings: PersistenceSettings) -> Verdict:
    """Whoever comes again within the persistence time is served by the same real server, while that is in service.

    A client is an address, and the client node has one: all that it asks of one VIP belongs together, probes and users
    alike. An answer by another real server than the one before counts against the cluster when the one before was in
    service all the time, nothing that touches either of them was in or settling, and the VIP did not change hands.

    It needs the persistence of the virtual services as ldirectord.cf has it; without any, and with too few answers, it
    is unknown. Without tables it takes a real server for being in service while no fault touches it. It cannot see
    clients with other addresses. That the directors tell each other of a client's real server is not asked for.
    """
    seconds = history.cluster.persistence_s
    if not seconds:
        return conclude(NAME, [unknown("The virtual services are not persistent.")], "")
    facts = _Facts(history, settings)
    findings = [*facts.doubts(), *facts.moved()]
    held = f"All of {facts.judged:,} answers came from the real server that the client was with."
    numbers = {
        "persistence_ms": 1000 * seconds,
        "judged": facts.judged,
        "moved": len(facts.moves),
        "servers": {
            vip: {"answers": len(some), "servers": len({_node(op) for op in some})}
            for vip, some in facts.answers.items()
        },
    }
    evidence = [op.index for some in facts.answers.values() for op in (some[0], some[-1])]
    return conclude(NAME, findings, held, numbers, evidence)


@dataclass(frozen=True)
class Moved:
    """A client was served by another real server than before."""

    vip: str
    before: Op
    after: Op


class _Facts:
    """A history and all that is read from it once."""

    def __init__(self, history: History, settings: PersistenceSettings) -> None:
        self.history, self.settings = history, settings
        self.injections = injections(history, settings.settle_ms)
        self.tables = tables(history)
        self.excused = {node: self._excused(node) for node in history.cluster.web}
        self.handovers = {vip: self._handovers(vip) for vip in history.cluster.vips}
        self.judged = 0
        self.moves: list[Moved] = []
        self.answers: dict[str, list[Op]] = {}
        for vip, pairs in _asked(history).items():
            self.answers[vip] = [pair.completion for pair in pairs if pair.completion is not None]
            self._judge(vip, pairs)

    def _excused(self, node: str) -> list[Stretch]:
        """When a client may be moved away from a real server, or to it."""
        spans = [(one.start, one.settled) for one in self.injections if one.touches(node)]
        return merged([*spans, *_out(self.tables, node)])

    def _handovers(self, vip: str) -> list[Stretch]:
        slack = round(self.settings.handover_ms * MS)
        changes = [time for span in holdings(self.history).get(vip, []) for time in (span.start, span.end)]
        since, until = watched(self.history)
        return merged((time - slack, time + slack) for time in changes if since < time < until)

    def _judge(self, vip: str, pairs: Sequence[Pair]) -> None:
        longest = self.history.cluster.persistence_s * 1000 * MS
        last: Pair | None = None
        for pair in pairs:
            after = pair.completion
            if after is None:
                continue
            if last is not None and last.completion is not None and pair.invoke.time - last.completion.time < longest:
                start, end = last.invoke.time, after.time
                nodes = {_node(last.completion), _node(after)}
                reasons = [self.handovers[vip], *(self.excused.get(node, []) for node in nodes)]
                if not any(overlaps(reason, start, end) for reason in reasons):
                    self.judged += 1
                    if len(nodes) > 1:
                        self.moves.append(Moved(vip, last.completion, after))
            last = pair

    def doubts(self) -> Iterator[Finding]:
        """Why not all can be told."""
        if not self.history.complete:
            yield unknown("The run was killed: what came after is not known.")
        yield from too_few("Answers that came after another one", self.judged, self.settings.visits)

    def moved(self) -> Iterator[Finding]:
        """Clients that were moved for no reason."""
        if len(self.moves) > self.settings.changes:
            first = self.moves[0]
            yield invalid(
                f"The client was moved {len(self.moves):,} times for no reason, first for {first.vip} from "
                f"{_node(first.before)} to {_node(first.after)} at {moment(first.after.time)}, "
                f"{ms(first.after.time - first.before.time):,.0f} ms after it was served last.",
                *(op.index for move in self.moves[:SHOWN] for op in (move.before, move.after)),
            )


def _asked(history: History) -> dict[str, list[Pair]]:
    """Each VIP -> what the client asked of it and was answered, by time of asking."""
    fs = dict.fromkeys(op.f for op in history if op.type == "ok" and op.get("node") and op.get("vip"))
    found: dict[str, list[Pair]] = defaultdict(list)
    for pair in sorted((pair for f in fs for pair in history.pairs(f)), key=lambda pair: pair.invoke.time):
        vip = str(pair.invoke.get("vip"))
        if pair.ok and pair.completion is not None and pair.completion.get("node") and vip in history.cluster.vips:
            found[vip].append(pair)
    return found


def _out(found: Tables, node: str) -> Iterator[Stretch]:
    """From the last sample before a real server was out to the first after it, in any table."""
    for _, entries in found.of_server(node):
        times = [entry.time for entry in entries]
        for place, entry in enumerate(entries):
            if entry.out:
                yield times[max(0, place - 1)], times[min(len(times) - 1, place + 1)]


def _node(op: Op) -> str:
    return str(op.get("node"))
