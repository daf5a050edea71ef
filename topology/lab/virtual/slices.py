"""A machine in virtual time that gets only a share of it: the whole machine stops and continues in turns."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from harness.records import LabError
from harness.wait import Clock
from topology.lab.virtual.simulator import Simulator

__all__ = ["PERIOD_S", "Slices"]

PERIOD_S = 0.1
"""As in real time (``harness.protocols.Node.throttle``)."""


class Slices:
    """The share of one machine. ``runs`` is false while its power is off, or while a fault has frozen it as a whole."""

    def __init__(self, node: str, simulator: Simulator, clock: Clock, runs: Callable[[], bool]) -> None:
        self._node, self._simulator, self._clock, self._runs = node, simulator, clock, runs
        self._turns = 0
        """How often its share was set."""

    def give(self, share: float) -> None:
        """Give it this share from now on; 1 is all of it. Also ends what a process did that is gone."""
        self._turns += 1
        self._continue()
        if share < 1:
            number = self._turns
            self._clock.spawn(lambda: self._take_turns(number, share), f"slices of {self._node}")

    def _take_turns(self, number: int, share: float) -> None:
        while number == self._turns:
            if self._runs():
                with suppress(LabError):  # its kernel ended in this instant, and nobody has heard of it yet
                    self._simulator.ask("freeze", self._node)
            self._clock.sleep(PERIOD_S * (1 - share))
            if number == self._turns:
                self._continue()
                self._clock.sleep(PERIOD_S * share)

    def _continue(self) -> None:
        if self._runs():
            self._simulator.ask("thaw", self._node)
