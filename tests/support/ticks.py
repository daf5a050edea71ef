"""A clock for tests of what waits."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.wait import Clock


@dataclass
class Ticks:
    """A clock whose time passes only by sleeping."""

    time_s: float = 100.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time_s += seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.time_s, self.sleep)
