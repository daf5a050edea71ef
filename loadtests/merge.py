"""The ops of several workers, each written to a file of its own, as one history: for load from machines of one's own.

A worker is a process of Locust with the locustfile, its ``MONKEYWRENCH_OPS`` a file. Ops carry the clock of their
machine (``perf_counter_ns``), which is another one on each machine. What a worker says at its beginning (``boot``, and
what the time of day is) tells which of them share a clock; those of other machines are shifted by what the times of day
differ, so they are as right as these machines' clocks are. How long an answer took is never touched by that.
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
from harness.records import Entry, Line
from loadtests.feeds import LOAD, entry

UNREADABLE = "unreadable"


class MergeError(UserError):
    """Files that are not the ops of several workers."""


@dataclass(frozen=True)
class Worker:
    """What one file has. Times are ns of its machine's clock; ``wall_ns`` is the time of day when it was 0."""

    name: str
    entries: tuple[Entry, ...]
    boot: str
    wall_ns: int
    whole: bool
    """It ended by itself; of one that was killed, nobody knows what it did last."""
    broken: int
    """Lines that are no op."""

    @property
    def processes(self) -> set[str]:
        """Whose ops these are."""
        return {each.process for each in self.entries}


def read(name: str, lines: Iterable[str]) -> Worker:
    """The ops of one file. Raises MergeError for one that is none of the locustfile's. Pure."""
    every = [entry(Line(0, text), UNREADABLE) for text in map(str.strip, lines) if text]
    found = [each for each in every if each.process != UNREADABLE]
    begin = [each for each in found if _phase(each) == "begin"]
    if not begin:
        raise MergeError(
            f"{name} has not the beginning of a worker's ops", "Give what MONKEYWRENCH_OPS made, one file a worker."
        )
    if len(begin) > 1:
        raise MergeError(
            f"{name} has the ops of {len(begin)} workers", "Give each a file of its own: MONKEYWRENCH_OPS."
        )
    told: Any = begin[0].value
    try:
        boot, wall_ns = str(told["boot"]), int(told["wall_ns"]) - begin[0].time_ns
    except (KeyError, TypeError, ValueError) as error:
        raise MergeError(f"{name}: its beginning cannot be read: {error!r}", "Give it as it was written.") from error
    ops = tuple(each for each in found if each.f != "worker")
    return Worker(name, ops, boot, wall_ns, any(_phase(each) == "end" for each in found), len(every) - len(found))


def _phase(of: Entry) -> object:
    return of.value.get("phase") if of.f == "worker" and isinstance(of.value, dict) else None


def merged(workers: Sequence[Worker], scenario: str) -> Iterator[Entry]:
    """One history of them all, by time, on the clock of the first one. Raises MergeError. Pure.

    Of a worker that was killed, or has lines that nobody can read, it says so as a run does of a feed that it lost: the
    checks of the load are then unknown.
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
    moved = {name: round(shift / 1e6, 3) for name, shift in shifts.items() if shift}
    cluster = _cluster(ops)
    told = {"origin_ns": first, "scenario": scenario, "cluster": cluster, "load_only": True, "moved_ms": moved}
    yield Entry(first, "run", "info", "start", told)
    yield from ops
    yield Entry(last, "run", "info", "end")


def shift_ns(worker: Worker, onto: Worker) -> int:
    """How much to add to a worker's times to have them on another one's clock. None where they share one."""
    return 0 if worker.boot == onto.boot else worker.wall_ns - onto.wall_ns


def _refuse(workers: Sequence[Worker]) -> None:
    if not any(worker.entries for worker in workers):
        raise MergeError("there is not one op in all of that", "Let the workers ask for something.")
    known: dict[str, str] = {}
    for worker in workers:
        for process in sorted(each for each in worker.processes if each.startswith(USERS)):
            other = known.setdefault(process, worker.name)
            if other != worker.name:
                raise MergeError(
                    f"{process} is in {other} and in {worker.name}",
                    "Give each worker a name of its own: MONKEYWRENCH_PROCESS=user:0, user:1 and so on.",
                )


def _ends(worker: Worker) -> Iterator[Entry]:
    """How the record of a worker begins and ends."""
    if not worker.entries:
        return
    first, last = (pick(each.time_ns for each in worker.entries) for pick in (min, max))
    process = f"{LOAD}:{worker.name}"
    yield Entry(first, process, "info", "feed", {"phase": "open"})
    if worker.broken:
        why = f"{worker.broken} lines cannot be read"
        yield Entry(last, process, "info", "feed", {"phase": "dropped", "why": why})
    phase = "closed" if worker.whole else "lost"
    yield Entry(last, process, "info", "feed", {"phase": phase})


def _cluster(ops: Sequence[Entry]) -> Mapping[str, Any]:
    """What is known of a cluster by those who only asked it: its addresses, and who answered."""
    values = [each.value for each in ops if isinstance(each.value, dict)]

    def names(of: str) -> list[str]:
        return sorted({str(value[of]) for value in values if value.get(of)})

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
    """Make a run directory of a history. Raises FileExistsError where there is a run, else OSError."""
    target.mkdir(parents=True, exist_ok=True)
    with Recorder(target / run_directory.HISTORY, entries[0].time_ns) as recorder:
        for each in entries:
            recorder.record(each)
    if scenario_file:
        shutil.copyfile(scenario_file, target / run_directory.SCENARIO)


def _is_url(text: object) -> bool:
    return isinstance(text, str) and text.count("/") >= 3
