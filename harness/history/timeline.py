"""What was so, and when: spans of power, ownership, faults and steps, read from a history. Pure; times are ns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from harness.history import History, Op
from harness.records import Power

MS = 1_000_000

LOST = frozenset({Power.OFF, Power.BOOTING, Power.PANICKED})
"""A machine in one of these has no addresses, from that instant."""

DOWN = frozenset({Power.OFF, Power.PANICKED, Power.FROZEN})
"""What takes a director's addresses from their users without its leave."""

LOAD_FEEDS = frozenset({"load", "first", "final"})
"""The feeds that record what users do, and what is read before they come and once they have gone."""


def of_the_load(feed: str) -> bool:
    """Whether a feed is one of those, or one of several that share the users (``load:0``)."""
    return feed.partition(":")[0] in LOAD_FEEDS


@dataclass(frozen=True)
class Span:
    """``what`` was so from ``start`` to ``end``. ``began_by`` and ``ended_by`` are ops; None: the watch's bounds."""

    start: int
    end: int
    what: str
    began_by: Op | None = None
    ended_by: Op | None = None

    @property
    def ms(self) -> float:
        """How long it was so."""
        return ms(self.end - self.start)

    def touches(self, start: int, end: int) -> bool:
        """True when any moment of it lies in [start, end]."""
        return self.start <= end and start <= self.end

    def ops(self) -> tuple[int, ...]:
        """The indexes of the ops that bound it."""
        return tuple(op.index for op in (self.began_by, self.ended_by) if op is not None)


@dataclass(frozen=True)
class Holding(Span):
    """A director (``what``) held a VIP. ``frozen``: it kept the address but could answer nobody."""

    frozen: bool = False


def ms(ns: int) -> float:
    """Nanoseconds as milliseconds, to the microsecond."""
    return round(ns / MS, 3)


def moment(ns: int) -> str:
    """A time of the run, for a sentence."""
    return f"{ns / 1e9:.3f} s"


def span_of(ms_value: float) -> str:
    """A duration in milliseconds, for a sentence."""
    return f"{ms_value:,.0f} ms"


def count_of(number: int, thing: str) -> str:
    """How many there are of a thing, for a sentence."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def director_ops(history: History) -> dict[str, list[Op]]:
    """Each director -> its readable ``holds`` and ``power`` ops, by time."""
    ops: dict[str, list[Op]] = {name: [] for name in history.cluster.directors}
    for op in sorted((*history.seen("holds"), *history.seen("power")), key=lambda op: (op.time, op.index)):
        if op["node"] in ops:
            ops[op["node"]].append(op)
    return ops


def watched(history: History) -> tuple[int, int]:
    """The time to judge: from when every director was seen, until the feeds were closed (or the run's last op).

    Until every director has spoken once nobody knows who holds what. After its last step a run closes its feeds, and
    their silence means nothing. (A load of players ends before the others, so that what it has come to can be read.)
    """
    firsts = [_first_word(ops) for ops in director_ops(history).values() if ops]
    return max(firsts, default=0), _until(history)


def _first_word(ops: Sequence[Op]) -> int:
    """When a director's addresses are first known: from a sample, or from its being down. That it runs says nothing."""
    telling = (op.time for op in ops if op.f == "holds" or op["power"] in {Power.OFF, Power.PANICKED})
    return next(telling, ops[0].time)


def _until(history: History) -> int:
    ends = [op.time for op in history.of("end") if op.process == "run"]
    until = min(ends, default=history.end_ns)
    last_step = max((op.time for op in history.seen("step") if op["phase"] == "end"), default=until)
    closed = (op for op in history.seen("feed") if op["phase"] == "closed" and not of_the_load(op.process))
    closings = [op.time for op in closed if op.time >= last_step]
    return min([until, *closings])


def powers(history: History) -> dict[str, list[Span]]:
    """Each node with ``power`` ops -> its spans of power. What came before the first op is not known."""
    changes: dict[str, list[Op]] = defaultdict(list)
    for op in history.by_time().seen("power"):
        changes[op["node"]].append(op)
    until = watched(history)[1]
    return {node: _chain([(op, op["power"]) for op in ops], until) for node, ops in changes.items()}


def _chain(changes: Iterable[tuple[Op, str]], until: int) -> list[Span]:
    spans: list[Span] = []
    for op, what in changes:
        if spans and spans[-1].what == what:
            continue
        if spans:
            spans[-1] = replace(spans[-1], end=op.time, ended_by=op)
        spans.append(Span(op.time, max(until, op.time), what, op))
    return spans


def holdings(history: History) -> dict[str, list[Holding]]:
    """Each VIP -> who held it when, by start.

    From a director's own samples and its power. A machine that is off, panicked or just booting holds nothing from that
    instant, whatever an older sample said. A frozen machine is taken to hold on: its addresses are there again, at
    once, when it thaws. Until then its holdings are marked ``frozen``.
    """
    spans: dict[str, list[Holding]] = {vip: [] for vip in history.cluster.vips}
    until = watched(history)[1]
    for node, ops in director_ops(history).items():
        for vip, holding in _held(node, ops, until):
            spans.setdefault(vip, []).append(holding)
    return {vip: sorted(held, key=lambda span: (span.start, span.end)) for vip, held in spans.items()}


def _held(node: str, ops: Iterable[Op], until: int) -> Iterable[tuple[str, Holding]]:
    open_: dict[str, Holding] = {}
    power: str = Power.RUNNING
    vips: frozenset[str] = frozenset()
    for op in ops:
        if op.time > until:
            break
        if op.f == "power":
            power = op["power"]
            vips = frozenset() if power in LOST else vips
        elif power not in {Power.OFF, Power.PANICKED}:
            vips = frozenset(op["vips"])
        frozen = power == Power.FROZEN
        for vip in [vip for vip, span in open_.items() if vip not in vips or span.frozen != frozen]:
            yield vip, replace(open_.pop(vip), end=op.time, ended_by=op)
        for vip in sorted(vips - open_.keys()):
            open_[vip] = Holding(op.time, until, node, op, frozen=frozen)
    yield from open_.items()


def merged(spans: Iterable[Span]) -> list[Span]:
    """The spans as one row without overlaps. A merged span keeps the ops at its ends; ``what`` is the first's."""
    row: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        if row and span.start <= row[-1].end:
            if span.end > row[-1].end:
                row[-1] = replace(row[-1], end=span.end, ended_by=span.ended_by)
        else:
            row.append(span)
    return row


def silences(times: Iterable[int], start: int, end: int, longest: int) -> list[tuple[int, int]]:
    """The stretches of [start, end] longer than ``longest`` without any of the times."""
    marks = [start, *sorted(time for time in times if start < time < end), end]
    return [(before, after) for before, after in pairwise(marks) if after - before > longest]


@dataclass(frozen=True)
class Window:
    """Something that began and perhaps ended: a step or a fault, with all its ops by phase."""

    name: str
    phases: dict[str, Op]

    @property
    def begin(self) -> Op:
        """The op that opened it."""
        return next(iter(self.phases.values()))


def faults(history: History) -> list[Window]:
    """Each injection, named by its label, in order of start; a label may come more than once."""
    return _windows(
        [(op.process.removeprefix("fault:"), op) for op in history.by_time().seen("fault")],
        opening="start",
    )


def steps(history: History) -> list[Window]:
    """Each step, in order of start."""
    return _windows([(str(op["step"]), op) for op in history.by_time().seen("step")], opening="begin")


def _windows(named: Iterable[tuple[str, Op]], opening: str) -> list[Window]:
    windows: list[Window] = []
    latest: dict[str, Window] = {}
    for name, op in named:
        if op["phase"] == opening or name not in latest:
            latest[name] = Window(name, {})
            windows.append(latest[name])
        latest[name].phases.setdefault(op["phase"], op)
    return windows
