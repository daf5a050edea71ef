"""One fault by hand: injected, held, undone, and the lab compared with its state before."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from harness.audit import AS_BEFORE_S, left_over
from harness.interrupts import deferring_signals
from harness.protocols import Fault, Lab
from harness.scenario import ScenarioError
from harness.wait import pass_time

__all__ = ["Done", "carry_out", "duration_s"]

UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "": 1.0}


@dataclass(frozen=True)
class Done:
    """An injection that is over. Times are ms."""

    fault: str
    settings: Mapping[str, Any]
    seen: str
    """The proof."""
    detail: Mapping[str, Any]
    proven_after_ms: int
    held_ms: int
    undone_after_ms: int
    left: tuple[str, ...]
    """The differences that remain; empty when the lab is as it was before."""


def duration_s(text: str) -> float:
    """``500ms``, ``10s``, ``2m`` or a bare number of seconds. Raises ScenarioError. Pure.

    >>> duration_s("500ms")
    0.5
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|)", text.strip())
    if not match:
        raise ScenarioError(f"invalid duration {text!r} for --for (examples: 500ms, 10s, 2m)")
    return float(match[1]) * UNITS_S[match[2]]


def carry_out(fault: Fault, lab: Lab, hold_s: float, report: Callable[[str], None]) -> Done:
    """Inject, hold, undo, compare. An interruption ends the holding early. Raises LabError."""
    report("recording the state of the lab")
    before = lab.audit()
    context, proof = fault.inject(lab), None
    began_ns = undo_ns = undone_ns = lab.now_ns()
    try:
        with deferring_signals():
            proof = context.__enter__()
        proven_ns = lab.now_ns()
        report(f"injected: {proof.seen}")
        pass_time(hold_s, clock=lab.clock)
    finally:
        if proof is not None:  # a signal that came during the injection is raised right after it
            undo_ns = lab.now_ns()
            with deferring_signals():
                context.__exit__(None, None, None)
            undone_ns = lab.now_ns()
            report("undone; comparing the lab with its state before")
    left = left_over(lab, before, AS_BEFORE_S)
    report("differences remain" if left else "the lab is as it was before")
    settings = fault.model_dump(mode="json") if isinstance(fault, BaseModel) else {}
    return Done(
        fault.name,
        settings,
        proof.seen,
        dict(proof.detail),
        proven_after_ms=(proven_ns - began_ns) // 1_000_000,
        held_ms=(undo_ns - proven_ns) // 1_000_000,
        undone_after_ms=(undone_ns - undo_ns) // 1_000_000,
        left=tuple(left),
    )
