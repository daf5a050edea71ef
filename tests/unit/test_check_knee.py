"""How much the site carries: made-up sites with a knee that is known."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.checks import judge
from harness.checks.knee import rising
from harness.history import History, Op
from harness.verdict import Outcome, Verdict
from tests.support import histories as h

STEP_S = 30
"""Long enough for the queue of a site that carries 6 % too little to become one of a second."""


def stepped(rates: list[int], carries: float, *, refuses: bool = False) -> History:
    """A site that serves so many ops a second, one after another, and lets the rest wait or refuses them."""
    return h.of([h.start(), *_ops(rates, carries, refuses), h.end((STEP_S * len(rates) + 600) * 1000)])


def _ops(rates: list[int], carries: float, refuses: bool) -> Iterator[Op]:
    free_ms, number = 0.0, 0
    for place, rate in enumerate(rates):
        for n in range(rate * STEP_S):
            due_ms = 1000 * (place * STEP_S + n / rate)
            begun_ms = max(due_ms, free_ms)
            served_ms = begun_ms + 1000 / carries
            kind, error = "ok", None
            if refuses and begun_ms - due_ms > 50:
                kind, error, served_ms = "fail", "status 503", due_ms + 2
            else:
                free_ms = served_ms
            asked = {"url": "http://www.example.test/", "vip": h.VIP1}
            user = f"user:{number}"
            number += 1
            yield h.op(due_ms + 0.5, user, "get", {**asked, "late_ms": 0.5, "free": True}, "invoke")
            yield h.op(served_ms, user, "get", {**asked, "ms": served_ms - due_ms, "status": 200}, kind, error=error)


def knee(history: History, **table: Any) -> Verdict:
    (verdict,) = judge(history, {"knee": table})
    return verdict


@settings(deadline=None, max_examples=15)
@given(carries=st.integers(12, 70), refuses=st.booleans())
def test_the_knee_is_between_the_last_step_that_it_carries_and_the_next(carries: int, refuses: bool) -> None:
    rates = [5, 10, 20, 40, 80]
    verdict = knee(stepped(rates, carries, refuses=refuses))
    found = verdict.numbers["knee_per_s"]
    assert verdict.outcome is Outcome.VALID
    assert max(rate for rate in rates if rate <= carries) <= found <= carries * 1.06


def test_a_site_that_carries_what_it_has_to_is_valid_and_says_where_it_ends() -> None:
    verdict = knee(stepped([5, 10, 20, 40, 80], 30), at_least_per_s=20)
    assert verdict.outcome is Outcome.VALID
    assert verdict.summary == "The site kept up with 20.0 ops a second, and no more with 40.0."
    assert "the most that came" in knee(stepped([5, 10, 20], 100)).summary


def test_a_site_that_falls_behind_too_early_is_invalid() -> None:
    verdict = knee(stepped([5, 10, 20, 40, 80], 30), at_least_per_s=40)
    assert verdict.outcome is Outcome.INVALID
    assert "fell behind at 40.0 ops a second, and has to carry 40.0" in verdict.summary


@pytest.mark.parametrize(
    ("history", "says"),
    [
        (stepped([5, 10, 20], 100), "At most 20.0 ops a second came"),
        (h.PowerCut().history(), "Stretches with planned ops: 0"),
    ],
)
def test_what_did_not_come_is_unknown(history: History, says: str) -> None:
    verdict = knee(history, at_least_per_s=30)
    assert verdict.outcome is Outcome.UNKNOWN
    assert any(says in finding.sentence for finding in verdict.findings)


@pytest.mark.parametrize("began_s", [0, 1, 2.5, 4.9])
def test_a_load_that_is_always_the_same_does_not_rise_whenever_it_begins(began_s: float) -> None:
    """Its windows are of 5 s, and the first one has only what came after the beginning."""
    chance = random.Random(7)
    ops, at_ms = [h.start()], 1000 * began_s
    for number in range(1_000):
        at_ms += chance.expovariate(50) * 1000
        asked = {"url": "http://www.example.test/", "vip": h.VIP1}
        user = f"user:{number}"
        ops.append(h.op(at_ms, user, "get", {**asked, "late_ms": 0.5, "free": True}, "invoke"))
        ops.append(h.op(at_ms + 9, user, "get", {**asked, "ms": 9.5, "status": 200}, "ok"))
    assert rising(h.of([*ops, h.end(at_ms + 1000)])) is None


def test_one_that_becomes_more_rises() -> None:
    assert rising(stepped([5, 10, 20, 40, 80], 30)) == 20
    assert rising(stepped([5, 10, 20], 100)) == 20  # the most that came
    assert rising(stepped([20, 21], 100)) is None
    assert rising(h.PowerCut().history()) is None
