"""How much load does the site carry before it falls behind?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.history import History
from harness.history.capacity import KeepsUp, Window, knee_of, slowest_first, windows
from harness.history.client_ops import doubts, too_few
from harness.history.latency import quantile
from harness.history.planned_load import has_no_plan
from harness.history.timeline import MS, span_of
from harness.verdict import Finding, Verdict, conclude, invalid, not_tried, unknown

NAME = "knee"


class KneeSettings(BaseModel):
    """``[checks.knee]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at_least_per_s: float = Field(default=0, ge=0, description="Minimum rate that the site must carry, in ops/s")
    window_ms: float = Field(default=5000, gt=0, description="Length of each window of the load")
    answered_percent: float = Field(
        default=95, gt=0, le=100, description="Minimum share of a window's ops that must be answered well to keep up"
    )
    p90_ms: float = Field(
        default=1000,
        gt=0,
        description="Maximum 90th percentile of a window's answers to keep up, counted from the planned times",
    )
    windows: int = Field(default=4, ge=1, description="Minimum number of windows with planned ops")

    def limit(self) -> KeepsUp:
        """When a window counts as kept up with."""
        return KeepsUp(self.window_ms, self.answered_percent, self.p90_ms)


def check(history: History, settings: KneeSettings) -> Verdict:
    """As the rate of open arrivals rises, the site keeps up to a certain rate, its knee, and not beyond.

    The check cuts time into windows; each op belongs to the window of its planned time. The site kept up with a window
    if it answered nearly all of its ops well and soon. Times count from the planned times, so a queue in front of the
    site shows. The knee is the highest rate below that of all windows with which the site did not keep up: the first
    window of a rate that is too high may still keep up, because a queue takes time to grow.

    The check needs open arrivals. It is unknown without them, with too few windows, and for a rate that the load never
    reached. A window that fails for another reason than its load, such as a fault, lowers the knee, so use this check
    on runs without faults. A rate just above the knee takes a while to show: if it exceeds the knee by 6 %, the queue
    is 1 s long after 17 s. The check cannot tell a slow site from a slow load generator; the check ``arrivals`` can.
    """
    found = windows(history, settings.limit())
    if not found and has_no_plan(history):
        return conclude(NAME, [not_tried("The load of this run has no open arrivals.")], "")
    by_rate = slowest_first(found)
    beyond, knee = knee_of(by_rate)
    findings = [*doubts(history), *too_few("Windows with planned ops", len(found), settings.windows)]
    findings += _too_low(by_rate, knee, settings)
    held = f"The site kept up with {knee:,.1f} ops/s" + (
        f" and fell behind at {beyond.planned_per_s:,.1f} ops/s." if beyond else ", the highest rate of the load."
    )
    numbers = {"knee_per_s": round(knee, 1), "windows": [_row(window) for window in found]}
    return conclude(NAME, findings, held, numbers, [op for window in found for op in window.ops()])


def _row(window: Window) -> dict[str, Any]:
    times = window.times_ms
    return {
        "from_ms": window.start / MS,
        "planned_per_s": round(window.planned_per_s, 1),
        "answered_percent": round(window.answered_percent, 1),
        "p50_ms": round(quantile(times, 0.5), 1) if times else None,
        "p90_ms": round(quantile(times, 0.9), 1) if times else None,
        "kept_up": window.kept_up,
    }


def _too_low(by_rate: Sequence[Window], knee: float, settings: KneeSettings) -> Iterator[Finding]:
    wanted = settings.at_least_per_s
    if knee >= wanted:
        return
    behind = [window for window in by_rate if window.planned_per_s <= wanted and not window.kept_up]
    if behind:
        first, times = behind[0], behind[0].times_ms
        took = f", with a p90 of {span_of(quantile(times, 0.9))}" if times else ""
        yield invalid(
            f"The site fell behind at {first.planned_per_s:,.1f} ops/s but must carry {wanted:,.1f} ops/s: it answered "
            f"{first.answered_percent:,.0f} % of the ops{took}.",
            *first.ops(),
        )
    else:
        most = max((window.planned_per_s for window in by_rate), default=0)
        yield unknown(f"The site must carry {wanted:,.1f} ops/s, but the load reached only {most:,.1f} ops/s.")
