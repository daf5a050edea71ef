"""Do all real servers have the master's version of the site's folder soon after a change?"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.algorithms.arrays import FOREVER
from harness.history import History, Op
from harness.history.client_ops import named
from harness.history.injections import Injection, injections
from harness.history.intervals import Intervals, silences
from harness.history.planned_load import lacks, untried
from harness.history.published import published
from harness.history.timeline import MS, count_of, moment, ms, span_of
from harness.history.web_data import files_of
from harness.verdict import Finding, Verdict, conclude, invalid, not_tried, unknown

NAME = "content"

SHOWN = 10


class ContentSettings(BaseModel):
    """``[checks.content]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    converge_ms: float = Field(
        default=15_000,
        gt=0,
        description="Maximum time from a change on the master until all other real servers have it",
    )
    resync_ms: float = Field(
        default=75_000,
        ge=0,
        description="Grace period after a fault of a real server or of replication has settled: the time until the "
        "next full comparison (resync_s of the topology) plus one transfer",
    )
    ahead_ms: float = Field(
        default=8_000,
        ge=0,
        description="How much earlier than on the master a version may be seen elsewhere: folders are sampled at least "
        "every 5 s, and later on a busy machine",
    )
    settle_ms: float = Field(default=0, ge=0, description="Added to the settling time of each fault")
    samples_ms: float = Field(default=12_000, gt=0, description="Maximum time between two samples of a folder")
    changes: int = Field(default=1, ge=1, description="Minimum number of changes on the master")


def check(history: History, settings: ContentSettings) -> Verdict:
    """Every real server has the master's files within a time limit, and never a file that the master never had.

    The check sees the digests of all files of the site's folder on each real server, at each change and every 5 s; the
    first real server of the cluster is the master. Each file on another real server must be in a version that the
    master had within the last ``converge_ms``, or that a late sample of the master shows soon afterwards. A version
    that the master never had is a torn page: a file that was half written, or that came from somewhere else. The master
    had every version that it acknowledged to an administrator (ops ``publish`` of the load), even if no sample shows
    it. If such an op has no known result, a version of that page may be its version, and the verdict is unknown. What a
    replica had when the run began may be older than all samples; it only has to converge.

    While a fault affects the real server, the master, their data or the whole network, and for ``resync_ms``
    afterwards, a replica may be late. A torn page is always invalid. The check cannot see what anyone but the
    administrators changes twice between two samples, nor whether Apache serves the files of the folder. A run in which
    the master never changed is unknown.
    """
    replication = _Replication(history, settings)
    if not replication.samples and lacks(history, "web data"):
        return conclude(NAME, [not_tried("The topology does not replicate web data.")], "")
    if not replication.samples:
        return conclude(NAME, [unknown("There are no samples of the site's folder.")], "")
    findings = [*replication.gaps(), *replication.torn(), *replication.stale(), *replication.nothing_tested()]
    return conclude(
        NAME, findings, "" if findings else replication.held(), replication.numbers(), replication.evidence()
    )


@dataclass(frozen=True)
class Versions:
    """The versions of one file on the master (None: the file does not exist), and when it got each of them."""

    since: tuple[int, ...]
    digests: tuple[str | None, ...]

    def between(self, start: int, end: int) -> tuple[str | None, ...]:
        """The versions that it had at any time of [start, end]."""
        first = max(0, bisect_right(self.since, start) - 1)
        return self.digests[first : max(1, bisect_right(self.since, end))]


@dataclass(frozen=True)
class Sighting:
    """A file in one sample of a real server."""

    node: str
    path: str
    digest: str | None
    op: Op

    def __str__(self) -> str:
        return f"{self.path} on {self.node} at {moment(self.op.time)}"


@dataclass
class Compared:
    """The samples of all replicas, compared with the master's versions."""

    judged: dict[str, int]
    """Each replica -> how many of its samples had no excuse for an old version."""
    lags: dict[tuple[int, str, str], float] = field(default_factory=dict)
    """The time and path of a change, and a replica -> how long it took to arrive there, in ms."""
    torn: list[Sighting] = field(default_factory=list)
    """Versions that the master never had."""
    unsure: list[Sighting] = field(default_factory=list)
    """Versions that may be those of an administrator's change without a known result."""
    late: list[Sighting] = field(default_factory=list)
    """Versions that the master no longer had."""


class _Replication:
    """The samples of the site's folder on the master and on its replicas."""

    def __init__(self, history: History, settings: ContentSettings) -> None:
        self.history, self.settings = history, settings
        self.master, *self.replicas = history.cluster.web
        self.samples: dict[str, list[Op]] = defaultdict(list)
        for op in history.by_time().seen("docroot"):
            self.samples[str(op["node"])].append(op)
        self.versions = _versions(self.samples.get(self.master, []))
        self.changed = sorted(
            (time, path) for path, versions in self.versions.items() for time in versions.since[1:] if time
        )
        self.injections = injections(history, settings.settle_ms)
        self.calm = {node: self._calm(node) for node in self.replicas}
        self.published = published(history)

    def _calm(self, node: str) -> Intervals:
        """When a replica has no excuse to be late."""
        resync = round(self.settings.resync_ms * MS)
        holes = [(fault.start, fault.settled + resync) for fault in self.injections if self._excuses(fault, node)]
        return Intervals([(0, self.history.end_ns + 1)]).minus(holes)

    def _excuses(self, fault: Injection, node: str) -> bool:
        return fault.touches(node, self.master)

    # --- replicas against the master

    @cached_property
    def compared(self) -> Compared:
        """Every file of every sample of every replica, compared with the master."""
        found = Compared(dict.fromkeys(self.replicas, 0))
        for node in self.replicas:
            if self.versions and self.samples.get(node):
                self._compare(node, self.samples[node], found)
        return found

    def _compare(self, node: str, ops: Sequence[Op], found: Compared) -> None:
        inherited, began = files_of(ops[0]), max(ops[0].time, self.samples[self.master][0].time)
        bound = round(self.settings.converge_ms * MS)
        coming = deque((time, path) for time, path in self.changed if time > began)
        waiting: set[tuple[int, str]] = set()
        for op in ops:
            files = files_of(op)
            stretch = self.calm[node].at(op.time)
            # a version counts as late only if there was no excuse in all the time that it had to arrive
            judged = stretch is not None and op.time - bound >= max(stretch[0], began)
            for path in sorted(files.keys() | self.versions.keys()):
                self._sort(Sighting(node, path, files.get(path), op), inherited.get(path), judged, found)
            while coming and coming[0][0] <= op.time:
                waiting.add(coming.popleft())
            for change in [change for change in waiting if self._has(files, change)]:
                waiting.discard(change)
                found.lags[(*change, node)] = ms(op.time - change[0])
            if judged and self.changed and self.changed[0][0] + bound <= op.time:
                found.judged[node] += 1

    def _sort(self, seen: Sighting, inherited: str | None, judged: bool, found: Compared) -> None:
        """Whether the file is in one of the master's versions, and in a recent one."""
        versions, since = self.versions.get(seen.path, ABSENT), seen.op.time - round(self.settings.converge_ms * MS)
        acknowledged = self.published.acknowledged.get((seen.path, str(seen.digest)))
        if seen.digest in versions.digests:
            late = seen.digest not in versions.between(since, seen.op.time + round(self.settings.ahead_ms * MS))
        elif seen.digest is None or seen.digest == inherited:
            late = True
        elif acknowledged is not None:
            late = self._sampled_after(acknowledged) < since
        else:
            late = False
            (found.unsure if self.published.may_be(seen.path, seen.op.time) else found.torn).append(seen)
        if judged and late:
            found.late.append(seen)

    def _sampled_after(self, time: int) -> int:
        """The time of the master's next sample."""
        return next((op.time for op in self.samples[self.master] if op.time >= time), FOREVER)

    def _has(self, files: Mapping[str, str], change: tuple[int, str]) -> bool:
        time, path = change
        return files.get(path) in self.versions[path].between(time, 2**62)

    # --- what is wrong

    def gaps(self) -> Iterator[Finding]:
        """Real servers whose folder was not sampled all the time."""
        for node in (self.master, *self.replicas):
            times = [op.time for op in self.samples.get(node, ())]
            if not times:
                yield unknown(f"There are no samples of the site's folder on {node}.")
                continue
            holes = [(fault.start, fault.settled) for fault in self.injections if fault.touches(node)]
            end = max(op.time for ops in self.samples.values() for op in ops)
            for start, till in Intervals([(times[0], end)]).minus(holes):
                inside = [time for time in times if start <= time <= till]
                for since, until in silences(inside, start, till, round(self.settings.samples_ms * MS)):
                    bounds = f"from {moment(since)} to {moment(until)}"
                    yield unknown(f"There are no samples of the site's folder on {node} {bounds}.")

    def torn(self) -> Iterator[Finding]:
        """Files that the master never had."""
        if unsure := self.compared.unsure:
            yield unknown(
                f"Real servers had files that may be an administrator's change without a known result on {self.master}:"
                f" {_named(unsure)}.",
                *_ops(unsure),
            )
        torn = self.compared.torn
        if not torn:
            return
        sentence = f"Real servers had files that {self.master} never had: {_named(torn)}"
        if self._unsampled(torn[0].op.time):
            yield unknown(f"{sentence}; but there are no samples of {self.master} at that time.", *_ops(torn))
        else:
            yield invalid(f"{sentence}.", *_ops(torn))

    def _unsampled(self, time: int) -> bool:
        """Whether the master's latest sample before that time is too old."""
        times = [op.time for op in self.samples[self.master]]
        place = bisect_right(times, time) - 1
        return place < 0 or time - times[place] > self.settings.samples_ms * MS

    def stale(self) -> Iterator[Finding]:
        """Files that were not updated in time."""
        first: dict[tuple[str, str], Sighting] = {}
        for seen in self.compared.late:
            first.setdefault((seen.node, seen.path), seen)
        if first:
            late = list(first.values())
            bound = span_of(self.settings.converge_ms)
            files = named([str(seen) for seen in late])
            yield invalid(f"Files differed from {self.master}'s for more than {bound}: {files}.", *_ops(late))

    def nothing_tested(self) -> Iterator[Finding]:
        """Reasons why the run tested nothing."""
        if len(self.changed) < self.settings.changes:
            needed = self.settings.changes
            nothing = [] if self.changed else [*untried(self.history, "change no page", "publish")]
            yield from nothing
            if nothing:
                return
            yield unknown(
                f"The site's folder changed {count_of(len(self.changed), 'time')} on {self.master}; at least {needed} "
                f"{'is' if needed == 1 else 'are'} needed."
            )
            return
        for node in self.replicas:
            if not self.compared.judged[node] and self.samples.get(node):
                yield unknown(f"No sample of {node} is late enough after a change to show whether the change arrived.")

    # --- the verdict

    def held(self) -> str:
        """The sentence of a valid verdict."""
        slowest = span_of(max(self.compared.lags.values(), default=0))
        return (
            f"{count_of(len(self.changed), 'change')} on {self.master} reached all "
            f"{count_of(len(self.replicas), 'other real server')}, the slowest after {slowest}; none had a file that "
            f"{self.master} never had."
        )

    def numbers(self) -> dict[str, Any]:
        """What was measured."""
        lags = self.compared.lags
        return {
            "changes": len(self.changed),
            "files": len(self.versions),
            "slowest_ms": max(lags.values(), default=None),
            "servers": {
                node: {
                    "samples": len(self.samples.get(node, ())),
                    "judged": self.compared.judged[node],
                    "slowest_ms": max((lag for key, lag in lags.items() if key[2] == node), default=None),
                }
                for node in self.replicas
            },
        }

    def evidence(self) -> list[int]:
        """The master's samples that were the first to show its changes."""
        times = {time for time, _ in self.changed[:SHOWN]}
        return [op.index for op in self.samples.get(self.master, ()) if op.time in times]


def _named(sightings: Sequence[Sighting]) -> str:
    return named(sorted({str(seen) for seen in sightings}))


def _ops(sightings: Sequence[Sighting]) -> list[int]:
    return [seen.op.index for seen in sightings[:SHOWN]]


ABSENT = Versions((0,), (None,))
"""A file that the master never had."""


def _versions(ops: Sequence[Op]) -> dict[str, Versions]:
    """Each file that the master ever had."""
    found: dict[str, list[tuple[int, str | None]]] = defaultdict(list)
    before: Mapping[str, str] = {}
    for number, op in enumerate(ops):
        files = files_of(op)
        for path in files.keys() | before.keys():
            if path not in found:
                found[path].append((0, None if number else files.get(path)))
            if found[path][-1][1] != files.get(path):
                found[path].append((op.time, files.get(path)))
        before = files
    return {
        path: Versions(tuple(time for time, _ in changes), tuple(digest for _, digest in changes))
        for path, changes in found.items()
    }
