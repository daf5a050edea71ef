"""Virtual time, and streams whose lines are printed in it."""

from __future__ import annotations

import heapq
import itertools
import json
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

from harness.protocols import Stream
from harness.records import Entry, Line

__all__ = ["MS", "FakeFeed", "FakeStream", "FakeTime", "Topics"]

MS = 1_000_000
"""Nanoseconds."""

STEP_MS = 50
"""Time passes in steps of this length; after each, all feeds read what happened in it."""

FEEDS_READ_S = 2.0
"""How long real time waits for a feed to read its lines; a feed without a reader must not stop the world."""

WAKE_S = 0.02
"""How long a thread other than the driver's sleeps at most, in real time: the driver may have stopped."""


class FakeTime:
    """Virtual time with a list of events that are due."""

    def __init__(self) -> None:
        self.ns = 1_000_000 * MS  # not 0: code that takes the origin for granted would go unnoticed
        self.changed = threading.Condition()
        self.unread = 0
        """Lines that feeds have not read yet."""
        self._sleepers: list[int] = []
        """When each sleeping thread, other than the driver, wakes."""
        self._driver = threading.current_thread()
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def sleep(self, seconds: float) -> None:
        """In the driver's thread: let time pass, and run all events that are due. In others: wait for the driver."""
        until = self.ns + round(seconds * 1e9)
        if threading.current_thread() is not self._driver:
            with self.changed:
                self._sleepers.append(until)
                self.changed.wait_for(lambda: self.ns >= until, timeout=WAKE_S)
                self._sleepers.remove(until)
                self.changed.notify_all()
            return
        while self.ns < until:
            self._pass(min(until, self.ns + STEP_MS * MS))

    def after(self, delay_ms: float, event: Callable[[], None]) -> None:
        """Run an event later."""
        with self.changed:
            heapq.heappush(self._due, (self.ns + round(delay_ms * MS), next(self._order), event))

    def every(self, interval_ms: float, event: Callable[[], None], while_: Callable[[], bool]) -> None:
        """Run an event now and at intervals, for as long as ``while_`` is true."""

        def tick() -> None:
            if while_():
                event()
                self.after(interval_ms, tick)

        tick()

    def _pass(self, until: int) -> None:
        with self.changed:
            while self._due and self._due[0][0] <= until:
                self.ns, _, event = heapq.heappop(self._due)
                event()
            self.ns = until
            self.changed.notify_all()
            self.changed.wait_for(self._settled, timeout=FEEDS_READ_S)

    def _settled(self) -> bool:
        """True when every line was read, and every thread that is due to wake has woken."""
        return self.unread == 0 and all(until > self.ns for until in self._sleepers)


class FakeStream:
    """The lines of a program, printed by the lab."""

    def __init__(self, time: FakeTime) -> None:
        self.ended = False
        self._time = time
        self._lines: queue.SimpleQueue[Line | None] = queue.SimpleQueue()

    def put(self, text: str) -> None:
        """Print a line."""
        with self._time.changed:
            if not self.ended:
                self._time.unread += 1
                self._lines.put(Line(self._time.ns, text))

    def stop(self) -> None:
        """End the program; the lines that it printed can still be read."""
        with self._time.changed:
            if not self.ended:
                self.ended = True
                self._lines.put(None)

    def __iter__(self) -> Iterator[Line]:
        while (line := self._lines.get()) is not None:
            try:
                yield line
            finally:
                self._mark_read()

    def _mark_read(self) -> None:
        with self._time.changed:
            self._time.unread -= 1
            self._time.changed.notify_all()


class Topics:
    """Streams by topic: each line that is published on a topic is printed on all its streams."""

    def __init__(self, time: FakeTime) -> None:
        self._time = time
        self._streams: dict[str, list[FakeStream]] = {}

    def subscribe(self, topic: str) -> FakeStream:
        """A new stream of a topic."""
        stream = FakeStream(self._time)
        with self._time.changed:
            self._streams.setdefault(topic, []).append(stream)
        return stream

    def publish(self, topic: str, text: str) -> None:
        """Print a line on all streams of a topic."""
        with self._time.changed:
            for stream in self._streams.get(topic, []):
                stream.put(text)

    def entry(  # noqa: PLR0913, PLR0917 - an op has that many fields
        self, topic: str, process: str, kind: str, f: str, value: object, error: str | None = None
    ) -> None:
        """Publish an entry of the history."""
        self.publish(topic, json.dumps(asdict(Entry(self._time.ns, process, kind, f, value, error))))

    def end(self, topic: str) -> None:
        """Stop all streams of a topic: the program behind it has ended."""
        for stream in self._streams.pop(topic, []):
            stream.stop()


@dataclass(frozen=True)
class FakeFeed:
    """A feed whose lines are entries in JSON."""

    name: str
    start: Callable[[], FakeStream]
    is_ready: Callable[[], bool]

    def open(self) -> Stream:
        """Start it."""
        return self.start()

    def entries(self, line: Line) -> Iterable[Entry]:
        """The one entry of a line."""
        return [Entry(**json.loads(line.text))]

    def ready(self) -> bool:
        """True when its node is running."""
        return self.is_ready()
