"""What the tests of faults on a real lab share: inject, see the proof, heal, and see that nothing is left."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from faults import FAULTS
from harness.audit import Audit, left_over
from harness.records import LabError, Proof
from harness.wait import NotYet, Timeout, until
from topology.lab.docker_lab import DockerLab

T = TypeVar("T")

AS_BEFORE_S = 180
"""After a fault of a director its addresses come home, and a gmetad that was away hears of all hosts again; after one
of a disk, services start again. In a slow hour that took more than 90 s."""
SETTLED_S = 60
"""After a test that moved no address the lab is healthy at once, or as soon as a busy machine gets round to it."""


def eventually(look: Callable[[], T | None], what: str, within_s: float = 120.0) -> T:
    """Look until there is something to see, and return that; ``what`` completes "waited for ...". Raises Timeout.

    A look that took too long, or was cut off, is one that saw nothing. What is looked at is not done again.
    """

    def once() -> T | None:
        try:
            return look()
        except (LabError, ValueError) as error:
            raise NotYet(str(error)) from error

    return until(once, within_s, what, 0.5)


@contextmanager
def injected(lab: DockerLab, fault: str, **settings: Any) -> Iterator[Proof]:
    """A fault for as long as the block runs. Afterwards the lab is as it was: healthy, no lease, the same audit."""
    lab.wait_healthy(AS_BEFORE_S)
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
    settled(lab, AS_BEFORE_S)
    lab.wait_healthy(AS_BEFORE_S)
    left = left_over(lab, before, AS_BEFORE_S)
    assert not left, "\n".join(left)


def settled(lab: DockerLab, within_s: float = SETTLED_S) -> None:
    """Wait until the lab is healthy, and do what an operator does where addresses do not come home by themselves.

    heartbeat leaves them where they are after a director stood still in the wrong moment, and all later tests would
    fail. It is no secret: pytest shows a warning. Nothing else is mended, and what else is wrong is left to be found.
    """
    try:
        lab.wait_healthy(within_s)
    except Timeout as error:
        if not away(lab):
            return
        warnings.warn(f"an operator had to bring addresses home: {error}", stacklevel=2)
        with FAULTS["cluster.settle"]().inject(lab):
            pass


def away(lab: DockerLab) -> bool:
    """Whether an address is not at home, or somebody takes it to be elsewhere."""
    status = lab.status()
    at_home = {vip: (home,) for vip, home in lab.cluster.vips.items()}
    return dict(status.owners) != at_home or bool(status.stale_neighbours)
