"""Each fault of the catalogue with settings that suit the classic topology, and one injection of it in virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from faults import FAULTS
from harness.audit import audited
from harness.records import Power
from harness.wait import pass_time
from tests.support.faulty import settled
from topology.lab import engine, image
from topology.lab.docker_lab import DockerLab
from topology.lab.lifecycle import booted
from topology.load import load

HOLD_S = 2.0
AS_BEFORE_S = 180.0
SEED = 5

FAMILIES: dict[str, dict[str, Any]] = {
    "cluster": {"node": "lb-1"},
    "heartbeat": {"sender": "lb-1"},
    "network": {"cable": "web-3.eth0"},
    "node": {"node": "web-5"},
    "process": {"node": "web-4", "service": "apache"},
    "real-server": {"node": "web-4"},
}
"""The settings that most faults of a family must have."""
OWN: dict[str, dict[str, Any]] = {
    "cluster.both-directors": {},
    "cluster.one-path-cut": {},
    "cluster.rolling-maintenance": {},
    "cluster.rolling-restart": {},
    "cluster.settle": {},
    "cluster.split-brain": {"settle": True},
    "network.duplicate-address": {"cable": "web-3.eth0", "address": "198.18.1.104"},
    "network.lost-announcements": {"cable": "lb-1.eth0"},
    "network.partition": {"one": ["web-3"]},
    "network.poisoned-arp": {"cable": "web-3.eth0", "address": "198.18.1.104"},
    "network.stale-neighbour": {"cable": "web-3.eth0", "address": "198.18.1.104"},
    "node.disk-errors": {"node": "web-1"},
    "node.disk-full": {"node": "web-1"},
    "node.disk-read-only": {"node": "web-1"},
    "node.disk-slow": {"node": "db"},
    "node.host-name": {"node": "web-5", "to": "web-6"},
    "real-server.redirect": {"node": "web-4", "to": "web-5"},
}


def settings_of(name: str) -> dict[str, Any]:
    """The settings for a fault."""
    return OWN.get(name, FAMILIES.get(name.partition(".")[0], {}))


@contextmanager
def virtual_lab(name: str) -> Iterator[DockerLab]:
    """A lab in virtual time. Skips the test where its kernel is not built, which takes minutes."""
    if not image.exists(engine.connect(), image.own_kernel()):
        pytest.skip("the kernel for virtual time is not built; a lab with --clock virtual builds it")
    with booted(load("ultramonkey", "virtual"), name, print, SEED) as lab:
        yield lab


def has_its_effect_and_leaves_nothing(lab: DockerLab, name: str) -> None:
    """Inject a fault, hold it, undo it, and compare the lab with its state before."""
    made = FAULTS[name](**settings_of(name))
    assert made.available(lab) is None
    settled(lab)
    with audited(lab, AS_BEFORE_S):
        with made.inject(lab) as proof:
            print(proof.seen)
            assert proof.seen
            assert proof.time_ns <= lab.now_ns()
            assert name in {lease.fault for lease in lab.leases()}
            pass_time(HOLD_S, clock=lab.clock)
        assert lab.leases() == []
    assert {node.power() for node in lab.nodes()} == {Power.RUNNING}
