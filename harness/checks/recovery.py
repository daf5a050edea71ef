"""Was every step met in time, and did every fault take effect and end?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from harness.history import History
from harness.history.timeline import count_of, distinct_spans, moment, ms, span_of
from harness.history.windows import Window, faults, steps
from harness.verdict import Finding, Verdict, conclude, invalid, unknown

NAME = "recovery"


class RecoverySettings(BaseModel):
    """``[checks.recovery]`` has no settings: the deadlines are the steps' own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def check(history: History, settings: RecoverySettings) -> Verdict:  # noqa: ARG001 (the signature of all checks)
    """Every step with a deadline met it, and every fault that started was proven and undone.

    It sees what the run recorded of its steps and faults. It cannot see whether a condition was the right one to wait
    for, nor whether it lasted: ownership and outage judge that. A fault without proof of its effect tested nothing, so
    it makes the verdict unknown, and so does a run without any step.
    """
    walked, injected = steps(history), faults(history)
    findings: list[Finding] = []
    if not walked:
        findings.append(unknown("The run has no steps."))
    for step in walked:
        findings += _step_findings(step)
    for fault in injected:
        findings += _fault_findings(fault)
    timed = [step for step in walked if _within(step) is not None]
    held = f"{_count(timed, 'step')} with a deadline met it; {_count(injected, 'fault')} proven and undone."
    numbers = {
        "steps": [_step_numbers(step) for step in walked],
        "faults": [_fault_numbers(fault) for fault in injected],
    }
    evidence = {op.index for window in (*walked, *injected) for op in window.phases.values()}
    return conclude(NAME, findings, held, numbers, evidence)


def _step_findings(step: Window) -> Iterator[Finding]:
    end, within = step.phases.get("end"), _within(step)
    if end is None:
        yield unknown(f"Step {step.name!r} began at {moment(step.begin.time)} and never ended.", step.begin.index)
        return
    took = _took(step)
    if end.get("met") is False:
        limit = f" within {span_of(within)}" if within is not None else ""
        why = f": {end.get('why')}" if end.get("why") else ""
        yield invalid(f"Step {step.name!r} was not met{limit}{why}.", step.begin.index, end.index)
    elif within is not None and took > within:
        actual, deadline = distinct_spans(took, within)
        sentence = f"Step {step.name!r} took {actual}; its deadline was {deadline}."
        yield invalid(sentence, step.begin.index, end.index)
    elif within is not None and end.get("met") is not True:
        yield unknown(f"Step {step.name!r} ended, but whether it was met was not recorded.", end.index)


def _fault_findings(fault: Window) -> Iterator[Finding]:
    phases = {op.index for op in fault.phases.values()}
    kind = fault.begin.get("fault", "fault")
    if "failed" in fault.phases:
        why = fault.phases["failed"].get("why") or fault.phases["failed"].get("seen") or "no reason given"
        yield unknown(f"Fault {fault.name!r} ({kind}) failed: {why}.", *phases)
        return
    if "proof" not in fault.phases:
        yield unknown(f"Fault {fault.name!r} ({kind}) started, but nothing proves that it took effect.", *phases)
    if "end" not in fault.phases:
        yield unknown(f"Fault {fault.name!r} ({kind}) was not undone.", *phases)


def _within(step: Window) -> float | None:
    values = [op.get("within_ms") for op in step.phases.values() if op.get("within_ms") is not None]
    return float(values[-1]) if values else None


def _took(step: Window) -> float:
    """As the run measured it or by the ops' own times, whichever is longer: neither can hide a late step."""
    end = step.phases["end"]
    between = ms(end.time - step.phases["begin"].time) if "begin" in step.phases else 0.0
    return max(between, float(end.get("took_ms") or 0))


def _step_numbers(step: Window) -> dict[str, Any]:
    end = step.phases.get("end")
    return {
        "step": step.name,
        "met": end.get("met") if end else None,
        "within_ms": _within(step),
        "took_ms": _took(step) if end else None,
        "why": end.get("why") if end else None,
    }


def _fault_numbers(fault: Window) -> dict[str, Any]:
    proof, end = fault.phases.get("proof"), fault.phases.get("end")
    return {
        "label": fault.name,
        "fault": fault.begin.get("fault"),
        "node": fault.begin.get("node"),
        "start_ms": ms(fault.begin.time),
        "proof_ms": ms(proof.time) if proof else None,
        "seen": proof.get("seen") if proof else None,
        "end_ms": ms(end.time) if end else None,
    }


def _count(windows: Sequence[Window], thing: str) -> str:
    return count_of(len(windows), thing)
