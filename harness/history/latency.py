"""The load: what it asked, how long the answers took, and quantiles of that. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from harness.history import History, Pair

USERS = "user:"
"""The processes of the load: visitors and players."""

FOREVER_MS = 1e12
"""No answer takes 30 years: such a number is a client's mistake."""


def load(history: History) -> dict[str, list[Pair]]:
    """Each kind of op that the load's users did -> those ops, by time of sending.

    Each as its user saw it: without those at an address that took no connection, and that were asked again elsewhere.
    """
    return {f: [pair for pair in pairs if not asked_again(pair)] for f, pairs in asked(history).items()}


def asked(history: History) -> dict[str, list[Pair]]:
    """The same with each try."""
    kinds = sorted({op.f for op in history.process(USERS)})
    return {f: [pair for pair in history.pairs(f) if pair.invoke.process.startswith(USERS)] for f in kinds}


def asked_again(pair: Pair) -> bool:
    """Whether the client asked the next address at once, because this one took no connection."""
    return pair.completion is not None and pair.completion.get("again") is True


def latency_ms(pair: Pair) -> float | None:
    """How long an answer took: as the client measured it, else between the two ops; None where there was none."""
    if pair.completion is None:
        return None
    measured = pair.completion.get("ms")
    told = isinstance(measured, int | float) and 0 <= measured < FOREVER_MS
    return float(measured) if told else (pair.completion.time - pair.invoke.time) / 1e6


def late_ms(pair: Pair) -> float | None:
    """How long after its planned time an op was begun; None for one that was not planned."""
    late = pair.invoke.get("late_ms")
    return float(late) if type(late) in (int, float) else None


def quantile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least that share of the values does not exceed (nearest rank). There must be one."""
    ordered = sorted(values)
    return ordered[max(ceil(share * len(ordered)) - 1, 0)]
