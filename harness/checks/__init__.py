"""The checks: pure functions from a history to a verdict, one question a file. ``CHECKS`` names them all."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from harness.checks import (
    arrivals,
    audit,
    backup,
    balance,
    bank,
    content,
    counters,
    durability,
    errors,
    established,
    failback,
    knee,
    linearizable,
    monitoring,
    outage,
    ownership,
    persistence,
    quiescing,
    recovery,
    rotation,
    uploads,
)
from harness.history import History, HistoryError
from harness.verdict import Outcome, Verdict, conclude, unknown

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
    durability.NAME: Check(durability.DurabilitySettings, durability.check),
    linearizable.NAME: Check(linearizable.LinearizableSettings, linearizable.check),
    counters.NAME: Check(counters.CountersSettings, counters.check),
    bank.NAME: Check(bank.BankSettings, bank.check),
    uploads.NAME: Check(uploads.UploadsSettings, uploads.check),
    quiescing.NAME: Check(quiescing.QuiescingSettings, quiescing.check),
    errors.NAME: Check(errors.ErrorsSettings, errors.check),
    balance.NAME: Check(balance.BalanceSettings, balance.check),
    rotation.NAME: Check(rotation.RotationSettings, rotation.check),
    content.NAME: Check(content.ContentSettings, content.check),
    monitoring.NAME: Check(monitoring.MonitoringSettings, monitoring.check),
    failback.NAME: Check(failback.FailbackSettings, failback.check),
    established.NAME: Check(established.EstablishedSettings, established.check),
    persistence.NAME: Check(persistence.PersistenceSettings, persistence.check),
    backup.NAME: Check(backup.BackupSettings, backup.check),
    knee.NAME: Check(knee.KneeSettings, knee.check),
    arrivals.NAME: Check(arrivals.ArrivalsSettings, arrivals.check),
    audit.NAME: Check(audit.AuditSettings, audit.check),
}


def judge(history: History, settings: Mapping[str, Mapping[str, Any] | BaseModel]) -> list[Verdict]:
    """The verdict of every check that ``settings`` names, in that order; ``verdict.overall`` sums them up.

    A run that was killed is never valid, whatever a check can see of it. A check that breaks is unknown.

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
        found = check.ask(history, settings)
    except HistoryError as error:
        return conclude(name, [unknown(f"The history cannot be judged: {error}.")], "")
    except Exception as error:  # what the other checks say must not be lost with it
        return conclude(name, [unknown(f"The check itself failed: {_where(error)}.")], "")
    return found if history.complete else _cut_short(found)


def _where(error: Exception) -> str:
    """An error of the check's own, or a value in the history that no feed writes: what it was, and where to look."""
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(at.filename).name}, line {at.lineno})"


def _cut_short(found: Verdict) -> Verdict:
    """What a killed run may come to: what would have come after is not known, also to a check that did not ask."""
    if found.outcome is not Outcome.VALID:
        return found
    killed = unknown("The run was killed: what came after is not known.")
    return conclude(found.check, [killed], "", found.numbers, found.evidence)
