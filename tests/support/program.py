"""A program in a process of its own that prints JSON, one object a line: its lines are read while it runs."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, TypeVar

from harness.wait import NotYet, Timeout, until

T = TypeVar("T")
Op = dict[str, Any]

DEADLINE_S = 300
"""Deadline of all waits for a program. They take seconds, and minutes on a machine that is very busy."""


class Program:
    """A running program, and the lines that it has printed so far."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        self.lines: list[Op] = []
        self.errors: list[str] = []
        """Lines of standard error, and those of standard output that are not JSON."""
        readers = ((self.process.stdout, self._printed), (self.process.stderr, self.errors.append))
        self._readers = [threading.Thread(target=_read, args=each, daemon=True) for each in readers]
        for reader in self._readers:
            reader.start()
        # A test that fails leaves its program behind, and the next test has no use for it.
        self._watchdog = threading.Timer(2 * DEADLINE_S, self.process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()

    def until(self, condition: Callable[[], T | None], what: str) -> T:
        """Wait for a condition on what the program has done. Fails when the program ends before."""

        def found() -> T | None:
            ended = self._ended()
            try:
                result = condition()
            except NotYet:
                result = None
                if not ended:
                    raise
            assert result or not ended, f"the program ended before {what}: {self.error_text}"
            return result

        try:
            return until(found, DEADLINE_S, what)
        except Timeout:
            self.process.kill()
            raise

    def lines_until(self, count: int) -> list[Op]:
        """The first lines, once there are that many."""
        self.until(lambda: len(self.lines) >= count, f"{count} lines")
        return self.lines[:count]

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def end(self) -> int:
        """Wait until the program has ended and all of its lines were read. The exit code."""
        until(self._ended, DEADLINE_S, "the end of the program")
        self._watchdog.cancel()
        return self.process.wait()

    @property
    def error_text(self) -> str:
        """All of standard error."""
        return "".join(self.errors)

    def _ended(self) -> bool:
        return not any(reader.is_alive() for reader in self._readers) and self.process.poll() is not None

    def _printed(self, line: str) -> None:
        try:
            self.lines.append(json.loads(line))
        except ValueError:
            self.errors.append(line)


def _read(stream: IO[str], note: Callable[[str], None]) -> None:
    with stream:
        for line in stream:
            note(line)
