"""The exact interval for a share of tries (Clopper and Pearson 1934, Biometrika 26, p. 404). Pure."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["MOST", "interval"]

MOST = 1000
"""Tries: beyond this, numbers of combinations do not fit into a float."""

HALVINGS = 60
"""Of the interval 0 to 1: more than the digits of a float."""


def interval(hits: int, tries: int, confidence: float = 0.95) -> tuple[float, float]:
    """The shares that are not refuted by that many hits: each end has half of the remaining risk. Raises ValueError.

    >>> [round(end, 4) for end in interval(1, 10)]
    [0.0025, 0.445]
    >>> [round(end, 4) for end in interval(0, 30)]
    [0.0, 0.1157]
    """
    if not 0 <= hits <= tries or not 1 <= tries <= MOST:
        raise ValueError(f"{hits} hits in {tries} tries: there are 1 to {MOST} tries, and at most as many hits")
    risk = (1 - confidence) / 2
    least = 0.0 if hits == 0 else _root(lambda share: _tail(hits, tries, share) - risk)
    most = 1.0 if hits == tries else _root(lambda share: risk - (1 - _tail(hits + 1, tries, share)))
    return least, most


def _tail(least: int, tries: int, share: float) -> float:
    """The chance of at least so many hits."""
    return math.fsum(
        math.comb(tries, hits) * share**hits * (1 - share) ** (tries - hits) for hits in range(least, tries + 1)
    )


def _root(rising: Callable[[float], float]) -> float:
    """Where a function that rises from below 0 crosses it, between 0 and 1."""
    below, above = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (below + above) / 2
        if rising(middle) < 0:
            below = middle
        else:
            above = middle
    return (below + above) / 2
