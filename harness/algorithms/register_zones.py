"""Is a register linearizable whose written values are unique? Gibbons and Korach's zones, on arrays.

P. B. Gibbons, E. Korach: Testing Shared Memories, SIAM Journal on Computing 26(4), 1997. The write of a value and all
reads of it form a cluster. Its zone lies between the earliest response (f) and the latest invocation (s) of its ops:
forward when f < s (it certainly was the register's value from f to s), else backward (a moment within [s, f] is
enough). A history is linearizable if and only if no read sees a value that was not written, no read ends before its
write begins, no two forward zones overlap, and no backward zone lies inside a forward one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.algorithms.arrays import FOREVER, NEVER, Flags, Ints, concatenated

EXAMPLES = 10
"""Violations of each kind that are listed with their ops; the rest are counted."""

UNWRITTEN, EARLY, CROSSED, STALE = "unwritten", "early", "crossed", "stale"


@dataclass(frozen=True)
class Ops:
    """One entry for each op. An op was before another when its end is less than the other's start; equal is concurrent.

    ``register``: 0, 1, ...; ``value``: a code of 0, 1, ..., the same for the same value of the same register and for no
    other; ``write``: else a read; ``start`` and ``end`` in ns. A write that may have happened ends FOREVER; one that
    certainly did not is left out, as is a read without an answer. A value that was there from the start was written
    from NEVER to NEVER.
    """

    register: Ints
    value: Ints
    write: Flags
    start: Ints
    end: Ints


@dataclass(frozen=True)
class Violation:
    """``kind`` is one of

    - ``unwritten``: a read of a value that was never written;
    - ``early``: a read that ended before the write of its value began;
    - ``crossed``: two values that each were there before, and after, the other was;
    - ``stale``: a value that was there while, for certain, another one was.

    ``ops`` are places in the arrays: the ops that prove it.
    """

    kind: str
    ops: tuple[int, ...]


@dataclass(frozen=True)
class Found:
    """How many violations of each kind there are, and some of them."""

    counts: dict[str, int]
    examples: tuple[Violation, ...]

    @property
    def linearizable(self) -> bool:
        """True when there is none. Exact: a necessary and a sufficient condition."""
        return not any(self.counts.values())


def judge(ops: Ops) -> Found:
    """Judge all registers at once, in O(n log n). Raises ValueError when a value was written twice."""
    zones = _Zones(ops)
    unwritten, early = zones.unwritten(), zones.early()
    crossed, stale = zones.crossed(), zones.stale()
    counts = {UNWRITTEN: len(unwritten), EARLY: len(early), CROSSED: len(crossed), STALE: len(stale)}
    examples = [Violation(UNWRITTEN, (int(place),)) for place in unwritten[:EXAMPLES]]
    examples += [Violation(EARLY, (int(place), zones.writer(int(place)))) for place in early[:EXAMPLES]]
    for kind, pairs in ((CROSSED, crossed), (STALE, stale)):
        examples += [Violation(kind, zones.proof(int(one), int(other))) for one, other in pairs[:EXAMPLES]]
    return Found(counts, tuple(examples))


class _Zones:
    """The zones of all values, on one line of time. Entries of ``first`` and ``last`` are values."""

    def __init__(self, ops: Ops) -> None:
        self.ops = ops
        self.start, self.end = concatenated(ops.register, ops.start, ops.end)
        values = int(ops.value.max()) + 1 if ops.value.size else 0
        self.first = np.full(values, FOREVER, dtype=np.int64)
        self.last = np.full(values, NEVER, dtype=np.int64)
        np.minimum.at(self.first, ops.value, self.end)
        np.maximum.at(self.last, ops.value, self.start)
        self.written = np.full(values, FOREVER, dtype=np.int64)  # when the write of each value began
        writes = np.flatnonzero(ops.write)
        if np.bincount(ops.value[writes], minlength=1).max(initial=0) > 1:
            raise ValueError("a value was written twice")
        self.written[ops.value[writes]] = self.start[writes]

    def unwritten(self) -> Ints:
        """The reads of values that have no write."""
        return np.flatnonzero(self.written[self.ops.value] == FOREVER)

    def early(self) -> Ints:
        """The reads that ended before their write began."""
        written = self.written[self.ops.value]
        return np.flatnonzero((self.end < written) & (written < FOREVER))

    @cached_property
    def forward(self) -> Ints:
        """The values with a forward zone, by its beginning."""
        found = np.flatnonzero(self.first < self.last)
        return found[np.argsort(self.first[found])]

    @cached_property
    def reach(self) -> tuple[Ints, Ints]:
        """How far any forward zone up to this one reaches, and the place among them of the one that does."""
        last = self.last[self.forward]
        reach = np.maximum.accumulate(last)
        places = np.where(last == reach, np.arange(last.size), 0)
        return reach, np.maximum.accumulate(places)

    def crossed(self) -> Ints:
        """Pairs of values whose forward zones overlap: each begins before the other ends."""
        reach, whose = self.reach
        later = np.flatnonzero(self.first[self.forward[1:]] < reach[:-1]) + 1
        return np.stack([self.forward[whose[later - 1]], self.forward[later]], axis=1)

    def stale(self) -> Ints:
        """Pairs of values: the zone of the second is backward and lies inside the forward one of the first."""
        reach, whose = self.reach
        backward = np.flatnonzero((self.first >= self.last) & (self.last > NEVER))
        if not reach.size:
            return np.empty((0, 2), dtype=np.int64)
        place = np.searchsorted(self.first[self.forward], self.last[backward]) - 1
        inside = (place >= 0) & (reach[place] > self.first[backward])
        return np.stack([self.forward[whose[place[inside]]], backward[inside]], axis=1)

    def writer(self, place: int) -> int:
        """The write of the value that the op at that place read."""
        return int(np.flatnonzero((self.ops.value == self.ops.value[place]) & self.ops.write)[0])

    def proof(self, one: int, other: int) -> tuple[int, ...]:
        """Of both values: the write, the op that ended first and the one that began last."""
        places: list[int] = []
        for value in (one, other):
            mine = np.flatnonzero(self.ops.value == value)
            places += map(int, mine[self.ops.write[mine]])
            places += [int(mine[np.argmin(self.end[mine])]), int(mine[np.argmax(self.start[mine])])]
        return tuple(dict.fromkeys(places))
