"""The load's throughput and latency, second by second, as paths on the time line's axis. Pure geometry."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from harness.history import History, Pair
from harness.report.lanes import SECOND, Axis, axis

HEIGHT = 92.0


@dataclass(frozen=True)
class Curve:
    """One line: its name, its class, its SVG path. ``area`` closes the path down to zero."""

    name: str
    css: str
    path: str
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
    """Throughput and latency of the load; nothing without load."""
    pairs = [pair for pair in history.pairs("get") if pair.completion is not None]
    if not pairs:
        return []
    scale = axis(history)
    seconds = range(int(scale.start // SECOND), int(scale.end // SECOND) + 1)
    return [_throughput(pairs, scale, seconds), _latency(pairs, scale, seconds)]


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least that share of the values does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(ceil(share * len(ordered)) - 1, 0)]


def _by_second(pairs: Sequence[Pair]) -> dict[int, list[Pair]]:
    groups: dict[int, list[Pair]] = defaultdict(list)
    for pair in pairs:
        if pair.completion is not None:
            groups[pair.completion.time // SECOND].append(pair)
    return groups


def _throughput(pairs: Sequence[Pair], scale: Axis, seconds: range) -> Chart:
    groups = _by_second(pairs)
    good = {second: float(sum(pair.ok for pair in groups.get(second, ()))) for second in seconds}
    bad = {second: float(sum(not pair.ok for pair in groups.get(second, ()))) for second in seconds}
    top = _round_up(max([*good.values(), *bad.values(), 1.0]))
    curves = (
        Curve("answered", "good", _path(good, scale, top), _area(good, scale, top)),
        Curve("failed", "bad", _path(bad, scale, top)),
    )
    return Chart("Load", "requests per second", curves, _grid(top))


def _latency(pairs: Sequence[Pair], scale: Axis, seconds: range) -> Chart:
    groups = _by_second([pair for pair in pairs if pair.ok])
    times = {second: [_ms(pair) for pair in groups[second]] for second in seconds if groups.get(second)}
    p50 = {second: quantile(values, 0.50) for second, values in times.items()}
    p95 = {second: quantile(values, 0.95) for second, values in times.items()}
    top = _round_up(max([*p95.values(), 1.0]))
    curves = (
        Curve("p95", "p95", _path(p95, scale, top)),
        Curve("p50", "p50", _path(p50, scale, top)),
    )
    return Chart("Latency", "ms, of answered requests", curves, _grid(top))


def _ms(pair: Pair) -> float:
    assert pair.completion is not None
    measured = pair.completion.get("ms")
    return float(measured) if measured is not None else (pair.completion.time - pair.invoke.time) / 1e6


def _path(values: Mapping[int, float], scale: Axis, top: float) -> str:
    """A line through the middle of each second; a second without a value breaks it."""
    parts: list[str] = []
    last: int | None = None
    for second, value in sorted(values.items()):
        follows = last is not None and second == last + 1
        parts.append(f"{'L' if follows else 'M'}{_x(second, scale):.1f} {_y(value, top):.1f}")
        if not follows:
            parts.append("h0.01")  # a lone second shows as a dot
        last = second
    return "".join(parts)


def _area(values: Mapping[int, float], scale: Axis, top: float) -> str:
    seconds = sorted(values)
    if not seconds:
        return ""
    line = "".join(f"L{_x(second, scale):.1f} {_y(values[second], top):.1f}" for second in seconds)
    return f"M{_x(seconds[0], scale):.1f} {HEIGHT}{line}L{_x(seconds[-1], scale):.1f} {HEIGHT}Z"


def _x(second: int, scale: Axis) -> float:
    return scale.x(second * SECOND + SECOND // 2)


def _y(value: float, top: float) -> float:
    return HEIGHT * (1 - value / top)


def _grid(top: float) -> tuple[tuple[float, str], ...]:
    return tuple((round(_y(value, top), 1), f"{value:,.10g}") for value in (0, top / 2, top))


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 5, 6, 8, 10 times a power of ten."""
    power: float = 10.0 ** floor(log10(value))
    return float(next(step * power for step in (1, 2, 4, 5, 6, 8, 10, 20) if step * power >= value))
