"""Balance: what the scheduler promises, over connections, and never over windows in which anything was injected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.algorithms.chi_square import chi_square_survival, evenness, needed, visible
from harness.checks import judge
from harness.history import History, Op
from harness.verdict import Outcome, Verdict
from tests.support import clusters as c
from tests.support import histories as h
from tests.support.clusters import Scene
from tests.support.examples import examples

SCENES = st.builds(
    Scene,
    seed=st.integers(0, 10**6),
    faults=st.integers(0, 1),
    rests=st.just((20_000.0, 25_000.0)),
    cluster=st.sampled_from([{"scheduler": "wlc"}, {"scheduler": "rr"}]),
)


def check(history: History, **table: Any) -> Verdict:
    (verdict,) = judge(history, {"balance": table})
    return verdict


@examples(200)
@given(scene=SCENES)
def test_a_right_scheduler_is_never_accused(scene: Scene) -> None:
    verdict = check(scene.history(c.tables), connections=50)
    assert verdict.outcome is Outcome.VALID, (scene, verdict.findings)


def starved(history: History, node: str, director: str, vip: str) -> History:
    """One director gives a real server nothing more: its connections go to another one."""
    first: dict[str, Any] = {}

    def tell(op: Op) -> Any:
        if op["node"] != director or node not in op["vips"][vip]:
            return None
        first.setdefault("conns", op["vips"][vip][node]["conns"])
        return c.reweighed(op, vip, node, conns=first["conns"], active=0, inactive=0)

    return c.with_values(history, "table", tell)


@pytest.mark.parametrize("scheduler", ["wlc", "rr"])
def test_a_real_server_that_is_passed_over_is_found(scheduler: str) -> None:
    for seed in range(12):
        history = Scene(seed, faults=0, rests=(40_000, 40_000), cluster={"scheduler": scheduler}).history(c.tables)
        director, vip = (("lb-1", h.VIP1), ("lb-2", h.VIP2))[seed % 2]
        verdict = check(starved(history, c.WEB[seed % 6], director, vip))
        assert verdict.outcome is Outcome.INVALID, (seed, verdict.summary)
        assert c.WEB[seed % 6] in verdict.summary
        assert verdict.evidence


def test_turns_that_are_not_taken_are_found() -> None:
    """Every tenth connection of one goes to another."""
    for seed in range(12):
        history = Scene(seed, faults=0, rests=(40_000, 40_000), cluster={"scheduler": "rr"}).history(c.tables)

        def tell(op: Op) -> Any:
            servers = op["vips"][h.VIP1]
            moved = servers["web-2"]["conns"] // 10
            less = c.reweighed(op, h.VIP1, "web-2", conns=servers["web-2"]["conns"] - moved)
            less["vips"][h.VIP1]["web-3"]["conns"] += moved
            return less if op["node"] == "lb-1" else None

        assert check(c.with_values(history, "table", tell)).outcome is Outcome.INVALID, seed


def test_windows_with_faults_are_not_judged() -> None:
    """A real server that was out has fewer connections than the others, and that is right."""
    verdict = check(Scene(1, faults=1, rests=(30_000, 30_000), cluster={"scheduler": "rr"}).history(c.tables))
    assert verdict.outcome is Outcome.VALID, verdict.findings
    assert all(row["windows"] <= 3 for row in verdict.numbers["services"])


def test_too_few_connections_are_unknown() -> None:
    verdict = check(Scene(1, faults=0).history(c.tables), connections=100_000)
    assert verdict.outcome is Outcome.UNKNOWN
    assert "at least 100,000 are needed" in verdict.summary


@pytest.mark.parametrize(
    ("cluster", "says"),
    [
        ({"persistence_s": 300}, "persistent"),
        ({"scheduler": ""}, "does not say"),
        ({"scheduler": "sh"}, "does not promise equal shares"),
        ({"web": ["web-1"]}, "fewer than 2 real servers"),
    ],
)
def test_what_promises_nothing_is_unknown(cluster: dict[str, Any], says: str) -> None:
    verdict = check(Scene(1, faults=0, cluster=cluster).history(c.tables))
    assert verdict.outcome is Outcome.UNKNOWN
    assert says in verdict.summary


def test_nothing_to_count_is_unknown() -> None:
    assert check(Scene(1, faults=0).history()).outcome is Outcome.UNKNOWN
    assert check(h.killed(Scene(1, faults=0).history(c.tables), 9_000)).outcome is Outcome.UNKNOWN


def fewer(history: History, node: str, director: str, vip: str, part: float) -> History:
    """One real server gets only a part of its connections; it is as busy as it was."""

    def tell(op: Op) -> Any:
        if op["node"] != director or node not in op["vips"][vip]:
            return None
        return c.reweighed(op, vip, node, conns=int(op["vips"][vip][node]["conns"] * part))

    return c.with_values(history, "table", tell)


@pytest.mark.parametrize("part", [0.0, 0.02, 0.08, 0.15])
def test_a_real_server_with_far_less_than_its_share_is_named(part: float) -> None:
    for seed in range(6):
        scene = Scene(seed, faults=0, rests=(90_000, 90_000))
        director, vip = (("lb-1", h.VIP1), ("lb-2", h.VIP2))[seed % 2]
        node = c.WEB[seed % 6]
        verdict = check(fewer(scene.history(c.tables), node, director, vip, part))
        assert verdict.outcome is Outcome.INVALID, (seed, verdict.numbers)
        assert f"{director} gave {node} " in " ".join(finding.sentence for finding in verdict.findings)


def test_shares_of_a_right_scheduler_are_never_accused() -> None:
    for seed in range(8):
        verdict = check(Scene(seed, faults=0, rests=(90_000, 90_000)).history(c.tables))
        assert verdict.outcome is Outcome.VALID, (seed, verdict.findings)
        assert any(row["connections"] > 1_000 for row in verdict.numbers["services"])


def test_a_real_server_that_is_busy_may_rightly_get_less() -> None:
    history = fewer(Scene(1, faults=0, rests=(90_000, 90_000)).history(c.tables), "web-2", "lb-1", h.VIP1, 0.1)

    def busy(op: Op) -> Any:
        return c.reweighed(op, h.VIP1, "web-2", active=3) if op["node"] == "lb-1" else None

    verdict = check(c.with_values(history, "table", busy))
    assert verdict.outcome is Outcome.UNKNOWN
    assert "web-2 had 3." in verdict.summary


@pytest.mark.parametrize("scheduler", ["wlc", "rr"])
def test_unequal_weights_are_named(scheduler: str) -> None:
    history = Scene(1, faults=0, rests=(40_000, 40_000), cluster={"scheduler": scheduler}).history(c.tables)
    heavy = c.with_values(
        history, "table", lambda op: c.reweighed(op, h.VIP1, "web-2", weight=7) if op["node"] == "lb-1" else None
    )
    verdict = check(heavy)
    assert verdict.outcome is Outcome.UNKNOWN
    assert "web-1 1, web-2 7, web-3 1" in verdict.summary
    assert f"The weights of {h.VIP1} on lb-1 were unequal" in verdict.summary
    short = c.with_values(
        history, "table", lambda op: c.reweighed(op, h.VIP1, "web-2", weight=7) if op.time < 1_500 * h.MS else None
    )
    assert check(short).outcome is Outcome.VALID


# --- by probes


@examples(100)
@given(seed=st.integers(0, 10**6), faults=st.integers(0, 1))
def test_even_answers_to_probes_are_valid(seed: int, faults: int) -> None:
    # a fault takes away as many probes as its seed says; there have to be enough of them all the same
    history = Scene(seed, faults=faults, rests=(100_000, 100_000)).history(c.probes)
    # some of a thousand right histories are a chance of one in a thousand: with it, none of these is
    verdict = check(history, alpha=1e-7, short_percent=70)
    assert verdict.outcome is Outcome.VALID, verdict.findings


def diverted(history: History, one_in: int) -> History:
    """So many answers of web-4 come from web-5 instead."""
    return c.with_values(
        history,
        "http",
        lambda op: (
            {**op.value, "node": "web-5"} if op.get("node") == "web-4" and op.get("seq", 0) % one_in == 0 else None
        ),
    )


def test_uneven_answers_to_probes_are_found() -> None:
    for seed in range(12):
        history = diverted(Scene(seed, faults=0, rests=(70_000, 70_000)).history(c.probes), 1)
        verdict = check(history)
        assert verdict.outcome is Outcome.INVALID, (seed, verdict.summary)
        assert "web-4 0" in verdict.summary


def test_with_other_clients_uneven_answers_prove_nothing() -> None:
    scene = Scene(1, faults=0, rests=(70_000, 70_000))
    verdict = check(diverted(scene.history(c.probes, c.users), 1))
    assert verdict.outcome is Outcome.UNKNOWN
    assert "others' connections" in verdict.summary


def test_too_few_probes_are_unknown() -> None:
    verdict = check(Scene(1, faults=0, rests=(10_000, 10_000)).history(c.probes))
    assert verdict.outcome is Outcome.UNKNOWN
    assert "are needed to show" in verdict.summary


# --- chance


@pytest.mark.parametrize(("x", "df", "p"), [(3.841, 1, 0.05), (11.070, 5, 0.05), (9.488, 4, 0.05), (20.515, 5, 0.001)])
def test_the_chi_square_of_the_tables(x: float, df: int, p: float) -> None:
    assert chi_square_survival(x, df) == pytest.approx(p, rel=2e-3)


def test_how_much_it_takes_is_as_much_as_shows_it() -> None:
    """A noncentrality of 16.47 is what tables have for 5 degrees of freedom, alpha .05 and power .90."""
    assert needed(6, 1.0, 0.05, 0.90) == pytest.approx(16.47 * 5, rel=0.01)
    assert visible(6, needed(6, 0.3, 0.01, 0.9), 0.01, 0.9) == pytest.approx(0.3, rel=0.01)


def test_a_shortage_is_seen_as_often_as_promised_and_chance_is_not() -> None:
    chance = np.random.default_rng(1)
    draws = needed(6, 0.1, 0.01, 0.9)
    short = [0.9 / 6, *[(1 - 0.9 / 6) / 5] * 5]
    seen = [evenness(chance.multinomial(draws, short)[None, :]).p < 0.01 for _ in range(1000)]
    false = [evenness(chance.multinomial(draws, [1 / 6] * 6)[None, :]).p < 0.01 for _ in range(1000)]
    assert 0.86 < np.mean(seen) < 0.94
    assert np.mean(false) < 0.02


def test_counts_in_clumps_raise_no_alarm() -> None:
    """Each block has all its connections on some of the servers; by themselves these counts look uneven."""
    chance = np.random.default_rng(2)
    alarms, naive = 0, 0
    for _ in range(300):
        blocks = np.array([chance.multinomial(20, chance.dirichlet([0.3] * 6)) for _ in range(20)])
        alarms += evenness(blocks).p < 0.001
        naive += evenness(blocks.sum(axis=0)[None, :]).p < 0.001
    assert naive > 200
    assert alarms <= 6
