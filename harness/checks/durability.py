"""Are all acknowledged writes still present at the end, and no refused ones?"""

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
from harness.history.ledger_reads import LedgerRead, ledger_reads
from harness.history.planned_load import leaves_out, untried
from harness.history.timeline import MS, count_of, ms, span_of
from harness.history.uploads import VISIBLE_MS, reported_missing, same_bytes
from harness.verdict import Finding, Verdict, conclude, invalid, unknown

NAME = "durability"

Kind: TypeAlias = Literal["scores", "transfers", "profiles", "uploads", "articles"]
KINDS: tuple[Kind, ...] = ("scores", "transfers", "profiles", "uploads")
"""What players write; administrators write articles."""


WRITTEN_BY: Mapping[Kind, str] = {
    "scores": "score",
    "transfers": "transfer",
    "profiles": "profile-write",
    "uploads": "upload",
    "articles": "publish",
}
"""The op that writes each kind."""


class DurabilitySettings(BaseModel):
    """``[checks.durability]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    of: tuple[Kind, ...] = Field(default=KINDS, min_length=1, description="Kinds of writes to check")
    acknowledged: int = Field(default=20, ge=1, description="Minimum number of acknowledged writes of each kind")
    stale_ms: float = Field(
        default=0,
        ge=0,
        description="How long an acknowledged score or transfer may be missing from reads, if a later read has it",
    )
    visible_ms: float = Field(
        default=VISIBLE_MS, ge=0, description="How long after its acknowledgement a missing upload is not judged"
    )


def check(history: History, settings: DurabilitySettings) -> Verdict:
    """Every acknowledged score, transfer, profile, upload and article is present at the end, and no refused one.

    Each write is an element of a set and is stable, stale (missing once, later present again), lost or never read, as
    in Jepsen's set-full. A write without an answer may be present or not, but once seen it must stay. A write that
    certainly failed (``fail``) must not be present; nor may an op of this run's players that none of them sent, an op
    twice, or an op with other content or another entry number than was acknowledged.

    The check needs a final read of each kind that began after the last write of that kind ended; without it, the
    verdict is unknown:

    - scores: ``ledger``, transfers: ``transfers``, all pages (``harness/history/ledger_reads.py``);
    - profiles: ``profile-read`` of every player whose profile changed; articles: ``article`` of every changed article,
      by the op that wrote it, as the master has it (the check ``content`` compares the other real servers with it);
    - uploads: ``download`` of every acknowledged upload. An upload is missing only if the site itself reports that
      (status 404 with ``written``); any other failure says nothing.

    A motto is present if a read has it or a later version, which overwrote it. No two mottos have the same version. The
    check ``linearizable`` finds versions that go back; only both checks together see every lost change. This check
    cannot see what is lost after the final read, nor what would be lost if a machine lost power then. What earlier runs
    left in the lab is counted but not judged.
    """
    if nothing := [*untried(history, "write nothing", *(WRITTEN_BY[kind] for kind in settings.of))]:
        return conclude(NAME, nothing, "")
    judged = [JUDGES[kind](history, settings) for kind in _kinds(history, settings)]
    findings = [*doubts(history)]
    for kind in judged:
        findings += [*kind.minimum_evidence(settings), *kind.lost(), *kind.stale(settings), *kind.strange(history)]
    counts = ", ".join(kind.count(kind.acknowledged) for kind in judged)
    held = f"All acknowledged writes are present: {counts}."
    return conclude(NAME, findings, held, {kind.name: kind.numbers() for kind in judged})


def _kinds(history: History, settings: DurabilitySettings) -> Sequence[Kind]:
    """The kinds that a scenario names, or else those of the default that the load was to write."""
    named_ones = "of" in settings.model_fields_set
    return [kind for kind in settings.of if named_ones or not leaves_out(history, WRITTEN_BY[kind])]


@dataclass
class Judged:
    """The writes of one kind, and what reads found of them. Elements are places in ``writes``."""

    name: Kind
    writes: Sequence[Call]
    elements: Elements
    names: Sequence[str]
    final: bool = False
    """There is a final read."""
    unread: Sequence[int] = ()
    """Acknowledged, but not covered by a final read."""
    changed: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Present with other content, too early or twice: what is wrong, and the ops."""
    foreign: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Ops of this run's players that none of them sent."""
    earlier: int = 0
    """The number of entries from earlier runs."""
    reads: int = 0

    @cached_property
    def states(self) -> Ints:
        """The State of each, once all reads are recorded."""
        return self.elements.states()

    @property
    def acknowledged(self) -> int:
        """The number of acknowledged writes."""
        return sum(call.ok for call in self.writes)

    def count(self, number: int, which: str = "") -> str:
        """A number of these writes, for a sentence."""
        return count_of(number, f"{which} {self.name.removesuffix('s')}".strip())

    @property
    def failed(self) -> Sequence[bool]:
        """Which writes certainly failed."""
        return [call.type == "fail" for call in self.writes]

    def of(self, state: State) -> list[int]:
        """The elements in that state that must be present."""
        here = (self.states == state) & ~flags(self.failed)
        return [place for place in map(int, np.flatnonzero(here)) if state != State.NEVER_READ or self.writes[place].ok]

    def minimum_evidence(self, settings: DurabilitySettings) -> Iterator[Finding]:
        """Reasons why the run tested too little."""
        yield from too_few(f"Acknowledged {self.name}", self.acknowledged, settings.acknowledged)
        if not self.final:
            yield unknown(f"The run has no final read of all {self.name} after the last write.")
        elif self.unread:
            verb, names = _was(len(self.unread)), named([self.names[place] for place in self.unread])
            yield unknown(f"{self.count(len(self.unread), 'acknowledged')} {verb} not read at the end: {names}.")

    def lost(self) -> Iterator[Finding]:
        """Writes that disappeared."""
        lost = self.of(State.LOST)
        if lost:
            names = named([self.names[place] for place in lost])
            sentence = f"{self.count(len(lost), 'acknowledged or seen')} {_was(len(lost))} lost: {names}."
            yield invalid(sentence, *shown(self.writes[place] for place in lost))

    def stale(self, settings: DurabilitySettings) -> Iterator[Finding]:
        """Writes that were missing too long. Uploads and profiles have their own checks; articles get overwritten."""
        if self.name in ("profiles", "uploads", "articles"):
            return
        away = self.elements.missing_for()
        stale = [place for place in self.of(State.STALE) if away[place] > round(settings.stale_ms * MS)]
        if stale:
            names = named([self.names[place] for place in stale])
            longest = span_of(ms(int(away[stale].max())))
            count = self.count(len(stale), "acknowledged")
            sentence = f"{count} {_was(len(stale))} missing for up to {longest}: {names}."
            yield invalid(sentence, *shown(self.writes[place] for place in stale))

    def strange(self, history: History) -> Iterator[Finding]:
        """What is present but must not be."""
        seen = [place for place in map(int, np.flatnonzero(self.elements.seen)) if self.writes[place].type == "fail"]
        if seen:
            names = named([self.names[place] for place in seen])
            ops = shown(self.writes[place] for place in seen)
            yield invalid(f"{self.count(len(seen), 'refused')} {_is(len(seen))} present: {names}.", *ops)
        if self.changed:
            yield invalid(f"Reads differ from what was written: {named(list(self.changed))}.", *_ops(self.changed))
        if self.foreign:
            names, number = named(list(self.foreign)), len(self.foreign)
            sentence = f"{self.count(number)} {_is(number)} present that no player sent: {names}."
            yield unless_gaps(history, sentence, *_ops(self.foreign))

    def numbers(self) -> dict[str, Any]:
        """What was measured."""
        indeterminate = [place for place, call in enumerate(self.writes) if call.type == "info"]
        return {
            "attempted": len(self.writes),
            "acknowledged": self.acknowledged,
            "refused": sum(self.failed),
            "indeterminate": len(indeterminate),
            "indeterminate_present": int(self.elements.seen[indeterminate].sum()),
            "stable": len([place for place in self.of(State.STABLE) if self.writes[place].ok]),
            "stale": len(self.of(State.STALE)),
            "lost": len(self.of(State.LOST)),
            "never_read": len(self.of(State.NEVER_READ)),
            "longest_absence_ms": ms(int(self.elements.missing_for()[self.of(State.STALE)].max(initial=0))),
            "reads": self.reads,
            "of_earlier_runs": self.earlier,
        }


def _was(number: int) -> str:
    return "was" if number == 1 else "were"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _ops(wrong: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(index for ops in list(wrong.values())[:SHOWN] for index in ops))


# --- scores and transfers: a ledger each


@dataclass(frozen=True)
class Ledger:
    """How a ledger records a kind of write: its ``f``, the ``f`` of a page, and the fields of an entry to compare."""

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
    for read in ledger_reads(history, ledger.page):
        there = _compare(judged, ledger, read, place, _runs(names))
        judged.reads += read.whole
        judged.final |= read.whole and read.start > since
        if read.whole:
            judged.elements.whole(there, read.start, read.end)
        else:
            judged.elements.part(there, read.end)
    return judged


def _compare(judged: Judged, ledger: Ledger, read: LedgerRead, place: Mapping[str, int], runs: frozenset[str]) -> Ints:
    """The elements that a read has; foreign and wrong entries go into ``judged``."""
    there: dict[int, int] = {}
    earlier = 0
    for page, entry in read.entries():
        name = str(entry["op"])
        number = place.get(name)
        if number is None:
            if _run(name) in runs:
                judged.foreign[name] = (page.latest.index,)
            earlier += _run(name) not in runs
            continue
        write = judged.writes[number]
        wrong = _wrong(write, entry, page, ledger) or (number in there and "is present twice")
        if wrong:
            judged.changed[f"{name} {wrong}"] = (*write.ops, page.latest.index)
        there[number] = number
    judged.earlier = max(judged.earlier, earlier)
    return ints(list(there))


def _wrong(write: Call, entry: Mapping[str, Any], page: Call, ledger: Ledger) -> str:
    """What is wrong with the entry of a write."""
    if page.end < write.start:
        return "was present before it was sent"
    if any(entry.get(key) != write.invoke[key] for key in ledger.content):
        return "has other content"
    number = write.latest.get("entry") if write.ok else None
    return (
        f"has entry {entry.get('entry')}, acknowledged as {number}" if number not in (None, entry.get("entry")) else ""
    )


def _run(name: str) -> str:
    """The load that an op belongs to: ids begin with its name (``process_id`` in loadtests/lib/request.py)."""
    return name.partition("-")[0]


def _runs(names: Iterable[str]) -> frozenset[str]:
    return frozenset(map(_run, names))


def _elements(writes: Sequence[Call]) -> Elements:
    return Elements(ints([call.end for call in writes]))


# --- profiles and articles: the version shows whether a text was present


@dataclass(frozen=True)
class Register:
    """How a kind that gets overwritten is written and read: each ``f``, the field that names it, and that of the text.

    ``text`` is the field of the text in a write, and ``by`` in a read.
    """

    name: Kind
    write: str
    read: str
    key: str
    text: str
    by: str
    unwritten: bool = False
    """``by`` is null until the first write."""

    def found(self, read: Call) -> str | None:
        """The text that a read found. Raises HistoryError if it is not a text."""
        return None if self.unwritten and read.latest[self.by] is None else read.text(self.by)


PROFILES = Register("profiles", "profile-write", "profile-read", "player", "motto", "motto")
ARTICLES = Register("articles", "publish", "article", "article", "op", "by", unwritten=True)


def _written(history: History, of: Register) -> Judged:
    # the client repeats a try without a connection at the next address, with the same text
    writes = [call for call in calls(history, of.write) if call.latest.get("again") is not True]
    judged = Judged(of.name, writes, _elements(writes), [call.text(of.text) for call in writes])
    since = settled(writes)
    last = defaultdict(list)
    for read in answered(history, of.read):
        if read.start > since:
            last[read.number(of.key)].append(read)
    judged.reads = sum(map(len, last.values()))
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
    """Acknowledged writes of one thing with the same version: one of them overwrote the other unseen."""
    known: dict[tuple[int, int], Call] = {}
    for write in writes:
        if write.ok:
            first = known.setdefault((write.number(of.key), write.number("version")), write)
            if first.text(of.text) != write.text(of.text):
                yield first, write


def _there(write: Call, read: Call, of: Register) -> bool:
    """Whether the read has the text or a later version. A text without acknowledgement has no version to compare."""
    if of.found(read) == write.text(of.text):
        return True
    return read.number("version") > write.number("version")


def _see_each(judged: Judged, sightings: Sequence[tuple[int, bool, int, int]]) -> None:
    element, present, start, end = np.array(sightings, dtype=np.int64).reshape(-1, 4).T
    judged.elements.each(element, present.astype(np.bool_), start, end)


# --- uploads: each is asked for by its name


def _uploads(history: History, settings: DurabilitySettings) -> Judged:
    writes = once(calls(history, "upload"), "name")
    judged = Judged("uploads", writes, _elements(writes), [call.text("name") for call in writes])
    place = {name: number for number, name in enumerate(judged.names)}
    since, sightings, read = settled(writes), [], set()
    for call in calls(history, "download"):
        number = place.get(call.text("name"))
        if number is None or not (call.ok or reported_missing(call)):
            continue
        write = judged.writes[number]
        if call.ok and not same_bytes(call, write):
            judged.changed[f"{call.text('name')} has other bytes"] = (*write.ops, *call.ops)
        if call.end < write.start:
            judged.changed[f"{call.text('name')} was present before it was sent"] = (*write.ops, *call.ops)
        if not call.ok and write.ok and call.start <= write.end + round(settings.visible_ms * MS):
            continue
        sightings.append((number, call.ok, call.start, call.latest.time + call.slack))
        judged.reads += 1
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
