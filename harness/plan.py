"""From a scenario to the steps that a run carries out. Pure: the same scenario and seed give the same steps."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from harness.scenario import Scenario, ScenarioError, StepTable, suggestion

__all__ = ["Condition", "Heal", "Inject", "Step", "plan"]


@dataclass(frozen=True)
class Inject:
    """Inject the fault of that name in the registry. The label is what heals it."""

    fault: str
    label: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Heal:
    """Undo the fault that was injected under that label."""

    label: str


@dataclass(frozen=True)
class Condition:
    """What to wait for: the cluster steady, or (with ``owners``) each VIP held by that node alone, or all asked."""

    within_s: float
    owners: Mapping[str, str] = field(default_factory=dict)
    asked: bool = False
    """The load has asked all that it had planned, whatever came of it."""

    def __str__(self) -> str:
        """Completes "until ..."."""
        if self.asked:
            return "all that was planned is asked"
        if not self.owners:
            return "the cluster is steady"
        return " and ".join(f"{vip} is held by {node} alone" for vip, node in sorted(self.owners.items()))


@dataclass(frozen=True)
class Step:
    """Do one thing or nothing, wait for a condition or none, let time pass. In that order."""

    name: str
    action: Inject | Heal | None = None
    until: Condition | None = None
    hold_s: float = 0.0


def plan(scenario: Scenario, seed: int) -> list[Step]:
    """The steps of a scenario, and what ``seed`` draws; and one more for each fault left injected, the latest first.

    Raises ScenarioError when a label is given twice, or a heal names no fault that is injected at that point.
    """
    steps: list[Step] = []
    injected: list[str] = []
    used: set[str] = set()
    for number, table in enumerate(scenario.steps):
        if table.draw:
            steps += drawn(table, seed)
            continue
        step = _step(table)
        match step.action:
            case Inject(label=label):
                if label in used:
                    raise _wrong(scenario, number, "as", f"{label} is the label of an earlier step: give each its own")
                used.add(label)
                injected.append(label)
            case Heal(label=label):
                if label not in injected:
                    raise _wrong(
                        scenario, number, "heal", f"{label} is not injected here ({suggestion(label, injected)})"
                    )
                injected.remove(label)
        steps.append(step)
    return steps + [Step(f"final heal of {label}", Heal(label)) for label in reversed(injected)]


@dataclass(frozen=True)
class _Event:
    """Something that a drawn plan does at a moment, in ms from its beginning."""

    at_ms: int
    order: int
    action: Inject | Heal


def drawn(table: StepTable, seed: int) -> list[Step]:
    """The steps that a step with ``draw`` comes to: injections with overlaps, each healed. Pure.

    The same fault with the same settings is never in twice at the same time.
    """
    chance = random.Random(f"{seed} {table.name}")
    events: list[_Event] = []
    ends: dict[int, int] = {}  # which of table.draw is in -> until when
    now_ms = 0
    for number in range(1, table.count + 1):
        now_ms += _span_ms(chance, table.pause_s) if number > 1 else 0
        if len(ends := {which: end for which, end in ends.items() if end > now_ms}) >= min(
            table.at_once, len(table.draw)
        ):
            now_ms = min(ends.values())
            ends = {which: end for which, end in ends.items() if end > now_ms}
        which = chance.choice([each for each in range(len(table.draw)) if each not in ends])
        ends[which] = now_ms + max(1, _span_ms(chance, table.each_s))
        label, fault = f"{table.name} {number}", table.draw[which]
        events.append(_Event(now_ms, 2 * number + 1, Inject(fault.inject, label, fault.settings)))
        events.append(_Event(ends[which], 2 * number, Heal(label)))
    # at the same moment, what ends goes before what begins
    events.sort(key=lambda event: (event.at_ms, isinstance(event.action, Inject), event.order))
    holds_ms = [later.at_ms - event.at_ms for event, later in pairwise(events)]
    steps = [
        Step(_says(event.action), event.action, hold_s=hold / 1000)
        for event, hold in zip(events, [*holds_ms, 0], strict=True)
    ]
    rest = Step(table.name, until=_condition(table), hold_s=table.hold_s or 0.0)
    return [*steps, rest] if rest.until or rest.hold_s else steps


def _span_ms(chance: random.Random, span_s: tuple[float, float]) -> int:
    return round(1000 * chance.uniform(*span_s))


def _says(action: Inject | Heal) -> str:
    return f"{action.label}: {action.fault}" if isinstance(action, Inject) else f"{action.label}: heal"


def _condition(table: StepTable) -> Condition | None:
    return Condition(table.within_s, table.owners or {}, table.until == "asked") if table.within_s is not None else None


def _step(table: StepTable) -> Step:
    action: Inject | Heal | None = None
    if table.inject:
        action = Inject(table.inject, table.label or table.inject, table.settings)
    elif table.heal:
        action = Heal(table.heal)
    return Step(table.name, action, _condition(table), table.hold_s or 0.0)


def _wrong(scenario: Scenario, number: int, key: str, sentence: str) -> ScenarioError:
    return ScenarioError(f"scenario {scenario.name}: steps[{number}].{key}: {sentence}")
