"""Leases in virtual time: the chassis notes the undo of a fault, and the harness carries it out, as only it lets time
pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.records import LabError, LeaseStatus, Power, Undo
from harness.tasks import Timeline
from harness.wait import NotYet, until
from topology.lab.channel import NodeRefusedError
from topology.lab.lease import LEASE_S
from topology.lab.node import POWER_S, DockerNode
from topology.lab.virtual.guest import Message
from topology.lab.virtual.simulator import Simulator

__all__ = ["NotedLeases", "VirtualLease"]

UNDO_S = 120.0
NOW = "{now}"
STEPS = ("undo", "again")


class NotedLeases(DockerNode):
    """A node whose chassis notes leases."""

    def __init__(  # noqa: PLR0913, PLR0917 - a node, and where its time comes from
        self, client: Any, container: Any, role: str, kernel: str, simulator: Simulator, timeline: Timeline
    ) -> None:
        super().__init__(client, container, role, kernel)
        self._simulator, self._timeline = simulator, timeline

    @property
    def chassis(self) -> Any:
        """The channel to its chassis."""
        return self.channel

    def lease(self, fault: str, claim: str, undo: Sequence[Undo], again: Sequence[Undo] = ()) -> Any:
        """Note the undo of a fault."""
        name = f"{fault}:{claim}:{self._timeline.now_ns}"
        steps = {"undo": [_step(each) for each in undo], "again": [_step(each) for each in again]}
        try:
            self.chassis.ask(
                "lease", POWER_S, name=name, fault=fault, claim=claim, ttl_ms=round(LEASE_S * 1000), **steps
            )
        except NodeRefusedError as refusal:
            raise LabError(
                f"{self.name}: {fault} cannot be injected: {refusal}",
                "Undo the other fault first: `monkeywrench heal` undoes all faults.",
            ) from None
        return VirtualLease(self, name)

    def leases(self) -> list[LeaseStatus]:
        """All leases of this node."""
        return [LeaseStatus(node=self.name, **{k: v for k, v in each.items() if k not in STEPS}) for each in self._held]

    def release(self, lease: str) -> None:
        """Carry out the undo of a lease, whoever noted it."""
        held = {each["name"]: each for each in self._held}
        if lease not in held:
            raise LabError(f"{self.name}: already undone: the lease is unknown")
        self._carry_out(held[lease]["undo"])
        self.chassis.ask("release", POWER_S, name=lease)

    @property
    def _held(self) -> list[Message]:
        return list(self.chassis.ask("leases", POWER_S)["leases"])

    def _again(self) -> None:
        """After a boot: what a reboot wiped is done again."""
        for held in self._held:
            self._carry_out(held["again"])

    def _carry_out(self, steps: Sequence[Message]) -> None:
        for step in steps:
            argv = [word.replace(NOW, f"{self._simulator.time_of_day_ns() / 1e9:.6f}") for word in step["argv"]]
            self._step(step["where"], argv)

    def _step(self, where: str, argv: list[str]) -> None:
        if where == "power":
            self._power_step(argv[0])
        elif where == "chassis":
            self._must(self.chassis_exec(*argv, timeout_s=UNDO_S), argv)
        else:
            until(self._runs, UNDO_S, f"{self.name} to run", 0.1, self.clock)
            self._must(self.exec(*argv, timeout_s=UNDO_S), argv)

    def _power_step(self, verb: str) -> None:
        if verb == "thaw":
            self.thaw()
        elif verb == "unthrottle":
            self.throttle(1)
        elif verb == "boot":
            self.boot()
        elif verb == "reboot":
            if self.power() is Power.RUNNING:
                self.shutdown()
            self.boot()

    def _runs(self) -> bool:
        if (power := self.power()) is not Power.RUNNING:
            raise NotYet(f"it is {power}")
        return True

    def _must(self, done: Any, argv: Sequence[str]) -> None:
        if not done.ok:
            why = (done.stdout + done.stderr).strip()[-300:]
            raise LabError(f"{self.name}: `{' '.join(argv)[:200]}` failed: {why}")


class VirtualLease:
    """The undo of one fault. Implements ``harness.protocols.Lease``."""

    def __init__(self, node: NotedLeases, name: str) -> None:
        self._node, self._name = node, name

    def release(self) -> None:
        """Undo it."""
        self._node.release(self._name)


def _step(undo: Undo) -> Message:
    return {"where": undo.where, "argv": list(undo.argv)}
