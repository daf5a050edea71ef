"""Is each virtual IP held by exactly one director at every moment?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.checks import budget
from harness.history import History, Op
from harness.history.timeline import (
    MS,
    Holding,
    Span,
    count_of,
    director_ops,
    holdings,
    merged,
    moment,
    ms,
    powers,
    silences,
    span_of,
    watched,
)
from harness.records import Cluster, Power
from harness.verdict import Finding, Verdict, conclude, invalid, unknown

NAME = "ownership"


class OwnershipSettings(BaseModel):
    """``[checks.ownership]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    owners: Mapping[str, tuple[str, ...]] = Field(
        default={}, description="Each virtual IP -> the directors that must hold it, in order; left out: any order"
    )
    overlap_ms: float = Field(
        default=50,
        ge=0,
        description="The longest overlap of two owners to put down to sampling: changes are stamped within some ms",
    )
    takeover_ms: float | None = Field(
        default=None,
        gt=0,
        description="The longest time without an owner after its machine fell; left out: deadtime + keepalive + the "
        "start of all its resources + margin",
    )
    failback_ms: float | None = Field(
        default=None,
        gt=0,
        description="The longest time without an owner in any other change; left out: the start of all its resources "
        "+ margin",
    )
    margin_ms: float = Field(default=500, ge=0, description="Added to both computed budgets")
    late_claim_ms: float = Field(
        default=1000,
        ge=0,
        description="How long after it let go of a virtual IP a director's ARP may still be under way",
    )
    announce_ms: float = Field(
        default=2000, gt=0, description="How soon after it took a virtual IP a director must have announced it"
    )
    samples_ms: float = Field(default=3000, gt=0, description="The longest silence of a running director's samples")
    alive_ms: float = Field(default=3000, gt=0, description="The longest silence of the ARP observer")

    def takeover_budget(self, cluster: Cluster) -> float:
        """The longest gap when the owner's machine fell."""
        if self.takeover_ms is not None:
            return self.takeover_ms
        return budget.takeover_ms(cluster) + self.margin_ms

    def failback_budget(self, cluster: Cluster) -> float:
        """The longest gap when one director handed the address to another."""
        if self.failback_ms is not None:
            return self.failback_ms
        return budget.handover_ms(cluster) + self.margin_ms


@dataclass(frozen=True)
class Gap:
    """Nobody held the VIP. ``kind`` is ``takeover`` when it began with the owner's machine, else ``handover``."""

    vip: str
    span: Span
    before: str | None
    after: str | None
    kind: str
    budget_ms: float

    def numbers(self) -> dict[str, Any]:
        """The gap for the verdict."""
        return {
            "vip": self.vip,
            "kind": self.kind,
            "from": self.before,
            "to": self.after,
            "at_ms": ms(self.span.start),
            "ms": self.span.ms,
            "budget_ms": self.budget_ms,
        }


@dataclass(frozen=True)
class Claim:
    """A packet on the wire that says that ``node`` has the VIP. The node is the MAC's, when nobody knows the MAC."""

    op: Op
    vip: str
    node: str
    gratuitous: bool


def check(history: History, settings: OwnershipSettings) -> Verdict:
    """Each VIP is held by one director at a time, changes hands in time, and is announced on the wire.

    It sees the addresses on the directors (netlink, a sample at each change and every 500 ms), the power of their
    machines, and every ARP packet on the internet segment. The two witnesses must tell the same story.

    It cannot see overlaps shorter than the stamps of two machines' samples can tell apart (``overlap_ms``), nor whether
    an owner serves: that is the outage check's question. A frozen machine is taken to hold on to its addresses, though
    it answers nobody: the VIP counts as unowned from the freeze, and as owned twice from the thaw if somebody else took
    it over. Moments in which a witness was silent are never held against the cluster: they make it unknown.
    """
    unseen = _unseen(history)
    if unseen:
        return conclude(NAME, unseen, "")
    facts = _Facts.of(history, settings)
    findings = [*facts.killed(), *facts.blindness()]
    for vip in history.cluster.vips:
        findings += [*facts.gap_findings(vip), *facts.overlap_findings(vip), *facts.order_findings(vip)]
        findings += [*facts.claim_findings(vip), *facts.announcement_findings(vip)]
    findings += facts.strange_expectations()
    return conclude(NAME, findings, "" if findings else facts.held(), facts.numbers(), facts.turning_points())


def _unseen(history: History) -> list[Finding]:
    if not history.seen("holds"):
        return [unknown("Nobody watched the directors: the history has no sample of their addresses.")]
    return [unknown(f"Nothing was seen of {node}.") for node, ops in director_ops(history).items() if not ops]


@dataclass(frozen=True)
class _Facts:
    """A history and all that is read from it once."""

    history: History
    settings: OwnershipSettings
    held_by: Mapping[str, list[Holding]]
    claims: Mapping[str, list[Claim]]
    start: int
    until: int
    blind: tuple[tuple[str, int, int], ...]
    deaf: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, history: History, settings: OwnershipSettings) -> _Facts:
        start, until = watched(history)
        alive = [op.time for op in history.seen("arp") if op.get("alive")]
        return cls(
            history=history,
            settings=settings,
            held_by=holdings(history),
            claims=claims(history, start, until),
            start=start,
            until=until,
            blind=tuple(_blind(history, start, until, round(settings.samples_ms * MS))),
            deaf=tuple(silences(alive, start, until, round(settings.alive_ms * MS))),
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
        cluster = self.history.cluster
        gaps: list[Gap] = []
        edges = [None, *merged(spans), None]
        for before, after in pairwise(edges):
            start = before.end if before else self.start
            end = after.start if after else self.until
            if end <= start:
                continue
            fell = before is not None and before.ended_by is not None and before.ended_by.f == "power"
            kind = "takeover" if fell else "handover"
            budget = self.settings.takeover_budget(cluster) if fell else self.settings.failback_budget(cluster)
            span = Span(start, end, vip, before.ended_by if before else None, after.began_by if after else None)
            gaps.append(Gap(vip, span, _last(spans, start), after.what if after else None, kind, budget))
        return gaps

    def overlaps(self, vip: str) -> list[Span]:
        """All times with two owners that were both awake; ``what`` names the two."""
        found: list[Span] = []
        for one, two in combinations(self.awake(vip), 2):
            start, end = max(one.start, two.start, self.start), min(one.end, two.end)
            if one.what != two.what and start < end:
                later, first_to_go = max(one, two, key=_starts), min(one, two, key=_ends)
                found.append(Span(start, end, f"{one.what} and {two.what}", later.began_by, first_to_go.ended_by))
        return sorted(found, key=_starts)

    # --- what is wrong

    def fault_of(self, start: int, end: int, sentence: str, *evidence: int) -> Finding:
        """Invalid, unless a witness was silent at the time: then nobody knows."""
        for node, since, till in self.blind:
            if since < end and start < till:
                return unknown(f"{sentence} But {node} was not seen from {moment(since)} to {moment(till)}.", *evidence)
        return invalid(sentence, *evidence)

    def killed(self) -> Iterator[Finding]:
        if not self.history.complete:
            yield unknown("The run was killed: what came after is not known.")

    def blindness(self) -> Iterator[Finding]:
        for node, since, till in self.blind:
            yield unknown(f"No sample of {node} from {moment(since)} to {moment(till)}, though it was running.")
        for since, till in self.deaf:
            yield unknown(f"Nobody watched ARP on the wire from {moment(since)} to {moment(till)}.")

    def gap_findings(self, vip: str) -> Iterator[Finding]:
        if not self.awake(vip):
            yield self.unfinished(f"Nobody ever held {vip}.")
        for gap in self.gaps(vip):
            if gap.after is None:
                yield self.unfinished(f"Nobody held {vip} at the end, since {moment(gap.span.start)}.", *gap.span.ops())
            elif gap.span.ms > gap.budget_ms:
                yield self.fault_of(
                    gap.span.start,
                    gap.span.end,
                    f"Nobody held {vip} for {span_of(gap.span.ms)} from {moment(gap.span.start)}, and a {gap.kind} "
                    f"may take {span_of(gap.budget_ms)}.",
                    *gap.span.ops(),
                )

    def unfinished(self, sentence: str, *evidence: int) -> Finding:
        """Invalid, if the run ended by itself; a killed run might have come to it."""
        if self.history.complete:
            return self.fault_of(self.until - 1, self.until, sentence, *evidence)
        return unknown(sentence, *evidence)

    def overlap_findings(self, vip: str) -> Iterator[Finding]:
        for overlap in self.overlaps(vip):
            if overlap.ms > self.settings.overlap_ms:
                yield self.fault_of(
                    overlap.start,
                    overlap.end,
                    f"{overlap.what} both held {vip} for {span_of(overlap.ms)} from {moment(overlap.start)}.",
                    *overlap.ops(),
                )

    def order_findings(self, vip: str) -> Iterator[Finding]:
        expected, seen = list(self.settings.owners.get(vip, ())), self.sequence(vip)
        if not expected or seen == expected:
            return
        sentence = f"{vip} was held by {_words(seen)}, and {_words(expected)} was expected."
        changes = [span.began_by.index for span in self.awake(vip) if span.began_by]
        if seen == expected[: len(seen)]:
            yield self.unfinished(sentence, *changes)
        else:
            yield self.fault_of(self.start, self.until, sentence, *changes)

    def strange_expectations(self) -> Iterator[Finding]:
        for vip in self.settings.owners.keys() - self.history.cluster.vips.keys():
            yield unknown(f"Owners of {vip} were expected, and the cluster has no such address.")

    # --- the second witness

    def claim_findings(self, vip: str) -> Iterator[Finding]:
        stray = [claim for claim in self.claims[vip] if not self.may_claim(claim)]
        if stray:
            first = stray[0]
            yield self.fault_of(
                first.op.time,
                first.op.time,
                f"{first.node} claimed {vip} on the wire at {moment(first.op.time)} without holding it"
                f"{f' ({len(stray)} claims)' if len(stray) > 1 else ''}.",
                *(claim.op.index for claim in stray[:20]),
            )
            return
        claimers = [claim.node for claim in self.claims[vip]]
        turns = claimers[:1] + [after for before, after in pairwise(claimers) if after != before]
        if not _is_subsequence(turns, self.sequence(vip)):
            yield self.fault_of(
                self.claims[vip][0].op.time,
                self.claims[vip][-1].op.time,
                f"{_words(turns)} claimed {vip} on the wire in turn, while {_words(self.sequence(vip))} held it.",
                *(after.op.index for before, after in pairwise(self.claims[vip]) if after.node != before.node),
            )

    def may_claim(self, claim: Claim) -> bool:
        """True when the claimer held the VIP about then: packets and samples come with some delay."""
        slack, time = round(self.settings.late_claim_ms * MS), claim.op.time
        spans = [span for span in self.held_by[claim.vip] if span.what == claim.node]
        return any(span.touches(time - slack, time + slack) for span in spans)

    def takings(self, vip: str) -> list[Holding]:
        """The changes of owner within the watch. A thawed machine took nothing: it never let go."""
        return [
            span
            for span in self.awake(vip)
            if span.start > self.start and span.began_by is not None and span.began_by.f == "holds"
        ]

    def announced(self, taking: Holding, vip: str) -> Claim | None:
        """The first gratuitous ARP by the new owner. Only that reaches neighbours that did not ask."""
        slack, patience = round(self.settings.overlap_ms * MS), round(self.settings.announce_ms * MS)
        for claim in self.claims[vip]:
            mine = claim.gratuitous and claim.node == taking.what
            if mine and taking.start - slack <= claim.op.time <= taking.start + patience:
                return claim
        return None

    def announcement_findings(self, vip: str) -> Iterator[Finding]:
        patience = round(self.settings.announce_ms * MS)
        for taking in self.takings(vip):
            if self.announced(taking, vip):
                continue
            sentence = (
                f"{taking.what} took {vip} at {moment(taking.start)} and announced it to nobody "
                f"within {span_of(self.settings.announce_ms)}."
            )
            end = taking.start + patience
            if end > self.until or any(since < end and taking.start < till for since, till in self.deaf):
                yield unknown(f"{sentence} But nobody listened all that time.", *taking.ops())
            else:
                yield self.fault_of(taking.start, end, sentence, *taking.ops())

    # --- what is said

    def changes(self) -> list[Gap]:
        """All gaps of all VIPs, by time."""
        return sorted(
            (gap for vip in self.history.cluster.vips for gap in self.gaps(vip)), key=lambda gap: gap.span.start
        )

    def held(self) -> str:
        gaps = self.changes()
        if not gaps:
            return "Each virtual IP had exactly one owner all the time."
        longest = max(gaps, key=lambda gap: gap.span.ms)
        return (
            f"Each virtual IP had exactly one owner but for {count_of(len(gaps), 'change')} of hands, the longest "
            f"{span_of(longest.span.ms)} ({longest.vip} from {longest.before} to {longest.after}), all within budget."
        )

    def numbers(self) -> dict[str, Any]:
        cluster = self.history.cluster
        return {
            "judged_ms": [ms(self.start), ms(self.until)],
            "budget_ms": {
                "takeover": self.settings.takeover_budget(cluster),
                "handover": self.settings.failback_budget(cluster),
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
        """The ops at which a VIP changed hands, and the first announcement of each change."""
        points = {index for gap in self.changes() for index in gap.span.ops()}
        for vip in self.history.cluster.vips:
            claims_made = [self.announced(taking, vip) for taking in self.takings(vip)]
            points |= {claim.op.index for claim in claims_made if claim}
        return points


def claims(history: History, start: int, until: int) -> dict[str, list[Claim]]:
    """Each VIP -> the ARP packets with it as their sender, by time. Requests and replies alike fill caches."""
    found: dict[str, list[Claim]] = {vip: [] for vip in history.cluster.vips}
    for op in history.by_time().seen("arp"):
        vip = op.get("ip")
        if vip in found and start <= op.time <= until:
            mac = str(op["mac"]).lower()
            node = history.cluster.macs.get(mac) or op.get("node") or mac
            found[vip].append(Claim(op, vip, node, bool(op.get("gratuitous"))))
    return found


def _blind(history: History, start: int, until: int, longest: int) -> Iterator[tuple[str, int, int]]:
    states = powers(history)
    for node, ops in director_ops(history).items():
        samples = [op.time for op in ops if op.f == "holds"]
        for span in _running(states.get(node, []), start, until):
            for since, till in silences(samples, span.start, span.end, longest):
                yield node, since, till


def _running(states: Sequence[Span], start: int, until: int) -> list[Span]:
    """When the machine ran, within the watch. A machine without any power op, or before its first one, ran."""
    first = states[0].start if states else until
    spans = [Span(start, first, Power.RUNNING), *(span for span in states if span.what == Power.RUNNING)]
    clipped = [Span(max(span.start, start), min(span.end, until), span.what) for span in spans]
    return [span for span in clipped if span.start < span.end]


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
    return ", then ".join(names) if names else "nobody"
