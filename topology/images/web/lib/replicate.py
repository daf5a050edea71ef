"""Replicates changes of the site's folder on the master to all other real servers; idle when nothing changes.

``replicate.py PLAN``; the plan is JSON: ``folder``, ``targets`` (name -> address), ``debounce_ms``, ``resync_s`` and
``state`` (the file for its own status).

No visitor of another real server ever sees half of a page:

- it waits until nothing was written for ``debounce_ms``, then copies the folder to a snapshot beside it. If anything
  was written meanwhile, it discards the snapshot and waits again. If writing did not stop within PATIENCE times
  ``debounce_ms``, a shorter pause is enough; without even that, it reports a problem and tries again;
- from the snapshot, rsync writes under other names and renames at the end (``--delay-updates``).

rsync detects a changed file by its size and its time. A hostfs stores whole seconds only, so a time with a fraction
would never be the same on two nodes, and a page that changed twice in one second would seem unchanged. Before each
snapshot, files that were written here therefore get a whole second that they did not have before.

Every round copies all differences, not only the files of events, so a missed event (a folder that was filled before it
was watched, lsyncd#284) costs a delay and no page. Every ``resync_s`` there is a round without an event, so that a node
that was down catches up. An empty folder is never replicated: its disk is missing.
"""

from __future__ import annotations

import json
import os
import select
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EVENTS = "modify,close_write,attrib,move,create,delete"
# -1: modification times are compared with their nanoseconds, or two changes within a second would look like one.
RSYNC = ("rsync", "-a", "--delete", "--modify-window=-1")
PUSH = (*RSYNC, "--delay-updates", "--timeout=10", "--contimeout=3")
SECOND_NS = 10**9
PATIENCE = 10
"""After this many times the debounce, a pause of a SHORTER part of it is enough.

So changes twice a second are replicated with a debounce of 500 ms, the default; and a page that is written in one go
is still whole, which takes far less than 100 ms.
"""
SHORTER = 5
RETRY_S = 5
"""Pause after a round that did not reach all targets."""


@dataclass(frozen=True)
class Plan:
    """What to replicate, where to, and how often."""

    folder: str
    targets: Mapping[str, str]
    debounce_s: float
    resync_s: float
    state: str

    @property
    def snapshot(self) -> Path:
        """Beside the folder, on the same file system."""
        return Path(f"{self.folder}.picture")


@dataclass
class Status:
    """The script's status. Times are this node's seconds since boot (its monotonic clock)."""

    rounds: int = 0
    transfers: int = 0
    """Number of times that rsync was started for a target."""
    pending_s: float | None = None
    """When the oldest change that is not on all targets yet was noticed."""
    lag_s: float | None = None
    """Time from noticing the last change until it was on all targets."""
    failed: dict[str, str] = field(default_factory=dict)
    refused: str = ""

    def words(self) -> dict[str, Any]:
        """The status as JSON, with its problems in a sentence."""
        failed = [f"{name} ({why})" for name, why in sorted(self.failed.items())]
        problems = self.refused or (f"not reached: {', '.join(failed)}" if failed else "")
        return {
            "rounds": self.rounds,
            "transfers": self.transfers,
            "pending": self.pending_s is not None,
            "lag_s": None if self.lag_s is None else round(self.lag_s, 3),
            "failed": sorted(self.failed),
            "problems": problems,
        }


class Watch:
    """``inotifywait`` on the folder: reports that anything changed in it."""

    def __init__(self, folder: str) -> None:
        argv = ["inotifywait", "-m", "-r", "-q", "-e", EVENTS, "--format", ".", "--exclude", r"/\.~tmp~/", folder]
        self._program = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert self._program.stdout is not None
        self._fd = self._program.stdout.fileno()

    def happened(self, within_s: float) -> bool:
        """Wait at most ``within_s`` for events, and discard them. Raises SystemExit when it cannot watch."""
        if not select.select([self._fd], [], [], max(0.0, within_s))[0]:
            return False
        if not os.read(self._fd, 65536):
            sys.exit("inotifywait ended: is the folder there?")  # the supervisor starts this script again
        return True


def last_line(text: str) -> str:
    """The last line of a program's output."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no reason given"


def whole_second(mtime_ns: int, before_ns: int | None) -> int:
    """The next whole second that is later than the last one replicated, in ns."""
    next_ns = -(-mtime_ns // SECOND_NS) * SECOND_NS
    return next_ns if before_ns is None else max(next_ns, (before_ns // SECOND_NS + 1) * SECOND_NS)


def mark(plan: Plan) -> None:
    """Give each file that was written on this node a time that all nodes can store.

    A file that is written after this has a fraction again; the next snapshot handles it.
    """
    for path in Path(plan.folder).rglob("*"):
        try:
            seen = path.lstat()
            if seen.st_mtime_ns % SECOND_NS and stat.S_ISREG(seen.st_mode):
                known = _mtime_ns(plan.snapshot / path.relative_to(plan.folder))
                os.utime(path, ns=(seen.st_atime_ns, whole_second(seen.st_mtime_ns, known)))
        except FileNotFoundError:
            pass  # removed meanwhile, which is an event of its own


def _mtime_ns(path: Path) -> int | None:
    try:
        return path.lstat().st_mtime_ns
    except OSError:
        return None


def take_snapshot(plan: Plan) -> str:
    """Copy the folder beside itself. Returns the error, or an empty text."""
    if not any(Path(plan.folder).iterdir()):
        return f"{plan.folder} is empty: not replicated, or all pages would be deleted everywhere"
    mark(plan)
    done = subprocess.run(
        [*RSYNC, f"{plan.folder}/", f"{plan.snapshot}/"], stderr=subprocess.PIPE, text=True, check=False
    )
    return "" if done.returncode == 0 else last_line(done.stderr)


def push(plan: Plan) -> dict[str, str]:
    """Send the snapshot to all targets at once. Returns the error of each target that failed."""
    running = {
        name: subprocess.Popen(
            [*PUSH, f"{plan.snapshot}/", f"rsync://{address}/site/"], stderr=subprocess.PIPE, text=True
        )
        for name, address in plan.targets.items()
    }
    errors = {name: program.communicate()[1] for name, program in running.items()}
    return {name: last_line(errors[name]) for name, program in running.items() if program.returncode != 0}


def write(plan: Plan, status: Status) -> None:
    """Write the status file."""
    path = Path(plan.state)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(status.words()))
    new.rename(path)


def settle(plan: Plan, watch: Watch, now: Callable[[], float] = time.monotonic) -> str:
    """Wait until writing stops, then take the snapshot. Returns the error, or an empty text."""
    began, patience_s = now(), PATIENCE * plan.debounce_s
    while now() - began < 2 * patience_s:
        pause_s = plan.debounce_s if now() - began < patience_s else plan.debounce_s / SHORTER
        if watch.happened(pause_s):
            continue
        why = take_snapshot(plan)
        if why or not watch.happened(0):
            return why
    return f"not replicated: written without a pause for {2 * patience_s:g} s"


def replicate(plan: Plan, watch: Watch, status: Status) -> None:
    """One round."""
    status.refused = settle(plan, watch)
    status.rounds += 1
    if status.refused:
        print(status.refused)
    else:
        status.failed = push(plan)
        status.transfers += len(plan.targets)
        for name, why in status.failed.items():
            print(f"{name} was not reached: {why}")
    if not status.refused and not status.failed and status.pending_s is not None:
        status.lag_s = time.monotonic() - status.pending_s
        status.pending_s = None
    write(plan, status)


def serve(plan: Plan) -> None:
    """Forever: a round at the start, after changes, and every ``resync_s``."""
    watch, status = Watch(plan.folder), Status()
    while True:
        replicate(plan, watch, status)
        complete = not status.failed and not status.refused
        pause_s = plan.resync_s if complete else min(RETRY_S, plan.resync_s)
        if watch.happened(pause_s):
            status.pending_s = status.pending_s or time.monotonic()
            write(plan, status)


if __name__ == "__main__":
    plan = json.loads(Path(sys.argv[1]).read_text())
    serve(Plan(plan["folder"], plan["targets"], plan["debounce_ms"] / 1000, plan["resync_s"], plan["state"]))
