"""What right runs have, too: no check may accuse a site for it. Each takes a right history and gives a right one."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from harness.history import History, Op
from tests.support import histories as h

Noise = Callable[[History, random.Random], History]


def other_order(history: History, chance: random.Random) -> History:
    """Feeds record on their own: lines of different processes within 20 ms come in any order."""
    late = {process: chance.uniform(0, 20 * h.MS) for process in {op.process for op in history}}
    ordered = sorted(history, key=lambda op: op.time + late[op.process] * (op.f not in ("start", "end")))
    return History(op.copy(index=index) for index, op in enumerate(ordered))


def lost_probes(history: History, chance: random.Random) -> History:
    """A probe now and then is lost on its way, never 2 in a row."""
    by_vip: dict[str, int] = {}

    def lost(op: Op) -> bool:
        if op.f != "http" or op.type != "ok" or op["seq"] - by_vip.get(op["vip"], -99) < 10 or chance.random() > 0.02:
            return False
        by_vip[op["vip"]] = op["seq"]
        return True

    return h.changed(history, lost, lambda op: op.copy(type="info", error="timed out"))


def chatter(history: History, chance: random.Random) -> History:
    """Logs say what they always say."""
    said = "heartbeat: [388]: info: Status update for node lb-2: status active"
    end = history.end_ns / h.MS
    times = [chance.uniform(1_000, end - 1_000) for _ in range(20)]
    return h.with_ops(history, *(h.log(at, "lb-1", said) for at in times))


def refusals(history: History, chance: random.Random) -> History:
    """A player has too few coins, and is told so; a page does not exist."""
    ops = []
    for number in range(10):
        at, asked = history.end_ns / h.MS * chance.uniform(0.2, 0.8), {"name": f"never-{number}", "vip": h.VIP1}
        no = asked | {"node": "web-1", "status": 404, "written": "no", "ms": 3}
        ops += [
            h.op(at, f"user:1{number}", "download", asked, "invoke"),
            h.op(at + 3, f"user:1{number}", "download", no, "fail", error="status 404"),
        ]
    return h.with_ops(history, *ops)


def stopped(history: History, chance: random.Random) -> History:
    """Requests that are under way when the run ends get no answer."""
    end = history.end_ns / h.MS
    asked = {"url": "/", "vip": h.VIP1}
    return h.with_ops(history, *(h.op(end - 5, f"user:2{number}", "get", asked, "invoke") for number in range(3)))


def unknown_ops(history: History, chance: random.Random) -> History:
    """A later version, or somebody's own feed, records what no check knows."""
    end = history.end_ns / h.MS
    return h.with_ops(history, *(h.op(chance.uniform(0, end), "own:feed", "own", {"n": n}) for n in range(9)))


def missed_sample(history: History, chance: random.Random) -> History:
    """A sample of a director's table or addresses is missing now and then."""
    return h.without(history, lambda op: op.f in ("holds", "table") and chance.random() < 0.01)


NOISES: Mapping[str, Noise] = {
    noise.__name__.replace("_", " "): noise
    for noise in (other_order, lost_probes, chatter, refusals, stopped, unknown_ops, missed_sample)
}
