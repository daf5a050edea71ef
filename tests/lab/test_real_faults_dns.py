"""Faults of the resolver's answers: the client sees each, by the faults' own query and by that of the lab's status."""

from __future__ import annotations

import json
from typing import Any

import pytest

from faults.dns import UNUSED, FrozenOrder, HugeTtl, OneAddress, Refused, Servfail, Slow, WrongAddress, ask
from harness.records import LabError
from harness.wait import NotYet
from tests.support.faulty import eventually, injected
from topology.lab.docker_lab import DockerLab

pytestmark = pytest.mark.usefixtures("audited")

PATIENCE_S = 20
"""Of a query of which the answer matters, not when it comes."""


def resolved(lab: DockerLab, times: int = 2) -> list[list[str]]:
    """What the program gets that the lab's status is made from: addresses, in their order; none for no answer."""
    argv = ("python3", "-S", "/usr/lib/monkeywrench/site.py", "dns", lab.cluster.resolver, lab.cluster.site, str(times))
    found: list[list[str]] = json.loads(lab.node("client").exec(*argv, timeout_s=30).stdout)
    return found


def answered(lab: DockerLab, times: int = 2) -> list[list[str]]:
    """The same, once there is an answer each time: one that comes late counts as none."""

    def all_came() -> list[list[str]]:
        if [] in (found := resolved(lab, times)):
            raise NotYet(str(found))
        return found

    return eventually(all_came, f"{times} answers in time")


def vips(lab: DockerLab) -> list[str]:
    """In the order of the topology."""
    return list(lab.cluster.vips)


@pytest.mark.parametrize(
    ("fault", "settings"),
    [
        ("silent", {}),
        ("servfail", {}),
        ("refused", {}),
        ("slow", {"delay_ms": 4000}),
        ("truncated", {}),
        ("truncated", {"tcp": "resets"}),
        ("truncated", {"tcp": "silent"}),
    ],
)
def test_nobody_finds_the_site(lab: DockerLab, fault: str, settings: dict[str, Any]) -> None:
    with injected(lab, f"dns.{fault}", **settings):
        assert resolved(lab) == [[], []]
        assert eventually(lambda: "the resolver answers nothing" in str(lab.status().problems), "the status to say so")
    assert [sorted(answer) for answer in answered(lab)] == [vips(lab)] * 2


def test_clients_come_to_one_vip(lab: DockerLab) -> None:
    with injected(lab, "dns.one-address", vip=1):
        assert answered(lab) == [[vips(lab)[1]]] * 2
    with injected(lab, "dns.frozen-order"):
        assert answered(lab, 4) == [vips(lab)] * 4
    orders = answered(lab, 4)
    assert {tuple(order) for order in orders} == {tuple(vips(lab)), tuple(reversed(vips(lab)))}


def test_clients_are_sent_to_nobody(lab: DockerLab) -> None:
    with injected(lab, "dns.wrong-address"):
        assert answered(lab) == [[UNUSED]] * 2


def test_records_live_for_a_week(lab: DockerLab) -> None:
    before = ask(lab, patience_s=PATIENCE_S)[0].ttls_s
    with injected(lab, "dns.huge-ttl"):
        for kind in ("udp", "tcp"):
            assert ask(lab, kind, patience_s=PATIENCE_S)[0].ttls_s == (604_800, 604_800)
    assert eventually(lambda: ask(lab, patience_s=PATIENCE_S)[0].ttls_s == before, "the usual TTL")


def test_faults_of_different_things_compose_and_come_and_go_one_by_one(lab: DockerLab) -> None:
    with HugeTtl(ttl_s=600).inject(lab):
        with Slow(delay_ms=200).inject(lab), OneAddress(vip=0).inject(lab):
            (answer,) = ask(lab, patience_s=PATIENCE_S)
            assert (answer.addresses, answer.ttls_s) == ((vips(lab)[0],), (600,))
            assert answer.ms >= 200
        (answer,) = ask(lab, patience_s=PATIENCE_S)
        assert (len(answer.addresses), answer.ttls_s) == (2, (600, 600))


def test_faults_of_the_same_thing_exclude_each_other(lab: DockerLab) -> None:
    with (
        Servfail().inject(lab),
        pytest.raises(LabError, match=r"whether it answers is taken by dns\.servfail"),
        Refused().inject(lab),
    ):
        pytest.fail("it answers both")
    with (
        OneAddress().inject(lab),
        pytest.raises(LabError, match=r"which addresses is taken by dns\.one-address"),
        WrongAddress().inject(lab),
    ):
        pytest.fail("it answers both")


def test_it_is_back_after_a_reboot(lab: DockerLab) -> None:
    with FrozenOrder().inject(lab):
        lab.node("resolver").power_off()
        lab.node("resolver").boot()

        def frozen() -> bool:
            if (orders := resolved(lab, 5)) != [vips(lab)] * 5:
                raise NotYet(str(orders))
            return lab.node("resolver").exec("pgrep", "-f", "faults/dns-proxy").ok

        assert eventually(frozen, "the order to be frozen again")
