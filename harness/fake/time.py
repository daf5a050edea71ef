"""Virtual time, and streams whose lines are printed in it."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

from harness.protocols import Stream
from harness.records import Entry, Line
from harness.tasks import Mailbox, Timeline

__all__ = ["MS", "FakeFeed", "FakeStream", "FakeTime", "Topics"]

MS = 1_000_000
"""Nanoseconds."""


class FakeTime:
    """Virtual time with a list of events that are due. Whoever waits, and each event, is a task that takes its turn."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000 * MS  # not 0: code that takes the origin for granted would go unnoticed
        self.tasks = Timeline(self)
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def run(self, until_ns: int) -> None:
        """Let time pass until then, or until the first event; all events of that instant get their turns."""
        self.now_ns = min(until_ns, self._due[0][0]) if self._due else until_ns
        while self._due and self._due[0][0] <= self.now_ns:
            self.tasks.spawn(heapq.heappop(self._due)[2], "event")

    def after(self, delay_ms: float, event: Callable[[], None]) -> None:
        """Run an event later."""
        heapq.heappush(self._due, (self.now_ns + round(delay_ms * MS), next(self._order), event))

    def every(self, interval_ms: float, event: Callable[[], None], while_: Callable[[], bool]) -> None:
        """Run an event now and at intervals, for as long as ``while_`` is true."""

        def tick() -> None:
            if while_():
                event()
                self.after(interval_ms, tick)

        tick()


class FakeStream:
    """The lines of a program, printed by the lab."""

    def __init__(self, time: FakeTime) -> None:
        self.ended = False
        self._time = time
        self._lines: Mailbox[Line | None] = Mailbox(time.tasks)

    def put(self, text: str) -> None:
        """Print a line."""
        if not self.ended:
            self._lines.put(Line(self._time.now_ns, text))

    def stop(self) -> None:
        """End the program; the lines that it printed can still be read."""
        if not self.ended:
            self.ended = True
            self._lines.put(None)

    def __iter__(self) -> Iterator[Line]:
        while (line := self._lines.get()) is not None:
            yield line


class Topics:
    """Streams by topic: each line that is published on a topic is printed on all its streams."""

    def __init__(self, time: FakeTime) -> None:
        self._time = time
        self._streams: dict[str, list[FakeStream]] = {}

    def subscribe(self, topic: str) -> FakeStream:
        """A new stream of a topic."""
        stream = FakeStream(self._time)
        self._streams.setdefault(topic, []).append(stream)
        return stream

    def publish(self, topic: str, text: str) -> None:
        """Print a line on all streams of a topic."""
        for stream in self._streams.get(topic, []):
            stream.put(text)

    def entry(  # noqa: PLR0913, PLR0917 - an op has that many fields
        self, topic: str, process: str, kind: str, f: str, value: object, error: str | None = None
    ) -> None:
        """Publish an entry of the history."""
        self.publish(topic, json.dumps(asdict(Entry(self._time.now_ns, process, kind, f, value, error))))

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
