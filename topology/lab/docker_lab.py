"""A booted lab, whoever booted it. Implements ``harness.protocols.Lab``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

import docker.errors

from harness.protocols import Capture, Feed, Node
from harness.records import Cable, Cluster, LabError, LeaseStatus, NodeStatus, Power, Status
from harness.wait import REAL, Clock, NotYet, Timeout, each, until
from topology import status
from topology.lab import switch
from topology.lab.node import DockerNode
from topology.lab.observers import (
    CONSOLE_ERROR,
    ArpFeed,
    ClockReference,
    CollectorFeed,
    ConsoleFeed,
    CpuFeed,
    LogFeed,
    OwnersFeed,
    PaceFeed,
    pace_ms,
)
from topology.lab.restore import ProofFeed
from topology.model import Machine, Topology
from topology.parts import directors as linux_directors
from topology.parts import heartbeat, parts_of
from topology.parts.part import Log, Observations

HEALTHY_S = 180
STATUS_EVERY_S = 0.5
ANSWER_S = 15
"""Longer than the slowest probe command; each has its own timeout."""
AUDIT_S = 60
CLOCK_OFF_S = 3
LAST_WORDS = 5
"""Lines of heartbeat's log on each director that an error shows."""
SAY_EVERY_S = 10
"""How often a wait for health reports the problems."""
SWITCH = "switch"
NODE_LABEL, ROLE_LABEL, KERNEL_LABEL, WHY_LABEL = (f"monkeywrench.{key}" for key in ("node", "role", "kernel", "why"))


def _silent(_: str) -> None:
    """No progress."""


class DockerLab:
    """A booted lab, whoever booted it."""

    clock: Clock = REAL

    def __init__(self, client: Any, name: str, topology: Topology, containers: Iterable[Any]) -> None:
        self._client, self.name, self.topology = client, name, topology
        self._nodes: dict[str, DockerNode] = {}
        self._why: dict[str, str] = {}
        for container in containers:
            labels = container.labels
            node = self._made(container, labels[ROLE_LABEL], labels[KERNEL_LABEL])
            self._nodes[node.name] = node
            self._why[node.name] = labels[WHY_LABEL]
        self._offset_ns: int | None = None

    def lost(self) -> Mapping[str, str]:
        """The nodes whose container does not run, and what the engine says of it. No fault ends a container."""
        found = {}
        for name, node in self._nodes.items():
            try:
                node.container.reload()
            except docker.errors.NotFound:
                found[name] = "it is gone"
                continue
            if node.container.status != "running":
                found[name] = f"it is {node.container.status}"
        return found

    def _made(self, container: Any, role: str, kernel: str) -> DockerNode:
        return DockerNode(self._client, container, role, kernel)

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
            raise LabError(f"unknown node {name!r}; nodes: {known}")
        return self._nodes[name]

    def directors(self) -> list[DockerNode]:
        """The directors."""
        return [self._nodes[machine.name] for machine in self.topology.of_role("director")]

    def close(self) -> None:
        """Close all control channels; the lab keeps running."""
        for node in self._nodes.values():
            node.close()

    def now_ns(self) -> int:
        """The lab's clock: CLOCK_MONOTONIC of the machine that runs Docker, which is the client's."""
        if self._offset_ns is None:
            client = self._nodes[self.topology.of_role("client")[0].name]
            before = time.perf_counter_ns()
            there = client.state()["t"]
            after = time.perf_counter_ns()
            # a reading within the round trip means the same clock, and then no offset is the most exact answer
            self._offset_ns = 0 if before <= there <= after else there - (before + after) // 2
        return time.perf_counter_ns() + self._offset_ns

    @cached_property
    def cluster(self) -> Cluster:
        """The facts: what the topology promises, what its parts measure, and what the directors' own files say."""
        topology = self.topology
        on_internet = [machine for machine in topology.machines if "internet" in machine.addresses]
        running: dict[str, Node] = {node.name: node for node in self.directors() if node.power() is Power.RUNNING}
        if not running:
            raise LabError(f"no director of lab {self.name} is running, so its settings cannot be read")
        logs = [
            (machine.name, log)
            for part in parts_of(topology)
            for machine in topology.machines
            for log in part.logs(topology, machine)
        ]
        followed: dict[str, tuple[str, ...]] = {}
        for name, log in logs:
            if log.is_exact:
                followed[log.service] = (*followed.get(log.service, ()), name)
        facts: dict[str, Any] = {}
        configured: dict[str, dict[str, Any]] = {name: {} for name in running}
        for part in parts_of(topology):
            facts |= part.cluster_facts(topology, running)
            for name, settings in part.configured(topology, running).items():
                configured[name] |= settings
        return Cluster(
            site=topology.site,
            vips={str(vip.address): vip.home for vip in topology.vips},
            directors=tuple(machine.name for machine in topology.of_role("director")),
            web=tuple(machine.name for machine in topology.of_role("web")),
            macs={topology.mac(m, topology.interface(m, "internet"), self.name): m.name for m in on_internet},
            error_lines={"console": CONSOLE_ERROR} | {log.service: log.error for _, log in logs if log.error},
            consequences=tuple(each for part in parts_of(topology) for each in part.consequences(topology)),
            followed_logs=followed,
            # in virtual time nothing depends on the machine
            pace_ms=pace_ms(self.switch) if self.clock is REAL else None,
            parts=tuple(part.name for part in parts_of(topology)),
            configured=configured,
            **facts,
        )

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
                self.topology.mac(machine, interface, self.name),
            )
            for machine in self.topology.machines
            for interface, segment in self.topology.interfaces(machine)
        )

    def leases(self) -> list[LeaseStatus]:
        """All active faults, on any node and in the switch, oldest first."""
        found = [lease for held in each(lambda node: node.leases(), self._nodes.values(), self.clock) for lease in held]
        return sorted(found, key=lambda lease: -lease.age_ms)

    def heal(self) -> list[LeaseStatus]:
        """Undo all active faults, newest first. One that cannot be undone does not keep the others from it."""
        found, stuck = self.leases(), list[str]()
        for lease in reversed(found):
            try:
                self._nodes[lease.node].release(lease.name)
            except LabError as error:
                stuck.append(str(error))
        if stuck and self.leases():
            raise LabError("; ".join(stuck), "Run `monkeywrench down`, then `monkeywrench up`, for a new lab.")
        return found

    def audit(self) -> dict[str, tuple[str, ...]]:
        """The state that a fault could leave changed, on each node and in the switch."""
        return dict(zip(self._nodes, each(self._audit, self._nodes.values(), self.clock), strict=True))

    def _audit(self, node: DockerNode) -> tuple[str, ...]:
        if node.power() is not Power.RUNNING:
            return ()
        earliest_s = self._time_of_day_s(node)
        first, *lines = node.exec("/usr/lib/monkeywrench/audit", timeout_s=AUDIT_S).stdout.splitlines()
        return (clock_line(int(first.split()[1]), earliest_s, self._time_of_day_s(node)), *lines)

    def _time_of_day_s(self, node: DockerNode) -> int:
        """The right time of day for a node: the host's."""
        return int(node.chassis_exec("date", "+%s", timeout_s=AUDIT_S).stdout)

    def owners(self) -> dict[str, tuple[str, ...]]:
        """Each VIP -> the directors that hold it, from their kernels."""
        held = {director.name: self._addresses(director.name) for director in self.directors()}
        return linux_directors.owners_of(self.topology, held)

    def status(self) -> Status:
        """The cluster now: every node runs the probe commands of all parts, all nodes in parallel."""
        nodes = each(self._node_status, self.topology.machines, self.clock)
        power = {node.name: node.power for node in nodes}
        running = [machine for machine in self.topology.machines if power[machine.name] is Power.RUNNING]
        directors = [machine.name for machine in running if machine.role == "director"]
        held = dict(zip(directors, each(self._addresses, directors, self.clock), strict=True))
        answers = dict(zip([m.name for m in running], each(self._answers, running, self.clock), strict=True))
        by_part = {
            part.name: {node: printed[part.name] for node, printed in answers.items() if part.name in printed}
            for part in parts_of(self.topology)
        }
        return status.judge(Observations(self.topology, power, held, by_part), nodes)

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
        """What each part's question printed on a node; empty when the node does not answer."""
        asked = status.questions(self.topology, machine)
        if not asked:
            return {}
        try:
            printed = self._nodes[machine.name].exec("sh", "-c", status.script(asked), timeout_s=ANSWER_S).stdout
        except LabError:
            return {}  # it just went down, or hangs: the next status shows which
        return status.answers(printed)

    def observers(self) -> list[Feed]:
        """VIP owners, ARP, logs, consoles, processor time, the machine's pace, and what the collectors sample."""
        machines = self.topology.machines
        owners = [OwnersFeed(node, self.cluster.vips) for node in self.directors()]
        logs = [LogFeed(self._nodes[m.name], log.service, log.path) for m in machines for log in self._logs(m, True)]
        arp = ArpFeed(self.switch, "internet", self.cluster.macs)
        consoles = [ConsoleFeed(node) for node in self._nodes.values() if node.kernel == "uml"]
        reference = self._clock_reference()
        collectors = [CollectorFeed(self._nodes[m.name], self._samples(m), reference) for m in machines]
        processors = [CpuFeed(node) for node in self._nodes.values()]
        return [*owners, *logs, arp, *consoles, *collectors, *processors, PaceFeed(self.switch)]

    def _logs(self, machine: Machine, is_exact: bool) -> list[Log]:
        found = [log for part in parts_of(self.topology) for log in part.logs(self.topology, machine)]
        return [log for log in found if log.is_exact == is_exact]

    def _samples(self, machine: Machine) -> list[Mapping[str, Any]]:
        """What the collector of a node samples: its clock, what its parts declare, and their logs."""
        declared = [each for part in parts_of(self.topology) for each in part.collectors(self.topology, machine)]
        logs = [log.collector for log in self._logs(machine, False)]
        return [{"what": "clock", "every_s": 2}, *declared, *logs]

    def _clock_reference(self) -> ClockReference:
        """The time of day in the switch, whose kernel clock is the lab's clock."""
        before = self.now_ns()
        wall_ns = int(self.switch.exec("date", "+%s%N").stdout)
        after = self.now_ns()
        return ClockReference(wall_ns, (before + after) // 2, after - before)

    def restore_proofs(self) -> list[Feed]:
        """One feed, which restores the current backup of the database in its own container."""
        return [ProofFeed(self._client, self)]

    def capture(self, path: str, segments: tuple[str, ...], packet_filter: str) -> Capture:
        """Capture whole segments, or cables named ``node.interface``, to a local pcapng file."""
        known = [*self.topology.segments, *switch.cables(self.topology)]
        for wanted in segments:
            if wanted not in known:
                raise LabError(f"unknown segment or cable {wanted!r} for a capture", f"Known: {', '.join(known)}.")
        interfaces = [switch.bridge(name) if name in self.topology.segments else name for name in segments]
        return switch.WireCapture(self.switch, path, interfaces, packet_filter)

    def last_words(self) -> str:
        """The last lines of heartbeat's log on each director, with the director's name before each line."""
        lines = []
        for director in self.directors():
            try:
                log = director.exec("tail", "-n", str(LAST_WORDS), heartbeat.LOG, timeout_s=ANSWER_S).stdout
            except LabError as error:
                log = str(error)
            lines += [f"{director.name}: {line}" for line in log.splitlines()]
        return "\n".join(lines)

    def wait_healthy(self, within_s: float = HEALTHY_S, say: Callable[[str], None] = _silent) -> Status:
        """Wait until the lab has no problems. Raises Unhealthy with the problems.

        ``say`` gets the current problems every 10 s. Until the VIPs are where they belong only they are looked at: a
        whole status costs the directors CPU time that a takeover needs.
        """
        began_s = self.clock.now()
        reported_s, concerns = began_s, frozenset[str]()

        def healthy() -> Status:
            nonlocal reported_s, concerns
            problems, concerns, status = self._problems()
            if status is not None and not problems:
                return status
            if self.clock.now() - reported_s >= SAY_EVERY_S:
                reported_s = self.clock.now()
                say(f"not healthy after {reported_s - began_s:.0f} s: {problems}")
            raise NotYet(problems)

        try:
            return until(healthy, within_s, "the cluster to be healthy", STATUS_EVERY_S, self.clock)
        except Timeout as timeout:
            raise Unhealthy(str(timeout), concerns) from None

    def _problems(self) -> tuple[str, frozenset[str], Status | None]:
        """The problems in one line, the parts that have them, and the status unless a VIP is misplaced."""
        try:
            if misplaced := "; ".join(linux_directors.misplaced(self.topology, self.owners())):
                return misplaced, frozenset({linux_directors.Directors.name}), None
            seen = self.status()
        except LabError as error:  # a node that does not answer now may do so in a moment
            return str(error), frozenset(), None
        return "; ".join(seen.problems), frozenset(part.name for part in seen.parts if not part.healthy), seen


class Unhealthy(Timeout):
    """The lab did not become healthy in time."""

    def __init__(self, problems: str, parts: frozenset[str]) -> None:
        super().__init__(problems)
        self.parts = parts
        """The names of the parts with problems at the end."""


def clock_line(now_s: int, earliest_s: int, latest_s: int) -> str:
    """The audit's line for a clock that was read between 2 readings of the host's clock, all in s. Pure."""
    off_s = min(0, now_s - earliest_s) or max(0, now_s - latest_s)
    return "clock: right" if abs(off_s) <= CLOCK_OFF_S else f"clock: off by {off_s} s"
