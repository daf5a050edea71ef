"""Faults of one service's processes on a running node: killed, stopped, hung, taken down, or in a restart loop.

runit supervises the services of a node. A service's processes are its daemon and all descendants. The program
``service`` on the node finds them at the moment of the fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from pydantic import Field

from faults.fault import Change, NodeFault, must, require_own_kernel, running
from faults.programs import PROGRAMS, SETTINGS
from harness.protocols import Lab, Node
from harness.records import Effect, EffectKind, LabError, Undo
from harness.wait import NotYet

PROGRAM = f"{PROGRAMS}/service"

CONTROL_CHANNEL = "agent"

CHECKED = "apache"
"""The service of a real server that the directors check."""

IN_THE_KERNEL = {
    "nfsd": ("its threads belong to the kernel, and no signal reaches them", "! grep -qx 0 /proc/fs/nfsd/threads"),
    "uploads-mount": (
        "it is a mount, which belongs to the kernel",
        f'read -r _ folder _ < {SETTINGS}/uploads.mount && mountpoint -q "$folder"',
    ),
}
"""Services without processes -> why no process can be hit, and the command that succeeds while the service works."""

DOWN_S = 100.0
"""Longer than the program ``service`` waits for a clean stop."""

PROOF_WITHIN_S = 30.0
"""Some daemons take seconds to start, and a restart loop starts several."""

TIMES_SEEN = 3
"""Daemons seen in a restart loop: the first, and 2 that replaced it; 1 replacement could be a coincidence."""


@dataclass(frozen=True)
class Processes:
    """A service's processes: the daemon's pid (0 when it is down), and each pid with its state (proc(5))."""

    daemon: int = 0
    states: tuple[tuple[int, str], ...] = ()

    @property
    def numbers(self) -> set[int]:
        """All pids."""
        return {pid for pid, _ in self.states}


def parse(printed: str) -> Processes:
    """What ``service processes`` printed, without zombies. Pure.

    >>> parse("7\\n7 S\\n9 Z\\n")
    Processes(daemon=7, states=((7, 'S'),))
    """
    daemon, *lines = printed.splitlines() or ["0"]
    pairs = [line.split() for line in lines]
    return Processes(int(daemon), tuple((int(pid), state) for pid, state in pairs if state != "Z"))


class _Process(NodeFault):
    """A fault of one service of a node."""

    service: str = Field(pattern=r"^[a-z][a-z-]*$", description="Name of the service, as in /run/service on the node")
    needs_processes: ClassVar[bool] = True

    @property
    def concerns(self) -> str:
        """Its service."""
        return self.service

    def effects(self, lab: Lab) -> tuple[Effect, ...]:
        """A real server whose Apache is down fails the health check, too."""
        found = super().effects(lab)
        down = any(effect.kind is EffectKind.SERVICE_DOWN for effect in found)
        if down and self.service == CHECKED and self.node in lab.cluster.web:
            return (*found, Effect(EffectKind.FAILS_CHECK, self.node, self.service))
        return found

    def require(self, node: Node) -> None:
        """Such a service, with processes to hit."""
        if self.service == CONTROL_CHANNEL:
            raise LabError(f"the {CONTROL_CHANNEL} of {node.name} is the control channel, which undoes faults")
        there = sorted(running(node).services())
        if self.service not in there:
            raise LabError(f"{node.name} has no service {self.service!r}", f"Services: {', '.join(there) or 'none'}.")
        if self.needs_processes and self.service in IN_THE_KERNEL:
            raise LabError(f"{self.service} has no process to hit: {IN_THE_KERNEL[self.service][0]}")

    def command(self, verb: str, *more: str) -> tuple[str, ...]:
        """The command that does something to the service on its node."""
        return (PROGRAM, verb, self.service, *more)

    def change(
        self, node: Node, apply: Callable[[], object], proof: Callable[[], str], healed: Callable[[], object]
    ) -> Change:
        """The change of each of these faults. 2 faults of one service exclude each other."""
        verb = self.name.partition(".")[2]
        undo = (Undo(self.command(f"undo-{verb}")),)
        return Change(node, f"service {self.service}", apply, undo, proof, healed, proof_within_s=PROOF_WITHIN_S)

    def now(self, node: Node) -> Processes:
        """The service's processes at this moment."""
        return parse(must(node, *self.command("processes")).stdout)

    def all_in(self, state: str, node: Node, what: str) -> str:
        """See that every process of the service is in this state. Raises NotYet."""
        now = self.now(node)
        if not now.daemon or any(each != state for _, each in now.states):
            raise NotYet(f"processes of {self.service}: {now.states}")
        return f"{self.service} of {node.name} {what}: {_list(now.numbers)}"

    def runs(self, node: Node, without: set[int] | None = None) -> None:
        """See that it runs, and that no process is stopped, or one of ``without``. Raises NotYet."""
        now = self.now(node)
        if not now.daemon or now.numbers & (without or set()):
            raise NotYet(f"{self.service} has not restarted")
        if still := [pid for pid, state in now.states if state == "T"]:
            raise NotYet(f"processes of {self.service} are stopped: {_list(still)}")


class Kill(_Process):
    """Kill all processes of a service (SIGKILL).

    Its supervisor restarts it at once, or when the fault is undone. A killed heartbeat hands nothing over: its node
    keeps its VIPs, and the peer takes them, too. If it restarts before the peer has done so, both can hold them until
    an operator restarts one cleanly.
    """

    name: ClassVar[str] = "process.kill"
    restart: bool = Field(True, description="Restart it at once; otherwise when the fault is undone")

    @property
    def kinds(self) -> tuple[EffectKind, ...]:
        """It restarts at once, or is down until the undo."""
        return (EffectKind.RESTARTS if self.restart else EffectKind.SERVICE_DOWN,)

    def changes(self, lab: Lab) -> Sequence[Change]:
        """The processes of that moment."""
        node, killed = running(lab.node(self.node)), set[int]()

        def kill() -> None:
            pids = must(node, *self.command("kill" if self.restart else "kill-for-good")).stdout
            killed.update(map(int, pids.split()))

        def gone() -> str:
            now = self.now(node)
            if left := now.numbers & killed:
                raise NotYet(f"processes of {self.service} still run: {_list(left)}")
            if now.daemon and not self.restart:
                raise NotYet(f"{self.service} has restarted")
            return f"{self.service} of {node.name} was killed: {_list(killed)}"

        return [self.change(node, kill, gone, lambda: self.runs(node, killed))]


class Stop(_Process):
    """Stop all processes of a service (SIGSTOP): the kernel accepts connections, but no answer follows.

    Undone by SIGCONT. Any other SIGCONT ends the fault, too: runsv(8) sends one with every signal.
    """

    name: ClassVar[str] = "process.stop"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.SERVICE_DOWN,)

    def changes(self, lab: Lab) -> Sequence[Change]:
        """The processes of that moment."""
        node = running(lab.node(self.node))
        change = self.change(
            node,
            lambda: must(node, *self.command("stop")),
            lambda: self.all_in("T", node, "is stopped"),
            lambda: self.runs(node),
        )
        return [replace(change, again=(Undo(self.command("stop-again")),))]


class Hang(_Process):
    """Hang all processes of a service: they do nothing, and no signal ends them, not even SIGKILL.

    They look like processes that wait for a dead disk or NFS server (state D). The freezer of the node's kernel holds
    them. Undone by thawing them.
    """

    name: ClassVar[str] = "process.hang"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.SERVICE_DOWN,)

    def require(self, node: Node) -> None:
        """A kernel of its own, for its freezer."""
        require_own_kernel(node, "has no freezer of its own")
        super().require(node)

    def changes(self, lab: Lab) -> Sequence[Change]:
        """The processes of that moment."""
        node = running(lab.node(self.node))

        def goes_on() -> None:
            if hung := [pid for pid, state in self.now(node).states if state == "D"]:
                raise NotYet(f"processes of {self.service} hang: {_list(hung)}")
            self.runs(node)

        change = self.change(
            node,
            lambda: must(node, *self.command("hang")),
            lambda: self.all_in("D", node, "hangs"),
            goes_on,
        )
        return [replace(change, again=(Undo(self.command("hang-again")),))]


class Down(_Process):
    """Stop a service cleanly, as an operator does. Undone by starting it."""

    name: ClassVar[str] = "process.down"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.SERVICE_DOWN,)
    needs_processes: ClassVar[bool] = False

    def changes(self, lab: Lab) -> Sequence[Change]:
        """The supervisor keeps the service down."""
        node = running(lab.node(self.node))
        before, down = self.now(node).numbers, self.command("down")

        def ended() -> str:
            if (left := before & self.now(node).numbers) or self._works(node):
                raise NotYet(f"{self.service} still works; processes: {_list(left)}")
            return f"{self.service} of {node.name} is down"

        def works() -> None:
            self.runs(node)
            if not self._works(node):
                raise NotYet(f"{self.service} does not work yet")

        change = self.change(node, lambda: must(node, *down, timeout_s=DOWN_S), ended, works)
        return [replace(change, again=(Undo(down),))]

    def _works(self, node: Node) -> bool:
        """True while the service does its work."""
        if self.service in IN_THE_KERNEL:
            return node.exec("sh", "-c", IN_THE_KERNEL[self.service][1]).ok
        return bool(self.now(node).daemon)


class RestartLoop(_Process):
    """Kill a service again and again, so that it is never up for long. Undone by ending the kills."""

    name: ClassVar[str] = "process.restart-loop"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.RESTARTS,)
    every_ms: int = Field(1500, ge=100, le=3000, description="Time from one kill to the next, in ms")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """A loop on the node that kills the service."""
        node = running(lab.node(self.node))
        begin = self.command("restart-loop", f"{self.every_ms / 1000:g}")
        daemons = [self.now(node).daemon]

        def again_and_again() -> str:
            if (daemon := self.now(node).daemon) and daemon not in daemons:
                daemons.append(daemon)
            if len(daemons) < TIMES_SEEN:
                raise NotYet(f"daemons of {self.service} so far: {_list(daemons)}")
            return f"{self.service} of {node.name} restarted repeatedly; its daemons: {_list(daemons)}"

        change = self.change(node, lambda: must(node, *begin), again_and_again, lambda: self.runs(node))
        return [replace(change, again=(Undo(begin),))]


def _list(numbers: Iterable[int]) -> str:
    return " ".join(map(str, sorted(numbers)))
