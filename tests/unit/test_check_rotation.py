"""Rotation: all addresses, in a rotation of one list, each first as often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.checks import judge
from harness.history import History, Op
from harness.verdict import Outcome, Verdict
from tests.support import clusters as c
from tests.support import histories as h
from tests.support.clusters import Scene
from tests.support.examples import examples

VIP3, VIP4 = "203.0.113.103", "203.0.113.104"
TWO = {h.VIP1: "lb-1", h.VIP2: "lb-2"}
FOUR = TWO | {VIP3: "lb-1", VIP4: "lb-2"}

SCENES = st.builds(
    Scene,
    seed=st.integers(0, 10**6),
    faults=st.integers(0, 2),
    kinds=st.just(("dns.silent", "node.power-off", "node.freeze")),
    nodes=st.sampled_from([("resolver",), ("web-2", "resolver")]),
    holds=st.just((5_000.0, 9_000.0)),
    # long enough that chance alone does not make answers look clumped, and so too few (of 4,000: not once)
    rests=st.just((90_000.0, 100_000.0)),
    cluster=st.sampled_from([{"vips": TWO}, {"vips": FOUR}]),
)


def check(history: History, **table: Any) -> Verdict:
    (verdict,) = judge(history, {"rotation": table})
    return verdict


@examples(100)
@given(scene=SCENES)
def test_a_right_resolver_is_valid(scene: Scene) -> None:
    # one in a thousand right histories is a chance of one in a thousand: with this alpha, none is
    verdict = check(scene.history(c.dns), alpha=1e-7, short_percent=90)
    assert verdict.outcome is Outcome.VALID, (scene, verdict.findings)


def frozen(op: Op) -> Any:
    return sorted(op["answers"])


def mostly_one(op: Op) -> Any:
    return sorted(op["answers"]) if op["seq"] % 5 else op["answers"]


def one_empty(op: Op) -> Any:
    return [] if op["seq"] == 77 else op["answers"]


def one_missing(op: Op) -> Any:
    return op["answers"][1:] if op["seq"] % 9 == 0 else op["answers"]


def strange(op: Op) -> Any:
    return ["192.0.2.66", *op["answers"][1:]] if op["seq"] == 120 else op["answers"]


def twice(op: Op) -> Any:
    return [op["answers"][0]] * len(op["answers"]) if op["seq"] == 120 else op["answers"]


def shuffled(op: Op) -> Any:
    first, *rest = op["answers"]
    return [first, *reversed(rest)] if op["seq"] % 50 == 3 else op["answers"]


DEFECTS = (frozen, mostly_one, one_empty, one_missing, strange, twice)


@pytest.mark.parametrize(
    ("defect", "vips"),
    # Two addresses have no order but a rotation, so only four can be shuffled.
    [*((defect, vips) for defect in DEFECTS for vips in (TWO, FOUR)), (shuffled, FOUR)],
)
def test_every_defect_is_found(defect: Callable[[Op], Any], vips: dict[str, str]) -> None:
    for seed in range(10):
        history = Scene(seed, faults=0, rests=(60_000, 60_000), cluster={"vips": vips}).history(c.dns)
        spoilt = c.with_values(
            history, "dns", lambda op: op.value | {"answers": defect(op)} if op.type == "ok" else None
        )
        verdict = check(spoilt)
        assert verdict.outcome is Outcome.INVALID, (seed, verdict.summary)
        assert verdict.findings[0].evidence


def test_an_error_is_no_answer() -> None:
    history = Scene(1, faults=0, rests=(60_000, 60_000)).history(c.dns)

    def refused(op: Op) -> Any:
        return op.value | {"rcode": 2, "answers": []} if op.type == "ok" and op["seq"] == 99 else None

    verdict = check(c.with_values(history, "dns", refused))
    assert verdict.outcome is Outcome.INVALID
    assert "were errors" in verdict.summary


def test_answers_under_a_fault_of_the_resolver_are_not_judged() -> None:
    scene = Scene(2, faults=1, kinds=("dns.one-address",), nodes=("web-1",), rests=(60_000, 60_000))
    one = scene.happenings[0]

    def single(op: Op) -> Any:
        if op.type == "ok" and one.proof * h.MS < op.time < one.undoing * h.MS:
            return op.value | {"answers": op["answers"][:1]}
        return None

    spoilt = c.with_values(scene.history(c.dns), "dns", single)
    spoilt = c.with_values(spoilt, "fault", lambda op: op.value | {"node": "resolver"})
    assert check(spoilt).outcome is Outcome.VALID
    assert check(h.without(spoilt, lambda op: op.f == "fault")).outcome is Outcome.INVALID


def test_users_in_step_with_the_probe_may_hide_the_rotation() -> None:
    scene = Scene(3, faults=0, rests=(60_000, 60_000))
    history = c.with_values(
        scene.history(c.dns, c.users), "dns", lambda op: op.value | {"answers": frozen(op)} if op.type == "ok" else None
    )
    verdict = check(history)
    assert verdict.outcome is Outcome.UNKNOWN
    assert "in step with the probe" in verdict.summary
    same = c.with_values(history, "get", lambda op: op.value | {"vip": h.VIP1})
    assert check(same).outcome is Outcome.INVALID


def _proof(op: Op) -> bool:
    return op.f == "fault" and op["phase"] == "proof"


@pytest.mark.parametrize(
    ("history", "says"),
    [
        (Scene(1).history(), "was never asked"),
        (Scene(1, faults=0, rests=(0, 0)).history(c.dns), "are needed"),
        (Scene(1, faults=0, cluster={"vips": {h.VIP1: "lb-1"}}).history(c.dns), "only one virtual IP"),
        (h.killed(Scene(1).history(c.dns), 90_000), "killed"),
        (
            h.renumbered(
                h.without(
                    Scene(1, rests=(60_000, 60_000)).history(c.dns), lambda op: op.f == "dns" and 5e9 < op.time < 9.5e9
                )
            ),
            "was not asked",
        ),
        (
            h.without(Scene(1, nodes=("resolver",), rests=(60_000, 60_000)).history(c.dns), _proof),
            "nothing proves",
        ),
    ],
)
def test_too_little_is_unknown(history: History, says: str) -> None:
    verdict = check(history)
    assert verdict.outcome is Outcome.UNKNOWN, verdict.findings
    assert says in " ".join(finding.sentence for finding in verdict.findings)
