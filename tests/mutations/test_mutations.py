"""Every kind of mutation is caught or a documented limit; no right history is accused, with noise or without."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from harness.verdict import Outcome
from tests.mutations import cluster, data
from tests.mutations.kinds import Base, Kind, right, tried
from tests.mutations.noise import NOISES

TIMES, RIGHT = 4, 25
KINDS = (*data.KINDS, *cluster.KINDS)
BASES = tuple({kind.base: None for kind in KINDS})
DOCS = Path(__file__).parents[2] / "docs" / "mutations.md"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.limit], ids=lambda kind: kind.name)
def test_a_kind_is_caught(kind: Kind) -> None:
    result = tried(kind, TIMES)
    assert len(result.outcomes) == TIMES, "it could not be planted"
    assert result.caught == TIMES, result.row
    assert result.said


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.limit], ids=lambda kind: kind.name)
def test_a_limit_is_one_and_is_documented(kind: Kind) -> None:
    result = tried(kind, TIMES)
    assert result.caught == 0, f"it is caught now: {result.said}"
    documented = " ".join(DOCS.read_text().split())
    assert kind.name.removeprefix("limit: ") in documented
    assert kind.limit in documented


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.name)
def test_a_right_history_is_not_accused(base: Base) -> None:
    found = [right(base, seed) for seed in range(RIGHT)]
    assert sum(history is not None for history in found) > RIGHT / 2, "most have enough to be valid"


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("base", BASES, ids=lambda base: base.name)
def test_a_right_history_with_noise_is_not_accused(base: Base, noise: str) -> None:
    for seed in range(4):
        history = NOISES[noise](base.make(seed), random.Random(seed))
        for verdict in base.judge(history):
            assert verdict.outcome is not Outcome.INVALID, (seed, verdict.findings)


def test_there_are_as_many_kinds_as_promised() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    assert len([kind for kind in data.KINDS if not kind.limit]) >= 60
    assert len([kind for kind in cluster.KINDS if not kind.limit]) >= 150
    assert all(kind.why for kind in KINDS)
