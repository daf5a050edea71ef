"""For how long did each virtual IP not answer, and was that within what the cluster's own settings allow?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.checks import budget
from harness.checks.ownership import claims
from harness.history import History, Op, Pair
from harness.history.injections import (
    Injection,
    Stretch,
    failed_servers,
    injections,
    merged,
    overlaps,
)
from harness.history.timeline import (
    DOWN,
    MS,
    Holding,
    holdings,
    moment,
    ms,
    silences,
    span_of,
    watched,
)
from harness.records import Cluster
from harness.verdict import Finding, Outcome, Verdict, conclude, invalid, unknown

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
    real_server_ms: float | None = Field(
        default=None,
        gt=0,
        description="The longest outage while a real server fails that no director has noticed yet; left out: "
        "failurecount * (checkinterval + the time-outs of all that hangs in one round) + margin",
    )
    margin_ms: float = Field(
        default=3000, ge=0, description="Added to that: what a round of checks of sound servers takes on this machine"
    )
    other_ms: float = Field(default=0, ge=0, description="The longest outage that nothing explains")
    answer_ms: float = Field(default=1000, ge=0, description="From the announcement to the first good answer")
    held_ms: float = Field(
        default=5000,
        gt=0,
        description="The longest silence once the new owner has the address: announcing it is what is left to do",
    )
    before_ms: float = Field(default=1000, ge=0, description="How long before an outage its cause may lie")
    settle_ms: float = Field(
        default=2000,
        ge=0,
        description="An outage that begins this soon after the new owner got the address is part of the same change: "
        "heartbeat's scripts still run on the new owner (1.6 s measured), and it answers slowly",
    )
    late_ms: float = Field(
        default=1000,
        gt=0,
        description="An answer as late as this counts as lost: it came by a retransmission, whose timer starts at 1 s "
        "(RFC 6298)",
    )
    stop_ms: float = Field(default=1000, gt=0, description="The longest time without sending a probe")
    probes: int = Field(default=20, ge=1, description="How many probes a virtual IP needs at least")

    def budget(self, cause: Cause, cluster: Cluster) -> float:
        """The longest outage that it may be the cause of."""
        match cause.kind:
            case "takeover":
                own, usual = self.takeover_ms, budget.takeover_ms(cluster) + self.answer_ms
            case "handover":
                own, usual = self.failback_ms, budget.handover_ms(cluster) + self.answer_ms
            case "real server failure":
                own, usual = self.real_server_ms, budget.notice_ms(cluster, len(cause.failed)) + self.margin_ms
            case _:
                own, usual = self.other_ms, 0
        return usual if own is None else own


@dataclass(frozen=True)
class LossStreak:
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
    """Why an outage may be: its kind, the op at which it began, who had the VIP and who got it.

    Of a real server's failure also all that failed about then; of a disturbance, which is not where the VIP is, its
    name.
    """

    kind: str
    op: Op | None = None
    owner: str | None = None
    survivor: Holding | None = None
    failed: frozenset[str] = frozenset()
    fault: str = ""

    @property
    def survivor_name(self) -> str | None:
        """The director that got it."""
        return self.survivor.what if self.survivor else None


@dataclass(frozen=True)
class Outage:
    """The rows of lost probes that one cause explains, by time. With no cause, each row is an outage of its own."""

    cause: Cause
    rows: tuple[LossStreak, ...]

    @property
    def lost(self) -> tuple[Pair, ...]:
        """The lost probes of all its rows."""
        return tuple(pair for row in self.rows for pair in row.lost)

    @property
    def after(self) -> Pair | None:
        """The first good probe after the last row."""
        return self.rows[-1].after

    def bounds(self, stop_ns: int) -> tuple[float, float | None]:
        """It was longer than the first and shorter than the second, in ms (None: no good probe on one side).

        Good answers between two rows shorten what is certain (the lower bound) and not what is possible.
        """
        first, last = self.rows[0], self.rows[-1]
        lower = ms(sum(row.lower_ns(stop_ns) for row in self.rows))
        return lower, ms(last.end - first.start) if first.before and last.after else None

    def held_in_vain_ms(self) -> float:
        """For how long at least it did not answer though its new owner had it."""
        survivor = self.cause.survivor
        return max(0.0, ms(self.lost[-1].invoke.time - survivor.start)) if survivor else 0.0

    def ops(self) -> tuple[int, ...]:
        """The ops at the bounds of its rows."""
        return tuple(dict.fromkeys(index for row in self.rows for index in row.ops()))


def check(history: History, settings: OutageSettings) -> Verdict:
    """Each VIP answers a fast probe at all times but for takeovers and handovers within their budgets.

    The probe is open loop: it sends every so often whether answers come or not, so an outage cannot silence it. k
    losses in a row, d apart, are an outage longer than (k-1)d and shorter than (k+1)d. The bounds here come from the
    actual times: it was longer than from the first to the last lost probe's sending, and shorter than from the last
    good probe's sending to the next good answer. (To the answer, because a packet can wait for its neighbour's address:
    at its sending nobody may have been there.) An outage is invalid when even its lower bound is over budget, and
    unknown when only its upper bound is. It is invalid, too, when the address is silent for long after its new owner
    has it: most of a takeover's budget is for heartbeat's scripts, which are through by then.

    A probe that waited in vain while the client's machine stood still for half of that time says nothing, and counts as
    not sent.

    It cannot see outages shorter than k-1 probes, nor those of a part of the clients: it is one client. Losses that are
    not in a row are counted and not judged. A virtual IP whose owner did not fail has no budget at all, with two
    exceptions. While a real server certainly fails that no director can have noticed yet, it gets the next connections,
    too (under wlc more than the others: it is never busy), and that may take as long as noticing takes. And while
    something else is in that touches real servers or the client alone, nobody can tell whether it was the VIP.

    What a change of owner explains is one outage, though it may come in several stretches: a new owner that has the
    address and is still busy with the rest of its scripts answers, stalls, and answers again. From the first loss to
    the last answer all of it has to be within the one budget.

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
        self.injections = injections(history)
        self.claims = claims(history, 0, history.end_ns)
        self.stood_still = _standstills(history)
        self.sent = {vip: self._sent(vip) for vip in history.cluster.vips}
        self.probes = {vip: self._probes(vip) for vip in history.cluster.vips}
        self.rows = {vip: _rows([(pair, self.good(pair)) for pair in pairs]) for vip, pairs in self.probes.items()}
        self.outages = {vip: self._outages(vip) for vip in self.rows}

    def _sent(self, vip: str) -> list[Pair]:
        """All probes that can tell something."""
        pairs = [pair for pair in self.history.pairs("http") if pair.invoke.get("vip") == vip]
        return [pair for pair in pairs if self.good(pair) or not self.overslept(pair)]

    def overslept(self, pair: Pair) -> bool:
        """True when the client's machine stood still for half of the time that this probe waited, or more."""
        if pair.completion is None or pair.completion.type == "fail":
            return False
        start, end = pair.invoke.time, pair.completion.time
        asleep = sum(max(0, min(till, end) - max(since, start)) for since, till in self.stood_still)
        return 2 * asleep >= end - start

    def _probes(self, vip: str) -> list[Pair]:
        """The probes to judge, by time of sending. The last ones were still under way when the run closed the probe."""
        in_time = [pair for pair in self.sent[vip] if pair.invoke.time <= self.until]
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

    def _outages(self, vip: str) -> list[Outage]:
        found: list[Outage] = []
        for row in self.rows[vip]:
            if len(row.lost) < self.settings.losses:
                continue
            cause = self.cause(vip, row)
            if found and cause.op is not None and cause == found[-1].cause:
                found[-1] = replace(found[-1], rows=(*found[-1].rows, row))
            else:
                found.append(Outage(cause, (row,)))
        return found

    # --- causes

    def cause(self, vip: str, row: LossStreak) -> Cause:
        """The first thing that happened to the VIP's ownership about then, or else the change that just ended."""
        since = row.start - round(self.settings.before_ms * MS)
        spans = [span for span in self.held_by.get(vip, []) if not span.frozen]
        changes = [cause for span in spans if (cause := _change(spans, span)) is not None]
        for kind in ("takeover", "handover"):
            for cause in changes:
                if cause.kind == kind and cause.op and since <= cause.op.time <= row.end:
                    return cause
        settling = row.start - round(self.settings.settle_ms * MS)
        ended = [cause for cause in changes if cause.survivor and settling <= cause.survivor.start <= row.start]
        return ended[-1] if ended else self.elsewhere(row)

    def elsewhere(self, row: LossStreak) -> Cause:
        """What was in about then that touches real servers or the client alone, if anything."""
        web, about = frozenset(self.history.cluster.web), [one for one in self.injections if _about(one, row)]
        for one in about:
            failed = self.failing(one) if one.targets <= web else frozenset()
            if failed and one.proof:
                cause = Cause("real server failure", one.proof, failed=failed)
                noticed = one.proof.time + round(self.settings.budget(cause, self.history.cluster) * MS)
                if row.start <= noticed:
                    return cause
        for one in about:
            unsure = one.targets <= web and not (one.proof and self.failing(one))
            if one.targets and (unsure or one.targets == {"client"}):
                return Cause("disturbance", one.proof, fault=one.fault)
        return Cause("other")

    def failing(self, about: Injection) -> frozenset[str]:
        """The real servers that fail because of a fault, and because of others meanwhile; none where it fails none."""
        if not failed_servers(self.history, about):
            return frozenset()
        meanwhile = [one for one in self.injections if one.start <= about.end and about.start <= one.end]
        return frozenset[str]().union(*(failed_servers(self.history, one) for one in meanwhile))

    def milestones(self, vip: str, outage: Outage) -> list[Op | None]:
        """The ops at which a takeover's parts begin and end: fall, declared dead, address held, announced, answered."""
        cause = outage.cause
        if cause.kind != "takeover" or cause.op is None:
            return []
        survivor = cause.survivor
        return [
            cause.op,
            self.declared_dead(survivor.what, cause) if survivor else None,
            survivor.began_by if survivor else None,
            self.announced(vip, survivor.what, cause.op.time) if survivor else None,
            outage.after.invoke if outage.after else None,
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
            why = ": the client's machine stood still" if overlaps(self.stood_still, since, till) else ""
            yield unknown(f"{vip} was not probed from {moment(since)} to {moment(till)}{why}.")
        first_fault = min((op.time for op in self.history.seen("fault")), default=None)
        if sends and first_fault is not None and first_fault < sends[0]:
            yield unknown(f"{vip} was first probed at {moment(sends[0])}, after the first fault began.")

    def stops(self, vip: str) -> list[tuple[int, int]]:
        """When the run went on and no probe was sent, an answer to come or not."""
        stop = round(self.settings.stop_ms * MS)
        sends = [pair.invoke.time for pair in self.sent[vip]]
        return silences(sends, min(sends), self.until, stop) if sends else []

    def outage_findings(self, vip: str) -> Iterator[Finding]:
        """What is wrong with any of them."""
        yield from filter(None, (self.finding(vip, outage) for outage in self.outages[vip]))

    def finding(self, vip: str, outage: Outage) -> Finding | None:
        """What is wrong with one; None when nothing is."""
        kind, ops = outage.cause.kind, outage.ops()
        budget = self.settings.budget(outage.cause, self.history.cluster)
        lower, upper = self.bounds(outage)
        what = f"{vip} did not answer for {_between(lower, upper)} from {moment(outage.lost[0].invoke.time)}"
        allowed = f"{_KINDS[kind]} may take {span_of(budget)}" if budget else f"{_KINDS[kind]} has no budget"
        if outage.after is None and self.history.complete:
            return invalid(f"{vip} was not back at the end: no answer since {moment(outage.rows[-1].start)}.", *ops)
        if kind == "disturbance" and (upper is None or upper > budget):
            return unknown(f"{what}, while {outage.cause.fault} was in: nobody can tell whether the address was.", *ops)
        if lower > budget:
            return invalid(f"{what}, and {allowed}.", *ops)
        if (held := outage.held_in_vain_ms()) > self.settings.held_ms:
            return invalid(
                f"{what}: for {span_of(held)} after {outage.cause.survivor_name} had it, and that may take "
                f"{span_of(self.settings.held_ms)}.",
                *ops,
            )
        if upper is None or upper > budget:
            return unknown(f"{what}, and {allowed}: the probe is too coarse to tell.", *ops)
        return None

    def bounds(self, outage: Outage) -> tuple[float, float | None]:
        return outage.bounds(round(self.settings.stop_ms * MS))

    # --- what is said

    def held(self) -> str:
        told = [self.numbers_of(vip, outage) for vip, outages in self.outages.items() for outage in outages]
        if not told:
            return "Every virtual IP answered all the time."
        worst = max(told, key=lambda outage: (outage["kind"] == "takeover", outage["lower_ms"]))
        spared = self.probes.keys() - {outage["vip"] for outage in told}
        others = f" {_list(sorted(spared))} answered all the time." if spared else ""
        return (
            f"{worst['vip']} did not answer for {span_of(worst['estimate_ms'])} ± {span_of(worst['plus_minus_ms'])} "
            f"{_WHEN[worst['kind']]}, within the budget of {span_of(worst['budget_ms'])}.{others}"
        )

    def numbers(self) -> dict[str, Any]:
        return {
            "vips": {vip: self.probe_numbers(vip) for vip in self.probes},
            "outages": [self.numbers_of(vip, outage) for vip, found in self.outages.items() for outage in found],
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

    def numbers_of(self, vip: str, outage: Outage) -> dict[str, Any]:
        cause = outage.cause
        lower, upper = self.bounds(outage)
        finding = self.finding(vip, outage)
        return {
            "vip": vip,
            "kind": cause.kind,
            "outcome": (finding.outcome if finding else Outcome.VALID).value,
            "from_ms": ms(outage.lost[0].invoke.time),
            "to_ms": ms(outage.lost[-1].invoke.time),
            "lost": len(outage.lost),
            "stretches": len(outage.rows),
            "lower_ms": lower,
            "upper_ms": upper,
            "estimate_ms": round((lower + upper) / 2, 3) if upper is not None else lower,
            "plus_minus_ms": round((upper - lower) / 2, 3) if upper is not None else None,
            "ended": outage.after is not None,
            "budget_ms": self.settings.budget(cause, self.history.cluster),
            "owner": cause.owner,
            "survivor": cause.survivor_name,
            **self.split(vip, outage),
        }

    def split(self, vip: str, outage: Outage) -> dict[str, Any]:
        """A takeover's parts in ms, and when its milestones were."""
        marks = self.milestones(vip, outage)
        if not marks:
            return {}
        answer = outage.after.completion if outage.after else None
        return {
            "parts_ms": dict(zip(PARTS, [_part(*bounds) for bounds in pairwise(marks)], strict=True)),
            "fell_at_ms": ms(marks[0].time) if marks[0] else None,
            "answered_at_ms": ms(answer.time) if answer else None,
        }

    def evidence(self) -> set[int]:
        indexes: set[int] = set()
        for vip, outages in self.outages.items():
            for outage in outages:
                indexes |= {*outage.ops()}
                indexes |= {op.index for op in self.milestones(vip, outage) if op}
        return indexes


_KINDS: Mapping[str, str] = {
    "takeover": "a takeover",
    "handover": "a handover",
    "real server failure": "a real server's failure",
    "disturbance": "a disturbance elsewhere",
    "other": "an outage without a cause",
}
_WHEN: Mapping[str, str] = {
    "takeover": "in its takeover",
    "handover": "in its handover",
    "real server failure": "while a real server failed",
    "disturbance": "while something else was disturbed",
    "other": "without a cause",
}


def _about(one: Injection, row: LossStreak) -> bool:
    return one.start <= row.end and row.start <= one.settled


def _standstills(history: History) -> list[Stretch]:
    """When the client's machine stood still, as its probes noticed afterwards."""
    noticed = [op for op in history.of("http") if op.error == "probe overrun" and op.get("late_ms")]
    return merged((op.time - round(op["late_ms"] * MS), op.time) for op in noticed)


def _rows(probes: Sequence[tuple[Pair, bool]]) -> list[LossStreak]:
    rows: list[LossStreak] = []
    before: Pair | None = None
    lost: list[Pair] = []
    for pair, good in probes:
        if not good:
            lost.append(pair)
            continue
        if lost:
            rows.append(LossStreak(before, tuple(lost), pair))
        before, lost = pair, []
    return [*rows, LossStreak(before, tuple(lost), None)] if lost else rows


def _change(spans: Sequence[Holding], gone: Holding) -> Cause | None:
    """What the end of this holding was: its owner fell, or handed the VIP over; None when it came back to the owner."""
    if gone.ended_by is None:
        return None
    later = [span for span in spans if span.start >= gone.end]
    heir = min(later, key=lambda span: span.start, default=None)
    survivor = heir if heir and heir.what != gone.what else None
    if gone.ended_by.get("power") in DOWN:
        return Cause("takeover", gone.ended_by, gone.what, survivor)
    return None if heir and survivor is None else Cause("handover", gone.ended_by, gone.what, survivor)


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
