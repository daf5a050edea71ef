"""DNS round robin: the site's name resolves to every VIP, and the order rotates from answer to answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from harness.protocols import Node
from topology.model import Machine, Topology
from topology.parts.part import Collector, Judgement, Observations, Part, Secrets
from topology.render import File, render


class Dns(Part):
    """The site's resolver."""

    name = "DNS round robin"
    single_point_of_failure = "one resolver: if it is down, the site's name does not resolve"

    def files(self, topology: Topology, machine: Machine, secrets: Secrets) -> Iterator[File]:
        """The resolver's zone, and the client's resolv.conf."""
        if machine.role == "resolver":
            zone = topology.site.partition(".")[2]
            values = {"zone": zone, "site": topology.site, "ttl_s": topology.ttl_s, "vips": topology.vips}
            yield File("/etc/monkeywrench/zone.toml", render("zone.toml.j2", **values))
        if machine.role == "client":
            yield File("/etc/monkeywrench/resolv.conf", f"nameserver {address(topology)}\n")

    def services(self, topology: Topology, machine: Machine) -> tuple[str, ...]:
        """The resolver."""
        return ("resolver",) if machine.role == "resolver" else ()

    def probe_command(self, topology: Topology, machine: Machine) -> str:
        """The client queries once for each VIP, to see the rotation."""
        if machine.role != "client":
            return ""
        times = len(topology.vips)
        return f"python3 -S /usr/lib/monkeywrench/site.py dns {address(topology)} {topology.site} {times}"

    def collectors(self, topology: Topology, machine: Machine) -> Iterator[Collector]:
        """Raw answers, as the client receives them."""
        if machine.role == "client":
            yield {"what": "dns", "every_s": 0.25, "resolver": address(topology), "site": topology.site}

    def cluster_facts(self, topology: Topology, directors: Mapping[str, Node]) -> Mapping[str, Any]:
        """The resolver's address."""
        return {"resolver": address(topology)}

    def judge(self, seen: Observations) -> Judgement:
        """Healthy: each answer has all addresses. (Other queries between ours rotate the order, too.)"""
        wanted = sorted(str(vip.address) for vip in seen.topology.vips)
        client = seen.topology.of_role("client")[0].name
        try:
            answers = json.loads(seen.answers.get(self.name, {}).get(client, "[]"))
        except ValueError:
            answers = []
        answers = answers if isinstance(answers, list) and all(isinstance(each, list) for each in answers) else []
        wrong = [answer for answer in answers if sorted(map(str, answer)) != wanted]
        facts = {"answers": answers}
        if not answers or wrong:
            got = ", ".join(map(str, wrong[0])) if wrong and wrong[0] else "nothing"
            problem = f"the resolver answers {got} for {seen.topology.site} instead of {' and '.join(wanted)}"
            return Judgement("wrong answers", (problem,), facts)
        return Judgement(f"{seen.topology.site} resolves to {' and '.join(wanted)}", facts=facts)


def address(topology: Topology) -> str:
    """The resolver's address."""
    return str(topology.of_role("resolver")[0].addresses["internet"][0])
