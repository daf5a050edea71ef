"""Is a register linearizable, whatever was written or compared and set? Wing and Gong's search, with Lowe's memory.

J. M. Wing, C. Gong: Testing and Verifying Concurrent Objects, JPDC 17, 1993; G. Lowe: Testing for Linearizability,
CCPE 29(4), 2017: a state that was reached once, with the same ops done, need not be tried again. The question is
NP-complete, so the search must be able to give up.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.algorithms.arrays import FOREVER

PATIENCE = 1_000
"""Number of steps between two calls of ``give_up``."""

UNKNOWN: Final = object()
"""The value of a register before its first read or write."""

ANYTHING: Final = object()
IMPOSSIBLE: Final = object()


@dataclass(frozen=True, slots=True)
class Call:
    """A read of, or a write of, ``value``. A write that may have happened ends FOREVER. Times are ns.

    A write that ``expected`` a value is a compare-and-set; a ``refused`` one found another value, and wrote nothing.
    """

    start: float
    end: float
    write: bool
    value: Hashable
    expected: Hashable = ANYTHING
    refused: bool = False

    @property
    def reads(self) -> bool:
        """True for a read."""
        return not self.write

    @property
    def writes(self) -> bool:
        """True for what may change the value."""
        return self.write and not self.refused

    def after(self, value: Hashable) -> Hashable:
        """The register's value after this call; IMPOSSIBLE where ``value`` before it does not allow the call."""
        if not self.write:
            return self.value if value is UNKNOWN or value == self.value else IMPOSSIBLE
        if self.refused:
            return value if value is UNKNOWN or value != self.expected else IMPOSSIBLE
        if self.expected is ANYTHING or value is UNKNOWN or value == self.expected:
            return self.value
        return IMPOSSIBLE


@dataclass(eq=False)
class _Event:
    """The beginning (``end`` is set) or the end of the call ``number``, in a list that is linked both ways."""

    number: int
    time: float
    end: _Event | None = None
    before: _Event = field(init=False, repr=False)
    after: _Event | None = field(init=False, repr=False, default=None)


def linearizable(calls: Sequence[Call], give_up: Callable[[], bool], first: Hashable = UNKNOWN) -> bool | None:
    """True or False; None when ``give_up``, which is called every now and then, returned True first.

    ``first`` is the register's value before all of them. Memory grows with the number of states tried.
    """
    head, twins = _chained(calls), _twins(calls)
    done, value = 0, first
    tried: set[tuple[int, Hashable]] = set()
    path: list[tuple[_Event, Hashable]] = []
    event, steps = head.after, 0
    while event is not None and event.time < FOREVER:
        steps += 1
        if steps % PATIENCE == 0 and give_up():
            return None
        if event.end is None:  # a call had to be done by now, and could not be
            back = _undone(path, calls)
            if back is None:
                return False
            event, value, taken = back
            done ^= taken
            event = event.after
            continue
        then = calls[event.number].after(value)
        if then is IMPOSSIBLE or done & twins[event.number] != twins[event.number]:
            event = event.after
            continue
        state = (done | 1 << event.number, then)
        if state in tried:
            event = event.after
            continue
        tried.add(state)
        path.append((event, value))
        done, value = state
        _take_out(event)
        event = head.after
    return True  # what is left may have happened, or not


def _twins(calls: Sequence[Call]) -> list[int]:
    """For each call without an end, the bit of the one before it that does the same, and has to be done first; or 0.

    Which of both was done makes no difference, and the one that began first may be done wherever the other may.
    """
    latest: dict[tuple[Hashable, Hashable], int] = {}
    found = [0] * len(calls)
    for number in sorted(range(len(calls)), key=lambda number: calls[number].start):
        call = calls[number]
        if call.end >= FOREVER and call.writes:
            what = call.value, call.expected
            found[number] = 1 << latest[what] if what in latest else 0
            latest[what] = number
    return found


def _undone(path: list[tuple[_Event, Hashable]], calls: Sequence[Call]) -> tuple[_Event, Hashable, int] | None:
    """Undo the last call for which there is another choice: it, the value before it, and all that was undone.

    A call that changes nothing and could be done was rightly done at once: to do it later never helps. So only those
    that found the value unknown, or that changed it, have another choice.
    """
    taken = 0
    while path:
        event, value = path.pop()
        taken ^= 1 << event.number
        _put_back(event)
        if calls[event.number].writes or value is UNKNOWN:
            return event, value, taken
    return None


def _chained(calls: Sequence[Call]) -> _Event:
    """All beginnings and ends by time; at the same time beginnings come first, for then both calls are concurrent."""
    events: list[_Event] = []
    for number, call in enumerate(calls):
        end = _Event(number, call.end)
        events += [_Event(number, call.start, end), end]
    events.sort(key=lambda event: (event.time, event.end is None))
    head = last = _Event(-1, -FOREVER)
    for event in events:
        last.after, event.before = event, last
        last = event
    return head


def _take_out(event: _Event) -> None:
    """A call that is done: its beginning and its end."""
    for one in (event, event.end):
        assert one is not None
        one.before.after = one.after
        if one.after is not None:
            one.after.before = one.before


def _put_back(event: _Event) -> None:
    for one in (event.end, event):
        assert one is not None
        one.before.after = one
        if one.after is not None:
            one.after.before = one
