"""Exact statistics of two small groups of numbers that assume no distribution. Pure; the numbers are one for each run.

Sources: Mann and Whitney, Annals of Mathematical Statistics 18 (1947), for the test; Lehmann, Nonparametrics (1975),
1.4, for its distribution when there are ties; Hodges and Lehmann, Annals of Mathematical Statistics 34 (1963), for the
estimate of a shift, and Hollander, Wolfe and Chicken, Nonparametric Statistical Methods (3rd ed.), 4.3, for its
interval; Cliff, Psychological Bulletin 114 (1993), for delta; David and Nagaraja, Order Statistics (3rd ed.), 7.1, for
the interval of a quantile; Holm, Scandinavian Journal of Statistics 6 (1979), and Tarone, Biometrics 46 (1990), for
looking many times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, groupby
from math import ceil, comb
from statistics import median
from typing import TypeVar

Key = TypeVar("Key")


@dataclass(frozen=True)
class Interval:
    """From ``low`` to ``high``, both included; None: unbounded. It covers the truth with probability ``coverage``."""

    low: float | None
    high: float | None
    coverage: float


@dataclass(frozen=True)
class RankSum:
    """The two-sided Mann-Whitney test.

    ``u`` counts the pairs in which the candidate's number is the larger; a tie counts as half a pair. ``p`` is the
    share of all ways to deal the same numbers out to two groups of these sizes that are at least as far from even.
    """

    u: float
    p: float


def rank_sum(baseline: Sequence[float], candidate: Sequence[float]) -> RankSum:
    """Test whether one of two groups (neither empty) tends to larger numbers; exact, with ties or without."""
    ordered = sorted([*baseline, *candidate])
    ties = tuple(len(list(group)) for _, group in groupby(ordered))
    chances = _chances(ties, len(candidate))
    observed = _doubled_u(baseline, candidate)
    even = len(baseline) * len(candidate)
    extreme = sum(ways for doubled, ways in chances.items() if abs(doubled - even) >= abs(observed - even))
    return RankSum(observed / 2, extreme / comb(len(ordered), len(candidate)))


def _doubled_u(baseline: Sequence[float], candidate: Sequence[float]) -> int:
    return sum((ours > theirs) + (ours >= theirs) for ours in candidate for theirs in baseline)


@lru_cache(maxsize=64)
def _chances(ties: tuple[int, ...], size: int) -> Mapping[int, int]:
    """Twice U -> in how many ways to choose a group of that size it comes out so.

    ``ties`` are the sizes of the groups of equal numbers, from the least number up. For each size of the group so far
    there is a polynomial in which the coefficient of x^(2U) counts the ways. Each is one whole number, its value at an
    x that is larger than every coefficient (Kronecker's substitution): Python adds and shifts those at once.
    """
    total = sum(ties)
    width = comb(total, size).bit_length() // 8 + 1
    ways = [1] + [0] * size
    before = 0
    for tied in ties:
        grown = [0] * (size + 1)
        for chosen in range(min(tied, size) + 1):
            for had in range(min(before, size - chosen) + 1):
                # Each of the chosen beats those of the other group below it, and half of those that it is tied with.
                beaten = chosen * (2 * (before - had) + tied - chosen)
                grown[had + chosen] += comb(tied, chosen) * ways[had] << (8 * width * beaten)
        ways, before = grown, before + tied
    packed = ways[size].to_bytes(width * (2 * size * (total - size) + 1), "little")
    counts = (int.from_bytes(packed[at : at + width], "little") for at in range(0, len(packed), width))
    return {doubled: count for doubled, count in enumerate(counts) if count}


def attainable_p(baseline: Sequence[float], candidate: Sequence[float]) -> float:
    """The least p that these numbers can have, however they are dealt out to groups of these sizes; 1 if all tie."""
    ordered = sorted([*baseline, *candidate])
    chances = _chances(tuple(len(list(group)) for _, group in groupby(ordered)), len(candidate))
    even = len(baseline) * len(candidate)
    furthest = max(abs(doubled - even) for doubled in chances)
    return sum(ways for doubled, ways in chances.items() if abs(doubled - even) == furthest) / sum(chances.values())


def testable(attainable: Mapping[Key, float], alpha: float) -> frozenset[Key]:
    """Those that have a chance to be found, so that the others need not be corrected for (Tarone 1990).

    ``attainable`` is the least p of each, given its numbers. It does not depend on which number came from which group,
    so this choice costs nothing. Empty when there are so many that none could be found.
    """
    for family in range(1, len(attainable) + 1):
        found = frozenset(key for key, p in attainable.items() if p * family <= alpha)
        if len(found) <= family:
            return found
    return frozenset()


def least_p(baseline: int, candidate: int) -> float:
    """The p of the most extreme outcome that groups of these sizes can have: all of one above all of the other."""
    return min(1.0, 2 / comb(baseline + candidate, candidate))


def runs_for(p: float) -> int:
    """How many runs it takes in each of two groups before the most extreme outcome has that p (above 0) or less."""
    size = 1
    while least_p(size, size) > p:
        size += 1
    return size


def shift(baseline: Sequence[float], candidate: Sequence[float]) -> float:
    """By how much the candidate's numbers are larger: the median of all differences (Hodges and Lehmann)."""
    return median(_differences(baseline, candidate))


def shift_interval(baseline: Sequence[float], candidate: Sequence[float], alpha: float) -> Interval:
    """The shifts that the test would not reject at ``alpha``; without ends when the groups are too small for that.

    Exact for numbers without ties; with ties it covers the truth at least as often.
    """
    differences = _differences(baseline, candidate)
    ways = _chances((1,) * (len(baseline) + len(candidate)), len(candidate))
    every = sum(ways.values())
    below = list(accumulate(ways.get(2 * u, 0) for u in range(len(differences) + 1)))
    # The cut-th smallest and cut-th largest difference: the shift is outside when U is below cut, or as far up.
    cut = sum(2 * count <= alpha * every for count in below)
    if not cut:
        return Interval(None, None, 1.0)
    return Interval(differences[cut - 1], differences[-cut], 1 - 2 * below[cut - 1] / every)


def _differences(baseline: Sequence[float], candidate: Sequence[float]) -> list[float]:
    return sorted(ours - theirs for ours in candidate for theirs in baseline)


def cliffs_delta(baseline: Sequence[float], candidate: Sequence[float]) -> float:
    """How much more often the candidate's number is the larger than the smaller: from -1 (never) to 1 (always)."""
    return _doubled_u(baseline, candidate) / (len(baseline) * len(candidate)) - 1


def quantile_interval(values: Sequence[float], share: float, alpha: float) -> Interval:
    """The order statistics between which the quantile lies, of all that the values are drawn from.

    As many of n values as a binomial variable with n tries and that chance are below the quantile. An end is None when
    so few values cannot give one.
    """
    ordered, count = sorted(values), len(values)
    chance = [comb(count, hits) * share**hits * (1 - share) ** (count - hits) for hits in range(count + 1)]
    low = sum(below <= alpha / 2 for below in accumulate(chance))
    high = sum(above <= alpha / 2 for above in accumulate(reversed(chance)))
    # The low-th smallest and high-th largest of the values; the 0th does not exist.
    return Interval(
        ordered[low - 1] if low else None,
        ordered[-high] if high else None,
        1 - sum(chance[:low]) - (sum(chance[-high:]) if high else 0.0),
    )


def holm(ps: Mapping[Key, float]) -> dict[Key, float]:
    """Each p, corrected for their number: the probability of any false alarm among them is at most alpha."""
    corrected: dict[Key, float] = {}
    worst = 0.0
    for place, key in enumerate(sorted(ps, key=lambda key: ps[key])):
        worst = max(worst, min(1.0, (len(ps) - place) * ps[key]))
        corrected[key] = worst
    return corrected


def runs_for_width(runs: int, half: float, wanted: float) -> int:
    """About how many runs narrow an interval to half a width of ``wanted``: the width goes with one over their root."""
    return max(runs + 1, ceil(runs * (half / wanted) ** 2))
