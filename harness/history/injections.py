"""When was what injected, whom did it touch, and when was nobody disturbed? Pure; all times are ns.

A stretch is a pair (start, end). Stretches of a list are in order and do not overlap.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from harness.history import History, Op
from harness.history.timeline import MS, Window, faults, powers, watched
from harness.records import Power
from harness.verdict import Finding, unknown

Stretch: TypeAlias = tuple[int, int]

FELLS = frozenset({"node.power-off", "node.freeze", "node.panic", "node.shutdown"})
"""Faults after whose proof a node certainly does nothing, until they are undone."""

FAILS_CHECK = frozenset({"real-server.refuse", "real-server.stall", "real-server.reset", "real-server.wrong-content"})
"""Faults under which a real server certainly fails ldirectord's check. (A partial answer and a redirect pass it.)"""

STOPS = frozenset({"process.down", "process.hang", "process.stop"})
"""Faults after whose proof a service certainly does nothing, until they are undone."""

CUTS = frozenset({"network.cut", "network.unplugged"})


@dataclass(frozen=True)
class Injection:
    """One fault of a run.

    ``proof`` is None for one of which nothing shows that it took effect. From ``proof`` to ``undoing`` it was certainly
    in: ``undoing`` is the begin of the step that undid it. ``end`` is when its undo was verified (the watch's end, if
    it never was), ``settled`` when what it had left behind may have passed.
    """

    label: str
    fault: str
    targets: frozenset[str]
    """The nodes that its settings name; empty when they name none: then it may touch any."""
    settings: Mapping[str, Any]
    start: int
    proof: Op | None
    undoing: int
    end: int
    ended_by: Op | None
    settled: int

    @property
    def sure(self) -> Stretch | None:
        """When it was certainly in; None when that is not known of any time."""
        if self.proof is None or self.undoing <= self.proof.time:
            return None
        return self.proof.time, self.undoing

    def touches(self, *nodes: str) -> bool:
        """True when it may touch one of them."""
        anywhere = not self.targets or self.fault.startswith("cluster.") or self.fault == "network.partition"
        return anywhere or not self.targets.isdisjoint(nodes)

    def ops(self) -> tuple[int, ...]:
        """The indexes of its proof and its end."""
        return tuple(op.index for op in (self.proof, self.ended_by) if op is not None)


def injections(history: History, settle_ms: float = 0) -> list[Injection]:
    """All faults of a run, by start.

    A fault has settled once the first step with a deadline came to its end after the undo (a run waits for a steady
    state in it), and not before ``settle_ms`` after the undo.
    """
    known, until = _nodes(history), watched(history)[1]
    begins = sorted(op.time for op in history.seen("step") if op["phase"] == "begin")
    ends = sorted(op.time for op in history.seen("step") if op["phase"] == "end" and op.get("within_ms") is not None)
    found = []
    for window in faults(history):
        end_op = window.phases.get("end")
        end = end_op.time if end_op else max(until, window.begin.time)
        later = bisect_left(ends, end)
        steady = ends[later] if end_op and later < len(ends) else end
        found.append(
            Injection(
                window.name,
                str(window.begin.get("fault")),
                frozenset(_targets(window.begin.value, known)),
                window.begin.value,
                window.begin.time,
                window.phases.get("proof"),
                _undoing(window, begins, end),
                end,
                end_op,
                max(steady, end + round(settle_ms * MS)) if end_op else end,
            )
        )
    return found


def _undoing(window: Window, begins: Sequence[int], end: int) -> int:
    """A failed undo says nothing of when the fault was in."""
    if "failed" in window.phases:
        return window.begin.time
    place = bisect_right(begins, end) - 1
    proof = window.phases.get("proof")
    # without a step of its own the undo began at some time between proof and end
    return begins[place] if place >= 0 and proof and begins[place] > proof.time else end


def _nodes(history: History) -> frozenset[str]:
    cluster = history.cluster
    return frozenset({*cluster.directors, *cluster.web, *cluster.macs.values(), "resolver", "db", "client"})


def _targets(value: Any, known: frozenset[str]) -> Iterator[str]:
    """The nodes that a fault's settings name, by themselves, in lists, or as the node of a cable."""
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _targets(part, known)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _targets(part, known)
    elif isinstance(value, str):
        node = value.partition(".")[0]
        if node in known:
            yield node


def taken_down(history: History, injection: Injection) -> frozenset[str]:
    """The nodes whose machine certainly does nothing, or reaches nobody, while the fault is in."""
    if injection.fault in FELLS:
        return injection.targets
    if injection.fault in CUTS and len(injection.targets) == 1:
        whole = injection.settings.get("direction", "both") == "both" and injection.settings.get("port") is None
        every = injection.settings.get("protocol", "any") == "any"
        # a node that is on the internet segment, too, has more than one cable
        only_cable = not injection.targets & frozenset(history.cluster.macs.values())
        return injection.targets if whole and every and only_cable else frozenset()
    return frozenset()


def failed_servers(history: History, injection: Injection) -> frozenset[str]:
    """The real servers that certainly fail ldirectord's check while the fault is in."""
    fault, settings = injection.fault, injection.settings
    fails = fault in FAILS_CHECK
    fails |= fault == "real-server.error" and settings.get("rate", 1) == 1
    stops = fault in STOPS or (fault == "process.kill" and settings.get("restart", True) is False)
    fails |= stops and settings.get("service") == "apache"
    return (injection.targets if fails else taken_down(history, injection)) & frozenset(history.cluster.web)


def merged(stretches: Iterable[Stretch]) -> list[Stretch]:
    """In order and without overlaps."""
    row: list[Stretch] = []
    for start, end in sorted(stretches):
        if row and start <= row[-1][1]:
            row[-1] = row[-1][0], max(row[-1][1], end)
        elif start < end:
            row.append((start, end))
    return row


def subtract(stretches: Iterable[Stretch], holes: Iterable[Stretch]) -> list[Stretch]:
    """What is left of stretches less the holes."""
    row = merged(stretches)
    gaps = merged(holes)
    left: list[Stretch] = []
    place = 0
    for start, end in row:
        while place < len(gaps) and gaps[place][1] <= start:
            place += 1
        at = place
        begin = start
        while at < len(gaps) and gaps[at][0] < end:
            if gaps[at][0] > begin:
                left.append((begin, gaps[at][0]))
            begin = max(begin, gaps[at][1])
            at += 1
        if begin < end:
            left.append((begin, end))
    return left


def interval_at(stretches: Sequence[Stretch], time: int) -> Stretch | None:
    """The stretch that a time is in, its end included."""
    place = bisect_right(stretches, (time, 2**63)) - 1
    return stretches[place] if place >= 0 and time <= stretches[place][1] else None


def covers(stretches: Sequence[Stretch], start: int, end: int) -> bool:
    """True when one stretch has all of [start, end]."""
    stretch = interval_at(stretches, start)
    return stretch is not None and end <= stretch[1]


def quiet(history: History, settle_ms: float = 0, *nodes: str) -> list[Stretch]:
    """When nothing was in, or settling, that touches one of the nodes (none: that touches any), within the watch."""
    some = [one for one in injections(history, settle_ms) if not nodes or one.touches(*nodes)]
    return subtract([watched(history)], [(one.start, one.settled) for one in some])


def eligible(history: History, node: str, settle_ms: float, start_ms: float) -> list[Stretch]:
    """When a node ran undisturbed: nothing that touches it was in or settling, and it had been up for ``start_ms``.

    It may take as long after such a fault: one of a process ends with the start of that process. A node that nobody
    watched the power of is taken to run.
    """
    start, until = watched(history)
    off = [span for span in powers(history).get(node, []) if span.what != Power.RUNNING]
    holes = [(span.start, span.end + round(start_ms * MS)) for span in off]
    touching = [one for one in injections(history, settle_ms) if one.touches(node)]
    holes += [(one.start, max(one.settled, one.end + round(start_ms * MS))) for one in touching]
    return subtract([(start, until)], holes)


def overlaps(stretches: Sequence[Stretch], start: int, end: int) -> bool:
    """True when a stretch has any moment of [start, end]."""
    place = bisect_right(stretches, (end, 2**63)) - 1
    return place >= 0 and stretches[place][1] >= start


def unproven(some: Iterable[Injection]) -> Iterator[Finding]:
    """Faults of which nothing shows that they took effect: what was seen meanwhile tested nothing."""
    for one in some:
        if one.proof is None:
            yield unknown(f"Fault {one.label!r} ({one.fault}) began and nothing proves that it took effect.")
