"""Faults of heartbeat's messages: a capture of both cables says which messages were sent and which arrived."""

from __future__ import annotations

import itertools
import json
import re
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import topology
from faults import FAULTS
from faults.heartbeat import Log, read
from harness.records import LabError, Proof
from harness.wait import NotYet, pass_time, until
from tests.support.faulty import eventually, injected
from topology.lab.docker_lab import DockerLab

sys.path.append(str(Path(topology.__file__).parent / "images" / "switch" / "heartbeat"))  # as in the switch
from decide import Choice, Heard

PROGRAMS = Path(topology.__file__).parent / "images" / "switch" / "heartbeat"
pytestmark = pytest.mark.usefixtures("audited")

SENDER, RECEIVER, PATH = "lb-1", "lb-2", "heartbeat"
SENT, ARRIVED = "lb-1.eth2", "lb-2.eth2"
SOURCE, DESTINATION = "198.18.2.11", "198.18.2.12"
HALF: dict[str, Any] = {"sender": SENDER, "paths": [PATH], "types": ["status"], "rate": 0.5, "seed": 11}
DECISIONS = 14
"""Seven seconds' messages: that none, or all, of them are chosen has a chance of one in 8000."""
AFTER_S = 2
"""The capture goes on for so long after the undo, which lets pass what was held back."""
BEFORE = 6
"""Each director sends one every 500 ms, so half of these are the sender's."""
TAKEOVER_S = 180
HOME_S = 300

Line = dict[str, Any]


class Wire:
    """The sender's messages of a capture: those sent, and those that arrived; status messages, or of ``every`` type.

    And what a middlebox has decided of the status messages.
    """

    def __init__(self, lines: list[Line], decisions: Sequence[Line] = ()) -> None:
        decided = [line for line in decisions if line.get("decision") and line["type"] == "status"]
        self.decisions = {line["seq"]: line for line in reversed(decided)}  # of one that was sent again, the first
        mine = [line for line in lines if line["source"] == SOURCE]
        self.every_sent = [line for line in mine if line["interface"] == SENT]
        self.every_arrived = [line for line in mine if line["interface"] == ARRIVED]
        self.sent = [line for line in self.every_sent if line.get("type") == "status"]
        self.arrived = [line for line in self.every_arrived if line.get("type") == "status"]

    def after_decision(self) -> dict[int, list[float]]:
        """When each message arrived, in seconds after it was decided over.

        Not after it was sent: a middlebox that stood still is late with what it passes too. Its clock is another one
        than that of the capture; by both together, what it passed arrived at once.
        """
        after_s = {
            number: [line["time_s"] - decided["t"] / 1e9 for line in self.arrived if line["seq"] == number]
            for number, decided in self.decisions.items()
        }
        passed = [after_s[number][:1] for number, decided in self.decisions.items() if decided["decision"] == "pass"]
        at_once_s = statistics.median(itertools.chain.from_iterable(passed))
        return {number: [each_s - at_once_s for each_s in times_s] for number, times_s in after_s.items()}

    def was_overtaken(self, number: int) -> bool:
        """Whether a message of any type that was sent later arrived before this one."""
        sent_s: dict[Any, float] = {}
        for line in self.every_sent:
            sent_s.setdefault(_named(line), line["time_s"])
        mine = next(line for line in self.sent if line["seq"] == number)
        before = itertools.takewhile(lambda line: _named(line) != _named(mine), self.every_arrived)
        return any(sent_s.get(_named(line), 0) > mine["time_s"] for line in before)

    def order(self) -> list[int]:
        return [line["seq"] for line in self.arrived]

    def missing(self, decided: set[int]) -> set[int]:
        """What was sent and did not arrive, as far as both cables were captured.

        A capture opens its cables one after another (8 ... 17 ms on an idle machine), and leaves them likewise: what
        was sent before the first arrival, or after the last one and the last decision, may have arrived unseen.
        """
        seen = self.order()
        last = max(*seen, *decided)
        return {line["seq"] for line in self.sent if seen[0] <= line["seq"] <= last} - set(seen)


def _named(line: Line) -> tuple[Any, ...]:
    return line.get("type"), line.get("seq"), line.get("ackseq")


def on_both_cables(lab: DockerLab, name: str) -> bool:
    """Whether a capture that goes on has messages of both directors from each of its cables."""
    printed = lab.switch.exec("capinfos", f"/tmp/{name}")
    counts = [int(count) for count in re.findall(r"Number of packets = (\d+)", printed.stdout)]
    if len(counts) < 2 or min(counts) < BEFORE:
        raise NotYet(f"so far {counts}: {printed.stderr.strip()}")
    return True


def dissected(capture: Path, authkeys: Path) -> list[Line]:
    """In a process of its own, as all that imports scapy."""
    command = [sys.executable, str(PROGRAMS / "dissect.py"), str(capture), str(authkeys)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in said.splitlines()]


def log(lab: DockerLab, proof: Proof, where: str = f"{RECEIVER} on {PATH}") -> Log:
    """What the middlebox has decided until now."""
    return read(lab, next(key for key, at in proof.detail["middleboxes"].items() if at == where))


def numbers(decisions: list[Line], verb: str = "") -> set[int]:
    """Of status messages with a decision, or with this one."""
    found = [line for line in decisions if line["type"] == "status" and line.get("decision")]
    return {line["seq"] for line in found if not verb or line["decision"] == verb}


def many(lab: DockerLab, proof: Proof) -> bool:
    return len(numbers(list(log(lab, proof).decisions))) >= DECISIONS


@contextmanager
def captured(lab: DockerLab, folder: Path) -> Iterator[list[Line]]:
    """Filled at the end."""
    lines: list[Line] = []
    file, authkeys = folder / "heartbeat.pcapng", folder / "authkeys"
    authkeys.write_text(lab.node(SENDER).exec("cat", "/etc/ha.d/authkeys").stdout)
    capture = lab.capture(str(file), (SENT, ARRIVED), "udp port 694")
    try:
        # a fault's first message would otherwise be the first of all: nothing tells whether its cable was captured yet
        eventually(lambda: on_both_cables(lab, file.name), f"{BEFORE} messages on each captured cable")
        yield lines
    finally:
        capture.stop()
    lines += dissected(file, authkeys)


def carried(lab: DockerLab, folder: Path, fault: str, **settings: Any) -> tuple[Wire, set[int], set[int]]:
    """The wire with a fault in for some seconds, the messages that were decided over, and those that were chosen."""
    with captured(lab, folder) as lines:
        with injected(lab, fault, **{**HALF, **settings}) as proof:
            eventually(lambda: many(lab, proof), f"{DECISIONS} messages")
        pass_time(AFTER_S)
    decisions = proof.detail["decisions"][f"{RECEIVER} on {PATH}"]
    decided, chosen = numbers(decisions), numbers(decisions, fault.partition(".")[2])
    assert chosen
    wire = Wire(lines, decisions)
    assert decided <= {line["seq"] for line in wire.sent}
    return wire, decided, chosen


def predicted(decided: set[int], seed: int = HALF["seed"]) -> set[int]:
    choice = Choice(SENDER, PATH, ("status",), rate=0.5, seed=seed)
    return {number for number in decided if choice.takes(Heard("status", number))}


def test_exactly_the_chosen_messages_do_not_arrive(lab: DockerLab, tmp_path: Path) -> None:
    wire, decided, chosen = carried(lab, tmp_path, "heartbeat.drop")
    assert chosen == predicted(decided)
    assert chosen != predicted(decided, seed=12)
    assert wire.missing(decided) == chosen


def test_chosen_messages_arrive_twice(lab: DockerLab, tmp_path: Path) -> None:
    wire, decided, chosen = carried(lab, tmp_path, "heartbeat.duplicate")
    assert chosen == predicted(decided)
    times = Counter(wire.order())
    assert {number for number in decided if times[number] == 2} == chosen
    assert {number for number in decided if times[number] == 1} == decided - chosen


def test_chosen_messages_arrive_late(lab: DockerLab, tmp_path: Path) -> None:
    wire, decided, chosen = carried(lab, tmp_path, "heartbeat.delay", delay_ms=1200)
    assert chosen == predicted(decided)
    after_s = wire.after_decision()
    late = {number for number, times_s in after_s.items() if times_s and times_s[0] >= 1.1}
    # those that were held back when it was undone came at once
    assert late <= chosen
    assert len(late) >= len(chosen) - 3
    assert all(len(after_s[number]) == 1 for number in decided)


def test_chosen_messages_arrive_behind_later_ones(lab: DockerLab, tmp_path: Path) -> None:
    wire, decided, chosen = carried(lab, tmp_path, "heartbeat.reorder")
    assert chosen <= predicted(decided)  # one at a time
    overtaken = {number for number in decided if wire.was_overtaken(number)}
    assert overtaken <= chosen
    assert len(overtaken) >= len(chosen) - 1  # one may be held when it is undone
    assert Counter(wire.order())[min(chosen)] == 1


def test_chosen_messages_arrive_again_when_they_are_old(lab: DockerLab, tmp_path: Path) -> None:
    wire, decided, chosen = carried(lab, tmp_path, "heartbeat.replay", after_ms=1500)
    assert chosen == predicted(decided)
    after_s = wire.after_decision()
    again = {number for number, times_s in after_s.items() if len(times_s) == 2 and times_s[1] >= 1.4}
    assert again <= chosen
    assert len(again) >= len(chosen) - 4  # what was still to come when it was undone did not
    assert all(after_s[number][0] < 1.4 for number in decided)


def test_wrongly_signed_messages_arrive_and_are_refused(lab: DockerLab, tmp_path: Path) -> None:
    before = length(lab)
    wire, decided, chosen = carried(lab, tmp_path, "heartbeat.corrupt")
    assert chosen == predicted(decided)
    assert {line["seq"] for line in wire.arrived if not line["verified"]} == chosen
    assert all(line["verified"] for line in wire.sent)
    # heartbeat 3.0.6 names the digest it got, and dumps the message

    def all_refused() -> bool:
        return said(lab, before).count("netstring authentication failed") == len(chosen)

    assert eventually(all_refused, "heartbeat to refuse each of them", 30)


def length(lab: DockerLab) -> int:
    """Of the receiver's log, in lines."""
    return int(lab.node(RECEIVER).exec("sh", "-c", "wc -l < /var/log/ha-log").stdout)


def said(lab: DockerLab, since: int) -> str:
    return lab.node(RECEIVER).exec("tail", "-n", f"+{since + 1}", "/var/log/ha-log").stdout


def test_one_silent_path_moves_nothing_and_disturbs_nothing_else(lab: DockerLab) -> None:
    before, owners = length(lab), lab.owners()
    with injected(lab, "heartbeat.drop", sender=SENDER, paths=[PATH], types=["status"]) as proof:
        held_s = 2 * lab.cluster.deadtime_ms / 1000
        count = round(held_s * 2)
        ping = lab.node(SENDER).exec("ping", "-n", "-i", "0.5", "-c", str(count), DESTINATION, timeout_s=120)
        answers = set(map(int, re.findall(r"bytes from .*icmp_seq=(\d+)", ping.stdout)))
        assert answers >= set(range(1, count))  # for the last one ping(8) may not wait long enough
        assert lab.owners() == owners
        decisions = log(lab, proof).decisions
        assert len(numbers(list(decisions), "drop")) >= held_s
        assert all("type" in line for line in decisions)  # nothing but messages
    assert f"{SENDER}: is dead" not in said(lab, before)


def test_silence_on_all_paths_is_taken_for_death(lab: DockerLab) -> None:
    before = length(lab)
    vip = next(vip for vip, home in lab.cluster.vips.items() if home == SENDER)
    with FAULTS["heartbeat.drop"](sender=SENDER, types=["status"]).inject(lab) as proof:
        assert set(proof.detail["decisions"]) == {f"{RECEIVER} on {PATH}", f"{RECEIVER} on lan"}

        def taken() -> bool:
            if "mach_down takeover complete" not in (text := said(lab, before)):
                raise NotYet(text[-300:])
            return lab.owners()[vip] == (SENDER, RECEIVER)  # it lives: both hold it

        eventually(taken, f"{RECEIVER} to take over from {SENDER}", TAKEOVER_S)
    assert f"node {SENDER}: is dead" in said(lab, before)
    come_home(lab)


def come_home(lab: DockerLab) -> None:
    """After a silence that one side only has noticed.

    That side starts heartbeat anew, and is back while the other one still takes over what it has released; what that
    one has then, heartbeat 3.0.6 leaves there. An operator asks for it back, again when it was not listened to.
    """

    def home() -> bool:
        owners = lab.owners()
        away = {vip: lab.cluster.vips[vip] for vip, held in owners.items() if held != (lab.cluster.vips[vip],)}
        if all(len(held) == 1 for held in owners.values()):
            for director in away.values():
                lab.node(director).exec("/usr/share/heartbeat/hb_takeover", "local", timeout_s=60)
        if away:
            raise NotYet(str(owners))
        return True

    until(home, HOME_S, "all addresses to be at home", 20)


def test_two_compose_and_a_second_of_the_same_messages_is_refused(lab: DockerLab, tmp_path: Path) -> None:
    there = FAULTS["heartbeat.duplicate"](**HALF)
    back = FAULTS["heartbeat.drop"](**{**HALF, "sender": RECEIVER})
    again = FAULTS["heartbeat.corrupt"](**HALF)
    with captured(lab, tmp_path) as lines, there.inject(lab) as one, back.inject(lab) as other:
        with pytest.raises(LabError, match=r"heartbeat messages from lb-1 to lb-2 on heartbeat is taken by"):
            again.inject(lab).__enter__()
        pass_time(3)
    dropped = numbers(other.detail["decisions"][f"{SENDER} on {PATH}"], "drop")
    twice = numbers(one.detail["decisions"][f"{RECEIVER} on {PATH}"], "duplicate")
    assert {number for number, times in Counter(Wire(lines).order()).items() if times == 2} == twice
    back_to_sender = [line for line in lines if line["destination"] == SOURCE and line.get("type") == "status"]
    assert not dropped & {line["seq"] for line in back_to_sender if line["interface"] == SENT}


def test_a_middlebox_that_dies_lets_all_messages_pass(lab: DockerLab) -> None:
    before, owners = length(lab), lab.owners()

    def kill_and_wait() -> None:
        # not all of them: a busy machine may need long to kill it and to see that
        with FAULTS["heartbeat.drop"](sender=SENDER, types=["status"], rate=0.3).inject(lab) as proof:
            assert lab.switch.exec("pkill", "-KILL", "-f", "/middlebox.py ").ok
            until(lambda: all(log(lab, proof, at).problems for at in proof.detail["decisions"]), 60, "their end")
            pass_time(1.5 * lab.cluster.deadtime_ms / 1000)
            assert lab.owners() == owners

    with pytest.raises(LabError, match="the middlebox ended on its own"):
        kill_and_wait()
    assert f"{SENDER}: is dead" not in said(lab, before)
