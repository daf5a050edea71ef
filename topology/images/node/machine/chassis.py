"""The chassis of a node: PID 1 of its container. It holds the machine's power switch and its control channel.

Clients (one ``connect.py`` each, started by ``docker exec``) speak over a Unix socket. Machines with a kernel of their
own run as a child process (User-Mode Linux) whose serial line ends here; machines on the host's kernel run their
services under ``runsvdir`` in this container.

What the clock says: every answer is stamped with CLOCK_MONOTONIC of the machine that runs Docker.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))  # python -I leaves this folder out of the path
from lease import Leases
from wire import Addresses, Jobs, Lines, Poller, encode, kill_group

TYPE_CHECKING = False  # as in wire.py
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from lease import Steps
    from wire import Message

SOCKET = "/run/monkeywrench.sock"
SPEC = "/etc/monkeywrench/machine.json"
CONSOLE = "/var/log/console.log"
UML_MEMORY = "/uml"
FRAME_BYTES = 1000  # below the 4096 bytes that a serial port's line discipline buffers (n_tty.c, N_TTY_BUF_SIZE)
NUDGE_S = 0.1
WATCH_EVERY_MS = 400
TERM_GRACE_S = 3
CONSOLE_TAIL_BYTES = 3000
THROTTLE_PERIOD_S = 0.1  # as the kernel's own CPU quota (cpu.cfs_period_us)


def now_ns() -> int:
    """The lab's clock."""
    return time.monotonic_ns()


class Client:
    """One harness that is connected; what it started ends with it."""

    def __init__(self, chassis: Chassis, connection: socket.socket) -> None:
        self.chassis, self.connection, self.lines = chassis, connection, Lines()
        self.watching: int | None = None  # the id under which it watches
        chassis.poller.add(connection.fileno(), self.readable)

    def send(self, message: Message) -> None:
        """One message to the harness; a harness that is gone is noticed where it is read from."""
        try:
            self.connection.sendall(encode({"t": now_ns(), **message}))
        except OSError:
            pass

    def readable(self) -> None:
        """Requests came, or the harness went away."""
        try:
            data = self.connection.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.chassis.forget(self)
            return
        for line in self.lines.feed(data):
            request = json.loads(line)
            self.chassis.handle(self, request)


class Machine:
    """A machine's power: ``state`` is off, booting, running, frozen or panicked."""

    def __init__(self, chassis: Chassis, spec: dict[str, Any]) -> None:
        self.chassis, self.spec = chassis, spec
        self.state, self.release, self.error = "off", "", ""
        self.pid: int | None = None
        self.since_ns = now_ns()
        self.share, self.stopped, self.next_phase = 1.0, False, 0.0  # of a processor, while it is throttled

    def become(self, state: str) -> None:
        """Change state, and tell whoever watches."""
        if state != self.state:
            self.state, self.since_ns = state, now_ns()
            self.chassis.changed()

    def processes(self) -> Iterator[int]:
        """The pids of the machine: all that this chassis started or inherited, clients' connections left out.

        ``docker exec`` puts connections into this pid namespace with a parent outside of it, seen as 0.
        """
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != 1:
                try:
                    with open(f"/proc/{name}/stat") as stat:
                        fields = stat.read().rpartition(")")[2].split()
                except OSError:
                    continue
                if fields[0] != "Z" and fields[1] != "0":
                    yield int(name)

    def kill_all(self) -> None:
        """SIGKILL until nothing is left: a process may fork between being listed and being killed."""
        for _ in range(1000):
            pids = list(self.processes())
            if not pids:
                return
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.chassis.reap()

    def power_off(self) -> None:
        """Nothing is flushed. The kernel goes first: that instant is the power cut."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
        self.become("off")
        self.kill_all()
        self.pid = None

    def signal_all(self, number: int) -> None:
        """Stop or continue all of the machine, its kernel first."""
        for pid in sorted(self.processes(), key=lambda pid: pid != self.pid):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def freeze(self) -> None:
        """No instruction runs until ``thaw``."""
        if self.state == "running":
            self.signal_all(signal.SIGSTOP)
            self.become("frozen")

    def thaw(self) -> None:
        """Go on where it stopped."""
        if self.state == "frozen":
            self.signal_all(signal.SIGCONT)
            self.become("running")

    def throttle(self, share: float) -> None:
        """Let the machine run this share of the time only; 1 is all of it."""
        self.share = share
        self.next_phase = time.monotonic()
        if share >= 1 and self.stopped:
            self.phase()

    def throttled(self) -> bool:
        """True while it has to be stopped and continued in turn."""
        return self.pid is not None and (self.share < 1 or self.stopped)

    def phase(self) -> None:
        """Stop it, or let it go on, for its part of a period. All of a machine is one process group."""
        self.stopped = not self.stopped and self.share < 1 and self.state in ("booting", "running")
        rest = 1 - self.share if self.stopped else self.share
        self.next_phase = time.monotonic() + rest * THROTTLE_PERIOD_S
        if self.pid and self.state != "frozen":
            kill_group(self.pid, signal.SIGSTOP if self.stopped else signal.SIGCONT)

    def ready(self, release: str) -> None:
        """The machine takes commands."""
        self.release = release
        self.become("running")

    def console_tail(self) -> str:
        """The end of what the kernel and the boot scripts printed."""
        try:
            with open(CONSOLE, "rb") as console:
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


class UmlMachine(Machine):
    """A machine with a kernel of its own."""

    own_kernel = True

    def boot(self) -> None:
        """Start the kernel; ``ready`` comes when its agent says hello."""
        ours, theirs = socket.socketpair()
        self.chassis.attach_serial(ours)
        for interface in self.spec["interfaces"]:
            # The container's interface is the machine's NIC: the host's kernel must not answer on it.
            run("ip", "addr", "flush", "dev", interface["name"])
            run("ip", "link", "set", interface["name"], "up", "promisc", "on")
        nics = [
            f"vec{number}:transport=raw,ifname={nic['name']},mac={nic['mac']},depth=128"
            for number, nic in enumerate(self.spec["interfaces"])
        ]
        argv = [self.spec["kernel_path"], f"mem={self.spec['memory_mib']}M", "root=/dev/root", "rootfstype=hostfs"]
        argv += ["rw", "init=/sbin/runit", "con=null", "con0=null,fd:1", "ssl=null", "ssl0=fd:3,fd:3"]
        # Without these two, each boot spends a second on measuring what a node never uses: which RAID 6 routine is
        # fastest, and how long a delay loop takes.
        argv += ["initcall_blacklist=raid6_select_algo,raid6_init", "lpj=20000000"]
        for disk in self.spec["disks"]:
            make_disk(disk)
        argv += ["umid=machine", "uml_dir=" + UML_MEMORY + "/", "ipv6.disable=1", "seccomp=auto", "quiet"]
        self.become("booting")
        self.spawn(argv + nics, {"TMPDIR": UML_MEMORY, "HOME": "/root", "PATH": os.environ["PATH"]}, theirs.fileno())
        theirs.close()

    def ended(self) -> None:
        """The kernel's process is gone by itself: powered off, or panicked."""
        panicked = "Kernel panic" in self.console_tail()
        self.kill_all()
        self.pid = None
        self.become("panicked" if panicked and self.state != "off" else "off")


class HostMachine(Machine):
    """A machine on the kernel of the machine that runs Docker: its services, in this container."""

    own_kernel = False

    def boot(self) -> None:
        """Configure the network and start the services."""
        self.become("booting")
        if run("/usr/lib/monkeywrench/network") != 0:
            self.error = "its network could not be configured"
            self.become("off")
            return
        self.spawn(["/usr/lib/monkeywrench/services"], dict(os.environ))
        self.ready(os.uname().release)

    def ended(self) -> None:
        """The supervisor is gone."""
        self.kill_all()
        self.pid = None
        self.become("off")

    def shutdown(self) -> None:
        """Services first, then the rest."""
        run("sh", "-c", "sv -w 10 force-shutdown /run/service/* >/dev/null 2>&1")
        self.power_off()


def make_disk(disk: dict[str, Any]) -> None:
    """A disk's image, with what the image of the role has for it, unless an earlier boot made it already."""
    if os.path.exists(disk["path"]):
        return
    os.makedirs(os.path.dirname(disk["path"]), exist_ok=True)
    content = ["-d", disk["content"]] if os.path.isdir(disk["content"]) else []
    made = f"{disk['path']}.new"  # a power cut in the middle must not leave half a file system under the final name
    if run("mke2fs", "-q", "-F", "-t", "ext4", "-L", disk["label"], *content, made, f"{disk['mib']}M") != 0:
        raise RuntimeError(f"mke2fs failed for {disk['path']}")
    os.rename(made, disk["path"])


def run(*argv: str) -> int:
    """Run a short command to its end; its exit code."""
    pid = os.posix_spawnp(argv[0], argv, os.environ)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Chassis:
    """Everything together: one loop."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.poller = Poller()
        self.jobs = Jobs(self.poller)
        self.clients: set[Client] = set()
        self.waiting: list[tuple[Client, int, tuple[str, ...]]] = []  # (client, id, states that end the wait)
        self.guest_calls: dict[
            int, tuple[Client | Steps | None, int | None]
        ] = {}  # call in the guest -> (client, its id)
        self.next_call = 1
        self.serial: socket.socket | None = None
        self.serial_lines, self.in_flight, self.next_nudge = Lines(), False, 0.0
        self.frames: list[bytes] = []
        self.machine: UmlMachine | HostMachine = (UmlMachine if spec["kernel"] == "uml" else HostMachine)(self, spec)
        self.addresses: Addresses | None = None
        self.next_sample: float | None = None
        self.leases = Leases(self)
        self.killing: list[tuple[float, Client, int]] = []  # (deadline, client, id) of jobs that were asked to end
        self.wake, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        self.poller.add(self.wake, self.woken)
        self.listener = socket.socket(socket.AF_UNIX)
        if os.path.exists(SOCKET):
            os.unlink(SOCKET)
        self.listener.bind(SOCKET)
        self.listener.listen(64)
        self.poller.add(self.listener.fileno(), self.accept)

    # --- clients

    def accept(self) -> None:
        """A harness connects."""
        connection, _ = self.listener.accept()
        self.clients.add(Client(self, connection))

    def forget(self, client: Client) -> None:
        """A harness is gone: nothing it started goes on."""
        self.clients.discard(client)
        self.poller.remove(client.connection.fileno())
        client.connection.close()
        self.leases.forget(client)
        for key in self.jobs.running():
            if key[0] is client:
                self.jobs.signal(key, signal.SIGKILL)
        for call, (owner, _) in list(self.guest_calls.items()):
            if owner is client:
                self.to_guest({"id": 0, "do": "signal", "job": call, "number": signal.SIGKILL})
                self.guest_calls[call] = (None, None)
        self.watch_changed()

    def handle(self, client: Client, request: Message) -> None:
        """One request."""
        verb = getattr(self, "do_" + request["do"], None)
        if verb is None:
            client.send({"id": request["id"], "error": f"the chassis does not know {request['do']!r}"})
        else:
            verb(client, request)

    def refuse(self, client: Client, request: Message, why: str) -> None:
        """Answer a request with the reason why not."""
        client.send({"id": request["id"], "error": why, "console": self.machine.console_tail()})

    # --- requests

    def do_state(self, client: Client, request: Message) -> None:
        """What the machine is doing."""
        client.send({"id": request["id"], "done": 0, **self.facts()})

    def facts(self) -> Message:
        """State, when it began, and the kernel's release."""
        return {"state": self.machine.state, "since": self.machine.since_ns, "release": self.machine.release}

    def do_boot(self, client: Client, request: Message) -> None:
        """Power on; answered when the machine takes commands."""
        if self.machine.state in ("off", "panicked"):
            self.machine.boot()
        self.wait(client, request, ("running", "frozen", "off", "panicked"))

    def do_power_off(self, client: Client, request: Message) -> None:
        """Power cut."""
        self.machine.power_off()
        client.send({"id": request["id"], "done": 0, **self.facts()})

    def do_shutdown(self, client: Client, request: Message) -> None:
        """Stop services in order, then power off."""
        if self.machine.state == "running":
            self.shut_down()
        elif self.machine.state == "frozen":
            self.refuse(client, request, "a frozen machine cannot shut down")
            return
        self.wait(client, request, ("off", "panicked"))

    def shut_down(self) -> None:
        """Ask a running machine to stop its services in order and to power off."""
        if isinstance(self.machine, UmlMachine):
            self.to_guest({"id": 0, "do": "exec", "argv": ["/usr/lib/monkeywrench/shutdown"]})
        else:
            self.machine.shutdown()

    def do_panic(self, client: Client, request: Message) -> None:
        """Make the kernel panic."""
        if not self.machine.own_kernel:
            self.refuse(client, request, "a node on the host's kernel cannot panic")
            return
        if self.machine.state == "running":
            self.to_guest({"id": 0, "do": "exec", "argv": ["sh", "-c", "echo c > /proc/sysrq-trigger"]})
        self.wait(client, request, ("off", "panicked"))

    def do_freeze(self, client: Client, request: Message) -> None:
        """Stop every process of the machine."""
        self.machine.freeze()
        client.send({"id": request["id"], "done": 0, **self.facts()})

    def do_thaw(self, client: Client, request: Message) -> None:
        """Let every process of the machine go on."""
        self.machine.thaw()
        client.send({"id": request["id"], "done": 0, **self.facts()})

    def do_exec(self, client: Client, request: Message) -> None:
        """Run a command on the machine, or beside it (``where`` = chassis)."""
        if request.get("where") == "chassis":
            self.exec_here(client, request)
        elif self.machine.state != "running":
            self.refuse(client, request, "the machine is " + self.machine.state)
        elif self.machine.own_kernel:
            self.call_guest(client, request)
        else:
            self.exec_here(client, request)

    def exec_here(self, client: Client, request: Message) -> None:
        """Run a command in this container."""
        self.jobs.start((client, request["id"]), request["argv"], lambda m: client.send({"id": request["id"], **m}))

    def do_stop(self, client: Client, request: Message) -> None:
        """End a job: SIGTERM to its group, SIGKILL after a grace."""
        self.signal_job(client, request["job"], signal.SIGTERM)
        self.killing.append((time.monotonic() + TERM_GRACE_S, client, request["job"]))

    def signal_job(self, client: Client, job: int, number: int) -> None:
        """Signal a job wherever it runs."""
        self.jobs.signal((client, job), number)
        for call, owner in self.guest_calls.items():
            if owner == (client, job):
                self.to_guest({"id": 0, "do": "signal", "job": call, "number": number})

    def do_addresses(self, client: Client, request: Message) -> None:
        """The machine's IPv4 addresses."""
        if self.machine.state != "running":
            self.refuse(client, request, "the machine is " + self.machine.state)
        elif self.machine.own_kernel:
            self.call_guest(client, request)
        else:
            client.send({"id": request["id"], "addresses": Addresses().now(), "done": 0})

    def do_watch(self, client: Client, request: Message) -> None:
        """Follow power and addresses."""
        client.watching = request["id"]
        client.send({"id": client.watching, "watch": {"power": self.machine.state}})
        self.watch_changed()

    def do_throttle(self, client: Client, request: Message) -> None:
        """Let the machine run a share of the time only."""
        self.machine.throttle(request["share"])
        client.send({"id": request["id"], "done": 0})

    # --- leases

    def do_lease(self, client: Client, request: Message) -> None:
        """Arm a lease, before what it undoes is done."""
        why_not = self.leases.arm(request)
        client.send({"id": request["id"], **({"error": why_not} if why_not else {"done": 0})})

    def do_renew(self, client: Client, request: Message) -> None:
        """Somebody still wants these; the answer names those that there still are."""
        held = [name for name in request["names"] if name in self.leases.held]
        for name in held:
            self.leases.held[name].renew()
        client.send({"id": request["id"], "done": 0, "held": held})

    def do_release(self, client: Client, request: Message) -> None:
        """Undo a lease, and answer when that is done."""
        self.leases.release(client, request)

    def do_leases(self, client: Client, request: Message) -> None:
        """All leases that there are."""
        client.send({"id": request["id"], "done": 0, "leases": self.leases.facts()})

    def power_step(self, step: Message) -> bool:
        """A step of an undo that concerns the machine's power; False when it is not yet done."""
        verb, machine = step["argv"][0], self.machine
        if verb == "thaw":
            machine.thaw()
        elif verb == "unthrottle":
            machine.throttle(1)
        elif verb == "boot":
            if machine.state in ("off", "panicked"):
                machine.boot()
            return machine.state in ("running", "frozen")
        elif verb == "reboot":
            if machine.state in ("off", "panicked"):
                step["down"] = True
                machine.boot()
            elif machine.state == "running" and step.get("down"):
                return True
            elif machine.state == "running" and not step.get("asked"):
                step["asked"] = True
                self.shut_down()
            return False
        return True

    def carry_out(self, steps: Steps, where: str, argv: list[str]) -> None:
        """A step of an undo that is a command, on the machine or beside it."""
        if where == "machine" and self.machine.own_kernel:
            call, self.next_call = self.next_call, self.next_call + 1
            self.guest_calls[call] = (steps, 0)
            self.to_guest({"id": call, "do": "exec", "argv": argv})
        else:
            self.jobs.start((steps, 0), argv, steps.send)

    # --- waiting for power states

    def wait(self, client: Client, request: Message, states: tuple[str, ...]) -> None:
        """Answer when the machine is in one of these states."""
        self.waiting.append((client, request["id"], states))
        self.answer_waiting()

    def answer_waiting(self) -> None:
        """Answer all whose state has come."""
        due = [entry for entry in self.waiting if self.machine.state in entry[2]]
        self.waiting = [entry for entry in self.waiting if entry not in due]
        for client, key, states in due:
            if "running" in states and self.machine.state not in ("running", "frozen"):
                why = self.machine.error or "the machine went down before it took commands"
                client.send({"id": key, "error": why, "console": self.machine.console_tail()})
            else:
                client.send({"id": key, "done": 0, **self.facts()})

    def changed(self) -> None:
        """The machine's state changed."""
        self.tell_watchers({"power": self.machine.state})
        if self.machine.state in ("off", "panicked"):
            self.detach_serial()
        if self.machine.state == "running":
            self.watch_changed()
        self.answer_waiting()
        self.leases.changed()

    # --- watching addresses

    def tell_watchers(self, seen: Message) -> None:
        """To all that follow this machine."""
        for client in self.clients:
            if client.watching is not None:
                client.send({"id": client.watching, "watch": seen})

    def watch_changed(self) -> None:
        """Watch addresses exactly while somebody follows."""
        wanted = any(client.watching is not None for client in self.clients)
        if self.machine.own_kernel:
            if self.serial and self.machine.state == "running":
                self.to_guest({"id": 0, "do": "watch", "on": wanted})
        elif wanted and self.addresses is None:
            self.addresses = Addresses()
            self.poller.add(self.addresses.fileno(), self.sample)
            self.sample()
        elif not wanted and self.addresses is not None:
            self.poller.remove(self.addresses.fileno())
            self.addresses = self.next_sample = None

    def sample(self) -> None:
        """Tell the addresses of a machine on the host's kernel."""
        if self.addresses is None:
            return
        self.addresses.drain()
        self.next_sample = time.monotonic() + WATCH_EVERY_MS / 1000
        if self.machine.state == "running":
            self.tell_watchers({"addresses": self.addresses.now()})

    # --- the serial line to the guest

    def attach_serial(self, connection: socket.socket) -> None:
        """A new machine's serial line."""
        self.detach_serial()
        self.serial, self.serial_lines = connection, Lines()
        self.poller.add(connection.fileno(), self.serial_readable)

    def detach_serial(self) -> None:
        """The machine is gone; so are its commands."""
        if self.serial:
            self.poller.remove(self.serial.fileno())
            self.serial.close()
        self.serial, self.frames, self.in_flight = None, [], False
        calls, self.guest_calls = self.guest_calls, {}
        for client, key in calls.values():
            if client:
                client.send({"id": key, "error": "the machine went down"})

    def call_guest(self, client: Client, request: Message) -> None:
        """Pass a request on to the guest's agent."""
        call, self.next_call = self.next_call, self.next_call + 1
        self.guest_calls[call] = (client, request["id"])
        self.to_guest({**request, "id": call})

    def to_guest(self, message: Message) -> None:
        """Queue a message, cut into frames."""
        data = encode(message)[:-1]
        pieces = [data[at : at + FRAME_BYTES] for at in range(0, len(data), FRAME_BYTES)]
        self.frames += [(b"." if piece is pieces[-1] else b"-") + piece + b"\n" for piece in pieces]
        self.next_frame()

    def next_frame(self) -> None:
        """Send one frame, if none is on its way."""
        if self.serial and self.frames and not self.in_flight:
            self.in_flight, self.next_nudge = True, time.monotonic() + NUDGE_S
            try:
                self.serial.sendall(self.frames.pop(0))
            except OSError:
                pass  # the machine is going down; its end is noticed as its process's end

    def nudge(self) -> None:
        """Ring again for a frame that nobody fetches, with an empty line.

        User-Mode Linux is told of input once, when it comes (edge-triggered), and now and then misses it: the frame
        then lies in the socket until more comes, and after a frame nothing more comes. Seen in one of some hundred
        requests to a busy director.
        """
        self.next_nudge = time.monotonic() + NUDGE_S
        try:
            if self.serial and self.machine.state == "running":
                self.serial.send(b"\n", socket.MSG_DONTWAIT)
        except OSError:
            pass  # full, so there is plenty to be told of; or going down

    def serial_readable(self) -> None:
        """The guest says something."""
        if self.serial is None:
            return
        try:
            data = self.serial.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.poller.remove(self.serial.fileno())
            return
        for line in self.serial_lines.feed(data):
            if line == b"+":
                self.in_flight = False
                self.next_frame()
            elif line:
                self.from_guest(json.loads(line))

    def from_guest(self, message: Message) -> None:
        """A message of the guest's agent."""
        if "hello" in message:
            self.machine.ready(message["hello"])
        elif message["id"] == 0:
            if "addresses" in message:
                self.tell_watchers({"addresses": message["addresses"]})
        else:
            client, key = self.guest_calls.get(message["id"], (None, None))
            if client:
                client.send({**message, "id": key})
            if "done" in message or "error" in message:
                self.guest_calls.pop(message["id"], None)

    # --- processes

    def woken(self) -> None:
        """A signal came: children ended."""
        os.read(self.wake, 4096)
        self.reap()

    def reap(self) -> None:
        """Collect every child that ended, of whomever: this is PID 1."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == self.machine.pid and self.machine.state != "off":
                self.machine.ended()
            self.jobs.reaped(pid, status)

    def kill_overdue(self) -> None:
        """SIGKILL for jobs that did not end when asked."""
        now = time.monotonic()
        for entry in [entry for entry in self.killing if entry[0] <= now]:
            self.killing.remove(entry)
            self.signal_job(entry[1], entry[2], signal.SIGKILL)

    def run(self) -> None:
        """Serve for ever."""
        while True:
            due = [entry[0] for entry in self.killing] + ([self.next_sample] if self.next_sample else [])
            due += [self.next_nudge] if self.in_flight else []
            due += [self.machine.next_phase] if self.machine.throttled() else []
            due += self.leases.deadlines()
            self.poller.turn(max(0, (min(due) - time.monotonic()) * 1000) if due else None)
            self.kill_overdue()
            self.leases.tick()
            if self.machine.throttled() and time.monotonic() >= self.machine.next_phase:
                self.machine.phase()
            if self.in_flight and time.monotonic() >= self.next_nudge:
                self.nudge()
            if self.next_sample and time.monotonic() >= self.next_sample:
                self.sample()


if __name__ == "__main__":
    with open(SPEC) as spec_file:
        Chassis(json.load(spec_file)).run()
