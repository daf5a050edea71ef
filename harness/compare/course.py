"""The course of a run, second by second, and its latency by percentile: what a page draws and no test judges. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from harness.history import Pair
from harness.history.latency import latency_ms, quantile
from harness.history.timeline import MS

SECOND = 1000 * MS

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999)
"""The percentiles of the curve; a run draws those that it has enough answers for."""


@dataclass(frozen=True)
class Course:
    """What came in each second after the first request that counts.

    ``answered`` and ``failed`` are requests in that second; ``p50_ms`` and ``p90_ms`` are of its answers, and missing
    where there were none. ``percentiles_ms`` is of the whole run: a share of its answers -> the time that they took at
    most.
    """

    answered: Mapping[int, int] = field(default_factory=dict)
    failed: Mapping[int, int] = field(default_factory=dict)
    p50_ms: Mapping[int, float] = field(default_factory=dict)
    p90_ms: Mapping[int, float] = field(default_factory=dict)
    percentiles_ms: Mapping[float, float] = field(default_factory=dict)


def course(pairs: Iterable[Pair], begin_ns: int) -> Course:
    """The course of these requests. Each belongs to the second in which it was answered, or given up."""
    seconds: dict[int, list[Pair]] = defaultdict(list)
    for pair in pairs:
        if pair.completion is not None:
            seconds[int((pair.completion.time - begin_ns) // SECOND)].append(pair)
    times = {second: _times(some) for second, some in sorted(seconds.items())}
    every = [ms for some in times.values() for ms in some]
    return Course(
        answered={second: sum(pair.ok for pair in seconds[second]) for second in times},
        failed={second: sum(not pair.ok for pair in seconds[second]) for second in times},
        p50_ms={second: quantile(some, 0.5) for second, some in times.items() if some},
        p90_ms={second: quantile(some, 0.9) for second, some in times.items() if some},
        percentiles_ms={share: quantile(every, share) for share in SHARES if len(every) * (1 - share) >= 1},
    )


def _times(pairs: Iterable[Pair]) -> list[float]:
    return [ms for pair in pairs if pair.ok and (ms := latency_ms(pair)) is not None]
