"""A node: a container that is the chassis of a machine. Implements ``harness.protocols.Node``."""

from __future__ import annotations

import io
import re
import tarfile
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from harness.records import LabError, LeaseStatus, Output, Power, Undo
from harness.wait import REAL, Clock
from topology.lab.channel import Channel, Job, NodeRefusedError, Watch
from topology.lab.lease import LEASE_S, RELEASE_S, DockerLease

BOOT_S = 60
POWER_S = 30
CONSOLE_LINES = 12
ARRIVALS = "/var/lib/monkeywrench/put"
SERVICES = "/etc/monkeywrench/services"


class DockerNode:
    """One machine of a lab."""

    clock: Clock = REAL
    lease_s = LEASE_S
    """How long a fault outlives a harness that is gone."""

    def __init__(self, client: Any, container: Any, role: str, kernel: str) -> None:
        self._client, self.container = client, container
        self.name = container.labels["monkeywrench.node"]
        self.role, self.kernel = role, kernel
        self._channel: Channel | None = None
        self._lock = threading.Lock()

    @property
    def channel(self) -> Channel:
        """The control channel, opened when first used."""
        with self._lock:
            if self._channel is None:
                self._channel = Channel(self._client, self.container)
            return self._channel

    def close(self) -> None:
        """Close the control channel."""
        if self._channel:
            self._channel.close()

    def services(self) -> tuple[str, ...]:
        """The services that its init supervises, read in the chassis, which is 10 times as fast as on the machine."""
        return tuple(self.chassis_exec("cat", SERVICES).stdout.split())

    def exec(self, *argv: str, timeout_s: float = 10.0) -> Output:
        """Run a command on the machine."""
        return self._run(argv, timeout_s, "machine")

    def chassis_exec(self, *argv: str, timeout_s: float = 10.0) -> Output:
        """Run a command in the chassis, whatever state the machine is in."""
        return self._run(argv, timeout_s, "chassis")

    def _run(self, argv: tuple[str, ...], timeout_s: float, where: str) -> Output:
        number = self.channel.start("exec", argv=list(argv), where=where)
        deadline = self.clock.now() + timeout_s
        texts = {"out": "", "err": ""}
        try:
            while True:
                message = self.channel.answer(number, max(0.0, deadline - self.clock.now()))
                for name in texts:
                    texts[name] += message.get(name, "")
                if "done" in message:
                    return Output(message["done"], texts["out"], texts["err"])
        except TimeoutError:
            self.channel.tell("stop", job=number)
            raise LabError(f"{self.name}: `{' '.join(argv)}` timed out after {timeout_s:g} s") from None
        except NodeRefusedError as refusal:
            raise LabError(f"{self.name}: {refusal}") from None

    def stream(self, *argv: str) -> Job:
        """Start a program on the machine and follow its lines."""
        return Job(self.channel, self.channel.start("exec", argv=list(argv)))

    def chassis_stream(self, *argv: str) -> Job:
        """Start a program in the chassis, where it outlives the machine, and follow its lines."""
        return Job(self.channel, self.channel.start("exec", argv=list(argv), where="chassis"))

    def watch(self) -> Watch:
        """Follow power and addresses, on a separate connection."""
        return Watch(Channel(self._client, self.container))

    def put(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Write a file on the node with one rename.

        A machine with its own kernel moves the file into place itself: it might not see a change made from outside,
        and inotify would not report it.
        """
        if self.kernel != "uml" or self.power() is not Power.RUNNING:
            put_files(self.container, [(path, content, mode)])
            return
        arrived = f"{ARRIVALS}/{uuid.uuid4()}"
        put_files(self.container, [(arrived, content, mode)])
        moved = self.exec(
            "sh", "-c", 'mkdir -p "$1" && mv "$2" "$3"', "put", str(PurePosixPath(path).parent), arrived, path
        )
        if not moved.ok:
            raise LabError(f"{self.name}: cannot write {path}: {moved.stderr.strip()}")

    def state(self) -> dict[str, Any]:
        """From the chassis: ``state``, ``since`` (ns), ``release`` (of the running kernel), ``t`` (now, ns)."""
        return self.channel.ask("state", POWER_S)

    def power(self) -> Power:
        """The power state of the machine."""
        return Power(self.state()["state"])

    def addresses(self) -> list[str]:
        """The machine's IPv4 addresses; empty when it is not running."""
        try:
            return list(self.channel.ask("addresses", POWER_S)["addresses"])
        except NodeRefusedError:
            return []

    def boot(self) -> None:
        """Power on, and wait until the machine takes commands."""
        self._power("boot", BOOT_S)

    def power_off(self) -> int:
        """Cut the power. Returns the lab's time of the cut."""
        return int(self._power("power_off", POWER_S)["since"])

    def shutdown(self) -> None:
        """Stop services in order, then power off."""
        self._power("shutdown", BOOT_S)

    def freeze(self) -> None:
        """Stop every process of the machine, its kernel included."""
        self._power("freeze", POWER_S)

    def thaw(self) -> None:
        """Let the machine continue."""
        self._power("thaw", POWER_S)

    def panic(self) -> None:
        """Make the machine's kernel panic."""
        self._power("panic", POWER_S)

    def throttle(self, share: float) -> None:
        """Give the machine only this share of processor time."""
        self.channel.ask("throttle", POWER_S, share=share)

    def lease(self, fault: str, claim: str, undo: Sequence[Undo], again: Sequence[Undo] = ()) -> DockerLease:
        """Arm the undo of a fault in the chassis."""
        return DockerLease(self.channel, self.name, fault, claim, undo, again, self.lease_s)

    def leases(self) -> list[LeaseStatus]:
        """All leases of this node."""
        found = self.channel.ask("leases", POWER_S)["leases"]
        return [LeaseStatus(node=self.name, **each) for each in found]

    def release(self, lease: str) -> None:
        """Undo a lease, whoever armed it."""
        try:
            self.channel.ask("release", RELEASE_S, name=lease)
        except NodeRefusedError as refusal:
            raise LabError(f"{self.name}: {refusal}") from None

    def _power(self, verb: str, timeout_s: float) -> dict[str, Any]:
        try:
            return self.channel.ask(verb, timeout_s)
        except NodeRefusedError as refusal:
            tail = "\n".join(without_stack_traces(refusal.console)[-CONSOLE_LINES:])
            console = f"\nThe last lines of its console:\n{tail}" if tail else ""
            raise LabError(
                f"{self.name}: {verb.replace('_', ' ')} failed: {refusal}{console}",
                "Run `monkeywrench doctor`. A node that dies at boot may need more memory_mib in the topology.",
            ) from None


def without_stack_traces(console: str) -> list[str]:
    """A console's lines without stack traces, which would push out the sentence above them. Pure."""
    lines = [line.rstrip() for line in console.splitlines()]
    # the kernel that is built from source puts the time of its clock before each line, Debian's does not
    trace = re.compile(r"(\[ *\d+\.\d+\])?\s*(\[<|[0-9a-f]{8}|\?|Stack:|Call Trace:)")
    return [line for line in lines if line and not trace.match(line)]


def put_files(container: Any, files: list[tuple[str, bytes, int]]) -> None:
    """Write files (path, content, mode) into a container, parents included."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, content, mode in files:
            entry = tarfile.TarInfo(str(PurePosixPath(path).relative_to("/")))
            entry.size, entry.mode, entry.mtime = len(content), mode, int(time.time())
            archive.addfile(entry, io.BytesIO(content))
    container.put_archive("/", packed.getvalue())
