from __future__ import annotations

import json

import pytest

from faults import FAULTS
from faults.cluster.config import another_key, drifted
from faults.cluster.operator import Settle
from faults.cluster.partition import OnePathCut, silence
from faults.cluster.rolling import rows
from faults.network import nft
from faults.network.nft import Frames
from harness.fake import FakeLab
from harness.records import Cable, LabError, Power, StaleNeighbour
from harness.wait import NotYet

HA_CF = "deadtime 3000ms\nudpport 694\nucast eth2 198.18.2.11\nucast eth2 198.18.2.12\nnode lb-1 lb-2\n"
CABLES = tuple(Cable(f"{node}.eth2", node, "eth2", "heartbeat", (), "") for node in ("lb-1", "lb-2"))


def with_heartbeat(packets: int) -> FakeLab:
    """A fake lab with a path for heartbeat, on which the switch has counted this many packets each way."""
    lab = FakeLab()
    lab.cables = (*lab.cables, *CABLES)
    counters = [{"counter": {"name": f"hit_from_{number}", "packets": packets}} for number in (1, 2)]
    for node in (lab.node("lb-1"), lab.node("lb-2"), lab.switch):
        node.prints |= {"cat": HA_CF, "nft": json.dumps({"nftables": counters})}
    return lab


def test_a_path_is_cut_when_messages_of_both_directors_were_dropped() -> None:
    with OnePathCut().inject(with_heartbeat(3)) as proof:
        assert "dropped 6 heartbeat messages of both directors on heartbeat" in proof.seen


def test_without_dropped_messages_a_path_is_not_cut() -> None:
    with pytest.raises(NotYet, match="dropped so far"):
        OnePathCut().changes(with_heartbeat(0))[0].proof()


def test_a_path_that_heartbeat_does_not_use_cannot_be_cut() -> None:
    with pytest.raises(LabError, match="no path on internet"):
        OnePathCut(path="internet").changes(with_heartbeat(0))
    assert "unknown segment 'wan'" in (OnePathCut(path="wan").available(with_heartbeat(0)) or "")


def test_only_heartbeats_messages_are_dropped() -> None:
    ruleset = nft.dropping("t", silence(CABLES, Frames("udp", 694)))
    assert 'iifname "lb-1.eth2" udp dport 694' in ruleset
    assert 'iifname "lb-2.eth2" udp sport 694' in ruleset
    assert ruleset.count("hook forward") == 4  # of each director: counted first, then dropped
    assert "add table bridge t" in ruleset


@pytest.mark.parametrize("name", ["authkeys-changed", "configuration-drift", "failback-during-recovery"])
def test_a_fault_of_a_director_refuses_other_nodes(name: str) -> None:
    make = FAULTS[f"cluster.{name}"]
    assert make(node="lb-1").available(FakeLab()) is None
    assert "not a director" in (make(node="web-1").available(FakeLab()) or "")
    assert "lb-1, lb-2" in (make(node="lb-9").available(FakeLab()) or "")


def test_a_fault_of_both_directors_needs_both() -> None:
    lab = FakeLab()
    lab.node("lb-2").power_off()
    with pytest.raises(LabError, match="lb-2 is off"), FAULTS["cluster.both-directors"]().inject(lab):
        pytest.fail("it counted as injected")
    assert lab.node("lb-1").power() is Power.RUNNING
    assert lab.leases() == []


def test_another_key_keeps_the_methods() -> None:
    assert another_key("auth 1\n1 sha1 secret\n") == "auth 1\n1 sha1 monkeywrench\n"
    with pytest.raises(LabError, match="no sha1 or md5 key"):
        another_key("auth 1\n1 crc\n")


def test_drift_changes_all_lines_of_one_setting() -> None:
    assert drifted("ha.cf", HA_CF, "deadtime", "9s") == (HA_CF.replace("3000ms", "9s"), "3000ms")
    directors = "virtual=192.0.2.1:80\n\tscheduler=wlc\nvirtual=192.0.2.2:80\n\tscheduler=wlc\n"
    assert drifted("ldirectord.cf", directors, "scheduler", "rr") == (directors.replace("wlc", "rr"), "wlc")
    resources = "lb-1 IPaddr2::a\nlb-2 IPaddr2::b\n"
    assert drifted("haresources", resources, "lb-2", "IPaddr2::c") == (resources.replace("b\n", "c\n"), "IPaddr2::b")


def test_a_missing_or_unchanged_setting_is_refused() -> None:
    with pytest.raises(LabError, match="does not set warntime"):
        drifted("ha.cf", HA_CF, "warntime", "1s")
    with pytest.raises(LabError, match=r"is already 3000ms in ha\.cf"):
        drifted("ha.cf", HA_CF, "deadtime", "3000ms")


TABLE = """IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  203.0.113.101:80 wlc
  -> 198.18.1.101:80              Masq    1      0          4
  -> 198.18.1.102:80              Masq    0      3          0
"""


def test_the_rows_of_a_real_server() -> None:
    lab = FakeLab()
    directors = [lab.node("lb-1"), lab.node("lb-2")]
    for director in directors:
        director.prints["ipvsadm"] = TABLE
    assert rows(directors, ["198.18.1.102", "198.18.2.102"]) == [(0, 3), (0, 3)]


def test_maintenance_needs_a_folder() -> None:
    reason = FAULTS["cluster.rolling-maintenance"]().available(FakeLab())
    assert reason == "ldirectord.cf of lb-1 sets no maintenancedir"
    assert "web-9" in (FAULTS["cluster.rolling-maintenance"](nodes=("web-9",)).available(FakeLab()) or "")


def test_a_cluster_is_settled_when_no_node_has_a_stale_arp_entry() -> None:
    lab = FakeLab()
    with Settle().inject(lab) as proof:
        assert "Each VIP is on its home director. No node has a stale ARP entry" in proof.seen
    changes = Settle().changes(lab)
    lab.stale_neighbours = (StaleNeighbour("client", "203.0.113.102", "lb-1"),)
    with pytest.raises(
        NotYet, match=r"client has a stale ARP entry: .* 203\.0\.113\.102 to lb-1, which does not hold it"
    ):
        Settle().changes(lab)[-1].proof()
    lab.stale_neighbours = ()
    lab.node("lb-2").power_off()
    with pytest.raises(NotYet, match=r"203\.0\.113\.102 is held by"):
        changes[-1].proof()
