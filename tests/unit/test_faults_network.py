from __future__ import annotations

import json
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import ValidationError

import faults.fault
from faults import FAULTS
from faults.network import arp, cables, nft, traffic
from faults.network.cables import Burst, Cut, Partition, partition_hooks, sending
from faults.network.nft import Frames
from harness.fake import FakeLab
from harness.records import Cable, LabError
from harness.wait import NotYet

ONE = Cable("web-1.eth0", "web-1", "eth0", "lan", ("198.18.1.101",), "02:00:00:00:00:01")
OTHER = Cable("web-2.eth0", "web-2", "eth0", "lan", ("198.18.1.102",), "02:00:00:00:00:02")


def test_a_table_counts_and_marks_first_and_drops_what_any_table_has_marked() -> None:
    ruleset = nft.dropping("mw_1", [nft.leaving("web-1.eth0", Frames("tcp", 80))], "numgen random mod 100000 < 5000")
    assert ruleset.splitlines() == [
        "add table netdev mw_1",
        "add counter netdev mw_1 seen_from",
        "add counter netdev mw_1 hit_from",
        "add chain netdev mw_1 act_from",
        "add rule netdev mw_1 act_from counter name seen_from",
        "add rule netdev mw_1 act_from numgen random mod 100000 < 5000 counter name hit_from "
        "meta mark set meta mark | 1",
        'add chain netdev mw_1 pick_from { type filter hook ingress devices = { "web-1.eth0" } priority -300; }',
        "add rule netdev mw_1 pick_from tcp dport 80 goto act_from",
        "add rule netdev mw_1 pick_from tcp sport 80 goto act_from",
        'add chain netdev mw_1 end_from { type filter hook ingress devices = { "web-1.eth0" } priority -200; }',
        "add rule netdev mw_1 end_from meta mark & 1 == 1 drop",
    ]


def test_what_is_dropped_is_not_rejected_too() -> None:
    ruleset = nft.rejecting("mw_1", [nft.leaving("web-1.eth0", Frames("udp"))])
    assert "priority -100" in ruleset
    assert "meta mark & 2 == 2 meta l4proto tcp reject with tcp reset" in ruleset
    assert "act_from meta protocol ip counter name hit_from" in ruleset


def test_a_flapping_cable_only_changes_what_a_table_takes() -> None:
    up, down = nft.blinking("mw_1", [nft.arriving("web-1.eth0", Frames())])
    assert "mark" not in up
    assert "meta mark set" in down
    assert all(line.startswith(("flush chain", "add rule")) for line in (up + "\n" + down).splitlines())


def test_a_partition_is_between_pairs_of_one_segment() -> None:
    there, back = partition_hooks([(ONE, OTHER)], one_way=False)
    assert there.matches == ('iifname { "web-1.eth0" } oifname { "web-2.eth0" }',)
    assert back.matches == ('iifname { "web-2.eth0" } oifname { "web-1.eth0" }',)
    assert partition_hooks([(ONE, OTHER)], one_way=True) == [there]
    assert "table bridge mw_1" in nft.dropping("mw_1", [there, back])


def test_the_bridge_node_of_a_partition_is_on_neither_side() -> None:
    lab = FakeLab()
    fault = Partition(one=("lb-1", "client"), other=("lb-2", "client"), mode="bridge", through="client")
    assert {(one.node, other.node) for one, other in fault.pairs(lab)} == {("lb-1", "lb-2")}
    rest = Partition(one=("lb-1",)).pairs(lab)
    assert {other.node for _, other in rest} == {"lb-2", "client"}


@pytest.mark.parametrize(
    "settings",
    [
        {"one": ["lb-1"], "other": ["lb-1"]},
        {"one": ["lb-1"], "mode": "bridge"},
        {"one": ["lb-1"], "through": "lb-2"},
        {"one": []},
    ],
)
def test_an_invalid_partition_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        FAULTS["network.partition"](**settings)


def test_a_port_needs_a_protocol_that_has_ports() -> None:
    assert Cut(cable="lb-1.eth0", protocol="udp", port=694).ways == ("from", "to")
    with pytest.raises(ValidationError, match="works only with protocol tcp or udp"):
        Cut(cable="lb-1.eth0", port=80)


def test_counters_are_read() -> None:
    listing = {"nftables": [{"metainfo": {}}, {"counter": {"name": "hit_to", "packets": 7, "bytes": 420}}]}
    assert nft.counted(json.dumps(listing)) == {"hit_to": 7}


def test_frames_are_sent_as_if_by_a_neighbour() -> None:
    assert sending("web-2.eth0", OTHER, ONE, Burst(Frames("udp", 694), 3, 1500)) == (
        *("/usr/lib/monkeywrench/faults/frames", "web-2.eth0", "02:00:00:00:00:01"),
        *("198.18.1.102", "198.18.1.101", "udp", "694", "3", "1500"),
    )


def test_the_announcements_of_a_whole_network_match() -> None:
    addresses = arp.announcements(["198.18.1.101", "198.18.1.11"])
    assert addresses.count(",") == 253
    assert "198.18.1.11 . 198.18.1.11" in addresses


def test_an_unknown_cable_is_refused_with_a_list_of_cables() -> None:
    reason = Cut(cable="lb-9.eth0").available(FakeLab())
    assert reason is not None
    assert "lb-9.eth0" in reason
    assert "lb-1.eth0, lb-2.eth0" in reason


def test_a_cut_without_dropped_frames_fails_and_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = FakeLab()
    monkeypatch.setattr(cables, "counted", lambda *_: {"hit_from": 0, "hit_to": 0})
    monkeypatch.setattr(faults.fault.Change, "proof_within_s", 0.1)
    with pytest.raises(LabError, match="no frame dropped yet"), Cut(cable="lb-1.eth0").inject(lab):
        pytest.fail("it counted as injected")
    assert lab.leases() == []


def answers(rtt_ms: list[float], order: list[int] | None = None, again: int = 0) -> traffic.Answers:
    numbers = list(range(len(rtt_ms))) if order is None else order
    return traffic.Answers(tuple(rtt_ms), tuple(numbers), again, 0, sum(rtt_ms))


def test_a_delay_must_show_in_both_directions() -> None:
    fault = traffic.Delay(cable="web-1.eth0", delay_ms=100)
    assert "takes 201 ms" in fault.effect(answers([1, 2]), answers([201, 250]))
    with pytest.raises(NotYet):
        fault.effect(answers([1, 2]), answers([101, 150]))
    with pytest.raises(NotYet, match="no answer"):
        fault.effect(answers([1]), answers([]))


def test_answers_without_the_effect_are_no_proof() -> None:
    quiet = answers([1, 1, 1])
    for fault in (
        traffic.Duplicate(cable="web-1.eth0"),
        traffic.Reorder(cable="web-1.eth0"),
        traffic.Corrupt(cable="web-1.eth0"),
        traffic.Jitter(cable="web-1.eth0"),
        traffic.Rate(cable="web-1.eth0"),
    ):
        with pytest.raises(NotYet):
            fault.effect(quiet, quiet)
    shown = traffic.Reorder(cable="web-1.eth0").effect(quiet, answers([1, 1, 1], [0, 2, 1]))
    assert "1 of 3 answers were overtaken" in shown


@pytest.fixture(scope="module")
def shape() -> ModuleType:
    """The program that runs inside a node."""
    path = Path(__file__).parents[2] / "topology/images/node/machine/faults/shape"
    spec = spec_from_loader("shape", SourceFileLoader("shape", str(path)))
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_kinds_of_the_same_frames_are_one_netem(shape: ModuleType) -> None:
    everything = ("any", 0)
    lines = shape.plan("eth0", [(everything, "delay", [100.0]), (everything, "duplicate", [5.0])])
    assert lines == [
        "qdisc add dev eth0 root handle 6d70: prio bands 2 priomap " + " ".join(["1"] * 16),
        "qdisc add dev eth0 parent 6d70:2 handle 6d72: netem limit 10000 delay 100ms duplicate 5%",
    ]


def test_frames_in_several_sets_get_all_their_faults(shape: ModuleType) -> None:
    lines = shape.plan("mw-eth0", [(("any", 0), "delay", [100.0]), (("udp", 694), "delay", [50.0])])
    assert "netem limit 10000 delay 150ms" in lines[1]
    assert [line.partition("flower ")[2] for line in lines[2:4]] == [
        "ip_proto udp dst_port 694 flowid 6d70:1",
        "ip_proto udp src_port 694 flowid 6d70:1",
    ]
    assert lines[4].endswith("netem limit 10000 delay 100ms")


def test_reordering_and_jitter_also_delay(shape: ModuleType) -> None:
    parameters = shape.netem([("jitter", [20.0]), ("reorder", [25.0, 50.0]), ("rate", [256.0]), ("rate", [64.0])])
    assert parameters == "limit 10000 delay 70ms 20ms reorder 25% rate 64kbit"
