"""Deploying another site onto a running lab, as a release does: onto the master, which replicates it.

The node keeps the previous site and gets it back at the end. After a killed process the next deployment restores it.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.protocols import Node
from harness.records import LabError
from harness.wait import NotYet, until
from topology.lab.docker_lab import DockerLab
from topology.load import sources
from topology.parts.real_servers import SITE
from topology.parts.web_data import WebData

COMES, KEPT = "/var/tmp/site.tar", "/var/tmp/site-before"
COPY_S = 60.0
EVERYWHERE_S = 120.0
"""Replication waits for a pause in the changes (``debounce_ms``), then takes seconds."""
EVERY_S = 0.5

KEEP = '[ -d "$2" ] || { rm -rf "$2.new" && cp -a "$1" "$2.new" && mv "$2.new" "$2"; }'
INTO_PLACE = 'rsync -rlpgoD --checksum --delete --delay-updates "$2/" "$1/"'
"""A file with the same content is left alone, whatever its date. A file with other content gets the current date:
2 sites that were checked out in the same second have the same dates, and PHP, which compares only dates
(opcache.validate_timestamps), would keep running the cached script."""
ARTICLES = '{ [ ! -d "$2/articles" ] || chown www-data "$2/articles"; }'
"""Apache writes to this folder of the site."""
TAKE = f'mkdir -p "$2" && tar -x -C "$2" -f "$3" && rm "$3" && {ARTICLES} && {INTO_PLACE} && rm -rf "$2"'
PUT_BACK = f'[ ! -d "$2" ] || {{ {INTO_PLACE} && rm -rf "$2"; }}'


@contextmanager
def sites(lab: DockerLab) -> Iterator[Callable[[Path | None], None]]:
    """A function that deploys the content of a folder, or the lab's own site for None, to all real servers.

    The lab gets its own site back at the end. Raises LabError, also for a folder that is unreadable or has no files.
    """
    masters = _masters(lab)
    for node in masters:
        _do(node, PUT_BACK, KEPT)
        _do(node, KEEP, KEPT)

    def deploy(folder: Path | None) -> None:
        packed = None if folder is None else pack(folder)
        for node in masters:
            if packed is None:
                _do(node, INTO_PLACE, KEPT)
            else:
                node.put(COMES, packed)
                _do(node, TAKE, "/var/tmp/site-comes", COMES)
        until(lambda: _everywhere(lab), EVERYWHERE_S, "the site on all real servers", EVERY_S)

    try:
        yield deploy
    finally:
        for node in masters:
            _do(node, PUT_BACK, KEPT)
        until(lambda: _everywhere(lab), EVERYWHERE_S, "the lab's own site back on all real servers", EVERY_S)


def pack(folder: Path) -> bytes:
    """The files of a folder with their modes and dates, owned by root, as a tar archive. Raises LabError."""
    packed = io.BytesIO()
    try:
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for below, path in sources(folder):
                archive.add(path.resolve(), below.lstrip("/"), filter=_of_root)
            if not archive.getmembers():
                raise LabError(f"the folder {str(folder)!r} has no files", "Give the folder of a site.")
    except OSError as error:
        raise LabError(f"cannot read the site in {str(folder)!r}: {error.strerror}") from error
    return packed.getvalue()


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _masters(lab: DockerLab) -> list[Node]:
    """The nodes to change the site on: the master, or every real server when nothing is replicated."""
    web_data = lab.topology.web_data
    return [lab.node(web_data.master)] if web_data else lab.nodes("web")


def _do(node: Node, script: str, *paths: str) -> None:
    done = node.exec("sh", "-c", script, "deploy", SITE, *paths, timeout_s=COPY_S)
    if not done.ok:
        raise LabError(f"{node.name}: changing the site failed: {done.stderr.strip() or done.stdout.strip()}")


def _everywhere(lab: DockerLab) -> bool:
    """Whether all real servers have the master's site. Raises NotYet."""
    if lab.topology.web_data is None:
        return True
    part = WebData()
    machines = lab.topology.of_role("web")
    prints = {
        machine.name: lab.node(machine.name).exec("sh", "-c", part.probe_command(lab.topology, machine)).stdout[:32]
        for machine in machines
    }
    behind = [name for name, seen in prints.items() if seen != prints[lab.topology.web_data.master]]
    if behind:
        raise NotYet(f"the site on {', '.join(behind)} differs from {lab.topology.web_data.master}")
    return True
