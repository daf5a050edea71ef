"""From a history and its verdicts to one HTML page. Pure: the same input gives the same page, with or without a lab."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from harness.checks.outage import PARTS
from harness.checks.timeline import MS, director_ops
from harness.history import History, HistoryError, Op
from harness.report import curves, lanes
from harness.verdict import Outcome, Verdict, overall

EVIDENCE_ROWS, LOG_ROWS, LETTERS = 60, 400, 160
"""Bounds of the page: a report must stay a file that a browser opens at once."""

WIDE = 9
"""The most columns of a table that a page has room for."""

NOTHING = "\N{EN DASH}"

HEADLINES: Mapping[Outcome, str] = {
    Outcome.VALID: "The cluster held.",
    Outcome.INVALID: "The cluster did not hold.",
    Outcome.UNKNOWN: "Nobody can tell whether the cluster held.",
}

PART_WORDS: Mapping[str, str] = {
    "detection": "silence noticed",
    "takeover": "address taken",
    "announcement": "address announced",
    "answer": "first good answer",
}


@dataclass(frozen=True)
class Table:
    """A check's numbers as a table."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Segment:
    """A piece of a budget bar, in units of the drawing."""

    x: float
    width: float
    css: str
    name: str
    ms: float


@dataclass(frozen=True)
class Bar:
    """An outage against its budget."""

    title: str
    told: str
    outcome: str
    segments: tuple[Segment, ...]
    budget_x: float
    budget_ms: float
    whisker: tuple[float, float] | None
    split: bool


@dataclass(frozen=True)
class Tile:
    """One number to see first."""

    label: str
    value: str
    unit: str
    note: str


def render(
    history: History,
    verdicts: Sequence[Verdict],
    scenario_title: str,
    promise: str,
    meta: Mapping[str, Any],
) -> str:
    """The report as HTML, self-contained.

    ``meta`` is shown as it is, key by key; its ``command`` is shown as the command that reproduces the run.
    """
    outcome = overall(verdicts)
    page = _ENVIRONMENT.get_template("template.html")
    return page.render(
        title=scenario_title,
        promise=promise,
        outcome=outcome.value,
        headline=HEADLINES[outcome],
        reason=_reason(verdicts, outcome),
        tiles=_tiles(history, verdicts),
        checks=[(verdict, _tables(verdict.numbers)) for verdict in verdicts],
        bars=[_bar(outage) for outage in _rows_of(verdicts, "outage", "outages")],
        part_words=PART_WORDS,
        facts={key: value for key, value in meta.items() if key != "command"},
        command=meta.get("command", ""),
        evidence=[(verdict, *_evidence(history, verdict)) for verdict in verdicts],
        log=_log(history),
        **_drawing(history),
    )


def _reason(verdicts: Sequence[Verdict], outcome: Outcome) -> str:
    """The sentence below the headline: the first verdict's that decided; the outage's when all is well."""
    deciding = [verdict for verdict in verdicts if verdict.outcome == outcome]
    spoken = sorted(deciding, key=lambda verdict: outcome == Outcome.VALID and verdict.check != "outage")
    return spoken[0].summary if spoken else "No check was asked."


def _drawing(history: History) -> dict[str, Any]:
    """All that the time line needs; without a start there is none."""
    try:
        rows = lanes.lanes(history)
        nodes = lanes.palette(history)
    except HistoryError:
        return {"lanes": [], "charts": [], "shades": [], "ticks": [], "nodes": {}, "size": {}}
    below = lanes.bottom(rows)
    charts = [(below + 40 + place * (curves.HEIGHT + 40), chart) for place, chart in enumerate(curves.charts(history))]
    height = charts[-1][0] + curves.HEIGHT if charts else below
    return {
        "lanes": rows,
        "charts": charts,
        "shades": lanes.shades(history),
        "ticks": lanes.axis(history).ticks(),
        "nodes": nodes,
        "size": {"width": lanes.WIDTH, "left": lanes.LEFT, "right": lanes.RIGHT, "height": height + 26, "foot": height},
    }


# --- numbers


def _rows_of(verdicts: Iterable[Verdict], check: str, key: str) -> list[dict[str, Any]]:
    found = [verdict.numbers.get(key) for verdict in verdicts if verdict.check == check]
    return [row for rows in found if isinstance(rows, list) for row in rows]


def _tiles(history: History, verdicts: Sequence[Verdict]) -> list[Tile]:
    tiles = [
        Tile(
            f"{outage['vip']} away, {outage['kind']}",
            _number(outage["estimate_ms"]),
            "ms" if outage["plus_minus_ms"] is None else f"± {_number(outage['plus_minus_ms'])} ms",
            f"budget {_number(outage['budget_ms'])} ms",
        )
        for outage in _rows_of(verdicts, "outage", "outages")[:2]
    ]
    overlaps = _rows_of(verdicts, "ownership", "overlaps")
    if any(verdict.check == "ownership" and "overlaps" in verdict.numbers for verdict in verdicts):
        longest = max((overlap["ms"] for overlap in overlaps), default=0)
        tiles.append(Tile("Two owners at once", _number(longest), "ms", "longest overlap seen"))
    for f, label in (("http", "Probes answered"), ("get", "Requests answered")):
        pairs = history.pairs(f)
        good = sum(pair.ok for pair in pairs)
        if pairs:
            tiles.append(Tile(label, f"{good:,}", f"of {len(pairs):,}", f"{len(pairs) - good:,} were not"))
    return tiles


def _bar(outage: Mapping[str, Any]) -> Bar:
    parts: Mapping[str, float | None] = outage.get("parts_ms") or {}
    known = [(name, value) for name in PARTS if (value := parts.get(name)) is not None]
    split = len(known) == len(PARTS)
    pieces = known if split else [("whole", float(outage["estimate_ms"]))]
    upper = outage["upper_ms"] if outage["upper_ms"] is not None else outage["lower_ms"]
    widest = max(outage["budget_ms"], upper, sum(value for _, value in pieces), 1) * 1.04
    unit = 1000.0 / widest
    ends = [0.0]
    for _, value in pieces:
        ends.append(ends[-1] + value * unit)
    over = "invalid" if outage["lower_ms"] > outage["budget_ms"] or not outage["ended"] else "valid"
    return Bar(
        title=f"{outage['vip']} {outage['kind']}" + _hands(outage),
        told=_told(outage),
        outcome="unknown" if over == "valid" and upper > outage["budget_ms"] else over,
        segments=tuple(
            Segment(round(start, 2), round(end - start, 2), name, PART_WORDS.get(name, "not split"), value)
            for (name, value), (start, end) in zip(pieces, pairwise(ends), strict=True)
        ),
        budget_x=round(outage["budget_ms"] * unit, 2),
        budget_ms=outage["budget_ms"],
        whisker=None if split else (round(outage["lower_ms"] * unit, 2), round(upper * unit, 2)),
        split=split,
    )


def _hands(outage: Mapping[str, Any]) -> str:
    if not outage.get("owner"):
        return ""
    return f", {outage['owner']} to {outage.get('survivor') or 'nobody'}"


def _told(outage: Mapping[str, Any]) -> str:
    if outage["plus_minus_ms"] is None:
        return f"at least {_number(outage['lower_ms'])} ms"
    return f"{_number(outage['estimate_ms'])} ± {_number(outage['plus_minus_ms'])} ms"


def _tables(numbers: Mapping[str, Any]) -> list[Table]:
    """Lists of rows and tables of rows become tables; all that is left becomes one table of names and values."""
    tables, rest = [], []
    for key, value in numbers.items():
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            tables.append(_table(key, value))
        elif isinstance(value, dict) and value and all(isinstance(row, dict) for row in value.values()):
            tables.append(_table(key, [{"": name, **row} for name, row in value.items()]))
        elif value not in ([], {}):
            rest.append((_words(key), _cell(value)))
    return [*tables, Table("", ("", ""), tuple(rest))] if rest else tables


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [tuple(_words(key) for key in keys), *(tuple(_cell(row.get(key)) for key in keys) for row in rows)]
    if len(keys) > WIDE and len(rows) < WIDE:
        lines = list(zip(*lines, strict=True))  # a page is higher than it is wide
    return Table(_words(title), lines[0], tuple(lines[1:]))


def _words(key: str) -> str:
    words = key.replace("_", " ")
    return f"{words.removesuffix(' ms')}, ms" if words.endswith(" ms") else words


def _cell(value: Any) -> str:
    match value:
        case None:
            return NOTHING
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return _number(value)
        case dict():
            return "; ".join(f"{_words(str(key))}: {_cell(item)}" for key, item in value.items())
        case list() | tuple():
            return ", ".join(_cell(item) for item in value) or NOTHING
        case _:
            return str(value)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:,.1f}"


# --- ops


def _evidence(history: History, verdict: Verdict) -> tuple[list[tuple[str, ...]], int]:
    """The ops that a verdict rests on as rows, and how many more there are. An op that is not there is left out."""
    ops = []
    for index in verdict.evidence:
        try:
            ops.append(history.op(index))
        except HistoryError:
            continue
    ordered = sorted(ops, key=lambda op: (op.time, op.index))
    return [_row(op) for op in ordered[:EVIDENCE_ROWS]], max(len(ordered) - EVIDENCE_ROWS, 0)


def _row(op: Op) -> tuple[str, ...]:
    return str(op.index), f"{op.time / 1e9:.3f}", op.process, op.type, op.f, _short(op)


def _short(op: Op) -> str:
    text = op.value if isinstance(op.value, str) else json.dumps(op.value, ensure_ascii=False)
    told = f"{text} ({op.error})" if op.error else text
    return told if len(told) <= LETTERS else told[: LETTERS - 1] + "…"


def _plain(op: Op) -> str:
    return op.value if isinstance(op.value, str) else _cell(op.value)


def _log(history: History) -> list[tuple[str, str, str, str]]:
    """Events and the nodes' own log lines around them, merged by time: (seconds, css, who, text)."""
    events = _events(history)
    near = [(op.time - 2_000 * MS, op.time + 6_000 * MS) for op in events]
    lines = [op for op in history.of("log") if any(start <= op.time <= end for start, end in near)]
    merged = sorted((*events, *lines), key=lambda op: (op.time, op.index))
    return [
        (f"{op.time / 1e9:.3f}", "line" if op.f == "log" else f"event {op.f}", op.process, _plain(op))
        for op in merged[:LOG_ROWS]
    ]


def _events(history: History) -> list[Op]:
    events = [*history.seen("power"), *history.seen("fault"), *history.seen("step")]
    try:
        directors = director_ops(history)
    except HistoryError:
        return events
    for ops in directors.values():
        samples = [op for op in ops if op.f == "holds"]
        events += [after for before, after in pairwise(samples) if after["vips"] != before["vips"]]
    return events


_ENVIRONMENT = Environment(
    loader=PackageLoader("harness", "report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
