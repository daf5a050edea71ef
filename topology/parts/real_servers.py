"""Real servers: Apache and PHP serve the site."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from topology.model import Machine, Topology
from topology.parts.part import Judgement, Log, Observations, Part, Secrets, json_object
from topology.render import File, render

SITE = "/srv/site"
UPLOADS = "/srv/uploads"

ERROR = r"\[\w*:(?:error|crit|alert|emerg)\]"
"""Apache's ErrorLogFormat: [module:level]; core.html#loglevel."""


class RealServers(Part):
    """Apache, PHP and the site's own settings."""

    name = "real servers"

    def files(self, topology: Topology, machine: Machine, secrets: Secrets) -> Iterator[File]:
        """Apache's configuration, and the site's settings on this node."""
        if machine.role == "web":
            values = {"site": topology.site, "name": machine.name, "folder": SITE}
            yield File("/etc/apache2/ports.conf", "# sites-enabled/site.conf has the Listen directive\n")
            yield File("/etc/apache2/sites-enabled/site.conf", render("apache2.conf.j2", **values))
            settings = json.dumps(site_settings(topology, machine, secrets), indent=1) + "\n"
            yield File("/etc/monkeywrench/site.json", settings, 0o644)

    def services(self, topology: Topology, machine: Machine) -> tuple[str, ...]:
        """Apache."""
        return ("apache",) if machine.role == "web" else ()

    def probe_command(self, topology: Topology, machine: Machine) -> str:
        """Each real server requests its own health page for the database; the client requests it through each VIP.

        Not the page for uploads: with the NFS server down each request would block an Apache process until the server
        is back, and the checks alone would use them all up. A user's own site has no health page: there a running
        Apache is enough.
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

    def logs(self, topology: Topology, machine: Machine) -> Iterator[Log]:
        """Apache's errors."""
        if machine.role == "web":
            yield Log("apache", "/var/log/apache2/error.log", ERROR)

    def judge(self, seen: Observations) -> Judgement:
        """Healthy: every real server answers and reaches the database, and every VIP answers."""
        answers = {node: json_object(text) for node, text in seen.answers.get(self.name, {}).items()}
        client = seen.topology.of_role("client")[0].name
        web = [machine.name for machine in seen.topology.of_role("web")]
        problems, fit = [], 0
        for node in seen.running(web):
            database = answers.get(node, {}).get("database")
            if database in ("ok", "none"):
                fit += 1
            elif database is None:
                problems.append(f"the site on {node} does not answer (is Apache running?)")
            else:
                problems.append(f"the site on {node} cannot use its database: {database}")
        vips = {str(vip.address): answers.get(client, {}).get(str(vip.address)) for vip in seen.topology.vips}
        problems += [f"the site does not answer at {vip}" for vip, node in sorted(vips.items()) if not node]
        return Judgement(f"{fit} of {len(web)} serve the site", tuple(problems), {"served by": vips})


def own_site(topology: Topology, machine: Machine) -> bool:
    """False when an overlay replaces the lab's site."""
    names = {machine.name, machine.role}
    return not any(names & set(overlay.nodes) and overlay.path.rstrip("/") == SITE for overlay in topology.overlays)


def site_settings(topology: Topology, machine: Machine, secrets: Secrets) -> dict[str, Any]:
    """``site.json``: the node's name, the VIP for each of its addresses, and where the data is."""
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
