"""How uneven even counts are by chance: Pearson's chi-square, and how many draws show a shortage.

Counts that come in clumps (a keep-alive connection keeps its real server from getting short ones) vary more than
independent draws do. How much more is estimated from the differences between blocks of time, and the statistic is
divided by it (quasi-likelihood; McCullagh and Nelder, Generalized Linear Models, 4.5).

Not scipy: it would save the two survival functions and the bisection below (30 lines), for a dependency of 35 MB that
nothing else here needs. Its exact Mann-Whitney test does not allow ties, so ``rank_tests`` cannot use it either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from harness.algorithms.arrays import Ints

LEAST_BLOCKS = 4
"""With fewer blocks nothing is known of how counts vary."""


@dataclass(frozen=True)
class Evenness:
    """Whether counts are as even as chance makes them.

    ``p`` is the probability of counts at least this uneven. ``effect`` is Cohen's w without what chance adds to it.
    ``clumping`` is how many times more they vary than independent draws (at least 1).
    """

    total: int
    chi_square: float
    clumping: float
    p: float
    effect: float


def evenness(blocks: Ints) -> Evenness:
    """The evenness of a table of counts: one row for each block of time, one column for each of two or more things."""
    counts = blocks.sum(axis=0)
    total, columns = int(counts.sum()), counts.size
    if total == 0:
        return Evenness(0, 0.0, 1.0, 1.0, 0.0)
    expected = total / columns
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    clumping = max(1.0, _clumping(blocks, counts / total))
    beyond = max(0.0, chi_square - clumping * (columns - 1)) / total
    survival = chi_square_survival(chi_square / clumping, columns - 1)
    return Evenness(total, chi_square, clumping, survival, math.sqrt(beyond))


def _clumping(blocks: Ints, share: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """How many times more the blocks differ from one another than independent draws with these shares would."""
    sizes = blocks.sum(axis=1)
    filled, used = blocks[sizes > 0], share > 0
    if filled.shape[0] < LEAST_BLOCKS or used.sum() < 2:
        return 1.0
    expected = np.outer(sizes[sizes > 0], share[used])
    differ = ((filled[:, used] - expected) ** 2 / expected).sum()
    return float(differ / ((filled.shape[0] - 1) * (used.sum() - 1)))


def shortage_effect(columns: int, short: float) -> float:
    """Cohen's w when one of ``columns`` is short by that share, and all others get as much more."""
    return short / math.sqrt(columns - 1)


def needed(columns: int, short: float, alpha: float, power: float) -> int:
    """The number of draws that show that one of ``columns`` is short by that share, at that significance and power.

    From the noncentral chi-square distribution, which is exact for small shortages; large ones need fewer draws.
    """
    return math.ceil(_noncentrality(columns - 1, alpha, power) / shortage_effect(columns, short) ** 2)


def visible(columns: int, draws: float, alpha: float, power: float) -> float:
    """The smallest shortage of one of ``columns`` that this many draws show; 1 or more: not even its absence."""
    return math.sqrt(_noncentrality(columns - 1, alpha, power) * (columns - 1) / max(draws, 1e-9))


@lru_cache
def _noncentrality(df: int, alpha: float, power: float) -> float:
    """The noncentrality at which a chi-square test has that power."""
    critical = _where(lambda x: chi_square_survival(x, df) <= alpha)
    return _where(lambda shift: _noncentral_survival(critical, df, shift) >= power)


def _where(holds: Callable[[float], bool]) -> float:
    """The smallest number above 0 from which on it holds, to a thousandth."""
    low, high = 0.0, 1.0
    while not holds(high):
        low, high = high, 2 * high
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def chi_square_survival(x: float, df: int) -> float:
    """The probability that a chi-square variable with ``df`` degrees of freedom is at least ``x``.

    In closed form for whole degrees of freedom (Abramowitz and Stegun 26.4.4 and 26.4.5).
    """
    if x <= 0:
        return 1.0
    half = x / 2
    first = math.erfc(math.sqrt(half)) if df % 2 else 0.0
    offset = 0.5 if df % 2 else 0.0
    terms = (math.exp(-half + (n + offset) * math.log(half) - math.lgamma(n + offset + 1)) for n in range(df // 2))
    return min(1.0, first + sum(terms))


def _noncentral_survival(x: float, df: int, shift: float) -> float:
    """The same for a noncentral variable: a Poisson mixture of central ones."""
    half = shift / 2
    most = int(half + 12 * math.sqrt(half + 1) + 12)
    weights = (
        math.exp(-half + n * math.log(half) - math.lgamma(n + 1)) if half else float(n == 0) for n in range(most)
    )
    return sum(weight * chi_square_survival(x, df + 2 * n) for n, weight in enumerate(weights))


def spread(counts: Sequence[int]) -> int:
    """The difference between the largest and the smallest."""
    return max(counts) - min(counts)
