"""A node's machine: its power, its first process and its disks."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from pathlib import Path

from wire import kill_group

TYPE_CHECKING = False  # as in wire.py
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from chassis import Chassis

CONSOLE = Path("/var/log/console.log")
CONSOLE_TAIL_BYTES = 3000
UML_MEMORY = "/uml"
THROTTLE_PERIOD_S = 0.1  # as the kernel's own CPU quota (cpu.cfs_period_us)


class Machine:
    """The power of a machine: ``state`` is off, booting, running, frozen or panicked."""

    def __init__(self, chassis: Chassis, spec: dict[str, Any]) -> None:
        self.chassis, self.spec = chassis, spec
        self.state, self.release, self.error = "off", "", ""
        self.pid: int | None = None
        self.since_ns = time.monotonic_ns()
        self.share, self.stopped, self.next_phase = 1.0, False, 0.0  # share of a processor, while it is throttled

    def become(self, state: str) -> None:
        """Change the state, and notify the chassis."""
        if state != self.state:
            self.state, self.since_ns = state, time.monotonic_ns()
            self.chassis.changed()

    def processes(self) -> Iterator[int]:
        """The process ids of the machine: all that this chassis started or inherited, but no clients' connections.

        ``docker exec`` puts connections into this pid namespace with a parent outside of it, which shows as 0.
        """
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and process.name != "1":
                try:
                    fields = (process / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                if fields[0] != "Z" and fields[1] != "0":
                    yield int(process.name)

    def kill_all(self) -> None:
        """SIGKILL until nothing is left: a process may fork between being listed and being killed."""
        for _ in range(1000):
            pids = list(self.processes())
            if not pids:
                return
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.chassis.children.reap()

    def power_off(self) -> None:
        """Cut the power: nothing is flushed. The kernel goes first; that instant is the power cut."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
        self.become("off")
        self.kill_all()
        self.pid = None

    def signal_all(self, number: int) -> None:
        """Stop or continue all processes of the machine, its kernel first."""
        for pid in sorted(self.processes(), key=lambda pid: pid != self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def freeze(self) -> None:
        """Stop the machine: no instruction runs until ``thaw``."""
        if self.state == "running":
            self.signal_all(signal.SIGSTOP)
            self.become("frozen")

    def thaw(self) -> None:
        """Continue a frozen machine."""
        if self.state == "frozen":
            self.signal_all(signal.SIGCONT)
            self.become("running")

    def throttle(self, share: float) -> None:
        """Let the machine run only this share of the time; 1 is all of it."""
        self.share = share
        self.next_phase = time.monotonic()
        if share >= 1 and self.stopped:
            self.phase()

    def throttled(self) -> bool:
        """True while it has to be stopped and continued in turns."""
        return self.pid is not None and (self.share < 1 or self.stopped)

    def phase(self) -> None:
        """Stop or continue it for its part of a period. All of a machine is one process group."""
        self.stopped = not self.stopped and self.share < 1 and self.state in ("booting", "running")
        rest = 1 - self.share if self.stopped else self.share
        self.next_phase = time.monotonic() + rest * THROTTLE_PERIOD_S
        if self.pid and self.state != "frozen":
            kill_group(self.pid, signal.SIGSTOP if self.stopped else signal.SIGCONT)

    def ready(self, release: str) -> None:
        """The machine accepts commands."""
        self.release = release
        self.become("running")

    def console_tail(self) -> str:
        """The last output of the kernel and the boot scripts."""
        try:
            with CONSOLE.open("rb") as console:
                console.seek(0, os.SEEK_END)
                console.seek(max(0, console.tell() - CONSOLE_TAIL_BYTES))
                return console.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def spawn(self, argv: list[str], env: Mapping[str, str], serial: int | None = None) -> None:
        """Start the machine's first process; its output is the console."""
        console = os.open(CONSOLE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        null = os.open("/dev/null", os.O_RDONLY)
        actions = [(os.POSIX_SPAWN_DUP2, null, 0)] + [(os.POSIX_SPAWN_DUP2, console, fd) for fd in (1, 2)]
        if serial is not None:
            actions.append((os.POSIX_SPAWN_DUP2, serial, 3))
        self.pid = os.posix_spawnp(argv[0], argv, env, file_actions=actions, setsid=True)
        os.close(console)
        os.close(null)


class Uml(Machine):
    """A machine with a kernel of its own."""

    own_kernel = True

    def boot(self, arguments: Sequence[str] = ()) -> None:
        """Start the kernel; ``ready`` follows when its agent sends hello.

        With ``arguments`` its time is virtual: its devices are in the simulator, so it gets none of the container's.
        """
        argv = [self.spec["kernel_path"], f"mem={self.spec['memory_mib']}M", "root=/dev/root", "rootfstype=hostfs"]
        argv += ["rw", "init=/sbin/runit", "con=null", "con0=null,fd:1"]
        # Without these two, each boot spends a second measuring what no node uses: the fastest RAID 6 routine, and the
        # length of a delay loop.
        argv += ["initcall_blacklist=raid6_select_algo,raid6_init", "lpj=20000000"]
        argv += ["umid=machine", "uml_dir=" + UML_MEMORY + "/", "ipv6.disable=1", "seccomp=auto", "quiet"]
        for disk in self.spec["disks"]:
            make_disk(disk)
        env = {"TMPDIR": UML_MEMORY, "HOME": "/root", "PATH": os.environ["PATH"]}
        self.become("booting")
        if arguments:
            self.spawn([*argv, "ssl=null", *arguments], env)
            return
        ours, theirs = socket.socketpair()
        self.chassis.serial.attach(ours)
        self.spawn([*argv, "ssl=null", "ssl0=fd:3,fd:3", *self.plugged()], env, theirs.fileno())
        theirs.close()

    def plugged(self) -> list[str]:
        """Make the container's interfaces the machine's NICs: the host's kernel must not answer on them."""
        for interface in self.spec["interfaces"]:
            run("ip", "addr", "flush", "dev", interface["name"])
            run("ip", "link", "set", interface["name"], "up", "promisc", "on")
        return [
            f"vec{number}:transport=raw,ifname={nic['name']},mac={nic['mac']},depth=128"
            for number, nic in enumerate(self.spec["interfaces"])
        ]

    def ended(self) -> None:
        """The kernel's process ended on its own: powered off, or panicked."""
        panicked = "Kernel panic" in self.console_tail()
        self.kill_all()
        self.pid = None
        self.become("panicked" if panicked and self.state != "off" else "off")


class Host(Machine):
    """A machine on the kernel of the machine that runs Docker: its services, in this container."""

    own_kernel = False

    def boot(self, arguments: Sequence[str] = ()) -> None:
        """Configure the network and start the services."""
        del arguments
        self.become("booting")
        if run("/usr/lib/monkeywrench/network") != 0:
            self.error = "its network cannot be configured"
            self.become("off")
            return
        self.spawn(["/usr/lib/monkeywrench/services"], dict(os.environ))
        self.ready(os.uname().release)

    def ended(self) -> None:
        """The supervisor ended."""
        self.kill_all()
        self.pid = None
        self.become("off")

    def shutdown(self) -> None:
        """Stop the services first, then everything else."""
        run("sh", "-c", "sv -w 10 force-shutdown /run/service/* >/dev/null 2>&1")
        self.power_off()


def make_disk(disk: dict[str, Any]) -> None:
    """Make a disk, with the content that the role's image has for it, unless an earlier boot made it already."""
    path = Path(disk["path"])
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    content = ["-d", disk["content"]] if disk["content"] and Path(disk["content"]).is_dir() else []
    made = Path(f"{path}.new")  # a power cut in the middle must not leave half a file system under the final name
    if run("mke2fs", "-q", "-F", "-t", "ext4", "-L", disk["label"], *content, str(made), f"{disk['mib']}M") != 0:
        raise RuntimeError(f"mke2fs failed for {path}")
    made.rename(path)


def run(*argv: str) -> int:
    """Run a short command to its end; its exit code."""
    pid = os.posix_spawnp(argv[0], argv, os.environ)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
