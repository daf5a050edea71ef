"""Counters and bank share an algorithm: its bounds agree with a slow search and are sound. Then the check counters."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from harness.algorithms import sum_bounds
from harness.algorithms.arrays import FOREVER, ints
from harness.checks import judge
from harness.history import History, Op
from harness.verdict import Outcome, Verdict
from tests.support import histories as h
from tests.support.examples import examples

Add = tuple[int, int, int, int]
"""key, amount, start, length (0: never answered)."""
Read = tuple[int, int, int, int]
"""key, value, start, length."""

ADDS = st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 5), st.integers(0, 12), st.integers(0, 6)), max_size=5)
READS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 12), st.integers(0, 14), st.integers(0, 4)), max_size=4)


def arrays(adds: Sequence[Add], reads: Sequence[Read]) -> tuple[sum_bounds.Adds, sum_bounds.Reads]:
    added = sum_bounds.Adds(
        key=ints([key for key, *_ in adds]),
        amount=ints([amount for _, amount, *_ in adds]),
        start=ints([start for *_, start, _ in adds]),
        end=ints([start + length if length else FOREVER for *_, start, length in adds]),
    )
    read = sum_bounds.Reads(
        key=ints([key for key, *_ in reads]),
        value=ints([value for _, value, *_ in reads]),
        start=ints([start for *_, start, _ in reads]),
        end=ints([start + length for *_, start, length in reads]),
        own=ints([0] * len(reads)),
    )
    return added, read


def slow_bounds(adds: sum_bounds.Adds, reads: sum_bounds.Reads, place: int) -> tuple[int, int]:
    least = most = 0
    for add in range(adds.key.size):
        if adds.key[add] == reads.key[place]:
            amount = int(adds.amount[add])
            sure = adds.end[add] < reads.start[place]
            maybe = adds.start[add] <= reads.end[place]
            least += amount if (sure if amount > 0 else maybe) else 0
            most += amount if (maybe if amount > 0 else sure) else 0
    return least, most


def possible(adds: sum_bounds.Adds, reads: sum_bounds.Reads, key: int, first: int) -> bool:
    """Tries all orders of one sum's ops."""
    ops: list[tuple[int, int, int, int | None]]
    ops = [(int(adds.start[at]), int(adds.end[at]), int(adds.amount[at]), None) for at in _of(adds.key, key)]
    ops += [(int(reads.start[at]), int(reads.end[at]), 0, int(reads.value[at])) for at in _of(reads.key, key)]

    def go(rest: frozenset[int], value: int) -> bool:
        if all(ops[at][1] == FOREVER for at in rest):
            return True
        deadline = min(ops[at][1] for at in rest)
        return any(
            ops[at][0] <= deadline and ops[at][3] in (None, value) and go(rest - {at}, value + ops[at][2])
            for at in rest
        )

    return go(frozenset(range(len(ops))), first)


def _of(keys: Any, key: int) -> list[int]:
    return [place for place, one in enumerate(keys) if one == key]


def agree(added: Sequence[Add], read: Sequence[Read]) -> int:
    """The number of sums that were found impossible."""
    adds, reads = arrays(added, read)
    least, most = sum_bounds.bounds(adds, reads)
    slow = [slow_bounds(adds, reads, place) for place in range(reads.key.size)]
    assert [(int(low), int(high)) for low, high in zip(least, most, strict=True)] == slow
    for beginning in ((0, FOREVER), (2, 2)):
        clashes = {clash.key: clash for clash in sum_bounds.clashes(adds, reads, beginning)}
        for key in (0, 1):
            mine = _of(reads.key, key)
            floor = max([beginning[0], *(int(reads.value[at]) - slow[at][1] for at in mine)])
            ceiling = min([beginning[1], *(int(reads.value[at]) - slow[at][0] for at in mine)])
            assert (key in clashes) == bool(mine and floor > ceiling)
            if key in clashes:
                assert clashes[key].by == floor - ceiling
                # sound: no first value makes it possible
                tried = range(beginning[0], min(beginning[1], 25) + 1)
                assert not any(possible(adds, reads, key, first) for first in tried)
    return len(clashes)


@given(ADDS, READS)
@examples(200)
def test_the_bounds_are_exact_and_what_they_reject_is_impossible(adds: list[Add], reads: list[Read]) -> None:
    agree(adds, reads)


def test_they_are_exact_in_a_thousand_random_cases() -> None:
    chance = random.Random(5)
    rejected = 0
    for _ in range(1_000):
        adds = [
            (chance.randint(0, 1), chance.randint(-3, 5), chance.randint(0, 12), chance.randint(0, 6))
            for _ in range(chance.randint(0, 4))
        ]
        reads = [
            (chance.randint(0, 1), chance.randint(0, 12), chance.randint(0, 14), chance.randint(0, 4))
            for _ in range(chance.randint(0, 4))
        ]
        rejected += agree(adds, reads)
    assert rejected > 200


# --- the check


def score(at: float, points: int, total: int | None, kind: str = "ok", **more: Any) -> list[Op]:
    process, asked = f"user:{at}", {"player": 1, "points": points, "op": f"a-0-{at}", "vip": h.VIP1}
    reply = asked | ({} if total is None else {"total": total, "entry": 1, "first": True}) | more
    return [h.op(at, process, "score", asked, "invoke"), h.op(at + 5, process, "score", reply, kind)]


def read(at: float, total: int, entries: int, player: int = 1) -> list[Op]:
    process, asked = f"user:{at}", {"player": player, "vip": h.VIP1}
    reply = asked | {"total": total, "entries": entries}
    return [h.op(at, process, "score-read", asked, "invoke"), h.op(at + 5, process, "score-read", reply, "ok")]


def history(*ops: list[Op]) -> History:
    return h.of([h.start(), *(op for pair in ops for op in pair), h.end(100_000)])


def check(*ops: list[Op], **table: Any) -> Verdict:
    (verdict,) = judge(history(*ops), {"counters": {"scores": 1, "reads": 1, **table}})
    return verdict


def test_points_that_add_up_are_valid() -> None:
    verdict = check(read(1, 100, 7), score(10, 5, 105), score(20, 7, 112), read(30, 112, 9))
    assert verdict.outcome is Outcome.VALID, verdict.summary
    assert (verdict.numbers["points_acknowledged"], verdict.numbers["points_attempted"]) == (12, 12)


def test_lost_points_are_invalid_and_the_evidence_names_the_ops() -> None:
    verdict = check(read(1, 100, 7), score(10, 5, 105), read(30, 100, 8))
    assert verdict.outcome is Outcome.INVALID
    assert "had 100 points at 0.030 s, at least 5 fewer" in verdict.summary
    assert set(verdict.evidence) >= {5, 6}


def test_points_from_nowhere_are_invalid() -> None:
    verdict = check(read(1, 100, 7), score(10, 5, 105), read(30, 106, 8))
    assert verdict.outcome is Outcome.INVALID
    assert "at least 1 more than were ever attempted" in verdict.summary


def test_lost_entries_are_invalid() -> None:
    assert check(read(1, 100, 7), score(10, 5, 105), read(30, 105, 7)).outcome is Outcome.INVALID


def test_an_indeterminate_score_may_count_or_not() -> None:
    asked = [read(1, 100, 7), score(10, 5, None, "info"), score(20, 1, 101)]
    assert check(*asked, read(30, 101, 8)).outcome is Outcome.VALID
    assert check(*asked, read(30, 106, 9)).outcome is Outcome.VALID
    assert check(*asked, read(30, 106, 9), read(40, 101, 8)).outcome is Outcome.INVALID
    assert check(*asked, read(30, 107, 9)).outcome is Outcome.INVALID


def test_a_refused_score_does_not_count() -> None:
    assert check(read(1, 0, 0), score(10, 5, None, "fail"), score(20, 1, 6), read(30, 6, 2)).outcome is Outcome.INVALID


def test_the_first_points_are_known_on_a_fresh_lab_only() -> None:
    ops = [score(20, 1, 101), read(30, 101, 8)]
    assert check(*ops).outcome is Outcome.VALID
    assert check(*ops, fresh=True).outcome is Outcome.INVALID
    # points cannot be negative
    assert check(score(20, 10, 10), score(30, 10, 20), read(40, 10, 2)).outcome is Outcome.INVALID


def test_two_scores_cannot_return_the_same_total() -> None:
    verdict = check(read(1, 100, 7), score(10, 5, 105), score(12, 5, 105), read(40, 110, 9))
    assert verdict.outcome is Outcome.INVALID
    assert any("both returned 105 points" in finding.sentence for finding in verdict.findings)


def test_a_score_that_was_sent_again_counts_once() -> None:
    first, again = score(10, 5, None, "info"), score(20, 5, 105, first=False)
    again = [h.op(op.time / h.MS, "user:9", "score", op.value | {"op": first[0]["op"]}, op.type) for op in again]
    assert check(read(1, 100, 7), first, again, read(30, 105, 8)).outcome is Outcome.VALID
    assert check(read(1, 100, 7), first, again, read(30, 110, 9)).outcome is Outcome.INVALID


def test_with_gaps_too_many_points_are_unknown_and_too_few_are_invalid() -> None:
    lost = h.op(50, "load", "feed", {"phase": "lost", "why": "gone"})
    table = {"counters": {"scores": 1, "reads": 1}}
    more = h.with_ops(history(read(1, 100, 7), score(10, 5, 105), read(30, 106, 8)), lost)
    assert judge(more, table)[0].outcome is Outcome.UNKNOWN
    less = h.with_ops(history(read(1, 100, 7), score(10, 5, 105), read(30, 100, 8)), lost)
    assert judge(less, table)[0].outcome is Outcome.INVALID


def test_too_little_evidence_is_unknown() -> None:
    ops = [score(20, 1, 101), read(30, 101, 8)]
    assert check(*ops, scores=2).outcome is Outcome.UNKNOWN
    assert check(*ops, reads=2).outcome is Outcome.UNKNOWN
