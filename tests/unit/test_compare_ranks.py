"""Exact statistics against slow ones that try every assignment of the numbers."""

from __future__ import annotations

import random
from itertools import combinations, pairwise
from math import comb

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from harness.algorithms import rank_tests
from tests.support.examples import examples

TIED = st.lists(st.integers(0, 4).map(float), min_size=1, max_size=5)
DISTINCT = st.lists(st.integers(0, 10**6).map(float), min_size=2, max_size=10, unique=True)


def pairs_won(baseline: list[float], candidate: list[float]) -> float:
    return sum((ours > theirs) + (ours == theirs) / 2 for ours in candidate for theirs in baseline)


def every_deal(baseline: list[float], candidate: list[float]) -> list[float]:
    """U for each way to choose the candidate's numbers from all numbers."""
    numbers = baseline + candidate
    found = []
    for chosen in combinations(range(len(numbers)), len(candidate)):
        rest = [numbers[at] for at in range(len(numbers)) if at not in chosen]
        found.append(pairs_won(rest, [numbers[at] for at in chosen]))
    return found


def slow_p(baseline: list[float], candidate: list[float]) -> float:
    deals, even = every_deal(baseline, candidate), len(baseline) * len(candidate) / 2
    observed = abs(pairs_won(baseline, candidate) - even)
    return sum(abs(u - even) >= observed for u in deals) / len(deals)


@examples(150)
@given(baseline=TIED, candidate=TIED)
def test_the_test_is_the_permutation_test_with_ties(baseline: list[float], candidate: list[float]) -> None:
    found = rank_tests.rank_sum(baseline, candidate)
    assert found.u == pairs_won(baseline, candidate)
    assert found.p == pytest.approx(slow_p(baseline, candidate), abs=1e-12)
    assert found.p == pytest.approx(rank_tests.rank_sum(candidate, baseline).p, abs=1e-12)


@examples(150)
@given(numbers=DISTINCT, data=st.data())
def test_the_test_is_the_permutation_test_without_ties(numbers: list[float], data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(numbers) - 1))
    baseline, candidate = numbers[:size], numbers[size:]
    assert rank_tests.rank_sum(baseline, candidate).p == pytest.approx(slow_p(baseline, candidate), abs=1e-12)


@pytest.mark.parametrize(("size", "p"), [(3, 0.1), (4, 2 / 70), (5, 2 / 252), (6, 2 / 924)])
def test_the_most_extreme_outcome(size: int, p: float) -> None:
    found = rank_tests.rank_sum([float(n) for n in range(size)], [float(n + size) for n in range(size)])
    assert found.p == pytest.approx(p)
    assert rank_tests.least_p(size, size) == pytest.approx(p)
    assert rank_tests.runs_for(p) == size
    assert rank_tests.runs_for(p * 0.99) == size + 1


@examples(150)
@given(baseline=TIED, candidate=TIED)
def test_no_other_assignment_of_the_numbers_has_a_smaller_p(baseline: list[float], candidate: list[float]) -> None:
    numbers, even = baseline + candidate, len(baseline) * len(candidate) / 2
    far = [abs(u - even) for u in every_deal(baseline, candidate)]
    least = min(sum(other >= one for other in far) for one in far) / len(far)
    found = rank_tests.attainable_p(baseline, candidate)
    assert found == pytest.approx(least, abs=1e-12)
    assert found <= rank_tests.rank_sum(baseline, candidate).p + 1e-12
    ordered = sorted(numbers, reverse=True)
    again = rank_tests.attainable_p(ordered[: len(baseline)], ordered[len(baseline) :])
    assert found == pytest.approx(again, abs=1e-12)


def test_the_smallest_p_is_that_of_completely_separate_groups_without_ties() -> None:
    apart = [float(n) for n in range(6)], [float(n + 6) for n in range(6)]
    assert rank_tests.attainable_p(*apart) == pytest.approx(2 / 924) == rank_tests.least_p(6, 6)
    assert rank_tests.attainable_p([0.0] * 6, [0.0] * 6) == 1
    # one that differs from five: it is in the one group or in the other
    assert rank_tests.attainable_p([0.0] * 3, [0.0, 0.0, 1.0]) == 1


@pytest.mark.parametrize("without_a_chance", [0, 1, 40])
def test_comparisons_that_cannot_be_significant_are_not_corrected_for(without_a_chance: int) -> None:
    """6 runs per side: 2 / 924 = 0.00216, which fits 23 times into 0.05 (Tarone 1990)."""
    hopeless = {f"no-{number}": 1.0 for number in range(without_a_chance)}

    def found(count: int) -> set[str]:
        return set(rank_tests.testable({**hopeless, **dict.fromkeys(map(str, range(count)), 0.00216)}, 0.05))

    assert found(30) == found(24) == set()
    assert found(23) == set(map(str, range(23)))
    assert found(1) == {"0"}
    assert found(0) == set()


def test_of_too_many_comparisons_those_with_the_smallest_attainable_p_remain() -> None:
    """With a divisor of 10 or more, and of 5, only the five remain: 0.02 x 3 is already too large."""
    chances = {**dict.fromkeys("abcde", 0.001), **dict.fromkeys("uvwxyz", 0.02)}
    assert rank_tests.testable(chances, 0.05) == set("abcde")
    assert rank_tests.testable({"u": 0.02, "v": 0.02}, 0.05) == {"u", "v"}


def test_many_runs_are_fast_enough() -> None:
    chance = random.Random(1)
    baseline, candidate = ([chance.random() for _ in range(40)] for _ in range(2))
    assert 0.01 < rank_tests.rank_sum(baseline, candidate).p <= 1


@examples(100)
@given(numbers=DISTINCT, data=st.data(), alpha=st.sampled_from([0.01, 0.05, 0.2, 0.5]))
def test_the_interval_of_a_shift_is_what_the_test_does_not_reject(
    numbers: list[float], data: st.DataObject, alpha: float
) -> None:
    size = data.draw(st.integers(1, len(numbers) - 1))
    baseline, candidate = numbers[:size], numbers[size:]
    differences = sorted(ours - theirs for ours in candidate for theirs in baseline)
    assume(len(set(differences)) == len(differences))
    found = rank_tests.shift_interval(baseline, candidate, alpha)
    edges = [differences[0] - 2, *differences, differences[-1] + 2]
    for low, high in pairwise(edges):
        moved = [number - (low + high) / 2 for number in candidate]
        inside = (found.low is None or found.low <= low) and (found.high is None or high <= found.high)
        assert inside == (slow_p(baseline, moved) > alpha), (low, high, found)


@examples(100)
@given(baseline=TIED, candidate=TIED)
def test_shift_and_delta_change_sign_with_the_groups(baseline: list[float], candidate: list[float]) -> None:
    assert rank_tests.shift(baseline, candidate) == -rank_tests.shift(candidate, baseline)
    assert rank_tests.cliffs_delta(baseline, candidate) == pytest.approx(-rank_tests.cliffs_delta(candidate, baseline))
    there, back = (
        rank_tests.shift_interval(baseline, candidate, 0.05),
        rank_tests.shift_interval(candidate, baseline, 0.05),
    )
    assert (there.low is None) == (back.high is None)
    if there.low is not None and back.high is not None:
        assert there.low == -back.high


def test_delta_is_the_share_of_larger_values() -> None:
    assert rank_tests.cliffs_delta([1, 2], [3, 4]) == 1
    assert rank_tests.cliffs_delta([3, 4], [1, 2]) == -1
    assert rank_tests.cliffs_delta([1, 2], [1, 2]) == 0


def slow_quantile_interval(count: int, share: float, alpha: float) -> tuple[int, int]:
    """The places of both ends, counted from 1; 0 and count + 1 if there is none."""

    def at_most(hits: int) -> float:
        return sum(comb(count, n) * share**n * (1 - share) ** (count - n) for n in range(hits + 1))

    low = max([place for place in range(1, count + 1) if at_most(place - 1) <= alpha / 2], default=0)
    high = min([place for place in range(1, count + 1) if 1 - at_most(place - 1) <= alpha / 2 + 1e-12], default=0)
    return low, high or count + 1


@settings(deadline=None)
@given(count=st.integers(1, 30), share=st.sampled_from([0.25, 0.5, 0.9]), alpha=st.sampled_from([0.05, 0.1, 0.011]))
def test_the_interval_of_a_quantile(count: int, share: float, alpha: float) -> None:
    found = rank_tests.quantile_interval([float(n) for n in range(1, count + 1)], share, alpha)
    low, high = slow_quantile_interval(count, share, alpha)
    assert (found.low or 0, found.high or count + 1) == (low, high)
    assert found.coverage >= 1 - alpha - 1e-9


def test_the_interval_of_a_median_agrees_with_published_tables() -> None:
    """For 10 values the second and the ninth, 97.9 % (David and Nagaraja); for 5 there is none at 95 %."""
    ten, five = (rank_tests.quantile_interval(range(1, count + 1), 0.5, 0.05) for count in (10, 5))
    assert (ten.low, ten.high) == (2, 9)
    assert ten.coverage == pytest.approx(0.9785, abs=1e-4)
    assert (five.low, five.high) == (None, None)


def test_holm() -> None:
    """By hand: 3 x 0.01, then 2 x 0.04, larger than the 0.03 before it, then 0.2."""
    assert rank_tests.holm({"a": 0.04, "b": 0.01, "c": 0.2}) == pytest.approx({"a": 0.08, "b": 0.03, "c": 0.2})
    assert rank_tests.holm({"a": 0.03, "b": 0.03}) == pytest.approx({"a": 0.06, "b": 0.06})
    assert rank_tests.holm({"a": 0.7, "b": 0.9}) == pytest.approx({"a": 1, "b": 1})
    assert rank_tests.holm({}) == {}
