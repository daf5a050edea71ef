"""Are the players' points the sum of what was scored, at every moment?"""

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
from harness.history.timeline import moment
from harness.verdict import Finding, Verdict, conclude, invalid

NAME = "counters"


class CountersSettings(BaseModel):
    """``[checks.counters]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scores: int = Field(default=20, ge=1, description="How many acknowledged scores it takes to tell")
    reads: int = Field(default=100, ge=1, description="How many reads of points it takes to tell")
    fresh: bool = Field(
        default=False, description="The lab was new: nobody had points. Else a player's first points are not known"
    )


def check(history: History, settings: CountersSettings) -> Verdict:
    """Whatever is read of a player's points: sum of acknowledged <= points <= sum of attempted, in real time.

    It sees ``score`` and ``score-read`` as the players record them. A read must have all scores that were acknowledged
    before it began, and may have those that began before it ended; one without an answer may count from its beginning
    on, or never. The answer to a score tells the new total, so it is a read, too. The same holds of ``entries``, the
    count of the player's scores. Points only grow: an answer that was begun after another must not have less, nor may
    two scores be told the same total.

    A lab keeps its points from run to run. Unless it is ``fresh``, what a player began with is only known from reads,
    so two of them are compared, and what was lost or added before a player's first read is not seen. Which of several
    concurrent scores a read has is not asked: a wrong total that some choice of them could explain passes, unless a
    later read without concurrency tells. Writers other than the run's own players are not known.
    """
    facts = _Facts(history, settings)
    findings = [*doubts(history), *facts.minimum_evidence(), *facts.clashes("total"), *facts.clashes("entries")]
    findings += [*facts.order()]
    told = f"{len(facts.reads):,} reads of {facts.players} players' points"
    held = f"{told} had what was acknowledged, and no more than was attempted in {len(facts.scores):,} scores."
    return conclude(NAME, findings, held, facts.numbers())


class _Facts:
    """A history and all that is read from it once."""

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
        """Reasons to say that too little was tested."""
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
        """What a score itself added. One that the site had before (``first`` is false) added nothing now."""
        return call.number("points") if call.invoke.f == "score" and call.told.get("first") is not False else 0

    def _keys(self, some: Sequence[Call]) -> Ints:
        return ints([self.key[call.number("player")] for call in some])

    def _clash(self, clash: sum_bounds.Clash, seen: Sequence[Call], what: str, key: str) -> Finding:
        most, least = (None if place is None else seen[place] for place in (clash.most, clash.least))
        player = f"Player {self.player[clash.key]}"
        ops = tuple(dict.fromkeys(index for call in (most, least) if call for index in call.ops))
        if least is not None and (most is None or most.start <= least.start):
            had = f"{least.number(key):,} {what} at {moment(least.start)}"
            return invalid(f"{player} had {had}, at least {clash.by:,} fewer than were acknowledged by then.", *ops)
        assert most is not None
        had = f"{most.number(key):,} {what} at {moment(most.start)}"
        return unless_gaps(
            self.history, f"{player} had {had}, at least {clash.by:,} more than were ever attempted.", *ops
        )

    def order(self) -> Iterator[Finding]:
        """Totals that went back, or that two scores were told."""
        told = [call for call in self.acknowledged if call.told.get("first") is not False] + self.reads
        marks = monotonic.Marks(
            key=self._keys(told),
            number=ints([call.number("total") for call in told]),
            write=flags([call.invoke.f == "score" for call in told]),
            start=starts(told),
            end=ends(told),
        )
        back, twice = monotonic.backsteps(marks), monotonic.shared(marks)
        for one, other in back.examples:
            first, then = f"{_had(told[one])} by {moment(told[one].end)}", f"{_had(told[other])} after it"
            yield invalid(f"Player {told[one].number('player')} had {first} and {then}.", *_ops(told, one, other))
        for one, other in twice.examples:
            player, total = told[one].number("player"), _had(told[one])
            yield invalid(f"Two scores of player {player} were both told {total}.", *_ops(told, one, other))
        untold = back.count + twice.count - len(back.examples) - len(twice.examples)
        if untold:
            yield invalid(f"{untold:,} more totals went back, or were told twice.")

    def numbers(self) -> dict[str, Any]:
        """What was measured."""
        unsure = [call for call in self.scores if not call.ok]
        return {
            "players": self.players,
            "scores": len(self.scores),
            "acknowledged": len(self.acknowledged),
            "nobody_knows": len(unsure),
            "points_acknowledged": sum(call.number("points") for call in self.acknowledged),
            "points_attempted": sum(call.number("points") for call in self.scores),
            "reads": len(self.reads),
        }


def _had(call: Call) -> str:
    return f"{call.number('total'):,} points"


def _ops(told: Sequence[Call], one: int, other: int) -> tuple[int, ...]:
    return (*told[one].ops, *told[other].ops)
