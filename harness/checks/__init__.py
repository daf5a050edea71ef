"""The checks: pure functions from a history to a verdict, one question a file. ``CHECKS`` names them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from harness.checks import outage, ownership, recovery
from harness.history import History, HistoryError
from harness.verdict import Verdict, conclude, unknown

__all__ = ["CHECKS", "Check", "judge"]


@dataclass(frozen=True)
class Check:
    """A question to ask of a history. ``settings`` is the model of the scenario's ``[checks.<name>]`` table."""

    settings: type[BaseModel]
    ask: Callable[[History, Any], Verdict]


CHECKS: Mapping[str, Check] = {
    ownership.NAME: Check(ownership.OwnershipSettings, ownership.check),
    outage.NAME: Check(outage.OutageSettings, outage.check),
    recovery.NAME: Check(recovery.RecoverySettings, recovery.check),
}


def judge(history: History, settings: Mapping[str, Mapping[str, Any] | BaseModel]) -> list[Verdict]:
    """The verdict of every check that ``settings`` names, in that order; ``verdict.overall`` sums them up.

    Raises KeyError for a check that there is not and pydantic's ValidationError for settings that are not right: both
    are mistakes in a scenario, which reading it finds. What cannot be read in the history makes its verdict unknown.
    """
    return [_ask(history, name, given) for name, given in settings.items()]


def _ask(history: History, name: str, given: Mapping[str, Any] | BaseModel) -> Verdict:
    if name not in CHECKS:
        raise KeyError(f"there is no check {name!r}; there are {', '.join(CHECKS)}")
    check = CHECKS[name]
    settings = check.settings.model_validate(given)
    try:
        history.cluster  # noqa: B018 (a history without its first op answers no question)
        return check.ask(history, settings)
    except HistoryError as error:
        return conclude(name, [unknown(f"The history cannot be judged: {error}.")], "")
