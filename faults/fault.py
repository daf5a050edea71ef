"""What all faults share: settings, and changes that are leased, proven, undone and verified.

Most faults are a list of changes, each of one node; ``inject`` does the rest. For each change it

1. arms the lease on the node, so that from here on the undo happens with or without the harness;
2. applies the change;
3. waits for proof of its effect: without proof the injection fails, and the undo follows at once.

On exit it ends the leases, the latest first: each node carries out its undo, and ``inject`` verifies it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from harness.protocols import HasWires, Lab, Lease, Node, Wires
from harness.records import Effect, EffectKind, LabError, Output, Power, Proof, Undo
from harness.wait import Clock, NotYet, until

__all__ = [
    "Change",
    "NodeFault",
    "SimpleFault",
    "must",
    "nothing",
    "require_own_kernel",
    "running",
    "seen",
    "sh",
    "wires_of",
]

PROOF_WITHIN_S = 30.0
"""Most effects show at once, or when a few scripts have run; this allows for a machine that is short of CPU time."""

UNDONE_WITHIN_S = 120.0
"""After the undo, a node may have to start services before its old state shows."""

EVERY_S = 0.05


def nothing() -> str:
    """For a change whose undo needs no verification."""
    return "nothing to verify"


@dataclass(frozen=True)
class Change:
    """What a fault does to one node, and how to verify it.

    ``proof`` and ``undone`` look once and return what they saw. They raise NotYet while the effect does not show, and
    while it still shows.
    """

    node: Node
    claim: str
    """What the fault reserves on the node; a second fault with the same claim is rejected."""
    apply: Callable[[], object]
    """Makes the change. May return when it took effect (ns of the lab's clock), where it knows that more exactly."""
    undo: tuple[Undo, ...]
    proof: Callable[[], str]
    undone: Callable[[], object] = nothing
    again: tuple[Undo, ...] = ()
    """Steps after each boot of the node, for what a boot wipes."""
    detail: dict[str, Any] = field(default_factory=dict)
    """Details for the proof."""
    proof_within_s: float = PROOF_WITHIN_S
    """How long to wait for the proof: longer where the effect itself takes long."""


class SimpleFault(BaseModel, ABC):
    """Frozen settings and one verb, for faults that are a list of changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    """Its name in the registry."""

    does: ClassVar[tuple[EffectKind, ...]] = ()
    """What it certainly does to each node of ``affected``, from its proof to its undo."""

    of_service: ClassVar[str] = ""
    """The service that its effects concern; empty: the node as a whole."""

    @property
    def concerns(self) -> str:
        """``of_service``, unless its settings decide."""
        return self.of_service

    @property
    def kinds(self) -> tuple[EffectKind, ...]:
        """``does``, unless its settings decide."""
        return self.does

    def affected(self, lab: Lab) -> tuple[str, ...]:
        """The nodes that its effects concern. Raises LabError."""
        return ()

    def effects(self, lab: Lab) -> tuple[Effect, ...]:
        """What it certainly does from its proof to its undo. Raises LabError."""
        return tuple(Effect(kind, node, self.concerns) for node in self.affected(lab) for kind in self.kinds)

    @abstractmethod
    def changes(self, lab: Lab) -> Sequence[Change]:
        """The changes to make. It reads what it needs to know and changes nothing. Raises LabError."""

    def target(self, lab: Lab) -> object:
        """What the fault hits. Raises LabError if this lab has no such thing, or it cannot have the fault."""
        return None

    def available(self, lab: Lab) -> str | None:
        """None, or the reason why this lab cannot do it."""
        try:
            self.target(lab)
        except LabError as error:
            return f"{error}. {error.next_step}" if error.next_step else str(error)
        return None

    @contextmanager
    def inject(self, lab: Lab) -> Iterator[Proof]:
        """Inject on entry, with proof; undo on exit, and verify the undo. Raises LabError.

        The proof's ``time_ns`` is before the effect. ``detail["applied_ms"]`` is the time from the call until the last
        change was made, as ``apply`` reports it where it does.
        """
        called_ns = lab.now_ns()
        self.target(lab)
        changes = self.changes(lab)
        with ExitStack() as undoing:
            for change in changes:
                lease = change.node.lease(self.name, change.claim, change.undo, change.again)
                undoing.callback(_undo, change, lease, lab.clock)
            began_ns = lab.now_ns()
            at_ns = [at if isinstance(at := change.apply(), int) else None for change in changes]
            last_ns = at_ns[-1] if at_ns else None
            applied_ms = ((lab.now_ns() if last_ns is None else last_ns) - called_ns) / 1_000_000
            what, clock = f"proof of {self.name}", lab.clock
            seen = [until(change.proof, change.proof_within_s, what, EVERY_S, clock) for change in changes]
            detail: dict[str, Any] = {"applied_ms": round(applied_ms, 1)}
            for change in changes:
                detail |= change.detail
            yield Proof(min((at for at in at_ns if at is not None), default=began_ns), "; ".join(seen), detail)


def _undo(change: Change, lease: Lease, clock: Clock) -> None:
    lease.release()

    def undone() -> bool:
        change.undone()
        return True

    until(undone, UNDONE_WITHIN_S, f"the undo of {change.claim} on {change.node.name}", EVERY_S, clock)


class NodeFault(SimpleFault):
    """A fault of one node."""

    node: str = Field(min_length=1, description="Name of the node")

    def affected(self, lab: Lab) -> tuple[str, ...]:
        """Its node."""
        return (self.node,)

    def target(self, lab: Lab) -> Node:
        """Its node, if the node can have the fault."""
        node = lab.node(self.node)
        self.require(node)
        return node

    def require(self, node: Node) -> None:
        """What the fault needs of its node. Raises LabError."""


def wires_of(lab: Lab) -> Wires | None:
    """The cables of a lab whose switch is simulated; None for a lab with a real switch."""
    return lab.wires if isinstance(lab, HasWires) else None


def running(node: Node) -> Node:
    """The node, if it runs. Raises LabError."""
    if node.power() is not Power.RUNNING:
        raise LabError(
            f"{node.name} is {node.power()}, so a fault that needs a running node has no effect", "Boot it first."
        )
    return node


def require_own_kernel(node: Node, why: str) -> None:
    """Raises LabError for a node without a kernel of its own, where the fault would hit this machine's kernel."""
    if node.kernel != "uml":
        raise LabError(f"{node.name} runs on the host's kernel, so it {why}")


def must(node: Node, *argv: str, timeout_s: float = 10.0) -> Output:
    """Run a command that must succeed. Raises LabError with its output."""
    done = node.exec(*argv, timeout_s=timeout_s)
    if not done.ok:
        output = (done.stderr or done.stdout).strip()[-300:] or "no output"
        raise LabError(f"{node.name}: `{' '.join(argv)[:200]}` failed with exit code {done.exit_code}: {output}")
    return done


def seen(node: Node, holds: Callable[[Output], bool], what: str, *argv: str) -> str:
    """``what``, if the output of a command on the node shows it. Raises NotYet with the output otherwise."""
    done = node.exec(*argv)
    if not holds(done):
        raise NotYet((done.stdout + done.stderr).strip()[-200:] or f"exit code {done.exit_code}, no output")
    return what


def sh(script: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs a script with ``$1``, ``$2``, ... as arguments."""
    return ("sh", "-c", script, "sh", *arguments)
