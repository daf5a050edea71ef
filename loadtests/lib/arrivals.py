"""Open arrivals: users come at planned times, whether the site answers or not.

A load of users who wait for each answer goes quiet when the site is slow, and so never sees how slow it is. Arrivals
that are planned before anything is asked do not ("coordinated omission").
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """Arrivals for ``for_s`` seconds; their rate changes evenly from ``per_s`` to ``to_per_s``."""

    for_s: float
    per_s: float
    to_per_s: float

    @property
    def slope(self) -> float:
        """Change of the rate per second."""
        return (self.to_per_s - self.per_s) / self.for_s

    def after(self, passed_s: float) -> Phase:
        """The rest of the phase."""
        return Phase(self.for_s - passed_s, self.per_s + self.slope * passed_s, self.to_per_s)

    @property
    def arrivals(self) -> float:
        """Number of arrivals in the whole phase."""
        return (self.per_s + self.to_per_s) / 2 * self.for_s

    def until(self, arrivals: float) -> float:
        """The time in seconds by which that many have arrived, fewer than in the whole phase."""
        if not arrivals:
            return 0.0
        # arrivals = per_s x + slope/2 x^2, solved in the form that does not cancel when the slope is small
        root = math.sqrt(max(self.per_s**2 + 2 * self.slope * arrivals, 0))
        return min(2 * arrivals / (self.per_s + root), self.for_s)


def times_s(kind: str, phases: Iterable[Phase], seed: int) -> Iterator[float]:
    """The times of all arrivals, in seconds after the first phase began. Pure.

    ``constant``: evenly, at the rate; ``poisson``: at random, each independent of the others. Both are the same walk
    along the number of arrivals, in steps of one or in exponential steps (a Poisson process with a changing rate is one
    of rate 1 on that axis). After the last phase no one arrives.

    >>> list(times_s("constant", [Phase(2, 2, 2)], 0))
    [0.5, 1.0, 1.5]
    """
    chance, began = random.Random(seed), 0.0
    step = _step(kind, chance)
    for phase in phases:
        left, at = phase, began
        while step < left.arrivals:
            passed = left.until(step)
            left, at, step = left.after(passed), at + passed, _step(kind, chance)
            yield at
        step -= left.arrivals
        began += phase.for_s


def _step(kind: str, chance: random.Random) -> float:
    return 1.0 if kind == "constant" else chance.expovariate(1.0)


def read(text: str) -> Iterator[float]:
    """The times of ``{"kind": ..., "seed": ..., "phases": [[for_s, per_s, to_per_s], ...]}``."""
    plan = json.loads(text)
    return times_s(plan["kind"], [Phase(*map(float, phase)) for phase in plan["phases"]], plan["seed"])
