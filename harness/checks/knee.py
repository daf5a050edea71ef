"""How much load does the site carry before it falls behind?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.history import History, Pair
from harness.history.client_ops import doubts, too_few
from harness.history.latency import late_ms, latency_ms, load, quantile
from harness.history.timeline import MS, span_of
from harness.verdict import Finding, Verdict, conclude, invalid, unknown

NAME = "knee"

SAME = 1.05
"""Rates that differ by less are one rate: arrivals by chance are never exactly as many."""
RISES, DEVIATIONS = 2.0, 6.0
"""A load that becomes so many times as much rises, if it is by more than chance does: the deviation of a number
of independent arrivals is its root."""


class KneeSettings(BaseModel):
    """``[checks.knee]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at_least_per_s: float = Field(default=0, ge=0, description="How many ops a second the site has to carry")
    window_ms: float = Field(default=5000, gt=0, description="How long each stretch is that is looked at by itself")
    answered_percent: float = Field(
        default=95, gt=0, le=100, description="How many of the ops planned in it must be answered well, to keep up"
    )
    p90_ms: float = Field(
        default=1000, gt=0, description="And how long, from their planned times, 9 of 10 answers may take"
    )
    windows: int = Field(default=4, ge=1, description="How many stretches it takes to tell")


def check(history: History, settings: KneeSettings) -> Verdict:
    """With open arrivals that become more and more, the site keeps up until some rate, its knee, and not beyond.

    Time is cut into windows, and each op belongs to that of its planned time. A window kept up when nearly all of its
    ops were answered well and soon, counted from their planned times, so that a queue in front of the site is seen. The
    knee is the highest rate below that of all windows that did not: of a rate that is too high the first window may
    keep up, as a queue takes its time to grow.

    It takes open arrivals, and is unknown without them, with few windows, and for a rate that has never come. One
    window that did not keep up for another reason than its load (a fault) lowers the knee: ask it of a run without
    faults. A rate just above what the site carries takes a while to show: a queue that grows by 6 % of the time is one
    of a second after 17 s. It cannot tell the site from a generator that is slow itself; the check ``arrivals`` does.
    """
    windows = _windows(history, settings)
    slowest_first = sorted(windows, key=lambda window: window.planned_per_s)
    beyond, knee = _knee(slowest_first)
    findings = [*doubts(history), *too_few("Stretches with planned ops", len(windows), settings.windows)]
    findings += _verdict(slowest_first, knee, settings)
    held = f"The site kept up with {knee:,.1f} ops a second" + (
        f", and no more with {beyond.planned_per_s:,.1f}." if beyond else ", the most that came."
    )
    numbers = {"knee_per_s": round(knee, 1), "windows": [window.row() for window in windows]}
    return conclude(NAME, findings, held, numbers, [op for window in windows for op in window.ops()])


def rising(history: History) -> float | None:
    """The knee of a run, in ops a second, where its load became more and more; None where it did not. Pure.

    Of a site that kept up with all that came it is the most that came.
    """
    # the beginning of the load lies somewhere within the first one
    slowest_first = sorted(_windows(history, KneeSettings())[1:], key=lambda window: window.planned_per_s)
    if not slowest_first:
        return None
    least, most = len(slowest_first[0].pairs), len(slowest_first[-1].pairs)
    rises = most >= RISES * least and most - least >= DEVIATIONS * sqrt(most)
    return _knee(slowest_first)[1] if rises else None


def _knee(slowest_first: Sequence[_Window]) -> tuple[_Window | None, float]:
    """The first window that did not keep up, and the highest rate below it."""
    beyond = next((window for window in slowest_first if not window.kept_up), None)
    below = beyond.planned_per_s / SAME if beyond else float("inf")
    knee = max((window.planned_per_s for window in slowest_first if window.planned_per_s < below), default=0.0)
    return beyond, knee


@dataclass(frozen=True)
class _Window:
    """The ops that were planned in one stretch of time, in ns."""

    start: int
    length: int
    pairs: tuple[Pair, ...]
    settings: KneeSettings

    @property
    def planned_per_s(self) -> float:
        return len(self.pairs) * 1e9 / self.length

    @cached_property
    def times_ms(self) -> list[float]:
        return [ms for pair in self.pairs if pair.ok and (ms := latency_ms(pair)) is not None]

    @cached_property
    def kept_up(self) -> bool:
        times = self.times_ms
        enough = 100 * len(times) >= self.settings.answered_percent * len(self.pairs)
        return enough and (not times or quantile(times, 0.9) <= self.settings.p90_ms)

    def row(self) -> dict[str, Any]:
        times = self.times_ms
        return {
            "from_ms": self.start / MS,
            "planned_per_s": round(self.planned_per_s, 1),
            "answered_percent": round(100 * len(times) / len(self.pairs), 1),
            "p50_ms": round(quantile(times, 0.5), 1) if times else None,
            "p90_ms": round(quantile(times, 0.9), 1) if times else None,
            "kept_up": self.kept_up,
        }

    def ops(self) -> tuple[int, ...]:
        return self.pairs[0].invoke.index, self.pairs[-1].invoke.index


def _windows(history: History, settings: KneeSettings) -> list[_Window]:
    """All but the last, which the end of the load cuts short."""
    length = round(settings.window_ms * MS)
    found: dict[int, list[Pair]] = defaultdict(list)
    for pair in (pair for some in load(history).values() for pair in some):
        late = late_ms(pair)
        if late is not None:
            found[(pair.invoke.time - round(late * MS)) // length].append(pair)
    places = sorted(found)[:-1]
    return [_Window(place * length, length, tuple(found[place]), settings) for place in places]


def _verdict(slowest_first: Sequence[_Window], knee: float, settings: KneeSettings) -> Iterator[Finding]:
    wanted = settings.at_least_per_s
    if knee >= wanted:
        return
    behind = [window for window in slowest_first if window.planned_per_s <= wanted and not window.kept_up]
    if behind:
        first, times = behind[0], behind[0].times_ms
        took = f", 9 of 10 within {span_of(quantile(times, 0.9))}" if times else ""
        yield invalid(
            f"The site fell behind at {first.planned_per_s:,.1f} ops a second, and has to carry {wanted:,.1f}: "
            f"{100 * len(times) / len(first.pairs):,.0f} % were answered{took}.",
            *first.ops(),
        )
    else:
        most = max((window.planned_per_s for window in slowest_first), default=0)
        yield unknown(f"At most {most:,.1f} ops a second came, and the site has to carry {wanted:,.1f}.")
