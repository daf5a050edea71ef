"""Faults on a lab in virtual time: one for each way in which they are made there. `make soak` has all of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from harness.wait import pass_time
from tests.support.faulty import eventually
from tests.support.virtual_faults import has_its_effect_and_leaves_nothing, settings_of, virtual_lab
from topology.lab import engine
from topology.lab.docker_lab import DockerLab
from topology.lab.lease import LEASE_S
from topology.lab.lifecycle import attach
from topology.lab.virtual.lab import VirtualLab

LAB = "virtual-faults"
EACH_WAY = (
    "cluster.one-path-cut",
    "heartbeat.reorder",
    "network.delay",
    "network.duplicate-address",
    "network.lost-announcements",
    "network.partition",
    "network.poisoned-arp",
    "network.reject",
    "network.unplugged",
    "node.slow",
    "real-server.stall",
)


@pytest.fixture(scope="module")
def virtual() -> Iterator[DockerLab]:
    with virtual_lab(LAB) as lab:
        yield lab


@pytest.mark.parametrize("name", EACH_WAY)
def test_a_fault_has_its_effect_and_leaves_nothing(virtual: DockerLab, name: str) -> None:
    has_its_effect_and_leaves_nothing(virtual, name)


def killed_while_it_is_in(name: str) -> None:
    """Another process injects a fault, and ends without undoing it."""
    command = [sys.executable, "-m", "tests.support.hold_fault", LAB, name, json.dumps(settings_of(name)), str(LEASE_S)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as harness:
        assert harness.stdout is not None
        assert harness.stderr is not None
        said = [harness.stdout.readline().strip() for _ in range(2)]
        harness.kill()
        assert said == ["ready", "in"], harness.stderr.read()


def test_what_a_harness_that_was_killed_left_is_undone(virtual: DockerLab) -> None:
    """The last test: nobody drives the module's own lab afterwards."""
    virtual.close()
    names = ("heartbeat.drop", "network.cut", "node.slow")
    for name in names:
        killed_while_it_is_in(name)
    # until the simulator has noticed that the process is gone, it turns others away
    lab = eventually(lambda: attach(engine.connect(), LAB), "the lab to be free", 30)
    assert isinstance(lab, VirtualLab)
    try:
        held = lab.leases()
        assert {lease.fault for lease in held} == set(names)  # heartbeat.drop has a lease for each path
        rules = [lease.claim.removeprefix("rules ") for lease in held if lease.fault == "network.cut"]
        assert all(lab.wires.hits(f"{rule}-from") for rule in rules)
        pass_time(LEASE_S + 5, clock=lab.clock)
        assert lab.leases() == []
        assert not any(lab.wires.hits(f"{rule}-from") for rule in rules)
        assert lab.node("web-3").exec("ping", "-c", "1", "-W", "1", "198.18.1.104").ok
        lab.wait_healthy(60)
    finally:
        lab.close()
