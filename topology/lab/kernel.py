"""Which kernel each node gets, and why.

A node runs its own kernel (User-Mode Linux) or shares the kernel of the machine that runs Docker, as the topology asks.
Where that is impossible, the lab is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.records import LabError
from topology.model import Machine

UML_ARCHITECTURES = ("x86_64", "amd64")


@dataclass(frozen=True)
class Choice:
    """``uml`` or ``host``, and the reason as part of a sentence."""

    kernel: str
    why: str


OVERHEAD_MIB = 40
"""What a node's own kernel needs on top of the memory of its machine."""


def choose(machine: Machine, architecture: str, host_has: Callable[[str], bool], needs_own: str = "") -> Choice:
    """The kernel of a node. Raises LabError when this machine cannot provide what the topology asks for.

    ``host_has(role)`` is whether the host's kernel has what the role needs. ``needs_own`` is the reason why the node
    cannot share the host's kernel; empty when it can.
    """
    if machine.kernel == "host":
        if not host_has(machine.role):
            raise LabError(
                f'{machine.name} has kernel = "host", but the host\'s kernel lacks IPVS, which a {machine.role} needs',
                'Load the ip_vs module on the host, or set kernel = "uml".',
            )
        return Choice("host", "the topology asks for the host's kernel")
    if architecture in UML_ARCHITECTURES:
        return Choice("uml", "its own kernel, as the topology asks")
    if needs_own:
        raise LabError(
            f"{machine.name} needs its own kernel ({needs_own}), but User-Mode Linux does not exist for {architecture}",
            "Use an x86-64 machine, or remove that part from the topology.",
        )
    if host_has(machine.role):
        return Choice(
            "host", f"User-Mode Linux does not exist for {architecture}, and the host's kernel has what it needs"
        )
    raise LabError(
        f"{machine.name}: User-Mode Linux does not exist for {architecture}, and the host's kernel lacks IPVS",
        "Use an x86-64 machine, or load the ip_vs module on this one.",
    )
