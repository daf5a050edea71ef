"""The verdict of a check, and the outcome of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Outcome(StrEnum):
    """The 3 outcomes. ``unknown`` is never rounded up to ``valid``."""

    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN = "unknown"

    @property
    def exit_code(self) -> int:
        """0 valid, 1 invalid, 3 unknown (the command line also uses 2 for usage errors and 4 for lab errors)."""
        return EXIT_CODES[self]


NOT_TRIED = "not tried"
"""The word for the verdict on something that a run did not try; its outcome is ``unknown``."""

EXIT_CODES = {Outcome.VALID: 0, Outcome.INVALID: 1, Outcome.UNKNOWN: 3}


class Finding(BaseModel):
    """One reason why a check is not ``valid``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    outcome: Outcome = Field(description="invalid or unknown.")
    sentence: str = Field(description="The reason in one sentence.")
    evidence: tuple[int, ...] = Field(default=(), description="Indexes of the ops that show it.")
    tried: bool = Field(
        default=True, description="False: the run did not try what the check judges, so nothing could be seen."
    )


class Verdict(BaseModel):
    """The verdict of one check on one history."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    check: str = Field(description="Name of the check.")
    outcome: Outcome
    summary: str = Field(description="One sentence for a person.")
    numbers: dict[str, Any] = Field(default_factory=dict, description="Measured values; names of durations end in _ms.")
    findings: tuple[Finding, ...] = Field(
        default=(), description="Every reason why the outcome is not valid, worst first."
    )
    evidence: tuple[int, ...] = Field(default=(), description="Indexes of the ops that support the verdict.")

    @property
    def tried(self) -> bool:
        """False when the only reason why it is unknown is that the run did not try what the check judges."""
        return not self.findings or any(finding.tried for finding in self.findings)

    @property
    def word(self) -> str:
        """Its outcome, or ``not tried``, for people."""
        return self.outcome.value if self.tried else NOT_TRIED


class Judgement(BaseModel):
    """The content of a run's ``verdict.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scenario: str = Field(description="Name of the scenario.")
    outcome: Outcome = Field(description="Outcome of the run: the worst of its verdicts.")
    verdicts: tuple[Verdict, ...] = Field(description="The verdict of each check.")
    clock: Literal["real", "virtual"] = Field(
        default="real", description="The clock of the run: the host's, or a virtual one of all kernels of the lab."
    )
    remarks: tuple[str, ...] = Field(
        default=(), description="What stands beside the verdicts and changes none: files that break a promise."
    )


ALWAYS = frozenset({"recovery", "audit"})
"""The checks of any run: that they hold does not mean that anything was tried."""


def overall(verdicts: Iterable[Verdict]) -> Outcome:
    """Invalid if any verdict is invalid, else unknown if any is unknown or there are none, else valid.

    A verdict on something that the run did not try (``Verdict.tried``) does not count, unless nothing else was tried.
    """
    found = list(verdicts)
    if any(verdict.outcome is Outcome.INVALID for verdict in found):
        return Outcome.INVALID
    tried = [verdict for verdict in found if verdict.tried]
    nothing = len(tried) < len(found) and all(verdict.check in ALWAYS for verdict in tried)
    if nothing or not tried or any(verdict.outcome is Outcome.UNKNOWN for verdict in tried):
        return Outcome.UNKNOWN
    return Outcome.VALID


def conclude(
    check: str,
    findings: Sequence[Finding],
    success: str,
    numbers: Mapping[str, Any] | None = None,
    evidence: Iterable[int] = (),
) -> Verdict:
    """Make a verdict of a check's findings; ``success`` is its sentence when there are none."""
    worst_first = sorted(findings, key=lambda finding: finding.outcome != Outcome.INVALID)
    indexes = {index for finding in findings for index in finding.evidence} | set(evidence)
    return Verdict(
        check=check,
        outcome=worst_first[0].outcome if worst_first else Outcome.VALID,
        summary=_summary(worst_first, success),
        numbers=_plain(dict(numbers or {})),
        findings=tuple(worst_first),
        evidence=tuple(sorted(indexes)),
    )


def _summary(worst_first: Sequence[Finding], success: str) -> str:
    if not worst_first:
        return success
    more = len(worst_first) - 1
    sentence = worst_first[0].sentence
    return f"{sentence.removesuffix('.')} (and {more} more)." if more else sentence


def invalid(sentence: str, *evidence: int) -> Finding:
    """An expectation that was certainly not met."""
    return Finding(outcome=Outcome.INVALID, sentence=_text(sentence), evidence=evidence)


def unknown(sentence: str, *evidence: int) -> Finding:
    """A reason why it cannot be decided whether an expectation was met."""
    return Finding(outcome=Outcome.UNKNOWN, sentence=_text(sentence), evidence=evidence)


def not_tried(sentence: str) -> Finding:
    """A reason why the run cannot show anything: it did not try what the check judges, and nothing was missed.

    Only for what the cluster's facts or the run's faults decide: a load that was not recorded is unknown.
    """
    return Finding(outcome=Outcome.UNKNOWN, sentence=_text(sentence), tried=False)


def _text(sentence: str) -> str:
    """Replace lone surrogates: a quoted log line may have bytes that are not UTF-8, and JSON readers refuse those."""
    return sentence.encode("utf-8", "replace").decode("utf-8")


def _plain(value: Any) -> Any:
    """The same value with ``_text`` applied to every string in it."""
    match value:
        case str():
            return _text(value) if type(value) is str else value
        case dict():
            return {_plain(key): _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case tuple():
            return tuple(_plain(item) for item in value)
    return value


def judgement(
    scenario: str,
    verdicts: Sequence[Verdict],
    remarks: Sequence[str] = (),
    clock: Literal["real", "virtual"] = "real",
) -> Judgement:
    """The content of ``verdict.json``; write it with ``model_dump_json``."""
    return Judgement(
        scenario=scenario,
        outcome=overall(verdicts),
        verdicts=tuple(verdicts),
        clock=clock,
        remarks=tuple(map(_text, remarks)),
    )


def schema() -> dict[str, Any]:
    """The JSON Schema of ``verdict.json``."""
    return Judgement.model_json_schema()
