"""A part of the cluster: what it puts on nodes, which command shows its state there, and how to judge the output.

One part is one row of `status`. Everything here is pure, except ``cluster_facts`` and ``configured``, which run
commands on directors.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.protocols import Node
from harness.records import Consequence, PartStatus, Power
from topology.model import Machine, Topology
from topology.render import File

DISKS = "/var/lib/monkeywrench/disks"


@dataclass(frozen=True)
class Disk:
    """A node's own block device, with an ext4 file system. A power cut loses what was not flushed to it."""

    label: str
    mib: int
    content: str = ""
    """The initial content of the file system: a folder of the role's image."""

    @property
    def path(self) -> str:
        """The disk image in the node's container, outside the file system that the machine itself writes to."""
        return f"{DISKS}/{self.label}.img"


def mounted(label: str, folder: str, options: str, owner: str) -> File:
    """The file that makes a node mount the disk of that label at boot; a node has at most one disk."""
    return File("/etc/monkeywrench/disk.mount", f"{Disk(label, 0).path} {folder} {options} {owner}\n")


@dataclass(frozen=True)
class Observations:
    """The raw observations behind one status."""

    topology: Topology
    power: Mapping[str, Power]
    addresses: Mapping[str, tuple[str, ...]]
    """Each running director -> its IPv4 addresses, from its kernel."""
    answers: Mapping[str, Mapping[str, str]]
    """Each part -> each node that answered -> what the part's probe command printed there."""

    def running(self, names: Iterable[str]) -> list[str]:
        """The nodes that are running, out of these."""
        return [name for name in names if self.power.get(name) is Power.RUNNING]


@dataclass(frozen=True)
class Secrets:
    """Random secrets of one lab."""

    heartbeat: str
    database: str


Collector = Mapping[str, Any]
"""``what``, ``every_s`` and more, as in JSON: one entry for ``images/node/machine/collector.py``."""


@dataclass(frozen=True)
class Log:
    """A log of a service on a node."""

    service: str
    path: str
    error: str = ""
    """Regular expression of the lines that the service itself marks as errors; empty: it marks none."""
    is_exact: bool = False
    """Its lines need exact times: a separate stream follows it instead of the collector, which polls."""

    @property
    def collector(self) -> Collector:
        """The collector's entry for it."""
        return {"what": "log", "every_s": 0.25, "service": self.service, "path": self.path}


@dataclass(frozen=True)
class Judgement:
    """The judgement of one part: a summary line, its problems, and the facts behind them, ready for JSON."""

    seen: str
    problems: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


class Part(ABC):
    """One part. Methods that a part does not override do nothing."""

    name: str
    """The name of its row in `status`."""
    single_point_of_failure: str = ""
    """What the cluster cannot recover from on its own here, in one sentence; empty when everything is redundant."""

    def enabled(self, topology: Topology) -> bool:
        """Whether the topology has this part."""
        return True

    def files(self, topology: Topology, machine: Machine, secrets: Secrets) -> Iterator[File]:
        """Its files on a node."""
        yield from ()

    def services(self, topology: Topology, machine: Machine) -> tuple[str, ...]:
        """The names of its services on a node, as the image has them."""
        return ()

    def modules(self, topology: Topology, machine: Machine) -> tuple[str, ...]:
        """The kernel modules it needs on a node."""
        return ()

    def disk(self, topology: Topology, machine: Machine) -> Disk | None:
        """Its disk on a node, or None."""
        return None

    def probe_command(self, topology: Topology, machine: Machine) -> str:
        """A shell command whose output shows the state of the part on a node; empty where there is nothing to check."""
        return ""

    def collectors(self, topology: Topology, machine: Machine) -> Iterator[Collector]:
        """What the collector of a node samples for it during a run."""
        yield from ()

    def logs(self, topology: Topology, machine: Machine) -> Iterator[Log]:
        """Its logs on a node, which a run records."""
        yield from ()

    def consequences(self, topology: Topology) -> Iterator[Consequence]:
        """The error lines that faults of its nodes cause on others."""
        yield from ()

    def cluster_facts(self, topology: Topology, directors: Mapping[str, Node]) -> Mapping[str, Any]:
        """The fields of :class:`harness.records.Cluster` that it knows: what the topology promises, or what it measures
        on the running directors."""
        return {}

    def configured(self, topology: Topology, directors: Mapping[str, Node]) -> Mapping[str, Mapping[str, Any]]:
        """Each running director -> those of these fields that its own files have, which may be a user's."""
        return {}

    def rendered(self, topology: Topology, machine: Machine, path: str) -> str:
        """One of its files on a node, as the topology has it without overlays; empty when it has none there."""
        found = [file for file in self.files(topology, machine, Secrets("", "")) if file.path == path]
        return found[0].data.decode() if found else ""

    @abstractmethod
    def judge(self, seen: Observations) -> Judgement:
        """Judge the observations: a summary, problems and facts."""

    def status(self, seen: Observations) -> PartStatus:
        """Its row in `status`."""
        report = self.judge(seen)
        return PartStatus(self.name, report.seen, report.problems, self.single_point_of_failure, report.facts)


def json_object(text: str) -> dict[str, Any]:
    """An answer as a JSON object; empty when it is anything else."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
