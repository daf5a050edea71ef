"""The switch of a lab in virtual time: a container with the simulator, and the leases of faults of its cables."""

from __future__ import annotations

from typing import Any

from topology.lab.virtual.leases import NotedLeases
from topology.lab.virtual.wires import VirtualWires

__all__ = ["VirtualSwitch"]


class VirtualSwitch(NotedLeases):
    """The switch. Its own commands take real time, and no virtual time."""

    wires: VirtualWires
    """Set by its lab."""

    def _step(self, where: str, argv: list[str]) -> Any:
        if where == "wires":
            self.wires.undo(*argv)
        else:
            super()._step(where, argv)
