"""Failback: home once and in time, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.checks import judge
from harness.history import History, Op
from harness.verdict import Outcome, Verdict
from tests.support import histories as h
from tests.support.examples import examples
from tests.support.histories import PowerCut

END = 160_000.0


def cut(returned: float = 40_900, **times: float) -> PowerCut:
    """A power cut with a long time afterwards."""
    return PowerCut(released=returned - 900, returned=returned, closed=END - 500, end=END, probe_every=50_000, **times)


def told(history: History, **cluster: Any) -> History:
    """The same of another cluster."""
    return h.changed(history, lambda op: op.f == "start", lambda _: h.start(**cluster))


def stays(times: PowerCut) -> History:
    """lb-2 keeps what it took."""
    ops = [op for op in times.history() if not (op.f == "holds" and op.time >= times.released * h.MS)]
    lb_1 = h.samples("lb-1", times.released, times.closed)
    lb_2 = h.samples("lb-2", times.released, times.closed, h.VIP1, h.VIP2)
    return told(h.of([*ops, *lb_1, *lb_2]), auto_failback=False)


def check(history: History, **table: Any) -> Verdict:
    (verdict,) = judge(history, {"failback": table})
    return verdict


TIMES = st.builds(
    cut,
    returned=st.integers(28_000, 85_000),
    taken=st.integers(13_100, 16_400),
    booting=st.integers(17_000, 20_000),
    running=st.integers(20_100, 26_400),
)


@examples(200)
@given(times=TIMES)
def test_a_right_failback_is_valid(times: PowerCut) -> None:
    verdict = check(times.history())
    assert verdict.outcome is Outcome.VALID, verdict.findings
    (row,) = verdict.numbers["away"]
    assert row["home_ms"] == pytest.approx(times.returned - times.running, abs=1)


@examples(100)
@given(times=TIMES)
def test_without_auto_failback_staying_is_valid(times: PowerCut) -> None:
    verdict = check(stays(times))
    assert verdict.outcome is Outcome.VALID, verdict.findings
    assert "stayed where it was" in verdict.summary


@examples(60)
@given(times=TIMES)
def test_each_does_not_do_for_the_other(times: PowerCut) -> None:
    away = check(told(stays(times), auto_failback=True))
    assert away.outcome is Outcome.INVALID
    assert "had not failed back" in away.summary
    home = check(told(times.history(), auto_failback=False))
    assert home.outcome is Outcome.INVALID
    assert "auto_failback is off" in home.summary
    assert home.findings[0].evidence


def test_coming_home_too_late_is_found() -> None:
    assert check(cut(returned=120_000).history()).outcome is Outcome.INVALID
    assert check(cut(returned=120_000).history(), home_ms=95_000).outcome is Outcome.VALID


def test_coming_home_twice_is_found() -> None:
    times = cut()
    bounce = [h.holds(60_000, "lb-1"), h.holds(60_001, "lb-2", h.VIP1, h.VIP2), h.holds(62_000, "lb-2", h.VIP2)]

    def between(op: Op) -> bool:
        return op.f == "holds" and 60_000 * h.MS <= op.time <= 62_000 * h.MS

    verdict = check(h.with_ops(h.without(times.history(), between), *bounce))
    assert verdict.outcome is Outcome.INVALID
    assert "failed back 2 times" in verdict.summary


def test_leaving_home_for_no_reason_is_found() -> None:
    gone = [h.holds(100_000, "lb-2"), *h.samples("lb-1", 100_000, END - 500, h.VIP1, h.VIP2)]

    def later(op: Op) -> bool:
        return op.f == "holds" and op.time >= 100_000 * h.MS

    verdict = check(h.with_ops(h.without(cut().history(), later), *gone))
    assert verdict.outcome is Outcome.INVALID
    assert f"{h.VIP2} left its home director" in verdict.summary


def test_a_takeover_that_is_under_way_when_its_fault_ends_is_no_move_without_a_reason() -> None:
    """lb-1 is back before lb-2 has taken over; without auto_failback that is still the fault's takeover."""
    times = cut(booting=12_000, running=13_000, taken=16_000)
    assert check(stays(times)).outcome is Outcome.VALID


def _proof(op: Op) -> bool:
    return op.f == "fault" and op["phase"] == "proof"


def _at_home(op: Op) -> Op:
    return op.copy(value=op.value | {"vips": [h.VIP1 if op["node"] == "lb-1" else h.VIP2]})


@pytest.mark.parametrize(
    ("history", "says"),
    [
        (h.without(cut().history(), lambda op: op.f == "holds" and op["node"] == "lb-2"), "addresses of lb-2"),
        (h.without(cut().history(), lambda op: op.f in {"fault", "power"}), "No fault touched a director"),
        (h.killed(cut().history(), 30_000), "killed"),
        (h.without(cut().history(), _proof), "nothing proves"),
        (h.changed(cut().history(), lambda op: op.f == "holds", _at_home), "at least 1 must be"),
        (stays(replace(cut(), closed=50_000, end=50_500)), "ended before"),
    ],
)
def test_too_little_is_unknown(history: History, says: str) -> None:
    verdict = check(history)
    assert verdict.outcome is Outcome.UNKNOWN, verdict.findings
    assert says in " ".join(finding.sentence for finding in verdict.findings)
