"""What all faults share: settings, and changes that are leased, proven, undone and verified.

Most faults are a list of changes, each of one node; ``inject`` does the rest. For each change it

1. arms the lease on the node, so that from here on the undo happens with or without the harness;
2. applies the change;
3. gathers proof that it had an effect: without one there is no fault, and the undo follows at once;

and on exit releases the leases, the latest first, which carries the undo out where the fault is, and verifies it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from harness.protocols import Lab, Lease, Node
from harness.records import LabError, Output, Power, Proof, Undo
from harness.wait import NotYet, until

__all__ = ["Change", "NodeFault", "SimpleFault", "must", "nothing", "running", "seen", "sh"]

PROOF_WITHIN_S = 30.0
"""An effect is there at once or within some scripts' time; this is the patience with a machine short of processor."""

HEALED_WITHIN_S = 120.0
"""After its undo a machine may have to start services before it can be seen to be as it was."""

EVERY_S = 0.05


def nothing() -> str:
    """There is nothing more to see."""
    return "nothing to see"


@dataclass(frozen=True)
class Change:
    """What a fault does to one node, and how to tell.

    ``proof`` and ``healed`` look once, and return what they saw; they raise NotYet while it is not (or still) so.
    """

    node: Node
    claim: str
    """What of the node the fault takes for itself; another fault with the same claim is refused."""
    apply: Callable[[], object]
    """May return when it took effect, in the lab's time, where it knows that better than whoever called it."""
    undo: tuple[Undo, ...]
    proof: Callable[[], str]
    healed: Callable[[], object] = nothing
    again: tuple[Undo, ...] = ()
    """What to do when the machine was booted meanwhile and has lost the fault."""
    detail: dict[str, Any] = field(default_factory=dict)
    """What else a reader of the proof should know."""
    proof_within_s: float = PROOF_WITHIN_S
    """How long to wait for the proof: longer, where the effect itself is late."""


class SimpleFault(BaseModel, ABC):
    """Frozen settings plus one verb, for faults that are a list of changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    """Its name in the registry."""

    @abstractmethod
    def changes(self, lab: Lab) -> Sequence[Change]:
        """What is to be changed; reads what it needs to know, and changes nothing. Raises LabError."""

    def available(self, lab: Lab) -> str | None:
        """None, or the reason why this lab cannot do it."""
        return None

    @contextmanager
    def inject(self, lab: Lab) -> Iterator[Proof]:
        """Inject on entry, with proof; undo on exit, and verify the undo. Raises LabError.

        The proof's ``time_ns`` is before the effect, ``detail["applied_ms"]`` after it: the time from the call until
        the last change was made, by the word of whoever made it where that knows better.
        """
        called_ns = lab.now_ns()
        if reason := self.available(lab):
            raise LabError(reason)
        changes = self.changes(lab)
        with ExitStack() as undoing:
            for change in changes:
                lease = change.node.lease(self.name, change.claim, change.undo, change.again)
                undoing.callback(_undo, change, lease)
            began_ns = lab.now_ns()
            at_ns = [told if isinstance(told := change.apply(), int) else None for change in changes]
            last_ns = at_ns[-1] if at_ns else None
            applied_ms = ((lab.now_ns() if last_ns is None else last_ns) - called_ns) / 1_000_000
            seen = [until(change.proof, change.proof_within_s, f"proof of {self.name}", EVERY_S) for change in changes]
            detail: dict[str, Any] = {"applied_ms": round(applied_ms, 1)}
            for change in changes:
                detail |= change.detail
            yield Proof(min((at for at in at_ns if at is not None), default=began_ns), "; ".join(seen), detail)


def _undo(change: Change, lease: Lease) -> None:
    lease.release()

    def healed() -> bool:
        change.healed()
        return True

    until(healed, HEALED_WITHIN_S, f"{change.node.name} to be as it was ({change.claim})", EVERY_S)


class NodeFault(SimpleFault):
    """A fault of one node."""

    node: str = Field(min_length=1, description="The name of the node")

    def available(self, lab: Lab) -> str | None:
        """None, or the reason why this lab cannot do it."""
        try:
            return self.possible(lab.node(self.node))
        except LabError as error:
            return str(error)

    def possible(self, node: Node) -> str | None:
        """None, or the reason why this node cannot have it."""
        return None


def running(node: Node) -> Node:
    """The node, if a fault of its running machine can have an effect. Raises LabError."""
    if node.power() is not Power.RUNNING:
        raise LabError(
            f"{node.name} is {node.power()}, so a fault of the running machine has no effect", "Boot it first."
        )
    return node


def must(node: Node, *argv: str, timeout_s: float = 10.0) -> Output:
    """Run a command that has to succeed. Raises LabError with what it said."""
    done = node.exec(*argv, timeout_s=timeout_s)
    if not done.ok:
        said = (done.stderr or done.stdout).strip()[-300:] or "it said nothing"
        raise LabError(f"{node.name}: `{' '.join(argv)[:200]}` failed with exit code {done.exit_code}: {said}")
    return done


def seen(node: Node, holds: Callable[[Output], bool], what: str, *argv: str) -> str:
    """``what``, if a command on the node shows it. Raises NotYet with what it printed instead."""
    done = node.exec(*argv)
    if not holds(done):
        raise NotYet((done.stdout + done.stderr).strip()[-200:] or f"it exits {done.exit_code}")
    return what


def sh(script: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs a script with its arguments as ``$1``, ``$2``, ..."""
    return ("sh", "-c", script, "sh", *arguments)
