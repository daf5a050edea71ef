"""Virtual time for the harness: tasks that take turns, and a clock that moves only while all of them wait.

All tasks share one thread (they are greenlets). A task runs until it waits, for a time or for a message. When all wait,
the simulator lets the lab's time pass until the first of them is due, or until a message arrives. The order of turns
depends on virtual time alone: a busy machine changes nothing about it.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

from harness.records import LabError
from harness.wait import Clock, Task

__all__ = ["Mailbox", "Simulated", "Timeline"]

T = TypeVar("T")

AT_MOST_NS = 3_600_000_000_000
"""How long the lab may run in one go while no task has a deadline."""


class Simulated(Protocol):
    """What lets the lab's time pass."""

    @property
    def now_ns(self) -> int:
        """The virtual time."""

    def run(self, until_ns: int) -> None:
        """Let time pass until then, or until something arrived for the harness; the handlers of events are called."""


class _Waiter:
    """One wait of one task."""

    def __init__(self, task: greenlet) -> None:
        self.task, self.due = task, False


class _Task:
    """A function that takes turns with others. Implements ``harness.wait.Task``."""

    def __init__(self, function: Callable[[], None], name: str, hub: greenlet) -> None:
        self.name = name
        self.greenlet = greenlet(function, parent=hub)

    def is_alive(self) -> bool:
        """False once the function has ended."""
        return not self.greenlet.dead


class Timeline:
    """The tasks of one harness, and the virtual clock that they share."""

    def __init__(self, simulated: Simulated) -> None:
        self._simulated = simulated
        self._main = getcurrent()
        self._hub = greenlet(self._serve, parent=self._main)
        self._ready: deque[greenlet] = deque()
        self._deadlines: list[tuple[int, int, _Waiter]] = []
        self._order = itertools.count()
        self._tasks: list[_Task] = []
        self.clock = Clock(lambda: self.now_ns / 1e9, self.sleep, self.spawn, "virtual")

    @property
    def now_ns(self) -> int:
        """The virtual time."""
        return self._simulated.now_ns

    def spawn(self, function: Callable[[], None], name: str) -> Task:
        """Start a task; it gets its first turn when the caller waits."""
        task = _Task(function, name, self._hub)
        self._tasks = [each for each in self._tasks if each.is_alive()]
        self._tasks.append(task)
        self._ready.append(task.greenlet)
        return task

    def alive(self) -> list[str]:
        """The names of the tasks that have not ended."""
        return [task.name for task in self._tasks if task.is_alive()]

    def sleep(self, seconds: float) -> None:
        """Wait for a time."""
        self.wait(self.now_ns + max(0, round(seconds * 1e9)), None)

    def wait(self, until_ns: int | None, box: Mailbox[Any] | None) -> None:
        """Wait until a time, or until a message is put into the mailbox, whichever comes first."""
        waiter = _Waiter(getcurrent())
        if until_ns is not None:
            heapq.heappush(self._deadlines, (until_ns, next(self._order), waiter))
        if box is not None:
            box.waiter = waiter
        try:
            self._hub.switch()
        finally:
            waiter.due = True  # an interrupted wait must not be woken later
            if box is not None:
                box.waiter = None

    def wake(self, waiter: _Waiter) -> None:
        """Give a waiting task its turn."""
        if not waiter.due:
            waiter.due = True
            self._ready.append(waiter.task)

    def close(self) -> None:
        """End all tasks where they wait."""
        for task in self._tasks:
            if task.is_alive() and task.greenlet is not getcurrent():
                task.greenlet.parent = getcurrent()  # the hub would go on, and let time pass for nobody
                task.greenlet.throw(GreenletExit)
        self._tasks = []

    def _serve(self) -> None:
        """Turns, then time; an error of either is raised where the main task waits."""
        while True:
            try:
                while self._ready:
                    task = self._ready.popleft()
                    if not task.dead:
                        task.switch()
                self._let_time_pass()
            except BaseException as error:  # also KeyboardInterrupt: only the main task can handle it
                self._main.throw(error)

    def _let_time_pass(self) -> None:
        while self._deadlines and self._deadlines[0][2].due:
            heapq.heappop(self._deadlines)
        until_ns = self._deadlines[0][0] if self._deadlines else self.now_ns + AT_MOST_NS
        if until_ns > self.now_ns:
            self._simulated.run(until_ns)
        while self._deadlines and self._deadlines[0][0] <= self.now_ns:
            self.wake(heapq.heappop(self._deadlines)[2])


class Mailbox(Generic[T]):
    """Messages for one task, in the order of their arrival."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._messages: deque[T] = deque()
        self.waiter: _Waiter | None = None

    def put(self, message: T) -> None:
        """Add a message; a task that waits for it gets its turn."""
        self._messages.append(message)
        if self.waiter is not None:
            self._timeline.wake(self.waiter)

    def get(self, timeout_s: float | None = None) -> T:
        """The next message. Raises TimeoutError."""
        until_ns = None if timeout_s is None else self._timeline.now_ns + max(0, round(timeout_s * 1e9))
        while not self._messages:
            if until_ns is not None and self._timeline.now_ns >= until_ns:
                raise TimeoutError
            if self.waiter is not None:
                raise LabError("two tasks wait for the same messages")
            self._timeline.wait(until_ns, self)
        return self._messages.popleft()
