"""Which kernel each node gets, and why.

A node runs a kernel of its own (User-Mode Linux) or shares the kernel of the machine that runs Docker, as the topology
asks; where that cannot be, the lab is refused with the reason instead of quietly being something else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.records import LabError
from topology.model import Machine

UML_ARCHITECTURES = ("x86_64", "amd64")


@dataclass(frozen=True)
class Choice:
    """``uml`` or ``host``, and the reason in half a sentence."""

    kernel: str
    why: str


OVERHEAD_MIB = 40
"""What a kernel of its own takes beside the memory of its machine."""


def choose(machine: Machine, architecture: str, host_has: Callable[[str], bool], needs_own: str = "") -> Choice:
    """The kernel of a node. ``host_has(role)`` tells whether the host's kernel has what a role needs;
    ``needs_own`` says why no shared kernel will do, if so.

    Raises LabError when the topology asks for what this machine cannot give.
    """
    if machine.kernel == "host":
        if not host_has(machine.role):
            raise LabError(
                f'{machine.name}: kernel = "host", but the host\'s kernel has no IPVS, which a {machine.role} needs',
                'Load the ip_vs module on the host, or set kernel = "uml".',
            )
        return Choice("host", "the topology asks for the host's kernel")
    if architecture in UML_ARCHITECTURES:
        return Choice("uml", "a kernel of its own, as the topology asks")
    if needs_own:
        raise LabError(
            f"{machine.name}: User-Mode Linux does not exist for {architecture}, and {needs_own}",
            "Use an x86-64 machine, or leave that part out of the topology.",
        )
    if host_has(machine.role):
        return Choice(
            "host", f"User-Mode Linux does not exist for {architecture}, and the host's kernel has what it needs"
        )
    raise LabError(
        f"{machine.name}: User-Mode Linux does not exist for {architecture}, and the host's kernel has no IPVS",
        "Use an x86-64 machine, or load the ip_vs module on this one.",
    )
