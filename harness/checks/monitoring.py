"""Did Ganglia notice that a node was gone, and that it was back?"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.history import History, HistoryError, Op
from harness.history.client_ops import named
from harness.history.injections import Injection, injections, interval_at, subtract, taken_down, unproven
from harness.history.timeline import MS, moment, ms, silences, span_of
from harness.verdict import Finding, Verdict, conclude, invalid, unknown

NAME = "monitoring"

DOWN_AFTER = 4
"""A host is down when nothing was heard of it for more than so many times TMAX (ganglia-web, ``$host_up``)."""

SHOWN = 5


class MonitoringSettings(BaseModel):
    """``[checks.monitoring]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    margin_ms: float = Field(
        default=20_000,
        ge=0,
        description="Added to the 4 TMAX after which a host is down: gmetad's own polls, and one look at it",
    )
    back_ms: float = Field(
        default=60_000, gt=0, description="From the verified undo of a fault until a host must be up again"
    )
    samples_ms: float = Field(default=20_000, gt=0, description="The longest time without a look at gmetad")


def check(history: History, settings: MonitoringSettings) -> Verdict:
    """Ganglia shows a node that is gone as down, one that is back as up, and all others as up all the time.

    It sees, of each host, how long ago gmetad heard of it (TN) and how long that may take (TMAX); a host is down when
    TN is more than four times TMAX, and one that is not listed is not watched, which counts as down. What took a node
    away are the faults after whose proof it certainly says nothing: power, freeze, panic, its one cable.

    With the usual TMAX of 20 s a loss must last for more than 80 s to be noticed at all; one that is undone before
    tests nothing, and without a longer one the verdict is unknown. Nothing is judged while the node that runs gmetad is
    itself touched by a fault: then there is no history, which is the original's own weak point.
    """
    looks = [op for op in history.by_time().seen("ganglia") if op["hosts"]]
    if not looks:
        return conclude(NAME, [unknown("Nobody looked at Ganglia.")], "")
    facts = _Facts(history, settings, looks)
    findings = [*facts.witnesses(), *facts.losses(), *facts.false_alarms(), *facts.nothing_tested()]
    slowest = span_of(max((row["noticed_ms"] or 0 for row in facts.rows), default=0))
    held = (
        f"Ganglia noticed each loss of a node, the slowest after {slowest}, and each return; it raised no false alarm."
    )
    numbers = {"hosts": len(facts.hosts), "looks": len(looks), "losses": facts.rows, "too_short": len(facts.short)}
    return conclude(NAME, findings, held if not findings else "", numbers, facts.evidence)


class _Facts:
    """A history and all that is read from it once."""

    def __init__(self, history: History, settings: MonitoringSettings, looks: Sequence[Op]) -> None:
        self.history, self.settings, self.looks = history, settings, looks
        self.times = [op.time for op in looks]
        self.gmetad = frozenset(str(op["node"]) for op in looks)
        self.hosts = sorted({host for op in looks for host in hosts_of(op)} | set(history.cluster.web))
        self.injections = injections(history)
        self.gone = [
            (one, node) for one in self.injections for node in sorted(taken_down(history, one)) if node in self.hosts
        ]
        back = round(settings.back_ms * MS)
        holes = [(one.start, one.settled + back) for one in self.injections if one.touches(*self.gmetad)]
        self.on_duty = subtract([(self.times[0], self.times[-1])], holes)
        self.rows: list[dict[str, Any]] = []
        self.short: list[str] = []
        self.evidence: set[int] = set()
        self.judged = 0

    def between(self, start: int, end: int) -> Sequence[Op]:
        """The looks of (start, end] at a gmetad that ran undisturbed."""
        some = self.looks[bisect_right(self.times, start) : bisect_right(self.times, end)]
        return [op for op in some if interval_at(self.on_duty, op.time) is not None]

    # --- what is wrong

    def losses(self) -> Iterator[Finding]:
        """Losses that were not noticed, and returns that were not."""
        for one, node in self.gone:
            if one.sure is not None:
                yield from self._loss(one, node, *one.sure)
                yield from self._return(one, node)

    def _loss(self, one: Injection, node: str, since: int, undoing: int) -> Iterator[Finding]:
        allowed = DOWN_AFTER * 1000 * self._tmax_s(node, since) + self.settings.margin_ms
        deadline = since + round(allowed * MS)
        seen = self.between(since, undoing)
        late = [op for op in seen if op.time > deadline]
        first = next((op for op in seen if is_down(op, node)), None)
        noticed = ms(first.time - since) if first is not None else None
        self.rows.append({"fault": one.label, "node": node, "noticed_ms": noticed, "budget_ms": allowed})
        if not late:
            self.short.append(one.label)
            return
        self.judged += 1
        self.evidence |= {*one.ops(), (first or late[0]).index}
        blind = next((op for op in late if not is_down(op, node)), None)
        if blind is not None:
            yield invalid(
                f"{node} was gone from {moment(since)} ({one.fault}), and Ganglia showed it as up at "
                f"{moment(blind.time)}; to notice may take {span_of(allowed)}.",
                *one.ops(),
                blind.index,
            )

    def _return(self, one: Injection, node: str) -> Iterator[Finding]:
        if one.ended_by is None:
            return
        deadline = one.end + round(self.settings.back_ms * MS)
        later = [other.start for other in self.injections if other.end > one.end and other.touches(node)]
        seen = self.between(deadline, min([*later, self.times[-1]]))
        if seen and is_down(seen[0], node):
            yield invalid(
                f"{node} was back at {moment(one.end)}, and Ganglia showed it as down at {moment(seen[0].time)}; to "
                f"notice may take {span_of(self.settings.back_ms)}.",
                *one.ops(),
                seen[0].index,
            )

    def _tmax_s(self, node: str, before: int) -> float:
        """A host's TMAX as it was last told before then, or else first."""
        told = [op for op in self.looks if node in hosts_of(op)]
        place = max(0, bisect_left([op.time for op in told], before) - 1)
        return _number(told[place], hosts_of(told[place])[node], "tmax_s") if told else 20.0

    def false_alarms(self) -> Iterator[Finding]:
        """Hosts that are shown as down though nothing was done to them."""
        back = round(self.settings.back_ms * MS)
        for node in self.hosts:
            holes = [(one.start, max(one.settled, one.end + back)) for one in self.injections if one.touches(node)]
            calm = subtract(self.on_duty, holes)
            wrong = [op for op in self.looks if is_down(op, node) and interval_at(calm, op.time) is not None]
            if wrong:
                told = named([moment(op.time) for op in wrong])
                yield invalid(
                    f"Ganglia showed {node} as down, and nothing was done to it: at {told}.",
                    *(op.index for op in wrong[:SHOWN]),
                )

    # --- what nobody can tell

    def witnesses(self) -> Iterator[Finding]:
        """Why not all of the run can be judged."""
        if not self.history.complete:
            yield unknown("The run was killed: what came after is not known.")
        for start, end in self.on_duty:
            inside = self.times[bisect_left(self.times, start) : bisect_right(self.times, end)]
            for since, till in silences(inside, start, end, round(self.settings.samples_ms * MS)):
                yield unknown(f"Nobody looked at Ganglia from {moment(since)} to {moment(till)}.")
        yield from unproven(one for one, _ in self.gone)

    def nothing_tested(self) -> Iterator[Finding]:
        """Why the run tested nothing."""
        if not self.gone:
            yield unknown("No node that Ganglia watches was taken away.")
        elif not self.judged:
            yield unknown("No node was gone for longer than Ganglia may take to notice, while it could be watched.")


def is_down(op: Op, node: str) -> bool:
    """Whether a look at Ganglia shows a host as down, or not at all. Raises HistoryError."""
    host = hosts_of(op).get(node)
    return host is None or _number(op, host, "tn_s") > DOWN_AFTER * _number(op, host, "tmax_s")


def hosts_of(op: Op) -> Mapping[str, Any]:
    """The hosts of a look at Ganglia. Raises HistoryError."""
    hosts = op["hosts"]
    if not isinstance(hosts, dict):
        raise HistoryError(f"op {op.index} (ganglia): its hosts cannot be read")
    return hosts


def _number(op: Op, host: Any, key: str) -> float:
    try:
        return float(host[key])
    except (KeyError, TypeError, ValueError) as error:
        raise HistoryError(f"op {op.index} (ganglia): a host has no readable {key!r}") from error
