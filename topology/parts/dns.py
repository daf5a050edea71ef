"""DNS round robin: the site's name has every VIP as an address, and the order rotates from answer to answer."""

from __future__ import annotations

import json
from collections.abc import Iterator

from topology.files import File, render
from topology.model import Machine, Topology
from topology.parts.part import Collector, Part, Report, Secrets, Seen


class Dns(Part):
    """The site's resolver."""

    name = "DNS round robin"
    single_point_of_failure = "one resolver: while it is down nobody finds the site"

    def files(self, topology: Topology, machine: Machine, secrets: Secrets) -> Iterator[File]:
        """The zone, and on the client where to ask."""
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
        """The client asks once for each address, to see the order turn."""
        if machine.role != "client":
            return ""
        times = len(topology.vips)
        return f"python3 -S /usr/lib/monkeywrench/site.py dns {address(topology)} {topology.site} {times}"

    def collectors(self, topology: Topology, machine: Machine) -> Iterator[Collector]:
        """Raw answers, as the client gets them."""
        if machine.role == "client":
            yield {"what": "dns", "every_s": 0.25, "resolver": address(topology), "site": topology.site}

    def judge(self, seen: Seen) -> Report:
        """Each answer has all addresses. (That the order turns by one is no question for a busy resolver.)"""
        wanted = sorted(str(vip.address) for vip in seen.topology.vips)
        client = seen.topology.of_role("client")[0].name
        try:
            answers = json.loads(seen.answers.get(self.name, {}).get(client, "[]"))
        except ValueError:
            answers = []
        answers = answers if isinstance(answers, list) and all(isinstance(one, list) for one in answers) else []
        wrong = [answer for answer in answers if sorted(map(str, answer)) != wanted]
        facts = {"answers": answers}
        if not answers or wrong:
            got = ", ".join(map(str, wrong[0])) if wrong and wrong[0] else "nothing"
            return Report("wrong", (f"the resolver answers {got} for {seen.topology.site}",), facts)
        return Report(f"{seen.topology.site} is at {' and '.join(wanted)}", facts=facts)


def address(topology: Topology) -> str:
    """The resolver's address."""
    return str(topology.of_role("resolver")[0].addresses["internet"][0])
