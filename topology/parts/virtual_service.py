"""The virtual service: IPVS, its scheduler and persistence, how requests are forwarded, and connection sync."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.formats import ipvsadm
from harness.protocols import Node
from harness.records import RealServer
from topology.model import Machine, Topology
from topology.parts.part import Collector, Judgement, Observations, Part, Secrets
from topology.render import File, render

SYNC = "--"
"""Separates the table from the state of connection sync in an answer."""


class VirtualService(Part):
    """The IPVS tables, equal on both directors."""

    name = "virtual service"

    def files(self, topology: Topology, machine: Machine, secrets: Secrets) -> Iterator[File]:
        """Kernel settings of the directors, and of real servers that answer clients directly."""
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
        """IPVS and the scheduler on directors; ipip on real servers when requests are tunnelled."""
        if machine.role == "director":
            return "ip_vs", f"ip_vs_{topology.service.scheduler}", "nf_conntrack"
        return ("ipip",) if machine.role == "web" and topology.service.forwarding == "ipip" else ()

    def probe_command(self, topology: Topology, machine: Machine) -> str:
        """The table and the connection sync daemons of a director."""
        return f"ipvsadm -Ln; echo {SYNC}; ipvsadm -L --daemon" if machine.role == "director" else ""

    def collectors(self, topology: Topology, machine: Machine) -> Iterator[Collector]:
        """The table of each director."""
        if machine.role == "director":
            yield {"what": "table", "every_s": 0.5, "nodes": real_servers(topology)}

    def cluster_facts(self, topology: Topology, directors: Mapping[str, Node]) -> Mapping[str, Any]:
        """Whether the directors synchronize connections."""
        return {"connection_sync": topology.directors.connection_sync}

    def judge(self, seen: Observations) -> Judgement:
        """Healthy: both directors have every service with the topology's scheduler, persistence and forwarding."""
        topology, answers = seen.topology, seen.answers.get(self.name, {})
        problems = []
        for director in seen.running(machine.name for machine in topology.of_role("director")):
            answer = answers.get(director, "")
            problems += [f"{director}: {problem}" for problem in _problems(topology, answer)]
        wanted = topology.service
        sticky = f", persistent for {wanted.persistence_s} s" if wanted.persistence_s else ""
        sync = "connection sync on" if topology.directors.connection_sync else "connection sync off"
        line = f"{wanted.forwarding}, {wanted.scheduler}{sticky}; {sync}; {len(topology.vips)} VIPs"
        return Judgement(line, tuple(problems), {"tables": answers})


def _problems(topology: Topology, answer: str) -> Iterator[str]:
    printed, _, sync = answer.partition(SYNC)
    wanted, services = topology.service, ipvsadm.parse(printed)
    by_address = {service.address: service for service in services}
    for vip in topology.vips:
        service = by_address.get(f"{vip.address}:80")
        if service is None:
            yield f"virtual service {vip.address}:80 is missing"
            continue
        if service.scheduler != wanted.scheduler:
            yield f"{service.address} uses scheduler {service.scheduler or 'none'} instead of {wanted.scheduler}"
        if service.persistence_s != (wanted.persistence_s or 0):
            has, needs = _persistence(service.persistence_s), _persistence(wanted.persistence_s or 0)
            yield f"{service.address} has {has} instead of {needs}"
    found = {destination.forwarding for service in services for destination in service.destinations}
    forwarding = ipvsadm.FORWARDING[wanted.forwarding]
    if other := sorted(found - {forwarding}):
        yield f"requests are forwarded with {', '.join(other)} instead of {forwarding}"
    running, is_wanted = len(ipvsadm.parse_daemons(sync)), topology.directors.connection_sync
    if is_wanted and running != 2:
        yield f"{running} of 2 connection sync daemons are running"
    if running and not is_wanted:
        yield "connection sync is running although the topology turns it off"


def _persistence(seconds: int) -> str:
    return f"persistence {seconds} s" if seconds else "no persistence"


def parse_ipvs(text: str, nodes: Mapping[str, str]) -> dict[str, tuple[RealServer, ...]]:
    """The output of ``ipvsadm -Ln``; ``nodes`` names the node of each real server's address."""
    return {
        service.address: tuple(
            RealServer(each.address, nodes.get(each.address, each.address), each.weight, each.active, each.inactive)
            for each in service.destinations
        )
        for service in ipvsadm.parse(text)
    }


def real_servers(topology: Topology) -> dict[str, str]:
    """The node of each real server's address."""
    return {str(address): machine.name for machine in topology.of_role("web") for address in machine.addresses["lan"]}


def tables(seen: Observations) -> dict[str, dict[str, tuple[RealServer, ...]]]:
    """Each running director -> each virtual service -> its real servers."""
    nodes = real_servers(seen.topology)
    answers = seen.answers.get(VirtualService.name, {})
    return {director: parse_ipvs(answers.get(director, "").partition(SYNC)[0], nodes) for director in seen.addresses}
