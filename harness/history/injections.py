"""Which faults were injected when, which nodes did they affect, and when was nothing injected? Pure; all times are ns.

What a fault does is recorded with its proof, as ``effects``: no fault is known here by its name.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.history import History, HistoryError, Op
from harness.history.intervals import Interval, Intervals
from harness.history.timeline import MS, powers, watched
from harness.history.windows import Window, faults
from harness.records import Effect, EffectKind, Power
from harness.verdict import Finding, unknown

AWAY = frozenset({EffectKind.NODE_DOWN, EffectKind.CUTS_PATH})
"""Effects after which a node answers no other node."""


@dataclass(frozen=True)
class Injection:
    """One fault of a run.

    ``proof`` is None when nothing shows that it took effect. It was certainly in effect from ``proof`` to ``undoing``,
    the begin of the step that undid it. ``end`` is when its undo was verified (the watch's end, if it never was), and
    ``settled`` is when its after-effects may have passed.
    """

    label: str
    fault: str
    targets: frozenset[str]
    """The nodes that its settings name. With none it may affect any node."""
    effects: tuple[Effect, ...] | None
    """What it certainly did from ``proof`` to ``undoing``; None when that was not recorded."""
    start: int
    proof: Op | None
    undoing: int
    end: int
    ended_by: Op | None
    settled: int

    @property
    def sure(self) -> Interval | None:
        """When it was certainly in effect; None when that is not known of any time."""
        if self.proof is None or self.undoing <= self.proof.time:
            return None
        return self.proof.time, self.undoing

    @property
    def unrecorded(self) -> bool:
        """True when it is proven, and its effects were not recorded."""
        return self.proof is not None and self.effects is None

    @property
    def anywhere(self) -> bool:
        """True when it may affect any node: its settings name none, it acts on several, or its effects are unknown."""
        several = len({effect.node for effect in self.effects or ()}) > 1
        return not self.targets or several or self.unrecorded

    def touches(self, *nodes: str) -> bool:
        """True when it may affect one of these nodes."""
        return self.anywhere or not self.targets.isdisjoint(nodes)

    @property
    def known(self) -> frozenset[str]:
        """The nodes that its settings name or that it has an effect on; none when neither is known."""
        return self.targets | {effect.node for effect in self.effects or ()}

    def concerns(self, *nodes: str) -> bool:
        """True when it is known to affect one of these nodes, or when it is not known what it affects."""
        return not self.known or not self.known.isdisjoint(nodes)

    def nodes(self, *kinds: EffectKind) -> frozenset[str]:
        """The nodes on which it certainly has one of these effects."""
        return frozenset(effect.node for effect in self.effects or () if effect.kind in kinds)

    def ops(self) -> tuple[int, ...]:
        """The indexes of its proof and its end."""
        return tuple(op.index for op in (self.proof, self.ended_by) if op is not None)


def injections(history: History, settle_ms: float = 0) -> list[Injection]:
    """All faults of a run, by start.

    A fault has settled when the first step with a deadline ended after the undo (in such a step a run waits for a
    steady state), and not before ``settle_ms`` after the undo.
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
                _effects(window.phases.get("proof")),
                window.begin.time,
                window.phases.get("proof"),
                _undoing(window, begins, end),
                end,
                end_op,
                max(steady, end + round(settle_ms * MS)) if end_op else end,
            )
        )
    return found


def _effects(proof: Op | None) -> tuple[Effect, ...] | None:
    """What a proof's op says that the fault does. Raises HistoryError when it cannot be read."""
    recorded = proof.get("effects") if proof is not None else None
    if proof is None or recorded is None:
        return None
    try:
        return tuple(
            Effect(EffectKind(each["kind"]), str(each["node"]), str(each.get("service", ""))) for each in recorded
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise HistoryError(f"op {proof.index} (fault): its effects cannot be read: {error!r}") from error


def _undoing(window: Window, begins: Sequence[int], end: int) -> int:
    """When the undo began. After a failed undo no time is certain, so it is the fault's own begin."""
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
    """The nodes that a fault's settings name: as a text, in a list, or as the node of a cable."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            if key != "effects":
                yield from _targets(part, known)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _targets(part, known)
    elif isinstance(value, str):
        node = value.partition(".")[0]
        if node in known:
            yield node


def taken_down(injection: Injection) -> frozenset[str]:
    """The nodes that certainly answer no other node while the fault is in effect."""
    return injection.nodes(*AWAY)


def failed_servers(history: History, injection: Injection) -> frozenset[str]:
    """The real servers that certainly fail the directors' health check while the fault is in effect."""
    return injection.nodes(EffectKind.FAILS_CHECK, *AWAY) & frozenset(history.cluster.web)


def quiet(history: History, settle_ms: float = 0, *nodes: str) -> Intervals:
    """When no fault that touches one of the nodes was injected or settling, within the watch; no nodes: any fault."""
    touching = [each for each in injections(history, settle_ms) if not nodes or each.touches(*nodes)]
    return Intervals([watched(history)]).minus((each.start, each.settled) for each in touching)


def eligible(
    history: History,
    node: str,
    settle_ms: float,
    start_ms: float,
    affects: Callable[[Injection, str], bool] | None = None,
) -> Intervals:
    """When a node ran undisturbed: no fault that touches it was injected or settling, and it was up for ``start_ms``.

    ``affects`` decides whether a fault touches it; by default ``Injection.touches``.

    The same time is allowed after such a fault: one of a process ends when that process starts. A node without records
    of its power is taken to run.
    """
    start_ns = round(start_ms * MS)
    off = [span for span in powers(history).get(node, []) if span.what != Power.RUNNING]
    holes = [(span.start, span.end + start_ns) for span in off]
    affects = affects or Injection.touches
    touching = [each for each in injections(history, settle_ms) if affects(each, node)]
    holes += [(each.start, max(each.settled, each.end + start_ns)) for each in touching]
    return Intervals([watched(history)]).minus(holes)


def unproven(candidates: Iterable[Injection]) -> Iterator[Finding]:
    """A finding for each fault without proof: nothing that was seen meanwhile tested anything."""
    for each in candidates:
        if each.proof is None:
            yield unknown(f"Fault {each.label!r} ({each.fault}) started, but nothing proves that it took effect.")


def unrecorded(candidates: Iterable[Injection]) -> Iterator[Finding]:
    """A finding for each proven fault of an older record, which does not say what the fault does."""
    for each in candidates:
        if each.unrecorded:
            yield unknown(f"The effects of fault {each.label!r} ({each.fault}) were not recorded.", *each.ops())
