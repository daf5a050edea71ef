"""Faults of the site's resolver as those see them who ask it: what it answers, when, and whether at all.

A proxy in the resolver's node takes its port, asks it, and spoils the answers: see ``take-port`` and ``dns-proxy``
among the programs of the nodes. Faults that decide different things of an answer compose; others exclude each other.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field

from faults.fault import Change, NodeFault, must, running, sh
from faults.node import needs_own_kernel
from harness.protocols import Lab, Node
from harness.records import LabError, Undo
from harness.wait import NotYet

PROGRAMS = "/usr/lib/monkeywrench/faults"
FOLDER = "/run/monkeywrench/faults/dns"

PATIENCE_S = 1.0
"""The resolver answers within milliseconds; silence this long is taken for silence."""

PROOF_WITHIN_S = 30.0
"""To see that the resolver is silent takes seconds by itself, and the proxy some to start on a crowded machine."""

SERVFAIL, REFUSED = 2, 5
"""RFC 1035 4.1.1."""

WEEK_S = 604_800
"""RFC 8767 4: the longest that a resolver should believe."""

NOBODY = "192.0.2.1"
"""RFC 5737: an address for documentation, which nobody has."""

PROXY = f"^/usr/bin/python3 -I {PROGRAMS}/dns-proxy "
"""Its command line, and no shell's that has it in its script."""

LOCKED = """
exec 9< /etc/monkeywrench/zone.toml && flock 9 || exit 1
folder=$1 file=$1/$2.json
"""
"""Two faults that come or go at the same time do so one after another. The lock is on a file that is there anyway."""

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
"""The last one ends the proxy."""

ASK = """
import json, socket, struct, sys, time
resolver, name, kind, times, patience_s = sys.argv[1:]
labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))

def receive(asked, length):
    data = b""
    while len(data) < length and (more := asked.recv(length - len(data))):
        data += more
    return data

def ask(number):
    query = struct.pack(">HHHHHH", number, 0x100, 1, 0, 0, 0) + labels + struct.pack(">BHH", 0, 1, 1)
    with socket.socket(type=socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as asked:
        asked.settimeout(float(patience_s))
        asked.connect((resolver, 53))
        asked.sendall((struct.pack(">H", len(query)) if kind == "tcp" else b"") + query)
        if kind == "udp":
            data = asked.recv(65535)
        else:
            data = receive(asked, int.from_bytes(receive(asked, 2), "big"))
    if not data:
        return {"end": "closed"}
    flags, _, count = struct.unpack(">HHH", data[2:8])
    records = data[len(query):].split(bytes.fromhex("c00c00010001"))[1:]
    pairs = [(socket.inet_ntoa(each[6:10]), int.from_bytes(each[:4], "big")) for each in records]
    return {"end": "answered", "rcode": flags & 15, "truncated": bool(flags & 0x200), "records": pairs}

def timed(number):
    began = time.monotonic()
    try:
        said = ask(number)
    except TimeoutError:
        said = {"end": "silent"}
    except ConnectionRefusedError:
        said = {"end": "refused"}
    except ConnectionError:
        said = {"end": "reset"}
    return {**said, "ms": round((time.monotonic() - began) * 1000)}

print(json.dumps([timed(number + 1) for number in range(int(times))]))
"""
"""RFC 1035: a query for the name's addresses; in the answer its name is a pointer to the question (4.1.4)."""


@dataclass(frozen=True)
class Answer:
    """What one query came to. ``end`` is ``answered``, ``silent``, ``refused``, ``reset`` or ``closed``."""

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


def parse(said: str) -> tuple[Answer, ...]:
    """What the client printed. Pure."""
    return tuple(
        Answer(
            each["end"],
            each["ms"],
            each.get("rcode", 0),
            each.get("truncated", False),
            tuple(address for address, _ in each.get("records", ())),
            tuple(ttl_s for _, ttl_s in each.get("records", ())),
        )
        for each in json.loads(said)
    )


def ask(lab: Lab, kind: str = "udp", times: int = 1, patience_s: float = PATIENCE_S) -> tuple[Answer, ...]:
    """What the client gets when it asks the resolver for the site's addresses, over ``udp`` or ``tcp``."""
    clients = lab.nodes("client")
    if not clients:
        raise LabError("there is no client that could ask the resolver")
    arguments = (lab.cluster.resolver, lab.cluster.site, kind, str(times), str(patience_s))
    said = must(clients[0], "python3", "-IS", "-c", ASK, *arguments, timeout_s=10 + times * patience_s * 3)
    return parse(said.stdout)


class _Dns(NodeFault):
    """A fault of the resolver's answers."""

    node: str = Field("resolver", min_length=1, description="The name of the resolver's node")
    claim: ClassVar[str]
    """What of an answer it decides."""

    def possible(self, node: Node) -> str | None:
        """Needs the resolver, with a kernel of its own."""
        if node.role != "resolver":
            return f"{node.name} is no resolver, but a {node.role}"
        return needs_own_kernel(node, "cannot give a port of its own to another program")

    def settings(self, lab: Lab) -> dict[str, Any]:
        """What the proxy is told besides the kind."""
        return {}

    def look(self, lab: Lab) -> tuple[Answer, ...]:
        """What the client asks to see it."""
        return ask(lab)

    @abstractmethod
    def shows(self, answers: tuple[Answer, ...]) -> bool:
        """Whether that shows the fault."""

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change: what the proxy does to answers."""
        node, kind = running(lab.node(self.node)), self.name.partition(".")[2]
        told = json.dumps({"kind": kind, **self.settings(lab)}, sort_keys=True)
        begin = sh(BEGIN, FOLDER, kind, told)

        def spoilt() -> str:
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
                node, self.claim, lambda: must(node, *begin), undo, spoilt, sound, again, proof_within_s=PROOF_WITHIN_S
            )
        ]


class Silent(_Dns):
    """Answer nothing, over UDP or TCP."""

    name: ClassVar[str] = "dns.silent"
    claim: ClassVar[str] = "DNS: whether it answers"

    def look(self, lab: Lab) -> tuple[Answer, ...]:
        """Both ways."""
        return ask(lab) + ask(lab, "tcp")

    def shows(self, answers: tuple[Answer, ...]) -> bool:
        """Silence."""
        return all(answer.end == "silent" for answer in answers)


class Servfail(_Dns):
    """Answer SERVFAIL, as a resolver does that has lost its zone."""

    name: ClassVar[str] = "dns.servfail"
    claim: ClassVar[str] = "DNS: whether it answers"

    def shows(self, answers: tuple[Answer, ...]) -> bool:
        """SERVFAIL."""
        return answers[0].rcode == SERVFAIL


class Refused(_Dns):
    """Answer REFUSED, as a resolver does that this client is not allowed to ask."""

    name: ClassVar[str] = "dns.refused"
    claim: ClassVar[str] = "DNS: whether it answers"

    def shows(self, answers: tuple[Answer, ...]) -> bool:
        """REFUSED."""
        return answers[0].rcode == REFUSED


class Truncated(_Dns):
    """Answer over UDP that the answer is too long for it (TC): the client has to ask again over TCP."""

    name: ClassVar[str] = "dns.truncated"
    claim: ClassVar[str] = "DNS: whether it answers"
    tcp: Literal["answers", "resets", "silent"] = Field("answers", description="What it does over TCP")

    def settings(self, lab: Lab) -> dict[str, Any]:
        """What TCP does."""
        return {"tcp": self.tcp}

    def look(self, lab: Lab) -> tuple[Answer, ...]:
        """Both ways."""
        return ask(lab) + ask(lab, "tcp")

    def shows(self, answers: tuple[Answer, ...]) -> bool:
        """TC without an address, and over TCP what was wanted."""
        ends = {"answers": "answered", "resets": "reset", "silent": "silent"}
        udp, tcp = answers
        return udp.truncated and not udp.addresses and tcp.end == ends[self.tcp]


class Slow(_Dns):
    """Answer late."""

    name: ClassVar[str] = "dns.slow"
    claim: ClassVar[str] = "DNS: when it answers"
    delay_ms: int = Field(1000, ge=50, le=30_000, description="Before each answer")

    def settings(self, lab: Lab) -> dict[str, Any]:
        """The delay."""
        return {"delay_ms": self.delay_ms}

    def look(self, lab: Lab) -> tuple[Answer, ...]:
        """With patience."""
        return ask(lab, patience_s=PATIENCE_S + self.delay_ms / 1000)

    def shows(self, answers: tuple[Answer, ...]) -> bool:
        """An answer, late."""
        return answers[0].end == "answered" and answers[0].ms >= self.delay_ms


class OneAddress(_Dns):
    """Answer with one of the site's addresses only: all new clients come to one VIP."""

    name: ClassVar[str] = "dns.one-address"
    claim: ClassVar[str] = "DNS: which addresses"
    vip: int = Field(0, ge=0, description="Which one, counted from 0 in the order of the topology")

    def available(self, lab: Lab) -> str | None:
        """Needs more than one address."""
        if reason := super().available(lab):
            return reason
        count = len(lab.cluster.vips)
        return (
            None if self.vip < count and count > 1 else f"there are {count} VIPs: none to leave out, or no {self.vip}"
        )

    def settings(self, lab: Lab) -> dict[str, Any]:
        """The address."""
        return {"address": list(lab.cluster.vips)[self.vip]}

    def shows(self, answers: tuple[Answer, ...]) -> bool:
        """One address."""
        return len(answers[0].addresses) == 1


class FrozenOrder(_Dns):
    """Answer with the addresses in the same order always: clients that take the first all come to one VIP."""

    name: ClassVar[str] = "dns.frozen-order"
    claim: ClassVar[str] = "DNS: in which order"

    def look(self, lab: Lab) -> tuple[Answer, ...]:
        """Often enough that a rotation would show."""
        return ask(lab, times=2 * len(lab.cluster.vips) + 1)

    def shows(self, answers: tuple[Answer, ...]) -> bool:
        """One order of several addresses."""
        orders = {answer.addresses for answer in answers}
        return len(orders) == 1 and len(answers[0].addresses) > 1


class WrongAddress(_Dns):
    """Answer with an address that is not the site's."""

    name: ClassVar[str] = "dns.wrong-address"
    claim: ClassVar[str] = "DNS: which addresses"
    address: str = Field(NOBODY, pattern=r"^\d{1,3}(\.\d{1,3}){3}$", description="The address")

    def settings(self, lab: Lab) -> dict[str, Any]:
        """The address."""
        return {"address": self.address}

    def shows(self, answers: tuple[Answer, ...]) -> bool:
        """That address."""
        return answers[0].addresses == (self.address,)


class HugeTtl(_Dns):
    """Answer with records that live for long: who has one does not ask again, whatever becomes of the address."""

    name: ClassVar[str] = "dns.huge-ttl"
    claim: ClassVar[str] = "DNS: for how long"
    ttl_s: int = Field(WEEK_S, ge=60, le=2**31 - 1, description="For every record")

    def settings(self, lab: Lab) -> dict[str, Any]:
        """The time to live."""
        return {"ttl_s": self.ttl_s}

    def shows(self, answers: tuple[Answer, ...]) -> bool:
        """That time."""
        return bool(answers[0].ttls_s) and set(answers[0].ttls_s) == {self.ttl_s}
