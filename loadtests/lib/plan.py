"""Ops at planned times, and the users who do them."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from loadtests.lib import arrivals
from loadtests.lib.settings import Settings


class Arrival(NamedTuple):
    """A planned op. Times are ns of the clock that ops have; ``late_ms`` is how long after its time it began."""

    due_ns: int
    late_ms: float
    free: bool
    """A user was free for it at its time; otherwise all were busy."""
    path: str = ""
    """The page to ask for, where the plan names one."""


class Plan:
    """All planned ops of this process, taken one after another by whichever user is free."""

    def __init__(self, planned: Iterator[tuple[float, str]], over: Callable[[], None]) -> None:
        self._planned, self._over = planned, over
        self._began_ns = 0
        self._exhausted = False
        self._users = 0

    def join(self) -> None:
        """A user starts."""
        self._users += 1

    def next(self, sleep: Callable[[float], None]) -> Arrival | None:
        """Take the next op and sleep until its time; None when there are no more."""
        self._began_ns = self._began_ns or time.perf_counter_ns()
        due_s, path = next(self._planned, (None, ""))
        if due_s is None:
            self._exhausted = True
            return None
        due_ns = self._began_ns + round(due_s * 1e9)
        free_ns = time.perf_counter_ns()
        if free_ns < due_ns:
            sleep((due_ns - free_ns) / 1e9)
        return Arrival(due_ns, round((time.perf_counter_ns() - due_ns) / 1e6, 3), free_ns < due_ns, path)

    def leave(self) -> None:
        """A user ends. After the last one, with the plan exhausted, no answer is outstanding: the plan is over."""
        self._users -= 1
        if self._exhausted and not self._users:
            self._over()


def planned(settings: Settings, over: Callable[[], None]) -> Plan | None:
    """This process's share of the planned ops; None for a load without a plan."""
    ops: Iterator[tuple[float, str]]
    if settings.replay:
        ops = ((at_s, path) for at_s, path in json.loads(Path(settings.replay).read_text()))
    elif settings.arrivals:
        ops = ((at_s, "") for at_s in arrivals.read(settings.arrivals))
    else:
        return None
    first, processes = settings.share
    return Plan(itertools.islice(ops, first, None, processes), over)
