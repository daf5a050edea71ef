"""The runs of two sides over time, and their latency by percentile, as paths of charts. Pure geometry."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, log10
from statistics import median

from harness.compare import Measures
from harness.compare.course import Course
from harness.report.curves import LEAST_MS, round_up

WIDTH, HEIGHT = 1000.0, 130.0
LEFT, RIGHT = 92.0, 20.0
MOST_POINTS = 150
"""The maximum number of points of a curve; in a longer run, each point covers several seconds."""
TICKS = 6
STEPS = (1, 2, 5)
"""The steps of a logarithmic scale in each power of ten."""

Values = Mapping[float, float]


@dataclass(frozen=True)
class Line:
    """One curve: its side, its name, and its path. ``thin`` tells it from a bolder one of the same side."""

    side: str
    name: str
    path: str
    thin: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines on one scale. ``grid`` are (y, label) and ``ticks`` (x, label)."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    grid: tuple[tuple[float, str], ...]
    ticks: tuple[tuple[float, str], ...]


def charts(runs: Sequence[tuple[str, Measures]]) -> list[Chart]:
    """Answers and latency over time, and latency by percentile: the median of the runs of each side."""
    sides = {side: [run.course for its, run in runs if its == side] for side, _ in runs}
    ends = [max(one.answered) for some in sides.values() for one in some if one.answered]
    seconds = min(ends, default=0)  # the seconds that all runs have, without the one in which a run ended
    if not seconds:
        return []
    return [_answers(sides, seconds), *_latency(sides, seconds), *_percentiles(sides)]


def _answers(sides: Mapping[str, Sequence[Course]], seconds: int) -> Chart:
    # a second without an answer counts as 0
    each = {
        (side, "answers"): _over_time([_whole(one.answered, seconds) for one in some], seconds)
        for side, some in sides.items()
    }
    failed = {
        (side, "failed"): _over_time([_whole(one.failed, seconds) for one in some], seconds)
        for side, some in sides.items()
        if any(sum(one.failed.values()) for one in some)
    }
    top = round_up(max(value for line in each.values() for value in line.values()) or 1)

    def y(value: float) -> float:
        return HEIGHT * (1 - value / top)

    x = _time_axis(seconds)
    lines = _lines(each, x, y, thin="") + _lines(failed, x, y, thin="failed")
    return Chart("Answers", "per second", lines, _grid((0, top / 2, top), y), _seconds(seconds, x))


def _whole(counts: Mapping[int, int], seconds: int) -> dict[int, float]:
    return {second: float(counts.get(second, 0)) for second in range(seconds)}


def _latency(sides: Mapping[str, Sequence[Course]], seconds: int) -> list[Chart]:
    each = {
        **{(side, "p50"): _over_time([one.p50_ms for one in some], seconds) for side, some in sides.items()},
        **{(side, "p90"): _over_time([one.p90_ms for one in some], seconds) for side, some in sides.items()},
    }
    if not any(each.values()):
        return []
    y, grid = _log_axis(value for line in each.values() for value in line.values())
    x = _time_axis(seconds)
    lines = _lines(each, x, y, thin="p90")
    return [Chart("Latency", "ms, over time", lines, grid, _seconds(seconds, x))]


def _percentiles(sides: Mapping[str, Sequence[Course]]) -> list[Chart]:
    each = {(side, "latency"): _percentiles_of(some) for side, some in sides.items()}
    if not any(each.values()):
        return []
    y, grid = _log_axis(value for line in each.values() for value in line.values())
    most = max(_nines(share) for line in each.values() for share in line)

    def x(share: float) -> float:
        return LEFT + _nines(share) / most * (WIDTH - LEFT - RIGHT) if most else LEFT

    shares = sorted({share for line in each.values() for share in line} & {0.0, 0.5, 0.9, 0.99, 0.999})
    ticks = tuple((round(x(share), 1), f"{100 * share:g} %") for share in shares)
    return [Chart("Latency", "ms, by percentile", _lines(each, x, y, thin=""), grid, ticks)]


def _percentiles_of(courses: Sequence[Course]) -> Values:
    """The median over runs of each percentile that all of them have."""
    shares = set.intersection(*({*one.percentiles_ms} for one in courses)) if courses else set()
    return {share: max(median(one.percentiles_ms[share] for one in courses), LEAST_MS) for share in sorted(shares)}


def _nines(share: float) -> float:
    """The place of a percentile: the 90th is as far from the 99th as the 99th from the 99.9th."""
    return -log10(1 - share)


# --- the median of runs, and axes


def _over_time(runs: Sequence[Mapping[int, float]], seconds: int) -> Values:
    """The middle of a point's seconds -> the median of the runs' values in them."""
    step = ceil(seconds / MOST_POINTS)
    points: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        for second, value in run.items():
            if second < seconds:
                points[second // step].append(value)
    return {(point + 0.5) * step: median(values) for point, values in sorted(points.items())}


def _time_axis(seconds: int) -> Callable[[float], float]:
    return lambda second: LEFT + min(second / seconds, 1) * (WIDTH - LEFT - RIGHT)


def _seconds(seconds: int, x: Callable[[float], float]) -> tuple[tuple[float, str], ...]:
    step = round_up(max(seconds / TICKS, 1))
    return tuple((round(x(at), 1), f"{at:g} s") for at in (step * n for n in range(floor(seconds / step) + 1)))


def _log_axis(values: Iterable[float]) -> tuple[Callable[[float], float], tuple[tuple[float, str], ...]]:
    """A logarithmic scale from the step below the minimum to the step above the maximum."""
    every = [max(value, LEAST_MS) for value in values]
    powers = range(floor(log10(min(every))), ceil(log10(max(every))) + 1)
    steps = sorted(step * 10.0**power for power in powers for step in STEPS)
    low = max((step for step in steps if step <= min(every)), default=steps[0])
    high = min((step for step in steps if step >= max(every) and step > low), default=steps[-1])

    def y(value: float) -> float:
        return HEIGHT * (log10(high) - log10(max(value, LEAST_MS))) / (log10(high) - log10(low))

    return y, _grid([step for step in steps if low <= step <= high], y)


def _grid(at: Iterable[float], y: Callable[[float], float]) -> tuple[tuple[float, str], ...]:
    return tuple((round(y(value), 1), f"{value:,.10g}") for value in at)


def _lines(
    each: Mapping[tuple[str, str], Values], x: Callable[[float], float], y: Callable[[float], float], thin: str
) -> tuple[Line, ...]:
    return tuple(
        Line(side, name, _path([(x(at), y(value)) for at, value in values.items()]), name == thin)
        for (side, name), values in each.items()
        if values
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    """A line through all points; a single point appears as a dot."""
    (x, y), *_ = points
    moves = "".join(f"L{there[0]:.1f} {there[1]:.1f}" for _, there in pairwise(points))
    return f"M{x:.1f} {y:.1f}{moves or 'h0.01'}"
