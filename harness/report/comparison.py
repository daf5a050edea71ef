"""The page of a comparison: one HTML page, in the style of a run's report. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from harness.compare import ALL, Comparison, Decision, Group, Measures, Result
from harness.report import courses
from harness.report.render import ENVIRONMENT, NOTHING
from harness.verdict import Outcome

WIDTH, LEFT, RIGHT = 1000.0, 92.0, 120.0
"""The measures of a drawing: the sides' names are on the left, their medians on the right."""

OUTCOMES: Mapping[Decision, Outcome] = {
    Decision.REGRESSION: Outcome.INVALID,
    Decision.NOT_ENOUGH: Outcome.UNKNOWN,
    Decision.IMPROVEMENT: Outcome.VALID,
    Decision.NO_DIFFERENCE: Outcome.VALID,
}
"""The outcome that corresponds to each decision: it gives its colour and its exit code."""

HEADLINES: Mapping[Decision, str] = {
    Decision.REGRESSION: "The candidate is worse.",
    Decision.IMPROVEMENT: "The candidate is better.",
    Decision.NO_DIFFERENCE: "There is no difference above the tolerance.",
    Decision.NOT_ENOUGH: "There are not enough runs to decide.",
}

UNITS: Mapping[str, tuple[str, float]] = {
    "p50_ms": ("ms", 1),
    "p90_ms": ("ms", 1),
    "p99_ms": ("ms", 1),
    "error_share": ("%", 100),
    "throughput_per_s": ("/s", 1),
    "knee_per_s": ("/s", 1),
}
"""Each statistic -> the unit in which it is shown, and the factor to convert it."""


@dataclass(frozen=True)
class Row:
    """One side of a drawing: its runs as dots, their median, and its interval."""

    name: str
    y: float
    dots: tuple[tuple[float, str], ...]
    """x, and the tooltip."""
    median: float | None
    label: str
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Drawing:
    """The runs of both sides on one axis."""

    comparison: Comparison
    outcome: str
    rows: tuple[Row, ...]
    ends: tuple[str, str]
    """The values at the ends of the axis."""


def render(result: Result, title: str, runs: Sequence[tuple[str, Measures, str]], command: str) -> str:
    """The self-contained page. ``runs`` has the side, the numbers, and the report's address (or "") of each run."""
    endpoints = [
        (each, OUTCOMES[each.decision].value, [_drawing(one) for one in each.comparisons if one.test])
        for each in result.endpoints
    ]
    return ENVIRONMENT.get_template("comparison.html").render(
        title=title,
        result=result,
        outcome=OUTCOMES[result.decision].value,
        headline=HEADLINES[result.decision],
        endpoints=endpoints,
        runs=[(side, run, link, _shown(run)) for side, run, link in runs],
        charts=courses.charts([(side, run) for side, run, _ in runs]),
        plot={"width": courses.WIDTH, "height": courses.HEIGHT, "left": courses.LEFT, "right": courses.RIGHT},
        sides=len({side for side, _, _ in runs}),
        knee=any("knee_per_s" in of for _, run, _ in runs for of in run.endpoints.values()),
        shares=_shares(runs),
        cpu=_cpu(runs),
        command=command,
        width=WIDTH,
        left=LEFT,
        right=WIDTH - RIGHT,
    )


def _drawing(comparison: Comparison) -> Drawing:
    sides = {"baseline": comparison.baseline, "candidate": comparison.candidate}
    every = [value for side in sides.values() for value in side.values.values()]
    low, high = (min(every), max(every)) if every else (0.0, 0.0)
    room = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    low, high = max(low - room, 0.0), high + room
    unit, factor = UNITS[comparison.statistic]

    def x(value: float) -> float:
        return round(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    def number(value: float) -> str:
        return f"{value * factor:,.2f}{'' if unit == '/s' else ' '}{unit}"

    def row(name: str, side: Group, y: float) -> Row:
        interval = None
        if side.low is not None and side.high is not None:
            interval = x(side.low), x(side.high)
        return Row(
            name,
            y,
            tuple((x(value), f"{run}: {number(value)}") for run, value in side.values.items()),
            None if side.median is None else x(side.median),
            "no data" if side.median is None else number(side.median),
            interval,
        )

    return Drawing(
        comparison,
        OUTCOMES[comparison.decision].value if comparison.decision else "",
        tuple(row(name, side, 14 + 24 * place) for place, (name, side) in enumerate(sides.items())),
        (number(low), number(high)),
    )


def _shown(run: Measures) -> list[str]:
    """The cells of a run in the table of runs: requests, throughput, quantiles, errors and knee."""
    of_all = run.endpoints.get(ALL) or next(iter(run.endpoints.values()), {})
    asked = run.requests.get(ALL) or sum(run.requests.values())
    cells = [f"{asked:,}"]
    for statistic in ("throughput_per_s", "p50_ms", "p90_ms", "p99_ms", "error_share", "knee_per_s"):
        value = of_all.get(statistic)
        cells.append(NOTHING if value is None else f"{value * UNITS[statistic][1]:,.2f}")
    return cells


def _shares(runs: Sequence[tuple[str, Measures, str]]) -> list[tuple[str, list[tuple[str, dict[str, str]]], list[str]]]:
    """For real servers and virtual IPs: the share of each in the answers of a side."""
    found = []
    for by in ("node", "vip"):
        names = sorted({name for _, run, _ in runs for name in run.shares.get(by, {})})
        rows = []
        for side in dict.fromkeys(side for side, _, _ in runs):
            counts = {
                name: sum(run.shares.get(by, {}).get(name, 0) for its, run, _ in runs if its == side) for name in names
            }
            whole = sum(counts.values())
            if whole:
                rows.append((side, {name: f"{100 * count / whole:.1f} %" for name, count in counts.items()}))
        if names and rows:
            found.append(("real server" if by == "node" else "virtual IP", rows, names))
    return found


def _cpu(runs: Sequence[tuple[str, Measures, str]]) -> list[tuple[str, dict[str, str]]]:
    """Each side, and the median CPU use of each node in its runs."""
    names = sorted({name for _, run, _ in runs for name in run.cpu})
    rows = []
    for side in dict.fromkeys(side for side, _, _ in runs):
        of_side = {name: [run.cpu[name] for its, run, _ in runs if its == side and name in run.cpu] for name in names}
        rows.append((side, {name: f"{100 * median(of):.1f} %" if of else NOTHING for name, of in of_side.items()}))
    return rows if names else []
