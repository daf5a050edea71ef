"""A node in virtual time: its chassis has the power switch, the simulator has its clock, cables and console."""

from __future__ import annotations

import hashlib
import itertools
import json
import signal
from collections.abc import Iterator, Sequence
from typing import Any

from harness.records import LabError, LeaseStatus, Line, Power, Undo
from harness.wait import Clock, NotYet, until
from topology.lab.channel import ChannelClosedError, NodeRefusedError
from topology.lab.lease import LEASE_S
from topology.lab.node import BOOT_S, POWER_S, DockerNode
from topology.lab.virtual.guest import Guest, Message
from topology.lab.virtual.simulator import FOLDER, Simulator
from topology.lab.virtual.timeline import Mailbox, Timeline

__all__ = ["VirtualChannel", "VirtualNode", "VirtualWatch"]

AWAIT_MS = 60_000
"""Real time: how long a kernel may take from its start to its first idle moment, on a busy machine."""

TERM_GRACE_S = 3.0
UNDO_S = 120.0
VIRTIO_NET, VIRTIO_CONSOLE = 1, 3
"""linux/virtio_ids.h"""
NOW = "{now}"


class VirtualChannel:
    """Requests to a node: what concerns the machine goes to its agent, the rest to its chassis.

    Has the methods of ``topology.lab.channel.Channel``. A request to the chassis takes no virtual time.
    """

    def __init__(self, real: Any, guest: Guest, timeline: Timeline) -> None:
        self.real, self.guest, self._timeline = real, guest, timeline
        self._numbers = itertools.count(-1, -1)
        self._calls: dict[int, int] = {}
        """A negative number -> the number of the guest's call; the chassis's own numbers are positive."""

    def start(self, do: str, **values: Any) -> int:
        """Send a request; its answers are read with ``answer`` under the number returned."""
        if values.pop("where", "machine") == "chassis":
            return int(self.real.start(do, where="chassis", **values))
        if do not in ("exec", "addresses"):
            return int(self.real.start(do, **values))
        if (state := self.state()["state"]) != Power.RUNNING:
            raise NodeRefusedError(f"the machine is {state}")
        number = next(self._numbers)
        self._calls[number] = self.guest.start({"do": do, **values})
        return number

    def answer(self, number: int, timeout_s: float | None) -> Message:
        """The next answer. Raises TimeoutError, and NodeRefusedError when the answer is a refusal."""
        if number >= 0:
            message = dict(self.real.answer(number, timeout_s))
            message["t"] = self._timeline.now_ns
            return message
        message = self.guest.answer(self._calls[number], timeout_s)
        if "done" in message or "error" in message:
            self._calls.pop(number, None)
        if "error" in message:
            raise NodeRefusedError(message["error"])
        return message

    def ask(self, do: str, timeout_s: float, **values: Any) -> Message:
        """A request that has one answer."""
        number = self.start(do, **values)
        try:
            return self.answer(number, timeout_s)
        except TimeoutError:
            raise NodeRefusedError(f"{self.guest.name} did not answer {do!r} within {timeout_s:g} s") from None

    def tell(self, do: str, **values: Any) -> None:
        """A request without waiting for its answer."""
        if do == "stop" and values["job"] < 0:
            self._stop(values["job"])
        else:
            self.real.tell(do, **values)

    def state(self) -> Message:
        """The chassis's facts."""
        return dict(self.real.ask("state", POWER_S))

    def close(self) -> None:
        """End what was started on the machine, and the connection to the chassis."""
        try:
            running = self.state()["state"] == Power.RUNNING
        except (ChannelClosedError, NodeRefusedError):
            running = False
        if running:
            for call in self.guest.running():
                self.guest.signal(call, signal.SIGKILL)
        self.real.close()

    def _stop(self, number: int) -> None:
        call = self._calls.get(number)
        if call is None:
            return
        self.guest.signal(call, signal.SIGTERM)

        def kill() -> None:
            self._timeline.sleep(TERM_GRACE_S)
            self.guest.signal(call, signal.SIGKILL)

        self._timeline.spawn(kill, f"kill {number}")


class VirtualWatch:
    """A machine's power and addresses as they change. Implements ``harness.protocols.Stream``."""

    def __init__(self, timeline: Timeline) -> None:
        self._box: Mailbox[Line | None] = Mailbox(timeline)

    def put(self, time_ns: int, seen: Message) -> None:
        """Something changed."""
        self._box.put(Line(time_ns, json.dumps(seen)))

    def __iter__(self) -> Iterator[Line]:
        while (line := self._box.get()) is not None:
            yield line

    def stop(self) -> None:
        """Stop following."""
        self._box.put(None)


class VirtualNode(DockerNode):
    """One machine of a lab in virtual time."""

    def __init__(  # noqa: PLR0913, PLR0917 - a node, and where its time comes from
        self, client: Any, container: Any, role: str, kernel: str, simulator: Simulator, timeline: Timeline
    ) -> None:
        super().__init__(client, container, role, kernel)
        self._simulator, self._timeline = simulator, timeline
        self.number = self.nics = self.seed = 0
        self.clock: Clock = timeline.clock
        self.guest = Guest(self.name, simulator, timeline)
        self.guest.on_addresses = self._addresses_seen
        self._watches: list[VirtualWatch] = []
        self._lost = False
        self._virtual: VirtualChannel | None = None

    @property
    def channel(self) -> Any:
        """The control channel, opened when first used."""
        if self._virtual is None:
            self._virtual = VirtualChannel(super().channel, self.guest, self._timeline)
        return self._virtual

    def close(self) -> None:
        """Close the control channel."""
        if self._virtual:
            self._virtual.close()

    def arguments(self) -> list[str]:
        """What the kernel's command line needs for virtual time, in addition to the chassis's own."""
        boot = hashlib.sha256(f"{self.seed}/{self.name}/{self._timeline.now_ns}".encode()).digest()
        devices = [f"virtio_uml.device={FOLDER}/{self.name}.{number}:{VIRTIO_NET}" for number in range(self.nics)]
        return [
            f"time-travel=ext:{self.number}:{FOLDER}/calendar",
            f"seed={int.from_bytes(boot[:7])}",
            "tt-cost=2000,500000,1000000,20000,25",
            "initcall_blacklist=rng_init",
            *devices,
            f"virtio_uml.device={FOLDER}/{self.name}.serial:{VIRTIO_CONSOLE}",
        ]

    # --- power

    def power_on(self) -> None:
        """Start the kernel; no virtual time passes. ``come_up`` goes on from there."""
        try:
            self.channel.real.ask("boot", POWER_S, arguments=self.arguments())
        except NodeRefusedError as refusal:
            raise LabError(f"{self.name}: boot failed: {refusal}") from None

    def come_up(self) -> None:
        """Wait until the kernel that was started takes commands."""
        self._notify({"power": str(Power.BOOTING)})
        self._simulator.ask("await", self.name, AWAIT_MS)
        try:
            hello = self.guest.hello.get(BOOT_S)
        except TimeoutError:
            raise LabError(
                f"{self.name}: boot failed: its machine took no command for {BOOT_S} s",
                "Run `monkeywrench doctor`. A node that dies at boot may need more memory_mib in the topology.",
            ) from None
        self.channel.real.ask("ready", POWER_S, release=hello["hello"])
        self._notify({"power": str(Power.RUNNING)})
        self._follow_addresses()
        self._again()

    def boot(self) -> None:
        """Power on, and wait until the machine takes commands."""
        if self.power() in (Power.OFF, Power.PANICKED):
            self.power_on()
            self.come_up()

    def power_off(self) -> int:
        """Cut the power, at this instant. Returns the lab's time of the cut."""
        if self.power() is not Power.OFF:
            self._power("power_off", POWER_S)
            self._went_down(self._timeline.now_ns, Power.OFF)
        return self._timeline.now_ns

    def shutdown(self) -> None:
        """Stop services in order, then power off."""
        if self.power() is Power.FROZEN:
            raise LabError(f"{self.name}: shutdown failed: a frozen machine cannot shut down")
        if self.power() is Power.RUNNING:
            self.guest.tell({"do": "exec", "argv": ["/usr/lib/monkeywrench/shutdown"]})
            self._wait_down("to shut down")

    def panic(self) -> None:
        """Make the machine's kernel panic."""
        if self.power() is Power.RUNNING:
            self.guest.tell({"do": "exec", "argv": ["sh", "-c", "echo c > /proc/sysrq-trigger"]})
            self._wait_down("to panic")

    def freeze(self) -> None:
        """The machine gets no time."""
        if self.power() is Power.RUNNING:
            self._simulator.ask("freeze", self.name)
            self._power("freeze", POWER_S)
            self._notify({"power": str(Power.FROZEN)})

    def thaw(self) -> None:
        """The machine gets time again; its clock leaps."""
        if self.power() is Power.FROZEN:
            self._power("thaw", POWER_S)
            self._simulator.ask("thaw", self.name)
            self._notify({"power": str(Power.RUNNING)})
            self._follow_addresses()

    def throttle(self, share: float) -> None:
        """A lab in virtual time has no processor to share yet. Raises LabError."""
        if share < 1:
            raise LabError(f"{self.name}: a machine in virtual time cannot be slowed down yet", "Use --clock real.")

    def lost(self, time_ns: int) -> None:
        """The kernel ended on its own: it powered off, or panicked."""

        def noticed() -> bool:
            return self.power() in (Power.OFF, Power.PANICKED)

        # real time: the chassis collects a process that has ended already
        until(noticed, POWER_S, f"the chassis of {self.name} to notice the end of its machine", 0.002)
        self._lost = True
        self._went_down(time_ns, self.power())

    def _wait_down(self, what: str) -> None:
        self._lost = False
        until(lambda: self._lost, BOOT_S, f"{self.name} {what}", 0.05, self.clock)

    def _went_down(self, time_ns: int, state: Power) -> None:
        self._simulator.forget(self.name)
        self.guest.down(time_ns)
        for watch in self._watches:
            watch.put(time_ns, {"power": str(state)})

    # --- watching

    def watch(self) -> Any:
        """Follow power and addresses."""
        watch = VirtualWatch(self._timeline)
        self._watches.append(watch)
        power = self.power()
        watch.put(self._timeline.now_ns, {"power": str(power)})
        if power is Power.RUNNING:
            self._follow_addresses()
        return watch

    def _follow_addresses(self) -> None:
        if self._watches:
            self.guest.tell({"do": "watch", "on": True})

    def _addresses_seen(self, time_ns: int, addresses: list[str]) -> None:
        for watch in self._watches:
            watch.put(time_ns, {"addresses": addresses})

    def _notify(self, seen: Message) -> None:
        for watch in self._watches:
            watch.put(self._timeline.now_ns, seen)

    # --- leases

    def lease(self, fault: str, claim: str, undo: Sequence[Undo], again: Sequence[Undo] = ()) -> Any:
        """Note the undo of a fault in the chassis; the harness carries it out, as only it lets time pass."""
        name = f"{fault}:{claim}:{self._timeline.now_ns}"
        steps = {"undo": [_step(each) for each in undo], "again": [_step(each) for each in again]}
        try:
            self.channel.real.ask(
                "lease", POWER_S, name=name, fault=fault, claim=claim, ttl_ms=round(LEASE_S * 1000), **steps
            )
        except NodeRefusedError as refusal:
            raise LabError(
                f"{self.name}: {fault} cannot be injected: {refusal}",
                "Undo the other fault first: `monkeywrench heal` undoes all faults.",
            ) from None
        return VirtualLease(self, name)

    def leases(self) -> list[LeaseStatus]:
        """All leases of this node."""
        found = self.channel.real.ask("leases", POWER_S)["leases"]
        return [LeaseStatus(node=self.name, **{k: v for k, v in each.items() if k not in STEPS}) for each in found]

    def release(self, lease: str) -> None:
        """Carry out the undo of a lease, whoever noted it."""
        held = {each["name"]: each for each in self.channel.real.ask("leases", POWER_S)["leases"]}
        if lease not in held:
            raise LabError(f"{self.name}: already undone: the lease is unknown")
        self._carry_out(held[lease]["undo"])
        self.channel.real.ask("release", POWER_S, name=lease)

    def _again(self) -> None:
        """After a boot: what a reboot wiped is done again."""
        for held in self.channel.real.ask("leases", POWER_S)["leases"]:
            self._carry_out(held["again"])

    def _carry_out(self, steps: Sequence[Message]) -> None:
        for step in steps:
            argv = [word.replace(NOW, f"{self._simulator.time_of_day_ns() / 1e9:.6f}") for word in step["argv"]]
            if step["where"] == "power":
                self._power_step(argv[0])
            elif step["where"] == "chassis":
                self._must(self.chassis_exec(*argv, timeout_s=UNDO_S), argv)
            else:
                until(self._runs, UNDO_S, f"{self.name} to run", 0.1, self.clock)
                self._must(self.exec(*argv, timeout_s=UNDO_S), argv)

    def _runs(self) -> bool:
        if (power := self.power()) is not Power.RUNNING:
            raise NotYet(f"it is {power}")
        return True

    def _must(self, done: Any, argv: Sequence[str]) -> None:
        if not done.ok:
            why = (done.stdout + done.stderr).strip()[-300:]
            raise LabError(f"{self.name}: `{' '.join(argv)[:200]}` failed: {why}")

    def _power_step(self, verb: str) -> None:
        if verb == "thaw":
            self.thaw()
        elif verb == "boot":
            self.boot()
        elif verb == "reboot":
            if self.power() is Power.RUNNING:
                self.shutdown()
            self.boot()


STEPS = ("undo", "again")


class VirtualLease:
    """The undo of one fault. Implements ``harness.protocols.Lease``."""

    def __init__(self, node: VirtualNode, name: str) -> None:
        self._node, self._name = node, name

    def release(self) -> None:
        """Undo it."""
        self._node.release(self._name)


def _step(undo: Undo) -> Message:
    return {"where": undo.where, "argv": list(undo.argv)}
