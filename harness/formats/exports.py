"""``/etc/exports`` and the output of ``exportfs -s`` (exports(5), exportfs(8)). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from harness.formats.lines import joined

PATHS = ("/etc/exports", "/etc/exports.d/*")


@dataclass(frozen=True)
class Export:
    """A folder for one client; an empty client is everybody. The options include the line's defaults."""

    line: int
    path: str
    client: str
    options: tuple[str, ...]
    whole: bool = True
    """False for a word that exportfs refuses: brackets that are not closed, as around options with blanks."""


@lru_cache(maxsize=64)
def parse(text: str) -> tuple[Export, ...]:
    """Read a file: comments anywhere, lines joined at a backslash, ``-`` before default options."""
    return tuple(_exports(text))


def _exports(text: str) -> Iterator[Export]:
    for number, line in joined(text):
        words = re.findall(r'"[^"]*"?\S*|\S+', line)
        if words:
            yield from _clients(number, words[0].strip('"'), words[1:])


def _clients(line: int, path: str, words: list[str]) -> Iterator[Export]:
    defaults: tuple[str, ...] = ()
    clients = 0
    for word in words:
        if word.startswith("-"):
            defaults = tuple(word[1:].split(","))
            continue
        client, _, options = word.partition("(")
        clients += 1
        yield Export(
            line, path, client, (*defaults, *options.rstrip(")").split(",")), word.count("(") == word.count(")")
        )
    if not clients:
        yield Export(line, path, "", defaults)
