"""Recovery: deadlines, proofs and ends; and the sum of all verdicts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from harness.checks import CHECKS, judge
from harness.history import History, Op
from harness.plan import Condition, Heal, Inject, Step
from harness.verdict import Outcome, Verdict, conclude, invalid, judgement, not_tried, overall, schema, unknown
from tests.support import histories as h
from tests.support.histories import PowerCut

CLEAN = PowerCut(probe_every=1000).history()


def check(history: History) -> Verdict:
    (verdict,) = judge(history, {"recovery": {}})
    return verdict


def altered(f: str, phase: str, /, **values: Any) -> History:
    """The first such op of the step "cut" or of the fault, with other values."""

    def which(op: Op) -> bool:
        return op.f == f and op["phase"] == phase and op.get("step", "cut") == "cut"

    return h.changed(CLEAN, which, lambda op: op.copy(value=op.value | values))


def less(f: str, phase: str) -> History:
    return h.without(CLEAN, lambda op: op.f == f and op["phase"] == phase and op.get("step", "cut") == "cut")


def test_a_clean_power_cut_is_valid() -> None:
    verdict = check(CLEAN)
    assert verdict.outcome == Outcome.VALID, verdict.summary
    assert verdict.summary == "4 steps with a deadline met it; 1 fault proven and undone."
    assert [(row["step"], row["met"], row["took_ms"]) for row in verdict.numbers["steps"]][1] == ("cut", True, 5_310)
    (fault,) = verdict.numbers["faults"]
    assert (fault["label"], fault["proof_ms"], fault["end_ms"]) == ("cut", 10_002, 26_400)


@pytest.mark.parametrize(
    ("history", "outcome", "says"),
    [
        (altered("step", "end", met=False, why="lb-2 holds nothing"), Outcome.INVALID, "lb-2 holds nothing"),
        (altered("step", "end", took_ms=15_001), Outcome.INVALID, "took 15.001 s"),
        (altered("step", "end", within_ms=5_000), Outcome.INVALID, "deadline was 5.0 s"),
        (altered("step", "end", took_ms=1, within_ms=5_000), Outcome.INVALID, "took 5.3 s"),
        (altered("step", "end", met=None), Outcome.UNKNOWN, "was not recorded"),
        (less("step", "end"), Outcome.UNKNOWN, "never ended"),
        (less("step", "begin"), Outcome.UNKNOWN, "begin of step 'cut' was not recorded"),
        (less("fault", "start"), Outcome.UNKNOWN, "start of fault 'cut' (node.power-off) was not recorded"),
        (less("fault", "proof"), Outcome.UNKNOWN, "nothing proves"),
        (less("fault", "end"), Outcome.UNKNOWN, "not undone"),
        (altered("fault", "proof", phase="failed", why="no such cable"), Outcome.UNKNOWN, "no such cable"),
        (altered("fault", "end", phase="failed", why="it would not boot"), Outcome.UNKNOWN, "it would not boot"),
        (h.without(CLEAN, lambda op: op.f == "step"), Outcome.UNKNOWN, "has no steps"),
        (h.killed(CLEAN, 70_000), Outcome.UNKNOWN, "killed"),
        (h.killed(CLEAN, 12_000), Outcome.UNKNOWN, "killed"),
        (History([]), Outcome.UNKNOWN, "no start"),
    ],
)
def test_each_defect_has_its_outcome(history: History, outcome: Outcome, says: str) -> None:
    verdict = check(history)
    assert verdict.outcome == outcome, verdict.summary
    assert says in " ".join([verdict.summary, *(finding.sentence for finding in verdict.findings)])


STEADY = Condition(30)
PLANNED = [
    Step("steady", until=STEADY, hold_s=5),
    Step("cut", Inject("node.power-off", "cut", {"node": "lb-1"}), Condition(15, {h.VIP1: "lb-2"}), hold_s=9),
    Step("power on", Heal("cut"), STEADY),
    Step("steady again", until=STEADY, hold_s=2),
]


def compared(history: History, planned: list[Step]) -> Verdict:
    (verdict,) = judge(history, {"recovery": {}}, planned)
    return verdict


def test_a_run_that_did_what_its_scenario_plans_is_valid() -> None:
    assert compared(CLEAN, PLANNED).outcome is Outcome.VALID


def of_fault(**values: Any) -> History:
    return h.changed(CLEAN, lambda op: op.f == "fault", lambda op: op.copy(value=op.value | values))


def moved(phase: str, at_ms: float) -> History:
    return h.changed(
        CLEAN, lambda op: op.f == "fault" and op["phase"] == phase, lambda op: op.copy(time=round(at_ms * h.MS))
    )


@pytest.mark.parametrize(
    ("history", "says"),
    [
        (
            h.without(CLEAN, lambda op: op.f == "fault"),
            "The scenario injects fault 'cut' (node.power-off); the run did",
        ),
        (
            h.without(CLEAN, lambda op: op.f == "step" and op["step"] == "power on"),
            "Step 3 of the run is 'steady again'; the scenario has 'power on'",
        ),
        (
            h.without(CLEAN, lambda op: op.f == "step" and op["step"] == "steady again"),
            "Step 4 of the scenario is 'steady again'; the run has only 3 steps",
        ),
        (
            h.with_ops(CLEAN, h.step(59_100, "more", "begin"), h.step(59_200, "more", "end", met=None)),
            "Step 5 of the run is 'more'; the scenario has no further step",
        ),
        (of_fault(fault="node.freeze"), "was node.freeze; the scenario injects node.power-off"),
        (of_fault(node="lb-2"), "had node = 'lb-2'; the scenario gives 'lb-1'"),
        (of_fault(node=None), "had node = None"),
        (moved("proof", 26_500), "The undo of fault 'cut' (node.power-off) is before its proof"),
        (moved("proof", 9_990), "started, but nothing proves that it took effect"),
        (moved("end", 20_000), "The undo of fault 'cut' is not within step 'power on'"),
        (moved("start", 5_000), "The start of fault 'cut' is not within step 'cut'"),
        (
            h.with_ops(
                CLEAN, h.fault(45_000, "b", "start"), h.fault(45_001, "b", "proof"), h.fault(46_000, "b", "end")
            ),
            "Fault 'b' (node.power-off) is not in the scenario",
        ),
    ],
)
def test_a_run_that_did_something_else_is_unknown(history: History, says: str) -> None:
    verdict = compared(history, PLANNED)
    sentences = [finding.sentence for finding in verdict.findings]
    assert verdict.outcome is Outcome.UNKNOWN, sentences
    assert any(says in sentence for sentence in sentences), sentences


def test_other_deadlines_pauses_and_settings_of_the_scenario_are_unknown() -> None:
    for number, step, says in (
        (
            1,
            Step("cut", PLANNED[1].action, Condition(16)),
            "had a deadline of 15.0 s; the scenario gives it a deadline",
        ),
        (1, Step("cut", PLANNED[1].action), "the scenario gives it no deadline"),
        (0, Step("steady", until=STEADY, hold_s=8), "The pause after step 'steady' was 6.0 s; the scenario gives it 8"),
        (1, Step("cut", Inject("node.power-off", "cut", {"node": ["lb-2"]}), Condition(15)), None),
    ):
        verdict = compared(CLEAN, [*PLANNED[:number], step, *PLANNED[number + 1 :]])
        assert verdict.outcome is (Outcome.UNKNOWN if says else Outcome.VALID), verdict.findings
        assert says is None or says in verdict.summary


@pytest.mark.parametrize(
    ("clock", "at_s", "says"),
    [
        ("real", 9.99, ""),
        ("real", 9.95, ""),
        ("real", 9.49, "Step 'cut' began 500 ms after its at_s, 9.49 s"),
        ("real", 10.49, "Step 'cut' began 500 ms before its at_s, 10.49 s"),
        ("virtual", 9.99, ""),
        ("virtual", 9.95, "Step 'cut' began 40 ms after its at_s, 9.95 s"),
    ],
)
def test_a_step_that_did_not_begin_at_its_time_is_unknown(clock: str, at_s: float, says: str) -> None:
    history = h.changed(CLEAN, lambda op: op.f == "start", lambda op: op.copy(value=op.value | {"clock": clock}))
    steps = [replace(step, at_s=at_s) if step.name == "cut" else step for step in PLANNED]
    verdict = compared(history, steps)
    assert (verdict.outcome is Outcome.UNKNOWN) == bool(says)
    assert says in verdict.summary


def test_what_a_step_with_a_deadline_missed_stays_invalid_in_another_run() -> None:
    late = altered("step", "end", met=False, why="lb-2 holds nothing")
    assert compared(late, PLANNED[:1]).outcome is Outcome.INVALID


def test_a_step_without_a_deadline_needs_none() -> None:
    hold = [h.step(42_000, "hold", "begin"), h.step(44_000, "hold", "end", met=None)]
    assert check(h.with_ops(CLEAN, *hold)).outcome == Outcome.VALID


def test_each_injection_of_a_label_needs_its_own_proof() -> None:
    again = [h.fault(45_000, "cut", "start"), h.fault(46_000, "cut", "end")]
    assert check(h.with_ops(CLEAN, *again)).outcome == Outcome.UNKNOWN
    assert check(h.with_ops(CLEAN, *again, h.fault(45_500, "cut", "proof"))).outcome == Outcome.VALID


def test_a_feed_that_writes_nonsense_makes_unknown_and_no_traceback() -> None:
    assert check(h.with_ops(CLEAN, h.op(5_000, "run", "step", {}))).outcome == Outcome.UNKNOWN


# --- verdicts


def verdict(outcome: Outcome) -> Verdict:
    return Verdict(check="x", outcome=outcome, summary="")


OK, BAD, WHO = Outcome.VALID, Outcome.INVALID, Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("outcomes", "sum_"),
    [([], WHO), ([OK], OK), ([OK, OK], OK), ([OK, WHO], WHO), ([WHO, OK], WHO), ([WHO, BAD, OK], BAD), ([BAD], BAD)],
)
def test_the_worst_outcome_decides(outcomes: list[Outcome], sum_: Outcome) -> None:
    assert overall([verdict(outcome) for outcome in outcomes]) == sum_


def test_exit_codes() -> None:
    assert (OK.exit_code, BAD.exit_code, WHO.exit_code) == (0, 1, 3)


def test_invalid_comes_first_whatever_was_found_first() -> None:
    concluded = conclude("x", [unknown("u", 3), invalid("i.", 1), unknown("v", 1)], "held", evidence=[9])
    assert concluded.outcome == Outcome.INVALID
    assert concluded.summary == "i (and 2 more)."
    assert concluded.evidence == (1, 3, 9)
    assert conclude("x", [], "held").summary == "held"


def test_verdicts_survive_json_and_its_schema_names_every_field() -> None:
    verdicts = judge(CLEAN, {name: {} for name in CHECKS})
    whole = judgement("director-power-cut", verdicts)
    assert type(whole).model_validate_json(whole.model_dump_json()) == whole
    assert set(json.loads(whole.model_dump_json())) == set(schema()["properties"])
    assert whole.outcome == overall(verdicts)


VALID, INVALID, UNKNOWN = Outcome.VALID, Outcome.INVALID, Outcome.UNKNOWN


def made(check: str, *findings: Any) -> Verdict:
    return conclude(check, findings, "held")


@pytest.mark.parametrize(
    ("verdicts", "outcome"),
    [
        ([made("outage"), made("quiescing", not_tried("no"))], VALID),
        ([made("outage"), made("quiescing", not_tried("no"), unknown("x"))], UNKNOWN),
        ([made("outage", unknown("x")), made("quiescing", not_tried("no"))], UNKNOWN),
        ([made("outage", invalid("x")), made("quiescing", not_tried("no"))], INVALID),
        ([made("quiescing", not_tried("no"))], UNKNOWN),
        ([made("recovery"), made("audit"), made("quiescing", not_tried("no"))], UNKNOWN),
        ([made("recovery"), made("audit")], VALID),
        ([], UNKNOWN),
    ],
)
def test_what_was_not_tried_does_not_count_unless_nothing_was(verdicts: list[Verdict], outcome: Outcome) -> None:
    assert overall(verdicts) is outcome


def test_a_verdict_on_what_was_not_tried_is_unknown() -> None:
    verdict = made("quiescing", not_tried("no"))
    assert (verdict.outcome, verdict.tried) == (Outcome.UNKNOWN, False)
    assert made("outage").tried
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict
