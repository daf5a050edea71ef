"""A cluster in memory that behaves as heartbeat does: takeover after deadtime, failback, gratuitous ARP."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.fake.load import FakeLoad
from harness.fake.node import FakeLease, FakeNode
from harness.fake.time import MS, FakeFeed, FakeStream, FakeTime, Topics
from harness.protocols import Feed, Feeds, Node
from harness.records import (
    Cable,
    Cluster,
    Consequence,
    LabError,
    LeaseStatus,
    NodeStatus,
    Power,
    RealServer,
    StaleNeighbour,
    Status,
)
from harness.wait import Clock

if TYPE_CHECKING:
    from harness.scenario import LoadTable

__all__ = ["Defect", "FakeCapture", "FakeLab"]

SAMPLE_MS = 500
ALIVE_MS = 1000
SCRIPTS_MS = 200
"""From the release of an address on one director to its start on the other."""
SERVING_MS = 100
GRATUITOUS_MS = (0, 225, 450, 675, 900)
"""heartbeat announces an address with five request/reply pairs over 0.9 s."""
LATE_MS = 15_000
DIRECTORS = ("lb-1", "lb-2")
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


@dataclass(frozen=True)
class FakeCapture:
    """A capture without packets."""

    path: str

    def stop(self) -> None:
        """There is nothing to flush."""


class FakeLab:
    """2 directors with a virtual IP each, some real servers and a client. With a ``defect`` it only seems to work."""

    def __init__(self, name: str = "fake", defect: Defect | None = None, web: int = 2) -> None:
        self.name = name
        self.defect = defect
        self.time = FakeTime()
        tasks = self.time.tasks
        self.clock = Clock(tasks.clock.now, tasks.sleep, tasks.spawn)
        self.topics = Topics(self.time)
        self.pretended: dict[str, Power] = {}
        """The power that the chassis of a node reports instead of the real one."""
        self.probe_dies_after_ms = PROBE_DIES_MS if defect is Defect.PROBE_DIES else None
        self.cluster = Cluster(
            site="www.example.test",
            vips={"203.0.113.101": "lb-1", "203.0.113.102": "lb-2"},
            directors=DIRECTORS,
            web=tuple(f"web-{n}" for n in range(1, web + 1)),
            macs={"02:00:00:00:00:01": "lb-1", "02:00:00:00:00:02": "lb-2", "02:00:00:00:00:10": "client"},
            keepalive_ms=500,
            deadtime_ms=3000,
            check_interval_ms=2000,
            check_timeout_ms=3000,
            quiescent=True,
            scheduler="wlc",
            connection_sync=True,
            peer_dead="node {node}: is dead",
            error_lines={"heartbeat": " (?:ERROR|CRIT): "},
            consequences=(Consequence("heartbeat", DIRECTORS, DIRECTORS, ("heartbeat",)),),
            followed_logs={"heartbeat": DIRECTORS},
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
        self._load = FakeLoad(self)

    def add(self, node: FakeNode) -> FakeNode:
        """Add a node, or replace the one of that name."""
        self._nodes[node.name] = node
        return node

    # --- the lab's protocol

    def nodes(self, role: str | None = None) -> list[Node]:
        """All nodes, or those of a role."""
        return [node for node in self._nodes.values() if role in {None, node.role}]

    def node(self, name: str) -> FakeNode:
        """The node of that name. Raises LabError, with the names of all nodes."""
        if name not in self._nodes:
            raise LabError(f"unknown node {name!r}; nodes: {', '.join(self._nodes)}")
        return self._nodes[name]

    def leases(self) -> list[LeaseStatus]:
        """The leases that are held now, oldest first."""
        return [
            LeaseStatus(
                each.node.name, str(n), each.fault, each.claim, "held", (self.now_ns() - each.since_ns) // MS, 0
            )
            for n, each in enumerate(self.held)
        ]

    def heal(self) -> list[LeaseStatus]:
        """Undo all injected faults, the newest first."""
        found = self.leases()
        for lease in reversed(tuple(self.held)):
            lease.release()
        return found

    def audit(self) -> dict[str, tuple[str, ...]]:
        """The power of each node; a fake node has no other state."""
        return {name: (f"power: {node.state}",) for name, node in self._nodes.items()}

    def now_ns(self) -> int:
        """Virtual time."""
        return self.time.now_ns

    def owners(self) -> dict[str, tuple[str, ...]]:
        """Each VIP -> the running directors that hold it."""
        return {vip: tuple(sorted(self._holders(vip))) for vip in self.cluster.vips}

    def status(self) -> Status:
        """Healthy when all nodes run and each VIP is on its home director."""
        owners = self.owners()
        problems = [f"{node.name} is {node.power()}" for node in self._nodes.values() if node.power() != "running"]
        for vip, home in self.cluster.vips.items():
            if owners[vip] != (home,):
                holders = " and ".join(owners[vip])
                instead = f"{holders} instead of {home}" if holders else f"no director; its home is {home}"
                problems.append(f"{vip} is held by {instead}")
        nodes = tuple(
            NodeStatus(node.name, node.role, node.power(), node.kernel, "fake", "the lab is a fake")
            for node in self._nodes.values()
        )
        problems += map(str, self.stale_neighbours)
        return Status(nodes, owners, self._ipvs(), tuple(problems), stale_neighbours=self.stale_neighbours)

    def observers(self) -> list[Feed]:
        """The addresses and the log of each director, and ARP."""
        found: list[Feed] = [FakeFeed("arp:internet", self._listen_arp, lambda: True)]
        for name in self.cluster.directors:
            found += self._feeds_of(self.node(name))
        return found

    def feeds(self, load: LoadTable | None = None) -> Feeds:
        """The probe, and the load if there is one."""
        return self._load.feeds(load)

    def capture(self, path: str, segments: tuple[str, ...], packet_filter: str) -> FakeCapture:
        """Write a capture file without packets."""
        Path(path).write_bytes(EMPTY_PCAPNG)
        return FakeCapture(path)

    # --- power and addresses

    def watch(self, node: FakeNode) -> FakeStream:
        """A node's power and addresses, line by line."""
        stream = self.topics.subscribe(f"watch:{node.name}")
        stream.put(json.dumps({"power": node.state}))
        self.time.every(SAMPLE_MS, lambda: self._publish_addresses(node), lambda: not stream.ended)
        return stream

    def set_power(self, node: FakeNode, power: Power) -> None:
        """Change a node's power, and print that to its watchers."""
        node.state = power
        self.topics.publish(f"watch:{node.name}", json.dumps({"power": power}))
        self.topics.entry(f"owners:{node.name}", f"power:{node.name}", "info", "power", self._power_of(node))
        if power in {Power.OFF, Power.PANICKED}:
            for held in self._holds.values():
                held.discard(node.name)
            for stream in node.streams:
                stream.stop()
            self.topics.end(f"log:{node.name}:heartbeat")

    def crash(self, node: FakeNode, power: Power) -> None:
        """A node goes silent; one deadtime later its peer takes over."""
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
        """A node releases all its addresses, and its peer takes them over."""
        peer = self._peer(node)
        for vip in self._held_by(node):
            self._release(node, vip)
            if peer is not None:
                self._take_later(peer, vip)

    def release_duplicates(self, node: FakeNode) -> None:
        """A node releases the addresses that another one holds, too."""
        for vip in self._held_by(node):
            if len(self._holders(vip)) > 1:
                self._release(node, vip)

    def fail_back(self, node: FakeNode) -> None:
        """A node takes its own addresses back, as with auto_failback."""
        if node.state is not Power.RUNNING:
            return
        for vip, home in self.cluster.vips.items():
            if home == node.name and node.name not in self._holds[vip]:
                if self.defect is not Defect.BOTH_HOLD:
                    for name in tuple(self._holds[vip]):
                        self._release(self.node(name), vip)
                self._take_later(node, vip)

    def _take_over(self, peer: FakeNode, dead: FakeNode) -> None:
        if peer.state is not Power.RUNNING or dead.state is Power.RUNNING:
            return
        self._log(peer, f"WARN: node {dead.name}: is dead")
        for vip, home in self.cluster.vips.items():
            if peer.name not in self._holds[vip] and home == dead.name:
                self._take_later(peer, vip)

    def _take_later(self, node: FakeNode, vip: str) -> None:
        self._log(node, f"info: Running /etc/ha.d/resource.d/IPaddr2 {vip} start")
        self.time.after(SCRIPTS_MS, lambda: self._take(node, vip))

    def _take(self, node: FakeNode, vip: str) -> None:
        if node.state is not Power.RUNNING:
            return
        self._holds[vip].add(node.name)
        self._serving_from[vip] = self.time.now_ns + SERVING_MS * MS
        self._publish_addresses(node)
        for delay_ms in GRATUITOUS_MS:
            for op in ("request", "reply"):
                self.time.after(delay_ms, partial(self._announce, node, vip, op))

    def _release(self, node: FakeNode, vip: str) -> None:
        self._holds[vip].discard(node.name)
        self._publish_addresses(node)

    # --- the state of the cluster

    def _holders(self, vip: str) -> set[str]:
        return {name for name in self._holds[vip] if self.node(name).state is Power.RUNNING}

    def _held_by(self, node: FakeNode) -> list[str]:
        return [vip for vip, held in self._holds.items() if node.name in held]

    def _peer(self, node: FakeNode) -> FakeNode | None:
        others = [name for name in self.cluster.directors if name != node.name]
        return self.node(others[0]) if node.role == "director" and others else None

    def server_of(self, vip: str, number: int) -> str | None:
        """The real server that answers request ``number``; None while the VIP is not served."""
        served = len(self._holders(vip)) == 1 and self.time.now_ns >= self._serving_from[vip]
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

    def _publish_addresses(self, node: FakeNode) -> None:
        if node.state is Power.RUNNING:
            vips = self._held_by(node)
            self.topics.publish(f"watch:{node.name}", json.dumps({"addresses": vips}))
            self.topics.entry(
                f"owners:{node.name}", f"owners:{node.name}", "info", "holds", {"node": node.name, "vips": vips}
            )

    def _announce(self, node: FakeNode, vip: str, op: str) -> None:
        if node.state is Power.RUNNING and node.name in self._holds[vip]:
            mac = next(mac for mac, name in self.cluster.macs.items() if name == node.name)
            packet = {"op": op, "ip": vip, "mac": mac, "node": node.name, "target": vip, "gratuitous": True}
            self.topics.entry("arp:internet", "arp:internet", "info", "arp", packet)

    def _log(self, node: FakeNode, text: str) -> None:
        name = f"log:{node.name}:heartbeat"
        self.topics.entry(name, name, "info", "log", f"heartbeat: {text}")

    # --- programs of the observers

    def _feeds_of(self, node: FakeNode) -> list[Feed]:
        return [
            FakeFeed(f"owners:{node.name}", lambda: self._observe(node), lambda: True),
            FakeFeed(f"log:{node.name}:heartbeat", lambda: self._follow_log(node), lambda: node.state is Power.RUNNING),
        ]

    def _observe(self, node: FakeNode) -> FakeStream:
        name = f"owners:{node.name}"
        stream = self.topics.subscribe(name)
        self.topics.entry(name, f"power:{node.name}", "info", "power", self._power_of(node))
        self.time.every(SAMPLE_MS, lambda: self._publish_addresses(node), lambda: not stream.ended)
        return stream

    def _listen_arp(self) -> FakeStream:
        stream = self.topics.subscribe("arp:internet")
        alive = {"alive": True}
        self.time.every(
            ALIVE_MS,
            lambda: self.topics.entry("arp:internet", "arp:internet", "info", "arp", alive),
            lambda: not stream.ended,
        )
        return stream

    def _follow_log(self, node: FakeNode) -> FakeStream:
        if node.state is not Power.RUNNING:
            raise LabError(f"{node.name} is {node.state} and takes no command")
        return self.topics.subscribe(f"log:{node.name}:heartbeat")
