"""How much load the site carries: invented sites with a known knee."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.checks import judge
from harness.history import History
from harness.history.capacity import rising_knee
from harness.verdict import Outcome, Verdict
from tests.support import histories as h
from tests.support.examples import examples
from tests.support.sites import stepped


def knee(history: History, **table: Any) -> Verdict:
    (verdict,) = judge(history, {"knee": table})
    return verdict


@examples(15)
@given(carries=st.integers(12, 70), refuses=st.booleans())
def test_the_knee_is_between_the_last_step_that_it_carries_and_the_next(carries: int, refuses: bool) -> None:
    rates = [5, 10, 20, 40, 80]
    verdict = knee(stepped(rates, carries, refuses=refuses))
    found = verdict.numbers["knee_per_s"]
    assert verdict.outcome is Outcome.VALID
    assert max(rate for rate in rates if rate <= carries) <= found <= carries * 1.06


def test_a_site_that_carries_enough_is_valid_and_the_sentence_has_its_knee() -> None:
    verdict = knee(stepped([5, 10, 20, 40, 80], 30), at_least_per_s=20)
    assert verdict.outcome is Outcome.VALID
    assert verdict.summary == "The site kept up with 20.0 ops/s and fell behind at 40.0 ops/s."
    assert "20.0 ops/s, the highest rate of the load" in knee(stepped([5, 10, 20], 100)).summary


def test_a_site_that_falls_behind_too_early_is_invalid() -> None:
    verdict = knee(stepped([5, 10, 20, 40, 80], 30), at_least_per_s=40)
    assert verdict.outcome is Outcome.INVALID
    assert "fell behind at 40.0 ops/s but must carry 40.0 ops/s" in verdict.summary


@pytest.mark.parametrize(
    ("history", "says"),
    [
        (stepped([5, 10, 20], 100), "must carry 30.0 ops/s, but the load reached only 20.0 ops/s"),
        (h.PowerCut().history(), "Windows with planned ops: 0"),
    ],
)
def test_a_rate_that_the_load_never_reached_is_unknown(history: History, says: str) -> None:
    verdict = knee(history, at_least_per_s=30)
    assert verdict.outcome is Outcome.UNKNOWN
    assert any(says in finding.sentence for finding in verdict.findings)


@pytest.mark.parametrize("began_s", [0, 1, 2.5, 4.9])
def test_a_constant_load_does_not_rise_whenever_it_begins(began_s: float) -> None:
    """Windows are 5 s long; the first one has only the ops since the load began."""
    chance = random.Random(7)
    ops, at_ms = [h.start()], 1000 * began_s
    for number in range(1_000):
        at_ms += chance.expovariate(50) * 1000
        asked = {"url": "http://www.example.test/", "vip": h.VIP1}
        user = f"user:{number}"
        ops.append(h.op(at_ms, user, "get", {**asked, "late_ms": 0.5, "free": True}, "invoke"))
        ops.append(h.op(at_ms + 9, user, "get", {**asked, "ms": 9.5, "status": 200}, "ok"))
    assert rising_knee(h.of([*ops, h.end(at_ms + 1000)])) is None


def test_a_load_that_grows_rises() -> None:
    assert rising_knee(stepped([5, 10, 20, 40, 80], 30)) == 20
    assert rising_knee(stepped([5, 10, 20], 100)) == 20  # the highest rate of the load
    assert rising_knee(stepped([20, 21], 100)) is None
    assert rising_knee(h.PowerCut().history()) is None
