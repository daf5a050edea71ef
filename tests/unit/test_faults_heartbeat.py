"""Faults of heartbeat messages without a lab: the cables, the commands, and what counts as proof."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from pydantic import ValidationError

from faults import FAULTS
from faults.heartbeat import INTERCEPT, Corrupt, Delay, Drop, Interception, parse_log
from harness.fake import FakeLab
from harness.records import Cable, LabError, Output
from harness.wait import NotYet

HA_CF = """
udpport 6940   # not the usual one
ucast eth2 198.18.2.11
ucast eth2 198.18.2.12
ucast eth1 198.18.1.11
bcast eth3 eth4
#mcast eth5 225.0.0.1 694 1 0
"""
CABLES = tuple(
    Cable(f"lb-{n}.eth{i}", f"lb-{n}", f"eth{i}", segment, (f"198.18.{i}.1{n}",), "")
    for n in (1, 2)
    for i, segment in ((0, "internet"), (1, "lan"), (2, "heartbeat"))
)
IN = '{"t": 2000, "in": 1000}\n'
DROPPED = '{"t": 3000, "type": "status", "seq": 54, "decision": "drop", "effect": "was dropped"}\n'
PASSED = '{"t": 2500, "type": "NS_ackmsg", "ackseq": 7, "decision": "pass"}\n'
ONE = Interception("lb-1", "lb-2", "lan", "lb-2.eth1", "198.18.1.11")


@dataclass
class Switch:
    """A switch that records its commands; ``log`` is their output."""

    log: str
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def exec(self, *argv: str, **_: object) -> Output:
        self.asked.append(argv)
        if "pgrep" in " ".join(argv):  # is anything left?
            return Output(1, "", "")
        return Output(0, self.log if "cat" in " ".join(argv) else "", "")

    def verbs(self) -> list[tuple[str, ...]]:
        return [argv for argv in self.asked if argv[0] == INTERCEPT]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeLab:
    fake = FakeLab()
    fake.cables = CABLES
    monkeypatch.setattr(fake.node("lb-1"), "exec", lambda *_, **__: Output(0, HA_CF, ""))
    return fake


def switch_of(fake: FakeLab, monkeypatch: pytest.MonkeyPatch, log: str) -> Switch:
    switch = Switch(log)
    monkeypatch.setattr(fake.switch, "exec", switch.exec)
    return switch


def test_all_paths_or_those_that_are_named(fake: FakeLab) -> None:
    found = Drop(sender="lb-1").interceptions(fake)
    assert [(each.path, each.cable, each.source, each.port) for each in found] == [
        ("lan", "lb-2.eth1", "198.18.1.11", 6940),
        ("heartbeat", "lb-2.eth2", "198.18.2.11", 6940),
    ]
    assert [each.path for each in Drop(sender="lb-1", paths=("heartbeat",)).interceptions(fake)] == ["heartbeat"]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"sender": "web-1"}, "web-1 is not a director"),
        ({"sender": "lb-9"}, "unknown node 'lb-9'; nodes: client, lb-1, lb-2"),
        (
            {"sender": "lb-1", "paths": ("internet",)},
            "lb-1 sends no heartbeat messages to another director on internet",
        ),
    ],
)
def test_a_refusal_gives_the_reason(fake: FakeLab, settings: dict[str, Any], why: str) -> None:
    reason = Drop(**settings).available(fake)
    assert reason is not None
    assert why in reason


def test_a_kernel_without_the_hook_is_the_reason(fake: FakeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = Output(1, "", "Error: Could not process rule: Operation not supported")
    monkeypatch.setattr(fake.switch, "exec", lambda *argv, **_: refusal if argv[:2] == ("nft", "--check") else None)
    assert "NETFILTER_EGRESS" in (Drop(sender="lb-1").available(fake) or "")


def test_a_director_that_is_off_sends_nothing(fake: FakeLab) -> None:
    fake.node("lb-1").power_off()
    assert "off" in (Drop(sender="lb-1").available(fake) or "")


@pytest.mark.parametrize(
    "settings", [{"first_seq": 9, "last_seq": 8}, {"rate": 0}, {"rate": 1.1}, {"sender": ""}, {"seq": 1}]
)
def test_invalid_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Drop(**{"sender": "lb-1", **settings})


def test_the_names_of_one_interception_fit_and_differ() -> None:
    others = [replace(ONE, sender="lb-3"), replace(ONE, receiver="lb-3"), replace(ONE, path="heartbeat")]
    assert len({each.key for each in (ONE, *others)}) == len({each.claim for each in (ONE, *others)}) == 4
    assert all(len(f"{each.key}-in") < 16 for each in (ONE, *others))  # IFNAMSIZ, with its zero byte


def test_the_command_has_all_settings_of_the_middlebox() -> None:
    program, verb, key, settings = Delay(sender="lb-1", delay_ms=300, types=("status",), rate=0.5, seed=3).take(ONE)
    assert (program, verb, key) == (INTERCEPT, "take", ONE.key)
    assert json.loads(settings) == {
        "cable": "lb-2.eth1",
        "source": "198.18.1.11",
        "port": 694,
        "verb": {"name": "delay", "delay_ms": 300},
        "choice": {
            "sender": "lb-1",
            "path": "lan",
            "types": ["status"],
            "first_seq": None,
            "last_seq": None,
            "rate": 0.5,
            "seed": 3,
        },
    }


def test_each_is_in_the_registry_as_it_names_itself() -> None:
    mine = {name for name in FAULTS if name.startswith("heartbeat.")}
    verbs = ("corrupt", "delay", "drop", "duplicate", "reorder", "replay")
    assert mine >= {f"heartbeat.{verb}" for verb in verbs}
    assert {FAULTS[f"heartbeat.{verb}"](sender="lb-1").name for verb in verbs} <= mine


def test_a_log_is_read() -> None:
    log = parse_log(IN + PASSED + DROPPED)
    assert (log.in_ns, len(log.decisions), log.problems) == (1000, 2, "")
    assert [line["seq"] for line in log.effects] == [54]
    assert parse_log("").in_ns == 0
    assert parse_log(IN + "ended\nTraceback\nOSError: no\n").problems == "Traceback OSError: no"
    assert parse_log("ended\n").problems == "no output"


def test_the_proof_names_the_first_message() -> None:
    shown = Drop(sender="lb-1").shows(ONE, parse_log(IN + PASSED + DROPPED))
    assert shown == "status 54 of lb-1 to lb-2 on lan was dropped"


def test_a_message_that_passes_is_proof_only_if_rare_is_set() -> None:
    log = parse_log(IN + PASSED)
    with pytest.raises(NotYet, match="none was chosen"):
        Drop(sender="lb-1").shows(ONE, log)
    assert "went through the middlebox" in Drop(sender="lb-1", rare=True).shows(ONE, log)
    with pytest.raises(NotYet):
        Drop(sender="lb-1", rare=True).shows(ONE, parse_log(IN))


def test_an_injection_records_all_decisions_and_is_undone(fake: FakeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    switch = switch_of(fake, monkeypatch, IN + DROPPED)
    with Drop(sender="lb-1", paths=("lan",)).inject(fake) as proof:
        assert proof.time_ns == 1000
        assert [lease.claim for lease in fake.leases()] == [ONE.claim]
        with pytest.raises(LabError, match="taken"), Corrupt(sender="lb-1").inject(fake):
            pytest.fail("two deciders over one message")
        switch.log += PASSED
    assert [line["t"] for line in proof.detail["decisions"]["lb-2 on lan"]] == [3000, 2500]
    taken = [argv[:3] for argv in switch.verbs()]
    assert taken[0] == (INTERCEPT, "take", ONE.key)
    assert taken[-1] == (INTERCEPT, "release", ONE.key)
    assert not fake.leases()


def test_without_a_chosen_message_the_fault_fails(fake: FakeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    switch_of(fake, monkeypatch, IN + PASSED)
    fault = Drop(sender="lb-1", paths=("lan",), types=("resource",), rare=True)
    with pytest.raises(LabError, match="no message was chosen"), fault.inject(fake):
        pass


def test_a_middlebox_that_ends_on_its_own_is_an_error(fake: FakeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    switch = switch_of(fake, monkeypatch, IN + DROPPED)
    with pytest.raises(LabError, match=r"ended on its own.*killed"), Drop(sender="lb-1", paths=("lan",)).inject(fake):
        switch.log += "ended\nkilled\n"
    assert not fake.leases()
    with pytest.raises(LabError, match="ended: killed"), Drop(sender="lb-1", paths=("lan",)).inject(fake):
        pytest.fail("it counted as injected")
