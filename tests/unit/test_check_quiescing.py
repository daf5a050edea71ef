"""Real servers that fail: out in time on both directors, quiet while they are out, and back with their weight."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.checks import judge
from harness.checks.quiescing import QuiescingSettings
from harness.history import History, Op
from harness.verdict import Outcome, Verdict
from tests.support import clusters as c
from tests.support import histories as h
from tests.support.clusters import Happening, Scene
from tests.support.examples import examples

BUDGET_MS = 2_000 + 2 * 3_000 + 3_000
"""checkinterval, one time-out for each VIP, and the margin."""

SCENES = st.builds(
    Scene,
    seed=st.integers(0, 10**6),
    faults=st.integers(1, 2),
    quiescent=st.booleans(),
    rests=st.just((50_000.0, 60_000.0)),
)


def check(history: History, **table: Any) -> Verdict:
    (verdict,) = judge(history, {"quiescing": table})
    return verdict


@examples(100)
@given(scene=SCENES)
def test_a_right_cluster_is_valid(scene: Scene) -> None:
    verdict = check(scene.history(c.tables))
    assert verdict.outcome is Outcome.VALID, (scene.seed, verdict.findings)
    assert verdict.numbers["judged"]["out"] >= 4
    assert verdict.evidence


# --- planted defects


def _series(history: History, scene: Scene, change: Callable[[Op, Happening], Any]) -> History:
    """Every table of the director ``lb-2``, as it would be told of the first failure."""
    first = scene.happenings[0]
    return c.with_values(history, "table", lambda op: change(op, first) if op["node"] == "lb-2" else None)


def stays_in(op: Op, one: Happening) -> Any:
    """The failure is never noticed for one VIP."""
    if one.proof * h.MS <= op.time < one.end * h.MS:
        return c.reweighed(op, h.VIP2, one.node, weight=1)
    return None


def noticed_late(op: Op, one: Happening) -> Any:
    if one.proof * h.MS <= op.time <= (one.proof + BUDGET_MS + 700) * h.MS:
        return c.reweighed(op, h.VIP1, one.node, weight=1)
    return None


def comes_back_too_early(op: Op, one: Happening) -> Any:
    """It gets weight again while it is certainly down."""
    if (one.undoing - 2_000) * h.MS <= op.time <= one.undoing * h.MS:
        return c.reweighed(op, h.VIP1, one.node, weight=1)
    return None


def stays_out(op: Op, one: Happening) -> Any:
    if op.time >= one.undoing * h.MS:
        return c.reweighed(op, h.VIP1, one.node, weight=0)
    return None


def other_weight(op: Op, one: Happening) -> Any:
    if op.time >= one.undoing * h.MS:
        return c.reweighed(op, h.VIP2, one.node, weight=7)
    return None


def removed(op: Op, one: Happening) -> Any:
    if (one.proof + 12_000) * h.MS <= op.time <= (one.proof + 13_000) * h.MS:
        return c.reweighed(op, h.VIP2, one.node, gone=True)
    return None


def made_anew(op: Op, one: Happening) -> Any:
    """It was away between two samples: what was counted of it begins again."""
    if op.time >= (one.undoing + 1_000) * h.MS:
        old = op["vips"][h.VIP2][one.node]
        return c.reweighed(op, h.VIP2, one.node, conns=old["conns"] // 4)
    return None


def gets_connections(op: Op, one: Happening) -> Any:
    """As a persistent client's connections go to a quiesced server that nobody expires."""
    old = op["vips"][h.VIP2].get(one.node)
    more = max(0, round((op.time / h.MS - one.proof) / 1_000))
    return c.reweighed(op, h.VIP2, one.node, conns=old["conns"] + more) if old else None


def needless(op: Op, one: Happening) -> Any:
    if 6_000 * h.MS <= op.time <= 8_000 * h.MS:
        return c.reweighed(op, h.VIP1, "web-5", weight=0)
    return None


def disagree(op: Op, one: Happening) -> Any:
    """For longer than it takes to notice, long before anything is injected."""
    if op.time <= 11_500 * h.MS:
        return c.reweighed(op, h.VIP1, "web-6", weight=0)
    return None


DEFECTS = [
    stays_in,
    noticed_late,
    comes_back_too_early,
    stays_out,
    other_weight,
    removed,
    made_anew,
    gets_connections,
    needless,
]


@pytest.mark.parametrize("defect", DEFECTS)
def test_every_defect_is_found(defect: Callable[[Op, Happening], Any]) -> None:
    for seed in range(12):
        scene = Scene(seed, faults=random.Random(seed).choice((1, 2)))
        verdict = check(_series(scene.history(c.tables), scene, defect))
        assert verdict.outcome is Outcome.INVALID, (seed, verdict.summary)
        assert verdict.findings[0].evidence


def all_out(since: float, till: float, *nodes: str) -> Callable[[Op], Any]:
    """All real servers, or these, are out of service in both tables for a while."""

    def change(op: Op) -> Any:
        if not since * h.MS <= op.time <= till * h.MS:
            return None
        value = op.value
        for vip in (h.VIP1, h.VIP2):
            for node in nodes or c.WEB:
                value = c.reweighed(op.copy(value=value), vip, node, weight=0)
        return value

    return change


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_sound_real_servers_that_go_out_are_found_whenever_it_is(seed: int, when: str) -> None:
    scene = Scene(seed, faults=1, rests=(60_000.0, 60_000.0))
    fault = scene.happenings[0]
    others = [node for node in c.WEB if node != fault.node]
    at = {"before": 2_000.0, "during": fault.proof + 2_000, "after": fault.end + 2_000}[when]
    for nodes in ((), tuple(others), tuple(others[:1])):
        verdict = check(c.with_values(scene.history(c.tables), "table", all_out(at, at + 5_000, *nodes)))
        needless_ones = [each.sentence for each in verdict.findings if "although no fault touched it" in each.sentence]
        assert verdict.outcome is Outcome.INVALID
        assert len(needless_ones) >= min(5, 2 * (len(nodes) or 6)), verdict.findings


def elsewhere(at: float, till: float, node: str) -> list[Op]:
    return [
        h.fault(at, "other", "start", node=node),
        h.fault(at + 100, "other", "proof", node=node),
        h.fault(till, "other", "end", node=node),
    ]


@pytest.mark.parametrize(
    ("node", "says"), [("lb-1", "although no fault touched it"), ("db", "perhaps because it needs")]
)
def test_a_fault_of_another_node_does_not_explain_it(node: str, says: str) -> None:
    scene = Scene(2, faults=1, rests=(60_000.0, 60_000.0))
    at = scene.happenings[0].end + 50_000
    sound = h.with_ops(scene.history(c.tables), *elsewhere(at, at + 8_000, node))
    assert check(sound).outcome is Outcome.VALID, check(sound).findings
    verdict = check(c.with_values(sound, "table", all_out(at + 1_000, at + 6_000, "web-5")))
    assert any(says in finding.sentence for finding in verdict.findings), verdict.findings


def test_directors_that_disagree_are_found_whatever_is_allowed_to_be_needless() -> None:
    scene = Scene(3)
    spoilt = _series(scene.history(c.tables), scene, disagree)
    verdict = check(spoilt, needless=99, out_ms=9_000)
    assert verdict.outcome is Outcome.INVALID
    assert "disagreed on web-6" in verdict.summary


def test_a_director_that_only_quiesces_where_it_should_remove_is_found() -> None:
    scene = Scene(4, quiescent=False)
    first = scene.happenings[0]

    def zero(op: Op) -> Any:
        gone = first.node not in op["vips"][h.VIP1]
        return c.reweighed(op, h.VIP1, first.node, weight=0) if gone else None

    verdict = check(c.with_values(scene.history(c.tables), "table", zero))
    assert verdict.outcome is Outcome.INVALID
    assert "instead of taking it out" in verdict.summary


# --- what nobody can tell


def test_without_tables_it_is_unknown() -> None:
    verdict = check(Scene(1).history())
    assert verdict.outcome is Outcome.UNKNOWN
    assert "There are no samples" in verdict.summary


def test_a_table_of_one_director_only_is_not_enough() -> None:
    history = h.without(Scene(1).history(c.tables), lambda op: op.process == "table:lb-2")
    verdict = check(history)
    assert verdict.outcome is Outcome.UNKNOWN
    assert "table of lb-2" in verdict.summary


def test_a_silent_table_is_unknown() -> None:
    history = h.without(
        Scene(1).history(c.tables), lambda op: op.process == "table:lb-2" and 4_000 < op.time / h.MS < 9_000
    )
    verdict = check(history)
    assert verdict.outcome is Outcome.UNKNOWN
    assert "There are no samples of the table of lb-2" in verdict.summary


def test_a_fault_without_proof_is_unknown() -> None:
    history = h.without(Scene(1, faults=1).history(c.tables), lambda op: op.f == "fault" and op["phase"] == "proof")
    verdict = check(history)
    assert verdict.outcome is Outcome.UNKNOWN
    assert "nothing proves" in verdict.summary


def test_a_failure_shorter_than_the_budget_tests_nothing() -> None:
    verdict = check(Scene(1, holds=(1_000.0, 4_000.0)).history(c.tables))
    assert verdict.outcome is Outcome.UNKNOWN
    assert "ended before a director had to notice" in verdict.summary


def test_no_failure_tests_nothing() -> None:
    verdict = check(Scene(1, faults=0).history(c.tables))
    assert verdict.outcome is Outcome.UNKNOWN
    assert "No fault made a real server fail" in verdict.summary


def test_a_history_that_does_not_say_what_out_means_is_unknown() -> None:
    verdict = check(Scene(1, cluster={"quiescent": None}).history(c.tables))
    assert verdict.outcome is Outcome.UNKNOWN
    assert "does not say" in verdict.summary


def test_a_killed_run_is_unknown() -> None:
    assert check(h.killed(Scene(1).history(c.tables), 40_000)).outcome is Outcome.UNKNOWN


def test_a_table_that_cannot_be_read_is_unknown() -> None:
    broken = h.op(5_000, "table:lb-1", "table", {"node": "lb-1", "vips": {h.VIP1: {"web-1": {"weight": None}}}})
    assert check(h.with_ops(Scene(1).history(c.tables), broken)).outcome is Outcome.UNKNOWN


def test_the_budget_is_the_clusters_own_and_can_be_set() -> None:
    scene = Scene(5, faults=1)
    history = _series(scene.history(c.tables), scene, noticed_late)
    assert check(history).outcome is Outcome.INVALID
    assert check(history, out_ms=BUDGET_MS + 2_000).outcome is Outcome.VALID
    slower = h.changed(history, lambda op: op.f == "start", lambda _: h.start(check_interval_ms=5_000))
    assert check(slower).outcome is Outcome.VALID


def test_a_director_that_boots_is_left_to_fill_its_table() -> None:
    """Its table is empty at first, and nobody minds; before its power went nothing is forgiven."""
    history = Scene(6, faults=1).history(c.tables)
    end = max(op.time for op in history) / h.MS - 100
    cut = end - 40_000

    def empty(op: Op) -> Any:
        booted = op["node"] == "lb-1" and (end - 36_000) * h.MS < op.time < (end - 20_000) * h.MS
        return {**op.value, "vips": {}} if booted else None

    off = h.without(
        c.with_values(history, "table", empty), lambda op: _of_lb_1(op) and cut < op.time / h.MS < end - 36_000
    )
    power = [h.power(cut, "lb-1", "off"), h.power(end - 36_000, "lb-1", "running")]
    fault = [h.fault(cut, "cut", "start"), h.fault(cut + 1, "cut", "proof"), h.fault(end - 36_000, "cut", "end")]
    verdict = check(h.with_ops(off, *power, *fault))
    assert verdict.outcome is Outcome.VALID, verdict.findings
    assert check(h.with_ops(off, *power)).outcome is not Outcome.INVALID
    assert check(off).outcome is Outcome.INVALID


def _of_lb_1(op: Op) -> bool:
    return op.process in {"table:lb-1", "owners:lb-1"} and op.f in {"table", "holds"}


def test_defaults_are_right_for_the_settings() -> None:
    assert QuiescingSettings().needless == 0
