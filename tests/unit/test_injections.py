"""What a history says of its faults: what they did, and which nodes they may affect."""

from __future__ import annotations

from typing import Any

import pytest

from harness.checks import judge
from harness.history import History, HistoryError
from harness.history.injections import Injection, failed_servers, injections, taken_down, unproven, unrecorded
from tests.support import histories as h

CLEAN = h.PowerCut().history()


def history(effects: Any, **settings: Any) -> History:
    value = {"fault": "any.fault", **settings}
    ops = [h.op(5_000 + n, "fault:x", "fault", value | {"phase": phase}) for n, phase in enumerate(("start", "end"))]
    proof = h.op(5_000.5, "fault:x", "fault", value | {"phase": "proof", "effects": effects})
    return h.of([h.start(), ops[0], proof, ops[1], h.end(20_000)])


def injection(effects: Any, **settings: Any) -> Injection:
    (found,) = injections(history(effects, **settings))
    return found


def effect(kind: str, node: str = "web-4", service: str = "") -> dict[str, str]:
    return {"kind": kind, "node": node, "service": service}


@pytest.mark.parametrize(
    ("effects", "down", "failed"),
    [
        ([effect("node-down")], {"web-4"}, {"web-4"}),
        ([effect("cuts-path")], {"web-4"}, {"web-4"}),
        ([effect("node-down", "lb-1")], {"lb-1"}, set()),
        ([effect("node-down", node) for node in ("web-1", "lb-2")], {"web-1", "lb-2"}, {"web-1"}),
        ([effect("changes-answers", service="apache"), effect("fails-check", service="apache")], set(), {"web-4"}),
        ([effect("service-down", service="gmond")], set(), set()),
        ([effect("slows")], set(), set()),
        ([], set(), set()),
        (None, set(), set()),
    ],
)
def test_effects_say_which_nodes_are_down_and_which_fail_the_check(effects: Any, down: Any, failed: Any) -> None:
    recorded = history(effects, node="web-4")
    (found,) = injections(recorded)
    assert (taken_down(found), failed_servers(recorded, found)) == (down, failed)


@pytest.mark.parametrize(
    ("effects", "settings", "touched"),
    [
        ([effect("slows")], {"node": "web-4"}, {"web-4"}),
        ([effect("slows")], {"cable": "web-4.eth0"}, {"web-4"}),
        ([], {"nodes": ["web-4", "lb-1"]}, {"web-4", "lb-1"}),
        ([effect("service-down", "db", "mariadb")], {}, {"web-4", "lb-1", "db"}),
        ([effect("impairs-path", "lb-1"), effect("impairs-path", "lb-2")], {"node": "lb-1"}, {"web-4", "lb-1", "db"}),
        (None, {"node": "web-4"}, {"web-4", "lb-1", "db"}),
    ],
)
def test_a_fault_that_acts_on_several_nodes_or_whose_reach_is_unknown_may_affect_any(
    effects: Any, settings: dict[str, Any], touched: set[str]
) -> None:
    found = injection(effects, **settings)
    assert {node for node in ("web-4", "lb-1", "db") if found.touches(node)} == touched


def test_without_proof_nothing_is_certain_and_only_the_named_node_is_affected() -> None:
    (found,) = injections(h.without(history(None, node="web-4"), lambda op: op.get("phase") == "proof"))
    assert (found.sure, found.touches("web-4"), found.touches("web-5")) == (None, True, False)
    assert len(list(unproven([found]))) == 1
    assert not list(unrecorded([found]))


def test_a_proof_without_effects_is_unknown() -> None:
    (finding,) = unrecorded([injection(None, node="web-4")])
    assert finding.sentence == "The effects of fault 'x' (any.fault) were not recorded."
    assert not list(unrecorded([injection([], node="web-4")]))


@pytest.mark.parametrize("effects", [3, ["x"], [{"kind": "eats-cables", "node": "web-4"}], [{"kind": "slows"}]])
def test_effects_that_cannot_be_read_are_an_error_in_the_history(effects: Any) -> None:
    with pytest.raises(HistoryError, match=r"op 2 \(fault\): its effects cannot be read"):
        injection(effects, node="web-4")


def test_a_valid_verdict_of_a_check_that_reads_effects_is_unknown_without_them() -> None:
    settings: dict[str, dict[str, Any]] = {"outage": {}, "ownership": {}}
    assert [verdict.outcome for verdict in judge(CLEAN, settings)] == ["valid", "valid"]
    older = h.changed(
        CLEAN,
        lambda op: op.get("phase") == "proof",
        lambda op: op.copy(value={key: value for key, value in op.value.items() if key != "effects"}),
    )
    outage, ownership = judge(older, settings)
    assert (outage.outcome, ownership.outcome) == ("unknown", "valid")
    assert outage.summary == "The effects of fault 'cut' (node.power-off) were not recorded."
