"""Load from several processes on two clients, each in a network of its own; and one of them dies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.artifacts.run_directory import HISTORY
from harness.history import load
from harness.wait import NotYet, until
from topology.lab import engine, lifecycle

SCENARIO = """\
[scenario]
name = "workers"
title = "Load from two clients"
topology = "ultramonkey"
seed = 1
expectation = "All that was planned is asked."

[load]
users = 20
spawn_per_s = 20
workers = 3
arrivals = "constant"
phases = [{ per_s = 20 }]

[[steps]]
name = "steady state"
until = "steady"
within_s = 60

[[steps]]
name = "load"
hold_s = 25

[checks.errors]
"""


@pytest.fixture
def two_clients(small_topology: Path) -> Path:
    text = small_topology.read_text().replace('name = "client"', 'name = "client"\ncount = 2')
    small_topology.write_text(text.replace('"203.0.113.10"', '"203.0.113.20"'))
    return small_topology


@pytest.fixture
def run(two_clients: Path, tmp_path: Path) -> subprocess.Popen[str]:
    scenario = tmp_path / "workers.toml"
    scenario.write_text(SCENARIO)
    argv = [sys.executable, "-m", "harness.cli", "run", str(scenario), "--topology", str(two_clients)]
    return subprocess.Popen(
        [*argv, "--runs", str(tmp_path / "runs")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def recorded(folder: Path) -> Path:
    found = sorted((folder / "runs").glob(f"*Z-*/{HISTORY}"))
    if not found:
        raise NotYet("no run yet")
    return found[-1]


def test_workers_on_two_clients_ask_all_that_was_planned(run: subprocess.Popen[str], tmp_path: Path) -> None:
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 0, said
    workers = {op.process.rpartition(":")[0] for op in load(recorded(tmp_path)).process("user:")}
    assert workers == {"user:0", "user:1", "user:2"}


def test_a_worker_that_dies_leaves_what_it_knew_unknown(run: subprocess.Popen[str], tmp_path: Path) -> None:
    """SIGKILL, on the second client."""
    kill = "kill -KILL $(grep -ls '[-]-worker' /proc/[0-9]*/cmdline | cut -d/ -f3)"

    def at_work() -> bool:
        lab = lifecycle.attach(engine.connect(), f"run-{run.pid}")
        if lab is None or '"user:1:' not in recorded(tmp_path).read_text():
            raise NotYet("the worker has not asked for anything")
        return lab.node("client-2").exec("sh", "-c", kill).ok

    assert until(at_work, 200, "the second client's worker to be killed", 1)
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 3, said
    assert "load:1 lost at" in said
    after = [op for op in load(recorded(tmp_path)).of("feed") if op.process == "load:1"]
    assert [op["phase"] for op in after] == ["open", "lost", "open", "closed"]
