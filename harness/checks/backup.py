"""Is there always a recent backup, and can it be restored?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.history import History, Op
from harness.history.backups import age_ms, first_samples
from harness.history.injections import injections
from harness.history.intervals import Intervals, silences
from harness.history.planned_load import lacks
from harness.history.timeline import MS, count_of, moment, span_of
from harness.verdict import Finding, Verdict, conclude, invalid, not_tried, unknown

NAME = "backup"

SHOWN = 5


class BackupSettings(BaseModel):
    """``[checks.backup]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    of: tuple[str, ...] = Field(
        default=("database", "uploads"), min_length=1, description="Data that must have a backup"
    )
    age_ms: float = Field(
        default=180_000,
        gt=0,
        description="Maximum age of a backup; the default is three times the usual interval of one minute "
        "(backup_every_s of the topology), so that one backup may fail",
    )
    settle_ms: float = Field(
        default=180_000,
        ge=0,
        description="Grace period after a fault that touches the backup, in which its age is not judged",
    )
    fresh: int = Field(default=0, ge=0, description="Minimum number of new backups of each kind during the run")
    proofs: int = Field(default=0, ge=0, description="Minimum number of successful restores during the run")
    samples: int = Field(default=3, ge=1, description="Minimum number of samples of each backup")
    samples_ms: float = Field(default=20_000, gt=0, description="Maximum time between two samples")


def check(history: History, settings: BackupSettings) -> Verdict:
    """Each backup is recent enough at all times, and every restore succeeds.

    The check sees the age of the current backup every 5 s, as reported by the node that keeps it, and the result of
    each restore (ops ``prove-backup``). It judges the age while no fault touches the node that keeps the backup or the
    data itself, and after such faults have settled. A failed restore is always invalid; a restore that could not be
    attempted is not judged.

    The check cannot see what a backup contains. That takes a restore; ``proofs`` is the minimum number of restores. An
    age below zero means that a clock is wrong, which makes the verdict unknown.
    """
    backups = _Backups(history, settings)
    if not backups.settings.of:
        return conclude(NAME, [not_tried("The topology has none of these data.")], "")
    findings = [*backups.ages(), *backups.restores()]
    oldest = max((row["oldest_ms"] or 0 for row in backups.rows.values()), default=0)
    held = f"No backup was older than {span_of(oldest)}; {_restored(backups.proven)}."
    return conclude(NAME, findings, held, {"backups": backups.rows}, backups.evidence())


def _restored(number: int) -> str:
    return f"{count_of(number, 'backup')} {'was' if number == 1 else 'were'} restored"


PART_OF = {"database": "MySQL", "uploads": "variable data"}
"""The part of a topology that keeps each kind of data."""


def _of_the_topology(history: History, settings: BackupSettings) -> BackupSettings:
    """Without the data that the topology does not have, unless a scenario names them."""
    if "of" in settings.model_fields_set:
        return settings
    kept = tuple(of for of in settings.of if not lacks(history, PART_OF.get(of, of)))
    return settings.model_copy(update={"of": kept})


class _Backups:
    """The samples of each backup by what it is a backup of, and all restores."""

    def __init__(self, history: History, settings: BackupSettings) -> None:
        self.history, self.settings = history, _of_the_topology(history, settings)
        self.samples: dict[str, list[Op]] = defaultdict(list)
        for op in history.by_time().seen("backup"):
            if op.get("age_s") is not None:
                self.samples[str(op["of"])].append(op)
        self.restored = [op for op in history.of("prove-backup") if op.type != "invoke"]
        self.proven = sum(op.type == "ok" for op in self.restored)
        self.rows = {of: self._row(self.samples.get(of, [])) for of in self.settings.of}

    def _row(self, samples: Sequence[Op]) -> dict[str, Any]:
        ages = [age_ms(op) for op in samples]
        return {"samples": len(ages), "oldest_ms": max(ages, default=None), "new": len(first_samples(samples))}

    def ages(self) -> Iterator[Finding]:
        """Backups that are too old, and those whose age is not known well enough."""
        for of in self.settings.of:
            samples = self.samples.get(of, [])
            if len(samples) < self.settings.samples:
                yield unknown(
                    f"The backup of the {of} has {count_of(len(samples), 'sample')}; at least "
                    f"{self.settings.samples} are needed."
                )
                continue
            calm = self._calm(samples)
            yield from self._age(of, samples, calm)
            yield from self._new(of, samples)
            times = [op.time for op in samples]
            for since, till in silences(times, times[0], times[-1], round(self.settings.samples_ms * MS)):
                if since in calm:
                    yield unknown(
                        f"There are no samples of the backup of the {of} from {moment(since)} to {moment(till)}."
                    )

    def _age(self, of: str, samples: Sequence[Op], calm: Intervals) -> Iterator[Finding]:
        judged = [op for op in samples if op.time in calm]
        old = [op for op in judged if age_ms(op) > self.settings.age_ms]
        if old:
            yield invalid(
                f"The backup of the {of} was {span_of(age_ms(old[0]))} old at {moment(old[0].time)}; "
                f"{span_of(self.settings.age_ms)} is allowed.",
                *(op.index for op in old[:SHOWN]),
            )
        if not judged:
            yield unknown(f"All samples of the backup of the {of} fall into faults or their grace periods.")
        if early := [op for op in samples if age_ms(op) < 0]:
            yield unknown(
                f"The backup of the {of} had a time stamp in the future at {moment(early[0].time)}: a clock is wrong.",
                early[0].index,
            )

    def _new(self, of: str, samples: Sequence[Op]) -> Iterator[Finding]:
        arrived = len(first_samples(samples))
        if arrived < self.settings.fresh:
            yield invalid(
                f"Only {count_of(arrived, 'new backup')} of the {of} arrived; at least {self.settings.fresh} must.",
                samples[0].index,
                samples[-1].index,
            )

    def _calm(self, samples: Sequence[Op]) -> Intervals:
        """When no fault excuses an old backup."""
        nodes = {str(op.get("node")) for op in samples} | {"db", self.history.cluster.web[0]}
        touching = [
            (fault.start, fault.settled)
            for fault in injections(self.history, self.settings.settle_ms)
            if fault.touches(*nodes)
        ]
        return Intervals([(0, self.history.end_ns + 1)]).minus(touching)

    def restores(self) -> Iterator[Finding]:
        """Restores that failed, and too few of them."""
        failed = [op for op in self.restored if op.type == "fail"]
        if failed:
            why = failed[0].error or failed[0].get("why") or "no reason given"
            yield invalid(
                f"A backup could not be restored at {moment(failed[0].time)}: {why}.",
                *(op.index for op in failed[:SHOWN]),
            )
        if self.proven < self.settings.proofs:
            reasons = [op.error.rstrip(".") for op in self.restored if op.type == "info" and op.error]
            why = f" The last attempt: {reasons[-1]}." if reasons else ""
            yield unknown(f"{_restored(self.proven)}; at least {self.settings.proofs} must be.{why}")

    def evidence(self) -> Iterator[int]:
        """The sample with the highest age of each backup, and every restore."""
        for of in self.settings.of:
            if samples := self.samples.get(of):
                yield max(samples, key=age_ms).index
        yield from (op.index for op in self.restored)
