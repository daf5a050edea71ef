"""A harness that is killed, at any moment of any fault, leaves nothing: the lab undoes the fault within the lease."""

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

from harness.wait import NotYet, pass_time
from tests.support.faulty import eventually
from tests.support.killed import TOGETHER, Cases
from topology.lab.docker_lab import DockerLab
from topology.lab.lease import LEASE_S

SHORT_LEASE_S = 3
"""For tests that do not depend on it: a busy machine may renew it too late, and then the fault is undone early."""

UNDO_S = 180
"""After the lease the undo itself takes its time: a machine may have to boot."""

pytestmark = pytest.mark.usefixtures("audited")


@contextmanager
def holding(
    lab: DockerLab, fault: str, settings: Mapping[str, Any], lease_s: float = LEASE_S
) -> Iterator[subprocess.Popen[str]]:
    """Another process that is about to inject the fault."""
    command = [sys.executable, "-m", "tests.support.hold_fault", lab.name, fault, json.dumps(settings), str(lease_s)]
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


def undone_on_its_own(lab: DockerLab) -> None:
    def gone() -> bool:
        if left := lab.leases():
            raise NotYet(str(left))
        return True

    eventually(gone, "the leases to run out", LEASE_S + UNDO_S)


@pytest.mark.parametrize("cases", TOGETHER, ids="+".join)
def test_killed_at_random_moments(lab: DockerLab, cases: Cases) -> None:
    """The moments are drawn anew each time, and printed: any moment has to do."""
    moments_s = {fault: random.uniform(0, 2) for fault in cases}
    print(f"killed after {moments_s} s")
    with ThreadPoolExecutor(len(cases)) as pool:

        def kill(fault: str) -> None:
            with holding(lab, fault, cases[fault], SHORT_LEASE_S):
                pass_time(moments_s[fault])

        list(pool.map(kill, cases))
    undone_on_its_own(lab)


@pytest.mark.parametrize("cases", TOGETHER, ids="+".join)
def test_killed_while_they_are_in(lab: DockerLab, cases: Cases) -> None:
    with ExitStack() as killing:
        for fault, settings in cases.items():
            harness = killing.enter_context(holding(lab, fault, settings))
            assert said(harness) == "in"
        assert {lease.fault for lease in lab.leases()} == {*cases}
    undone_on_its_own(lab)
