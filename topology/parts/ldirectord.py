"""ldirectord: checks every real server from each director, quiesces what fails, and puts it back when it answers."""

from __future__ import annotations

from collections.abc import Iterator

from topology.files import File, render
from topology.model import Machine, Topology
from topology.parts.part import Collector, Part, Report, Secrets, Seen, log_of
from topology.parts.virtual_service import tables


class Ldirectord(Part):
    """ldirectord on both directors, all the time, with all virtual services."""

    name = "ldirectord"

    def files(self, topology: Topology, machine: Machine, secrets: Secrets) -> Iterator[File]:
        """ldirectord.cf, the same on both directors."""
        if machine.role == "director":
            position = {vip.address: number for number, vip in enumerate(topology.vips)}
            values = {"timings": topology.timings, "vips": topology.vips, "web": topology.of_role("web")}
            values |= {"position": position, "site": topology.site, "service": topology.service}
            yield File("/etc/ha.d/ldirectord.cf", render("ldirectord.cf.j2", **values))

    def services(self, topology: Topology, machine: Machine) -> tuple[str, ...]:
        """On the directors."""
        return ("ldirectord",) if machine.role == "director" else ()

    def probe_command(self, topology: Topology, machine: Machine) -> str:
        """Whether the daemon runs."""
        return "pgrep -c -f /usr/sbin/ldirectord" if machine.role == "director" else ""

    def collectors(self, topology: Topology, machine: Machine) -> Iterator[Collector]:
        """Its log."""
        if machine.role == "director":
            yield log_of("ldirectord", "/var/log/ldirectord.log")

    def judge(self, seen: Seen) -> Report:
        """It runs on both, and has put every real server into every table."""
        answers = seen.answers.get(self.name, {})
        problems, served = [], {}
        web = [machine.name for machine in seen.topology.of_role("web")]
        for director, table in tables(seen).items():
            if not answers.get(director, "").strip().strip("0").isdigit():
                problems.append(f"ldirectord does not run on {director}")
            for vip in seen.topology.vips:
                weights = {server.node: server.weight for server in table.get(f"{vip.address}:80", ())}
                missing = [name for name in web if not weights.get(name)]
                served[director, str(vip.address)] = len(web) - len(missing)
                if missing:
                    problems.append(f"{director} sends nothing for {vip.address} to {', '.join(missing)}")
        least = min(served.values(), default=0)
        line = f"{least} of {len(web)} real servers in" + ("" if not problems else " the shortest table")
        return Report(line, tuple(problems), {"serving": {f"{d} {v}": n for (d, v), n in served.items()}})
