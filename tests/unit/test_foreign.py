"""Histories of other harnesses: read in both formats, and judged as a search of all orders does."""

from __future__ import annotations

import json
import random
from collections.abc import Hashable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from harness import foreign
from harness.algorithms.arrays import FOREVER
from harness.algorithms.wing_gong import IMPOSSIBLE, UNKNOWN, Call, linearizable
from harness.cli import main
from harness.errors import UserError
from harness.history import HistoryError
from harness.verdict import Outcome, Verdict
from tests.support.games import Game


def exact(calls: Sequence[Call], first: Hashable) -> bool:
    """Whether an order exists: tries all."""

    def possible(rest: frozenset[int], value: Hashable) -> bool:
        deadline = min((calls[each].end for each in rest), default=FOREVER)
        if deadline == FOREVER:
            return True
        for each in rest:
            call = calls[each]
            if call.start > deadline:
                continue
            if call.reads:
                then: Any = call.value if value in (UNKNOWN, call.value) else IMPOSSIBLE
            elif call.refused:
                then = value if value is UNKNOWN or value != call.expected else IMPOSSIBLE
            else:
                fits = call.expected == "any" or value is UNKNOWN or value == call.expected
                then = call.value if fits else IMPOSSIBLE
            if then is not IMPOSSIBLE and possible(rest - {each}, then):
                return True
        return False

    return possible(frozenset(range(len(calls))), first)


def some(chance: random.Random, number: int) -> list[Call]:
    calls = []
    for _ in range(number):
        start = chance.randint(0, 8)
        end = chance.choice((start + chance.randint(1, 5), start + chance.randint(1, 5), FOREVER))
        value, expected = chance.randint(0, 2), chance.randint(0, 2)
        match chance.choice(("read", "write", "cas", "cas", "refused")):
            case "read":
                calls.append(Call(start, min(end, 20), write=False, value=value))
            case "write":
                calls.append(Call(start, end, write=True, value=value, expected="any"))
            case "cas":
                calls.append(Call(start, end, write=True, value=value, expected=expected))
            case _:
                calls.append(Call(start, min(end, 20), write=True, value=value, expected=expected, refused=True))
    return calls


def plain(call: Call) -> Call:
    return Call(call.start, call.end, call.write, call.value) if call.expected == "any" else call


@pytest.mark.parametrize("first", [UNKNOWN, 0, None])
def test_the_search_agrees_with_all_orders(first: Hashable) -> None:
    chance, found = random.Random(7), []
    for _ in range(1_500):
        calls = some(chance, chance.randint(1, 6))
        truth = exact(calls, first)
        assert linearizable([plain(call) for call in calls], lambda: False, first) is truth, calls
        found.append(truth)
    assert 200 < sum(found) < 1_300


LOG = [
    (0, "invoke", "write", "1"),
    (1, "invoke", "read", "nil"),
    (0, "ok", "write", "1"),
    (1, "ok", "read", "1"),
    (0, "invoke", "cas", "[1 2]"),
    (1, "invoke", "write", "5"),
    (0, "ok", "cas", "[1 2]"),
    (1, "info", "write", ":timed-out"),
    (2, "invoke", "cas", "[3 4]"),
    (2, "fail", "cas", "[3 4]"),
    (2, "invoke", "read", "nil"),
    (2, "ok", "read", "2"),
]


def log(lines: Sequence[tuple[int, str, str, str]]) -> str:
    return "".join(f"INFO  jepsen.util - {line[0]}\t:{line[1]}\t:{line[2]}\t{line[3]}\n" for line in lines)


def objects(lines: Sequence[tuple[int, str, str, str]]) -> str:
    def value(text: str) -> Any:
        return json.loads(text.replace("nil", "null").replace(" ", ",")) if text != ":timed-out" else None

    return "".join(
        json.dumps({"process": line[0], "type": line[1], "f": line[2], "value": value(line[3]), "other": "field"})
        + "\n"
        for line in lines
    )


def judged(path: Path, text: str, *words: str) -> Verdict:
    path.write_text(text)
    return foreign.check(foreign.read(path), foreign.settings(words))


@pytest.mark.parametrize("written", [log, objects])
def test_both_formats_are_judged_alike(tmp_path: Path, written: Any) -> None:
    path = tmp_path / "h"
    assert judged(path, written(LOG)).outcome is Outcome.VALID
    stale = [*LOG[:-1], (2, "ok", "read", "1")]
    assert judged(path, written(stale)).outcome is Outcome.INVALID
    late = [*LOG[:-1], (2, "ok", "read", "5")]  # the write without an answer may have come by now
    assert judged(path, written(late)).outcome is Outcome.VALID


def test_a_refused_compare_and_set_found_another_value(tmp_path: Path) -> None:
    lines = [LOG[0], LOG[2], (0, "invoke", "cas", "[1 2]"), (0, "fail", "cas", "[1 2]"), LOG[1], LOG[3]]
    assert judged(tmp_path / "h", log(lines)).outcome is Outcome.INVALID
    lines[3] = (0, "fail", "cas", ":connection-refused")
    assert judged(tmp_path / "h", log(lines)).outcome is Outcome.VALID


def test_the_first_value_may_be_given(tmp_path: Path) -> None:
    lines = [LOG[1], (1, "ok", "read", "7"), LOG[0], LOG[2]]
    assert judged(tmp_path / "h", log(lines)).outcome is Outcome.VALID
    assert judged(tmp_path / "h", log(lines), "initial=null").outcome is Outcome.INVALID
    assert judged(tmp_path / "h", log(lines), "initial=7").outcome is Outcome.VALID


def test_registers_are_told_apart_by_their_key(tmp_path: Path) -> None:
    ops = [("a", "write", 1), ("b", "write", 2), ("a", "read", 1), ("b", "read", 2)]
    text = "".join(
        json.dumps({"process": 0, "type": kind, "f": f, "value": [key, value]}) + "\n"
        for key, f, value in ops
        for kind in ("invoke", "ok")
    )
    verdict = judged(tmp_path / "h", text, "key=first")
    assert (verdict.outcome, verdict.numbers["registers"]) == (Outcome.VALID, 2)
    assert judged(tmp_path / "h", text.replace('"b", 2', '"a", 2', 1), "key=first").outcome is not Outcome.VALID


def test_a_history_of_ours_is_judged_without_its_versions(tmp_path: Path) -> None:
    words = ("read=profile-read", "write=profile-write", "key=player", "value=motto")
    for seed in range(10):
        lines = [op.line() for op in Game(seed, ops=60, sure=True).history()]
        assert judged(tmp_path / "h", "\n".join(lines), *words).outcome is Outcome.VALID
    writes = [op for op in Game(3, ops=60, sure=True).history() if op.f == "profile-write" and op.type == "ok"]
    old = next(
        one for one, two in pairwise(sorted(writes, key=lambda op: op["player"])) if one["player"] == two["player"]
    )
    ops = list(Game(3, ops=60, sure=True).history())
    last = [op for op in ops if op.f == "profile-read" and op.get("player") == old["player"] and op.type == "ok"][-1]
    lines = [(op if op != last else op.copy(value=op.value | {"motto": old["motto"]})).line() for op in ops]
    assert judged(tmp_path / "h", "\n".join(lines), *words).outcome is Outcome.INVALID


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "Answered reads: 0"),
        (LOG[:1] + LOG[2:3], "Answered reads: 0"),
        ([*LOG, (9, "ok", "read", "2")], "Line 13 is a completion without its invocation"),
    ],
)
def test_what_shows_nothing_is_unknown(tmp_path: Path, lines: list[Any], says: str) -> None:
    verdict = judged(tmp_path / "h", log(lines))
    assert verdict.outcome is Outcome.UNKNOWN
    assert says in " ".join(finding.sentence for finding in verdict.findings)


def test_a_search_that_takes_too_long_is_unknown(tmp_path: Path) -> None:
    lines = [(n, "invoke", "write", str(n)) for n in range(40)] + [(n, "ok", "write", str(n)) for n in range(40)]
    lines += [(99, "invoke", "read", "nil"), (99, "ok", "read", "77")]
    verdict = judged(tmp_path / "h", log(lines), "search_s=0.05")
    assert verdict.outcome is Outcome.UNKNOWN
    assert "hit its limit of 0.05 s" in verdict.summary


@pytest.mark.parametrize(
    "text",
    [
        "what",
        "{",
        '{"process":0}',
        '{"process":0,"type":"maybe","f":"read"}',
        "[" * 500,
        '{"process":[],"type":"ok","f":"read"}',
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "h").write_text(f"{objects(LOG[:1])}{text}\n")
    with pytest.raises(HistoryError, match="line 2 of the history is not an op"):
        foreign.read(tmp_path / "h")


def test_a_compare_and_set_needs_2_values(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"line 1 of the history: the value of cas is not \[expected, new\]"):
        judged(tmp_path / "h", log([(0, "invoke", "cas", "1")]))


@pytest.mark.parametrize("word", ["nonsense=1", "search_s=x", "search_s=0", "nonsense"])
def test_settings_that_there_are_not_are_named(word: str) -> None:
    with pytest.raises(UserError, match=f"cannot set {word.partition('=')[0]}"):
        foreign.settings([word])


def test_a_first_value_is_json() -> None:
    with pytest.raises(UserError, match="initial=what is not JSON"):
        foreign.settings(["initial=what"]).first  # noqa: B018 - reading it is what fails


def test_the_command_exits_with_the_outcome(tmp_path: Path) -> None:
    path = tmp_path / "h"
    path.write_text(log(LOG))
    said = CliRunner().invoke(main, ["check", str(path), "--register", "initial=null"])
    assert said.exit_code == 0, said.output
    path.write_text(log([*LOG[:-1], (2, "ok", "read", "1")]))
    said = CliRunner().invoke(main, ["check", str(path), "--register", "initial=null", "--json"])
    assert said.exit_code == 1
    assert json.loads(said.output)["outcome"] == "invalid"
    assert CliRunner().invoke(main, ["check", str(path), "--register", "nonsense=1"]).exit_code == 2
