"""The checks: pure functions from a history to a verdict, one question per file. ``CHECKS`` has all of them."""

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
from harness.history.injections import injections, unrecorded
from harness.verdict import Outcome, Verdict, conclude, unknown

__all__ = ["CHECKS", "Check", "judge"]


@dataclass(frozen=True)
class Check:
    """A question to ask of a history. ``settings`` is the model of the scenario's ``[checks.<name>]`` table."""

    settings: type[BaseModel]
    ask: Callable[[History, Any], Verdict]
    reads_effects: bool = False
    """Its verdict depends on what the faults of the run did."""


CHECKS: Mapping[str, Check] = {
    ownership.NAME: Check(ownership.OwnershipSettings, ownership.check),
    outage.NAME: Check(outage.OutageSettings, outage.check, reads_effects=True),
    recovery.NAME: Check(recovery.RecoverySettings, recovery.check),
    durability.NAME: Check(durability.DurabilitySettings, durability.check),
    linearizable.NAME: Check(linearizable.LinearizableSettings, linearizable.check),
    counters.NAME: Check(counters.CountersSettings, counters.check),
    bank.NAME: Check(bank.BankSettings, bank.check),
    uploads.NAME: Check(uploads.UploadsSettings, uploads.check),
    quiescing.NAME: Check(quiescing.QuiescingSettings, quiescing.check, reads_effects=True),
    errors.NAME: Check(errors.ErrorsSettings, errors.check),
    balance.NAME: Check(balance.BalanceSettings, balance.check),
    rotation.NAME: Check(rotation.RotationSettings, rotation.check),
    content.NAME: Check(content.ContentSettings, content.check, reads_effects=True),
    monitoring.NAME: Check(monitoring.MonitoringSettings, monitoring.check, reads_effects=True),
    failback.NAME: Check(failback.FailbackSettings, failback.check, reads_effects=True),
    established.NAME: Check(established.EstablishedSettings, established.check),
    persistence.NAME: Check(persistence.PersistenceSettings, persistence.check, reads_effects=True),
    backup.NAME: Check(backup.BackupSettings, backup.check, reads_effects=True),
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
        raise KeyError(f"unknown check {name!r}; known: {', '.join(CHECKS)}")
    check = CHECKS[name]
    settings = check.settings.model_validate(given)
    try:
        history.cluster  # noqa: B018 (a history without its first op answers no question)
        found = check.ask(history, settings)
    except HistoryError as error:
        return conclude(name, [unknown(f"The history cannot be judged: {error}.")], "")
    except Exception as error:  # what the other checks say must not be lost with it
        return conclude(name, [unknown(f"The check itself failed: {_where(error)}.")], "")
    if check.reads_effects and found.outcome is Outcome.VALID:
        found = _unless_unrecorded(history, found)
    return found if history.complete else _killed(found)


def _unless_unrecorded(history: History, found: Verdict) -> Verdict:
    """Unknown, where the history does not say what a fault did: it may have excused anything."""
    findings = list(unrecorded(injections(history)))
    return conclude(found.check, findings, found.summary, found.numbers, found.evidence)


def _where(error: Exception) -> str:
    """The error of a check, and its place: a bug, or a value in the history that no feed writes."""
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(at.filename).name}, line {at.lineno})"


KILLED = unknown("The run was killed: what happened afterwards is unknown.")


def _killed(found: Verdict) -> Verdict:
    """A killed run is unknown to every check, unless the check already found it invalid."""
    return conclude(found.check, [KILLED, *found.findings], "", found.numbers, found.evidence)
