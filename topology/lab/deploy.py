"""Deploying another site onto a lab that is up, as a release does: onto the master, from where it is replicated.

What was there is kept on the node meanwhile, and is put back at the end; so it is after a process that was killed, when
the next one begins.
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
from topology.model import sources
from topology.parts.real_servers import SITE
from topology.parts.web_data import WebData

COMES, KEPT = "/var/tmp/site.tar", "/var/tmp/site-before"
COPY_S = 60.0
EVERYWHERE_S = 120.0
"""Replication waits for quiet (``debounce_ms``) and then takes seconds; a node that is down gets it when it is back."""
EVERY_S = 0.5

KEEP = '[ -d "$2" ] || { rm -rf "$2.new" && cp -a "$1" "$2.new" && mv "$2.new" "$2"; }'
INTO_PLACE = 'rsync -rlpgoD --checksum --delete --delay-updates "$2/" "$1/"'
"""A file with the same content is left alone: what differs by its date only is no release. One with another content is
as of now, whatever its date was: two sites that were checked out in the same second have the same dates, and PHP, which
goes by them alone (opcache.validate_timestamps), would go on with the script that it knows."""
ARTICLES = '{ [ ! -d "$2/articles" ] || chown www-data "$2/articles"; }'
"""Apache itself writes in this folder of the site."""
TAKE = f'mkdir -p "$2" && tar -x -C "$2" -f "$3" && rm "$3" && {ARTICLES} && {INTO_PLACE} && rm -rf "$2"'
PUT_BACK = f'[ ! -d "$2" ] || {{ {INTO_PLACE} && rm -rf "$2"; }}'


@contextmanager
def sites(lab: DockerLab) -> Iterator[Callable[[Path | None], None]]:
    """What deploys the content of a folder, or with None the site that the lab had, and waits until it is everywhere.

    At the end the lab has its own again. Raises LabError, also for a folder that cannot be read or has no file in it.
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
    """A folder's files with their modes and dates, all root's, as a tar archive. Raises LabError."""
    packed = io.BytesIO()
    try:
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for below, path in sources(folder):
                archive.add(path.resolve(), below.lstrip("/"), filter=_of_root)
            if not archive.getmembers():
                raise LabError(f"there is no file in {folder}, so it is no site", "Name the folder of a site.")
    except OSError as error:
        raise LabError(f"the site in {folder} cannot be read: {error.strerror}") from error
    return packed.getvalue()


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _masters(lab: DockerLab) -> list[Node]:
    """Where a site is changed: on the master, or, where nothing is replicated, on each real server."""
    web_data = lab.topology.web_data
    return [lab.node(web_data.master)] if web_data else lab.nodes("web")


def _do(node: Node, script: str, *paths: str) -> None:
    done = node.exec("sh", "-c", script, "deploy", SITE, *paths, timeout_s=COPY_S)
    if not done.ok:
        raise LabError(f"{node.name}: the site could not be changed: {done.stderr.strip() or done.stdout.strip()}")


def _everywhere(lab: DockerLab) -> bool:
    """Whether all real servers have the same; it is what was deployed, for the master has that. Raises NotYet."""
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
        raise NotYet(f"{', '.join(behind)}: not as on {lab.topology.web_data.master}")
    return True
