"""The switch: one container whose network namespace has the lab's bridges and one end of every cable.

A cable has the name of the node's interface: ``lb-1.eth0``. No bridge has an address and the namespace has no route, so
no packet leaves the lab. Offloads are off on every cable, because a node's own kernel receives each frame as it is on
the wire (no segmentation, full checksums).
"""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.records import LabError
from harness.wait import until
from topology.lab import engine
from topology.lab.node import DockerNode
from topology.model import Topology

SNAPLEN_BYTES = 65535


def bridge(segment: str) -> str:
    """The bridge of a segment."""
    return f"br-{segment}"


def bridge_commands(topology: Topology) -> list[str]:
    """``ip -batch`` lines that create the bridges. Pure."""
    lines = ["link set lo up"]
    for segment in topology.segments:
        # no snooping: multicast (connection sync, Ganglia) must reach every port of the segment
        lines += [
            f"link add {bridge(segment)} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set {bridge(segment)} up",
        ]
    return lines


def cable_commands(topology: Topology, lab: str, pids: dict[str, int]) -> list[str]:
    """``ip -batch`` lines that plug in the nodes of ``pids``, whose values name their namespaces. Pure."""
    lines = []
    for machine in topology.machines:
        for interface, segment in topology.interfaces(machine) if machine.name in pids else ():
            cable = f"{machine.name}.{interface}"
            lines += [
                f"link add {cable} type veth peer name {interface} address {topology.mac(machine, interface, lab)} "
                f"netns {pids[machine.name]}",
                f"link set {cable} master {bridge(segment)} up",
            ]
    return lines


def cables(topology: Topology) -> list[str]:
    """The names of all cables."""
    return [
        f"{machine.name}.{interface}" for machine in topology.machines for interface, _ in topology.interfaces(machine)
    ]


def wire(client: Any, image: str, switch: Any, commands: list[str], labels: dict[str, str]) -> None:
    """Run ``ip -batch`` lines in the switch's namespace.

    Naming the nodes' namespaces takes access to their processes. A short-lived container has it, so that the switch
    itself never sees the host's processes.
    """
    script = (
        """printf '%s\\n' "$0" | ip -batch - || exit 1; """
        """for cable in $(ls /sys/class/net | grep '[.]'); do """
        """ethtool -K "$cable" tx off gso off tso off gro off; done"""
    )
    try:
        engine.run_to_end(
            client,
            image,
            ["sh", "-c", script, "\n".join(commands)],
            labels,
            network_mode=f"container:{switch.id}",
            pid_mode="host",
            cap_drop=["ALL"],
            cap_add=["NET_ADMIN"],
        )
    except Exception as error:
        raise LabError(f"wiring the switch failed: {error}") from error


class WireCapture:
    """A capture in the switch; its file is fetched when it stops. Implements ``harness.protocols.Capture``."""

    def __init__(self, switch: DockerNode, path: str, interfaces: list[str], packet_filter: str) -> None:
        self._switch, self._path = switch, Path(path)
        self._inside = f"/tmp/{self._path.name}"
        self._stopped = False
        argv = ["dumpcap", "-q", "-s", str(SNAPLEN_BYTES), "-w", self._inside]
        if packet_filter:
            argv += ["-f", packet_filter]  # before -i it is the default of every interface (dumpcap(1))
        for interface in interfaces:
            argv += ["-i", interface]
        self._job = switch.stream(*argv)
        self._ended = threading.Event()
        threading.Thread(target=self._follow, name="capture", daemon=True).start()
        until(self._has_begun, 10, "the capture to begin")

    def _follow(self) -> None:
        for _ in self._job:
            pass
        self._ended.set()

    def _has_begun(self) -> bool:
        if self._ended.is_set():
            raise LabError("the capture did not begin: dumpcap rejected the filter or the interfaces")
        return self._switch.exec("test", "-s", self._inside).ok

    def stop(self) -> None:
        """Flush and fetch the file, and remove it from the switch."""
        if self._stopped:
            return
        self._stopped = True
        self._job.stop()
        self._ended.wait(10)
        with self._path.open("wb") as target:
            for piece in fetch(self._switch.container, self._inside):
                target.write(piece)
        self._switch.exec("rm", "-f", self._inside)


def fetch(container: Any, path: str) -> Iterator[bytes]:
    """The content of a file in a container, in pieces."""
    pieces, _ = container.get_archive(path)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        member = archive.extractfile(archive.getmembers()[0])
        while member and (piece := member.read(1 << 20)):
            yield piece
