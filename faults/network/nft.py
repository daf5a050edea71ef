"""The switch's nft rulesets: one table per fault, so that faults can be combined and the undo deletes a table. Pure.

A frame first passes the ``pick`` chains of all tables, which count it and mark it if a fault affects it; then the
``end`` chains, which drop or reject marked frames. So each fault counts all its frames, also those of other faults.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PICK, DROP, REJECT = -300, -200, -100
"""Priorities of the chains: drop comes before reject."""

DROPPED, REJECTED = 1, 2
"""Bits of a frame's mark, which lasts while the frame is in the switch."""

WAY = "%way%"
"""Placeholder in a rule for its direction."""

UNREACHABLE = "icmp type host-unreachable"


def fresh() -> str:
    """A unique name for a table."""
    return f"mw_{uuid.uuid4().hex}"


@dataclass(frozen=True)
class Frames:
    """Frames by protocol (any, tcp, udp, icmp, arp) and by source or destination port (None: any)."""

    protocol: str = "any"
    port: int | None = None

    def __str__(self) -> str:
        return f"{self.protocol} {self.port}" if self.port else self.protocol

    def matches(self) -> tuple[str, ...]:
        """nft matches, of which one must hold."""
        if self.port:
            return (f"{self.protocol} dport {self.port}", f"{self.protocol} sport {self.port}")
        if self.protocol == "any":
            return ("",)
        return ("meta protocol arp",) if self.protocol == "arp" else (f"ip protocol {self.protocol}",)


@dataclass(frozen=True)
class Hook:
    """A place that frames pass through: ``ingress`` or ``egress`` of cables, or ``forward`` of the bridges."""

    way: str
    """The direction, which its counters are named after."""
    hook: str
    cables: tuple[str, ...] = ()
    matches: tuple[str, ...] = ("",)

    @property
    def where(self) -> str:
        """The beginning of a base chain."""
        names = ", ".join(f'"{cable}"' for cable in self.cables)
        return f"type filter hook {self.hook}" + (f" devices = {{ {names} }}" if names else "")


def leaving(cable: str, frames: Frames) -> Hook:
    """The hook where frames from a node enter the switch."""
    return Hook("from", "ingress", (cable,), frames.matches())


def arriving(cable: str, frames: Frames) -> Hook:
    """The hook where frames to a node leave the switch."""
    return Hook("to", "egress", (cable,), frames.matches())


def between(way: str, one: Iterable[str], other: Iterable[str]) -> Hook:
    """The hook where the bridges forward frames from some cables to others."""
    return Hook(way, "forward", (), (f"iifname {cable_set(one)} oifname {cable_set(other)}",))


def cable_set(cables: Iterable[str]) -> str:
    """An nft set of cables."""
    return "{ " + ", ".join(f'"{cable}"' for cable in cables) + " }"


def dropping(table: str, hooks: Sequence[Hook], when: str = "") -> str:
    """The commands for a table that drops frames for which ``when`` holds."""
    return _table(table, hooks, _taken(when, DROPPED), DROP, (f"{_marked(DROPPED)} drop",))


def rejecting(table: str, hooks: Sequence[Hook]) -> str:
    """The commands for a table that answers TCP with a reset, and other IP packets with ICMP host unreachable."""
    answers = (
        f"{_marked(REJECTED)} meta l4proto tcp reject with tcp reset",
        f"{_marked(REJECTED)} reject with {UNREACHABLE}",
    )
    return _table(table, hooks, _taken("meta protocol ip", REJECTED), REJECT, answers)


def blinking(table: str, hooks: Sequence[Hook]) -> tuple[str, str]:
    """The commands that make an existing table drop nothing, and drop everything again."""
    family = _family(hooks)
    flushed = [f"flush chain {family} {table} act_{hook.way}" for hook in hooks]

    def filled(rule: str) -> str:
        added = [f"add rule {family} {table} act_{hook.way} {rule.replace(WAY, hook.way)}" for hook in hooks]
        return "\n".join([*flushed, *added])

    seen = f"counter name seen_{WAY}"
    return filled(seen), filled(f"{seen} {_taken('', DROPPED)}")


def deleting(family: str, table: str) -> str:
    """The commands that delete a table if it exists; if they succeed, it is gone."""
    return f"add table {family} {table}; delete table {family} {table}"


def counted(listing: str) -> dict[str, int]:
    """The packets of each counter in the output of ``nft -j list counters``."""
    objects = json.loads(listing)["nftables"]
    return {each["counter"]["name"]: each["counter"]["packets"] for each in objects if "counter" in each}


def _family(hooks: Sequence[Hook]) -> str:
    return "bridge" if hooks[0].hook == "forward" else "netdev"


def _taken(when: str, bit: int) -> str:
    return f"{when} counter name hit_{WAY} meta mark set meta mark | {bit}".strip()


def _marked(bit: int) -> str:
    return f"meta mark & {bit} == {bit}"


def _table(table: str, hooks: Sequence[Hook], taken: str, end: int, answers: Sequence[str]) -> str:
    """One transaction: the table exists as a whole or not at all."""
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
