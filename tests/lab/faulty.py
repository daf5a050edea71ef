"""What the tests of faults on a real lab share: inject, see the proof, heal, and see that nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from faults import FAULTS
from harness.audit import Audit, left_over
from harness.protocols import Proof
from topology.lab import DockerLab

AS_BEFORE_S = 180
"""After a fault of a director its addresses come home, and a gmetad that was away hears of all hosts again; after one
of a disk, services start again. In a slow hour that took more than 90 s."""


@contextmanager
def injected(lab: DockerLab, fault: str, **settings: Any) -> Iterator[Proof]:
    """A fault for as long as the block runs. Afterwards the lab is as it was: healthy, no lease, the same audit."""
    before = lab.audit()
    made = FAULTS[fault](**settings)
    assert made.available(lab) is None
    with made.inject(lab) as proof:
        assert proof.seen
        assert proof.time_ns <= lab.now_ns()
        assert [lease.fault for lease in lab.leases()].count(fault) >= 1
        yield proof
    as_before(lab, before)


def as_before(lab: DockerLab, before: Audit) -> None:
    """Wait until the lab is healthy and its audit is the same; the difference is in what a failure says."""
    lab.wait_healthy(AS_BEFORE_S)
    left = left_over(lab, before, AS_BEFORE_S)
    assert not left, "\n".join(left)
