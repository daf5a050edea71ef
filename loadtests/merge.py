"""Merge the ops of several workers, each in a file of its own, into one history: for load from your own machines.

A worker is a process of Locust with the locustfile and a file as its ``MONKEYWRENCH_OPS``. Ops have the clock of their
machine (``perf_counter_ns``), which differs between machines. Each worker first records ``boot`` and the time of day:
workers with the same ``boot`` share a clock; the times of the others are shifted by the difference of the times of day,
so they are as accurate as those machines' clocks, which the checks of data allow for (``harness/history/clocks.py``).
Response times do not change.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.artifacts import run_directory
from harness.errors import UserError
from harness.history import Recorder
from harness.history.latency import USERS
from harness.history.ops import DAY_NS, LONGEST_NS
from harness.records import Entry, Line
from loadtests.feeds import LOAD, entry

UNREADABLE = "unreadable"


class MergeError(UserError):
    """Files that are not the ops of workers."""


@dataclass(frozen=True)
class Worker:
    """The ops of one file. Times are ns of its machine's clock; ``wall_ns`` is the time of day when that was 0."""

    name: str
    entries: tuple[Entry, ...]
    boot: str
    wall_ns: int
    whole: bool
    """It ended on its own. The last ops of a worker that was killed may be missing."""
    broken: int
    """Lines that are not ops."""

    @property
    def processes(self) -> set[str]:
        """The processes that have ops here."""
        return {each.process for each in self.entries}


def read(name: str, lines: Iterable[str]) -> Worker:
    """The ops of one file. Raises MergeError for a file that the locustfile did not write. Pure."""
    every = [entry(Line(0, text), UNREADABLE) for text in map(str.strip, lines) if text]
    found = [each for each in every if each.process != UNREADABLE]
    begin = [each for each in found if _phase(each) == "begin"]
    if not begin:
        raise MergeError(
            f"{name} is not a file of a worker's ops: its begin op is missing",
            "Give the files that MONKEYWRENCH_OPS named, one per worker.",
        )
    if len(begin) > 1:
        raise MergeError(
            f"{name} has the ops of {len(begin)} workers", "Give each worker a file of its own with MONKEYWRENCH_OPS."
        )
    value: Any = begin[0].value
    try:
        boot, wall_ns = str(value["boot"]), int(value["wall_ns"]) - begin[0].time_ns
    except (KeyError, TypeError, ValueError) as error:
        raise MergeError(
            f"{name}: its begin op is unreadable: {error!r}", "Give the file as the worker wrote it."
        ) from error
    ops = tuple(each for each in found if each.f != "worker")
    return Worker(name, ops, boot, wall_ns, any(_phase(each) == "end" for each in found), len(every) - len(found))


def _phase(op: Entry) -> object:
    return op.value.get("phase") if op.f == "worker" and isinstance(op.value, dict) else None


def merged(workers: Sequence[Worker], scenario: str) -> Iterator[Entry]:
    """One history of all workers, by time, on the clock of the first. Raises MergeError. Pure.

    A worker that was killed or has unreadable lines is recorded like a feed that a run lost: the checks of the load are
    unknown then.
    """
    _refuse(workers)
    shifts = {worker.name: shift_ns(worker, workers[0]) for worker in workers}
    ops = [
        replace(each, time_ns=each.time_ns + shifts[worker.name])
        for worker in workers
        for each in (*worker.entries, *_ends(worker))
    ]
    ops.sort(key=lambda each: each.time_ns)
    first, last = ops[0].time_ns, ops[-1].time_ns
    if last - first > LONGEST_NS:
        raise MergeError(
            f"the files span {(last - first) // DAY_NS:,} days, and a run at most {LONGEST_NS // DAY_NS}: their clocks "
            "cannot be compared",
            "Set the clocks of the machines, and give the files of one run.",
        )
    moved = {name: round(shift / 1e6, 3) for name, shift in shifts.items() if shift}
    cluster = _cluster(ops)
    start = {"origin_ns": first, "scenario": scenario, "cluster": cluster, "load_only": True, "moved_ms": moved}
    yield Entry(first, "run", "info", "start", start)
    yield from ops
    yield Entry(last, "run", "info", "end")


def shift_ns(worker: Worker, onto: Worker) -> int:
    """What to add to a worker's times to convert them to another worker's clock; 0 where they share one."""
    return 0 if worker.boot == onto.boot else worker.wall_ns - onto.wall_ns


def _refuse(workers: Sequence[Worker]) -> None:
    if not any(worker.entries for worker in workers):
        raise MergeError("the files contain no ops", "Let the workers send requests before they end.")
    known: dict[str, str] = {}
    for worker in workers:
        for process in sorted(each for each in worker.processes if each.startswith(USERS)):
            other = known.setdefault(process, worker.name)
            if other != worker.name:
                raise MergeError(
                    f"{process} is in both {other} and {worker.name}",
                    "Give each worker a name of its own: MONKEYWRENCH_PROCESS=user:0, user:1 and so on.",
                )


def _ends(worker: Worker) -> Iterator[Entry]:
    """The ops of a worker's feed: opened, and closed, lost or with lines dropped."""
    if not worker.entries:
        return
    first, last = (pick(each.time_ns for each in worker.entries) for pick in (min, max))
    process = f"{LOAD}:{worker.name}"
    yield Entry(first, process, "info", "feed", {"phase": "open"})
    if worker.broken:
        why = f"{worker.broken} {'line is' if worker.broken == 1 else 'lines are'} unreadable"
        yield Entry(last, process, "info", "feed", {"phase": "dropped", "why": why})
    phase = "closed" if worker.whole else "lost"
    yield Entry(last, process, "info", "feed", {"phase": phase})


def _cluster(ops: Sequence[Entry]) -> Mapping[str, Any]:
    """What the workers know of the cluster: its addresses, and the nodes that answered."""
    values = [each.value for each in ops if isinstance(each.value, dict)]

    def names(key: str) -> list[str]:
        return sorted({str(value[key]) for value in values if value.get(key)})

    sites = sorted({value["url"].split("/")[2].partition(":")[0] for value in values if _is_url(value.get("url"))})
    return {
        "site": sites[0] if sites else "",
        "vips": dict.fromkeys(names("vip"), ""),
        "directors": [],
        "web": names("node"),
        "macs": {},
        "keepalive_ms": 0,
        "deadtime_ms": 0,
    }


def write(target: Path, entries: Sequence[Entry], scenario_file: Path | None) -> None:
    """Write a history as a run directory. Raises FileExistsError where a run exists already, else OSError.

    If it fails, nothing is left of it.
    """
    created = not target.exists()
    target.mkdir(parents=True, exist_ok=True)
    history = target / run_directory.HISTORY
    if history.exists():
        raise FileExistsError(history)
    try:
        with Recorder(history, entries[0].time_ns) as recorder:
            for each in entries:
                recorder.record(each)
        if scenario_file:
            shutil.copyfile(scenario_file, target / run_directory.SCENARIO)
    except BaseException:
        history.unlink(missing_ok=True)
        if created:
            target.rmdir()
        raise


def _is_url(text: object) -> bool:
    return isinstance(text, str) and text.count("/") >= 3
