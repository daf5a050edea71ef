"""Did Ganglia notice that a node was gone, and that it was back?"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.history import History, Op
from harness.history.client_ops import named
from harness.history.ganglia import DOWN_AFTER, hosts_of, is_down, seconds_of
from harness.history.injections import Injection, injections, taken_down, unproven, unrecorded
from harness.history.intervals import Intervals, silences
from harness.history.planned_load import lacks
from harness.history.timeline import MS, moment, ms, span_of
from harness.verdict import Finding, Verdict, conclude, invalid, not_tried, unknown

NAME = "monitoring"

SHOWN = 5


class MonitoringSettings(BaseModel):
    """``[checks.monitoring]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    margin_ms: float = Field(
        default=20_000,
        ge=0,
        description="Added to the 4 TMAX after which a host is down: gmetad's own polls, and one sample of it",
    )
    back_ms: float = Field(
        default=60_000, gt=0, description="Longest time from the verified undo of a fault until a host is up again"
    )
    samples_ms: float = Field(default=20_000, gt=0, description="Longest time without a sample of gmetad")


def check(history: History, settings: MonitoringSettings) -> Verdict:
    """Ganglia shows a node that is gone as down, one that is back as up, and all others as up all the time.

    It sees for each host how long ago gmetad heard from it (TN) and how long that may take (TMAX). A host is down when
    TN is more than four times TMAX; one that is not listed is not monitored, which counts as down. A node is gone while
    a fault certainly takes it down or cuts it off from all others.

    With the usual TMAX of 20 s a loss must last longer than 80 s to be noticed at all; one that is undone before tests
    nothing, and without a longer one the verdict is unknown. Nothing is judged while a fault touches the node that runs
    gmetad: then there is no history, which is a weak point of the original.
    """
    samples = [op for op in history.by_time().seen("ganglia") if op["hosts"]]
    if not samples and lacks(history, "Ganglia"):
        return conclude(NAME, [not_tried("The topology has no Ganglia.")], "")
    if not samples:
        return conclude(NAME, [unknown("There are no samples of Ganglia.")], "")
    judge = _MonitoringJudge(history, settings, samples)
    findings = [*judge.blindness(), *judge.unnoticed(), *judge.false_alarms(), *judge.nothing_tested()]
    rows, short = [loss.numbers() for loss in judge.losses], sum(not loss.judged for loss in judge.losses)
    numbers = {"hosts": len(judge.hosts), "looks": len(samples), "losses": rows, "too_short": short}
    return conclude(NAME, findings, judge.held() if not findings else "", numbers, judge.evidence())


@dataclass(frozen=True)
class Loss:
    """A node that a fault certainly took away, and the samples of Ganglia meanwhile."""

    injection: Injection
    node: str
    since: int
    until: int
    budget_ms: float
    first: Op | None
    """The first sample that shows it as down."""
    late: tuple[Op, ...]
    """The samples after the budget, in which it must be down. Without any the loss was too short to judge."""

    @property
    def judged(self) -> bool:
        """True when it lasted long enough."""
        return bool(self.late)

    @property
    def short(self) -> bool:
        """True when it was over before Ganglia had to notice it."""
        return ms(self.until - self.since) <= self.budget_ms

    @property
    def noticed_ms(self) -> float | None:
        """How long Ganglia took to notice it."""
        return ms(self.first.time - self.since) if self.first is not None else None

    def numbers(self) -> dict[str, Any]:
        """The loss, for the verdict's numbers."""
        row = {"fault": self.injection.label, "node": self.node}
        return row | {"noticed_ms": self.noticed_ms, "budget_ms": self.budget_ms}

    def ops(self) -> tuple[int, ...]:
        """The indexes of its fault's ops, and of the sample that shows it."""
        return (*self.injection.ops(), (self.first or self.late[0]).index)


class _MonitoringJudge:
    """Compares what Ganglia showed of each host with the nodes that faults took away."""

    def __init__(self, history: History, settings: MonitoringSettings, samples: Sequence[Op]) -> None:
        self.history, self.settings, self.samples = history, settings, samples
        self.times = [op.time for op in samples]
        self.gmetad = frozenset(str(op["node"]) for op in samples)
        self.hosts = sorted({host for op in samples for host in hosts_of(op)} | set(history.cluster.web))
        self.injections = injections(history)
        self.gone = [
            (fault, node) for fault in self.injections for node in sorted(taken_down(fault)) if node in self.hosts
        ]
        self.back_ns = round(settings.back_ms * MS)
        holes = [(fault.start, fault.settled + self.back_ns) for fault in self.injections if self._hits_gmetad(fault)]
        self.on_duty = Intervals([(self.times[0], self.times[-1])]).minus(holes)

    def _hits_gmetad(self, fault: Injection) -> bool:
        return fault.touches(*self.gmetad)

    def between(self, start: int, end: int) -> Sequence[Op]:
        """The samples of (start, end] of a gmetad that ran undisturbed."""
        inside = self.samples[bisect_right(self.times, start) : bisect_right(self.times, end)]
        return [op for op in inside if op.time in self.on_duty]

    @cached_property
    def losses(self) -> list[Loss]:
        """All nodes that were certainly gone for some time."""
        return [self._loss(fault, node, *fault.sure) for fault, node in self.gone if fault.sure is not None]

    def _loss(self, fault: Injection, node: str, since: int, undoing: int) -> Loss:
        budget_ms = DOWN_AFTER * 1000 * self._tmax_s(node, since) + self.settings.margin_ms
        deadline = since + round(budget_ms * MS)
        seen = self.between(since, undoing)
        first = next((op for op in seen if is_down(op, node)), None)
        return Loss(fault, node, since, undoing, budget_ms, first, tuple(op for op in seen if op.time > deadline))

    def _tmax_s(self, node: str, before: int) -> float:
        """A host's TMAX in the last sample before a time, or else in the first one."""
        listed = [op for op in self.samples if node in hosts_of(op)]
        place = max(0, bisect_left([op.time for op in listed], before) - 1)
        return seconds_of(listed[place], hosts_of(listed[place])[node], "tmax_s") if listed else 20.0

    # --- what is wrong

    def unnoticed(self) -> Iterator[Finding]:
        """Losses and returns that Ganglia did not notice in time."""
        for loss in self.losses:
            yield from self._missed(loss)
            yield from self._return(loss.injection, loss.node)

    def _missed(self, loss: Loss) -> Iterator[Finding]:
        wrong = next((op for op in loss.late if not is_down(op, loss.node)), None)
        if wrong is not None:
            yield invalid(
                f"{loss.node} was gone from {moment(loss.since)} ({loss.injection.fault}), but Ganglia showed it as up "
                f"at {moment(wrong.time)}; {span_of(loss.budget_ms)} is allowed.",
                *loss.injection.ops(),
                wrong.index,
            )

    def _return(self, fault: Injection, node: str) -> Iterator[Finding]:
        if fault.ended_by is None:
            return
        later = [other.start for other in self.injections if other.end > fault.end and other.touches(node)]
        seen = self.between(fault.end + self.back_ns, min([*later, self.times[-1]]))
        if seen and is_down(seen[0], node):
            yield invalid(
                f"{node} was back at {moment(fault.end)}, but Ganglia showed it as down at {moment(seen[0].time)}; "
                f"{span_of(self.settings.back_ms)} is allowed.",
                *fault.ops(),
                seen[0].index,
            )

    def false_alarms(self) -> Iterator[Finding]:
        """Hosts that Ganglia showed as down although no fault touched them."""
        for node in self.hosts:
            touching = [fault for fault in self.injections if fault.touches(node)]
            holes = [(fault.start, max(fault.settled, fault.end + self.back_ns)) for fault in touching]
            calm = self.on_duty.minus(holes)
            wrong = [op for op in self.samples if is_down(op, node) and op.time in calm]
            if wrong:
                times = named([moment(op.time) for op in wrong])
                sentence = f"Ganglia showed {node} as down although no fault touched it: at {times}."
                yield invalid(sentence, *(op.index for op in wrong[:SHOWN]))

    # --- whether anything was tested

    def blindness(self) -> Iterator[Finding]:
        """Times without samples, and faults of which too little is known."""
        for start, end in self.on_duty:
            inside = self.times[bisect_left(self.times, start) : bisect_right(self.times, end)]
            for since, till in silences(inside, start, end, round(self.settings.samples_ms * MS)):
                yield unknown(f"There are no samples of Ganglia from {moment(since)} to {moment(till)}.")
        about = [fault for fault in self.injections if fault.touches(*self.hosts)]
        yield from unproven(about)
        yield from unrecorded(about)

    def nothing_tested(self) -> Iterator[Finding]:
        """Why the run tested nothing."""
        if not self.gone:
            yield not_tried("No fault took down a node that Ganglia monitors.")
        elif self.losses and all(loss.short for loss in self.losses):
            least = span_of(min(loss.budget_ms for loss in self.losses))
            yield not_tried(f"No node was gone for the {least} that Ganglia may take to notice it.")
        elif not any(loss.judged for loss in self.losses):
            yield unknown("No node was gone long enough for Ganglia to notice while gmetad ran undisturbed.")

    # --- the verdict

    def held(self) -> str:
        """The sentence of a valid verdict."""
        slowest = span_of(max((loss.noticed_ms or 0 for loss in self.losses), default=0))
        return f"Ganglia noticed each lost node within {slowest}, and each return; it raised no false alarm."

    def evidence(self) -> set[int]:
        """The ops that the verdict rests on."""
        return {index for loss in self.losses if loss.judged for index in loss.ops()}
