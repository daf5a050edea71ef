"""Web data: the site's folder changes on the master only; rsync copies the changes to all other real servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from topology.model import Machine, Topology
from topology.parts.part import Collector, Judgement, Observations, Part, Secrets, json_object
from topology.parts.real_servers import SITE
from topology.render import File, render

STATE = "/run/monkeywrench/replicate.json"


class WebData(Part):
    """``replicate`` on the master, an rsync daemon on each other real server."""

    name = "web data"
    single_point_of_failure = "one master: if it is down, the site is served but cannot be changed"

    def enabled(self, topology: Topology) -> bool:
        """Whether the topology has web data."""
        return topology.web_data is not None

    def files(self, topology: Topology, machine: Machine, secrets: Secrets) -> Iterator[File]:
        """The master's replication plan; on the others the rsync module that receives it."""
        if topology.web_data is None or machine.role != "web":
            return
        if machine.name == topology.web_data.master:
            targets = {m.name: str(m.addresses["lan"][0]) for m in topology.of_role("web") if m != machine}
            plan = {"debounce_ms": topology.web_data.debounce_ms, "resync_s": topology.web_data.resync_s}
            plan_text = json.dumps({"folder": SITE, "targets": targets, "state": STATE, **plan}, indent=1) + "\n"
            yield File("/etc/monkeywrench/replicate.json", plan_text)
        else:
            master = topology.lan(topology.web_data.master)
            values = {"name": "site", "path": SITE, "allow": master, "keep": False}
            yield File("/etc/rsyncd.d/site.conf", render("rsyncd-module.conf.j2", **values))

    def services(self, topology: Topology, machine: Machine) -> tuple[str, ...]:
        """The replication script on the master, the rsync daemon on the others."""
        if topology.web_data is None or machine.role != "web":
            return ()
        return ("replicate",) if machine.name == topology.web_data.master else ("rsyncd",)

    def probe_command(self, topology: Topology, machine: Machine) -> str:
        """A digest of the folder (what rsync compares: names, sizes, times), and the master's replication state."""
        if topology.web_data is None or machine.role != "web":
            return ""
        print_all = f"cd {SITE} && find . -name '.~tmp~' -prune -o ! -type d -printf '%P %s %T@ %l\\n'"
        account = f"; cat {STATE}" if machine.name == topology.web_data.master else ""
        return f"({print_all}) | sort | md5sum | cut -c 1-32{account}"

    def collectors(self, topology: Topology, machine: Machine) -> Iterator[Collector]:
        """The content of the folder, whenever it changes."""
        if topology.web_data is not None and machine.role == "web":
            yield {"what": "docroot", "every_s": 0.5, "at_least_every_s": 5, "folder": SITE}

    def judge(self, seen: Observations) -> Judgement:
        """Healthy: all running real servers have the same content as the master."""
        answers = seen.answers.get(self.name, {})
        master = seen.topology.web_data.master if seen.topology.web_data else ""
        prints = {node: text.partition("\n")[0].strip() for node, text in answers.items()}
        account = _account(answers.get(master, ""))
        web = [machine.name for machine in seen.topology.of_role("web")]
        if master not in prints:
            return Judgement(f"no answer from master {master}", (f"web data: master {master} does not answer",))
        behind = [node for node in seen.running(web) if prints.get(node) != prints[master]]
        problems = [f"the site's folder on {', '.join(behind)} differs from {master}"] if behind else []
        problems += [f"replication: {account['problems']}"] if account.get("problems") else []
        lag_s = account.get("lag_s")
        line = f"{len(prints) - len(behind)} of {len(web)} match {master}"
        line += f", last change replicated within {lag_s:.1f} s" if lag_s is not None else ""
        return Judgement(line, tuple(problems), {"behind": behind, "replication": account})


def _account(answer: str) -> dict[str, Any]:
    found = json_object(answer.partition("\n")[2])
    return found or {"problems": "the script on the master reports no state"}
