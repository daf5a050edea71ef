"""A lab: a topology, booted on Docker. Implements ``harness.protocols.Lab``.

Everything a lab makes carries its label, so ``down`` finds all of it, whoever made it and however that ended.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import docker.errors

from harness.protocols import Capture, Cluster, Feed, LabError, Node, NodeStatus, Power, RealServer, Status
from harness.wait import NotYet, until
from topology import engine, image, kernel, render, switch
from topology.model import Machine, Topology, Vip, load
from topology.node import DockerNode, put_files
from topology.observe import HEARTBEAT_LOG, ArpFeed, LogFeed, OwnersFeed, parse_ha_cf, parse_ipvs

HEALTHY_S = 90
STATUS_EVERY_S = 0.5
RESOURCE_S = 30
RESOURCE_FACTOR = 12
"""A resource's status while nothing is wrong, times this, is what starting one may take. In takeovers under load it was
6.5 to 8 times as long (a status, a longer start, heartbeat's own scripts around them); half as much again is left."""
SWITCH = "switch"
UML_OVERHEAD_MIB = 32
CAPABILITIES = ["NET_ADMIN", "NET_RAW", "SYS_PTRACE"]
"""What a kernel of its own needs of its container: its NICs, and tracing its own processes."""

CPU_SHARES_DEFAULT = 1024
CPU_SHARES = {"director": 8192}
"""Docker's relative weights, felt only when the processor is short. In the original each director is a machine of its
own: here it must not wait for the servers that it balances, or the lab's crowding would look like a slow takeover."""

NODE_LABEL, ROLE_LABEL, KERNEL_LABEL, WHY_LABEL = (f"monkeywrench.{key}" for key in ("node", "role", "kernel", "why"))
TOPOLOGY_LABEL, OWNER_LABEL = "monkeywrench.topology", "monkeywrench.owner"

Say = Callable[[str], None]


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


# --- making and removing labs


def boot(client: Any, topology: Topology, name: str, say: Say, keep: bool = False) -> DockerLab:
    """Boot a lab from nothing and wait until it is healthy. What an earlier lab of the name left is removed first.

    ``keep`` says that the lab shall outlive this process. On failure nothing is left behind.
    """
    remove_orphans(client)
    _refuse_if_in_use(client, name)
    remove(client, name)
    images = image.ensure(client, say)
    architecture, host_has = _architecture(client), _host_has(client, images)
    choices = {machine.name: kernel.choose(machine, architecture, host_has) for machine in topology.machines}
    labels = {engine.LABEL: name, OWNER_LABEL: "" if keep else owner()}
    try:
        lab = _raise(_Plan(client, topology, name, images, choices, labels, secrets.token_hex(16)), say)
        say("waiting for heartbeat, ldirectord and the site")
        lab.wait_healthy()
    except BaseException:
        remove(client, name)
        raise
    return lab


def _refuse_if_in_use(client: Any, name: str) -> None:
    """A lab of a run that still goes on is not ours to remove; after ``remove_orphans`` all owners live."""
    for container in engine.containers(client, name):
        if (owned := container.labels.get(OWNER_LABEL)) and owned != owner():
            raise LabError(
                f"lab {name} is in use by process {owned.split()[1]} on {owned.split()[0]}",
                "Wait for it to end, or give this lab another name.",
            )


def _architecture(client: Any) -> str:
    return str(client.version().get("Arch", platform.machine()))


def _host_has(client: Any, images: dict[str, str]) -> Callable[[str], bool]:
    def has(role: str) -> bool:
        if role != "director":
            return True
        try:
            client.containers.run(
                images["director"], ["ipvsadm", "-Ln"], network_mode="none", cap_add=["NET_ADMIN"], remove=True
            )
        except docker.errors.ContainerError:
            return False
        return True

    return has


@dataclass(frozen=True)
class _Plan:
    """What all parts of a lab that is being made share."""

    client: Any
    topology: Topology
    lab: str
    images: dict[str, str]
    choices: dict[str, kernel.Choice]
    labels: dict[str, str]
    key: str


def _raise(plan: _Plan, say: Say) -> DockerLab:
    """Create, wire and power on: the directors before all else, because heartbeat's own start takes longest."""
    topology = plan.topology
    directors = topology.of_role("director")
    others = tuple(machine for machine in topology.machines if machine not in directors)
    say("creating the switch and the directors")
    with ThreadPoolExecutor(max_workers=3) as pool:
        center = pool.submit(_switch_container, plan)
        first = list(pool.map(lambda machine: _machine_container(plan, machine), directors))
    switch.wire(
        plan.client,
        plan.images[SWITCH],
        center.result(),
        switch.bridge_commands(topology) + switch.cable_commands(topology, plan.lab, _pids(first)),
        plan.labels,
    )
    early = DockerLab(plan.client, plan.lab, topology, [center.result(), *first])
    early.switch.boot()
    with ThreadPoolExecutor(max_workers=16) as pool:
        booting = [pool.submit(node.boot) for node in early.nodes()]
        say(f"creating {len(others)} more nodes")
        rest = list(pool.map(lambda machine: _machine_container(plan, machine), others))
        commands = switch.cable_commands(topology, plan.lab, _pids(rest))
        switch.wire(plan.client, plan.images[SWITCH], center.result(), commands, plan.labels)
        lab = DockerLab(plan.client, plan.lab, topology, [center.result(), *first, *rest])
        say("powering on")
        booting += [pool.submit(lab.node(machine.name).boot) for machine in others]
        for each in booting:
            each.result()
    early.close()
    return lab


def _pids(containers: Iterable[Any]) -> dict[str, int]:
    return {container.labels[NODE_LABEL]: container.attrs["State"]["Pid"] for container in containers}


def _machine_container(plan: _Plan, machine: Machine) -> Any:
    choice, topology = plan.choices[machine.name], plan.topology
    files = [
        (file.path, file.content.encode(), file.mode) for file in render.files(topology, machine, plan.lab, plan.key)
    ]
    marks = {NODE_LABEL: machine.name, ROLE_LABEL: machine.role, KERNEL_LABEL: choice.kernel, WHY_LABEL: choice.why}
    resolver = str(topology.of_role("resolver")[0].addresses["internet"][0])
    options = _machine_options(machine, choice) | {"dns": [resolver]}
    return _container(plan, machine.name, plan.images[machine.role], marks, files, options)


def _switch_container(plan: _Plan) -> Any:
    marks = {
        NODE_LABEL: SWITCH,
        ROLE_LABEL: SWITCH,
        KERNEL_LABEL: "host",
        WHY_LABEL: "the switch is the lab's own part",
    }
    marks[TOPOLOGY_LABEL] = plan.topology.model_dump_json(exclude_defaults=True)
    spec = json.dumps({"name": SWITCH, "kernel": "host", "interfaces": []})
    files = [
        ("/etc/monkeywrench/machine.json", spec.encode(), 0o644),
        ("/etc/monkeywrench/modules", b"\n", 0o644),
        ("/etc/monkeywrench/network.batch", b"\n", 0o644),
    ]
    return _container(plan, SWITCH, plan.images[SWITCH], marks, files, {"cap_add": ["NET_ADMIN", "NET_RAW"]})


def _machine_options(machine: Machine, choice: kernel.Choice) -> dict[str, Any]:
    return _kernel_options(machine, choice) | {"cpu_shares": CPU_SHARES.get(machine.role, CPU_SHARES_DEFAULT)}


def _kernel_options(machine: Machine, choice: kernel.Choice) -> dict[str, Any]:
    if choice.kernel == "host":
        return {"cap_add": ["NET_ADMIN", "NET_RAW"]}
    return {
        "cap_add": CAPABILITIES,
        "security_opt": ["seccomp=unconfined"],  # the default filter forbids what a kernel does with its processes
        # Docker's /dev/shm is noexec; a kernel's memory holds code that runs
        "tmpfs": {"/uml": f"exec,size={machine.memory_mib + UML_OVERHEAD_MIB}m"},
    }


def _container(  # noqa: PLR0913, PLR0917 - all that differs between one container and the next
    plan: _Plan,
    node: str,
    image_name: str,
    marks: dict[str, str],
    files: list[tuple[str, bytes, int]],
    options: dict[str, Any],
) -> Any:
    sysctls = {"net.ipv4.ip_forward": "0"}
    if Path("/proc/sys/net/ipv6").exists():
        # the host's kernel must say nothing of its own on a node's cable
        sysctls |= {"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1"}
    try:
        container = plan.client.containers.create(
            image_name,
            name=f"mw-{plan.lab}-{node}",
            hostname=node,
            network_mode="none",
            labels={**plan.labels, **marks},
            sysctls=sysctls,
            **options,
        )
        put_files(container, files)
        container.start()
        container.reload()
    except docker.errors.APIError as error:
        raise engine.explain(error) from None
    return container


def attach(client: Any, name: str) -> DockerLab | None:
    """The lab of that name, if there is a whole one."""
    containers = engine.containers(client, name)
    center = [container for container in containers if container.labels.get(NODE_LABEL) == SWITCH]
    if not center or any(container.status != "running" for container in containers):
        return None
    topology = Topology.model_validate_json(center[0].labels[TOPOLOGY_LABEL])
    nodes = [container for container in containers if NODE_LABEL in container.labels]
    if len(nodes) != len(topology.machines) + 1:
        return None
    return DockerLab(client, name, topology, nodes)


def names(client: Any) -> list[str]:
    """The names of all labs that there is anything of."""
    return sorted({container.labels[engine.LABEL] for container in engine.containers(client)})


def remove(client: Any, name: str) -> int:
    """Remove all of a lab; how many containers that were. Safe to call at any time, and twice."""
    containers = engine.containers(client, name)
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(_remove_container, containers))
    return len(containers)


def _remove_container(container: Any) -> None:
    try:
        container.remove(force=True, v=True)
    except docker.errors.NotFound:
        return
    except docker.errors.APIError as error:
        if "already in progress" not in str(error):
            raise engine.explain(error) from None


def owner() -> str:
    """This process, so that a later one can tell whether it still lives: machine, pid, and when it began."""
    return f"{platform.node()} {os.getpid()} {_started(os.getpid())}"


def _started(pid: int) -> str:
    """A process's start in clock ticks since boot (proc(5), field 22); empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def remove_orphans(client: Any) -> None:
    """Remove the labs of runs that were killed: their owner was a process of this machine and is gone."""
    for container in engine.containers(client):
        machine, _, rest = container.labels.get(OWNER_LABEL, "").partition(" ")
        pid, _, started = rest.partition(" ")
        if machine == platform.node() and _started(int(pid)) != started:
            remove(client, container.labels[engine.LABEL])


@contextmanager
def booted(topology: str, name: str, say: Say) -> Iterator[DockerLab]:
    """A lab for as long as the block runs; nothing of it is left afterwards, however the block ends."""
    client = engine.connect()
    lab = boot(client, load(topology), name, say)
    try:
        yield lab
    finally:
        lab.close()
        remove(client, name)
