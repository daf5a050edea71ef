"""From a scenario to the steps that a run carries out. Pure: the same scenario and seed give the same steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    """What to wait for: the cluster steady, or (with ``owners``) each VIP held by that node alone."""

    within_s: float
    owners: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Completes "until ..."."""
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


def plan(scenario: Scenario, seed: int) -> list[Step]:  # noqa: ARG001 - no kind of step draws anything yet
    """The steps of a scenario, with a last one for each fault that it leaves injected, the latest first.

    Raises ScenarioError when a label is given twice, or a heal names no fault that is injected at that point.
    """
    steps: list[Step] = []
    injected: list[str] = []
    used: set[str] = set()
    for number, table in enumerate(scenario.steps):
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


def _step(table: StepTable) -> Step:
    action: Inject | Heal | None = None
    if table.inject:
        action = Inject(table.inject, table.label or table.inject, table.settings)
    elif table.heal:
        action = Heal(table.heal)
    until = Condition(table.within_s, table.owners or {}) if table.within_s is not None else None
    return Step(table.name, action, until, table.hold_s or 0.0)


def _wrong(scenario: Scenario, number: int, key: str, sentence: str) -> ScenarioError:
    return ScenarioError(f"scenario {scenario.name}: steps[{number}].{key}: {sentence}")
