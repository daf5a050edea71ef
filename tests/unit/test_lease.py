"""A node's leases: what was done undoes itself, once, whatever the machine is doing meanwhile."""

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
    """The module as it runs in a node."""
    monkeypatch.syspath_prepend(str(MACHINE))
    import lease  # noqa: PLC0415 - it is no part of the package

    yield lease
    sys.modules.pop("lease")


class Machine:
    state = "running"


class Chassis:
    """A chassis whose commands end when the test says so."""

    def __init__(self, lease: Any) -> None:
        self.machine = Machine()
        self.commands: list[tuple[Any, str, list[str]]] = []
        self.powered: list[str] = []
        self.leases = lease.Leases(self)
        self.leases.down = False

    def carry_out(self, steps: Any, where: str, argv: list[str]) -> None:
        self.commands.append((steps, where, argv))

    def ends(self, **message: Any) -> None:
        """The command that runs ends."""
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
    """Lets time pass."""
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


def test_what_is_not_renewed_is_undone(chassis: Chassis, time: Callable[[float], None]) -> None:
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
    assert len(chassis.commands) == 1  # it runs already
    chassis.ends(done=0)
    assert chassis.leases.held == {}
    client = Client()
    chassis.leases.release(client, {"id": 1, "name": "one"})
    assert client.got == [{"id": 1, "error": "it was undone already: it ran out before"}]


def test_a_release_undoes_and_answers_when_that_is_done(chassis: Chassis) -> None:
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


def test_a_claim_is_held_by_one_only(chassis: Chassis) -> None:
    assert chassis.leases.arm(request()) == ""
    assert chassis.leases.arm(request("two")) == "power is taken by f, which is still in"
    assert chassis.leases.arm(request("two", claim="clock")) == ""


def test_steps_on_the_machine_wait_until_it_runs_and_begin_anew_when_it_falls(chassis: Chassis) -> None:
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


def test_a_step_that_changes_the_machine_is_done_once(chassis: Chassis) -> None:
    """It is told of the change in its own middle."""
    chassis.machine.state = "frozen"
    client = Client()
    chassis.leases.arm(request(undo=[{"where": "power", "argv": ["thaw"]}]))
    chassis.leases.release(client, {"id": 1, "name": "one"})
    assert chassis.powered == ["thaw"]
    assert client.got == [{"id": 1, "done": 0}]


def test_what_a_reboot_wipes_is_done_again_while_it_is_held(chassis: Chassis) -> None:
    chassis.leases.arm(request(again=[on_machine("again")]))
    chassis.become("frozen")
    chassis.become("running")
    assert chassis.commands == []  # it was not booted
    chassis.become("off")
    chassis.become("booting")
    chassis.become("running")
    assert [argv for _, _, argv in chassis.commands] == [["again"]]
    chassis.ends(done=0)
    assert chassis.leases.facts()[0]["state"] == "held"


def test_an_undo_waits_for_what_is_being_done_again(chassis: Chassis) -> None:
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


def test_an_undo_that_fails_is_tried_again_and_then_sticks(
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
    chassis.leases.release(client, {"id": 2, "name": "one"})  # somebody heals: it is tried again
    chassis.ends(done=0)
    assert client.got[1:] == [{"id": 2, "done": 0}]


def test_a_harness_that_is_gone_is_not_answered(chassis: Chassis) -> None:
    client = Client()
    chassis.leases.arm(request())
    chassis.leases.release(client, {"id": 1, "name": "one"})
    chassis.leases.forget(client)
    chassis.ends(done=0)
    assert client.got == []
    assert chassis.leases.held == {}
