"""A booted lab, whoever booted it. Implements ``harness.protocols.Lab``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

from harness.protocols import Capture, Feed, Node
from harness.records import Cable, Cluster, LabError, LeaseStatus, NodeStatus, Power, Status
from harness.wait import NotYet, until
from topology import render
from topology.lab import switch
from topology.lab.node import DockerNode
from topology.lab.observers import (
    HEARTBEAT_LOG,
    ArpFeed,
    ClockReference,
    CollectorFeed,
    ConsoleFeed,
    CpuFeed,
    LogFeed,
    OwnersFeed,
    parse_ha_cf,
    parse_ldirectord_cf,
)
from topology.model import Machine, Topology, Vip
from topology.parts import directors as linux_directors
from topology.parts.dns import address as resolver_address
from topology.parts.part import Seen
from topology.parts.virtual_service import tables

HEALTHY_S = 180
STATUS_EVERY_S = 0.5
ANSWER_S = 15
"""Longer than the slowest question: each bounds itself."""
RESOURCE_S = 30
AUDIT_S = 60
CLOCK_OFF_S = 3
RESOURCE_FACTOR = 12
"""A resource's status while nothing is wrong, times this, is what starting one may take. In takeovers under load it was
6.5 to 8 times as long (a status, a longer start, heartbeat's own scripts around them); half as much again is left."""
RESOURCE_LEAST_MS = 15_000
"""But never less than this: a machine that is fast for the moment of the question may be slow in the takeover. Where a
status took 0.5 s the starts in the next minutes took 7.5 and 8.4 s each; here is nearly twice that."""
LAST_WORDS = 20
"""Lines of heartbeat's log: what it did in its start after it was configured."""
SWITCH = "switch"
NODE_LABEL, ROLE_LABEL, KERNEL_LABEL, WHY_LABEL = (f"monkeywrench.{key}" for key in ("node", "role", "kernel", "why"))


class DockerLab:
    """A booted lab, whoever booted it."""

    def __init__(self, client: Any, name: str, topology: Topology, containers: Iterable[Any]) -> None:
        self._client, self.name, self.topology = client, name, topology
        self._nodes: dict[str, DockerNode] = {}
        self._why: dict[str, str] = {}
        for container in containers:
            labels = container.labels
            node = DockerNode(client, container, labels[ROLE_LABEL], labels[KERNEL_LABEL])
            self._nodes[node.name] = node
            self._why[node.name] = labels[WHY_LABEL]
        self._offset_ns: int | None = None

    @property
    def switch(self) -> DockerNode:
        """The switch."""
        return self._nodes[SWITCH]

    def nodes(self, role: str | None = None) -> list[Node]:
        """All nodes, or those of a role, in the order of the topology."""
        return [
            self._nodes[machine.name]
            for machine in self.topology.machines
            if machine.name in self._nodes and role in (None, machine.role)
        ]

    def node(self, name: str) -> DockerNode:
        """The node of that name."""
        if name not in self._nodes:
            known = ", ".join(machine.name for machine in self.topology.machines)
            raise LabError(f"there is no node {name!r} in lab {self.name}", f"There are: {known}.")
        return self._nodes[name]

    def directors(self) -> list[DockerNode]:
        """The directors."""
        return [self._nodes[machine.name] for machine in self.topology.of_role("director")]

    def close(self) -> None:
        """Close all control channels; the lab goes on."""
        for node in self._nodes.values():
            node.close()

    def now_ns(self) -> int:
        """The lab's clock: CLOCK_MONOTONIC of the machine that runs Docker, which is the client's."""
        if self._offset_ns is None:
            client = self._nodes[self.topology.of_role("client")[0].name]
            before = time.perf_counter_ns()
            there = client.state()["t"]
            after = time.perf_counter_ns()
            # within the round trip it is the same clock; then its own reading is the most exact one
            self._offset_ns = 0 if before <= there <= after else there - (before + after) // 2
        return time.perf_counter_ns() + self._offset_ns

    @cached_property
    def cluster(self) -> Cluster:
        """The facts, with the timings as the directors' own ha.cf and ldirectord.cf have them."""
        topology = self.topology
        director = next(node for node in self.directors() if node.power() is Power.RUNNING)
        timings = parse_ha_cf(director.exec("cat", "/etc/ha.d/ha.cf").stdout)
        on_internet = [machine for machine in topology.machines if "internet" in machine.addresses]
        return Cluster(
            site=topology.site,
            vips={str(vip.address): vip.home for vip in topology.vips},
            directors=tuple(machine.name for machine in topology.of_role("director")),
            web=tuple(machine.name for machine in topology.of_role("web")),
            macs={render.mac(self.name, m, topology.interface(m, "internet")): m.name for m in on_internet},
            keepalive_ms=timings["keepalive"],
            deadtime_ms=timings["deadtime"],
            resource_start_ms=self._resource_start_ms(),
            resolver=resolver_address(topology),
            auto_failback=topology.directors.auto_failback,
            resources_per_vip=1 if topology.answers_directly else 2,
            connection_sync=topology.directors.connection_sync,
            **parse_ldirectord_cf(director.exec("cat", "/etc/ha.d/ldirectord.cf").stdout),
        )

    def _resource_start_ms(self) -> int:
        """What one resource of haresources may take on this machine, from what one of its scripts takes now."""

        def status_s(vip: Vip) -> float:
            home = self._nodes[vip.home]
            outside = self.topology.interface(home_of(self.topology, vip), "internet")
            resource = f"{vip.address}/{self.topology.segments['internet'].prefixlen}/{outside}"
            began = time.perf_counter()
            home.exec("/etc/ha.d/resource.d/IPaddr2", resource, "status", timeout_s=RESOURCE_S)
            return time.perf_counter() - began

        with ThreadPoolExecutor(max_workers=2) as pool:
            slowest_s = max(pool.map(status_s, self.topology.vips))
        return max(round(RESOURCE_FACTOR * 1000 * slowest_s), RESOURCE_LEAST_MS)

    @cached_property
    def cables(self) -> tuple[Cable, ...]:
        """All cables, with the addresses that the topology gives their nodes."""
        return tuple(
            Cable(
                f"{machine.name}.{interface}",
                machine.name,
                interface,
                segment,
                tuple(str(address) for address in machine.addresses.get(segment, ())),
                render.mac(self.name, machine, interface),
            )
            for machine in self.topology.machines
            for interface, segment in self.topology.interfaces(machine)
        )

    def leases(self) -> list[LeaseStatus]:
        """What is injected now, on any node or in the switch; the oldest first."""
        with ThreadPoolExecutor(max_workers=len(self._nodes)) as pool:
            found = [lease for held in pool.map(DockerNode.leases, self._nodes.values()) for lease in held]
        return sorted(found, key=lambda lease: -lease.age_ms)

    def heal(self) -> list[LeaseStatus]:
        """Undo all that is injected, the newest first. One that sticks does not keep the others."""
        found, stuck = self.leases(), list[str]()
        for lease in reversed(found):
            try:
                self._nodes[lease.node].release(lease.name)
            except LabError as error:
                stuck.append(str(error))
        if stuck and self.leases():
            raise LabError("; ".join(stuck), "`monkeywrench down`, then `up`, makes a lab anew.")
        return found

    def audit(self) -> dict[str, tuple[str, ...]]:
        """Each node's state that a fault could leave changed, and the switch's."""
        with ThreadPoolExecutor(max_workers=len(self._nodes)) as pool:
            return dict(zip(self._nodes, pool.map(_audit, self._nodes.values()), strict=True))

    def owners(self) -> dict[str, tuple[str, ...]]:
        """Each VIP -> the directors that hold it, as their kernels say."""
        held = {director.name: self._addresses(director.name) for director in self.directors()}
        return linux_directors.owners_of(self.topology, held)

    def status(self) -> Status:
        """The cluster at this moment: every node is asked all its parts' questions at once."""
        with ThreadPoolExecutor(max_workers=len(self.topology.machines)) as pool:
            nodes = list(pool.map(self._node_status, self.topology.machines))
            power = {node.name: node.power for node in nodes}
            running = [machine for machine in self.topology.machines if power[machine.name] is Power.RUNNING]
            directors = [machine.name for machine in running if machine.role == "director"]
            held = dict(zip(directors, pool.map(self._addresses, directors), strict=True))
            answers = dict(zip([m.name for m in running], pool.map(self._answers, running), strict=True))
        by_part = {
            part.name: {node: said[part.name] for node, said in answers.items() if part.name in said}
            for part in render.parts(self.topology)
        }
        return judge(Seen(self.topology, power, held, by_part), nodes)

    def _node_status(self, machine: Machine) -> NodeStatus:
        node = self._nodes[machine.name]
        try:
            state = node.state()
        except LabError:
            state = {"state": "off", "release": ""}
        release = state["release"] if state["state"] in ("running", "frozen") else ""
        return NodeStatus(
            machine.name, machine.role, Power(state["state"]), node.kernel, release, self._why[machine.name]
        )

    def _addresses(self, director: str) -> tuple[str, ...]:
        return tuple(self._nodes[director].addresses())

    def _answers(self, machine: Machine) -> dict[str, str]:
        """What each part's question printed on a node; nothing when the node does not answer."""
        asked = questions(self.topology, machine)
        if not asked:
            return {}
        try:
            said = self._nodes[machine.name].exec("sh", "-c", script(asked), timeout_s=ANSWER_S).stdout
        except LabError:
            return {}  # it went down just now, or hangs; the next status says so
        return parse_answers(said)

    def observers(self) -> list[Feed]:
        """VIP owners, ARP, heartbeat's log, all consoles, nodes' processor time, and what their witnesses see."""
        directors = self.directors()
        owners = [OwnersFeed(node, self.cluster.vips) for node in directors]
        logs = [LogFeed(node, "heartbeat", HEARTBEAT_LOG) for node in directors]
        own_kernel = [node for node in self._nodes.values() if node.kernel == "uml"]
        consoles = [ConsoleFeed(node) for node in own_kernel]
        reference = self._clock_reference()
        collectors = [CollectorFeed(self._nodes[m.name], self._watched(m), reference) for m in self.topology.machines]
        processors = [CpuFeed(node) for node in self._nodes.values()]
        arp = ArpFeed(self.switch, "internet", self.cluster.macs)
        return [*owners, *logs, arp, *consoles, *collectors, *processors]

    def _watched(self, machine: Machine) -> list[Mapping[str, Any]]:
        """What the witness of a node looks at."""
        found = [each for part in render.parts(self.topology) for each in part.collectors(self.topology, machine)]
        return [{"what": "clock", "every_s": 2}, *found]

    def _clock_reference(self) -> ClockReference:
        """The time of day that the switch shows, whose kernel's clock is the lab's."""
        before = self.now_ns()
        wall_ns = int(self.switch.exec("date", "+%s%N").stdout)
        after = self.now_ns()
        return ClockReference(wall_ns, (before + after) // 2, after - before)

    def capture(self, path: str, segments: tuple[str, ...], packet_filter: str) -> Capture:
        """Capture whole segments, or cables named ``node.interface``, to a local pcapng file."""
        known = [*self.topology.segments, *switch.cables(self.topology)]
        for wanted in segments:
            if wanted not in known:
                raise LabError(f"there is no segment or cable {wanted!r} to capture", f"There are: {', '.join(known)}.")
        interfaces = [switch.bridge(name) if name in self.topology.segments else name for name in segments]
        return switch.WireCapture(self.switch, path, interfaces, packet_filter)

    def _vips_served(self) -> None:
        if misplaced := "; ".join(linux_directors.misplaced(self.topology, self.owners())):
            raise NotYet(misplaced)

    def last_words(self) -> str:
        """What the directors' heartbeats said last, a line each with the node's name before it."""
        said = []
        for director in self.directors():
            try:
                log = director.exec("tail", "-n", str(LAST_WORDS), HEARTBEAT_LOG, timeout_s=ANSWER_S).stdout
            except LabError as error:
                log = str(error)
            said += [f"{director.name}: {line}" for line in log.splitlines()]
        return "\n".join(said)

    def wait_healthy(self, within_s: float = HEALTHY_S, watch: Callable[[Status], None] | None = None) -> Status:
        """Wait until nothing is wrong. Raises Timeout, with what is.

        Looks at the VIPs alone until they are where they belong: a whole status costs the directors CPU time that a
        takeover needs. With ``watch``, every look is a whole one, and is shown to it.
        """

        def healthy() -> Status:
            try:
                if watch is None:
                    self._vips_served()
                status = self.status()
            except LabError as error:  # a node that does not answer now may do so in a moment
                raise NotYet(str(error)) from error
            if watch is not None:
                watch(status)
            if status.problems:
                raise NotYet("; ".join(status.problems))
            return status

        return until(healthy, within_s, "the cluster to be healthy", STATUS_EVERY_S)


def _audit(node: DockerNode) -> tuple[str, ...]:
    if node.power() is not Power.RUNNING:
        return ()
    earliest_s = _host_s(node)
    first, *lines = node.exec("/usr/lib/monkeywrench/audit", timeout_s=AUDIT_S).stdout.splitlines()
    return (clock_line(int(first.split()[1]), earliest_s, _host_s(node)), *lines)


def _host_s(node: DockerNode) -> int:
    """The host's time of day."""
    return int(node.chassis_exec("date", "+%s", timeout_s=AUDIT_S).stdout)


def clock_line(now_s: int, earliest_s: int, latest_s: int) -> str:
    """What an audit says of a clock that was read between two readings of the host's, in s. Pure."""
    off_s = min(0, now_s - earliest_s) or max(0, now_s - latest_s)
    return "clock: right" if abs(off_s) <= CLOCK_OFF_S else f"clock: off by {off_s} s"


def home_of(topology: Topology, vip: Vip) -> Machine:
    """The director that a VIP belongs to."""
    return next(machine for machine in topology.machines if machine.name == vip.home)


MARK = "\x1e"
"""ASCII's record separator: before each part's name in what a node prints."""


def questions(topology: Topology, machine: Machine) -> dict[str, str]:
    """Each part's question for a node. Pure."""
    asked = {part.name: part.probe_command(topology, machine) for part in render.parts(topology)}
    return {name: question for name, question in asked.items() if question}


def script(asked: Mapping[str, str]) -> str:
    """All questions in one, so that a node is asked once. Pure."""
    path = "PATH=$PATH:/usr/lib/monkeywrench"
    return "\n".join([path, *(f"printf '{MARK}%s\\n' '{name}'\n{question}" for name, question in asked.items())])


def parse_answers(said: str) -> dict[str, str]:
    """What came of the questions, by part. Pure."""
    found = {}
    for piece in said.split(MARK)[1:]:
        name, _, answer = piece.partition("\n")
        found[name] = answer
    return found


def judge(seen: Seen, nodes: Sequence[NodeStatus]) -> Status:
    """A status from what was seen. Pure."""
    parts = tuple(part.status(seen) for part in render.parts(seen.topology))
    off = [f"{node.name} is {node.power}" for node in nodes if node.power is not Power.RUNNING]
    problems = [*off, *(line for part in parts for line in part.problems)]
    owners = linux_directors.owners_of(seen.topology, seen.addresses)
    stale_neighbours = tuple(linux_directors.stale_neighbours(seen))
    return Status(tuple(nodes), owners, tables(seen), tuple(problems), parts, stale_neighbours)
