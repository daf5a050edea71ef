"""Which error lines in a log does a fault explain? By the nodes that it touches and their roles. Pure.

What services write is known here and nowhere else among what reads a history.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from harness.history import Op
from harness.history.injections import Injection
from harness.records import Cluster, EffectKind

CONSOLE = "console"

KERNEL = re.compile(r"Kernel panic|\bBUG: |\bOops\b|EXT4-fs error|Call Trace:|blocked for more than|Out of memory: ")
"""Lines of a kernel, not of a service that writes to the console."""

HUNG = re.compile(r"blocked for more than|Call Trace:")
"""What a kernel writes when a program waits for a file server for 2 minutes (kernel/hung_task.c)."""

BOTH = re.compile(r"Both machines own")
"""heartbeat says that its peer holds resources that it holds itself (hb_resource.c): a peer that is down does not."""

FILES = frozenset({"", "nfs", "nfsd", "nfs-server"})
"""The services of the first real server that the others' files depend on; empty: the node as a whole."""


class Explanations:
    """Which error lines the faults of a run explain."""

    def __init__(self, cluster: Cluster, injected: Sequence[Injection]) -> None:
        self.cluster = cluster
        self.injected = injected

    def certainly(self, op: Op) -> bool:
        """True when a fault that was active or settling makes this service of this node write such a line."""
        return any(self.explains(each, op) for each in self.active(op))

    def perhaps(self, op: Op) -> bool:
        """True when it is not known what one of these faults touched."""
        return bool(self.obscure(op))

    def obscure(self, op: Op) -> list[Injection]:
        """The faults of that time whose effects are not known."""
        return [each for each in self.active(op) if not each.known or each.unrecorded]

    def active(self, op: Op) -> list[Injection]:
        """The faults that were active or settling when a line was written."""
        return [each for each in self.injected if each.start <= op.time <= each.settled]

    def explains(self, fault: Injection, op: Op) -> bool:
        """Whether one fault does."""
        _, node, service = _source(op)
        return any(
            self.own(touched, scope, node, service, op) or self.others(fault, touched, scope, node, service, op)
            for touched, scope in _touched(fault)
        )

    def own(self, touched: str, scope: str, node: str, service: str, op: Op) -> bool:
        """A line of the node that the fault touches: of the service that it concerns, or of any.

        The services' own lines are on the console, too; what breaks a kernel is no matter of a service.
        """
        if node != touched:
            return False
        return not scope or service == scope or (service == CONSOLE and not KERNEL.search(str(op.value)))

    def others(self, fault: Injection, touched: str, scope: str, node: str, service: str, op: Op) -> bool:  # noqa: PLR0913, PLR0917 - both ends
        """A line of another node, about the one that the fault touches."""
        cluster, text = self.cluster, str(op.value)
        if node == touched:
            return False
        if touched in cluster.directors and node in cluster.directors and scope in {"", "heartbeat"}:
            return service == "heartbeat" and not (BOTH.search(text) and _is_down(fault, touched, op.time))
        if touched in cluster.web and node in cluster.directors:
            return service == "ldirectord" and scope in {"", "apache"}
        if node not in cluster.web:
            return False
        if touched == "db":
            return service == "apache" or (service == CONSOLE and not KERNEL.search(text))
        # the first real server has the files of all others
        return touched in cluster.web[:1] and (
            (service == "apache" and scope in FILES)
            or (service == CONSOLE and scope in FILES and bool(HUNG.search(text)))
        )


def expected_logs(cluster: Cluster, followed: Collection[str]) -> list[str]:
    """The logs that a run follows: heartbeat's on each director, and the console of each node if it follows any."""
    expected = [f"log:{node}:heartbeat" for node in cluster.directors if "heartbeat" in (cluster.error_lines or {})]
    if any(process.endswith(f":{CONSOLE}") for process in followed):
        expected += [f"log:{node}:{CONSOLE}" for node in (*cluster.directors, *cluster.web)]
    return expected


def _source(op: Op) -> tuple[str, str, str]:
    """The process of a log: ``log:node:service``."""
    kind, _, rest = op.process.partition(":")
    node, _, service = rest.rpartition(":")
    return kind, node, service


def _touched(fault: Injection) -> set[tuple[str, str]]:
    """The nodes that a fault touches, each with the service that its effects concern (empty: the whole node)."""
    found = {(effect.node, effect.service) for effect in fault.effects or ()}
    return found | {(node, "") for node in fault.targets - {node for node, _ in found}}


def _is_down(fault: Injection, node: str, time: int) -> bool:
    """True while a fault certainly has a node off or frozen."""
    down = node in fault.nodes(EffectKind.NODE_DOWN)
    return down and fault.sure is not None and fault.sure[0] <= time <= fault.sure[1]
