"""Small histories, each with one thing in it that its name says, have the right outcome."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.checks import judge
from harness.history import load
from harness.verdict import Outcome, overall

CASES = sorted((Path(__file__).parents[1] / "cases" / "histories").glob("*.jsonl"))

LITTLE: Mapping[str, Mapping[str, Any]] = {
    "durability": {"of": ["scores", "transfers", "profiles"], "acknowledged": 1},
    "linearizable": {"writes": 1, "reads": 1},
    "counters": {"scores": 1, "reads": 1},
    "bank": {"transfers": 1, "reads": 2},
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_each_case_has_the_outcome_that_its_name_says(case: Path) -> None:
    outcome = overall(judge(load(case), LITTLE))
    if case.stem.startswith("CLEAN"):
        assert outcome is not Outcome.INVALID
    elif case.stem.startswith("record"):
        assert outcome is Outcome.UNKNOWN
    else:
        assert outcome is Outcome.INVALID


def test_there_are_cases() -> None:
    assert len(CASES) == 10
