"""A topology: what a lab consists of, as read from TOML.

Every refusal names the key, its place and what would be right.
"""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from collections.abc import Iterable, Iterator
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from harness.records import LabError

Role = Literal["client", "resolver", "director", "web", "db"]
Kernel = Literal["uml", "host"]
Forwarding = Literal["masq", "gate", "ipip"]
Scheduler = Literal["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh"]
"""All that Linux has (net/netfilter/ipvs)."""

ALLOWED = (IPv4Network("198.18.0.0/15"), IPv4Network("203.0.113.0/24"))
"""Reserved for benchmarks (RFC 2544) and documentation (RFC 5737): never a host's private network, never routed."""

SEGMENTS_OF = {
    "client": {"internet"},
    "resolver": {"internet"},
    "director": {"internet", "lan", "heartbeat"},
    "web": {"lan"},
    "db": {"lan"},
}
"""The segments that each role needs a cable in."""

NAME_PATTERN = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
NODE_NAME_MAX = 10
"""A cable is named ``node.ethN``; Linux allows 15 characters in an interface's name (IFNAMSIZ)."""


class TopologyError(LabError):
    """A topology that cannot be built, with the place in it."""


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Addresses = Annotated[tuple[IPv4Address, ...], BeforeValidator(_one_or_more), Field(min_length=1)]


class Strict(BaseModel):
    """Unknown keys are refused; nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Vip(Strict):
    """A virtual IP address: who has it when all is well, and the inside gateway that moves with it."""

    address: IPv4Address
    home: str
    gateway: IPv4Address | None = None


class Timings(Strict):
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
                f"deadtime_ms must be more than twice keepalive_ms ({least_ms}): heartbeat refuses to start"
            )
        if self.initdead_ms < self.deadtime_ms:
            raise ValueError(
                f"initdead_ms must be at least deadtime_ms ({self.deadtime_ms}): heartbeat refuses to start"
            )
        return self


class Service(Strict):
    """The virtual service, the same at every VIP: TCP port 80."""

    forwarding: Forwarding = "masq"
    scheduler: Scheduler = "wlc"
    persistence_s: int | None = Field(None, ge=1)
    """How long a client stays with its real server after its last connection; None for not at all."""
    quiescent: bool = True
    """A failed real server gets weight 0; otherwise it is taken out of the table."""


class Directors(Strict):
    """How the two directors work together."""

    auto_failback: bool = True
    connection_sync: bool = True


class WebData(Strict):
    """The site's folder: changed on the master only, replicated from there with rsync."""

    master: str
    debounce_ms: int = Field(500, ge=50)
    resync_s: int = Field(60, ge=5)


class VariableData(Strict):
    """Folders that users write to: on the master's disk, mounted by all other real servers over NFS."""

    master: str
    disk_mib: int = Field(256, ge=16)
    backup_on: str
    backup_every_s: int = Field(60, ge=5)


class Database(Strict):
    """The site's database, on the one node of role db."""

    engine: Literal["mariadb", "mysql"] = "mariadb"
    disk_mib: int = Field(1024, ge=256)
    backup_on: str
    backup_every_s: int = Field(60, ge=5)

    @model_validator(mode="after")
    def _has_a_package(self) -> Self:
        if self.engine == "mysql":
            raise ValueError(
                "engine mysql has no package in Debian bookworm (only the unstable suite has one); "
                "mariadb is Debian's default and speaks its protocol"
            )
        return self


class Monitoring(Strict):
    """Ganglia: gmond on every real server, gmetad on a director."""

    gmetad_on: str
    poll_s: int = Field(5, ge=1)


class Overlay(Strict):
    """Files of the user's own, put onto nodes instead of, or beside, what the lab renders."""

    nodes: Annotated[tuple[str, ...], BeforeValidator(_one_or_more), Field(min_length=1)]
    """Roles, or names of nodes."""
    path: str = Field(pattern=r"^/.")
    """Where on the node."""
    source: Path
    """A file, or a folder that then stands there alone; relative to the topology's own file."""
    digest: str = ""
    """Of its content, filled in when the topology is loaded."""


class NodeSpec(Strict):
    """One kind of node, ``count`` times."""

    name: str = Field(pattern=NAME_PATTERN)
    role: Role
    count: int | None = Field(None, ge=1, le=64)
    kernel: Kernel = "uml"
    memory_mib: int = Field(128, ge=48, le=16384)
    addresses: dict[str, Addresses]
    uplink: IPv4Address | None = None
    """A real server's own address on the internet segment, counted up as the others. It is plugged in only where real
    servers answer clients themselves: with forwarding gate or ipip."""


class Machine(Strict):
    """One node: a spec with its number put in."""

    name: str
    role: Role
    kernel: Kernel
    memory_mib: int
    addresses: dict[str, tuple[IPv4Address, ...]]


class Topology(Strict):
    """A whole lab."""

    name: str = Field(pattern=NAME_PATTERN)
    site: str = Field(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$")
    ttl_s: int = Field(5, ge=0)
    segments: dict[str, IPv4Network]
    vips: tuple[Vip, ...] = Field(min_length=1)
    nodes: tuple[NodeSpec, ...]
    timings: Timings = Timings()
    service: Service = Service()
    directors: Directors = Directors()
    web_data: WebData | None = None
    variable_data: VariableData | None = None
    database: Database | None = None
    monitoring: Monitoring | None = None
    overlays: tuple[Overlay, ...] = ()

    @cached_property
    def machines(self) -> tuple[Machine, ...]:
        """Every node by itself, in the order of the file."""
        return tuple(machine for spec in self.nodes for machine in _expand(spec, self.answers_directly))

    @property
    def answers_directly(self) -> bool:
        """True when replies do not go back through the director (forwarding gate and ipip)."""
        return self.service.forwarding != "masq"

    def machine(self, name: str) -> Machine:
        """The node of that name."""
        return next(machine for machine in self.machines if machine.name == name)

    def lan(self, name: str) -> IPv4Address:
        """A node's first address on the lan."""
        return self.machine(name).addresses["lan"][0]

    @property
    def comparable_facts(self) -> dict[str, Any]:
        """What runs must share to be compared, in the words of a history's first op."""
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
        """A node's interfaces: (``eth0``, its segment), ... in the order of the segments."""
        segments = [segment for segment in self.segments if segment in machine.addresses]
        return [(f"eth{number}", segment) for number, segment in enumerate(segments)]

    def interface(self, machine: Machine, segment: str) -> str:
        """The interface by which a node is on a segment."""
        return next(name for name, on in self.interfaces(machine) if on == segment)

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        for problem in _problems(self):
            raise ValueError(problem)
        return self


def _expand(spec: NodeSpec, plug_in_uplink: bool) -> Iterator[Machine]:
    firsts_of = dict(spec.addresses)
    if spec.uplink and plug_in_uplink:
        firsts_of["internet"] = (spec.uplink,)
    for number in range(spec.count or 1):
        yield Machine(
            name=f"{spec.name}-{number + 1}" if spec.count else spec.name,
            role=spec.role,
            kernel=spec.kernel,
            memory_mib=spec.memory_mib,
            addresses={segment: tuple(first + number for first in firsts) for segment, firsts in firsts_of.items()},
        )


def _problems(topology: Topology) -> Iterator[str]:
    """What is wrong between the parts, each in one sentence."""
    yield from _name_problems(topology)
    yield from _segment_problems(topology)
    yield from _address_problems(topology)
    yield from _role_problems(topology)
    yield from _part_problems(topology)
    yield from _forwarding_problems(topology)
    yield from _overlay_problems(topology)


def _name_problems(topology: Topology) -> Iterator[str]:
    names = [machine.name for machine in topology.machines]
    for name in names:
        if names.count(name) > 1:
            yield f"nodes: the name {name!r} is used twice; each node needs its own"
        if len(name) > NODE_NAME_MAX:
            most = f"{NODE_NAME_MAX} characters at most (its cables are named after it)"
            yield f"nodes: the name {name!r} is too long; {most}"
    directors = [machine.name for machine in topology.of_role("director")]
    for number, vip in enumerate(topology.vips):
        if vip.home not in directors:
            allowed = ", ".join(directors) or "(none)"
            yield f"vips[{number}].home: {vip.home!r} is no director; it must be one of {allowed}"


def _segment_problems(topology: Topology) -> Iterator[str]:
    for name, network in topology.segments.items():
        if not any(network.subnet_of(reserved) for reserved in ALLOWED):
            allowed = f"{ALLOWED[0]} and {ALLOWED[1]}"
            yield f"segments.{name}: {network} is outside {allowed}, the only networks a lab may use"
        if len(name) > 12:  # its bridge has "br-" before it, see NODE_NAME_MAX
            yield f"segments.{name}: the name is too long; 12 characters at most"
    for machine in topology.machines:
        for segment in SEGMENTS_OF[machine.role] - set(machine.addresses):
            yield f"nodes {machine.name}: a {machine.role} needs addresses.{segment}"
        for segment in set(machine.addresses) - set(topology.segments):
            there_are = ", ".join(topology.segments)
            yield f"nodes {machine.name}: addresses.{segment} names no segment; there are {there_are}"


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
            yield f"{place}: {address} is taken by {owners[address]}"
        owners[address] = place


def _role_problems(topology: Topology) -> Iterator[str]:
    databases = 1 if topology.database else 0
    counts = (("client", 1, 8), ("resolver", 1, 1), ("director", 2, 2), ("web", 1, 64), ("db", databases, databases))
    for role, least, most in counts:
        count = sum(machine.role == role for machine in topology.machines)
        if not least <= count <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            why = " (the table [database] says whether there is one)" if role == "db" else ""
            yield f"nodes: {count} of role {role}; a lab has {wanted}{why}"
    for machine in topology.of_role("web"):
        have = len(machine.addresses.get("lan", ()))
        if have != len(topology.vips):
            needs = f"a real server needs one for each of the {len(topology.vips)} VIPs"
            yield f"nodes {machine.name}: addresses.lan has {have} addresses; {needs}"


def _part_problems(topology: Topology) -> Iterator[str]:
    places: list[tuple[str, Role, str]] = []
    if topology.web_data:
        places += [("web_data.master", "web", topology.web_data.master)]
    if topology.variable_data:
        places += [("variable_data.master", "web", topology.variable_data.master)]
        places += [("variable_data.backup_on", "web", topology.variable_data.backup_on)]
        if topology.variable_data.master == topology.variable_data.backup_on:
            yield "variable_data.backup_on: a backup beside what it is a backup of would be lost with it"
    if topology.database:
        places += [("database.backup_on", "web", topology.database.backup_on)]
    if topology.monitoring:
        places += [("monitoring.gmetad_on", "director", topology.monitoring.gmetad_on)]
    for place, role, name in places:
        there_are = [machine.name for machine in topology.of_role(role)]
        if name not in there_are:
            yield f"{place}: {name!r} is no {role} node; there are {', '.join(there_are) or 'none'}"
    yield from _kernel_problems(topology)


def _kernel_problems(topology: Topology) -> Iterator[str]:
    for machine in topology.machines:
        if machine.kernel == "host" and (why := needs_own_kernel(topology, machine)):
            yield f'nodes {machine.name}: kernel = "host" cannot be: {why}; use kernel = "uml"'


def needs_own_kernel(topology: Topology, machine: Machine) -> str:
    """Why a node cannot share the host's kernel; empty when it can.

    A shared kernel has neither disks of the node's own nor mounts, and its sysctls are not ours to set.
    """
    if machine.role == "web" and topology.variable_data:
        return "[variable_data] mounts NFS and a disk"
    if machine.role == "web" and topology.answers_directly:
        return f"forwarding {topology.service.forwarding} changes what the kernel says by ARP"
    if machine.role == "db" and topology.database:
        return "[database] has a disk of its own"
    if topology.monitoring and machine.name == topology.monitoring.gmetad_on:
        return "[monitoring] keeps its history on a disk of its own"
    return ""


def _forwarding_problems(topology: Topology) -> Iterator[str]:
    """What IPVS cannot do, or what would leave replies without a way."""
    forwarding = topology.service.forwarding
    for number, vip in enumerate(topology.vips):
        if forwarding == "masq" and vip.gateway is None:
            why = "replies must leave through the director that took the request (or use forwarding gate or ipip)"
            yield f"vips[{number}].gateway: forwarding masq needs it: {why}"
    for machine in topology.of_role("web"):
        if topology.answers_directly and "internet" not in machine.addresses:
            why = "the real servers answer clients themselves, past the director"
            yield f"nodes {machine.name}: forwarding {forwarding} needs uplink, an address on the internet: {why}"


def _overlay_problems(topology: Topology) -> Iterator[str]:
    known = {machine.name for machine in topology.machines} | {machine.role for machine in topology.machines}
    for number, overlay in enumerate(topology.overlays):
        for name in overlay.nodes:
            if name not in known:
                yield f"overlays[{number}].nodes: {name!r} is neither a role nor a node; there are {_listed(known)}"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))


def shipped() -> dict[str, Path]:
    """The topologies that come with monkeywrench, by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.toml"))}


def load(name_or_path: str) -> Topology:
    """Read a topology by the name of a shipped one, or from a TOML file. Raises TopologyError."""
    path = shipped().get(name_or_path) or Path(name_or_path)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise TopologyError(
            f"cannot read topology {name_or_path!r}: {getattr(error, 'strerror', None) or error}",
            f"Name a TOML file, or one of the shipped topologies: {', '.join(shipped())}.",
        ) from None
    topology = parse(text, str(path))
    overlays = tuple(_found(overlay, path) for overlay in topology.overlays)
    return topology.model_copy(update={"overlays": overlays}) if overlays else topology


def _found(overlay: Overlay, topology: Path) -> Overlay:
    """With its source as an absolute path, and the digest of what is there now."""
    source = (topology.parent / overlay.source).resolve()
    if not source.exists():
        raise TopologyError(
            f"{topology}: overlays: there is no {overlay.source} beside it",
            "An overlay's source is a file or a folder, relative to the topology's own file.",
        )
    return overlay.model_copy(update={"source": source, "digest": digest(source)})


def sources(source: Path) -> Iterator[tuple[str, Path]]:
    """The files of an overlay's source: (path below it, file); a single file has the path ``""``."""
    if source.is_file():
        yield "", source
    for path in sorted(source.rglob("*")) if source.is_dir() else ():
        if path.is_file():
            yield f"/{path.relative_to(source)}", path


def digest(source: Path) -> str:
    """Of all files of an overlay's source, with their names and modes."""
    total = hashlib.sha256()
    for below, path in sources(source):
        content = path.read_bytes()
        total.update(f"{below}\0{path.stat().st_mode & 0o777:o}\0{len(content)}\0".encode() + content)
    return total.hexdigest()[:16]


def parse(text: str, source: str) -> Topology:
    """Read a topology from TOML text; ``source`` names it in errors."""
    try:
        return Topology.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise TopologyError(f"{source} is not TOML: {error}") from None
    except ValidationError as error:
        raise TopologyError("\n".join(f"{source}: {sentence(problem)}" for problem in error.errors())) from None


def sentence(problem: Any) -> str:
    """One pydantic error as: place, key, what would be right."""
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]).lstrip(".")
    if problem["type"] == "extra_forbidden":
        allowed = _keys_at(problem["loc"][:-1])
        near = difflib.get_close_matches(str(problem["loc"][-1]), allowed, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(allowed)}"
        return f"{place}: unknown key; {hint}"
    if problem["type"] == "missing":
        return f"{place}: this key is missing"
    message = problem["msg"].removeprefix("Value error, ")
    got = "" if isinstance(problem["input"], dict) else f" (it is {problem['input']!r})"
    return f"{place}: {message}{got}" if place else message


def _keys_at(place: tuple[Any, ...]) -> list[str]:
    models: dict[str, type[BaseModel]] = {
        "vips": Vip,
        "nodes": NodeSpec,
        "timings": Timings,
        "service": Service,
        "directors": Directors,
        "web_data": WebData,
        "variable_data": VariableData,
        "database": Database,
        "monitoring": Monitoring,
        "overlays": Overlay,
    }
    model = models.get(str(place[0]), Topology) if place else Topology
    return list(model.model_fields)
