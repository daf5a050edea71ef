"""Open arrivals: the plan, the load that follows it, and whether it did."""

from __future__ import annotations

from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.checks import judge
from harness.history import History
from harness.verdict import Outcome, Verdict
from loadtests.lib.arrivals import Phase, times_s
from tests.support import histories as h
from tests.support.examples import examples

RATES = st.floats(0, 200)
PHASES = st.lists(st.builds(Phase, st.floats(0.1, 20), RATES, RATES), min_size=1, max_size=5)


@settings(deadline=None)
@given(PHASES)
def test_constant_arrivals_are_as_many_as_the_rate_makes_and_each_one_ends_a_whole_arrival(phases: list[Phase]) -> None:
    times = list(times_s("constant", phases, 0))
    assert len(times) == pytest.approx(sum(phase.arrivals for phase in phases), abs=1.01)
    assert all(earlier <= later for earlier, later in pairwise(times))
    for number, time in enumerate(times, start=1):
        assert abs(_arrived(phases, time) - number) <= 1e-3  # as pytest.approx, which is too slow for so many


def _arrived(phases: list[Phase], time: float) -> float:
    """How many came before a time: the rate, integrated by the trapezium's area, which is exact for a straight line."""
    count = 0.0
    for phase in phases:
        passed = min(max(time, 0), phase.for_s)
        count += passed * (phase.per_s + phase.per_s + phase.slope * passed) / 2
        time -= phase.for_s
    return count


@settings(deadline=None)
@given(PHASES, st.integers())
def test_poisson_arrivals_are_in_order_within_the_phases_and_the_same_for_a_seed(
    phases: list[Phase], seed: int
) -> None:
    times = list(times_s("poisson", phases, seed))
    assert times == sorted(times) == list(times_s("poisson", phases, seed))
    assert all(0 <= time <= sum(phase.for_s for phase in phases) + 1e-6 for time in times)


def test_poisson_arrivals_are_as_irregular_as_they_should_be() -> None:
    """The gaps of a Poisson process have a standard deviation as large as their mean; of 20,000, within some 2 %."""
    times = list(islice(times_s("poisson", [Phase(1e9, 100, 100)], 7), 20_000))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(0.01, rel=0.05)
    assert deviation == pytest.approx(mean, rel=0.05)


# --- the check


CALM, FAULT = h.PowerCut(), h.PowerCut().cut


def asked(late_ms: list[float], free: list[bool], at_ms: float = 1000, every_ms: float = 5) -> History:
    """A run whose users did so many planned ops."""
    ops = []
    for number, (late, there) in enumerate(zip(late_ms, free, strict=True)):
        sent, value = at_ms + number * every_ms, {"url": "http://www.example.test/", "vip": h.VIP1}
        planned = {"late_ms": late, "free": there}
        ops.append(h.op(sent, f"user:{number}", "get", {**value, **planned}, "invoke"))
        ops.append(h.op(sent + 3, f"user:{number}", "get", {**value, "node": "web-1", "ms": 3 + late}, "ok"))
    return h.with_ops(CALM.history(), *ops)


def check(history: History, **table: Any) -> Verdict:
    (verdict,) = judge(history, {"arrivals": table})
    return verdict


def test_ops_at_their_times_are_valid() -> None:
    verdict = check(asked([0.5] * 300, [True] * 300))
    assert verdict.outcome is Outcome.VALID
    assert verdict.summary == "300 ops as planned; 99 % began within 0.5 ms of the planned time."
    assert verdict.numbers["busy"] == 0


@examples(50)
@given(late=st.integers(4, 300), by_ms=st.floats(21, 5000))
def test_a_generator_that_was_late_is_unknown(late: int, by_ms: float) -> None:
    verdict = check(asked([by_ms] * late + [0.5] * (300 - late), [True] * 300))
    assert verdict.outcome is Outcome.UNKNOWN
    assert "could not keep up" in verdict.summary


@examples(50)
@given(st.lists(st.floats(0, 20), min_size=200, max_size=300))
def test_a_generator_that_was_late_by_less_is_valid(late_ms: list[float]) -> None:
    assert check(asked(late_ms, [True] * len(late_ms))).outcome is Outcome.VALID


def test_too_few_users_are_unknown_while_nothing_is_injected() -> None:
    verdict = check(asked([400.0] * 5 + [0.5] * 295, [False] * 5 + [True] * 295))
    assert verdict.outcome is Outcome.UNKNOWN
    assert "5 of 300 ops found all users busy" in verdict.summary
    assert "waited up to 400 ms" in verdict.summary


def test_users_who_are_busy_while_a_fault_is_in_are_the_faults_doing() -> None:
    verdict = check(asked([400.0] * 300, [False] * 300, at_ms=FAULT + 500))
    assert verdict.outcome is Outcome.VALID, verdict.findings
    assert verdict.numbers["busy"] == 300


def test_too_few_ops_or_none_that_were_planned_are_unknown() -> None:
    assert "Planned ops: 20" in check(asked([0.5] * 20, [True] * 20)).summary
    assert "Planned ops: 0" in check(CALM.history()).summary
