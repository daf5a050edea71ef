"""Ganglia: gmond on every real server multicasts its metrics; gmetad on a director collects and stores them.

A host is down when its last message (TN, in seconds ago) is older than 4 times its longest regular pause (TMAX), as in
Ganglia's own web front end (ganglia-web, ``host_alive``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from topology.model import Machine, Topology
from topology.parts.part import Collector, Disk, Judgement, Observations, Part, Secrets, mounted
from topology.render import File, render

CLUSTER = "web"
GMOND_PORT, GMETAD_PORT = 8649, 8651
GROUP = "239.2.11.71"
ROOT = "/var/lib/ganglia/rrds"
DISK_MIB = 64
DEAD = 4


@dataclass(frozen=True)
class Host:
    """A host as Ganglia sees it: seconds since its last message, its longest regular pause, its number of metrics."""

    name: str
    tn_s: int
    tmax_s: int
    metrics: int = 0

    @property
    def up(self) -> bool:
        """Ganglia's own rule."""
        return 0 <= self.tn_s < DEAD * self.tmax_s


class Ganglia(Part):
    """gmond and gmetad."""

    name = "Ganglia"
    single_point_of_failure = "one gmetad: if its director is down, no metrics are stored"

    def enabled(self, topology: Topology) -> bool:
        """Whether the topology has monitoring."""
        return topology.monitoring is not None

    def files(self, topology: Topology, machine: Machine, secrets: Secrets) -> Iterator[File]:
        """gmond.conf and gmetad.conf."""
        if topology.monitoring is None:
            return
        if machine.role == "web":
            interface = topology.interface(machine, "lan")
            values = {"cluster": CLUSTER, "group": GROUP, "port": GMOND_PORT, "interface": interface}
            yield File("/etc/ganglia/gmond.conf", render("gmond.conf.j2", **values))
        if machine.name == topology.monitoring.gmetad_on:
            sources = [f"{web.addresses['lan'][0]}:{GMOND_PORT}" for web in topology.of_role("web")]
            values = {"cluster": CLUSTER, "poll_s": topology.monitoring.poll_s, "sources": sources}
            yield File("/etc/ganglia/gmetad.conf", render("gmetad.conf.j2", **values))
            yield mounted("ganglia", ROOT, "noatime", "ganglia")

    def services(self, topology: Topology, machine: Machine) -> tuple[str, ...]:
        """gmond on real servers, gmetad on 1 director."""
        if topology.monitoring is None:
            return ()
        if machine.role == "web":
            return ("gmond",)
        return ("gmetad",) if machine.name == topology.monitoring.gmetad_on else ()

    def disk(self, topology: Topology, machine: Machine) -> Disk | None:
        """The disk for the stored metrics. (gmetad does not run as root, and on a hostfs only root owns its files.)"""
        wanted = topology.monitoring
        return Disk("ganglia", DISK_MIB) if wanted and machine.name == wanted.gmetad_on else None

    def probe_command(self, topology: Topology, machine: Machine) -> str:
        """The hosts in the XML of gmetad and of each gmond."""
        if topology.monitoring is None:
            return ""
        if machine.role == "web":
            return f"ganglia-hosts {GMOND_PORT}"
        return f"ganglia-hosts {GMETAD_PORT}" if machine.name == topology.monitoring.gmetad_on else ""

    def collectors(self, topology: Topology, machine: Machine) -> Iterator[Collector]:
        """The hosts that gmetad knows."""
        if topology.monitoring and machine.name == topology.monitoring.gmetad_on:
            yield {"what": "ganglia", "every_s": 5, "port": GMETAD_PORT}

    def judge(self, seen: Observations) -> Judgement:
        """Healthy: gmetad and each gmond see every running real server as up."""
        assert seen.topology.monitoring is not None
        center = seen.topology.monitoring.gmetad_on
        answers = seen.answers.get(self.name, {})
        running = seen.running(machine.name for machine in seen.topology.of_role("web"))
        known = {node: {host.name: host for host in parse_hosts(text)} for node, text in answers.items()}
        problems = []
        for node in seen.running([center]) + running:
            what = f"{'gmetad' if node == center else 'gmond'} on {node}"
            up = {name: host for name, host in known.get(node, {}).items() if host.up}
            if missing := [name for name in running if name not in up]:
                problems.append(f"{what} does not see {', '.join(missing)}")
            silent = [name for name in running if name in up and not up[name].metrics]
            if silent and node == center:
                problems.append(f"{what} has no metrics of {', '.join(silent)}")
        hosts = known.get(center, {})
        alive = sum(host.up for host in hosts.values())
        oldest = max((host.tn_s for host in hosts.values()), default=0)
        line = f"gmetad on {center} sees {alive} hosts up, {len(hosts) - alive} down; oldest message {oldest} s ago"
        facts = {name: {"tn_s": host.tn_s, "tmax_s": host.tmax_s, "up": host.up} for name, host in hosts.items()}
        return Judgement(line, tuple(problems), {"hosts": facts})


NUMBERS = (("TN", "-1"), ("TMAX", "0"), ("METRICS", "0"))
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')


def parse_hosts(xml: str) -> list[Host]:
    """The ``<HOST ...>`` tags of gmond's or gmetad's XML (ganglia.dtd), one per line."""
    hosts = []
    for line in xml.splitlines():
        if line.lstrip().startswith("<HOST "):
            values = dict(_ATTRIBUTE.findall(line))
            tn_s, tmax_s, metrics = (int(values.get(key, absent)) for key, absent in NUMBERS)
            hosts.append(Host(values.get("NAME", ""), tn_s, tmax_s, metrics))
    return hosts
