"""Faults of a whole machine: its power, its processor, its clock, its memory, its disk, its name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from pydantic import Field

from faults.fault import Change, NodeFault, must, running, seen, sh
from harness.protocols import Lab, Node
from harness.records import LabError, Output, Power, Undo
from harness.wait import NotYet

ANSWER_TIMEOUT_S = 2.0
"""A machine that runs answers ``true`` in milliseconds; silence this long is taken for death."""

BOOT = Undo(("boot",), "power")


class _Power(NodeFault):
    """A fault after which the machine takes no command."""

    leaves: ClassVar[Power]
    undo: ClassVar[Undo] = BOOT

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: the machine's power."""
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
        """Do it; returns when, where the chassis says so."""

    def silent(self, node: Node) -> str:
        """Two witnesses: the chassis says so, and the machine is silent."""
        if node.power() is not self.leaves:
            raise NotYet(f"{node.name} is {node.power()}")
        try:
            node.exec("true", timeout_s=ANSWER_TIMEOUT_S)
        except LabError as silence:
            return f"{node.name} is {self.leaves} and takes no command: {silence}"
        raise LabError(f"no effect: the chassis says {node.name} is {self.leaves}, but it still takes commands")


class PowerOff(_Power):
    """Cut the power of a machine: nothing is flushed, nothing is said. Undone by powering it on."""

    name: ClassVar[str] = "node.power-off"
    leaves: ClassVar[Power] = Power.OFF

    def strike(self, node: Node) -> int:
        """Cut."""
        return node.power_off()


class Freeze(_Power):
    """Stop a machine's processors: it keeps its memory and connections, and does nothing. Undone by thawing it."""

    name: ClassVar[str] = "node.freeze"
    leaves: ClassVar[Power] = Power.FROZEN
    undo: ClassVar[Undo] = Undo(("thaw",), "power")

    def strike(self, node: Node) -> None:
        """Stop."""
        node.freeze()


class Panic(_Power):
    """Make a machine's kernel panic: it stops at once, and does not come back by itself. Undone by booting it."""

    name: ClassVar[str] = "node.panic"
    leaves: ClassVar[Power] = Power.PANICKED

    def possible(self, node: Node) -> str | None:
        """Needs a kernel of its own."""
        return needs_own_kernel(node, "cannot panic")

    def strike(self, node: Node) -> None:
        """Panic (sysrq-trigger, c)."""
        node.panic()


class Shutdown(_Power):
    """Shut a machine down in order: services are stopped, file systems flushed. Undone by booting it."""

    name: ClassVar[str] = "node.shutdown"
    leaves: ClassVar[Power] = Power.OFF

    def strike(self, node: Node) -> None:
        """Ask its init."""
        node.shutdown()


class Reboot(NodeFault):
    """Shut a machine down in order and boot it again. There is nothing to undo: it is in once the machine is back.

    It is back within seconds, so a director may be back while its peer still takes over; see docs/how-it-works.md.
    """

    name: ClassVar[str] = "node.reboot"

    def possible(self, node: Node) -> str | None:
        """Needs a kernel of its own."""
        return needs_own_kernel(node, "cannot be booted by itself")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: another boot."""
        node = running(lab.node(self.node))
        before = _boot_id(node)

        def again() -> None:
            node.shutdown()
            node.boot()

        def booted() -> str:
            if (now := _boot_id(node)) == before:
                raise NotYet("it is the same boot")
            return f"{node.name} booted anew (boot_id {now})"

        return [Change(node, "power", again, (BOOT,), booted, lambda: answers(node))]


class Slow(NodeFault):
    """Give a machine a part of a processor only, as a crowded host does. Undone by giving it all."""

    name: ClassVar[str] = "node.slow"
    share: float = Field(0.2, ge=0.02, le=0.5, description="Of a processor's time, in periods of 100 ms")

    def possible(self, node: Node) -> str | None:
        """Needs a kernel of its own."""
        return needs_own_kernel(node, "has no processor of its own to slow down")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: the chassis stops and continues the whole machine in turn."""
        node = running(lab.node(self.node))
        before_ms = work_ms(lab, node)

        def slower() -> str:
            now_ms = work_ms(lab, node)
            if now_ms < before_ms / self.share / 2:
                raise NotYet(f"the work that took {before_ms} ms takes {now_ms} ms")
            return f"the work that took {node.name} {before_ms} ms takes {now_ms} ms"

        def quick() -> None:
            if (now_ms := work_ms(lab, node)) > before_ms / self.share / 2:
                raise NotYet(f"the work that took {before_ms} ms takes {now_ms} ms")

        undo = (Undo(("unthrottle",), "power"),)
        return [Change(node, "processor", lambda: node.throttle(self.share), undo, slower, quick)]


class ClockJump(NodeFault):
    """Set a machine's clock wrong at one stroke. Undone by setting it right.

    gmond plans what it sends by that clock: after a jump forward and back it would be silent until the time that it had
    already seen. So it is started anew, as an operator would do.
    """

    name: ClassVar[str] = "node.clock-jump"
    by_s: int = Field(3600, description="Forward, or with a minus sign back")

    def possible(self, node: Node) -> str | None:
        """Needs a kernel of its own, and a jump that can be told from noise."""
        return f"a jump of {self.by_s} s cannot be told from noise" if abs(self.by_s) < 5 else _own_clock(node)

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: CLOCK_REALTIME of the machine's kernel."""
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


GMOND = "/run/service/gmond"


class ClockDrift(NodeFault):
    """Let a machine's clock run fast or slow. Undone by the right pace and the right time."""

    name: ClassVar[str] = "node.clock-drift"
    ppm: int = Field(50_000, ge=-100_000, le=100_000, description="Parts per million; 10000 is 36 s an hour")

    def possible(self, node: Node) -> str | None:
        """Needs a kernel of its own, and a drift that can be measured within seconds."""
        return "a drift below 10000 ppm takes too long to prove" if abs(self.ppm) < 10_000 else _own_clock(node)

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: the length of the machine's tick, 10000 us at 100 Hz (adjtimex(8))."""
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
"""Four times what asking a node for its time takes."""


class OutOfMemory(NodeFault):
    """Fill a machine's memory until its kernel has to kill, and keep it full. Undone by freeing it.

    The filler is the last that the kernel would choose; init and the control channel are left out.
    """

    name: ClassVar[str] = "node.out-of-memory"
    kills: int = Field(1, ge=1, le=50, description="How many processes the kernel has to kill before it is enough")

    def possible(self, node: Node) -> str | None:
        """Needs a kernel of its own."""
        return needs_own_kernel(node, "shares its memory with this machine")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: a process that takes all there is."""
        node = running(lab.node(self.node))
        before = _oom_kills(node)
        fill = ("/usr/lib/monkeywrench/detach", "/usr/lib/monkeywrench/faults/fill-memory", str(self.kills))

        def killed() -> str:
            count = _oom_kills(node) - before
            if count < self.kills:
                raise NotYet(f"the kernel has killed {count} processes")
            victims = node.exec(
                "sh", "-c", "dmesg | sed -n 's/.*Killed process [0-9]* (\\([^)]*\\)).*/\\1/p' | tail -5"
            )
            return f"the kernel of {node.name} has killed {' '.join(victims.stdout.split())}"

        def gone() -> None:
            seen(node, lambda said: not said.ok, "nothing fills it", "pgrep", "-x", "fill-memory")

        undo = (Undo(sh("pkill -KILL -x fill-memory; true")),)
        return [Change(node, "memory", lambda: must(node, *fill), undo, killed, gone, (Undo(fill),), proof_within_s=60)]


class _OnDisk(NodeFault):
    """A fault of the node's disk: of a node that has one beside its root."""

    def possible(self, node: Node) -> str | None:
        """Needs a disk."""
        if not node.exec("test", "-f", DISK).ok:
            return f"{node.name} has no disk of its own in this lab"
        return None

    def folder(self, node: Node) -> str:
        """Where the disk is mounted."""
        return must(running(node), "cut", "-d", " ", "-f", "2", DISK).stdout.strip()


DISK = "/etc/monkeywrench/disk.mount"
MAPPED = "/dev/mapper/disk"


class DiskFull(_OnDisk):
    """Fill a node's disk to the last block. Undone by removing the one file that fills it."""

    name: ClassVar[str] = "node.disk-full"

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: a file."""
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
                lambda said: "No space left" in said.stderr,
                f"a write to {folder} of {node.name} fails: no space left on device",
                *write(folder),
            )

        undo = (Undo(("rm", "-f", file)),)
        return [
            Change(node, "disk", lambda: node.exec(*fill, timeout_s=60), undo, full, lambda: writable(node, folder))
        ]


FULL = ".monkeywrench-full"


class DiskReadOnly(_OnDisk):
    """Make a node's file system read-only under its users, as a kernel does after an error. Undone by remounting it."""

    name: ClassVar[str] = "node.disk-read-only"

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: the emergency remount (sysrq-trigger, u), taken back at once for all other file systems."""
        node = lab.node(self.node)
        folder = self.folder(node)

        def read_only() -> str:
            return seen(
                node,
                lambda said: "Read-only" in said.stderr,
                f"a write to {folder} of {node.name} fails: read-only file system",
                *write(folder),
            )

        apply, undo = sh(REMOUNT, folder), (Undo(("mount", "-o", "remount,rw", folder)),)
        return [
            Change(
                node,
                "disk",
                lambda: must(node, *apply),
                undo,
                read_only,
                lambda: writable(node, folder),
                again=(Undo(apply),),
            )
        ]


REMOUNT = """
writable=$(awk '$4 ~ /^rw/ && $3 ~ /^(ext4|hostfs)$/ { print $2 }' /proc/mounts)
echo u > /proc/sysrq-trigger
for _ in 1 2 3 4 5 6 7 8 9 10; do grep -q " $1 ext4 ro" /proc/mounts && break; sleep 0.1; done
for other in $writable; do [ "$other" = "$1" ] || mount -o remount,rw "$other"; done
"""


class DiskErrors(_OnDisk):
    """Let a node's disk fail at every request. Undone by a sound disk and a reboot, which repairs the file system."""

    name: ClassVar[str] = "node.disk-errors"

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: device-mapper's flakey target, always down (dm-flakey in the kernel's documentation)."""
        node = lab.node(self.node)
        folder = self.folder(node)

        def fails() -> str:
            return seen(
                node,
                lambda said: "Input/output error" in said.stderr,
                f"reading the disk of {node.name} fails: input/output error",
                *READ,
            )

        undo = (Undo(mapped("linear $loop 0")), Undo(("reboot",), "power"))
        apply = mapped("flakey $loop 0 0 3600")
        return [
            Change(
                node,
                "disk",
                lambda: must(node, *apply),
                undo,
                fails,
                lambda: writable(node, folder),
                again=(Undo(apply),),
            )
        ]


class DiskSlow(_OnDisk):
    """Let every request to a node's disk take longer. Undone by the disk as it was."""

    name: ClassVar[str] = "node.disk-slow"
    delay_ms: int = Field(500, ge=50, le=10_000, description="For each request")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: device-mapper's delay target."""
        node = lab.node(self.node)
        self.folder(node)
        apply = mapped(f"delay $loop 0 {self.delay_ms}")

        def slow() -> str:
            return seen(
                node,
                lambda said: _dd_ms(said) >= self.delay_ms,
                f"reading a block of the disk of {node.name} takes {self.delay_ms} ms or longer",
                *READ,
            )

        def quick() -> None:
            seen(node, lambda said: _dd_ms(said) < self.delay_ms, "quick", *READ)

        return [
            Change(
                node,
                "disk",
                lambda: must(node, *apply),
                (Undo(mapped("linear $loop 0")),),
                slow,
                quick,
                again=(Undo(apply),),
            )
        ]


READ = ("dd", f"if={MAPPED}", "of=/dev/null", "bs=4096", "count=1", "iflag=direct")


def mapped(target: str) -> tuple[str, ...]:
    """The command that puts another target under the file system while it is in use."""
    return sh(
        f"""[ -e {MAPPED} ] || exit 0
        for module in dm-flakey dm-delay; do modprobe $module; done
        loop=$(losetup -n -O NAME -a | head -1)
        dmsetup suspend --noflush --nolockfs disk
        dmsetup load disk --table "0 $(blockdev --getsz "$loop") {target}"
        made=$?
        dmsetup resume --noudevsync disk && exit $made"""
    )


def _dd_ms(said: Output) -> float:
    """How long dd(1) says that it took."""
    try:
        return float(said.stderr.rpartition(" s, ")[0].split()[-1]) * 1000
    except (IndexError, ValueError):
        raise NotYet(said.stderr.strip()) from None


class HostName(NodeFault):
    """Change a machine's host name, which heartbeat and others know themselves by. Undone by the old one."""

    name: ClassVar[str] = "node.host-name"
    to: str = Field("localhost", pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$", description="The new name (RFC 1123)")

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: the kernel's host name."""
        node = running(lab.node(self.node))
        before = must(node, "hostname").stdout.strip()
        if before == self.to:
            raise LabError(f"{node.name} has that host name already")

        def named(name: str) -> Callable[[], str]:
            return lambda: seen(
                node, lambda said: said.stdout.strip() == name, f"{node.name} calls itself {name}", "hostname"
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
    """See that the machine runs and takes commands."""
    if node.power() is not Power.RUNNING:
        raise NotYet(f"it is {node.power()}")
    if not node.exec("true").ok:
        raise LabError(f"{node.name} runs, but fails at the command true", "See its console.")


def needs_own_kernel(node: Node, why: str) -> str | None:
    """None, or the reason: a fault of the kernel would be one of this machine's."""
    return None if node.kernel == "uml" else f"{node.name} is on the host's kernel, so it {why}"


def _own_clock(node: Node) -> str | None:
    return needs_own_kernel(node, "has this machine's clock")


def _boot_id(node: Node) -> str:
    return must(node, "cat", "/proc/sys/kernel/random/boot_id").stdout.strip()


def clock_s(lab: Lab, node: Node) -> float:
    """A node's clock, less the lab's: as the quickest of three answers has it."""

    def when_ready() -> tuple[int, float]:
        before_ns = lab.now_ns()
        there_s = float(must(node, "date", "+%s.%N").stdout)
        after_ns = lab.now_ns()
        return after_ns - before_ns, there_s - (before_ns + after_ns) / 2e9

    return min(when_ready() for _ in range(3))[1]


RIGHT_S = 3
"""As the audit has it: between reading the right time and setting it a machine may stand still."""


def _right(lab: Lab, node: Node, before_s: float) -> None:
    if abs(by_s := clock_s(lab, node) - before_s) > RIGHT_S:
        raise NotYet(f"the clock is off by {by_s:.1f} s")


WORK = "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done"
"""Plain computation: it takes about 50 ms on the machine that these numbers are from."""


def work_ms(lab: Lab, node: Node) -> int:
    """How long a piece of work takes on a node, the best of three."""

    def when_ready() -> int:
        began_ns = lab.now_ns()
        must(node, "sh", "-c", WORK, timeout_s=60)
        return (lab.now_ns() - began_ns) // 1_000_000

    return max(1, min(when_ready() for _ in range(3)))


def _oom_kills(node: Node) -> int:
    return int(must(node, "awk", '$1 == "oom_kill" { print $2 }', "/proc/vmstat").stdout or 0)


def write(folder: str) -> tuple[str, ...]:
    """The command that writes a block into a folder for good, and takes it back."""
    return sh(
        'f="$1/.monkeywrench-probe.$$"; dd if=/dev/zero of="$f" bs=4096 count=1 conv=fsync; e=$?; rm -f "$f"; exit $e',
        folder,
    )


def writable(node: Node, folder: str) -> str:
    """See that a write to a folder succeeds."""
    return seen(node, lambda said: said.ok, f"{folder} of {node.name} can be written", *write(folder))
