"""Is a real server that failed taken out of service in time, and put back when it answers again?"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.history import History
from harness.history.failover_budget import MOST_SLOWDOWN, Budgets
from harness.history.injections import (
    Injection,
    eligible,
    failed_servers,
    injections,
    unproven,
    unrecorded,
)
from harness.history.intervals import Intervals, silences
from harness.history.ipvs_tables import Entry, Key, tables
from harness.history.pace import slowdown, too_slow
from harness.history.timeline import MS, count_of, moment, ms, span_of
from harness.verdict import Finding, Verdict, conclude, invalid, not_tried, unknown

NAME = "quiescing"

COUNTED_NS = 2_500 * MS
"""When ``conns`` certainly includes all earlier connections: the kernel updates the counters that it shows every 2 s
(net/netfilter/ipvs/ip_vs_est.c), and a sample is not one instant."""

EPISODES = 5
"""How many findings of one kind are listed; the rest are counted."""


class QuiescingSettings(BaseModel):
    """``[checks.quiescing]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    out_ms: float | None = Field(
        default=None,
        gt=0,
        description="Longest time from a real server's failure until a director takes it out; default: failurecount * "
        "(checkinterval + the timeouts of all checks that hang in one round) + margin_ms",
    )
    back_ms: float | None = Field(
        default=None,
        gt=0,
        description="Longest time from the verified undo until it is back in service; default: start_ms + "
        "checkinterval + the timeouts of one round + margin_ms",
    )
    margin_ms: float = Field(
        default=3000,
        ge=0,
        description="Added to both defaults: a round of checks of sound servers on this machine, and one sample",
    )
    start_ms: float = Field(
        default=30_000,
        ge=0,
        description="Time that a booted node may take to start its services: Apache on a real server, ldirectord and "
        "its first round on a director",
    )
    settle_ms: float = Field(default=5000, ge=0, description="Grace period after a fault ends")
    needless: int = Field(default=0, ge=0, description="Allowed number of times that a sound real server is taken out")
    late_connections: int = Field(
        default=0, ge=0, description="Allowed number of new connections to a quiesced real server, in each table"
    )
    samples_ms: float = Field(default=3000, gt=0, description="Longest time without a sample of a director's table")


def check(history: History, settings: QuiescingSettings) -> Verdict:
    """A real server that fails is taken out by each running director in time, gets no new connections, and comes back.

    Out means weight 0 where the cluster is quiescent, and not in the table where it is not. A quiescent director never
    removes a real server, and a quiesced one gets no new connections: its ``conns`` does not grow (existing connections
    may end as they like). After the undo of the fault it is back in service with its former weight. Two directors do
    not disagree for longer than one may take to notice. A real server that no fault touches stays in, before, during
    and after faults of other nodes.

    In time means: as the topology promises it, whatever interval or timeouts the directors' own files have. In real
    time a round of checks may take up to twice as long where the machine was slower than before the run; a director
    that is late on a machine that was slower than that, or was not measured, is unknown.

    It sees each director's table twice a second. A failure is a fault of the run that certainly makes a real server
    fail ldirectord's check, from its proof until the step that undoes it. Whether the kernel follows the weight that
    the table shows is for the balance check.

    It cannot see what happens between two samples, except that ``conns`` went back: then the real server was removed
    and added again. New connections count from 2.5 s after the first sample with weight 0, because the kernel counts
    late. A director that is down, has just booted, or that a fault touches is not judged at that time. A failure that
    was undone within the budget tests nothing; a run without a longer one is unknown, and so is one without samples.
    """
    if history.cluster.quiescent is None:
        return conclude(NAME, [unknown("The history does not say whether the cluster is quiescent.")], "")
    judge = _QuiescingJudge(history, settings)
    if not judge.tables.samples:
        return conclude(NAME, [unknown("There are no samples of the directors' tables.")], "")
    findings = [
        *judge.blindness(),
        *_few(judge.late_out(), "more failures were noticed too late"),
        *_few(judge.late_back(), "more were not put back"),
        *_few(judge.removed(), "more removals"),
        *_few(judge.grown(), "more got new connections"),
        *_few(judge.disagreements(), "more disagreements"),
        *judge.needless(),
        *judge.nothing_tested(),
    ]
    return conclude(NAME, findings, judge.held() if not findings else "", judge.numbers(), judge.evidence())


@dataclass(frozen=True)
class Change:
    """One change of service that had to come: out after a failure, or back after its undo.

    ``ms`` is how long it took, as far as it was seen; ``judged`` is False where its time was too short to tell.
    """

    ms: float | None = None
    judged: bool = False
    finding: Finding | None = None
    ops: tuple[int, ...] = ()


@dataclass(frozen=True)
class Failure:
    """One real server's failure and return in one director's table."""

    injection: Injection
    key: Key
    out: Change
    back: Change

    def numbers(self) -> dict[str, Any]:
        """The failure, for the verdict's numbers."""
        director, vip, node = self.key
        row = {"fault": self.injection.label, "node": node, "director": director, "vip": vip}
        return row | {"out_ms": self.out.ms, "back_ms": self.back.ms}


class _QuiescingJudge:
    """Compares the directors' tables with the failures of the run."""

    def __init__(self, history: History, settings: QuiescingSettings) -> None:
        self.history, self.settings, self.cluster = history, settings, history.cluster
        self.budgets = Budgets.of(history)
        self.tables = tables(history)
        self.injections = injections(history, settings.settle_ms)
        self.eligible = {
            node: eligible(history, node, settings.settle_ms, settings.start_ms) for node in self.cluster.directors
        }
        self.failed = [(each, node) for each in self.injections for node in sorted(failed_servers(history, each))]

    @cached_property
    def failures(self) -> list[Failure]:
        """Each failure in each table."""
        return [
            Failure(injection, key, self._out(injection, key, entries), self._back(injection, key, entries))
            for injection, node in self.failed
            for key, entries in self.tables.of_server(node)
        ]

    @cached_property
    def _on_duty(self) -> tuple[frozenset[int], frozenset[int]]:
        """The indexes of the samples whose director is to be judged then, and of those at which all are."""
        own, every, seen = set(), set(), set()
        for op in sorted((op for ops in self.tables.samples.values() for op in ops), key=lambda op: op.time):
            seen.add(str(op["node"]))
            if op.time not in self._eligible(str(op["node"])):
                continue
            own.add(op.index)
            if all(op.time in self._eligible(node) for node in seen):
                every.add(op.index)
        return frozenset(own), frozenset(every)

    def _eligible(self, director: str) -> Intervals:
        return self.eligible.get(director, Intervals())

    def on_duty(self, entry: Entry) -> bool:
        """True when the director of a sample ran undisturbed."""
        return entry.op.index in self._on_duty[0]

    # --- budgets

    @cached_property
    def hanging(self) -> dict[str, int]:
        """Each fault's label -> how many real servers may hang in the rounds of checks of its time, at most."""
        return {each.label: self._hanging(each) for each in self.injections}

    def _hanging(self, injection: Injection) -> int:
        web = frozenset(self.cluster.web)
        about = [
            each.targets & web or web
            for each in self.injections
            if each.start <= injection.settled and injection.start <= each.settled and each.touches(*web)
        ]
        return max(1, len(frozenset().union(*about)))

    def out_budget(self, failed: int, slowdown: float = 1.0) -> float:
        """The longest time from a failure to the last table without it, in ms."""
        if self.settings.out_ms is not None:
            return self.settings.out_ms
        return self.budgets.notice(failed, self.settings.margin_ms).ms(slowdown)

    def back_budget(self, failed: int, slowdown: float = 1.0) -> float:
        """The longest time from the undo to the last table that has it again, in ms."""
        if self.settings.back_ms is not None:
            return self.settings.back_ms
        return self.settings.start_ms + self.budgets.back(failed, self.settings.margin_ms).ms(slowdown)

    def slowdown(self, since: int, budget: Callable[[int, float], float], failed: int) -> float | None:
        """How many times slower the machine was while the directors had to notice something."""
        return slowdown(self.history, since, since + round(budget(failed, MOST_SLOWDOWN) * MS))

    # --- one failure in one table

    def _out(self, injection: Injection, key: Key, entries: Sequence[Entry]) -> Change:
        """Whether the real server was out in time after the proof, and stayed out."""
        if injection.sure is None:
            return Change()
        since, undoing = injection.sure
        hanging = self.hanging[injection.label]
        slow = self.slowdown(since, self.out_budget, hanging)
        allowed = self.out_budget(hanging, slow or 1.0)
        deadline = since + round(allowed * MS)
        on_duty = self._eligible(key[0]).at(since)
        if undoing <= deadline or on_duty is None or on_duty[1] <= deadline:
            return Change()
        seen = _between(entries, since, min(undoing, on_duty[1]))
        late = [entry for entry in seen if entry.time > deadline]
        if not late:
            return Change()
        first = next((entry for entry in seen if entry.out), None)
        finding = _unless_slow(self._still_in(injection, key, late, allowed), slow)
        if first is None:
            return Change(None, True, finding)
        return Change(ms(first.time - since), True, finding, (*injection.ops(), first.op.index))

    def _still_in(self, injection: Injection, key: Key, late: Sequence[Entry], allowed: float) -> Finding | None:
        director, vip, node = key
        what = f"{node} failed at {moment(injection.sure[0] if injection.sure else 0)} ({injection.fault}), but"
        still_in = next((entry for entry in late if not entry.out), None)
        if still_in is not None:
            return invalid(
                f"{what} {director} still sent new connections for {vip} to it at {moment(still_in.time)} (weight "
                f"{still_in.weight}); {span_of(allowed)} is allowed.",
                *injection.ops(),
                still_in.op.index,
            )
        zero = next((entry for entry in late if entry.weight == 0 and not self.cluster.quiescent), None)
        if zero is not None:
            sentence = f"{what} {director} quiesced it for {vip} instead of taking it out."
            return invalid(sentence, *injection.ops(), zero.op.index)
        return None

    def _back(self, injection: Injection, key: Key, entries: Sequence[Entry]) -> Change:
        """Whether the real server was back in time after the verified undo, with its former weight."""
        end, touching = injection.end, [each for each in self.injections if each.touches(key[0], key[2])]
        if (
            injection.ended_by is None
            or injection.proof is None
            or any(each.start <= end < each.end for each in touching)
        ):
            return Change()
        hanging = self.hanging[injection.label]
        slow = self.slowdown(end, self.back_budget, hanging)
        allowed = self.back_budget(hanging, slow or 1.0)
        deadline = end + round(allowed * MS)
        until = min([*(each.start for each in touching if each.start > max(end, injection.start)), self.until])
        seen = _between(entries, end, until)
        first = next((entry for entry in seen if not entry.out), None)
        took = ms(first.time - end) if first is not None else None
        on_duty = self._eligible(key[0]).at(deadline)
        late = next((entry for entry in seen if entry.time > deadline), None)
        if late is None or on_duty is None or until <= deadline or on_duty[1] < late.time:
            return Change(took)
        before = [entry for entry in _between(entries, 0, injection.start) if not entry.out]
        finding = self._still_out(injection, key, late, before[-1].weight if before else None, allowed)
        finding = _unless_slow(finding, slow)
        return Change(took, True, finding, (*injection.ops(), late.op.index))

    def _still_out(
        self, injection: Injection, key: Key, late: Entry, weight: int | None, allowed: float
    ) -> Finding | None:
        if not late.out and (weight is None or late.weight == weight):
            return None
        director, vip, node = key
        state = "is not in the table" if late.weight is None else f"has weight {late.weight}"
        former = f" instead of {weight}" if weight is not None else ""
        return invalid(
            f"{node} was sound again at {moment(injection.end)}, but {state} for {vip} on {director} at "
            f"{moment(late.time)}{former}; {span_of(allowed)} is allowed.",
            *injection.ops(),
            late.op.index,
        )

    # --- what is wrong

    def late_out(self) -> Iterator[Finding]:
        """Failures that a director noticed too late, or not at all."""
        return (failure.out.finding for failure in self.failures if failure.out.finding is not None)

    def late_back(self) -> Iterator[Finding]:
        """Returns that a director noticed too late, or not at all."""
        return (failure.back.finding for failure in self.failures if failure.back.finding is not None)

    def removed(self) -> Iterator[Finding]:
        """Real servers that a quiescent director removed from its table."""
        if self.cluster.quiescent:
            for key, entries in self.tables.rows.items():
                yield from self._removals(key, entries)

    def _removals(self, key: Key, entries: Sequence[Entry]) -> Iterator[Finding]:
        director, vip, node = key
        last: Entry | None = None
        if not any(two.weight is None or two.conns < one.conns for one, two in pairwise((*entries[:1], *entries))):
            return
        for entry in entries:
            if not self.on_duty(entry):
                last = None
                continue
            anew = last is not None and last.weight is not None and entry.conns < last.conns
            gone = entry.weight is None
            if (gone or anew) and (last is None or last.weight is not None):
                how = "is not in the table" if gone else "was removed from the table and added again"
                ops = [each.op.index for each in (last, entry) if each is not None]
                at = moment(entry.time)
                yield invalid(f"{node} {how} for {vip} on {director} at {at}, although the cluster is quiescent.", *ops)
            last = entry

    def grown(self) -> Iterator[Finding]:
        """Quiesced real servers that got new connections, one finding for each table."""
        for key, entries in self.tables.rows.items():
            finding = self._growth(key, entries)
            if finding is not None:
                yield finding

    def _growth(self, key: Key, entries: Sequence[Entry]) -> Finding | None:
        base: Entry | None = None
        since: int | None = None
        for entry in entries:
            if entry.weight != 0 or not self.on_duty(entry):
                since = base = None
                continue
            since = entry.time if since is None else since
            if entry.time - since <= COUNTED_NS:
                base = None
            elif base is None or entry.conns < base.conns:
                base = entry
            elif entry.conns - base.conns > self.settings.late_connections:
                return _grew(key, base, entry)
        return None

    def disagreements(self) -> Iterator[Finding]:
        """Directors that ran undisturbed and disagreed on a real server for too long."""
        allowed = self.out_budget(max(self.hanging.values(), default=1))
        for vip in self.cluster.vips:
            for node in self.cluster.web:
                yield from self._disagreements(vip, node, allowed)

    def _disagreements(self, vip: str, node: str, allowed: float) -> Iterator[Finding]:
        unsure, latest = self._unsure(node), dict[str, Entry]()
        since: int | None = None
        reported = False
        rows = [row for key, row in self.tables.rows.items() if key[1:] == (vip, node)]
        if not any(entry.out for row in rows for entry in row):
            return
        for director, entry in self._by_time(vip, node):
            latest[director] = entry
            states = {each.out for each in latest.values()}
            judged = entry.op.index in self._on_duty[1] and len(states) > 1
            if not judged or entry.time in unsure:
                since, reported = None, False
                continue
            since = entry.time if since is None else since
            if not reported and entry.time - since > allowed * MS:
                reported = True
                yield _disagreement(vip, node, latest, (since, entry.time), allowed)

    def _by_time(self, vip: str, node: str) -> list[tuple[str, Entry]]:
        seen = [(key[0], entry) for key, row in self.tables.rows.items() if key[1:] == (vip, node) for entry in row]
        return sorted(seen, key=lambda each: (each[1].time, each[0]))

    def _unsure(self, node: str) -> Intervals:
        """When a fault touched a real server that may make it fail some checks and pass others."""
        sure = {each.label for each, failed in self.failed if failed == node}
        spans = []
        for each in self.injections:
            if each.touches(node):
                settled = each.settled + round(self.back_budget(self.hanging[each.label]) * MS)
                begin = each.undoing if each.sure and each.label in sure else each.start
                spans.append((begin, settled))
        return Intervals(spans)

    def needless(self) -> Iterator[Finding]:
        """Sound real servers that were taken out of service, and no fault explains it."""
        found = self.needless_times
        if len(found) <= self.settings.needless:
            return
        for (director, vip, node), entry in found[:EPISODES]:
            what = f"{director} took {node} out of service for {vip} at {moment(entry.time)}"
            needed = self.needed_meanwhile(entry.time)
            if needed:
                yield unknown(f"{what}, perhaps because it needs {needed}, which a fault touched.", entry.op.index)
            else:
                yield invalid(f"{what}, although no fault touched it.", entry.op.index)

    def needed_meanwhile(self, time: int) -> str:
        """The node that serves all real servers (the database, or the first one's files) and that a fault touched."""
        for node in ("db", *self.cluster.web[:1]):
            if any(node in each.known and self.explains(each, time) for each in self.injections):
                return node
        return ""

    def explains(self, injection: Injection, time: int) -> bool:
        """True from a fault's start until a director must have put back what it touched."""
        return injection.start <= time <= injection.settled + self.slack

    @cached_property
    def slack(self) -> int:
        return round(self.back_budget(max(self.hanging.values(), default=1)) * MS)

    @cached_property
    def needless_times(self) -> list[tuple[Key, Entry]]:
        """When a real server went out and no fault of its own or of its director explains it."""
        duty = {
            node: eligible(self.history, node, self.settings.settle_ms, self.settings.start_ms, Injection.concerns)
            for node in self.cluster.directors
        }
        return [
            (key, entry)
            for key, entry in self._went_out(duty)
            if not any(each.concerns(key[0], key[2]) and self.explains(each, entry.time) for each in self.injections)
        ]

    def _went_out(self, duty: Mapping[str, Intervals]) -> list[tuple[Key, Entry]]:
        """All times at which a real server was first seen out by a director that ran undisturbed."""
        found = []
        for key, entries in self.tables.rows.items():
            was_out, undisturbed = False, duty.get(key[0], Intervals())
            for entry in entries:
                on_duty = entry.time in undisturbed
                if entry.out and on_duty and not was_out:
                    found.append((key, entry))
                was_out = entry.out and on_duty
        return sorted(found, key=lambda each: each[1].time)

    # --- whether anything was tested

    @property
    def since(self) -> int:
        """The first sample of any table."""
        return min(op.time for ops in self.tables.samples.values() for op in ops)

    @property
    def until(self) -> int:
        """The last sample of any table."""
        return max(op.time for ops in self.tables.samples.values() for op in ops)

    def blindness(self) -> Iterator[Finding]:
        """Times without samples of a director that is to be judged."""
        longest = round(self.settings.samples_ms * MS)
        for director, stretches in self.eligible.items():
            times = self.tables.times(director)
            if not times:
                yield unknown(f"There are no samples of the table of {director}.")
                continue
            for start, end in stretches:
                for since, till in silences(_within(times, start, end), max(start, self.since), end, longest):
                    bounds = f"from {moment(since)} to {moment(till)}"
                    yield unknown(f"There are no samples of the table of {director} {bounds}.")

    def nothing_tested(self) -> Iterator[Finding]:
        """Why the run tested nothing."""
        about = [each for each in self.injections if each.touches(*self.cluster.web)]
        doubtful = [*unproven(about), *unrecorded(about)]
        yield from doubtful
        if doubtful:
            return
        if not self.failed:
            yield not_tried("No fault made a real server fail, so the directors' reaction was not tested.")
        elif not any(failure.out.judged for failure in self.failures):
            count = len(self.short)
            short = f" {count_of(count, 'fault')} ended before a director had to notice." if count else ""
            yield unknown(f"No real server failed long enough under a director that could be judged.{short}")
        elif not any(failure.back.judged for failure in self.failures):
            yield unknown("The run ended before any real server that failed had to be back.")

    @property
    def short(self) -> set[str]:
        """The faults that were undone before a director had to notice them."""
        return {each.label for each, _ in self.failed if each.sure and self._is_short(each.label, *each.sure)}

    def _is_short(self, label: str, since: int, undoing: int) -> bool:
        return undoing <= since + round(self.out_budget(self.hanging[label]) * MS)

    # --- the verdict

    def held(self) -> str:
        """The sentence of a valid verdict."""
        word = "quiesced" if self.cluster.quiescent else "taken out"
        out, back = (span_of(max((each or 0 for each in times), default=0)) for times in self._times())
        return f"Each director had each failed real server {word} within {out}, and back within {back} of its repair."

    def _times(self) -> tuple[list[float | None], list[float | None]]:
        return [failure.out.ms for failure in self.failures], [failure.back.ms for failure in self.failures]

    def numbers(self) -> dict[str, Any]:
        """What was measured."""
        judged = {
            "out": sum(failure.out.judged for failure in self.failures),
            "back": sum(failure.back.judged for failure in self.failures),
            "too_short": len(self.short),
        }
        return {
            "budget_ms": {"out": self.out_budget(1), "back": self.back_budget(1)},
            "judged": judged,
            "failures": [failure.numbers() for failure in self.failures],
            "needless": len(self.needless_times),
        }

    def evidence(self) -> set[int]:
        """The ops at which failed real servers went out and came back."""
        return {index for failure in self.failures for index in (*failure.out.ops, *failure.back.ops)}


def _unless_slow(finding: Finding | None, slowdown: float | None) -> Finding | None:
    """Unknown, where the machine was too slow to judge a time."""
    why = too_slow(slowdown)
    if finding is None or not why:
        return finding
    return unknown(f"{finding.sentence.removesuffix('.')}; but {why}.", *finding.evidence)


def _grew(key: Key, base: Entry, entry: Entry) -> Finding:
    director, vip, node = key
    grown, bounds = count_of(entry.conns - base.conns, "new connection"), f"{moment(base.time)} to {moment(entry.time)}"
    sentence = f"{node} got {grown} for {vip} from {director} after it was quiesced (from {bounds})."
    return invalid(sentence, base.op.index, entry.op.index)


def _disagreement(vip: str, node: str, latest: dict[str, Entry], bounds: tuple[int, int], allowed: float) -> Finding:
    states = ", ".join(f"{director} {'out' if entry.out else 'in'}" for director, entry in sorted(latest.items()))
    return invalid(
        f"The directors disagreed on {node} for {vip} from {moment(bounds[0])} to {moment(bounds[1])} or longer "
        f"({states}); {span_of(allowed)} is allowed.",
        *(entry.op.index for entry in latest.values()),
    )


def _between(entries: Sequence[Entry], start: int, end: int) -> Sequence[Entry]:
    """The samples of (start, end]."""
    low = bisect_right(entries, start, key=lambda entry: entry.time)
    return entries[low : bisect_right(entries, end, key=lambda entry: entry.time)]


def _within(times: Sequence[int], start: int, end: int) -> Sequence[int]:
    return times[bisect_left(times, start) : bisect_right(times, end)]


def _few(findings: Iterable[Finding], more: str) -> Iterator[Finding]:
    """The first few, and how many more there are."""
    found = list(findings)
    yield from found[:EPISODES]
    if len(found) > EPISODES:
        yield invalid(f"{len(found) - EPISODES:,} {more}.")
