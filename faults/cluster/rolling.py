"""Planned work on the cluster, one node after another, as an operator does it. It is over when the fault is in.

Each step arms the undo of what it is about to do, so that work that breaks off leaves a node in service, not out of it.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

from pydantic import Field

from faults.cluster.partition import TAKEOVER_S, held_by, other, pair, serves_all_alone
from faults.fault import EVERY_S, SimpleFault, must, running, sh
from faults.node import BOOT, answers
from harness.protocols import Lab, Node
from harness.records import LabError, Proof, Undo
from harness.wait import NotYet, Timeout, until

LDIRECTORD_CF = "/etc/ha.d/ldirectord.cf"
CHECKED_WITHIN_S = 60.0
"""ldirectord looks at its real servers in turn, every ``checkinterval``."""

Seen = dict[str, Any]


class _Rolling(SimpleFault):
    """Work on several nodes in turn."""

    @abstractmethod
    def steps(self, lab: Lab) -> Iterator[Seen]:
        """Do it, node by node; what was seen of each. Raises LabError."""

    @contextmanager
    def inject(self, lab: Lab) -> Iterator[Proof]:
        """Do all of it on entry. There is nothing to undo then."""
        if reason := self.available(lab):
            raise LabError(reason)
        began_ns = lab.now_ns()
        steps = list(self.steps(lab))
        yield Proof(began_ns, "; ".join(str(step["seen"]) for step in steps), {"steps": steps})

    def changes(self, lab: Lab) -> Sequence[Any]:
        """None that would stay."""
        return ()


class RollingRestart(_Rolling):
    """Reboot each director in turn, cleanly; the next one when the virtual IP addresses are back where they were."""

    name: ClassVar[str] = "cluster.rolling-restart"

    def steps(self, lab: Lab) -> Iterator[Seen]:
        """Shut down, wait for the peer, boot, wait for the addresses."""
        before = dict(lab.owners())
        for node in pair(lab):
            yield self._reboot(lab, node, before)

    def _reboot(self, lab: Lab, node: Node, before: Mapping[str, tuple[str, ...]]) -> Seen:
        peer, began_ns = other(lab, node.name), lab.now_ns()
        lease = node.lease(self.name, "power", (BOOT,))
        try:
            node.shutdown()
            alone = until(lambda: serves_all_alone(lab, peer), TAKEOVER_S, f"{peer.name} to serve all", EVERY_S)
        finally:
            lease.release()
        until(lambda: answered(node), TAKEOVER_S, f"{node.name} to run", EVERY_S)
        until(lambda: held_by(lab, before), TAKEOVER_S, "the addresses to be where they were", 0.2)
        took_s = round((lab.now_ns() - began_ns) / 1e9, 1)
        seen = f"{node.name} was shut down, {alone}; then it booted and all was as before, within {took_s} s"
        return {"node": node.name, "took_s": took_s, "seen": seen}


def answered(node: Node) -> bool:
    """See that a machine takes commands. Raises NotYet."""
    answers(node)
    return True


def maintenance_folder(ldirectord_cf: str) -> str:
    """ldirectord's ``maintenancedir`` (ldirectord(8)); empty when it has none. Pure."""
    found = re.search(r"(?m)^\s*maintenancedir\s*=\s*(\S+)", ldirectord_cf)
    return found[1] if found else ""


def parse_table(printed: str) -> dict[str, list[tuple[int, int]]]:
    """``ipvsadm -Ln``: each real server's address -> its weight and active connections, once for each service. Pure."""
    found: dict[str, list[tuple[int, int]]] = {}
    for address, weight, active in re.findall(r"-> (\S+):\d+\s+\w+\s+(\d+)\s+(\d+)\s+\d+", printed):
        found.setdefault(address, []).append((int(weight), int(active)))
    return found


class RollingMaintenance(_Rolling):
    """Take each real server out in turn: quiesced on both directors, drained, its Apache stopped and started, and back.

    ldirectord sets the weights of its table anew at every check, so it is told by a file in its ``maintenancedir``.
    """

    name: ClassVar[str] = "cluster.rolling-maintenance"
    nodes: tuple[str, ...] = Field((), description="Real servers, in this order; none: all")
    drain_s: float = Field(60, ge=0, le=600, description="How long connections get to end by themselves")

    def available(self, lab: Lab) -> str | None:
        """None, or the reason why this lab cannot do it."""
        web = [node.name for node in lab.nodes("web")]
        if unknown := [name for name in self.nodes if name not in web]:
            return f"there is no real server {unknown[0]}; there are {', '.join(web)}"
        without = [node.name for node in lab.nodes("director") if not folder_of(node)]
        return f"ldirectord.cf of {without[0]} names no maintenancedir" if without else None

    def steps(self, lab: Lab) -> Iterator[Seen]:
        """Node by node."""
        web = {node.name: node for node in lab.nodes("web")}
        for name in self.nodes or tuple(web):
            yield self._maintain(lab, running(web[name]))

    def _maintain(self, lab: Lab, node: Node) -> Seen:
        directors, addresses = pair(lab), addresses_of(lab, node)
        began_ns = lab.now_ns()
        with ExitStack() as back:
            for director in directors:
                take_out(back, self.name, director, node, addresses)
            until(lambda: weights(directors, addresses, 0), CHECKED_WITHIN_S, f"{node.name} to be quiesced", 0.2)
            left = self._drain(directors, addresses)
            with ExitStack() as started:
                stop_apache(started, self.name, node)
                until(lambda: serves(node, False), CHECKED_WITHIN_S, f"Apache of {node.name} to be stopped", EVERY_S)
            until(lambda: serves(node, True), CHECKED_WITHIN_S, f"Apache of {node.name} to serve", EVERY_S)
        until(lambda: weights(directors, addresses, 1), CHECKED_WITHIN_S, f"{node.name} to get requests", 0.2)
        took_s = round((lab.now_ns() - began_ns) / 1e9, 1)
        drained = "no connection was left" if not left else f"{left} connections were left after {self.drain_s:g} s"
        seen = f"{node.name} had weight 0 on both directors, {drained}, Apache was stopped; it is back after {took_s} s"
        return {"node": node.name, "took_s": took_s, "left": left, "seen": seen}

    def _drain(self, directors: Sequence[Node], addresses: Sequence[str]) -> int:
        """Wait for the last connection; how many are left when the time is up, whose clients are then cut off."""
        try:
            until(lambda: drained(directors, addresses), self.drain_s, "the last connection to end", 0.5)
        except Timeout:
            return sum(active for _, active in rows(directors, addresses))
        return 0


def folder_of(director: Node) -> str:
    """Where ldirectord of this director looks for maintenance files."""
    return maintenance_folder(director.exec("cat", LDIRECTORD_CF).stdout)


def addresses_of(lab: Lab, node: Node) -> list[str]:
    """The addresses by which the directors may know a real server."""
    return [address for cable in lab.cables if cable.node == node.name for address in cable.addresses]


def rows(directors: Sequence[Node], addresses: Sequence[str]) -> list[tuple[int, int]]:
    """Weight and active connections of a real server, wherever it is in the directors' tables."""
    tables: list[Mapping[str, list[tuple[int, int]]]] = [
        parse_table(must(node, "ipvsadm", "-Ln").stdout) for node in directors
    ]
    return [row for table in tables for address in addresses for row in table.get(address, [])]


def weights(directors: Sequence[Node], addresses: Sequence[str], wanted: int) -> bool:
    """See that a real server has no weight anywhere, or some everywhere. Raises NotYet."""
    found = [weight for weight, _ in rows(directors, addresses)]
    if not found and wanted:
        raise NotYet("it is in no table")
    if any(bool(weight) != bool(wanted) for weight in found):
        raise NotYet(f"its weights are {found}")
    return True


def drained(directors: Sequence[Node], addresses: Sequence[str]) -> bool:
    """See that no connection is active. Raises NotYet."""
    if active := sum(active for _, active in rows(directors, addresses)):
        raise NotYet(f"{active} connections are active")
    return True


def armed(stack: ExitStack, node: Node, fault: str, claim: str, undo: Sequence[Undo]) -> None:
    """The undo of what is about to be done to a node: carried out at the end of the stack."""
    stack.callback(node.lease(fault, claim, undo).release)


def take_out(stack: ExitStack, fault: str, director: Node, node: Node, addresses: Sequence[str]) -> None:
    """Name a real server's addresses in ldirectord's maintenance folder, until the end of the stack."""
    folder = folder_of(director)
    files = [f"{folder}/{address}" for address in addresses]
    undo = [Undo(("rm", "-f", *files))]
    if not director.exec("test", "-d", folder).ok:
        undo.append(Undo(sh('[ ! -d "$1" ] || rmdir --ignore-fail-on-non-empty "$1"', folder)))
    armed(stack, director, fault, f"maintenance of {node.name}", undo)
    must(director, "mkdir", "-p", folder)
    must(director, "touch", *files)


def stop_apache(stack: ExitStack, fault: str, node: Node) -> None:
    """Stop it in order, until the end of the stack."""
    armed(stack, node, fault, "service apache", (Undo(("sv", "up", "/run/service/apache")),))
    must(node, "sv", "-w", "20", "down", "/run/service/apache", timeout_s=30)


def serves(node: Node, wanted: bool) -> bool:
    """See that a real server's own port answers, or that it does not. Raises NotYet."""
    there = node.exec("/usr/lib/monkeywrench/ask-http", "80", "/alive", "localhost").ok
    if there != wanted:
        raise NotYet("it answers" if there else "it does not answer")
    return True
