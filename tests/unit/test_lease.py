"""Leases of a node: each fault is undone once, whatever happens to the machine meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import topology

MACHINE = Path(topology.__file__).parent / "images" / "node" / "machine"


@pytest.fixture
def lease(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module, imported as a node imports it."""
    monkeypatch.syspath_prepend(str(MACHINE))
    import lease  # noqa: PLC0415 - it is not part of the package

    yield lease
    sys.modules.pop("lease")


class Machine:
    state = "running"


class Chassis:
    """A chassis that notes its commands; the test ends them."""

    def __init__(self, lease: Any) -> None:
        self.machine, self.spec = Machine(), {"clock": "real"}
        self.commands: list[tuple[Any, str, list[str]]] = []
        self.powered: list[str] = []
        self.leases = lease.Leases(self)
        self.leases.down = False

    def carry_out(self, steps: Any, where: str, argv: list[str]) -> None:
        self.commands.append((steps, where, argv))

    def ends(self, **message: Any) -> None:
        """End the oldest command with this message."""
        steps, _, _ = self.commands.pop(0)
        steps.send(message)

    def power_step(self, step: dict[str, Any]) -> bool:
        self.powered.append(step["argv"][0])
        if step["argv"][0] == "thaw" and self.machine.state == "frozen":
            self.become("running")
        return self.machine.state == "running"

    def become(self, state: str) -> None:
        self.machine.state = state
        self.leases.changed()


class Client:
    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        self.got.append(message)


@pytest.fixture
def chassis(lease: Any) -> Chassis:
    return Chassis(lease)


@pytest.fixture
def time(lease: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A virtual clock: a function that lets seconds pass."""
    now = [100.0]
    monkeypatch.setattr(lease.time, "monotonic", lambda: now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds

    return passes


def on_machine(*argv: str) -> dict[str, Any]:
    return {"where": "machine", "argv": list(argv)}


def request(name: str = "one", claim: str = "power", undo: Any = (), again: Any = ()) -> dict[str, Any]:
    steps = list(undo) or [on_machine("undo", name)]
    return {"name": name, "fault": "f", "claim": claim, "ttl_ms": 10_000, "undo": steps, "again": list(again)}


def test_a_lease_that_is_not_renewed_expires_and_its_fault_is_undone(
    chassis: Chassis, time: Callable[[float], None]
) -> None:
    assert chassis.leases.arm(request()) == ""
    time(9.9)
    chassis.leases.tick()
    assert chassis.commands == []
    chassis.leases.held["one"].renew()
    time(9.9)
    chassis.leases.tick()
    assert chassis.commands == []
    time(0.2)
    chassis.leases.tick()
    assert [argv for _, _, argv in chassis.commands] == [["undo", "one"]]
    time(5)
    chassis.leases.tick()
    assert len(chassis.commands) == 1  # the undo is already running
    chassis.ends(done=0)
    assert chassis.leases.held == {}
    client = Client()
    chassis.leases.release(client, {"id": 1, "name": "one"})
    assert client.got == [{"id": 1, "error": "already undone: the lease expired"}]


def test_a_release_is_answered_when_the_undo_is_done(chassis: Chassis) -> None:
    client = Client()
    chassis.leases.arm(request(undo=[on_machine("a"), {"where": "chassis", "argv": ["b", "{now}"]}]))
    chassis.leases.release(client, {"id": 7, "name": "one"})
    chassis.ends(done=0)
    assert client.got == []
    (_, where, argv) = chassis.commands[0]
    assert where == "chassis"
    assert float(argv[1]) > 1e9  # the host's time of day
    chassis.ends(done=0)
    assert client.got == [{"id": 7, "done": 0}]


def test_a_claim_has_one_lease_at_a_time(chassis: Chassis) -> None:
    assert chassis.leases.arm(request()) == ""
    assert chassis.leases.arm(request("two")) == "power is taken by f, which is still active"
    assert chassis.leases.arm(request("two", claim="clock")) == ""


def test_an_undo_waits_for_a_running_machine_and_starts_again_after_a_crash(chassis: Chassis) -> None:
    chassis.leases.arm(request())
    chassis.become("off")
    client = Client()
    chassis.leases.release(client, {"id": 1, "name": "one"})
    assert chassis.commands == []
    chassis.become("booting")
    assert chassis.commands == []
    chassis.become("running")
    chassis.machine.state = "off"
    chassis.ends(error="the machine went down")
    assert client.got == []
    chassis.become("running")
    chassis.ends(done=0)
    assert client.got == [{"id": 1, "done": 0}]


def test_an_undo_that_changes_the_machines_state_runs_once(chassis: Chassis) -> None:
    """The state changes while the undo is running."""
    chassis.machine.state = "frozen"
    client = Client()
    chassis.leases.arm(request(undo=[{"where": "power", "argv": ["thaw"]}]))
    chassis.leases.release(client, {"id": 1, "name": "one"})
    assert chassis.powered == ["thaw"]
    assert client.got == [{"id": 1, "done": 0}]


def test_a_held_fault_is_applied_again_after_a_reboot(chassis: Chassis) -> None:
    chassis.leases.arm(request(again=[on_machine("again")]))
    chassis.become("frozen")
    chassis.become("running")
    assert chassis.commands == []  # a freeze is not a reboot
    chassis.become("off")
    chassis.become("booting")
    chassis.become("running")
    assert [argv for _, _, argv in chassis.commands] == [["again"]]
    chassis.ends(done=0)
    assert chassis.leases.facts()[0]["state"] == "held"


def test_an_undo_waits_until_the_fault_is_applied_again(chassis: Chassis) -> None:
    client = Client()
    chassis.leases.arm(request(again=[on_machine("again")]))
    chassis.become("off")
    chassis.become("running")
    chassis.leases.release(client, {"id": 1, "name": "one"})
    assert [argv for _, _, argv in chassis.commands] == [["again"]]
    chassis.ends(done=0)
    assert [argv for _, _, argv in chassis.commands] == [["undo", "one"]]
    chassis.ends(done=0)
    assert client.got == [{"id": 1, "done": 0}]


def test_an_undo_that_keeps_failing_leaves_the_lease_stuck(
    lease: Any, chassis: Chassis, time: Callable[[float], None]
) -> None:
    client = Client()
    chassis.leases.arm(request())
    chassis.leases.release(client, {"id": 1, "name": "one"})
    for _ in range(lease.TRIES):
        assert client.got == []
        chassis.ends(out="no", done=1)
        time(lease.RETRY_S)
        chassis.leases.tick()
    assert chassis.commands == []
    assert "could not be undone: `undo one` failed: no" in client.got[0]["error"]
    assert chassis.leases.facts()[0]["state"] == "stuck"
    chassis.leases.release(client, {"id": 2, "name": "one"})  # a second release tries again
    chassis.ends(done=0)
    assert client.got[1:] == [{"id": 2, "done": 0}]


def test_a_harness_that_disconnected_gets_no_answer(chassis: Chassis) -> None:
    client = Client()
    chassis.leases.arm(request())
    chassis.leases.release(client, {"id": 1, "name": "one"})
    chassis.leases.forget(client)
    chassis.ends(done=0)
    assert client.got == []
    assert chassis.leases.held == {}
