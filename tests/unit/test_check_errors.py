"""Errors that users saw: allowed during faults and their settling, and found at all other times."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.checks import judge
from harness.history import History, Op
from harness.history.latency import load
from harness.verdict import Outcome, Verdict
from tests.support import clusters as c
from tests.support import histories as h
from tests.support.clusters import Scene
from tests.support.examples import examples

SCENES = st.builds(
    Scene,
    seed=st.integers(0, 10**6),
    faults=st.integers(0, 3),
    holds=st.just((4_000.0, 9_000.0)),
    rests=st.just((9_000.0, 15_000.0)),
)


def check(history: History, **table: Any) -> Verdict:
    (verdict,) = judge(history, {"errors": table})
    return verdict


@examples(100)
@given(scene=SCENES)
def test_errors_under_faults_alone_are_valid(scene: Scene) -> None:
    verdict = check(scene.history(c.users))
    assert verdict.outcome is Outcome.VALID, (scene, verdict.findings)


def spoil(history: History, windows: str, seed: int, kind: str, error: str) -> History:
    """One request of these windows gets another result."""
    table = {
        "calm": lambda at: at < 11_900 * h.MS,
        "late": lambda at: at > max(op.time for op in history.of("fault")) + 9_000 * h.MS,
    }
    good = [op for op in history.of("get") if op.type == "ok" and table[windows](op.time)]
    one = random.Random(seed).choice(good)
    return h.changed(history, lambda op: op == one, lambda op: op.copy(type=kind, error=error))


@pytest.mark.parametrize("window", ["calm", "late"])
@pytest.mark.parametrize(("kind", "error"), [("fail", "status 503"), ("info", "timeout"), ("fail", "status 404")])
def test_a_single_error_that_no_fault_explains_is_found(window: str, kind: str, error: str) -> None:
    for seed in range(15):
        history = spoil(
            Scene(seed, holds=(4_000, 9_000), rests=(20_000, 25_000)).history(c.users), window, seed, kind, error
        )
        verdict = check(history)
        assert verdict.outcome is Outcome.INVALID, seed
        assert error in verdict.summary
        assert verdict.findings[0].evidence
        assert check(history, failed=1, indeterminate=1).outcome is Outcome.VALID


def test_too_many_errors_during_faults_are_invalid() -> None:
    history = Scene(3, holds=(8_000, 9_000)).history(c.users)
    assert check(history, during_percent=90).outcome is Outcome.VALID
    verdict = check(history, during_percent=0.5)
    assert verdict.outcome is Outcome.INVALID
    assert "connection refused" in verdict.summary


def test_the_numbers_name_the_users_the_errors_and_their_windows() -> None:
    verdict = check(Scene(3, holds=(8_000, 9_000)).history(c.users))
    rows = verdict.numbers["errors"]
    assert {row["window"] for row in rows} <= {"during", "settling"}
    assert {row["error"] for row in rows} == {"timeout", "connection refused"}
    assert verdict.numbers["windows"]["before"]["refused"] > 0
    assert all(user.startswith("user:") for user in verdict.numbers["users"])
    assert sum(row["requests"] for row in rows) == sum(
        row["failed"] + row["indeterminate"] for row in verdict.numbers["windows"].values()
    )


def test_a_request_that_overlaps_a_fault_belongs_to_it() -> None:
    """It was sent before the fault and answered during it."""
    history = Scene(3).history(c.users)
    begin = min(op.time for op in history.of("fault")) / h.MS
    asked = {"url": "/", "vip": h.VIP1}
    pair = [
        h.op(begin - 4_000, "user:99", "get", asked, "invoke"),
        h.op(begin + 10, "user:99", "get", asked, "info", error="timeout"),
    ]
    assert check(h.with_ops(history, *pair)).outcome is Outcome.VALID


def test_an_address_without_a_connection_is_not_an_error_if_the_client_tried_the_next_one() -> None:
    history, asked = Scene(3).history(c.users), {"url": "/", "vip": h.VIP1}
    tried = [
        h.op(10, "user:99", "get", asked, "invoke"),
        h.op(20, "user:99", "get", {**asked, "again": True}, "fail", error="not sent: refused"),
        h.op(30, "user:99", "get", asked, "invoke"),
        h.op(40, "user:99", "get", {**asked, "node": "web-1", "status": 200, "ms": 30}, "ok"),
    ]
    verdict = check(h.with_ops(history, *tried))
    assert verdict.outcome is Outcome.VALID
    assert verdict.numbers["windows"]["before"]["again"] == 1
    pairs = load(h.with_ops(history, *tried))["get"]
    assert [pair.ok for pair in pairs if pair.invoke.process == "user:99"] == [True]


def unproven(op: Op) -> bool:
    return op.f == "fault" and op["phase"] == "proof"


@pytest.mark.parametrize(
    ("history", "says"),
    [
        (Scene(1).history(), "Requests while no fault was active: 0"),
        (h.killed(Scene(1).history(c.users), 30_000), "killed"),
        (h.without(Scene(1).history(c.users), unproven), "nothing proves"),
        (
            h.with_ops(Scene(1).history(c.users), h.op(9_000, "load", "feed", {"phase": "lost"})),
            "has gaps",
        ),
        (
            h.without(Scene(1).history(c.users), lambda op: op.process.startswith("user:") and op.time > 20_000 * h.MS),
            "No user sent a request",
        ),
    ],
)
def test_too_little_evidence_is_unknown(history: History, says: str) -> None:
    verdict = check(history)
    assert verdict.outcome is Outcome.UNKNOWN, verdict.summary
    assert says in " ".join(finding.sentence for finding in verdict.findings)


# --- errors end once a fault is out of service


def failing(node: str = "web-4", kind: str = "process.kill", **cluster: Any) -> History:
    """One real server fails for 25 s; nobody sees an error."""
    scene = Scene(5, faults=1, kinds=(kind,), nodes=(node,), holds=(25_000, 25_001), cluster=cluster)
    ops = scene.history(c.users)
    return h.changed(ops, lambda op: op.error in {"timeout", "connection refused"}, _good)


def _good(op: Op) -> Op:
    return op.copy(type="ok", error=None, value={**op.value, "node": "web-2", "status": 200})


def after(history: History, since_ms: float, till_ms: float, many: int = 3, kind: str = "fail") -> History:
    """Some requests sent so long after the proof of the fault fail."""
    proof = next(op.time for op in history.of("fault") if op["phase"] == "proof")
    sent = [
        pair.completion
        for pair in history.pairs("get")
        if pair.ok and since_ms * h.MS <= pair.invoke.time - proof <= till_ms * h.MS
    ]
    bad = {op.index for op in sent[:many] if op is not None}
    assert len(bad) == many
    return h.changed(history, lambda op: op.index in bad, lambda op: op.copy(type=kind, error="status 502"))


@pytest.mark.parametrize("kind", ["fail", "info"])
def test_errors_must_end_when_a_failed_real_server_is_out_of_service(kind: str) -> None:
    assert check(failing()).outcome is Outcome.VALID
    assert check(after(failing(), 0, 10_500, kind=kind)).outcome is Outcome.VALID
    verdict = check(after(failing(), 11_500, 24_000, kind=kind))
    assert verdict.outcome is Outcome.INVALID, verdict.summary
    assert "3 requests failed or got no answer after web-4 (process.kill) had to be out of service" in verdict.summary
    assert check(after(failing(), 11_500, 24_000, kind=kind), out_of_service=3).outcome is Outcome.VALID
    assert check(after(failing(), 11_500, 24_000, kind=kind), out_ms=24_500).outcome is Outcome.VALID


def test_while_the_undo_is_under_way_errors_may_come_back() -> None:
    assert check(after(failing(), 25_100, 26_000, many=1)).outcome is Outcome.VALID


def test_what_all_real_servers_need_may_be_missed_to_the_end() -> None:
    assert check(after(failing("web-1"), 11_500, 24_000)).outcome is Outcome.VALID


def test_a_persistent_service_may_keep_its_clients() -> None:
    assert check(after(failing(persistence_s=300), 11_500, 24_000)).outcome is Outcome.VALID


def test_a_connection_that_is_older_than_the_failure_may_still_break() -> None:
    """A user who had sent nothing since the failure."""
    history = after(failing(), 11_500, 24_000, many=1)
    bad = next(pair for pair in history.pairs("get") if pair.completion and pair.completion.error == "status 502")
    proof = next(op.time for op in history.of("fault") if op["phase"] == "proof")
    earlier = {
        op.index
        for f in ("get", "transfer")
        for pair in history.pairs(f)
        if pair.invoke.process == bad.invoke.process and proof <= pair.invoke.time < bad.invoke.time
        for op in (pair.invoke, pair.completion)
        if op is not None
    }
    idle = h.without(history, lambda op: op.index in earlier)
    assert check(history).outcome is Outcome.INVALID
    assert check(idle).outcome is Outcome.VALID


@pytest.mark.parametrize(("times", "outcome"), [(1, Outcome.INVALID), (1.9, Outcome.VALID), (3, Outcome.UNKNOWN)])
def test_a_slow_machine_notices_later_and_one_that_is_too_slow_cannot_be_judged(times: float, outcome: Outcome) -> None:
    late = (12_000, 13_500) if times < 2 else (14_500, 24_000)
    history = after(failing(pace_ms=30.0), *late)
    paces = [h.op(at, "pace:switch", "pace", {"ms": 30.0 * times}) for at in range(0, 60_000, 1_000)]
    assert check(h.with_ops(history, *paces)).outcome is outcome


def test_a_fault_elsewhere_at_the_same_time_may_explain_them() -> None:
    history = after(failing(), 11_500, 24_000)
    proof = next(op.time for op in history.of("fault") if op["phase"] == "proof") / h.MS
    other = [h.fault(proof + 100, "other", phase, fault="process.kill", node="db") for phase in ("start", "proof")]
    ended = h.fault(proof + 24_900, "other", "end", fault="process.kill", node="db")
    assert check(h.with_ops(history, *other, ended)).outcome is Outcome.VALID


def test_a_fallback_page_is_an_error_that_a_user_sees() -> None:
    history = failing()
    good = [pair.completion for pair in history.pairs("get") if pair.ok and pair.completion][5]
    fallback = h.changed(history, lambda op: op == good, lambda op: op.copy(value={**op.value, "node": None}))
    verdict = check(fallback)
    assert verdict.outcome is Outcome.INVALID
    assert "no real server signed the answer: 1" in verdict.summary
    unsigned = h.changed(
        history, lambda op: op.type == "ok" and op.f == "get", lambda op: op.copy(value={**op.value, "node": None})
    )
    assert check(unsigned).outcome is Outcome.VALID
