"""Literal histories: a clean director power cut, and what is needed to plant defects in it. Times are milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from harness.history import History, Op

MS = 1_000_000
VIP1, VIP2 = "203.0.113.101", "203.0.113.102"
MAC = {"lb-1": "02:00:00:00:01:01", "lb-2": "02:00:00:00:01:02", "client": "02:00:00:00:01:0a"}
ORIGIN_NS = 5_000_000_000_000

DIRECTORS, WEB = ["lb-1", "lb-2"], [f"web-{number}" for number in range(1, 7)]


def consequence(service: str, on: list[str], of: list[str], *services: str, **more: Any) -> dict[str, Any]:
    plain = {"lines": "", "not_of_down": "", "on_console": False}
    return {"service": service, "on": on, "of": of, "services": [*services], **plain, **more}


CLUSTER: dict[str, Any] = {
    "site": "www.example.test",
    "vips": {VIP1: "lb-1", VIP2: "lb-2"},
    "directors": DIRECTORS,
    "web": WEB,
    "macs": {mac: node for node, mac in MAC.items()},
    "keepalive_ms": 500,
    "deadtime_ms": 3000,
    "resources_per_vip": 2,
    "resource_start_ms": 1500,
    "check_interval_ms": 2000,
    "check_timeout_ms": 3000,
    "quiescent": True,
    "scheduler": "wlc",
    "peer_dead": "node {node}: is dead",
    "error_lines": {
        "console": r"\bBUG: |: segfault at |\[ERROR\]",
        "heartbeat": " (?:ERROR|CRIT): ",
        "apache": r"\[\w*:(?:error|crit)\]",
    },
    "consequences": [
        consequence("heartbeat", DIRECTORS, DIRECTORS, "heartbeat", not_of_down="Both machines own"),
        consequence("ldirectord", DIRECTORS, WEB, "apache"),
        consequence("apache", WEB, ["web-1"], "nfsd"),
        consequence("console", WEB, ["web-1"], "nfsd", lines="blocked for more than|Call Trace:"),
        consequence("apache", WEB, ["db"], on_console=True),
    ],
    "followed_logs": {"heartbeat": DIRECTORS},
}


def op(
    at_ms: float,
    process: str,
    f: str,
    value: Any = None,
    kind: str = "info",
    *,
    error: str | None = None,
    index: int = -1,
) -> Op:
    return Op(index, round(at_ms * MS), process, kind, f, value, error)


def start(at_ms: float = 0, **cluster: Any) -> Op:
    value = {"origin_ns": ORIGIN_NS, "scenario": "director-power-cut", "seed": 1, "cluster": CLUSTER | cluster}
    return op(at_ms, "run", "start", value)


def end(at_ms: float) -> Op:
    return op(at_ms, "run", "end")


def holds(at_ms: float, node: str, *vips: str) -> Op:
    return op(at_ms, f"owners:{node}", "holds", {"node": node, "vips": list(vips)})


def power(at_ms: float, node: str, state: str) -> Op:
    return op(at_ms, f"power:{node}", "power", {"node": node, "power": state})


def alive(at_ms: float) -> Op:
    return op(at_ms, "arp:internet", "arp", {"alive": True})


def arp(at_ms: float, node: str, vip: str, kind: str = "request", target: str | None = None) -> Op:
    target = target or vip
    value = {"op": kind, "ip": vip, "mac": MAC.get(node, node), "node": node, "target": target}
    return op(at_ms, "arp:internet", "arp", value | {"gratuitous": target == vip})


def garp(at_ms: float, node: str, vip: str) -> list[Op]:
    """What send_arp does: five pairs over 0.9 s."""
    return [arp(at_ms + 200 * n + k, node, vip, kind) for n in range(5) for k, kind in enumerate(("request", "reply"))]


def log(at_ms: float, node: str, text: str) -> Op:
    return op(at_ms, f"log:{node}:heartbeat", "log", text)


def step(at_ms: float, name: str, phase: str, **more: Any) -> Op:
    return op(at_ms, "run", "step", {"step": name, "phase": phase, **more})


DOES: dict[str, tuple[str, ...]] = {
    "node.power-off": ("node-down",),
    "node.freeze": ("node-down",),
    "network.cut": ("cuts-path",),
    "real-server.refuse": ("changes-answers", "fails-check"),
    "real-server.reset": ("changes-answers", "fails-check"),
    "real-server.stall": ("changes-answers", "fails-check"),
    "process.kill": ("service-down", "fails-check"),
    "dns.one-address": ("changes-answers",),
    "dns.silent": ("changes-answers",),
}
"""What some faults do to the node that their settings name, as a run records it with their proof; others do nothing."""


def effects(fault: str, node: str | None) -> list[dict[str, str]]:
    return [{"kind": kind, "node": node, "service": ""} for kind in DOES.get(fault, ()) if node is not None]


def fault(at_ms: float, label: str, phase: str, **more: Any) -> Op:
    """One op of a fault, by default of a power cut of lb-1; a proof has the fault's effects."""
    value = {"fault": "node.power-off", "phase": phase, "node": "lb-1", **more}
    if phase == "proof":
        value = {**value, "effects": more.get("effects", effects(value["fault"], value["node"]))}
    return op(at_ms, f"fault:{label}", "fault", value)


def probe(at_ms: float, vip: str, seq: int, answer_ms: float | None = 2.0, slots: int = 20) -> list[Op]:
    """One probe: answered after ``answer_ms``, or timed out after 500 ms."""
    process, value = f"probe:{vip}/{seq % slots}", {"vip": vip, "seq": seq}
    sent = op(at_ms, process, "http", value, "invoke")
    if answer_ms is None:
        return [sent, op(at_ms + 500, process, "http", value, "info", error="timed out")]
    served = value | {"node": f"web-{seq % 6 + 1}", "status": 200}
    return [sent, op(at_ms + answer_ms, process, "http", served, "ok")]


def samples(node: str, since: float, till: float, *vips: str) -> list[Op]:
    """A sample at ``since`` and every 500 ms after it, before ``till``."""
    count = int((till - since - 1) // 500) + 1
    return [holds(since + 500 * n, node, *vips) for n in range(count)]


WEIGHTS = {"web-1": 1, "web-2": 1}
AS_BEFORE: dict[str, Any] = {
    "left": [],
    "problems": [],
    "owners": {VIP1: ["lb-1"], VIP2: ["lb-2"]},
    "weights": {node: {f"{vip}:80": WEIGHTS for vip in (VIP1, VIP2)} for node in ("lb-1", "lb-2")},
}
"""What the run sees when all is as it was."""


@dataclass(frozen=True)
class PowerCut:
    """When things happen in a power cut of lb-1 and its return."""

    cut: float = 10_000
    dead: float = 13_050
    taken: float = 14_900
    announced: float = 14_960
    served: float = 15_010
    booting: float = 25_000
    running: float = 26_400
    released: float = 40_000
    returned: float = 40_900
    announced_back: float = 40_960
    served_back: float = 41_010
    closed: float = 59_500
    end: float = 60_000
    probe_every: float = 50

    def history(self) -> History:
        """The history of a cluster that does all of it right."""
        return of([*self.run(), *self.directors(), *self.wire(), *self.logs(), *self.probes()])

    def run(self) -> list[Op]:
        return [
            start(),
            step(1_000, "steady", "begin", within_ms=30_000),
            step(4_000, "steady", "end", met=True, within_ms=30_000, took_ms=3_000),
            step(9_990, "cut", "begin", within_ms=15_000),
            fault(9_995, "cut", "start"),
            fault(self.cut + 2, "cut", "proof", seen="the machine is off"),
            step(15_300, "cut", "end", met=True, within_ms=15_000, took_ms=5_300),
            step(24_990, "power on", "begin", within_ms=30_000),
            fault(self.running, "cut", "end"),
            step(41_500, "power on", "end", met=True, within_ms=30_000, took_ms=16_510),
            step(41_510, "steady again", "begin", within_ms=30_000),
            step(59_000, "steady again", "end", met=True, within_ms=30_000, took_ms=17_490),
            op(self.closed, "owners:lb-1", "feed", {"phase": "closed"}),
            op(self.closed + 1, "audit", "audit", AS_BEFORE),
            end(self.end),
        ]

    def directors(self) -> list[Op]:
        return [
            *samples("lb-1", 120, self.cut, VIP1),
            power(self.cut, "lb-1", "off"),
            power(self.booting, "lb-1", "booting"),
            power(self.running, "lb-1", "running"),
            *samples("lb-1", self.running + 20, self.returned),
            *samples("lb-1", self.returned, self.closed, VIP1),
            *samples("lb-2", 150, self.taken, VIP2),
            *samples("lb-2", self.taken, self.released, VIP1, VIP2),
            *samples("lb-2", self.released, self.closed, VIP2),
        ]

    def wire(self) -> list[Op]:
        return [
            *(alive(200 + 1000 * n) for n in range(60)),
            arp(3_000, "lb-1", VIP1, "reply", "203.0.113.10"),
            arp(3_010, "lb-2", VIP2, "reply", "203.0.113.10"),
            *garp(self.announced, "lb-2", VIP1),
            arp(20_000, "lb-2", VIP1, "reply", "203.0.113.10"),
            *garp(self.announced_back, "lb-1", VIP1),
        ]

    def logs(self) -> list[Op]:
        return [
            log(self.dead - 1500, "lb-2", "heartbeat: [412]: WARN: node lb-1: late heartbeat: Interval 1520 ms"),
            log(self.dead, "lb-2", "heartbeat: [412]: WARN: node lb-1: is dead"),
            log(self.dead + 40, "lb-2", "heartbeat: [871]: info: Resources being acquired from lb-1."),
            log(self.taken - 10, "lb-2", f"IPaddr2[902]: INFO: ip -f inet addr add {VIP1}/24 dev eth0"),
            log(self.running + 3_000, "lb-1", "heartbeat: [388]: info: Status update for node lb-2: status active"),
            log(self.released - 30, "lb-2", "heartbeat: [412]: info: lb-2 wants to go standby [foreign]"),
        ]

    def probes(self) -> list[Op]:
        ops: list[Op] = []
        for vip, phase in ((VIP1, 0.0), (VIP2, 25.0)):
            for seq in range(int((self.closed - 1_000) // self.probe_every)):
                at = 500 + phase + seq * self.probe_every
                away = self.cut <= at < self.served or self.released <= at < self.served_back
                ops += probe(at, vip, seq, None if vip == VIP1 and away else 2.0)
        return ops


def of(ops: Iterable[Op]) -> History:
    """The ops as a history: in order of time, indexes as they come."""
    ordered = sorted(ops, key=lambda one: one.time)
    return History(one.copy(index=index) for index, one in enumerate(ordered))


def without(history: History, unwanted: Callable[[Op], bool]) -> History:
    """The history less some ops."""
    return of(one for one in history if not unwanted(one))


def renumbered(history: History) -> History:
    """The history as if each feed with a ``seq`` had counted only the requests that are there."""
    known: dict[tuple[str, str, int], int] = {}
    next_: dict[tuple[str, str], int] = {}

    def counted(op: Op) -> Op:
        if not isinstance(op.value, dict) or "seq" not in op.value or op.error == "probe overrun":
            return op
        target = op.f, str(op.get("vip") or op.get("node"))
        if op.type == "invoke":
            known[(*target, op["seq"])] = next_[target] = next_.get(target, -1) + 1
        return op.copy(value=op.value | {"seq": known.get((*target, op["seq"]), op["seq"])})

    return History(counted(op) for op in history)


def with_ops(history: History, *more: Op) -> History:
    """The history and some ops more."""
    return of([*history, *more])


def changed(history: History, which: Callable[[Op], bool], how: Callable[[Op], Op]) -> History:
    """The history with some ops changed."""
    return of(how(one) if which(one) else one for one in history)


def killed(history: History, at_ms: float) -> History:
    """What is left of the history when the run is killed then."""
    return without(history, lambda one: one.time > at_ms * MS or one.f == "end")
