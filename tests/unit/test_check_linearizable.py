"""Linearizable: zones and search agree with an exhaustive search, and the check names what it found."""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.algorithms import monotonic, register_zones, wing_gong
from harness.algorithms.arrays import FOREVER, NEVER, concatenated, flags, ints
from harness.algorithms.wing_gong import Call
from harness.checks import judge
from harness.history import Op
from harness.verdict import Outcome, Verdict
from tests.support import histories as h
from tests.support.examples import examples, tries

FIRST = -1
"""The register's value before all ops."""
RANDOM_CASES = tries(2_500)


def exact(calls: Sequence[Call], first: Hashable = FIRST) -> bool:
    """Whether an order exists; tries them all."""
    tried = set()

    def possible(done: int, value: Hashable) -> bool:
        rest = [place for place in range(len(calls)) if not done >> place & 1]
        if all(calls[place].end == FOREVER for place in rest):
            return True
        if (done, value) in tried:
            return False
        tried.add((done, value))
        deadline = min(calls[place].end for place in rest)
        for place in rest:
            call = calls[place]
            fits = call.write or value is wing_gong.UNKNOWN or call.value == value
            if call.start <= deadline and fits and possible(done | 1 << place, call.value):
                return True
        return False

    return possible(0, first)


def zones(calls: Sequence[Call], first: Hashable = FIRST) -> register_zones.Found:
    """The answer by zones; each value must be written once."""
    known = [*calls, Call(NEVER, NEVER, True, first)]
    codes = {value: code for code, value in enumerate(dict.fromkeys(call.value for call in known))}
    return register_zones.judge(
        register_zones.Ops(
            register=np.zeros(len(known), dtype=np.int64),
            value=ints([codes[call.value] for call in known]),
            write=flags([call.write for call in known]),
            start=ints([call.start for call in known]),
            end=ints([call.end for call in known]),
        )
    )


def unique(shapes: Sequence[tuple[int, int, int]]) -> list[Call]:
    """Calls of (start, length, kind): kinds 0 and 1 write a unique value, 0 without an answer; the others read."""
    values = [place for place, (_, _, kind) in enumerate(shapes) if kind < 2]
    choices = [FIRST, *values, 99]  # no call writes 99
    return [
        Call(
            start,
            FOREVER if kind == 0 else start + length,
            kind < 2,
            place if kind < 2 else choices[kind % len(choices)],
        )
        for place, (start, length, kind) in enumerate(shapes)
    ]


def repeated(shapes: Sequence[tuple[int, int, int]]) -> list[Call]:
    """The same with only three values."""
    return [Call(start, FOREVER if kind == 0 else start + length, kind < 4, kind % 3) for start, length, kind in shapes]


SHAPES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 8), st.integers(0, 9)), max_size=7)


@given(SHAPES)
@examples(200)
def test_zones_are_exact(shapes: list[tuple[int, int, int]]) -> None:
    calls = unique(shapes)
    assert zones(calls).linearizable == exact(calls)


@given(SHAPES)
@examples(200)
def test_the_search_is_exact(shapes: list[tuple[int, int, int]]) -> None:
    calls = repeated(shapes)
    for first in (wing_gong.UNKNOWN, 0):
        assert wing_gong.linearizable(calls, lambda: False, first) is exact(calls, first)


def test_they_agree_in_thousands_of_random_cases() -> None:
    chance = random.Random(7)
    answers = {True: 0, False: 0}
    for _ in range(RANDOM_CASES):
        size = chance.randint(1, 7)
        shapes = [(chance.randint(0, 12), chance.randint(0, 8), chance.randint(0, 9)) for _ in range(size)]
        calls = unique(shapes)
        truth = exact(calls)
        assert zones(calls).linearizable == truth, calls
        assert wing_gong.linearizable(calls, lambda: False, FIRST) is truth, calls
        again = repeated(shapes)
        assert wing_gong.linearizable(again, lambda: False) is exact(again, wing_gong.UNKNOWN), again
        answers[truth] += 1
    assert min(answers.values()) > RANDOM_CASES / 10


def test_many_registers_at_once_are_judged_like_one_after_another() -> None:
    chance = random.Random(3)
    games = [
        unique([(chance.randint(0, 12), chance.randint(0, 8), chance.randint(0, 9)) for _ in range(4)])
        for _ in range(60)
    ]
    known = [(game, call) for game, calls in enumerate(games) for call in (*calls, Call(NEVER, NEVER, True, FIRST))]
    codes = {value: code for code, value in enumerate(dict.fromkeys((game, call.value) for game, call in known))}
    found = register_zones.judge(
        register_zones.Ops(
            register=ints([game for game, _ in known]),
            value=ints([codes[game, call.value] for game, call in known]),
            write=flags([call.write for _, call in known]),
            start=ints([call.start for _, call in known]),
            end=ints([call.end for _, call in known]),
        )
    )
    alone = [zones(calls).counts for calls in games]
    assert found.counts == {kind: sum(counts[kind] for counts in alone) for kind in found.counts}
    assert not found.linearizable


def test_a_search_that_takes_too_long_stops() -> None:
    # concurrent writes of two values and a last read of a third: the search must try every order
    calls = [Call(0, 100, True, number % 2) for number in range(40)] + [Call(200, 201, False, 9)]
    asked = []
    assert wing_gong.linearizable(calls, lambda: not asked.append(1) and len(asked) > 3) is None  # type: ignore[func-returns-value]
    assert len(asked) == 4


def test_zones_reject_a_value_that_was_written_twice() -> None:
    with pytest.raises(ValueError, match="twice"):
        zones([Call(0, 1, True, 5), Call(2, 3, True, 5)])


def test_keys_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="64 bits"):
        concatenated(ints([2**20]), ints([0]), ints([2**50]))


# --- versions


def slow_backsteps(marks: monotonic.Marks) -> set[int]:
    def wrong(early: int, late: int) -> bool:
        before = marks.key[early] == marks.key[late] and marks.end[early] < marks.start[late]
        return bool(before and marks.number[early] > marks.number[late] - marks.write[late])

    size = range(marks.key.size)
    return {late for late in size if any(wrong(early, late) for early in size)}


def test_backsteps_agree_with_a_slow_search() -> None:
    chance = random.Random(11)
    for _ in range(500):
        size = chance.randint(0, 8)
        start = ints([chance.randint(0, 12) for _ in range(size)])
        marks = monotonic.Marks(
            key=ints([chance.randint(0, 1) for _ in range(size)]),
            number=ints([chance.randint(0, 5) for _ in range(size)]),
            write=flags([chance.random() < 0.5 for _ in range(size)]),
            start=start,
            end=start + ints([chance.randint(0, 6) for _ in range(size)]),
        )
        found, truth = monotonic.backsteps(marks), slow_backsteps(marks)
        assert (found.count, {late for _, late in found.examples}) == (len(truth), truth)
        for early, late in found.examples:
            assert marks.key[early] == marks.key[late]
            assert marks.end[early] < marks.start[late]
            assert marks.number[early] > marks.number[late] - marks.write[late]


# --- the check


def write(
    at: float, motto: str, version: int | None = None, *, kind: str = "ok", ms: float = 5, player: int = 1
) -> list[Op]:
    process, asked = f"user:{at}", {"player": player, "motto": motto, "vip": h.VIP1}
    reply = asked if version is None else asked | {"version": version}
    return [h.op(at, process, "profile-write", asked, "invoke"), h.op(at + ms, process, "profile-write", reply, kind)]


def read(at: float, motto: str, version: int, ms: float = 5, player: int = 1) -> list[Op]:
    process, asked = f"user:{at}", {"player": player, "vip": h.VIP1}
    reply = asked | {"motto": motto, "version": version}
    return [h.op(at, process, "profile-read", asked, "invoke"), h.op(at + ms, process, "profile-read", reply, "ok")]


def check(*ops: list[Op], **table: Any) -> Verdict:
    history = h.of([h.start(), *(op for pair in ops for op in pair), h.end(100_000)])
    (verdict,) = judge(history, {"linearizable": {"writes": 1, "reads": 1, **table}})
    return verdict


def test_reads_of_what_was_written_are_valid() -> None:
    verdict = check(read(5, "old", 3), write(10, "a", 4), read(20, "a", 4), write(30, "b", 5), read(40, "b", 5))
    assert verdict.outcome is Outcome.VALID, verdict.summary
    assert verdict.summary == "1 profile is linearizable: 3 reads and 2 changes."
    assert verdict.numbers["reads_of_changes"] == 2


def test_a_stale_read_is_invalid_and_the_evidence_names_the_ops() -> None:
    verdict = check(write(10, "a", 4), write(30, "b", 5), read(40, "a", 4))
    assert verdict.outcome is Outcome.INVALID
    assert verdict.numbers["violations"] == {"stale": 1}
    assert any("'a' and 'b'" in finding.sentence for finding in verdict.findings)
    assert verdict.evidence == (1, 2, 3, 4, 5, 6)


def test_a_write_without_an_answer_may_take_effect_late_or_never() -> None:
    lost = write(10, "a", kind="info")
    assert check(lost, write(30, "b", 5), read(40, "b", 5)).outcome is Outcome.VALID
    assert check(lost, write(30, "b", 5), read(40, "a", 6), read(50, "a", 6)).outcome is Outcome.VALID
    assert check(lost, write(30, "b", 5), read(40, "a", 6), read(50, "b", 7)).outcome is Outcome.INVALID


def test_a_refused_write_must_not_be_read() -> None:
    verdict = check(write(10, "a", kind="fail"), write(30, "b", 5), read(40, "a", 4))
    assert verdict.outcome is Outcome.INVALID
    assert "refused" in verdict.summary


def test_only_one_motto_may_be_from_before_the_run() -> None:
    known = [write(30, "b", 5), read(40, "b", 5)]
    assert check(read(5, "old", 4), *known).outcome is Outcome.VALID
    verdict = check(read(5, "old", 4), read(15, "older", 4), *known)
    assert verdict.outcome is Outcome.INVALID
    assert "no player wrote" in verdict.findings[0].sentence
    assert check(*known, read(50, "old", 5)).outcome is Outcome.INVALID


def test_a_version_belongs_to_one_motto_and_one_change() -> None:
    # no read in between, so the mottos alone are valid
    verdict = check(write(10, "a", 4), write(30, "b", 4), read(40, "b", 4))
    assert verdict.outcome is Outcome.INVALID
    assert any("both assigned version 4 of player 1" in finding.sentence for finding in verdict.findings)
    assert check(write(10, "a", 4), write(30, "b", 3), read(40, "b", 3)).outcome is Outcome.INVALID
    assert check(write(10, "a", 4), read(20, "a", 5), read(40, "a", 5)).outcome is Outcome.INVALID


def test_players_have_their_own_profiles() -> None:
    first = [write(10, "a", 4), write(30, "b", 5), read(40, "b", 5)]
    second = [write(11, "c", 1, player=2), read(41, "c", 1, player=2)]
    verdict = check(*first, *second)
    assert (verdict.outcome, verdict.numbers["players"]) == (Outcome.VALID, 2)


def test_mottos_that_are_not_unique_are_searched() -> None:
    twice = [write(10, "a", 1), write(20, "b", 2), write(30, "a", 3)]
    good = check(*twice, read(40, "a", 3))
    assert (good.outcome, good.numbers["players_searched"]) == (Outcome.VALID, 1)
    # the versions are valid, only the mottos are not
    bad = check(*twice, read(40, "b", 9))
    assert bad.outcome is Outcome.INVALID
    assert any("not linearizable" in finding.sentence for finding in bad.findings)


def test_a_search_without_time_is_unknown() -> None:
    many = [write(10 + place / 100, "ab"[place % 2], kind="ok", ms=500, version=place) for place in range(60)]
    verdict = check(*many, read(1_000, "ab"[1], 99), read(1_100, "ab"[0], 99), search_s=1e-9)
    assert "hit its limit" in " ".join(finding.sentence for finding in verdict.findings)


def test_too_little_evidence_is_unknown() -> None:
    ops = [write(10, "a", 4), read(20, "a", 4)]
    assert check(*ops, reads=2).outcome is Outcome.UNKNOWN
    assert check(*ops, writes=2).outcome is Outcome.UNKNOWN
    assert check(write(10, "a", 4), read(5, "old", 3, ms=1)).outcome is Outcome.UNKNOWN


def test_with_gaps_a_strange_motto_is_unknown() -> None:
    history = h.of(
        [
            h.start(),
            *read(5, "old", 4),
            *write(10, "b", 5),
            *read(20, "b", 5),
            *read(30, "strange", 6),
            h.op(40, "load", "feed", "{", error="unreadable line"),
            h.end(100),
        ]
    )
    table = {"linearizable": {"writes": 1, "reads": 1}}
    assert judge(history, table)[0].outcome is Outcome.UNKNOWN
    whole = h.without(history, lambda op: op.f == "feed")
    assert judge(whole, table)[0].outcome is Outcome.INVALID
    assert judge(h.of(op.copy() for op in whole), table) == judge(whole, table)
