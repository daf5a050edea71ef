"""The timeline: what happened when, as rectangles on one axis. Pure geometry; the template draws it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from harness.history import History, Pair
from harness.history.intervals import Intervals
from harness.history.latency import load
from harness.history.timeline import (
    Span,
    count_of,
    holdings,
    ms,
    powers,
    span_of,
    watched,
)
from harness.history.windows import Window, faults, steps
from harness.report import states
from harness.report.states import SECOND

WIDTH, LEFT, RIGHT = 1200.0, 168.0, 12.0
LANE, THIN, GAP, THIN_GAP = 22.0, 10.0, 6.0, 3.0

LETTER = 6.4
"""The approximate width of a letter in a mark; a text that does not fit appears only in the mark's tooltip."""


@dataclass(frozen=True)
class Axis:
    """Times of the run -> places on the page."""

    start: int
    end: int

    def x(self, time: int) -> float:
        """The place of a time; times outside are drawn at the edge."""
        share = (min(max(time, self.start), self.end) - self.start) / max(self.end - self.start, 1)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 2)

    def ticks(self) -> list[tuple[float, str]]:
        """Ten to twenty round times, as seconds."""
        length = (self.end - self.start) / SECOND
        every = next((step for step in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600) if length / step <= 14), 3600)
        first = -(-self.start // (every * SECOND)) * every
        return [(self.x(at * SECOND), f"{at} s") for at in range(int(first), self.end // SECOND + 1, every)]


@dataclass(frozen=True)
class Mark:
    """One rectangle: something that lasted from ``start`` to ``end``, in ns.

    ``css`` has its classes. ``title`` is its tooltip, and ``text`` stands inside if it fits. ``inset`` is the distance
    from the top of its lane, ``least`` its minimum width.
    """

    x: float
    width: float
    css: str
    title: str
    start: int
    end: int
    text: str = ""
    inset: float = 0.0
    least: float = 1.5

    @property
    def fits(self) -> bool:
        """Whether its text fits."""
        return bool(self.text) and len(self.text) * LETTER + 8 <= self.width


@dataclass(frozen=True)
class Lane:
    """One row of marks."""

    label: str
    note: str
    y: float
    height: float
    marks: tuple[Mark, ...]
    group: str = ""

    @property
    def thin(self) -> bool:
        """Whether it is one of many rows that are read together."""
        return self.height < LANE


@dataclass(frozen=True)
class Shade:
    """The interval of a fault, in ns, drawn behind all lanes."""

    x: float
    width: float
    name: str
    start: int
    end: int


Row = tuple[str, str, list[Mark]]


def axis(history: History) -> Axis:
    """The axis from the run's first op to its last."""
    return Axis(min((op.time for op in history), default=0), max(history.end_ns, 1))


def lanes(history: History) -> list[Lane]:
    """All lanes from top to bottom. Raises HistoryError for a history without a start."""
    scale = axis(history)
    vips = list(history.cluster.vips)
    groups: list[tuple[str, float, list[Row]]] = [
        ("run", LANE, [("Steps", "", _steps(history, scale)), ("Faults", "", _faults(history, scale))]),
        ("owners", LANE, [(vip, "owner", _owners(history, scale, vip)) for vip in vips]),
        ("power", LANE, [(node, "power", _power(history, scale, node)) for node in history.cluster.directors]),
        *_states(scale, states.weights(history)),
        ("probes", LANE, [(vip, "probe", _probes(history, scale, vip)) for vip in vips]),
        *((f, THIN, _questions(history, scale, f)) for f in ("dns", "nfs", "database")),
        *_states(scale, states.parts(history)),
        ("load", LANE, _load(history, scale)),
    ]
    placed: list[Lane] = []
    y = 26.0
    for group, height, rows in groups:
        for label, note, marks in rows:
            placed.append(Lane(label, note, y, height, tuple(marks), group))
            y += height + (GAP if height == LANE else THIN_GAP)
        y += GAP if rows else 0
    return placed


def shades(history: History) -> list[Shade]:
    """The intervals of the faults."""
    scale = axis(history)
    bounds = [(fault.name, *_bounds(fault, scale)) for fault in faults(history)]
    return [Shade(scale.x(start), scale.x(end) - scale.x(start), name, start, end) for name, start, end in bounds]


def palette(history: History) -> dict[str, str]:
    """Each director -> the class of its colour."""
    return {node: f"node-{place % 4}" for place, node in enumerate(history.cluster.directors)}


def _mark(  # noqa: PLR0913, PLR0917 (a mark has all of these)
    scale: Axis, span: tuple[int, int], css: str, title: str, text: str = "", least: float = 1.5
) -> Mark:
    x, width = scale.x(span[0]), max(scale.x(span[1]) - scale.x(span[0]), least)
    return Mark(x, round(width, 2), css, title, *span, str(text), least=least)


def _bounds(window: Window, scale: Axis) -> tuple[int, int]:
    """From its first op to its last; one without an end continues to the edge."""
    last = window.phases.get("end")
    return window.begin.time, last.time if last else scale.end


def _steps(history: History, scale: Axis) -> list[Mark]:
    marks = []
    for place, step in enumerate(steps(history)):
        last = step.phases.get("end")
        missed = last is not None and last.get("met") is False
        css = "step missed" if missed else f"step {'odd' if place % 2 else 'even'}"
        marks.append(_mark(scale, _bounds(step, scale), css, _title(step.name, *_bounds(step, scale)), step.name))
    return marks


def _faults(history: History, scale: Axis) -> list[Mark]:
    marks = []
    for fault in faults(history):
        kind, node = fault.begin.get("fault", "fault"), fault.begin.get("node", "")
        name = f"{kind} {node}".strip()
        marks.append(_mark(scale, _bounds(fault, scale), "fault", _title(name, *_bounds(fault, scale)), name, 3))
        proof = fault.phases.get("proof")
        if proof:
            seen = f"proof at {proof.time / 1e9:.3f} s: {proof.get('seen', '')}"
            marks.append(_mark(scale, (proof.time, proof.time), "proof", seen, least=2))
    return marks


def _owners(history: History, scale: Axis, vip: str) -> list[Mark]:
    colours = palette(history)
    held = holdings(history)[vip]
    marks = []
    for span in held:
        css = f"owner {colours[span.what]}{' frozen' if span.frozen else ''}"
        title = _title(f"{span.what}{' (frozen)' if span.frozen else ''}", span.start, span.end)
        marks.append(_mark(scale, (span.start, span.end), css, title, span.what))
    for one, two in combinations(held, 2):
        start, end = max(one.start, two.start), min(one.end, two.end)
        if start < end and one.what != two.what:
            marks.append(
                _mark(scale, (start, end), "both", _title(f"{one.what} and {two.what}", start, end), "2 owners", 3)
            )
    for since, till in _unheld(history, held):
        marks.append(_mark(scale, (since, till), "unowned", _title("no owner", since, till), "no owner", least=2))
    return marks


def _unheld(history: History, held: Sequence[Span]) -> list[tuple[int, int]]:
    return list(Intervals([watched(history)]).minus((span.start, span.end) for span in held))


def _power(history: History, scale: Axis, node: str) -> list[Mark]:
    spans = powers(history).get(node, [])
    first = spans[0].start if spans else scale.end
    all_spans = [Span(scale.start, first, "running"), *spans]
    return [
        _mark(scale, (span.start, span.end), f"power {span.what}", _title(span.what, span.start, span.end), span.what)
        for span in all_spans
        if span.end > span.start
    ]


def _probes(history: History, scale: Axis, vip: str) -> list[Mark]:
    return _answers(scale, [pair for pair in history.pairs("http") if pair.invoke.get("vip") == vip])


def _questions(history: History, scale: Axis, f: str) -> list[Row]:
    """A row for each process that repeats the same question, one at a time."""
    asked: dict[str, list[Pair]] = defaultdict(list)
    for pair in history.pairs(f):
        asked[pair.invoke.process].append(pair)
    return [
        (process.partition(":")[2] or process, f, _answers(scale, pairs)) for process, pairs in sorted(asked.items())
    ]


def _answers(scale: Axis, sent: Sequence[Pair]) -> list[Mark]:
    """One mark for consecutive questions with the same result, until the next question with another result was sent."""
    runs: list[tuple[bool, list[Pair]]] = []
    for pair in sent:
        if runs and runs[-1][0] == pair.ok:
            runs[-1][1].append(pair)
        else:
            runs.append((pair.ok, [pair]))
    starts = [pairs[0].invoke.time for _, pairs in runs]
    ends = [*starts[1:], sent[-1].invoke.time] if sent else []
    marks = []
    for (good, pairs), start, end in zip(runs, starts, ends, strict=True):
        word = "answered" if good else "lost"
        title = _title(f"{len(pairs)} {word}", start, end)
        marks.append(_mark(scale, (start, end), f"probe {word}", title, "" if good else f"{len(pairs)} lost"))
    return marks


def _states(scale: Axis, tracks: Mapping[str, Sequence[states.Track]]) -> list[tuple[str, float, list[Row]]]:
    """A group for each kind, with a row for each track and a mark for each interval without a change of state."""

    def marks(track: states.Track) -> list[Mark]:
        return [
            _mark(scale, (since, till), state.css, _title(state.text, since, till))
            for since, till, state in track.intervals()
        ]

    return [(kind, THIN, [(each.label, each.note, marks(each)) for each in group]) for kind, group in tracks.items()]


def _load(history: History, scale: Axis) -> list[Row]:
    """The errors that users saw; no row without a load."""
    pairs = [pair for each in load(history).values() for pair in each]
    return [("Load", "errors per second", _errors(scale, pairs))] if pairs else []


def _errors(scale: Axis, pairs: Sequence[Pair]) -> list[Mark]:
    done = [pair.completion for pair in pairs if pair.completion and not pair.ok]
    counts = Counter(op.time // SECOND for op in done)
    most = max(counts.values(), default=1)
    marks = []
    for second, count in sorted(counts.items()):
        mark = _mark(
            scale,
            (second * SECOND, (second + 1) * SECOND),
            "error",
            f"{count_of(count, 'request')} failed in second {second}",
        )
        inset = round(LANE * (1 - max(count / most, 0.15)), 2)
        marks.append(replace(mark, inset=inset))
    return marks


def _title(what: str, start: int, end: int) -> str:
    return f"{what}: {start / 1e9:.3f} s to {end / 1e9:.3f} s ({span_of(ms(end - start))})"


def bottom(rows: Iterable[Lane]) -> float:
    """The lower edge of the lanes."""
    return max((row.y + row.height for row in rows), default=26.0)
