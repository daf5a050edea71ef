"""Faults of the backups: the place that keeps them is full, or what it keeps has rotted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from faults.data.nfs import having
from faults.fault import Change, SimpleFault, must, running, seen, sh
from faults.node import needs_own_kernel, writable, write
from harness.protocols import Lab, Node
from harness.records import LabError, Undo
from harness.wait import NotYet

Kind = Literal["database", "uploads"]

STATE = "/run/monkeywrench/faults"


@dataclass(frozen=True)
class Backup:
    """A backup: who keeps it and where, whose it is, and under which address it is had back from there."""

    kind: Kind
    keeper: Node
    folder: str
    source: Node
    original: str
    """The folder on the source that it is of."""
    url: str


def parse_settings(text: str) -> dict[str, str]:
    """``KEY=value`` and ``key = value`` lines. Pure."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs}


def backup_of(lab: Lab, kind: Kind) -> Backup:
    """The backup of that kind. Raises LabError when the lab has none, or a node of it does not run."""
    plan = f"/etc/monkeywrench/{kind}-backup"
    sources = having(lab, plan, "db" if kind == "database" else "web")
    keepers = having(lab, f"/etc/rsyncd.d/{kind}-backup.conf")
    if not sources or not keepers or not keepers[0][1]:
        raise LabError(
            f"no backup of the {kind} is kept between running nodes of this lab",
            "`backup_on` in the tables [database] and [variable_data] names who keeps it.",
        )
    made, kept = parse_settings(sources[0][1]), parse_settings(keepers[0][1])
    return Backup(kind, keepers[0][0], kept["path"], sources[0][0], made["FOLDER"], made["TARGET"])


class _BackupFault(SimpleFault):
    of: Kind = Field("database", description="Which backup: of the database, or of the uploads")

    def available(self, lab: Lab) -> str | None:
        """None, or the reason why this lab cannot do it."""
        try:
            return self.possible(backup_of(lab, self.of).keeper)
        except LabError as error:
            return str(error)

    def possible(self, keeper: Node) -> str | None:
        """None, or the reason why this node cannot have it."""
        return None


class BackupTargetFull(_BackupFault):
    """Fill the disk that backups are kept on. Undone by a disk as before; what came meanwhile was never kept.

    The folder is covered by an overlay whose upper half is full, so that the backups of before can still be read.
    """

    name: ClassVar[str] = "data.backup-target-full"

    def possible(self, keeper: Node) -> str | None:
        """Needs a kernel of its own, to mount."""
        return needs_own_kernel(keeper, "cannot mount a full disk over the folder")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: two mounts."""
        backup = backup_of(lab, self.of)
        node, folder, over = backup.keeper, backup.folder, f"{STATE}/full-{self.of}"

        def full() -> str:
            return seen(
                node,
                lambda said: "No space left" in said.stderr,
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
"""Lazily: a transfer may be under way, which ends in what nobody can see any more."""

PAGE_BYTES = 16384
"""InnoDB's page, each of which has a checksum (innodb_page_size in MariaDB's documentation)."""

FLIP_BYTES = 16
FLIPS = 8


def places(size: int) -> list[tuple[int, int]]:
    """Where to flip bytes in a file of that size: offset and length, in its middle or in its first pages. Pure."""
    if size < PAGE_BYTES:
        return [(size // 2, min(FLIP_BYTES, size - size // 2))] if size else []
    return [(page * PAGE_BYTES + PAGE_BYTES // 2, FLIP_BYTES) for page in range(min(FLIPS, size // PAGE_BYTES))]


def flipped(content: bytes) -> bytes:
    """Every bit the other way round. Pure."""
    return bytes(byte ^ 0xFF for byte in content)


class BackupCorrupted(_BackupFault):
    """Flip bytes in the current backup, as a disk that rots; no size or time tells. Undone by the bytes of before.

    The backup of the database is replaced by the next one. Of uploads, a file that is the same already is linked from
    one backup to the next, and what has rotted with it.
    """

    name: ClassVar[str] = "data.backup-corrupted"

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: some bytes of a file of the current backup."""
        backup = backup_of(lab, self.of)
        node = running(backup.keeper)
        number, file, size = self._file(backup)
        path = f"{backup.folder}/{number}/{file}"
        flips = [(offset, _read(node, path, offset, length)) for offset, length in places(size)]
        there = [f"{offset}:{was.hex()}:{flipped(was).hex()}" for offset, was in flips]
        back = [f"{offset}:{flipped(was).hex()}:{was.hex()}" for offset, was in flips]
        check = sh(
            CHECK[self.of], f"{backup.url}/{number}/{file}", f"/tmp/monkeywrench-{self.of}", f"{backup.original}/{file}"
        )

        def rotten() -> str:
            said = backup.source.exec(*check, timeout_s=30)
            if said.exit_code != ROTTEN:
                raise NotYet((said.stdout + said.stderr).strip()[-200:] or "it is sound")
            what = (said.stdout + said.stderr).strip().splitlines()[0]
            return f"{file} of backup {number} of the {self.of}, had back from {node.name}: {what}"

        def sound() -> None:
            said = backup.source.exec(*check, timeout_s=30)
            if said.exit_code == ROTTEN:
                raise NotYet((said.stdout + said.stderr).strip()[-200:])

        return [
            Change(
                node,
                f"backup of the {self.of}",
                lambda: must(node, *_swap(f"{backup.folder}/{number}/{file}", there)),
                (Undo(_swap(f"{backup.folder}/*/{file}", back)),),
                rotten,
                sound,
                detail={"file": path, "bytes": sum(len(was) for _, was in flips)},
            )
        ]

    def _file(self, backup: Backup) -> tuple[str, str, int]:
        """The current backup's number, a file of it, and its size."""
        pattern = "site/*.ibd" if self.of == "database" else "*"
        found = must(backup.keeper, *sh(FIRST_FILE, backup.folder, pattern)).stdout.strip()
        if not found:
            raise LabError(
                f"{backup.keeper.name} has no backup of the {self.of} with a file in it", "Wait for the next backup."
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
ROTTEN = 9
GET = 'rsync -a "$1" "$2" || exit 1; '
CHECK = {
    "database": GET
    + f'said=$(innochecksum "$2" 2>&1); e=$?; rm "$2"; [ $e = 0 ] || {{ echo "$said"; exit {ROTTEN}; }}',
    "uploads": GET + f'said=$(cmp "$2" "$3" 2>&1); e=$?; rm "$2"; [ $e != 1 ] || {{ echo "$said"; exit {ROTTEN}; }}',
}
"""On the node whose backup it is: get a file back (``$1`` to ``$2``), and see whether it is sound, or as ``$3``."""


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
"""In all files of a pattern: ``OFFSET:WAS:BECOMES``. Other bytes are left alone, and the times are as before."""
