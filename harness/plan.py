"""The steps that a run of a scenario carries out. Pure: the same scenario and seed give the same steps."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from harness.mistakes import suggestion
from harness.scenario import Scenario, ScenarioError, StepTable

__all__ = ["Condition", "Heal", "Inject", "Step", "plan"]


@dataclass(frozen=True)
class Inject:
    """Inject the fault of that name in the registry. A heal refers to it by its label."""

    fault: str
    label: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Heal:
    """Undo the fault that was injected under that label."""

    label: str


@dataclass(frozen=True)
class Condition:
    """What to wait for: a steady cluster, or (with ``owners``) each VIP on that node alone, or (``asked``) the load."""

    within_s: float
    owners: Mapping[str, str] = field(default_factory=dict)
    asked: bool = False
    """The load has sent all its planned requests, whether they succeeded or not."""

    def __str__(self) -> str:
        """Completes "until ..."."""
        if self.asked:
            return "every planned request is sent"
        if not self.owners:
            return "the cluster is steady"
        return " and ".join(f"{vip} is held by {node} alone" for vip, node in sorted(self.owners.items()))

    @property
    def goal(self) -> str:
        """Completes "waiting for ..."."""
        if self.asked:
            return "every planned request to be sent"
        if not self.owners:
            return "the cluster to be steady"
        return " and ".join(f"{vip} to be held by {node} alone" for vip, node in sorted(self.owners.items()))


@dataclass(frozen=True)
class Step:
    """Wait for a time or for none, do one thing or nothing, wait for a condition or for none, let time pass.

    In that order.
    """

    name: str
    action: Inject | Heal | None = None
    until: Condition | None = None
    hold_s: float = 0.0
    at_s: float | None = None
    """The earliest beginning of the step, in seconds since the beginning of the run; None: when its turn comes."""


def plan(scenario: Scenario, seed: int) -> list[Step]:
    """The steps of a scenario, with what ``seed`` draws, and a final heal of each fault left injected, latest first.

    Raises ScenarioError if a label is used twice, if a heal refers to a fault that is not injected at that point, or if
    a step is to begin before the steps in front of it can be over.
    """
    steps: list[Step] = []
    earliest_ns = 0
    injected: list[str] = []
    used: set[str] = set()
    for number, table in enumerate(scenario.steps):
        earliest_ns = _begin_ns(scenario, number, earliest_ns)
        if table.draw:
            first, *others = drawn(table, seed)
            steps += [replace(first, at_s=table.at_s), *others]
            earliest_ns += sum(_ns(step.hold_s) for step in (first, *others))
            continue
        earliest_ns += _ns(table.hold_s or 0.0)
        step = _step(table)
        match step.action:
            case Inject(label=label):
                if label in used:
                    raise _wrong(
                        scenario, number, "as", f"an earlier step has the label {label!r}; give each fault its own"
                    )
                used.add(label)
                injected.append(label)
            case Heal(label=label):
                if label not in injected:
                    known = suggestion(label, injected, "labels at this step")
                    raise _wrong(
                        scenario, number, "heal", f"no fault labelled {label!r} is injected at this step; {known}"
                    )
                injected.remove(label)
        steps.append(step)
    return steps + [Step(f"final heal of {label}", Heal(label)) for label in reversed(injected)]


def _begin_ns(scenario: Scenario, number: int, earliest_ns: int) -> int:
    """When a step begins at the earliest, in ns since the beginning of the run. Raises ScenarioError."""
    at_s = scenario.steps[number].at_s
    if at_s is None:
        return earliest_ns
    if _ns(at_s) < earliest_ns:
        raise _wrong(
            scenario,
            number,
            "at_s",
            f"{at_s:g} s is before the end of the steps in front of it, which last until {earliest_ns / 1e9:g} s at "
            "least; give a later time, or shorten their hold_s",
        )
    return _ns(at_s)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


@dataclass(frozen=True)
class _Event:
    """An action of a drawn plan, and its time in ms since the plan's beginning."""

    at_ms: int
    order: int
    action: Inject | Heal


def drawn(table: StepTable, seed: int) -> list[Step]:
    """The steps that replace a step with ``draw``: overlapping injections, each of them healed. Pure.

    The same fault with the same settings is never injected twice at the same time.
    """
    chance = random.Random(f"{seed} {table.name}")
    events: list[_Event] = []
    ends: dict[int, int] = {}  # index in table.draw of each injected fault -> its end
    now_ms = 0
    for number in range(1, table.count + 1):
        now_ms += _span_ms(chance, table.pause_s) if number > 1 else 0
        ends = _later(ends, now_ms)
        if len(ends) >= min(table.at_once, len(table.draw)):
            now_ms = min(ends.values())
            ends = _later(ends, now_ms)
        index = chance.choice([each for each in range(len(table.draw)) if each not in ends])
        ends[index] = now_ms + max(1, _span_ms(chance, table.each_s))
        label, fault = f"{table.name} {number}", table.draw[index]
        events.append(_Event(now_ms, 2 * number + 1, Inject(fault.inject, label, fault.settings)))
        events.append(_Event(ends[index], 2 * number, Heal(label)))
    # at the same moment, heals come before injections
    events.sort(key=lambda event: (event.at_ms, isinstance(event.action, Inject), event.order))
    holds_ms = [later.at_ms - event.at_ms for event, later in pairwise(events)]
    steps = [
        Step(_title(event.action), event.action, hold_s=hold_ms / 1000)
        for event, hold_ms in zip(events, [*holds_ms, 0], strict=True)
    ]
    rest = Step(table.name, until=_condition(table), hold_s=table.hold_s or 0.0)
    return [*steps, rest] if rest.until or rest.hold_s else steps


def _later(ends: Mapping[int, int], now_ms: int) -> dict[int, int]:
    return {index: end_ms for index, end_ms in ends.items() if end_ms > now_ms}


def _span_ms(chance: random.Random, span_s: tuple[float, float]) -> int:
    return round(1000 * chance.uniform(*span_s))


def _title(action: Inject | Heal) -> str:
    return f"{action.label}: {action.fault}" if isinstance(action, Inject) else f"{action.label}: heal"


def _condition(table: StepTable) -> Condition | None:
    return Condition(table.within_s, table.owners or {}, table.until == "asked") if table.within_s is not None else None


def _step(table: StepTable) -> Step:
    action: Inject | Heal | None = None
    if table.inject:
        action = Inject(table.inject, table.label or table.inject, table.settings)
    elif table.heal:
        action = Heal(table.heal)
    return Step(table.name, action, _condition(table), table.hold_s or 0.0, table.at_s)


def _wrong(scenario: Scenario, number: int, key: str, sentence: str) -> ScenarioError:
    return ScenarioError(f"scenario {scenario.name}: steps[{number}].{key}: {sentence}")
