"""A fault that a lab cannot have gives the reason before it changes anything."""

from __future__ import annotations

from typing import Any

import pytest

from faults import FAULTS
from harness.fake import FakeLab, FakeNode
from harness.records import Cable
from tests.support.killed import TOGETHER
from topology.load import load


@pytest.fixture(scope="module")
def fake() -> FakeLab:
    """A fake lab with the nodes and the cables of the shipped cluster."""
    lab, topology = FakeLab(web=6), load("ultramonkey")
    services = {
        "web-1": ("nfsd", "apache"),
        "web-3": ("apache", "gmond", "uploads-mount"),
        "lb-1": ("heartbeat",),
        "lb-2": ("heartbeat",),
    }
    for machine in topology.machines:
        kernel = "host" if machine.role == "client" else "uml"
        node = lab.add(FakeNode(lab, machine.name, machine.role, kernel, supervised=services.get(machine.name, ())))
        if machine.role == "director":
            node.prints["cat"] = "udpport 694\nucast eth2 198.18.2.11\nucast eth2 198.18.2.12\n"
    lab.cables = tuple(
        Cable(
            f"{machine.name}.{interface}",
            machine.name,
            interface,
            segment,
            tuple(str(address) for address in machine.addresses.get(segment, ())),
            machine.mac("fake", interface),
        )
        for machine in topology.machines
        for interface, segment in topology.interfaces(machine)
    )
    return lab


WEB, CABLE = "web-3", "web-5.eth0"

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("network.cut", {"cable": "web-5.eth7"}, "unknown cable 'web-5.eth7'"),
    ("network.reject", {"cable": CABLE, "protocol": "arp"}, "ARP cannot be rejected"),
    ("network.mtu", {"cable": CABLE, "protocol": "arp"}, "ARP packets are never longer than the MTU"),
    ("network.corrupt", {"cable": CABLE, "protocol": "arp"}, "cannot be proven"),
    ("network.partition", {"one": ["web-5"], "other": ["client"]}, "share no such segment"),
    ("network.partition", {"one": ["web-5"], "segments": ["wan"]}, "unknown segment 'wan'"),
    ("network.partition", {"one": ["web-9"]}, "unknown node"),
    ("network.delay", {"cable": "client.eth0"}, "client runs on the host's kernel, which has no netem"),
    ("node.panic", {"node": "client"}, "client runs on the host's kernel, so it cannot panic"),
    ("node.clock-jump", {"node": "client"}, "client runs on the host's kernel, so it shares this machine's clock"),
    ("node.out-of-memory", {"node": "client"}, "client runs on the host's kernel, so it shares this machine's memory"),
    ("node.power-off", {"node": "lb-9"}, "unknown node"),
    ("process.kill", {"node": WEB, "service": "agent"}, "control channel"),
    ("process.kill", {"node": WEB, "service": "mariadb"}, "web-3 has no service 'mariadb'. Services: apache, gmond"),
    ("process.kill", {"node": "web-1", "service": "nfsd"}, "belong to the kernel"),
    ("process.kill", {"node": WEB, "service": "uploads-mount"}, "mount"),
    ("process.kill", {"node": "client", "service": "apache"}, "Services: none"),
    ("real-server.stall", {"node": "db"}, "db is not a real server: its role is db"),
    ("real-server.no-php", {"node": "client"}, "client is not a real server: its role is client"),
    (
        "real-server.redirect",
        {"node": WEB, "to": WEB},
        "'web-3' is not another real server. Other real servers: web-1, web-2",
    ),
    ("dns.silent", {"node": "db"}, "db is not a resolver: its role is db"),
    (
        "dns.one-address",
        {"vip": 2},
        "no VIP can be chosen by index 2: the site has 2 VIPs, and the fault needs at least 2",
    ),
    ("heartbeat.drop", {"sender": "web-1"}, "web-1 is not a director, so it sends no heartbeat messages"),
    ("heartbeat.drop", {"sender": "lb-1", "paths": ["internet"]}, "to another director on internet"),
]


@pytest.mark.parametrize(
    ("fault", "settings", "why"), REFUSED, ids=[f"{fault} {[*each.values()]}" for fault, each, _ in REFUSED]
)
def test_a_refusal_gives_its_reason(fake: FakeLab, fault: str, settings: dict[str, Any], why: str) -> None:
    assert why in (FAULTS[fault](**settings).available(fake) or "nothing")


def test_a_fault_of_every_family_has_its_harness_killed_in_a_real_lab() -> None:
    killed = {name.partition(".")[0] for cases in TOGETHER for name in cases}
    assert killed == {name.partition(".")[0] for name in FAULTS}
