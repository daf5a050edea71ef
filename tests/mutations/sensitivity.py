"""How small a defect may be and still be seen: the same mutations in several sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.verdict import Outcome
from tests.mutations import cluster as m
from tests.mutations.kinds import Base, Kind, Plant, tried
from tests.support.histories import VIP1, VIP2

TIMES = 8


@dataclass(frozen=True)
class Sweep:
    """A mutation in several sizes."""

    name: str
    base: Base
    unit: str
    sizes: Sequence[float]
    plant: Callable[[float], Plant]

    def shares(self) -> list[str]:
        """For each size: how often it was invalid, and how often unknown."""
        cells = []
        for size in self.sizes:
            outcomes = tried(Kind(f"{self.name} {size}", self.base, self.plant(size), "sensitivity"), TIMES).outcomes
            bad, unsure = (outcomes.count(outcome) for outcome in (Outcome.INVALID, Outcome.UNKNOWN))
            cells.append(f"{size:g} {self.unit}: {bad}/{len(outcomes)}" + (f" (+{unsure} unknown)" if unsure else ""))
        return cells


SWEEPS: tuple[Sweep, ...] = (
    Sweep(
        "no answer",
        m.CUT,
        "ms",
        (100, 200, 300, 500, 1_000, 2_000),
        lambda ms: m.unanswered(VIP2, 50_000, 50_000 + ms),
    ),
    Sweep("takeover later by", m.CUT, "ms", (500, 1_000, 2_000, 3_000, 6_000), m.later),
    Sweep(
        "nobody has the address, no answer",
        m.CUT,
        "ms",
        (250, 500, 1_000, 2_000),
        lambda ms: m.both(m.holding("lb-2", 50_000, 50_000 + ms, less=VIP2), m.unanswered(VIP2, 50_000, 50_000 + ms)),
    ),
    Sweep(
        "2 have the address",
        m.CUT,
        "ms",
        (250, 500, 1_000, 2_000),
        lambda ms: m.holding("lb-1", 50_000, 50_000 + ms, more=VIP2),
    ),
    Sweep(
        "every n-th probe lost for 6 s",
        m.CUT,
        "th",
        (10, 6, 5, 4, 3, 2),
        lambda every: m.scattered(VIP2, 48_000, 54_000, round(every)),
    ),
    Sweep(
        "a failed real server is out late by",
        m.SERVERS,
        "s",
        (5, 8, 10, 12, 15),
        lambda s: m.table("lb-1", VIP1, lambda t: t["proof"], lambda t: t["proof"] + 1_000 * s, weight=1),
    ),
    Sweep(
        "a real server gets of its connections",
        m.CALM,
        "%",
        (95, 90, 80, 65, 50, 25),
        lambda percent: m.starved_a_little("web-3", percent / 100),
    ),
)
