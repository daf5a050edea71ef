"""Faults of heartbeat's messages: chosen ones are dropped, delayed, duplicated, reordered, replayed, or wrongly signed.

The messages of one director to its peer on one path are taken off the peer's cable in the switch, and a middlebox there
decides over each (``topology/images/switch/heartbeat``); all other traffic is left alone. What is chosen depends on the
settings, the seed and the message's sequence number only, so the same settings choose the same messages again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field, model_validator

from faults.fault import EVERY_S, PROOF_WITHIN_S, Change, SimpleFault, must, running, seen, sh
from harness.protocols import Lab, Node
from harness.records import Cable, LabError, Proof, Undo
from harness.wait import NotYet, until

INTERCEPT = "/usr/lib/monkeywrench/faults/heartbeat/intercept"
STATE = "/run/monkeywrench/faults"

HA_CF = "/etc/ha.d/ha.cf"
PORT = 694
"""heartbeat's ``udpport`` where ha.cf has none (ha.cf(5))."""

STARTS_WITHIN_S = 30.0
"""Loading scapy takes 0.3 s of a processor, and ten times as long on a crowded machine."""

MISSES = 7
"""That none of 7/rate messages is chosen has a chance of one in a thousand (exp(-7))."""

LOG = 'cat "$1/log" 2> /dev/null; if [ -e "$1/ended" ]; then echo ended; tail -n 3 "$1/error"; fi'


EGRESS = 'table netdev monkeywrench { chain egress { type filter hook egress device "lo" priority 0; }; }'
"""Where a middlebox takes messages off a cable."""


def no_egress(switch: Node) -> str | None:
    """None, or why nothing can be taken off a cable. Asks the kernel, and changes nothing (nft -c)."""
    if switch.exec("nft", "--check", EGRESS).ok:
        return None
    return "this machine's kernel cannot filter what leaves an interface (NETFILTER_EGRESS, since Linux 5.16)"


@dataclass(frozen=True)
class Interception:
    """One director's messages to another on one path, led through a middlebox of their own."""

    sender: str
    receiver: str
    path: str
    cable: str
    """The receiver's, as the switch calls it."""
    source: str
    """The sender's address there."""
    port: int = PORT

    @property
    def claim(self) -> str:
        """What nobody else may intercept meanwhile."""
        return f"heartbeat messages from {self.sender} to {self.where}"

    @property
    def where(self) -> str:
        """Where they arrive."""
        return f"{self.receiver} on {self.path}"

    @property
    def key(self) -> str:
        """The name of all that belongs to it; names of interfaces have 15 characters at most."""
        return "hb-" + hashlib.blake2b(self.claim.encode(), digest_size=4).hexdigest()


@dataclass(frozen=True)
class Log:
    """What a middlebox has logged so far."""

    in_ns: int = 0
    """Since when it gets the messages, in the lab's time; 0 while it does not."""
    decisions: tuple[dict[str, Any], ...] = ()
    """``t`` (ns), ``type``, ``seq``, and ``decision`` or ``effect`` or both, in the order in which they came."""
    problems: str = ""
    """Why it ended by itself."""

    @property
    def effects(self) -> list[dict[str, Any]]:
        """What has come about."""
        return [line for line in self.decisions if line.get("effect")]


def parse_log(said: str) -> Log:
    """The log as the switch printed it. Pure."""
    lines = said.splitlines()
    end = lines.index("ended") if "ended" in lines else len(lines)
    found = [json.loads(line) for line in lines[:end]]
    in_ns = next((line["in"] for line in found if "in" in line), 0)
    problems = " ".join(lines[end + 1 :]) or "without a word" if end < len(lines) else ""
    return Log(in_ns, tuple(line for line in found if "in" not in line), problems)


def read(switch: Node, key: str) -> Log:
    """A middlebox's log now."""
    return parse_log(switch.exec(*sh(LOG, f"{STATE}/{key}")).stdout)


def media(ha_cf: str) -> tuple[tuple[str, ...], int]:
    """The interfaces on which ha.cf lets heartbeat send datagrams, and the port (ha.cf(5)). Pure."""
    interfaces: list[str] = []
    port = PORT
    for words in (line.partition("#")[0].split() for line in ha_cf.splitlines()):
        match words:
            case ["udpport", number]:
                port = int(number)
            case ["ucast" | "mcast", interface, *_]:
                interfaces.append(interface)
            case ["bcast", *several]:
                interfaces += several
    return tuple(dict.fromkeys(interfaces)), port


class _Messages(SimpleFault):
    """A fault of chosen messages of one director."""

    sender: str = Field(min_length=1, description="The director whose messages are meant")
    paths: tuple[str, ...] = Field((), description="Segments; none: all that its ha.cf uses")
    types: tuple[str, ...] = Field((), description="Such as status, resource or ask_resources; none: all")
    first_seq: int | None = Field(None, ge=1, description="The first sequence number that is meant")
    last_seq: int | None = Field(None, ge=1, description="The last sequence number that is meant")
    rate: float = Field(1.0, gt=0, le=1, description="The share of them that is chosen, by sequence number and seed")
    seed: int = Field(0, description="Where rate is below 1, another seed chooses others")
    rare: bool = Field(
        False,
        description="It may be long until a message is chosen: the fault is in when messages go through the middlebox, "
        "and fails at its end if none was",
    )

    @model_validator(mode="after")
    def _in_order(self) -> _Messages:
        if self.first_seq and self.last_seq and self.last_seq < self.first_seq:
            raise ValueError(f"last_seq {self.last_seq} is before first_seq {self.first_seq}")
        return self

    @property
    def verb(self) -> dict[str, Any]:
        """What is done to the chosen ones: the settings of the middlebox's ``decide.Verb``."""
        return {"name": self.name.rpartition(".")[2]}

    @property
    def takes_s(self) -> float:
        """From a chosen message to its effect."""
        return 0.0

    def available(self, lab: Lab) -> str | None:
        """None, or the reason why this lab cannot do it."""
        try:
            self.interceptions(lab)
            return no_egress(lab.switch)
        except LabError as error:
            return str(error)

    def interceptions(self, lab: Lab) -> list[Interception]:
        """One for each path, and each director that hears the sender there. Raises LabError."""
        node = lab.node(self.sender)
        if node.name not in lab.cluster.directors:
            raise LabError(f"{self.sender} is no director, so it sends no heartbeat messages")
        interfaces, port = media(must(running(node), "cat", HA_CF).stdout)
        used = [cable for cable in lab.cables if cable.node == node.name and cable.interface in interfaces]
        found = [
            Interception(cable.node, peer.node, peer.segment, peer.name, cable.addresses[0], port)
            for cable in used
            for peer in _peers(lab, cable)
        ]
        reached = tuple(dict.fromkeys(each.path for each in found))
        for path in self.paths or reached or ("any segment",):
            if path not in reached:
                raise LabError(f"{self.sender} sends no heartbeat messages to another director on {path}")
        return [each for each in found if each.path in (self.paths or reached)]

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change for each path: a middlebox in the switch."""
        several = self.interceptions(lab)
        detail = {
            "middleboxes": {each.key: each.where for each in several},
            "decisions": {each.where: [] for each in several},
        }
        return [self._change(lab, each, detail, several if each is several[-1] else []) for each in several]

    def _change(self, lab: Lab, each: Interception, detail: dict[str, Any], await_: list[Interception]) -> Change:
        """The last one's ``apply`` waits for all, so that they start at the same time."""
        switch = lab.switch

        def apply() -> int | None:
            must(switch, *self.take(each))
            return min((_in(switch, other) for other in await_), default=None)

        def proof() -> str:
            log = read(switch, each.key)
            detail["decisions"][each.where] = list(log.decisions)
            return self.shows(each, log)

        return Change(
            switch,
            each.claim,
            apply,
            (Undo((INTERCEPT, "release", each.key)),),
            proof,
            lambda: _gone(switch, each),
            detail=detail,
            proof_within_s=self.patience_s(lab),
        )

    def take(self, each: Interception) -> tuple[str, ...]:
        """The command that starts a middlebox. Pure."""
        choice = {"sender": each.sender, "path": each.path, "types": self.types, "rate": self.rate, "seed": self.seed}
        choice |= {"first_seq": self.first_seq, "last_seq": self.last_seq}
        settings = {"cable": each.cable, "source": each.source, "port": each.port, "verb": self.verb, "choice": choice}
        return (INTERCEPT, "take", each.key, json.dumps(settings))

    def shows(self, each: Interception, log: Log) -> str:
        """The proof in a log. Raises NotYet; LabError when the middlebox is gone. Pure."""
        _must_go_on(each, log.problems)
        if log.effects:
            first = log.effects[0]
            return f"{describe(first)} of {each.sender} to {each.where} {first['effect']}"
        if self.rare and log.decisions:
            return f"{describe(log.decisions[0])} of {each.sender} to {each.where} went through the middlebox"
        raise NotYet(f"of {len(log.decisions)} {each.claim} none was chosen, and had its effect")

    def patience_s(self, lab: Lab) -> float:
        """How long to wait for the first effect."""
        return PROOF_WITHIN_S + self.takes_s + MISSES / self.rate * lab.cluster.keepalive_ms / 1000

    @contextmanager
    def inject(self, lab: Lab) -> Iterator[Proof]:
        """As any fault; at its end ``detail["decisions"]`` has all decisions, by receiver and path.

        Raises LabError at its end when a middlebox ended before, or no message was chosen.
        """
        with super().inject(lab) as proof:
            logs: dict[str, Log] = {}
            try:
                yield proof
            finally:
                for key, where in proof.detail["middleboxes"].items():
                    # a message between the last look and the end would be chosen, and nobody would know
                    must(lab.switch, INTERCEPT, "stop", key)
                    logs[where] = read(lab.switch, key)
                    proof.detail["decisions"][where] = list(logs[where].decisions)
        for where, log in logs.items():
            if log.problems:
                raise LabError(f"{where}: the middlebox ended by itself, and messages passed: {log.problems}")
            if not log.effects:
                raise LabError(f"{where}: {self.name} had no effect: no message was chosen")


class Drop(_Messages):
    """Chosen messages do not arrive. Undone by letting all pass."""

    name: ClassVar[str] = "heartbeat.drop"


class Delay(_Messages):
    """Chosen messages arrive late. Undone by letting all pass; what is still held back arrives then."""

    name: ClassVar[str] = "heartbeat.delay"
    delay_ms: int = Field(2000, ge=10, le=600_000, description="How late")

    @property
    def verb(self) -> dict[str, Any]:
        """With the delay."""
        return {**super().verb, "delay_ms": self.delay_ms}

    @property
    def takes_s(self) -> float:
        """The delay."""
        return self.delay_ms / 1000


class Duplicate(_Messages):
    """Chosen messages arrive more than once, at the same time. Undone by letting all pass."""

    name: ClassVar[str] = "heartbeat.duplicate"
    copies: int = Field(1, ge=1, le=100, description="How many more than one")

    @property
    def verb(self) -> dict[str, Any]:
        """With the number of copies."""
        return {**super().verb, "copies": self.copies}


class Reorder(_Messages):
    """Chosen messages arrive after later ones; one at a time. Undone by letting all pass; what is held arrives then."""

    name: ClassVar[str] = "heartbeat.reorder"
    behind: int = Field(1, ge=1, le=9, description="How many later messages overtake each; it waits 5 s at most")

    @property
    def verb(self) -> dict[str, Any]:
        """With the number of messages that overtake."""
        return {**super().verb, "copies": self.behind}

    @property
    def takes_s(self) -> float:
        """decide.OVERTAKEN_WITHIN_MS."""
        return 5.0


class Replay(_Messages):
    """Chosen messages arrive, and again later, when they are old. Undone by letting all pass."""

    name: ClassVar[str] = "heartbeat.replay"
    after_ms: int = Field(2000, ge=10, le=600_000, description="How much later")

    @property
    def verb(self) -> dict[str, Any]:
        """With the delay of the second arrival."""
        return {**super().verb, "delay_ms": self.after_ms}

    @property
    def takes_s(self) -> float:
        """Until the second arrival."""
        return self.after_ms / 1000


class Corrupt(_Messages):
    """Chosen messages arrive with a wrong signature, as if signed with another key. Undone by letting all pass."""

    name: ClassVar[str] = "heartbeat.corrupt"


def describe(line: dict[str, Any]) -> str:
    """A message as the middlebox logged it, in words. Pure."""
    return " ".join(str(line[name]) for name in ("type", "seq") if name in line) or "an unread message"


def _peers(lab: Lab, cable: Cable) -> list[Cable]:
    others = [name for name in lab.cluster.directors if name != cable.node]
    return [each for each in lab.cables if each.node in others and each.segment == cable.segment]


def _in(switch: Node, each: Interception) -> int:
    """Wait until a middlebox gets the messages; since when it does, in the lab's time."""

    def is_in() -> int:
        log = read(switch, each.key)
        _must_go_on(each, log.problems)
        return log.in_ns

    return until(is_in, STARTS_WITHIN_S, f"the middlebox for {each.claim}", EVERY_S)


def _must_go_on(each: Interception, problems: str) -> None:
    if problems:
        raise LabError(f"the middlebox for {each.claim} ended: {problems[-300:]}")


def _gone(switch: Node, each: Interception) -> None:
    """Its table, its interfaces, its folder and its process."""
    left = sh(
        'nft list table netdev "$1" || ip link show "$1" || ls -d "$2/$1" || pgrep -f "/middlebox.py $1 "',
        each.key,
        STATE,
    )
    seen(switch, lambda said: not said.ok, f"{each.claim} pass", *left)
