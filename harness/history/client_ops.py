"""The ops of the players and their results, as the checks of data see them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.algorithms.arrays import FOREVER, NEVER, Ints, ints
from harness.history import History, HistoryError, Op, Pair
from harness.history.clocks import uncertainty_ns
from harness.history.timeline import moment, of_the_load
from harness.verdict import Finding, invalid, unknown

LARGEST = 2**53
"""The largest number that all JSON readers represent exactly (RFC 8259, 6)."""

NAMED, SHOWN = 5, 20
"""How many elements a finding names, and for how many it lists the ops; the rest is only counted."""


@dataclass(frozen=True, slots=True)
class Call:
    """One op of a player. ``type`` is ``ok``, ``fail`` or ``info``; without a completion it is ``info``."""

    invoke: Op
    completion: Op | None
    type: str
    slack: int = 0
    """By how much the clocks of the clients may differ, in ns: it was sent earlier and answered later by that much."""
    not_before: int = NEVER
    """A later read shows that it had not taken effect by then, in ns."""
    not_after: int = FOREVER
    """A later read shows that it had taken effect by then, in ns."""

    @property
    def start(self) -> int:
        """The earliest time at which it can have taken effect, in ns: when it was sent."""
        return max(self.invoke.time - self.slack, self.not_before)

    @property
    def end(self) -> int:
        """The latest time at which it can have taken effect, in ns: when it was answered.

        FOREVER if it was not acknowledged and no read shows that it took effect.
        """
        answered = self.completion.time + self.slack if self.ok and self.completion is not None else FOREVER
        return min(answered, self.not_after)

    @property
    def ok(self) -> bool:
        """Acknowledged, or answered."""
        return self.type == "ok"

    @property
    def ops(self) -> tuple[int, ...]:
        """The indexes of its ops."""
        return tuple(op.index for op in (self.invoke, self.completion) if op is not None)

    @property
    def latest(self) -> Op:
        """The completion if there is one, else the invocation: the op with the most data."""
        return self.invoke if self.completion is None else self.completion

    def number(self, key: str) -> int:
        """The whole number under a key. Raises HistoryError if it is none, or too large for JSON."""
        latest = self.latest
        return number(latest, key, latest[key])

    def text(self, key: str) -> str:
        """The text under a key. Raises HistoryError if it is none."""
        found = self.latest[key]
        if not isinstance(found, str):
            raise HistoryError(f"op {self.latest.index} ({self.latest.f}): its {key} is {found!r}, not a text")
        return found


def number(op: Op, key: str, found: Any) -> int:
    """``found`` as a whole number. Raises HistoryError if it is none, or too large for JSON."""
    if type(found) is not int or abs(found) >= LARGEST:
        raise HistoryError(f"op {op.index} ({op.f}): its {key} is {found!r}, not a whole number")
    return found


def calls(history: History, f: str) -> list[Call]:
    """All ops with that ``f``, by time of sending."""
    slack = uncertainty_ns(history)
    return [Call(pair.invoke, pair.completion, _type(pair), slack) for pair in history.pairs(f)]


def _type(pair: Pair) -> str:
    kind = pair.completion.type if pair.completion is not None else "info"
    return kind if kind in ("ok", "fail") else "info"


def attempted(history: History, f: str) -> list[Call]:
    """The writes with that ``f`` that took effect or may have."""
    return [call for call in calls(history, f) if call.type != "fail"]


def answered(history: History, f: str) -> list[Call]:
    """The answered reads with that ``f``."""
    return [call for call in calls(history, f) if call.ok]


def once(ops: Iterable[Call], key: str) -> list[Call]:
    """Each op once, by its id under ``key``; an op that was sent several times has its best result.

    The site executes each op once, however often it is sent. It may have taken effect since it was first sent.
    """
    rank = {"ok": 0, "info": 1, "fail": 2}
    found: dict[str, Call] = {}
    for call in ops:
        name = call.text(key)
        first = found.get(name)
        if first is None:
            found[name] = call
        elif (rank[call.type], call.end) < (rank[first.type], first.end):
            found[name] = replace(call, invoke=first.invoke)
    return list(found.values())


def starts(ops: Iterable[Call]) -> Ints:
    """When each was sent."""
    return ints([call.start for call in ops])


def ends(ops: Iterable[Call]) -> Ints:
    """When each was answered; FOREVER for those without an acknowledgement."""
    return ints([call.end for call in ops])


def settled(ops: Iterable[Call]) -> int:
    """When the last of them ended, in ns; later reads see the final state. An op without a completion counts too."""
    return max((call.latest.time + call.slack for call in ops), default=0)


def gaps(history: History) -> tuple[int, ...]:
    """The ops which show that the record of the players, or of the final reads, is incomplete."""
    return tuple(op.index for op in _gap_ops(history))


def gap_doubts(history: History, meaning: str) -> Iterator[Finding]:
    """The finding that the record of the load has gaps: where they are, and what they mean for the check."""
    if ops := _gap_ops(history):
        where = named([f"{op.process} {op.get('phase', 'unreadable')} at {moment(op.time)}" for op in ops])
        yield unknown(f"The record of the load has gaps ({where}): {meaning}.", *(op.index for op in ops[:SHOWN]))


def _gap_ops(history: History) -> list[Op]:
    ops = [op for op in history.of("feed") if of_the_load(op.process)]
    return [op for op in ops if op.error is not None or op.get("phase") in ("lost", "dropped")]


def doubts(history: History) -> Iterator[Finding]:
    """Why a run's data cannot be judged completely."""
    yield from gap_doubts(history, "players may have done more")


def unless_gaps(history: History, sentence: str, *evidence: int) -> Finding:
    """A finding about data that no recorded op explains: invalid, unless the record of the load has gaps."""
    return (unknown if gaps(history) else invalid)(sentence, *evidence)


def too_few(what: str, found: int, needed: int) -> Iterator[Finding]:
    """The finding that the run has less evidence than the check needs."""
    if found < needed:
        yield unknown(f"{what}: {found:,}; at least {needed:,} {'is' if needed == 1 else 'are'} needed.")


def shown(ops: Iterable[Call]) -> tuple[int, ...]:
    """The indexes of the ops of the first few."""
    return tuple(index for call in list(ops)[:SHOWN] for index in call.ops)


def named(names: Sequence[object], between: str = ", ") -> str:
    """The first few names, and the number of others."""
    more = len(names) - NAMED
    return between.join(map(str, names[:NAMED])) + (f" and {more:,} more" if more > 0 else "")
