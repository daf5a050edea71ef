from __future__ import annotations

from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest
from dnslib import RR, A, DNSRecord

from faults.dns import (
    Answer,
    FrozenOrder,
    HugeTtl,
    OneAddress,
    Refused,
    Servfail,
    Silent,
    Slow,
    Truncated,
    WrongAddress,
)
from faults.dns import parse as parse_answers
from harness.fake import FakeLab, FakeNode
from harness.records import Undo

ONE, TWO = "203.0.113.101", "203.0.113.102"
GOOD = Answer("answered", 2, addresses=(ONE, TWO), ttls_s=(5, 5))
TURNED = Answer("answered", 2, addresses=(TWO, ONE), ttls_s=(5, 5))
SILENT = Answer("silent", 1000)


@pytest.fixture
def fake() -> FakeLab:
    lab = FakeLab()
    lab.add(FakeNode(lab, "resolver", "resolver"))
    return lab


@pytest.fixture
def proxy() -> ModuleType:
    module = ModuleType("proxy")
    path = Path(__file__).parents[2] / "topology/images/resolver/faults/dns-proxy"
    SourceFileLoader("proxy", str(path)).exec_module(module)
    return module


def test_the_clients_answers_are_read() -> None:
    printed = '[{"end": "answered", "rcode": 0, "truncated": false, "records": [["203.0.113.101", 5]], "ms": 3}, '
    printed += '{"end": "silent", "ms": 1001}]'
    assert parse_answers(printed) == (Answer("answered", 3, 0, False, (ONE,), (5,)), Answer("silent", 1001))


@pytest.mark.parametrize(
    ("fault", "answers"),
    [
        (Silent(), (SILENT, SILENT)),
        (Servfail(), (Answer("answered", 1, 2),)),
        (Refused(), (Answer("answered", 1, 5),)),
        (Truncated(), (Answer("answered", 1, truncated=True), GOOD)),
        (Truncated(tcp="resets"), (Answer("answered", 1, truncated=True), Answer("reset", 1))),
        (Slow(), (Answer("answered", 1003, addresses=(ONE, TWO)),)),
        (OneAddress(), (Answer("answered", 1, addresses=(ONE,), ttls_s=(5,)),)),
        (FrozenOrder(), (GOOD, GOOD, GOOD)),
        (WrongAddress(), (Answer("answered", 1, addresses=("192.0.2.1",), ttls_s=(5,)),)),
        (HugeTtl(), (Answer("answered", 1, addresses=(ONE, TWO), ttls_s=(604_800, 604_800)),)),
    ],
)
def test_each_fault_knows_its_effect_from_good_answers(fault: Silent, answers: tuple[Answer, ...]) -> None:
    assert fault.shows(answers)
    assert not fault.shows((GOOD, TURNED))
    assert isinstance(fault, Silent) or not fault.shows(
        (SILENT, SILENT)
    )  # silence does not show that the fault remains


def test_faults_of_the_same_property_have_the_same_claim(fake: FakeLab) -> None:
    claims = [fault.changes(fake)[0].claim for fault in (Silent(), Servfail(), Refused(), Truncated())]
    assert len(set(claims)) == 1
    claims += [fault.changes(fake)[0].claim for fault in (Slow(), OneAddress(), FrozenOrder(), HugeTtl())]
    assert len(set(claims)) == 5
    assert WrongAddress().changes(fake)[0].claim == OneAddress().changes(fake)[0].claim


def test_the_proxy_reads_its_settings_from_a_file_also_after_a_reboot(fake: FakeLab) -> None:
    (change,) = OneAddress(vip=1).changes(fake)
    (again,) = change.again
    folder = "/run/monkeywrench/faults/dns"
    assert again.argv[-3:] == (folder, "one-address", '{"address": "203.0.113.102", "kind": "one-address"}')
    (undo,) = change.undo
    assert isinstance(undo, Undo)
    assert undo.argv[-2:] == (folder, "one-address")


def test_a_refusal_gives_the_reason(fake: FakeLab) -> None:
    assert Silent(node="web-1").available(fake) == "web-1 is not a resolver: its role is web"
    assert OneAddress(vip=1).available(fake) is None
    assert (
        OneAddress(vip=2).available(fake)
        == "no VIP can be chosen by index 2: the site has 2 VIPs, and the fault needs at least 2"
    )


def answer(*addresses: str) -> bytes:
    """What the resolver answers."""
    reply = DNSRecord.question("www.example.test").reply()
    for address in addresses:
        reply.add_answer(RR("www.example.test", ttl=5, rdata=A(address)))
    packed: bytes = reply.pack()
    return packed


def spoilt(proxy: ModuleType, packet: bytes, **now: dict[str, object]) -> list[tuple[str, int]]:
    """The addresses and their times to live in an answer that has passed through the proxy."""
    kinds = {kind.replace("_", "-"): settings for kind, settings in now.items()}
    return [(str(record.rdata), record.ttl) for record in DNSRecord.parse(proxy.spoilt(packet, kinds)).rr]


def test_the_proxy_changes_only_what_its_settings_say(proxy: ModuleType) -> None:
    assert spoilt(proxy, answer(TWO, ONE)) == [(TWO, 5), (ONE, 5)]
    assert spoilt(proxy, answer(TWO, ONE), frozen_order={}) == [(ONE, 5), (TWO, 5)]
    assert spoilt(proxy, answer(TWO, ONE), one_address={"address": ONE}, huge_ttl={"ttl_s": 99}) == [(ONE, 99)]
    assert spoilt(proxy, answer(TWO, ONE), wrong_address={"address": "192.0.2.1"}) == [("192.0.2.1", 5)]
    assert spoilt(proxy, answer(), wrong_address={"address": "192.0.2.1"}) == []  # a name that does not exist


def test_the_proxy_answers_without_records(proxy: ModuleType) -> None:
    query = DNSRecord.question("www.example.test")
    cut = DNSRecord.parse(proxy.truncated(query.pack()))
    assert (cut.header.id, cut.header.tc, cut.rr) == (query.header.id, 1, [])
    failed = DNSRecord.parse(proxy.refusal(query.pack(), 2))
    assert (failed.header.id, failed.header.rcode, failed.rr) == (query.header.id, 2, [])
