"""Making and removing labs: side by side, interrupted, killed, and never anything left."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.records import LabError
from harness.wait import until
from tests.support.command import MONKEYWRENCH
from topology.lab import engine, lifecycle
from topology.lab.docker_lab import DockerLab
from topology.load import load


def started(topology: Path, tmp_path: Path) -> subprocess.Popen[bytes]:
    """A run that boots a lab of its own, caught while it does."""
    scenario = tmp_path / "idle.toml"
    scenario.write_text(
        f'[scenario]\nname = "idle"\ntitle = "nothing"\nexpectation = "nothing"\ntopology = "{topology}"\n'
        '[[steps]]\nname = "steady"\nuntil = "steady"\nwithin_s = 30\nhold_s = 60\n[checks.recovery]\n'
    )
    command = [*MONKEYWRENCH, "run", str(scenario), "--lab", "no-such-lab", "--runs", str(tmp_path / "runs")]
    run = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def made() -> bool:
        assert run.poll() is None, f"the run ended with {run.returncode}"
        return bool(owned_by(run))

    until(made, 300, "the run to make containers", 0.2)
    return run


def owned_by(run: subprocess.Popen[bytes]) -> list[str]:
    containers = engine.containers(engine.connect(), f"run-{run.pid}")
    return [container.name for container in containers]


@pytest.fixture
def running(small_topology: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    run = started(small_topology, tmp_path)
    yield run
    if run.poll() is None:
        run.kill()
    run.wait()
    lifecycle.remove(engine.connect(), f"run-{run.pid}")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(running: subprocess.Popen[bytes], how: signal.Signals) -> None:
    running.send_signal(how)
    running.wait(300)
    assert running.returncode not in (0, -how)
    assert owned_by(running) == []


def test_a_killed_run_is_cleaned_up_by_the_next_command_and_a_living_one_is_not(
    running: subprocess.Popen[bytes],
) -> None:
    client = engine.connect()
    lifecycle.remove_orphans(client)
    assert owned_by(running) != []
    with pytest.raises(LabError, match=f"in use by process {running.pid}"):
        lifecycle.boot(client, load("ultramonkey"), f"run-{running.pid}", print)
    running.kill()
    running.wait()

    def cleaned_up() -> bool:
        """What Docker was still making for the killed run is left to the command after the next one."""
        lifecycle.remove_orphans(client)
        return owned_by(running) == []

    assert until(cleaned_up, 60, "nothing of the run to be left", 0.5)


def test_two_labs_run_side_by_side_and_down_removes_one_only(lab: DockerLab, small_topology: Path) -> None:
    name = f"second-{os.getpid()}"
    try:
        up = subprocess.run(
            [*MONKEYWRENCH, "up", "--lab", name, "--topology", str(small_topology)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert up.returncode == 0, up.stderr
        again = subprocess.run(
            [*MONKEYWRENCH, "up", "--lab", name, "--topology", str(small_topology)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "is already up" in again.stderr
        assert lab.wait_healthy(180).healthy
    finally:
        down = subprocess.run([*MONKEYWRENCH, "down", "--lab", name], capture_output=True, text=True, check=False)
    assert down.returncode == 0
    assert "containers removed" in down.stderr
    assert engine.containers(engine.connect(), name) == []
    assert lab.wait_healthy(180).healthy


def test_a_lab_leaves_the_host_as_it_was(lab: DockerLab) -> None:
    """No interface, no route and no firewall rule of the host's belongs to the lab that runs now."""
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    routes = subprocess.run(["ip", "route", "show", "table", "all"], capture_output=True, text=True, check=True).stdout
    assert "br-internet" not in links
    assert "lb-1." not in links
    assert "203.0.113." not in routes
    assert "198.18." not in routes
