"""A history in the shape that Jepsen's tools read: integer clients that end with their first info, the rest apart."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.history import History, Op
from harness.history.jepsen import MODELS, export
from tests.support import games
from tests.support import histories as h
from tests.support.histories import PowerCut
from tests.support.stored import make_run


def player(at: float, f: str, kind: str, process: str = "user:0", **value: Any) -> Op:
    return h.op(at, process, f, value, kind)


def processes(history: History, of: str = "all") -> list[int | str]:
    return [op["process"] for op in export(history, of)]


def test_clients_are_integers_and_the_rest_is_the_nemesis() -> None:
    history = h.of(
        [
            h.start(),
            player(1, "get", "invoke", "user:7"),
            player(2, "get", "invoke", "user:3"),
            h.fault(3, "cut", "start"),
            player(4, "get", "fail", "user:3"),
            player(5, "get", "ok", "user:7"),
            player(6, "get", "invoke", "user:3"),
        ]
    )
    assert processes(history) == ["nemesis", 0, 1, "nemesis", 1, 0, 1]


def test_a_client_whose_result_is_unknown_is_another_one_afterwards() -> None:
    kinds = ["invoke", "info", "invoke", "ok", "invoke", "invoke", "ok"]
    history = h.of([player(at, "get", kind) for at, kind in enumerate(kinds)])
    assert processes(history) == [0, 0, 1, 1, 1, 2, 2]
    assert [op["line"] for op in export(history, "all")] == list(range(7))


def well_formed(ops: list[dict[str, Any]]) -> None:
    """What jepsen.history asks of a history."""
    assert [op["index"] for op in ops] == list(range(len(ops)))
    assert all(before["time"] <= after["time"] for before, after in pairwise(ops))
    open_: dict[int, Any] = {}
    ended: set[int] = set()
    for op in ops:
        process = op["process"]
        if process == "nemesis":
            assert op["type"] == "info"
        elif op["type"] == "invoke":
            assert process not in open_
            assert process not in ended
            open_[process] = op["f"]
        else:
            assert open_.pop(process) == op["f"]
            ended |= {process} if op["type"] == "info" else set()


@pytest.mark.parametrize("of", MODELS)
@pytest.mark.parametrize("history", [PowerCut(probe_every=500).history(), games.Game(3).history()], ids=["cut", "game"])
def test_every_export_is_well_formed(history: History, of: str) -> None:
    well_formed(list(export(history, of)))


def test_profiles_are_registers_in_the_words_of_elle() -> None:
    history = h.of(
        [
            player(1, "profile-read", "invoke", player=1),
            player(2, "profile-read", "ok", player=1, motto="old", version=3),
            player(3, "profile-write", "invoke", player=1, motto="a"),
            player(4, "profile-write", "info", player=1, motto="a"),
            player(5, "profile-read", "invoke", player=1),
            player(6, "profile-read", "ok", player=1, motto="a", version=4),
            player(7, "score", "invoke", player=1, points=3),
            player(8, "profile-read", "invoke", "user:1", player=1),
            player(9, "profile-read", "ok", "user:1", player=1, motto="from nowhere"),
        ]
    )
    exported = [(op["process"], op["type"], op["f"], op["value"]) for op in export(history, "profiles")]
    assert exported == [
        (0, "invoke", "txn", [["r", 1, None]]),
        (0, "ok", "txn", [["r", 1, None]]),
        (0, "invoke", "txn", [["w", 1, "a"]]),
        (0, "info", "txn", [["w", 1, "a"]]),
        (1, "invoke", "txn", [["r", 1, None]]),
        (1, "ok", "txn", [["r", 1, "a"]]),
        (2, "invoke", "txn", [["r", 1, None]]),
        (2, "ok", "txn", [["r", 1, "from nowhere"]]),
    ]


def test_coins_are_a_bank_in_the_words_of_jepsen(tmp_path: Path) -> None:
    asked = {"from": 1, "to": 2, "coins": 5, "op": "x"}
    history = h.of(
        [
            h.op(1, "user:0", "transfer", asked, "invoke"),
            h.op(2, "user:0", "transfer", asked, "ok"),
            player(3, "coins", "invoke"),
            player(4, "coins", "ok", balances={"1": 95, "2": 105}, total=200),
        ]
    )
    run = make_run(tmp_path / "run", history)
    done = CliRunner().invoke(main, ["history", str(run), "--of", "coins"])
    exported = json.loads(done.stdout)
    assert [(op["f"], op["value"]) for op in exported] == [
        ("transfer", {"from": 1, "to": 2, "amount": 5}),
        ("transfer", {"from": 1, "to": 2, "amount": 5}),
        ("read", None),
        ("read", {"1": 95, "2": 105}),
    ]
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, 4)
    (run / "scenario.toml").unlink()
    assert CliRunner().invoke(main, ["history", str(run)]).exit_code == 0
