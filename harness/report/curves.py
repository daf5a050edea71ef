"""The load's throughput and latency, second by second, as paths on the timeline's axis. Pure geometry."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from harness.history import History, Pair
from harness.history.latency import latency_ms, load, quantile
from harness.report.lanes import Axis, axis
from harness.report.states import SECOND

HEIGHT = 92.0

QUANTILES = (("p99", 0.99), ("p95", 0.95), ("p50", 0.50))
"""The median is drawn last, on top of the others."""

LEAST_MS = 0.01
"""Shorter latencies are drawn as this value: a logarithm needs a value above 0."""


MOST_SECONDS = 100_000
"""A curve of a longer run, more than a day, has gaps where nothing was answered."""


@dataclass(frozen=True)
class Curve:
    """One line: its name, its class, and its SVG path. ``area`` closes the path down to zero.

    ``values`` has (second, value) for the page's cursor.
    """

    name: str
    css: str
    path: str
    values: tuple[tuple[int, float], ...]
    area: str = ""


@dataclass(frozen=True)
class Chart:
    """Curves that share a vertical scale. ``grid`` are (y, label); y counts from the chart's top."""

    title: str
    unit: str
    curves: tuple[Curve, ...]
    grid: tuple[tuple[float, str], ...]
    height: float = HEIGHT


def charts(history: History) -> list[Chart]:
    """Throughput and latency of the load, for all kinds of ops together; empty without a load."""
    pairs = [pair for each in load(history).values() for pair in each if pair.completion is not None]
    if not pairs:
        return []
    scale = axis(history)
    seconds = _seconds(pairs, int(scale.start // SECOND), int(scale.end // SECOND))
    return [_throughput(pairs, scale, seconds), *_latency(pairs, scale, seconds)]


def _seconds(pairs: Sequence[Pair], first: int, last: int) -> Sequence[int]:
    """The seconds of the curves: all of them, or in a very long run those with an answer and the ones beside them."""
    if last - first < MOST_SECONDS:
        return range(first, last + 1)
    near = {second + beside for second in _by_second(pairs) for beside in (-1, 0, 1)}
    return sorted(second for second in near | {first, last} if first <= second <= last)


def _by_second(pairs: Sequence[Pair]) -> dict[int, list[Pair]]:
    groups: dict[int, list[Pair]] = defaultdict(list)
    for pair in pairs:
        if pair.completion is not None:
            groups[pair.completion.time // SECOND].append(pair)
    return groups


def _throughput(pairs: Sequence[Pair], scale: Axis, seconds: Sequence[int]) -> Chart:
    groups = _by_second(pairs)
    good = {second: float(sum(pair.ok for pair in groups.get(second, ()))) for second in seconds}
    bad = {second: float(sum(not pair.ok for pair in groups.get(second, ()))) for second in seconds}
    top = round_up(max([*good.values(), *bad.values(), 1.0]))

    def y(value: float) -> float:
        return HEIGHT * (1 - value / top)

    curves = (
        Curve("answered", "good", _path(good, scale, y), _values(good), _area(good, scale, y)),
        Curve("failed", "bad", _path(bad, scale, y), _values(bad)),
    )
    return Chart("Load", "requests per second", curves, _grid((0, top / 2, top), y))


def _latency(pairs: Sequence[Pair], scale: Axis, seconds: Sequence[int]) -> list[Chart]:
    """Quantiles of each second on a logarithmic scale, because an outage can increase them a hundredfold."""
    groups = _by_second([pair for pair in pairs if pair.ok])
    found = {second: [ms for ms in map(latency_ms, groups.get(second, ())) if ms is not None] for second in seconds}
    times = {second: [max(ms, LEAST_MS) for ms in values] for second, values in found.items() if values}
    if not times:
        return []
    low = floor(log10(min(min(values) for values in times.values())))
    high = max(ceil(log10(max(max(values) for values in times.values()))), low + 1)

    def y(value: float) -> float:
        return HEIGHT * (high - log10(value)) / (high - low)

    lines = []
    for name, share in QUANTILES:
        line = {second: quantile(values, share) for second, values in times.items()}
        lines.append(Curve(name, name, _path(line, scale, y), _values(line)))
    return [
        Chart(
            "Latency", "ms, answered requests", tuple(lines), _grid([10.0**power for power in range(low, high + 1)], y)
        )
    ]


def _values(values: Mapping[int, float]) -> tuple[tuple[int, float], ...]:
    return tuple((second, round(value, 1)) for second, value in sorted(values.items()))


def _path(values: Mapping[int, float], scale: Axis, y: Callable[[float], float]) -> str:
    """A line through the middle of each second, interrupted at seconds without a value."""
    parts: list[str] = []
    last: int | None = None
    for second, value in sorted(values.items()):
        follows = last is not None and second == last + 1
        parts.append(f"{'L' if follows else 'M'}{_x(second, scale):.1f} {y(value):.1f}")
        if not follows:
            parts.append("h0.01")  # a single second appears as a dot
        last = second
    return "".join(parts)


def _area(values: Mapping[int, float], scale: Axis, y: Callable[[float], float]) -> str:
    seconds = sorted(values)
    if not seconds:
        return ""
    line = "".join(f"L{_x(second, scale):.1f} {y(values[second]):.1f}" for second in seconds)
    return f"M{_x(seconds[0], scale):.1f} {HEIGHT}{line}L{_x(seconds[-1], scale):.1f} {HEIGHT}Z"


def _x(second: int, scale: Axis) -> float:
    return scale.x(second * SECOND + SECOND // 2)


def _grid(at: Sequence[float], y: Callable[[float], float]) -> tuple[tuple[float, str], ...]:
    return tuple((round(y(value), 1), f"{value:,.10g}") for value in at)


def round_up(value: float) -> float:
    """The next of 1, 2, 4, 5, 6, 8, 10 times a power of ten."""
    power: float = 10.0 ** floor(log10(value))
    return float(next(step * power for step in (1, 2, 4, 5, 6, 8, 10, 20) if step * power >= value))
