"""A lab in memory, as public as the real one: for tests of scenarios, checks and plugins where no Docker is.

Its time is virtual. It passes only while the thread that made the lab sleeps on ``lab.clock`` (or boots a node), and
then at once: a run of a minute takes a second, and comes out the same every time. Give that clock to ``run``.

>>> lab = FakeLab()
>>> lab.status().healthy
True
"""

from __future__ import annotations

import heapq
import itertools
import json
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Protocol

from harness.protocols import Feed, Node, Stream
from harness.records import (
    Cable,
    Cluster,
    Entry,
    LabError,
    LeaseStatus,
    Line,
    NodeStatus,
    Output,
    Power,
    RealServer,
    StaleNeighbour,
    Status,
    Undo,
)
from harness.wait import Clock

__all__ = ["Defect", "FakeCapture", "FakeFeed", "FakeLab", "FakeLease", "FakeNode", "FakeStream", "FakeTime"]

MS = 1_000_000

STEP_MS = 50
"""Time passes in steps so long; after each, all feeds read what happened in it."""

FEEDS_READ_S = 2.0
"""How long real time waits for a feed to read its lines; a feed that nobody reads must not stop the world."""

WAKE_S = 0.02
"""How long a thread other than the driver's sleeps at most, in real time: the driver may have stopped."""

SAMPLE_MS = 500
ALIVE_MS = 1000
PROBE_MS = 50
PROBE_SLOTS = 20
PROBE_TIMEOUT_MS = 800
ANSWER_MS = 3
GET_TIMEOUT_MS = 3000
LINE_EVERY_MS = 1000
BOOT_MS = 2000
FAILBACK_MS = 4000
"""A returned node's heartbeat asks for its resources about 4 s after its start."""
SCRIPTS_MS = 200
"""From letting go of an address on one director to holding it on the other."""
SERVING_MS = 100
GRATUITOUS_MS = (0, 225, 450, 675, 900)
"""heartbeat announces an address with five request/reply pairs over 0.9 s."""
LATE_MS = 15_000
PROBE_DIES_MS = 5_000

EMPTY_PCAPNG = bytes.fromhex("0a0d0d0a1c0000004d3c2b1a01000000ffffffffffffffff1c000000")
"""A section header block, the least that is a pcapng file (draft-ietf-opsawg-pcapng, 4.1)."""


class Defect(StrEnum):
    """What can be wrong with a fake lab, so that checks have something to find."""

    NEVER_TAKES_OVER = "never takes over"
    TAKES_OVER_LATE = "takes over late"
    BOTH_HOLD = "both hold"
    PROBE_DIES = "probe dies"
    FAULT_WITHOUT_EFFECT = "fault without effect"


class Load(Protocol):
    """What the fake users need to know of a scenario's load."""

    @property
    def users(self) -> int:
        """How many there are."""

    @property
    def think_ms(self) -> int:
        """How long each pauses after an answer."""

    @property
    def connections(self) -> int:
        """How many long answers are under way from each VIP."""


class FakeTime:
    """Virtual time with a list of what is to happen when."""

    def __init__(self) -> None:
        self.ns = 1_000_000 * MS  # not 0: an origin that is taken for granted would go unnoticed
        self.changed = threading.Condition()
        self.unread = 0
        """Lines that feeds have not read yet."""
        self._sleepers: list[int] = []
        """When each thread that sleeps, but the driver, wakes."""
        self._driver = threading.current_thread()
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def sleep(self, seconds: float) -> None:
        """In the driver's thread: let time pass, and all that is due happen. In others: wait for the driver, a bit."""
        until = self.ns + round(seconds * 1e9)
        if threading.current_thread() is not self._driver:
            with self.changed:
                self._sleepers.append(until)
                self.changed.wait_for(lambda: self.ns >= until, timeout=WAKE_S)
                self._sleepers.remove(until)
                self.changed.notify_all()
            return
        while self.ns < until:
            self._pass(min(until, self.ns + STEP_MS * MS))

    def after(self, delay_ms: float, happen: Callable[[], None]) -> None:
        """Let something happen later."""
        with self.changed:
            heapq.heappush(self._due, (self.ns + round(delay_ms * MS), next(self._order), happen))

    def every(self, interval_ms: float, happen: Callable[[], None], while_: Callable[[], bool]) -> None:
        """Let something happen now and at intervals, for as long as ``while_`` is true."""

        def tick() -> None:
            if while_():
                happen()
                self.after(interval_ms, tick)

        tick()

    def _pass(self, until: int) -> None:
        with self.changed:
            while self._due and self._due[0][0] <= until:
                self.ns, _, happen = heapq.heappop(self._due)
                happen()
            self.ns = until
            self.changed.notify_all()
            self.changed.wait_for(self._all_heard, timeout=FEEDS_READ_S)

    def _all_heard(self) -> bool:
        """True when every line was read, and every thread that is to wake has woken."""
        return self.unread == 0 and all(until > self.ns for until in self._sleepers)


class FakeStream:
    """Lines, put in by the lab."""

    def __init__(self, time: FakeTime) -> None:
        self.ended = False
        self._time = time
        self._lines: queue.SimpleQueue[Line | None] = queue.SimpleQueue()

    def put(self, text: str) -> None:
        """Let the program print a line."""
        with self._time.changed:
            if not self.ended:
                self._time.unread += 1
                self._lines.put(Line(self._time.ns, text))

    def stop(self) -> None:
        """End the program; what it printed can still be read."""
        with self._time.changed:
            if not self.ended:
                self.ended = True
                self._lines.put(None)

    def __iter__(self) -> Iterator[Line]:
        while (line := self._lines.get()) is not None:
            try:
                yield line
            finally:
                self._read()

    def _read(self) -> None:
        with self._time.changed:
            self._time.unread -= 1
            self._time.changed.notify_all()


@dataclass(frozen=True)
class FakeFeed:
    """A feed whose lines are entries in JSON."""

    name: str
    start: Callable[[], FakeStream]
    is_ready: Callable[[], bool]

    def open(self) -> Stream:
        """Start it."""
        return self.start()

    def entries(self, line: Line) -> Iterable[Entry]:
        """The one entry of a line."""
        return [Entry(**json.loads(line.text))]

    def ready(self) -> bool:
        """True when its node is running."""
        return self.is_ready()


@dataclass(frozen=True)
class FakeCapture:
    """A capture of nothing."""

    path: str

    def stop(self) -> None:
        """Nothing to flush."""


@dataclass
class FakeNode:
    """A machine that only has a power switch. Every command succeeds, and prints what ``says`` has for its program."""

    lab: FakeLab
    name: str
    role: str
    kernel: str = "uml"
    state: Power = Power.RUNNING
    files: dict[str, bytes] = field(default_factory=dict)
    streams: list[FakeStream] = field(default_factory=list)
    share: float = 1.0
    says: dict[str, str] = field(default_factory=dict)

    def services(self) -> tuple[str, ...]:
        """What a test says that it has."""
        return tuple(self.says.get("services", "").split())

    def exec(self, *argv: str, timeout_s: float = 10.0) -> Output:
        """Succeed, if the machine runs. Raises LabError otherwise."""
        self._must_run()
        return Output(0, self.says.get(argv[0], ""), "")

    def stream(self, *argv: str) -> Stream:
        """A program that prints nothing until its machine falls."""
        self._must_run()
        self.streams.append(FakeStream(self.lab.time))
        return self.streams[-1]

    def watch(self) -> Stream:
        """Power and addresses, as of the real machine."""
        return self.lab.watch(self)

    def put(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Keep the file in ``files``."""
        self._must_run()
        self.files[path] = content

    def power(self) -> Power:
        """What its chassis says, which one defect makes a lie."""
        return self.lab.pretended.get(self.name, self.state)

    def boot(self) -> None:
        """Power on; its own addresses come home some seconds later."""
        self.lab.pretended.pop(self.name, None)
        if self.state is Power.RUNNING:
            return
        self.lab.set_power(self, Power.BOOTING)
        self.lab.time.sleep(BOOT_MS / 1000)
        self.lab.set_power(self, Power.RUNNING)
        self.lab.time.after(FAILBACK_MS, lambda: self.lab.fail_back(self))

    def power_off(self) -> int:
        """Cut the power."""
        self.lab.crash(self, Power.OFF)
        return self.lab.now_ns()

    def shutdown(self) -> None:
        """Hand all addresses to the peer, then power off."""
        self.lab.hand_over(self)
        self.lab.set_power(self, Power.OFF)

    def freeze(self) -> None:
        """Stand still."""
        self.lab.crash(self, Power.FROZEN)

    def thaw(self) -> None:
        """Go on; let go of what the peer has taken, and take it back later."""
        self.lab.pretended.pop(self.name, None)
        if self.state is Power.FROZEN:
            self.lab.set_power(self, Power.RUNNING)
            self.lab.release_duplicates(self)
            self.lab.time.after(FAILBACK_MS, lambda: self.lab.fail_back(self))

    def panic(self) -> None:
        """Die until ``boot``."""
        self.lab.crash(self, Power.PANICKED)

    def throttle(self, share: float) -> None:
        """Remember the share."""
        self.share = share

    def power_step(self, verb: str) -> None:
        """A step of an undo."""
        if verb == "unthrottle":
            self.share = 1.0
        elif verb == "thaw":
            self.thaw()
        else:
            self.boot()

    def lease(self, fault: str, claim: str, undo: Sequence[Undo], again: Sequence[Undo] = ()) -> FakeLease:
        """Keep the undo until it is released. Raises LabError where the claim is taken."""
        for held in self.lab.held:
            if held.node is self and held.claim == claim:
                raise LabError(f"{self.name}: {fault} cannot be injected: {claim} is taken by {held.fault}")
        lease = FakeLease(self, fault, claim, tuple(undo), self.lab.now_ns())
        self.lab.held.append(lease)
        return lease

    def _must_run(self) -> None:
        if self.state is not Power.RUNNING:
            raise LabError(f"{self.name} is {self.state} and takes no command", f"boot {self.name}")


@dataclass
class FakeLease:
    """An undo that is carried out when it is released; `` is the harness that went away."""

    node: FakeNode
    fault: str
    claim: str
    undo: tuple[Undo, ...]
    since_ns: int

    def release(self) -> None:
        """Carry the undo out, once. Raises LabError when it was before, or when a command of it fails."""
        if self not in self.node.lab.held:
            raise LabError(f"{self.node.name}: {self.fault}: it was undone already")
        self.node.lab.held.remove(self)
        for step in self.undo:
            if step.where == "power":
                self.node.power_step(step.argv[0])
            elif not self.node.exec(*step.argv).ok:
                raise LabError(f"{self.node.name}: {self.fault} could not be undone: {' '.join(step.argv)}")


class FakeLab:
    """Two directors with a virtual IP each, some web nodes and a client. With a ``defect``, not what it seems."""

    def __init__(self, name: str = "fake", defect: Defect | None = None, web: int = 2) -> None:
        self.name = name
        self.defect = defect
        self.time = FakeTime()
        self.clock = Clock(lambda: self.time.ns / 1e9, self.time.sleep)
        self.pretended: dict[str, Power] = {}
        """What the chassis of a node that no fault has an effect on says instead of the truth."""
        self.cluster = Cluster(
            site="www.example.test",
            vips={"203.0.113.101": "lb-1", "203.0.113.102": "lb-2"},
            directors=("lb-1", "lb-2"),
            web=tuple(f"web-{n}" for n in range(1, web + 1)),
            macs={"02:00:00:00:00:01": "lb-1", "02:00:00:00:00:02": "lb-2", "02:00:00:00:00:10": "client"},
            keepalive_ms=500,
            deadtime_ms=3000,
            check_interval_ms=2000,
            check_timeout_ms=3000,
            quiescent=True,
            scheduler="wlc",
            connection_sync=True,
        )
        roles = {"client": "client", **dict.fromkeys(self.cluster.directors, "director")}
        roles |= dict.fromkeys(self.cluster.web, "web")
        self._nodes = {name: FakeNode(self, name, role) for name, role in roles.items()}
        self._holds: dict[str, set[str]] = {vip: {home} for vip, home in self.cluster.vips.items()}
        self._serving_from = dict.fromkeys(self.cluster.vips, 0)
        self.held: list[FakeLease] = []
        self.stale_neighbours: tuple[StaleNeighbour, ...] = ()
        self.switch = FakeNode(self, "switch", "switch", "host")
        self.cables = tuple(
            Cable(f"{node}.eth0", node, "eth0", "internet", (), mac) for mac, node in self.cluster.macs.items()
        )
        self._topics: dict[str, list[FakeStream]] = {}
        self._probe_died = False

    def add(self, node: FakeNode) -> FakeNode:
        """A node more, or another one of that name."""
        self._nodes[node.name] = node
        return node

    # --- the lab's protocol

    def nodes(self, role: str | None = None) -> list[Node]:
        """All nodes, or those of a role."""
        return [node for node in self._nodes.values() if role in {None, node.role}]

    def node(self, name: str) -> FakeNode:
        """The node of that name. Raises LabError naming the nodes there are."""
        if name not in self._nodes:
            raise LabError(f"there is no node {name}; there are {', '.join(self._nodes)}")
        return self._nodes[name]

    def leases(self) -> list[LeaseStatus]:
        """What is injected now."""
        return [
            LeaseStatus(
                each.node.name, str(n), each.fault, each.claim, "held", (self.now_ns() - each.since_ns) // MS, 0
            )
            for n, each in enumerate(self.held)
        ]

    def heal(self) -> list[LeaseStatus]:
        """Undo all that is injected, the newest first."""
        found = self.leases()
        for lease in reversed(tuple(self.held)):
            lease.release()
        return found

    def audit(self) -> dict[str, tuple[str, ...]]:
        """The power of each node: all that a fake node has."""
        return {name: (f"power: {node.state}",) for name, node in self._nodes.items()}

    def now_ns(self) -> int:
        """Virtual time."""
        return self.time.ns

    def owners(self) -> dict[str, tuple[str, ...]]:
        """Each VIP -> the running directors that hold it."""
        with self.time.changed:
            return {vip: tuple(sorted(self._awake(vip))) for vip in self.cluster.vips}

    def status(self) -> Status:
        """Healthy when all nodes run and each VIP is at home."""
        with self.time.changed:
            owners = self.owners()
            problems = [f"{node.name} is {node.power()}" for node in self._nodes.values() if node.power() != "running"]
            for vip, home in self.cluster.vips.items():
                if owners[vip] != (home,):
                    problems.append(f"{vip} is held by {' and '.join(owners[vip]) or 'nobody'}, not by {home}")
            nodes = tuple(
                NodeStatus(node.name, node.role, node.power(), node.kernel, "fake", "it is a fake")
                for node in self._nodes.values()
            )
            problems += map(str, self.stale_neighbours)
            return Status(nodes, owners, self._ipvs(), tuple(problems), stale_neighbours=self.stale_neighbours)

    def observers(self) -> list[Feed]:
        """Owners and logs of each director, and ARP."""
        found: list[Feed] = [FakeFeed("arp:internet", self._hear_arp, lambda: True)]
        for name in self.cluster.directors:
            found += self._feeds_of(self.node(name))
        return found

    def feeds(self, load: Load | None = None) -> list[Feed]:
        """The probe, and the load if there is one."""
        found: list[Feed] = [FakeFeed("probe", self._probe, lambda: not self._probe_died)]
        if load is not None:
            found.append(FakeFeed("load", lambda: self._users(load), lambda: True))
            if load.connections:
                found.append(FakeFeed("connections", lambda: self._connections(load), lambda: True))
        return found

    def capture(self, path: str, segments: tuple[str, ...], packet_filter: str) -> FakeCapture:
        """A capture file without packets."""
        Path(path).write_bytes(EMPTY_PCAPNG)
        return FakeCapture(path)

    # --- what nodes do to the cluster

    def watch(self, node: FakeNode) -> FakeStream:
        """A node's power and addresses, line by line."""
        stream = self._subscribed(f"watch:{node.name}")
        stream.put(json.dumps({"power": node.state}))
        self.time.every(SAMPLE_MS, lambda: self._say_addresses(node), lambda: not stream.ended)
        return stream

    def set_power(self, node: FakeNode, power: Power) -> None:
        """Change a node's power, and tell all who watch it."""
        with self.time.changed:
            node.state = power
            self._say(f"watch:{node.name}", json.dumps({"power": power}))
            self._entry(f"owners:{node.name}", f"power:{node.name}", "info", "power", self._power_of(node))
            if power in {Power.OFF, Power.PANICKED}:
                for held in self._holds.values():
                    held.discard(node.name)
                for stream in (*node.streams, *self._topics.pop(f"log:{node.name}:heartbeat", [])):
                    stream.stop()

    def crash(self, node: FakeNode, power: Power) -> None:
        """A node falls silent; one deadtime later its peer takes over."""
        if node.state is power:
            return
        if self.defect is Defect.FAULT_WITHOUT_EFFECT:
            self.pretended[node.name] = power
            return
        self.set_power(node, power)
        peer = self._peer(node)
        if peer is None or self.defect is Defect.NEVER_TAKES_OVER:
            return
        late_ms = LATE_MS if self.defect is Defect.TAKES_OVER_LATE else 0
        self.time.after(self.cluster.deadtime_ms + late_ms, lambda: self._take_over(peer, node))

    def hand_over(self, node: FakeNode) -> None:
        """A node lets go of all it has, and its peer takes it."""
        peer = self._peer(node)
        for vip in self._held_by(node):
            self._release(node, vip)
            if peer is not None:
                self._take_later(peer, vip)

    def release_duplicates(self, node: FakeNode) -> None:
        """A node releases what another one holds as well."""
        for vip in self._held_by(node):
            if len(self._awake(vip)) > 1:
                self._release(node, vip)

    def fail_back(self, node: FakeNode) -> None:
        """auto_failback: a node gets its own addresses back."""
        if node.state is not Power.RUNNING:
            return
        for vip, home in self.cluster.vips.items():
            if home == node.name and node.name not in self._holds[vip]:
                if self.defect is not Defect.BOTH_HOLD:
                    for name in tuple(self._holds[vip]):
                        self._release(self.node(name), vip)
                self._take_later(node, vip)

    def _take_over(self, peer: FakeNode, fallen: FakeNode) -> None:
        if peer.state is not Power.RUNNING or fallen.state is Power.RUNNING:
            return
        self._log(peer, f"WARN: node {fallen.name}: is dead")
        for vip, home in self.cluster.vips.items():
            if peer.name not in self._holds[vip] and home == fallen.name:
                self._take_later(peer, vip)

    def _take_later(self, node: FakeNode, vip: str) -> None:
        self._log(node, f"info: Running /etc/ha.d/resource.d/IPaddr2 {vip} start")
        self.time.after(SCRIPTS_MS, lambda: self._take(node, vip))

    def _take(self, node: FakeNode, vip: str) -> None:
        if node.state is not Power.RUNNING:
            return
        self._holds[vip].add(node.name)
        self._serving_from[vip] = self.time.ns + SERVING_MS * MS
        self._say_addresses(node)
        for delay_ms in GRATUITOUS_MS:
            for op in ("request", "reply"):
                self.time.after(delay_ms, partial(self._announce, node, vip, op))

    def _release(self, node: FakeNode, vip: str) -> None:
        self._holds[vip].discard(node.name)
        self._say_addresses(node)

    # --- what is seen of it

    def _awake(self, vip: str) -> set[str]:
        return {name for name in self._holds[vip] if self.node(name).state is Power.RUNNING}

    def _held_by(self, node: FakeNode) -> list[str]:
        return [vip for vip, held in self._holds.items() if node.name in held]

    def _peer(self, node: FakeNode) -> FakeNode | None:
        others = [name for name in self.cluster.directors if name != node.name]
        return self.node(others[0]) if node.role == "director" and others else None

    def _server(self, vip: str, number: int) -> str | None:
        """The web node that answers, if the VIP is served at all."""
        served = len(self._awake(vip)) == 1 and self.time.ns >= self._serving_from[vip]
        return self.cluster.web[number % len(self.cluster.web)] if served else None

    def _ipvs(self) -> dict[str, dict[str, tuple[RealServer, ...]]]:
        servers = tuple(RealServer(f"198.18.0.{n}:80", web, 1, 0, 0) for n, web in enumerate(self.cluster.web, 11))
        return {
            name: {f"{vip}:80": servers for vip in self.cluster.vips}
            for name in self.cluster.directors
            if self.node(name).state is Power.RUNNING
        }

    def _power_of(self, node: FakeNode) -> dict[str, str]:
        return {"node": node.name, "power": str(node.state)}

    def _say_addresses(self, node: FakeNode) -> None:
        if node.state is Power.RUNNING:
            vips = self._held_by(node)
            self._say(f"watch:{node.name}", json.dumps({"addresses": vips}))
            self._entry(
                f"owners:{node.name}", f"owners:{node.name}", "info", "holds", {"node": node.name, "vips": vips}
            )

    def _announce(self, node: FakeNode, vip: str, op: str) -> None:
        if node.state is Power.RUNNING and node.name in self._holds[vip]:
            mac = next(mac for mac, name in self.cluster.macs.items() if name == node.name)
            packet = {"op": op, "ip": vip, "mac": mac, "node": node.name, "target": vip, "gratuitous": True}
            self._entry("arp:internet", "arp:internet", "info", "arp", packet)

    def _log(self, node: FakeNode, text: str) -> None:
        name = f"log:{node.name}:heartbeat"
        self._entry(name, name, "info", "log", f"heartbeat: {text}")

    # --- the feeds' programs

    def _feeds_of(self, node: FakeNode) -> list[Feed]:
        return [
            FakeFeed(f"owners:{node.name}", lambda: self._observe(node), lambda: True),
            FakeFeed(f"log:{node.name}:heartbeat", lambda: self._follow_log(node), lambda: node.state is Power.RUNNING),
        ]

    def _observe(self, node: FakeNode) -> FakeStream:
        name = f"owners:{node.name}"
        stream = self._subscribed(name)
        self._entry(name, f"power:{node.name}", "info", "power", self._power_of(node))
        self.time.every(SAMPLE_MS, lambda: self._say_addresses(node), lambda: not stream.ended)
        return stream

    def _hear_arp(self) -> FakeStream:
        stream = self._subscribed("arp:internet")
        alive = {"alive": True}
        self.time.every(
            ALIVE_MS,
            lambda: self._entry("arp:internet", "arp:internet", "info", "arp", alive),
            lambda: not stream.ended,
        )
        return stream

    def _follow_log(self, node: FakeNode) -> FakeStream:
        if node.state is not Power.RUNNING:
            raise LabError(f"{node.name} is {node.state} and takes no command")
        return self._subscribed(f"log:{node.name}:heartbeat")

    def _probe(self) -> FakeStream:
        stream = self._subscribed("probe")
        counter = itertools.count()
        self.time.every(PROBE_MS, lambda: self._probe_all(next(counter)), lambda: not stream.ended)
        if self.defect is Defect.PROBE_DIES:
            self.time.after(PROBE_DIES_MS, lambda: self._kill_probe(stream))
        return stream

    def _kill_probe(self, stream: FakeStream) -> None:
        self._probe_died = True
        stream.stop()

    def _probe_all(self, seq: int) -> None:
        for vip in self.cluster.vips:
            process = f"probe:{vip}/{seq % PROBE_SLOTS}"
            asked = {"vip": vip, "seq": seq}
            self._request("probe", process, "http", asked, PROBE_TIMEOUT_MS, lambda: None)

    def _users(self, load: Load) -> FakeStream:
        stream = self._subscribed("load")
        vips = tuple(self.cluster.vips)
        for user in range(load.users):
            self._visit("load", user, vips[user % len(vips)], load.think_ms, stream)
        return stream

    def _visit(self, topic: str, user: int, vip: str, think_ms: int, stream: FakeStream) -> None:
        """One page after another: a user who waits asks nothing."""
        if stream.ended:
            return
        asked = {"url": f"http://{self.cluster.site}/", "vip": vip}

        def again() -> None:
            self.time.after(max(1, think_ms), lambda: self._visit(topic, user, vip, think_ms, stream))

        self._request(topic, f"user:{user}", "get", asked, GET_TIMEOUT_MS, again)

    def _connections(self, load: Load) -> FakeStream:
        stream = self._subscribed("connections")
        places = itertools.product(self.cluster.vips, range(load.connections))
        for name, (vip, number) in enumerate(places):
            asked = {"url": f"http://{self.cluster.site}/ticker.php", "vip": vip, "connection": str(name)}
            self._wait_for_line(f"connection:{vip}:{number}", asked, stream)
        return stream

    def _wait_for_line(self, process: str, asked: Mapping[str, str], stream: FakeStream) -> None:
        """A line a second, for as long as the VIP is served: connections are synced, so none breaks."""
        begun_ns = self.time.ns
        self._entry("connections", process, "invoke", "kept", asked)

        def look() -> None:
            server = self._server(asked["vip"], int(asked["connection"]))
            if stream.ended:
                return
            if server is None or self.time.ns - begun_ns < LINE_EVERY_MS * MS:
                self.time.after(PROBE_MS, look)
                return
            ms = (self.time.ns - begun_ns) / MS
            self._entry("connections", process, "ok", "kept", {**asked, "node": server, "status": 200, "ms": ms})
            self._wait_for_line(process, asked, stream)

        self.time.after(PROBE_MS, look)

    def _request(  # noqa: PLR0913, PLR0917 - an op has that many fields
        self, topic: str, process: str, f: str, asked: Mapping[str, object], timeout_ms: int, then: Callable[[], None]
    ) -> None:
        with self.time.changed:
            self._entry(topic, process, "invoke", f, asked)
            server = self._server(str(asked["vip"]), self.time.ns // MS)
            answered = {**asked, "node": server, "status": 200, **({"ms": ANSWER_MS} if f == "get" else {})}

            def complete() -> None:
                if server is not None:
                    self._entry(topic, process, "ok", f, answered)
                else:
                    self._entry(topic, process, "info", f, asked, f"no answer within {timeout_ms} ms")
                then()

            self.time.after(ANSWER_MS if server is not None else timeout_ms, complete)

    def _subscribed(self, topic: str) -> FakeStream:
        stream = FakeStream(self.time)
        with self.time.changed:
            self._topics.setdefault(topic, []).append(stream)
        return stream

    def _entry(  # noqa: PLR0913, PLR0917 - an op has that many fields
        self, topic: str, process: str, kind: str, f: str, value: object, error: str | None = None
    ) -> None:
        self._say(topic, json.dumps(asdict(Entry(self.time.ns, process, kind, f, value, error))))

    def _say(self, topic: str, text: str) -> None:
        with self.time.changed:
            for stream in self._topics.get(topic, []):
                stream.put(text)
