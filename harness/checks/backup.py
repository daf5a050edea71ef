"""Is there always a backup that is new enough, and does it restore?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.history import History, HistoryError, Op
from harness.history.injections import injections, interval_at, subtract
from harness.history.timeline import MS, moment, silences, span_of
from harness.verdict import Finding, Verdict, conclude, invalid, unknown

NAME = "backup"

SHOWN = 5


class BackupSettings(BaseModel):
    """``[checks.backup]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    of: tuple[str, ...] = Field(
        default=("database", "uploads"), min_length=1, description="What there must be backups of"
    )
    age_ms: float = Field(
        default=180_000,
        gt=0,
        description="The oldest that a backup may be: three times the minute after which the next is made "
        "(backup_every_s of the topology), so that one may fail",
    )
    settle_ms: float = Field(
        default=180_000,
        ge=0,
        description="How long after a fault that touches the backup its age is not held against anybody",
    )
    fresh: int = Field(default=0, ge=0, description="How many new backups of each must have arrived in the run")
    proofs: int = Field(default=0, ge=0, description="How many times a backup must have been restored in the run")
    samples: int = Field(default=3, ge=1, description="How many looks at each it takes to tell")
    samples_ms: float = Field(default=20_000, gt=0, description="The longest time without a look")


def check(history: History, settings: BackupSettings) -> Verdict:
    """Each backup is never older than it may be, and each attempt to restore one succeeded.

    It sees the age of the current backup every 5 s, as the node that keeps it says, and what came of each restore (ops
    ``prove-backup``). An age that is too great counts while nothing is in or settling that touches the node that keeps
    it or the data itself. A restore that failed is always wrong, and one that could not be made says nothing.

    It cannot see what is in a backup: that is what restoring is for, and ``proofs`` says how many of these there must
    be. An age below zero is a wrong clock: nobody can tell.
    """
    facts = _Facts(history, settings)
    findings = [*facts.doubts(), *facts.ages(), *facts.restores()]
    oldest = max((row["oldest_ms"] or 0 for row in facts.rows.values()), default=0)
    proven = sum(op.type == "ok" for op in facts.proofs)
    held = f"No backup was older than {span_of(oldest)}; {proven} {'was' if proven == 1 else 'were'} restored."
    return conclude(NAME, findings, held, {"backups": facts.rows}, facts.evidence())


class _Facts:
    """A history and all that is read from it once."""

    def __init__(self, history: History, settings: BackupSettings) -> None:
        self.history, self.settings = history, settings
        self.looks: dict[str, list[Op]] = defaultdict(list)
        for op in history.by_time().seen("backup"):
            if op.get("age_s") is not None:
                self.looks[str(op["of"])].append(op)
        self.proofs = [op for op in history.of("prove-backup") if op.type != "invoke"]
        self.rows = {of: self._row(self.looks.get(of, [])) for of in settings.of}

    def _row(self, looks: Sequence[Op]) -> dict[str, Any]:
        ages = [age_ms(op) for op in looks]
        return {"looks": len(ages), "oldest_ms": max(ages, default=None), "new": len(first_looks(looks))}

    def ages(self) -> Iterator[Finding]:
        """Backups that are too old, or that nobody can tell the age of."""
        for of in self.settings.of:
            looks = self.looks.get(of, [])
            if len(looks) < self.settings.samples:
                yield unknown(
                    f"The backup of the {of} was looked at {len(looks)} times; it takes {self.settings.samples}."
                )
                continue
            calm = self._calm(looks)
            judged = [op for op in looks if interval_at(calm, op.time) is not None]
            old = [op for op in judged if age_ms(op) > self.settings.age_ms]
            if old:
                yield invalid(
                    f"The backup of the {of} was {span_of(age_ms(old[0]))} old at {moment(old[0].time)}, and "
                    f"{span_of(self.settings.age_ms)} are allowed.",
                    *(op.index for op in old[:SHOWN]),
                )
            if not judged:
                yield unknown(f"The backup of the {of} was never looked at while nothing touched it.")
            if early := [op for op in looks if age_ms(op) < 0]:
                yield unknown(
                    f"The backup of the {of} is from the future at {moment(early[0].time)}: a clock is wrong.",
                    early[0].index,
                )
            arrived = len(first_looks(looks))
            if arrived < self.settings.fresh:
                yield invalid(
                    f"{arrived} new backups of the {of} arrived, and {self.settings.fresh} should have.",
                    looks[0].index,
                    looks[-1].index,
                )
            for since, till in silences(
                [op.time for op in looks], looks[0].time, looks[-1].time, round(self.settings.samples_ms * MS)
            ):
                if interval_at(calm, since) is not None:
                    yield unknown(f"Nobody looked at the backup of the {of} from {moment(since)} to {moment(till)}.")

    def _calm(self, looks: Sequence[Op]) -> list[tuple[int, int]]:
        nodes = {str(op.get("node")) for op in looks} | {"db", self.history.cluster.web[0]}
        touching = [
            (one.start, one.settled)
            for one in injections(self.history, self.settings.settle_ms)
            if one.touches(*nodes) or one.fault.startswith("data.")
        ]
        return subtract([(0, self.history.end_ns + 1)], touching)

    def restores(self) -> Iterator[Finding]:
        """Restores that failed, and too few of them."""
        failed = [op for op in self.proofs if op.type == "fail"]
        if failed:
            why = failed[0].error or failed[0].get("why") or "no reason given"
            yield invalid(
                f"A backup did not restore at {moment(failed[0].time)}: {why}.", *(op.index for op in failed[:SHOWN])
            )
        proven = sum(op.type == "ok" for op in self.proofs)
        if proven < self.settings.proofs:
            reasons = [op.error.rstrip(".") for op in self.proofs if op.type == "info" and op.error]
            why = f" The last try: {reasons[-1]}." if reasons else ""
            yield unknown(f"{proven} backups were restored, and it takes {self.settings.proofs} to tell.{why}")

    def doubts(self) -> Iterator[Finding]:
        """Why not all of the run is known."""
        if not self.history.complete:
            yield unknown("The run was killed: what came after is not known.")

    def evidence(self) -> Iterator[int]:
        """The oldest of each, and every restore."""
        for of in self.settings.of:
            if looks := self.looks.get(of):
                yield max(looks, key=age_ms).index
        yield from (op.index for op in self.proofs)


def age_ms(op: Op) -> float:
    """The age of the current backup at a look. Raises HistoryError."""
    age = op["age_s"]
    if isinstance(age, bool) or not isinstance(age, int | float):
        raise HistoryError(f"op {op.index} (backup): its age is {age!r}, not a number")
    return 1000.0 * age


def first_looks(looks: Sequence[Op]) -> list[Op]:
    """The first looks at new backups: their age is less than it was before, by more than a second of rounding."""
    return [after for before, after in pairwise(looks) if age_ms(after) < age_ms(before) - 1000]
