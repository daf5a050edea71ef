"""NFS mounts: ``/etc/fstab``, and the lab's own file for the folder of uploads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from harness.formats.lines import numbered
from topology.lint.model import Remark

FSTAB = "/etc/fstab"
UPLOADS = "/etc/monkeywrench/uploads.mount"


@dataclass(frozen=True)
class Mount:
    """The options of a mount."""

    line: int
    options: tuple[str, ...]


def parse_fstab(text: str) -> tuple[Mount, ...]:
    """The NFS mounts of an fstab(5)."""
    rows = ((number, line.split()) for number, line in numbered(text) if not line.lstrip().startswith("#"))
    return tuple(
        Mount(number, tuple(row[3].split(","))) for number, row in rows if row[2:3] in (["nfs"], ["nfs4"]) and row[3:]
    )


def parse_uploads(text: str) -> tuple[Mount, ...]:
    """The file of one NFS mount: all its words count as options."""
    lines = ((number, line) for number, line in numbered(text) if not line.lstrip().startswith(("#", ";")))
    return tuple(Mount(number, tuple(re.split(r"[\s,]+", line.replace("Options=", " ")))) for number, line in lines)


def soft(mounts: tuple[Mount, ...]) -> Iterator[Remark]:
    """Accepted: writes are lost when the server is down for long."""
    for mount in mounts:
        if {"soft", "softerr"} & set(mount.options):
            yield (
                mount.line,
                "soft: while the NFS server is down, writes fail after a timeout, and programs that ignore the error "
                "corrupt data silently. Use hard [nfs(5)]",
            )


def over_udp(mounts: tuple[Mount, ...]) -> Iterator[Remark]:
    """Accepted, or refused by newer kernels: fragments can be reassembled wrongly."""
    for mount in mounts:
        if {"udp", "proto=udp", "proto=udp6"} & set(mount.options):
            yield (
                mount.line,
                "udp: fragments of different requests can be joined, which corrupts data silently; newer kernels "
                "refuse it. Use proto=tcp [nfs(5)]",
            )
