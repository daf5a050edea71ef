"""``run --repeat``: a process and a lab for each seed."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import IO

from harness import repeat as repeats
from harness.cli import screen
from harness.cli.console import output

__all__ = ["repeat"]

PROGRAM = (sys.executable, "-m", "harness.cli")
REPORT = "report: "


class _Run:
    """The process of one run. Implements ``harness.repeat.Child``."""

    def __init__(self, words: Sequence[str]) -> None:
        self.stdout, self.stderr = _file(), _file()
        # a session of its own: Ctrl-C reaches it once, from here
        self._process = subprocess.Popen(
            [*PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            stdout=self.stdout,
            stderr=self.stderr,
            start_new_session=True,
        )

    def poll(self) -> int | None:
        return self._process.poll()

    def interrupt(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def said(self) -> str:
        """Where its report is, or why there is none."""
        lines = [line.strip() for line in _lines(self.stdout) if line.startswith(REPORT)]
        return lines[-1] if lines else " ".join(line.strip() for line in _lines(self.stderr)[-2:])


def _file() -> IO[str]:
    """A file without a name: a run of an hour must not be held up by a pipe that nobody reads."""
    return tempfile.TemporaryFile("w+", encoding="utf-8")


def _lines(file: IO[str]) -> list[str]:
    file.seek(0)
    return file.readlines()


def repeat(words: Sequence[str], seeds: Sequence[int], jobs: int, report: Callable[[str], None]) -> int:
    """Run with these words and each of the seeds, and print how many came to what; -> the exit code."""
    runs: dict[int, _Run] = {}

    def start(seed: int) -> _Run:
        report(f"seed {seed} begins")
        runs[seed] = _Run([*words, "--seed", str(seed)])
        return runs[seed]

    codes: dict[int, int] = {}
    try:
        for seed, code in repeats.carry_out(seeds, jobs, start):
            codes[seed] = code
            report(f"seed {seed}: {repeats.outcome(code)}; {runs[seed].said()}")
    finally:
        if codes:
            output.print(screen.shares(repeats.shares(codes)))
    return repeats.exit_code(codes)
