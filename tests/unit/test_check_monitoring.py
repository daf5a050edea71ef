"""Monitoring: Ganglia notices losses and returns, and raises no false alarm."""

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
from tests.support.clusters import Happening, Scene
from tests.support.examples import examples

LONG: dict[str, Any] = {
    "kinds": ("node.power-off", "node.freeze"),
    "holds": (112_000.0, 130_000.0),
    "rests": (75_000.0, 90_000.0),
}

SCENES = st.builds(
    Scene,
    seed=st.integers(0, 10**6),
    faults=st.integers(1, 2),
    nodes=st.sampled_from([c.WEB, ("web-3", "lb-2")]),
    **{name: st.just(value) for name, value in LONG.items()},
)


def check(history: History, **table: Any) -> Verdict:
    (verdict,) = judge(history, {"monitoring": table})
    return verdict


@examples(100)
@given(scene=SCENES)
def test_what_notices_is_valid(scene: Scene) -> None:
    verdict = check(scene.history(c.ganglia))
    assert verdict.outcome is Outcome.VALID, (scene, verdict.findings)
    assert all(60_000 < row["noticed_ms"] <= row["budget_ms"] for row in verdict.numbers["losses"])


def _told(op: Op, node: str, tn_s: float) -> Any:
    return op.value | {"hosts": op["hosts"] | {node: {"tn_s": tn_s, "tmax_s": 20}}}


def never_noticed(op: Op, one: Happening) -> Any:
    return _told(op, one.node, 20)


def noticed_too_late(op: Op, one: Happening) -> Any:
    return _told(op, one.node, 79) if op.time < (one.proof + 108_000) * h.MS else None


def never_back(op: Op, one: Happening) -> Any:
    return _told(op, one.node, 300) if op.time > one.undoing * h.MS else None


def forgotten(op: Op, one: Happening) -> Any:
    hosts = {node: host for node, host in op["hosts"].items() if node != one.node}
    return op.value | {"hosts": hosts} if op.time > one.undoing * h.MS else None


def false_alarm(op: Op, one: Happening) -> Any:
    other = "web-1" if one.node != "web-1" else "web-2"
    return _told(op, other, 81) if 9e9 < op.time < 16e9 else None


def never_watched(op: Op, one: Happening) -> Any:
    other = "web-1" if one.node != "web-1" else "web-2"
    return op.value | {"hosts": {node: host for node, host in op["hosts"].items() if node != other}}


def spoilt(scene: Scene, defect: Callable[[Op, Happening], Any]) -> History:
    one = scene.happenings[0]
    return c.with_values(scene.history(c.ganglia), "ganglia", lambda op: defect(op, one))


@pytest.mark.parametrize("defect", [never_noticed, noticed_too_late, never_back, forgotten, false_alarm, never_watched])
def test_every_defect_is_found(defect: Callable[[Op, Happening], Any]) -> None:
    for seed in range(15):
        verdict = check(spoilt(Scene(seed, faults=1, **LONG), defect))
        assert verdict.outcome is Outcome.INVALID, (seed, verdict.summary)
        assert verdict.findings[0].evidence


def _proof(op: Op) -> bool:
    return op.f == "fault" and op["phase"] == "proof"


CLEAN = Scene(1, faults=1, **LONG)


@pytest.mark.parametrize(
    ("history", "says"),
    [
        (CLEAN.history(), "There are no samples of Ganglia."),
        (Scene(1, faults=0).history(c.ganglia), "No fault took down a node that Ganglia monitors"),
        (Scene(1, faults=1, kinds=("node.power-off",)).history(c.ganglia), "may take to notice it"),
        (
            Scene(1, faults=1, kinds=("real-server.refuse",)).history(c.ganglia),
            "No fault took down a node that Ganglia monitors",
        ),
        (Scene(1, faults=1, nodes=("lb-1",), **LONG).history(c.ganglia), "while gmetad ran undisturbed"),
        (h.without(CLEAN.history(c.ganglia), _proof), "nothing proves"),
        (h.killed(CLEAN.history(c.ganglia), 100_000), "killed"),
        (
            h.without(CLEAN.history(c.ganglia), lambda op: op.f == "ganglia" and 20e9 < op.time < 60e9),
            "no samples of Ganglia from",
        ),
        (
            h.with_ops(CLEAN.history(c.ganglia), h.op(9, "ganglia:lb-1", "ganglia", {"node": "lb-1", "hosts": 7})),
            "read",
        ),
    ],
)
def test_too_little_is_unknown(history: History, says: str) -> None:
    verdict = check(history)
    assert verdict.outcome is Outcome.UNKNOWN, verdict.findings
    assert says in " ".join(finding.sentence for finding in verdict.findings)
