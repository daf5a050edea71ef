"""The files of each node: common ones, those of its parts, and overlays of the user's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from topology.load import sources
from topology.model import Machine, Overlay, Topology
from topology.parts import parts_of
from topology.parts.part import Disk, Secrets
from topology.parts.real_servers import SITE
from topology.render import File, render

SITE_FILES = Path(__file__).parent / "site"


def secrets(key: str) -> Secrets:
    """A lab's secrets, derived from one key."""
    return Secrets(*(hashlib.sha256(f"{key}/{what}".encode()).hexdigest()[:32] for what in ("heartbeat", "database")))


def files_of(topology: Topology, machine: Machine, lab: str, key: str) -> list[File]:
    """All files of one node. The lab's secrets are derived from ``key``."""
    own = [*_common(topology, machine, lab)]
    for part in parts_of(topology):
        own += part.files(topology, machine, secrets(key))
    if machine.role == "web":
        own += _site()
    return overlaid(own, _overlays(topology, machine))


def _common(topology: Topology, machine: Machine, lab: str) -> Iterator[File]:
    services = {name: None for part in parts_of(topology) for name in part.services(topology, machine)}
    modules = {name: None for part in parts_of(topology) for name in part.modules(topology, machine)}
    yield File("/etc/monkeywrench/machine.json", json.dumps(machine_spec(topology, machine, lab), indent=1))
    yield File("/etc/monkeywrench/hostname", machine.name + "\n")
    yield File("/etc/monkeywrench/modules", " ".join(modules) + "\n")
    yield File("/etc/monkeywrench/services", "".join(f"{name}\n" for name in services))
    yield File("/etc/monkeywrench/hosts", _hosts(topology))
    yield File("/etc/monkeywrench/network.batch", _network(topology, machine))


def machine_spec(topology: Topology, machine: Machine, lab: str) -> dict[str, Any]:
    """The settings of a node's chassis (``machine.json``)."""
    disks = [disk for part in parts_of(topology) if (disk := part.disk(topology, machine))]
    return {
        "name": machine.name,
        "kernel": machine.kernel,
        "clock": topology.clock,
        "kernel_path": "/opt/uml/linux.uml",
        "memory_mib": machine.memory_mib,
        "interfaces": [
            {"name": name, "mac": topology.mac(machine, name, lab)} for name, _ in topology.interfaces(machine)
        ],
        "disks": [_disk_spec(disk) for disk in disks],
    }


def _disk_spec(disk: Disk) -> dict[str, Any]:
    return {"path": disk.path, "label": disk.label, "mib": disk.mib, "content": disk.content}


def _hosts(topology: Topology) -> str:
    """``/etc/hosts``: cluster nodes with their lan addresses, all others with their first segment's."""
    lines = ["127.0.0.1 localhost"]
    for machine in topology.machines:
        addresses = machine.addresses.get("lan") or next(iter(machine.addresses.values()))
        lines += [f"{address} {machine.name}" for address in addresses]
    return "\n".join(lines) + "\n"


def _network(topology: Topology, machine: Machine) -> str:
    nics = [
        {"name": name, "addresses": machine.addresses[segment], "prefixlen": topology.segments[segment].prefixlen}
        for name, segment in topology.interfaces(machine)
    ]
    real_server = machine.role == "web"
    policies = []
    if real_server and not topology.answers_directly:
        inside = topology.interface(machine, "lan")
        pairs = zip(machine.addresses["lan"], topology.vips, strict=True)
        policies = [{"address": address, "gateway": vip.gateway, "interface": inside} for address, vip in pairs]
    return render(
        "network.batch.j2",
        nics=nics,
        policies=policies,
        own_vips=[vip.address for vip in topology.vips] if real_server and topology.answers_directly else [],
        tunnel=real_server and topology.service.forwarding == "ipip",
        lan=topology.segments["lan"],
        renamed=machine.kernel == "uml" and topology.clock == "real",
    )


def _site() -> Iterator[File]:
    for path in sorted(SITE_FILES.rglob("*")):
        if path.is_file():
            yield File(f"{SITE}/{path.relative_to(SITE_FILES)}", path.read_bytes())


def _overlays(topology: Topology, machine: Machine) -> Iterator[tuple[Overlay, list[File]]]:
    for overlay in topology.overlays:
        if {machine.name, machine.role} & set(overlay.nodes):
            yield (
                overlay,
                [
                    File(overlay.path.rstrip("/") + below, path.read_bytes(), path.stat().st_mode & 0o777, str(path))
                    for below, path in sources(overlay.source)
                ],
            )


def overlaid(own: Iterable[File], overlays: Iterable[tuple[Overlay, list[File]]]) -> list[File]:
    """The rendered files with the user's: a file replaces one file, a folder replaces all files below its path."""
    found = {file.path: file for file in own}
    for overlay, theirs in overlays:
        below = overlay.path.rstrip("/") + "/"
        if any(file.path.startswith(below) for file in theirs):
            found = {path: file for path, file in found.items() if not path.startswith(below)}
        found |= {file.path: file for file in theirs}
    return list(found.values())
