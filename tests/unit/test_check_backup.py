"""Backups: recent enough while no fault touches them, and restored when a restore is attempted."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.checks import judge
from harness.history import History, Op
from harness.verdict import Outcome, Verdict
from tests.support import histories as h
from tests.support.examples import examples

END = 400_000
KEEPERS = {"database": "web-3", "uploads": "web-2"}


def samples(seed: int) -> list[Op]:
    """A sample of each backup every 5 s; a new one arrives every minute, except for one in ten."""
    chance = random.Random(seed)
    ops = []
    for of, node in KEEPERS.items():
        made = -chance.uniform(0, 50_000)
        due = made + 60_000
        missed = False
        for at in range(300, END - 1_000, 5_000):
            if at >= due:
                missed = not missed and chance.random() < 0.1
                made = made if missed else at - chance.uniform(0, 3_000)
                due += 60_000 + chance.uniform(0, 4_000)
            age_s = round((at - made) / 1_000, 1)
            ops.append(h.op(at, f"backup:{of}", "backup", {"of": of, "node": node, "age_s": age_s}))
    return ops


def run(seed: int, *more: Op) -> History:
    return h.of([h.start(), *samples(seed), *more, h.end(END)])


def proof(at: float, kind: str = "ok", why: str | None = None) -> Op:
    return h.op(at, "prove-backup", "prove-backup", {"of": "database"}, kind, error=why)


def check(history: History, **table: Any) -> Verdict:
    (verdict,) = judge(history, {"backup": table})
    return verdict


@examples(200)
@given(seed=st.integers(0, 10**6), restored=st.booleans())
def test_regular_backups_are_valid(seed: int, restored: bool) -> None:
    verdict = check(run(seed, *([proof(9_000)] if restored else [])), fresh=3, proofs=int(restored))
    assert verdict.outcome is Outcome.VALID, verdict.findings


def aged(history: History, of: str, since: float) -> History:
    """The history without new backups since then."""
    known: dict[str, float] = {}

    def older(op: Op) -> Op:
        if op.f != "backup" or op["of"] != of or op.time < since * h.MS:
            return op
        known.setdefault("made", op.time / 1e9 - op["age_s"])
        return op.copy(value=op.value | {"age_s": round(op.time / 1e9 - known["made"], 1)})

    return h.changed(history, lambda _: True, older)


@pytest.mark.parametrize("of", list(KEEPERS))
def test_backups_that_stop_are_found(of: str) -> None:
    for seed in range(15):
        verdict = check(aged(run(seed), of, 100_000))
        assert verdict.outcome is Outcome.INVALID, seed
        assert of in verdict.summary
        assert verdict.findings[0].evidence
        assert check(aged(run(seed), of, 100_000), age_ms=400_000).outcome is Outcome.VALID


def test_a_missing_new_backup_is_found() -> None:
    assert check(aged(run(1), "database", 0), age_ms=900_000, fresh=1).outcome is Outcome.INVALID


def test_a_failed_restore_is_always_invalid() -> None:
    verdict = check(run(1, proof(9_000), proof(20_000, "fail", "table ledger is damaged")))
    assert verdict.outcome is Outcome.INVALID
    assert "table ledger is damaged" in verdict.summary


def test_a_fault_on_the_node_that_keeps_the_backup_excuses_its_age() -> None:
    old = aged(run(1), "database", 60_000)
    fault = [
        h.fault(70_000, "off", "start", node="web-3"),
        h.fault(70_100, "off", "proof", node="web-3"),
        h.fault(370_000, "off", "end", node="web-3"),
    ]
    assert check(h.with_ops(old, *fault)).outcome is Outcome.VALID
    other = [h.fault(op.time / h.MS, "off", op["phase"], node="web-5") for op in fault]
    assert check(h.with_ops(old, *other)).outcome is Outcome.INVALID


def late(op: Op) -> bool:
    return op.f == "backup" and op["of"] == "uploads" and 50_000 < op.time / h.MS < 90_000


def future(op: Op) -> Op:
    return op.copy(value=op.value | {"age_s": -3_600.0})


@pytest.mark.parametrize(
    ("history", "table", "says"),
    [
        (h.without(run(1), lambda op: op.f == "backup"), {}, "has 0 samples; at least 3 are needed"),
        (h.without(run(1), lambda op: op.f == "backup" and op["of"] == "uploads"), {}, "backup of the uploads"),
        (h.without(run(1), late), {}, "There are no samples"),
        (h.changed(run(1), late, future), {}, "time stamp in the future"),
        (run(1), {"proofs": 1}, "0 backups were restored; at least 1 must be"),
        (
            run(1, proof(9_000, "info", "the keeper is off")),
            {"proofs": 1},
            "must be. The last attempt: the keeper is off.",
        ),
        (h.killed(run(1), 200_000), {}, "killed"),
        (h.with_ops(run(1), h.op(7_000, "backup:x", "backup", {"of": "uploads", "age_s": "old"})), {}, "not a number"),
    ],
)
def test_too_little_evidence_is_unknown(history: History, table: dict[str, Any], says: str) -> None:
    verdict = check(history, **table)
    assert verdict.outcome is Outcome.UNKNOWN, verdict.findings
    assert says in " ".join(finding.sentence for finding in verdict.findings)
