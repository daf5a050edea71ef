"""The requests of the load, their latency, and its quantiles. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from harness.history import History, Pair

REFUSALS = frozenset({404, 409})
"""The statuses with which the site refuses an op for a good reason: no such upload, not enough coins."""

USERS = "user:"
"""The processes of the load: visitors and players."""

FOREVER_MS = 1e12
"""30 years: a larger latency is a mistake of the client."""


def load(history: History) -> dict[str, list[Pair]]:
    """Each kind of op of the load's users -> those ops, by time of sending, as the user saw them.

    Leaves out tries at an address that accepted no connection if the client tried the next address at once.
    """
    return {f: [pair for pair in pairs if not asked_again(pair)] for f, pairs in asked(history).items()}


def asked(history: History) -> dict[str, list[Pair]]:
    """The same with all tries."""
    kinds = sorted({op.f for op in history.process(USERS)})
    return {f: [pair for pair in history.pairs(f) if pair.invoke.process.startswith(USERS)] for f in kinds}


def asked_again(pair: Pair) -> bool:
    """Whether this address accepted no connection and the client tried the next one at once."""
    return pair.completion is not None and pair.completion.get("again") is True


def refused(pair: Pair) -> bool:
    """Whether the site refused the op for a good reason: with one of REFUSALS, and ``written`` in its own answer."""
    completion = pair.completion
    status = None if completion is None else completion.get("status")
    return (
        completion is not None and isinstance(status, int) and status in REFUSALS and completion.get("written") == "no"
    )


def latency_ms(pair: Pair) -> float | None:
    """The latency that the client measured, or else the time between the two ops; None without an answer."""
    if pair.completion is None:
        return None
    measured = pair.completion.get("ms")
    plausible = isinstance(measured, int | float) and 0 <= measured < FOREVER_MS
    return float(measured) if plausible else (pair.completion.time - pair.invoke.time) / 1e6


def late_ms(pair: Pair) -> float | None:
    """How long after its planned time an op began; None for an op without one."""
    late = pair.invoke.get("late_ms")
    return float(late) if type(late) in (int, float) else None


def quantile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least that share of the values does not exceed (nearest rank); needs one value."""
    return float(np.quantile(list(values), share, method="inverted_cdf"))
