"""Faults of the resolver's answers: what it answers, when, and whether it answers at all.

A proxy on the resolver's node takes over its port, asks it, and changes the answers (programs ``take-port`` and
``dns-proxy``). Faults of different properties of an answer can be combined; others exclude each other.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field

from faults.fault import Change, NodeFault, must, require_own_kernel, running, sh
from faults.programs import LIBRARY, PROGRAMS, SETTINGS, STATE
from harness.protocols import Lab, Node
from harness.records import EffectKind, LabError, Undo
from harness.wait import NotYet

FOLDER = f"{STATE}/dns"

PATIENCE_S = 1.0
"""The resolver answers within milliseconds; after this long it counts as silent."""

PROOF_WITHIN_S = 30.0
"""It takes seconds to see that the resolver is silent, and the proxy takes some to start on a crowded machine."""

SERVFAIL, REFUSED = 2, 5
"""RFC 1035 4.1.1."""

WEEK_S = 604_800
"""RFC 8767 4: the longest time to live that a resolver should accept."""

UNUSED = "192.0.2.1"
"""RFC 5737: an address for documentation, which no host has."""

PROXY = f"^/usr/bin/python3 -I {PROGRAMS}/dns-proxy "
"""Matches its command line, but not that of a shell whose script contains it."""

LOCKED = f"""
exec 9< {SETTINGS}/zone.toml && flock 9 || exit 1
folder=$1 file=$1/$2.json
"""
"""2 faults that begin or end at the same time do so one after the other. The lock is on a file that always exists."""

BEGIN = f"""{LOCKED}
mkdir -p "$folder"
printf %s "$3" > "$file"
pgrep -f '{PROXY}' > /dev/null || exec {PROGRAMS}/take-port 53 {PROGRAMS}/dns-proxy "$folder" 9<&-
"""

END = f"""{LOCKED}
[ -d "$folder" ] || exit 0
rm -f "$file"
rmdir "$folder" 2> /dev/null && pkill -KILL -f '{PROXY}'
true
"""
"""The last fault ends the proxy."""

DNSQUERY = f"{LIBRARY}/dnsquery.py"


@dataclass(frozen=True)
class Answer:
    """The outcome of one query. ``end`` is ``answered``, ``silent``, ``refused``, ``reset`` or ``closed``."""

    end: str
    ms: int
    rcode: int = 0
    truncated: bool = False
    addresses: tuple[str, ...] = ()
    ttls_s: tuple[int, ...] = ()

    def __str__(self) -> str:
        if self.end != "answered":
            return f"{self.end} after {self.ms} ms"
        cut = ", truncated" if self.truncated else ""
        return f"rcode {self.rcode}{cut}, {' '.join(self.addresses) or 'no address'} after {self.ms} ms"


def parse(printed: str) -> tuple[Answer, ...]:
    """The answers that ``ASK`` printed. Pure."""
    return tuple(
        Answer(
            each["end"],
            each["ms"],
            each.get("rcode", 0),
            each.get("truncated", False),
            tuple(address for address, _ in each.get("records", ())),
            tuple(ttl_s for _, ttl_s in each.get("records", ())),
        )
        for each in json.loads(printed)
    )


def ask(lab: Lab, kind: str = "udp", times: int = 1, patience_s: float = PATIENCE_S) -> tuple[Answer, ...]:
    """Let the client ask the resolver for the site's addresses over ``udp`` or ``tcp``. Raises LabError."""
    clients = lab.nodes("client")
    if not clients:
        raise LabError("this lab has no client to ask the resolver")
    arguments = (lab.cluster.resolver, lab.cluster.site, kind, str(times), str(patience_s))
    done = must(clients[0], "python3", "-IS", DNSQUERY, *arguments, timeout_s=10 + times * patience_s * 3)
    return parse(done.stdout)


class _Dns(NodeFault):
    """A fault of the resolver's answers."""

    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.CHANGES_ANSWERS,)
    node: str = Field("resolver", min_length=1, description="Name of the resolver's node")
    claim: ClassVar[str]
    """The property of an answer that it decides."""

    def require(self, node: Node) -> None:
        """The resolver, with a kernel of its own."""
        if node.role != "resolver":
            raise LabError(f"{node.name} is not a resolver: its role is {node.role}")
        require_own_kernel(node, "cannot give one of its ports to another program")

    def settings(self, lab: Lab) -> dict[str, Any]:
        """The proxy's settings besides the kind."""
        return {}

    def look(self, lab: Lab) -> tuple[Answer, ...]:
        """The answers that can show the fault."""
        return ask(lab)

    @abstractmethod
    def shows(self, answers: tuple[Answer, ...]) -> bool:
        """Whether they show the fault."""

    def changes(self, lab: Lab) -> Sequence[Change]:
        """What the proxy does to answers."""
        node, kind = running(lab.node(self.node)), self.name.partition(".")[2]
        settings = json.dumps({"kind": kind, **self.settings(lab)}, sort_keys=True)
        begin = sh(BEGIN, FOLDER, kind, settings)

        def changed() -> str:
            answers = self.look(lab)
            if not self.shows(answers):
                raise NotYet("; ".join(map(str, answers)))
            return f"the client asked {node.name}: {'; '.join(map(str, answers))}"

        def sound() -> None:
            if self.shows(answers := self.look(lab)):
                raise NotYet("; ".join(map(str, answers)))

        undo = (Undo(sh(END, FOLDER, kind)),)
        again = (Undo(begin),)
        return [
            Change(
                node, self.claim, lambda: must(node, *begin), undo, changed, sound, again, proof_within_s=PROOF_WITHIN_S
            )
        ]


class Silent(_Dns):
    """Make the resolver silent, over UDP and TCP."""

    name: ClassVar[str] = "dns.silent"
    claim: ClassVar[str] = "DNS: whether it answers"

    def look(self, lab: Lab) -> tuple[Answer, ...]:
        """Over UDP and TCP."""
        return ask(lab) + ask(lab, "tcp")

    def shows(self, answers: tuple[Answer, ...]) -> bool:
        """No answer comes."""
        return all(answer.end == "silent" for answer in answers)


class Servfail(_Dns):
    """Answer SERVFAIL, as a resolver without its zone does."""

    name: ClassVar[str] = "dns.servfail"
    claim: ClassVar[str] = "DNS: whether it answers"

    def shows(self, answers: tuple[Answer, ...]) -> bool:
        """The code is SERVFAIL."""
        return answers[0].rcode == SERVFAIL


class Refused(_Dns):
    """Answer REFUSED, as a resolver does to a client that may not ask it."""

    name: ClassVar[str] = "dns.refused"
    claim: ClassVar[str] = "DNS: whether it answers"

    def shows(self, answers: tuple[Answer, ...]) -> bool:
        """The code is REFUSED."""
        return answers[0].rcode == REFUSED


class Truncated(_Dns):
    """Truncate every UDP answer (TC), so that the client must ask again over TCP."""

    name: ClassVar[str] = "dns.truncated"
    claim: ClassVar[str] = "DNS: whether it answers"
    tcp: Literal["answers", "resets", "silent"] = Field("answers", description="What the resolver does over TCP")

    def settings(self, lab: Lab) -> dict[str, Any]:
        """The behaviour over TCP."""
        return {"tcp": self.tcp}

    def look(self, lab: Lab) -> tuple[Answer, ...]:
        """Over UDP and TCP."""
        return ask(lab) + ask(lab, "tcp")

    def shows(self, answers: tuple[Answer, ...]) -> bool:
        """TC without an address over UDP, and the chosen behaviour over TCP."""
        ends = {"answers": "answered", "resets": "reset", "silent": "silent"}
        udp, tcp = answers
        return udp.truncated and not udp.addresses and tcp.end == ends[self.tcp]


class Slow(_Dns):
    """Delay every answer of the resolver."""

    name: ClassVar[str] = "dns.slow"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.SLOWS,)
    claim: ClassVar[str] = "DNS: when it answers"
    delay_ms: int = Field(1000, ge=50, le=30_000, description="Delay of each answer, in ms")

    def settings(self, lab: Lab) -> dict[str, Any]:
        """The delay."""
        return {"delay_ms": self.delay_ms}

    def look(self, lab: Lab) -> tuple[Answer, ...]:
        """It waits for the delay, too."""
        return ask(lab, patience_s=PATIENCE_S + self.delay_ms / 1000)

    def shows(self, answers: tuple[Answer, ...]) -> bool:
        """An answer comes, after the delay."""
        return answers[0].end == "answered" and answers[0].ms >= self.delay_ms


class OneAddress(_Dns):
    """Answer with only one of the site's addresses, so that all new clients use one VIP."""

    name: ClassVar[str] = "dns.one-address"
    claim: ClassVar[str] = "DNS: which addresses"
    vip: int = Field(0, ge=0, description="Index of the VIP in the topology, from 0")

    def target(self, lab: Lab) -> Node:
        """The resolver of a site with more than one address."""
        count = len(lab.cluster.vips)
        if count < 2 or self.vip >= count:
            raise LabError(
                f"no VIP can be chosen by index {self.vip}: the site has {count} VIPs, and the fault needs at least 2"
            )
        return super().target(lab)

    def settings(self, lab: Lab) -> dict[str, Any]:
        """The address."""
        return {"address": list(lab.cluster.vips)[self.vip]}

    def shows(self, answers: tuple[Answer, ...]) -> bool:
        """A single address comes."""
        return len(answers[0].addresses) == 1


class FrozenOrder(_Dns):
    """Answer with the addresses always in the same order, so that clients of the first one all use one VIP."""

    name: ClassVar[str] = "dns.frozen-order"
    claim: ClassVar[str] = "DNS: in which order"

    def look(self, lab: Lab) -> tuple[Answer, ...]:
        """Often enough for a rotation to show."""
        return ask(lab, times=2 * len(lab.cluster.vips) + 1)

    def shows(self, answers: tuple[Answer, ...]) -> bool:
        """All answers have the same order of several addresses."""
        orders = {answer.addresses for answer in answers}
        return len(orders) == 1 and len(answers[0].addresses) > 1


class WrongAddress(_Dns):
    """Answer with an address that does not belong to the site."""

    name: ClassVar[str] = "dns.wrong-address"
    claim: ClassVar[str] = "DNS: which addresses"
    address: str = Field(UNUSED, pattern=r"^\d{1,3}(\.\d{1,3}){3}$", description="Address to answer with")

    def settings(self, lab: Lab) -> dict[str, Any]:
        """The address."""
        return {"address": self.address}

    def shows(self, answers: tuple[Answer, ...]) -> bool:
        """The wrong address comes alone."""
        return answers[0].addresses == (self.address,)


class HugeTtl(_Dns):
    """Answer with a very long time to live, so that clients with an answer do not ask again."""

    name: ClassVar[str] = "dns.huge-ttl"
    claim: ClassVar[str] = "DNS: for how long"
    ttl_s: int = Field(WEEK_S, ge=60, le=2**31 - 1, description="Time to live of every record, in s")

    def settings(self, lab: Lab) -> dict[str, Any]:
        """The time to live."""
        return {"ttl_s": self.ttl_s}

    def shows(self, answers: tuple[Answer, ...]) -> bool:
        """Every record has that time to live."""
        return bool(answers[0].ttls_s) and set(answers[0].ttls_s) == {self.ttl_s}
