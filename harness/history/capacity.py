"""How much load the site carried: the planned ops of a run in windows of equal length, and its knee. Pure.

A window belongs to the ops that were planned in it, whenever they were begun. The site kept up with a window when it
answered nearly all of them, and soon.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import sqrt

from harness.history import History, Pair
from harness.history.latency import late_ms, latency_ms, load, quantile
from harness.history.timeline import MS

SAME = 1.05
"""Two rates count as one when they differ by less than this factor: random arrivals never match exactly."""

RISES, DEVIATIONS = 2.0, 6.0
"""A load rises when it becomes this many times as large, by more than chance explains: the standard deviation of a
number of independent arrivals is its square root."""


@dataclass(frozen=True)
class KeepsUp:
    """When the site keeps up with a window, and how long a window is."""

    window_ms: float = 5000
    answered_percent: float = 95
    """Share of the planned ops that must be answered well."""
    p90_ms: float = 1000
    """The longest 90th percentile of their answers, counted from the planned times."""


@dataclass(frozen=True)
class Window:
    """The ops that were planned in one window; ``start`` and ``length`` are ns."""

    start: int
    length: int
    pairs: tuple[Pair, ...]
    limit: KeepsUp = field(default_factory=KeepsUp)

    @property
    def planned_per_s(self) -> float:
        """The rate at which its ops were planned."""
        return len(self.pairs) * 1e9 / self.length

    @cached_property
    def times_ms(self) -> list[float]:
        """How long each good answer took."""
        return [ms for pair in self.pairs if pair.ok and (ms := latency_ms(pair)) is not None]

    @property
    def answered_percent(self) -> float:
        """Share of its ops that were answered well."""
        return 100 * len(self.times_ms) / len(self.pairs)

    @cached_property
    def kept_up(self) -> bool:
        """Whether the site kept up with it."""
        times = self.times_ms
        enough = 100 * len(times) >= self.limit.answered_percent * len(self.pairs)
        return enough and (not times or quantile(times, 0.9) <= self.limit.p90_ms)

    def ops(self) -> tuple[int, ...]:
        """The indexes of its first and its last op."""
        return self.pairs[0].invoke.index, self.pairs[-1].invoke.index


def windows(history: History, limit: KeepsUp) -> list[Window]:
    """All windows with planned ops, by time, except the last: the end of the load cuts it short."""
    length = round(limit.window_ms * MS)
    found: dict[int, list[Pair]] = defaultdict(list)
    for pair in (pair for pairs in load(history).values() for pair in pairs):
        late = late_ms(pair)
        if late is not None:
            found[(pair.invoke.time - round(late * MS)) // length].append(pair)
    return [Window(place * length, length, tuple(found[place]), limit) for place in sorted(found)[:-1]]


def slowest_first(some: Sequence[Window]) -> list[Window]:
    """Windows in the order of their rates."""
    return sorted(some, key=lambda window: window.planned_per_s)


def knee_of(by_rate: Sequence[Window]) -> tuple[Window | None, float]:
    """The slowest window that the site did not keep up with, and the highest rate below it, in ops per second."""
    beyond = next((window for window in by_rate if not window.kept_up), None)
    below = beyond.planned_per_s / SAME if beyond else float("inf")
    knee = max((window.planned_per_s for window in by_rate if window.planned_per_s < below), default=0.0)
    return beyond, knee


def rising_knee(history: History) -> float | None:
    """The knee of a run whose load rises, in ops per second; None for any other load.

    For a site that kept up with the whole load, it is the highest rate of the load.
    """
    # the load begins somewhere within the first window
    by_rate = slowest_first(windows(history, KeepsUp())[1:])
    if not by_rate:
        return None
    least, most = len(by_rate[0].pairs), len(by_rate[-1].pairs)
    rises = most >= RISES * least and most - least >= DEVIATIONS * sqrt(most)
    return knee_of(by_rate)[1] if rises else None
