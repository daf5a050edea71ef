from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.plan import Condition, Heal, Inject, Step, plan
from harness.scenario import Scenario, ScenarioError, parse


def scenario(*steps: dict[str, Any]) -> Scenario:
    about = {"name": "s", "title": "t", "expectation": "p"}
    named = [{"name": f"step {number}", **step} for number, step in enumerate(steps)]
    return parse({"scenario": about, "steps": named}, "s.toml")


CUT = {"inject": "node.power-off", "with": {"node": "lb-1"}, "as": "cut"}


def test_each_table_becomes_a_step() -> None:
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


def test_faults_left_injected_are_healed_at_the_end_latest_first() -> None:
    steps = plan(scenario({**CUT, "as": "a"}, {**CUT, "as": "b"}, {**CUT, "as": "c"}, {"heal": "b"}), seed=1)
    assert [step.action for step in steps[4:]] == [Heal("c"), Heal("a")]
    assert [step.name for step in steps[4:]] == ["final heal of c", "final heal of a"]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (
            [{"heal": "cut"}],
            "steps[0].heal: no fault labelled 'cut' is injected at this step; labels at this step: none",
        ),
        ([{"heal": "cut"}, CUT], "steps[0].heal: no fault labelled 'cut' is injected at this step"),
        (
            [CUT, {"heal": "cutt"}],
            "steps[1].heal: no fault labelled 'cutt' is injected at this step; did you mean 'cut'?",
        ),
        ([CUT, {"heal": "cut"}, {"heal": "cut"}], "steps[2].heal: no fault labelled 'cut' is injected at this step"),
        (
            [{"hold_s": 5}, {"at_s": 3, "hold_s": 1}],
            "steps[1].at_s: 3 s is before the end of the steps in front of it, which last until 5 s at least",
        ),
        (
            [{"at_s": 5, "hold_s": 0.3}, {"hold_s": 0.1}, {"at_s": 5.35, "hold_s": 1}],
            "steps[2].at_s: 5.35 s is before the end of the steps in front of it, which last until 5.4 s at least",
        ),
        ([CUT, CUT], "steps[1].as: an earlier step has the label 'cut'"),
        ([CUT, {"heal": "cut"}, CUT], "steps[2].as: an earlier step has the label 'cut'"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_with_its_place(steps: list[dict[str, Any]], expected: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        plan(scenario(*steps), seed=1)
    assert str(caught.value).startswith(f"scenario s: {expected}")


def test_a_time_at_which_the_steps_in_front_of_it_end_is_accepted() -> None:
    """0.1 + 0.2 is more than 0.3 in floating point."""
    steps = plan(scenario({"at_s": 1, "hold_s": 0.1}, {"hold_s": 0.2}, {"at_s": 1.3}), seed=1)
    assert [step.at_s for step in steps] == [1, None, 1.3]


def test_the_time_of_a_drawn_plan_is_that_of_its_first_step() -> None:
    draw = [{"inject": "node.freeze", "with": {"node": "web-1"}}]
    steps = plan(scenario({"draw": draw, "count": 2, "at_s": 7.5}), seed=1)
    assert [step.at_s for step in steps] == [7.5, None, None, None]
    with pytest.raises(ScenarioError, match=r"steps\[1\].at_s: 8 s is before"):
        plan(scenario({"draw": draw, "count": 2, "at_s": 7.5}, {"at_s": 8}), seed=1)


def test_a_condition_names_its_goal() -> None:
    assert Condition(5).goal == "the cluster to be steady"
    assert Condition(5, {"a": "lb-1"}).goal == "a to be held by lb-1 alone"
    assert Condition(5, asked=True).goal == "every planned request to be sent"
    assert str(Condition(5, asked=True)) == "every planned request is sent"
    assert str(Condition(5)) == "the cluster is steady"
    assert str(Condition(5, {"b": "lb-2", "a": "lb-1"})) == "a is held by lb-1 alone and b is held by lb-2 alone"


DRAW = [
    {"inject": "process.kill", "with": {"node": "web-1", "service": "apache"}},
    {"inject": "process.kill", "with": {"node": "web-2", "service": "apache"}},
    {"inject": "node.freeze", "with": {"node": "web-3"}},
]


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 20),
    at_once=st.integers(1, 5),
    each_s=st.tuples(st.floats(0, 5), st.floats(5, 9)),
    pause_s=st.tuples(st.floats(0, 1), st.floats(1, 9)),
)
def test_a_drawn_plan_overlaps_as_allowed_and_ends_with_all_healed(
    seed: int, count: int, at_once: int, each_s: tuple[float, float], pause_s: tuple[float, float]
) -> None:
    table = {"draw": DRAW, "count": count, "at_once": at_once, "each_s": each_s, "pause_s": pause_s}
    steps = plan(scenario(table), seed)
    inside: dict[str, tuple[str, str]] = {}
    for step in steps:
        match step.action:
            case Inject(fault, label, settings):
                assert (fault, settings["node"]) not in inside.values()  # never the same twice at the same time
                inside[label] = (fault, settings["node"])
                assert len(inside) <= at_once
            case Heal(label):
                del inside[label]  # it was injected, and not healed before
    assert not inside
    assert sum(isinstance(step.action, Inject) for step in steps) == count
    assert steps == plan(scenario(table), seed)


def test_another_seed_draws_another_plan_and_2_faults_overlap() -> None:
    table = {"draw": DRAW, "count": 20, "at_once": 2, "each_s": [4, 9], "pause_s": [1, 2]}
    plans = [plan(scenario(table), seed) for seed in (1, 2)]
    assert plans[0] != plans[1]
    verbs = "".join(type(step.action).__name__[0] for step in plans[0])
    assert "II" in verbs


def test_the_condition_of_a_drawn_plan_is_its_last_step() -> None:
    steps = plan(scenario({"draw": DRAW, "count": 1, "until": "steady", "within_s": 60}), seed=1)
    assert [type(step.action).__name__ for step in steps] == ["Inject", "Heal", "NoneType"]
    assert steps[-1] == Step("step 0", until=Condition(60))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"draw": DRAW, "heal": "x"}, "draw cannot be combined with inject or heal: use separate steps"),
        ({"hold_s": 1, "count": 3}, "count, at_once, each_s and pause_s need draw"),
        ({"draw": DRAW, "each_s": [5, 2]}, "each_s and pause_s are [minimum, maximum] in seconds, from 0 to 3600"),
        ({"draw": [{"injekt": "x"}]}, "unknown key 'injekt'; did you mean 'inject'?"),
    ],
)
def test_an_invalid_draw_is_refused(step: dict[str, Any], expected: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario(step)
    assert expected in str(caught.value)
