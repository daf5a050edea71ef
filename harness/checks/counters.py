"""Are a player's points the sum of their scores at all times?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.algorithms import monotonic, sum_bounds
from harness.algorithms.arrays import FOREVER, Ints, flags, ints
from harness.history import History
from harness.history.client_ops import (
    Call,
    answered,
    attempted,
    doubts,
    ends,
    once,
    starts,
    too_few,
    unless_gaps,
)
from harness.history.timeline import count_of, instant
from harness.verdict import Finding, Verdict, conclude, invalid

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
    """At all times a player's points lie between the sum of acknowledged and the sum of attempted scores.

    The check sees ``score`` and ``score-read`` as the players record them. A read must include all scores that were
    acknowledged before it began, and may include those that began before it ended. A score without an answer may count
    from its start on, or never. The answer to a score has the new total, so it counts as a read too. The same holds for
    ``entries``, the number of the player's scores. Points only grow: an answer that began after another one must not
    have fewer points, and two scores must not return the same total.

    A lab keeps its points from run to run. Unless it is ``fresh``, a player's first points are known only from reads,
    so the check compares reads with each other and does not see what was lost or added before the first one. If several
    scores are concurrent with a read, any choice of them may explain its total; a wrong total can pass until a later
    read without concurrency shows it. The check does not know about writers other than the run's own players.
    """
    points = _Points(history, settings)
    findings = [*doubts(history), *points.minimum_evidence(), *points.clashes("total"), *points.clashes("entries")]
    findings += [*points.order()]
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
        self.scores = once(attempted(history, "score"), "op")
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
            return invalid(f"{player} had {had}, at least {clash.by:,} fewer than had been acknowledged.", *ops)
        assert most is not None
        had = f"{most.number(key):,} {what} at {instant(most.start)}"
        return unless_gaps(
            self.history, f"{player} had {had}, at least {clash.by:,} more than were ever attempted.", *ops
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
