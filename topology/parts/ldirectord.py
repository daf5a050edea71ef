"""ldirectord: each director checks every real server, quiesces those that fail, and restores them when they answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from harness.formats import ldirectord_cf
from harness.protocols import Node
from harness.records import Cluster, Consequence
from topology.model import Machine, Topology
from topology.parts.part import Judgement, Log, Observations, Part, Secrets
from topology.parts.virtual_service import tables
from topology.render import File, render

PATH = "/etc/ha.d/ldirectord.cf"

DEFAULTS = {
    each.name: each.default
    for each in fields(Cluster)
    if each.name in {"check_interval_ms", "check_timeout_ms", "check_count", "failure_count", "persistence_s"}
}
"""What ldirectord does where its file says nothing."""


class Ldirectord(Part):
    """ldirectord, always running on both directors, with all virtual services."""

    name = "ldirectord"

    def files(self, topology: Topology, machine: Machine, secrets: Secrets) -> Iterator[File]:
        """ldirectord.cf, identical on both directors."""
        if machine.role == "director":
            position = {vip.address: number for number, vip in enumerate(topology.vips)}
            values = {"timings": topology.timings, "vips": topology.vips, "web": topology.of_role("web")}
            values |= {"position": position, "site": topology.site, "service": topology.service}
            yield File(PATH, render("ldirectord.cf.j2", **values))

    def services(self, topology: Topology, machine: Machine) -> tuple[str, ...]:
        """On the directors."""
        return ("ldirectord",) if machine.role == "director" else ()

    def probe_command(self, topology: Topology, machine: Machine) -> str:
        """Whether the daemon runs."""
        return "pgrep -c -f /usr/sbin/ldirectord" if machine.role == "director" else ""

    def logs(self, topology: Topology, machine: Machine) -> Iterator[Log]:
        """Its log on both directors."""
        if machine.role == "director":
            yield Log("ldirectord", "/var/log/ldirectord.log")

    def consequences(self, topology: Topology) -> Iterator[Consequence]:
        """It complains about real servers that do not answer."""
        directors, web = ([machine.name for machine in topology.of_role(role)] for role in ("director", "web"))
        yield Consequence("ldirectord", tuple(directors), tuple(web), ("apache",))

    def cluster_facts(self, topology: Topology, directors: Mapping[str, Node]) -> Mapping[str, Any]:
        """Its settings, as the topology promises them."""
        return settings(self.rendered(topology, topology.of_role("director")[0], PATH))

    def configured(self, topology: Topology, directors: Mapping[str, Node]) -> Mapping[str, Mapping[str, Any]]:
        """The same from the ldirectord.cf of each running director, with ldirectord's own defaults for the rest."""
        found = {name: settings(node.exec("cat", PATH).stdout) for name, node in directors.items()}
        return {name: DEFAULTS | settings for name, settings in found.items() if settings}

    def judge(self, seen: Observations) -> Judgement:
        """Healthy: it runs on both directors, and every table has every real server with a weight above 0."""
        answers = seen.answers.get(self.name, {})
        problems, served = [], {}
        web = [machine.name for machine in seen.topology.of_role("web")]
        for director, table in tables(seen).items():
            if not answers.get(director, "").strip().strip("0").isdigit():
                problems.append(f"ldirectord is not running on {director}")
            for vip in seen.topology.vips:
                weights = {server.node: server.weight for server in table.get(f"{vip.address}:80", ())}
                missing = [name for name in web if not weights.get(name)]
                served[director, str(vip.address)] = len(web) - len(missing)
                if missing:
                    problems.append(f"{director} sends no connections for {vip.address} to {', '.join(missing)}")
        least = min(served.values(), default=0)
        line = f"{least} of {len(web)} real servers in service" + (" in the shortest table" if problems else "")
        return Judgement(line, tuple(problems), {"serving": {f"{d} {v}": n for (d, v), n in served.items()}})


def settings(text: str) -> dict[str, Any]:
    """The fields of :class:`Cluster` that an ldirectord.cf sets, as ldirectord 4.12 reads it; times in ms. Pure.

    Of several virtual services the longest times count, and the first one's kind of check, scheduler and persistence.
    Without a setting in the file the field is missing, and ldirectord's own default applies.
    """
    file = ldirectord_cf.parse(text)
    if not file.services:
        return {}

    def most(name: str) -> int | None:
        found = [setting.number for service in file.services if (setting := file.of(service, name))]
        return max(found, default=None)

    first = file.services[0]
    # each is the other's default; a virtual service's own, whichever it is, comes first (ld_setup)
    names = ("negotiatetimeout", "checktimeout") if first.negotiates else ("checktimeout", "negotiatetimeout")
    timeouts = [_timeout_s(file, service, names) for service in file.services]
    timeout_s = max((found for found in timeouts if found is not None), default=None)
    interval_s = most("checkinterval")
    quiescent, scheduler, persistent = (file.of(first, name) for name in ("quiescent", "scheduler", "persistent"))
    found = {
        "check_interval_ms": None if interval_s is None else 1000 * interval_s,
        # the default for a check that only connects is 5 s (ldirectord(8), checktimeout)
        "check_timeout_ms": 1000 * timeout_s if timeout_s is not None else None if first.negotiates else 5000,
        "check_count": most("checkcount"),
        "failure_count": most("failurecount"),
        "checktype": first.checktype,
        # the defaults of the code, which differ from the manual's
        "quiescent": bool(quiescent and quiescent.value == "yes"),
        "scheduler": scheduler.word if scheduler else "wrr",
        "persistence_s": persistent.number if persistent else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _timeout_s(file: ldirectord_cf.LdirectordCf, service: ldirectord_cf.Service, names: tuple[str, ...]) -> int | None:
    found = [where.get(name) for where in (service, file) for name in names]
    return next((setting.number for setting in found if setting), None)
