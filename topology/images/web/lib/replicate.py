"""Brings changes of the site's folder on the master to all other real servers, and does nothing when nothing changed.

``replicate.py PLAN``; the plan is JSON: ``folder``, ``targets`` (name -> address), ``debounce_ms``, ``resync_s`` and
``state`` (a file for the account that it gives of itself).

No visitor of another real server ever sees half of a page:

- it waits until nothing was written for ``debounce_ms``, then takes a picture of the folder beside it. If anything was
  written meanwhile, the picture is thrown away and it waits again;
- from the picture, rsync writes under other names and renames at the end (``--delay-updates``).

rsync knows a changed file by its size and its time. A hostfs takes whole seconds only, so a time with a fraction would
never be the same on two nodes, and a page that was changed twice in one second would be taken for the same. Before each
picture, files that were written here therefore get a whole second that they did not have before.

Every round copies all that differs, not only what an event named, so an event that was missed (a folder that was
filled before it could be watched, lsyncd#284) costs a delay and no page. Every ``resync_s`` there is a round without an
event: so a node that was down catches up. An empty folder is never replicated: that is a disk that is not there.
"""

from __future__ import annotations

import json
import os
import select
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EVENTS = "modify,close_write,attrib,move,create,delete"
# -1: modification times are compared with their nanoseconds, or two changes within a second would look like one.
RSYNC = ("rsync", "-a", "--delete", "--modify-window=-1")
PUSH = (*RSYNC, "--delay-updates", "--timeout=10", "--contimeout=3")
SECOND_NS = 10**9
RETRY_S = 5
"""After a round that did not reach all targets."""


@dataclass(frozen=True)
class Plan:
    """What to replicate, where to, and how patiently."""

    folder: str
    targets: Mapping[str, str]
    debounce_s: float
    resync_s: float
    state: str

    @property
    def picture(self) -> Path:
        """Beside the folder, on the same file system."""
        return Path(f"{self.folder}.picture")


@dataclass
class Account:
    """What the script says of itself. Times are this node's seconds since boot (its monotonic clock)."""

    rounds: int = 0
    transfers: int = 0
    """How often rsync was started towards a target."""
    pending_s: float | None = None
    """When the oldest change that is not everywhere yet was noticed."""
    lag_s: float | None = None
    """How long the last change took from being noticed to being everywhere."""
    failed: dict[str, str] = field(default_factory=dict)
    refused: str = ""

    def words(self) -> dict[str, Any]:
        """As JSON, with its trouble in a sentence."""
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
    """``inotifywait`` on the folder: whether anything happened in it."""

    def __init__(self, folder: str) -> None:
        argv = ["inotifywait", "-m", "-r", "-q", "-e", EVENTS, "--format", ".", "--exclude", r"/\.~tmp~/", folder]
        self._program = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert self._program.stdout is not None
        self._fd = self._program.stdout.fileno()

    def happened(self, within_s: float) -> bool:
        """Wait for an event, so long at most, and forget all that have come. Raises SystemExit when it cannot watch."""
        if not select.select([self._fd], [], [], max(0.0, within_s))[0]:
            return False
        if not os.read(self._fd, 65536):
            sys.exit("inotifywait ended: is the folder there?")  # the supervisor starts this script again
        return True


def last_line(text: str) -> str:
    """What a program said last."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no reason given"


def whole_second(mtime_ns: int, before_ns: int | None) -> int:
    """The next whole second, and later than the one that was replicated last, in ns."""
    next_ns = -(-mtime_ns // SECOND_NS) * SECOND_NS
    return next_ns if before_ns is None else max(next_ns, (before_ns // SECOND_NS + 1) * SECOND_NS)


def mark(plan: Plan) -> None:
    """Give each file that was written on this node a time that all nodes can keep.

    What is written after this has a fraction again, and its turn comes with the next picture.
    """
    for path in Path(plan.folder).rglob("*"):
        try:
            seen = path.lstat()
            if seen.st_mtime_ns % SECOND_NS and stat.S_ISREG(seen.st_mode):
                known = _mtime_ns(plan.picture / path.relative_to(plan.folder))
                os.utime(path, ns=(seen.st_atime_ns, whole_second(seen.st_mtime_ns, known)))
        except FileNotFoundError:
            pass  # gone meanwhile: an event of its own


def _mtime_ns(path: Path) -> int | None:
    try:
        return path.lstat().st_mtime_ns
    except OSError:
        return None


def take_picture(plan: Plan) -> str:
    """Copy the folder beside itself. Returns why not; empty when it is done."""
    if not any(Path(plan.folder).iterdir()):
        return f"{plan.folder} is empty: not replicated, or all pages would be deleted everywhere"
    mark(plan)
    done = subprocess.run(
        [*RSYNC, f"{plan.folder}/", f"{plan.picture}/"], stderr=subprocess.PIPE, text=True, check=False
    )
    return "" if done.returncode == 0 else last_line(done.stderr)


def push(plan: Plan) -> dict[str, str]:
    """The picture to all targets at once. Returns why it failed where it did."""
    running = {
        name: subprocess.Popen(
            [*PUSH, f"{plan.picture}/", f"rsync://{address}/site/"], stderr=subprocess.PIPE, text=True
        )
        for name, address in plan.targets.items()
    }
    errors = {name: program.communicate()[1] for name, program in running.items()}
    return {name: last_line(errors[name]) for name, program in running.items() if program.returncode != 0}


def write(plan: Plan, account: Account) -> None:
    """The account, for whoever asks."""
    state = Path(plan.state)
    state.parent.mkdir(parents=True, exist_ok=True)
    new = state.with_suffix(".new")
    new.write_text(json.dumps(account.words()))
    new.rename(state)


def settle(plan: Plan, watch: Watch) -> str:
    """Wait until nothing is written any more, then take the picture. Returns why there is none."""
    while True:
        while watch.happened(plan.debounce_s):
            pass
        why = take_picture(plan)
        if why or not watch.happened(0):
            return why


def replicate(plan: Plan, watch: Watch, account: Account) -> None:
    """One round."""
    account.refused = settle(plan, watch)
    account.rounds += 1
    if account.refused:
        print(account.refused)
    else:
        account.failed = push(plan)
        account.transfers += len(plan.targets)
        for name, why in account.failed.items():
            print(f"{name} was not reached: {why}")
    if not account.refused and not account.failed and account.pending_s is not None:
        account.lag_s = time.monotonic() - account.pending_s
        account.pending_s = None
    write(plan, account)


def serve(plan: Plan) -> None:
    """For ever: a round at the start, after changes, and now and then."""
    watch, account = Watch(plan.folder), Account()
    while True:
        replicate(plan, watch, account)
        whole = not account.failed and not account.refused
        pause_s = plan.resync_s if whole else min(RETRY_S, plan.resync_s)
        if watch.happened(pause_s):
            account.pending_s = account.pending_s or time.monotonic()
            write(plan, account)


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text())
    serve(Plan(asked["folder"], asked["targets"], asked["debounce_ms"] / 1000, asked["resync_s"], asked["state"]))
