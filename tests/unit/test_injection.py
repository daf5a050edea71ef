"""One fault by hand."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest

from faults import FAULTS
from harness import catalogue, injection
from harness.fake import Defect, FakeLab
from harness.protocols import Fault, Lab
from harness.records import LabError, Power, Proof
from harness.scenario import ScenarioError


def freeze() -> Fault:
    return catalogue.make("node.freeze", {"node": "lb-1"}, FAULTS)


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("10s", 10.0), ("2m", 120.0), ("7", 7.0)])
def test_durations(text: str, seconds: float) -> None:
    assert injection.duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "ten", "5h", "-1s"])
def test_an_invalid_duration_is_refused(text: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        injection.duration_s(text)
    assert str(caught.value) == f"invalid duration {text!r} for --for (examples: 500ms, 10s, 2m)"


def test_a_fault_is_held_undone_and_the_lab_compared() -> None:
    lab, reported = FakeLab(), list[str]()
    done = injection.carry_out(freeze(), lab, 3.0, reported.append)
    assert lab.node("lb-1").power() is Power.RUNNING
    assert done.held_ms == 3000
    assert done.left == ()
    assert done.seen
    assert reported == [
        "recording the state of the lab",
        f"injected: {done.seen}",
        "undone; comparing the lab with its state before",
        "the lab is as it was before",
    ]


def test_differences_that_remain_are_reported() -> None:
    lab, reported = FakeLab(), list[str]()
    other = lab.node("web-1").lease("node.slow", "processor", ())
    done = injection.carry_out(freeze(), lab, 1.0, reported.append)
    assert [line.split(":")[0] for line in done.left] == ["web-1"]
    assert reported[-1] == "differences remain"
    other.release()


class Interrupted:
    """A freeze during which somebody presses Ctrl-C."""

    name = "node.freeze"

    @contextmanager
    def inject(self, lab: Lab) -> Iterator[Proof]:
        with freeze().inject(lab) as proof:
            signal.raise_signal(signal.SIGINT)
            yield proof


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as a terminal has it. A shell starts what it puts into the background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_fault_is_undone_when_its_injection_was_interrupted() -> None:
    lab, reported = FakeLab(), list[str]()
    with pytest.raises(KeyboardInterrupt):
        injection.carry_out(cast(Fault, Interrupted()), lab, 1.0, reported.append)
    assert lab.node("lb-1").power() is Power.RUNNING
    assert reported[-1] == "undone; comparing the lab with its state before"


def test_a_fault_without_effect_is_an_error() -> None:
    lab = FakeLab(defect=Defect.FAULT_WITHOUT_EFFECT)
    with pytest.raises(LabError, match="no effect"):
        injection.carry_out(freeze(), lab, 1.0, lambda _: None)
