"""Is all that was acknowledged still there at the end, and nothing that was refused?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from harness.algorithms.arrays import Ints, flags, ints
from harness.algorithms.set_full import Elements, State
from harness.checks.uploads import VISIBLE_MS, absent, right
from harness.history import History
from harness.history.client_ops import (
    SHOWN,
    Call,
    answered,
    calls,
    doubts,
    named,
    once,
    settled,
    shown,
    too_few,
    unless_gaps,
)
from harness.history.ledger_reads import Reading, readings
from harness.history.timeline import MS, ms, span_of
from harness.verdict import Finding, Verdict, conclude, invalid, unknown

NAME = "durability"

Kind: TypeAlias = Literal["scores", "transfers", "profiles", "uploads", "articles"]
KINDS: tuple[Kind, ...] = ("scores", "transfers", "profiles", "uploads")
"""What players write; articles are administrators'."""


class DurabilitySettings(BaseModel):
    """``[checks.durability]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    of: tuple[Kind, ...] = Field(default=KINDS, min_length=1, description="What to ask after")
    acknowledged: int = Field(default=20, ge=1, description="How many acknowledged writes of each it takes to tell")
    stale_ms: float = Field(
        default=0,
        ge=0,
        description="For how long after its acknowledgement a score or a transfer may be missing from a reading, if a "
        "later one has it",
    )
    visible_ms: float = Field(
        default=VISIBLE_MS, ge=0, description="How long after its acknowledgement the absence of an upload says nothing"
    )


def check(history: History, settings: DurabilitySettings) -> Verdict:
    """Every acknowledged score, transfer, profile, upload and article is there at the end; nothing that was refused is.

    Each write is an element of a set, and is stable, stale (missing once, and there again), lost or never read, as in
    Jepsen's set-full. A write without an answer may be there or not, but once seen it must stay. A write that certainly
    was not made (``fail``) must not be there, nor may an op of this run's players that none of them did, an op twice,
    or one with another content.

    It takes a final reading of each kind, begun after the last write of that kind was over; without it, unknown:

    - scores: ``ledger``, and transfers: ``transfers``, pages until the end (``harness/history/ledger_reads.py``);
    - profiles: ``profile-read`` of every player whose profile was changed; articles: ``article`` likewise, by the op
      that wrote it, and as the master has it: whether the others have the same is for the check ``content``;
    - uploads: ``download`` of every acknowledged upload. Absent is what the site itself calls absent (status 404 with
      ``written``); any other failure says nothing.

    A motto is there when a read has it, or a later version: it was overwritten. No two have the same version. That a
    version never goes back is what linearizable asks, and only both together see every lost change. It cannot see what
    is lost after the final reading, nor what only looks written as long as no machine loses power. What earlier runs
    left in the lab is counted and not judged.
    """
    judged = [JUDGES[kind](history, settings) for kind in settings.of]
    findings = [*doubts(history)]
    for kind in judged:
        findings += [*kind.minimum_evidence(settings), *kind.lost(), *kind.stale(settings), *kind.strange(history)]
    told = ", ".join(f"{sum(map(_acknowledged, kind.writes)):,} {kind.name}" for kind in judged)
    held = f"All that was acknowledged is there: {told}."
    return conclude(NAME, findings, held, {kind.name: kind.numbers() for kind in judged})


@dataclass
class Judged:
    """The writes of one kind, and what readings say of them. Elements are places in ``writes``."""

    name: Kind
    writes: Sequence[Call]
    elements: Elements
    names: Sequence[str]
    final: bool = False
    """There is a final reading."""
    unread: Sequence[int] = ()
    """Acknowledged, and not in the scope of a final reading."""
    changed: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """There with another content, too early or twice: what is wrong, and the ops."""
    foreign: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Ops of this run's players that none of them did."""
    earlier: int = 0
    """What other runs left."""
    readings: int = 0

    @cached_property
    def states(self) -> Ints:
        """The State of each, once all readings are in."""
        return self.elements.states()

    @property
    def failed(self) -> Sequence[bool]:
        """Which writes were certainly not made."""
        return [call.type == "fail" for call in self.writes]

    def of(self, state: State) -> list[int]:
        """The elements in that state that must be there."""
        here = (self.states == state) & ~flags(self.failed)
        return [place for place in map(int, np.flatnonzero(here)) if state != State.NEVER_READ or self.writes[place].ok]

    def minimum_evidence(self, settings: DurabilitySettings) -> Iterator[Finding]:
        """Reasons to say that too little was tested."""
        acknowledged = sum(map(_acknowledged, self.writes))
        yield from too_few(f"Acknowledged {self.name}", acknowledged, settings.acknowledged)
        if not self.final:
            yield unknown(f"Nobody read all {self.name} after the last of them was written.")
        elif self.unread:
            some = named([self.names[place] for place in self.unread])
            yield unknown(f"{len(self.unread):,} acknowledged {self.name} were not read at the end: {some}.")

    def lost(self) -> Iterator[Finding]:
        """What is gone."""
        lost = self.of(State.LOST)
        if lost:
            names = named([self.names[place] for place in lost])
            sentence = f"{len(lost):,} {self.name} that were acknowledged, or seen, are lost: {names}."
            yield invalid(sentence, *shown(self.writes[place] for place in lost))

    def stale(self, settings: DurabilitySettings) -> Iterator[Finding]:
        """What was away for too long. Uploads and profiles have checks of their own; articles are overwritten."""
        if self.name in ("profiles", "uploads", "articles"):
            return
        away = self.elements.missing_for()
        stale = [place for place in self.of(State.STALE) if away[place] > round(settings.stale_ms * MS)]
        if stale:
            names = named([self.names[place] for place in stale])
            longest = span_of(ms(int(away[stale].max())))
            sentence = f"{len(stale):,} acknowledged {self.name} were missing for up to {longest}: {names}."
            yield invalid(sentence, *shown(self.writes[place] for place in stale))

    def strange(self, history: History) -> Iterator[Finding]:
        """What is there and should not be."""
        seen = [place for place in map(int, np.flatnonzero(self.elements.seen)) if self.writes[place].type == "fail"]
        if seen:
            names = named([self.names[place] for place in seen])
            ops = shown(self.writes[place] for place in seen)
            yield invalid(f"{len(seen):,} {self.name} were refused, and are there: {names}.", *ops)
        if self.changed:
            yield invalid(f"Not what was written: {named(list(self.changed))}.", *_ops(self.changed))
        if self.foreign:
            what = named(list(self.foreign))
            yield unless_gaps(
                history, f"{len(self.foreign):,} {self.name} that nobody did: {what}.", *_ops(self.foreign)
            )

    def numbers(self) -> dict[str, Any]:
        """What was measured."""
        unsure = [place for place, call in enumerate(self.writes) if call.type == "info"]
        return {
            "attempted": len(self.writes),
            "acknowledged": sum(map(_acknowledged, self.writes)),
            "refused": sum(self.failed),
            "nobody_knew": len(unsure),
            "of_these_there": int(self.elements.seen[unsure].sum()),
            "stable": len([place for place in self.of(State.STABLE) if self.writes[place].ok]),
            "stale": len(self.of(State.STALE)),
            "lost": len(self.of(State.LOST)),
            "never_read": len(self.of(State.NEVER_READ)),
            "longest_absence_ms": ms(int(self.elements.missing_for()[self.of(State.STALE)].max(initial=0))),
            "readings": self.readings,
            "of_earlier_runs": self.earlier,
        }


def _acknowledged(call: Call) -> bool:
    return call.ok


def _ops(some: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(index for ops in list(some.values())[:SHOWN] for index in ops))


# --- scores and transfers: a ledger each


@dataclass(frozen=True)
class Ledger:
    """How a kind of write is entered: its ``f``, the ``f`` of a page, and the fields of an entry to compare."""

    name: Kind
    f: str
    page: str
    content: tuple[str, ...]


SCORES = Ledger("scores", "score", "ledger", ("player", "points"))
TRANSFERS = Ledger("transfers", "transfer", "transfers", ("from", "to", "coins"))


def _entered(history: History, ledger: Ledger) -> Judged:
    writes = once(calls(history, ledger.f), "op")
    names = [call.text("op") for call in writes]
    judged = Judged(ledger.name, writes, _elements(writes), names)
    place = {name: number for number, name in enumerate(names)}
    since = settled(writes)
    for reading in readings(history, ledger.page):
        there = _compare(judged, ledger, reading, place, _runs(names))
        judged.readings += reading.whole
        judged.final |= reading.whole and reading.start > since
        if reading.whole:
            judged.elements.whole(there, reading.start, reading.end)
        else:
            judged.elements.part(there, reading.end)
    return judged


def _compare(judged: Judged, ledger: Ledger, reading: Reading, place: Mapping[str, int], runs: frozenset[str]) -> Ints:
    """The elements that a reading has; what it has besides, or wrongly, is noted."""
    there: dict[int, int] = {}
    earlier = 0
    for page, entry in reading.entries():
        name = str(entry["op"])
        number = place.get(name)
        if number is None:
            if _run(name) in runs:
                judged.foreign[name] = (page.told.index,)
            earlier += _run(name) not in runs
            continue
        write = judged.writes[number]
        wrong = _wrong(write, entry, page, ledger) or (number in there and "is there twice")
        if wrong:
            judged.changed[f"{name} {wrong}"] = (*write.ops, page.told.index)
        there[number] = number
    judged.earlier = max(judged.earlier, earlier)
    return ints(list(there))


def _wrong(write: Call, entry: Mapping[str, Any], page: Call, ledger: Ledger) -> str:
    """What is wrong with the entry of a write."""
    if page.end < write.start:
        return "is there before it was sent"
    return "is there with another content" if any(entry.get(key) != write.invoke[key] for key in ledger.content) else ""


def _run(name: str) -> str:
    """Which load an op is of: ids begin with its own name (``process_id`` in loadtests/locustfile.py)."""
    return name.partition("-")[0]


def _runs(names: Iterable[str]) -> frozenset[str]:
    return frozenset(map(_run, names))


def _elements(writes: Sequence[Call]) -> Elements:
    return Elements(ints([call.end for call in writes]))


# --- profiles and articles: the version says whether a text was there


@dataclass(frozen=True)
class Register:
    """How a kind that is overwritten is written and read: each ``f``, what names it, and what tells one text from all.

    ``text`` is the field of a write, and ``by`` that of a read.
    """

    name: Kind
    write: str
    read: str
    key: str
    text: str
    by: str
    unwritten: bool = False
    """``by`` is null of one that nobody has written yet."""

    def found(self, read: Call) -> str | None:
        """The text that a read found. Raises HistoryError when it is none."""
        return None if self.unwritten and read.told[self.by] is None else read.text(self.by)


PROFILES = Register("profiles", "profile-write", "profile-read", "player", "motto", "motto")
ARTICLES = Register("articles", "publish", "article", "article", "op", "by", unwritten=True)


def _written(history: History, of: Register) -> Judged:
    # the try that follows one without a connection, at another address, has the same text
    writes = [call for call in calls(history, of.write) if call.told.get("again") is not True]
    judged = Judged(of.name, writes, _elements(writes), [call.text(of.text) for call in writes])
    since = settled(writes)
    last = defaultdict(list)
    for read in answered(history, of.read):
        if read.start > since:
            last[read.number(of.key)].append(read)
    judged.readings = sum(map(len, last.values()))
    judged.final = bool(last)
    judged.unread = [place for place, write in enumerate(writes) if write.ok and write.number(of.key) not in last]
    sightings = [
        (place, _there(write, read, of), read.start, read.end)
        for place, write in enumerate(writes)
        for read in last[write.number(of.key)]
        if write.ok or of.found(read) == write.text(of.text)
    ]
    _see_each(judged, sightings)
    for first, second in _same_version(writes, of):
        both = f"{first.text(of.text)} and {second.text(of.text)} were both version {first.number('version')}"
        judged.changed[both] = (*first.ops, *second.ops)
    return judged


def _same_version(writes: Sequence[Call], of: Register) -> Iterator[tuple[Call, Call]]:
    """Acknowledged writes of one thing that had the same version: one of them overwrote the other unseen."""
    known: dict[tuple[int, int], Call] = {}
    for write in writes:
        if write.ok:
            first = known.setdefault((write.number(of.key), write.number("version")), write)
            if first.text(of.text) != write.text(of.text):
                yield first, write


def _there(write: Call, read: Call, of: Register) -> bool:
    """The read has the text, or a later version. A text that was not acknowledged has no version to compare."""
    if of.found(read) == write.text(of.text):
        return True
    return read.number("version") > write.number("version")


def _see_each(judged: Judged, sightings: Sequence[tuple[int, bool, int, int]]) -> None:
    element, present, start, end = np.array(sightings, dtype=np.int64).reshape(-1, 4).T
    judged.elements.each(element, present.astype(np.bool_), start, end)


# --- uploads: each has a name to ask for


def _uploads(history: History, settings: DurabilitySettings) -> Judged:
    writes = once(calls(history, "upload"), "name")
    judged = Judged("uploads", writes, _elements(writes), [call.text("name") for call in writes])
    place = {name: number for number, name in enumerate(judged.names)}
    since, sightings, read = settled(writes), [], set()
    for call in calls(history, "download"):
        number = place.get(call.text("name"))
        if number is None or not (call.ok or absent(call)):
            continue
        write = judged.writes[number]
        if call.ok and not right(call, write):
            judged.changed[f"{call.text('name')} came back with other bytes"] = (*write.ops, *call.ops)
        if call.end < write.start:
            judged.changed[f"{call.text('name')} is there before it was sent"] = (*write.ops, *call.ops)
        if not call.ok and write.ok and call.start <= write.end + round(settings.visible_ms * MS):
            continue
        sightings.append((number, call.ok, call.start, call.told.time))
        judged.readings += 1
        if call.start > since:
            read.add(number)
    judged.final = bool(read)
    judged.unread = [place for place, write in enumerate(writes) if write.ok and place not in read]
    _see_each(judged, sightings)
    return judged


JUDGES: Mapping[Kind, Callable[[History, DurabilitySettings], Judged]] = {
    "scores": lambda history, _: _entered(history, SCORES),
    "transfers": lambda history, _: _entered(history, TRANSFERS),
    "profiles": lambda history, _: _written(history, PROFILES),
    "uploads": _uploads,
    "articles": lambda history, _: _written(history, ARTICLES),
}
