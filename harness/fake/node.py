"""A machine in memory: a power switch, files, and the undo of faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.fake.time import FakeStream
from harness.protocols import Stream
from harness.records import LabError, Output, Power, Undo
from harness.wait import Clock

if TYPE_CHECKING:
    from harness.fake.lab import FakeLab

__all__ = ["FakeLease", "FakeNode"]

BOOT_MS = 2000
FAILBACK_MS = 4000
"""The heartbeat of a node that returned asks for its resources about 4 s after its start."""


@dataclass
class FakeNode:
    """A machine with nothing but a power switch. Every command succeeds, and prints what ``prints`` has for it."""

    lab: FakeLab
    name: str
    role: str
    kernel: str = "uml"
    state: Power = Power.RUNNING
    files: dict[str, bytes] = field(default_factory=dict)
    streams: list[FakeStream] = field(default_factory=list)
    share: float = 1.0
    prints: dict[str, str] = field(default_factory=dict)
    """Each program -> its output."""
    supervised: tuple[str, ...] = ()
    """The services of its init."""

    @property
    def clock(self) -> Clock:
        """The lab's."""
        return self.lab.clock

    def services(self) -> tuple[str, ...]:
        """The services of its init."""
        return self.supervised

    def exec(self, *argv: str, timeout_s: float = 10.0) -> Output:
        """Succeed, if the machine runs. Raises LabError otherwise."""
        self._must_run()
        return Output(0, self.prints.get(argv[0], ""), "")

    def stream(self, *argv: str) -> Stream:
        """A program that prints nothing and ends with its machine."""
        self._must_run()
        self.streams.append(FakeStream(self.lab.time))
        return self.streams[-1]

    def watch(self) -> Stream:
        """Power and addresses, in the real machine's format."""
        return self.lab.watch(self)

    def put(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Keep the file in ``files``."""
        self._must_run()
        self.files[path] = content

    def power(self) -> Power:
        """The state that its chassis reports, which is wrong with ``Defect.FAULT_WITHOUT_EFFECT``."""
        return self.lab.pretended.get(self.name, self.state)

    def boot(self) -> None:
        """Power on; its own addresses fail back some seconds later."""
        self.lab.pretended.pop(self.name, None)
        if self.state is Power.RUNNING:
            return
        self.lab.set_power(self, Power.BOOTING)
        self.lab.clock.sleep(BOOT_MS / 1000)
        self.lab.set_power(self, Power.RUNNING)
        self.lab.time.after(FAILBACK_MS, lambda: self.lab.fail_back(self))

    def power_off(self) -> int:
        """Cut the power."""
        self.lab.crash(self, Power.OFF)
        return self.lab.now_ns()

    def shutdown(self) -> None:
        """Hand all addresses over to the peer, then power off."""
        self.lab.hand_over(self)
        self.lab.set_power(self, Power.OFF)

    def freeze(self) -> None:
        """Stop executing."""
        self.lab.crash(self, Power.FROZEN)

    def thaw(self) -> None:
        """Continue; release the addresses that the peer has taken, and take them back later."""
        self.lab.pretended.pop(self.name, None)
        if self.state is Power.FROZEN:
            self.lab.set_power(self, Power.RUNNING)
            self.lab.release_duplicates(self)
            self.lab.time.after(FAILBACK_MS, lambda: self.lab.fail_back(self))

    def panic(self) -> None:
        """Stay down until ``boot``."""
        self.lab.crash(self, Power.PANICKED)

    def throttle(self, share: float) -> None:
        """Remember the share."""
        self.share = share

    def power_step(self, verb: str) -> None:
        """Carry out a step of an undo. Raises LabError for an unknown verb."""
        match verb:
            case "boot":
                self.boot()
            case "reboot":
                if self.state is Power.RUNNING:
                    self.shutdown()
                self.boot()
            case "thaw":
                self.thaw()
            case "unthrottle":
                self.share = 1.0
            case _:
                raise LabError(f"{self.name}: unknown power step {verb!r}")

    def lease(self, fault: str, claim: str, undo: Sequence[Undo], again: Sequence[Undo] = ()) -> FakeLease:
        """Keep the undo until it is released. Raises LabError if the claim is taken."""
        for held in self.lab.held:
            if held.node is self and held.claim == claim:
                raise LabError(f"{self.name}: {fault} cannot be injected: {claim} is taken by {held.fault}")
        lease = FakeLease(self, fault, claim, tuple(undo), self.lab.now_ns())
        self.lab.held.append(lease)
        return lease

    def _must_run(self) -> None:
        if self.state is not Power.RUNNING:
            raise LabError(f"{self.name} is {self.state} and takes no command", f"boot {self.name}")


@dataclass
class FakeLease:
    """An undo that is carried out when it is released. It never runs out: a fake lab ends with its harness."""

    node: FakeNode
    fault: str
    claim: str
    undo: tuple[Undo, ...]
    since_ns: int

    def release(self) -> None:
        """Carry the undo out, once. Raises LabError if that was done before, or if a command of it fails."""
        if self not in self.node.lab.held:
            raise LabError(f"{self.node.name}: {self.fault} was undone already")
        self.node.lab.held.remove(self)
        for step in self.undo:
            if step.where == "power":
                self.node.power_step(step.argv[0])
            elif not self.node.exec(*step.argv).ok:
                raise LabError(f"{self.node.name}: {self.fault} could not be undone: {' '.join(step.argv)}")
