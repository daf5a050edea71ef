from __future__ import annotations

from typing import Any

import pytest

from harness.plan import Condition, Heal, Inject, Step, plan
from harness.scenario import Scenario, ScenarioError, parse


def scenario(*steps: dict[str, Any]) -> Scenario:
    about = {"name": "s", "title": "t", "promise": "p"}
    named = [{"name": f"step {number}", **step} for number, step in enumerate(steps)]
    return parse({"scenario": about, "steps": named}, "s.toml")


CUT = {"inject": "node.power-off", "with": {"node": "lb-1"}, "as": "cut"}


def test_each_step_becomes_what_it_says() -> None:
    owners = {"203.0.113.101": "lb-2"}
    steps = plan(
        scenario(
            {"until": "steady", "within_s": 30, "hold_s": 8},
            {**CUT, "until": "owned", "owners": owners, "within_s": 25},
            {"heal": "cut"},
            {"hold_s": 2},
        ),
        seed=1,
    )
    assert steps == [
        Step("step 0", None, Condition(30), 8),
        Step("step 1", Inject("node.power-off", "cut", {"node": "lb-1"}), Condition(25, owners)),
        Step("step 2", Heal("cut")),
        Step("step 3", hold_s=2),
    ]


def test_a_fault_without_a_label_is_called_by_its_name() -> None:
    steps = plan(scenario({"inject": "node.freeze", "with": {"node": "lb-1"}}, {"heal": "node.freeze"}), seed=1)
    assert [step.action for step in steps] == [
        Inject("node.freeze", "node.freeze", {"node": "lb-1"}),
        Heal("node.freeze"),
    ]


def test_what_is_left_injected_is_healed_at_the_end_the_latest_first() -> None:
    steps = plan(scenario({**CUT, "as": "a"}, {**CUT, "as": "b"}, {**CUT, "as": "c"}, {"heal": "b"}), seed=1)
    assert [step.action for step in steps[4:]] == [Heal("c"), Heal("a")]
    assert [step.name for step in steps[4:]] == ["final heal of c", "final heal of a"]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([{"heal": "cut"}], "steps[0].heal: cut is not injected here (known: none)"),
        ([{"heal": "cut"}, CUT], "steps[0].heal: cut is not injected here"),
        ([CUT, {"heal": "cutt"}], "steps[1].heal: cutt is not injected here (did you mean cut? known: cut)"),
        ([CUT, {"heal": "cut"}, {"heal": "cut"}], "steps[2].heal: cut is not injected here"),
        ([CUT, CUT], "steps[1].as: cut is the label of an earlier step"),
        ([CUT, {"heal": "cut"}, CUT], "steps[2].as: cut is the label of an earlier step"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_with_its_place(steps: list[dict[str, Any]], expected: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        plan(scenario(*steps), seed=1)
    assert str(caught.value).startswith(f"scenario s: {expected}")


def test_a_condition_says_what_it_waits_for() -> None:
    assert str(Condition(5)) == "the cluster is steady"
    assert str(Condition(5, {"b": "lb-2", "a": "lb-1"})) == "a is held by lb-1 alone and b is held by lb-2 alone"
