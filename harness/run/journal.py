"""What a run writes to its history: its own ops, and those of its feeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from harness.history import Recorder
from harness.protocols import Lab
from harness.records import Entry

__all__ = ["Journal", "given"]


class Journal:
    """Writes the history, from any thread, and shows each entry to whoever learns from the run."""

    def __init__(self, recorder: Recorder, lab: Lab, listeners: Sequence[Callable[[Entry], None]] = ()) -> None:
        self._recorder, self._lab, self._listeners = recorder, lab, listeners

    def record(self, entry: Entry) -> None:
        """Write an entry. Raises HistoryError when the history is closed."""
        self._recorder.record(entry)
        for listener in self._listeners:
            listener(entry)

    def info(self, process: str, f: str, value: object = None, at_ns: int | None = None) -> None:
        """Write an ``info`` op of the run's own, at the lab's time ``at_ns`` (now by default)."""
        self.record(Entry(self._lab.now_ns() if at_ns is None else at_ns, process, "info", f, value))


def given(values: Mapping[str, object]) -> dict[str, object]:
    """The values that are not None. Pure."""
    return {name: value for name, value in values.items() if value is not None}
