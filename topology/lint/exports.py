"""``/etc/exports``: what the NFS server gives away."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from topology.lint.model import Remark, numbered, quoted

PATHS = ("/etc/exports", "/etc/exports.d/*")


@dataclass(frozen=True)
class Export:
    """A folder for one client; the options include the line's defaults."""

    line: int
    path: str
    client: str
    options: tuple[str, ...]


@lru_cache(maxsize=64)
def parse(text: str) -> tuple[Export, ...]:
    """exports(5): comments anywhere, lines joined at a backslash, ``-`` before default options."""
    return tuple(_exports(text))


def _exports(text: str) -> Iterator[Export]:
    pending, start = "", 0
    for number, line in (*numbered(text), (0, "")):
        start = start if pending else number
        pending += line.partition("#")[0].rstrip("\r")
        if pending.endswith("\\") and number:
            pending = pending[:-1] + " "
            continue
        words = re.findall(r'"[^"]*"?\S*|\S+', pending)
        pending = ""
        if words:
            yield from _clients(start, words[0].strip('"'), words[1:])


def _clients(line: int, path: str, words: list[str]) -> Iterator[Export]:
    defaults: tuple[str, ...] = ()
    clients = 0
    for word in words:
        if word.startswith("-"):
            defaults = tuple(word[1:].split(","))
            continue
        client, _, options = word.partition("(")
        clients += 1
        yield Export(line, path, client, (*defaults, *options.rstrip(")").split(",")))
    if not clients:
        yield Export(line, path, "", defaults)


def asynchronous(exports: tuple[Export, ...]) -> Iterator[Remark]:
    """Accepted: an answer before the data is safe."""
    for line, path in _lines(exports, lambda options: [o for o in options if o in {"sync", "async"}][-1:] == ["async"]):
        yield (
            line,
            f"async: the server acknowledges writes to {quoted(path)} before they are on disk, and a crash loses them "
            "silently. Use sync [exports(5)]",
        )


def no_fsid(exports: tuple[Export, ...]) -> Iterator[Remark]:
    """Accepted: file handles that depend on the device."""
    for line, path in _lines(exports, lambda options: not any(option.startswith("fsid=") for option in options)):
        yield (
            line,
            f"{quoted(path)} has no fsid: file handles may hold the device's number, and when that changes at a reboot "
            "or a move every client gets ESTALE. Add fsid= with a number of its own [exports(5)]",
        )


def open_to_all(exports: tuple[Export, ...]) -> Iterator[Remark]:
    """Accepted: a blank before the bracket makes the options everybody's."""
    for export in exports:
        if not export.client and any(export.options):
            yield (
                export.line,
                f"{quoted(export.path)} is exported to everybody with ({','.join(export.options)[:60]}): no blank may "
                "stand between a client and its options [exports(5)]",
            )


def _lines(exports: tuple[Export, ...], wrong: Callable[[tuple[str, ...]], bool]) -> list[tuple[int, str]]:
    """The lines on which some client's options are wrong, each once."""
    return list(dict.fromkeys((export.line, export.path) for export in exports if wrong(export.options)))
