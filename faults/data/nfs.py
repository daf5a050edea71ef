"""Faults of the files that real servers share: variable data over NFS, replicated web data, and the backups.

Where these are is read from the nodes' own settings under /etc/monkeywrench.
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from faults.fault import Change, SimpleFault, must, seen, sh
from faults.when_ready import when_ready
from harness.protocols import Lab, Node
from harness.records import LabError, Output, Power, Undo
from harness.wait import NotYet

NFS_SERVER = "/etc/monkeywrench/uploads-backup"
NFS_CLIENT = "/etc/monkeywrench/uploads.mount"
REPLICATION = "/etc/monkeywrench/replicate.json"
THREADS = "/proc/fs/nfsd/threads"

LOOK_S = 2
"""How long a look at a mount may take: a hard mount waits for ever, and may be left by SIGKILL only (nfs(5))."""


def having(lab: Lab, path: str, role: str = "web") -> list[tuple[Node, str]]:
    """The running nodes of a role that have such a file, and what is in it."""
    found = [(node, node.exec("cat", path)) for node in lab.nodes(role) if node.power() is Power.RUNNING]
    return [(node, said.stdout) for node, said in found if said.ok]


class _FileFault(SimpleFault):
    """A fault of what real servers share, where the topology has it."""

    def available(self, lab: Lab) -> str | None:
        """None, or the reason why this lab cannot do it."""
        try:
            self.there(lab)
        except LabError as error:
            return str(error)
        return None

    @abstractmethod
    def there(self, lab: Lab) -> object:
        """What it is a fault of. Raises LabError when the lab has none."""


# --- variable data


@dataclass(frozen=True)
class Share:
    """The folder that real servers share over NFS, its server, and one of its clients."""

    server: Node
    client: Node
    folder: str

    def look(self) -> Output:
        """statfs(2), which an NFS client always asks its server for."""
        return self.client.exec("timeout", "-s", "KILL", str(LOOK_S), "stat", "-f", "-c", "%T", self.folder)

    def served(self) -> str:
        """See that the client is served."""
        said = self.look()
        if said.stdout.strip() != "nfs":
            raise NotYet(f"{self.client.name}: {said.stderr.strip() or f'{self.folder} does not answer'}")
        return f"{self.client.name} sees {self.folder}"

    def refused(self, *words: str) -> Callable[[], str]:
        """A proof: the client gets one of these errors."""

        def look() -> str:
            said = self.look()
            if not any(word in said.stderr for word in words):
                raise NotYet(f"{self.client.name}: {said.stdout.strip()} {said.stderr.strip()}")
            return f"{self.client.name}: {said.stderr.strip()}"

        return look


def share_of(lab: Lab) -> Share:
    """The variable data. Raises LabError when the lab has none, or its nodes do not run."""
    servers, clients = having(lab, NFS_SERVER), having(lab, NFS_CLIENT)
    words = clients[0][1].split() if clients else []
    if not servers or len(words) < 2:
        raise LabError(
            "no variable data is shared between running nodes of this lab",
            "It takes the table [variable_data], its master, and another real server.",
        )
    return Share(servers[0][0], clients[0][0], words[1])


class _NfsFault(_FileFault):
    def there(self, lab: Lab) -> Share:
        """The variable data."""
        return share_of(lab)


class NfsStalled(_NfsFault):
    """Take all threads from the NFS server: nobody answers, and every client waits. Undone by starting them again."""

    name: ClassVar[str] = "data.nfs-stalled"

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: nfsd's threads (nfsd(7))."""
        share = self.there(lab)

        def hangs() -> str:
            began_ns = lab.now_ns()
            if share.look().stdout:
                raise NotYet(f"{share.client.name} is answered")
            waited_s = (lab.now_ns() - began_ns) / 1e9
            if waited_s < LOOK_S:
                raise NotYet(f"{share.client.name} gets an error")
            return f"{share.client.name} waits in vain for {share.folder}, {waited_s:.1f} s until it was killed"

        stop = sh(f"echo 0 > {THREADS}")
        return [
            Change(
                share.server,
                THREADS_CLAIM,
                lambda: must(share.server, *stop),
                (Undo(sh(START_THREADS)),),
                hangs,
                share.served,
                again=(when_ready(NFS_SERVES, *stop),),
            )
        ]


START_THREADS = f"grep -qx 0 {THREADS} || exit 0; $(grep rpc.nfsd /run/service/nfsd/run)"
"""As its service does; nothing where there are threads already."""

NFS_SERVES = f"grep -qsvx 0 {THREADS}"

THREADS_CLAIM = "service nfsd"


class NfsRestarted(_NfsFault):
    """Restart the NFS server: its clients lose their connections, and go on. There is nothing to undo."""

    name: ClassVar[str] = "data.nfs-restarted"

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: other threads."""
        share = self.there(lab)
        before = set(must(share.server, "pgrep", "-x", "nfsd").stdout.split())

        def restarted() -> str:
            now = set(share.server.exec("pgrep", "-x", "nfsd").stdout.split())
            if len(now) < len(before) or now & before:
                raise NotYet(f"of {len(now)} threads {len(now & before)} are still the same")
            return f"{len(now)} other nfsd threads run on {share.server.name}; {share.served()}"

        restart = ("sv", "-w", "20", "restart", "/run/service/nfsd")
        return [
            Change(
                share.server,
                THREADS_CLAIM,
                lambda: must(share.server, *restart, timeout_s=30),
                (Undo(("sv", "up", "/run/service/nfsd")),),
                restarted,
                share.served,
            )
        ]


@dataclass(frozen=True)
class Export:
    """An export as ``exportfs -s`` prints it."""

    path: str
    clients: str
    options: tuple[str, ...]

    def with_fsid(self, fsid: int) -> Export:
        """The same export, another file system as its clients see it."""
        others = tuple(option for option in self.options if not option.startswith("fsid="))
        return Export(self.path, self.clients, (*others, f"fsid={fsid}"))


def parse_export(printed: str) -> Export:
    """The first export of ``exportfs -s``. Raises LabError when there is none. Pure."""
    found = re.match(r"(\S+)\s+(\S+)\((\S+)\)", printed)
    if not found:
        raise LabError("the NFS server exports nothing", "Is it running? `monkeywrench status` shows.")
    return Export(found[1], found[2], tuple(found[3].split(",")))


EXPORTS_CLAIM = "exports"


class _ExportFault(_NfsFault):
    """The export is another one than /etc/exports says, which is what undoes it."""

    errors: ClassVar[tuple[str, ...]]

    @abstractmethod
    def changed(self, export: Export) -> tuple[str, ...]:
        """The command that changes it."""

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: the kernel's table of exports (exportfs(8))."""
        share = self.there(lab)
        apply = self.changed(parse_export(must(share.server, "exportfs", "-s").stdout))
        return [
            Change(
                share.server,
                EXPORTS_CLAIM,
                lambda: must(share.server, *apply),
                (Undo(("exportfs", "-ra")),),
                share.refused(*self.errors),
                share.served,
                again=(when_ready(NFS_SERVES, *apply),),
            )
        ]


class NfsExportWithdrawn(_ExportFault):
    """Withdraw the export: clients are refused what they have mounted. Undone by exporting what /etc/exports says."""

    name: ClassVar[str] = "data.nfs-export-withdrawn"
    errors: ClassVar[tuple[str, ...]] = ("Permission denied", "Stale file handle")

    def changed(self, export: Export) -> tuple[str, ...]:
        """Unexport."""
        return ("exportfs", "-u", f"{export.clients}:{export.path}")


class NfsOtherFsid(_ExportFault):
    """Export the folder as another file system: every handle is stale (ESTALE). Undone by the fsid of /etc/exports."""

    name: ClassVar[str] = "data.nfs-other-fsid"
    errors: ClassVar[tuple[str, ...]] = ("Stale file handle",)
    fsid: int = Field(4711, ge=1, le=2**31 - 1, description="The other file system id (exports(5))")

    def changed(self, export: Export) -> tuple[str, ...]:
        """Export anew."""
        other = export.with_fsid(self.fsid)
        if other.options[-1] in export.options:
            raise LabError(f"the fsid of {export.path} is {self.fsid} already")
        return ("exportfs", "-i", "-o", ",".join(other.options), f"{export.clients}:{export.path}")


# --- web data


@dataclass(frozen=True)
class Replication:
    """The replication of the site's folder: the master, its plan, and its running targets."""

    master: Node
    folder: str
    state: str
    targets: tuple[Node, ...]

    def account(self) -> dict[str, Any]:
        """What the master's script says of itself. Raises NotYet."""
        return parse_account(self.master.exec("cat", self.state).stdout)


def parse_account(printed: str) -> dict[str, Any]:
    """The script's account, with its ``rounds``, ``failed`` and ``trouble``. Raises NotYet for anything else. Pure."""
    try:
        found = json.loads(printed)
        return {"rounds": int(found["rounds"]), "failed": list(found["failed"]), "problems": str(found["problems"])}
    except (ValueError, KeyError, TypeError):
        raise NotYet("replication gives no account of itself") from None


def replication_of(lab: Lab) -> Replication:
    """The replication. Raises LabError when the lab has none, or none of its targets runs."""
    for master, text in having(lab, REPLICATION):
        plan: Mapping[str, Any] = json.loads(text) if text else {}
        nodes = [lab.node(name) for name in plan.get("targets", {})]
        targets = tuple(node for node in nodes if node.power() is Power.RUNNING)
        if targets:
            return Replication(master, plan["folder"], plan["state"], targets)
    raise LabError(
        "no web data is replicated between running nodes of this lab",
        "It takes the table [web_data], its master, and another real server.",
    )


class _ReplicationFault(_FileFault):
    def there(self, lab: Lab) -> Replication:
        """The replication."""
        return replication_of(lab)


LARGE = "monkeywrench-large.bin"
PARTIAL = ".monkeywrench-partial"
"""Where the targets keep what came of the large file. It is below the site's folder, but not on the master: so the
next round that comes to its end deletes it."""

WRAPPER = "/usr/local/bin/rsync"
"""Before /usr/bin in the path of all services."""

CUT_S = 2


def wrapper(kib_per_s: int) -> str:
    """An rsync(1) that pushes pages slowly, and dies in the middle of what takes longer than ``CUT_S``. Pure."""
    slowly = f"--bwlimit={kib_per_s} --partial-dir=/{PARTIAL}"
    return f"""#!/bin/sh
case " $* " in
*" --delay-updates "*) exec timeout -s KILL {CUT_S} /usr/bin/rsync {slowly} "$@" ;;
esac
exec /usr/bin/rsync "$@"
"""


class ReplicationInterrupted(_ReplicationFault):
    """Publish a large file, and cut every push of pages in its middle, so that all real servers keep the old ones.

    Undone by taking the file and what cuts away.
    """

    name: ClassVar[str] = "data.replication-interrupted"
    after_kib: int = Field(512, ge=64, le=4096, description="How much of a push gets through before it is cut")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change, on the master: another rsync in front of rsync, and a file that it cannot bring over."""
        web = self.there(lab)
        if web.master.exec("test", "-e", WRAPPER).ok:
            raise LabError(f"{web.master.name} has a {WRAPPER} already, which would be lost")
        size = 32 * self.after_kib * 1024
        file = f"{web.folder}/{LARGE}"
        publish = sh('head -c "$1" /dev/urandom > "$2.part" && mv "$2.part" "$3"', str(size), f"/tmp/{LARGE}", file)

        def apply() -> None:
            web.master.put(WRAPPER, wrapper(self.after_kib // CUT_S).encode(), 0o755)
            must(web.master, *publish, timeout_s=30)

        def cut() -> str:
            failed = web.account()["failed"]
            sizes = {node.name: _size(node, f"{web.folder}/{PARTIAL}/{LARGE}") for node in web.targets}
            behind = [name for name, there in sizes.items() if 0 < there < size and name in failed]
            if len(behind) < len(sizes):
                raise NotYet(f"cut: {', '.join(behind) or 'nowhere'}; failed: {', '.join(failed) or 'nowhere'}")
            parts = ", ".join(f"{name} has {there} bytes" for name, there in sizes.items())
            return f"of a page of {size} bytes {parts} in a partial file, and {web.master.name} calls them not reached"

        def whole() -> None:
            if problems := web.account()["problems"]:
                raise NotYet(problems)
            for node in web.targets:
                seen(node, lambda said: not said.ok, "nothing is left", "test", "-e", f"{web.folder}/{PARTIAL}")

        undo = (Undo(("rm", "-f", WRAPPER, f"/tmp/{LARGE}.part", file)),)
        return [Change(web.master, "replication", apply, undo, cut, whole, proof_within_s=CUT_WITHIN_S)]


CUT_WITHIN_S = 90.0
"""Quiet, a picture of the folder, a push to all; where one target was slow there is another round."""


def _size(node: Node, path: str) -> int:
    said = node.exec("stat", "-c", "%s", path)
    return int(said.stdout) if said.ok and said.stdout.strip() else 0


ASIDE = ".monkeywrench-aside"


class ReplicationSourceEmpty(_ReplicationFault):
    """Empty the folder that is replicated, as a disk that was not mounted does. Undone by putting all of it back."""

    name: ClassVar[str] = "data.replication-source-empty"

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: everything in the folder is moved beside it, on the same file system.

        Of the folder's own time the undo puts back the seconds: a hostfs sets no more of it (measured with 7.2.7).
        """
        web = self.there(lab)
        node, folder, aside = web.master, web.folder, web.folder + ASIDE
        before = _entries(node, folder)
        if not before:
            raise LabError(f"{folder} of {node.name} is empty already")
        time = must(node, "stat", "-c", "%.9Y", folder).stdout.strip()
        rounds = web.account()["rounds"]

        def empty() -> str:
            account = web.account()
            if left := _entries(node, folder):
                raise NotYet(f"{folder} has {left} entries")
            if account["rounds"] < rounds + 2:  # the first to end may have begun before
                raise NotYet("no round of replication has seen it from its beginning")
            kept = ", ".join(f"{target.name} has {_entries(target, folder)}" for target in web.targets)
            says = account["problems"] or "nothing is wrong"
            return f"{folder} of {node.name} has none of its {before} entries, {kept}; replication says: {says}"

        def full() -> None:
            if (now := _entries(node, folder)) < before:
                raise NotYet(f"{folder} has {now} of {before} entries")
            if problems := web.account()["problems"]:
                raise NotYet(problems)

        undo = (Undo(sh(MOVE_BACK, folder, aside, time)),)
        return [Change(node, "replication", lambda: must(node, *sh(MOVE_ASIDE, folder, aside)), undo, empty, full)]


MOVE_ALL = "find {} -mindepth 1 -maxdepth 1 -exec mv -t {} -- {{}} +"
MOVE_ASIDE = 'mkdir "$2" && ' + MOVE_ALL.format('"$1"', '"$2"')
MOVE_BACK = f"""
[ -d "$2" ] || exit 0
{MOVE_ALL.format('"$2"', '"$1"')} && rmdir "$2" && touch -d "@$3" "$1"
"""


def _entries(node: Node, folder: str) -> int:
    return int(must(node, *sh('ls -A "$1" | wc -l', folder)).stdout)
