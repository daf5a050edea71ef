"""Did each virtual IP come home once, or stay where it was, as auto_failback says?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.checks import budget
from harness.history import History
from harness.history.injections import Stretch, injections, subtract, unproven
from harness.history.timeline import (
    MS,
    Holding,
    Span,
    director_ops,
    holdings,
    moment,
    ms,
    powers,
    span_of,
    watched,
)
from harness.records import Cluster, Power
from harness.verdict import Finding, Verdict, conclude, invalid, unknown

NAME = "failback"


class FailbackSettings(BaseModel):
    """``[checks.failback]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    home_ms: float | None = Field(
        default=None,
        gt=0,
        description="The longest time until a virtual IP is home, from when its home runs again and nothing is "
        "injected; left out: start + a takeover (which may still be under way) + a handover",
    )
    start_ms: float = Field(
        default=60_000,
        ge=0,
        description="How long a director that has booted may take until heartbeat asks for what is its own: heartbeat "
        "waits for a whole table for 20 s at most, and speaks with its peer first",
    )
    moved: int = Field(default=1, ge=1, description="How many virtual IPs must have been away from home")

    def budget(self, cluster: Cluster) -> float:
        """The longest time until a VIP is home."""
        if self.home_ms is not None:
            return self.home_ms
        return self.start_ms + budget.takeover_ms(cluster) + budget.handover_ms(cluster)


def check(history: History, settings: FailbackSettings) -> Verdict:
    """With auto_failback each VIP comes home once its home is back, once, and stays; without, it stays where it is.

    It judges the times in which nothing is injected, from who held each address when. With auto_failback an address
    that is away must be home within the budget, and must not leave again. Without, it must not change hands at all, but
    for a takeover that was still under way when its fault ended. That changes are no longer than they may be, and no
    address has two owners, is for the ownership check, as are moments in which a director was not seen.

    A run in which no address was away from home while its home ran tests nothing, and neither does one that ends before
    it had to be home: unknown.
    """
    ops = director_ops(history)
    missing = [node for node, some in ops.items() if not any(op.f == "holds" for op in some)]
    if missing:
        return conclude(NAME, [unknown(f"Nobody watched the addresses of {', '.join(missing)}.")], "")
    facts = _Facts(history, settings)
    findings = [*facts.doubts(), *facts.wrong, *facts.nothing_tested()]
    back = max((row["home_ms"] or 0 for row in facts.rows), default=0)
    held = (
        f"Each virtual IP that was away came home once, the slowest {span_of(back)} after its home was back."
        if history.cluster.auto_failback
        else "Each virtual IP stayed where it was when its home came back, as auto_failback is off."
    )
    numbers = {"auto_failback": history.cluster.auto_failback, "budget_ms": facts.budget_ms, "away": facts.rows}
    return conclude(NAME, findings, held if not findings else "", numbers, facts.evidence)


@dataclass(frozen=True)
class Move:
    """A VIP changed hands."""

    before: Holding
    after: Holding

    @property
    def time(self) -> int:
        """When the one who had it let go, or the other one took it, whichever was first."""
        return min(self.before.end, self.after.start)

    def ops(self) -> tuple[int, ...]:
        """The ops at its ends."""
        ends = (self.before.ended_by, self.after.began_by)
        return tuple(dict.fromkeys(op.index for op in ends if op is not None))


class _Facts:
    """A history and all that is read from it once."""

    def __init__(self, history: History, settings: FailbackSettings) -> None:
        self.history, self.settings, self.cluster = history, settings, history.cluster
        self.budget_ms = settings.budget(self.cluster)
        self.injections = injections(history)
        self.power = powers(history)
        self.rows: list[dict[str, Any]] = []
        self.wrong: list[Finding] = []
        self.evidence: set[int] = set()
        self.judged = 0
        start, until = watched(history)
        holes = [(one.start, one.end) for one in self.injections]
        self.calm = [one for one in subtract([(start, until)], holes) if one[0] > start]
        held = holdings(history)
        for vip in self.cluster.vips:
            spans = held[vip]
            awake = [span for span in spans if not span.frozen]
            for stretch in self.calm:
                self._judge(vip, awake, stretch)

    def _judge(self, vip: str, spans: Sequence[Holding], stretch: Stretch) -> None:
        """One VIP in one time without faults, after some."""
        home = self.cluster.vips[vip]
        began = [span for span in spans if span.start <= stretch[1]]
        inside = [span for span in began if span.end > stretch[0]] or began[-1:]
        moves = [Move(one, two) for one, two in pairwise(inside) if one.what != two.what]
        moves = [move for move in moves if stretch[0] < move.after.start <= stretch[1]]
        up = self._up(home, stretch)
        if up is None or not inside:
            return
        away = inside[0].what != home or bool(moves)
        settled = up + round(self.budget_ms * MS)
        if self.cluster.auto_failback:
            self._homecoming(vip, inside, moves, (up, settled, stretch[1]))
        else:
            self._staying(vip, moves)
        if away:
            homecoming = next((move for move in moves if move.after.what == home), None)
            took = ms(homecoming.after.start - up) if homecoming else None
            self.judged += homecoming is not None or settled <= stretch[1]
            self.rows.append({"vip": vip, "home": home, "back_at_ms": ms(up), "home_ms": took, "moves": len(moves)})
            self.evidence |= {index for move in moves for index in move.ops()}

    def _up(self, home: str, stretch: Stretch) -> int | None:
        """From when on a VIP's home ran in a stretch; None: not to its end."""
        spans: Sequence[Span] = self.power.get(home, [])
        inside = [span for span in spans if span.start <= stretch[1] and span.end > stretch[0]]
        if not inside:
            return stretch[0]
        return max(stretch[0], inside[-1].start) if inside[-1].what == Power.RUNNING else None

    def _homecoming(
        self, vip: str, inside: Sequence[Holding], moves: Sequence[Move], times: tuple[int, int, int]
    ) -> None:
        home, (up, settled, until) = self.cluster.vips[vip], times
        homecomings = [move for move in moves if move.after.what == home]
        leavings = [move for move in moves if move.before.what == home and not self._under_way(move)]
        if leavings or len(homecomings) > 1:
            some = leavings or homecomings[1:]
            told = f"came home {len(homecomings)} times" if len(homecomings) > 1 else "left its home"
            self.wrong.append(
                invalid(
                    f"{vip} {told} while nothing was injected, at {moment(some[0].time)}.",
                    *(index for move in (*homecomings, *leavings) for index in move.ops()),
                )
            )
        holders = {span.what for span in inside if span.start <= settled < span.end}
        late = [move for move in homecomings if move.after.start > settled]
        if settled <= until and (late or (holders and holders != {home})):
            where = late[0].before if late else next(span for span in inside if span.what in holders - {home})
            self.wrong.append(
                invalid(
                    f"{vip} was not home {span_of(self.budget_ms)} after {home} was back at {moment(up)}: "
                    f"{where.what} had it.",
                    *where.ops(),
                )
            )

    def _staying(self, vip: str, moves: Sequence[Move]) -> None:
        for move in moves:
            if not self._under_way(move):
                self.wrong.append(
                    invalid(
                        f"{vip} went from {move.before.what} to {move.after.what} at {moment(move.time)}, while "
                        "nothing was injected and auto_failback is off.",
                        *move.ops(),
                    )
                )

    def _under_way(self, move: Move) -> bool:
        """Whether a move away from a director is the takeover of a fault of it that ended before."""
        patience = round(budget.takeover_ms(self.cluster) * MS)
        return any(
            one.touches(move.before.what) and one.start <= move.after.start <= one.end + patience
            for one in self.injections
        )

    def doubts(self) -> Iterator[Finding]:
        """Why not all of the run can be judged."""
        if not self.history.complete:
            yield unknown("The run was killed: what came after is not known.")
        yield from unproven(one for one in self.injections if one.touches(*self.cluster.directors))

    def nothing_tested(self) -> Iterator[Finding]:
        """Why the run tested nothing."""
        if len(self.rows) < self.settings.moved:
            yield unknown(
                f"{len(self.rows)} virtual IPs were away from home when a fault ended, and it takes "
                f"{self.settings.moved} to tell."
            )
        elif not self.judged:
            yield unknown(
                f"The run ended before any virtual IP had to be home: {span_of(self.budget_ms)} after its home was "
                "back."
            )
