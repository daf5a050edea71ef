"""Making and removing labs.

Everything that a lab makes carries its label, so ``remove`` finds all of it, whoever made it and however that ended.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker.errors

from harness.interrupts import deferring_signals
from harness.records import LabError
from harness.wait import Timeout
from topology import render
from topology.lab import engine, image, kernel, switch
from topology.lab.docker_lab import (
    KERNEL_LABEL,
    NODE_LABEL,
    ROLE_LABEL,
    SWITCH,
    WHY_LABEL,
    DockerLab,
)
from topology.lab.node import put_files
from topology.model import Machine, Topology, load, needs_own_kernel

CAPABILITIES = ["NET_ADMIN", "NET_RAW", "SYS_PTRACE"]
"""What a kernel of its own needs of its container: its NICs, and tracing its own processes."""

CPU_SHARES_DEFAULT = 1024
CPU_SHARES = {"director": 8192, "client": 8192, "db": 4096}
"""Docker's relative weights, felt only when the processor is short. In the original each director is a machine of its
own: here it must not wait for the servers that it balances, or the lab's crowding would look like a slow takeover. So
it is with the client: what it waits for a processor it would take for the site's latency. Nor must the database wait
for those that ask it: while it waits, so do all that wait for its locks."""

TOPOLOGY_LABEL, OWNER_LABEL = "monkeywrench.topology", "monkeywrench.owner"

Say = Callable[[str], None]


def boot(client: Any, topology: Topology, name: str, say: Say, keep: bool = False) -> DockerLab:
    """Boot a lab from nothing and wait until it is healthy. What an earlier lab of the name left is removed first.

    ``keep`` says that the lab shall outlive this process. On failure nothing is left behind; but a lab to keep that has
    booted with files of the user's in it stays up, healthy or not (UnhealthyError): the point is to see what happens.
    """
    lab = power_on(client, topology, name, say, keep)
    try:
        say("waiting for all parts to be healthy")
        _wait_healthy(lab)
    except Timeout as problems:
        if keep and topology.overlays:
            raise UnhealthyError(f"the lab booted, with your files in it, but not all is well: {problems}") from None
        remove(client, name)
        raise
    except BaseException:
        remove(client, name)
        raise
    return lab


def _wait_healthy(lab: DockerLab) -> None:
    """Raises Timeout, with what heartbeat said last: of a lab that is removed nobody can look it up."""
    try:
        lab.wait_healthy()
    except Timeout as problems:
        raise Timeout(f"{problems}\nWhat heartbeat said last:\n{lab.last_words()}") from None


def power_on(client: Any, topology: Topology, name: str, say: Say, keep: bool = False) -> DockerLab:
    """Make a lab from nothing and power on all its machines, without waiting for what they will do."""
    remove_orphans(client)
    _refuse_if_in_use(client, name)
    remove(client, name)
    images = image.ensure(client, say)
    labels = {engine.LABEL: name, OWNER_LABEL: "" if keep else owner()}
    architecture, host_has = _architecture(client), _host_has(client, images, labels)
    choices = {
        machine.name: kernel.choose(machine, architecture, host_has, needs_own_kernel(topology, machine))
        for machine in topology.machines
    }
    try:
        return _raise(_Plan(client, topology, name, images, choices, labels, secrets.token_hex(16)), say)
    except BaseException:
        remove(client, name)
        raise


class UnhealthyError(LabError):
    """A lab with the user's own files is up, and left up, but it is not healthy."""


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


def _pids(containers: Iterable[Any]) -> dict[str, int]:
    return {container.labels[NODE_LABEL]: container.attrs["State"]["Pid"] for container in containers}


def _machine_container(plan: _Plan, machine: Machine) -> Any:
    choice, topology = plan.choices[machine.name], plan.topology
    files = [(file.path, file.data, file.mode) for file in render.files(topology, machine, plan.lab, plan.key)]
    marks = {NODE_LABEL: machine.name, ROLE_LABEL: machine.role, KERNEL_LABEL: choice.kernel, WHY_LABEL: choice.why}
    resolver = str(topology.of_role("resolver")[0].addresses["internet"][0])
    options = _machine_options(machine, choice) | {"dns": [resolver]}
    return _container(plan, marks, files, options)


def _switch_container(plan: _Plan) -> Any:
    marks = {
        NODE_LABEL: SWITCH,
        ROLE_LABEL: SWITCH,
        KERNEL_LABEL: "host",
        WHY_LABEL: "the switch is the lab's own part",
    }
    marks[TOPOLOGY_LABEL] = plan.topology.model_dump_json(exclude_defaults=True)
    spec = json.dumps({"name": SWITCH, "kernel": "host", "interfaces": [], "disks": []})
    files = [
        ("/etc/monkeywrench/machine.json", spec.encode(), 0o644),
        ("/etc/monkeywrench/modules", b"\n", 0o644),
        ("/etc/monkeywrench/services", b"", 0o644),
        ("/etc/monkeywrench/network.batch", b"\n", 0o644),
    ]
    return _container(plan, marks, files, {"cap_add": ["NET_ADMIN", "NET_RAW"]})


def _machine_options(machine: Machine, choice: kernel.Choice) -> dict[str, Any]:
    return _kernel_options(machine, choice) | {"cpu_shares": CPU_SHARES.get(machine.role, CPU_SHARES_DEFAULT)}


def _kernel_options(machine: Machine, choice: kernel.Choice) -> dict[str, Any]:
    if choice.kernel == "host":
        return {"cap_add": ["NET_ADMIN", "NET_RAW"]}
    return {
        "cap_add": CAPABILITIES,
        "security_opt": ["seccomp=unconfined"],  # the default filter forbids what a kernel does with its processes
        # Docker's /dev/shm is noexec; a kernel's memory holds code that runs
        "tmpfs": {"/uml": f"exec,size={machine.memory_mib + kernel.OVERHEAD_MIB}m"},
    }


def _container(plan: _Plan, marks: dict[str, str], files: list[tuple[str, bytes, int]], options: dict[str, Any]) -> Any:
    """A chassis, started. ``marks`` are its own labels, which name the node and its role."""
    node = marks[NODE_LABEL]
    sysctls = {"net.ipv4.ip_forward": "0"}
    if Path("/proc/sys/net/ipv6").exists():
        # the host's kernel must say nothing of its own on a node's cable
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
