"""How much slower was the machine during a run than before it? Pure.

Real daemons on a shared machine take longer when others use it. A lab does the same small piece of work every second,
outside of all nodes, and records how long it took (``pace`` ops). ``Cluster.pace_ms`` is how long it took when the
resource scripts were measured, before the run. Outside of the nodes, because what a node does itself must not excuse
it.
"""

from __future__ import annotations

from statistics import median

from harness.history.failover_budget import MOST_SLOWDOWN
from harness.history.ops import History
from harness.history.timeline import MS

AROUND_NS = 1_500 * MS
"""A sample comes every second: those this long before and after a time belong to it, so that it has some."""


def slowdown(history: History, start: int, end: int) -> float | None:
    """How many times slower the machine was from ``start`` to ``end`` (ns): 1 when it was not slower.

    1 for a history that does not say how fast it was before (and in virtual time); None when it was not measured then.
    """
    usual = history.cluster.pace_ms
    if usual is None or usual <= 0:
        return 1.0
    took = [
        op["ms"]
        for op in history.seen("pace")
        if start - AROUND_NS <= op.time <= end + AROUND_NS and isinstance(op.get("ms"), int | float)
    ]
    return max(1.0, median(took) / usual) if took else None


def too_slow(slowdown: float | None) -> str:
    """Why a time that was too long proves nothing, for a sentence; empty when it proves something."""
    if slowdown is None:
        return "the machine's speed was not measured meanwhile"
    if slowdown > MOST_SLOWDOWN:
        return f"the machine was {slowdown:.1f} times slower than before the run"
    return ""
