"""The scripts of ``/etc/monkeywrench/boot.d``: an overlay may add some, and one that fails must not be silent."""

from __future__ import annotations

from topology.model import Machine, Topology
from topology.parts.part import Judgement, Observations, Part

REPORT = "/run/monkeywrench/boot.report"
"""``done``, and then a line for each script that failed at the node's last boot (``images/node/machine/network``)."""
DONE = "done"


class BootScripts(Part):
    """All nodes of a topology with files of its own; without such files the scripts are those of the images."""

    name = "boot scripts"

    def enabled(self, topology: Topology) -> bool:
        """Whether the topology has files of its own."""
        return bool(topology.overlays)

    def probe_command(self, topology: Topology, machine: Machine) -> str:
        """The scripts that failed at the last boot."""
        return f"cat {REPORT}"

    def judge(self, seen: Observations) -> Judgement:
        """Healthy: each running node reports its boot, and no script that failed."""
        problems, failed = [], {}
        for node in seen.running(machine.name for machine in seen.topology.machines):
            first, *lines = seen.answers.get(self.name, {}).get(node, "").splitlines() or [""]
            if first != DONE:
                problems.append(f"{node}: no report of its boot scripts")
            elif lines:
                failed[node] = lines
                problems += [f"{node}: boot script {line}" for line in lines]
        return Judgement("see the problems" if problems else "all succeeded", tuple(problems), {"failed": failed})
