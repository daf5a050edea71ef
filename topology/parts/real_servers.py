"""Real servers: Apache with PHP, which serve the site."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from topology.files import File, render
from topology.model import Machine, Topology
from topology.parts.part import Collector, Part, Report, Secrets, Seen, json_object, log_of

SITE = "/srv/site"
UPLOADS = "/srv/uploads"


class RealServers(Part):
    """Apache, PHP and the site's own settings."""

    name = "real servers"

    def files(self, topology: Topology, machine: Machine, secrets: Secrets) -> Iterator[File]:
        """Apache's configuration, and what the site needs to know of its node."""
        if machine.role == "web":
            values = {"site": topology.site, "name": machine.name, "folder": SITE}
            yield File("/etc/apache2/ports.conf", "# the site's own file says where to listen\n")
            yield File("/etc/apache2/sites-enabled/site.conf", render("apache2.conf.j2", **values))
            settings = json.dumps(site_settings(topology, machine, secrets), indent=1) + "\n"
            yield File("/etc/monkeywrench/site.json", settings, 0o644)

    def services(self, topology: Topology, machine: Machine) -> tuple[str, ...]:
        """Apache."""
        return ("apache",) if machine.role == "web" else ()

    def probe_command(self, topology: Topology, machine: Machine) -> str:
        """Each real server asks its own site after its database; the client asks it through each VIP.

        Not after its uploads: with their server down the question would stay in an Apache process until that is back,
        and the looking alone would use up all of them. A site of the user's has no such page; then Apache runs.
        """
        if machine.role == "web":
            asked = f"ask-http 80 '/health.php?of=database' {topology.site}"
            return (
                asked
                if own_site(topology, machine)
                else 'pgrep -x apache2 > /dev/null && echo \'{"database": "none"}\''
            )
        if machine.role == "client":
            vips = " ".join(str(vip.address) for vip in topology.vips)
            return f"python3 -S /usr/lib/monkeywrench/site.py http {topology.site} {vips}"
        return ""

    def collectors(self, topology: Topology, machine: Machine) -> Iterator[Collector]:
        """Apache's errors."""
        if machine.role == "web":
            yield log_of("apache", "/var/log/apache2/error.log")

    def judge(self, seen: Seen) -> Report:
        """Every real server answers and reaches its database, and every VIP answers."""
        answers = {node: json_object(text) for node, text in seen.answers.get(self.name, {}).items()}
        client = seen.topology.of_role("client")[0].name
        web = [machine.name for machine in seen.topology.of_role("web")]
        problems, fit = [], 0
        for node in seen.running(web):
            says = answers.get(node, {}).get("database", "no answer")
            if says in ("ok", "none"):
                fit += 1
            else:
                problems.append(f"the site on {node} says of its database: {says}")
        vips = {str(vip.address): answers.get(client, {}).get(str(vip.address)) for vip in seen.topology.vips}
        problems += [f"the site does not answer at {vip}" for vip, node in sorted(vips.items()) if not node]
        return Report(f"{fit} of {len(web)} serve the site", tuple(problems), {"served by": vips})


def own_site(topology: Topology, machine: Machine) -> bool:
    """False when the user has put a folder of their own in place of the lab's site."""
    names = {machine.name, machine.role}
    return not any(names & set(overlay.nodes) and overlay.path.rstrip("/") == SITE for overlay in topology.overlays)


def site_settings(topology: Topology, machine: Machine, secrets: Secrets) -> dict[str, Any]:
    """``site.json``: the node's name, the VIP of each of its addresses, and where the data is."""
    vips = [str(vip.address) for vip in topology.vips]
    settings: dict[str, Any] = {
        "node": machine.name,
        "vips": dict(zip(map(str, machine.addresses["lan"]), vips, strict=True)),
    }
    if topology.database:
        address = str(topology.of_role("db")[0].addresses["lan"][0])
        settings["database"] = {"host": address, "port": 3306, "user": "site", "name": "site"}
        settings["database"]["password"] = secrets.database
    if topology.variable_data:
        settings["uploads"] = UPLOADS
    if topology.web_data:
        master = topology.web_data.master
        settings["master"] = {"node": master, "address": str(topology.lan(master))}
    return settings
