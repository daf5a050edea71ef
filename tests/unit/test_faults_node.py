from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from faults import FAULTS
from faults.node import Freeze, PowerOff
from harness.fake import Defect, FakeLab
from harness.records import LabError, Power


def test_the_registry_names_each_fault_as_it_names_itself() -> None:
    assert {name: make.name for name, make in FAULTS.items()} == {name: name for name in FAULTS}  # type: ignore[attr-defined]
    assert isinstance(FAULTS["node.power-off"](node="lb-1"), PowerOff)


@pytest.mark.parametrize(("make", "state"), [(PowerOff, Power.OFF), (Freeze, Power.FROZEN)])
def test_takes_effect_proves_it_and_is_undone(make: Callable[..., PowerOff | Freeze], state: Power) -> None:
    lab = FakeLab()
    node = lab.node("lb-1")
    before_ns = lab.now_ns()
    with make(node="lb-1").inject(lab) as proof:
        assert node.power() is state
        assert lab.node("lb-2").power() is Power.RUNNING
        assert proof.time_ns == before_ns
        assert proof.detail["power"] == state
        assert "takes no command" in proof.seen
        assert "lb-1" in proof.seen
    assert node.power() is Power.RUNNING
    assert node.exec("true").ok


@pytest.mark.parametrize("make", [PowerOff, Freeze])
def test_it_is_undone_when_its_block_fails(make: Callable[..., PowerOff | Freeze]) -> None:
    lab = FakeLab()
    with pytest.raises(KeyboardInterrupt), make(node="lb-1").inject(lab):
        raise KeyboardInterrupt
    assert lab.node("lb-1").power() is Power.RUNNING


@pytest.mark.parametrize("make", [PowerOff, Freeze])
def test_an_injection_without_effect_fails(make: Callable[..., PowerOff | Freeze]) -> None:
    lab = FakeLab(defect=Defect.FAULT_WITHOUT_EFFECT)
    with pytest.raises(LabError, match="no effect"), make(node="lb-1").inject(lab):
        pytest.fail("it counted as injected")


@pytest.mark.parametrize("make", [PowerOff, Freeze])
def test_a_node_that_is_off_refuses_faults(make: Callable[..., PowerOff | Freeze]) -> None:
    lab = FakeLab()
    lab.node("lb-1").power_off()
    with pytest.raises(LabError, match="lb-1 is off"), make(node="lb-1").inject(lab):
        pytest.fail("it counted as injected")
    assert lab.node("lb-1").power() is Power.OFF  # it did not break it, so it does not mend it


@pytest.mark.parametrize("make", [PowerOff, Freeze])
def test_an_unknown_node_is_refused_with_a_list_of_nodes(make: Callable[..., PowerOff | Freeze]) -> None:
    lab = FakeLab()
    assert make(node="lb-1").available(lab) is None
    reason = make(node="lb-9").available(lab)
    assert reason is not None
    assert "lb-9" in reason
    assert "lb-1, lb-2" in reason
    with pytest.raises(LabError, match="lb-1, lb-2"), make(node="lb-9").inject(lab):
        pytest.fail("it counted as injected")


def test_settings_are_frozen_and_unknown_ones_refused() -> None:
    fault = PowerOff(node="lb-1")
    with pytest.raises(ValidationError):
        setattr(fault, "node", "lb-2")  # noqa: B010 - as a careless program would
    with pytest.raises(ValidationError):
        PowerOff(node="lb-1", hard=True)  # type: ignore[call-arg]  # as a careless program would
