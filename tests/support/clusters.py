"""Runs of a right cluster made up by chance: what its feeds say of tables, DNS, the site's folder, Ganglia and so on.

A scene has real servers and directors that fail and come back, and a cluster that does all that it should, as late as
it may. Whoever plants a defect changes what its feeds said. Times are milliseconds.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from harness.history import History, Op
from tests.support import histories as h

WEB = tuple(f"web-{number}" for number in range(1, 7))
DIRECTORS = ("lb-1", "lb-2")
VIPS = (h.VIP1, h.VIP2)
INTERVAL, TIMEOUT = 2_000, 3_000
HANGS = ("node.power-off", "node.freeze", "real-server.stall")
REFUSES = ("real-server.refuse", "real-server.reset")


@dataclass(frozen=True)
class Happening:
    """A fault of a node: in from ``proof`` to ``undoing``; the node is itself again at ``sound``."""

    label: str
    fault: str
    node: str
    start: float
    proof: float
    undoing: float
    end: float
    sound: float
    settings: Mapping[str, Any] = field(default_factory=dict)

    def down(self, at: float) -> bool:
        """Whether the node does nothing at a time."""
        return self.proof - 1 <= at < self.sound


@dataclass(frozen=True)
class Scene:
    """What happens in a run, drawn from a seed. ``faults`` are drawn from ``kinds``, one after another."""

    seed: int
    faults: int = 2
    kinds: tuple[str, ...] = (*HANGS, *REFUSES)
    nodes: tuple[str, ...] = WEB
    holds: tuple[float, float] = (18_000, 30_000)
    """How long a fault stays in."""
    rests: tuple[float, float] = (45_000, 60_000)
    """How long nothing happens after each."""
    quiescent: bool = True
    cluster: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def chance(self) -> random.Random:
        return random.Random(self.seed)

    @cached_property
    def happenings(self) -> list[Happening]:
        found, at, chance = [], 12_000.0, random.Random(f"happenings {self.seed}")
        for number in range(self.faults):
            node, fault = chance.choice(self.nodes), chance.choice(self.kinds)
            proof = at + chance.uniform(50, 1_500)
            undoing = proof + chance.uniform(*self.holds)
            end = undoing + chance.uniform(500, 5_000)
            sound = chance.uniform(undoing, end + 2_000)
            found.append(Happening(f"fault {number}", fault, node, at, proof, undoing, end, sound))
            at = end + chance.uniform(*self.rests)
        return found

    @property
    def end(self) -> float:
        """The last moment of the run."""
        last = self.happenings[-1].end if self.happenings else 20_000
        return last + self.rests[0]

    def history(self, *feeds: Callable[[Scene], Iterator[Op]]) -> History:
        """The run with what these feeds said."""
        cluster = {"quiescent": self.quiescent, **self.cluster}
        ops = [h.start(**cluster), *self.run(), *self.watch()]
        for feed in feeds:
            ops += feed(self)
        return h.of(ops)

    def run(self) -> Iterator[Op]:
        """Steps and faults."""
        yield h.step(1_000, "steady", "begin", within_ms=30_000)
        yield h.step(2_000, "steady", "end", met=True, within_ms=30_000, took_ms=1_000)
        for one in self.happenings:
            value = {"fault": one.fault, "node": one.node, **one.settings}
            yield h.step(one.start - 5, one.label, "begin")
            yield h.fault(one.start, one.label, "start", **value)
            yield h.fault(one.proof, one.label, "proof", **value, seen="so")
            yield h.step(one.proof + 5, one.label, "end", met=True, took_ms=9)
            yield h.step(one.undoing, f"heal {one.label}", "begin", within_ms=60_000)
            yield h.fault(one.end, one.label, "end", **value)
            met = {"met": True, "within_ms": 60_000, "took_ms": 9_000}
            yield h.step(max(one.end, one.sound) + 1_000, f"heal {one.label}", "end", **met)
        yield h.op(self.end, "owners:lb-1", "feed", {"phase": "closed"})
        yield h.end(self.end + 100)

    def watch(self) -> Iterator[Op]:
        """The directors, each with its own VIP, and their power."""
        for node, vip in zip(DIRECTORS, VIPS, strict=True):
            yield h.power(50, node, "running")
            yield from h.samples(node, 100, self.end, vip)

    def down(self, node: str, at: float) -> Happening | None:
        """What keeps a node from doing anything at a time."""
        return next((one for one in self.happenings if one.node == node and one.down(at)), None)


# --- tables


def tables(scene: Scene) -> Iterator[Op]:
    """Both directors' tables, every half second."""
    for director in DIRECTORS:
        yield from _table(scene, director)


def _table(scene: Scene, director: str) -> Iterator[Op]:
    """ldirectord as it is: one check after another, then a pause."""
    chance = random.Random(f"{director} {scene.seed}")
    changes = iter(sorted(_checks(scene, chance), key=lambda one: one[0]))
    pending = next(changes, None)
    own = VIPS[DIRECTORS.index(director)]
    services = {vip: Service(chance, str(scene.cluster.get("scheduler", "wlc")), busy=vip == own) for vip in VIPS}
    at = 200.0 + chance.uniform(0, 300)
    while at < scene.end:
        while pending is not None and pending[0] <= at:
            when, vip, node, up = pending
            services[vip].until(when)
            services[vip].put(node, 1 if up else 0 if scene.quiescent else None)
            pending = next(changes, None)
        for service in services.values():
            service.until(at)
        table = {vip: service.servers() for vip, service in services.items()}
        yield h.op(at, f"table:{director}", "table", {"node": director, "vips": table})
        at += 500 + chance.uniform(-20, 20)


class Service:
    """One virtual service of IPVS: short connections, and a few that a visitor keeps open."""

    def __init__(self, chance: random.Random, scheduler: str, busy: bool) -> None:
        self.chance, self.scheduler, self.busy = chance, scheduler, busy
        self.weight: dict[str, int | None] = dict.fromkeys(WEB, 1)
        self.able = [*WEB]
        """Those with a weight, in their order."""
        self.conns, self.active, self.inactive = (dict.fromkeys(WEB, 0) for _ in range(3))
        self.next = chance.uniform(0, 60)
        self.ends: list[tuple[float, str, bool]] = []
        self.turn = 0

    def put(self, node: str, weight: int | None) -> None:
        """What ldirectord does: None takes it out of the table."""
        self.weight[node] = weight
        self.able = [each for each in WEB if self.weight[each]]
        if weight is None:
            self.conns[node] = self.active[node] = self.inactive[node] = 0
            self.ends = [one for one in self.ends if one[1] != node]
            heapq.heapify(self.ends)

    def until(self, at: float) -> None:
        """Let connections come and end."""
        chance, ends = self.chance, self.ends
        while self.busy and (self.next <= at or (ends and ends[0][0] <= at)):
            if ends and ends[0][0] <= self.next:
                when, node, was_active = heapq.heappop(ends)
                (self.active if was_active else self.inactive)[node] -= 1
                if was_active:
                    self.inactive[node] += 1
                    heapq.heappush(ends, (when + 20_000, node, False))
                continue
            if taker := self.pick():
                self.conns[taker] += 1
                self.active[taker] += 1
                lasts = chance.uniform(500, 3_000) if chance.random() < 0.06 else chance.uniform(2, 9)
                heapq.heappush(ends, (self.next + lasts, taker, True))
            self.next += chance.expovariate(1 / 60)

    def pick(self) -> str | None:
        """Whom the scheduler gives the next connection."""
        if not self.able:
            return None
        if self.scheduler == "rr":
            self.turn = next(n for n in range(self.turn + 1, self.turn + 99) if WEB[n % len(WEB)] in self.able)
            return WEB[self.turn % len(WEB)]
        load = [256 * self.active[node] + self.inactive[node] for node in self.able]
        return self.able[load.index(min(load))]

    def servers(self) -> dict[str, dict[str, int]]:
        """The real servers in its table."""
        return {
            node: {
                "weight": weight,
                "active": self.active[node],
                "inactive": self.inactive[node],
                "conns": self.conns[node],
            }
            for node, weight in self.weight.items()
            if weight is not None
        }


def _checks(scene: Scene, chance: random.Random) -> Iterator[tuple[float, str, str, bool]]:
    """Every change that a round of checks makes."""
    at = chance.uniform(0, INTERVAL)
    up = {(vip, node): True for vip in VIPS for node in WEB}
    while at < scene.end:
        for vip in VIPS:
            for node in WEB:
                cause = scene.down(node, at)
                at += TIMEOUT if cause and cause.fault in HANGS else chance.uniform(20, 80)
                if up[vip, node] == (cause is not None):
                    up[vip, node] = cause is None
                    yield at, vip, node, cause is None
        at += INTERVAL


def with_values(history: History, f: str, value_of: Callable[[Op], Any]) -> History:
    """The history with another value in each op of that ``f`` for which ``value_of`` gives one."""

    def other(op: Op) -> Op:
        value = value_of(op)
        return op if value is None else op.copy(value=value)

    return h.changed(history, lambda op: op.f == f, other)


def reweighed(op: Op, vip: str, node: str, **values: Any) -> dict[str, Any]:
    """A table's value with other values for one real server; ``gone=True`` takes it out."""
    vips = {name: dict(servers) for name, servers in op["vips"].items()}
    if values.pop("gone", False):
        vips[vip].pop(node, None)
    else:
        vips[vip][node] = {"weight": 1, "active": 0, "inactive": 0, "conns": 0, **vips[vip].get(node, {}), **values}
    return {**op.value, "vips": vips}


# --- users


def users(scene: Scene) -> Iterator[Op]:
    """Six users who see errors only until a fault is noticed, and while it settles; some are refused, some stopped.

    The first real server serves the files of all, so its faults are seen to their end.
    """
    chance = random.Random(f"users {scene.seed}")
    for user in range(6):
        at = 2_000.0 + 30 * user
        while at < scene.end - 6_000:
            wrong = any(_seen(one, at) for one in scene.happenings) and chance.random() < 0.1
            yield from _visit(chance, at, user, wrong)
            at += 5_000 if wrong else chance.uniform(150, 450)
        yield h.op(scene.end - 900, f"user:{user}", "get", {"url": "/", "vip": h.VIP1}, "invoke")
        stopped = {"url": "/", "vip": h.VIP1, "ms": 900}
        yield h.op(scene.end - 10, f"user:{user}", "get", stopped, "info", error="stopped")


NOTICED = 9_000.0
"""Sooner than the directors must notice a failure: 8 s and a round of checks."""


def _seen(one: Happening, at: float) -> bool:
    if one.node == WEB[0]:
        return one.start <= at <= one.end + 3_000
    return one.start <= at <= one.proof + NOTICED or one.undoing <= at <= one.end + 3_000


def _visit(chance: random.Random, at: float, user: int, wrong: bool) -> Iterator[Op]:
    process, asked = f"user:{user}", {"url": "/", "vip": chance.choice(VIPS)}
    served = asked | {"node": chance.choice(WEB), "status": 200, "ms": 20}
    if wrong:
        yield h.op(at, process, "get", asked, "invoke")
        if chance.random() < 0.5:
            yield h.op(at + 4_900, process, "get", asked | {"ms": 4_900}, "info", error="timeout")
        else:
            yield h.op(at + 90, process, "get", asked | {"ms": 90}, "fail", error="connection refused")
    elif chance.random() < 0.1:
        yield h.op(at, process, "transfer", asked, "invoke")
        refused = served | {"status": 409, "written": "no", "said": "not enough coins"}
        yield h.op(at + 20, process, "transfer", refused, "fail", error="status 409")
    else:
        yield h.op(at, process, "get", asked, "invoke")
        yield h.op(at + 20, process, "get", served, "ok")


# --- probes


def probes(scene: Scene) -> Iterator[Op]:
    """Each VIP asked ten times a second, and answered by any real server that is up, one by chance."""
    chance = random.Random(f"probes {scene.seed}")
    for phase, vip in enumerate(VIPS):
        for seq in range(int((scene.end - 2_000) // 100)):
            at = 500 + 50 * phase + 100.0 * seq
            value = {"vip": vip, "seq": seq}
            up = [node for node in WEB if scene.down(node, at) is None]
            yield h.op(at, f"probe:{vip}/{seq % 20}", "http", value, "invoke")
            served = value | {"node": chance.choice(up), "status": 200}
            yield h.op(at + 3, f"probe:{vip}/{seq % 20}", "http", served, "ok")


# --- DNS


def dns(scene: Scene) -> Iterator[Op]:
    """A resolver that turns its list on at each query, also at those of others, and loses one now and then."""
    chance = random.Random(f"dns {scene.seed}")
    vips = list(scene.cluster.get("vips", VIPS))
    turn = 0
    for seq in range(int((scene.end - 1_000) // 250)):
        at = 300 + 250.0 * seq
        yield h.op(at, "dns:resolver", "dns", {"seq": seq}, "invoke")
        faulty = any(one.node == "resolver" and one.down(at) for one in scene.happenings)
        if faulty or chance.random() < 0.01:
            yield h.op(at + 200, "dns:resolver", "dns", {"seq": seq}, "info", error="timeout")
            continue
        turn += 1 + chance.choice((0, 0, 1, 2, 3))
        answer = {"seq": seq, "rcode": 0, "answers": vips[turn % len(vips) :] + vips[: turn % len(vips)], "ttl_s": 5}
        yield h.op(at + 2, "dns:resolver", "dns", answer, "ok")


# --- the site's folder


def docroot(scene: Scene) -> Iterator[Op]:
    """The master changes a file now and then; the others have it some seconds later, or when they are back."""
    chance = random.Random(f"docroot {scene.seed}")
    files = {f"page-{number}.html": f"{number:02d}-0" for number in range(4)}
    changes = list(_edits(scene, chance, files))
    yield from _looks(scene, chance, WEB[0], files, changes)
    for node in WEB[1:]:
        latest: dict[str, float] = {}
        arrivals = []
        for at, path, digest in changes:
            there = max(_arrival(scene, chance, node, at), latest.get(path, 0) + 1)
            latest[path] = there
            arrivals.append((there, path, digest))
        yield from _looks(scene, chance, node, files, sorted(arrivals))


def _edits(scene: Scene, chance: random.Random, files: Mapping[str, str]) -> Iterator[tuple[float, str, str | None]]:
    """Files are changed, made and removed on the master while it runs."""
    at, paths = 1_000.0, [*files, "new.html"]
    there = set(files)
    for number in range(1, 400):
        at += chance.uniform(2_000, 9_000)
        if at > scene.end - 1_000:
            return
        path = chance.choice(paths)
        if scene.down(WEB[0], at) is None:
            gone = path in there and chance.random() < 0.2
            (there.discard if gone else there.add)(path)
            yield at, path, None if gone else f"{number:03d}-{chance.randrange(10**6)}"


def _arrival(scene: Scene, chance: random.Random, node: str, at: float) -> float:
    """When a real server has a change of that time."""
    there = at + chance.uniform(600, 9_000)
    for one in scene.happenings:
        if one.node in {node, WEB[0]} and at < one.sound and there > one.proof - 1:
            there = one.sound + chance.uniform(1_000, 60_000)
    return there


def _looks(
    scene: Scene,
    chance: random.Random,
    node: str,
    files: Mapping[str, str],
    changes: list[tuple[float, str, str | None]],
) -> Iterator[Op]:
    """A look at each change and every five seconds, while the node runs."""
    now = dict(files)
    waiting = list(changes)
    times = {at for at, _, _ in changes} | {200 + 4_900.0 * n for n in range(int(scene.end // 4_900))}
    for at in sorted(times):
        while waiting and waiting[0][0] <= at:
            _, path, digest = waiting.pop(0)
            if digest is None:
                now.pop(path, None)
            else:
                now[path] = digest
        if scene.down(node, at) is None and at < scene.end:
            sample = {
                "node": node,
                "files": {".page-1.html.Xy12z3": "half", **now} if chance.random() < 0.1 else {**now},
            }
            yield h.op(at + chance.uniform(0, 400), f"docroot:{node}", "docroot", sample)


# --- Ganglia


def ganglia(scene: Scene) -> Iterator[Op]:
    """A look at gmetad every five seconds, while the director that runs it does."""
    chance = random.Random(f"ganglia {scene.seed}")
    heard = dict.fromkeys((*DIRECTORS, *WEB), 0.0)
    for number in range(1, int(scene.end // 5_000)):
        at = 5_000.0 * number + chance.uniform(0, 300)
        for node in heard:
            if scene.down(node, at) is None:
                heard[node] = max(heard[node], at - chance.uniform(0, 35_000), 0)
            elif (one := scene.down(node, at)) is not None:
                heard[node] = min(max(heard[node], one.proof - 20_000), one.proof)
        if scene.down("lb-1", at) is None:
            hosts = {node: {"tn_s": round((at - since) / 1_000), "tmax_s": 20} for node, since in heard.items()}
            yield h.op(at, "ganglia:lb-1", "ganglia", {"node": "lb-1", "hosts": hosts})
