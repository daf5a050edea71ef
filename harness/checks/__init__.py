"""The checks: pure functions from a history to a verdict, one question per file. ``CHECKS`` has all of them."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
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
    one_clock,
    outage,
    ownership,
    persistence,
    quiescing,
    recovery,
    rotation,
    uploads,
)
from harness.history import History, HistoryError, record
from harness.history.client_ops import named
from harness.history.injections import injections, unrecorded
from harness.history.ops import without_collections
from harness.plan import Step
from harness.verdict import Outcome, Verdict, conclude, unknown

__all__ = ["CHECKS", "Check", "judge"]


@dataclass(frozen=True)
class Check:
    """A question to ask of a history. ``settings`` is the model of the scenario's ``[checks.<name>]`` table."""

    settings: type[BaseModel]
    ask: Callable[..., Verdict]
    """From a history and its settings to a verdict."""
    reads_effects: bool = False
    """Its verdict depends on what the faults of the run did."""
    feeds: frozenset[str] = frozenset()
    """The feeds whose ops it compares with each other; a flaw in the record of one makes its verdict unknown."""
    reads_plan: bool = False
    """It also takes ``planned``: the steps of the scenario, or None for a history without one."""


USERS, PROBES, NAMES = frozenset({record.LOAD}), frozenset({record.PROBE}), frozenset({record.DNS})

CHECKS: Mapping[str, Check] = {
    ownership.NAME: Check(ownership.OwnershipSettings, ownership.check),
    outage.NAME: Check(outage.OutageSettings, outage.check, reads_effects=True, feeds=PROBES),
    recovery.NAME: Check(recovery.RecoverySettings, recovery.check, reads_plan=True),
    durability.NAME: Check(durability.DurabilitySettings, durability.check, feeds=USERS),
    linearizable.NAME: Check(linearizable.LinearizableSettings, linearizable.check, feeds=USERS),
    counters.NAME: Check(counters.CountersSettings, counters.check, feeds=USERS),
    bank.NAME: Check(bank.BankSettings, bank.check, feeds=USERS),
    uploads.NAME: Check(uploads.UploadsSettings, uploads.check, feeds=USERS),
    quiescing.NAME: Check(quiescing.QuiescingSettings, quiescing.check, reads_effects=True),
    errors.NAME: Check(errors.ErrorsSettings, errors.check, reads_effects=True, feeds=USERS),
    balance.NAME: Check(balance.BalanceSettings, balance.check, feeds=PROBES),
    rotation.NAME: Check(rotation.RotationSettings, rotation.check, feeds=NAMES),
    content.NAME: Check(content.ContentSettings, content.check, reads_effects=True),
    monitoring.NAME: Check(monitoring.MonitoringSettings, monitoring.check, reads_effects=True),
    failback.NAME: Check(failback.FailbackSettings, failback.check, reads_effects=True),
    established.NAME: Check(established.EstablishedSettings, established.check, feeds=USERS),
    persistence.NAME: Check(
        persistence.PersistenceSettings, persistence.check, reads_effects=True, feeds=USERS | PROBES
    ),
    backup.NAME: Check(backup.BackupSettings, backup.check, reads_effects=True),
    knee.NAME: Check(knee.KneeSettings, knee.check, feeds=USERS),
    arrivals.NAME: Check(arrivals.ArrivalsSettings, arrivals.check, feeds=USERS),
    audit.NAME: Check(audit.AuditSettings, audit.check),
}


def judge(
    history: History,
    settings: Mapping[str, Mapping[str, Any] | BaseModel],
    planned: Sequence[Step] | None = None,
) -> list[Verdict]:
    """The verdict of every check that ``settings`` names, in that order; ``verdict.overall`` sums them up.

    ``planned`` are the steps of the history's scenario (``harness.plan``); None for a history without one.

    The record comes first (``harness/history/record.py``): a flaw makes the verdicts that rest on it unknown.
    A run that was killed is never valid, whatever a check can see of it. A check that breaks is unknown.

    Raises KeyError for a check that there is not and pydantic's ValidationError for settings that are not right: both
    are mistakes in a scenario, which reading it finds. What cannot be read in the history makes its verdict unknown.
    """
    with without_collections():
        wrong = _flaws(history)
        verdicts = [_ask(history, name, given, wrong, planned) for name, given in settings.items()]
        return _unless_a_clock(history, settings, verdicts)


def _flaws(history: History) -> Sequence[record.Flaw]:
    """The flaws of a record; nonsense that breaks the search for them is one, too."""
    try:
        return record.flaws(history)
    except Exception as error:
        return (record.Flaw("", f"The record cannot be checked: {_where(error)}."),)


DATA = frozenset({durability.NAME, linearizable.NAME, counters.NAME, bank.NAME, uploads.NAME})
"""The checks that compare what several clients did."""


def _unless_a_clock(
    history: History, settings: Mapping[str, Mapping[str, Any] | BaseModel], verdicts: Sequence[Verdict]
) -> list[Verdict]:
    """Unknown, where the clock of a load machine that is off explains all that the checks of data found."""
    asked = {name: given for name, given in settings.items() if name in DATA}
    wrong = [each for each in verdicts if each.check in DATA and each.outcome is Outcome.INVALID]

    def invalid(shifted: History) -> bool:
        first = {each.check for each in wrong}
        order = sorted(asked, key=lambda name: name not in first)
        return any(_ask(shifted, name, asked[name], (), None).outcome is Outcome.INVALID for name in order)

    found = one_clock.explanation(history, invalid) if wrong else None
    if found is None:
        return list(verdicts)
    processes, off = found
    sentence = (
        f"The clock of {named(processes)} may be off by about {off:g} ms, which explains everything; the record does "
        "not show that all clients share a clock."
    )
    return [
        conclude(each.check, [unknown(sentence)], "", each.numbers, each.evidence) if each in wrong else each
        for each in verdicts
    ]


def _ask(
    history: History,
    name: str,
    given: Mapping[str, Any] | BaseModel,
    flaws: Sequence[record.Flaw],
    planned: Sequence[Step] | None,
) -> Verdict:
    if name not in CHECKS:
        raise KeyError(f"unknown check {name!r}; known: {', '.join(CHECKS)}")
    check = CHECKS[name]
    settings = check.settings.model_validate(given)
    unbelievable = [
        unknown(flaw.sentence, *flaw.evidence) for flaw in flaws if not flaw.feed or flaw.feed in check.feeds
    ]
    if unbelievable:
        return conclude(name, unbelievable, "")
    try:
        history.cluster  # noqa: B018 (a history without its first op answers no question)
        found = check.ask(history, settings, planned) if check.reads_plan else check.ask(history, settings)
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
