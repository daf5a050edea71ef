"""A run over time and its latency by percentile: drawn on the page, but not used for decisions. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from harness.history import Pair
from harness.history.latency import latency_ms, quantile
from harness.history.timeline import MS

SECOND = 1000 * MS

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999)
"""The percentiles of the curve; a run has those for which it has enough answers."""


@dataclass(frozen=True)
class Course:
    """A run by second, counted from the first request after the warm-up.

    ``answered`` and ``failed`` count requests. ``p50_ms`` and ``p90_ms`` are the latency of the answers; they lack the
    seconds without answers. ``percentiles_ms`` describes the whole run: a share of its answers -> their maximum
    latency.
    """

    answered: Mapping[int, int] = field(default_factory=dict)
    failed: Mapping[int, int] = field(default_factory=dict)
    p50_ms: Mapping[int, float] = field(default_factory=dict)
    p90_ms: Mapping[int, float] = field(default_factory=dict)
    percentiles_ms: Mapping[float, float] = field(default_factory=dict)


def course(pairs: Iterable[Pair], begin_ns: int) -> Course:
    """The course of these requests. Each belongs to the second in which it was answered or given up."""
    seconds: dict[int, list[Pair]] = defaultdict(list)
    for pair in pairs:
        if pair.completion is not None:
            seconds[int((pair.completion.time - begin_ns) // SECOND)].append(pair)
    times = {second: _times(each) for second, each in sorted(seconds.items())}
    every = [ms for each in times.values() for ms in each]
    return Course(
        answered={second: sum(pair.ok for pair in seconds[second]) for second in times},
        failed={second: sum(not pair.ok for pair in seconds[second]) for second in times},
        p50_ms={second: quantile(each, 0.5) for second, each in times.items() if each},
        p90_ms={second: quantile(each, 0.9) for second, each in times.items() if each},
        percentiles_ms={share: quantile(every, share) for share in SHARES if len(every) * (1 - share) >= 1},
    )


def _times(pairs: Iterable[Pair]) -> list[float]:
    return [ms for pair in pairs if pair.ok and (ms := latency_ms(pair)) is not None]
