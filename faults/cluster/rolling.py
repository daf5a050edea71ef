"""Planned maintenance, one node after another, as an operator does it. It ends before ``inject`` returns.

Each step arms its undo first, so that maintenance that is interrupted leaves the node in service.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

from pydantic import Field

from faults.cluster.directors import TAKEOVER_S, held_by, serves_all_alone
from faults.fault import EVERY_S, SimpleFault, must, running, sh
from faults.node import BOOT, answers
from faults.programs import LIBRARY, SERVICES
from faults.targets import other_director, pair
from harness.formats import ipvsadm, ldirectord_cf
from harness.protocols import Lab, Node
from harness.records import EffectKind, LabError, Proof, Undo
from harness.wait import NotYet, Timeout, until

LDIRECTORD_CF = "/etc/ha.d/ldirectord.cf"
CHECKED_WITHIN_S = 60.0
"""ldirectord checks its real servers in turn, every ``checkinterval``."""

Seen = dict[str, Any]


class _Rolling(SimpleFault):
    """Maintenance of several nodes in turn."""

    @abstractmethod
    def steps(self, lab: Lab) -> Iterator[Seen]:
        """Do it node by node; yields what was seen of each. Raises LabError."""

    @contextmanager
    def inject(self, lab: Lab) -> Iterator[Proof]:
        """Do all of it on entry. Then there is nothing to undo."""
        self.target(lab)
        began_ns = lab.now_ns()
        steps = list(self.steps(lab))
        yield Proof(began_ns, "; ".join(str(step["seen"]) for step in steps), {"steps": steps})

    def changes(self, lab: Lab) -> Sequence[Any]:
        """No change remains."""
        return ()


class RollingRestart(_Rolling):
    """Reboot each director cleanly in turn, waiting each time until the VIPs are back where they were."""

    name: ClassVar[str] = "cluster.rolling-restart"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.RESTARTS,)

    def affected(self, lab: Lab) -> tuple[str, ...]:
        """Both directors."""
        return tuple(lab.cluster.directors)

    def steps(self, lab: Lab) -> Iterator[Seen]:
        """Shut down, wait for the peer, boot, wait for the VIPs."""
        before = dict(lab.owners())
        for node in pair(lab):
            yield self._reboot(lab, node, before)

    def _reboot(self, lab: Lab, node: Node, before: Mapping[str, tuple[str, ...]]) -> Seen:
        peer, began_ns = other_director(lab, node.name), lab.now_ns()
        lease = node.lease(self.name, "power", (BOOT,))
        try:
            node.shutdown()
            alone = until(
                lambda: serves_all_alone(lab, peer), TAKEOVER_S, f"{peer.name} to hold every VIP", EVERY_S, lab.clock
            )
        finally:
            lease.release()
        until(lambda: answered(node), TAKEOVER_S, f"{node.name} to run", EVERY_S, lab.clock)
        until(lambda: held_by(lab, before), TAKEOVER_S, "the VIPs to be where they were", 0.2, lab.clock)
        took_s = round((lab.now_ns() - began_ns) / 1e9, 1)
        seen = f"{node.name} shut down, {alone}; it booted, and the VIPs were back after {took_s} s"
        return {"node": node.name, "took_s": took_s, "seen": seen}


def answered(node: Node) -> bool:
    """See that a node executes commands. Raises NotYet."""
    answers(node)
    return True


class RollingMaintenance(_Rolling):
    """Take each real server out of service in turn: quiesce it, drain it, restart Apache, put it back.

    A file in ldirectord's ``maintenancedir`` quiesces it: ldirectord resets the weights in its table at every check.
    """

    name: ClassVar[str] = "cluster.rolling-maintenance"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.RESTARTS,)
    of_service: ClassVar[str] = "apache"
    nodes: tuple[str, ...] = Field((), description="Real servers, in this order (default: all)")
    drain_s: float = Field(60, ge=0, le=600, description="Time for connections to end on their own, in s")

    def affected(self, lab: Lab) -> tuple[str, ...]:
        """The real servers that it works on."""
        return self.nodes or tuple(node.name for node in lab.nodes("web"))

    def target(self, lab: Lab) -> list[Node]:
        """The real servers, if each ldirectord has a folder for maintenance files."""
        web = {node.name: node for node in lab.nodes("web")}
        if unknown := [name for name in self.nodes if name not in web]:
            raise LabError(f"unknown real server {unknown[0]!r}", f"Real servers: {', '.join(web)}.")
        for director in lab.nodes("director"):
            if not folder_of(director):
                raise LabError(f"ldirectord.cf of {director.name} sets no maintenancedir")
        return [web[name] for name in self.nodes or web]

    def steps(self, lab: Lab) -> Iterator[Seen]:
        """One real server after the other."""
        for node in self.target(lab):
            yield self._maintain(lab, running(node))

    def _maintain(self, lab: Lab, node: Node) -> Seen:
        directors, addresses = pair(lab), addresses_of(lab, node)
        began_ns = lab.now_ns()
        with ExitStack() as back:
            for director in directors:
                take_out(back, self.name, director, node, addresses)
            until(
                lambda: weights(directors, addresses, 0),
                CHECKED_WITHIN_S,
                f"{node.name} to be quiesced",
                0.2,
                lab.clock,
            )
            left = self._drain(lab, directors, addresses)
            with ExitStack() as started:
                stop_apache(started, self.name, node)
                until(
                    lambda: serves(node, False),
                    CHECKED_WITHIN_S,
                    f"Apache of {node.name} to be stopped",
                    EVERY_S,
                    lab.clock,
                )
            until(lambda: serves(node, True), CHECKED_WITHIN_S, f"Apache of {node.name} to serve", EVERY_S, lab.clock)
        until(
            lambda: weights(directors, addresses, 1), CHECKED_WITHIN_S, f"{node.name} to get requests", 0.2, lab.clock
        )
        took_s = round((lab.now_ns() - began_ns) / 1e9, 1)
        drained = "no connection remained" if not left else f"{left} connections remained after {self.drain_s:g} s"
        seen = f"{node.name} had weight 0 on both directors, {drained}, Apache restarted; back after {took_s} s"
        return {"node": node.name, "took_s": took_s, "left": left, "seen": seen}

    def _drain(self, lab: Lab, directors: Sequence[Node], addresses: Sequence[str]) -> int:
        """Wait for the last connection to end. Returns how many remain after the time; they are cut."""
        try:
            until(lambda: drained(directors, addresses), self.drain_s, "the last connection to end", 0.5, lab.clock)
        except Timeout:
            return sum(active for _, active in rows(directors, addresses))
        return 0


def folder_of(director: Node) -> str:
    """The folder of a director's ldirectord for maintenance files."""
    return ldirectord_cf.parse(director.exec("cat", LDIRECTORD_CF).stdout).maintenance_folder


def addresses_of(lab: Lab, node: Node) -> list[str]:
    """The addresses of a real server in the directors' tables."""
    return [address for cable in lab.cables if cable.node == node.name for address in cable.addresses]


def rows(directors: Sequence[Node], addresses: Sequence[str]) -> list[tuple[int, int]]:
    """Weight and active connections of a real server, for each of its rows in the directors' tables."""
    services = [service for node in directors for service in ipvsadm.parse(must(node, "ipvsadm", "-Ln").stdout)]
    servers = [server for service in services for server in service.destinations]
    return [(server.weight, server.active) for server in servers if server.address in addresses]


def weights(directors: Sequence[Node], addresses: Sequence[str], wanted: int) -> bool:
    """See that a real server has weight 0 in every table, or a higher one in every table. Raises NotYet."""
    found = [weight for weight, _ in rows(directors, addresses)]
    if not found and wanted:
        raise NotYet("it is in no table")
    if any(bool(weight) != bool(wanted) for weight in found):
        raise NotYet(f"weights: {found}")
    return True


def drained(directors: Sequence[Node], addresses: Sequence[str]) -> bool:
    """See that no connection is active. Raises NotYet."""
    if active := sum(active for _, active in rows(directors, addresses)):
        raise NotYet(f"active connections: {active}")
    return True


def armed(stack: ExitStack, node: Node, fault: str, claim: str, undo: Sequence[Undo]) -> None:
    """Arm the undo of the next step on a node; the end of the stack carries it out."""
    stack.callback(node.lease(fault, claim, undo).release)


def take_out(stack: ExitStack, fault: str, director: Node, node: Node, addresses: Sequence[str]) -> None:
    """Add a real server's addresses to ldirectord's maintenance folder until the end of the stack."""
    folder = folder_of(director)
    files = [f"{folder}/{address}" for address in addresses]
    undo = [Undo(("rm", "-f", *files))]
    if not director.exec("test", "-d", folder).ok:
        undo.append(Undo(sh('[ ! -d "$1" ] || rmdir --ignore-fail-on-non-empty "$1"', folder)))
    armed(stack, director, fault, f"maintenance of {node.name}", undo)
    must(director, "mkdir", "-p", folder)
    must(director, "touch", *files)


def stop_apache(stack: ExitStack, fault: str, node: Node) -> None:
    """Stop Apache cleanly until the end of the stack."""
    armed(stack, node, fault, "service apache", (Undo(("sv", "up", f"{SERVICES}/apache")),))
    must(node, "sv", "-w", "20", "down", f"{SERVICES}/apache", timeout_s=30)


def serves(node: Node, wanted: bool) -> bool:
    """See that a real server answers on its own port, or does not. Raises NotYet."""
    there = node.exec(f"{LIBRARY}/ask-http", "80", "/alive", "localhost").ok
    if there != wanted:
        raise NotYet("Apache answers" if there else "Apache does not answer")
    return True
