"""Was every step met in time, and did every fault take effect and end?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, zip_longest
from typing import Any

from pydantic import BaseModel, ConfigDict

from harness.history import History
from harness.history.timeline import count_of, distinct_spans, moment, ms, span_of
from harness.history.windows import Window, faults, steps
from harness.plan import Heal, Inject, Step
from harness.verdict import Finding, Verdict, conclude, invalid, unknown

NAME = "recovery"


class RecoverySettings(BaseModel):
    """``[checks.recovery]`` has no settings: the deadlines are the steps' own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def check(
    history: History,
    settings: RecoverySettings,  # noqa: ARG001 (the signature of all checks)
    planned: Sequence[Step] | None = None,
) -> Verdict:
    """Every step with a deadline met it, and every fault that started was proven and undone.

    It sees what the run recorded of its steps and faults, and compares that with the steps that the scenario plans:
    names, order, deadlines and pauses of steps; kinds, targets, proofs and undos of faults. What differs was not
    tested, so the verdict is unknown; so it is without proof of a fault's effect, with a proof that is not between
    the fault's start and its undo, and without any step. A history without its scenario is compared with nothing.

    It cannot see whether a condition was the right one to wait for, nor whether it lasted: ownership and outage judge
    that.
    """
    walked, injected = steps(history), faults(history)
    findings: list[Finding] = []
    if not walked:
        findings.append(unknown("The run has no steps."))
    elif planned is not None:
        findings += _differences(planned, walked, injected)
        findings += _late(planned, walked, 0 if history.clock == "virtual" else PAUSE_TOLERANCE_MS)
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
    if "begin" not in step.phases:
        yield unknown(f"The begin of step {step.name!r} was not recorded.", step.begin.index)
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
    if "start" not in fault.phases:
        yield unknown(f"The start of fault {fault.name!r} ({kind}) was not recorded.", *phases)
    if "proof" not in fault.phases:
        yield unknown(f"Fault {fault.name!r} ({kind}) started, but nothing proves that it took effect.", *phases)
    if "end" not in fault.phases:
        yield unknown(f"Fault {fault.name!r} ({kind}) was not undone.", *phases)
    order = [(phase, fault.phases[phase]) for phase in ("start", "proof", "end") if phase in fault.phases]
    for (earlier, first), (later, second) in pairwise(order):
        if second.time < first.time:
            sentence = f"The {_PHASES[later]} of fault {fault.name!r} ({kind}) is before its {_PHASES[earlier]}."
            yield unknown(sentence, first.index, second.index)


_PHASES = {"start": "start", "proof": "proof", "end": "undo"}


# --- compared with the scenario


def _differences(planned: Sequence[Step], walked: Sequence[Window], injected: Sequence[Window]) -> Iterator[Finding]:
    """What of the plan the run did not do, and what it did beside it."""
    for place, (step, window) in enumerate(zip_longest(planned, walked)):
        if step is None or window is None or step.name != window.name:
            yield _another_step(place, planned, walked)
            break
    else:
        for number, (step, window) in enumerate(zip(planned, walked, strict=True)):
            after = walked[number + 1] if number + 1 < len(walked) else None
            yield from _step_differences(step, window, after)
    injects = {step.action.label: step.action for step in planned if isinstance(step.action, Inject)}
    for label, action in injects.items():
        windows = [window for window in injected if window.name == label]
        if not windows:
            yield unknown(f"The scenario injects fault {label!r} ({action.fault}); the run did not.")
        for window in windows:
            yield from _fault_differences(action, window)
        if len(windows) > 1:
            ops = [window.begin.index for window in windows]
            yield unknown(f"Fault {label!r} was injected {len(windows)} times; the scenario injects it once.", *ops)
    for window in injected:
        if window.name not in injects:
            kind = window.begin.get("fault", "fault")
            yield unknown(f"Fault {window.name!r} ({kind}) is not in the scenario.", window.begin.index)
    yield from _places(planned, walked, injected)


def _another_step(place: int, planned: Sequence[Step], walked: Sequence[Window]) -> Finding:
    wanted = f"{planned[place].name!r}" if place < len(planned) else "no further step"
    if place >= len(walked):
        return unknown(f"Step {place + 1} of the scenario is {wanted}; the run has only {_count(walked, 'step')}.")
    found = walked[place]
    return unknown(f"Step {place + 1} of the run is {found.name!r}; the scenario has {wanted}.", found.begin.index)


def _step_differences(step: Step, window: Window, after: Window | None) -> Iterator[Finding]:
    planned = None if step.until is None else round(step.until.within_s * 1000)
    recorded = _within(window)
    if planned != (None if recorded is None else round(recorded)):
        wanted, had = (
            "no deadline" if each is None else f"a deadline of {span_of(each)}" for each in (planned, recorded)
        )
        yield unknown(f"Step {step.name!r} had {had}; the scenario gives it {wanted}.", window.begin.index)
    end = window.phases.get("end")
    if end is not None and after is not None:
        paused = ms(after.begin.time - end.time)
        if paused < step.hold_s * 1000 - PAUSE_TOLERANCE_MS:
            took, wanted = distinct_spans(max(0.0, paused), step.hold_s * 1000)
            sentence = f"The pause after step {step.name!r} was {took}; the scenario gives it {wanted}."
            yield unknown(sentence, end.index, after.begin.index)


def _late(planned: Sequence[Step], walked: Sequence[Window], tolerance_ms: float) -> Iterator[Finding]:
    """The steps that did not begin at their time."""
    for step, window in zip(planned, walked, strict=False):
        if step.at_s is None or step.name != window.name:
            continue
        off_ms = ms(window.begin.time - round(step.at_s * 1e9))
        if abs(off_ms) > tolerance_ms:
            order = "after" if off_ms > 0 else "before"
            sentence = f"Step {step.name!r} began {span_of(abs(off_ms))} {order} its at_s, {step.at_s:g} s."
            yield unknown(sentence, window.begin.index)


PAUSE_TOLERANCE_MS = 100.0
"""A pause is timed on the host's clock, and the ops on the lab's; both are rounded."""


def _fault_differences(action: Inject, window: Window) -> Iterator[Finding]:
    """Each op of a fault names its kind and its settings."""
    for op in window.phases.values():
        if op.get("fault") != action.fault:
            sentence = f"Fault {window.name!r} was {op.get('fault')}; the scenario injects {action.fault}."
            yield unknown(sentence, op.index)
            return
        for key, wanted in action.settings.items():
            if _contradicts(op.get(key), wanted):
                had = f"Fault {window.name!r} ({action.fault}) had {key} = {op.get(key)!r}"
                yield unknown(f"{had}; the scenario gives {wanted!r}.", op.index)
                return


def _contradicts(recorded: Any, planned: Any) -> bool:
    """True when a recorded setting is not the planned one. A text that was recorded as a number decides nothing."""
    if isinstance(planned, list | tuple) and isinstance(recorded, list | tuple):
        both = zip_longest(recorded, planned)
        return len(recorded) != len(planned) or any(_contradicts(*each) for each in both)
    if isinstance(planned, Mapping) and isinstance(recorded, Mapping):
        return any(_contradicts(recorded.get(key), value) for key, value in planned.items())
    if isinstance(planned, bool) or isinstance(recorded, bool):
        return recorded is not planned
    if isinstance(planned, str):
        return recorded is None or (isinstance(recorded, str) and recorded != planned)
    if isinstance(planned, int | float):
        return recorded is None or (isinstance(recorded, int | float) and recorded != planned)
    return False


def _places(planned: Sequence[Step], walked: Sequence[Window], injected: Sequence[Window]) -> Iterator[Finding]:
    """Each fault starts in the step that injects it, and ends in the step that heals it."""
    if [step.name for step in planned] != [window.name for window in walked]:
        return
    for step, window in zip(planned, walked, strict=True):
        end = window.phases.get("end")
        for phase, kind in (("start", Inject), ("end", Heal)):
            if not isinstance(step.action, kind) or end is None:
                continue
            label = step.action.label
            for op in (each.phases[phase] for each in injected if each.name == label and phase in each.phases):
                if not window.begin.time <= op.time <= end.time:
                    what = f"The {_PHASES[phase]} of fault {label!r} is not within step {step.name!r}"
                    yield unknown(f"{what}, which plans it.", op.index, window.begin.index)


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
