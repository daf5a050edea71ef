"""Is each virtual IP held by exactly one director at every moment?"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.history import History
from harness.history.arp_claims import Claim, claims
from harness.history.failover_budget import Budget, Budgets
from harness.history.injections import Injection, injections
from harness.history.intervals import Intervals, silences
from harness.history.pace import slowdown, too_slow
from harness.history.timeline import (
    MS,
    Holding,
    Span,
    blindness,
    count_of,
    director_ops,
    distinct_spans,
    held_while_off,
    holdings,
    moment,
    ms,
    shuts_down,
    span_of,
    watched,
)
from harness.verdict import Finding, Verdict, conclude, invalid, unknown

NAME = "ownership"


class OwnershipSettings(BaseModel):
    """``[checks.ownership]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    owners: Mapping[str, tuple[str, ...]] = Field(
        default={},
        description="Each virtual IP -> the directors that must hold it, in this order; default: any order",
    )
    overlap_ms: float = Field(
        default=50,
        ge=0,
        description="Longest overlap of 2 owners that is ignored: time stamps of 2 directors differ by some ms",
    )
    takeover_ms: float | None = Field(
        default=None,
        gt=0,
        description="Longest time without an owner after the owner went down; default: deadtime + keepalive, "
        "0.7 s until that is noticed, the start of all its resources, and margin_ms",
    )
    failback_ms: float | None = Field(
        default=None,
        gt=0,
        description="Longest time without an owner in any other change of owner; default: the start of all its "
        "resources + margin_ms",
    )
    margin_ms: float = Field(default=500, ge=0, description="Added to both default budgets")
    late_claim_ms: float = Field(
        default=1000,
        ge=0,
        description="How long after it released a virtual IP a director's ARP packets may still arrive",
    )
    announce_ms: float = Field(
        default=2000, gt=0, description="Time within which a director must announce a virtual IP that it took"
    )
    samples_ms: float = Field(default=3000, gt=0, description="Longest time without a sample of a running director")
    alive_ms: float = Field(default=3000, gt=0, description="Longest time without a sign of life from the ARP observer")

    def takeover_budget(self, budgets: Budgets) -> Budget:
        """The longest gap after the owner went down."""
        return budgets.unowned() + Budget(self.margin_ms) if self.takeover_ms is None else Budget(self.takeover_ms)

    def failback_budget(self, budgets: Budgets, *, shut_down: bool = False) -> Budget:
        """The longest gap when one director hands the address to another; ``shut_down``: because it shuts down."""
        if self.failback_ms is not None:
            return Budget(self.failback_ms)
        return (budgets.shutdown() if shut_down else budgets.handover()) + Budget(self.margin_ms)


@dataclass(frozen=True)
class Gap:
    """A time without an owner.

    ``kind`` is ``takeover`` when it began as the owner went down, ``drop`` when the same owner took the address again
    and no fault touched it, else ``handover``.
    """

    vip: str
    span: Span
    before: str | None
    after: str | None
    kind: str
    budget: Budget
    slowdown: float | None
    """How many times slower the machine was meanwhile; None: not measured."""

    @property
    def budget_ms(self) -> float:
        """The longest time that it may take on this machine."""
        return self.budget.ms(self.slowdown or 1)

    def numbers(self) -> dict[str, Any]:
        """The gap, for the verdict's numbers."""
        return {
            "vip": self.vip,
            "kind": self.kind,
            "from": self.before,
            "to": self.after,
            "at_ms": ms(self.span.start),
            "ms": self.span.ms,
            "budget_ms": self.budget_ms,
        }


def check(history: History, settings: OwnershipSettings) -> Verdict:
    """Each VIP has one owner at a time, changes its owner within the budget, and is announced by its new owner.

    It sees the addresses on the directors (netlink, a sample at each change and every 500 ms), the power of the
    directors, and every ARP packet on the internet segment. The samples and the ARP packets must agree.

    It cannot see overlaps that are shorter than the differences between two directors' time stamps (``overlap_ms``),
    nor whether an owner serves: the outage check does that. A frozen director is assumed to keep its addresses without
    answering: its VIP counts as unowned from the freeze, and as owned twice from the thaw if another director took it
    over. A director that drops an address and takes it again has no budget, unless a fault touches that director.

    Budgets follow from what the topology promises, not from the directors' own files. In real time the start of
    resources may take up to twice as long where the machine was slower than before the run; where it was slower than
    that, or was not measured, a gap that is too long is unknown.

    Times without samples never count against the cluster: they make the verdict unknown. So do samples that show an
    address on a director whose machine is off.
    """
    unseen = _unseen(history)
    if unseen:
        return conclude(NAME, unseen, "")
    judge = _OwnershipJudge.of(history, settings)
    findings = [*judge.blindness()]
    for vip in history.cluster.vips:
        findings += [*judge.gap_findings(vip), *judge.overlap_findings(vip), *judge.order_findings(vip)]
        findings += [*judge.claim_findings(vip), *judge.announcement_findings(vip)]
    findings += judge.strange_expectations()
    return conclude(NAME, findings, "" if findings else judge.held(), judge.numbers(), judge.turning_points())


def _unseen(history: History) -> list[Finding]:
    if not history.seen("holds"):
        return [unknown("There are no samples of the directors' addresses.")]
    return [unknown(f"There are no samples of {node}.") for node, ops in director_ops(history).items() if not ops]


@dataclass(frozen=True)
class _OwnershipJudge:
    """Judges who held and who claimed each VIP. ``blind`` and ``deaf`` are the times without samples."""

    history: History
    settings: OwnershipSettings
    held_by: Mapping[str, list[Holding]]
    claims: Mapping[str, list[Claim]]
    start: int
    until: int
    blind: tuple[tuple[str, int, int], ...]
    deaf: tuple[tuple[int, int], ...]
    samples: Mapping[str, list[int]]
    """Each director -> the times of its samples."""
    injections: Sequence[Injection]
    budgets: Budgets

    @classmethod
    def of(cls, history: History, settings: OwnershipSettings) -> _OwnershipJudge:
        start, until = watched(history)
        alive = [op.time for op in history.seen("arp") if op.get("alive")]
        return cls(
            history=history,
            settings=settings,
            held_by=holdings(history),
            claims=claims(history, start, until),
            start=start,
            until=until,
            blind=tuple(blindness(history, round(settings.samples_ms * MS))),
            deaf=tuple(silences(alive, start, until, round(settings.alive_ms * MS))),
            samples={node: [op.time for op in ops if op.f == "holds"] for node, ops in director_ops(history).items()},
            injections=injections(history),
            budgets=Budgets.of(history),
        )

    # --- who held it

    def awake(self, vip: str) -> list[Holding]:
        """Who held the VIP and could answer for it, within the watch."""
        spans = [span for span in self.held_by[vip] if not span.frozen and span.end > self.start]
        return [span for span in spans if span.start < self.until]

    def sequence(self, vip: str) -> list[str]:
        """The owners in order, an owner after itself counted once."""
        owners = [span.what for span in self.awake(vip)]
        return owners[:1] + [after for before, after in pairwise(owners) if after != before]

    def gaps(self, vip: str) -> list[Gap]:
        """All times without an owner, in order."""
        spans = self.awake(vip)
        if not spans:
            return []
        gaps: list[Gap] = []
        for start, end in Intervals([(self.start, self.until)]).minus((span.start, span.end) for span in spans):
            before = next((span for span in spans if span.end == start), None)
            after = next((span for span in spans if span.start == end), None)
            went_down = before is not None and before.ended_by is not None and before.ended_by.f == "power"
            kind = "takeover" if went_down else "handover"
            budget = self.budget(before, start, end, went_down=went_down)
            if kind == "handover" and before and after and before.what == after.what and not self.excused(before):
                kind, budget = "drop", Budget(self.settings.overlap_ms)
            span = Span(start, end, vip, before.ended_by if before else None, after.began_by if after else None)
            gaps.append(
                Gap(
                    vip,
                    span,
                    _last(spans, start),
                    after.what if after else None,
                    kind,
                    budget,
                    self.slowdown(start, end),
                )
            )
        return gaps

    def budget(self, before: Holding | None, start: int, end: int, *, went_down: bool) -> Budget:
        """How long a gap may last."""
        if went_down:
            return self.settings.takeover_budget(self.budgets)
        shut_down = before is not None and shuts_down(self.history, before.what, start, end)
        return self.settings.failback_budget(self.budgets, shut_down=shut_down)

    def slowdown(self, start: int, end: int) -> float | None:
        """How many times slower the machine was meanwhile."""
        return slowdown(self.history, start, end)

    def excused(self, held: Holding) -> bool:
        """True when a fault that touches its owner may have made it drop the address and take it again."""
        return any(
            each.touches(held.what) and held.touches(each.start, held.end) and held.end <= each.settled
            for each in self.injections
        )

    def overlaps(self, vip: str) -> list[Span]:
        """All times with two owners that were both running; ``what`` names the two."""
        found: list[Span] = []
        for left, right in combinations(self.awake(vip), 2):
            start, end = max(left.start, right.start, self.start), min(left.end, right.end)
            if left.what != right.what and start < end:
                later, first_to_go = max(left, right, key=_starts), min(left, right, key=_ends)
                found.append(Span(start, end, f"{left.what} and {right.what}", later.began_by, first_to_go.ended_by))
        return sorted(found, key=_starts)

    # --- what is wrong

    def unless_blind(self, start: int, end: int, sentence: str, *evidence: int) -> Finding:
        """Invalid, or unknown when a running director had no samples at the time."""
        for node, since, till in self.blind:
            if since <= end and start <= till:
                return unknown(
                    f"{sentence} But there are no samples of {node} from {moment(since)} to {moment(till)}.", *evidence
                )
        return invalid(sentence, *evidence)

    def blindness(self) -> Iterator[Finding]:
        for node, since, till in self.blind:
            yield unknown(
                f"There are no samples of {node} from {moment(since)} to {moment(till)}, although it was running."
            )
        for sample, off in held_while_off(self.history, round(self.settings.late_claim_ms * MS)):
            node, vips = sample["node"], " and ".join(sample["vips"])
            yield unknown(
                f"A sample of {node} at {moment(sample.time)} shows {vips}, although {node} was {off['power']} since "
                f"{moment(off.time)}.",
                sample.index,
                off.index,
            )
        for since, till in self.deaf:
            yield unknown(f"ARP was not observed from {moment(since)} to {moment(till)}.")

    def gap_findings(self, vip: str) -> Iterator[Finding]:
        if not self.awake(vip):
            yield self.unfinished(f"{vip} never had an owner.")
        for gap in self.gaps(vip):
            if gap.after is None:
                sentence = f"{vip} had no owner at the end of the run (since {moment(gap.span.start)})."
                yield self.unfinished(sentence, *gap.span.ops())
            elif gap.span.ms > gap.budget_ms:
                took, allowed = distinct_spans(gap.span.ms, gap.budget_ms)
                since = moment(gap.span.start)
                rule = f"a {gap.kind} may take {allowed}"
                if gap.kind == "drop":
                    rule = f"{gap.before} dropped it and took it again, and no fault explains that"
                sentence = f"{vip} had no owner for {took} from {since}; {rule}."
                if gap.kind != "drop" and (why := too_slow(gap.slowdown)):
                    yield unknown(f"{sentence.removesuffix('.')}, but {why}.", *gap.span.ops())
                    continue
                yield self.unless_blind(gap.span.start, gap.span.end, sentence, *gap.span.ops())

    def unfinished(self, sentence: str, *evidence: int) -> Finding:
        """Invalid when the run ended on its own; a killed run might have got there."""
        if self.history.complete:
            return self.unless_blind(self.until - 1, self.until, sentence, *evidence)
        return unknown(sentence, *evidence)

    def overlap_findings(self, vip: str) -> Iterator[Finding]:
        for overlap in self.overlaps(vip):
            if overlap.ms > self.settings.overlap_ms:
                yield self.unless_blind(
                    overlap.start,
                    overlap.end,
                    f"{overlap.what} both held {vip} for {span_of(overlap.ms)} from {moment(overlap.start)}.",
                    *overlap.ops(),
                )

    def order_findings(self, vip: str) -> Iterator[Finding]:
        expected, seen = list(self.settings.owners.get(vip, ())), self.sequence(vip)
        if not expected or seen == expected:
            return
        sentence = f"{vip} was held by {_words(seen)}; expected: {_words(expected)}."
        changes = [span.began_by.index for span in self.awake(vip) if span.began_by]
        if seen == expected[: len(seen)]:
            yield self.unfinished(sentence, *changes)
        else:
            yield self.unless_blind(self.start, self.until, sentence, *changes)

    def strange_expectations(self) -> Iterator[Finding]:
        for vip in self.settings.owners.keys() - self.history.cluster.vips.keys():
            yield unknown(f"The scenario expects owners of {vip}, which is not a virtual IP of this cluster.")

    # --- ARP

    def claim_findings(self, vip: str) -> Iterator[Finding]:
        stray = [claim for claim in self.claims[vip] if not self.may_claim(claim)]
        if stray:
            first = stray[0]
            yield self.unless_blind(
                first.op.time,
                first.op.time,
                f"{first.node} claimed {vip} in ARP at {moment(first.op.time)} without holding it"
                f"{f' ({len(stray):,} packets)' if len(stray) > 1 else ''}.",
                *(claim.op.index for claim in stray[:20]),
            )
            return
        claimers = [claim.node for claim in self.claims[vip]]
        turns = claimers[:1] + [after for before, after in pairwise(claimers) if after != before]
        if not _is_subsequence(turns, self.sequence(vip)):
            yield self.unless_blind(
                self.claims[vip][0].op.time,
                self.claims[vip][-1].op.time,
                f"{vip} was claimed in ARP by {_words(turns)}; its owners were {_words(self.sequence(vip))}.",
                *(after.op.index for before, after in pairwise(self.claims[vip]) if after.node != before.node),
            )

    def may_claim(self, claim: Claim) -> bool:
        """True when the claimer held the VIP at about that time: packets and samples have some delay."""
        slack, time = round(self.settings.late_claim_ms * MS), claim.op.time
        spans = [span for span in self.held_by[claim.vip] if span.what == claim.node]
        return any(span.touches(time - slack, time + slack) for span in spans)

    def takings(self, vip: str) -> list[Holding]:
        """The changes of owner within the watch. A thawed director took nothing: it had released nothing."""
        return [
            span
            for span in self.awake(vip)
            if span.start > self.start and span.began_by is not None and span.began_by.f == "holds"
        ]

    def announced(self, taking: Holding, vip: str) -> Claim | None:
        """The new owner's first gratuitous ARP. Only that reaches neighbours that did not ask.

        It took the address at some time after the sample before.
        """
        slack, patience = round(self.settings.overlap_ms * MS), round(self.settings.announce_ms * MS)
        since = self.sampled_before(taking) - slack
        for claim in self.claims[vip]:
            mine = claim.gratuitous and claim.node == taking.what
            if mine and since <= claim.op.time <= taking.start + patience:
                return claim
        return None

    def sampled_before(self, taking: Holding) -> int:
        """The time of the director's last sample before one that shows an address; its own time if there is none."""
        times = self.samples.get(taking.what, [])
        place = bisect_left(times, taking.start)
        return times[place - 1] if place else taking.start

    def announcement_findings(self, vip: str) -> Iterator[Finding]:
        patience = round(self.settings.announce_ms * MS)
        for taking in self.takings(vip):
            if self.announced(taking, vip):
                continue
            sentence = (
                f"{taking.what} took {vip} at {moment(taking.start)} and did not announce it within "
                f"{span_of(self.settings.announce_ms)}."
            )
            end = taking.start + patience
            if end > self.until or any(since < end and taking.start < till for since, till in self.deaf):
                yield unknown(f"{sentence} But ARP was not observed all that time.", *taking.ops())
            else:
                yield self.unless_blind(taking.start, end, sentence, *taking.ops())

    # --- the verdict

    def changes(self) -> list[Gap]:
        """All gaps of all VIPs, by time."""
        return sorted(
            (gap for vip in self.history.cluster.vips for gap in self.gaps(vip)), key=lambda gap: gap.span.start
        )

    def held(self) -> str:
        gaps = self.changes()
        if not gaps:
            return "Each virtual IP had exactly one owner at all times."
        longest = max(gaps, key=lambda gap: gap.span.ms)
        return (
            f"Each virtual IP had exactly one owner, except during {count_of(len(gaps), 'change')} of owner (longest "
            f"{span_of(longest.span.ms)}: {longest.vip} from {longest.before} to {longest.after}), all within budget."
        )

    def numbers(self) -> dict[str, Any]:
        cluster = self.history.cluster
        return {
            "judged_ms": [ms(self.start), ms(self.until)],
            "budget_ms": {
                "takeover": self.settings.takeover_budget(self.budgets).ms(),
                "handover": self.settings.failback_budget(self.budgets).ms(),
            },
            "takeovers": [gap.numbers() for gap in self.changes()],
            "overlaps": [
                {"vip": vip, "nodes": span.what, "at_ms": ms(span.start), "ms": span.ms}
                for vip in cluster.vips
                for span in self.overlaps(vip)
            ],
            "owners": {vip: self.sequence(vip) for vip in cluster.vips},
            "arp_claims": {vip: len(self.claims[vip]) for vip in cluster.vips},
            "announcements": [
                {
                    "vip": vip,
                    "node": taking.what,
                    "at_ms": ms(taking.start),
                    "after_ms": ms(claim.op.time - taking.start) if (claim := self.announced(taking, vip)) else None,
                }
                for vip in cluster.vips
                for taking in self.takings(vip)
            ],
        }

    def turning_points(self) -> set[int]:
        """The ops at which a VIP changed its owner, and the first announcement of each change."""
        points = {index for gap in self.changes() for index in gap.span.ops()}
        for vip in self.history.cluster.vips:
            claims_made = [self.announced(taking, vip) for taking in self.takings(vip)]
            points |= {claim.op.index for claim in claims_made if claim}
        return points


def _starts(span: Span) -> int:
    return span.start


def _ends(span: Span) -> int:
    return span.end


def _last(spans: Sequence[Holding], time: int) -> str | None:
    ended = [span for span in spans if span.end <= time]
    return max(ended, key=_ends).what if ended else None


def _is_subsequence(turns: Sequence[str], owners: Sequence[str]) -> bool:
    rest = iter(owners)
    return all(turn in rest for turn in turns)


def _words(names: Sequence[str]) -> str:
    return ", then ".join(names) if names else "no director"
