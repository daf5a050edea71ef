"""Whatever a feed writes, a check comes to a verdict: nonsense is unknown or ignored, and never a traceback."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.checks import judge
from harness.history import History, Op
from tests.support import clusters as c
from tests.support import histories as h
from tests.support.clusters import Scene

ASKED = {
    "table": ("quiescing", "balance", "persistence"),
    "dns": ("rotation",),
    "docroot": ("content",),
    "ganglia": ("monitoring",),
    "backup": ("backup",),
    "get": ("errors", "established", "rotation", "persistence"),
    "http": ("balance", "persistence"),
}
"""Each kind of op, and the checks that read it."""


def backups(scene: Scene) -> list[Op]:
    return [
        h.op(at, f"backup:{of}", "backup", {"of": of, "node": "web-2", "age_s": 7.5})
        for of in ("database", "uploads")
        for at in range(1_000, int(scene.end), 5_000)
    ]


def named(op: Op) -> Op:
    """Each request on a connection of its user's."""
    return op.copy(value=op.value | {"connection": op.process}) if op.f == "get" else op


SCENE = Scene(1, faults=1, holds=(14_000, 14_000), rests=(5_000, 5_000), cluster={"connection_sync": True})


def everything(scene: Scene) -> History:
    feeds = (c.tables, c.users, c.dns, c.docroot, c.ganglia, c.probes)
    history = h.with_ops(scene.history(*feeds), *backups(scene), h.power(9_000, "lb-1", "off"))
    return h.changed(history, lambda op: op.f == "get", named)


PLAIN = everything(SCENE)
STICKY = everything(replace(SCENE, cluster={"persistence_s": 300}))
NONSENSE: tuple[Any, ...] = (None, "x", -1, 2.5, [], {}, ["x"], {"x": "y"}, True)
WHERE = (0, 1, 2, 3, 7, 14)
CASES = [
    # the first op, one in the middle and the last one take turns: each meets all nonsense, and each place in a value
    (turn, where, nonsense)
    for number, where in enumerate(WHERE)
    for turn, nonsense in ((number + place, nonsense) for place, nonsense in enumerate(NONSENSE))
]


def wrong(value: Any, where: int, nonsense: Any) -> Any:
    """A value with nonsense somewhere in it: at its top, or in one of its parts."""
    if not isinstance(value, dict) or not value or where == 0:
        return nonsense
    key = sorted(value)[where % len(value)]
    return value | {key: wrong(value[key], where // 2, nonsense)}


@pytest.mark.parametrize("f", ASKED)
def test_nonsense_of_one_feed_breaks_no_check(f: str) -> None:
    for name in ASKED[f]:
        history = STICKY if name == "persistence" else PLAIN
        ops = history.of(f)
        spoilt = (ops[0], ops[len(ops) // 2], ops[-1])
        for turn, where, nonsense in CASES:
            one = spoilt[turn % 3]
            told = one.copy(value=wrong(one.value, where, nonsense))
            (verdict,) = judge(History([*history[: told.index], told, *history[told.index + 1 :]]), {name: {}})
            assert verdict.check == name
