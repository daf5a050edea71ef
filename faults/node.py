"""Faults of a whole node: its power, CPU, clock, memory, disk, or name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from pydantic import Field

from faults.fault import Change, NodeFault, must, require_own_kernel, running, seen, sh
from faults.programs import PROGRAMS, SERVICES, SETTINGS, detached
from harness.protocols import Lab, Node
from harness.records import EffectKind, LabError, Output, Power, Undo
from harness.wait import NotYet

ANSWER_TIMEOUT_S = 2.0
"""A running node answers ``true`` within milliseconds; after this long it counts as silent."""

BOOT = Undo(("boot",), "power")


class _Power(NodeFault):
    """A fault after which the node executes no command."""

    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.NODE_DOWN,)
    leaves: ClassVar[Power]
    undo: ClassVar[Undo] = BOOT

    def changes(self, lab: Lab) -> Sequence[Change]:
        """The node's power."""
        node = running(lab.node(self.node))
        return [
            Change(
                node,
                "power",
                lambda: self.strike(node),
                (self.undo,),
                lambda: self.silent(node),
                lambda: answers(node),
                detail={"power": str(self.leaves)},
            )
        ]

    @abstractmethod
    def strike(self, node: Node) -> int | None:
        """Do it; returns the time (ns) where the chassis reports it."""

    def silent(self, node: Node) -> str:
        """The chassis reports the power state, and the node is silent."""
        if node.power() is not self.leaves:
            raise NotYet(f"{node.name} is {node.power()}")
        try:
            node.exec("true", timeout_s=ANSWER_TIMEOUT_S)
        except LabError as silence:
            return f"{node.name} is {self.leaves} and takes no command: {silence}"
        raise LabError(f"no effect: the chassis reports {node.name} as {self.leaves}, but it still takes commands")


class PowerOff(_Power):
    """Cut the power of a node: nothing is flushed, and no goodbye is sent. Undone by powering it on."""

    name: ClassVar[str] = "node.power-off"
    leaves: ClassVar[Power] = Power.OFF

    def strike(self, node: Node) -> int:
        """Cut the power."""
        return node.power_off()


class Freeze(_Power):
    """Freeze a node: it keeps its memory and connections, but executes nothing. Undone by thawing it."""

    name: ClassVar[str] = "node.freeze"
    leaves: ClassVar[Power] = Power.FROZEN
    undo: ClassVar[Undo] = Undo(("thaw",), "power")

    def strike(self, node: Node) -> None:
        """Freeze it."""
        node.freeze()


class Panic(_Power):
    """Make a node's kernel panic: it stops at once and does not reboot on its own. Undone by booting it."""

    name: ClassVar[str] = "node.panic"
    leaves: ClassVar[Power] = Power.PANICKED

    def require(self, node: Node) -> None:
        """A kernel of its own."""
        require_own_kernel(node, "cannot panic")

    def strike(self, node: Node) -> None:
        """Write c to sysrq-trigger."""
        node.panic()


class Shutdown(_Power):
    """Shut a node down cleanly: its services stop, its file systems are flushed. Undone by booting it."""

    name: ClassVar[str] = "node.shutdown"
    leaves: ClassVar[Power] = Power.OFF

    def strike(self, node: Node) -> None:
        """Ask its init to shut down."""
        node.shutdown()


class Reboot(NodeFault):
    """Shut a node down cleanly and boot it again.

    The injection ends when the node is up again, so there is nothing to undo. It is up within seconds: a director may
    be up while its peer is still taking over (see docs/how-it-works.md).
    """

    name: ClassVar[str] = "node.reboot"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.RESTARTS,)

    def require(self, node: Node) -> None:
        """A kernel of its own."""
        require_own_kernel(node, "cannot be booted on its own")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """A shutdown and a boot."""
        node = running(lab.node(self.node))
        before = _boot_id(node)

        def again() -> None:
            node.shutdown()
            node.boot()

        def booted() -> str:
            if (now := _boot_id(node)) == before:
                raise NotYet("the boot_id has not changed")
            return f"{node.name} rebooted (boot_id {now})"

        return [Change(node, "power", again, (BOOT,), booted, lambda: answers(node))]


class Slow(NodeFault):
    """Give a node only a share of a CPU, as a crowded host does. Undone by giving it all."""

    name: ClassVar[str] = "node.slow"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.SLOWS,)
    share: float = Field(0.2, ge=0.02, le=0.5, description="Share of one CPU's time, in periods of 100 ms")

    def require(self, node: Node) -> None:
        """A kernel of its own."""
        require_own_kernel(node, "has no CPU of its own to slow down")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """The chassis stops and continues the whole machine in turn."""
        node = running(lab.node(self.node))
        before_ms = work_ms(lab, node)

        def slower() -> str:
            now_ms = work_ms(lab, node)
            if now_ms < before_ms / self.share / 2:
                raise NotYet(f"work that took {before_ms} ms takes {now_ms} ms")
            return f"work that took {before_ms} ms on {node.name} now takes {now_ms} ms"

        def quick() -> None:
            if (now_ms := work_ms(lab, node)) > before_ms / self.share / 2:
                raise NotYet(f"work that took {before_ms} ms takes {now_ms} ms")

        undo = (Undo(("unthrottle",), "power"),)
        return [Change(node, "processor", lambda: node.throttle(self.share), undo, slower, quick)]


class ClockJump(NodeFault):
    """Set a node's clock forward or back. Undone by setting it to the right time.

    gmond schedules by that clock: after a jump forward and back it would be silent until the time that it has already
    seen. The undo restarts it, as an operator would.
    """

    name: ClassVar[str] = "node.clock-jump"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.CHANGES_CLOCK,)
    by_s: int = Field(3600, description="Seconds to jump forward; negative: back")

    def require(self, node: Node) -> None:
        """A clock of its own, and a jump that is larger than the error of the measurement."""
        if abs(self.by_s) < 5:
            raise LabError(f"a jump of {self.by_s} s is too small to prove; use 5 s or more")
        _require_own_clock(node)

    def changes(self, lab: Lab) -> Sequence[Change]:
        """CLOCK_REALTIME of the node's kernel."""
        node = running(lab.node(self.node))
        before_s = clock_s(lab, node)
        apply = sh('date -s "@$(( $(date +%s) + $1 ))"', str(self.by_s))

        def jumped() -> str:
            by_s = clock_s(lab, node) - before_s
            if abs(by_s - self.by_s) > 3:
                raise NotYet(f"the clock is off by {by_s:.1f} s")
            return f"the clock of {node.name} is off by {by_s:.1f} s"

        undo = (Undo(("date", "-s", "@{now}")), Undo(sh(f"[ ! -d {GMOND} ] || sv restart {GMOND}")))
        return [Change(node, "clock", lambda: must(node, *apply), undo, jumped, lambda: _right(lab, node, before_s))]


GMOND = f"{SERVICES}/gmond"


class ClockDrift(NodeFault):
    """Make a node's clock run fast or slow. Undone by restoring its rate and setting the time."""

    name: ClassVar[str] = "node.clock-drift"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.CHANGES_CLOCK,)
    ppm: int = Field(
        50_000, ge=-100_000, le=100_000, description="Parts per million (10000: 36 s per hour); negative: slow"
    )

    def require(self, node: Node) -> None:
        """A clock of its own, and a drift that can be measured within seconds."""
        if abs(self.ppm) < 10_000:
            raise LabError(f"a drift of {self.ppm} ppm takes too long to prove; use 10000 ppm or more")
        _require_own_clock(node)

    def changes(self, lab: Lab) -> Sequence[Change]:
        """The length of the kernel's tick, 10,000 us at 100 Hz (adjtimex(8))."""
        node = running(lab.node(self.node))
        before_s = clock_s(lab, node)
        tick = ("adjtimex", "--tick", str(10_000 + self.ppm // 100))

        def drifts() -> str:
            by_s = clock_s(lab, node) - before_s
            if by_s * self.ppm < 0 or abs(by_s) < DRIFT_SEEN_S:
                raise NotYet(f"the clock has drifted by {by_s:.3f} s")
            return f"the clock of {node.name} has drifted by {by_s:.3f} s"

        undo = (Undo(("adjtimex", "--tick", "10000", "--frequency", "0")), Undo(("date", "-s", "@{now}")))
        return [
            Change(
                node,
                "clock",
                lambda: must(node, *tick),
                undo,
                drifts,
                lambda: _right(lab, node, before_s),
                again=(Undo(tick),),
            )
        ]


DRIFT_SEEN_S = 0.08
"""4 times as long as it takes to read a node's clock."""


class OutOfMemory(NodeFault):
    """Fill a node's memory until its kernel kills processes, and keep it full. Undone by freeing it.

    The kernel would kill the filling program last. It never kills init or the control channel.
    """

    name: ClassVar[str] = "node.out-of-memory"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.EXHAUSTS,)
    kills: int = Field(
        1, ge=1, le=50, description="Number of processes that the kernel must kill before the filling stops"
    )

    def require(self, node: Node) -> None:
        """A kernel of its own."""
        require_own_kernel(node, "shares this machine's memory")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """A program that takes all free memory."""
        node = running(lab.node(self.node))
        before = _oom_kills(node)
        fill = detached(f"{PROGRAMS}/fill-memory", str(self.kills))

        def killed() -> str:
            count = _oom_kills(node) - before
            if count < self.kills:
                raise NotYet(f"killed so far: {count} of {self.kills}")
            victims = node.exec(
                "sh", "-c", "dmesg | sed -n 's/.*Killed process [0-9]* (\\([^)]*\\)).*/\\1/p' | tail -5"
            )
            return f"the kernel of {node.name} has killed {' '.join(victims.stdout.split())}"

        def gone() -> None:
            seen(node, lambda done: not done.ok, "nothing fills it", "pgrep", "-x", "fill-memory")

        undo = (Undo(sh("pkill -KILL -x fill-memory; true")),)
        return [Change(node, "memory", lambda: must(node, *fill), undo, killed, gone, (Undo(fill),), proof_within_s=60)]


class _OnDisk(NodeFault):
    """A fault of a node's disk, for nodes that have one besides their root file system."""

    def require(self, node: Node) -> None:
        """A disk."""
        if not node.exec("test", "-f", DISK).ok:
            raise LabError(f"{node.name} has no disk of its own in this lab")

    def change(
        self,
        node: Node,
        apply: tuple[str, ...],
        undo: tuple[Undo, ...],
        proof: Callable[[], str],
        undone: Callable[[], object],
    ) -> list[Change]:
        """The change of a disk, which is made again after each boot."""
        return [Change(node, "disk", lambda: must(node, *apply), undo, proof, undone, again=(Undo(apply),))]

    def folder(self, node: Node) -> str:
        """The mount point of the disk."""
        return must(running(node), "cut", "-d", " ", "-f", "2", DISK).stdout.strip()


DISK = f"{SETTINGS}/disk.mount"
MAPPED = "/dev/mapper/disk"


class DiskFull(_OnDisk):
    """Fill a node's disk to the last block. Undone by removing the file that fills it."""

    name: ClassVar[str] = "node.disk-full"
    does: ClassVar[tuple[EffectKind, ...]] = (
        EffectKind.EXHAUSTS,
        EffectKind.FAILS_WRITES,
    )

    def changes(self, lab: Lab) -> Sequence[Change]:
        """A file that takes all free blocks."""
        node = lab.node(self.node)
        folder = self.folder(node)
        file = f"{folder}/{FULL}"
        # blocks first, quickly; then what is left of the last megabyte
        fill = sh(
            'fallocate -l "$(df -B1 --output=avail "$2" | tail -1)" "$1"; cat /dev/zero >> "$1" 2> /dev/null; sync',
            file,
            folder,
        )

        def full() -> str:
            return seen(
                node,
                lambda done: "No space left" in done.stderr,
                f"a write to {folder} of {node.name} fails: no space left on device",
                *write(folder),
            )

        undo = (Undo(("rm", "-f", file)),)
        return [
            Change(node, "disk", lambda: node.exec(*fill, timeout_s=60), undo, full, lambda: writable(node, folder))
        ]


FULL = ".monkeywrench-full"


class DiskReadOnly(_OnDisk):
    """Make a node's file system read-only, as a kernel does after an error. Undone by remounting it."""

    name: ClassVar[str] = "node.disk-read-only"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.FAILS_WRITES,)

    def changes(self, lab: Lab) -> Sequence[Change]:
        """The emergency remount (sysrq-trigger, u), reverted at once for all other file systems."""
        node = lab.node(self.node)
        folder = self.folder(node)

        def read_only() -> str:
            return seen(
                node,
                lambda done: "Read-only" in done.stderr,
                f"a write to {folder} of {node.name} fails: read-only file system",
                *write(folder),
            )

        apply, undo = sh(REMOUNT, folder), (Undo(("mount", "-o", "remount,rw", folder)),)
        return self.change(node, apply, undo, read_only, lambda: writable(node, folder))


REMOUNT = """
writable=$(awk '$4 ~ /^rw/ && $3 ~ /^(ext4|hostfs)$/ { print $2 }' /proc/mounts)
echo u > /proc/sysrq-trigger
for _ in 1 2 3 4 5 6 7 8 9 10; do grep -q " $1 ext4 ro" /proc/mounts && break; sleep 0.1; done
for other in $writable; do [ "$other" = "$1" ] || mount -o remount,rw "$other"; done
"""


class DiskErrors(_OnDisk):
    """Make every request to a node's disk fail. Undone by a reboot, which repairs the file system."""

    name: ClassVar[str] = "node.disk-errors"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.FAILS_WRITES,)

    def changes(self, lab: Lab) -> Sequence[Change]:
        """device-mapper's flakey target, always down (dm-flakey in the kernel's documentation)."""
        node = lab.node(self.node)
        folder = self.folder(node)

        def fails() -> str:
            return seen(
                node,
                lambda done: "Input/output error" in done.stderr,
                f"reading the disk of {node.name} fails: input/output error",
                *READ,
            )

        undo = (Undo(mapped("linear $loop 0")), Undo(("reboot",), "power"))
        apply = mapped("flakey $loop 0 0 3600")
        return self.change(node, apply, undo, fails, lambda: writable(node, folder))


class DiskSlow(_OnDisk):
    """Delay every request to a node's disk. Undone by removing the delay."""

    name: ClassVar[str] = "node.disk-slow"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.SLOWS,)
    delay_ms: int = Field(500, ge=50, le=10_000, description="Delay of each request, in ms")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """device-mapper's delay target."""
        node = lab.node(self.node)
        self.folder(node)
        apply = mapped(f"delay $loop 0 {self.delay_ms}")

        def slow() -> str:
            return seen(
                node,
                lambda done: _dd_ms(done) >= self.delay_ms,
                f"reading a block from the disk of {node.name} takes {self.delay_ms} ms or longer",
                *READ,
            )

        def quick() -> None:
            seen(node, lambda done: _dd_ms(done) < self.delay_ms, "quick", *READ)

        return self.change(node, apply, (Undo(mapped("linear $loop 0")),), slow, quick)


READ = ("dd", f"if={MAPPED}", "of=/dev/null", "bs=4096", "count=1", "iflag=direct")


def mapped(target: str) -> tuple[str, ...]:
    """The command that swaps the device-mapper target under a mounted file system."""
    return sh(
        f"""[ -e {MAPPED} ] || exit 0
        for module in dm-flakey dm-delay; do modprobe $module; done
        loop=$(losetup -n -O NAME -a | head -1)
        dmsetup suspend --noflush --nolockfs disk
        dmsetup load disk --table "0 $(blockdev --getsz "$loop") {target}"
        made=$?
        dmsetup resume --noudevsync disk && exit $made"""
    )


def _dd_ms(done: Output) -> float:
    """The duration that dd(1) reports."""
    try:
        return float(done.stderr.rpartition(" s, ")[0].split()[-1]) * 1000
    except (IndexError, ValueError):
        raise NotYet(done.stderr.strip()) from None


class HostName(NodeFault):
    """Change a node's host name, by which heartbeat identifies itself. Undone by the old name."""

    name: ClassVar[str] = "node.host-name"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.CHANGES_CONFIG,)
    to: str = Field(
        "localhost", pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$", description="The new host name (RFC 1123)"
    )

    def changes(self, lab: Lab) -> Sequence[Change]:
        """The kernel's host name."""
        node = running(lab.node(self.node))
        before = must(node, "hostname").stdout.strip()
        if before == self.to:
            raise LabError(f"the host name of {node.name} is already {self.to!r}")

        def named(name: str) -> Callable[[], str]:
            return lambda: seen(
                node, lambda done: done.stdout.strip() == name, f"the host name of {node.name} is {name}", "hostname"
            )

        apply = ("hostname", self.to)
        return [
            Change(
                node,
                "host name",
                lambda: must(node, *apply),
                (Undo(("hostname", before)),),
                named(self.to),
                named(before),
                again=(Undo(apply),),
            )
        ]


def answers(node: Node) -> None:
    """See that the node runs and executes commands."""
    if node.power() is not Power.RUNNING:
        raise NotYet(f"{node.name} is {node.power()}")
    if not node.exec("true").ok:
        raise LabError(f"{node.name} runs, but the command `true` fails on it", "Look at its console.")


def _require_own_clock(node: Node) -> None:
    require_own_kernel(node, "shares this machine's clock")


def _boot_id(node: Node) -> str:
    return must(node, "cat", "/proc/sys/kernel/random/boot_id").stdout.strip()


def clock_s(lab: Lab, node: Node) -> float:
    """A node's clock minus the lab's clock, from the quickest of 3 answers."""

    def measured() -> tuple[int, float]:
        before_ns = lab.now_ns()
        there_s = float(must(node, "date", "+%s.%N").stdout)
        after_ns = lab.now_ns()
        return after_ns - before_ns, there_s - (before_ns + after_ns) / 2e9

    return min(measured() for _ in range(3))[1]


RIGHT_S = 3
"""The audit's tolerance: a machine may be paused between reading the right time and setting it."""


def _right(lab: Lab, node: Node, before_s: float) -> None:
    if abs(by_s := clock_s(lab, node) - before_s) > RIGHT_S:
        raise NotYet(f"the clock is off by {by_s:.1f} s")


WORK = {
    "real": "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done",
    "virtual": "i=0; while [ $i -lt 25 ]; do /bin/true; i=$((i+1)); done",
}
"""Work that took about 50 ms where it was measured: computation; in virtual time, where that takes none, forks."""


def work_ms(lab: Lab, node: Node) -> int:
    """How long ``WORK`` takes on a node: the best of 3."""

    def measured() -> int:
        began_ns = lab.now_ns()
        must(node, "sh", "-c", WORK[lab.clock.kind], timeout_s=60)
        return (lab.now_ns() - began_ns) // 1_000_000

    return max(1, min(measured() for _ in range(3)))


def _oom_kills(node: Node) -> int:
    return int(must(node, "awk", '$1 == "oom_kill" { print $2 }', "/proc/vmstat").stdout or 0)


def write(folder: str) -> tuple[str, ...]:
    """The command that writes a block to disk in a folder, and deletes it."""
    return sh(
        'f="$1/.monkeywrench-probe.$$"; dd if=/dev/zero of="$f" bs=4096 count=1 conv=fsync; e=$?; rm -f "$f"; exit $e',
        folder,
    )


def writable(node: Node, folder: str) -> str:
    """See that a write to a folder succeeds. Raises NotYet."""
    return seen(node, lambda done: done.ok, f"a write to {folder} of {node.name} succeeds", *write(folder))
