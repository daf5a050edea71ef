"""A power cut with all feeds: IPVS tables, DNS answers, NFS and the database in addition to those of ``histories``.

While lb-1 is off, web-3 has weight 0 on lb-2 for 4 s. web-5 disappears from both tables, and NFS hangs on web-2. A page
changes on web-1 and reaches web-4 late, Ganglia shows web-6 as down, web-2's clock jumps, and a new backup arrives.
"""

from __future__ import annotations

from typing import Any

from harness.history import History, Op
from tests.support import histories as h
from tests.support.histories import VIP1, VIP2, PowerCut

WEB = h.CLUSTER["web"]
QUIESCED, OUT, NFS_AWAY = (20_000, 24_000), (30_000, 33_000), (44_000, 49_000)
CHANGED, LATE, HOST_DOWN, CLOCK_OFF = 16_000, 21_000, (25_000, 40_000), (35_000, 45_000)


def table(at_ms: float, director: str, weights: dict[str, int]) -> Op:
    """An IPVS table in which every VIP has the same real servers."""
    rows = {server: {"weight": weight, "active": 2, "inactive": 9, "conns": 40} for server, weight in weights.items()}
    return h.op(at_ms, f"table:{director}", "table", {"node": director, "vips": {VIP1: rows, VIP2: rows}})


def tables(cut: PowerCut) -> list[Op]:
    """The tables of each running director every 500 ms."""
    ops = []
    for at in range(300, int(cut.closed), 500):
        weights = dict.fromkeys(WEB, 1)
        if QUIESCED[0] <= at < QUIESCED[1]:
            weights["web-3"] = 0
        if OUT[0] <= at < OUT[1]:
            del weights["web-5"]
        up = ["lb-2"] if cut.cut <= at < cut.running + 4_000 else ["lb-1", "lb-2"]
        ops += [table(at + place, director, weights) for place, director in enumerate(up)]
    return ops


def question(at_ms: float, process: str, ms: float | None, **value: Any) -> list[Op]:
    """One op of a feed that repeats a question; without ``ms`` it timed out after 900 ms."""
    f = process.partition(":")[0]
    invoke = h.op(at_ms, process, f, value, "invoke")
    if ms is None:
        return [invoke, h.op(at_ms + 900, process, f, value, "info", error="timeout")]
    return [invoke, h.op(at_ms + ms, process, f, value | {"ms": ms}, "ok")]


def questions(cut: PowerCut) -> list[Op]:
    """DNS every 250 ms; NFS and the database every second, on two real servers."""
    ops: list[Op] = []
    for seq, at in enumerate(range(400, int(cut.closed) - 1000, 250)):
        ops += question(at, "dns:resolver", 3, seq=seq)
    for at in range(450, int(cut.closed) - 1000, 1000):
        for node in ("web-1", "web-2"):
            away = node == "web-2" and NFS_AWAY[0] <= at < NFS_AWAY[1]
            ops += question(at, f"nfs:{node}", None if away else 12, node=node)
            ops += question(at, f"database:{node}", 7, node=node)
    return ops


def sampled(cut: PowerCut) -> list[Op]:
    """Web data at each change, backups and Ganglia every 5 s, clocks every 2 s."""
    old, new = {"index.html": "a" * 64}, {"index.html": "b" * 64}
    ops = []
    for at in range(500, int(cut.closed), 5_000):
        for place, node in enumerate(WEB):
            files = new if at >= (LATE if node == "web-4" else CHANGED) else old
            ops.append(h.op(at + place, f"docroot:{node}", "docroot", {"node": node, "files": files}))
        age = 50 + (at - 500) // 1000 if at < 30_000 else (at - 30_000) // 1000
        ops.append(h.op(at, "backup:database", "backup", {"of": "database", "node": "web-3", "age_s": age}))
        hosts = {node: {"tn_s": 3, "tmax_s": 20} for node in WEB}
        if HOST_DOWN[0] <= at < HOST_DOWN[1]:
            hosts["web-6"] = {"tn_s": 90, "tmax_s": 20}
        ops.append(h.op(at, "ganglia:lb-2", "ganglia", {"node": "lb-2", "hosts": hosts}))
    for at in range(700, int(cut.closed), 2_000):
        for node in ("web-1", "web-2"):
            offset = 3_600_000.0 if node == "web-2" and CLOCK_OFF[0] <= at < CLOCK_OFF[1] else 1.5
            value = {"node": node, "offset_ms": offset, "round_trip_ms": 2.0}
            ops.append(h.op(at, f"clock:{node}", "clock", value))
    return ops


def load(cut: PowerCut) -> list[Op]:
    """Players: slower after the takeover, and with some errors while VIP1 has no owner."""
    ops = []
    for n, at in enumerate(range(1_000, int(cut.closed) - 1_000, 90)):
        process, f = f"user:{n % 12}", ("get", "profile-read", "score")[n % 3]
        away = cut.cut <= at < cut.served and n % 4 == 0
        ms = 9 + n * 7 % 23 + (300 if cut.served <= at < cut.served + 1500 else 0)
        ops.append(h.op(at, process, f, {"vip": VIP1 if n % 2 else VIP2}, "invoke"))
        kind, value = ("fail", {"vip": VIP1}) if away else ("ok", {"vip": VIP1, "node": WEB[n % 6], "ms": ms})
        ops.append(h.op(at + ms, process, f, value, kind, error="connection refused" if away else None))
    return ops


def history(cut: PowerCut | None = None) -> History:
    """The history with all feeds."""
    cut = cut or PowerCut(probe_every=200)
    return h.with_ops(cut.history(), *tables(cut), *questions(cut), *sampled(cut), *load(cut))
