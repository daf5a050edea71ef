"""Did the load come when it was planned?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from harness.history import History, Pair
from harness.history.client_ops import SHOWN, doubts, too_few
from harness.history.injections import overlaps, quiet
from harness.history.latency import late_ms, load, quantile
from harness.history.timeline import count_of, span_of
from harness.verdict import Finding, Verdict, conclude, unknown

NAME = "arrivals"


class ArrivalsSettings(BaseModel):
    """``[checks.arrivals]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arrivals: int = Field(default=100, ge=1, description="How many planned ops it takes to tell")
    late_ms: float = Field(
        default=20, ge=0, description="How late at most 1 % of the ops may be begun for which a user was there in time"
    )
    busy_percent: float = Field(
        default=1, ge=0, le=100, description="How many ops may find all users busy while nothing is injected"
    )


def check(history: History, settings: ArrivalsSettings) -> Verdict:
    """Ops of open arrivals were begun at their planned times, or the load was not what it says.

    Two things make an op late. Nobody was free, as all users still waited for answers: its time counts from when it was
    planned, so nothing is hidden, but the site was asked less often than planned; while a fault is in that is the
    fault's doing, at other times there were too few users. Or somebody was there, and the generator itself was slow:
    then times are the generator's, and not the site's.

    It never blames the cluster: a load that did not come as planned is unknown. Asked after every run with open
    arrivals, whatever its scenario names. It cannot see what the generator did not get round to at all.
    """
    planned = [_Planned(pair, late) for pair in _pairs(history) if (late := late_ms(pair)) is not None]
    mine = [one.late_ms for one in planned if one.free]
    calm = quiet(history)
    asked = [one for one in planned if overlaps(calm, one.pair.invoke.time, one.pair.invoke.time)]
    busy = [one for one in asked if not one.free]
    findings = [*doubts(history), *too_few("Planned ops", len(planned), settings.arrivals)]
    findings += [*_slow(mine, settings), *_busy(busy, asked, settings)]
    numbers = {
        "planned": len(planned),
        "late_ms": {name: quantile(mine, share) for name, share in SHARES.items()} if mine else {},
        "busy": len(planned) - len(mine),
        "busy_while_nothing_was_injected": len(busy),
    }
    held = f"{count_of(len(planned), 'op')} as planned" + (
        f", 99 % of them begun within {quantile(mine, 0.99):,.1f} ms of their time." if mine else "."
    )
    evidence = [one.pair.invoke.index for one in planned[:1] + planned[-1:]]
    return conclude(NAME, findings, held, numbers, evidence)


SHARES: Mapping[str, float] = {"p50": 0.5, "p99": 0.99, "max": 1.0}


@dataclass(frozen=True)
class _Planned:
    pair: Pair
    late_ms: float

    @property
    def free(self) -> bool:
        """A user was free for it at its time."""
        return bool(self.pair.invoke.get("free"))


def _pairs(history: History) -> Iterator[Pair]:
    pairs = (pair for some in load(history).values() for pair in some)
    yield from sorted(pairs, key=lambda pair: pair.invoke.time)


def _slow(mine: Sequence[float], settings: ArrivalsSettings) -> Iterator[Finding]:
    if mine and (worst_ms := quantile(mine, 0.99)) > settings.late_ms:
        yield unknown(
            f"The generator could not keep up: 1 % of {count_of(len(mine), 'op')} were begun more than "
            f"{worst_ms:,.1f} ms after their time, though somebody was there; {span_of(settings.late_ms)} are allowed."
        )


def _busy(busy: Sequence[_Planned], asked: Sequence[_Planned], settings: ArrivalsSettings) -> Iterator[Finding]:
    if asked and 100 * len(busy) / len(asked) > settings.busy_percent:
        worst = max(busy, key=lambda one: one.late_ms)
        yield unknown(
            f"{len(busy):,} of {count_of(len(asked), 'op')} found all users busy while nothing was injected, and "
            f"waited for one, {span_of(worst.late_ms)} at most: the site was asked less often than planned. More users "
            "would do.",
            *(one.pair.invoke.index for one in busy[:SHOWN]),
        )
