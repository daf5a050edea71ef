"""The seams of the harness: what a lab, a node, a fault and a feed promise.

``topology`` implements :class:`Lab` and :class:`Node` on Docker, ``harness.fake`` implements them in memory, ``faults``
and ``loadtests`` are written against them. Nothing here does anything.

All times are nanoseconds of **the lab's clock**: the monotonic clock of the machine that runs the client node. No
node's own clock is ever used, because a node's clock can be what a fault breaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol

from harness.errors import ToldError


class LabError(ToldError):
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


class Stream(Protocol):
    """A running program's lines. Iterating blocks until the next line, and ends with the program (or its node)."""

    def __iter__(self) -> Iterator[Line]: ...

    def stop(self) -> None:
        """End the program; iteration ends soon after. Safe to call twice and from another thread."""


@dataclass(frozen=True)
class Undo:
    """One step by which a fault is undone where it is, with or without the harness.

    ``machine`` runs a command on the machine, as soon as it runs; ``chassis`` runs one beside it; ``power`` is one of
    ``boot``, ``thaw`` and ``unthrottle``. A step must be harmless when there is nothing to undo, and when it is done
    twice. ``{now}`` in an argument becomes the host's time of day in seconds.
    """

    argv: tuple[str, ...]
    where: Literal["machine", "chassis", "power"] = "machine"


class Lease(Protocol):
    """A fault's undo, armed where the fault is: carried out by itself when the harness stops renewing it."""

    def release(self) -> None:
        """Undo now, and wait until that is done. Raises LabError when it could not be, or was undone before."""


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
    trouble: str = ""


class Node(Protocol):
    """One machine of the cluster. Every power verb is idempotent and returns only when it is so."""

    @property
    def name(self) -> str:
        """As the topology calls it."""

    @property
    def role(self) -> str:
        """``"client"``, ``"resolver"``, ``"director"``, ``"web"`` or ``"db"``."""

    @property
    def kernel(self) -> str:
        """``"uml"`` (a kernel of its own) or ``"host"``."""

    def services(self) -> tuple[str, ...]:
        """What its init supervises, whether the machine runs or not."""

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

    def throttle(self, share: float) -> None:
        """Give the machine this share of a processor's time only, in periods of 100 ms; 1 is all of it."""

    def lease(self, fault: str, claim: str, undo: Sequence[Undo], again: Sequence[Undo] = ()) -> Lease:
        """Arm the undo of a fault on this node, before the fault is applied; it is renewed until it is released.

        ``claim`` names what the fault takes for itself; the node refuses (LabError) a second lease of the same claim.
        ``again`` is carried out whenever the machine has booted meanwhile, for what a reboot wipes.
        """


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
class Astray:
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
    trouble: tuple[str, ...] = ()
    """All that is not as it should be, in sentences; empty is healthy."""
    weakness: str = ""
    """What this part cannot do by itself when its one node is down; empty when something stands in for it."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the line sums up, as JSON could hold it."""

    @property
    def healthy(self) -> bool:
        """True when nothing is wrong with it."""
        return not self.trouble


@dataclass(frozen=True)
class Status:
    """The cluster at one moment. ``trouble`` lists, in sentences, all that is not as it should be; empty is healthy."""

    nodes: tuple[NodeStatus, ...]
    owners: Mapping[str, tuple[str, ...]]
    """Each VIP -> the directors that hold it right now (one, if all is well)."""
    ipvs: Mapping[str, Mapping[str, tuple[RealServer, ...]]]
    """Each director -> each virtual service (``VIP:port``) -> its real servers."""
    trouble: tuple[str, ...] = ()
    parts: tuple[PartStatus, ...] = ()
    """In the order in which they are shown; a part that the topology leaves out has no row."""
    astray: tuple[Astray, ...] = ()
    """Who has missed, or was not told, that an address moved."""

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

    @property
    def switch(self) -> Node:
        """The switch: every cable ends in it. It is no machine of the cluster and never loses power."""

    @property
    def cables(self) -> tuple[Cable, ...]:
        """All cables."""

    def leases(self) -> list[LeaseStatus]:
        """All leases of all nodes, the oldest first: what is injected now, by whomever."""

    def heal(self) -> list[LeaseStatus]:
        """Undo all that is injected, the newest first, whoever did it. Raises LabError if something sticks."""

    def audit(self) -> Mapping[str, tuple[str, ...]]:
        """Each node -> all of its state that a fault could leave changed, in lines; empty when it does not run.

        Two audits of a cluster that is as it was are equal.
        """

    def now_ns(self) -> int:
        """The lab's clock."""

    def owners(self) -> Mapping[str, tuple[str, ...]]:
        """Each VIP -> the directors that hold it now. Cheap: it can be asked while a takeover needs the directors."""

    def status(self) -> Status:
        """The cluster now: every part is asked, which costs the nodes some work."""

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
