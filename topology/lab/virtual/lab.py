"""A booted lab in virtual time. Implements ``harness.protocols.Lab``."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from harness.protocols import Capture, Feed, Stream
from harness.records import LabError, Line, Power
from harness.tasks import Mailbox, Timeline
from topology.images.switch import arpwatch
from topology.lab.docker_lab import SWITCH, DockerLab
from topology.lab.lease import LEASE_S
from topology.lab.node import DockerNode
from topology.lab.observers import CONSOLE_LOG, ArpFeed, ClockReference, CollectorFeed, ConsoleFeed, LogFeed, OwnersFeed
from topology.lab.pipe import Pipe
from topology.lab.switch import fetch
from topology.lab.virtual.node import VirtualNode, VirtualWatch
from topology.lab.virtual.simulator import BEGIN_NS, CONNECT, FOLDER, Frame, Simulator
from topology.lab.virtual.switch import VirtualSwitch
from topology.lab.virtual.wires import VirtualWires, place_of
from topology.model import Topology

__all__ = ["LATENCY_NS", "VirtualLab"]

LATENCY_NS = 50_000
"""Of a cable with its switch, one way: 50 us, as in a small office network."""

BITS_PER_S = 1_000_000_000
ARP_RULE = "arp-"
"""How the rules of the ARP observer begin."""
ALIVE_S = 1.0
"""As the ARP observer in the switch: its silence must not look like a silent wire."""

CONSOLE_EVERY_S = 1.0
"""Virtual time between 2 looks at the consoles of the kernels."""


class VirtualLab(DockerLab):
    """A booted lab in virtual time, driven by this process alone: its time passes only while this process waits."""

    def __init__(self, client: Any, name: str, topology: Topology, containers: Iterable[Any]) -> None:
        found = list(containers)
        center = next(each for each in found if each.labels["monkeywrench.node"] == SWITCH)
        self.simulator = Simulator(Pipe(client, center, CONNECT))
        self.simulator.handler = self
        self.timeline = Timeline(self.simulator)
        self.wires = VirtualWires(self.simulator, self.timeline.clock, lambda: self.cables)
        self._arp: dict[str, VirtualWatch] = {}
        self._captures: list[VirtualCapture] = []
        self.booted_ns: int | None = None
        """When this process found its new lab healthy; None for a lab that somebody else booted."""
        super().__init__(client, name, topology, found)
        self.clock = self.timeline.clock
        for number, machine in enumerate(topology.machines, 1):
            node = self.machine(machine.name)
            node.number, node.nics, node.cost = number, len(topology.interfaces(machine)), topology.cost

    def _made(self, container: Any, role: str, kernel: str) -> DockerNode:
        if container.labels["monkeywrench.node"] == SWITCH:
            switch = VirtualSwitch(self._client, container, role, kernel, self.simulator, self.timeline)
            switch.wires = self.wires
            return switch
        return VirtualNode(self._client, container, role, kernel, self.simulator, self.timeline)

    def machine(self, name: str) -> VirtualNode:
        """A node that is not the switch."""
        node = self.node(name)
        if not isinstance(node, VirtualNode):
            raise LabError(f"{name} has no kernel of its own")
        return node

    def plug(self, seed: int) -> None:
        """Give the simulator the lab's segments and cables. Once, before the first boot."""
        ask, topology = self.simulator.ask, self.topology
        ask("start", BEGIN_NS)
        ask("seed", seed)
        for segment in topology.segments:
            ask("segment", segment, LATENCY_NS, BITS_PER_S)
        for machine in topology.machines:
            nics = [
                f"{segment}/{topology.mac(machine, nic, self.name)}" for nic, segment in topology.interfaces(machine)
            ]
            ask("node", machine.name, *nics)
            self.machine(machine.name).seed = seed

    def take_over(self) -> None:
        """Go on with a lab that another process left: its jobs end, and its faults when their leases do."""
        for machine in self.topology.machines:
            node = self.machine(machine.name)
            if node.power() is Power.RUNNING:
                node.guest.tell({"do": "forget"})
        for held in self.leases():
            self.clock.spawn(partial(self._expire, self._nodes[held.node], held.name), "lease")

    def _expire(self, node: DockerNode, lease: str) -> None:
        self.clock.sleep(LEASE_S)
        with contextlib.suppress(LabError):  # it was released meanwhile
            node.release(lease)

    def close(self) -> None:
        """Let go of the lab; its time stands still."""
        with contextlib.suppress(LabError):
            self.timeline.close()
            super().close()
            self.simulator.ask("now")  # with it goes what ends the jobs of this process
        self.simulator.close()

    def now_ns(self) -> int:
        """The lab's clock."""
        return self.timeline.now_ns

    # --- events of the simulator

    def said(self, node: str, time_ns: int, data: bytes) -> None:
        """Bytes of a node's console."""
        self.machine(node).guest.heard(time_ns, data)

    def ended(self, node: str, time_ns: int) -> None:
        """A kernel ended on its own."""
        self.machine(node).ended(time_ns)

    def framed(self, frame: Frame) -> None:
        """A frame of a segment whose ARP is watched, or of a rule of the cables."""
        if frame.rule not in self._arp:
            self.wires.framed(frame)
        elif seen := arp(frame):
            self._arp[frame.rule].put(frame.time_ns, seen)

    # --- what a real lab asks the host

    def _time_of_day_s(self, node: DockerNode) -> int:
        if node is self.switch:  # its kernel is the host's
            return super()._time_of_day_s(node)
        return self.simulator.time_of_day_ns() // 1_000_000_000

    def _clock_reference(self) -> ClockReference:
        return ClockReference(self.simulator.time_of_day_ns(), self.now_ns(), 0)

    def _audit(self, node: DockerNode) -> tuple[str, ...]:
        """With what faults of the cables could leave behind, at the switch."""
        if node is not self.switch:
            return super()._audit(node)
        changed = [each for each in self.simulator.changed() if not each.startswith(f"rule {ARP_RULE}")]
        return (*super()._audit(node), *(f"simulator: {each}" for each in changed))

    def trace(self) -> Mapping[str, Any]:
        """A digest of all frames and console bytes with their times, and what the lab was made of."""
        digest, frames = self.simulator.ask("hash")[:2]
        images = {each.name: each.container.image.id for each in self._nodes.values()}
        return {"hash": digest, "frames": int(frames), "virtual_ns": self.now_ns(), "images": images}

    def write_trace(self, path: Path) -> None:
        """A line for each frame and console write so far, compressed by gzip."""
        self.simulator.ask("now")  # with its answer everything so far is in the file
        with gzip.open(path, "wb", compresslevel=5) as target:
            for piece in fetch(self.switch.container, f"{FOLDER}/trace"):
                target.write(piece)

    def made_of(self) -> Mapping[str, Any]:
        """The topology, the image of each role, and whether no time has passed since the lab was found healthy."""
        images = {each.role: each.container.image.id for each in self._nodes.values()}
        topology = self.topology.model_dump(mode="json", exclude_defaults=True)
        return {"topology": topology, "images": images, "fresh": self.booted_ns == self.now_ns()}

    def stop_captures(self) -> None:
        """End all captures of this process, and write their files."""
        for capture in self._captures:
            capture.stop()

    def observers(self) -> list[Feed]:
        """As on a lab in real time, without the processor time that the nodes use: it is the machine's business."""
        machines = self.topology.machines
        owners = [OwnersFeed(node, self.cluster.vips) for node in self.directors()]
        logs = [LogFeed(self._nodes[m.name], log.service, log.path) for m in machines for log in self._logs(m, True)]
        consoles = [VirtualConsoleFeed(self.machine(machine.name), self.timeline) for machine in machines]
        reference = self._clock_reference()
        collectors = [CollectorFeed(self._nodes[m.name], self._samples(m), reference) for m in machines]
        return [*owners, *logs, VirtualArpFeed(self, "internet"), *consoles, *collectors]

    def watch_arp(self, segment: str) -> VirtualWatch:
        """Each ARP frame on a segment from now on."""
        watch, rule = VirtualWatch(self.timeline), f"{ARP_RULE}{segment}"
        if rule not in self._arp:
            self.simulator.ask("rule", rule, segment, "both", "tell", "--", "arp")
        self._arp[rule] = watch

        def live() -> None:
            while self._arp.get(rule) is watch:
                watch.put(self.timeline.now_ns, {"t": self.timeline.now_ns, "alive": True})
                self.clock.sleep(ALIVE_S)

        self.clock.spawn(live, rule)
        return watch

    def capture(self, path: str, segments: tuple[str, ...], packet_filter: str) -> Capture:
        """Capture whole segments, or cables named ``node.interface``, to a local pcapng file."""
        places = [self._place(wanted) for wanted in segments]
        self._captures.append(VirtualCapture(self, path, places, packet_filter))
        return self._captures[-1]

    def _place(self, wanted: str) -> str:
        """A segment or cable, as the simulator calls it."""
        if wanted in self.topology.segments:
            return wanted
        for cable in self.cables:
            if cable.name == wanted:
                return place_of(cable)
        known = ", ".join([*self.topology.segments, *(cable.name for cable in self.cables)])
        raise LabError(f"unknown segment or cable {wanted!r} for a capture", f"Known: {known}.")


class VirtualCapture:
    """A capture by the simulator; its file is fetched when it stops. Implements ``harness.protocols.Capture``."""

    def __init__(self, lab: VirtualLab, path: str, places: list[str], packet_filter: str) -> None:
        self._lab, self._path = lab, Path(path)
        self._inside = f"/tmp/{self._path.name}"
        self._name = f"capture-{self._path.name}"
        self._stopped = False
        lab.simulator.ask("capture", self._name, self._inside, ",".join(places), "--", *packet_filter.split())

    def stop(self) -> None:
        """Close and fetch the file, and remove it from the switch."""
        if self._stopped:
            return
        self._stopped = True
        self._lab.simulator.ask("uncapture", self._name)
        with self._path.open("wb") as target:
            for piece in fetch(self._lab.switch.container, self._inside):
                target.write(piece)
        self._lab.switch.exec("rm", "-f", self._inside)


class VirtualArpFeed(ArpFeed):
    """Every ARP frame on a segment, from the simulator."""

    def __init__(self, lab: VirtualLab, segment: str) -> None:
        super().__init__(lab.switch, segment, lab.cluster.macs)
        self._lab = lab

    def open(self) -> Stream:
        """Watch the segment."""
        return self._lab.watch_arp(self._segment)


class VirtualConsoleFeed(ConsoleFeed):
    """The console of a machine's kernel and services, read in its chassis at fixed virtual times."""

    def __init__(self, node: VirtualNode, timeline: Timeline) -> None:
        super().__init__(node)
        self._timeline = timeline

    def open(self) -> Stream:
        """Follow the console from its current end."""
        return _Polled(self._node, self._timeline)


class _Polled:
    """New lines of a file in a chassis. Implements ``harness.protocols.Stream``."""

    def __init__(self, node: DockerNode, timeline: Timeline) -> None:
        self._node, self._timeline = node, timeline
        self._stop: Mailbox[None] = Mailbox(timeline)
        self._at = len(self._text())

    def _text(self) -> str:
        return self._node.chassis_exec("cat", CONSOLE_LOG).stdout

    def __iter__(self) -> Iterator[Line]:
        rest = ""
        while not self._stopped():
            text = self._text()
            if len(text) < self._at:  # the machine booted again
                self._at, rest = 0, ""
            *lines, rest = (rest + text[self._at :]).split("\n")
            self._at = len(text)
            for line in lines:
                yield Line(self._timeline.now_ns, line)

    def _stopped(self) -> bool:
        try:
            self._stop.get(CONSOLE_EVERY_S)
        except TimeoutError:
            return False
        return True

    def stop(self) -> None:
        """Stop following."""
        self._stop.put(None)


def arp(frame: Frame) -> dict[str, Any] | None:
    """An ARP frame as the observer in the switch of a lab in real time prints it; None for anything else. Pure."""
    seen = arpwatch.parse(frame.data)
    return None if seen is None else {"t": frame.time_ns, **vars(seen)}
