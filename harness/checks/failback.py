"""Did each virtual IP fail back to its home director once, or stay where it was, as auto_failback says?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.history import History
from harness.history.failover_budget import MOST_SLOWDOWN, Budgets
from harness.history.injections import injections, taken_down, unproven
from harness.history.intervals import Interval, Intervals
from harness.history.pace import slowdown, too_slow
from harness.history.timeline import (
    MS,
    Holding,
    Span,
    count_of,
    director_ops,
    holdings,
    moment,
    ms,
    powers,
    span_of,
    watched,
)
from harness.records import Power
from harness.verdict import Finding, Verdict, conclude, invalid, not_tried, unknown

NAME = "failback"


class FailbackSettings(BaseModel):
    """``[checks.failback]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    home_ms: float | None = Field(
        default=None,
        gt=0,
        description="Longest time until a virtual IP is back on its home director, once that runs again and nothing is "
        "injected; default: start_ms + a takeover (which may still be in progress) + a handover",
    )
    start_ms: float = Field(
        default=60_000,
        ge=0,
        description="Time that a booted director may take until its heartbeat asks for its own addresses: heartbeat "
        "waits up to 20 s for a complete table, and talks to its peer first",
    )
    moved: int = Field(default=1, ge=1, description="Minimum number of virtual IPs that were away from home")

    def budget(self, budgets: Budgets, slowdown: float = 1.0) -> float:
        """The longest time until a VIP is back on its home director, on a machine that was so many times slower."""
        if self.home_ms is not None:
            return self.home_ms
        return self.start_ms + (budgets.unowned() + budgets.handover()).ms(slowdown)


def check(history: History, settings: FailbackSettings) -> Verdict:
    """With auto_failback each VIP fails back once and stays, when its home director runs again; without, it stays away.

    It judges the times in which nothing is injected, by who held each address when. With auto_failback an address that
    is away must be home within the budget, and must not leave again. Without, its owner must not change, except by a
    takeover that was still in progress when its fault ended. The ownership check judges how long changes take, whether
    an address has two owners, and times in which a director has no samples.

    The time that it may take follows from what the topology promises. In real time its work may take up to twice as
    long where the machine was slower than before the run; beyond that, lateness is unknown.

    A run in which no address was away from home while its home director ran tests nothing, and neither does one that
    ends before an address had to be home: unknown.
    """
    ops = director_ops(history)
    missing = [node for node, seen in ops.items() if not any(op.f == "holds" for op in seen)]
    if missing:
        return conclude(NAME, [unknown(f"There are no samples of the addresses of {', '.join(missing)}.")], "")
    judge = _FailbackJudge(history, settings)
    findings = [*judge.doubts(), *judge.wrong(), *judge.nothing_tested()]
    rows = [period.numbers() for period in judge.away]
    numbers = {"auto_failback": history.cluster.auto_failback, "budget_ms": judge.budget_ms, "away": rows}
    return conclude(NAME, findings, judge.held() if not findings else "", numbers, judge.evidence())


@dataclass(frozen=True)
class Move:
    """A VIP changed its owner."""

    before: Holding
    after: Holding

    @property
    def time(self) -> int:
        """When the old owner released it or the new one took it, whichever was first."""
        return min(self.before.end, self.after.start)

    def ops(self) -> tuple[int, ...]:
        """The ops at its ends."""
        ends = (self.before.ended_by, self.after.began_by)
        return tuple(dict.fromkeys(op.index for op in ends if op is not None))


@dataclass(frozen=True)
class Period:
    """One VIP in one time without faults, after some. ``up`` is from when on its home director ran in it."""

    vip: str
    home: str
    up: int
    budget_ms: float
    slowdown: float | None
    until: int
    held: tuple[Holding, ...]
    moves: tuple[Move, ...]

    @property
    def deadline(self) -> int:
        """When it had to be home."""
        return self.up + round(self.budget_ms * MS)

    @property
    def is_away(self) -> bool:
        """True when the VIP was away from home at any time of it."""
        return self.held[0].what != self.home or bool(self.moves)

    def homecomings(self) -> list[Move]:
        """The moves to its home director."""
        return [move for move in self.moves if move.after.what == self.home]

    @property
    def is_judged(self) -> bool:
        """True when it came home, or had to."""
        return bool(self.homecomings()) or self.deadline <= self.until

    def numbers(self) -> dict[str, Any]:
        """The period, for the verdict's numbers."""
        back = next(iter(self.homecomings()), None)
        took = ms(back.after.start - self.up) if back else None
        row = {"vip": self.vip, "home": self.home, "back_at_ms": ms(self.up)}
        return row | {"home_ms": took, "moves": len(self.moves)}


class _FailbackJudge:
    """Compares who held each VIP in the times without faults with what auto_failback says."""

    def __init__(self, history: History, settings: FailbackSettings) -> None:
        self.history, self.settings, self.cluster = history, settings, history.cluster
        self.budgets = Budgets.of(history)
        self.budget_ms = settings.budget(self.budgets)
        self.injections = injections(history)
        self.power = powers(history)
        self.held_by = holdings(history)

    @cached_property
    def periods(self) -> list[Period]:
        """Each VIP in each time without faults in which its home director ran at the end."""
        start, until = watched(self.history)
        calm = Intervals([(start, until)]).minus((fault.start, fault.end) for fault in self.injections)
        after_faults = [stretch for stretch in calm if stretch[0] > start]
        found = (self._period(vip, stretch) for vip in self.cluster.vips for stretch in after_faults)
        return [period for period in found if period is not None]

    @property
    def away(self) -> list[Period]:
        """Those in which the VIP was away from home."""
        return [period for period in self.periods if period.is_away]

    def _period(self, vip: str, stretch: Interval) -> Period | None:
        home = self.cluster.vips[vip]
        began = [span for span in self.held_by[vip] if not span.frozen and span.start <= stretch[1]]
        inside = [span for span in began if span.end > stretch[0]] or began[-1:]
        up = self._up(home, stretch)
        if up is None or not inside:
            return None
        moves = [Move(before, after) for before, after in pairwise(inside) if before.what != after.what]
        moves = [move for move in moves if stretch[0] < move.after.start <= stretch[1]]
        slow = slowdown(self.history, up, up + round(self.settings.budget(self.budgets, MOST_SLOWDOWN) * MS))
        budget_ms = self.settings.budget(self.budgets, slow or 1.0)
        return Period(vip, home, up, budget_ms, slow, stretch[1], tuple(inside), tuple(moves))

    def _up(self, home: str, stretch: Interval) -> int | None:
        """From when on a home director ran in a stretch; None: not to its end."""
        spans: Sequence[Span] = self.power.get(home, [])
        inside = [span for span in spans if span.start <= stretch[1] and span.end > stretch[0]]
        if not inside:
            return stretch[0]
        return max(stretch[0], inside[-1].start) if inside[-1].what == Power.RUNNING else None

    # --- what is wrong

    def wrong(self) -> Iterator[Finding]:
        """What each VIP did that auto_failback does not allow."""
        for period in self.periods:
            if self.cluster.auto_failback:
                yield from self._unstable(period)
                yield from self._late(period)
            else:
                yield from self._moved(period)

    def _unstable(self, period: Period) -> Iterator[Finding]:
        homecomings = period.homecomings()
        leavings = [move for move in period.moves if move.before.what == period.home and not self._in_progress(move)]
        if leavings or len(homecomings) > 1:
            first = (leavings or homecomings[1:])[0]
            what = f"failed back {len(homecomings)} times" if len(homecomings) > 1 else "left its home director"
            yield invalid(
                f"{period.vip} {what} while nothing was injected, at {moment(first.time)}.",
                *(index for move in (*homecomings, *leavings) for index in move.ops()),
            )

    def _late(self, period: Period) -> Iterator[Finding]:
        holders = {span.what for span in period.held if span.start <= period.deadline < span.end}
        late = [move for move in period.homecomings() if move.after.start > period.deadline]
        strangers = holders - {period.home}
        if period.deadline <= period.until and (late or strangers):
            where = late[0].before if late else next(span for span in period.held if span.what in strangers)
            sentence = (
                f"{period.vip} had not failed back {span_of(period.budget_ms)} after {period.home} was up again at "
                f"{moment(period.up)}: {where.what} held it"
            )
            why = too_slow(period.slowdown)
            found = unknown(f"{sentence}; but {why}.", *where.ops()) if why else invalid(f"{sentence}.", *where.ops())
            yield found

    def _moved(self, period: Period) -> Iterator[Finding]:
        for move in period.moves:
            if not self._in_progress(move):
                what = f"{period.vip} moved from {move.before.what} to {move.after.what} at {moment(move.time)}"
                yield invalid(f"{what}, while nothing was injected and auto_failback is off.", *move.ops())

    def _in_progress(self, move: Move) -> bool:
        """Whether a move away from a director is the takeover of a fault there that ended before."""
        patience = round(self.budgets.unowned().ms(MOST_SLOWDOWN) * MS)
        return any(
            fault.touches(move.before.what) and fault.start <= move.after.start <= fault.end + patience
            for fault in self.injections
        )

    # --- whether anything was tested

    def doubts(self) -> Iterator[Finding]:
        """Why not all of the run can be judged."""
        return unproven(fault for fault in self.injections if fault.touches(*self.cluster.directors))

    def always_home(self) -> bool:
        """Whether no fault took a director down, and each VIP was on its home director all the time."""
        down = {node for fault in self.injections for node in taken_down(fault)}
        return down.isdisjoint(self.cluster.directors) and all(
            span.what == home for vip, home in self.cluster.vips.items() for span in self.held_by[vip]
        )

    def nothing_tested(self) -> Iterator[Finding]:
        """Why the run tested nothing."""
        directors = self.cluster.directors
        if not self.away and not any(fault.touches(*directors) for fault in self.injections):
            yield not_tried("No fault touched a director, so no virtual IP had to move.")
        elif not self.away and self.always_home():
            yield not_tried("No virtual IP left its home director, so none had to return.")
        elif len(self.away) < self.settings.moved:
            verb = "was" if len(self.away) == 1 else "were"
            yield unknown(
                f"{count_of(len(self.away), 'virtual IP')} {verb} away from home when a fault ended; at least "
                f"{self.settings.moved} must be."
            )
        elif not any(period.is_judged for period in self.away):
            budget = span_of(self.budget_ms)
            yield unknown(f"The run ended before any virtual IP had to fail back ({budget} after its home was up).")

    # --- the verdict

    def held(self) -> str:
        """The sentence of a valid verdict."""
        if not self.cluster.auto_failback:
            return "Each virtual IP stayed where it was when its home director came back, as auto_failback is off."
        slowest = max((period.numbers()["home_ms"] or 0 for period in self.away), default=0)
        return (
            f"Each virtual IP that was away failed back once, at most {span_of(slowest)} after its home director was "
            "up again."
        )

    def evidence(self) -> set[int]:
        """The ops at which a VIP that was away changed its owner."""
        return {index for period in self.away for move in period.moves for index in move.ops()}
