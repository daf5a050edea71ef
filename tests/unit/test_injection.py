"""One fault by hand."""

from __future__ import annotations

import pytest

from faults import FAULTS
from harness import injection
from harness.fake import Defect, FakeLab
from harness.records import LabError, Power
from harness.scenario import ScenarioError


def test_a_fault_is_made_of_words() -> None:
    fault = injection.make("node.slow", ["node=web-1", "share=0.5"], FAULTS)
    assert fault == FAULTS["node.slow"](node="web-1", share=0.5)


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("node.pwer-off", ["node=lb-1"], "there is no fault node.pwer-off (did you mean node.power-off?"),
        ("node.slow", ["web-1"], "node.slow: 'web-1' is no setting: settings are key=value"),
        ("node.slow", ["nod=web-1"], "node.slow: nod: there is no such key (did you mean node?"),
        ("node.slow", ["node=web-1", "share=7"], "node.slow: share: input should be less than or equal to 0.5"),
        ("node.slow", [], "node.slow: node: is required, and missing"),
    ],
)
def test_words_that_make_no_fault_are_refused(name: str, words: list[str], expected: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        injection.make(name, words, FAULTS)
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("10s", 10.0), ("2m", 120.0), ("7", 7.0)])
def test_times(text: str, seconds: float) -> None:
    assert injection.duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "ten", "5h", "-1s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ScenarioError, match="is no time"):
        injection.duration_s(text)


def test_it_is_held_undone_and_compared() -> None:
    lab, said = FakeLab(), list[str]()
    done = injection.carry_out(injection.make("node.freeze", ["node=lb-1"], FAULTS), lab, 3.0, said.append, lab.clock)
    assert lab.node("lb-1").power() is Power.RUNNING
    assert done.held_ms == 3000
    assert done.left == ()
    assert "takes no command" in done.seen
    assert said[-1] == "all is as it was"


def test_what_is_left_is_told() -> None:
    lab = FakeLab()
    other = lab.node("web-1").lease("node.slow", "processor", ())
    done = injection.carry_out(
        injection.make("node.freeze", ["node=lb-1"], FAULTS), lab, 1.0, lambda _: None, lab.clock
    )
    assert done.left == ("web-1: node.slow is held: ",)
    other.release()


def test_a_fault_without_effect_is_an_error() -> None:
    lab = FakeLab(defect=Defect.FAULT_WITHOUT_EFFECT)
    with pytest.raises(LabError, match="no effect"):
        injection.carry_out(injection.make("node.freeze", ["node=lb-1"], FAULTS), lab, 1.0, lambda _: None, lab.clock)


def test_the_catalogue_says_what_a_person_needs() -> None:
    about = {each.name: each for each in injection.catalogue(FAULTS)}
    assert set(about) == set(FAULTS)
    for each in about.values():
        assert len(each.summary) > 8
        assert all(setting.meaning for setting in each.settings), each.name
    assert [each.name for each in injection.catalogue(FAULTS, "node.slow")] == ["node.slow"]
    assert len(injection.catalogue(FAULTS, "node")) > 10
    with pytest.raises(ScenarioError, match="there is no fault or family nod"):
        injection.catalogue(FAULTS, "nod")
