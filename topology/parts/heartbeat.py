"""heartbeat: the directors exchange messages; when one is silent for deadtime, the other takes over its VIP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.formats import ha_cf
from harness.protocols import Node
from harness.records import Consequence
from harness.wait import each
from topology.model import Machine, Topology, Vip
from topology.parts.part import Judgement, Log, Observations, Part, Secrets
from topology.render import File, render

LOG = "/var/log/ha-log"
ERROR = " (?:ERROR|CRIT|ALERT|EMERG): "
"""cluster-glue's cl_log.c: the priorities above WARN."""
PEER_DEAD = "node {node}: is dead"
"""mark_node_dead in heartbeat.c (heartbeat 3)."""
BOTH = "Both machines own"
"""hb_resource.c: its peer holds resources that it holds itself, which a peer that is down does not say."""
FAILBACK = dict.fromkeys(ha_cf.TRUE, True) | dict.fromkeys(("false", "off", "no", "n", "0"), False)
"""The words of cl_str_to_boolean."""
RESOURCE_S = 30
"""Timeout for the status of a resource."""
RESOURCE_FACTOR = 5
"""Starting a resource may take this many times as long as its status. On 2 cores the status of one took 0.5 s, and a
takeover 1.74 s for each of its 2 resources (a status, a start, heartbeat's own scripts around them): 3.5 times as long.
The rest is the margin. A machine that is slower during the run has an allowance of its own
(harness/history/pace.py)."""
RESOURCE_LEAST_MS = 2500
"""The least of that time: 1.74 and 2.42 s were measured in 2 takeovers on 2 cores where nothing else ran."""
RESOURCE_ROUNDS = 3
"""The slowest of some counts: one may be lucky."""


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

    def consequences(self, topology: Topology) -> Iterator[Consequence]:
        """Each director complains about its peer."""
        directors = tuple(machine.name for machine in topology.of_role("director"))
        yield Consequence("heartbeat", directors, directors, ("heartbeat",), not_of_down=BOTH)

    def cluster_facts(self, topology: Topology, directors: Mapping[str, Node]) -> Mapping[str, Any]:
        """Its timings, as the topology promises them, and how long its resource scripts may take on this machine."""
        return {
            "keepalive_ms": topology.timings.keepalive_ms,
            "deadtime_ms": topology.timings.deadtime_ms,
            "auto_failback": topology.directors.auto_failback,
            "resources_per_vip": 1 if topology.answers_directly else 2,
            "resource_start_ms": resource_start_ms(topology, directors),
            "peer_dead": PEER_DEAD,
        }

    def configured(self, topology: Topology, directors: Mapping[str, Node]) -> Mapping[str, Mapping[str, Any]]:
        """The same from the ha.cf of each running director."""
        return {name: settings(node.exec("cat", ha_cf.PATH).stdout) for name, node in directors.items()}

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


def settings(text: str) -> dict[str, Any]:
    """The fields of :class:`Cluster` that a ha.cf sets. Pure."""
    file = ha_cf.parse(text)
    found: dict[str, Any] = {"keepalive_ms": file.keepalive_ms, "deadtime_ms": file.deadtime_ms}
    failback = file.last("auto_failback")
    # its third value, legacy, is neither (ha.cf(5))
    if failback and failback[1].lower() in FAILBACK:
        found["auto_failback"] = FAILBACK[failback[1].lower()]
    return found


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
    if not measured:
        return RESOURCE_LEAST_MS
    clock = directors[measured[0].home].clock
    slowest_s = max(s for _ in range(RESOURCE_ROUNDS) for s in each(status_s, measured, clock))
    return max(round(RESOURCE_FACTOR * 1000 * slowest_s), RESOURCE_LEAST_MS)
