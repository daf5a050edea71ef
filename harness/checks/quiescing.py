"""Is a real server that failed taken out of service in time, and put back when it answers again?"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.checks import budget
from harness.history import History
from harness.history.injections import (
    Injection,
    Stretch,
    eligible,
    failed_servers,
    injections,
    interval_at,
    merged,
    quiet,
    unproven,
)
from harness.history.ipvs_tables import Entry, Key, tables
from harness.history.timeline import MS, moment, ms, silences, span_of
from harness.verdict import Finding, Verdict, conclude, invalid, unknown

NAME = "quiescing"

COUNTED_NS = 2_500 * MS
"""When all connections from before are in ``conns`` for certain: the kernel brings the counters that it shows up to
date every 2 s (net/netfilter/ipvs/ip_vs_est.c), and a sample is not one instant."""

EPISODES = 5
"""How many findings of one kind are told; the rest are counted in the numbers."""


class QuiescingSettings(BaseModel):
    """``[checks.quiescing]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    out_ms: float | None = Field(
        default=None,
        gt=0,
        description="The longest time from a real server's failure until a director has it out; left out: "
        "failurecount * (checkinterval + the time-outs of all that hangs in one round) + margin",
    )
    back_ms: float | None = Field(
        default=None,
        gt=0,
        description="The longest time from the verified undo until it is back in; left out: start + checkinterval + "
        "the time-outs of one round + margin",
    )
    margin_ms: float = Field(
        default=3000,
        ge=0,
        description="Added to both: what a round of checks of sound servers takes on this machine, and one sample",
    )
    start_ms: float = Field(
        default=30_000,
        ge=0,
        description="How long a machine that has booted may take to start its services: the real server's Apache, the "
        "director's ldirectord with its first round",
    )
    settle_ms: float = Field(
        default=5000, ge=0, description="How long after the undo of another fault nothing is held against anybody"
    )
    needless: int = Field(default=0, ge=0, description="How often a sound real server may be taken out")
    late_connections: int = Field(
        default=0, ge=0, description="How many new connections a quiesced real server may get in each table"
    )
    samples_ms: float = Field(default=3000, gt=0, description="The longest silence of a running director's table")


def check(history: History, settings: QuiescingSettings) -> Verdict:
    """A real server that fails is taken out by each running director in time, gets no new connection, and comes back.

    Out means weight 0 where the cluster is quiescent, and not in the table where it is not. A quiescent director never
    removes a real server, and none that is quiesced gets a new connection: its ``conns`` do not grow (running ones may
    end as they like). Once the fault is undone it is back in with the weight that it had. Two directors do not
    disagree for longer than one may take to notice. A real server that nothing was done to stays in.

    It sees each director's table twice a second. What failed it takes from the faults of the run that certainly make a
    real server fail ldirectord's check, from their proof until the step that undoes them. Whether the weight that it
    sees also rules what the kernel does with packets is for the balance check.

    It cannot see what happens between two samples, but for ``conns`` that went back: then the real server was removed
    and put in again. New connections count from 2.5 s after the first sample with weight 0: the kernel counts late.
    A director that is down, has just booted, or that a fault touches is not judged at that time. A failure that was
    undone within the budget tests nothing; a run without a longer one is unknown, as is one without samples.
    """
    if history.cluster.quiescent is None:
        return conclude(NAME, [unknown("The history does not say whether the cluster is quiescent.")], "")
    facts = _Facts(history, settings)
    if not facts.tables.samples:
        return conclude(NAME, [unknown("Nobody watched the directors' tables: the history has no sample.")], "")
    findings = [
        *facts.witnesses(),
        *_few(facts.late_out, "more failures were noticed too late"),
        *_few(facts.late_back, "more were not put back"),
        *_few(facts.removed(), "more removals"),
        *_few(facts.grown(), "more got new connections"),
        *_few(facts.disagreements(), "more disagreements"),
        *facts.needless(),
        *facts.nothing_tested(),
    ]
    return conclude(NAME, findings, facts.held() if not findings else "", facts.numbers(), facts.evidence)


class _Facts:
    """A history and all that is read from it once."""

    def __init__(self, history: History, settings: QuiescingSettings) -> None:
        self.history, self.settings, self.cluster = history, settings, history.cluster
        self.tables = tables(history)
        self.injections = injections(history, settings.settle_ms)
        self.eligible = {
            node: eligible(history, node, settings.settle_ms, settings.start_ms) for node in self.cluster.directors
        }
        self.on_duty, self.all_on_duty = self._on_duty()
        self.failures = [(one, node) for one in self.injections for node in sorted(failed_servers(history, one))]
        self.rounds = {one.label: self._round(one) for one in self.injections}
        self.judged_out = self.judged_back = 0
        self.short: set[str] = set()
        self.noticed: list[dict[str, Any]] = []
        self.evidence: set[int] = set()
        self.late_out: list[Finding] = []
        self.late_back: list[Finding] = []
        self.went_out = self._out_times()
        for injection, node in self.failures:
            for key, entries in self.tables.of_server(node):
                self._judge(injection, key, entries)

    def _on_duty(self) -> tuple[frozenset[int], frozenset[int]]:
        """The indexes of the samples whose director is to be judged then, and of those at which all are."""
        own, every, seen = set(), set(), set()
        for op in sorted((op for ops in self.tables.samples.values() for op in ops), key=lambda op: op.time):
            seen.add(str(op["node"]))
            if interval_at(self.eligible.get(str(op["node"]), []), op.time) is None:
                continue
            own.add(op.index)
            if all(interval_at(self.eligible.get(node, []), op.time) is not None for node in seen):
                every.add(op.index)
        return frozenset(own), frozenset(every)

    def _round(self, injection: Injection) -> int:
        """How many real servers may hang in the rounds of checks of this time, at most."""
        about = [
            one.targets & frozenset(self.cluster.web) or frozenset(self.cluster.web)
            for one in self.injections
            if one.start <= injection.settled and injection.start <= one.settled and one.touches(*self.cluster.web)
        ]
        return max(1, len(frozenset().union(*about)))

    def out_budget(self, failed: int) -> float:
        """From a failure to the last table without it, in ms."""
        if self.settings.out_ms is not None:
            return self.settings.out_ms
        return budget.notice_ms(self.cluster, failed) + self.settings.margin_ms

    def back_budget(self, failed: int) -> float:
        """From the undo to the last table that has it again, in ms."""
        if self.settings.back_ms is not None:
            return self.settings.back_ms
        return self.settings.start_ms + budget.return_ms(self.cluster, failed) + self.settings.margin_ms

    # --- one failure in one table

    def _judge(self, injection: Injection, key: Key, entries: Sequence[Entry]) -> None:
        row: dict[str, Any] = {"fault": injection.label, "node": key[2], "director": key[0], "vip": key[1]}
        row |= {"out_ms": self._out(injection, key, entries), "back_ms": self._back(injection, key, entries)}
        self.noticed.append(row)

    def _out(self, injection: Injection, key: Key, entries: Sequence[Entry]) -> float | None:
        """How long after the proof it was out, and whether it was in time and stayed out."""
        if injection.sure is None:
            return None
        since, undoing = injection.sure
        allowed = self.out_budget(self.rounds[injection.label])
        deadline = since + round(allowed * MS)
        if undoing <= deadline:
            self.short.add(injection.label)
            return None
        on_duty = interval_at(self.eligible.get(key[0], []), since)
        if on_duty is None or on_duty[1] <= deadline:
            return None
        seen = _between(entries, since, min(undoing, on_duty[1]))
        late = [entry for entry in seen if entry.time > deadline]
        if not late:
            return None
        self.judged_out += 1
        first = next((entry for entry in seen if entry.out), None)
        in_still = next((entry for entry in late if not entry.out), None)
        zero = next((entry for entry in late if entry.weight == 0 and not self.cluster.quiescent), None)
        what = f"{key[2]} failed at {moment(since)} ({injection.fault})"
        if in_still is not None:
            ops = (*injection.ops(), in_still.op.index)
            self.late_out.append(
                invalid(
                    f"{what} and {key[0]} still sent new connections for {key[1]} to it at {moment(in_still.time)}, "
                    f"with weight {in_still.weight}; it may take {span_of(allowed)}.",
                    *ops,
                )
            )
        elif zero is not None:
            ops = (*injection.ops(), zero.op.index)
            self.late_out.append(
                invalid(f"{what} and {key[0]} quiesced it for {key[1]} instead of taking it out.", *ops)
            )
        if first is not None:
            self.evidence |= {*injection.ops(), first.op.index}
        return ms(first.time - since) if first is not None else None

    def _back(self, injection: Injection, key: Key, entries: Sequence[Entry]) -> float | None:
        """How long after the verified undo it was back, and whether in time and with its weight."""
        if injection.ended_by is None or injection.proof is None:
            return None
        allowed = self.back_budget(self.rounds[injection.label])
        end = injection.end
        deadline = end + round(allowed * MS)
        again = [one.start for one in self.injections if one.start > injection.start and one.touches(key[0], key[2])]
        until = min([*(start for start in again if start > end), self.until])
        if any(one.end > end and one.start <= end for one in self.injections if one.touches(key[0], key[2])):
            return None
        before = [entry for entry in _between(entries, 0, injection.start) if not entry.out]
        seen = _between(entries, end, until)
        first = next((entry for entry in seen if not entry.out), None)
        took = ms(first.time - end) if first is not None else None
        on_duty = interval_at(self.eligible.get(key[0], []), deadline)
        late = next((entry for entry in seen if entry.time > deadline), None)
        if late is None or on_duty is None or until <= deadline or on_duty[1] < late.time:
            return took
        self.judged_back += 1
        weight = before[-1].weight if before else None
        if late.out or (weight is not None and late.weight != weight):
            stands = "is not in the table" if late.weight is None else f"has weight {late.weight}"
            had = f" instead of {weight}" if weight is not None else ""
            self.late_back.append(
                invalid(
                    f"{key[2]} was sound again at {moment(end)}, and {stands} for {key[1]} on {key[0]} at "
                    f"{moment(late.time)}{had}; it may take {span_of(allowed)}.",
                    *injection.ops(),
                    late.op.index,
                )
            )
        self.evidence |= {*injection.ops(), late.op.index}
        return took

    # --- what must never be

    def removed(self) -> Iterator[Finding]:
        """A quiescent director took a real server out of its table."""
        if not self.cluster.quiescent:
            return
        for (director, vip, node), entries in self.tables.rows.items():
            last: Entry | None = None
            for entry in entries:
                if entry.op.index not in self.on_duty:
                    last = None
                    continue
                anew = last is not None and last.weight is not None and entry.conns < last.conns
                gone = entry.weight is None
                if (gone or anew) and (last is None or last.weight is not None):
                    how = "is not in the table" if gone else "was taken out of the table and put in again"
                    ops = [one.op.index for one in (last, entry) if one is not None]
                    yield invalid(
                        f"{node} {how} for {vip} on {director} at {moment(entry.time)}, and the cluster is quiescent.",
                        *ops,
                    )
                last = entry

    def grown(self) -> Iterator[Finding]:
        """A quiesced real server got new connections."""
        for (director, vip, node), entries in self.tables.rows.items():
            base: Entry | None = None
            since: int | None = None
            for entry in entries:
                if entry.weight != 0 or entry.op.index not in self.on_duty:
                    since = base = None
                    continue
                since = entry.time if since is None else since
                if entry.time - since <= COUNTED_NS:
                    base = None
                elif base is None or entry.conns < base.conns:
                    base = entry
                elif entry.conns - base.conns > self.settings.late_connections:
                    yield invalid(
                        f"{node} got {entry.conns - base.conns:,} new connections for {vip} from {director} after it "
                        f"was quiesced, from {moment(base.time)} to {moment(entry.time)}.",
                        base.op.index,
                        entry.op.index,
                    )
                    break  # said once for each real server of a table

    def disagreements(self) -> Iterator[Finding]:
        """Two directors that both ran undisturbed and did not come to the same."""
        allowed = self.out_budget(max(self.rounds.values(), default=1))
        for vip in self.cluster.vips:
            for node in self.cluster.web:
                yield from self._disagreements(vip, node, allowed)

    def _disagreements(self, vip: str, node: str, allowed: float) -> Iterator[Finding]:
        unsure = self._unsure(node)
        seen = [(entry.time, key[0], entry) for key, rows in self._both(vip, node) for entry in rows]
        latest: dict[str, Entry] = {}
        since: int | None = None
        told = False
        for time, director, entry in sorted(seen, key=lambda one: (one[0], one[1])):
            latest[director] = entry
            outs = [one.out for one in latest.values()]
            judged = entry.op.index in self.all_on_duty and outs.count(outs[0]) < len(outs)
            if not judged or interval_at(unsure, time) is not None:
                since, told = None, False
                continue
            since = time if since is None else since
            if not told and time - since > allowed * MS:
                told = True
                states = ", ".join(f"{each} {'out' if one.out else 'in'}" for each, one in sorted(latest.items()))
                yield invalid(
                    f"The directors disagreed on {node} for {vip} from {moment(since)} to {moment(time)} at least "
                    f"({states}); they may for {span_of(allowed)}.",
                    *(one.op.index for one in latest.values()),
                )

    def _both(self, vip: str, node: str) -> list[tuple[Key, Sequence[Entry]]]:
        return [(key, rows) for key, rows in self.tables.rows.items() if key[1:] == (vip, node)]

    def _unsure(self, node: str) -> list[Stretch]:
        """When a fault was at a real server that may make it fail some checks and pass others."""
        sure = {one.label for one, failed in self.failures if failed == node}
        spans = []
        for one in self.injections:
            if one.touches(node):
                settled = one.settled + round(self.back_budget(self.rounds[one.label]) * MS)
                begin = (one.undoing if one.sure else one.start) if one.label in sure else one.start
                spans.append((begin, settled))
        return merged(spans)

    def needless(self) -> Iterator[Finding]:
        """Sound real servers that were taken out though nothing was in."""
        found = self.needless_times()
        if len(found) <= self.settings.needless:
            return
        for key, entry in found[:EPISODES]:
            yield invalid(
                f"{key[0]} took {key[2]} out of service for {key[1]} at {moment(entry.time)}, and nothing was done to "
                "it.",
                entry.op.index,
            )

    def needless_times(self) -> list[tuple[Key, Entry]]:
        """When a real server went out with nothing in that could be why."""
        slack = round(self.back_budget(max(self.rounds.values(), default=1)) * MS)
        calm = [(start + slack if start > self.since else start, end) for start, end in quiet(self.history)]
        calm = [(start, end) for start, end in calm if start < end]
        return [(key, entry) for key, entry in self.went_out if interval_at(calm, entry.time)]

    def _out_times(self) -> list[tuple[Key, Entry]]:
        """All moments at which a real server was first seen out."""
        found = []
        for key, entries in self.tables.rows.items():
            was_out = False
            for entry in entries:
                on_duty = entry.op.index in self.on_duty
                if entry.out and on_duty and not was_out:
                    found.append((key, entry))
                was_out = entry.out and on_duty
        return sorted(found, key=lambda one: one[1].time)

    # --- whether anything was tested

    @property
    def since(self) -> int:
        """The first sample of any table."""
        return min(op.time for ops in self.tables.samples.values() for op in ops)

    @property
    def until(self) -> int:
        """The last sample of any table."""
        return max(op.time for ops in self.tables.samples.values() for op in ops)

    def witnesses(self) -> Iterator[Finding]:
        """Why not all of the run can be judged."""
        if not self.history.complete:
            yield unknown("The run was killed: what came after is not known.")
        for director, stretches in self.eligible.items():
            times = self.tables.times(director)
            if not times:
                yield unknown(f"Nobody watched the table of {director}.")
                continue
            for start, end in stretches:
                for since, till in silences(
                    _within(times, start, end), max(start, self.since), end, round(self.settings.samples_ms * MS)
                ):
                    yield unknown(f"No sample of the table of {director} from {moment(since)} to {moment(till)}.")

    def nothing_tested(self) -> Iterator[Finding]:
        """Why the run tested nothing."""
        doubtful = list(unproven(one for one, _ in self.failures))
        yield from doubtful
        if not self.failures:
            yield unknown("No real server was made to fail, so nobody can tell how the directors take it.")
        elif not self.judged_out and not doubtful:
            short = f" {len(self.short)} ended before a director had to notice." if self.short else ""
            yield unknown(f"No failure of a real server lasted while a director could be watched at it.{short}")
        elif not self.judged_back and not doubtful:
            yield unknown("The run ended before any real server that failed had to be back.")

    # --- what is said

    def held(self) -> str:
        """The sentence of a valid verdict."""
        out = max((row["out_ms"] for row in self.noticed if row["out_ms"] is not None), default=0)
        back = max((row["back_ms"] for row in self.noticed if row["back_ms"] is not None), default=0)
        word = "quiesced" if self.cluster.quiescent else "taken out"
        return (
            f"Each real server that failed was {word} within {span_of(out)} and back within {span_of(back)} of its "
            "repair, on each director."
        )

    def numbers(self) -> dict[str, Any]:
        """What was measured."""
        return {
            "budget_ms": {"out": self.out_budget(1), "back": self.back_budget(1)},
            "judged": {"out": self.judged_out, "back": self.judged_back, "too_short": len(self.short)},
            "failures": self.noticed,
            "needless": len(self.needless_times()),
        }


def _between(entries: Sequence[Entry], start: int, end: int) -> Sequence[Entry]:
    """The samples of (start, end]."""
    low = bisect_right(entries, start, key=lambda entry: entry.time)
    return entries[low : bisect_right(entries, end, key=lambda entry: entry.time)]


def _within(times: Sequence[int], start: int, end: int) -> Sequence[int]:
    return times[bisect_left(times, start) : bisect_right(times, end)]


def _few(findings: Iterator[Finding] | Sequence[Finding], more: str) -> Iterator[Finding]:
    """The first few, and how many more there are."""
    found = list(findings)
    yield from found[:EPISODES]
    if len(found) > EPISODES:
        yield invalid(f"{len(found) - EPISODES:,} {more}.")
