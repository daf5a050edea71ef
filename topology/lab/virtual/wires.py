"""The cables of a lab in virtual time: rules for frames in the simulator, and what decides on frames that it holds.

A frame that an ``intercept`` rule holds stops the lab's time until somebody gives a verdict. So what decides here is
exact to the frame, and takes no time. A frame that was held for a process that is gone passes.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.frames import ANY_ADDRESS, BROADCAST, REPLY, REQUEST, Arp, arp_of, refusal
from harness.records import Cable, FrameRule, Hits, LabError
from harness.wait import Clock, Task
from topology.lab.virtual.middlebox import Middlebox, Outlet
from topology.lab.virtual.simulator import Frame, Simulator

__all__ = ["VirtualWires", "place_of"]

WAYS = {"from": "out", "to": "in"}
"""As the simulator calls them: out of a node, into it."""
OWN_MAC = "02:00:5e:00:53:02"
"""The switch's own address, for its questions: locally administered, and no interface has it."""
ANSWER_S = 0.5
"""How long an answer to an ARP request may take, with the highest costs of system calls."""


def place_of(cable: Cable) -> str:
    """A cable as the simulator calls it: the node, and the number of its NIC. Pure.

    >>> place_of(Cable("lb-1.eth2", "lb-1", "eth2", "heartbeat", (), ""))
    'lb-1.2'
    """
    return f"{cable.node}.{cable.interface.removeprefix('eth')}"


class VirtualWires:
    """The cables of one lab. Implements ``harness.protocols.Wires``."""

    def __init__(self, simulator: Simulator, clock: Clock, cables: Callable[[], Sequence[Cable]]) -> None:
        self._simulator, self._clock, self._cables = simulator, clock, cables
        self._deciders: dict[str, Callable[[Frame], None]] = {}
        """The simulator's rule -> what decides on its frames, or hears of them."""
        self._middleboxes: dict[str, Middlebox] = {}
        self._forging: dict[str, Task] = {}

    # --- rules

    def fresh(self, kind: str) -> str:
        """A name that no rule has; made of the virtual time, so it is the same in each repetition."""
        number, stem = 1, f"{kind}-{self._simulator.now_ns}"
        while self.hits(f"{stem}-{number}"):
            number += 1
        return f"{stem}-{number}"

    def rule(self, rule: FrameRule) -> None:
        """Let a rule act from now on."""
        self._rule(rule.name, rule, rule.does)

    def hits(self, name: str) -> Hits | None:
        """What a rule has done; None: there is none of that name."""
        for rule in (name, _held(name)):
            if (seen := self._ask_of(rule, "hits")) is not None:
                return Hits(int(seen[0]), int(seen[1]))
        return None

    def send(self, cable: Cable, way: str, frame: bytes) -> None:
        """A frame that no node has sent."""
        self._simulator.ask("inject", place_of(cable), WAYS[way], self._simulator.now_ns, _text(frame))

    def unplug(self, cable: Cable) -> None:
        """The cable carries nothing."""
        self._simulator.ask("cable", *place_of(cable).rsplit(".", 1), "down")

    # --- ARP

    def claimants(self, cable: Cable, address: str) -> list[str]:
        """Ask all nodes of the segment. The question changes no cache (RFC 5227)."""
        found, name = set[str](), self.fresh("who")

        def heard(frame: Frame) -> None:
            answer = arp_of(frame.data)
            if answer and answer.op == REPLY and answer.address == address:
                found.add(answer.mac)

        self._deciders[name] = heard
        self._simulator.ask("rule", name, cable.segment, "both", "tell", "--", "arp", "and", "ether", "dst", OWN_MAC)
        try:
            self._to_all(cable, Arp(REQUEST, OWN_MAC, ANY_ADDRESS, address).frame(BROADCAST, OWN_MAC))
            self._clock.sleep(ANSWER_S)
        finally:
            self._remove(name)
        return sorted(found)

    def forge(self, name: str, cable: Cable, address: str, mac: str, every_ms: int) -> None:
        """Tell the cable's node again and again that an address is at a MAC address."""
        frame = Arp(REQUEST, mac, address, address).frame(cable.mac, OWN_MAC)

        def again() -> None:
            while self._forging.get(name) is task:
                self.send(cable, "to", frame)
                self._clock.sleep(every_ms / 1000)

        self._forging[name] = task = self._clock.spawn(again, name)

    # --- frames that are held

    def reject(self, rules: Sequence[FrameRule]) -> None:
        """Answer these frames where they enter the switch, so that the answer goes back through the same cable."""

        def decide(frame: Frame) -> None:
            self._simulator.post("verdict", frame.number, "drop")
            if answer := refusal(frame.data):
                self._simulator.post("inject", frame.place.partition("/")[0], "in", frame.time_ns, _text(answer))

        for rule in rules:
            self._deciders[_held(rule.name)] = decide
            self._rule(_held(rule.name), rule, "intercept")

    def intercept(self, name: str, settings: Mapping[str, Any]) -> None:
        """Lead one director's messages on their way into a cable through a middlebox."""
        cable = next(each for each in self._cables() if each.name == settings["cable"])
        messages = f"src host {settings['source']} and udp dst port {settings['port']} and ip[6:2] & 0x3fff = 0"
        box = Middlebox(settings, Outlet(self._simulator, place_of(cable), _held(name)), self._clock)
        self._middleboxes[name] = box
        self._deciders[_held(name)] = box.held
        self._rule(_held(name), FrameRule(name, cable.name, "to", "", messages), "intercept")

    def intercepted(self, name: str) -> Sequence[Mapping[str, Any]]:
        """A middlebox's log."""
        return tuple(self._middleboxes[name].lines) if name in self._middleboxes else ()

    def pass_again(self, name: str) -> None:
        """End a middlebox's decisions: what it holds goes on, from behind the rule as long as that is there."""
        if name in self._middleboxes:
            self._middleboxes[name].end()
        self._remove(_held(name))

    # --- what ends it, whoever made it

    def undo(self, verb: str, *words: str) -> None:
        """A step of an undo (``harness.records.Undo``). Raises LabError."""
        if verb == "remove":
            self._forging.pop(words[0], None)
            self.pass_again(words[0])
            self._remove(words[0])
            self._middleboxes.pop(words[0], None)
        elif verb == "plug":
            self._simulator.ask("cable", *place_of(self._cable(words[0])).rsplit(".", 1), "up")
        elif verb == "announce":
            self._announce(self._cable(words[0]), words[1])
        else:
            raise LabError(f"there is no undo {verb!r} of a cable")

    def framed(self, frame: Frame) -> None:
        """The simulator reports a frame. Called while an event is handled: only ``post`` may be used."""
        if frame.rule in self._deciders:
            self._deciders[frame.rule](frame)
        elif frame.rule.startswith(HELD):
            self._simulator.post("verdict", frame.number, "pass")

    def _announce(self, cable: Cable, address: str) -> None:
        """Tell the segment who has an address, if it is one node."""
        holders = self.claimants(cable, address)
        if len(holders) > 1:
            raise LabError(f"{address} is claimed by {' and '.join(holders)}")
        for mac in holders:
            self._to_all(cable, Arp(REQUEST, mac, address, address).frame(BROADCAST, OWN_MAC))

    def _to_all(self, cable: Cable, frame: bytes) -> None:
        for each in self._cables():
            if each.segment == cable.segment:
                self.send(each, "to", frame)

    def _cable(self, name: str) -> Cable:
        return next(each for each in self._cables() if each.name == name)

    def _rule(self, name: str, rule: FrameRule, does: str) -> None:
        words = ("--", *rule.frames.split()) if rule.frames else ()
        place = place_of(self._cable(rule.cable))
        self._simulator.ask("rule", name, place, WAYS[rule.way], *does.split(), *words)

    def _remove(self, rule: str) -> None:
        self._deciders.pop(rule, None)
        self._ask_of(rule, "unrule")

    def _ask_of(self, rule: str, verb: str) -> list[str] | None:
        """The answer about a rule; None: there is no such rule."""
        try:
            return self._simulator.ask(verb, rule)
        except LabError as error:
            if "there is no rule" in str(error):
                return None
            raise


HELD = "held-"
"""How the names of rules begin that hold frames: whoever takes over a lab knows them by it."""


def _held(name: str) -> str:
    return HELD + name


def _text(frame: bytes) -> str:
    return base64.b64encode(frame).decode()
