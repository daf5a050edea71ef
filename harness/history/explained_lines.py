"""Which error lines in a log does a fault explain? By the nodes that it touches and their roles. Pure.

What services write is known here and nowhere else among what reads a history.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

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


class Written(NamedTuple):
    """A line of a log, and when it was recorded (ns)."""

    node: str
    service: str
    text: str
    time: int


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
        line = _written(op)
        return any(
            _own(touched, scope, line) or self.others(fault, touched, scope, line) for touched, scope in _touched(fault)
        )

    def others(self, fault: Injection, touched: str, scope: str, line: Written) -> bool:
        """A line of another node, about the one that the fault touches."""
        cluster, node, service, text = self.cluster, line.node, line.service, line.text
        if node == touched:
            return False
        if touched in cluster.directors and node in cluster.directors and scope in {"", "heartbeat"}:
            return service == "heartbeat" and not (BOTH.search(text) and _is_down(fault, touched, line.time))
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


def _written(op: Op) -> Written:
    """A log's op; its process is ``log:node:service``."""
    node, _, service = op.process.partition(":")[2].rpartition(":")
    return Written(node, service, str(op.value), op.time)


def _own(touched: str, scope: str, line: Written) -> bool:
    """A line of the node that a fault touches: of the service that it concerns, or of any.

    The services' own lines are on the console, too; what breaks a kernel is no matter of a service.
    """
    if line.node != touched:
        return False
    return not scope or line.service == scope or (line.service == CONSOLE and not KERNEL.search(line.text))


def _touched(fault: Injection) -> set[tuple[str, str]]:
    """The nodes that a fault touches, each with the service that its effects concern (empty: the whole node)."""
    found = {(effect.node, effect.service) for effect in fault.effects or ()}
    return found | {(node, "") for node in fault.targets - {node for node, _ in found}}


def _is_down(fault: Injection, node: str, time: int) -> bool:
    """True while a fault certainly has a node off or frozen."""
    down = node in fault.nodes(EffectKind.NODE_DOWN)
    return down and fault.sure is not None and fault.sure[0] <= time <= fault.sure[1]
