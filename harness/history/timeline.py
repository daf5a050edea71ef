"""Who held each virtual IP and how each node was powered, over time; and times in words. Pure; times are ns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from harness.history import History, Op
from harness.history.intervals import silences
from harness.history.ops import remembered
from harness.records import Power

MS = 1_000_000

LOST = frozenset({Power.OFF, Power.BOOTING, Power.PANICKED})
"""From the instant of one of these a node has no addresses."""

DOWN = frozenset({Power.OFF, Power.PANICKED, Power.FROZEN})
"""States in which a director does not answer for its addresses."""

LOAD_FEEDS = frozenset({"load", "first", "final"})
"""The feeds that record the users, and the first and final reads around them."""


def of_the_load(feed: str) -> bool:
    """Whether a feed is one of those, or one of several that share the users (``load:0``)."""
    return feed.partition(":")[0] in LOAD_FEEDS


@dataclass(frozen=True)
class Span:
    """``what`` was true from ``start`` to ``end``. ``began_by`` and ``ended_by`` are ops; None: the watch's bounds."""

    start: int
    end: int
    what: str
    began_by: Op | None = None
    ended_by: Op | None = None

    @property
    def ms(self) -> float:
        """Its duration."""
        return ms(self.end - self.start)

    def touches(self, start: int, end: int) -> bool:
        """True when any moment of it lies in [start, end]."""
        return self.start <= end and start <= self.end

    def ops(self) -> tuple[int, ...]:
        """The indexes of the ops that bound it."""
        return tuple(op.index for op in (self.began_by, self.ended_by) if op is not None)


@dataclass(frozen=True)
class Holding(Span):
    """A director (``what``) held a VIP. ``frozen``: it kept the address but could not answer."""

    frozen: bool = False


def ms(ns: int) -> float:
    """Nanoseconds as milliseconds, to the microsecond."""
    return round(ns / MS, 3)


def moment(ns: int) -> str:
    """A time of the run, for a sentence: ``61.3 s``."""
    return f"{ns / 1e9:,.1f} s"


def instant(ns: int) -> str:
    """A time of the run where milliseconds decide, such as which of two ops was first: ``61.302 s``."""
    return f"{ns / 1e9:,.3f} s"


def span_of(duration_ms: float) -> str:
    """A duration, for a sentence: ``15.0 s``, or ``180 ms`` when it is below one second."""
    return f"{duration_ms:,.0f} ms" if round(duration_ms) < 1000 else f"{duration_ms / 1000:,.1f} s"


def distinct_spans(one_ms: float, other_ms: float) -> tuple[str, str]:
    """Two durations to compare in a sentence: with more digits where the usual ones would make them look equal."""
    first, second = span_of(one_ms), span_of(other_ms)
    for digits in (2, 3):
        if first == second:
            first, second = (f"{value / 1000:,.{digits}f} s" for value in (one_ms, other_ms))
    return first, second


def count_of(number: int, thing: str) -> str:
    """A number of things, for a sentence: ``1 step``, ``2 steps``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


@remembered
def director_ops(history: History) -> dict[str, list[Op]]:
    """Each director -> its readable ``holds`` and ``power`` ops, by time."""
    ops: dict[str, list[Op]] = {name: [] for name in history.cluster.directors}
    for op in sorted((*history.seen("holds"), *history.seen("power")), key=lambda op: (op.time, op.index)):
        if op["node"] in ops:
            ops[op["node"]].append(op)
    return ops


@remembered
def watched(history: History) -> tuple[int, int]:
    """The time to judge: from when every director has a sample, until the feeds were closed (or the run's last op).

    Until every director has a sample the owners are unknown. After its last step a run closes its feeds, and their
    silence means nothing. (A load of players ends before the others, so that its final state can be read.)
    """
    firsts = [_first_word(ops) for ops in director_ops(history).values() if ops]
    return max(firsts, default=0), _until(history)


def _first_word(ops: Sequence[Op]) -> int:
    """When a director's addresses are first known: from a sample, or because it is down."""
    telling = (op.time for op in ops if op.f == "holds" or op["power"] in {Power.OFF, Power.PANICKED})
    return next(telling, ops[0].time)


def _until(history: History) -> int:
    ends = [op.time for op in history.of("end") if op.process == "run"]
    until = min(ends, default=history.end_ns)
    last_step = max((op.time for op in history.seen("step") if op["phase"] == "end"), default=until)
    closed = (op for op in history.seen("feed") if op["phase"] == "closed" and not of_the_load(op.process))
    closings = [op.time for op in closed if op.time >= last_step]
    return min([until, *closings])


@remembered
def powers(history: History) -> dict[str, list[Span]]:
    """Each node with ``power`` ops -> its spans of power. Before the first op it is unknown."""
    changes: dict[str, list[Op]] = defaultdict(list)
    for op in history.by_time().seen("power"):
        changes[op["node"]].append(op)
    until = watched(history)[1]
    return {node: _chain([(op, op["power"]) for op in ops], until) for node, ops in changes.items()}


def shuts_down(history: History, node: str, start: int, end: int) -> bool:
    """True when a node that let go of something at ``start`` was off before somebody else took it at ``end``."""
    return any(span.what == Power.OFF and start < span.start <= end for span in powers(history).get(node, []))


def _chain(changes: Iterable[tuple[Op, str]], until: int) -> list[Span]:
    spans: list[Span] = []
    for op, what in changes:
        if spans and spans[-1].what == what:
            continue
        if spans:
            spans[-1] = replace(spans[-1], end=op.time, ended_by=op)
        spans.append(Span(op.time, max(until, op.time), what, op))
    return spans


@remembered
def holdings(history: History) -> dict[str, list[Holding]]:
    """Each VIP -> which director held it when, by start.

    From a director's own samples and its power. A node that is off, panicked or booting holds nothing from that
    instant, whatever an older sample shows. A frozen node is assumed to keep its addresses: they work again as soon as
    it thaws. Until then its holdings are marked ``frozen``.
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


def blindness(history: History, longest: int) -> Iterator[tuple[str, int, int]]:
    """The times, longer than ``longest``, without samples of a director that was running, within the watch."""
    start, until = watched(history)
    states = powers(history)
    for node, ops in director_ops(history).items():
        samples = [op.time for op in ops if op.f == "holds"]
        for span in _running(states.get(node, []), start, until):
            for since, till in silences(samples, span.start, span.end, longest):
                yield node, since, till


def _running(states: Sequence[Span], start: int, until: int) -> list[Span]:
    """When the director ran, within the watch. Without a power op, and before its first one, it is taken to run."""
    first = states[0].start if states else until
    spans = [Span(start, first, Power.RUNNING), *(span for span in states if span.what == Power.RUNNING)]
    clipped = [Span(max(span.start, start), min(span.end, until), span.what) for span in spans]
    return [span for span in clipped if span.start < span.end]


def held_while_off(history: History, slack: int) -> Iterator[tuple[Op, Op]]:
    """Each first sample of a director that claims addresses long after its machine went off, and the op of its power.

    Samples and power come from 2 places, so one of them is wrong.
    """
    for ops in director_ops(history).values():
        off: Op | None = None
        for op in ops:
            if op.f == "power":
                off = op if op["power"] in {Power.OFF, Power.PANICKED} else None
            elif off is not None and op["vips"] and op.time > off.time + slack:
                yield op, off
                off = None
