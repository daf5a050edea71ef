"""Budgets: each part on its own, from what is promised; a slow machine makes unknown, and never a wider budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.checks import judge
from harness.cli import screen
from harness.history import History, Op, promises
from harness.history.failover_budget import MOST_SLOWDOWN, Budget, Budgets
from harness.history.pace import slowdown
from harness.report.render import render
from harness.verdict import Outcome, Verdict, judgement
from tests.support import histories as h
from tests.support.histories import VIP1, PowerCut

CLEAN = PowerCut()
PARTS = ("detection", "takeover", "announcement", "answer")
USUAL_MS = 30.0


def check(history: History, name: str = "outage", **table: Any) -> Verdict:
    (verdict,) = judge(history, {name: table})
    return verdict


def at(cut: PowerCut, **facts: Any) -> History:
    """The history of a cluster with other facts in its first op."""
    return h.changed(cut.history(), lambda op: op.f == "start", lambda _: h.start(**facts))


def pace(since: float, till: float, ms: float) -> list[Op]:
    return [h.op(at_ms, "pace:switch", "pace", {"ms": ms}) for at_ms in range(round(since), round(till), 1000)]


def later(part: str, by: float) -> PowerCut:
    """A takeover with one part that takes longer; the others are as they were."""
    marks = dict(zip(PARTS, ("dead", "taken", "announced", "served"), strict=True))
    late = PARTS[PARTS.index(part) :]
    return replace(CLEAN, **{marks[name]: getattr(CLEAN, marks[name]) + by for name in late})


# --- each part on its own


@pytest.mark.parametrize(
    ("part", "spare"), [("detection", 1_150), ("takeover", 1_150), ("announcement", 940), ("answer", 910)]
)
def test_each_part_is_judged_on_its_own(part: str, spare: float) -> None:
    """Each is too long by itself although the whole takeover is not."""
    within, beyond = check(later(part, spare - 60).history()), check(later(part, spare + 120).history())
    assert within.outcome is Outcome.VALID, within.summary
    assert beyond.outcome is Outcome.INVALID, beyond.summary
    (finding,) = beyond.findings
    assert f"{VIP1}: {part} took" in finding.sentence
    assert beyond.numbers["outages"][0]["lower_ms"] < beyond.numbers["outages"][0]["budget_ms"]
    assert beyond.numbers["outages"][0]["outcome"] == "invalid"


def test_the_budget_of_a_part_can_be_set() -> None:
    slow = later("detection", 3_000).history()
    assert check(slow).outcome is Outcome.INVALID
    assert check(slow, parts_ms={"detection": 6_500}).outcome is Outcome.VALID
    assert check(CLEAN.history(), parts_ms={"detection": 3_000}).outcome is Outcome.INVALID


def test_who_sets_a_budget_for_the_whole_sets_none_for_its_parts() -> None:
    slow = later("detection", 3_000).history()
    assert check(slow, takeover_ms=20_000).outcome is Outcome.VALID
    assert check(slow, takeover_ms=20_000, parts_ms={"detection": 4_000}).outcome is Outcome.INVALID


def test_a_part_without_a_witness_shares_the_next_ones_budget() -> None:
    """Without a log, detection and takeover are one: 7.2 s."""

    def without_log(cut: PowerCut) -> History:
        return h.without(cut.history(), lambda op: op.f == "log")

    assert check(without_log(later("detection", 2_200))).outcome is Outcome.VALID
    verdict = check(without_log(later("detection", 2_400)))
    assert verdict.outcome is Outcome.INVALID
    assert "detection and takeover took 7.3 s from 10.0 s; 7.2 s is allowed" in verdict.summary


def test_a_witness_that_is_late_itself_is_left_out() -> None:
    """The log was written after the address had been seen: detection cannot have taken so long."""
    verdict = check(replace(CLEAN, dead=14_950).history())
    assert verdict.outcome is Outcome.VALID, verdict.summary


def test_a_director_that_shuts_down_has_more_to_stop() -> None:
    slow = replace(CLEAN, returned=46_400, announced_back=46_450, served_back=46_500).history()
    assert check(slow).outcome is Outcome.INVALID
    off = h.with_ops(slow, h.power(43_000, "lb-2", "off"), h.power(43_500, "lb-2", "running"))
    found = check(off).numbers["outages"]
    assert [row["budget_ms"] for row in found if row["kind"] == "handover"][:1] == [7 * 1_500 + 1_000]


# --- the speed of the machine


def slower(times: float, cut: PowerCut) -> History:
    """The machine is so many times slower than before the run, all the time."""
    return h.with_ops(at(cut, pace_ms=USUAL_MS), *pace(0, 60_000, USUAL_MS * times))


@pytest.mark.parametrize(
    ("times", "late_ms", "outcome"),
    [
        (1.0, 1_000, Outcome.VALID),
        (1.0, 1_300, Outcome.INVALID),
        (0.5, 1_300, Outcome.INVALID),  # a faster machine gets no less, and no more
        (1.5, 1_300, Outcome.VALID),  # 4.5 s for the scripts
        (1.5, 2_700, Outcome.INVALID),
        (2.0, 4_000, Outcome.VALID),
        (2.0, 4_300, Outcome.INVALID),
        (3.0, 4_000, Outcome.VALID),  # within twice, whatever the machine did
        (3.0, 4_300, Outcome.UNKNOWN),
        (3.0, 6_000, Outcome.UNKNOWN),
    ],
)
def test_scripts_may_be_as_slow_as_the_machine_and_at_most_twice(
    times: float, late_ms: float, outcome: Outcome
) -> None:
    verdict = check(slower(times, later("takeover", late_ms)))
    assert verdict.outcome is outcome, verdict.summary
    assert ("3.0 times slower than before the run" in verdict.summary) == (outcome is Outcome.UNKNOWN)


def test_a_slow_machine_does_not_prolong_deadtime() -> None:
    """Of detection only the look is work: 3.5 s + 2 x 0.7 s."""
    assert check(slower(2, later("detection", 1_800))).outcome is Outcome.VALID
    assert check(slower(2, later("detection", 1_900))).outcome is Outcome.INVALID


def test_a_machine_whose_speed_was_not_measured_is_unknown() -> None:
    late = at(later("takeover", 1_300), pace_ms=USUAL_MS)
    verdict = check(late)
    assert verdict.outcome is Outcome.UNKNOWN
    assert "speed was not measured meanwhile" in verdict.summary
    elsewhere = h.with_ops(late, *pace(30_000, 60_000, USUAL_MS))
    assert check(elsewhere).outcome is Outcome.UNKNOWN
    assert check(at(CLEAN, pace_ms=USUAL_MS)).outcome is Outcome.VALID


def test_only_the_time_of_the_outage_counts() -> None:
    history = at(later("takeover", 1_300), pace_ms=USUAL_MS)
    calm = h.with_ops(history, *pace(0, 30_000, USUAL_MS), *pace(30_000, 60_000, 5 * USUAL_MS))
    assert check(calm).outcome is Outcome.INVALID


@pytest.mark.parametrize(("times", "outcome"), [(1, Outcome.INVALID), (2, Outcome.VALID), (4, Outcome.UNKNOWN)])
def test_time_without_an_owner_has_the_same_allowance(times: float, outcome: Outcome) -> None:
    late = replace(later("takeover", 7_000 if times > 2 else 3_000), booting=35_000, running=36_000)
    history = h.without(slower(times, late), lambda op: op.f == "arp" and op.time == 20_000 * h.MS)
    assert check(history, "ownership").outcome is outcome


def test_slowdown_is_a_median_and_never_below_one() -> None:
    history = h.of([h.start(pace_ms=30), h.end(10_000), *pace(0, 9_000, 30), *pace(4_500, 5_000, 900)])
    assert slowdown(history, 2_000 * h.MS, 7_000 * h.MS) == 1
    assert slowdown(h.of([h.start(), h.end(10)]), 0, 10) == 1
    fast = h.of([h.start(pace_ms=30), h.end(10_000), *pace(0, 9_000, 3)])
    assert slowdown(fast, 0, 9_000 * h.MS) == 1
    assert slowdown(fast, 15_000 * h.MS, 16_000 * h.MS) is None


def test_no_budget_grows_without_bound() -> None:
    assert Budget(100, 10).ms(1_000_000) == 100 + 10 * MOST_SLOWDOWN
    assert Budget(100, 10).ms(0) == 110


# --- virtual time


VIRTUAL = replace(CLEAN, dead=13_300, taken=14_540, announced=14_570, served=14_600)
"""As measured: detection 3.3 s, scripts 1.24 s, announcement 30 ms, answer 30 ms."""


def virtual(cut: PowerCut, **facts: Any) -> History:
    back = replace(cut, returned=41_200, announced_back=41_230, served_back=41_260)
    return h.changed(back.history(), lambda op: op.f == "start", lambda _: _with_clock(h.start(**facts)))


def _with_clock(op: Op) -> Op:
    return op.copy(value={**op.value, "clock": "virtual"})


def test_a_takeover_in_virtual_time_is_valid() -> None:
    verdict = check(virtual(VIRTUAL))
    assert verdict.outcome is Outcome.VALID, verdict.summary
    allowed = verdict.numbers["outages"][0]["allowed_ms"]
    assert allowed == {"detection": 5_250, "takeover": 1_875, "announcement": 75, "answer": 75}


@pytest.mark.parametrize("part", PARTS)
def test_each_part_that_is_twice_as_slow_is_invalid_in_virtual_time(part: str) -> None:
    marks = {"detection": (10_000, "dead"), "takeover": (13_300, "taken")}
    marks |= {"announcement": (14_540, "announced"), "answer": (14_570, "served")}
    begin, name = marks[part]
    took = getattr(VIRTUAL, name) - begin
    by = took if part in ("detection", "takeover") else took + 80  # the probe is sent every 50 ms
    late = PARTS[PARTS.index(part) :]
    slow = replace(VIRTUAL, **{marks[each][1]: getattr(VIRTUAL, marks[each][1]) + by for each in late})
    verdict = check(virtual(slow))
    assert verdict.outcome is Outcome.INVALID, verdict.summary
    assert any(f": {part} took" in finding.sentence for finding in verdict.findings)


def test_the_machine_means_nothing_in_virtual_time() -> None:
    slow = replace(VIRTUAL, taken=15_740, announced=15_770, served=15_800)
    history = virtual(slow, resource_start_ms=15_000, pace_ms=None)
    assert check(history).outcome is Outcome.INVALID
    assert check(h.with_ops(history, *pace(0, 60_000, 9_000))).outcome is Outcome.INVALID


def test_budgets_in_virtual_time_have_no_work_in_them() -> None:
    cluster = virtual(VIRTUAL).cluster
    budgets = Budgets(cluster, virtual=True)
    every = (*budgets.takeover_parts().values(), budgets.handover(), budgets.shutdown(), budgets.notice(1, 3_000))
    assert all(budget.work_ms == 0 for budget in every)


# --- what was promised


def configured(**settings: Any) -> dict[str, dict[str, Any]]:
    own = {"keepalive_ms": 500, "deadtime_ms": 3_000, "check_interval_ms": 2_000, "check_timeout_ms": 3_000}
    return {"lb-1": {**own, **settings}, "lb-2": own}


def test_a_file_that_promises_less_is_said_and_excuses_nothing() -> None:
    slow = later("detection", 9_000)
    history = at(slow, configured=configured(deadtime_ms=12_000))
    verdict = check(history)
    assert verdict.outcome is Outcome.INVALID
    sentences = [finding.sentence for finding in verdict.findings]
    assert f"{VIP1}: detection took 12.1 s from 10.0 s; 4.2 s is allowed." in sentences
    (remark,) = promises.remarks_of(history)
    assert remark == ("lb-1 runs with deadtime 12.0 s; the topology promises 3.0 s, and the run is judged by that.")


def test_it_is_said_beside_a_valid_verdict_too() -> None:
    history = at(CLEAN, configured=configured(deadtime_ms=12_000))
    verdicts = judge(history, {"outage": {}})
    remarks = promises.remarks_of(history)
    found = judgement("x", verdicts, remarks)
    assert (found.outcome, len(found.remarks)) == (Outcome.VALID, 1)
    page = render(history, verdicts, "title", "expectation", {})
    assert "Beside the verdict" in page
    assert "deadtime 12.0 s" in page
    assert "Beside the verdict" not in render(CLEAN.history(), verdicts, "title", "expectation", {})
    assert screen.verdicts(verdicts, remarks)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"check_interval_ms": 60_000}, "checkinterval 60.0 s; the topology promises 2.0 s"),
        ({"failure_count": 3}, "failurecount 3; the topology promises 1"),
        ({"auto_failback": False}, "auto_failback off; the topology promises on"),
        ({"quiescent": False}, "quiescent off; the topology promises on"),
        ({"persistence_s": 300}, "persistent 300 s; the topology promises 0 s"),
        ({"unheard_of": 3}, ""),
        ({}, ""),
    ],
)
def test_every_setting_that_budgets_rest_on_is_compared(settings: dict[str, Any], words: str) -> None:
    found = promises.remarks_of(at(CLEAN, configured=configured(**settings)))
    assert len(found) == bool(words)
    assert words in "".join(found)


def test_directors_that_agree_share_a_sentence() -> None:
    both = {name: {"deadtime_ms": 12_000} for name in ("lb-1", "lb-2")}
    (remark,) = promises.remarks_of(at(CLEAN, configured=both))
    assert remark.startswith("lb-1 and lb-2 run with deadtime 12.0 s")
    assert promises.remarks_of(History([])) == ()
