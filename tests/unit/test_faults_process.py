from __future__ import annotations

import pytest
from pydantic import ValidationError

from faults import process
from faults.process import PROGRAM, Down, Hang, Kill, Processes, RestartLoop, Stop, parse
from harness.fake import FakeLab, FakeNode
from harness.records import LabError, Output, Undo

RUNS = "812\n812 S\n813 S\n"


class Machine(FakeNode):
    """A node with one service; a test sets the output of its program."""

    printed = RUNS

    def exec(self, *argv: str, timeout_s: float = 10.0) -> Output:
        super().exec(*argv, timeout_s=timeout_s)
        return Output(0, self.printed if argv[:2] == (PROGRAM, "processes") else "", "")


@pytest.fixture
def fake() -> FakeLab:
    lab = FakeLab()
    lab.add(Machine(lab, "web-1", "web", supervised=("nfsd", "apache")))
    return lab


def test_the_list_of_processes_is_read_without_zombies() -> None:
    assert parse("") == Processes()
    assert parse(RUNS + "814 Z\n") == Processes(812, ((812, "S"), (813, "S")))
    assert parse(RUNS).numbers == {812, 813}


@pytest.mark.parametrize(
    ("fault", "verb", "again"),
    [
        (Stop(node="web-1", service="apache"), "stop", ("stop-again", "apache")),
        (Hang(node="web-1", service="apache"), "hang", ("hang-again", "apache")),
        (Down(node="web-1", service="apache"), "down", ("down", "apache")),
        (RestartLoop(node="web-1", service="apache", every_ms=250), "restart-loop", ("restart-loop", "apache", "0.25")),
    ],
)
def test_each_fault_has_an_undo_and_returns_after_a_reboot(
    fake: FakeLab, fault: Stop, verb: str, again: tuple[str, ...]
) -> None:
    (change,) = fault.changes(fake)
    assert change.claim == "service apache"
    assert change.undo == (Undo((PROGRAM, f"undo-{verb}", "apache")),)
    assert change.again == (Undo((PROGRAM, *again)),)


def test_a_kill_is_not_repeated_after_a_reboot(fake: FakeLab) -> None:
    (change,) = Kill(node="web-1", service="apache").changes(fake)
    assert change.undo == (Undo((PROGRAM, "undo-kill", "apache")),)
    assert change.again == ()


@pytest.mark.parametrize("make", [Stop, Hang, Down, RestartLoop])
def test_an_injection_without_effect_fails(fake: FakeLab, make: type[Stop], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PROOF_WITHIN_S", 0.0)
    with pytest.raises(LabError, match="proof of process"), make(node="web-1", service="apache").inject(fake):
        pytest.fail("it counted as injected")
    assert fake.leases() == []


@pytest.mark.parametrize(
    ("service", "why"),
    [
        ("agent", "control channel"),
        ("mariadb", "web-1 has no service 'mariadb'. Services: apache, nfsd."),
        ("nfsd", "no process to hit: its threads belong to the kernel"),
    ],
)
def test_a_refusal_gives_the_reason(fake: FakeLab, service: str, why: str) -> None:
    reason = Kill(node="web-1", service=service).available(fake)
    assert reason is not None
    assert why in reason


def test_a_service_of_the_kernel_can_be_taken_down(fake: FakeLab) -> None:
    assert Down(node="web-1", service="nfsd").available(fake) is None


def test_a_service_that_is_not_a_name_is_refused() -> None:
    with pytest.raises(ValidationError):
        Kill(node="web-1", service="apache; reboot")
