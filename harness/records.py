"""What passes through the seams of the harness: records, frozen and without behaviour of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from harness.errors import UserError


class LabError(UserError):
    """The lab cannot do what was asked."""


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


@dataclass(frozen=True)
class Undo:
    """One step by which a fault is undone where it is, with or without the harness.

    ``machine`` runs a command on the machine, as soon as it runs; ``chassis`` runs one beside it; ``power`` is one of
    ``boot``, ``thaw`` and ``unthrottle``. A step must be harmless when there is nothing to undo, and when it is done
    twice. ``{now}`` in an argument becomes the host's time of day in seconds.
    """

    argv: tuple[str, ...]
    where: Literal["machine", "chassis", "power"] = "machine"


@dataclass(frozen=True)
class LeaseStatus:
    """One lease at one moment."""

    node: str
    name: str
    fault: str
    claim: str
    """What of the node it has for itself: a second lease with the same claim is refused."""
    state: str
    """``held``, ``undoing``, or ``stuck``: its undo failed again and again, and ``trouble`` says how."""
    age_ms: int
    left_ms: int
    """Until it runs out, unless it is renewed."""
    problems: str = ""


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
    auto_failback: bool = True
    """Whether a VIP comes home by itself."""
    check_interval_ms: int = 10_000
    check_timeout_ms: int = 30_000
    check_count: int = 1
    failure_count: int = 1
    """How often ldirectord checks the real servers, how long one check may take, how many tries one is, and how many
    must fail in a row. All that is of ldirectord is read back from the directors' own ldirectord.cf; the defaults are
    what ldirectord 4.12 takes where its file says nothing."""
    checktype: str = "negotiate"
    quiescent: bool | None = None
    """A failed real server gets weight 0; otherwise it is taken out of the table. None: nobody recorded which."""
    scheduler: str = ""
    """As ipvsadm(8) calls it; empty: nobody recorded which."""
    persistence_s: int = 0
    """How long a client stays with its real server after its last connection; 0 for not at all."""
    connection_sync: bool = False
    """Whether the directors tell each other of their connections."""


@dataclass(frozen=True)
class RealServer:
    """One row of a director's IPVS table."""

    address: str
    node: str
    weight: int
    active: int
    inactive: int


@dataclass(frozen=True)
class StaleNeighbour:
    """A node that sends what is for an address to another director than the one that has it."""

    node: str
    address: str
    other: str

    def __str__(self) -> str:
        return f"{self.node} sends what is for {self.address} to {self.other}, which has not got it"


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
class PartStatus:
    """One part of the cluster at one moment: a row of what `status` shows."""

    name: str
    seen: str
    """What was seen, in one line."""
    problems: tuple[str, ...] = ()
    """All that is not as it should be, in sentences; empty is healthy."""
    single_point_of_failure: str = ""
    """What this part cannot do by itself when its one node is down; empty when something stands in for it."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the line sums up, as JSON could hold it."""

    @property
    def healthy(self) -> bool:
        """True when nothing is wrong with it."""
        return not self.problems


@dataclass(frozen=True)
class Status:
    """The cluster at one moment. ``trouble`` lists, in sentences, all that is not as it should be; empty is healthy."""

    nodes: tuple[NodeStatus, ...]
    owners: Mapping[str, tuple[str, ...]]
    """Each VIP -> the directors that hold it right now (one, if all is well)."""
    ipvs: Mapping[str, Mapping[str, tuple[RealServer, ...]]]
    """Each director -> each virtual service (``VIP:port``) -> its real servers."""
    problems: tuple[str, ...] = ()
    parts: tuple[PartStatus, ...] = ()
    """In the order in which they are shown; a part that the topology leaves out has no row."""
    stale_neighbours: tuple[StaleNeighbour, ...] = ()
    """Who has missed, or was not told, that an address moved."""

    @property
    def healthy(self) -> bool:
        """True when nothing is wrong."""
        return not self.problems


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


@dataclass(frozen=True)
class Cable:
    """A network cable: what joins one interface of a node to a segment. Its name is that of its end in the switch."""

    name: str
    """``node.interface``, such as ``lb-1.eth0``."""
    node: str
    interface: str
    segment: str
    addresses: tuple[str, ...]
    """The node's own IPv4 addresses there; virtual ones come and go."""
    mac: str


@dataclass(frozen=True)
class Proof:
    """Evidence that a fault took effect: what was seen, and when."""

    time_ns: int
    seen: str
    detail: Mapping[str, Any] = field(default_factory=dict)
