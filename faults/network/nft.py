"""The switch's nft rulesets: one table a fault, so that faults compose, and each is undone by deleting its table. Pure.

A frame first passes all tables' ``pick`` chains, which count it and mark what a fault takes; then the ``end`` chains,
which drop or reject what is marked. So each fault counts what it takes, also where another one takes the same frame.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PICK, DROP, REJECT = -300, -200, -100
"""Priorities of the chains: a frame that is dropped anyway is not rejected."""

DROPPED, REJECTED = 1, 2
"""Bits of a frame's mark, which ends with the frame's way through the switch."""

WAY = "%way%"
"""In a rule: the direction that it is for."""

UNREACHABLE = "icmp type host-unreachable"


def fresh() -> str:
    """A table's name that no other has."""
    return f"mw_{uuid.uuid4().hex}"


@dataclass(frozen=True)
class Frames:
    """Which frames: of a protocol (any, tcp, udp, icmp, arp), and from or to a port (None: any)."""

    protocol: str = "any"
    port: int | None = None

    def __str__(self) -> str:
        return f"{self.protocol} {self.port}" if self.port else self.protocol

    def matches(self) -> tuple[str, ...]:
        """As nft matches, of which one has to hold."""
        if self.port:
            return (f"{self.protocol} dport {self.port}", f"{self.protocol} sport {self.port}")
        if self.protocol == "any":
            return ("",)
        return ("meta protocol arp",) if self.protocol == "arp" else (f"ip protocol {self.protocol}",)


@dataclass(frozen=True)
class Hook:
    """A place that frames pass: ``ingress`` or ``egress`` of cables, or ``forward`` of the bridges."""

    way: str
    """What its counters are called after."""
    hook: str
    cables: tuple[str, ...] = ()
    matches: tuple[str, ...] = ("",)

    @property
    def where(self) -> str:
        """As the beginning of a base chain."""
        names = ", ".join(f'"{cable}"' for cable in self.cables)
        return f"type filter hook {self.hook}" + (f" devices = {{ {names} }}" if names else "")


def leaving(cable: str, frames: Frames) -> Hook:
    """Where frames from a node enter the switch."""
    return Hook("from", "ingress", (cable,), frames.matches())


def arriving(cable: str, frames: Frames) -> Hook:
    """Where frames to a node leave the switch."""
    return Hook("to", "egress", (cable,), frames.matches())


def between(way: str, one: Iterable[str], other: Iterable[str]) -> Hook:
    """Where the bridges forward frames from the one cables to the others."""
    return Hook(way, "forward", (), (f"iifname {cable_set(one)} oifname {cable_set(other)}",))


def cable_set(cables: Iterable[str]) -> str:
    """A set of cables, as nft writes it."""
    return "{ " + ", ".join(f'"{cable}"' for cable in cables) + " }"


def dropping(table: str, hooks: Sequence[Hook], when: str = "") -> str:
    """The commands that make a table which drops what ``when`` holds for."""
    return _table(table, hooks, _taken(when, DROPPED), DROP, (f"{_marked(DROPPED)} drop",))


def rejecting(table: str, hooks: Sequence[Hook]) -> str:
    """The commands that make a table which answers TCP with a reset, and other IP with ICMP host unreachable."""
    answers = (
        f"{_marked(REJECTED)} meta l4proto tcp reject with tcp reset",
        f"{_marked(REJECTED)} reject with {UNREACHABLE}",
    )
    return _table(table, hooks, _taken("meta protocol ip", REJECTED), REJECT, answers)


def blinking(table: str, hooks: Sequence[Hook]) -> tuple[str, str]:
    """The commands that let such a table drop nothing for a while, and everything again. Both need the table."""
    family = _family(hooks)
    flushed = [f"flush chain {family} {table} act_{hook.way}" for hook in hooks]

    def filled(rule: str) -> str:
        added = [f"add rule {family} {table} act_{hook.way} {rule.replace(WAY, hook.way)}" for hook in hooks]
        return "\n".join([*flushed, *added])

    seen = f"counter name seen_{WAY}"
    return filled(seen), filled(f"{seen} {_taken('', DROPPED)}")


def deleting(family: str, table: str) -> str:
    """The commands that delete a table, whether it is there or not; if they succeed, it is gone."""
    return f"add table {family} {table}; delete table {family} {table}"


def counted(listing: str) -> dict[str, int]:
    """``nft -j list counters``: each counter's packets."""
    objects = json.loads(listing)["nftables"]
    return {each["counter"]["name"]: each["counter"]["packets"] for each in objects if "counter" in each}


def _family(hooks: Sequence[Hook]) -> str:
    return "bridge" if hooks[0].hook == "forward" else "netdev"


def _taken(when: str, bit: int) -> str:
    return f"{when} counter name hit_{WAY} meta mark set meta mark | {bit}".strip()


def _marked(bit: int) -> str:
    return f"meta mark & {bit} == {bit}"


def _table(table: str, hooks: Sequence[Hook], taken: str, end: int, answers: Sequence[str]) -> str:
    """All in one transaction: it is there as a whole, or not at all."""
    family = _family(hooks)
    lines = [f"table {family} {table}"]
    for hook in hooks:
        way = hook.way
        lines += [f"counter {family} {table} seen_{way}", f"counter {family} {table} hit_{way}"]
        lines += [f"chain {family} {table} act_{way}"]
        lines += [f"rule {family} {table} act_{way} counter name seen_{way}"]
        lines += [f"rule {family} {table} act_{way} {taken.replace(WAY, way)}"]
        lines += [f"chain {family} {table} pick_{way} {{ {hook.where} priority {PICK}; }}"]
        lines += [f"rule {family} {table} pick_{way} {match} goto act_{way}" for match in hook.matches]
        lines += [f"chain {family} {table} end_{way} {{ {hook.where} priority {end}; }}"]
        lines += [f"rule {family} {table} end_{way} {answer}" for answer in answers]
    return "\n".join(f"add {line}" for line in lines)
