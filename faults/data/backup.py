"""Faults of the backups: their disk is full, or a backup is corrupt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from faults.fault import Change, SimpleFault, must, require_own_kernel, running, seen, sh
from faults.node import writable, write
from faults.programs import STATE
from faults.targets import Backup, BackupKind, backup_of
from harness.protocols import Lab, Node
from harness.records import EffectKind, LabError, Undo
from harness.wait import NotYet


class _BackupFault(SimpleFault):
    """A fault of one backup, where the topology keeps it."""

    of: BackupKind = Field("database", description="Data whose backup to hit")

    def affected(self, lab: Lab) -> tuple[str, ...]:
        """The node that keeps the backup."""
        return (backup_of(lab, self.of).keeper.name,)

    def target(self, lab: Lab) -> Backup:
        """The backup, if the node that keeps it can have the fault."""
        backup = backup_of(lab, self.of)
        self.require(backup.keeper)
        return backup

    def require(self, keeper: Node) -> None:
        """What the fault needs of the node that keeps the backup. Raises LabError."""


class BackupTargetFull(_BackupFault):
    """Fill the disk that keeps the backups. Undone by freeing it; backups that failed meanwhile stay missing.

    An overlay with a full upper layer covers the folder, so that earlier backups can still be read.
    """

    name: ClassVar[str] = "data.backup-target-full"
    does: ClassVar[tuple[EffectKind, ...]] = (
        EffectKind.EXHAUSTS,
        EffectKind.FAILS_WRITES,
    )

    def require(self, keeper: Node) -> None:
        """A kernel of its own, to mount."""
        require_own_kernel(keeper, "cannot mount a full disk over the folder")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """2 mounts."""
        backup = self.target(lab)
        node, folder, over = backup.keeper, backup.folder, f"{STATE}/full-{self.of}"

        def full() -> str:
            return seen(
                node,
                lambda done: "No space left" in done.stderr,
                f"a write to {folder} of {node.name} fails: no space left on device",
                *write(folder),
            )

        apply = sh(COVER, folder, over)
        return [
            Change(
                running(node),
                f"backup of the {self.of}",
                lambda: must(node, *apply),
                (Undo(sh(UNCOVER, folder, over)),),
                full,
                lambda: writable(node, folder),
                again=(Undo(apply),),
            )
        ]


COVER = """
modprobe overlay
mkdir -p "$2" && mount -t tmpfs -o size=64k monkeywrench "$2" && mkdir "$2/upper" "$2/work" &&
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" monkeywrench "$1" || exit 1
cat /dev/zero > "$2/full" 2> /dev/null
true
"""

UNCOVER = """
! grep -q "^monkeywrench $1 overlay " /proc/mounts || umount -l "$1" || exit 1
! grep -q "^monkeywrench $2 tmpfs " /proc/mounts || umount -l "$2" || exit 1
[ ! -d "$2" ] || rmdir "$2"
"""
"""Lazily, because a transfer may be under way, which then ends in a folder that is no longer visible."""

PAGE_BYTES = 16384
"""An InnoDB page; each has a checksum (innodb_page_size in MariaDB's documentation)."""

FLIP_BYTES = 16
FLIPS = 8


def places(size: int) -> list[tuple[int, int]]:
    """Offsets and lengths to flip in a file of that size: in its middle, or in its first pages. Pure."""
    if size < PAGE_BYTES:
        return [(size // 2, min(FLIP_BYTES, size - size // 2))] if size else []
    return [(page * PAGE_BYTES + PAGE_BYTES // 2, FLIP_BYTES) for page in range(min(FLIPS, size // PAGE_BYTES))]


def flipped(content: bytes) -> bytes:
    """Every bit inverted. Pure."""
    return bytes(byte ^ 0xFF for byte in content)


class BackupCorrupted(_BackupFault):
    """Flip bytes in the current backup, as a failing disk does. Undone by restoring the old bytes.

    Size and time of the file do not change. The next backup of the database replaces a corrupt one. Backups of the
    uploads link unchanged files to the previous backup, and so a corrupt file, too.
    """

    name: ClassVar[str] = "data.backup-corrupted"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.CHANGES_DATA,)

    def changes(self, lab: Lab) -> Sequence[Change]:
        """Some bytes of a file of the current backup."""
        backup = self.target(lab)
        node = running(backup.keeper)
        number, file, size = self._file(backup)
        path = f"{backup.folder}/{number}/{file}"
        flips = [(offset, _read(node, path, offset, length)) for offset, length in places(size)]
        there = [f"{offset}:{was.hex()}:{flipped(was).hex()}" for offset, was in flips]
        back = [f"{offset}:{flipped(was).hex()}:{was.hex()}" for offset, was in flips]
        check = sh(
            CHECK[self.of], f"{backup.url}/{number}/{file}", f"/tmp/monkeywrench-{self.of}", f"{backup.original}/{file}"
        )

        def corrupt() -> str:
            done = backup.source.exec(*check, timeout_s=30)
            if done.exit_code != CORRUPT:
                raise NotYet((done.stdout + done.stderr).strip()[-200:] or "the file is intact")
            what = (done.stdout + done.stderr).strip().splitlines()[0]
            return f"{file} of backup {number} of the {self.of}, fetched from {node.name}: {what}"

        def intact() -> None:
            done = backup.source.exec(*check, timeout_s=30)
            if done.exit_code == CORRUPT:
                raise NotYet((done.stdout + done.stderr).strip()[-200:])

        return [
            Change(
                node,
                f"backup of the {self.of}",
                lambda: must(node, *_swap(f"{backup.folder}/{number}/{file}", there)),
                (Undo(_swap(f"{backup.folder}/*/{file}", back)),),
                corrupt,
                intact,
                detail={"file": path, "bytes": sum(len(was) for _, was in flips)},
            )
        ]

    def _file(self, backup: Backup) -> tuple[str, str, int]:
        """The number of the current backup, a file of it, and the size of the file."""
        pattern = "site/*.ibd" if self.of == "database" else "*"
        found = must(backup.keeper, *sh(FIRST_FILE, backup.folder, pattern)).stdout.strip()
        if not found:
            raise LabError(
                f"{backup.keeper.name} has no backup of the {self.of} with a file", "Wait for the next backup."
            )
        number, file, size = found.split(" ")
        return number, file, int(size)


FIRST_FILE = """
number=$(readlink "$1/current") && cd "$1/$number" || exit 0
for file in $2; do
    [ -s "$file" ] && [ "$file" != backup.json ] && { echo "$number $file $(stat -c %s "$file")"; exit 0; }
done
exit 0
"""
CORRUPT = 9
GET = 'rsync -a "$1" "$2" || exit 1; '
CHECK = {
    "database": GET
    + f'found=$(innochecksum "$2" 2>&1); e=$?; rm "$2"; [ $e = 0 ] || {{ echo "$found"; exit {CORRUPT}; }}',
    "uploads": GET + f'found=$(cmp "$2" "$3" 2>&1); e=$?; rm "$2"; [ $e != 1 ] || {{ echo "$found"; exit {CORRUPT}; }}',
}
"""On the node that is backed up: fetch a file (``$1`` to ``$2``), and check it, or compare it with ``$3``."""


def _read(node: Node, path: str, offset: int, length: int) -> bytes:
    read = ("python3", "-I", "-S", "-c", READ, path, str(offset), str(length))
    return bytes.fromhex(must(node, *read).stdout.strip())


READ = "import sys; f = open(sys.argv[1], 'rb'); f.seek(int(sys.argv[2])); print(f.read(int(sys.argv[3])).hex())"


def _swap(pattern: str, swaps: Sequence[str]) -> tuple[str, ...]:
    return ("python3", "-I", "-c", SWAP, pattern, *swaps)


SWAP = """
import glob, os, sys
for path in glob.glob(sys.argv[1]):
    with open(path, "r+b") as file:
        before = os.fstat(file.fileno())
        for swap in sys.argv[2:]:
            offset, was, becomes = swap.split(":")
            file.seek(int(offset))
            if file.read(len(was) // 2) == bytes.fromhex(was):
                file.seek(int(offset))
                file.write(bytes.fromhex(becomes))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
"""
"""Swap ``OFFSET:WAS:BECOMES`` in all files of a pattern. Other bytes and the times do not change."""
