"""Where the commands print: results on standard output, progress and errors on standard error."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import IO, cast

from rich.console import Console, ConsoleDimensions
from rich.markup import escape

from harness.errors import UserError

__all__ = ["complain", "narrator", "output", "progress"]

UNWRAPPED = 100_000
"""Columns, where output is not a terminal: a line stays whole for grep and for logs."""


class _Trimmed:
    """A stream without blanks at the ends of lines: a table of the width above would have thousands."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(re.sub(r" +(?=\n)", "", text))

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


class _Console(Console):
    @property
    def file(self) -> IO[str]:
        """Where it prints: a terminal as it is, everything else trimmed."""
        stream = super().file
        return stream if stream.isatty() else cast(IO[str], _Trimmed(stream))

    @file.setter
    def file(self, new: IO[str]) -> None:
        self._file = new

    @property
    def size(self) -> ConsoleDimensions:
        """The terminal's size; without a terminal a width that no line reaches."""
        size = super().size
        return size if self.file.isatty() else ConsoleDimensions(UNWRAPPED, size.height)

    @size.setter
    def size(self, new: tuple[int, int]) -> None:
        self._width, self._height = new


progress = _Console(stderr=True, highlight=False)
output = _Console(highlight=False)


def complain(error: UserError) -> None:
    """Print an error and the next step."""
    progress.print(f"[bold red]monkeywrench:[/] {escape(str(error))}")
    if error.next_step:
        progress.print(f"[bold]Next:[/] {escape(error.next_step)}")


def narrator() -> Callable[[str], None]:
    """What prints progress, each line with the seconds since now."""
    began = time.monotonic()

    def report(text: str) -> None:
        progress.print(f"[dim]{time.monotonic() - began:6.1f} s[/]  {escape(text)}", soft_wrap=True)

    return report
