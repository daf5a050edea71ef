"""Ownership: a clean power cut is valid, and every planted defect is caught with the right outcome."""

from __future__ import annotations

import random
from collections.abc import Mapping
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

OWNERS = {VIP1: ["lb-1", "lb-2", "lb-1"], VIP2: ["lb-2"]}
CLEAN = PowerCut(probe_every=1000).history()


def check(history: History, **table: Any) -> Verdict:
    (verdict,) = judge(history, {"ownership": {"owners": OWNERS} | table})
    return verdict


def shape(verdict: Verdict, which: str, *keys: str) -> list[tuple[Any, ...]]:
    return [tuple(row[key] for key in keys) for row in verdict.numbers[which]]


def test_a_clean_power_cut_is_valid_and_measured() -> None:
    verdict = check(CLEAN)
    assert verdict.outcome == Outcome.VALID, verdict.summary
    assert verdict.findings == ()
    assert shape(verdict, "takeovers", "vip", "kind", "from", "to", "at_ms", "ms", "budget_ms") == [
        (VIP1, "takeover", "lb-1", "lb-2", 10_000, 4_900, 7_700),
        (VIP1, "handover", "lb-2", "lb-1", 40_000, 900, 5_000),
    ]
    assert verdict.numbers["overlaps"] == []
    assert shape(verdict, "announcements", "node", "after_ms") == [("lb-2", 60), ("lb-1", 60)]
    assert "4.9 s" in verdict.summary
    changes = [CLEAN.op(index) for index in verdict.evidence]
    assert ("power", "lb-1") in [(one.f, one.get("node")) for one in changes]
    assert ("holds", "lb-2") in [(one.f, one.get("node")) for one in changes]


def test_the_order_of_recording_does_not_matter() -> None:
    ops = list(CLEAN)
    random.Random(1).shuffle(ops)
    assert check(History(ops)) == check(CLEAN)


def second_owner(ms: float) -> History:
    """lb-2 takes lb-1's address beside it, for a while, in the quiet at the end."""
    quiet = h.without(
        CLEAN, lambda op: op.process == "owners:lb-2" and 50_000 * h.MS <= op.time <= (50_001 + ms) * h.MS
    )
    both = [h.holds(50_000, "lb-2", VIP1, VIP2), h.holds(50_000 + ms, "lb-2", VIP2)]
    return h.with_ops(quiet, *both, *h.garp(50_010, "lb-2", VIP1))


@examples(50)
@given(ms=st.integers(1, 1900))
def test_a_second_owner_is_invalid_beyond_what_sampling_can_tell(ms: int) -> None:
    history = h.without(second_owner(ms), lambda op: op.f == "arp" and op.time >= 50_000 * h.MS and not op.get("alive"))
    announced = h.with_ops(history, h.arp(50_000, "lb-2", VIP1))
    verdict = check(announced, owners={}, overlap_ms=100)
    assert shape(verdict, "overlaps", "nodes", "at_ms", "ms")[0][1:] == (50_000, ms)
    assert any("both held" in finding.sentence for finding in verdict.findings) == (ms > 100)
    assert (verdict.outcome == Outcome.INVALID) == (ms > 100) or ms <= 100


def test_a_second_owner_names_both() -> None:
    verdict = check(second_owner(800))
    assert verdict.outcome == Outcome.INVALID
    assert any("lb-1 and lb-2 both held" in finding.sentence for finding in verdict.findings)


@examples(50)
@given(late=st.integers(0, 8_000))
def test_a_takeover_is_invalid_exactly_beyond_its_budget(late: int) -> None:
    cut = replace(PowerCut(probe_every=1000), taken=14_000 + late, announced=14_050 + late)
    verdict = check(cut.history())
    assert (verdict.outcome == Outcome.INVALID) == (4_000 + late > 7_700)
    assert verdict.outcome != Outcome.UNKNOWN


def test_the_budget_follows_the_clusters_own_deadtime() -> None:
    slow = replace(PowerCut(probe_every=1000), taken=19_000, announced=19_050)
    ten = h.changed(slow.history(), lambda op: op.f == "start", lambda _: h.start(deadtime_ms=10_000))
    assert check(slow.history()).outcome == Outcome.INVALID
    assert check(ten).outcome == Outcome.VALID
    assert check(slow.history(), takeover_ms=9_000).outcome == Outcome.VALID
    assert check(slow.history(), takeover_ms=8_999).outcome == Outcome.INVALID


def test_a_handover_has_no_right_to_a_takeovers_time() -> None:
    slow = replace(PowerCut(probe_every=1000), returned=46_000, announced_back=46_050)
    verdict = check(slow.history())
    assert verdict.outcome == Outcome.INVALID
    assert "handover may take 5.0 s" in verdict.summary
    assert check(slow.history(), failback_ms=6_000).outcome == Outcome.VALID


@pytest.mark.parametrize("state", ["off", "panicked", "frozen", "booting"])
def test_each_fall_of_the_machine_begins_a_takeover(state: str) -> None:
    history = h.changed(CLEAN, lambda op: op.get("power") == "off", lambda _: h.power(10_000, "lb-1", state))
    assert shape(check(history), "takeovers", "kind", "at_ms", "ms")[0] == ("takeover", 10_000, 4_900)


def test_a_thawed_machine_still_holds_what_it_held() -> None:
    frozen = h.changed(CLEAN, lambda op: op.get("power") == "off", lambda _: h.power(10_000, "lb-1", "frozen"))
    thawed = h.without(
        frozen,
        lambda op: (
            op.get("power") == "booting"
            or (op.f == "holds" and op["node"] == "lb-1" and 26_400 * h.MS < op.time < 27_800 * h.MS)
        ),
    )
    verdict = check(thawed, owners={})
    assert verdict.outcome == Outcome.INVALID
    assert "both held" in verdict.summary
    (overlap,) = verdict.numbers["overlaps"]
    assert overlap["at_ms"] == 26_400
    assert not [row for row in verdict.numbers["announcements"] if row["at_ms"] == 26_400]


def test_an_old_sample_of_a_dead_machine_counts_for_nothing() -> None:
    assert check(h.with_ops(CLEAN, h.holds(10_200, "lb-1", VIP1))).outcome == Outcome.VALID


def test_a_virtual_ip_that_never_returns_is_invalid() -> None:
    never = h.changed(
        h.without(CLEAN, lambda op: op.f == "arp" and op.get("ip") == VIP1 and op.time > 40_000 * h.MS),
        lambda op: op.process == "owners:lb-1" and op.f == "holds" and op.time > 26_400 * h.MS,
        lambda op: h.holds(op.time / h.MS, "lb-1"),
    )
    verdict = check(never, owners={})
    assert verdict.outcome == Outcome.INVALID
    assert f"{VIP1} had no owner at the end" in verdict.summary


def test_a_virtual_ip_that_never_had_an_owner_is_invalid() -> None:
    never = h.changed(
        CLEAN,
        lambda op: op.f == "holds" and VIP2 in op["vips"],
        lambda op: op.copy(value=op.value | {"vips": [vip for vip in op["vips"] if vip != VIP2]}),
    )
    verdict = check(h.without(never, lambda op: op.get("ip") == VIP2), owners={})
    assert verdict.outcome == Outcome.INVALID
    assert verdict.summary.startswith(f"{VIP2} never had an owner")


@pytest.mark.parametrize(
    ("expected", "outcome"),
    [
        (["lb-1", "lb-2", "lb-1"], Outcome.VALID),
        (["lb-1", "lb-2"], Outcome.INVALID),
        (["lb-1"], Outcome.INVALID),
        (["lb-2", "lb-1"], Outcome.INVALID),
        (["lb-1", "lb-2", "lb-1", "lb-2"], Outcome.INVALID),
    ],
)
def test_the_owners_must_come_in_the_expected_order(expected: list[str], outcome: Outcome) -> None:
    assert check(CLEAN, owners={VIP1: expected}).outcome == outcome


def test_owners_of_an_address_that_is_not_there_cannot_be_judged() -> None:
    assert check(CLEAN, owners={"203.0.113.199": ["lb-1"]}).outcome == Outcome.UNKNOWN


# --- the second witness


@pytest.mark.parametrize("kind", ["request", "reply"])
@pytest.mark.parametrize(
    ("at", "node", "vip"),
    [
        (20_000, "lb-1", VIP1),  # off
        (5_000, "lb-2", VIP1),  # long before its turn
        (45_000, "lb-2", VIP1),  # long after it
        (30_000, "lb-1", VIP2),
        (30_000, "client", VIP1),
        (30_000, "02:66:66:66:66:66", VIP1),
    ],
)
def test_a_claim_by_one_that_does_not_hold_it_is_invalid(at: float, node: str, vip: str, kind: str) -> None:
    verdict = check(h.with_ops(CLEAN, h.arp(at, node, vip, kind, "203.0.113.10")))
    assert verdict.outcome == Outcome.INVALID
    assert f"{node} claimed {vip} in ARP at {at / 1000:.1f} s" in verdict.summary


def test_the_mac_decides_who_claimed_and_not_the_observers_word() -> None:
    lie = h.arp(30_000, "lb-1", VIP1)
    history = h.with_ops(CLEAN, lie.copy(value=lie.value | {"node": "lb-2"}))
    assert check(history).outcome == Outcome.INVALID


def test_a_claim_within_the_delay_of_a_handover_is_tolerated_in_turn_only() -> None:
    assert check(h.with_ops(CLEAN, h.arp(40_300, "lb-2", VIP1))).outcome == Outcome.VALID
    verdict = check(h.with_ops(CLEAN, h.arp(40_970, "lb-2", VIP1)))
    assert verdict.outcome == Outcome.INVALID
    assert "was claimed in ARP by" in verdict.summary


@pytest.mark.parametrize("since", [14_900, 40_900])
def test_an_owner_that_does_not_announce_itself_is_invalid(since: float) -> None:
    def announcement(op: Op) -> bool:
        return bool(op.get("gratuitous")) and since <= op.time / h.MS < since + 5_000

    verdict = check(h.without(CLEAN, announcement))
    assert verdict.outcome == Outcome.INVALID
    assert "did not announce it" in verdict.summary
    answered = h.with_ops(
        h.without(CLEAN, announcement),
        h.arp(since + 100, "lb-2" if since < 20_000 else "lb-1", VIP1, "reply", "203.0.113.10"),
    )
    assert check(answered).outcome == Outcome.INVALID, "an answer to one that asked reaches nobody else"


# --- nobody knows


def silent(who: str, since: float, till: float, history: History = CLEAN) -> History:
    """No op of that process in the time between."""
    return h.without(history, lambda op: op.process == who and since * h.MS < op.time < till * h.MS)


@pytest.mark.parametrize(
    ("history", "says"),
    [
        (h.killed(CLEAN, 30_000), "killed"),
        (h.killed(CLEAN, 12_000), "killed"),
        (silent("owners:lb-2", 50_000, 53_100), "There are no samples of lb-2"),
        (silent("owners:lb-1", 30_000, 33_000), "There are no samples of lb-1"),
        (silent("owners:lb-1", 57_000, 60_001, CLEAN), "There are no samples of lb-1"),
        (silent("arp:internet", 29_000, 32_500), "ARP was not observed"),
        (h.without(CLEAN, lambda op: bool(op.get("alive"))), "ARP was not observed"),
        (h.without(CLEAN, lambda op: op.f == "holds"), "no samples of the directors' addresses"),
        (
            h.without(CLEAN, lambda op: op.get("node") == "lb-1" and op.f in {"holds", "power"}),
            "There are no samples of lb-1",
        ),
        (History([]), "no start"),
        (h.of([h.start()]), "There are no samples"),
    ],
)
def test_times_without_samples_are_unknown(history: History, says: str) -> None:
    verdict = check(history, owners={})
    assert verdict.outcome == Outcome.UNKNOWN, verdict.summary
    assert says in " ".join([verdict.summary, *(finding.sentence for finding in verdict.findings)])


def test_unreadable_samples_are_no_samples() -> None:
    broken = h.changed(
        CLEAN,
        lambda op: op.process == "owners:lb-2" and 50_000 * h.MS <= op.time < 53_000 * h.MS,
        lambda op: op.copy(value="?", error="no JSON"),
    )
    assert check(broken).outcome == Outcome.UNKNOWN


def test_a_short_silence_and_a_dead_machines_silence_are_nothing() -> None:
    assert check(silent("owners:lb-2", 50_000, 51_400)).outcome == Outcome.VALID


def test_a_gap_that_only_a_silent_witness_saw_is_unknown_and_not_invalid() -> None:
    late = replace(PowerCut(probe_every=1000), taken=18_000, announced=18_050).history()
    assert check(late).outcome == Outcome.INVALID
    assert check(silent("owners:lb-2", 12_000, 17_900, late)).outcome == Outcome.UNKNOWN


def test_a_killed_run_does_not_hide_what_it_saw() -> None:
    assert check(h.killed(second_owner(900), 55_000), owners={}).outcome == Outcome.INVALID


def test_what_comes_after_the_feeds_closed_is_not_judged() -> None:
    late_end = h.changed(CLEAN, lambda op: op.f == "end", lambda _: h.end(90_000))
    assert check(late_end).outcome == Outcome.VALID
    unclosed = h.without(late_end, lambda op: op.f == "feed")
    assert check(unclosed).outcome == Outcome.UNKNOWN


def test_before_every_director_spoke_nothing_is_judged() -> None:
    late = h.without(CLEAN, lambda op: op.process == "owners:lb-1" and op.time < 1_900 * h.MS)
    assert check(late).outcome == Outcome.VALID
    assert check(late).numbers["judged_ms"][0] == 2_120


def test_settings_refuse_what_they_do_not_know() -> None:
    with pytest.raises(ValueError, match="overlap"):
        judge(CLEAN, {"ownership": {"overlap": 1}})
    wrong: Mapping[str, Mapping[str, Any]] = {"ownerships": {}}
    with pytest.raises(KeyError, match="known: ownership, outage, recovery"):
        judge(CLEAN, wrong)


@pytest.mark.parametrize(
    ("expected", "outcome"),
    [(["lb-1", "lb-2", "lb-1"], Outcome.UNKNOWN), (["lb-1", "lb-1", "lb-2"], Outcome.INVALID)],
)
def test_a_killed_run_may_have_come_to_the_order_but_not_undo_it(expected: list[str], outcome: Outcome) -> None:
    assert check(h.killed(CLEAN, 30_000), owners={VIP1: expected}).outcome == outcome


def unsampled(history: History, node: str, since: float, till: float) -> History:
    return h.without(
        history, lambda op: op.f == "holds" and op["node"] == node and since * h.MS <= op.time < till * h.MS
    )


def test_samples_that_are_silent_over_a_takeover_accuse_no_one() -> None:
    """The new owner is first seen with the address long after it announced it."""
    for since, till in ((9_000, 20_000), (12_000, 17_600), (14_000, 16_500)):
        verdict = check(unsampled(CLEAN, "lb-2", since, till))
        assert verdict.outcome is not Outcome.INVALID, verdict.findings
    assert check(unsampled(CLEAN, "lb-2", 9_000, 20_000)).outcome is Outcome.UNKNOWN
    mute = h.without(CLEAN, lambda op: op.f == "arp" and op.get("gratuitous") and op["node"] == "lb-2")
    assert check(mute).outcome is Outcome.INVALID


def test_an_address_that_is_dropped_and_taken_again_is_found() -> None:
    kept = unsampled(CLEAN, "lb-2", 16_000, 18_001)
    again = [h.holds(16_000, "lb-2", VIP2), h.holds(18_000, "lb-2", VIP1, VIP2), *h.garp(18_010, "lb-2", VIP1)]
    verdict = check(h.with_ops(kept, *again))
    assert verdict.outcome is Outcome.INVALID
    assert "lb-2 dropped it and took it again" in verdict.summary
    touched = [
        h.fault(15_500, "b", "start", node="lb-2", fault="process.kill"),
        h.fault(15_600, "b", "proof", node="lb-2", fault="process.kill"),
        h.fault(19_000, "b", "end", node="lb-2", fault="process.kill"),
    ]
    assert check(h.with_ops(kept, *again, *touched)).outcome is Outcome.VALID


def test_an_owner_whose_power_is_off_is_unknown() -> None:
    ghost = h.samples("lb-1", 12_000, 20_000, VIP1)
    verdict = check(h.with_ops(CLEAN, *ghost))
    assert verdict.outcome is Outcome.UNKNOWN
    assert "although lb-1 was off since 10.0 s" in verdict.summary
    assert check(h.with_ops(CLEAN, h.holds(10_300, "lb-1", VIP1))).outcome is Outcome.VALID
