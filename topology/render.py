"""The files of each node, rendered from templates that a reader of the originals recognises. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from topology.model import Machine, Topology

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    autoescape=False,  # configuration files, not HTML
)

MODULES = {
    "director": "ip_vs ip_vs_wlc nf_conntrack",
    "web": "",
    "client": "",
    "resolver": "",
}
"""Kernel modules that each role loads at boot."""


@dataclass(frozen=True)
class File:
    """A file for a node."""

    path: str
    content: str
    mode: int = 0o644


def mac(lab: str, machine: Machine, interface: str) -> str:
    """A stable, locally administered MAC address (IEEE 802: second bit of the first octet set)."""
    digest = hashlib.sha256(f"{lab}/{machine.name}/{interface}".encode()).digest()
    return "02:" + ":".join(f"{byte:02x}" for byte in digest[:5])


def files(topology: Topology, machine: Machine, lab: str, key: str) -> list[File]:
    """All files of one node. ``key`` is the lab's secret for heartbeat's authkeys."""
    common = [
        File("/etc/monkeywrench/machine.json", json.dumps(machine_spec(topology, machine, lab), indent=1)),
        File("/etc/monkeywrench/hostname", machine.name + "\n"),
        File("/etc/monkeywrench/modules", MODULES[machine.role] + "\n"),
        File("/etc/monkeywrench/network.batch", _network(topology, machine)),
    ]
    by_role = {"director": _director, "web": _web, "resolver": _resolver, "client": _client}
    return common + by_role[machine.role](topology, machine, key)


def machine_spec(topology: Topology, machine: Machine, lab: str) -> dict[str, Any]:
    """What the chassis needs to know."""
    return {
        "name": machine.name,
        "kernel": machine.kernel,
        "kernel_path": "/opt/uml/linux.uml",
        "memory_mib": machine.memory_mib,
        "interfaces": [{"name": name, "mac": mac(lab, machine, name)} for name, _ in topology.interfaces(machine)],
    }


def _render(template: str, **values: Any) -> str:
    return _TEMPLATES.get_template(template).render(**values)


def _network(topology: Topology, machine: Machine) -> str:
    nics = [
        {"name": name, "addresses": machine.addresses[segment], "prefixlen": topology.segments[segment].prefixlen}
        for name, segment in topology.interfaces(machine)
    ]
    policies = []
    if machine.role == "web":
        inside = topology.interface(machine, "lan")
        pairs = zip(machine.addresses["lan"], topology.vips, strict=True)
        policies = [{"address": address, "gateway": vip.gateway, "interface": inside} for address, vip in pairs]
    return _render(
        "network.batch.j2",
        nics=nics,
        policies=policies,
        lan=topology.segments["lan"],
        own_kernel=machine.kernel == "uml",
    )


def _director(topology: Topology, machine: Machine, key: str) -> list[File]:
    directors = topology.of_role("director")
    number = directors.index(machine) + 1
    paths = [
        (topology.interface(machine, segment), [director.addresses[segment][0] for director in directors])
        for segment in ("heartbeat", "lan")
    ]
    loop_vip = {vip.address: position for position, vip in enumerate(topology.vips)}
    return [
        File(
            "/etc/ha.d/ha.cf",
            _render("ha.cf.j2", timings=topology.timings, paths=paths, directors=[d.name for d in directors]),
        ),
        File(
            "/etc/ha.d/haresources",
            _render(
                "haresources.j2",
                vips=topology.vips,
                lan=topology.segments["lan"],
                internet=topology.segments["internet"],
                inside=topology.interface(machine, "lan"),
                outside=topology.interface(machine, "internet"),
            ),
        ),
        File("/etc/ha.d/authkeys", _render("authkeys.j2", key=key), 0o600),
        File(
            "/etc/ha.d/ldirectord.cf",
            _render(
                "ldirectord.cf.j2",
                timings=topology.timings,
                vips=topology.vips,
                web=topology.of_role("web"),
                loop_vip=loop_vip,
                site=topology.site,
            ),
        ),
        File("/etc/monkeywrench/own-vip", "".join(f"{v.address}\n" for v in topology.vips if v.home == machine.name)),
        File("/etc/monkeywrench/sysctl.conf", _render("sysctl.conf.j2")),
        File(
            "/etc/monkeywrench/ipvs-sync",
            _render("ipvs-sync.j2", interface=topology.interface(machine, "heartbeat"), own=number, peer=3 - number),
        ),
    ]


def _web(topology: Topology, machine: Machine, _key: str) -> list[File]:
    return [
        File("/etc/apache2/ports.conf", "# the site's own file says where to listen\n"),
        File("/etc/apache2/sites-enabled/site.conf", _render("apache2.conf.j2", site=topology.site, name=machine.name)),
    ]


def _resolver(topology: Topology, _machine: Machine, _key: str) -> list[File]:
    zone = topology.site.partition(".")[2]
    return [
        File(
            "/etc/monkeywrench/zone.toml",
            _render("zone.toml.j2", zone=zone, site=topology.site, ttl_s=topology.ttl_s, vips=topology.vips),
        )
    ]


def _client(topology: Topology, _machine: Machine, _key: str) -> list[File]:
    resolver = topology.of_role("resolver")[0].addresses["internet"][0]
    return [File("/etc/monkeywrench/resolv.conf", f"nameserver {resolver}\n")]
