"""Faults of one service's processes on a machine that runs on: killed, stopped, hung, down, or never up for long.

A service is what runit supervises under ``/run/service`` of a node; its processes are the daemon and all that descends
from it. The node's own program ``service`` finds them, so that what is hit is what is there at that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from pydantic import Field

from faults.fault import Change, NodeFault, must, running
from faults.node import needs_own_kernel
from harness.protocols import Lab, Node
from harness.records import Undo
from harness.wait import NotYet

PROGRAM = "/usr/lib/monkeywrench/faults/service"

CONTROL_CHANNEL = "agent"

IN_THE_KERNEL = {
    "nfsd": ("its threads are the kernel's own, which no signal reaches", "! grep -qx 0 /proc/fs/nfsd/threads"),
    "uploads-mount": (
        "it is a mount, which the kernel keeps",
        'read -r _ folder _ < /etc/monkeywrench/uploads.mount && mountpoint -q "$folder"',
    ),
}
"""Services whose work no process does: why they can be taken down and no more, and how to see that they work."""

DOWN_S = 100.0
"""Longer than the program gives a service to end in order."""

PROOF_WITHIN_S = 30.0
"""Some daemons take seconds to start: for a restart loop that is several of them."""

TIMES_SEEN = 3
"""Daemons in a restart loop: the first, and two that were started again, of which one could be chance."""


@dataclass(frozen=True)
class Processes:
    """A service's processes at one moment: the daemon's number (0 when it is down), and the state of each (proc(5))."""

    daemon: int = 0
    states: tuple[tuple[int, str], ...] = ()

    @property
    def numbers(self) -> set[int]:
        """Of all of them."""
        return {pid for pid, _ in self.states}


def parse(said: str) -> Processes:
    """What ``service processes`` printed, without those that are dead already (zombies). Pure.

    >>> parse("7\\n7 S\\n9 Z\\n")
    Processes(daemon=7, states=((7, 'S'),))
    """
    daemon, *lines = said.splitlines() or ["0"]
    pairs = [line.split() for line in lines]
    return Processes(int(daemon), tuple((int(pid), state) for pid, state in pairs if state != "Z"))


class _Process(NodeFault):
    """A fault of one service of a node."""

    service: str = Field(pattern=r"^[a-z][a-z-]*$", description="One of the node's services, as in its /run/service")
    needs_processes: ClassVar[bool] = True

    def possible(self, node: Node) -> str | None:
        """Needs such a service, with processes to hit."""
        if self.service == CONTROL_CHANNEL:
            return f"the {CONTROL_CHANNEL} of {node.name} is the control channel, by which faults are undone"
        there = sorted(running(node).services())
        if self.service not in there:
            known = ", ".join(there) or "none"
            return f"{node.name} has no service {self.service!r}; it has: {known}"
        if self.needs_processes and self.service in IN_THE_KERNEL:
            return f"{self.service} has no process to hit: {IN_THE_KERNEL[self.service][0]}"
        return None

    def command(self, verb: str, *more: str) -> tuple[str, ...]:
        """What does something to the service, on its node."""
        return (PROGRAM, verb, self.service, *more)

    def change(
        self, node: Node, apply: Callable[[], object], proof: Callable[[], str], healed: Callable[[], object]
    ) -> Change:
        """The one change of each of these faults; two of one service exclude each other."""
        verb = self.name.partition(".")[2]
        undo = (Undo(self.command(f"undo-{verb}")),)
        return Change(node, f"service {self.service}", apply, undo, proof, healed, proof_within_s=PROOF_WITHIN_S)

    def now(self, node: Node) -> Processes:
        """The service's processes."""
        return parse(must(node, *self.command("processes")).stdout)

    def all_in(self, state: str, node: Node, what: str) -> str:
        """See that every process of the service is in one state."""
        now = self.now(node)
        if not now.daemon or any(each != state for _, each in now.states):
            raise NotYet(f"the processes of {self.service} are {now.states}")
        return f"{self.service} of {node.name} {what}: {_list(now.numbers)}"

    def runs(self, node: Node, without: set[int] | None = None) -> None:
        """See that it runs, and that none of its processes stands still, or is one of the old ones."""
        now = self.now(node)
        if not now.daemon or now.numbers & (without or set()):
            raise NotYet(f"{self.service} has not started again")
        if still := [pid for pid, state in now.states if state == "T"]:
            raise NotYet(f"processes of {self.service} are stopped: {_list(still)}")


class Kill(_Process):
    """Kill all of a service's processes (SIGKILL). Its supervisor starts it again, at once or when it is undone.

    A heartbeat that is killed hands nothing over: its node keeps its VIPs, and the peer takes them as well. One that is
    back before the peer has done that can leave both with them for good, until an operator restarts one in order.
    """

    name: ClassVar[str] = "process.kill"
    restart: bool = Field(True, description="Whether it is started again at once, or only when the fault is undone")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: the service's processes."""
        node, killed = running(lab.node(self.node)), set[int]()

        def kill() -> None:
            said = must(node, *self.command("kill" if self.restart else "kill-for-good")).stdout
            killed.update(map(int, said.split()))

        def gone() -> str:
            now = self.now(node)
            if left := now.numbers & killed:
                raise NotYet(f"processes of {self.service} are still there: {_list(left)}")
            if now.daemon and not self.restart:
                raise NotYet(f"{self.service} has been started again")
            return f"{self.service} of {node.name} was killed: {_list(killed)}"

        return [self.change(node, kill, gone, lambda: self.runs(node, killed))]


class Stop(_Process):
    """Stop all of a service's processes (SIGSTOP): the kernel accepts connections for it, and nobody answers.

    Undone by SIGCONT. Whoever sends that, ends it: so does runsv(8) with all that it sends.
    """

    name: ClassVar[str] = "process.stop"

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: the service's processes."""
        node = running(lab.node(self.node))
        change = self.change(
            node,
            lambda: must(node, *self.command("stop")),
            lambda: self.all_in("T", node, "is stopped"),
            lambda: self.runs(node),
        )
        return [replace(change, again=(Undo(self.command("stop-again")),))]


class Hang(_Process):
    """Let all of a service's processes hang: they are there and do nothing, whatever signal they get, SIGKILL included.

    As processes do that wait for a dead disk or NFS server: they are in the state D, and no try to end them has an
    effect before it is undone. The freezer of the node's kernel does that to processes that wait for nothing.
    """

    name: ClassVar[str] = "process.hang"

    def possible(self, node: Node) -> str | None:
        """Needs a kernel of its own, for its freezer."""
        return needs_own_kernel(node, "has no freezer of its own") or super().possible(node)

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: the service's processes."""
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
    """Take a service down in order, as an operator does. Undone by starting it."""

    name: ClassVar[str] = "process.down"
    needs_processes: ClassVar[bool] = False

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: what its supervisor is to do."""
        node = running(lab.node(self.node))
        before, down = self.now(node).numbers, self.command("down")

        def ended() -> str:
            if (left := before & self.now(node).numbers) or self._works(node):
                raise NotYet(f"{self.service} still works {_list(left)}")
            return f"{self.service} of {node.name} is down"

        def works() -> None:
            self.runs(node)
            if not self._works(node):
                raise NotYet(f"{self.service} does not work yet")

        change = self.change(node, lambda: must(node, *down, timeout_s=DOWN_S), ended, works)
        return [replace(change, again=(Undo(down),))]

    def _works(self, node: Node) -> bool:
        """True while what the service is for goes on."""
        if self.service in IN_THE_KERNEL:
            return node.exec("sh", "-c", IN_THE_KERNEL[self.service][1]).ok
        return bool(self.now(node).daemon)


class RestartLoop(_Process):
    """Kill a service again and again: it is started each time, and never up for long. Undone by leaving it alone."""

    name: ClassVar[str] = "process.restart-loop"
    every_ms: int = Field(1500, ge=100, le=3000, description="From one kill to the next")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: a loop in the node that kills."""
        node = running(lab.node(self.node))
        begin = self.command("restart-loop", f"{self.every_ms / 1000:g}")
        daemons = [self.now(node).daemon]

        def again_and_again() -> str:
            if (daemon := self.now(node).daemon) and daemon not in daemons:
                daemons.append(daemon)
            if len(daemons) < TIMES_SEEN:
                raise NotYet(f"the daemons of {self.service} were {_list(daemons)}")
            return f"{self.service} of {node.name} was started again and again: {_list(daemons)}"

        change = self.change(node, lambda: must(node, *begin), again_and_again, lambda: self.runs(node))
        return [replace(change, again=(Undo(begin),))]


def _list(numbers: Iterable[int]) -> str:
    return " ".join(map(str, sorted(numbers)))
