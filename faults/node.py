"""Faults of a whole machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel, ConfigDict, Field

from harness.protocols import Lab, LabError, Node, Power, Proof
from harness.wait import NotYet, until

PROOF_WITHIN_S = 5.0
"""A cut machine is off at once; this is the patience with the chassis that says so."""

ANSWER_TIMEOUT_S = 2.0
"""A machine that runs answers ``true`` in milliseconds; silence this long is taken for death."""


class _OnNode(BaseModel):
    """Settings of a fault of one machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node: str = Field(min_length=1, description="The name of the node")

    def available(self, lab: Lab) -> str | None:
        """None, or the reason why this lab cannot do it."""
        try:
            lab.node(self.node)
        except LabError as error:
            return str(error)
        return None


class PowerOff(_OnNode):
    """Cut the power of a machine: nothing is flushed, nothing is said. Undone by powering it on."""

    @property
    def name(self) -> str:
        """Its name in the registry."""
        return "node.power-off"

    @contextmanager
    def inject(self, lab: Lab) -> Iterator[Proof]:
        """Cut the power on entry; on exit boot the machine and see that it runs. Raises LabError."""
        node = _running(lab.node(self.node))
        try:
            cut_ns = node.power_off()
            yield _proof(node, Power.OFF, cut_ns, f"{node.name} is off and takes no command")
        finally:
            node.boot()
            _see(node, Power.RUNNING)
            _answers(node)


class Freeze(_OnNode):
    """Stop a machine's processors: it keeps its memory and connections, and does nothing. Undone by thawing it."""

    @property
    def name(self) -> str:
        """Its name in the registry."""
        return "node.freeze"

    @contextmanager
    def inject(self, lab: Lab) -> Iterator[Proof]:
        """Freeze on entry; on exit thaw the machine and see that it runs. Raises LabError."""
        node = _running(lab.node(self.node))
        try:
            frozen_ns = lab.now_ns()
            node.freeze()
            yield _proof(node, Power.FROZEN, frozen_ns, f"{node.name} is frozen and takes no command")
        finally:
            node.thaw()
            _see(node, Power.RUNNING)
            _answers(node)


def _running(node: Node) -> Node:
    """The node, if the fault can have an effect on it."""
    if node.power() is not Power.RUNNING:
        raise LabError(
            f"{node.name} is {node.power()}, so a fault of the running machine has no effect", "boot it first"
        )
    return node


def _proof(node: Node, power: Power, time_ns: int, seen: str) -> Proof:
    """Two witnesses: the chassis says so, and the machine is silent."""
    _see(node, power)
    try:
        node.exec("true", timeout_s=ANSWER_TIMEOUT_S)
    except LabError as silence:
        return Proof(time_ns, seen, {"node": node.name, "power": str(power), "answer": str(silence)})
    raise LabError(f"the fault had no effect: the chassis says {node.name} is {power}, but it still takes commands")


def _see(node: Node, power: Power) -> None:
    def is_so() -> bool:
        if node.power() is not power:
            raise NotYet(f"it is {node.power()}")
        return True

    until(is_so, PROOF_WITHIN_S, f"{node.name} to be {power}")


def _answers(node: Node) -> None:
    if not node.exec("true").ok:
        raise LabError(f"{node.name} runs, but fails at the command true", "see its console")
