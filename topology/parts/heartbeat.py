"""heartbeat: the directors exchange messages; when one is silent for deadtime, the other takes over its VIP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.formats import ha_cf
from harness.protocols import Node
from harness.wait import each
from topology.model import Machine, Topology, Vip
from topology.parts.part import Judgement, Log, Observations, Part, Secrets
from topology.render import File, render

LOG = "/var/log/ha-log"
ERROR = " (?:ERROR|CRIT|ALERT|EMERG): "
"""cluster-glue's cl_log.c: the priorities above WARN."""
PEER_DEAD = "node {node}: is dead"
"""mark_node_dead in heartbeat.c (heartbeat 3)."""
RESOURCE_S = 30
"""Timeout for the status of a resource."""
RESOURCE_FACTOR = 12
"""Starting a resource may take this many times as long as its status takes while the lab is healthy. In takeovers under
load it took 6.5 to 8 times as long (a status, a longer start, heartbeat's own scripts around them); half as much again
is the margin."""
RESOURCE_LEAST_MS = 15_000
"""The least of that time: a machine that is fast during the measurement may be slow in the takeover. Where a status
took 0.5 s, the starts in the next minutes took 7.5 and 8.4 s each; this is nearly twice that."""


class Heartbeat(Part):
    """heartbeat 3 with haresources."""

    name = "heartbeat"
    single_point_of_failure = "no fencing: if all paths between the directors fail, both hold both VIPs"

    def files(self, topology: Topology, machine: Machine, secrets: Secrets) -> Iterator[File]:
        """ha.cf, haresources and authkeys, identical on both directors."""
        if machine.role != "director":
            return
        directors = topology.of_role("director")
        paths = [
            (topology.interface(machine, segment), [director.addresses[segment][0] for director in directors])
            for segment in ("heartbeat", "lan")
        ]
        names = [director.name for director in directors]
        failback = topology.directors.auto_failback
        yield File(
            "/etc/ha.d/ha.cf",
            render("ha.cf.j2", timings=topology.timings, paths=paths, directors=names, auto_failback=failback),
        )
        yield File("/etc/ha.d/haresources", self._haresources(topology, machine))
        yield File("/etc/ha.d/authkeys", render("authkeys.j2", key=secrets.heartbeat), 0o600)
        own = "".join(f"{vip.address}\n" for vip in topology.vips if vip.home == machine.name)
        yield File("/etc/monkeywrench/own-vip", own)

    def _haresources(self, topology: Topology, machine: Machine) -> str:
        return render(
            "haresources.j2",
            vips=topology.vips,
            gateways=not topology.answers_directly,
            lan=topology.segments["lan"],
            internet=topology.segments["internet"],
            inside=topology.interface(machine, "lan"),
            outside=topology.interface(machine, "internet"),
        )

    def services(self, topology: Topology, machine: Machine) -> tuple[str, ...]:
        """On the directors."""
        return ("heartbeat",) if machine.role == "director" else ()

    def probe_command(self, topology: Topology, machine: Machine) -> str:
        """Whether the daemon runs, and how it sees its peer."""
        if machine.role != "director":
            return ""
        peer = next(director.name for director in topology.of_role("director") if director != machine)
        return f"cl_status hbstatus && cl_status nodestatus {peer}"

    def logs(self, topology: Topology, machine: Machine) -> Iterator[Log]:
        """Its log on both directors; the times of its lines measure how fast it notices a failure."""
        if machine.role == "director":
            yield Log("heartbeat", LOG, ERROR, is_exact=True)

    def cluster_facts(self, topology: Topology, directors: Mapping[str, Node]) -> Mapping[str, Any]:
        """Its timings, from the ha.cf of a running director, and how long its resource scripts may take."""
        timings = ha_cf.parse(next(iter(directors.values())).exec("cat", ha_cf.PATH).stdout)
        return {
            "keepalive_ms": timings.keepalive_ms,
            "deadtime_ms": timings.deadtime_ms,
            "auto_failback": topology.directors.auto_failback,
            "resources_per_vip": 1 if topology.answers_directly else 2,
            "resource_start_ms": resource_start_ms(topology, directors),
            "peer_dead": PEER_DEAD,
        }

    def judge(self, seen: Observations) -> Judgement:
        """Healthy: both daemons run, and each sees its peer as active."""
        directors = [machine.name for machine in seen.topology.of_role("director")]
        answers = seen.answers.get(self.name, {})
        states = {name: ([*answers.get(name, "").split("\n"), ""])[:2] for name in seen.running(directors)}
        problems = []
        for name, (daemon, peer) in states.items():
            other = next(director for director in directors if director != name)
            if "is running" not in daemon:
                problems.append(f"heartbeat is not running on {name}")
            elif peer.strip() != "active" and other in states:
                problems.append(f"heartbeat on {name} sees {other} as {peer.strip() or 'unknown'}")
        line = ", ".join(f"{name} sees its peer as {peer.strip() or 'unknown'}" for name, (_, peer) in states.items())
        facts = {"peers": {name: peer.strip() for name, (_, peer) in states.items()}}
        return Judgement(line or "no director is running", tuple(problems), facts)


def resource_start_ms(topology: Topology, directors: Mapping[str, Node]) -> int:
    """How long one resource script of a takeover may take on this machine, from how long one takes now."""

    def status_s(vip: Vip) -> float:
        outside = topology.interface(topology.machine(vip.home), "internet")
        resource = f"{vip.address}/{topology.segments['internet'].prefixlen}/{outside}"
        node = directors[vip.home]
        began_s = node.clock.now()
        node.exec("/etc/ha.d/resource.d/IPaddr2", resource, "status", timeout_s=RESOURCE_S)
        return node.clock.now() - began_s

    measured = [vip for vip in topology.vips if vip.home in directors]
    slowest_s = max(each(status_s, measured, directors[measured[0].home].clock), default=0.0) if measured else 0.0
    return max(round(RESOURCE_FACTOR * 1000 * slowest_s), RESOURCE_LEAST_MS)
