"""What became of each element of a set that only grows: Jepsen's set-full, on arrays.

After jepsen.checker/set-full (jepsen/src/jepsen/checker.clj). An element is *known* from its acknowledgement, or from
the first reading that had it, whichever came first. Here a reading that lacks it counts against it only when it began
after that, and an element that was missing is *lost* only when no later or concurrent reading had it.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from harness.algorithms.arrays import FOREVER, NEVER, Flags, Ints


class State(IntEnum):
    """What became of an element."""

    NEVER_READ = 0
    """No reading can tell: it is in none, and none that lacks it began after it was known."""
    STABLE = 1
    """It was there whenever it had to be."""
    STALE = 2
    """It was missing once after it was known, and there in a reading that did not end before that."""
    LOST = 3
    """It was missing after it was known, and never seen again."""


class Elements:
    """Elements 0, 1, ... and what readings said of them. All times are ns.

    ``acknowledged`` is when each was: FOREVER for one of which nobody knows.
    """

    def __init__(self, acknowledged: Ints) -> None:
        self.acknowledged = acknowledged
        self.first_seen = np.full(acknowledged.size, FOREVER, dtype=np.int64)
        self.last_seen = np.full(acknowledged.size, NEVER, dtype=np.int64)
        self.last_missing = np.full(acknowledged.size, NEVER, dtype=np.int64)

    def whole(self, present: Ints, start: int, end: int) -> None:
        """A reading of all elements had these, and lacked all others."""
        self.part(present, end)
        missing = np.ones(self.acknowledged.size, dtype=np.bool_)
        missing[present] = False
        np.maximum(self.last_missing, start, out=self.last_missing, where=missing)

    def part(self, present: Ints, end: int) -> None:
        """A reading had these, and says nothing of the others."""
        self.first_seen[present] = np.minimum(self.first_seen[present], end)
        self.last_seen[present] = np.maximum(self.last_seen[present], end)

    def each(self, element: Ints, present: Flags, start: Ints, end: Ints) -> None:
        """Readings of one element each."""
        np.minimum.at(self.first_seen, element[present], end[present])
        np.maximum.at(self.last_seen, element[present], end[present])
        np.maximum.at(self.last_missing, element[~present], start[~present])

    @property
    def known(self) -> Ints:
        """From when on each must be there; FOREVER: it need not."""
        return np.minimum(self.acknowledged, self.first_seen)

    @property
    def seen(self) -> Flags:
        """Which were in any reading."""
        return np.asarray(self.last_seen > NEVER)

    def states(self) -> Ints:
        """The State of each."""
        missed = self.known < self.last_missing
        states = np.where(self.seen, int(State.STABLE), int(State.NEVER_READ))
        states[missed] = int(State.STALE)
        states[missed & (self.last_seen < self.last_missing)] = int(State.LOST)
        return states

    def missing_for(self) -> Ints:
        """For how long after each was known it was still missing, at least; 0 for one that never was."""
        return np.where(self.known < self.last_missing, self.last_missing - self.known, 0)
