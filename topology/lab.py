"""A booted lab, whoever booted it. Implements ``harness.protocols.Lab``."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

from harness.protocols import Capture, Cluster, Feed, LabError, Node, NodeStatus, Power, RealServer, Status
from harness.wait import NotYet, until
from topology import render, switch
from topology.model import Machine, Topology, Vip
from topology.node import DockerNode
from topology.observe import HEARTBEAT_LOG, ArpFeed, LogFeed, OwnersFeed, parse_ha_cf, parse_ipvs

HEALTHY_S = 90
STATUS_EVERY_S = 0.5
RESOURCE_S = 30
RESOURCE_FACTOR = 12
"""A resource's status while nothing is wrong, times this, is what starting one may take. In takeovers under load it was
6.5 to 8 times as long (a status, a longer start, heartbeat's own scripts around them); half as much again is left."""
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
        """The facts, with the timings as the directors' own ha.cf has them."""
        topology = self.topology
        director = next(node for node in self.directors() if node.power() is Power.RUNNING)
        timings = parse_ha_cf(director.exec("cat", "/etc/ha.d/ha.cf").stdout)
        resolver = topology.of_role("resolver")[0]
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
            resolver=str(resolver.addresses["internet"][0]),
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
            return round(RESOURCE_FACTOR * 1000 * max(pool.map(status_s, self.topology.vips)))

    def status(self) -> Status:
        """The cluster at this moment."""
        with ThreadPoolExecutor(max_workers=8) as pool:
            nodes = list(pool.map(self._node_status, self.topology.machines))
            running = {node.name for node in nodes if node.power is Power.RUNNING}
            directors = [node for node in self.directors() if node.name in running]
            held = dict(zip([d.name for d in directors], pool.map(DockerNode.addresses, directors), strict=True))
            tables = dict(zip([d.name for d in directors], pool.map(self._ipvs, directors), strict=True))
            site = pool.submit(self._site, running).result()
        vips = [str(vip.address) for vip in self.topology.vips]
        owners = {vip: tuple(name for name, addresses in held.items() if vip in addresses) for vip in vips}
        trouble = list(troubles(self.topology, nodes, owners, tables, site))
        return Status(tuple(nodes), owners, tables, tuple(trouble))

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

    def _ipvs(self, director: DockerNode) -> dict[str, tuple[RealServer, ...]]:
        nodes = {str(address): m.name for m in self.topology.of_role("web") for address in m.addresses["lan"]}
        try:
            return parse_ipvs(director.exec("ipvsadm", "-Ln").stdout, nodes)
        except LabError:
            return {}  # it went down just now; the next status says so

    def _site(self, running: set[str]) -> dict[str, Any]:
        client = self.topology.of_role("client")[0].name
        if client not in running:
            return {}
        resolver = str(self.topology.of_role("resolver")[0].addresses["internet"][0])
        vips = [str(vip.address) for vip in self.topology.vips]
        try:
            asked = self._nodes[client].exec(
                "python3", "-S", "/usr/lib/monkeywrench/site.py", resolver, self.topology.site, *vips
            )
            return dict(json.loads(asked.stdout))
        except (LabError, ValueError):
            return {}

    def observers(self) -> list[Feed]:
        """VIP owners, ARP, and heartbeat's log."""
        directors = self.directors()
        owners = [OwnersFeed(node, self.cluster.vips) for node in directors]
        logs = [LogFeed(node, "heartbeat", HEARTBEAT_LOG) for node in directors]
        return [*owners, *logs, ArpFeed(self.switch, "internet", self.cluster.macs)]

    def capture(self, path: str, segments: tuple[str, ...], packet_filter: str) -> Capture:
        """Capture whole segments, or cables named ``node.interface``, to a local pcapng file."""
        known = [*self.topology.segments, *switch.cables(self.topology)]
        for wanted in segments:
            if wanted not in known:
                raise LabError(f"there is no segment or cable {wanted!r} to capture", f"There are: {', '.join(known)}.")
        interfaces = [switch.bridge(name) if name in self.topology.segments else name for name in segments]
        return switch.WireCapture(self.switch, path, interfaces, packet_filter)

    def _vips_at_home(self) -> None:
        for vip in self.topology.vips:
            if str(vip.address) not in self._nodes[vip.home].addresses():
                raise NotYet(f"{vip.address} is not held by {vip.home}")

    def wait_healthy(self, within_s: float = HEALTHY_S) -> Status:
        """Wait until nothing is wrong. Raises Timeout, with what is.

        Looks at the VIPs alone until they are where they belong: a whole status costs the directors CPU time that a
        takeover needs.
        """

        def healthy() -> Status:
            self._vips_at_home()
            status = self.status()
            if status.trouble:
                raise NotYet("; ".join(status.trouble))
            return status

        return until(healthy, within_s, "the cluster to be healthy", STATUS_EVERY_S)


def home_of(topology: Topology, vip: Vip) -> Machine:
    """The director that a VIP belongs to."""
    return next(machine for machine in topology.machines if machine.name == vip.home)


def troubles(
    topology: Topology,
    nodes: Iterable[NodeStatus],
    owners: dict[str, tuple[str, ...]],
    tables: dict[str, dict[str, tuple[RealServer, ...]]],
    site: dict[str, Any],
) -> Iterator[str]:
    """All that is not as it should be, in sentences. Pure."""
    for node in nodes:
        if node.power is not Power.RUNNING:
            yield f"{node.name} is {node.power}"
    for vip in topology.vips:
        held = owners[str(vip.address)]
        if held != (vip.home,):
            yield f"{vip.address} is held by {' and '.join(held) or 'nobody'} instead of {vip.home}"
    web = [machine.name for machine in topology.of_role("web")]
    for director, table in tables.items():
        for vip in topology.vips:
            weights = {server.node: server.weight for server in table.get(f"{vip.address}:80", ())}
            missing = [name for name in web if not weights.get(name)]
            if missing:
                yield f"{director} sends nothing for {vip.address} to {', '.join(missing)}"
    addresses = {str(vip.address) for vip in topology.vips}
    if set(site.get("dns") or ()) != addresses:
        yield f"the resolver answers {site.get('dns') or 'nothing'} for {topology.site}"
    yield from (f"the site does not answer at {vip}" for vip in sorted(addresses) if not site.get("http", {}).get(vip))
