"""What is left when it should be as it was: two audits of a lab, compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from harness.protocols import Lab
from harness.records import LabError, Status
from harness.wait import REAL, Clock, NotYet, Timeout, until

__all__ = ["AS_BEFORE_S", "Audit", "LeftBehindError", "aftermath", "audited", "differences", "left_over"]

Audit = Mapping[str, tuple[str, ...]]
"""Each node -> its state in lines, as ``Lab.audit`` gives it."""

EVERY_S = 0.5

AS_BEFORE_S = 60.0
"""After a director's fault its virtual IP addresses come home within some 20 s, on a slow machine twice that."""


class LeftBehindError(LabError):
    """The lab is not as it was. ``left`` has a line for each difference, and for each lease that is still there."""

    def __init__(self, left: list[str]) -> None:
        super().__init__(f"not all is as it was: {'; '.join(left)}", "`monkeywrench heal` undoes what is injected.")
        self.left = left


@contextmanager
def audited(lab: Lab, within_s: float = AS_BEFORE_S, clock: Clock = REAL) -> Iterator[None]:
    """Compare the lab after the block with what it was before. Raises LeftBehindError.

    Not when the block itself raises: then its own error says more.
    """
    before = lab.audit()
    yield
    if left := left_over(lab, before, within_s, clock):
        raise LeftBehindError(left)


def differences(before: Audit, after: Audit) -> list[str]:
    """What two audits do not share, as ``node: was: line`` and ``node: now: line``. Pure."""
    found = []
    for node in sorted(before.keys() | after.keys()):
        was, now = set(before.get(node, ())), set(after.get(node, ()))
        found += [f"{node}: was: {line}" for line in sorted(was - now)]
        found += [f"{node}: now: {line}" for line in sorted(now - was)]
    return found


def left_over(lab: Lab, before: Audit, within_s: float, clock: Clock = REAL) -> list[str]:
    """What is not as it was, and what leases there still are, at the deadline; nothing as soon as all is well.

    After an undo it takes some time until all is as it was: a virtual IP address comes home, a service starts.
    """
    found: list[str] = []

    def as_it_was() -> bool:
        nonlocal found
        found = [f"{lease.node}: {lease.fault} is {lease.state}: {lease.problems}" for lease in lab.leases()]
        found += differences(before, lab.audit())
        if found:
            raise NotYet("; ".join(found))
        return True

    try:
        until(as_it_was, within_s, "all to be as it was", EVERY_S, clock)
    except Timeout:
        return found
    return []


def aftermath(lab: Lab, before: Audit, within_s: float, clock: Clock = REAL) -> dict[str, Any]:
    """What a run leaves: what is ``left`` of it, and how the cluster is.

    ``trouble`` is all that is not as it should be, ``owners`` each virtual IP -> its directors, ``weights`` each
    director -> virtual service -> real server -> weight. Raises LabError when the lab cannot be looked at.
    """
    left = left_over(lab, before, within_s, clock)
    looks: list[Status] = []

    def well() -> bool:
        looks.append(lab.status())
        return looks[-1].healthy

    with suppress(Timeout):
        until(well, within_s, "the cluster to be well", EVERY_S, clock)
    seen = looks[-1]
    weights = {
        director: {service: {each.node: each.weight for each in rows} for service, rows in table.items()}
        for director, table in seen.ipvs.items()
    }
    return {"left": left, "problems": list(seen.problems), "owners": dict(seen.owners), "weights": weights}
