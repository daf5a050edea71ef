"""How many ops a second the algorithms of the data checks judge: ``python -m tests.bench.checks``.

The checks of data are measured on arrays, without the reading of a history: valid histories of 200 players and 50 ops
at a time. Peak memory is about 150 bytes an op and check. The checks of witnesses are measured whole, on histories in
memory of a long quiet run with two faults.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from rich.console import Console
from rich.table import Table

from harness.algorithms import register_zones, sum_bounds
from harness.algorithms.arrays import Ints
from harness.algorithms.set_full import Elements, State
from harness.checks import judge
from harness.history import History, Op
from tests.support import clusters as c
from tests.support import histories as h

SIZES = (10**4, 10**5, 10**6, 10**7)
PLAYERS = 200
EVERY_NS, LASTS_NS = 1_000, 50_000
"""One op begins every so often, and lasts up to so long on both sides of its effect."""


WITNESSED = (10**4, 10**5)


def checks_table(sizes: tuple[int, ...] = SIZES) -> dict[str, dict[int, float]]:
    """Each algorithm's ops a second for so many ops, on the wall clock; printed, too."""
    return _printed(CASES, sizes)


def witnesses_table(sizes: tuple[int, ...] = WITNESSED) -> dict[str, dict[int, float]]:
    """The same of the checks of witnesses."""
    return _printed({check: _witnessed(check, feed) for check, feed in FEEDS.items()}, sizes)


def _printed(
    cases: Mapping[str, Callable[[int], Callable[[], bool]]], sizes: tuple[int, ...]
) -> dict[str, dict[int, float]]:
    rows = {name: {size: _rate(make, size) for size in sizes} for name, make in cases.items()}
    table = Table("million ops a second", *(f"{size:,} ops" for size in sizes))
    for name, rates in rows.items():
        table.add_row(name, *(f"{rate / 1e6:.3f}" for rate in rates.values()))
    Console().print(table)
    return rows


def _rate(make: Callable[[int], Callable[[], bool]], size: int) -> float:
    """The best of some rounds: what else the machine does only ever slows it down."""
    judge = make(size)
    best = float("inf")
    for _ in range(5 if size < 10**6 else 2):
        began = time.perf_counter()
        assert judge()
        best = min(best, time.perf_counter() - began)
    return size / best


def _times(size: int) -> tuple[Ints, Ints, Ints]:
    """Effects in order of time, and each op's beginning and end around it."""
    chance = np.random.default_rng(1)
    effect = np.sort(chance.integers(0, size * EVERY_NS, size))
    return effect, effect - chance.integers(1, LASTS_NS, size), effect + chance.integers(1, LASTS_NS, size)


def _register(size: int) -> Callable[[], bool]:
    """A quarter writes; each read has the value written last."""
    chance = np.random.default_rng(2)
    effect, start, end = _times(size)
    player = chance.integers(0, PLAYERS, size)
    order = np.lexsort((effect, player))
    write = chance.random(size) < 0.25
    write[order[np.flatnonzero(np.diff(player[order], prepend=-1))]] = True
    value = np.empty(size, dtype=np.int64)
    value[order] = np.cumsum(write[order]) - 1
    ops = register_zones.Ops(player, value, write, start, end)
    return lambda: register_zones.judge(ops).linearizable


def _set(size: int) -> Callable[[], bool]:
    """So many elements and two readings of all."""
    end = _times(size)[2]
    there = np.arange(size)

    def judge() -> bool:
        elements = Elements(end)
        for after in (1, 2):
            elements.whole(there, int(end.max()) + after, int(end.max()) + after + 1)
        return bool((elements.states() == State.STABLE).all())

    return judge


def _counter(size: int) -> Callable[[], bool]:
    """Half scores, half reads of points."""
    chance = np.random.default_rng(3)
    effect, start, end = _times(size)
    player, points = chance.integers(0, PLAYERS, size), chance.integers(1, 1_000, size)
    points[1::2] = 0
    return _sums(player, points, np.flatnonzero(points == 0), (effect, start, end))


def _bank(size: int) -> Callable[[], bool]:
    """Two sides of each of a third of so many transfers, and as many balances read."""
    chance = np.random.default_rng(4)
    effect, start, end = _times(size)
    player, coins = chance.integers(0, PLAYERS, size), chance.integers(1, 20, size)
    coins[1::3] = -coins[::3][: coins[1::3].size]
    coins[2::3] = 0
    return _sums(player, coins, np.flatnonzero(coins == 0), (effect, start, end))


def _sums(player: Ints, amount: Ints, reads: Ints, times: tuple[Ints, Ints, Ints]) -> Callable[[], bool]:
    effect, start, end = times
    order = np.lexsort((effect, player))
    running = np.cumsum(amount[order])
    first = np.flatnonzero(np.diff(player[order], prepend=-1))
    before = np.repeat(running[first] - amount[order][first], np.diff(first, append=order.size))
    value = np.empty_like(amount)
    value[order] = running - before + 10**9
    adds = np.flatnonzero(amount)
    added = sum_bounds.Adds(player[adds], amount[adds], start[adds], end[adds])
    read = sum_bounds.Reads(player[reads], value[reads], start[reads], end[reads], np.zeros_like(reads))
    return lambda: not sum_bounds.clashes(added, read)


def _witnessed(check: str, feed: Callable[[c.Scene], Iterator[Op]]) -> Callable[[int], Callable[[], bool]]:
    """A history of about so many ops of one feed, made longer by telling the quiet end of a run again and again."""

    def make(size: int) -> Callable[[], bool]:
        scene = c.Scene(
            1, holds=(18_000, 20_000), rests=(120_000, 120_000), cluster={"persistence_s": 300 * (feed is c.probes)}
        )
        short = scene.history(feed)
        until = max(op.time for op in short.of("fault")) + 60_000 * h.MS
        quiet = [op for op in short if op.time > until and op.process != "run"]
        length = quiet[-1].time - quiet[0].time + 500 * h.MS
        times = max(1, size // len(quiet))
        ops = [op for op in short if op.f != "end"]
        ops += [op.copy(time=op.time + turn * length) for turn in range(1, times) for op in quiet]
        history = h.of([*ops, h.end((short.end_ns + times * length) / h.MS)])

        def ask() -> bool:
            (verdict,) = judge(History(history), {check: {}})  # a history remembers what it was asked
            return verdict.check == check

        return ask

    return make


FEEDS: Mapping[str, Callable[[c.Scene], Iterator[Op]]] = {
    "quiescing": c.tables,
    "balance": c.tables,
    "errors": c.users,
    "rotation": c.dns,
    "content": c.docroot,
    "monitoring": c.ganglia,
    "persistence": c.probes,
}
CASES: Mapping[str, Callable[[int], Callable[[], bool]]] = {
    "register": _register,
    "set": _set,
    "counter": _counter,
    "bank": _bank,
}


if __name__ == "__main__":
    checks_table()
    witnesses_table()
