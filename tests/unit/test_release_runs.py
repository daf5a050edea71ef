"""Runs of a real lab, as their numbers were stored: the profile steady, on a machine of two shared processors.

``same``: 16 runs of one site. ``without`` and ``transfer_20_ms_slower``: 8 runs each, by turns, of that site and of one
whose transfer.php begins with ``usleep(20_000)``.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from harness.compare import ALL, Decision, Measures, compare

STORED = json.loads((Path(__file__).parents[1] / "support" / "release_runs.json").read_text())


def runs(side: str) -> list[Measures]:
    return [Measures(each["name"], "steady", {}, {}, each["endpoints"], each["requests"]) for each in STORED[side]]


def test_twenty_of_twenty_deals_of_runs_of_one_site_find_no_difference() -> None:
    found = []
    for seed in range(20):
        dealt = runs("same")
        random.Random(seed).shuffle(dealt)
        found.append(compare(dealt[:8], dealt[8:]).decision)
    assert found == [Decision.NO_DIFFERENCE] * 20


def test_twenty_ms_on_one_endpoint_are_found_and_named_and_all_others_acquitted() -> None:
    result = compare(runs("without"), runs("transfer_20_ms_slower"))
    assert result.decision is Decision.REGRESSION
    assert result.summary.startswith(
        "Regression of transfer (8 candidate runs, 8 baseline runs). transfer, median latency: regression"
    )
    decisions = {each.endpoint: each.decision for each in result.endpoints}
    assert decisions.pop("transfer") is Decision.REGRESSION
    assert ALL in decisions
    assert set(decisions.values()) == {Decision.NO_DIFFERENCE}


@pytest.mark.parametrize("few", [5, 6, 7])
def test_fewer_runs_never_acquit_the_slower_one(few: int) -> None:
    for seed in range(10):
        chance = random.Random(seed)
        before, now = (chance.sample(runs(side), few) for side in ("without", "transfer_20_ms_slower"))
        assert compare(before, now).decision in (Decision.REGRESSION, Decision.NOT_ENOUGH)


def test_the_other_way_round_it_is_an_improvement() -> None:
    assert compare(runs("transfer_20_ms_slower"), runs("without")).decision is Decision.IMPROVEMENT
