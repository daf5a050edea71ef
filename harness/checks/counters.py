"""Are a player's points the sum of their scores at all times?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.algorithms import growth, monotonic, sum_bounds
from harness.algorithms.arrays import FOREVER, NEVER, Ints, flags, ints
from harness.history import History
from harness.history.client_ops import (
    Call,
    answered,
    attempted,
    doubts,
    ends,
    named,
    once,
    shown,
    starts,
    too_few,
    unless_gaps,
)
from harness.history.ledger_reads import resolved
from harness.history.planned_load import untried
from harness.history.timeline import count_of, instant
from harness.verdict import Finding, Outcome, Verdict, conclude, invalid, unknown

NAME = "counters"


class CountersSettings(BaseModel):
    """``[checks.counters]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scores: int = Field(default=20, ge=1, description="Minimum number of acknowledged scores")
    reads: int = Field(default=100, ge=1, description="Minimum number of reads of points")
    fresh: bool = Field(
        default=False, description="Set this if the lab was new, so that all players started with 0 points"
    )


def check(history: History, settings: CountersSettings) -> Verdict:
    """A player's points are the sum of their scores at all times, whole scores only.

    It promises:

    - A read has all scores that were acknowledged before it began, and none that began after it ended. The answer to a
      score has the new total, so it counts as a read too. The same holds for ``entries``, the number of scores.
    - A score without an answer is resolved by the ledger before sums are judged: with an entry it counts by the time of
      that read, without one it had not counted. Points without an entry, or an entry without points, are invalid.
    - Points only grow: an answer that began after another one does not have fewer, and 2 scores do not return the same
      total. The same total always comes with the same number of entries.
    - From each total to the next there is a choice of the scores without an answer that explains it
      (``algorithms/growth.py``).

    It cannot see what was lost or added before the first read: a lab keeps its points from run to run, so unless it is
    ``fresh``, a player's first points are known only from reads. It does not know other writers than the run's players.

    It is unknown with too few scores or reads, with gaps in the record of the load, where what it found may be due to
    those gaps or to clocks of load machines, and where too many scores without an answer could explain a total.
    """
    if nothing := [*untried(history, "add no scores", "score")]:
        return conclude(NAME, nothing, "")
    points = _Points(history, settings)
    findings = [*doubts(history), *points.minimum_evidence(), *points.clashes("total"), *points.clashes("entries")]
    findings += [*points.order()]
    if all(finding.outcome != Outcome.INVALID for finding in findings):
        findings += [*points.unexplained()]
    reads = f"{count_of(len(points.reads), 'read')} of {count_of(points.players, 'player')}"
    held = (
        f"All {reads} had every acknowledged score, and no more than the {count_of(len(points.scores), 'score')} that "
        "were attempted."
    )
    return conclude(NAME, findings, held, points.numbers())


class _Points:
    """The scores of a run, and its reads of points."""

    def __init__(self, history: History, settings: CountersSettings) -> None:
        self.history = history
        self.settings = settings
        self.scores = resolved(history, once(attempted(history, "score"), "op"), "ledger")
        self.acknowledged = [call for call in self.scores if call.ok]
        self.reads = answered(history, "score-read")
        keys = dict.fromkeys(call.number("player") for call in self.scores + self.reads)
        self.player = list(keys)
        self.key = {player: key for key, player in enumerate(keys)}
        self.players = len({call.number("player") for call in self.reads})

    def minimum_evidence(self) -> Iterator[Finding]:
        """Reasons why the run tested too little."""
        yield from too_few("Acknowledged scores", len(self.acknowledged), self.settings.scores)
        yield from too_few("Reads of points", len(self.reads), self.settings.reads)

    def clashes(self, what: str) -> Iterator[Finding]:
        """Reads of ``total`` (points) or ``entries`` (scores) that cannot be right."""
        seen = self.reads + (self.acknowledged if what == "total" else [])
        amounts = [call.number("points") if what == "total" else 1 for call in self.scores]
        own = [self._own(call) for call in seen]
        adds = sum_bounds.Adds(self._keys(self.scores), ints(amounts), starts(self.scores), ends(self.scores))
        values = ints([call.number(what) for call in seen])
        reads = sum_bounds.Reads(self._keys(seen), values, starts(seen), ends(seen), ints(own))
        beginning = (0, 0) if self.settings.fresh else (0, FOREVER)
        for clash in sum_bounds.clashes(adds, reads, beginning):
            yield self._clash(clash, seen, "points" if what == "total" else "scores", what)

    def _own(self, call: Call) -> int:
        """What a score itself added. A score that the site already had (``first`` is false) added nothing."""
        return call.number("points") if call.invoke.f == "score" and call.latest.get("first") is not False else 0

    def _keys(self, some: Sequence[Call]) -> Ints:
        return ints([self.key[call.number("player")] for call in some])

    def _clash(self, clash: sum_bounds.Clash, seen: Sequence[Call], what: str, key: str) -> Finding:
        most, least = (None if place is None else seen[place] for place in (clash.most, clash.least))
        player = f"Player {self.player[clash.key]}"
        ops = tuple(dict.fromkeys(index for call in (most, least) if call for index in call.ops))
        if least is not None and (most is None or most.start <= least.start):
            had = f"{least.number(key):,} {what} at {instant(least.start)}"
            return invalid(
                f"{player} had {had}, at least {clash.by:,} fewer than had been acknowledged or entered.", *ops
            )
        assert most is not None
        had = f"{most.number(key):,} {what} at {instant(most.start)}"
        return unless_gaps(
            self.history,
            f"{player} had {had}, at least {clash.by:,} more than were ever attempted, or than the ledger has.",
            *ops,
        )

    def order(self) -> Iterator[Finding]:
        """Totals that went down, and totals that two scores returned."""
        answers = [call for call in self.acknowledged if call.latest.get("first") is not False] + self.reads
        marks = monotonic.Marks(
            key=self._keys(answers),
            number=ints([call.number("total") for call in answers]),
            write=flags([call.invoke.f == "score" for call in answers]),
            start=starts(answers),
            end=ends(answers),
        )
        back, twice = monotonic.backsteps(marks), monotonic.shared(marks)
        for early, late in back.examples:
            before, after = answers[early], answers[late]
            first, then = f"{_total(before)} by {instant(before.end)}", f"only {_total(after)} afterwards"
            yield invalid(f"Player {before.number('player')} had {first} and {then}.", *before.ops, *after.ops)
        for place, same in twice.examples:
            one, other = answers[place], answers[same]
            player = f"player {one.number('player')}"
            yield invalid(f"Two scores of {player} both returned {_total(one)}.", *one.ops, *other.ops)
        unnamed = back.count + twice.count - len(back.examples) - len(twice.examples)
        if unnamed:
            yield invalid(f"{count_of(unnamed, 'more total')} went down, or were returned twice.")

    def unexplained(self) -> Iterator[Finding]:
        """Totals that no choice of the scores without an answer explains."""
        given_up = []
        maybe: dict[int, list[growth.Maybe]] = defaultdict(list)
        for call in self.scores:
            if not call.ok or call.latest.get("first") is False:  # else its own answer has its place
                maybe[call.number("player")].append(growth.Maybe(call.number("points"), call.start, call.end))
        for key, seen in self._answers().items():
            found = growth.unexplained(seen, maybe[self.player[key]])
            if isinstance(found, growth.Unexplained):
                yield self._unexplained(self.player[key], found)
            elif found is not None:
                given_up.append(self.player[key])
        if given_up:
            players = f"player{'' if len(given_up) == 1 else 's'} {named(given_up)}"
            yield unknown(f"Too many scores without an answer could explain the totals of {players}.")

    def _answers(self) -> dict[int, list[growth.Seen]]:
        """The answers with the total of each player whose totals need an explanation."""
        found: dict[int, list[growth.Seen]] = defaultdict(list)
        if self.settings.fresh:
            found = defaultdict(lambda: [growth.Seen(0, NEVER, NEVER, count=0)])
        for call in self.acknowledged + self.reads:
            entries = call.number("entries") if call.invoke.f == "score-read" else None
            seen = growth.Seen(call.number("total"), call.start, call.end, self._own(call), entries)
            found[self.key[call.number("player")]].append(seen)
        return found

    def _unexplained(self, player: int, found: growth.Unexplained) -> Finding:
        calls = [call for call in self.acknowledged + self.reads if call.number("player") == player]
        ops = shown(call for call in calls if call.number("total") in (found.before, found.value))
        if found.torn:
            sentence = f"Player {player} had different numbers of scores with the same total of {found.value:,} points."
        else:
            sentence = (
                f"No choice of the scores explains how player {player} got from {found.before:,} to "
                f"{count_of(found.value, 'point')}."
            )
        return unless_gaps(self.history, sentence, *ops)

    def numbers(self) -> dict[str, Any]:
        """What was measured."""
        unsure = [call for call in self.scores if not call.ok]
        return {
            "players": self.players,
            "scores": len(self.scores),
            "acknowledged": len(self.acknowledged),
            "indeterminate": len(unsure),
            "points_acknowledged": sum(call.number("points") for call in self.acknowledged),
            "points_attempted": sum(call.number("points") for call in self.scores),
            "reads": len(self.reads),
        }


def _total(call: Call) -> str:
    return count_of(call.number("total"), "point")
