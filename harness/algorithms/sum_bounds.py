"""Can a sum have the value that was read? Bounds from what was certainly and what was possibly added. On arrays.

A read of a sum lies between what was certainly added before it began and what was possibly added before it ended, for
additions of either sign. The bounds are necessary, not sufficient: they do not decide which of the concurrent
additions a read saw (that would be the subset sum problem).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.algorithms.arrays import FOREVER, NEVER, Ints, concatenated


@dataclass(frozen=True)
class Adds:
    """One entry for each addition: to which sum (0, 1, ...), how much (either sign), from when to when in ns.

    One that may have happened ends FOREVER; one that certainly did not is left out.
    """

    key: Ints
    amount: Ints
    start: Ints
    end: Ints


@dataclass(frozen=True)
class Reads:
    """One entry for each read: of which sum, its value, from when to when in ns.

    ``own`` is what the op itself added before it read, 0 for a plain read; that addition is also among the adds.
    """

    key: Ints
    value: Ints
    start: Ints
    end: Ints
    own: Ints


@dataclass(frozen=True)
class Clash:
    """Two reads of the sum ``key`` that cannot both be right.

    ``most`` saw at least ``by`` too many, or ``least`` at least ``by`` too few. They are places in the reads; None is
    the sum's bound at the beginning.
    """

    key: int
    most: int | None
    least: int | None
    by: int


def bounds(adds: Adds, reads: Reads) -> tuple[Ints, Ints]:
    """For each read, the least and the most that can have been added by then."""
    key, split = np.concatenate((adds.key, reads.key)), adds.key.size
    starts, ends = np.concatenate((adds.start, reads.start)), np.concatenate((adds.end, reads.end))
    start, end, never = concatenated(key, starts, ends, np.full(key.size, NEVER))
    origin, began, ended = never[split:], start[split:], end[split:]
    sure, maybe = np.zeros((2, 2, reads.key.size), dtype=np.int64)
    for sign, some in enumerate((adds.amount > 0, adds.amount < 0)):
        places, amount = np.flatnonzero(some), adds.amount[some]
        sure[sign] = _added(end[places], amount, origin, began, "left")
        maybe[sign] = _added(start[places], amount, origin, ended, "right")
    return sure[0] + maybe[1] + reads.own, maybe[0] + sure[1]


def _added(time: Ints, amount: Ints, since: Ints, till: Ints, side: Literal["left", "right"]) -> Ints:
    """What was added from ``since`` until before (left) or until (right) ``till``."""
    order = np.argsort(time)
    time, total = time[order], np.concatenate(([0], np.cumsum(amount[order])))
    return np.asarray(total[np.searchsorted(time, till, side)] - total[np.searchsorted(time, since)])


def clashes(adds: Adds, reads: Reads, beginning: tuple[int, int] = (0, FOREVER)) -> list[Clash]:
    """The two reads that are furthest apart, for each sum whose reads cannot all be right; by key.

    ``beginning`` are the bounds of all sums before the first addition.
    """
    if not reads.key.size:
        return []
    least, most = bounds(adds, reads)
    keys = int(reads.key.max()) + 1
    floor, ceiling = np.full(keys, beginning[0]), np.full(keys, beginning[1])
    np.maximum.at(floor, reads.key, reads.value - most)
    np.minimum.at(ceiling, reads.key, reads.value - least)
    found = []
    for key in map(int, np.flatnonzero(floor > ceiling)):
        mine = np.flatnonzero(reads.key == key)
        high = mine[reads.value[mine] - most[mine] == floor[key]]
        low = mine[reads.value[mine] - least[mine] == ceiling[key]]
        found.append(Clash(key, _first(high), _first(low), int(floor[key] - ceiling[key])))
    return found


def _first(places: Ints) -> int | None:
    return int(places[0]) if places.size else None
