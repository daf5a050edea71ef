"""Can a number that only grows have gone through the values that were seen? Exact for one counter, in steps.

A counter grows by amounts. Each answer shows a value of it. The answer to an addition shows the value right after it,
so its place is known; additions without an answer have no place yet. Between two neighbouring values that were seen,
the difference must be the sum of the addition that has its place there, and of some that have none. The search tries
all choices of those. It is small where few additions have no answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from harness.algorithms.arrays import FOREVER, NEVER

STEPS = 20_000
"""Number of choices that the search tries for one counter before it gives up."""


@dataclass(frozen=True)
class Seen:
    """An answer with the counter's ``value``, from ``start`` to ``end`` in ns.

    ``own`` is what the op itself added just before; 0 for a read. ``count`` is the number of additions by then, or None
    where the answer does not have it.
    """

    value: int
    start: int
    end: int
    own: int = 0
    count: int | None = None


@dataclass(frozen=True)
class Maybe:
    """An addition of unknown place. It took effect within [start, end]; FOREVER: or never."""

    amount: int
    start: int
    end: int = FOREVER


@dataclass(frozen=True)
class Unexplained:
    """No choice of the additions gets the counter from the value ``before`` to ``value``."""

    before: int
    value: int
    torn: bool = False
    """Two answers with this value have different counts."""


GAVE_UP: Final = object()


@dataclass(frozen=True)
class _Level:
    """One value that was seen. ``since``: no earlier value was seen from then on; ``until``: it was reached by then."""

    value: int
    own: int
    adds: int
    counts: frozenset[int]
    since: int
    until: int


def unexplained(seen: Sequence[Seen], maybe: Sequence[Maybe]) -> Unexplained | object | None:
    """The first value that no choice explains; None where one explains all of them; GAVE_UP after STEPS choices."""
    levels = _levels(seen)
    torn = next((level for level in levels if len(level.counts) > 1), None)
    if torn is not None:
        return Unexplained(torn.value, torn.value, torn=True)
    return _Search(levels, maybe, max(each.start for each in seen)).answer() if levels else None


def _levels(seen: Sequence[Seen]) -> list[_Level]:
    by_value: dict[int, list[Seen]] = {}
    for each in seen:
        by_value.setdefault(each.value, []).append(each)
    values = sorted(by_value)
    since = [NEVER, *accumulate((max(each.start for each in by_value[value]) for value in values), max)]
    until = [*accumulate((min(each.end for each in by_value[value]) for value in reversed(values)), min)][::-1]
    return [
        _Level(
            value,
            sum(each.own for each in by_value[value]),
            sum(each.own > 0 for each in by_value[value]),
            frozenset(each.count for each in by_value[value] if each.count is not None),
            since[place],
            until[place],
        )
        for place, value in enumerate(values)
    ]


class _Search:
    """Depth first over the levels; the choice at each is which additions without a place fill the gap below it."""

    def __init__(self, levels: Sequence[_Level], maybe: Sequence[Maybe], latest: int) -> None:
        self.levels = levels
        self.latest = latest  # the last answer began then
        self.maybe = sorted(maybe, key=lambda each: (-each.amount, each.start))
        self.steps = 0
        self.deepest = 0

    def answer(self) -> Unexplained | object | None:
        stack: list[Iterator[tuple[frozenset[int], int | None]]] = [iter([(frozenset[int](), self._first())])]
        tried: set[tuple[int, frozenset[int], int | None]] = set()
        while stack:
            state = next(stack[-1], None)
            if state is None:
                stack.pop()
                continue
            self.steps += 1
            if self.steps > STEPS:
                return GAVE_UP
            place = len(stack)
            if (place, *state) in tried:
                continue
            tried.add((place, *state))
            if place == len(self.levels):
                if self._rest(state[0]):
                    return None
                continue
            stack.append(self._next(place, *state))
        if self.steps > STEPS:
            return GAVE_UP
        place = min(self.deepest + 1, len(self.levels) - 1)
        return Unexplained(self.levels[max(place - 1, 0)].value, self.levels[place].value)

    def _first(self) -> int | None:
        """The count at the first level."""
        return next(iter(self.levels[0].counts), None)

    def _next(self, place: int, used: frozenset[int], count: int | None) -> Iterator[tuple[frozenset[int], int | None]]:
        """All ways from a level to the one at ``place``: the additions that are used by then, and the count."""
        below, level = self.levels[place - 1], self.levels[place]
        gap = level.value - below.value - level.own
        if gap < 0:
            return
        fit = [
            number
            for number, each in enumerate(self.maybe)
            if number not in used and each.start <= level.until and each.end >= level.since and each.amount <= gap
        ]
        seen = next(iter(level.counts), None)
        for some in self._sums(fit, gap):
            then = None if count is None else count + level.adds + len(some)
            if seen is None or then is None or then == seen:
                self.deepest = max(self.deepest, place)
                yield used | some, seen if then is None else then

    def _sums(self, fit: Sequence[int], gap: int) -> Iterator[frozenset[int]]:
        """The choices whose amounts have that sum; of additions that are alike only the first ones."""
        rest = [*accumulate((self.maybe[number].amount for number in reversed(fit)), initial=0)][::-1]

        def choose(at: int, left: int, chosen: tuple[int, ...]) -> Iterator[frozenset[int]]:
            if left == 0:
                yield frozenset(chosen)
                return
            self.steps += 1
            if at == len(fit) or rest[at] < left or self.steps > STEPS:
                return
            amount = self.maybe[fit[at]].amount
            if amount <= left:
                yield from choose(at + 1, left - amount, (*chosen, fit[at]))
            yield from choose(at + 1, left, chosen)

        yield from choose(0, gap, ())

    def _rest(self, used: frozenset[int]) -> bool:
        """Whether each addition that no gap has came before the first value that was seen, or after the last."""
        first = self.levels[0].until
        return all(
            number in used or each.start <= first or each.end >= self.latest for number, each in enumerate(self.maybe)
        )
