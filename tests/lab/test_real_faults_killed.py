"""A harness that is killed, at any moment of any fault, leaves nothing: the lab heals by itself, within the lease."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from faults import FAULTS
from harness.wait import NotYet, pass_time
from tests.support.faulty import as_before, eventually
from topology.lab.docker_lab import DockerLab
from topology.lab.lease import LEASE_S

UNDO_S = 180
"""After the lease the undo itself takes its time: a machine may have to boot."""

Cases = Mapping[str, Mapping[str, Any]]

TOGETHER: tuple[Cases, ...] = (
    {
        "dns.servfail": {},
        "heartbeat.drop": {"sender": "lb-1", "paths": ["heartbeat"]},
        "network.delay": {"cable": "web-4.eth0"},
        "node.slow": {"node": "web-5"},
        "process.stop": {"node": "web-6", "service": "gmond"},
    },
    {
        "data.database-locked": {},
        "network.cut": {"cable": "web-4.eth0"},
        "node.disk-full": {"node": "web-1"},
        "process.restart-loop": {"node": "web-6", "service": "apache"},
        "real-server.error": {"node": "web-5"},
    },
    {
        "cluster.one-path-cut": {},
        "data.database-out-of-connections": {},
        "data.replication-source-empty": {},
        "node.freeze": {"node": "web-4"},
        "process.hang": {"node": "web-5", "service": "apache"},
    },
    {
        "data.nfs-other-fsid": {},
        "dns.one-address": {},
        "node.disk-errors": {"node": "db"},
        "node.out-of-memory": {"node": "web-6"},
        "node.panic": {"node": "web-4"},
        "real-server.refuse": {"node": "web-5"},
    },
)
"""At least one of each family. Targets are nodes whose loss moves no virtual IP address."""


@contextmanager
def holding(lab: DockerLab, fault: str, settings: Mapping[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """Another process that is about to inject the fault."""
    command = [sys.executable, "-m", "tests.support.hold_fault", lab.name, fault, json.dumps(settings)]
    harness = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert said(harness) == "ready"
        yield harness
    finally:
        harness.kill()
        harness.wait()


def said(harness: subprocess.Popen[str]) -> str:
    """The next line that it prints. Fails with its error when it ended instead."""
    assert harness.stdout is not None
    assert harness.stderr is not None
    line = harness.stdout.readline().strip()
    assert line, harness.stderr.read()
    return line


def healed_by_itself(lab: DockerLab, before: Mapping[str, tuple[str, ...]]) -> None:
    def gone() -> bool:
        if left := lab.leases():
            raise NotYet(str(left))
        return True

    eventually(gone, "the leases to run out", LEASE_S + UNDO_S)
    as_before(lab, before)


@pytest.mark.parametrize("cases", TOGETHER, ids="+".join)
def test_killed_at_random_moments(lab: DockerLab, cases: Cases) -> None:
    """The moments are drawn anew each time, and printed: any moment has to do."""
    moments_s = {fault: random.uniform(0, 2) for fault in cases}
    print(f"killed after {moments_s} s")
    before = lab.audit()
    with ThreadPoolExecutor(len(cases)) as pool:

        def kill(fault: str) -> None:
            with holding(lab, fault, cases[fault]):
                pass_time(moments_s[fault])

        list(pool.map(kill, cases))
    healed_by_itself(lab, before)


@pytest.mark.parametrize("cases", TOGETHER, ids="+".join)
def test_killed_while_they_are_in(lab: DockerLab, cases: Cases) -> None:
    before = lab.audit()
    with ExitStack() as killing:
        for fault, settings in cases.items():
            harness = killing.enter_context(holding(lab, fault, settings))
            assert said(harness) == "in"
        assert {lease.fault for lease in lab.leases()} == {*cases}
    healed_by_itself(lab, before)


def test_every_family_is_killed() -> None:
    killed = {name.partition(".")[0] for cases in TOGETHER for name in cases}
    assert killed == {name.partition(".")[0] for name in FAULTS}
