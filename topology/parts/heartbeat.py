"""heartbeat: the directors message each other; silence means that the peer is dead, and its VIP is taken over."""

from __future__ import annotations

from collections.abc import Iterator

from topology.files import File, render
from topology.model import Machine, Topology
from topology.parts.part import Part, Report, Secrets, Seen


class Heartbeat(Part):
    """heartbeat 3 with haresources."""

    name = "heartbeat"
    single_point_of_failure = "two nodes without fencing: a partition of all paths makes both serve both VIPs"

    def files(self, topology: Topology, machine: Machine, secrets: Secrets) -> Iterator[File]:
        """ha.cf, haresources and authkeys, the same on both directors."""
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
        """Whether the daemon runs, and what it says of its peer."""
        if machine.role != "director":
            return ""
        peer = next(director.name for director in topology.of_role("director") if director != machine)
        return f"cl_status hbstatus && cl_status nodestatus {peer}"

    def judge(self, seen: Seen) -> Report:
        """Both run, and each sees the other as active."""
        directors = [machine.name for machine in seen.topology.of_role("director")]
        answers = seen.answers.get(self.name, {})
        says = {name: ([*answers.get(name, "").split("\n"), ""])[:2] for name in seen.running(directors)}
        problems = []
        for name, (daemon, peer) in says.items():
            other = next(director for director in directors if director != name)
            if "is running" not in daemon:
                problems.append(f"heartbeat does not run on {name}")
            elif peer.strip() != "active" and other in says:
                problems.append(f"{name} sees {other} as {peer.strip() or 'unknown'}")
        line = ", ".join(f"{name} sees its peer {peer.strip() or 'not'}" for name, (_, peer) in says.items())
        return Report(
            line or "no director runs", tuple(problems), {"peers": {n: p.strip() for n, (_, p) in says.items()}}
        )
