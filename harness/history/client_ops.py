"""What the players asked of the site and what came of it, as the checks of data see it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.algorithms.arrays import FOREVER, Ints, ints
from harness.history import History, HistoryError, Op, Pair
from harness.history.timeline import moment, of_the_load
from harness.verdict import Finding, invalid, unknown

LARGEST = 2**53
"""The largest number that JSON's readers agree on (RFC 8259, 6)."""

NAMED, SHOWN = 5, 20
"""How many elements a finding names, and how many it gives the ops of; the rest are counted."""


@dataclass(frozen=True)
class Call:
    """One op of a player. ``type`` is ``ok``, ``fail`` or ``info``; one whose completion is missing is ``info``."""

    invoke: Op
    completion: Op | None
    type: str

    @property
    def start(self) -> int:
        """When it was sent, in ns."""
        return self.invoke.time

    @property
    def end(self) -> int:
        """When it was answered, in ns; FOREVER when it was not acknowledged: it may take effect at any time."""
        return self.completion.time if self.ok and self.completion is not None else FOREVER

    @property
    def ok(self) -> bool:
        """Acknowledged, or answered."""
        return self.type == "ok"

    @property
    def ops(self) -> tuple[int, ...]:
        """The indexes of its ops."""
        return tuple(op.index for op in (self.invoke, self.completion) if op is not None)

    @cached_property
    def told(self) -> Op:
        """The op that says most: the completion, if there is one."""
        return self.completion or self.invoke

    def number(self, key: str) -> int:
        """A whole number of the value. Raises HistoryError when it is none, or not one of JSON's."""
        return number(self.told, key, self.told[key])

    def text(self, key: str) -> str:
        """A text of the value. Raises HistoryError when it is none."""
        found = self.told[key]
        if not isinstance(found, str):
            raise HistoryError(f"op {self.told.index} ({self.told.f}): its {key} is {found!r}, not a text")
        return found


def number(op: Op, key: str, found: Any) -> int:
    """``found`` as a whole number. Raises HistoryError when it is none, or not one of JSON's."""
    if type(found) is not int or abs(found) >= LARGEST:
        raise HistoryError(f"op {op.index} ({op.f}): its {key} is {found!r}, not a whole number")
    return found


def calls(history: History, f: str) -> list[Call]:
    """All of that ``f``, by time of sending."""
    return [Call(pair.invoke, pair.completion, _type(pair)) for pair in history.pairs(f)]


def _type(pair: Pair) -> str:
    kind = pair.completion.type if pair.completion is not None else "info"
    return kind if kind in ("ok", "fail") else "info"


def attempted(history: History, f: str) -> list[Call]:
    """The writes of that ``f`` that took effect, or may have."""
    return [call for call in calls(history, f) if call.type != "fail"]


def answered(history: History, f: str) -> list[Call]:
    """The reads of that ``f`` that were answered."""
    return [call for call in calls(history, f) if call.ok]


def once(some: Iterable[Call], key: str) -> list[Call]:
    """Each op once, by its id under ``key``: one that was sent again is one op, and the best that is known of it holds.

    The site does each once, however often it is sent. From the first sending on it may have taken effect.
    """
    rank = {"ok": 0, "info": 1, "fail": 2}
    found: dict[str, Call] = {}
    for call in some:
        name = call.text(key)
        first = found.get(name)
        if first is None:
            found[name] = call
        elif (rank[call.type], call.end) < (rank[first.type], first.end):
            found[name] = Call(first.invoke, call.completion, call.type)
    return list(found.values())


def starts(some: Iterable[Call]) -> Ints:
    """When each was sent."""
    return ints([call.start for call in some])


def ends(some: Iterable[Call]) -> Ints:
    """When each was answered; FOREVER for those that were not acknowledged."""
    return ints([call.end for call in some])


def settled(some: Iterable[Call]) -> int:
    """When the last of them was over, in ns: what is read later is what is left. Those under way at the end count."""
    return max((call.told.time for call in some), default=0)


def gaps(history: History) -> tuple[int, ...]:
    """The ops that say that the record of the players, or of the final readings, is not complete."""
    return tuple(op.index for op in _spoilt(history))


def gap_doubts(history: History, meaning: str) -> Iterator[Finding]:
    """That the record has gaps, what made them and when, and what that means."""
    if some := _spoilt(history):
        told = named([f"{op.process} {op.get('phase', 'unreadable')} at {moment(op.time)}" for op in some])
        yield unknown(f"The record of the load has gaps ({told}): {meaning}.", *(op.index for op in some[:SHOWN]))


def _spoilt(history: History) -> list[Op]:
    ops = [op for op in history.of("feed") if of_the_load(op.process)]
    return [op for op in ops if op.error is not None or op.get("phase") in ("lost", "dropped")]


def doubts(history: History) -> Iterator[Finding]:
    """Why not all of a run's data can be judged."""
    if not history.complete:
        yield unknown("The run was killed: what came after is not known.")
    yield from gap_doubts(history, "players may have done more")


def unless_gaps(history: History, sentence: str, *evidence: int) -> Finding:
    """Something is there that nobody asked for: a fault of the site, unless the record of the load has gaps."""
    return (unknown if gaps(history) else invalid)(sentence, *evidence)


def too_few(what: str, found: int, needed: int) -> Iterator[Finding]:
    """Less was tested than it takes."""
    if found < needed:
        yield unknown(f"{what}: {found:,}, and it takes {needed:,} to tell.")


def shown(some: Iterable[Call]) -> tuple[int, ...]:
    """The indexes of the ops of the first few."""
    return tuple(index for call in list(some)[:SHOWN] for index in call.ops)


def named(names: Sequence[object], between: str = ", ") -> str:
    """The first few names, and how many more there are."""
    more = len(names) - NAMED
    return between.join(map(str, names[:NAMED])) + (f" and {more:,} more" if more > 0 else "")
