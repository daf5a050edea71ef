"""The check of the record finds each kind of damage, names the feed, and accuses no right record."""

from __future__ import annotations

import pytest

from harness.checks import judge
from harness.history import History, Op
from harness.history.record import flaws
from harness.verdict import Outcome
from tests.support import histories as h
from tests.support.games import Game

CLEAN = h.PowerCut().history()
READ = {"player": 1, "vip": h.VIP1}


def users(*ops: tuple[float, str, str]) -> History:
    """Reads of one user: (ms, type, process)."""
    return h.of([h.start(), *(h.op(at, process, "profile-read", READ, kind) for at, kind, process in ops), h.end(99)])


def probes(*numbers: int) -> History:
    asked = [op for at, seq in enumerate(numbers) for op in h.probe(10 + 50 * at, h.VIP1, seq)]
    return h.of([h.start(), *asked, h.end(9_999)])


def overrun(seq: int, skipped: int) -> History:
    value = {"vip": h.VIP1, "seq": seq, "skipped": skipped}
    return h.with_ops(probes(0, 1, 4, 5), h.op(120, f"probe:{h.VIP1}", "http", value, error="probe overrun"))


def test_a_right_record_has_no_flaws() -> None:
    assert flaws(CLEAN) == ()
    assert flaws(h.killed(CLEAN, 30_000)) == ()
    assert flaws(Game(1, ops=100).history()) == ()
    assert flaws(History([])) == ()


def answered(status: object) -> History:
    """A read with that status."""
    return h.of(
        [
            h.start(),
            h.op(4, "user:0", "profile-read", READ, "invoke"),
            h.op(5, "user:0", "profile-read", READ | {"status": status}, "ok"),
            h.end(99),
        ]
    )


def test_what_a_probe_skipped_is_not_missing() -> None:
    assert flaws(overrun(2, 2)) == ()


def test_a_feed_that_was_opened_again_starts_anew() -> None:
    opened = [h.op(at, "probe", "feed", {"phase": "open"}) for at in (1, 200)]
    assert flaws(h.with_ops(probes(0, 1, 2), *opened)) == ()
    assert flaws(h.with_ops(probes(0, 1, 0, 1), *opened)) == ()


@pytest.mark.parametrize(
    ("history", "feed", "says"),
    [
        (users((4, "invoke", "user:0"), (5, "ok", "user:0"), (6, "ok", "user:0")), "load", "without an invocation"),
        (users((4, "invoke", "user:0"), (5, "invoke", "user:0"), (6, "ok", "user:0")), "load", "a second invocation"),
        (users((4, "invoke", "first:0"), (-5, "invoke", "user:1"), (-4, "ok", "user:1")), "load", "before the start"),
        (probes(0, 1, 3), "probe", "1 of 4 ops of 203.0.113.101 are missing"),
        (probes(0, 1, 1, 2), "probe", "1 op of 203.0.113.101 twice"),
        (overrun(2, 1), "probe", "1 of 6 ops of 203.0.113.101 are missing"),
        (h.with_ops(CLEAN, h.start(3)), "", "2 ops 'start'"),
        (h.with_ops(CLEAN, h.end(99_999)), "", "2 ops 'end'"),
        (h.with_ops(CLEAN, h.op(99_999, "user:0", "profile-read", READ, "invoke")), "", "after the end"),
        (h.with_ops(CLEAN, h.alive(4e10)), "", "more than a year"),
        (answered(700), "load", "700"),
        (answered([]), "load", "[]"),
        (History(op for op in CLEAN if op.index != 17), "", "op 18 follows op 16"),
        (History(op for op in CLEAN if op.index > 0), "", "begins with op 1"),
    ],
)
def test_each_flaw_is_found_with_its_feed(history: History, feed: str, says: str) -> None:
    assert any(flaw.feed == feed and says in flaw.sentence for flaw in flaws(history)), flaws(history)


def test_a_flaw_concerns_only_the_checks_that_rest_on_its_feed() -> None:
    gap = h.without(CLEAN, lambda op: op.f == "http" and op["seq"] == 500 and op["vip"] == h.VIP1)
    outage, ownership = judge(gap, {"outage": {}, "ownership": {}})
    assert outage.outcome is Outcome.UNKNOWN
    assert "gaps" in outage.summary
    assert ownership.outcome is Outcome.VALID
    whole = h.with_ops(CLEAN, h.start(3))
    assert {verdict.outcome for verdict in judge(whole, {"outage": {}, "ownership": {}})} == {Outcome.UNKNOWN}


# --- the clocks of several load machines


def article(at: float, version: int, process: str = "user:0") -> list[Op]:
    asked = {"article": 1, "vip": h.VIP1}
    answer = asked | {"by": f"a-0-{version}", "version": version, "status": 200, "node": "web-1"}
    return [h.op(at, process, "article", asked, "invoke"), h.op(at + 1, process, "article", answer, "ok")]


def test_an_article_whose_version_goes_back_is_invalid() -> None:
    table = {"linearizable": {"writes": 1, "reads": 1}}
    (verdict,) = judge(h.of([h.start(), *article(5, 3), *article(10, 2), h.end(99)]), table)
    assert verdict.outcome is Outcome.INVALID
    assert "Article 1 had version 3" in verdict.summary
    (verdict,) = judge(h.of([h.start(), *article(5, 2), *article(10, 3), h.end(99)]), table)
    assert verdict.outcome is Outcome.UNKNOWN


def test_clocks_that_were_moved_widen_all_intervals() -> None:
    """2 reads 20 ms apart contradict each other, but not where the clocks may be 20 ms off."""
    ops = [*article(50, 3, "user:0"), *article(70, 2, "user:1")]
    table = {"linearizable": {"writes": 1, "reads": 1}}
    for moved, outcome in (({}, Outcome.INVALID), ({"b": 7_000.0}, Outcome.UNKNOWN)):
        opening = h.start().copy(value=h.start().value | {"moved_ms": moved})
        (verdict,) = judge(h.of([opening, *ops, h.end(99)]), table)
        assert verdict.outcome is outcome
    exact = h.start().copy(value=h.start().value | {"moved_ms": {"b": 7_000.0}, "uncertain_ms": 1})
    (verdict,) = judge(h.of([exact, *ops, h.end(99)]), table)
    assert verdict.outcome is Outcome.INVALID


def test_a_lab_that_lost_a_container_makes_every_check_unknown() -> None:
    """It may have looked like a fault of the cluster: nothing that was found in the run counts."""
    lost = h.op(30_000, "lab", "lost", {"node": "web-2", "why": "it is exited"})
    broken = h.with_ops(CLEAN, lost, h.power(30_000, "lb-2", "off"))
    assert [flaw.sentence for flaw in flaws(broken)] == [
        "The lab broke: it lost the container of web-2 (it is exited)."
    ]
    verdicts = judge(broken, {name: {} for name in ("ownership", "outage", "recovery", "audit", "quiescing")})
    assert {verdict.outcome for verdict in verdicts} == {Outcome.UNKNOWN}
    assert all("The lab broke" in verdict.summary for verdict in verdicts)
    without = h.with_ops(CLEAN, h.power(30_000, "lb-2", "off"))
    assert judge(without, {"ownership": {}})[0].outcome is Outcome.INVALID
