"""``/etc/exports``: what the NFS server shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harness.formats.exports import Export
from harness.formats.lines import quoted
from topology.lint.model import Remark

UPLOADS = "/srv/uploads"
"""The folder that the site's uploads are written to (topology/parts/variable_data.py)."""


def asynchronous(exports: tuple[Export, ...]) -> Iterator[Remark]:
    """Accepted: the server answers before the data is on disk."""
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
            f"{quoted(path)} has no fsid: file handles may contain the device number, and when that changes at a "
            "reboot or a move every client gets ESTALE. Add fsid= with a unique number [exports(5)]",
        )


def same_fsid(exports: tuple[Export, ...]) -> Iterator[Remark]:
    """Accepted: handles of one folder mean the other."""
    paths: dict[str, str] = {}
    for export in exports:
        for option in export.options:
            if option.startswith("fsid=") and paths.setdefault(option, export.path) != export.path:
                yield (
                    export.line,
                    f"{option} is also that of {quoted(paths[option])}: file handles of one folder mean the other. Use "
                    "a number for each file system [exports(5)]",
                )


def read_only(exports: tuple[Export, ...]) -> Iterator[Remark]:
    """Accepted: the default is ro, and clients cannot write uploads."""
    for line, path in _lines(exports, lambda options: [o for o in options if o in {"rw", "ro"}][-1:] != ["rw"]):
        if path.rstrip("/") == UPLOADS:
            yield line, f"{quoted(path)} is exported read-only (the default): every upload fails. Add rw [exports(5)]"


def open_to_all(exports: tuple[Export, ...]) -> Iterator[Remark]:
    """Accepted: a blank before the bracket applies the options to every client."""
    for export in exports:
        if not export.client and any(export.options):
            yield (
                export.line,
                f"{quoted(export.path)} is exported to every client with ({','.join(export.options)[:60]}). Remove the "
                "blank between a client and its options [exports(5)]",
            )


def _lines(exports: tuple[Export, ...], wrong: Callable[[tuple[str, ...]], bool]) -> list[tuple[int, str]]:
    """The lines on which the options of at least 1 client are wrong, each once."""
    # of a line that exportfs refuses nothing follows
    broken = {export.line for export in exports if not export.whole}
    found = (each for each in exports if each.line not in broken and wrong(each.options))
    return list(dict.fromkeys((export.line, export.path) for export in found))
