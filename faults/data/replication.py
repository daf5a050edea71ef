"""Faults of the site's folder that the master replicates to the other real servers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from faults.fault import Change, SimpleFault, must, seen, sh
from faults.targets import Replication, replication_of
from harness.protocols import Lab, Node
from harness.records import EffectKind, LabError, Undo
from harness.wait import NotYet


class _ReplicationFault(SimpleFault):
    """A fault of the replication, where the topology has one."""

    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.CHANGES_DATA,)

    def affected(self, lab: Lab) -> tuple[str, ...]:
        """The master."""
        return (self.target(lab).master.name,)

    def target(self, lab: Lab) -> Replication:
        """The replication."""
        return replication_of(lab)


LARGE = "monkeywrench-large.bin"
PARTIAL = ".monkeywrench-partial"
"""Where the targets keep the part of the large file that arrived. The master has no such folder, so the next complete
round deletes it."""

WRAPPER = "/usr/local/bin/rsync"
"""It comes before /usr/bin in the path of all services."""

CUT_S = 2


def wrapper(kib_per_s: int) -> str:
    """An rsync(1) that pushes pages slowly, and is killed after ``CUT_S``. Pure."""
    slowly = f"--bwlimit={kib_per_s} --partial-dir=/{PARTIAL}"
    return f"""#!/bin/sh
case " $* " in
*" --delay-updates "*) exec timeout -s KILL {CUT_S} /usr/bin/rsync {slowly} "$@" ;;
esac
exec /usr/bin/rsync "$@"
"""


class ReplicationInterrupted(_ReplicationFault):
    """Publish a large file and cut every push of it midway, so that all real servers keep the old pages.

    Undone by removing the file and the wrapper that cuts.
    """

    name: ClassVar[str] = "data.replication-interrupted"
    after_kib: int = Field(512, ge=64, le=4096, description="Amount that a push transfers before the cut, in KiB")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """On the master: a wrapper of rsync, and a file that it cannot transfer."""
        web = self.target(lab)
        if web.master.exec("test", "-e", WRAPPER).ok:
            raise LabError(f"{web.master.name} already has a {WRAPPER}, which would be overwritten")
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
                raise NotYet(f"cut on: {', '.join(behind) or 'none'}; failed on: {', '.join(failed) or 'none'}")
            parts = ", ".join(f"{name} has {there} bytes" for name, there in sizes.items())
            return f"of a file of {size} bytes, {parts}; {web.master.name} reports them as not reached"

        def whole() -> None:
            if problems := web.account()["problems"]:
                raise NotYet(problems)
            for node in web.targets:
                seen(node, lambda done: not done.ok, "no partial file", "test", "-e", f"{web.folder}/{PARTIAL}")

        undo = (Undo(("rm", "-f", WRAPPER, f"/tmp/{LARGE}.part", file)),)
        return [Change(web.master, "replication", apply, undo, cut, whole, proof_within_s=CUT_WITHIN_S)]


CUT_WITHIN_S = 90.0
"""The quiet time, a snapshot of the folder, a push to all targets; after a slow target, another round."""


def _size(node: Node, path: str) -> int:
    done = node.exec("stat", "-c", "%s", path)
    return int(done.stdout) if done.ok and done.stdout.strip() else 0


ASIDE = ".monkeywrench-aside"


class ReplicationSourceEmpty(_ReplicationFault):
    """Empty the replicated folder, as if its disk were not mounted. Undone by moving all files back."""

    name: ClassVar[str] = "data.replication-source-empty"

    def changes(self, lab: Lab) -> Sequence[Change]:
        """All files move to a folder beside it, on the same file system.

        The undo restores the folder's own time to the second: a hostfs sets no finer time (measured with 7.2.7).
        """
        web = self.target(lab)
        node, folder, aside = web.master, web.folder, web.folder + ASIDE
        before = _entries(node, folder)
        if not before:
            raise LabError(f"{folder} of {node.name} is already empty")
        time = must(node, "stat", "-c", "%.9Y", folder).stdout.strip()
        rounds = web.account()["rounds"]

        def empty() -> str:
            account = web.account()
            if left := _entries(node, folder):
                raise NotYet(f"{folder} has {left} entries")
            if account["rounds"] < rounds + 2:  # the first round to end may have begun before
                raise NotYet("no round of replication has begun since")
            kept = ", ".join(f"{target.name} has {_entries(target, folder)}" for target in web.targets)
            problems = account["problems"] or "no problems"
            return f"{folder} of {node.name} has 0 of {before} entries, {kept}; the replication reports: {problems}"

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
