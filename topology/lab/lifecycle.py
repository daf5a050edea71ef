"""Creating and removing labs.

Everything that belongs to a lab carries the lab's label, so ``remove`` finds all of it, whoever created it.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

import docker.errors

from harness.interrupts import deferring_signals
from harness.records import LabError
from harness.wait import Timeout, each, until
from topology.files import files_of
from topology.lab import engine, image, kernel, switch
from topology.lab.docker_lab import (
    KERNEL_LABEL,
    NODE_LABEL,
    ROLE_LABEL,
    SWITCH,
    WHY_LABEL,
    DockerLab,
    Unhealthy,
)
from topology.lab.node import DockerNode, put_files
from topology.lab.virtual.lab import VirtualLab
from topology.lab.virtual.node import VirtualNode
from topology.lab.virtual.simulator import FOLDER
from topology.model import Machine, Topology, needs_own_kernel
from topology.parts.directors import Directors
from topology.parts.heartbeat import Heartbeat

CAPABILITIES = ["NET_ADMIN", "NET_RAW", "SYS_PTRACE"]
"""What a node's own kernel needs from its container: its NICs, and tracing its own processes."""

CPU_SHARES_DEFAULT = 1024
CPU_SHARES = {"director": 8192, "client": 8192, "db": 4096}
"""Docker's relative weights; they matter only when the processor is busy. A real cluster has dedicated directors: here
they must not wait for the servers they balance, or a busy machine would look like a slow takeover. A client that waits
for a processor would measure that as latency of the site. A database that waits makes everyone who waits for its locks
wait, too."""

SIMULATOR, DETACH = "/usr/lib/monkeywrench/simulator", "/usr/lib/monkeywrench/detach"
START_S = 10

HEARTBEAT_EXPLAINS = {Heartbeat.name, Directors.name}
"""The parts whose problems show in heartbeat's log."""

TOPOLOGY_LABEL, OWNER_LABEL = "monkeywrench.topology", "monkeywrench.owner"

Say = Callable[[str], None]


class Options(TypedDict, total=False):
    """What else there is to choose for a lab."""

    keep: bool
    """The lab outlives this process."""
    seed: int
    """It decides what is left to chance in virtual time; 0 without it."""
    images: dict[str, str] | None
    """The image of each role, in place of those of this version."""


def boot(client: Any, topology: Topology, name: str, say: Say, **options: Unpack[Options]) -> DockerLab:
    """Boot a lab and wait until it is healthy. Removes what an earlier lab of that name left behind.

    A failed boot leaves nothing behind, with one exception: a lab to keep that runs files of the user's stays up,
    healthy or not (UnhealthyError), so that its user can look at it.
    """
    lab = power_on(client, topology, name, say, **options)
    try:
        say("waiting for all parts to be healthy")
        _wait_healthy(lab, say)
    except Timeout as unhealthy:
        if options.get("keep") and topology.overlays:
            raise UnhealthyError(f"the lab booted with your files, but it is not healthy: {unhealthy}") from None
        remove(client, name)
        raise
    except BaseException:
        remove(client, name)
        raise
    if isinstance(lab, VirtualLab):
        lab.booted_ns = lab.now_ns()
    return lab


def _wait_healthy(lab: DockerLab, say: Say) -> None:
    """Raises Timeout, with heartbeat's last log lines where they can explain the problems: the lab may be gone soon."""
    try:
        lab.wait_healthy(say=say)
    except Unhealthy as unhealthy:
        if not unhealthy.parts & HEARTBEAT_EXPLAINS:
            raise
        raise Timeout(f"{unhealthy}\nheartbeat's last log lines:\n{lab.last_words()}") from None


def power_on(client: Any, topology: Topology, name: str, say: Say, **options: Unpack[Options]) -> DockerLab:
    """Create a lab and power on all its machines, without waiting for health."""
    remove_orphans(client)
    _refuse_if_in_use(client, name)
    remove(client, name)
    seed, images = options.get("seed", 0), options.get("images") or image.ensure(client, say, topology.clock)
    labels = {engine.LABEL: name, OWNER_LABEL: "" if options.get("keep") else owner()}
    architecture, host_has = _architecture(client), _host_has(client, images, labels)
    choices = {
        machine.name: kernel.choose(machine, architecture, host_has, needs_own_kernel(topology, machine))
        for machine in topology.machines
    }
    virtual = topology.clock == "virtual"
    # the same files on the same nodes, run after run: a secret of a lab without a route out guards nothing
    key = f"{seed:032x}" if virtual else secrets.token_hex(16)
    plan = _Plan(client, topology, name, images, choices, labels, key)
    try:
        return _create_virtual(plan, seed, say) if virtual else _create(plan, say)
    except BaseException:
        remove(client, name)
        raise


class UnhealthyError(LabError):
    """A lab with files of the user's is not healthy, and stays up."""


def _refuse_if_in_use(client: Any, name: str) -> None:
    """Refuse to remove the lab of another running process; after ``remove_orphans`` every owner is alive."""
    for container in engine.containers(client, name):
        if (owned := container.labels.get(OWNER_LABEL)) and owned != owner():
            raise LabError(
                f"lab {name} is in use by process {owned.split()[1]} on {owned.split()[0]}",
                "Wait for it to end, or give this lab another name.",
            )


def _architecture(client: Any) -> str:
    return str(client.version().get("Arch", platform.machine()))


def _host_has(client: Any, images: dict[str, str], labels: dict[str, str]) -> Callable[[str], bool]:
    def has(role: str) -> bool:
        if role != "director":
            return True
        try:
            engine.run_to_end(
                client, images["director"], ["ipvsadm", "-Ln"], labels, network_mode="none", cap_add=["NET_ADMIN"]
            )
        except docker.errors.ContainerError:
            return False
        return True

    return has


@dataclass(frozen=True)
class _Plan:
    """What all steps of creating a lab share."""

    client: Any
    topology: Topology
    lab: str
    images: dict[str, str]
    choices: dict[str, kernel.Choice]
    labels: dict[str, str]
    key: str


def _create(plan: _Plan, say: Say) -> DockerLab:
    """Create, wire and power on; the directors first, because heartbeat takes longest to start."""
    topology = plan.topology
    directors = topology.of_role("director")
    others = tuple(machine for machine in topology.machines if machine not in directors)
    say("creating the switch and the directors")
    with deferring_signals(), ThreadPoolExecutor(max_workers=3) as pool:
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
        with deferring_signals():
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


def _create_virtual(plan: _Plan, seed: int, say: Say) -> DockerLab:
    """Create a lab in virtual time: its cables are in the simulator, which nodes reach through a shared folder."""
    topology = plan.topology
    plan.client.volumes.create(_volume(plan.lab), labels={engine.LABEL: plan.lab})
    say(f"creating the switch and {len(topology.machines)} nodes")
    with deferring_signals(), ThreadPoolExecutor(max_workers=4) as pool:
        center = pool.submit(_switch_container, plan)
        rest = list(pool.map(lambda machine: _machine_container(plan, machine), topology.machines))
    switch_node = DockerNode(plan.client, center.result(), SWITCH, "host")
    switch_node.boot()
    started = switch_node.exec(DETACH, SIMULATOR, FOLDER)
    until(lambda: switch_node.exec("test", "-S", f"{FOLDER}/control").ok, START_S, "the simulator to start")
    if not started.ok:
        raise LabError(f"the simulator did not start: {started.stderr.strip()}")
    switch_node.close()
    lab = VirtualLab(plan.client, plan.lab, topology, [center.result(), *rest])
    lab.plug(seed)
    say("powering on in virtual time")
    nodes = [lab.machine(machine.name) for machine in topology.machines]
    with ThreadPoolExecutor(max_workers=len(nodes)) as pool:
        list(pool.map(VirtualNode.power_on, nodes))
    each(VirtualNode.come_up, nodes, lab.clock)
    return lab


def _volume(lab: str) -> str:
    return f"mw-{lab}-simulator"


def _pids(containers: Iterable[Any]) -> dict[str, int]:
    return {container.labels[NODE_LABEL]: container.attrs["State"]["Pid"] for container in containers}


def _machine_container(plan: _Plan, machine: Machine) -> Any:
    choice, topology = plan.choices[machine.name], plan.topology
    files = [(file.path, file.data, file.mode) for file in files_of(topology, machine, plan.lab, plan.key)]
    marks = {NODE_LABEL: machine.name, ROLE_LABEL: machine.role, KERNEL_LABEL: choice.kernel, WHY_LABEL: choice.why}
    resolver = str(topology.of_role("resolver")[0].addresses["internet"][0])
    options = _machine_options(machine, choice) | {"dns": [resolver]} | _shared(plan)
    return _container(plan, marks, files, options)


def _switch_container(plan: _Plan) -> Any:
    marks = {
        NODE_LABEL: SWITCH,
        ROLE_LABEL: SWITCH,
        KERNEL_LABEL: "host",
        WHY_LABEL: "the switch always uses the host's kernel",
    }
    marks[TOPOLOGY_LABEL] = plan.topology.model_dump_json(exclude_defaults=True)
    spec = json.dumps({"name": SWITCH, "kernel": "host", "interfaces": [], "disks": [], "clock": plan.topology.clock})
    files = [
        ("/etc/monkeywrench/machine.json", spec.encode(), 0o644),
        ("/etc/monkeywrench/modules", b"\n", 0o644),
        ("/etc/monkeywrench/services", b"", 0o644),
        ("/etc/monkeywrench/network.batch", b"\n", 0o644),
    ]
    return _container(plan, marks, files, {"cap_add": ["NET_ADMIN", "NET_RAW"]} | _shared(plan))


def _shared(plan: _Plan) -> dict[str, Any]:
    """The folder of the simulator's sockets, on all containers of a lab in virtual time."""
    if plan.topology.clock == "real":
        return {}
    return {"volumes": {_volume(plan.lab): {"bind": FOLDER, "mode": "rw"}}}


def _machine_options(machine: Machine, choice: kernel.Choice) -> dict[str, Any]:
    return _kernel_options(machine, choice) | {"cpu_shares": CPU_SHARES.get(machine.role, CPU_SHARES_DEFAULT)}


def _kernel_options(machine: Machine, choice: kernel.Choice) -> dict[str, Any]:
    if choice.kernel == "host":
        return {"cap_add": ["NET_ADMIN", "NET_RAW"]}
    return {
        "cap_add": CAPABILITIES,
        "security_opt": ["seccomp=unconfined"],  # the default filter forbids what a kernel does to its processes
        # Docker's /dev/shm is noexec, but a kernel runs code from its memory
        "tmpfs": {"/uml": f"exec,size={machine.memory_mib + kernel.OVERHEAD_MIB}m"},
    }


def _container(plan: _Plan, marks: dict[str, str], files: list[tuple[str, bytes, int]], options: dict[str, Any]) -> Any:
    """A started chassis. ``marks`` are its own labels: the node's name, its role, its kernel."""
    node = marks[NODE_LABEL]
    sysctls = {"net.ipv4.ip_forward": "0"}
    if Path("/proc/sys/net/ipv6").exists():
        # the host's kernel must not send anything of its own on a node's cable
        sysctls |= {"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1"}
    try:
        container = plan.client.containers.create(
            plan.images[marks[ROLE_LABEL]],
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
    """The lab of that name; None when it does not exist or is incomplete."""
    containers = engine.containers(client, name)
    center = [container for container in containers if container.labels.get(NODE_LABEL) == SWITCH]
    if not center or any(container.status != "running" for container in containers):
        return None
    topology = Topology.model_validate_json(center[0].labels[TOPOLOGY_LABEL])
    nodes = [container for container in containers if NODE_LABEL in container.labels]
    if len(nodes) != len(topology.machines) + 1:
        return None
    if topology.clock == "real":
        return DockerLab(client, name, topology, nodes)
    lab = VirtualLab(client, name, topology, nodes)
    lab.take_over()
    return lab


def names(client: Any) -> list[str]:
    """The names of all labs, incomplete ones included."""
    return sorted({container.labels[engine.LABEL] for container in engine.containers(client)})


def remove(client: Any, name: str) -> int:
    """Remove everything that belongs to a lab. Returns the number of containers. Safe to call at any time."""
    containers = engine.containers(client, name)
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(_remove_container, containers))
    for volume in client.volumes.list(filters={"label": f"{engine.LABEL}={name}"}):
        with suppress(docker.errors.NotFound):
            volume.remove(force=True)
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
    """This process as machine, pid and start time, so that a later process can tell whether it is still running."""
    return f"{platform.node()} {os.getpid()} {_started(os.getpid())}"


def _started(pid: int) -> str:
    """The start of a process in clock ticks since boot (proc(5), field 22); empty when it does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def remove_orphans(client: Any) -> None:
    """Remove the labs of killed runs: their owner was a process of this machine that no longer runs."""
    for container in engine.containers(client):
        machine, _, rest = container.labels.get(OWNER_LABEL, "").partition(" ")
        pid, _, started = rest.partition(" ")
        if machine == platform.node() and _started(int(pid)) != started:
            remove(client, container.labels[engine.LABEL])


@contextmanager
def booted(topology: Topology, name: str, say: Say, seed: int = 0) -> Iterator[DockerLab]:
    """A lab for the duration of the block. Nothing of it is left afterwards, however the block ends."""
    client = engine.connect()
    lab = boot(client, topology, name, say, seed=seed)
    try:
        yield lab
    finally:
        lab.close()
        remove(client, name)
