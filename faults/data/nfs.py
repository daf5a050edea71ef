"""Faults of the files that real servers share over NFS."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from faults.fault import Change, SimpleFault, must, sh
from faults.programs import SERVICES, when_ready
from faults.targets import LOOK_S, Share, share_of
from harness.formats import exports
from harness.formats.exports import Export
from harness.protocols import Lab
from harness.records import EffectKind, LabError, Undo
from harness.wait import NotYet

THREADS = "/proc/fs/nfsd/threads"
SERVICE = f"{SERVICES}/nfsd"


class _NfsFault(SimpleFault):
    """A fault of the NFS server, where the topology has one."""

    of_service: ClassVar[str] = "nfsd"

    def affected(self, lab: Lab) -> tuple[str, ...]:
        """The server's node."""
        return (self.target(lab).server.name,)

    def target(self, lab: Lab) -> Share:
        """The variable data."""
        return share_of(lab)


class NfsStalled(_NfsFault):
    """Stop all threads of the NFS server, so that every client waits. Undone by starting them again."""

    name: ClassVar[str] = "data.nfs-stalled"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.SERVICE_DOWN,)

    def changes(self, lab: Lab) -> Sequence[Change]:
        """nfsd's threads (nfsd(7))."""
        share = self.target(lab)

        def hangs() -> str:
            began_ns = lab.now_ns()
            if share.look().stdout:
                raise NotYet(f"{share.client.name} gets an answer")
            waited_s = (lab.now_ns() - began_ns) / 1e9
            if waited_s < LOOK_S:
                raise NotYet(f"{share.client.name} gets an error")
            return f"{share.client.name} waited {waited_s:.1f} s for {share.folder} without an answer"

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


START_THREADS = f"grep -qx 0 {THREADS} || exit 0; $(grep rpc.nfsd {SERVICE}/run)"
"""As its service does; it changes nothing where threads run."""

NFS_SERVES = f"grep -qsvx 0 {THREADS}"

THREADS_CLAIM = "service nfsd"


class NfsRestarted(_NfsFault):
    """Restart the NFS server: clients lose their connections and continue. There is nothing to undo."""

    name: ClassVar[str] = "data.nfs-restarted"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.RESTARTS,)

    def changes(self, lab: Lab) -> Sequence[Change]:
        """nfsd gets new threads."""
        share = self.target(lab)
        before = set(must(share.server, "pgrep", "-x", "nfsd").stdout.split())

        def restarted() -> str:
            now = set(share.server.exec("pgrep", "-x", "nfsd").stdout.split())
            if len(now) < len(before) or now & before:
                raise NotYet(f"{len(now & before)} of {len(now)} threads are still the same")
            return f"{len(now)} new nfsd threads run on {share.server.name}; {share.served()}"

        restart = ("sv", "-w", "20", "restart", SERVICE)
        return [
            Change(
                share.server,
                THREADS_CLAIM,
                lambda: must(share.server, *restart, timeout_s=30),
                (Undo(("sv", "up", SERVICE)),),
                restarted,
                share.served,
            )
        ]


EXPORTS_CLAIM = "exports"


def first_export(printed: str) -> Export:
    """The first export of ``exportfs -s``. Raises LabError when there is none. Pure."""
    for export in exports.parse(printed):
        return export
    raise LabError("the NFS server exports nothing", "Check that it runs: `monkeywrench status`.")


class _ExportFault(_NfsFault):
    """A change of the export, which the undo sets to what /etc/exports says."""

    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.CHANGES_ANSWERS,)
    errors: ClassVar[tuple[str, ...]]

    @abstractmethod
    def changed(self, export: Export) -> tuple[str, ...]:
        """The command that changes the export."""

    def changes(self, lab: Lab) -> Sequence[Change]:
        """The kernel's table of exports (exportfs(8))."""
        share = self.target(lab)
        apply = self.changed(first_export(must(share.server, "exportfs", "-s").stdout))
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
    """Withdraw the export, so that clients are refused what they have mounted. Undone as /etc/exports says."""

    name: ClassVar[str] = "data.nfs-export-withdrawn"
    errors: ClassVar[tuple[str, ...]] = ("Permission denied", "Stale file handle")

    def changed(self, export: Export) -> tuple[str, ...]:
        """Unexport the folder."""
        return ("exportfs", "-u", f"{export.client}:{export.path}")


class NfsOtherFsid(_ExportFault):
    """Export the folder with another fsid, so that every handle is stale. Undone as /etc/exports says."""

    name: ClassVar[str] = "data.nfs-other-fsid"
    errors: ClassVar[tuple[str, ...]] = ("Stale file handle",)
    fsid: int = Field(4711, ge=1, le=2**31 - 1, description="File system id to export with (exports(5))")

    def changed(self, export: Export) -> tuple[str, ...]:
        """Export the folder again."""
        fsid = f"fsid={self.fsid}"
        if fsid in export.options:
            raise LabError(f"the fsid of {export.path} is already {self.fsid}")
        others = [option for option in export.options if not option.startswith("fsid=")]
        return ("exportfs", "-i", "-o", ",".join((*others, fsid)), f"{export.client}:{export.path}")
