"""Does every player's profile behave like one register, wherever it is read and written?"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from harness.algorithms import monotonic, register_zones, wing_gong
from harness.algorithms.arrays import NEVER, flags, ints
from harness.history import History
from harness.history.client_ops import (
    Call,
    answered,
    attempted,
    calls,
    doubts,
    ends,
    gaps,
    named,
    shown,
    starts,
    too_few,
    unless_gaps,
)
from harness.history.timeline import moment
from harness.verdict import Finding, Verdict, conclude, invalid, unknown

NAME = "linearizable"

Value: TypeAlias = tuple[int, str]
"""A player, and a motto of theirs."""


class LinearizableSettings(BaseModel):
    """``[checks.linearizable]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    writes: int = Field(default=20, ge=1, description="How many acknowledged changes of a profile it takes to tell")
    reads: int = Field(default=100, ge=1, description="How many reads of what this run wrote it takes to tell")
    search_s: float = Field(
        default=10,
        gt=0,
        description="The longest search, in all, for players whose mottos are not unique; then unknown",
    )


def check(history: History, settings: LinearizableSettings) -> Verdict:
    """Each profile is a register: all its reads and writes can be put in one order that their times allow.

    It sees ``profile-write`` and ``profile-read`` as the players record them. Mottos are ids of ops, so each is written
    once, and the answer is exact (``algorithms/register_zones.py``). Where a player's motto was written twice, it
    searches, and gives up after a time: the one thing here that depends on the machine, and it can only turn a verdict
    to unknown. The site counts the changes of a profile. Such a version must never go back, belong to two mottos, or be
    given out twice: seen even where no read fell between two writes.

    A write without an answer may have happened at any time since, or never. What a profile was before the run is taken
    to be the one motto that was read and not written; other writers than the run's own players are not known.

    It cannot see what nobody read: too few reads make it unknown. Each player is judged alone.
    """
    facts = _Facts(history, settings)
    findings = [
        *doubts(history),
        *facts.minimum_evidence(),
        *facts.anomalies(),
        *facts.strangers(),
        *facts.refused_seen(),
    ]
    findings += [*facts.versions(), *facts.searched()]
    players = len({player for player, _ in facts.mottos})
    held = f"{players} profiles are linearizable: {len(facts.reads):,} reads and {len(facts.writes):,} changes."
    return conclude(NAME, findings, held, facts.numbers())


class _Facts:
    """A history and all that is read from it once."""

    def __init__(self, history: History, settings: LinearizableSettings) -> None:
        self.history = history
        self.settings = settings
        self.writes = attempted(history, "profile-write")
        self.reads = answered(history, "profile-read")
        self.mottos = Counter(map(_value, self.writes))
        self.refused = {_value(call): call for call in calls(history, "profile-write") if call.type == "fail"}
        self.repeated = {player for (player, _), times in self.mottos.items() if times > 1}
        self.own = [call for call in self.reads if _value(call) in self.mottos]
        self.first, self.strange = self._not_written()
        known = {*self.mottos, *self.first.items()}
        self.judged = [call for call in self.writes + self.reads if _value(call) in known]
        self.found = register_zones.Found({}, ())
        self.given_up: list[int] = []

    def _not_written(self) -> tuple[dict[int, str], list[Call]]:
        """What each player had from before the run, and the reads of further mottos that nobody wrote."""
        first: dict[int, str] = {}
        strange: list[Call] = []
        for call in sorted(self.reads, key=lambda call: call.end):
            player, motto = value = _value(call)
            if value not in self.mottos and value not in self.refused and first.setdefault(player, motto) != motto:
                strange.append(call)
        return first, strange

    def minimum_evidence(self) -> Iterator[Finding]:
        """Reasons to say that too little was tested."""
        acknowledged = sum(call.ok for call in self.writes)
        yield from too_few("Acknowledged changes of profiles", acknowledged, self.settings.writes)
        yield from too_few("Reads of profiles that the run had changed", len(self.own), self.settings.reads)

    # --- the register

    def anomalies(self) -> Iterator[Finding]:
        """What the zones say of all players whose mottos are unique."""
        done = [call for call in self.judged if _value(call)[0] not in self.repeated]
        self.found = register_zones.judge(self._ops(done))
        for violation in self.found.examples:
            told = [done[place] for place in violation.ops if place < len(done)]
            yield invalid(self._sentence(violation.kind, told), *shown(told))
        untold = sum(self.found.counts.values()) - len(self.found.examples)
        if untold > 0:
            yield invalid(f"{untold:,} more reads and writes of profiles contradict one another.")

    def _ops(self, done: Sequence[Call]) -> register_zones.Ops:
        """The ops, and behind them one write of each profile's first motto before all time."""
        values = [*map(_value, done), *(value for value in self.first.items() if value[0] not in self.repeated)]
        codes = {value: code for code, value in enumerate(dict.fromkeys(values))}
        players = {player: code for code, player in enumerate(dict.fromkeys(player for player, _ in values))}
        before = [NEVER] * (len(values) - len(done))
        return register_zones.Ops(
            register=ints([players[player] for player, _ in values]),
            value=ints([codes[value] for value in values]),
            write=flags([call.invoke.f == "profile-write" for call in done] + [True] * len(before)),
            start=ints([call.start for call in done] + before),
            end=ints([call.end for call in done] + before),
        )

    def _sentence(self, kind: str, told: Sequence[Call]) -> str:
        player = _value(told[0])[0]
        mottos = list(dict.fromkeys(_value(call)[1] for call in told))
        last = max(told, key=lambda call: call.start)
        if kind == register_zones.EARLY:
            return f"Player {player}'s motto {mottos[0]!r} was read before its write began, at {moment(told[0].start)}."
        both = " and ".join(map(repr, mottos)) if len(mottos) > 1 else f"{mottos[0]!r} and the one before the run"
        if kind == register_zones.STALE:
            return f"Player {player} had two mottos at once, {both}: one was read too late, by {moment(last.start)}."
        return f"Player {player}'s motto went back and forth between {both}, by {moment(last.start)}."

    def strangers(self) -> Iterator[Finding]:
        """Mottos that nobody wrote."""
        if self.strange:
            values = [f"{motto!r} of player {player}" for player, motto in dict.fromkeys(map(_value, self.strange))]
            yield unless_gaps(
                self.history, f"Mottos were read that nobody wrote: {named(values)}.", *shown(self.strange)
            )

    def refused_seen(self) -> Iterator[Finding]:
        """Mottos of writes that certainly were not made."""
        seen = [call for call in self.reads if _value(call) in self.refused and _value(call) not in self.mottos]
        if seen:
            values = [f"{motto!r} of player {player}" for player, motto in dict.fromkeys(map(_value, seen))]
            writes = [self.refused[value] for value in dict.fromkeys(map(_value, seen))]
            sentence = f"Mottos were read whose change the site had refused: {named(values)}."
            yield invalid(sentence, *shown(writes), *shown(seen))

    # --- the versions

    def versions(self) -> Iterator[Finding]:
        """Versions that went back, were given out twice, or belong to two mottos."""
        told = [call for call in self.writes if call.ok] + self.reads
        marks = monotonic.Marks(
            key=ints([call.number("player") for call in told]),
            number=ints([call.number("version") for call in told]),
            write=flags([call.invoke.f == "profile-write" for call in told]),
            start=starts(told),
            end=ends(told),
        )
        back, twice = monotonic.backsteps(marks), monotonic.shared(marks)
        for one, other in back.examples:
            yield invalid(_went_back(told[one], told[other]), *told[one].ops, *told[other].ops)
        for one, other in twice.examples:
            what = f"version {told[one].number('version')} of player {told[one].number('player')}"
            yield invalid(f"Two changes were both given {what}.", *told[one].ops, *told[other].ops)
        untold = back.count + twice.count - len(back.examples) - len(twice.examples)
        if untold:
            yield invalid(f"{untold:,} more versions of profiles went back, or were given out twice.")
        yield from self._torn(told)

    def _torn(self, told: Sequence[Call]) -> Iterator[Finding]:
        """A version is one motto's, and a motto that was written once has one version."""
        by_version: dict[tuple[int, int], Call] = {}
        by_motto: dict[Value, Call] = {}
        for call in told:
            player, motto = _value(call)
            version = call.number("version")
            one = by_version.setdefault((player, version), call)
            if one.text("motto") != motto:
                two = f"{one.text('motto')!r} and {motto!r}"
                yield invalid(f"Version {version} of player {player} was both {two}.", *one.ops, *call.ops)
                return
            one = by_motto.setdefault((player, motto), call)
            if player not in self.repeated and one.number("version") != version:
                two = f"{one.number('version')} and {version}"
                yield invalid(f"Player {player}'s motto {motto!r} had the versions {two}.", *one.ops, *call.ops)
                return

    # --- the search

    def searched(self) -> Iterator[Finding]:
        """The players of whom a motto was written more than once."""
        until = time.monotonic() + self.settings.search_s
        mine: dict[int, list[Call]] = defaultdict(list)
        for call in self.judged:
            if _value(call)[0] in self.repeated:
                mine[_value(call)[0]].append(call)
        for player, done in mine.items():
            answer = wing_gong.linearizable([_searchable(call) for call in done], lambda: time.monotonic() > until)
            if answer is None:
                self.given_up.append(player)
            elif not answer:
                yield invalid(f"Player {player}'s profile is not linearizable.", *shown(done))
        if self.given_up:
            players = named(self.given_up)
            yield unknown(f"The search was given up after {self.settings.search_s:g} s, for player {players}.")

    def numbers(self) -> dict[str, Any]:
        """What was measured."""
        return {
            "players": len({player for player, _ in self.mottos}),
            "changes": len(self.writes),
            "acknowledged": sum(call.ok for call in self.writes),
            "nobody_knows": sum(not call.ok for call in self.writes),
            "refused": len(self.refused),
            "reads": len(self.reads),
            "reads_of_changes": len(self.own),
            "violations": {kind: count for kind, count in self.found.counts.items() if count},
            "players_searched": len(self.repeated),
            "gaps": len(gaps(self.history)),
        }


def _value(call: Call) -> Value:
    return call.number("player"), call.text("motto")


def _searchable(call: Call) -> wing_gong.Call:
    return wing_gong.Call(call.start, call.end, call.invoke.f == "profile-write", call.text("motto"))


def _went_back(one: Call, other: Call) -> str:
    told = "was given" if other.invoke.f == "profile-write" else "had"
    return (
        f"Player {one.number('player')} had version {one.number('version')} by {moment(one.end)} and {told} "
        f"{other.number('version')} after {moment(other.start)}."
    )
