"""Can the record of a run be believed? What in it cannot be so, whatever the site did. Pure.

A check that judges a record with such a flaw would accuse the site of the recorder's mistakes, or acquit it on them.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

from harness.history.client_ops import SHOWN, named
from harness.history.clocks import contradictions
from harness.history.ops import History, Op
from harness.history.timeline import LOAD_FEEDS, count_of, moment, ms, of_the_load, span_of

LOAD, PROBE, DNS = "load", "probe", "dns"

LONGEST_NS = 366 * 86_400 * 1_000_000_000
"""No run lasts longer than a year; a later time is damage."""

USERS = frozenset({"user", *LOAD_FEEDS})
"""The first part of the names of the processes whose ops make up the feed ``load``."""


@dataclass(frozen=True)
class Flaw:
    """What is wrong with the record of a feed (``load``, ``probe``, ``dns`` ...; empty: with the whole history)."""

    feed: str
    sentence: str
    evidence: tuple[int, ...] = ()


def flaws(history: History) -> tuple[Flaw, ...]:
    """Everything in the record that cannot be so.

    - The whole history: indexes that do not count up by 1, times before the run's start or a year after it, more than
      one start or end, client ops after the end.
    - The lab: nodes whose container the engine lost meanwhile, which no fault does.
    - A feed: a completion without, before or twice for its invocation, or of another op; an invocation while the
      process has another one outstanding; times that go back within a process; a ``seq`` that is missing or occurs
      twice; a status that HTTP does not have; clocks of clients that contradict each other.

    A feed that recorded itself its gaps (``lost``, ``dropped``) is left out: the checks know these. What is missing
    without a trace (both ops of a request) cannot be seen.
    """
    return (
        *_numbers(history),
        *_bounds(history),
        *_lost(history),
        *_times(history),
        *_pairs(history),
        *_sequences(history),
        *_nonsense(history),
        *_clocks(history),
    )


def feed_of(process: str) -> str:
    """The feed that recorded a process: ``load`` for ``user:0``, ``probe`` for ``probe:203.0.113.101/0``."""
    head = process.partition(":")[0]
    return LOAD if head in USERS else head


# --- the whole history


def _numbers(history: History) -> Iterator[Flaw]:
    indexes = sorted(op.index for op in history)
    if indexes and indexes[0] != 0:
        yield Flaw("", f"The record begins with op {indexes[0]}: the lines before it are missing.")
    wrong = [(one, two) for one, two in itertools.pairwise(indexes) if two != one + 1]
    if wrong:
        places = named([f"op {two} follows op {one}" for one, two in wrong])
        yield Flaw("", f"The record has lines missing or twice: {places}.", (wrong[0][1],))


def _bounds(history: History) -> Iterator[Flaw]:
    for f in ("start", "end"):
        found = [op for op in history.of(f) if op.process == "run"]
        if len(found) > 1:
            yield Flaw("", f"The record has {len(found)} ops {f!r} of one run.", _indexes(found))
    ends = [op for op in history.of("end") if op.process == "run"]
    if ends:
        late = [op for op in history if op.index > ends[0].index and op.type == "invoke"]
        if late:
            yield Flaw("", f"The record has {count_of(len(late), 'request')} after the end of the run.", _indexes(late))


def _lost(history: History) -> Iterator[Flaw]:
    for op in history.seen("lost"):
        if op.process == "lab":
            yield Flaw("", f"The lab broke: it lost the container of {op.get('node')} ({op.get('why')}).", (op.index,))


def _times(history: History) -> Iterator[Flaw]:
    begun = min((op.time for op in history.of("start") if op.process == "run"), default=0)
    beyond = [op for op in history if op.time > begun + LONGEST_NS]
    if beyond:
        yield Flaw("", f"Op {beyond[0].index} has a time of more than a year.", _indexes(beyond))
    early: dict[str, list[Op]] = defaultdict(list)
    for op in history:
        if op.time < begun and op.type in ("invoke", "ok", "fail"):
            early[feed_of(op.process)].append(op)
    for feed, ops in early.items():
        processes = named(list(dict.fromkeys(op.process for op in ops)))
        by = span_of(ms(begun - min(op.time for op in ops)))
        sentence = f"Ops of {processes} lie up to {by} before the start of the run: their clock is wrong."
        yield Flaw(feed, sentence, _indexes(ops))


# --- each process


@dataclass
class _Process:
    """What is known of a process while its ops are read in order of the record."""

    time: int | None = None
    outstanding: Op | None = None


def _pairs(history: History) -> Iterator[Flaw]:
    """Ops of processes that send requests: in order of the record, one outstanding at a time."""
    excused = _excused(history)
    asked = {op.f for op in history if op.type == "invoke"}
    clients = {op.process for op in history if op.type in ("invoke", "ok", "fail")}
    processes: dict[str, _Process] = defaultdict(_Process)
    wrong: dict[tuple[str, str], list[Op]] = defaultdict(list)
    for op in sorted(history, key=attrgetter("index")):
        if op.process not in clients or op.f not in asked or feed_of(op.process) in excused:
            continue
        for kind in _wrong(op, processes[op.process]):
            wrong[feed_of(op.process), kind].append(op)
    for (feed, kind), ops in wrong.items():
        places = named([f"{op.f} of {op.process} at {moment(op.time)}" for op in ops])
        yield Flaw(feed, f"The record of the feed {feed!r} has {kind}: {places}.", _indexes(ops))


NO_INVOKE = "a completion without an invocation"
OTHER = "a completion of another op than the one that was invoked"
OVERLAP = "a second invocation before the first one was completed"
BACK = "a time that goes back within one process"


def _wrong(op: Op, process: _Process) -> Iterator[str]:
    """What is wrong with an op after those of its process before it; ``process`` then includes it."""
    if process.time is not None and op.time < process.time:
        yield BACK
    process.time = op.time
    if op.type == "invoke":
        if process.outstanding is not None:
            yield OVERLAP
        process.outstanding = op
        return
    invoke, process.outstanding = process.outstanding, None
    if invoke is None:
        if op.error != OVERRUN:
            yield NO_INVOKE
    elif invoke.f != op.f or _differ(invoke, op):
        yield OTHER


IDENTITY = ("op", "motto", "name", "points", "from", "to", "coins", "after", "seq", "article")
"""What a completion repeats of its invocation: which op it was."""

ABSENT = object()


def _differ(invoke: Op, completion: Op) -> bool:
    for key in IDENTITY:
        asked = invoke.get(key, ABSENT)
        if asked is not ABSENT and asked != (got := completion.get(key, ABSENT)) and got is not ABSENT:
            return True
    return False


# --- probes


OVERRUN = "probe overrun"

MOST_SKIPPED = 100_000
"""More due times than any stall of a client's machine lets pass."""


def _sequences(history: History) -> Iterator[Flaw]:
    """Each ``seq`` of a feed's target must occur once, or be counted as skipped."""
    excused = _excused(history)
    sent: dict[tuple[str, str], list[int]] = defaultdict(list)
    skipped: dict[tuple[str, str], set[int]] = defaultdict(set)
    for op in history:
        seq, feed = op.get("seq"), feed_of(op.process)
        if type(seq) is not int or feed in excused:
            continue
        target = feed, str(op.get("vip") or op.get("node"))
        if op.type == "invoke":
            sent[target].append(seq)
        elif op.error == OVERRUN:
            skipped[target].update(range(seq, seq + _skipped(op)))
    for (feed, of), numbers in sent.items():
        distinct = set(numbers)
        first, latest = min(distinct), max(distinct)
        known = distinct.union(each for each in skipped[feed, of] if first <= each <= latest)
        missing = latest - first + 1 - len(known)
        if missing:
            gap = f"{missing:,} of {latest - first + 1:,} ops of {of} are missing"
            yield Flaw(feed, f"The record of the feed {feed!r} has gaps: {gap}.")
        if len(numbers) > len(distinct):
            twice = count_of(len(numbers) - len(distinct), "op")
            yield Flaw(feed, f"The record of the feed {feed!r} has {twice} of {of} twice.")


def _skipped(op: Op) -> int:
    number = op.get("skipped")
    return min(number, MOST_SKIPPED) if type(number) is int else 0


# --- values and clocks


def _nonsense(history: History) -> Iterator[Flaw]:
    wrong = [op for op in history if op.type in ("ok", "fail") and not _sensible(op)]
    for feed in dict.fromkeys(feed_of(op.process) for op in wrong):
        mine = [op for op in wrong if feed_of(op.process) == feed]
        places = named([f"{op.get('status')!r} in {op.f} at {moment(op.time)}" for op in mine])
        yield Flaw(
            feed, f"The record of the feed {feed!r} has a status that HTTP does not have: {places}.", _indexes(mine)
        )


def _sensible(op: Op) -> bool:
    status = op.get("status")
    return status is None or (type(status) is int and (status == 0 or 100 <= status <= 599))


def _clocks(history: History) -> Iterator[Flaw]:
    found = contradictions(history)
    if found:
        worst = max(found, key=lambda each: each.by)
        sentence = (
            f"The clocks of {worst.later.process} and {worst.earlier.process} contradict each other by at least "
            f"{span_of(ms(worst.by))}: {worst.earlier.f} at {moment(worst.earlier.time)} had what was only sent at "
            f"{moment(worst.later.time)}."
        )
        yield Flaw(LOAD, sentence, (worst.later.index, worst.earlier.index))


def _excused(history: History) -> frozenset[str]:
    """Feeds that recorded gaps of their own, or that were opened again: their processes started anew."""
    opened: dict[str, int] = defaultdict(int)
    found = set()
    for op in history.of("feed"):
        feed = LOAD if of_the_load(op.process) else feed_of(op.process)
        opened[op.process] += op.get("phase") == "open"
        if op.error is not None or op.get("phase") in ("lost", "dropped") or opened[op.process] > 1:
            found.add(feed)
    return frozenset(found)


def _indexes(ops: Sequence[Op] | Iterable[Op]) -> tuple[int, ...]:
    return tuple(op.index for op in list(ops)[:SHOWN])
