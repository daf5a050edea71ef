"""What the mutation suite is made of: right histories, and kinds of mutations that no right site or record has.

A kind is caught when no check that was valid before is left to say valid: invalid, or unknown with a reason. Each kind
says why its histories are certainly wrong. That reason is its oracle: it does not come from a check.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

from harness.checks import judge
from harness.history import History
from harness.plan import Step
from harness.verdict import Outcome, Verdict

Settings: TypeAlias = Mapping[str, Mapping[str, Any]]
Plant: TypeAlias = Callable[[History, random.Random], History]
"""Raises IndexError where a history has nothing to plant it in."""

TRIES = 40
"""How many seeds are tried for one right history in which a mutation can be planted."""


@dataclass(frozen=True)
class Base:
    """Right histories of one sort, by seed, and the checks that are valid for them."""

    name: str
    make: Callable[[int], History]
    asked: Settings
    planned: Sequence[Step] | None = None

    def judge(self, history: History) -> list[Verdict]:
        """The verdicts of the checks that are asked."""
        return judge(history, self.asked, self.planned)

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass(frozen=True)
class Kind:
    """One kind of mutation. ``why`` says why no right site, or no right record, has it."""

    name: str
    base: Base
    plant: Plant
    why: str
    limit: str = ""
    """Why no check finds it; docs/mutations.md lists it."""


@dataclass
class Result:
    """How often a kind was planted, and what came of it."""

    kind: Kind
    outcomes: list[Outcome] = field(default_factory=list)
    said: str = ""
    """The first finding of a check that was not valid."""

    @property
    def caught(self) -> int:
        return sum(outcome is not Outcome.VALID for outcome in self.outcomes)

    @property
    def row(self) -> tuple[str, str, str, str]:
        """The kind, planted, caught, and the outcomes."""
        seen = [outcome.value for outcome in Outcome if outcome in self.outcomes]
        return self.kind.name, str(len(self.outcomes)), str(self.caught), "/".join(seen)


@cache
def right(base: Base, seed: int) -> History | None:
    """A right history that all checks of its base call valid; None where one has too little to say so."""
    history = base.make(seed)
    outcomes = {verdict.outcome for verdict in base.judge(history)}
    assert Outcome.INVALID not in outcomes, (base.name, seed)
    return history if outcomes == {Outcome.VALID} else None


def tried(kind: Kind, times: int) -> Result:
    """Plant a kind in so many right histories."""
    result = Result(kind)
    for seed in range(TRIES):
        history = right(kind.base, seed)
        if history is None:
            continue
        try:
            planted = kind.plant(history, random.Random(f"{kind.name} {seed}"))
        except IndexError:
            continue
        if list(planted) == list(history):
            continue
        bad = [verdict for verdict in kind.base.judge(planted) if verdict.outcome is not Outcome.VALID]
        worst = Outcome.INVALID if any(one.outcome is Outcome.INVALID for one in bad) else Outcome.UNKNOWN
        result.outcomes.append(worst if bad else Outcome.VALID)
        if bad and not result.said:
            said = next((one for one in bad if one.outcome is worst), bad[0])
            result.said = f"{said.check}: {said.findings[0].sentence}"
        if len(result.outcomes) == times:
            break
    return result
