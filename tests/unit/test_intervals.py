"""Sets of times: what they contain, against a set of single moments."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from harness.history.intervals import Interval, Intervals, silences

TIMES = range(-1, 32)
PAIRS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=8)


def between(pairs: list[Interval]) -> set[float]:
    """The half-way points that the intervals contain: bounds belong to both sides."""
    return {time + 0.5 for time in TIMES for start, end in pairs if start <= time < end}


@given(PAIRS, PAIRS)
def test_intervals_are_in_order_apart_and_hold_what_their_parts_do(some: list[Interval], holes: list[Interval]) -> None:
    for intervals, expected in (
        (Intervals(some), between(some)),
        (Intervals(some).minus(holes), between(some) - between(holes)),
    ):
        pairs = list(intervals)
        assert between(pairs) == expected
        assert all(start < end for start, end in pairs)
        assert all(before[1] < after[0] for before, after in pairwise(pairs))
        assert len(intervals) == len(pairs)
        for time in TIMES:
            inside = [pair for pair in pairs if pair[0] <= time <= pair[1]]
            assert ([intervals.at(time)] if time in intervals else []) == inside[-1:]


@given(PAIRS, st.integers(0, 30), st.integers(0, 10))
def test_questions_about_a_range(some: list[Interval], start: int, length: int) -> None:
    intervals, end = Intervals(some), start + length
    assert intervals.overlaps(start, end) == any(a <= end and start <= b for a, b in intervals)
    assert intervals.covers(start, end) == any(a <= start and end <= b for a, b in intervals)
    inside = between(list(intervals)) & between([(start, end)])
    assert intervals.length_within(start, end) == len(inside)


def test_silences_are_the_long_gaps_with_the_bounds_as_marks() -> None:
    assert silences([10, 50, 12], 0, 100, 30) == [(12, 50), (50, 100)]
    assert silences([], 0, 100, 30) == [(0, 100)]
    assert silences([], 0, 30, 30) == []
    assert silences([-5, 200], 0, 100, 99) == [(0, 100)]
