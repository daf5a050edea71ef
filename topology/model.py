"""A topology: the nodes, segments, VIPs and parts of a lab. ``load.py`` reads one from TOML.

Every error names the place, what is wrong and what is accepted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from harness.reading import brief, shown
from harness.records import LabError

ClockKind = Literal["real", "virtual"]
CostPreset = Literal["fast", "typical", "struggling"]
Role = Literal["client", "resolver", "director", "web", "db"]
Kernel = Literal["uml", "host"]
Forwarding = Literal["masq", "gate", "ipip"]
Scheduler = Literal["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh"]
"""The schedulers of Linux (net/netfilter/ipvs)."""

ALLOWED = (IPv4Network("198.18.0.0/15"), IPv4Network("203.0.113.0/24"))
"""Reserved for benchmarks (RFC 2544) and documentation (RFC 5737): no host uses or routes them."""

SEGMENTS_OF = {
    "client": {"internet"},
    "resolver": {"internet"},
    "director": {"internet", "lan", "heartbeat"},
    "web": {"lan"},
    "db": {"lan"},
}
"""The segments that each role needs an address in."""

NAME_PATTERN = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
NODE_NAME_MAX = 10
"""A cable has the name ``node.ethN``; Linux allows 15 characters in the name of an interface (IFNAMSIZ)."""


class TopologyError(LabError):
    """A mistake in a topology, with its place."""


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Addresses = Annotated[tuple[IPv4Address, ...], BeforeValidator(_one_or_more), Field(min_length=1)]


class Strict(BaseModel):
    """A table that accepts no unknown keys and is immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Vip(Strict):
    """A virtual IP address, its home director, and the inside gateway that moves with it."""

    address: IPv4Address
    home: str
    gateway: IPv4Address | None = None


class TimingsTable(Strict):
    """heartbeat's (ha.cf) and ldirectord's settings."""

    keepalive_ms: int = Field(500, ge=100)
    warntime_ms: int = Field(1500, ge=200)
    deadtime_ms: int = Field(3000, ge=300)
    initdead_ms: int = Field(10000, ge=300)
    check_interval_s: int = Field(2, ge=1)
    check_timeout_s: int = Field(3, ge=1)

    @model_validator(mode="after")
    def _as_heartbeat_wants(self) -> Self:
        least_ms = 2 * self.keepalive_ms
        if self.deadtime_ms <= least_ms:
            raise ValueError(
                f"deadtime_ms must be more than twice keepalive_ms ({least_ms}); otherwise heartbeat refuses to start"
            )
        if self.initdead_ms < self.deadtime_ms:
            raise ValueError(
                f"initdead_ms must be at least deadtime_ms ({self.deadtime_ms}); otherwise heartbeat refuses to start"
            )
        return self


class ServiceTable(Strict):
    """The virtual service at TCP port 80 of every VIP."""

    forwarding: Forwarding = "masq"
    scheduler: Scheduler = "wlc"
    persistence_s: int | None = Field(None, ge=1)
    """How long a client stays on its real server after its last connection; None for no persistence."""
    quiescent: bool = True
    """A failed real server gets weight 0; with false it is removed from the table."""


class DirectorsTable(Strict):
    """How the 2 directors work together."""

    auto_failback: bool = True
    connection_sync: bool = True


@dataclass(frozen=True)
class Cost:
    """What processor work costs in virtual time."""

    syscall_ns: float
    fork_us: float
    exec_us: float
    page_ns: float
    """Of a page that is read from the root on the host."""
    spread: float
    """Each of these takes evenly up to this share more."""
    hold_up_one_in: int
    """One in so many system calls is held up; 0: none is."""
    hold_up_ms: tuple[float, float]


COSTS: dict[CostPreset, Cost] = {
    "fast": Cost(1000, 150, 500, 5000, 0.1, 0, (1, 80)),
    "typical": Cost(2000, 500, 1000, 20_000, 0.25, 0, (1, 80)),
    "struggling": Cost(2000, 5000, 8000, 20_000, 0.5, 200, (1, 80)),
}
"""``fast`` is near to what was measured in a virtual machine of a server (AMD EPYC, Linux 6.18, medians of 400): fork,
exit and wait of a process of 1 MiB 0.14 ms, the same with exec of a shell 0.56 ms; a bare system call took 0.13 us, the
rest stands for the work around it. ``typical`` is two to four times that, an older or busier machine. ``struggling`` is
an assumption: the guest of a host that others keep busy, where the scheduler comes back after up to tens of ms."""

HOLD_UPS_AT_MOST = 10
"""At most one in so many system calls is held up."""


class CostTable(Strict):
    """What processor work costs in virtual time: a preset, and what differs from it."""

    preset: CostPreset = "typical"
    jitter: float = Field(1, ge=0, le=10)
    """A factor on all that is random: how much costs vary, and how often system calls are held up."""
    syscall_ns: float | None = Field(None, le=1_000_000)
    fork_us: float | None = Field(None, ge=0, le=1_000_000)
    exec_us: float | None = Field(None, ge=0, le=1_000_000)
    page_ns: float | None = Field(None, ge=0, le=10_000_000)
    spread: float | None = Field(None, ge=0, le=10)
    hold_up_one_in: int | None = Field(None, ge=0)
    hold_up_ms: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        cost = self.effective
        if cost.syscall_ns < 1:
            raise ValueError(
                f"syscall_ns must be at least 1 (got {cost.syscall_ns:g}): a program that spins on a system call would "
                "never end"
            )
        shortest_ms, longest_ms = cost.hold_up_ms
        if not 0.001 <= shortest_ms <= longest_ms <= 1000:
            raise ValueError(
                f"hold_up_ms is [shortest, longest] in milliseconds, from 0.001 to 1000 (got [{shortest_ms:g}, "
                f"{longest_ms:g}])"
            )
        least = round(HOLD_UPS_AT_MOST * max(self.jitter, 1))
        if 0 < cost.hold_up_one_in < least:
            raise ValueError(
                f"hold_up_one_in must be 0 (no hold-ups) or at least {least} (got {cost.hold_up_one_in}): otherwise a "
                "node does little else than wait"
            )
        return self

    @property
    def effective(self) -> Cost:
        """The preset, with what the table sets itself; before ``jitter``."""
        own = {field.name: value for field in fields(Cost) if (value := getattr(self, field.name)) is not None}
        return replace(COSTS[self.preset], **own)


def _preset_alone(value: Any) -> Any:
    return {"preset": value} if isinstance(value, str) else value


class WebDataTable(Strict):
    """The site's folder: it changes on the master only, and rsync replicates it."""

    master: str
    debounce_ms: int = Field(500, ge=50)
    resync_s: int = Field(60, ge=5)


class VariableDataTable(Strict):
    """Folders that users write to, on the master's disk; all other real servers mount them over NFS."""

    master: str
    disk_mib: int = Field(256, ge=16)
    backup_on: str
    backup_every_s: int = Field(60, ge=5)


class DatabaseTable(Strict):
    """The site's database, on the only node with role db."""

    engine: Literal["mariadb", "mysql"] = "mariadb"
    disk_mib: int = Field(1024, ge=256)
    backup_on: str
    backup_every_s: int = Field(60, ge=5)

    @model_validator(mode="after")
    def _has_a_package(self) -> Self:
        if self.engine == "mysql":
            raise ValueError(
                "engine 'mysql' has no package in Debian bookworm (only in unstable); use 'mariadb', which is Debian's "
                "default and speaks the same protocol"
            )
        return self


class MonitoringTable(Strict):
    """Ganglia: gmond on every real server, gmetad on one director."""

    gmetad_on: str
    poll_s: int = Field(5, ge=1)


class Overlay(Strict):
    """The user's own files on nodes, in addition to the rendered ones or instead of them."""

    nodes: Annotated[tuple[str, ...], BeforeValidator(_one_or_more), Field(min_length=1)]
    """Roles or names of nodes."""
    path: str = Field(pattern=r"^/.")
    """The absolute path on the node."""
    source: Path
    """A file or a folder, relative to the topology's file. A folder replaces all rendered files below its path."""
    digest: str = ""
    """A digest of the content, filled in when the topology is loaded."""


class NodeSpec(Strict):
    """A kind of node; ``count`` of them."""

    name: str = Field(pattern=NAME_PATTERN)
    role: Role
    count: int | None = Field(None, ge=1, le=64)
    kernel: Kernel | None = None
    """None for "uml", and for "host" on a client in real time: the load generator must be faster than what it
    measures."""
    memory_mib: int = Field(128, ge=48, le=16384)
    addresses: dict[str, Addresses]
    uplink: IPv4Address | None = None
    """A real server's own address on the internet segment; it counts up like the others. Used only when real servers
    answer clients directly: with forwarding gate or ipip."""


class Machine(Strict):
    """One node."""

    name: str
    role: Role
    kernel: Kernel
    memory_mib: int
    addresses: dict[str, tuple[IPv4Address, ...]]

    def mac(self, lab: str, interface: str) -> str:
        """A stable, locally administered MAC address (IEEE 802: second bit of the first octet set)."""
        digest = hashlib.sha256(f"{lab}/{self.name}/{interface}".encode()).digest()
        return "02:" + ":".join(f"{byte:02x}" for byte in digest[:5])


class Topology(Strict):
    """A whole lab."""

    name: str = Field(pattern=NAME_PATTERN)
    site: str = Field(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$")
    ttl_s: int = Field(5, ge=0)
    clock: ClockKind = "real"
    """Whose time it is: the host's, or one virtual clock for all kernels of the lab."""
    cost: Annotated[CostTable, BeforeValidator(_preset_alone)] = CostTable()
    """Only in virtual time."""
    segments: dict[str, IPv4Network]
    vips: tuple[Vip, ...] = Field(min_length=1)
    nodes: tuple[NodeSpec, ...]
    timings: TimingsTable = TimingsTable()
    service: ServiceTable = ServiceTable()
    directors: DirectorsTable = DirectorsTable()
    web_data: WebDataTable | None = None
    variable_data: VariableDataTable | None = None
    database: DatabaseTable | None = None
    monitoring: MonitoringTable | None = None
    overlays: tuple[Overlay, ...] = ()

    @cached_property
    def machines(self) -> tuple[Machine, ...]:
        """Every single node, in the order of the file."""
        return tuple(machine for spec in self.nodes for machine in _expand(spec, self))

    @property
    def answers_directly(self) -> bool:
        """Whether real servers reply to clients directly, past the director (forwarding gate and ipip)."""
        return self.service.forwarding != "masq"

    def machine(self, name: str) -> Machine:
        """The node of that name."""
        return next(machine for machine in self.machines if machine.name == name)

    def lan(self, name: str) -> IPv4Address:
        """A node's first address on the lan."""
        return self.machine(name).addresses["lan"][0]

    @property
    def comparable_facts(self) -> dict[str, Any]:
        """What 2 runs must share to be comparable, with the names of a history's first op."""
        return {
            "site": self.site,
            "vips": {str(vip.address): vip.home for vip in self.vips},
            "directors": [machine.name for machine in self.of_role("director")],
            "web": [machine.name for machine in self.of_role("web")],
        }

    def of_role(self, role: Role) -> tuple[Machine, ...]:
        """All nodes of a role."""
        return tuple(machine for machine in self.machines if machine.role == role)

    def interfaces(self, machine: Machine) -> list[tuple[str, str]]:
        """A node's interfaces with their segments, in the order of the segments: ``("eth0", "internet")``, ..."""
        segments = [segment for segment in self.segments if segment in machine.addresses]
        return [(f"eth{number}", segment) for number, segment in enumerate(segments)]

    def mac(self, machine: Machine, interface: str, lab: str) -> str:
        """The MAC address of a node's interface. In virtual time it is the same in every lab: a run must repeat."""
        return machine.mac("" if self.clock == "virtual" else lab, interface)

    def interface(self, machine: Machine, segment: str) -> str:
        """The interface of a node on a segment."""
        return next(name for name, on in self.interfaces(machine) if on == segment)

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        for problem in _problems(self):
            raise ValueError(problem)
        return self


def _expand(spec: NodeSpec, topology: Topology) -> Iterator[Machine]:
    firsts_of = dict(spec.addresses)
    usual: Kernel = "host" if spec.role == "client" and topology.clock == "real" else "uml"
    if spec.uplink and topology.answers_directly:
        firsts_of["internet"] = (spec.uplink,)
    for number in range(spec.count or 1):
        yield Machine(
            name=f"{spec.name}-{number + 1}" if spec.count else spec.name,
            role=spec.role,
            kernel=spec.kernel or usual,
            memory_mib=spec.memory_mib,
            addresses={segment: tuple(first + number for first in firsts) for segment, firsts in firsts_of.items()},
        )


def _problems(topology: Topology) -> Iterator[str]:
    """The contradictions between tables, one sentence each."""
    yield from _name_problems(topology)
    yield from _segment_problems(topology)
    yield from _address_problems(topology)
    yield from _role_problems(topology)
    yield from _part_problems(topology)
    yield from _forwarding_problems(topology)
    yield from _overlay_problems(topology)
    yield from _clock_problems(topology)


def _name_problems(topology: Topology) -> Iterator[str]:
    names = [machine.name for machine in topology.machines]
    for name in names:
        if names.count(name) > 1:
            yield f"nodes: the name {name!r} is used twice; each node needs its own"
        if len(name) > NODE_NAME_MAX:
            yield f"nodes: the name {shown(name)} is too long; at most {NODE_NAME_MAX} characters are accepted"
    directors = [machine.name for machine in topology.of_role("director")]
    for number, vip in enumerate(topology.vips):
        if vip.home not in directors:
            allowed = ", ".join(directors) or "(none)"
            yield f"vips[{number}].home: {vip.home!r} is not a director; directors: {allowed}"


def _segment_problems(topology: Topology) -> Iterator[str]:
    for name, network in topology.segments.items():
        if not any(network.subnet_of(reserved) for reserved in ALLOWED):
            allowed = f"{ALLOWED[0]} and {ALLOWED[1]}"
            yield f"segments.{name}: {network} is outside {allowed}, the only networks that a lab may use"
        if len(name) > 12:  # its bridge is called br-<name>, see NODE_NAME_MAX
            yield f"segments.{brief(name)}: the name is too long; at most 12 characters are accepted"
    for machine in topology.machines:
        for segment in SEGMENTS_OF[machine.role] - set(machine.addresses):
            yield f"nodes {machine.name}: a {machine.role} needs addresses.{segment}"
        for segment in set(machine.addresses) - set(topology.segments):
            known = ", ".join(topology.segments)
            yield f"nodes {machine.name}: addresses.{segment}: unknown segment; segments: {known}"


def _address_problems(topology: Topology) -> Iterator[str]:
    owners: dict[IPv4Address, str] = {}
    claims = [
        (f"nodes {m.name}", segment, a)
        for m in topology.machines
        for segment, all_ in m.addresses.items()
        for a in all_
    ]
    claims += [(f"vips[{number}].address", "internet", vip.address) for number, vip in enumerate(topology.vips)]
    claims += [
        (f"vips[{number}].gateway", "lan", vip.gateway) for number, vip in enumerate(topology.vips) if vip.gateway
    ]
    for place, segment, address in claims:
        network = topology.segments.get(segment)
        if network and address not in list(network.hosts()):
            yield f"{place}: {address} is not a host address of segment {segment} ({network})"
        if address in owners:
            yield f"{place}: {address} is already used by {owners[address]}"
        owners[address] = place


def _role_problems(topology: Topology) -> Iterator[str]:
    databases = 1 if topology.database else 0
    counts = (("client", 1, 8), ("resolver", 1, 1), ("director", 2, 2), ("web", 1, 64), ("db", databases, databases))
    for role, least, most in counts:
        count = sum(machine.role == role for machine in topology.machines)
        if not least <= count <= most:
            wanted = f"exactly {least}" if least == most else f"{least} to {most}"
            why = " (1 with a [database] table, otherwise none)" if role == "db" else ""
            yield f"nodes: {count} with role {role}; a lab has {wanted}{why}"
    for machine in topology.of_role("web"):
        have = len(machine.addresses.get("lan", ()))
        if have != len(topology.vips):
            needs = f"a real server needs one for each VIP ({len(topology.vips)})"
            yield f"nodes {machine.name}: addresses.lan has {have}; {needs}"


def _part_problems(topology: Topology) -> Iterator[str]:
    places: list[tuple[str, Role, str]] = []
    if topology.web_data:
        places += [("web_data.master", "web", topology.web_data.master)]
    if topology.variable_data:
        places += [("variable_data.master", "web", topology.variable_data.master)]
        places += [("variable_data.backup_on", "web", topology.variable_data.backup_on)]
        if topology.variable_data.master == topology.variable_data.backup_on:
            yield "variable_data.backup_on: must not be the master, or a failure of its disk would lose both"
    if topology.database:
        places += [("database.backup_on", "web", topology.database.backup_on)]
    if topology.monitoring:
        places += [("monitoring.gmetad_on", "director", topology.monitoring.gmetad_on)]
    for place, role, name in places:
        known = [machine.name for machine in topology.of_role(role)]
        if name not in known:
            yield f"{place}: {name!r} is not a node with role {role}; nodes: {', '.join(known) or 'none'}"
    yield from _kernel_problems(topology)


def _kernel_problems(topology: Topology) -> Iterator[str]:
    for machine in topology.machines:
        if machine.kernel == "host" and (why := needs_own_kernel(topology, machine)):
            yield f'nodes {machine.name}: kernel = "host" is not possible, because {why}; use kernel = "uml"'


def needs_own_kernel(topology: Topology, machine: Machine) -> str:
    """Why a node cannot share the host's kernel; empty when it can.

    On a shared kernel a node can have no disks or mounts, and must not change sysctls.
    """
    if machine.role == "web" and topology.variable_data:
        return "[variable_data] mounts NFS and a disk"
    if machine.role == "web" and topology.answers_directly:
        return f"forwarding {topology.service.forwarding} changes how the kernel answers ARP"
    if machine.role == "db" and topology.database:
        return "[database] needs its own disk"
    if topology.monitoring and machine.name == topology.monitoring.gmetad_on:
        return "[monitoring] keeps its history on its own disk"
    return ""


def _clock_problems(topology: Topology) -> Iterator[str]:
    for machine in topology.machines if topology.clock == "virtual" else ():
        if machine.kernel == "host":
            yield (
                f'nodes {machine.name}: kernel = "host" is not possible with clock = "virtual", because only a kernel '
                'of its own can have virtual time; use kernel = "uml", or clock = "real"'
            )


def _forwarding_problems(topology: Topology) -> Iterator[str]:
    """Addresses that the forwarding method needs, so that replies reach the clients."""
    forwarding = topology.service.forwarding
    for number, vip in enumerate(topology.vips):
        if forwarding == "masq" and vip.gateway is None:
            why = "because replies must leave through the director that took the request (or use gate or ipip)"
            yield f"vips[{number}].gateway: required with forwarding masq, {why}"
    for machine in topology.of_role("web"):
        if topology.answers_directly and "internet" not in machine.addresses:
            why = "because real servers answer clients directly"
            yield f"nodes {machine.name}: forwarding {forwarding} needs an uplink address, {why}"


def _overlay_problems(topology: Topology) -> Iterator[str]:
    known = {machine.name for machine in topology.machines} | {machine.role for machine in topology.machines}
    for number, overlay in enumerate(topology.overlays):
        for name in overlay.nodes:
            if name not in known:
                yield f"overlays[{number}].nodes: {name!r} is neither a role nor a node; known: {_listed(known)}"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))
