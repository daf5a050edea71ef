"""Faults of heartbeat messages: chosen ones are dropped, delayed, duplicated, reordered, replayed, or wrongly signed.

The switch takes one director's messages to its peer on one path off the peer's cable, and a middlebox there decides on
each (``topology/images/switch/heartbeat``). All other traffic passes unchanged. The choice depends only on the
settings, the seed and the message's sequence number, so the same settings choose the same messages again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field, model_validator

from faults.fault import EVERY_S, PROOF_WITHIN_S, Change, SimpleFault, must, running, seen, sh, wires_of
from faults.programs import PROGRAMS, STATE
from harness.formats import ha_cf
from harness.protocols import Lab, Node
from harness.records import Cable, EffectKind, LabError, Proof, Undo
from harness.wait import NotYet, until

INTERCEPT = f"{PROGRAMS}/heartbeat/intercept"

STARTS_WITHIN_S = 30.0
"""Loading scapy takes 0.3 s of CPU time, and 10 times as long on a crowded machine."""

MISSES = 7
"""The probability that none of 7/rate messages is chosen is 1 in 1,000 (exp(-7))."""

LOG = 'cat "$1/log" 2> /dev/null; if [ -e "$1/ended" ]; then echo ended; tail -n 3 "$1/error"; fi'


EGRESS = 'table netdev monkeywrench { chain egress { type filter hook egress device "lo" priority 0; }; }'
"""The hook by which a middlebox takes messages off a cable."""


def require_egress(switch: Node) -> None:
    """Raises LabError if the switch cannot take frames off a cable. Asks the kernel and changes nothing (nft -c)."""
    if not switch.exec("nft", "--check", EGRESS).ok:
        raise LabError("this machine's kernel cannot filter what leaves an interface (NETFILTER_EGRESS, Linux 5.16)")


@dataclass(frozen=True)
class Interception:
    """One director's messages to another on one path, which pass through a middlebox of their own."""

    sender: str
    receiver: str
    path: str
    cable: str
    """The receiver's cable, by its name in the switch."""
    source: str
    """The sender's address on the path."""
    port: int = ha_cf.DEFAULT_PORT

    @property
    def claim(self) -> str:
        """The claim: one middlebox at a time may intercept these messages."""
        return f"heartbeat messages from {self.sender} to {self.where}"

    @property
    def where(self) -> str:
        """The receiver and the path."""
        return f"{self.receiver} on {self.path}"

    @property
    def key(self) -> str:
        """The name of its table, interfaces and folder; an interface's name has at most 15 characters."""
        return "hb-" + hashlib.blake2b(self.claim.encode(), digest_size=4).hexdigest()


@dataclass(frozen=True)
class Log:
    """The log of a middlebox so far."""

    in_ns: int = 0
    """When it began to get the messages (ns of the lab's clock); 0 before."""
    decisions: tuple[dict[str, Any], ...] = ()
    """``t`` (ns), ``type``, ``seq``, and ``decision``, ``effect`` or both, in order of arrival."""
    problems: str = ""
    """Why it ended on its own; empty while it runs."""

    @property
    def effects(self) -> list[dict[str, Any]]:
        """The decisions that have taken effect."""
        return [line for line in self.decisions if line.get("effect")]


def parse_log(printed: str) -> Log:
    """A middlebox's log as the switch printed it. Pure."""
    lines = printed.splitlines()
    end = lines.index("ended") if "ended" in lines else len(lines)
    found = [json.loads(line) for line in lines[:end]]
    in_ns = next((line["in"] for line in found if "in" in line), 0)
    problems = " ".join(lines[end + 1 :]) or "no output" if end < len(lines) else ""
    return Log(in_ns, tuple(line for line in found if "in" not in line), problems)


def read(lab: Lab, key: str) -> Log:
    """A middlebox's log at this moment."""
    if wires := wires_of(lab):
        return Log(decisions=tuple(dict(line) for line in wires.intercepted(key)))
    return parse_log(lab.switch.exec(*sh(LOG, f"{STATE}/{key}")).stdout)


class _Messages(SimpleFault):
    """A fault of chosen messages of one director."""

    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.IMPAIRS_PATH,)

    sender: str = Field(min_length=1, description="Director whose messages are affected")
    paths: tuple[str, ...] = Field((), description="Segments (default: all in the director's ha.cf)")
    types: tuple[str, ...] = Field(
        (), description="Message types, such as status, resource or ask_resources (default: all)"
    )
    first_seq: int | None = Field(None, ge=1, description="First affected sequence number")
    last_seq: int | None = Field(None, ge=1, description="Last affected sequence number")
    rate: float = Field(1.0, gt=0, le=1, description="Share of these messages to choose")
    seed: int = Field(0, description="Seed for choosing messages when rate < 1")
    rare: bool = Field(
        False,
        description="For messages that are rare: accept traffic through the middlebox as proof, and fail at the end "
        "if no message was chosen",
    )

    @model_validator(mode="after")
    def _in_order(self) -> _Messages:
        if self.first_seq and self.last_seq and self.last_seq < self.first_seq:
            raise ValueError(f"last_seq {self.last_seq} is before first_seq {self.first_seq}")
        return self

    @property
    def verb(self) -> dict[str, Any]:
        """What happens to chosen messages: the settings of the middlebox's ``decide.Verb``."""
        return {"name": self.name.rpartition(".")[2]}

    def affected(self, lab: Lab) -> tuple[str, ...]:
        """The sender."""
        return (self.sender,)

    @property
    def takes_s(self) -> float:
        """The time from a chosen message to its effect."""
        return 0.0

    def target(self, lab: Lab) -> list[Interception]:
        """The messages to intercept."""
        found = self.interceptions(lab)
        if not wires_of(lab):
            require_egress(lab.switch)
        return found

    def interceptions(self, lab: Lab) -> list[Interception]:
        """One for each path and each director that receives there. Raises LabError."""
        node = lab.node(self.sender)
        if node.name not in lab.cluster.directors:
            raise LabError(f"{self.sender} is not a director, so it sends no heartbeat messages")
        config = ha_cf.parse(must(running(node), "cat", ha_cf.PATH).stdout)
        used = [cable for cable in lab.cables if cable.node == node.name and cable.interface in config.interfaces]
        found = [
            Interception(cable.node, peer.node, peer.segment, peer.name, cable.addresses[0], config.udpport)
            for cable in used
            for peer in _peers(lab, cable)
        ]
        reached = tuple(dict.fromkeys(each.path for each in found))
        for path in self.paths or reached or ("any segment",):
            if path not in reached:
                raise LabError(f"{self.sender} sends no heartbeat messages to another director on {path}")
        return [each for each in found if each.path in (self.paths or reached)]

    def changes(self, lab: Lab) -> Sequence[Change]:
        """A middlebox in the switch for each path."""
        several = self.interceptions(lab)
        detail = {
            "middleboxes": {each.key: each.where for each in several},
            "decisions": {each.where: [] for each in several},
        }
        return [self._change(lab, each, detail, several if each is several[-1] else []) for each in several]

    def _change(self, lab: Lab, each: Interception, detail: dict[str, Any], await_: list[Interception]) -> Change:
        """The last one's ``apply`` waits for all of them, so that all paths start together."""
        switch, wires = lab.switch, wires_of(lab)

        def apply() -> int | None:
            if wires:
                wires.intercept(each.key, self.settings(each))
                return lab.now_ns()
            must(switch, *self.take(each))
            return min((_began_ns(lab, other) for other in await_), default=None)

        def proof() -> str:
            log = read(lab, each.key)
            detail["decisions"][each.where] = list(log.decisions)
            return self.shows(each, log)

        return Change(
            switch,
            each.claim,
            apply,
            (Undo(("remove", each.key), "wires") if wires else Undo((INTERCEPT, "release", each.key)),),
            proof,
            lambda: _gone(lab, each),
            detail=detail,
            proof_within_s=self.patience_s(lab),
        )

    def settings(self, each: Interception) -> dict[str, Any]:
        """The settings of a middlebox. Pure."""
        choice = {"sender": each.sender, "path": each.path, "types": self.types, "rate": self.rate, "seed": self.seed}
        choice |= {"first_seq": self.first_seq, "last_seq": self.last_seq}
        return {"cable": each.cable, "source": each.source, "port": each.port, "verb": self.verb, "choice": choice}

    def take(self, each: Interception) -> tuple[str, ...]:
        """The command that starts a middlebox. Pure."""
        return (INTERCEPT, "take", each.key, json.dumps(self.settings(each)))

    def shows(self, each: Interception, log: Log) -> str:
        """The proof in a log. Raises NotYet; raises LabError when the middlebox has ended. Pure."""
        _must_go_on(each, log.problems)
        if log.effects:
            first = log.effects[0]
            return f"{describe(first)} of {each.sender} to {each.where} {first['effect']}"
        if self.rare and log.decisions:
            return f"{describe(log.decisions[0])} of {each.sender} to {each.where} went through the middlebox"
        raise NotYet(f"{len(log.decisions)} {each.claim} so far; none was chosen and had its effect")

    def patience_s(self, lab: Lab) -> float:
        """How long to wait for the first effect."""
        return PROOF_WITHIN_S + self.takes_s + MISSES / self.rate * lab.cluster.keepalive_ms / 1000

    @contextmanager
    def inject(self, lab: Lab) -> Iterator[Proof]:
        """As for any fault. At the end, ``detail["decisions"]`` has all decisions, by receiver and path.

        Raises LabError at the end if a middlebox ended early, or no message was chosen.
        """
        with super().inject(lab) as proof:
            logs: dict[str, Log] = {}
            try:
                yield proof
            finally:
                for key, where in proof.detail["middleboxes"].items():
                    # without a stop, a message after the last look would be chosen and not recorded
                    if wires := wires_of(lab):
                        wires.pass_again(key)
                    else:
                        must(lab.switch, INTERCEPT, "stop", key)
                    logs[where] = read(lab, key)
                    proof.detail["decisions"][where] = list(logs[where].decisions)
        for where, log in logs.items():
            if log.problems:
                raise LabError(
                    f"{where}: the middlebox ended on its own, and messages passed unchanged: {log.problems}"
                )
            if not log.effects:
                raise LabError(f"{where}: {self.name} had no effect, because no message was chosen")


class Drop(_Messages):
    """Drop chosen heartbeat messages of a director. Undone by letting all pass."""

    name: ClassVar[str] = "heartbeat.drop"


class Delay(_Messages):
    """Delay chosen heartbeat messages of a director.

    Undone by letting all pass; messages that are still held back arrive then.
    """

    name: ClassVar[str] = "heartbeat.delay"
    delay_ms: int = Field(2000, ge=10, le=600_000, description="Delay of each chosen message, in ms")

    @property
    def verb(self) -> dict[str, Any]:
        """The delay, too."""
        return {**super().verb, "delay_ms": self.delay_ms}

    @property
    def takes_s(self) -> float:
        """The delay."""
        return self.delay_ms / 1000


class Duplicate(_Messages):
    """Deliver chosen heartbeat messages several times at once. Undone by letting all pass once."""

    name: ClassVar[str] = "heartbeat.duplicate"
    copies: int = Field(1, ge=1, le=100, description="Number of extra copies")

    @property
    def verb(self) -> dict[str, Any]:
        """The number of copies, too."""
        return {**super().verb, "copies": self.copies}


class Reorder(_Messages):
    """Deliver chosen heartbeat messages after later ones, one at a time.

    Undone by letting all pass; a message that is still held back arrives then.
    """

    name: ClassVar[str] = "heartbeat.reorder"
    behind: int = Field(
        1, ge=1, le=9, description="Number of later messages that overtake each chosen one (within 5 s)"
    )

    @property
    def verb(self) -> dict[str, Any]:
        """The number of messages that overtake, too."""
        return {**super().verb, "copies": self.behind}

    @property
    def takes_s(self) -> float:
        """decide.OVERTAKEN_WITHIN_MS."""
        return 5.0


class Replay(_Messages):
    """Deliver chosen heartbeat messages a second time, when they are old. Undone by letting all pass once."""

    name: ClassVar[str] = "heartbeat.replay"
    after_ms: int = Field(2000, ge=10, le=600_000, description="Time until the second delivery, in ms")

    @property
    def verb(self) -> dict[str, Any]:
        """The time until the second delivery, too."""
        return {**super().verb, "delay_ms": self.after_ms}

    @property
    def takes_s(self) -> float:
        """Until the second delivery."""
        return self.after_ms / 1000


class Corrupt(_Messages):
    """Give chosen heartbeat messages a wrong signature, as with another key. Undone by letting all pass unchanged."""

    name: ClassVar[str] = "heartbeat.corrupt"


def describe(line: dict[str, Any]) -> str:
    """The type and number of a logged message. Pure."""
    return " ".join(str(line[name]) for name in ("type", "seq") if name in line) or "an unreadable message"


def _peers(lab: Lab, cable: Cable) -> list[Cable]:
    others = [name for name in lab.cluster.directors if name != cable.node]
    return [each for each in lab.cables if each.node in others and each.segment == cable.segment]


def _began_ns(lab: Lab, each: Interception) -> int:
    """Wait until a middlebox gets the messages. Returns when that began (ns of the lab's clock)."""

    def began_ns() -> int:
        log = read(lab, each.key)
        _must_go_on(each, log.problems)
        return log.in_ns

    return until(began_ns, STARTS_WITHIN_S, f"the middlebox for {each.claim}", EVERY_S, lab.clock)


def _must_go_on(each: Interception, problems: str) -> None:
    if problems:
        raise LabError(f"the middlebox for {each.claim} ended: {problems[-300:]}")


def _gone(lab: Lab, each: Interception) -> None:
    """See that its table, interfaces, folder and process are gone, or its rule. Raises NotYet."""
    if wires := wires_of(lab):
        if wires.hits(each.key):
            raise NotYet(f"{each.claim} are still intercepted")
        return
    left = sh(
        'nft list table netdev "$1" || ip link show "$1" || ls -d "$2/$1" || pgrep -f "/middlebox.py $1 "',
        each.key,
        STATE,
    )
    seen(lab.switch, lambda done: not done.ok, f"{each.claim} pass", *left)
