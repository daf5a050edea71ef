"""Bank: every read has the same total, no balance is negative, and only transfers change balances."""

from __future__ import annotations

from typing import Any

import pytest

from harness.checks import judge
from harness.history import Op
from harness.verdict import Outcome, Verdict
from tests.support import histories as h


def transfer(at: float, giver: int, taker: int, coins: int, kind: str = "ok") -> list[Op]:
    process = f"user:{at}"
    asked = {"from": giver, "to": taker, "coins": coins, "op": f"a-0-{at}", "vip": h.VIP1}
    reply = asked | ({"first": True} if kind == "ok" else {})
    return [h.op(at, process, "transfer", asked, "invoke"), h.op(at + 5, process, "transfer", reply, kind)]


def coins(at: float, *balances: int, total: int | None = None, ms: float = 5) -> list[Op]:
    process, asked = f"user:{at}", {"vip": h.VIP1}
    table = {str(player): balance for player, balance in enumerate(balances, 1)}
    reply = asked | {"balances": table, "total": sum(balances) if total is None else total}
    return [h.op(at, process, "coins", asked, "invoke"), h.op(at + ms, process, "coins", reply, "ok")]


def check(*ops: list[Op], **table: Any) -> Verdict:
    history = h.of([h.start(), *(op for pair in ops for op in pair), h.end(100_000)])
    (verdict,) = judge(history, {"bank": {"transfers": 1, "reads": 2, **table}})
    return verdict


BEFORE, MOVED = coins(1, 10, 10, 10), transfer(10, 1, 2, 4)


def test_coins_that_only_move_are_valid() -> None:
    verdict = check(BEFORE, MOVED, coins(30, 6, 14, 10))
    assert verdict.outcome is Outcome.VALID, verdict.summary
    assert verdict.summary == "The total was 30 coins in all 2 reads; no balance was negative."
    assert (verdict.numbers["coins_moved"], verdict.numbers["lowest_balance"]) == (4, 6)


@pytest.mark.parametrize(
    ("after", "sentence"),
    [
        (coins(30, 6, 10, 10), "must be 30 coins, but it was 26 at 0.030 s"),
        (coins(30, 6, 14, 10, total=31), "1 read reported a total that is not the sum"),
        (coins(30, -4, 24, 10), "Balances were negative: player 1 (-4)"),
        (coins(30, 6, 14, 10, 0), "other players"),
        (coins(30, 10, 10, 10), "Player 1 had 10 coins at 0.001 s and 10 coins at 0.030 s: 4 off"),
        (coins(30, 2, 18, 10), "4 off"),
        (coins(30, 6, 13, 11), "1 off"),
    ],
    ids=["unfair", "false total", "debt", "a stranger", "lost completely", "made twice", "made by no player"],
)
def test_each_defect_has_its_sentence(after: list[Op], sentence: str) -> None:
    verdict = check(BEFORE, MOVED, after)
    assert verdict.outcome is Outcome.INVALID
    assert any(sentence in finding.sentence for finding in verdict.findings), verdict.findings
    assert verdict.evidence


def test_a_transfer_in_progress_may_be_in_a_read_or_not() -> None:
    for balances in ((10, 10, 10), (6, 14, 10)):
        assert check(BEFORE, MOVED, coins(12, *balances), coins(30, 6, 14, 10)).outcome is Outcome.VALID


def test_an_indeterminate_transfer_may_take_effect_late() -> None:
    unsure = transfer(10, 1, 2, 4, "info")
    sure = transfer(20, 3, 1, 1)
    assert check(BEFORE, unsure, sure, coins(30, 11, 10, 9), coins(40, 7, 14, 9)).outcome is Outcome.VALID
    assert check(BEFORE, unsure, sure, coins(30, 10, 10, 10)).outcome is Outcome.INVALID


def test_a_refused_transfer_moves_nothing() -> None:
    ops = [BEFORE, MOVED, transfer(20, 1, 2, 100, "fail")]
    assert check(*ops, coins(30, 6, 14, 10)).outcome is Outcome.VALID


def test_the_scenario_may_set_the_total() -> None:
    assert check(BEFORE, MOVED, coins(30, 6, 14, 10), total=31).outcome is Outcome.INVALID
    assert check(BEFORE, MOVED, coins(30, 6, 14, 10), total=30).outcome is Outcome.VALID


def test_too_little_evidence_is_unknown() -> None:
    assert check(BEFORE, MOVED, coins(30, 6, 14, 10), transfers=2).outcome is Outcome.UNKNOWN
    assert check(BEFORE, MOVED, coins(30, 6, 14, 10), reads=3).outcome is Outcome.UNKNOWN
    assert check(MOVED).outcome is Outcome.UNKNOWN
