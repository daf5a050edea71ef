"""The steps and the faults of a run, each with its ops from begin to end. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.history import History, Op


@dataclass(frozen=True)
class Window:
    """A step or a fault: its name, and its ops by phase."""

    name: str
    phases: dict[str, Op]

    @property
    def begin(self) -> Op:
        """The op that opened it."""
        return next(iter(self.phases.values()))


def faults(history: History) -> list[Window]:
    """Each injection, named by its label, by start. A label may occur more than once."""
    return _windows(
        [(op.process.removeprefix("fault:"), op) for op in history.by_time().seen("fault")],
        opening="start",
    )


def steps(history: History) -> list[Window]:
    """Each step, by start."""
    return _windows([(str(op["step"]), op) for op in history.by_time().seen("step")], opening="begin")


def _windows(named: Iterable[tuple[str, Op]], opening: str) -> list[Window]:
    windows: list[Window] = []
    latest: dict[str, Window] = {}
    for name, op in named:
        if op["phase"] == opening or name not in latest:
            latest[name] = Window(name, {})
            windows.append(latest[name])
        latest[name].phases.setdefault(op["phase"], op)
    return windows
