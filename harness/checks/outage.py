"""For how long did each virtual IP not answer, and was that within what the cluster's own settings allow?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.checks import budget
from harness.checks.ownership import claims
from harness.checks.timeline import (
    FELLED,
    MS,
    Holding,
    holdings,
    moment,
    ms,
    silences,
    span_of,
    watched,
)
from harness.history import History, Op, Pair
from harness.protocols import Cluster
from harness.verdict import Finding, Verdict, conclude, invalid, unknown

NAME = "outage"

PARTS = ("detection", "takeover", "announcement", "answer")
"""The parts of a takeover outage, in the order in which they follow one another."""


class OutageSettings(BaseModel):
    """``[checks.outage]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    losses: int = Field(default=3, ge=2, description="How many probes lost in a row make an outage")
    takeover_ms: float | None = Field(
        default=None,
        gt=0,
        description="The longest outage after the owner's machine fell; left out: deadtime + keepalive + the start of "
        "all its resources + answer",
    )
    failback_ms: float | None = Field(
        default=None,
        gt=0,
        description="The longest outage while one director hands the address to the other; left out: the start of all "
        "its resources + answer",
    )
    other_ms: float = Field(default=0, ge=0, description="The longest outage that no change of owner explains")
    answer_ms: float = Field(default=1000, ge=0, description="From the announcement to the first good answer")
    before_ms: float = Field(default=1000, ge=0, description="How long before an outage its cause may lie")
    late_ms: float = Field(
        default=1000,
        gt=0,
        description="An answer as late as this counts as lost: it came by a retransmission, whose timer starts at 1 s "
        "(RFC 6298)",
    )
    stop_ms: float = Field(default=1000, gt=0, description="The longest time without sending a probe")
    probes: int = Field(default=20, ge=1, description="How many probes a virtual IP needs at least")

    def budget(self, kind: str, cluster: Cluster) -> float:
        """The longest outage of that kind."""
        if kind == "takeover":
            return budget.takeover_ms(cluster) + self.answer_ms if self.takeover_ms is None else self.takeover_ms
        if kind == "handover":
            return budget.handover_ms(cluster) + self.answer_ms if self.failback_ms is None else self.failback_ms
        return self.other_ms


@dataclass(frozen=True)
class Row:
    """Probes lost in a row, between the last good one and the next good one (None: there was none)."""

    before: Pair | None
    lost: tuple[Pair, ...]
    after: Pair | None

    @property
    def start(self) -> int:
        """The earliest moment at which the outage can have begun."""
        return (self.before or self.lost[0]).invoke.time

    @property
    def end(self) -> int:
        """The latest moment at which it can have ended."""
        if self.after is None or self.after.completion is None:
            return self.lost[-1].invoke.time
        return self.after.completion.time

    def lower_ns(self, stop_ns: int) -> int:
        """The shortest outage that explains it. Nothing is claimed for times in which no probe was sent."""
        sends = [pair.invoke.time for pair in self.lost]
        return sum(later - earlier for earlier, later in pairwise(sends) if later - earlier <= stop_ns)

    def ops(self) -> tuple[int, ...]:
        """The ops at its bounds: last good, first lost, last lost, first good."""
        bounds = [pair for pair in (self.before, self.lost[0], self.lost[-1], self.after) if pair]
        return tuple(dict.fromkeys(op.index for pair in bounds for op in (pair.invoke, pair.completion) if op))


@dataclass(frozen=True)
class Cause:
    """Why an outage may be: its kind, the op at which it began, who had the VIP and who got it."""

    kind: str
    op: Op | None = None
    owner: str | None = None
    survivor: Holding | None = None


def check(history: History, settings: OutageSettings) -> Verdict:
    """Each VIP answers a fast probe at all times but for takeovers and handovers within their budgets.

    The probe is open loop: it sends every so often whether answers come or not, so an outage cannot silence it. k
    losses in a row, d apart, are an outage longer than (k-1)d and shorter than (k+1)d. The bounds here come from the
    actual times: it was longer than from the first to the last lost probe's sending, and shorter than from the last
    good probe's sending to the next good answer. (To the answer, because a packet can wait for its neighbour's address:
    at its sending nobody may have been there.) An outage is invalid when even its lower bound is over budget, and
    unknown when only its upper bound is.

    It cannot see outages shorter than k-1 probes, nor those of a part of the clients: it is one client. Losses that are
    not in a row are counted and not judged. A virtual IP whose owner did not fail has no budget at all.

    A takeover's outage is split where witnesses allow it: detection (until the survivor's log says that the owner is
    dead), takeover (until the survivor has the address), announcement (until its first gratuitous ARP) and answer
    (until the next good probe is sent). A part whose bounds are missing or in the wrong order is None.
    """
    facts = _Facts(history, settings)
    findings: list[Finding] = []
    if not history.complete:
        findings.append(unknown("The run was killed: what came after is not known."))
    for vip in history.cluster.vips:
        findings += [*facts.probe_findings(vip), *facts.outage_findings(vip)]
    return conclude(NAME, findings, "" if findings else facts.held(), facts.numbers(), facts.evidence())


class _Facts:
    """A history and all that is read from it once."""

    def __init__(self, history: History, settings: OutageSettings) -> None:
        self.history = history
        self.settings = settings
        self.until = watched(history)[1]
        self.held_by = holdings(history)
        self.claims = claims(history, 0, history.end_ns)
        self.probes = {vip: self._probes(vip) for vip in history.cluster.vips}
        self.rows = {vip: _rows([(pair, self.good(pair)) for pair in pairs]) for vip, pairs in self.probes.items()}

    def _probes(self, vip: str) -> list[Pair]:
        """The probes to judge, by time of sending. The last ones were still under way when the run closed the probe."""
        pairs = [pair for pair in self.history.pairs("http") if pair.invoke.get("vip") == vip]
        in_time = [pair for pair in pairs if pair.invoke.time <= self.until]
        settled = self.until - round(self.settings.late_ms * MS)
        return [pair for pair in in_time if pair.completion is not None or pair.invoke.time <= settled]

    def good(self, pair: Pair) -> bool:
        """True for an answer that came in time."""
        return pair.ok and not self.late(pair)

    def late(self, pair: Pair) -> bool:
        """True for a right answer that came too late to count."""
        if not pair.ok or pair.completion is None:
            return False
        return pair.completion.time - pair.invoke.time >= round(self.settings.late_ms * MS)

    def outages(self, vip: str) -> list[Row]:
        return [row for row in self.rows[vip] if len(row.lost) >= self.settings.losses]

    # --- causes

    def cause(self, vip: str, row: Row) -> Cause:
        """The first thing that happened to the VIP's ownership about then."""
        since = row.start - round(self.settings.before_ms * MS)
        spans = self.held_by.get(vip, [])
        for span in spans:
            fell = span.ended_by is not None and span.ended_by.get("power") in FELLED
            if fell and not span.frozen and span.ended_by and since <= span.ended_by.time <= row.end:
                return Cause("takeover", span.ended_by, span.what, _next_owner(spans, span))
        for span in spans:
            gone = span.ended_by is not None and since <= span.end <= row.end and not span.frozen
            if gone and not _kept(spans, span):
                return Cause("handover", span.ended_by, span.what, _next_owner(spans, span))
        return Cause("other")

    def milestones(self, vip: str, row: Row, cause: Cause) -> list[Op | None]:
        """The ops at which a takeover's parts begin and end: fall, declared dead, address held, announced, answered."""
        if cause.kind != "takeover" or cause.op is None:
            return []
        survivor = cause.survivor
        return [
            cause.op,
            self.declared_dead(survivor.what, cause) if survivor else None,
            survivor.began_by if survivor else None,
            self.announced(vip, survivor.what, cause.op.time) if survivor else None,
            row.after.invoke if row.after else None,
        ]

    def declared_dead(self, survivor: str, cause: Cause) -> Op | None:
        """heartbeat's own words: ``node lb-1: is dead`` (heartbeat 3, mark_node_dead in heartbeat.c)."""
        words = re.compile(rf"node {re.escape(cause.owner or '')}: is dead", re.IGNORECASE)
        for op in self.history.by_time().of("log"):
            mine = op.process.startswith(f"log:{survivor}:")
            if mine and cause.op and op.time >= cause.op.time and words.search(str(op.value)):
                return op
        return None

    def announced(self, vip: str, node: str, since: int) -> Op | None:
        for claim in self.claims[vip]:
            if claim.gratuitous and claim.node == node and claim.op.time >= since:
                return claim.op
        return None

    # --- what is wrong

    def probe_findings(self, vip: str) -> Iterator[Finding]:
        """Reasons why the probe's silence says nothing."""
        sends = [pair.invoke.time for pair in self.probes[vip]]
        if len(sends) < self.settings.probes:
            yield unknown(f"{vip} was probed {len(sends)} times, and {self.settings.probes} are needed to tell.")
        for since, till in self.stops(vip):
            yield unknown(f"{vip} was not probed from {moment(since)} to {moment(till)}.")
        first_fault = min((op.time for op in self.history.seen("fault")), default=None)
        if sends and first_fault is not None and first_fault < sends[0]:
            yield unknown(f"{vip} was first probed at {moment(sends[0])}, after the first fault began.")

    def stops(self, vip: str) -> list[tuple[int, int]]:
        """When the run went on and no probe was sent, an answer to come or not."""
        stop = round(self.settings.stop_ms * MS)
        sends = [pair.invoke.time for pair in self.history.pairs("http") if pair.invoke.get("vip") == vip]
        return silences(sends, min(sends), self.until, stop) if sends else []

    def outage_findings(self, vip: str) -> Iterator[Finding]:
        for row in self.outages(vip):
            cause = self.cause(vip, row)
            budget = self.settings.budget(cause.kind, self.history.cluster)
            lower, upper = self.bounds(row)
            what = f"{vip} did not answer for {_between(lower, upper)} from {moment(row.lost[0].invoke.time)}"
            allowed = (
                f"{_KINDS[cause.kind]} may take {span_of(budget)}" if budget else f"{_KINDS[cause.kind]} has no budget"
            )
            if row.after is None and self.history.complete:
                yield invalid(f"{vip} was not back at the end: no answer since {moment(row.start)}.", *row.ops())
            elif lower > budget:
                yield invalid(f"{what}, and {allowed}.", *row.ops())
            elif upper is None or upper > budget:
                yield unknown(f"{what}, and {allowed}: the probe is too coarse to tell.", *row.ops())

    def bounds(self, row: Row) -> tuple[float, float | None]:
        """The outage is longer than the first and shorter than the second, in ms (None: no good probe on one side)."""
        lower = ms(row.lower_ns(round(self.settings.stop_ms * MS)))
        return lower, ms(row.end - row.start) if row.before and row.after else None

    # --- what is said

    def held(self) -> str:
        outages = [(vip, row) for vip in self.probes for row in self.outages(vip)]
        if not outages:
            return "Every virtual IP answered all the time."
        told = [self.numbers_of(vip, row) for vip, row in outages]
        worst = max(told, key=lambda outage: (outage["kind"] == "takeover", outage["lower_ms"]))
        spared = self.probes.keys() - {vip for vip, _ in outages}
        others = f" {_list(sorted(spared))} answered all the time." if spared else ""
        return (
            f"{worst['vip']} did not answer for {span_of(worst['estimate_ms'])} ± {span_of(worst['plus_minus_ms'])} in "
            f"its {worst['kind']}, within the budget of {span_of(worst['budget_ms'])}.{others}"
        )

    def numbers(self) -> dict[str, Any]:
        return {
            "vips": {vip: self.probe_numbers(vip) for vip in self.probes},
            "outages": [self.numbers_of(vip, row) for vip in self.probes for row in self.outages(vip)],
        }

    def probe_numbers(self, vip: str) -> dict[str, Any]:
        pairs = self.probes[vip]
        sends = [pair.invoke.time for pair in pairs]
        steps = sorted(later - earlier for earlier, later in pairwise(sends))
        isolated = [len(row.lost) for row in self.rows[vip] if len(row.lost) < self.settings.losses]
        return {
            "probes": len(pairs),
            "good": sum(self.good(pair) for pair in pairs),
            "late": sum(self.late(pair) for pair in pairs),
            "lost": sum(not self.good(pair) for pair in pairs),
            "isolated": sum(isolated),
            "interval_ms": ms(steps[len(steps) // 2]) if steps else None,
        }

    def numbers_of(self, vip: str, row: Row) -> dict[str, Any]:
        cause = self.cause(vip, row)
        lower, upper = self.bounds(row)
        return {
            "vip": vip,
            "kind": cause.kind,
            "from_ms": ms(row.lost[0].invoke.time),
            "to_ms": ms(row.lost[-1].invoke.time),
            "lost": len(row.lost),
            "lower_ms": lower,
            "upper_ms": upper,
            "estimate_ms": round((lower + upper) / 2, 3) if upper is not None else lower,
            "plus_minus_ms": round((upper - lower) / 2, 3) if upper is not None else None,
            "ended": row.after is not None,
            "budget_ms": self.settings.budget(cause.kind, self.history.cluster),
            "owner": cause.owner,
            "survivor": cause.survivor.what if cause.survivor else None,
            **self.split(vip, row, cause),
        }

    def split(self, vip: str, row: Row, cause: Cause) -> dict[str, Any]:
        """A takeover's parts in ms, and when its milestones were."""
        marks = self.milestones(vip, row, cause)
        if not marks:
            return {}
        answer = row.after.completion if row.after else None
        return {
            "parts_ms": dict(zip(PARTS, [_part(*bounds) for bounds in pairwise(marks)], strict=True)),
            "fell_at_ms": ms(marks[0].time) if marks[0] else None,
            "answered_at_ms": ms(answer.time) if answer else None,
        }

    def evidence(self) -> set[int]:
        indexes: set[int] = set()
        for vip in self.probes:
            for row in self.outages(vip):
                indexes |= {*row.ops()}
                indexes |= {op.index for op in self.milestones(vip, row, self.cause(vip, row)) if op}
        return indexes


_KINDS: Mapping[str, str] = {"takeover": "a takeover", "handover": "a handover", "other": "an outage without a cause"}


def _rows(probes: Sequence[tuple[Pair, bool]]) -> list[Row]:
    rows: list[Row] = []
    before: Pair | None = None
    lost: list[Pair] = []
    for pair, good in probes:
        if not good:
            lost.append(pair)
            continue
        if lost:
            rows.append(Row(before, tuple(lost), pair))
        before, lost = pair, []
    return [*rows, Row(before, tuple(lost), None)] if lost else rows


def _next(spans: Sequence[Holding], gone: Holding) -> Holding | None:
    later = [span for span in spans if not span.frozen and span.start >= gone.end]
    return min(later, key=lambda span: span.start, default=None)


def _next_owner(spans: Sequence[Holding], gone: Holding) -> Holding | None:
    """Who got the VIP next, if that was another director."""
    found = _next(spans, gone)
    return found if found and found.what != gone.what else None


def _kept(spans: Sequence[Holding], gone: Holding) -> bool:
    """True when it came back to the director that had let it go: nothing changed hands."""
    found = _next(spans, gone)
    return found is not None and found.what == gone.what


def _part(begin: Op | None, end: Op | None) -> float | None:
    if begin is None or end is None or end.time < begin.time:
        return None
    return ms(end.time - begin.time)


def _between(lower: float, upper: float | None) -> str:
    if upper is None:
        return f"at least {span_of(lower)}"
    return f"{span_of(lower)} to {span_of(upper)}"


def _list(names: Sequence[str]) -> str:
    return " and ".join(names)
