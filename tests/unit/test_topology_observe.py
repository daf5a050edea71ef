import json

import pytest

from harness.protocols import LabError, Line, NodeStatus, Power, RealServer
from topology import kernel, lab
from topology.model import load
from topology.observe import ArpFeed, OwnersFeed, parse_ha_cf, parse_ipvs

IPVSADM = """\
IP Virtual Server version 1.2.1 (size=256)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  203.0.113.101:80 wlc persistent 360
  -> 198.18.1.101:80              Masq    1      3          11
  -> 198.18.1.102:80              Masq    0      0          2
TCP  203.0.113.102:80 wlc
"""


def test_an_ipvs_table_is_read_as_ipvsadm_prints_it() -> None:
    table = parse_ipvs(IPVSADM, {"198.18.1.101": "web-1", "198.18.1.102": "web-2"})
    assert table == {
        "203.0.113.101:80": (
            RealServer("198.18.1.101", "web-1", 1, 3, 11),
            RealServer("198.18.1.102", "web-2", 0, 0, 2),
        ),
        "203.0.113.102:80": (),
    }


@pytest.mark.parametrize(
    ("line", "expected_ms"),
    [
        ("deadtime 3", 3000),
        ("deadtime 3000ms", 3000),
        ("deadtime 2.5", 2500),
        ("deadtime 7s # slow", 7000),
        ("", 30000),
    ],
)
def test_ha_cf_durations_are_heartbeats_own(line: str, expected_ms: int) -> None:
    assert parse_ha_cf(f"keepalive 500ms\n#deadtime 9\n{line}\n") == {"keepalive": 500, "deadtime": expected_ms}


class Named:
    def __init__(self, name: str) -> None:
        self.name = name


def test_a_directors_addresses_become_the_vips_it_holds() -> None:
    feed = OwnersFeed(Named("lb-1"), ["203.0.113.101"])  # type: ignore[arg-type]  # needs a name and no more
    held, power = (
        next(iter(feed.entries(Line(7, json.dumps(seen)))))
        for seen in ({"addresses": ["198.18.1.11", "203.0.113.101"]}, {"power": "off"})
    )
    assert (held.process, held.f, held.value) == ("owners:lb-1", "holds", {"node": "lb-1", "vips": ["203.0.113.101"]})
    assert (power.process, power.f, power.value) == ("power:lb-1", "power", {"node": "lb-1", "power": "off"})


def test_an_arp_frame_keeps_the_time_of_the_wire_and_gets_its_nodes_name() -> None:
    feed = ArpFeed(Named("switch"), "internet", {"02:00:00:00:00:01": "lb-1"})  # type: ignore[arg-type]  # likewise
    seen = {
        "t": 5,
        "op": "request",
        "ip": "203.0.113.101",
        "mac": "02:00:00:00:00:01",
        "target": "x",
        "gratuitous": True,
    }
    (op,) = feed.entries(Line(9, json.dumps(seen)))
    assert (op.time_ns, op.value["node"]) == (5, "lb-1")
    (alive,) = feed.entries(Line(9, '{"t": 6, "alive": true}'))
    assert alive.value == {"alive": True}


def healthy_parts() -> tuple[
    dict[str, tuple[str, ...]], dict[str, dict[str, tuple[RealServer, ...]]], dict[str, object]
]:
    topology = load("ultramonkey")
    servers = tuple(RealServer(str(m.addresses["lan"][0]), m.name, 1, 0, 0) for m in topology.of_role("web"))
    table = {f"{vip.address}:80": servers for vip in topology.vips}
    vips = ["203.0.113.101", "203.0.113.102"]
    site: dict[str, object] = {"dns": list(reversed(vips)), "http": dict.fromkeys(vips, "web-1")}
    return {vips[0]: ("lb-1",), vips[1]: ("lb-2",)}, {"lb-1": table, "lb-2": table}, site


def test_a_healthy_cluster_has_no_trouble_and_each_fault_has_its_sentence() -> None:
    topology = load("ultramonkey")
    owners, tables, site = healthy_parts()
    assert list(lab.troubles(topology, [], owners, tables, site)) == []
    both = {**owners, "203.0.113.101": ("lb-1", "lb-2")}
    assert list(lab.troubles(topology, [], both, tables, site)) == [
        "203.0.113.101 is held by lb-1 and lb-2 instead of lb-1"
    ]
    service = "203.0.113.102:80"
    quiet = tuple(RealServer(s.address, s.node, 0 if s.node == "web-3" else 1, 0, 0) for s in tables["lb-2"][service])
    drained = {**tables, "lb-2": {**tables["lb-2"], service: quiet}}
    assert list(lab.troubles(topology, [], owners, drained, site)) == ["lb-2 sends nothing for 203.0.113.102 to web-3"]
    assert list(lab.troubles(topology, [], owners, tables, {})) == [
        "the resolver answers nothing for www.ultramonkey.test",
        "the site does not answer at 203.0.113.101",
        "the site does not answer at 203.0.113.102",
    ]


def test_a_node_that_is_off_is_trouble() -> None:
    owners, tables, site = healthy_parts()
    node = NodeStatus("web-3", "web", Power.OFF, "uml", "", "")
    assert list(lab.troubles(load("ultramonkey"), [node], owners, tables, site)) == ["web-3 is off"]


def test_the_kernel_of_a_node_is_chosen_with_a_reason() -> None:
    machines = {machine.name: machine for machine in load("ultramonkey").machines}
    assert kernel.choose(machines["lb-1"], "amd64", lambda _: False).kernel == "uml"
    assert kernel.choose(machines["client"], "amd64", lambda _: True).kernel == "host"
    on_arm = kernel.choose(machines["lb-1"], "arm64", lambda _: True)
    assert on_arm.kernel == "host"
    assert "arm64" in on_arm.why
    with pytest.raises(LabError, match="no IPVS"):
        kernel.choose(machines["lb-1"], "arm64", lambda _: False)
