"""Is the site's folder the same everywhere, soon after it was changed on the master?"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.algorithms.arrays import FOREVER
from harness.history import History, HistoryError, Op
from harness.history.client_ops import named
from harness.history.injections import Injection, Stretch, injections, interval_at, subtract
from harness.history.published import published
from harness.history.timeline import MS, moment, ms, silences, span_of
from harness.verdict import Finding, Verdict, conclude, invalid, unknown

NAME = "content"

SHOWN = 10

UNFINISHED = re.compile(r"(^|/)\.([^/]+\.[A-Za-z0-9]{6}$|[^/]*-partial/)")
"""A file that rsync has not finished has a name like the first (rsync(1), --temp-dir), and what it was interrupted in
is kept in a folder like the second, where it is told to (--partial-dir). Nobody is served either."""


class ContentSettings(BaseModel):
    """``[checks.content]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    converge_ms: float = Field(
        default=15_000, gt=0, description="How long after a change on the master another real server may have the old"
    )
    resync_ms: float = Field(
        default=75_000,
        ge=0,
        description="How long after a fault of a real server or of replication has settled it may still have the old: "
        "the next full comparison (resync_s of the topology) and one transfer",
    )
    ahead_ms: float = Field(
        default=8_000,
        ge=0,
        description="How much earlier than on the master a version may be seen elsewhere: a folder is looked at every "
        "5 s at least, and a busy machine is late",
    )
    settle_ms: float = Field(default=0, ge=0, description="Added to the settling of each fault")
    samples_ms: float = Field(default=12_000, gt=0, description="The longest silence of a folder")
    changes: int = Field(default=1, ge=1, description="How many changes on the master it takes to tell")


def check(history: History, settings: ContentSettings) -> Verdict:
    """Every real server has what the master has, within a bound; and no file is ever one that the master never had.

    It sees the digests of all files of the site's folder on each real server, at each change and every 5 s; the first
    one of the cluster is the master. A file on another real server must be in a version that the master had at some
    time within ``converge_ms`` before, or that a late look at the master finds soon after. A version that the master
    had at no time at all is a torn page: a file that was served half written, or from somewhere else. What the master
    acknowledged to an administrator (ops ``publish`` of the load) it had, whether that was seen or not; and where
    nobody knows what became of such an op, nobody knows whether a version is its. What a replica had when the run began
    may be older than anything that was seen; then it only has to converge.

    While a fault is in that touches the real server, the master, their data or the network as a whole, being late is
    forgiven, and for ``resync_ms`` afterwards. A torn page never is. It cannot see what others than administrators
    change twice between two looks, nor whether Apache serves what is in the folder. A run in which the master never
    changed is unknown.
    """
    facts = _Facts(history, settings)
    if not facts.samples:
        return conclude(NAME, [unknown("Nobody watched the site's folder.")], "")
    findings = [*facts.witnesses(), *facts.torn(), *facts.stale(), *facts.nothing_tested()]
    held = (
        f"{len(facts.changed):,} changes on {facts.master} were on all of {len(facts.replicas)} other real servers, "
        f"the slowest after {span_of(max(facts.lags.values(), default=0))}; none ever had a file of its own."
    )
    return conclude(NAME, findings, held if not findings else "", facts.numbers(), facts.evidence())


@dataclass(frozen=True)
class Versions:
    """One file on the master: its versions (None: it is not there) and since when it has each."""

    since: tuple[int, ...]
    digests: tuple[str | None, ...]

    def between(self, start: int, end: int) -> tuple[str | None, ...]:
        """The versions that it had at any time of [start, end]."""
        first = max(0, bisect_right(self.since, start) - 1)
        return self.digests[first : max(1, bisect_right(self.since, end))]


@dataclass(frozen=True)
class Look:
    """A file of a real server in one sample, in a version that it should not have."""

    node: str
    path: str
    digest: str | None
    op: Op

    def told(self) -> str:
        """For a sentence."""
        return f"{self.path} on {self.node} at {moment(self.op.time)}"


class _Facts:
    """A history and all that is read from it once."""

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
        self.lags: dict[tuple[int, str, str], float] = {}
        self.published = published(history)
        self.strange: list[Look] = []
        self.unsure: list[Look] = []
        self.late: list[Look] = []
        self.judged: dict[str, int] = dict.fromkeys(self.replicas, 0)
        if self.versions:
            for node in self.replicas:
                self._compare(node, self.samples.get(node, []))

    def _calm(self, node: str) -> list[Stretch]:
        """When a replica has no excuse to be late."""
        resync = round(self.settings.resync_ms * MS)
        holes = [(one.start, one.settled + resync) for one in self.injections if self._excuses(one, node)]
        return subtract([(0, self.history.end_ns + 1)], holes)

    def _excuses(self, one: Injection, node: str) -> bool:
        return one.fault.startswith("data.") or one.touches(node, self.master)

    def _compare(self, node: str, ops: Sequence[Op]) -> None:
        """Judge every file of every sample of one real server."""
        if not ops:
            return
        inherited, began = files_of(ops[0]), max(ops[0].time, self.samples[self.master][0].time)
        bound = round(self.settings.converge_ms * MS)
        coming = deque((time, path) for time, path in self.changed if time > began)
        waiting: set[tuple[int, str]] = set()
        for op in ops:
            files = files_of(op)
            stretch = interval_at(self.calm[node], op.time)
            # a version counts as late only when there was no excuse all the time that it had to come
            judged = stretch is not None and op.time - bound >= max(stretch[0], began)
            for path in sorted(files.keys() | self.versions.keys()):
                self._judge(Look(node, path, files.get(path), op), inherited.get(path), judged)
            while coming and coming[0][0] <= op.time:
                waiting.add(coming.popleft())
            for change in [one for one in waiting if self._has(files, one)]:
                waiting.discard(change)
                self.lags[(*change, node)] = ms(op.time - change[0])
            if judged and self.changed and self.changed[0][0] + bound <= op.time:
                self.judged[node] += 1

    def _judge(self, look: Look, inherited: str | None, judged: bool) -> None:
        """Judge one file of one sample: is it the master's, and of late?"""
        versions, since = self.versions.get(look.path, ABSENT), look.op.time - round(self.settings.converge_ms * MS)
        acknowledged = self.published.acknowledged.get((look.path, str(look.digest)))
        if look.digest in versions.digests:
            late = look.digest not in versions.between(since, look.op.time + round(self.settings.ahead_ms * MS))
        elif look.digest is None or look.digest == inherited:
            late = True
        elif acknowledged is not None:
            late = self._seen_after(acknowledged) < since
        else:
            late = False
            (self.unsure if self.published.may_be(look.path, look.op.time) else self.strange).append(look)
        if judged and late:
            self.late.append(look)

    def _seen_after(self, time: int) -> int:
        """When the master was looked at next."""
        return next((op.time for op in self.samples[self.master] if op.time >= time), FOREVER)

    def _has(self, files: Mapping[str, str], change: tuple[int, str]) -> bool:
        time, path = change
        return files.get(path) in self.versions[path].between(time, 2**62)

    # --- what is wrong

    def witnesses(self) -> Iterator[Finding]:
        """Why not all of the run can be judged."""
        if not self.history.complete:
            yield unknown("The run was killed: what came after is not known.")
        for node in (self.master, *self.replicas):
            times = [op.time for op in self.samples.get(node, ())]
            if not times:
                yield unknown(f"Nobody watched the site's folder on {node}.")
                continue
            holes = [(one.start, one.settled) for one in self.injections if one.touches(node)]
            end = max(op.time for ops in self.samples.values() for op in ops)
            for start, till in subtract([(times[0], end)], holes):
                inside = [time for time in times if start <= time <= till]
                for since, until in silences(inside, start, till, round(self.settings.samples_ms * MS)):
                    yield unknown(f"No look at the site's folder on {node} from {moment(since)} to {moment(until)}.")

    def torn(self) -> Iterator[Finding]:
        """Files that the master never had."""
        if self.unsure:
            yield unknown(
                f"Files were seen that {self.master} perhaps had for a moment: {_told(self.unsure)}. "
                "Nobody knows what became of an administrator's change of them.",
                *_ops(self.unsure),
            )
        if not self.strange:
            return
        blind = self._blind(self.strange[0].op.time)
        sentence, ops = f"Files were seen that {self.master} never had: {_told(self.strange)}.", _ops(self.strange)
        yield unknown(f"{sentence} But {self.master} was not watched then.", *ops) if blind else invalid(sentence, *ops)

    def _blind(self, time: int) -> bool:
        """Whether the master was not looked at for long before that."""
        times = [op.time for op in self.samples[self.master]]
        place = bisect_right(times, time) - 1
        return place < 0 or time - times[place] > self.settings.samples_ms * MS

    def stale(self) -> Iterator[Finding]:
        """Files that stayed as they had been."""
        first: dict[tuple[str, str], Look] = {}
        for look in self.late:
            first.setdefault((look.node, look.path), look)
        if first:
            some = list(first.values())
            bound = span_of(self.settings.converge_ms)
            told = named([look.told() for look in some])
            yield invalid(f"Files were not as {self.master} had them within {bound} before: {told}.", *_ops(some))

    def nothing_tested(self) -> Iterator[Finding]:
        """Why the run tested nothing."""
        if len(self.changed) < self.settings.changes:
            yield unknown(
                f"The site's folder changed {len(self.changed)} times on {self.master}, and it takes "
                f"{self.settings.changes} to tell."
            )
            return
        for node in self.replicas:
            if not self.judged[node] and self.samples.get(node):
                yield unknown(f"Nobody looked at {node} long enough after a change to tell whether it had come.")

    # --- what is said

    def numbers(self) -> dict[str, Any]:
        """What was measured."""
        return {
            "changes": len(self.changed),
            "files": len(self.versions),
            "slowest_ms": max(self.lags.values(), default=None),
            "servers": {
                node: {
                    "looks": len(self.samples.get(node, ())),
                    "judged": self.judged[node],
                    "slowest_ms": max((lag for key, lag in self.lags.items() if key[2] == node), default=None),
                }
                for node in self.replicas
            },
        }

    def evidence(self) -> list[int]:
        """The samples of the master that first had its changes."""
        times = {time for time, _ in self.changed[:SHOWN]}
        return [op.index for op in self.samples.get(self.master, ()) if op.time in times]


def _told(looks: Sequence[Look]) -> str:
    return named(sorted({look.told() for look in looks}))


def _ops(looks: Sequence[Look]) -> list[int]:
    return [look.op.index for look in looks[:SHOWN]]


ABSENT = Versions((0,), (None,))
"""A file that the master never had."""


def files_of(op: Op) -> Mapping[str, str]:
    """The files of a look at a site's folder, without unfinished ones. Raises HistoryError."""
    files = op["files"]
    if not isinstance(files, dict):
        raise HistoryError(f"op {op.index} (docroot): its files cannot be read")
    return {path: digest for path, digest in files.items() if not UNFINISHED.search(path)}


def _versions(ops: Sequence[Op]) -> dict[str, Versions]:
    """Each file that the master ever had."""
    told: dict[str, list[tuple[int, str | None]]] = defaultdict(list)
    before: Mapping[str, str] = {}
    for number, op in enumerate(ops):
        files = files_of(op)
        for path in files.keys() | before.keys():
            if path not in told:
                told[path].append((0, None if number else files.get(path)))
            if told[path][-1][1] != files.get(path):
                told[path].append((op.time, files.get(path)))
        before = files
    return {
        path: Versions(tuple(time for time, _ in some), tuple(digest for _, digest in some))
        for path, some in told.items()
    }
