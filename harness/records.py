"""What passes through the protocols of the harness: frozen records without behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from harness.errors import UserError


class LabError(UserError):
    """The lab cannot do what it was asked to do."""


class Power(StrEnum):
    """The state of a node's machine, as its chassis sees it."""

    OFF = "off"
    BOOTING = "booting"
    RUNNING = "running"
    FROZEN = "frozen"
    PANICKED = "panicked"


@dataclass(frozen=True)
class Output:
    """The result of a command that has ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """True when the command exited 0."""
        return self.exit_code == 0


@dataclass(frozen=True)
class Line:
    """One line that a running program printed, with the lab's time of its receipt."""

    time_ns: int
    text: str


@dataclass(frozen=True)
class Undo:
    """One step of a fault's undo, carried out on the target, with or without the harness.

    ``machine`` runs a command on the machine, as soon as it runs; ``chassis`` runs one beside it; ``power`` is one of
    ``boot``, ``reboot``, ``thaw`` and ``unthrottle``. A step must be harmless if there is nothing to undo, and if it is
    carried out twice. ``{now}`` in an argument becomes the host's time of day in seconds.

    ``wires`` is for a lab whose cables are simulated (``harness.protocols.Wires``): ``remove NAME``, a rule with what
    belongs to it; ``plug CABLE``; ``announce CABLE ADDRESS``, the true holder of an address on the cable's segment.
    """

    argv: tuple[str, ...]
    where: Literal["machine", "chassis", "power", "wires"] = "machine"


@dataclass(frozen=True)
class LeaseStatus:
    """One lease at one moment."""

    node: str
    name: str
    fault: str
    claim: str
    """The resource of the node that it occupies: a second lease with the same claim is refused."""
    state: str
    """``held``, ``undoing``, or ``stuck``: its undo failed again and again, and ``problems`` says how."""
    age_ms: int
    left_ms: int
    """Until it expires, unless it is renewed."""
    problems: str = ""


@dataclass(frozen=True)
class Consequence:
    """Error lines that a service writes on some nodes because of faults of others."""

    service: str
    """The service whose log it is."""
    on: tuple[str, ...]
    """The nodes that write such lines."""
    of: tuple[str, ...]
    """The nodes whose faults cause them."""
    services: tuple[str, ...] = ()
    """A fault of a single service causes them only if it is one of these; empty: whichever it is."""
    lines: str = ""
    """Regular expression of the lines; empty: all error lines of the service."""
    not_of_down: str = ""
    """Regular expression of lines that no node causes while it is certainly down; empty: there are none."""
    on_console: bool = False
    """Whether the service writes them to the console too."""


@dataclass(frozen=True)
class Cluster:
    """The facts of a cluster that checks and reports need. Durations are milliseconds."""

    site: str
    """The site's DNS name."""
    vips: Mapping[str, str]
    """Each virtual IP address -> the name of its home director (the preferred owner)."""
    directors: tuple[str, ...]
    web: tuple[str, ...]
    macs: Mapping[str, str]
    """Each MAC address on the internet segment -> the name of its node."""
    keepalive_ms: int
    deadtime_ms: int
    """Both, and all settings of ldirectord below, as the topology promises them: what must hold. ``configured`` has
    what the directors' own files say."""
    resources_per_vip: int = 2
    """The number of haresources resources that a takeover starts, one after another, for each VIP."""
    resource_start_ms: int = 1500
    """How long the start of one of them may take on this machine. It depends on the machine and is in no configuration
    file, so a lab measures it while nothing is wrong."""
    pace_ms: float | None = None
    """How long a fixed piece of work took on this machine when that was measured; ``pace`` ops have it during the run.
    None: not recorded."""
    resolver: str = "203.0.113.53"
    """The address of the site's resolver."""
    auto_failback: bool = True
    """Whether a VIP fails back to its home director on its own."""
    check_interval_ms: int = 10_000
    check_timeout_ms: int = 30_000
    check_count: int = 1
    failure_count: int = 1
    """How often ldirectord checks the real servers, how long one check may take, how many tries it has, and how many
    checks must fail in a row. The defaults are those of ldirectord 4.12 for keys that a file does not have."""
    checktype: str = "negotiate"
    quiescent: bool | None = None
    """True: a failed real server gets weight 0. False: it is removed from the table. None: not recorded."""
    scheduler: str = ""
    """Its name in ipvsadm(8); empty: not recorded."""
    persistence_s: int = 0
    """How long a client stays with its real server after its last connection; 0: it does not."""
    connection_sync: bool = False
    """Whether the directors synchronize their connection tables."""
    peer_dead: str = ""
    """Regular expression of the log line in which a director declares its peer ``{node}`` dead; empty: not recorded."""
    error_lines: Mapping[str, str] | None = None
    """Each service -> regular expression of the lines of its log that are errors. A service that marks none is left
    out. None: not recorded."""
    consequences: tuple[Consequence, ...] | None = None
    """The error lines that faults of other nodes cause. None: not recorded."""
    followed_logs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Each service whose log is always followed -> the nodes where it is. Consoles are not among them."""
    parts: tuple[str, ...] | None = None
    """The parts that the topology has, by their names in `monkeywrench status`. None: not recorded."""
    configured: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Each director -> the settings that its own ha.cf and ldirectord.cf have, by their names here. Empty: not
    recorded."""


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
    """A stale neighbour (ARP) entry: a node sends packets for an address to a director that does not hold it."""

    node: str
    address: str
    other: str

    def __str__(self) -> str:
        sends = f"it sends packets for {self.address} to {self.other}, which does not hold it"
        return f"{self.node} has a stale ARP entry: {sends}"


@dataclass(frozen=True)
class NodeStatus:
    """One node at one moment. ``why`` is the reason for its kind of kernel."""

    name: str
    role: str
    power: Power
    kernel: str
    kernel_release: str
    why: str


@dataclass(frozen=True)
class PartStatus:
    """One part of the cluster at one moment: a row of the output of `monkeywrench status`."""

    name: str
    seen: str
    """Its state, in one line."""
    problems: tuple[str, ...] = ()
    """Everything that is wrong, in sentences; empty when it is healthy."""
    single_point_of_failure: str = ""
    """What fails while the part's only node is down; empty when another node takes over for it."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The values behind ``seen``, as JSON types."""

    @property
    def healthy(self) -> bool:
        """True when it has no problems."""
        return not self.problems


@dataclass(frozen=True)
class Status:
    """The cluster at one moment. ``problems`` has a sentence for everything that is wrong; empty when it is healthy."""

    nodes: tuple[NodeStatus, ...]
    owners: Mapping[str, tuple[str, ...]]
    """Each VIP -> the directors that hold it right now (exactly one in a healthy cluster)."""
    ipvs: Mapping[str, Mapping[str, tuple[RealServer, ...]]]
    """Each director -> each virtual service (``VIP:port``) -> its real servers."""
    problems: tuple[str, ...] = ()
    parts: tuple[PartStatus, ...] = ()
    """In the order in which they are shown; a part that the topology does not have has no row."""
    stale_neighbours: tuple[StaleNeighbour, ...] = ()
    """Nodes that missed the announcement that an address moved."""

    @property
    def healthy(self) -> bool:
        """True when there are no problems."""
        return not self.problems


@dataclass(frozen=True)
class Entry:
    """What a feed makes of a line: an op of the history that does not have its index yet.

    ``time_ns`` is on the lab's clock. ``type`` is ``invoke``, ``ok``, ``fail`` or ``info``: the result is unknown, or
    no client requested it (faults, observations and logs, as in Jepsen's nemesis ops).
    """

    time_ns: int
    process: str
    type: str
    f: str
    value: Any = None
    error: str | None = None


@dataclass(frozen=True)
class Cable:
    """A network cable: it joins one interface of a node to a segment. Its name is that of its end in the switch."""

    name: str
    """``node.interface``, such as ``lb-1.eth0``."""
    node: str
    interface: str
    segment: str
    addresses: tuple[str, ...]
    """The node's own IPv4 addresses on it, without virtual ones."""
    mac: str


@dataclass(frozen=True)
class FrameRule:
    """What happens to some frames of a simulated cable."""

    name: str
    """Unique in its lab; the rule's chances come from the lab's seed and this name."""
    cable: str
    way: str
    """``from`` the cable's node, or ``to`` it."""
    does: str
    """The simulator's action with its settings, such as ``drop p=0.1`` (docs/virtual-time.md)."""
    frames: str = ""
    """A pcap filter (pcap-filter(7)); empty: all frames."""


@dataclass(frozen=True)
class Hits:
    """What a rule has done: frames on which it acted, of all that it concerns."""

    acted: int
    seen: int


class EffectKind(StrEnum):
    """What a fault certainly does, from its proof to its undo."""

    NODE_DOWN = "node-down"
    """The node does nothing: it is off, frozen or panicked."""
    SERVICE_DOWN = "service-down"
    """A service of the node does nothing."""
    FAILS_CHECK = "fails-check"
    """The real server fails the directors' health check."""
    CUTS_PATH = "cuts-path"
    """The node reaches no other node."""
    IMPAIRS_PATH = "impairs-path"
    """Some of the node's traffic is lost, repeated, reordered, damaged or rejected."""
    MISDIRECTS = "misdirects"
    """The node, or its neighbours, send traffic for an address to the wrong place."""
    DOUBLES_ADDRESS = "doubles-address"
    """The node holds an address that another node holds, too."""
    SLOWS = "slows"
    """The node, its traffic, or a service of it is slower."""
    EXHAUSTS = "exhausts"
    """Memory, disk space or connections have run out."""
    FAILS_WRITES = "fails-writes"
    """Writes fail, or wait."""
    CHANGES_ANSWERS = "changes-answers"
    """A service gives other answers than it should, or none."""
    CHANGES_CLOCK = "changes-clock"
    """The node's clock is wrong."""
    CHANGES_CONFIG = "changes-config"
    """The node's configuration is not what the topology says."""
    CHANGES_DATA = "changes-data"
    """Data that the site serves, copies or keeps is not what it was."""
    RESTARTS = "restarts"
    """The node or a service of it restarts, once or repeatedly."""


@dataclass(frozen=True)
class Effect:
    """One thing that a fault certainly does to one node."""

    kind: EffectKind
    node: str
    service: str = ""
    """The service that it concerns; empty: the node as a whole."""


@dataclass(frozen=True)
class Proof:
    """Evidence that a fault took effect: what was seen, and when."""

    time_ns: int
    seen: str
    detail: Mapping[str, Any] = field(default_factory=dict)
