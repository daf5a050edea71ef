"""The seams of the harness: what a lab, a node, a fault and a feed promise.

``topology`` implements :class:`Lab` and :class:`Node` on Docker, ``harness.fake`` implements them in memory, ``faults``
and ``loadtests`` are written against them. Nothing here does anything.

All times are nanoseconds of **the lab's clock**: the monotonic clock of the machine that runs the client node. No
node's own clock is ever used, because a node's clock can be what a fault breaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol


class LabError(Exception):
    """The lab cannot do what was asked. The message is one sentence; ``next_step`` says what a person can do."""

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.next_step = next_step


class Power(StrEnum):
    """What a node's machine is doing, as its chassis sees it."""

    OFF = "off"
    BOOTING = "booting"
    RUNNING = "running"
    FROZEN = "frozen"
    PANICKED = "panicked"


@dataclass(frozen=True)
class Output:
    """What a finished command left behind."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """True when the command exited 0."""
        return self.exit_code == 0


@dataclass(frozen=True)
class Line:
    """One line that a running program printed, stamped with the lab's clock where it was received."""

    time_ns: int
    text: str


class Stream(Protocol):
    """A running program's lines. Iterating blocks until the next line, and ends with the program (or its node)."""

    def __iter__(self) -> Iterator[Line]: ...

    def stop(self) -> None:
        """End the program; iteration ends soon after. Safe to call twice and from another thread."""


class Node(Protocol):
    """One machine of the cluster. Every power verb is idempotent and returns only when it is so."""

    @property
    def name(self) -> str:
        """As the topology calls it."""

    @property
    def role(self) -> str:
        """``"client"``, ``"resolver"``, ``"director"`` or ``"web"``."""

    @property
    def kernel(self) -> str:
        """``"uml"`` (a kernel of its own) or ``"host"``."""

    def exec(self, *argv: str, timeout_s: float = 10.0) -> Output:
        """Run a command to its end. Raises LabError when the node is not running or the deadline passes."""

    def stream(self, *argv: str) -> Stream:
        """Start a program and follow its standard output line by line."""

    def watch(self) -> Stream:
        """Follow the machine itself, across power cuts.

        Each line is a JSON object: ``{"power": "off"}`` at every change of power, and
        ``{"addresses": ["203.0.113.101", ...]}`` at every change of the node's IPv4 addresses and at least every 500 ms
        while it runs.
        """

    def put(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Write a file on the node, parents included."""

    def power(self) -> Power:
        """What the machine is doing now."""

    def boot(self) -> None:
        """Power on, and wait until the machine takes commands."""

    def power_off(self) -> int:
        """Cut the power: nothing is flushed. Returns the lab's time of the cut, in ns (now, if it was off already)."""

    def shutdown(self) -> None:
        """Stop all services in order, then power off."""

    def freeze(self) -> None:
        """Stop the whole machine where it is: no instruction runs until ``thaw``."""

    def thaw(self) -> None:
        """Let a frozen machine go on where it stopped."""

    def panic(self) -> None:
        """Make the node's kernel panic. It stays down until ``boot``."""


@dataclass(frozen=True)
class Cluster:
    """The facts of a cluster that checks and reports need. Durations are milliseconds."""

    site: str
    """The site's DNS name."""
    vips: Mapping[str, str]
    """Each virtual IP address -> the name of its home director."""
    directors: tuple[str, ...]
    web: tuple[str, ...]
    macs: Mapping[str, str]
    """Each MAC address on the internet segment -> the name of its node."""
    keepalive_ms: int
    deadtime_ms: int
    """As read back from the directors' own ha.cf."""
    resources_per_vip: int = 2
    """haresources resources that a takeover starts, one after another, for each VIP."""
    resource_start_ms: int = 1500
    """How long one of them may take on this machine: their scripts are as fast as the machine is, and no configuration
    file says how fast that is, so a lab measures it while nothing is wrong."""
    resolver: str = "203.0.113.53"
    """The address of the site's resolver."""


@dataclass(frozen=True)
class RealServer:
    """One row of a director's IPVS table."""

    address: str
    node: str
    weight: int
    active: int
    inactive: int


@dataclass(frozen=True)
class NodeStatus:
    """One node at one moment. ``why`` says why it has the kernel that it has."""

    name: str
    role: str
    power: Power
    kernel: str
    kernel_release: str
    why: str


@dataclass(frozen=True)
class Status:
    """The cluster at one moment. ``trouble`` lists, in sentences, all that is not as it should be; empty is healthy."""

    nodes: tuple[NodeStatus, ...]
    owners: Mapping[str, tuple[str, ...]]
    """Each VIP -> the directors that hold it right now (one, if all is well)."""
    ipvs: Mapping[str, Mapping[str, tuple[RealServer, ...]]]
    """Each director -> each virtual service (``VIP:port``) -> its real servers."""
    trouble: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """True when nothing is wrong."""
        return not self.trouble


@dataclass(frozen=True)
class Entry:
    """What a feed makes of a line: an op of the history that has not got its index yet.

    ``time_ns`` is the lab's clock; ``type`` is ``invoke``, ``ok``, ``fail`` or ``info`` (nobody knows; and all that no
    client asked for: faults, observations, logs, as in Jepsen's nemesis ops).
    """

    time_ns: int
    process: str
    type: str
    f: str
    value: Any = None
    error: str | None = None


class Feed(Protocol):
    """Something that goes on beside the run and becomes ops: a probe, the load, a log, an observer."""

    @property
    def name(self) -> str:
        """What it is told apart by."""

    def open(self) -> Stream:
        """Start it, or start it again after its node came back."""

    def entries(self, line: Line) -> Iterable[Entry]:
        """The ops that one line stands for. A line that cannot be read becomes an ``info`` op with ``error`` set."""

    def ready(self) -> bool:
        """True when ``open`` can work: its node is running."""


class Capture(Protocol):
    """A packet capture being written to a file."""

    def stop(self) -> None:
        """Flush and close the file. Safe to call twice."""


class Lab(Protocol):
    """A booted cluster."""

    @property
    def name(self) -> str:
        """What it is told apart by on its engine."""

    @property
    def cluster(self) -> Cluster:
        """The facts of its cluster."""

    def nodes(self, role: str | None = None) -> list[Node]:
        """All nodes, or those of one role."""

    def node(self, name: str) -> Node:
        """The node of that name. Raises LabError naming the nodes there are."""

    def now_ns(self) -> int:
        """The lab's clock."""

    def status(self) -> Status:
        """The cluster now."""

    def observers(self) -> list[Feed]:
        """Feeds for VIP owners (each director's ``holds`` and ``power``), ARP on the wire, and the directors' logs."""

    def capture(self, path: str, segments: tuple[str, ...], packet_filter: str) -> Capture:
        """Write a pcapng of whole segments, or of cables named ``node.interface``, to a local file."""


@dataclass(frozen=True)
class Proof:
    """Evidence that a fault took effect: what was seen, and when."""

    time_ns: int
    seen: str
    detail: Mapping[str, Any] = field(default_factory=dict)


class Fault(Protocol):
    """Frozen settings plus one verb."""

    @property
    def name(self) -> str:
        """Its name in the registry."""

    def available(self, lab: Lab) -> str | None:
        """None, or the reason why this lab cannot do it."""

    def inject(self, lab: Lab) -> AbstractContextManager[Proof]:
        """Inject on entry, prove it, undo exactly that on exit and verify the undo."""
