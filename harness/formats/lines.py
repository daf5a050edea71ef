"""Lines and words of a file, as the programs that read it count and repeat them. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

QUOTED_LENGTH = 40
"""How much of an unexpected word a message repeats."""


def numbered(text: str) -> Iterator[tuple[int, str]]:
    """The lines with their numbers, from 1. Only a newline ends a line, unlike with ``str.splitlines``."""
    return enumerate(text.split("\n"), 1)


def joined(text: str, comments: bool = False) -> Iterator[tuple[int, str]]:
    """Lines, with their ``#`` comments or without; a backslash at the end continues a line.

    The number is the first line's.
    """
    pending, start = "", 0
    for number, line in numbered(text):
        start = start if pending else number
        pending += (line if comments else line.partition("#")[0]).rstrip("\r")
        if pending.endswith("\\"):
            pending = pending[:-1] + " "
            continue
        yield start, pending
        pending = ""
    if pending:
        yield start, pending


def quoted(word: str) -> str:
    """A word of a file in quotes, shortened when it is long."""
    return repr(word if len(word) <= QUOTED_LENGTH else word[: QUOTED_LENGTH - 3] + "...")


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` when a known word resembles this one; otherwise empty."""
    near = difflib.get_close_matches(word[:QUOTED_LENGTH], list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
