"""Sets of times, as intervals in order that do not overlap. Pure; all times are ns.

Not ``portion``: its intervals may be open, closed and of any type, its lookups are linear, and a history of an hour has
thousands of them to search for each of a million ops. Here a lookup is a bisection.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TypeAlias

Interval: TypeAlias = tuple[int, int]
"""A start and a later end."""


class Intervals:
    """An immutable set of times: ``time in intervals`` asks for one.

    Overlapping and adjacent intervals are merged, empty ones are dropped.
    """

    __slots__ = ("_ends", "_starts")

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted(intervals):
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            elif start < end:
                self._starts.append(start)
                self._ends.append(end)

    def __getitem__(self, place: int) -> Interval:
        return self._starts[place], self._ends[place]

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Interval]:
        return zip(self._starts, self._ends, strict=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Intervals) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Intervals({list(self)})"

    def __contains__(self, time: int) -> bool:
        return self.at(time) is not None

    def at(self, time: int) -> Interval | None:
        """The interval that contains a time; both of its bounds belong to it."""
        place = bisect_right(self._starts, time) - 1
        return self[place] if place >= 0 and time <= self._ends[place] else None

    def covers(self, start: int, end: int) -> bool:
        """True when one interval contains all of [start, end]."""
        interval = self.at(start)
        return interval is not None and end <= interval[1]

    def overlaps(self, start: int, end: int) -> bool:
        """True when an interval and [start, end] have a time in common."""
        place = bisect_right(self._starts, end) - 1
        return place >= 0 and self._ends[place] >= start

    def minus(self, holes: Iterable[Interval]) -> Intervals:
        """What is left of these intervals without the holes."""
        left: list[Interval] = []
        gaps = holes if isinstance(holes, Intervals) else Intervals(holes)
        for start, end in self:
            begin = start
            for place in range(bisect_right(gaps._ends, start), bisect_left(gaps._starts, end)):
                left.append((begin, gaps._starts[place]))
                begin = gaps._ends[place]
            left.append((begin, end))
        return Intervals((begin, end) for begin, end in left if begin < end)

    def length_within(self, start: int, end: int) -> int:
        """How much of [start, end] the intervals cover, in ns."""
        return sum(max(0, min(till, end) - max(since, start)) for since, till in self)


def silences(times: Iterable[int], start: int, end: int, longest: int) -> list[Interval]:
    """The parts of [start, end] without any of the times, where they are longer than ``longest``."""
    marks = [start, *sorted(time for time in times if start < time < end), end]
    return [(before, after) for before, after in pairwise(marks) if after - before > longest]
