"""A topology: what a lab consists of, as read from TOML.

Every refusal names the key, its place and what would be right.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from harness.protocols import LabError

Role = Literal["client", "resolver", "director", "web"]
Kernel = Literal["uml", "host"]

ALLOWED = (IPv4Network("198.18.0.0/15"), IPv4Network("203.0.113.0/24"))
"""Reserved for benchmarks (RFC 2544) and documentation (RFC 5737): never a host's private network, never routed."""

SEGMENTS_OF = {
    "client": {"internet"},
    "resolver": {"internet"},
    "director": {"internet", "lan", "heartbeat"},
    "web": {"lan"},
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
    gateway: IPv4Address


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


class NodeSpec(Strict):
    """One kind of node, ``count`` times."""

    name: str = Field(pattern=NAME_PATTERN)
    role: Role
    count: int | None = Field(None, ge=1, le=64)
    kernel: Kernel = "uml"
    memory_mib: int = Field(128, ge=48, le=16384)
    addresses: dict[str, Addresses]


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

    @cached_property
    def machines(self) -> tuple[Machine, ...]:
        """Every node by itself, in the order of the file."""
        return tuple(machine for spec in self.nodes for machine in _expand(spec))

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


def _expand(spec: NodeSpec) -> Iterator[Machine]:
    for number in range(spec.count or 1):
        yield Machine(
            name=f"{spec.name}-{number + 1}" if spec.count else spec.name,
            role=spec.role,
            kernel=spec.kernel,
            memory_mib=spec.memory_mib,
            addresses={
                segment: tuple(first + number for first in firsts) for segment, firsts in spec.addresses.items()
            },
        )


def _problems(topology: Topology) -> Iterator[str]:
    """What is wrong between the parts, each in one sentence."""
    yield from _name_problems(topology)
    yield from _segment_problems(topology)
    yield from _address_problems(topology)
    yield from _role_problems(topology)


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
    claims += [(f"vips[{number}].gateway", "lan", vip.gateway) for number, vip in enumerate(topology.vips)]
    for place, segment, address in claims:
        network = topology.segments.get(segment)
        if network and address not in list(network.hosts()):
            yield f"{place}: {address} is not a host address of segment {segment} ({network})"
        if address in owners:
            yield f"{place}: {address} is taken by {owners[address]}"
        owners[address] = place


def _role_problems(topology: Topology) -> Iterator[str]:
    for role, least, most in (("client", 1, 1), ("resolver", 1, 1), ("director", 2, 2), ("web", 1, 64)):
        count = sum(machine.role == role for machine in topology.machines)
        if not least <= count <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            yield f"nodes: {count} of role {role}; a lab has {wanted}"
    for machine in topology.of_role("web"):
        have = len(machine.addresses.get("lan", ()))
        if have != len(topology.vips):
            needs = f"a real server needs one for each of the {len(topology.vips)} VIPs"
            yield f"nodes {machine.name}: addresses.lan has {have} addresses; {needs}"


def shipped() -> dict[str, Path]:
    """The topologies that come with monkeywrench, by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.toml"))}


def load(name_or_path: str) -> Topology:
    """Read a topology by the name of a shipped one, or from a TOML file. Raises TopologyError."""
    path = shipped().get(name_or_path) or Path(name_or_path)
    try:
        text = path.read_text()
    except OSError as error:
        raise TopologyError(
            f"cannot read topology {name_or_path!r}: {error.strerror}",
            f"Name a TOML file, or one of the shipped topologies: {', '.join(shipped())}.",
        ) from None
    return parse(text, str(path))


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
    models: dict[str, type[BaseModel]] = {"vips": Vip, "nodes": NodeSpec, "timings": Timings}
    model = models.get(str(place[0]), Topology) if place else Topology
    return list(model.model_fields)
