"""A node in virtual time: its chassis has the power switch, the simulator has its clock, cables and console."""

from __future__ import annotations

import hashlib
import itertools
import json
import signal
from collections.abc import Iterator
from typing import Any

from harness.records import LabError, Line, Power
from harness.tasks import Mailbox, Timeline
from harness.wait import Clock, until
from topology.lab.channel import ChannelClosedError, NodeRefusedError
from topology.lab.node import BOOT_S, POWER_S
from topology.lab.virtual.cost import options
from topology.lab.virtual.guest import Guest, Message
from topology.lab.virtual.leases import NotedLeases
from topology.lab.virtual.simulator import FOLDER, Simulator
from topology.lab.virtual.slices import Slices
from topology.model import CostTable

__all__ = ["VirtualChannel", "VirtualNode", "VirtualWatch"]

AWAIT_MS = 60_000
"""Real time: how long a kernel may take from its start to its first idle moment, on a busy machine."""

TERM_GRACE_S = 3.0
VIRTIO_NET, VIRTIO_CONSOLE = 1, 3
"""linux/virtio_ids.h"""


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


class VirtualNode(NotedLeases):
    """One machine of a lab in virtual time."""

    def __init__(  # noqa: PLR0913, PLR0917 - a node, and where its time comes from
        self, client: Any, container: Any, role: str, kernel: str, simulator: Simulator, timeline: Timeline
    ) -> None:
        super().__init__(client, container, role, kernel, simulator, timeline)
        self.number = self.nics = self.seed = 0
        self.cost = CostTable()
        self.clock: Clock = timeline.clock
        self.guest = Guest(self.name, simulator, timeline)
        self.guest.on_addresses = self._addresses_seen
        self._slices = Slices(self.name, simulator, timeline.clock, lambda: self.power() is Power.RUNNING)
        self._watches: list[VirtualWatch] = []
        self._lost = False
        self._virtual: VirtualChannel | None = None

    @property
    def channel(self) -> Any:
        """The control channel, opened when first used."""
        if self._virtual is None:
            self._virtual = VirtualChannel(super().channel, self.guest, self._timeline)
        return self._virtual

    @property
    def chassis(self) -> Any:
        """The channel to its chassis."""
        return self.channel.real

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
            *options(self.cost),
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
        """Give the machine only this share of virtual time."""
        self._slices.give(share)

    def ended(self, time_ns: int) -> None:
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
