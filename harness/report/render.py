"""The report: one HTML page from a history and its verdicts. Pure: the same input gives the same page."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from harness.history import History, HistoryError, Op, promises
from harness.history.latency import load
from harness.history.phases import TAKEOVER_PHASES
from harness.history.timeline import MS, director_ops, span_of
from harness.report import curves, lanes, states
from harness.verdict import Outcome, Verdict, overall

EVIDENCE_ROWS, LOG_ROWS, LETTERS = 60, 400, 160
"""Limits of the page, so that a browser opens it at once."""

STORY_LINES = 80

UNREADABLE = (HistoryError, AttributeError, KeyError, TypeError, ValueError)
"""Errors from values that no feed writes; the rest of the page is useful without them."""

NEAR_NS = 6_000 * MS
"""How long after an event a log line counts as its effect."""

WIDE = 9
"""The maximum number of columns that fit on the page."""

NOTHING = "\N{EN DASH}"

HEADLINES: Mapping[Outcome, str] = {
    Outcome.VALID: "The cluster held.",
    Outcome.INVALID: "The cluster did not hold.",
    Outcome.UNKNOWN: "The evidence does not show whether the cluster held.",
}

LEADING: Mapping[str, tuple[str, ...]] = {"step": ("step", "phase"), "fault": ("fault", "phase"), "power": ("power",)}
"""The main keys of an event: their values come first, without their names."""

PHASE_TEXTS: Mapping[str, str] = {
    "detection": "until the failure is noticed",
    "takeover": "until the address is taken",
    "announcement": "until the address is announced",
    "answer": "until the first good answer",
}


@dataclass(frozen=True)
class Table:
    """A check's numbers as a table."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Segment:
    """A part of a budget bar, in units of the drawing."""

    x: float
    width: float
    css: str
    name: str
    duration: str


@dataclass(frozen=True)
class Bar:
    """An outage against its budget."""

    title: str
    duration: str
    outcome: str
    segments: tuple[Segment, ...]
    budget_x: float
    budget: str
    whisker: tuple[float, float] | None
    split: bool


@dataclass(frozen=True)
class Tile:
    """One of the most important numbers."""

    label: str
    value: str
    unit: str
    note: str


def render(
    history: History,
    verdicts: Sequence[Verdict],
    scenario_title: str,
    expectation: str,
    meta: Mapping[str, Any],
) -> str:
    """The report as HTML, self-contained.

    The page shows each key of ``meta``, and its ``command`` as the command that reproduces the run.
    """
    outcome = overall(verdicts)
    log, left_out = _log(history)
    page = ENVIRONMENT.get_template("template.html")
    return page.render(
        title=scenario_title,
        expectation=expectation,
        outcome=outcome.value,
        clock=f"{history.clock} time",
        headline=HEADLINES[outcome],
        reason=_reason(verdicts, outcome),
        tiles=_tiles(history, verdicts),
        remarks=promises.remarks_of(history),
        checks=[(verdict, _tables(verdict.numbers)) for verdict in verdicts],
        bars=[_bar(outage) for outage in _rows_of(verdicts, "outage", "outages")],
        phase_texts=PHASE_TEXTS,
        facts={key: _fact(value) for key, value in meta.items() if key != "command"},
        commands=_commands(meta, history.clock),
        evidence=[(verdict, *_evidence(history, verdict)) for verdict in verdicts],
        log=log,
        log_left_out=left_out,
        **_drawing(history),
    )


def _fact(value: Any) -> str:
    return ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, Mapping) else str(value)


def _reason(verdicts: Sequence[Verdict], outcome: Outcome) -> str:
    """The sentence below the headline: of the first verdict with the run's outcome, preferably ``outage`` if valid."""
    deciding = [verdict for verdict in verdicts if verdict.outcome == outcome]
    first = sorted(deciding, key=lambda verdict: outcome == Outcome.VALID and verdict.check != "outage")
    return first[0].summary if first else "The scenario has no checks."


def _drawing(history: History) -> dict[str, Any]:
    """The timeline's data; empty if the history has no start, or values that no feed writes."""
    try:
        return _drawn(history)
    except UNREADABLE as error:
        nothing: dict[str, Any] = {
            "lanes": [],
            "charts": [],
            "shades": [],
            "ticks": [],
            "nodes": {},
            "size": {},
            "kinds": set(),
        }
        return {**nothing, "undrawn": str(error)}


def _drawn(history: History) -> dict[str, Any]:
    rows = lanes.lanes(history)
    below = lanes.bottom(rows)
    charts = [(below + 40 + place * (curves.HEIGHT + 40), chart) for place, chart in enumerate(curves.charts(history))]
    height = charts[-1][0] + curves.HEIGHT if charts else below
    scale = lanes.axis(history)
    width = {"width": lanes.WIDTH, "left": lanes.LEFT, "right": lanes.RIGHT}
    return {
        "lanes": rows,
        "charts": charts,
        "shades": lanes.shades(history),
        "ticks": scale.ticks(),
        "nodes": lanes.palette(history),
        "undrawn": "",
        "kinds": {mark.css.split()[0] for row in rows for mark in row.marks},
        "size": {
            **width,
            "height": height + 26,
            "foot": height,
            "start_s": scale.start / 1e9,
            "end_s": scale.end / 1e9,
        },
    }


def _commands(meta: Mapping[str, Any], clock: str) -> list[tuple[str, str]]:
    """The commands that reproduce the run, and the purpose of each; empty if its own command is unknown."""
    if not meta.get("command"):
        return []
    seed = f" --seed {meta['seed']}" if "seed" in meta else ""
    virtual = clock == "virtual"
    again = [
        (
            "monkeywrench replay . --runs ..",
            "in this directory: this run once more, on a new lab, and whether it is the same",
        )
    ]
    return [
        (str(meta["command"]), "the original command"),
        (
            f"monkeywrench run scenario.toml{seed}{' --clock virtual' if virtual else ''} --runs ..",
            "in this directory: the same scenario with the same seed",
        ),
        *(again if virtual else []),
        ("monkeywrench check .", "in this directory: judge this run again, without a lab"),
    ]


# --- numbers


def _rows_of(verdicts: Iterable[Verdict], check: str, key: str) -> list[dict[str, Any]]:
    found = [verdict.numbers.get(key) for verdict in verdicts if verdict.check == check]
    return [row for rows in found if isinstance(rows, list) for row in rows]


def _tiles(history: History, verdicts: Sequence[Verdict]) -> list[Tile]:
    tiles = [
        Tile(
            f"{outage['vip']} unreachable ({outage['kind']})",
            span_of(outage["estimate_ms"]),
            "" if outage["plus_minus_ms"] is None else f"± {span_of(outage['plus_minus_ms'])}",
            f"budget {span_of(outage['budget_ms'])}",
        )
        for outage in _rows_of(verdicts, "outage", "outages")[:2]
    ]
    overlaps = _rows_of(verdicts, "ownership", "overlaps")
    if any(verdict.check == "ownership" and "overlaps" in verdict.numbers for verdict in verdicts):
        longest = max((overlap["ms"] for overlap in overlaps), default=0)
        tiles.append(Tile("2 owners at once", span_of(longest), "", "longest overlap seen"))
    requests = [pair for pairs in load(history).values() for pair in pairs]
    for label, pairs, lost in (
        ("Probes answered", history.pairs("http"), "lost"),
        ("Requests answered", requests, "failed or unanswered"),
    ):
        good = sum(pair.ok for pair in pairs)
        if pairs:
            tiles.append(Tile(label, f"{good:,}", f"of {len(pairs):,}", f"{len(pairs) - good:,} {lost}"))
    return tiles


def _bar(outage: Mapping[str, Any]) -> Bar:
    parts: Mapping[str, float | None] = outage.get("parts_ms") or {}
    known = [(name, value) for name in TAKEOVER_PHASES if (value := parts.get(name)) is not None]
    split = len(known) == len(TAKEOVER_PHASES)
    pieces = known if split else [("whole", float(outage["estimate_ms"]))]
    upper = outage["upper_ms"] if outage["upper_ms"] is not None else outage["lower_ms"]
    widest = max(outage["budget_ms"], upper, sum(value for _, value in pieces), 1) * 1.04
    unit = 1000.0 / widest
    ends = [0.0]
    for _, value in pieces:
        ends.append(ends[-1] + value * unit)
    return Bar(
        title=f"{outage['vip']} {outage['kind']}" + _hands(outage),
        duration=_duration(outage),
        outcome=outage["outcome"],
        segments=tuple(
            Segment(
                round(start, 2), round(end - start, 2), name, PHASE_TEXTS.get(name, "phases unknown"), span_of(value)
            )
            for (name, value), (start, end) in zip(pieces, pairwise(ends), strict=True)
        ),
        budget_x=round(outage["budget_ms"] * unit, 2),
        budget=span_of(outage["budget_ms"]),
        whisker=None if split else (round(outage["lower_ms"] * unit, 2), round(upper * unit, 2)),
        split=split,
    )


def _hands(outage: Mapping[str, Any]) -> str:
    if not outage.get("owner"):
        return ""
    return f", {outage['owner']} to {outage.get('survivor') or 'no director'}"


def _duration(outage: Mapping[str, Any]) -> str:
    if outage["plus_minus_ms"] is None:
        return f"at least {span_of(outage['lower_ms'])}"
    return f"{span_of(outage['estimate_ms'])} ± {span_of(outage['plus_minus_ms'])}"


def _tables(numbers: Mapping[str, Any]) -> list[Table]:
    """A table for each list or mapping of rows, and one table of names and values for everything else."""
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
    return f"{words.removesuffix(' ms')} (ms)" if words.endswith(" ms") else words


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
    whole = f"{text} ({op.error})" if op.error else text
    return whole if len(whole) <= LETTERS else whole[: LETTERS - 1] + "…"


def _plain(op: Op) -> str:
    """An op as words: its main values first, then the others with their names."""
    if not isinstance(op.value, dict):
        return op.value if isinstance(op.value, str) else _cell(op.value)
    if op.f == "audit":
        return f"left behind: {_cell(op.get('left'))}" if op.get("left") else "nothing left behind"
    if op.f == "holds":
        return f"holds {_cell(op.get('vips')) if op.get('vips') else 'no virtual IP'}"
    first = [str(op.value[key]) for key in LEADING.get(op.f, ()) if key in op.value]
    known = (*LEADING.get(op.f, ()), "node")
    rest = {key: value for key, value in op.value.items() if key not in known and value not in ("", [], {})}
    if op.f == "fault" and op.get("effects"):
        rest["effects"] = [f"{each['kind']} {each['node']} {each.get('service', '')}".strip() for each in op["effects"]]
    if op.f == "fault" and first and "node" in op.value:
        first[0] += f" on {op.value['node']}"
    return "; ".join(filter(None, (": ".join(first), *(_named(key, value) for key, value in rest.items()))))


def _named(key: str, value: Any) -> str:
    """A value with its name; a duration in a sensible unit."""
    if key.endswith("_ms") and isinstance(value, int | float) and abs(value) < 2**63:
        return f"{_words(key.removesuffix('_ms'))}: {span_of(value)}"
    return f"{_words(key)}: {_cell(value)}"


Line = tuple[int, int, str, str, str]
"""Time in ns, index, class, process, text."""


def story(history: History) -> list[str]:
    """The events of a run, one per line, by time: faults, steps, power, and changes of owners.

    A long list is shortened to its first and last lines.
    """
    events = sorted(_events(history), key=lambda op: (op.time, op.index))
    lines = [f"{op.time / 1e9:8.3f} s  {op.process}: {_plain(op)[:LETTERS]}" for op in events]
    left_out = len(lines) - STORY_LINES
    if left_out <= 0:
        return lines
    half = STORY_LINES // 2
    return [*lines[:half], f"          {left_out} more events", *lines[-half:]]


def _log(history: History) -> tuple[list[tuple[str, str, str, str]], int]:
    """Events and the nodes' own log lines near them, by time: (seconds, css, process, text), and how many are left out.

    If there are too many for a page, the lines farthest from any event are left out.
    """
    events: list[Line] = [(op.time, op.index, f"event {op.f}", op.process, _plain(op)) for op in _events(history)]
    events += _changes_of_weight(history)
    times = sorted(time for time, *_ in events)
    near = [(far, op) for op in history.of("log") if (far := _away(op.time, times)) <= NEAR_NS]
    near.sort(key=lambda line: line[0])
    chosen = near[: max(LOG_ROWS - len(events), 0)]
    lines: list[Line] = [(op.time, op.index, "line", op.process, _plain(op)) for _, op in chosen]
    shown = sorted((*events, *lines))[:LOG_ROWS]
    left_out = len(events) + len(near) - len(shown)
    return [(f"{time / 1e9:.3f}", css, who, text) for time, _, css, who, text in shown], left_out


def _away(time: int, events: Sequence[int]) -> int:
    """A line's distance to the nearest event, in ns; before an event it counts threefold: most lines are effects."""
    place = bisect_right(events, time)
    since = time - events[place - 1] if place else NEAR_NS + 1
    until = 3 * (events[place] - time) if place < len(events) else NEAR_NS + 1
    return min(since, until)


def _changes_of_weight(history: History) -> Iterator[Line]:
    """Each change of a real server's weight on a director; its first weight is no change."""
    try:
        directors, web = history.cluster.directors, history.cluster.web
    except UNREADABLE:
        return
    for director in directors:
        for (_, before), (op, after) in pairwise(states.weight_samples(history, director)):
            for server in web:
                was, now = states.weight_state(before, server)[1], states.weight_state(after, server)[1]
                if was != now:
                    yield op.time, op.index, "event table", op.process, f"{server}: {was}, then {now}"


def _events(history: History) -> list[Op]:
    events = [op for f in ("power", "fault", "step", "audit") for op in history.seen(f)]
    events += [op for op in history.seen("feed") if op.get("phase") in ("lost", "dropped")]
    try:
        directors = director_ops(history)
    except UNREADABLE:
        return events
    for ops in directors.values():
        samples = [op for op in ops if op.f == "holds" and op.get("vips") is not None]
        events += [after for before, after in pairwise(samples) if after["vips"] != before["vips"]]
    return events


ENVIRONMENT = Environment(
    loader=PackageLoader("harness", "report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
