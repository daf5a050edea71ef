"""What the tests of faults on a real lab share: inject a fault, see its proof, undo it, and find what is left of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
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

    A look that took too long, or was cut off, saw nothing. Only the look is repeated, never the action before it.
    """

    def once() -> T | None:
        try:
            return look()
        except (LabError, ValueError) as error:
            raise NotYet(str(error)) from error

    return until(once, within_s, what, 0.5)


@contextmanager
def injected(lab: DockerLab, fault: str, **settings: Any) -> Iterator[Proof]:
    """A fault for as long as the block runs. That nothing is left of it is asked after the test: see ``audited``."""
    made = FAULTS[fault](**settings)
    assert made.available(lab) is None
    with made.inject(lab) as proof:
        assert proof.seen
        assert proof.time_ns <= lab.now_ns()
        assert [lease.fault for lease in lab.leases()].count(fault) >= 1
        yield proof


def left_behind(lab: DockerLab, before: Audit) -> list[str]:
    """What differs from ``before`` and which leases are held, once the lab had time to recover.

    The first look is the only one after a good test. Where it finds a difference, the lab gets time to become healthy.
    """
    with suppress(LabError):  # a node that does not answer now may do so in a moment
        if not left_over(lab, before, 0):
            return []
    settled(lab, AS_BEFORE_S)
    return left_over(lab, before, AS_BEFORE_S)


def together(cases: Iterable[T], check: Callable[[T], None]) -> None:
    """Check all cases at once, each in a thread of its own. Fails with every case that failed, by its name."""
    wanted = list(cases)
    with ThreadPoolExecutor(len(wanted)) as pool:
        errors = [(case, each.exception()) for case, each in [(case, pool.submit(check, case)) for case in wanted]]
    failed = [f"{case}: {type(error).__name__}: {error}" for case, error in errors if error]
    assert not failed, "\n".join(failed)


def settled(lab: DockerLab, within_s: float = SETTLED_S) -> None:
    """Wait until the lab is healthy, and do what an operator does where addresses do not fail back on their own.

    heartbeat leaves them where they are after a director was stalled at the wrong moment, and all later tests would
    fail. pytest shows a warning. Nothing else is repaired: other problems are left to be found.
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
    """Whether an address is not on its home director, or a neighbour has a stale ARP entry for it."""
    status = lab.status()
    at_home = {vip: (home,) for vip, home in lab.cluster.vips.items()}
    return dict(status.owners) != at_home or bool(status.stale_neighbours)
