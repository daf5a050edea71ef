"""The fate of each element of a set that only grows: Jepsen's set-full, on arrays.

After jepsen.checker/set-full (jepsen/src/jepsen/checker.clj). An element is *known* from its acknowledgement, or from
the first read that contained it, whichever came first. Here a read that lacks it counts only when it began after
that, and a missing element is *lost* only when no later or concurrent read contained it.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from harness.algorithms.arrays import FOREVER, NEVER, Flags, Ints


class State(IntEnum):
    """The fate of an element."""

    NEVER_READ = 0
    """Undecided: no read contains it, and none that lacks it began after it was known."""
    STABLE = 1
    """Every read that had to contain it did."""
    STALE = 2
    """A read lacked it after it was known, and a read that did not end before that contained it."""
    LOST = 3
    """A read lacked it after it was known, and no later read contained it."""


class Elements:
    """Elements 0, 1, ... and what reads showed of them. All times are ns.

    ``acknowledged`` is when each was acknowledged; FOREVER when it is unknown whether it was.
    """

    def __init__(self, acknowledged: Ints) -> None:
        self.acknowledged = acknowledged
        self.first_seen = np.full(acknowledged.size, FOREVER, dtype=np.int64)
        self.last_seen = np.full(acknowledged.size, NEVER, dtype=np.int64)
        self.last_missing = np.full(acknowledged.size, NEVER, dtype=np.int64)

    def whole(self, present: Ints, start: int, end: int) -> None:
        """Add a read of all elements: it contained these, and lacked all others."""
        self.part(present, end)
        missing = np.ones(self.acknowledged.size, dtype=np.bool_)
        missing[present] = False
        np.maximum(self.last_missing, start, out=self.last_missing, where=missing)

    def part(self, present: Ints, end: int) -> None:
        """Add a read that contained these, and shows nothing of the others."""
        self.first_seen[present] = np.minimum(self.first_seen[present], end)
        self.last_seen[present] = np.maximum(self.last_seen[present], end)

    def each(self, element: Ints, present: Flags, start: Ints, end: Ints) -> None:
        """Add reads of one element each."""
        np.minimum.at(self.first_seen, element[present], end[present])
        np.maximum.at(self.last_seen, element[present], end[present])
        np.maximum.at(self.last_missing, element[~present], start[~present])

    @property
    def known(self) -> Ints:
        """From when on reads must contain each element; FOREVER: they need not."""
        return np.minimum(self.acknowledged, self.first_seen)

    @property
    def seen(self) -> Flags:
        """Which elements any read contained."""
        return np.asarray(self.last_seen > NEVER)

    def states(self) -> Ints:
        """The State of each."""
        missed = self.known < self.last_missing
        states = np.where(self.seen, int(State.STABLE), int(State.NEVER_READ))
        states[missed] = int(State.STALE)
        states[missed & (self.last_seen < self.last_missing)] = int(State.LOST)
        return states

    def missing_for(self) -> Ints:
        """The shortest time for which each was missing after it was known; 0 for one that never was."""
        return np.where(self.known < self.last_missing, self.last_missing - self.known, 0)
