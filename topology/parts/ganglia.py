"""Ganglia: gmond on every real server says to all others how it is; gmetad on a director collects it, with a history.

A host is down when its last word (TN, seconds ago) is older than four times the longest pause there should be (TMAX):
so Ganglia's own web front end decides (ganglia-web, ``host_alive``), and so does this.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from topology.files import File, render
from topology.model import Machine, Topology
from topology.parts.part import Collector, Disk, Part, Report, Secrets, Seen, mounted

CLUSTER = "web"
GMOND_PORT, GMETAD_PORT = 8649, 8651
GROUP = "239.2.11.71"
ROOT = "/var/lib/ganglia/rrds"
RRDS = f"{ROOT}/{CLUSTER}"
DISK_MIB = 64
DEAD = 4


@dataclass(frozen=True)
class Host:
    """What Ganglia says of a host: seconds since its last word, the longest that its pauses should be, and how many
    metrics it has of it."""

    name: str
    tn_s: int
    tmax_s: int
    metrics: int = 0

    @property
    def up(self) -> bool:
        """As Ganglia decides."""
        return 0 <= self.tn_s < DEAD * self.tmax_s


class Ganglia(Part):
    """gmond and gmetad."""

    name = "Ganglia"
    single_point_of_failure = "one gmetad: while its director is down there is no history"

    def enabled(self, topology: Topology) -> bool:
        """As the topology says."""
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
        """gmond on real servers, gmetad on one director."""
        if topology.monitoring is None:
            return ()
        if machine.role == "web":
            return ("gmond",)
        return ("gmetad",) if machine.name == topology.monitoring.gmetad_on else ()

    def disk(self, topology: Topology, machine: Machine) -> Disk | None:
        """The history's. (gmetad is not root, and what others than root make on a hostfs does not belong to them.)"""
        wanted = topology.monitoring
        return Disk("ganglia", DISK_MIB) if wanted and machine.name == wanted.gmetad_on else None

    def probe_command(self, topology: Topology, machine: Machine) -> str:
        """The hosts in the XML, of gmetad and of each gmond."""
        if topology.monitoring is None:
            return ""
        if machine.role == "web":
            return f"ganglia-hosts {GMOND_PORT}"
        return f"ganglia-hosts {GMETAD_PORT}" if machine.name == topology.monitoring.gmetad_on else ""

    def collectors(self, topology: Topology, machine: Machine) -> Iterator[Collector]:
        """What gmetad knows of the hosts."""
        if topology.monitoring and machine.name == topology.monitoring.gmetad_on:
            yield {"what": "ganglia", "every_s": 5, "port": GMETAD_PORT}

    def judge(self, seen: Seen) -> Report:
        """gmetad and each gmond know every real server that runs as up."""
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
                problems.append(f"{what} knows no metric of {', '.join(silent)}")
        hosts = known.get(center, {})
        alive = sum(host.up for host in hosts.values())
        oldest = max((host.tn_s for host in hosts.values()), default=0)
        line = f"gmetad on {center} sees {alive} hosts up, {len(hosts) - alive} down; the oldest word {oldest} s old"
        facts = {name: {"tn_s": host.tn_s, "tmax_s": host.tmax_s, "up": host.up} for name, host in hosts.items()}
        return Report(line, tuple(problems), {"hosts": facts})


NUMBERS = (("TN", "-1"), ("TMAX", "0"), ("METRICS", "0"))
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')


def parse_hosts(xml: str) -> list[Host]:
    """The ``<HOST ...>`` tags of gmond's or gmetad's XML (ganglia.dtd), one a line."""
    hosts = []
    for line in xml.splitlines():
        if line.lstrip().startswith("<HOST "):
            values = dict(_ATTRIBUTE.findall(line))
            tn_s, tmax_s, metrics = (int(values.get(key, absent)) for key, absent in NUMBERS)
            hosts.append(Host(values.get("NAME", ""), tn_s, tmax_s, metrics))
    return hosts


def parse_history(text: str) -> list[tuple[int, float]]:
    """The output of ``rrdtool fetch``: (second since the epoch, value), points without a value left out."""
    points = []
    for line in text.splitlines():
        if match := re.match(r"^(\d+): +(\S+)", line):
            value = float(match[2])
            if not math.isnan(value):  # nothing was collected
                points.append((int(match[1]), value))
    return points
