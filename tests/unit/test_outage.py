"""Outage: the bounds hold the truth, budgets decide, the parts are never invented."""

from __future__ import annotations

import random
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
from tests.support.histories import VIP1, VIP2, PowerCut

CLEAN = PowerCut().history()


def check(history: History, **table: Any) -> Verdict:
    (verdict,) = judge(history, {"outage": table})
    return verdict


def lose(history: History, vip: str, since: float, till: float, kind: str = "info") -> History:
    """The probes of the VIP sent in [since, till) get no good answer."""
    sent = {
        pair.completion.index
        for pair in history.pairs("http")
        if pair.completion and pair.invoke["vip"] == vip and since * h.MS <= pair.invoke.time < till * h.MS
    }
    return h.changed(history, lambda op: op.index in sent, lambda op: op.copy(type=kind, error="lost"))


def test_a_clean_power_cut_is_valid_and_split_into_its_parts() -> None:
    verdict = check(CLEAN)
    assert verdict.outcome == Outcome.VALID, verdict.summary
    takeover, handover = verdict.numbers["outages"]
    assert (takeover["vip"], takeover["kind"], takeover["owner"], takeover["survivor"]) == (
        VIP1,
        "takeover",
        "lb-1",
        "lb-2",
    )
    assert (takeover["lower_ms"], takeover["upper_ms"], takeover["budget_ms"]) == (5_000, 5_102, 9_200)
    assert takeover["parts_ms"] == {"detection": 3_050, "takeover": 1_850, "announcement": 60, "answer": 90}
    assert takeover["allowed_ms"] == {"detection": 4_200, "takeover": 3_000, "announcement": 1_000, "answer": 1_000}
    assert takeover["answered_at_ms"] == 15_052
    assert (handover["kind"], handover["lower_ms"], handover["budget_ms"]) == ("handover", 1_000, 5_500)
    assert "parts_ms" not in handover
    assert verdict.numbers["vips"][VIP2]["lost"] == 0
    assert {"power", "holds", "arp", "log", "http"} == {CLEAN.op(index).f for index in verdict.evidence}


def test_the_order_of_recording_among_processes_does_not_matter() -> None:
    rank = {name: random.Random(name).random() for name in {op.process for op in CLEAN}}
    shuffled = History(sorted(CLEAN, key=lambda op: rank[op.process]))
    assert check(shuffled) == check(CLEAN)


@examples(50)
@given(
    down=st.floats(5_000, 6_000),
    length=st.floats(100, 3_000),
    every=st.floats(20, 60),
    jitter=st.lists(st.floats(0, 15), min_size=40, max_size=40),
)
def test_the_bounds_hold_the_true_outage(down: float, length: float, every: float, jitter: list[float]) -> None:
    ops = [h.start(), h.end(12_000), *h.samples("lb-1", 100, 12_000, VIP1), *h.samples("lb-2", 100, 12_000, VIP2)]
    for seq in range(int(11_000 / every)):
        at = 200 + seq * every + jitter[seq % 40]
        ops += h.probe(at, VIP1, seq, None if down <= at < down + length else 1.0, slots=100)
        ops += h.probe(at, VIP2, seq, 1.0, slots=100)
    verdict = check(h.of(ops), other_ms=10_000)
    found = verdict.numbers["outages"]
    if length > 4 * every + 30:
        assert len(found) == 1
    for outage in found:
        assert outage["lower_ms"] <= length <= outage["upper_ms"] + 0.001
        assert outage["upper_ms"] - outage["lower_ms"] <= 2 * (every + 15) + 1.01


@pytest.mark.parametrize("kind", ["info", "fail"])
@pytest.mark.parametrize(("lost", "outages"), [(1, 0), (2, 0), (3, 1), (4, 1)])
def test_it_takes_k_losses_in_a_row(lost: int, outages: int, kind: str) -> None:
    verdict = check(lose(CLEAN, VIP2, 50_025, 50_025 + 50 * lost, kind))
    assert sum(outage["vip"] == VIP2 for outage in verdict.numbers["outages"]) == outages
    assert verdict.numbers["vips"][VIP2]["lost"] == lost
    assert verdict.numbers["vips"][VIP2]["isolated"] == (0 if outages else lost)
    assert verdict.outcome == (Outcome.INVALID if outages else Outcome.VALID)


def test_k_is_a_setting() -> None:
    assert check(lose(CLEAN, VIP2, 50_025, 50_125), losses=2).outcome == Outcome.INVALID


def test_an_address_whose_owner_did_not_fail_has_no_budget() -> None:
    verdict = check(lose(CLEAN, VIP2, 12_000, 12_400))
    assert verdict.outcome == Outcome.INVALID
    assert f"{VIP2} was unreachable" in verdict.summary
    assert check(lose(CLEAN, VIP2, 12_000, 12_400), other_ms=600).outcome == Outcome.VALID


def beside(fault: str, **more: Any) -> list[Op]:
    """A fault from 43 s to 58 s, when no director changes."""
    return [
        h.fault(43_000, "beside", "start", **{"node": None, "fault": fault, **more}),
        h.fault(43_100, "beside", "proof", **{"node": None, "fault": fault, **more}),
        h.fault(58_000, "beside", "end", **{"node": None, "fault": fault, **more}),
    ]


KILLED = beside("process.kill", node="web-3", service="apache", restart=False)


@pytest.mark.parametrize(
    ("fault", "lost", "outcome", "kind"),
    [
        (KILLED, (43_050, 43_600), Outcome.VALID, "real server failure"),
        (KILLED, (53_900, 54_500), Outcome.VALID, "real server failure"),
        (KILLED, (55_000, 55_600), Outcome.INVALID, "other"),  # it was noticed long ago
        (KILLED, (42_000, 42_600), Outcome.INVALID, "other"),  # it had not failed yet
        (KILLED, (43_200, 55_000), Outcome.INVALID, "real server failure"),
        (KILLED[:1], (43_050, 43_600), Outcome.UNKNOWN, "disturbance"),
        (beside("node.power-off", node="web-1"), (43_050, 43_600), Outcome.VALID, "real server failure"),
        (beside("real-server.error", node="web-1", rate=0.5), (50_000, 50_600), Outcome.UNKNOWN, "disturbance"),
        (beside("network.loss", cable="web-2.eth0"), (50_000, 50_600), Outcome.UNKNOWN, "disturbance"),
        (beside("network.loss", cable="client.eth0"), (50_000, 50_600), Outcome.UNKNOWN, "disturbance"),
        (beside("network.loss", cable="lb-2.eth0"), (50_000, 50_600), Outcome.INVALID, "other"),
        (beside("network.partition", groups=[["client"], ["lb-2"]]), (50_000, 50_600), Outcome.INVALID, "other"),
        (beside("node.power-off", node="resolver"), (50_000, 50_600), Outcome.INVALID, "other"),
        (beside("data.nfs-unreachable"), (50_000, 50_600), Outcome.INVALID, "other"),
    ],
)
def test_what_a_real_server_or_the_client_explains_is_not_held_against_the_directors(
    fault: list[Op], lost: tuple[float, float], outcome: Outcome, kind: str
) -> None:
    verdict = check(lose(h.with_ops(CLEAN, *fault), VIP2, *lost))
    assert verdict.outcome is outcome, verdict.summary
    (outage,) = [each for each in verdict.numbers["outages"] if each["vip"] == VIP2]
    assert (outage["kind"], outage["outcome"]) == (kind, outcome)


def test_real_servers_that_fail_together_keep_each_other_waiting() -> None:
    other = beside("process.kill", node="web-4", service="apache", restart=False)
    more = [op.copy(process="fault:more") for op in other]
    for faults, budget_ms in ((KILLED, 11_000), ([*KILLED, *more], 17_000)):
        outage = check(lose(h.with_ops(CLEAN, *faults), VIP2, 43_050, 43_600)).numbers["outages"][-1]
        assert outage["budget_ms"] == budget_ms
    own = lose(h.with_ops(CLEAN, *KILLED), VIP2, 43_050, 43_600)
    assert check(own, real_server_ms=400).outcome is Outcome.INVALID


def test_a_second_outage_after_the_takeover_is_not_the_takeovers() -> None:
    assert check(lose(CLEAN, VIP1, 18_000, 18_500)).outcome == Outcome.INVALID


def test_an_owner_that_stalls_right_after_it_came_is_still_taking_over() -> None:
    verdict = check(lose(CLEAN, VIP1, 15_500, 15_900))
    assert verdict.outcome == Outcome.VALID, verdict.summary
    takeover, _ = verdict.numbers["outages"]
    assert (takeover["kind"], takeover["stretches"], takeover["lost"]) == ("takeover", 2, 101 + 8)
    assert (takeover["lower_ms"], takeover["upper_ms"]) == (5_000 + 350, 15_902 - 9_950)


def test_the_stretches_of_a_change_share_one_budget() -> None:
    stalls = lose(CLEAN, VIP1, 15_500, 15_900)
    assert check(stalls, takeover_ms=5_349).outcome == Outcome.INVALID
    assert check(stalls, takeover_ms=5_900).outcome == Outcome.UNKNOWN
    assert check(stalls, settle_ms=300).outcome == Outcome.INVALID


@pytest.mark.parametrize(
    ("budget", "outcome"),
    [(5_102, Outcome.VALID), (5_101, Outcome.UNKNOWN), (5_000, Outcome.UNKNOWN), (4_999, Outcome.INVALID)],
)
def test_only_the_lower_bound_makes_invalid(budget: float, outcome: Outcome) -> None:
    assert check(CLEAN, takeover_ms=budget).outcome == outcome


def test_the_budget_is_what_the_topology_promises() -> None:
    late = replace(PowerCut(), dead=16_000, taken=17_900, announced=17_960, served=18_010).history()
    verdict = check(late)
    assert verdict.outcome == Outcome.INVALID
    assert "detection took 6.0 s from 10.0 s; 4.2 s is allowed" in verdict.summary
    slower = h.changed(late, lambda op: op.f == "start", lambda _: h.start(deadtime_ms=6_000))
    assert check(slower).outcome == Outcome.VALID


def test_an_address_let_go_and_taken_again_by_the_same_director_changed_no_hands() -> None:
    flap = h.with_ops(CLEAN, h.holds(52_200, "lb-2"), h.holds(52_400, "lb-2", VIP2))
    verdict = check(lose(flap, VIP2, 52_200, 52_500))
    assert verdict.outcome == Outcome.INVALID
    assert [outage["kind"] for outage in verdict.numbers["outages"] if outage["vip"] == VIP2] == ["other"]


def test_a_slow_handover_is_invalid_though_a_takeover_might_take_as_long() -> None:
    slow = replace(PowerCut(), returned=46_400, announced_back=46_450, served_back=46_500).history()
    assert check(slow).outcome == Outcome.INVALID
    assert check(slow, failback_ms=7_000).outcome == Outcome.VALID


@pytest.mark.parametrize("state", ["panicked", "frozen"])
def test_every_way_to_fall_is_a_takeover(state: str) -> None:
    history = h.changed(CLEAN, lambda op: op.get("power") == "off", lambda _: h.power(10_000, "lb-1", state))
    assert check(history).numbers["outages"][0]["kind"] == "takeover"


def test_an_address_that_is_not_back_at_the_end_is_invalid() -> None:
    gone = lose(CLEAN, VIP1, 40_000, 60_000)
    verdict = check(gone, failback_ms=60_000, takeover_ms=60_000)
    assert verdict.outcome == Outcome.INVALID
    assert "had not recovered when the run ended (last answer at" in verdict.summary


def test_an_answer_that_came_late_is_a_loss() -> None:
    def slow(op: Op) -> bool:
        return op.f == "http" and op.type == "ok" and op["vip"] == VIP2 and 50_000 * h.MS < op.time < 50_500 * h.MS

    late = h.changed(CLEAN, slow, lambda op: op.copy(time=op.time + 1_500 * h.MS))
    late = h.changed(
        late,
        lambda op: op.process.startswith("probe:"),
        lambda op: op.copy(process=f"probe:{op['vip']}/{op['seq']}"),
    )
    verdict = check(late)
    assert verdict.outcome == Outcome.INVALID
    assert verdict.numbers["vips"][VIP2]["late"] == 10
    assert check(late, late_ms=2_000).outcome == Outcome.VALID


def test_a_packet_that_waited_for_its_neighbour_does_not_shorten_the_outage() -> None:
    """Sent while nobody was there, answered once somebody was: the upper bound counts to the answer."""
    early = h.without(CLEAN, lambda op: op.f == "http" and op["vip"] == VIP1 and op["seq"] == 280)
    waited = h.with_ops(early, *h.probe(14_500, VIP1, 280, 530.0))
    outage = check(waited).numbers["outages"][0]
    assert outage["lower_ms"] <= 5_010 <= outage["upper_ms"]


def test_an_address_that_is_held_and_does_not_answer_is_invalid_long_before_its_budget_is_over() -> None:
    """Nobody was told that it moved: all of the budget for heartbeat's scripts does not excuse that."""
    assert check(lose(CLEAN, VIP1, 14_000, 19_900), takeover_ms=60_000).outcome == Outcome.VALID
    verdict = check(lose(CLEAN, VIP1, 14_000, 20_200), takeover_ms=60_000)
    assert verdict.outcome == Outcome.INVALID
    assert "of that time; 5.0 s is allowed" in verdict.summary
    assert check(lose(CLEAN, VIP1, 14_000, 20_200), takeover_ms=60_000, held_ms=6_000).outcome == Outcome.VALID


def stood_still(till: float, late_ms: float) -> Op:
    """What the probe says when the machine goes on."""
    value = {"vip": VIP2, "seq": 0, "skipped": 1, "late_ms": late_ms}
    return h.op(till, f"probe:{VIP2}", "http", value, error="probe overrun")


def test_a_probe_in_vain_while_the_clients_machine_stood_still_says_nothing() -> None:
    lost = lose(CLEAN, VIP2, 50_025, 50_500)
    assert check(lost).outcome == Outcome.INVALID
    assert check(h.with_ops(lost, stood_still(50_600, 600))).outcome == Outcome.VALID
    assert check(h.with_ops(lost, stood_still(50_300, 300))).outcome == Outcome.INVALID  # some were lost after it
    assert check(h.with_ops(lost, stood_still(49_900, 300))).outcome == Outcome.INVALID


def test_a_client_that_stood_still_for_long_leaves_it_unknown() -> None:
    lost = lose(CLEAN, VIP2, 50_025, 51_500)
    verdict = check(h.with_ops(lost, stood_still(51_600, 1_600)))
    assert verdict.outcome == Outcome.UNKNOWN
    assert "the client was stalled" in verdict.summary


def test_a_client_that_stalls_now_and_then_still_sees_an_outage() -> None:
    stalls = [stood_still(at, 120) for at in range(10_000, 15_000, 300)]
    assert check(h.with_ops(CLEAN, *stalls)).numbers["outages"] == check(CLEAN).numbers["outages"]


def test_good_answers_while_the_clients_machine_stood_still_count() -> None:
    verdict = check(h.with_ops(CLEAN, stood_still(52_000, 1_900)))
    assert verdict.outcome == Outcome.VALID


def test_a_probe_that_found_no_slot_does_not_excuse_an_outage() -> None:
    lost = lose(CLEAN, VIP2, 50_025, 50_500)
    busy = h.op(50_400, f"probe:{VIP2}", "http", {"vip": VIP2, "seq": 0, "skipped": 1}, error="probe overrun")
    assert check(h.with_ops(lost, busy)).outcome == Outcome.INVALID


# --- parts


def drop(history: History, words: str) -> History:
    return h.without(history, lambda op: op.f == "log" and words in str(op.value))


@pytest.mark.parametrize(
    ("history", "missing"),
    [
        (drop(CLEAN, "is dead"), {"detection", "takeover"}),
        (
            h.without(CLEAN, lambda op: bool(op.get("gratuitous")) and op.time < 20_000 * h.MS),
            {"announcement", "answer"},
        ),
        (replace(PowerCut(), dead=14_950).history(), {"takeover"}),
        (replace(PowerCut(), announced=14_890).history(), {"announcement"}),
        (replace(PowerCut(), announced=15_060).history(), {"answer"}),
        (h.with_ops(drop(CLEAN, "is dead"), h.log(13_000, "lb-1", "node lb-1: is dead")), {"detection", "takeover"}),
        (h.with_ops(drop(CLEAN, "is dead"), h.log(13_000, "lb-2", "node lb-11: is dead")), {"detection", "takeover"}),
        (h.with_ops(drop(CLEAN, "is dead"), h.log(9_000, "lb-2", "node lb-1: is dead")), {"detection", "takeover"}),
    ],
)
def test_a_part_without_its_witness_is_none(history: History, missing: set[str]) -> None:
    parts = check(history).numbers["outages"][0]["parts_ms"]
    assert {part for part, ms in parts.items() if ms is None} == missing


def test_the_parts_add_up_to_the_time_from_the_fall_to_the_first_good_probe() -> None:
    outage = check(CLEAN).numbers["outages"][0]
    assert sum(outage["parts_ms"].values()) == 15_050 - outage["fell_at_ms"]


# --- nobody knows


def unprobed(since: float, till: float, vip: str = VIP1) -> History:
    gone = {
        op["seq"]
        for op in CLEAN.of("http")
        if op.type == "invoke" and op["vip"] == vip and since * h.MS <= op.time < till * h.MS
    }
    return h.renumbered(h.without(CLEAN, lambda op: op.f == "http" and op["vip"] == vip and op["seq"] in gone))


@pytest.mark.parametrize(
    ("history", "says"),
    [
        (unprobed(30_000, 31_200), "not probed from"),
        (unprobed(57_000, 60_000), "not probed from"),
        (unprobed(0, 12_000, VIP2), "after the first fault"),
        (unprobed(0, 60_000), "probed 0 times"),
        (h.killed(CLEAN, 30_000), "killed"),
        (h.killed(CLEAN, 12_000), "killed"),
        (h.killed(CLEAN, 40_600), "killed"),
        (History([]), "no start"),
    ],
)
def test_a_probe_that_did_not_look_tells_nothing(history: History, says: str) -> None:
    verdict = check(history)
    assert verdict.outcome == Outcome.UNKNOWN, verdict.summary
    assert says in " ".join([verdict.summary, *(finding.sentence for finding in verdict.findings)])


def test_a_probe_that_died_in_the_outage_cannot_make_it_longer() -> None:
    """Lost, then not probed for 6 s, then lost again: nobody knows what was between."""
    history = unprobed(10_500, 14_500)
    verdict = check(history, takeover_ms=2_000)
    assert verdict.outcome == Outcome.UNKNOWN
    assert verdict.numbers["outages"][0]["lower_ms"] < 2_000


def test_a_killed_run_does_not_hide_an_outage_that_was_too_long() -> None:
    assert check(h.killed(lose(CLEAN, VIP2, 20_000, 22_000), 30_000)).outcome == Outcome.INVALID


def test_probes_under_way_when_the_run_closed_are_not_lost() -> None:
    cut_off = h.without(
        CLEAN, lambda op: op.f == "http" and op.type != "invoke" and op.time > 58_000 * h.MS and op["vip"] == VIP1
    )
    last = max(op.time for op in CLEAN.of("http"))
    fewer = h.without(cut_off, lambda op: op.f == "http" and op.time < 58_900 * h.MS and op.time > 58_000 * h.MS)
    assert last < 59_500 * h.MS
    assert check(h.renumbered(fewer)).outcome == Outcome.VALID


# --- only what follows its cause belongs to it


@pytest.mark.parametrize(
    ("lost", "kind"),
    [
        ((2_000, 10_000), "takeover"),  # 8 s before the power cut
        ((8_500, 10_000), "takeover"),
        ((24_000, 40_000), "handover"),  # 16 s before the handover
        ((18_000, 40_000), "handover"),
        ((38_500, 40_000), "handover"),
    ],
)
def test_what_was_lost_before_a_change_of_owner_has_no_cause(lost: tuple[float, float], kind: str) -> None:
    verdict = check(lose(CLEAN, VIP1, *lost))
    assert verdict.outcome is Outcome.INVALID, verdict.summary
    assert "unexplained outages are not allowed" in verdict.summary
    early = next(row for row in verdict.numbers["outages"] if row["kind"] == "other")
    assert early["lower_ms"] == pytest.approx(lost[1] - lost[0] - 50, abs=51)
    assert {row["kind"] for row in verdict.numbers["outages"]} == {"takeover", "handover", "other"}
    rest = next(row for row in verdict.numbers["outages"] if row["kind"] == kind)
    assert rest["outcome"] == "valid"
    generous = check(lose(CLEAN, VIP1, *lost), takeover_ms=90_000, failback_ms=90_000)
    assert generous.outcome is Outcome.INVALID


@pytest.mark.parametrize("lead", [0, 60, 400, 900])
@pytest.mark.parametrize("at", [10_000, 40_000])
def test_a_change_of_owner_may_be_seen_a_little_late(lead: float, at: float) -> None:
    verdict = check(lose(CLEAN, VIP1, at - lead, at))
    assert verdict.outcome is Outcome.VALID, verdict.summary


def test_a_takeover_begins_with_the_fault_that_took_the_owner_down() -> None:
    """A panic is seen some time after it happened."""
    history = h.with_ops(
        h.without(CLEAN, lambda op: op.f == "fault"),
        h.fault(8_000, "cut", "start"),
        h.fault(10_002, "cut", "proof"),
        h.fault(26_400, "cut", "end"),
    )
    assert check(lose(history, VIP1, 8_100, 10_000)).outcome is Outcome.VALID
    assert check(lose(history, VIP1, 5_000, 10_000)).outcome is Outcome.INVALID


# --- evidence that contradicts itself, or is thin


def test_an_address_that_is_dropped_again_after_a_takeover_has_no_cause() -> None:
    drop = [h.holds(15_600, "lb-2", VIP2), h.holds(17_600, "lb-2", VIP1, VIP2)]
    kept = h.without(CLEAN, lambda op: op.f == "holds" and op["node"] == "lb-2" and 15_600 <= op.time / h.MS <= 17_600)
    verdict = check(lose(h.with_ops(kept, *drop), VIP1, 15_600, 17_600))
    assert verdict.outcome is Outcome.INVALID
    assert "unexplained" in verdict.summary


def test_answers_while_no_director_holds_the_address_are_unknown() -> None:
    nobody = h.changed(
        CLEAN,
        lambda op: op.f == "holds" and op["node"] == "lb-2" and 45_000 <= op.time / h.MS <= 50_000,
        lambda op: op.copy(value={"node": "lb-2", "vips": []}),
    )
    verdict = check(nobody)
    assert verdict.outcome is Outcome.UNKNOWN
    assert "contradict" in verdict.summary
    early = h.with_ops(CLEAN, h.power(50_000, "lb-2", "off"))
    assert "contradict" in check(early).summary


def thinned(every: int) -> History:
    return h.without(CLEAN, lambda op: op.f == "http" and op["seq"] % every != 0)


@pytest.mark.parametrize("every", [2, 3, 20])
def test_missing_probes_are_unknown(every: int) -> None:
    verdict = check(thinned(every))
    assert verdict.outcome is Outcome.UNKNOWN
    assert any("missing" in finding.sentence for finding in verdict.findings)


def test_probes_that_are_far_apart_are_unknown() -> None:
    verdict = check(PowerCut(probe_every=900).history())
    assert verdict.outcome is Outcome.UNKNOWN
    assert "shorter outages are not seen" in verdict.summary


def test_probes_that_the_client_skipped_are_not_missing() -> None:
    skipped = [
        h.op(at, f"probe:{VIP2}", "http", {"vip": VIP2, "seq": 0, "skipped": 10, "late_ms": 1}, error="probe overrun")
        for at in range(45_000, 50_000, 500)
    ]
    gone = h.without(CLEAN, lambda op: op.f == "http" and op["vip"] == VIP2 and 700 <= op["seq"] < 800)
    assert "missing" in " ".join(finding.sentence for finding in check(gone).findings)
    verdict = check(h.with_ops(gone, *skipped))
    assert not any("missing from" in finding.sentence for finding in verdict.findings)


def scattered(history: History, vip: str, since: float, till: float, lose_of: tuple[int, int]) -> History:
    lost, out_of = lose_of
    sent = {
        pair.completion.index
        for pair in history.pairs("http")
        if pair.completion
        and pair.invoke["vip"] == vip
        and since * h.MS <= pair.invoke.time < till * h.MS
        and pair.invoke["seq"] % out_of < lost
    }
    return h.changed(history, lambda op: op.index in sent, lambda op: op.copy(type="info", error="lost"))


@pytest.mark.parametrize("lose_of", [(2, 3), (1, 2), (1, 3), (1, 4)])
@pytest.mark.parametrize("bounds", [(0, 60_000), (45_000, 52_000)])
def test_many_losses_that_are_never_enough_in_a_row_are_found(
    lose_of: tuple[int, int], bounds: tuple[float, float]
) -> None:
    verdict = check(scattered(CLEAN, VIP2, *bounds, lose_of))
    assert verdict.outcome is Outcome.INVALID, verdict.summary
    assert "never 3 in a row" in verdict.summary


def test_a_few_losses_are_noise() -> None:
    assert check(scattered(CLEAN, VIP2, 0, 60_000, (1, 10))).outcome is Outcome.VALID
    assert check(scattered(CLEAN, VIP2, 45_000, 46_000, (1, 2))).outcome is Outcome.VALID


def test_scattered_losses_while_a_real_server_fails_are_its() -> None:
    history = h.with_ops(CLEAN, *KILLED)
    assert check(scattered(history, VIP2, 43_200, 47_000, (1, 3))).outcome is Outcome.VALID


# --- what could not be seen


def test_an_outage_while_the_owners_were_not_sampled_is_unknown() -> None:
    lost = lose(CLEAN, VIP2, 50_000, 52_000)
    assert check(lost).outcome is Outcome.INVALID
    for history in (
        h.without(lost, lambda op: op.f == "holds"),
        h.without(lost, lambda op: op.f in {"holds", "power"}),
        h.without(lost, lambda op: op.f == "holds" and op["node"] == "lb-2" and 48_000 < op.time / h.MS < 54_000),
    ):
        verdict = check(history)
        assert verdict.outcome is Outcome.UNKNOWN, verdict.summary
        assert "the cause is unknown" in " ".join(finding.sentence for finding in verdict.findings)
    far = h.without(lost, lambda op: op.f == "holds" and op["node"] == "lb-1" and 42_000 < op.time / h.MS < 46_000)
    assert check(far).outcome is Outcome.INVALID


def unanswered(history: History, vip: str, since: float, till: float) -> History:
    """The probes of the VIP sent in [since, till) time out after 500 ms."""
    lost = lose(history, vip, since, till)
    return h.changed(lost, lambda op: op.error == "lost", lambda op: op.copy(time=op.time + 498 * h.MS))


def stalled(till: float, late_ms: float) -> Op:
    return h.op(till, f"probe:{VIP2}", "http", {"vip": VIP2, "seq": 9, "late_ms": late_ms}, error="probe overrun")


def test_an_outage_before_any_owner_is_known_is_unknown() -> None:
    """The only thing that is known of the directors is a power cut that comes later."""
    early = lose(h.without(CLEAN, lambda op: op.f == "holds"), VIP2, 5_000, 6_000)
    findings = [finding for finding in check(early).findings if finding.outcome is Outcome.INVALID]
    assert findings == []


def test_an_outage_while_the_client_was_stalled_is_unknown() -> None:
    for late_ms in (120.0, 200.0, 500.0):
        history = h.with_ops(unanswered(CLEAN, VIP2, 50_000, 50_400), stalled(50_520, late_ms))
        verdict = check(history)
        assert verdict.outcome is not Outcome.INVALID, verdict.summary
        assert verdict.outcome is Outcome.VALID or "the client was stalled" in verdict.summary
    for lost, till, late_ms in (
        ((48_000, 52_000), 50_520, 500.0),
        ((46_000, 47_000), 50_520, 500.0),
        ((50_000, 50_400), 50_200, 50.0),  # too short to explain it
    ):
        verdict = check(h.with_ops(unanswered(CLEAN, VIP2, *lost), stalled(till, late_ms)))
        assert verdict.outcome is Outcome.INVALID, verdict.summary
    refused = h.with_ops(lose(CLEAN, VIP2, 50_000, 50_400, "fail"), stalled(50_420, 500))
    assert check(refused).outcome is Outcome.INVALID


# --- what was answered


def answered(since: float, till: float, kind: str, error: str | None = None, **value: Any) -> History:
    """Probes of VIP 2 in the quiet at the end get another answer."""

    def theirs(op: Op) -> bool:
        return op.f == "http" and op.type == "ok" and op["vip"] == VIP2 and since * h.MS <= op.time < till * h.MS

    return h.changed(CLEAN, theirs, lambda op: op.copy(type=kind, error=error, value={**op.value, **value}))


@pytest.mark.parametrize("node", [None, "lb-1", "somebody"])
def test_a_page_that_no_real_server_signed_is_no_answer(node: str | None) -> None:
    verdict = check(answered(50_000, 51_000, "ok", node=node))
    assert verdict.outcome is Outcome.INVALID
    assert f"{VIP2} answered wrongly (no real server signed the answer: 20) for" in verdict.summary


def test_a_site_that_signs_nothing_is_not_accused() -> None:
    unsigned = h.changed(
        CLEAN, lambda op: op.f == "http" and op.type == "ok", lambda op: op.copy(value={**op.value, "node": None})
    )
    assert check(unsigned).outcome is Outcome.VALID
    assert check(answered(50_000, 51_000, "ok")).outcome is Outcome.VALID


def test_an_answer_is_not_called_silence() -> None:
    verdict = check(answered(50_000, 51_000, "fail", "status 302", status=302))
    assert verdict.outcome is Outcome.INVALID
    assert "answered wrongly (status 302: 20)" in verdict.summary
    assert "unreachable" not in verdict.summary
    wrong = answered(50_000, 50_500, "fail", "wrong body", status=200)
    silent = h.changed(
        wrong,
        lambda op: op.type == "ok" and op.get("vip") == VIP2 and 50_500 * h.MS <= op.time < 51_000 * h.MS,
        lambda op: op.copy(type="fail", error="refused", value={"vip": VIP2, "seq": op["seq"]}),
    )
    assert f"{VIP2} was unreachable or answered wrongly (wrong body: 10) for" in check(silent).summary
