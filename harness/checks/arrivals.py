"""Did the load generator send the requests at their planned times?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from harness.history import History, Pair
from harness.history.client_ops import SHOWN, doubts, too_few
from harness.history.injections import quiet
from harness.history.latency import late_ms, load, quantile
from harness.history.planned_load import has_no_plan
from harness.history.timeline import count_of, span_of
from harness.verdict import Finding, Verdict, conclude, not_tried, unknown

NAME = "arrivals"


class ArrivalsSettings(BaseModel):
    """``[checks.arrivals]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arrivals: int = Field(default=100, ge=1, description="Minimum number of planned ops")
    late_ms: float = Field(
        default=20, ge=0, description="Maximum delay of 99 % of the ops for which a user was free at the planned time"
    )
    busy_percent: float = Field(
        default=1, ge=0, le=100, description="Maximum share of ops that find all users busy while no fault is active"
    )


def check(history: History, settings: ArrivalsSettings) -> Verdict:
    """The ops of open arrivals begin at their planned times; otherwise the load was not the planned one.

    An op can be late for two reasons. Either all users were still waiting for answers. Latency counts from the planned
    time, so this hides nothing, but the site gets fewer requests than planned: because of a fault while one is active,
    and because there are too few users at other times. Or a user was free, and the generator itself was slow: then the
    measured times are the generator's, not the site's.

    The check never blames the cluster: a load that deviates from its plan makes the verdict unknown. It runs after
    every run with open arrivals, even if the scenario does not name it. It cannot see ops that the generator never
    began.
    """
    planned = [_Planned(pair, late) for pair in _pairs(history) if (late := late_ms(pair)) is not None]
    if not planned and has_no_plan(history):
        return conclude(NAME, [not_tried("The load of this run has no planned arrivals.")], "")
    delays = [op.late_ms for op in planned if op.free]
    calm = quiet(history)
    undisturbed = [op for op in planned if op.pair.invoke.time in calm]
    busy = [op for op in undisturbed if not op.free]
    findings = [*doubts(history), *too_few("Planned ops", len(planned), settings.arrivals)]
    findings += [*_slow(delays, settings), *_busy(busy, undisturbed, settings)]
    numbers = {
        "planned": len(planned),
        "late_ms": {name: quantile(delays, share) for name, share in SHARES.items()} if delays else {},
        "busy": len(planned) - len(delays),
        "busy_without_faults": len(busy),
    }
    held = f"{count_of(len(planned), 'op')} as planned" + (
        f"; 99 % began within {quantile(delays, 0.99):,.1f} ms of the planned time." if delays else "."
    )
    evidence = [op.pair.invoke.index for op in planned[:1] + planned[-1:]]
    return conclude(NAME, findings, held, numbers, evidence)


SHARES: Mapping[str, float] = {"p50": 0.5, "p99": 0.99, "max": 1.0}


@dataclass(frozen=True)
class _Planned:
    pair: Pair
    late_ms: float

    @property
    def free(self) -> bool:
        """Whether a user was free at its planned time."""
        return bool(self.pair.invoke.get("free"))


def _pairs(history: History) -> Iterator[Pair]:
    pairs = (pair for pairs in load(history).values() for pair in pairs)
    yield from sorted(pairs, key=lambda pair: pair.invoke.time)


def _slow(delays: Sequence[float], settings: ArrivalsSettings) -> Iterator[Finding]:
    if delays and (p99_ms := quantile(delays, 0.99)) > settings.late_ms:
        yield unknown(
            f"The load generator could not keep up: 1 % of {count_of(len(delays), 'op')} began {p99_ms:,.1f} ms or "
            f"more after the planned time, although a user was free; {span_of(settings.late_ms)} is allowed."
        )


def _busy(busy: Sequence[_Planned], undisturbed: Sequence[_Planned], settings: ArrivalsSettings) -> Iterator[Finding]:
    if undisturbed and 100 * len(busy) / len(undisturbed) > settings.busy_percent:
        longest = max(op.late_ms for op in busy)
        yield unknown(
            f"{len(busy):,} of {count_of(len(undisturbed), 'op')} found all users busy while no fault was active and "
            f"waited up to {span_of(longest)}, so the site got fewer requests than planned. Give the load more users.",
            *(op.pair.invoke.index for op in busy[:SHOWN]),
        )
