"""Is a register linearizable, whatever was written? Wing and Gong's search, with Lowe's memory.

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


@dataclass(frozen=True)
class Call:
    """A read of, or a write of, ``value``. A write that may have happened ends FOREVER. Times are ns."""

    start: int
    end: int
    write: bool
    value: Hashable


@dataclass(eq=False)
class _Event:
    """The beginning (``end`` is set) or the end of the call ``number``, in a list that is linked both ways."""

    number: int
    time: int
    end: _Event | None = None
    before: _Event = field(init=False, repr=False)
    after: _Event | None = field(init=False, repr=False, default=None)


def linearizable(calls: Sequence[Call], give_up: Callable[[], bool], first: Hashable = UNKNOWN) -> bool | None:
    """True or False; None when ``give_up``, which is called every now and then, returned True first.

    ``first`` is the register's value before all of them. Memory grows with the number of states tried.
    """
    head = _chained(calls)
    done, value = 0, first
    tried: set[tuple[int, Hashable]] = set()
    path: list[tuple[_Event, Hashable]] = []
    event, steps = head.after, 0
    while event is not None and event.time < FOREVER:
        steps += 1
        if steps % PATIENCE == 0 and give_up():
            return None
        if event.end is None:  # a call had to be done by now, and could not be
            if not path:
                return False
            event, value = path.pop()
            done ^= 1 << event.number
            _put_back(event)
            event = event.after
            continue
        call = calls[event.number]
        state = (done | 1 << event.number, call.value)
        if (call.write or value is UNKNOWN or value == call.value) and state not in tried:
            tried.add(state)
            path.append((event, value))
            done, value = state
            _take_out(event)
            event = head.after
        else:
            event = event.after
    return True  # what is left may have happened, or not


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
