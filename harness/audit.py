"""Two audits of a lab, compared: the differences that remain after an undo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from harness.protocols import Lab
from harness.records import LabError, LeaseStatus, Status
from harness.wait import NotYet, Timeout, until

__all__ = ["AS_BEFORE_S", "Audit", "LeftBehindError", "aftermath", "audited", "differences", "left_over"]

Audit = Mapping[str, tuple[str, ...]]
"""Each node -> its state in lines, as returned by ``Lab.audit``."""

EVERY_S = 0.5
"""Real time; on a lab in virtual time an audit costs no time of the lab, but much of the machine's."""
VIRTUAL_EVERY_S = 5.0

AS_BEFORE_S = 60.0
"""After a director's fault its virtual IP addresses fail back within about 20 s, on a slow machine twice that."""


class LeftBehindError(LabError):
    """The lab differs from its state before. ``left`` has a line for each difference and each lease still held."""

    def __init__(self, left: list[str]) -> None:
        super().__init__(f"differences remain: {'; '.join(left)}", "Run `monkeywrench heal` to undo all faults.")
        self.left = left


@contextmanager
def audited(lab: Lab, within_s: float = AS_BEFORE_S) -> Iterator[None]:
    """Compare the lab after the block with its state before. Raises LeftBehindError.

    If the block itself raises, that error passes through.
    """
    before = lab.audit()
    yield
    if left := left_over(lab, before, within_s):
        raise LeftBehindError(left)


def differences(before: Audit, after: Audit) -> list[str]:
    """The differences of two audits, as ``node: was: line`` and ``node: now: line``. Pure."""
    found = []
    for node in sorted(before.keys() | after.keys()):
        was, now = set(before.get(node, ())), set(after.get(node, ()))
        found += [f"{node}: was: {line}" for line in sorted(was - now)]
        found += [f"{node}: now: {line}" for line in sorted(now - was)]
    return found


def left_over(lab: Lab, before: Audit, within_s: float) -> list[str]:
    """Wait until there are no differences and no leases; -> those that are left at the deadline.

    After an undo that takes some time: a virtual IP address fails back, a service starts.
    """
    found: list[str] = []

    def unchanged() -> bool:
        nonlocal found
        found = [_still(lease) for lease in lab.leases()] + differences(before, lab.audit())
        if found:
            raise NotYet("; ".join(found))
        return True

    try:
        until(unchanged, within_s, "the lab to be as it was before", _every_s(lab), lab.clock)
    except Timeout:
        return found
    return []


def _every_s(lab: Lab) -> float:
    return VIRTUAL_EVERY_S if lab.clock.kind == "virtual" else EVERY_S


def _still(lease: LeaseStatus) -> str:
    why = f": {lease.problems}" if lease.problems else ""
    return f"{lease.node}: {lease.fault} is still {lease.state}{why}"


def aftermath(lab: Lab, before: Audit, within_s: float) -> dict[str, Any]:
    """The lab after a run: the differences that are ``left``, and the state of the cluster.

    ``problems`` is everything that is wrong, ``owners`` each virtual IP -> its directors, ``weights`` each director ->
    virtual service -> real server -> weight. Raises LabError if the lab cannot be inspected.
    """
    left = left_over(lab, before, within_s)
    statuses: list[Status] = []

    def healthy() -> bool:
        statuses.append(lab.status())
        return statuses[-1].healthy

    with suppress(Timeout):
        until(healthy, within_s, "the cluster to be healthy", _every_s(lab), lab.clock)
    seen = statuses[-1]
    weights = {
        director: {service: {each.node: each.weight for each in rows} for service, rows in table.items()}
        for director, table in seen.ipvs.items()
    }
    return {"left": left, "problems": list(seen.problems), "owners": dict(seen.owners), "weights": weights}
