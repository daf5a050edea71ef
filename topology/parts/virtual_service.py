"""The virtual service: IPVS, its scheduler and persistence, how requests are forwarded, and connection sync."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from harness.records import RealServer
from topology.files import File, render
from topology.model import Machine, Topology
from topology.parts.part import Collector, Part, Report, Secrets, Seen

FORWARDS = {"masq": "Masq", "gate": "Route", "ipip": "Tunnel"}
"""As ``ipvsadm -Ln`` calls them."""
SYNC = "--"
"""Between the table and the state of connection sync in an answer."""


class VirtualService(Part):
    """The same table on both directors."""

    name = "virtual service"

    def files(self, topology: Topology, machine: Machine, secrets: Secrets) -> Iterator[File]:
        """Kernel settings: of the directors, and of real servers that answer clients themselves."""
        if machine.role == "director":
            yield File("/etc/monkeywrench/sysctl.conf", render("director-sysctl.conf.j2"))
            yield File("/etc/monkeywrench/ipvs-sync", self._sync(topology, machine))
        if machine.role == "web" and topology.answers_directly:
            yield File("/etc/monkeywrench/sysctl.conf", render("web-sysctl.conf.j2"))

    def _sync(self, topology: Topology, machine: Machine) -> str:
        number = topology.of_role("director").index(machine) + 1
        interface = topology.interface(machine, "heartbeat")
        on = topology.directors.connection_sync
        return render("ipvs-sync.j2", on=on, interface=interface, own=number, peer=3 - number)

    def modules(self, topology: Topology, machine: Machine) -> tuple[str, ...]:
        """IPVS and the scheduler; the tunnel on real servers that requests are tunnelled to."""
        if machine.role == "director":
            return "ip_vs", f"ip_vs_{topology.service.scheduler}", "nf_conntrack"
        return ("ipip",) if machine.role == "web" and topology.service.forwarding == "ipip" else ()

    def probe_command(self, topology: Topology, machine: Machine) -> str:
        """The table and the sync daemons of a director."""
        return f"ipvsadm -Ln; echo {SYNC}; ipvsadm -L --daemon" if machine.role == "director" else ""

    def collectors(self, topology: Topology, machine: Machine) -> Iterator[Collector]:
        """The table of each director."""
        if machine.role == "director":
            yield {"what": "table", "every_s": 0.5, "nodes": real_servers(topology)}

    def judge(self, seen: Seen) -> Report:
        """Each director has every service with the scheduler, persistence and forwarding of the topology, and syncs."""
        topology, answers = seen.topology, seen.answers.get(self.name, {})
        problems = []
        for director in seen.running(machine.name for machine in topology.of_role("director")):
            answer = answers.get(director, "")
            problems += [f"{director}: {problem}" for problem in _problems(topology, answer)]
        wanted = topology.service
        sticky = f", persistent for {wanted.persistence_s} s" if wanted.persistence_s else ""
        sync = "connections synced" if topology.directors.connection_sync else "no connection sync"
        line = f"{wanted.forwarding}, {wanted.scheduler}{sticky}; {sync}; {len(topology.vips)} VIPs"
        return Report(line, tuple(problems), {"tables": answers})


def _problems(topology: Topology, answer: str) -> Iterator[str]:
    table, _, sync = answer.partition(SYNC)
    wanted = topology.service
    for vip in topology.vips:
        line = next((line for line in table.splitlines() if line.startswith(f"TCP  {vip.address}:80 ")), "")
        if not line:
            yield f"there is no virtual service {vip.address}:80"
            continue
        words = line.split()[2:]
        if words[:1] != [wanted.scheduler]:
            yield f"{vip.address}:80 has the scheduler {words[0] if words else 'none'} instead of {wanted.scheduler}"
        persistent = ["persistent", str(wanted.persistence_s)] if wanted.persistence_s else []
        if words[1:3] != persistent:
            yield f"{vip.address}:80 has {' '.join(words[1:3]) or 'no persistence'}, not as the topology says"
    other = set(re.findall(r"^\s+-> \S+:\d+\s+(\w+)", table, re.MULTILINE)) - {FORWARDS[wanted.forwarding]}
    if other:
        yield f"requests are forwarded by {', '.join(sorted(other))} instead of {FORWARDS[wanted.forwarding]}"
    syncs = len(re.findall(r"^(?:master|backup) sync daemon", sync, re.MULTILINE))
    if syncs != (2 if topology.directors.connection_sync else 0):
        yield f"{syncs} daemons for connection sync run instead of {2 if topology.directors.connection_sync else 0}"


_SERVICE = re.compile(r"^TCP\s+(\S+:\d+)\s")
_SERVER = re.compile(r"^\s+->\s+(\S+):\d+\s+\S+\s+(\d+)\s+(\d+)\s+(\d+)")


def parse_ipvs(text: str, nodes: Mapping[str, str]) -> dict[str, tuple[RealServer, ...]]:
    """The output of ``ipvsadm -Ln``; ``nodes`` names the node of each real server's address."""
    table: dict[str, list[RealServer]] = {}
    service: list[RealServer] = []
    for line in text.splitlines():
        if match := _SERVICE.match(line):
            service = table.setdefault(match[1], [])
        elif match := _SERVER.match(line):
            weight, active, inactive = (int(number) for number in match.groups()[1:])
            service.append(RealServer(match[1], nodes.get(match[1], match[1]), weight, active, inactive))
    return {name: tuple(servers) for name, servers in table.items()}


def real_servers(topology: Topology) -> dict[str, str]:
    """The node of each real server's address."""
    return {str(address): machine.name for machine in topology.of_role("web") for address in machine.addresses["lan"]}


def tables(seen: Seen) -> dict[str, dict[str, tuple[RealServer, ...]]]:
    """Each running director -> each virtual service -> its real servers."""
    nodes = real_servers(seen.topology)
    answers = seen.answers.get(VirtualService.name, {})
    return {director: parse_ipvs(answers.get(director, "").partition(SYNC)[0], nodes) for director in seen.addresses}
