"""Planted anomalies of data are found, wrong records are unknown, and right games are not accused."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from harness.checks import judge
from harness.history import History
from harness.verdict import Outcome, Verdict
from tests.support import histories as h
from tests.support.anomalies import NOISY, RECORD, SURE, Plant, merged
from tests.support.examples import tries
from tests.support.games import Game, Site

LITTLE: Mapping[str, Mapping[str, Any]] = {
    "durability": {"acknowledged": 1},
    "linearizable": {"writes": 1, "reads": 1},
    "counters": {"scores": 1, "reads": 1},
    "bank": {"transfers": 1, "reads": 2},
    "uploads": {"uploads": 1, "downloads": 1, "servers": 1},
}
PLANTED = tries(40)
CLEAN_GAMES = tries(100)


def verdicts(history: History) -> dict[str, Verdict]:
    return {verdict.check: verdict for verdict in judge(history, LITTLE)}


def fresh() -> Site:
    """A site without data of an earlier run; all players are rich."""
    return replace(
        Site.used(),
        ledger=[],
        transfers=[],
        profiles=dict.fromkeys((1, 2, 3), ("", 0)),
        scores=dict.fromkeys((1, 2, 3), 0),
        coins=dict.fromkeys((1, 2, 3), 1_000),
    )


def planted(plant: Plant, *, sure: bool) -> list[tuple[int, History]]:
    """Games with one anomaly each."""
    found = []
    for seed in range(4 * PLANTED):
        game = Game(seed, ops=60, sure=sure, site=fresh() if sure else Site.used())
        try:
            found.append((seed, plant(game.history(), random.Random(seed))))
        except IndexError:
            continue  # this game has nothing to plant it in
        if len(found) == PLANTED:
            break
    assert len(found) >= PLANTED / 2
    return found


@pytest.mark.parametrize("name", [*SURE, *NOISY])
def test_every_planted_anomaly_is_found(name: str) -> None:
    plant, check = {**SURE, **NOISY}[name]
    for seed, history in planted(plant, sure=name in SURE):
        verdict = verdicts(history)[check]
        assert verdict.outcome is Outcome.INVALID, (seed, verdict.summary)


@pytest.mark.parametrize("name", RECORD)
def test_a_wrong_record_is_neither_valid_nor_invalid(name: str) -> None:
    for seed, history in planted(RECORD[name], sure=False):
        for verdict in verdicts(history).values():
            assert verdict.outcome is Outcome.UNKNOWN, (seed, verdict)
            assert verdict.findings, (seed, verdict)


@pytest.mark.parametrize("apart_ms", [5, 20, 100])
def test_load_machines_whose_clocks_are_apart_are_not_the_sites_fault(apart_ms: int) -> None:
    """As merged: the start says that times were moved."""
    for seed in range(tries(60)):
        moved = merged(Game(seed, ops=60).history(), ("user:1",), apart_ms)
        opening = h.start().copy(value=h.start().value | {"moved_ms": {"b": 7_000.0}})
        for verdict in verdicts(h.of([opening, *(op for op in moved if op.f != "start")])).values():
            assert verdict.outcome is not Outcome.INVALID, (seed, verdict.summary)


@pytest.mark.parametrize(("off_ms", "most"), [(5, 0), (20, 3), (-100, 12), (2_000, 6)])
def test_a_clock_that_nothing_recorded_is_seldom_taken_for_the_sites_fault(off_ms: int, most: int) -> None:
    """Where it contradicts the others in one op only, nothing distinguishes it from a wrong answer."""
    accused = 0
    for seed in range(tries(60)):
        found = verdicts(merged(Game(seed, ops=60).history(), ("user:1",), off_ms))
        accused += any(verdict.outcome is Outcome.INVALID for verdict in found.values())
    assert accused <= most


@pytest.mark.parametrize(
    ("ops", "users", "span_ms"), [(20, 3, 40), (60, 3, 40), (200, 3, 40), (80, 12, 40), (80, 12, 400), (200, 24, 400)]
)
def test_right_games_are_not_accused(ops: int, users: int, span_ms: int) -> None:
    """The site of a game is right by its construction, which no check reads."""
    for seed in range(CLEAN_GAMES):
        for verdict in verdicts(Game(10_000 + seed, ops=ops, users=users, span_ms=span_ms).history()).values():
            assert verdict.outcome is not Outcome.INVALID, (seed, verdict.summary)
