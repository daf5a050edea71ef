"""What a check says, and what a run comes to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Outcome(StrEnum):
    """The three honest answers. ``unknown`` is never rounded up to ``valid``."""

    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN = "unknown"

    @property
    def exit_code(self) -> int:
        """0 valid, 1 invalid, 3 unknown (2 and 4 are the command line's: usage, lab error)."""
        return EXIT_CODES[self]


EXIT_CODES = {Outcome.VALID: 0, Outcome.INVALID: 1, Outcome.UNKNOWN: 3}


class Finding(BaseModel):
    """One reason why a check does not say ``valid``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    outcome: Outcome
    sentence: str
    evidence: tuple[int, ...] = ()


class Verdict(BaseModel):
    """What one check says about one history."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    check: str = Field(description="Name of the check.")
    outcome: Outcome
    summary: str = Field(description="One sentence that a person understands.")
    numbers: dict[str, Any] = Field(default_factory=dict, description="What was measured; durations end in _ms.")
    findings: tuple[Finding, ...] = Field(default=(), description="All that stands in the way of valid, worst first.")
    evidence: tuple[int, ...] = Field(default=(), description="Indexes of the ops that the verdict rests on.")


class Judgement(BaseModel):
    """The content of a run's ``verdict.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scenario: str
    outcome: Outcome
    verdicts: tuple[Verdict, ...]


def overall(verdicts: Iterable[Verdict]) -> Outcome:
    """Any invalid makes the run invalid, else any unknown makes it unknown. No verdict at all is unknown."""
    outcomes = {verdict.outcome for verdict in verdicts}
    if Outcome.INVALID in outcomes:
        return Outcome.INVALID
    return Outcome.VALID if outcomes == {Outcome.VALID} else Outcome.UNKNOWN


def conclude(
    check: str,
    findings: Sequence[Finding],
    held: str,
    numbers: Mapping[str, Any] | None = None,
    evidence: Iterable[int] = (),
) -> Verdict:
    """Make a verdict of a check's findings; ``held`` is the sentence to say when there are none."""
    worst_first = sorted(findings, key=lambda finding: finding.outcome != Outcome.INVALID)
    indexes = {index for finding in findings for index in finding.evidence} | set(evidence)
    return Verdict(
        check=check,
        outcome=worst_first[0].outcome if worst_first else Outcome.VALID,
        summary=_summary(worst_first, held),
        numbers=_plain(dict(numbers or {})),
        findings=tuple(worst_first),
        evidence=tuple(sorted(indexes)),
    )


def _summary(worst_first: Sequence[Finding], held: str) -> str:
    if not worst_first:
        return held
    more = len(worst_first) - 1
    sentence = worst_first[0].sentence
    return f"{sentence.removesuffix('.')} (and {more} more)." if more else sentence


def invalid(sentence: str, *evidence: int) -> Finding:
    """A promise that was certainly broken."""
    return Finding(outcome=Outcome.INVALID, sentence=_text(sentence), evidence=evidence)


def unknown(sentence: str, *evidence: int) -> Finding:
    """A reason why nobody can tell."""
    return Finding(outcome=Outcome.UNKNOWN, sentence=_text(sentence), evidence=evidence)


def _text(sentence: str) -> str:
    """A sentence may quote a log line with bytes that are no UTF-8; a verdict is for every reader of JSON."""
    return sentence.encode("utf-8", "replace").decode("utf-8")


def _plain(value: Any) -> Any:
    """The same with every text in it as ``_text`` has it."""
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


def judgement(scenario: str, verdicts: Sequence[Verdict]) -> Judgement:
    """The content of ``verdict.json``; write it with ``model_dump_json``."""
    return Judgement(scenario=scenario, outcome=overall(verdicts), verdicts=tuple(verdicts))


def schema() -> dict[str, Any]:
    """The JSON Schema of ``verdict.json``."""
    return Judgement.model_json_schema()
