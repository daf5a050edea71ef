"""Following feeds: each in a thread of its own for as long as a run lasts, or one after another to their ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Literal

from harness import wait
from harness.history import HistoryError
from harness.protocols import Feed, PlannedFeed, Stream
from harness.records import LabError
from harness.run.journal import Journal, given

__all__ = ["FeedThread", "follow", "following", "stop"]

READY_EVERY_S = 0.2
POLL_S = 0.005
FEED_START_S = 10.0
FEED_STOP_S = 5.0
"""How long a feed may take to end once its stream was stopped."""

NODE_BACK_S = 3600.0
"""How long a lost feed waits for its node; longer than any run, and there only to bound the wait."""


class FeedThread:
    """One feed, recorded line by line by a thread of its own, and opened again whenever its stream is lost."""

    def __init__(self, feed: Feed, journal: Journal, clock: wait.Clock) -> None:
        self.failure: Exception | None = None
        """What ended the thread, if not ``stop``: a run that is not recorded must not go on."""
        self.feed = feed
        self.planned = isinstance(feed, PlannedFeed)
        self.over = False
        """True once a planned feed has reported that everything planned has been sent."""
        self._journal = journal
        self._clock = clock
        self._stopping = threading.Event()
        self._begun = threading.Event()
        self._stream: Stream | None = None
        self._changing = threading.Lock()
        self._task: wait.Task | None = None

    def start(self) -> None:
        """Start the thread."""
        self._task = self._clock.spawn(self._work, f"feed {self.feed.name}")

    def wait_begun(self) -> None:
        """Wait until the feed was opened, or its node found down. After 10 s the checks have to notice its absence."""
        with suppress(wait.Timeout):
            clock = wait.of_tasks(self._clock)
            wait.until(self._begun.is_set, FEED_START_S, f"{self.feed.name} to begin", POLL_S, clock)

    def stop(self) -> None:
        """End the stream; ``join`` waits for the lines that are left. Safe to call twice."""
        with self._changing:
            self._stopping.set()
            stream = self._stream
        if stream is not None:
            stream.stop()

    def join(self) -> None:
        """Wait for the thread. One that does not end is left behind, and the history records that."""
        task = self._task
        if task is None:
            return
        try:
            clock = wait.of_tasks(self._clock)
            wait.until(lambda: not task.is_alive(), FEED_STOP_S, f"{self.feed.name} to end", POLL_S, clock)
        except wait.Timeout:
            self._note("dropped", f"did not end within {FEED_STOP_S:g} s of being stopped")

    def _work(self) -> None:
        try:
            while not self._stopping.is_set():
                self._follow()
        except Exception as error:  # the run has to learn of any failure
            self.failure = error
            self._begun.set()
            if not isinstance(error, HistoryError):
                self._note("dropped", f"{type(error).__name__}: {error}")

    def _follow(self) -> None:
        """Record one stream from its opening to its end."""
        if not self._opened():
            return
        self._note("open")
        self._begun.set()
        why = None
        try:
            for line in self._stream or ():
                for entry in self.feed.entries(line):
                    self._journal.record(entry)
                    self.over |= isinstance(self.feed, PlannedFeed) and self.feed.over(entry)
        except LabError as error:
            why = str(error)
        if self._stopping.is_set():
            self._note("closed")
            return
        self._note("lost", why)
        # A program that ends as soon as it starts must not be started thousands of times a second.
        wait.pass_time(READY_EVERY_S, self._stopping.is_set, clock=self._clock)

    def _opened(self) -> bool:
        """Open the feed's stream as soon as its node runs; False if the run stops before.

        A node can go down between ``ready`` and ``open``.
        """

        def ready() -> bool:
            if self._stopping.is_set():
                return True
            try:
                if self.feed.ready():
                    return self._open()
            except LabError as error:
                self._begun.set()
                raise wait.NotYet(str(error)) from error
            self._begun.set()
            return False

        wait.until(ready, NODE_BACK_S, f"the node of {self.feed.name} to run", READY_EVERY_S, self._clock)
        return not self._stopping.is_set()

    def _open(self) -> bool:
        stream = self.feed.open()
        with self._changing:
            self._stream = stream
            stopping = self._stopping.is_set()
        if stopping:
            stream.stop()
        return True

    def _note(self, phase: Literal["open", "lost", "closed", "dropped"], why: str | None = None) -> None:
        self._journal.info(self.feed.name, "feed", given({"phase": phase, "why": why}))


@contextmanager
def following(feeds: Sequence[Feed], journal: Journal, clock: wait.Clock) -> Iterator[Sequence[FeedThread]]:
    """Follow feeds for as long as the block runs; it starts once each of them has begun."""
    threads = [FeedThread(feed, journal, clock) for feed in feeds]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.wait_begun()
        yield threads
    finally:
        stop(threads)


def stop(threads: Sequence[FeedThread]) -> None:
    """Stop feeds, and wait until each of them has ended. Safe to call twice."""
    for thread in threads:
        thread.stop()
    for thread in threads:
        thread.join()


def follow(feed: Feed, journal: Journal) -> None:
    """Record a feed that ends on its own. If it cannot be followed, the history records why and the run goes on."""
    try:
        stream = feed.open()
        journal.info(feed.name, "feed", {"phase": "open"})
        try:
            for line in stream:
                for entry in feed.entries(line):
                    journal.record(entry)
        finally:
            stream.stop()
        journal.info(feed.name, "feed", {"phase": "closed"})
    except LabError as error:
        journal.info(feed.name, "feed", {"phase": "dropped", "why": str(error)})
