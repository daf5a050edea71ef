"""One fault by hand: made of ``key=value`` words, injected, held, undone, and the lab compared with how it was."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from harness.audit import AS_BEFORE_S, left_over
from harness.interrupts import deferring_signals
from harness.protocols import Fault, Lab
from harness.run import Faults, kin
from harness.scenario import ScenarioError, first_mistake, suggestion
from harness.wait import REAL, Clock, pass_time

__all__ = ["About", "Done", "Setting", "carry_out", "catalogue", "duration_s", "make"]

UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "": 1.0}


@dataclass(frozen=True)
class Done:
    """What came of an injection. Times are ms."""

    fault: str
    settings: Mapping[str, Any]
    seen: str
    """The proof."""
    detail: Mapping[str, Any]
    proven_after_ms: int
    held_ms: int
    undone_after_ms: int
    left: tuple[str, ...]
    """What is not as it was; empty when all is."""


@dataclass(frozen=True)
class Setting:
    """One setting of a fault."""

    name: str
    kind: str
    required: bool
    default: Any
    meaning: str


@dataclass(frozen=True)
class About:
    """What a person wants to know of a fault."""

    name: str
    summary: str
    text: str
    settings: tuple[Setting, ...]


def duration_s(text: str) -> float:
    """``500ms``, ``10s``, ``2m`` or a bare number of seconds. Raises ScenarioError. Pure.

    >>> duration_s("500ms")
    0.5
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|)", text.strip())
    if not match:
        raise ScenarioError(f"--for {text}: is no time; 500ms, 10s and 2m are")
    return float(match[1]) * UNITS_S[match[2]]


def value(text: str) -> Any:
    """A setting's value as typed: JSON where it is JSON, a list where it has commas, else the text itself. Pure.

    >>> value("3"), value("lb-1,lb-2"), value("lb-1")
    (3, ['lb-1', 'lb-2'], 'lb-1')
    """
    try:
        return json.loads(text)
    except ValueError:
        return text.split(",") if "," in text else text


def make(name: str, words: Iterable[str], faults: Faults) -> Fault:
    """The fault of that name with the settings of ``key=value`` words. Raises ScenarioError."""
    if name not in faults:
        raise ScenarioError(f"there is no fault {name} ({suggestion(name, kin(name, faults))})")
    settings = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise ScenarioError(f"{name}: {word!r} is no setting: settings are key=value, such as node=lb-1")
        settings[key] = value(text)
    try:
        return faults[name](**settings)
    except ValidationError as error:
        known = faults[name]
        model = known if isinstance(known, type) and issubclass(known, BaseModel) else BaseModel
        raise ScenarioError(f"{name}: {first_mistake(error, model)}") from error


def carry_out(fault: Fault, lab: Lab, hold_s: float, say: Callable[[str], None], clock: Clock = REAL) -> Done:
    """Inject, hold, undo, compare. An interruption ends the holding early. Raises LabError."""
    say("looking at the lab as it is")
    before = lab.audit()
    context = fault.inject(lab)
    began_ns = lab.now_ns()
    with deferring_signals():
        proof = context.__enter__()
    proven_ns = lab.now_ns()
    say(f"injected: {proof.seen}")
    try:
        pass_time(hold_s, clock=clock)
    finally:
        undo_ns = lab.now_ns()
        with deferring_signals():
            context.__exit__(None, None, None)
        undone_ns = lab.now_ns()
        say("undone; comparing the lab with how it was")
    left = left_over(lab, before, AS_BEFORE_S, clock)
    say("all is as it was" if not left else "not all is as it was")
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


def catalogue(faults: Faults, name: str | None = None) -> list[About]:
    """All faults, or the one of that name, or those of a family. Raises ScenarioError. Pure."""
    if name is not None and name not in faults and name not in {each.partition(".")[0] for each in faults}:
        raise ScenarioError(f"there is no fault or family {name} ({suggestion(name, kin(name, faults))})")
    return [
        _about(each, faults[each])
        for each in sorted(faults)
        if name is None or each == name or each.startswith(f"{name}.")
    ]


def _about(name: str, make: Callable[..., Fault]) -> About:
    text = inspect.cleandoc(make.__doc__ or "")
    fields = make.model_fields if isinstance(make, type) and issubclass(make, BaseModel) else {}
    settings = tuple(
        Setting(
            key,
            getattr(field.annotation, "__name__", str(field.annotation)),
            field.is_required(),
            None if field.default is PydanticUndefined else field.default,
            field.description or "",
        )
        for key, field in fields.items()
    )
    return About(name, text.partition(". ")[0].rstrip(".").replace("\n", " ") + ".", text, settings)
