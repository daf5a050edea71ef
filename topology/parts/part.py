"""What a part of the cluster is: what it puts on nodes, how it is asked how it does, and how the answers are judged.

One part is one row of what `status` shows. All of it is pure: the lab carries out the questions.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.records import PartStatus, Power
from topology.files import File
from topology.model import Machine, Topology

DISKS = "/var/lib/monkeywrench/disks"


@dataclass(frozen=True)
class Disk:
    """A block device of a node's own, with an ext4 file system. A power cut loses what was not flushed to it."""

    label: str
    mib: int
    content: str = ""
    """A folder of the role's image that the file system starts out with."""

    @property
    def path(self) -> str:
        """The image in the node's container, outside of what the machine writes to by itself."""
        return f"{DISKS}/{self.label}.img"


def mounted(label: str, folder: str, options: str, owner: str) -> File:
    """The order to mount the disk of that label at boot; a node has one disk at most."""
    return File("/etc/monkeywrench/disk.mount", f"{Disk(label, 0).path} {folder} {options} {owner}\n")


@dataclass(frozen=True)
class Seen:
    """What one look at the lab found."""

    topology: Topology
    power: Mapping[str, Power]
    addresses: Mapping[str, tuple[str, ...]]
    """Each running director -> its IPv4 addresses, as its kernel says."""
    answers: Mapping[str, Mapping[str, str]]
    """Each part -> each node that answered -> what its question printed there."""

    def running(self, names: Iterable[str]) -> list[str]:
        """Those of the nodes that run."""
        return [name for name in names if self.power.get(name) is Power.RUNNING]


@dataclass(frozen=True)
class Secrets:
    """What a lab makes up for itself, and nobody else shall know."""

    heartbeat: str
    database: str


Collector = Mapping[str, Any]
"""``what``, ``every_s`` and more, as in JSON: one entry for ``images/node/machine/collector.py``."""


@dataclass(frozen=True)
class Report:
    """What a part says of itself: one line, what is wrong, and the facts behind it as JSON could hold them."""

    seen: str
    problems: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


class Part(ABC):
    """One part. What a part does not need, it leaves as it is here."""

    name: str
    """Of its row."""
    single_point_of_failure: str = ""
    """What the original cannot do by itself here, in one sentence; empty when it has a stand-in for everything."""

    def enabled(self, topology: Topology) -> bool:
        """False when the topology leaves it out."""
        return True

    def files(self, topology: Topology, machine: Machine, secrets: Secrets) -> Iterator[File]:
        """Its files on a node."""
        yield from ()

    def services(self, topology: Topology, machine: Machine) -> tuple[str, ...]:
        """Its services on a node, by their names in the image."""
        return ()

    def modules(self, topology: Topology, machine: Machine) -> tuple[str, ...]:
        """The kernel modules that it needs on a node."""
        return ()

    def disk(self, topology: Topology, machine: Machine) -> Disk | None:
        """Its disk on a node, if it has one there."""
        return None

    def probe_command(self, topology: Topology, machine: Machine) -> str:
        """A shell command whose output on a node tells how it does; empty where there is nothing to ask."""
        return ""

    def collectors(self, topology: Topology, machine: Machine) -> Iterator[Collector]:
        """What is watched for it on a node during a run."""
        yield from ()

    @abstractmethod
    def judge(self, seen: Seen) -> Report:
        """How it does, from what was seen."""

    def status(self, seen: Seen) -> PartStatus:
        """Its row."""
        report = self.judge(seen)
        return PartStatus(self.name, report.seen, report.problems, self.single_point_of_failure, report.facts)


def log_of(service: str, path: str) -> Collector:
    """What a service adds to its log."""
    return {"what": "log", "every_s": 0.25, "service": service, "path": path}


def json_object(text: str) -> dict[str, Any]:
    """The JSON object that an answer is; an empty one for anything else."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
