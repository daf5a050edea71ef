"""Does each player's profile behave like a single register, whichever real server reads and writes it?"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
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
from harness.history.planned_load import untried
from harness.history.timeline import count_of, instant
from harness.verdict import Finding, Verdict, conclude, invalid, unknown

NAME = "linearizable"

Value: TypeAlias = tuple[int, str]
"""A player and one of their mottos."""


class LinearizableSettings(BaseModel):
    """``[checks.linearizable]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    writes: int = Field(default=20, ge=1, description="Minimum number of acknowledged changes of profiles")
    reads: int = Field(default=100, ge=1, description="Minimum number of reads that find a change of this run")
    search_s: float = Field(
        default=10,
        gt=0,
        description="Time limit in seconds for searching the ops of all players whose mottos are not unique; after it "
        "the verdict is unknown",
    )


def check(history: History, settings: LinearizableSettings) -> Verdict:
    """Each profile is a register: its reads and writes fit into a single order that respects their times.

    The check sees ``profile-write`` and ``profile-read`` as the players record them. Mottos are ids of ops, so each is
    written once, and the answer is exact (``algorithms/register_zones.py``). If a player wrote a motto twice, the check
    searches for an order and gives up after a time limit. Only this depends on the speed of the machine, and it can
    only make the verdict unknown.

    The site counts the changes of a profile. Such a version must never go back, belong to two mottos, or be assigned
    twice; the check sees that even if there was no read between two writes. Nor may it rise by more than the changes
    that were sent: a change that was made twice, or that the site refused and made all the same, leaves a version that
    none of them has, even if it was overwritten unread. Versions of articles (``article``, ``publish``) must not go
    back or be assigned twice either.

    A write without an answer may have taken effect at any later time, or never. A motto that was read but not written
    counts as the profile's value before the run, if there is only one. The check does not know about writers other than
    the run's own players.

    The check cannot see what was not read, nor a change that was made twice while another one without an answer may
    account for its version. It judges each player separately. Too few changes or reads make it unknown, and gaps in the
    record of the load; so do clocks of load machines that may explain what it found: a motto that was read before
    another client sent it shows clocks that are off (``harness/history/clocks.py``), not a fault of the site.
    """
    if nothing := [*untried(history, "change neither profiles nor articles", "profile-write", "publish")]:
        return conclude(NAME, nothing, "")
    profiles = _Profiles(history, settings)
    findings = [
        *doubts(history),
        *profiles.minimum_evidence(),
        *profiles.anomalies(),
        *profiles.not_written(),
        *profiles.refused_seen(),
    ]
    findings += [*profiles.versions(), *profiles.jumps(), *profiles.searched(), *_articles(history)]
    players = len({player for player, _ in profiles.mottos})
    ops = f"{count_of(len(profiles.reads), 'read')} and {count_of(len(profiles.writes), 'change')}"
    held = f"{count_of(players, 'profile')} {'is' if players == 1 else 'are'} linearizable: {ops}."
    return conclude(NAME, findings, held, profiles.numbers())


class _Profiles:
    """The reads and writes of all profiles."""

    def __init__(self, history: History, settings: LinearizableSettings) -> None:
        self.history = history
        self.settings = settings
        self.writes = attempted(history, "profile-write")
        self.reads = answered(history, "profile-read")
        self.mottos = Counter(map(_value, self.writes))
        self.refused = {_value(call): call for call in calls(history, "profile-write") if call.type == "fail"}
        self.repeated = {player for (player, _), times in self.mottos.items() if times > 1}
        self.own = [call for call in self.reads if _value(call) in self.mottos]
        self.first, self.unwritten = self._unwritten()
        known = {*self.mottos, *self.first.items()}
        self.judged = [call for call in self.writes + self.reads if _value(call) in known]
        self.found = register_zones.Found({}, ())
        self.given_up: list[int] = []

    def _unwritten(self) -> tuple[dict[int, str], list[Call]]:
        """Each player's motto from before the run, and the reads of any other mottos that no player wrote."""
        first: dict[int, str] = {}
        unwritten: list[Call] = []
        for call in sorted(self.reads, key=lambda call: call.end):
            player, motto = value = _value(call)
            if value not in self.mottos and value not in self.refused and first.setdefault(player, motto) != motto:
                unwritten.append(call)
        return first, unwritten

    def minimum_evidence(self) -> Iterator[Finding]:
        """Reasons why the run tested too little."""
        acknowledged = sum(call.ok for call in self.writes)
        if nothing := [*untried(self.history, "change no profile", "profile-write")]:
            yield from nothing
            return
        yield from too_few("Acknowledged changes of profiles", acknowledged, self.settings.writes)
        yield from too_few("Reads of changed profiles", len(self.own), self.settings.reads)

    # --- the register

    def anomalies(self) -> Iterator[Finding]:
        """Anomalies of all players whose mottos are unique, by zones."""
        done = [call for call in self.judged if _value(call)[0] not in self.repeated]
        self.found = register_zones.judge(self._ops(done))
        for violation in self.found.examples:
            involved = [done[place] for place in violation.ops if place < len(done)]
            yield invalid(self._sentence(violation.kind, involved), *shown(involved))
        unnamed = sum(self.found.counts.values()) - len(self.found.examples)
        if unnamed > 0:
            yield invalid(f"There are {count_of(unnamed, 'more contradiction')} between reads and writes of profiles.")

    def _ops(self, done: Sequence[Call]) -> register_zones.Ops:
        """The ops, followed by a write of each profile's first motto before the run."""
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

    def _sentence(self, kind: str, calls: Sequence[Call]) -> str:
        player = _value(calls[0])[0]
        mottos = list(dict.fromkeys(_value(call)[1] for call in calls))
        last = max(calls, key=lambda call: call.start)
        if kind == register_zones.EARLY:
            return f"Player {player}'s motto {mottos[0]!r} was read at {instant(calls[0].start)}."
        both = " and ".join(map(repr, mottos)) if len(mottos) > 1 else f"{mottos[0]!r} and the one before the run"
        if kind == register_zones.STALE:
            read = f"one of them was read too late, at {instant(last.start)}"
            return f"Player {player} had 2 mottos at once, {both}; {read}."
        return f"Player {player}'s motto went back and forth between {both} until {instant(last.start)}."

    def not_written(self) -> Iterator[Finding]:
        """Mottos that no player wrote."""
        if self.unwritten:
            values = [f"{motto!r} of player {player}" for player, motto in dict.fromkeys(map(_value, self.unwritten))]
            sentence = f"Reads found mottos that no player wrote: {named(values)}."
            yield unless_gaps(self.history, sentence, *shown(self.unwritten))

    def refused_seen(self) -> Iterator[Finding]:
        """Mottos of writes that certainly failed."""
        seen = [call for call in self.reads if _value(call) in self.refused and _value(call) not in self.mottos]
        if seen:
            values = [f"{motto!r} of player {player}" for player, motto in dict.fromkeys(map(_value, seen))]
            writes = [self.refused[value] for value in dict.fromkeys(map(_value, seen))]
            sentence = f"Reads found mottos whose change the site had refused: {named(values)}."
            yield invalid(sentence, *shown(writes), *shown(seen))

    # --- the versions

    def versions(self) -> Iterator[Finding]:
        """Versions that went back, were assigned twice, or belong to two mottos."""
        answers = [call for call in self.writes if call.ok] + self.reads
        marks = monotonic.Marks(
            key=ints([call.number("player") for call in answers]),
            number=ints([call.number("version") for call in answers]),
            write=flags([call.invoke.f == "profile-write" for call in answers]),
            start=starts(answers),
            end=ends(answers),
        )
        back, twice = monotonic.backsteps(marks), monotonic.shared(marks)
        for early, late in back.examples:
            before, after = answers[early], answers[late]
            yield invalid(_went_back(before, after), *before.ops, *after.ops)
        for place, same in twice.examples:
            one, other = answers[place], answers[same]
            version = f"version {one.number('version')} of player {one.number('player')}"
            yield invalid(f"Two changes were both assigned {version}.", *one.ops, *other.ops)
        unnamed = back.count + twice.count - len(back.examples) - len(twice.examples)
        if unnamed:
            yield invalid(f"{count_of(unnamed, 'more version')} went back or were assigned twice.")
        yield from self._torn(answers)

    def _torn(self, answers: Sequence[Call]) -> Iterator[Finding]:
        """A version belongs to one motto, and a motto that was written once has one version."""
        by_version: dict[tuple[int, int], Call] = {}
        by_motto: dict[Value, Call] = {}
        for call in answers:
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
                yield invalid(f"Player {player}'s motto {motto!r} had versions {two}.", *one.ops, *call.ops)
                return

    def jumps(self) -> Iterator[Finding]:
        """Versions that no change has, and that no change without an answer explains."""
        answers: dict[int, list[Call]] = defaultdict(list)
        for call in [call for call in self.writes if call.ok] + self.reads:
            answers[call.number("player")].append(call)
        read = set(map(_value, self.reads))
        maybe: dict[int, list[int]] = defaultdict(list)
        for call in self.writes:
            if not call.ok and _value(call) not in read:
                maybe[call.number("player")].append(call.start)
        for player, mine in answers.items():
            if player in self.repeated:
                continue
            for low, high, missing in _jumps(mine, self.mottos, sorted(maybe[player])):
                sentence = (
                    f"Player {player}'s version went from {low} to {high}, with {count_of(missing, 'change')} too many "
                    "for those that were sent."
                )
                ops = shown(call for call in mine if call.number("version") in (low, high))
                yield unless_gaps(self.history, sentence, *ops)

    # --- the search

    def searched(self) -> Iterator[Finding]:
        """Players who wrote a motto more than once."""
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
            players = f"player{'' if len(self.given_up) == 1 else 's'} {named(self.given_up)}"
            yield unknown(
                f"The search hit its limit of {self.settings.search_s:g} s before it reached an answer for {players}."
            )

    def numbers(self) -> dict[str, Any]:
        """What was measured."""
        return {
            "players": len({player for player, _ in self.mottos}),
            "changes": len(self.writes),
            "acknowledged": sum(call.ok for call in self.writes),
            "indeterminate": sum(not call.ok for call in self.writes),
            "refused": len(self.refused),
            "reads": len(self.reads),
            "reads_of_changes": len(self.own),
            "violations": {kind: count for kind, count in self.found.counts.items() if count},
            "players_searched": len(self.repeated),
            "gaps": len(gaps(self.history)),
        }


def _value(call: Call) -> Value:
    return call.number("player"), call.text("motto")


def _jumps(
    answers: Sequence[Call], mottos: Mapping[Value, int], maybe: Sequence[int]
) -> Iterator[tuple[int, int, int]]:
    """Neighbouring versions of a player, and how many changes between them nobody sent.

    ``maybe`` are the starts of changes without an answer whose motto was never read: each may be one of them, if it was
    sent before a version above was there.
    """
    by_version: dict[int, list[Call]] = defaultdict(list)
    for call in answers:
        by_version[call.number("version")].append(call)
    versions = sorted(by_version)
    until = [*accumulate((min(call.end for call in by_version[high]) for high in reversed(versions)), min)][::-1]
    used = 0
    for (low, high), end in zip(pairwise(versions), until[1:], strict=True):
        known = any(call.invoke.f == "profile-write" or _value(call) in mottos for call in by_version[high])
        used += high - low - known
        missing = used - bisect_right(maybe, end)
        if missing > 0:
            yield low, high, missing
            used -= missing


def _articles(history: History) -> Iterator[Finding]:
    """Articles whose version went back, or was assigned twice."""
    answers = answered(history, "publish") + answered(history, "article")
    marks = monotonic.Marks(
        key=ints([call.number("article") for call in answers]),
        number=ints([call.number("version") for call in answers]),
        write=flags([call.invoke.f == "publish" for call in answers]),
        start=starts(answers),
        end=ends(answers),
    )
    back, twice = monotonic.backsteps(marks), monotonic.shared(marks)
    for first, second in (*back.examples, *twice.examples):
        one, other = answers[first], answers[second]
        verb = "was assigned" if other.invoke.f == "publish" else "had"
        yield invalid(
            f"Article {one.number('article')} had version {one.number('version')} by {instant(one.end)} but {verb} "
            f"version {other.number('version')} after {instant(other.start)}.",
            *one.ops,
            *other.ops,
        )


def _searchable(call: Call) -> wing_gong.Call:
    return wing_gong.Call(call.start, call.end, call.invoke.f == "profile-write", call.text("motto"))


def _went_back(one: Call, other: Call) -> str:
    verb = "was assigned" if other.invoke.f == "profile-write" else "had"
    return (
        f"Player {one.number('player')} had version {one.number('version')} by {instant(one.end)} but {verb} version "
        f"{other.number('version')} after {instant(other.start)}."
    )
