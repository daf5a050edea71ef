"""The lab in memory: what its nodes do, beyond what the tests of the run show."""

from __future__ import annotations

import pytest

from harness.fake import FakeLab
from harness.records import LabError, Power, Undo


@pytest.fixture
def lab() -> FakeLab:
    return FakeLab()


def undo(lab: FakeLab, verb: str) -> None:
    lab.node("lb-1").lease("test.fault", "everything", [Undo((verb,), "power")]).release()


def test_a_reboot_is_not_a_boot(lab: FakeLab) -> None:
    """The machine goes down first: its programs end, and its peer takes its addresses over."""
    program = lab.node("lb-1").stream("sleep", "60")
    undo(lab, "boot")
    assert (lab.owners()["203.0.113.101"], lab.node("lb-1").power()) == (("lb-1",), Power.RUNNING)
    undo(lab, "reboot")
    assert (lab.owners()["203.0.113.101"], lab.node("lb-1").power()) == (("lb-2",), Power.RUNNING)
    assert list(program) == []  # it has ended


def test_a_machine_that_is_off_reboots_by_booting(lab: FakeLab) -> None:
    lab.node("lb-1").power_off()
    undo(lab, "reboot")
    assert lab.node("lb-1").power() is Power.RUNNING


def test_an_unknown_power_step_is_refused(lab: FakeLab) -> None:
    with pytest.raises(LabError, match="lb-1: unknown power step 'explode'"):
        undo(lab, "explode")


def test_a_lease_is_released_once(lab: FakeLab) -> None:
    lease = lab.node("web-1").lease("node.slow", "processor", [Undo(("unthrottle",), "power")])
    with pytest.raises(LabError, match=r"processor is taken by node.slow"):
        lab.node("web-1").lease("node.slow", "processor", [])
    lease.release()
    with pytest.raises(LabError, match=r"node\.slow was undone already"):
        lease.release()
