"""Which error lines in a log does a fault explain? Those of the nodes that it touches, and its consequences. Pure.

Which lines of other nodes are consequences of a fault is known to the parts of the topology; the history records it.
Only what a kernel writes is known here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from harness.history import Op
from harness.history.injections import Injection
from harness.records import Cluster, Consequence, EffectKind

CONSOLE = "console"

KERNEL = re.compile(r"Kernel panic|\bBUG: |\bOops\b|EXT4-fs error|Call Trace:|blocked for more than|Out of memory: ")
"""Lines of a kernel, not of a service that writes to the console."""


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
        """The faults of that time whose effects, or the consequences of them, are not known."""
        unrecorded = self.cluster.consequences is None
        return [each for each in self.active(op) if unrecorded or not each.known or each.unrecorded]

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
        """A line of another node, as a consequence of what the fault does to the one that it touches."""
        return line.node != touched and any(
            touched in each.of
            and line.node in each.on
            and (not scope or not each.services or scope in each.services)
            and _is_of(each, line)
            and not (
                each.not_of_down and re.search(each.not_of_down, line.text) and _is_down(fault, touched, line.time)
            )
            for each in self.cluster.consequences or ()
        )


def expected_logs(cluster: Cluster, followed: Collection[str]) -> list[str]:
    """The logs that a run follows: those that it always does, and the console of each node if it follows any."""
    expected = [f"log:{node}:{service}" for service, nodes in cluster.followed_logs.items() for node in nodes]
    if any(process.endswith(f":{CONSOLE}") for process in followed):
        expected += [f"log:{node}:{CONSOLE}" for node in (*cluster.directors, *cluster.web)]
    return expected


def _is_of(consequence: Consequence, line: Written) -> bool:
    """Whether a line is one of the service's that may be a consequence."""
    on_console = consequence.on_console and line.service == CONSOLE and not KERNEL.search(line.text)
    return (line.service == consequence.service or on_console) and bool(re.search(consequence.lines, line.text))


def _needs_life(consequence: Consequence, line: Written) -> bool:
    """Whether only a node that is not down causes such a line."""
    return bool(consequence.not_of_down) and bool(re.search(consequence.not_of_down, line.text))


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
