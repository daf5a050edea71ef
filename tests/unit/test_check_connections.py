"""Connections: those that lived across a takeover, and clients that stay with their real server."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.checks import judge
from harness.history import History, Op
from harness.verdict import Outcome, Verdict
from tests.support import clusters as c
from tests.support import histories as h
from tests.support.clusters import Scene
from tests.support.examples import examples
from tests.support.histories import PowerCut

# --- established


def on(
    at: float, name: str, kind: str = "ok", *, node: str = "web-2", vip: str = h.VIP1, lasts: float = 20
) -> list[Op]:
    """One request on a connection of that name."""
    asked = {"url": "/", "vip": vip, "connection": name}
    told = asked | ({"node": node, "status": 200} if kind == "ok" else {})
    error = {"ok": None, "fail": "connection reset", "info": "timeout"}[kind]
    return [
        h.op(at, f"user:{name}", "get", asked, "invoke"),
        h.op(at + lasts, f"user:{name}", "get", told, kind, error=error),
    ]


def crossing(seed: int, connections: int = 4) -> History:
    """Connections that are used before the cut, and again after the takeover; some stop, some clients give up."""
    chance = random.Random(seed)
    ops: list[Op] = []
    for number in range(connections):
        name = f"c{number}"
        ops += [op for at in (3_000, 4_500, 6_500) for op in on(at + 10 * number, name, node=chance.choice(c.WEB[:3]))]
        fate = chance.choice(("goes on", "goes on", "stalls", "ends", "gives up"))
        if number == 0 or fate == "goes on":
            ops += on(chance.randint(15_500, 30_000), name)
        elif fate == "stalls":
            ops += on(9_990, name, lasts=chance.randint(5_500, 9_000))
        elif fate == "gives up":
            ops += on(9_995, name, "info", lasts=4_900)
    ops += on(9_000, "young", lasts=5) + on(16_000, "young", "fail")
    ops += [op for at in (3_000, 5_000, 16_000) for op in on(at, "other", vip=h.VIP2)]
    return h.changed(
        h.with_ops(PowerCut(probe_every=50_000).history(), *ops),
        lambda op: op.f == "start",
        lambda _: h.start(connection_sync=True),
    )


def established(history: History, **table: Any) -> Verdict:
    (verdict,) = judge(history, {"established": table})
    return verdict


@examples(200)
@given(seed=st.integers(0, 10**6), connections=st.integers(1, 8))
def test_connections_that_go_on_are_valid(seed: int, connections: int) -> None:
    verdict = established(crossing(seed, connections))
    assert verdict.outcome is Outcome.VALID, verdict.findings
    assert verdict.numbers["connections"]["survived"]["connections"] >= 1


def test_one_connection_that_breaks_is_found() -> None:
    for seed in range(15):
        history = h.with_ops(crossing(seed), *on(3_000, "b"), *on(5_000, "b"), *on(15_800, "b", "fail"))
        verdict = established(history)
        assert verdict.outcome is Outcome.INVALID, seed
        assert verdict.findings[0].evidence
        assert established(history, broken=1).outcome is Outcome.VALID


def test_a_connection_that_breaks_before_the_takeover_is_done_is_broken() -> None:
    history = h.with_ops(crossing(1), *on(3_000, "b"), *on(5_000, "b"), *on(9_900, "b", "fail", lasts=4_000))
    assert established(history).outcome is Outcome.INVALID


def without_sync(history: History) -> History:
    return h.changed(history, lambda op: op.f == "start", lambda _: h.start(connection_sync=False))


def unnamed(history: History) -> History:
    def bare(op: Op) -> Op:
        return op.copy(value={key: value for key, value in op.value.items() if key != "connection"})

    return h.changed(history, lambda op: op.f == "get", bare)


@pytest.mark.parametrize(
    ("history", "says"),
    [
        (without_sync(crossing(1)), "do not synchronize"),
        (unnamed(crossing(1)), "names its connection"),
        (h.without(crossing(1), lambda op: op.f == "power"), "taken over"),
        (h.without(crossing(1), lambda op: op.f == "get" and op.time > 15e9), "used again"),
        (h.killed(crossing(1), 40_000), "killed"),
    ],
)
def test_without_data_the_fate_of_connections_is_unknown(history: History, says: str) -> None:
    verdict = established(history)
    assert verdict.outcome is Outcome.UNKNOWN, verdict.findings
    assert says in verdict.summary


# --- persistence


def persistent(scene: Scene) -> History:
    """All probes of a VIP are answered by one real server, until it falls or the client was away."""
    chance = random.Random(f"persistent {scene.seed}")
    now = {vip: chance.choice(c.WEB) for vip in c.VIPS}
    history = replace(scene, cluster={"persistence_s": 300}).history(c.probes)

    def serve(op: Op) -> Any:
        if op.type != "ok":
            return None
        vip = op["vip"]
        if scene.down(now[vip], op.time / h.MS):
            now[vip] = chance.choice([node for node in c.WEB if scene.down(node, op.time / h.MS) is None])
        return op.value | {"node": now[vip]}

    return c.with_values(history, "http", serve)


def stays(history: History, **table: Any) -> Verdict:
    (verdict,) = judge(history, {"persistence": table})
    return verdict


SCENES = st.builds(Scene, seed=st.integers(0, 10**6), faults=st.integers(0, 1), rests=st.just((30_000.0, 35_000.0)))


@examples(100)
@given(scene=SCENES)
def test_a_client_that_stays_is_valid(scene: Scene) -> None:
    verdict = stays(persistent(scene))
    assert verdict.outcome is Outcome.VALID, verdict.findings


def _moved(history: History, one: Op) -> History:
    other = next(node for node in c.WEB if node != one["node"])
    return h.changed(history, lambda op: op == one, lambda op: op.copy(value=op.value | {"node": other}))


def test_a_single_move_is_found() -> None:
    for seed in range(10):
        history = persistent(Scene(seed, faults=seed % 2, rests=(30_000, 35_000)))
        answers = [op for op in history.of("http") if op.type == "ok" and op.time < 11_500 * h.MS]
        moved = _moved(history, random.Random(seed).choice(answers))
        verdict = stays(moved)
        assert verdict.outcome is Outcome.INVALID, seed
        assert verdict.findings[0].evidence
        assert stays(moved, changes=2).outcome is Outcome.VALID


def test_a_client_may_leave_a_real_server_that_is_quiesced() -> None:
    """Nothing was injected; the tables say why."""
    scene = Scene(1, faults=0, cluster={"persistence_s": 300})

    def serve(op: Op) -> Any:
        if op.type != "ok":
            return None
        return op.value | {"node": "web-2" if op.time > 12_000 * h.MS else "web-1"}

    def quiesced(op: Op) -> Any:
        out = c.reweighed(op, h.VIP1, "web-1", weight=0)
        return c.reweighed(h.op(0, "", "", out), h.VIP2, "web-1", weight=0) if op.time > 11_000 * h.MS else None

    history = c.with_values(scene.history(c.probes, c.tables), "http", serve)
    assert stays(history).outcome is Outcome.INVALID
    assert stays(c.with_values(history, "table", quiesced)).outcome is Outcome.VALID


def test_clients_without_persistence_are_found() -> None:
    history = Scene(1, faults=0, cluster={"persistence_s": 300}).history(c.probes)
    assert stays(history).outcome is Outcome.INVALID


def test_after_the_persistence_time_a_client_may_go_anywhere() -> None:
    ops = [h.start(persistence_s=1)]
    for number in range(60):
        value = {"vip": h.VIP1, "seq": number}
        ops.append(h.op(1_500.0 * number, "probe:x/0", "http", value, "invoke"))
        served = value | {"node": c.WEB[number % 6], "status": 200}
        ops.append(h.op(1_500.0 * number + 3, "probe:x/0", "http", served, "ok"))
    history = h.of([*ops, h.end(90_000)])
    assert stays(history).outcome is Outcome.UNKNOWN
    longer = h.changed(history, lambda op: op.f == "start", lambda _: h.start(persistence_s=2))
    assert stays(longer).outcome is Outcome.INVALID


@pytest.mark.parametrize(
    ("history", "says"),
    [
        (Scene(1, faults=0).history(c.probes), "not persistent"),
        (Scene(1, faults=0, cluster={"persistence_s": 300}).history(), "Answers that follow another one: 0"),
        (h.killed(persistent(Scene(1, faults=0)), 20_000), "killed"),
    ],
)
def test_too_little_persistence_is_unknown(history: History, says: str) -> None:
    verdict = stays(history)
    assert verdict.outcome is Outcome.UNKNOWN, verdict.findings
    assert says in verdict.summary
