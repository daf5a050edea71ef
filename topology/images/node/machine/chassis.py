"""The chassis of a node: PID 1 of its container, with the machine's power switch and its control channel.

Clients (one ``connect.py`` each, started by ``docker exec``) connect to a Unix socket. A machine with a kernel of its
own runs as a child process (User-Mode Linux) whose serial line ends here; a machine on the host's kernel runs its
services under ``runsvdir`` in this container.

Every answer has the time, in ns of CLOCK_MONOTONIC of the machine that runs Docker.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # python -I leaves this folder out of the path
from lease import Leases
from machine import Host, Uml
from serial import Serial
from wire import WATCH_EVERY_MS, Addresses, Children, Jobs, Lines, Poller, encode

TYPE_CHECKING = False  # as in wire.py
if TYPE_CHECKING:
    from typing import Any

    from lease import Steps
    from wire import Message

SOCKET = Path("/run/monkeywrench.sock")
SPEC = Path("/etc/monkeywrench/machine.json")
TERM_GRACE_S = 3


class Client:
    """A harness that is connected; what it started ends with its connection."""

    def __init__(self, chassis: Chassis, connection: socket.socket) -> None:
        self.chassis, self.connection, self.lines = chassis, connection, Lines()
        self.watching: int | None = None  # the id under which it watches
        chassis.poller.add(connection.fileno(), self.readable)

    def send(self, message: Message) -> None:
        """Send one message to the harness."""
        with contextlib.suppress(OSError):  # it is gone, which ``readable`` notices
            self.connection.sendall(encode({"t": time.monotonic_ns(), **message}))

    def readable(self) -> None:
        """Requests arrived, or the harness disconnected."""
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


class Chassis:
    """All of a node in one loop: clients, machine, serial line, leases."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.poller = Poller()
        self.jobs = Jobs(self.poller)
        self.clients: set[Client] = set()
        self.waiting: list[tuple[Client, int, tuple[str, ...]]] = []  # (client, id, states that end the wait)
        # call in the guest -> (client, its id)
        self.guest_calls: dict[int, tuple[Client | Steps | None, int | None]] = {}
        self.next_call = 1
        self.serial = Serial(self.poller, self.from_guest)
        self.machine: Uml | Host = (Uml if spec["kernel"] == "uml" else Host)(self, spec)
        self.addresses: Addresses | None = None
        self.next_sample: float | None = None
        self.leases = Leases(self)
        self.killing: list[tuple[float, Client, int]] = []  # (deadline, client, id) of jobs that were asked to end
        self.children = Children(self.poller, self.child_ended)
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        self.listener = socket.socket(socket.AF_UNIX)
        SOCKET.unlink(missing_ok=True)
        self.listener.bind(str(SOCKET))
        self.listener.listen(64)
        self.poller.add(self.listener.fileno(), self.accept)

    # --- clients

    def accept(self) -> None:
        """A harness connects."""
        connection, _ = self.listener.accept()
        self.clients.add(Client(self, connection))

    def forget(self, client: Client) -> None:
        """A harness disconnected: end all that it started."""
        self.clients.discard(client)
        self.poller.remove(client.connection.fileno())
        client.connection.close()
        self.leases.forget(client)
        for key in self.jobs.running():
            if key[0] is client:
                self.jobs.signal(key, signal.SIGKILL)
        for call, (owner, _) in list(self.guest_calls.items()):
            if owner is client:
                self.serial.send({"id": 0, "do": "signal", "job": call, "number": signal.SIGKILL})
                self.guest_calls[call] = (None, None)
        self.watch_changed()

    def handle(self, client: Client, request: Message) -> None:
        """One request."""
        verb = getattr(self, "do_" + request["do"], None)
        if verb is None:
            client.send({"id": request["id"], "error": f"unknown request {request['do']!r}"})
        else:
            verb(client, request)

    def refuse(self, client: Client, request: Message, why: str) -> None:
        """Answer a request with the reason why not."""
        client.send({"id": request["id"], "error": why, "console": self.machine.console_tail()})

    # --- requests

    def do_state(self, client: Client, request: Message) -> None:
        """Answer with the machine's state."""
        client.send({"id": request["id"], "done": 0, **self.facts()})

    def facts(self) -> Message:
        """The state, its begin, and the kernel's release."""
        return {"state": self.machine.state, "since": self.machine.since_ns, "release": self.machine.release}

    def do_boot(self, client: Client, request: Message) -> None:
        """Power on; answered when the machine accepts commands, or at once where its time is virtual."""
        if self.machine.state in ("off", "panicked"):
            self.machine.boot(request.get("arguments", []))
        if "arguments" in request and self.machine.state == "booting":
            client.send({"id": request["id"], "done": 0, **self.facts()})
        else:
            self.wait(client, request, ("running", "frozen", "off", "panicked"))

    def do_ready(self, client: Client, request: Message) -> None:
        """In virtual time the harness hears the machine, and reports that it accepts commands."""
        self.machine.ready(request["release"])
        client.send({"id": request["id"], "done": 0})

    def do_power_off(self, client: Client, request: Message) -> None:
        """Cut the power."""
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
        if isinstance(self.machine, Uml):
            self.serial.send({"id": 0, "do": "exec", "argv": ["/usr/lib/monkeywrench/shutdown"]})
        else:
            self.machine.shutdown()

    def do_panic(self, client: Client, request: Message) -> None:
        """Make the kernel panic."""
        if not self.machine.own_kernel:
            self.refuse(client, request, "a node on the host's kernel cannot panic")
            return
        if self.machine.state == "running":
            self.serial.send({"id": 0, "do": "exec", "argv": ["sh", "-c", "echo c > /proc/sysrq-trigger"]})
        self.wait(client, request, ("off", "panicked"))

    def do_freeze(self, client: Client, request: Message) -> None:
        """Stop every process of the machine."""
        self.machine.freeze()
        client.send({"id": request["id"], "done": 0, **self.facts()})

    def do_thaw(self, client: Client, request: Message) -> None:
        """Continue every process of the machine."""
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
                self.serial.send({"id": 0, "do": "signal", "job": call, "number": number})

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
        """Let the machine run only a share of the time."""
        self.machine.throttle(request["share"])
        client.send({"id": request["id"], "done": 0})

    # --- leases

    def do_lease(self, client: Client, request: Message) -> None:
        """Arm a lease, before the change that it undoes."""
        why_not = self.leases.arm(request)
        client.send({"id": request["id"], **({"error": why_not} if why_not else {"done": 0})})

    def do_renew(self, client: Client, request: Message) -> None:
        """Renew leases; the answer names those that still exist."""
        held = [name for name in request["names"] if name in self.leases.held]
        for name in held:
            self.leases.held[name].renew()
        client.send({"id": request["id"], "done": 0, "held": held})

    def do_release(self, client: Client, request: Message) -> None:
        """Undo the change of a lease, and answer when that is done."""
        self.leases.release(client, request)

    def do_leases(self, client: Client, request: Message) -> None:
        """Answer with all leases."""
        client.send({"id": request["id"], "done": 0, "leases": self.leases.facts()})

    def power_step(self, step: Message) -> bool:
        """A step of an undo that concerns the machine's power; False while it is not done yet."""
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
            self.serial.send({"id": call, "do": "exec", "argv": argv})
        else:
            self.jobs.start((steps, 0), argv, steps.send)

    # --- waiting for power states

    def wait(self, client: Client, request: Message, states: tuple[str, ...]) -> None:
        """Answer when the machine is in one of these states."""
        self.waiting.append((client, request["id"], states))
        self.answer_waiting()

    def answer_waiting(self) -> None:
        """Answer all whose state is reached."""
        due = [entry for entry in self.waiting if self.machine.state in entry[2]]
        self.waiting = [entry for entry in self.waiting if entry not in due]
        for client, key, states in due:
            if "running" in states and self.machine.state not in ("running", "frozen"):
                why = self.machine.error or "the machine went down before it accepted commands"
                client.send({"id": key, "error": why, "console": self.machine.console_tail()})
            else:
                client.send({"id": key, "done": 0, **self.facts()})

    def changed(self) -> None:
        """The machine's state changed."""
        self.notify_watchers({"power": self.machine.state})
        if self.machine.state in ("off", "panicked"):
            self.detach_serial()
        if self.machine.state == "running":
            self.watch_changed()
        self.answer_waiting()
        self.leases.changed()

    # --- watching addresses

    def notify_watchers(self, seen: Message) -> None:
        """Send to all clients that watch this machine."""
        for client in self.clients:
            if client.watching is not None:
                client.send({"id": client.watching, "watch": seen})

    def watch_changed(self) -> None:
        """Sample addresses exactly while a client watches."""
        wanted = any(client.watching is not None for client in self.clients)
        if self.machine.own_kernel:
            if self.serial.connection and self.machine.state == "running":
                self.serial.send({"id": 0, "do": "watch", "on": wanted})
        elif wanted and self.addresses is None:
            self.addresses = Addresses()
            self.poller.add(self.addresses.fileno(), self.sample)
            self.sample()
        elif not wanted and self.addresses is not None:
            self.poller.remove(self.addresses.fileno())
            self.addresses = self.next_sample = None

    def sample(self) -> None:
        """Send the addresses of a machine on the host's kernel to the watchers."""
        if self.addresses is None:
            return
        self.addresses.drain()
        self.next_sample = time.monotonic() + WATCH_EVERY_MS / 1000
        if self.machine.state == "running":
            self.notify_watchers({"addresses": self.addresses.now()})

    # --- the guest

    def detach_serial(self) -> None:
        """The machine is down; its commands ended with it."""
        self.serial.detach()
        calls, self.guest_calls = self.guest_calls, {}
        for client, key in calls.values():
            if client:
                client.send({"id": key, "error": "the machine went down"})

    def call_guest(self, client: Client, request: Message) -> None:
        """Pass a request on to the guest's agent."""
        call, self.next_call = self.next_call, self.next_call + 1
        self.guest_calls[call] = (client, request["id"])
        self.serial.send({**request, "id": call})

    def from_guest(self, message: Message) -> None:
        """A message of the guest's agent arrived."""
        if "hello" in message:
            self.machine.ready(message["hello"])
        elif message["id"] == 0:
            if "addresses" in message:
                self.notify_watchers({"addresses": message["addresses"]})
        else:
            client, key = self.guest_calls.get(message["id"], (None, None))
            if client:
                client.send({**message, "id": key})
            if "done" in message or "error" in message:
                self.guest_calls.pop(message["id"], None)

    # --- processes

    def child_ended(self, pid: int, status: int) -> None:
        """A child ended, perhaps an orphan that was not started here: this is PID 1."""
        if pid == self.machine.pid and self.machine.state != "off":
            self.machine.ended()
        self.jobs.reaped(pid, status)

    def kill_overdue(self) -> None:
        """Send SIGKILL to jobs that did not end when asked."""
        now = time.monotonic()
        for entry in [entry for entry in self.killing if entry[0] <= now]:
            self.killing.remove(entry)
            self.signal_job(entry[1], entry[2], signal.SIGKILL)

    def run(self) -> None:
        """Serve forever."""
        while True:
            due = [entry[0] for entry in self.killing] + ([self.next_sample] if self.next_sample else [])
            due += [self.serial.next_nudge] if self.serial.in_flight else []
            due += [self.machine.next_phase] if self.machine.throttled() else []
            due += self.leases.deadlines()
            self.poller.turn(max(0, (min(due) - time.monotonic()) * 1000) if due else None)
            self.kill_overdue()
            self.leases.tick()
            if self.machine.throttled() and time.monotonic() >= self.machine.next_phase:
                self.machine.phase()
            if self.serial.in_flight and time.monotonic() >= self.serial.next_nudge:
                self.serial.nudge()
            if self.next_sample and time.monotonic() >= self.next_sample:
                self.sample()


if __name__ == "__main__":
    Chassis(json.loads(SPEC.read_text())).run()
