"""What chance alone does to counts that should be even: Pearson's chi-square, and how much it takes to see a shortage.

Counts that come in clumps (a keep-alive connection keeps its real server from getting short ones) vary more than
independent draws do. How much more is estimated from how counts differ from one block of time to the next, and the
statistic is divided by it (quasi-likelihood; McCullagh and Nelder, Generalized Linear Models, 4.5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from harness.algorithms.arrays import Ints

LEAST_BLOCKS = 4
"""Fewer say nothing of how counts vary."""


@dataclass(frozen=True)
class Evenness:
    """Whether counts are as even as chance would have them.

    ``p`` is the chance of counts at least that uneven. ``effect`` is Cohen's w, less what chance alone adds to it.
    ``clumping`` is how many times more they vary than independent draws (1 at least).
    """

    total: int
    chi_square: float
    clumping: float
    p: float
    effect: float


def evenness(blocks: Ints) -> Evenness:
    """Of a table of counts: a row for each block of time, a column for each of two or more things."""
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
    told, there = blocks[sizes > 0], share > 0
    if told.shape[0] < LEAST_BLOCKS or there.sum() < 2:
        return 1.0
    expected = np.outer(sizes[sizes > 0], share[there])
    differ = ((told[:, there] - expected) ** 2 / expected).sum()
    return float(differ / ((told.shape[0] - 1) * (there.sum() - 1)))


def shortage_effect(columns: int, short: float) -> float:
    """Cohen's w when one of so many gets that share less than it should, and all others as much more."""
    return short / math.sqrt(columns - 1)


def needed(columns: int, short: float, alpha: float, power: float) -> int:
    """How many draws it takes to see one of so many be short by that share, at that significance and power, at least.

    From the noncentral chi-square distribution, which is exact for small shortages; of large ones fewer show it.
    """
    return math.ceil(_noncentrality(columns - 1, alpha, power) / shortage_effect(columns, short) ** 2)


def visible(columns: int, draws: float, alpha: float, power: float) -> float:
    """The least shortage of one of so many that so many draws show; 1 or more: not even its absence."""
    return math.sqrt(_noncentrality(columns - 1, alpha, power) * (columns - 1) / max(draws, 1e-9))


@lru_cache
def _noncentrality(df: int, alpha: float, power: float) -> float:
    """The noncentrality at which a chi-square test has that power."""
    critical = _where(lambda x: chi_square_survival(x, df) <= alpha)
    return _where(lambda shift: _noncentral_survival(critical, df, shift) >= power)


def _where(holds: Callable[[float], bool]) -> float:
    """The least number above 0 for which it holds, of a truth that stays one; to a thousandth."""
    low, high = 0.0, 1.0
    while not holds(high):
        low, high = high, 2 * high
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def chi_square_survival(x: float, df: int) -> float:
    """The chance that a chi-square variable with so many degrees of freedom is at least ``x``.

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
    """The same for a noncentral one: a Poisson mixture of central ones."""
    half = shift / 2
    most = int(half + 12 * math.sqrt(half + 1) + 12)
    weights = (
        math.exp(-half + n * math.log(half) - math.lgamma(n + 1)) if half else float(n == 0) for n in range(most)
    )
    return sum(weight * chi_square_survival(x, df + 2 * n) for n, weight in enumerate(weights))


def spread(counts: Sequence[int]) -> int:
    """From the least to the most."""
    return max(counts) - min(counts)
