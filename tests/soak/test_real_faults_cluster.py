"""Faults of the cluster as a whole, on real directors."""

from __future__ import annotations

import re

import pytest

from faults import FAULTS
from faults.cluster.rolling import rows
from harness.records import LabError
from harness.wait import NotYet, until
from tests.support.faulty import AS_BEFORE_S, injected, settled
from tests.support.site import VIPS
from topology.lab.docker_lab import DockerLab

LINK_S = 30

pytestmark = pytest.mark.usefixtures("audited")


def macs(lab: DockerLab, vip: str) -> set[str]:
    """The MAC addresses that answer the client's ARP requests for a VIP."""
    asked = lab.node("client").exec("arping", "-c", "3", "-w", "3", "-I", "eth0", "-b", vip).stdout
    return set(re.findall(r"\[([0-9A-Fa-f:]{17})\]", asked))


@pytest.mark.parametrize(("path", "interface"), [("heartbeat", "eth2"), ("lan", "eth1")])
def test_nothing_happens_when_one_of_two_paths_is_cut(lab: DockerLab, path: str, interface: str) -> None:
    def link(state: str) -> bool:
        for node, peer in (("lb-1", "lb-2"), ("lb-2", "lb-1")):
            said = lab.node(node).exec("cl_status", "hblinkstatus", peer, interface).stdout.strip()
            if said != state:
                raise NotYet(f"{node} calls {interface} of {peer} {said}")
        return True

    before = lab.owners()
    with injected(lab, "cluster.one-path-cut", path=path):
        until(lambda: link("dead"), LINK_S, "both directors to miss the link", 0.5)
        assert lab.owners() == before
        if path == "heartbeat":  # all else that goes by that cable still does
            assert lab.node("lb-1").exec("ping", "-c", "1", "-W", "5", "198.18.2.12").ok
    until(lambda: link("up"), LINK_S, "both directors to see the link", 0.5)


def test_a_path_that_heartbeat_does_not_use_is_refused(lab: DockerLab) -> None:
    assert "unknown segment 'wan'" in (FAULTS["cluster.one-path-cut"](path="wan").available(lab) or "")
    with (
        pytest.raises(LabError, match="no path on internet"),
        FAULTS["cluster.one-path-cut"](path="internet").inject(lab),
    ):
        pytest.fail("it was taken for injected")
    assert "not a director" in (FAULTS["cluster.authkeys-changed"](node="web-1").available(lab) or "")


def test_directors_that_cannot_hear_each_other_both_serve_everything(lab: DockerLab) -> None:
    with injected(lab, "cluster.split-brain", settle=True) as proof:
        assert "consider each other dead" in proof.seen
        assert {len(macs(lab, vip)) for vip in VIPS} == {2}
        assert lab.node("lb-1").exec("ping", "-c", "1", "-W", "5", "198.18.1.12").ok
    settled(lab, AS_BEFORE_S)
    assert {len(macs(lab, vip)) for vip in VIPS} == {1}


def test_a_key_that_only_one_director_has_splits_them(lab: DockerLab) -> None:
    authkeys = ("sh", "-c", "stat -c %a /etc/ha.d/authkeys; cat /etc/ha.d/authkeys")
    before = lab.node("lb-2").exec(*authkeys).stdout
    with injected(lab, "cluster.authkeys-changed", node="lb-2", settle=True):
        assert lab.node("lb-1").exec("sh", "-c", "tail -n 40 /var/log/ha-log | grep -qa 'authentication failed'").ok
        assert {len(macs(lab, vip)) for vip in VIPS} == {2}
    assert lab.node("lb-2").exec(*authkeys).stdout == before


DRIFTS = [
    {"file": "ldirectord.cf", "setting": "checkinterval", "value": "7"},
    {"file": "ha.cf", "setting": "deadtime", "value": "9s"},
    {"file": "haresources", "setting": "lb-1", "value": "IPaddr2::203.0.113.101/24/eth0"},
]


@pytest.mark.parametrize("drift", DRIFTS, ids=lambda drift: str(drift["file"]))
def test_a_setting_is_changed_on_one_director_only(lab: DockerLab, drift: dict[str, str]) -> None:
    def line(node: str) -> bool:
        return lab.node(node).exec("grep", "-q", drift["value"] + "$", f"/etc/ha.d/{drift['file']}").ok

    with injected(lab, "cluster.configuration-drift", node="lb-2", **drift):
        assert line("lb-2")
        other = lab.node("lb-1").exec("cat", f"/etc/ha.d/{drift['file']}").stdout
        assert other != lab.node("lb-2").exec("cat", f"/etc/ha.d/{drift['file']}").stdout
        with (
            pytest.raises(LabError, match=r"is taken by cluster\.configuration-drift"),
            FAULTS["cluster.configuration-drift"](node="lb-2", **{**drift, "value": "11"}).inject(lab),
        ):
            pytest.fail("it was taken for injected")
    assert lab.node("lb-2").exec("cat", f"/etc/ha.d/{drift['file']}").stdout == other


def test_heartbeat_runs_with_the_setting_when_it_is_restarted(lab: DockerLab) -> None:
    def deadtime(node: str) -> str:
        return lab.node(node).exec("cl_status", "hbparameter", "-p", "deadtime").stdout.strip()

    usual = deadtime("lb-2")
    with injected(
        lab, "cluster.configuration-drift", node="lb-2", file="ha.cf", setting="deadtime", value="4000ms", restart=True
    ):
        until(lambda: deadtime("lb-2") == "4000ms", 30, "heartbeat to answer", 0.5)
        assert deadtime("lb-1") == usual
        lab.wait_healthy()  # before it is restarted again
    settled(lab, AS_BEFORE_S)
    assert deadtime("lb-2") == usual


def test_ldirectord_runs_with_the_setting_when_it_is_restarted(lab: DockerLab) -> None:
    with injected(lab, "cluster.configuration-drift", node="lb-2", restart=True) as proof:
        assert "has started with it" in proof.seen


def test_nobody_serves_without_directors(lab: DockerLab) -> None:
    get = ("curl", "-s", "--max-time", "2", "-o", "/dev/null", f"http://{VIPS[1]}/alive")
    with injected(lab, "cluster.both-directors"):
        assert not lab.node("client").exec(*get).ok
    settled(lab, AS_BEFORE_S)
    assert lab.node("client").exec(*get).ok


def test_a_director_that_returns_in_the_middle_of_its_takeover_doubles_its_address(lab: DockerLab) -> None:
    with injected(lab, "cluster.failback-during-recovery", node="lb-2") as proof:
        assert "both hold" in proof.seen
        log = lab.node("lb-1").exec("sh", "-c", "tail -n 400 /var/log/ha-log | grep -a 'lb-2: is dead'").stdout
        assert "is dead" in log
    settled(lab, AS_BEFORE_S)
    assert {len(macs(lab, vip)) for vip in VIPS} == {1}


def boots(lab: DockerLab) -> dict[str, str]:
    return {
        node.name: node.exec("cat", "/proc/sys/kernel/random/boot_id").stdout
        for node in lab.nodes()
        if node.role == "director"
    }


def test_directors_are_rebooted_one_after_another(lab: DockerLab) -> None:
    booted = boots(lab)
    with FAULTS["cluster.rolling-restart"]().inject(lab) as proof:
        assert [step["node"] for step in proof.detail["steps"]] == ["lb-1", "lb-2"]
        assert lab.leases() == []
        assert not set(boots(lab).values()) & set(booted.values())


def test_real_servers_are_drained_and_restarted_one_after_another(lab: DockerLab) -> None:
    nodes = ("web-5", "web-6")
    started = {name: lab.node(name).exec("cat", "/run/service/apache/supervise/pid").stdout for name in nodes}
    statuses = lab.node("client").stream("sh", "-c", LOAD)
    try:
        with FAULTS["cluster.rolling-maintenance"](nodes=nodes, drain_s=20).inject(lab) as proof:
            pass
    finally:
        statuses.stop()
    assert [step["node"] for step in proof.detail["steps"]] == list(nodes)
    assert all("weight 0 on both directors" in step["seen"] for step in proof.detail["steps"])
    for name in nodes:
        assert lab.node(name).exec("cat", "/run/service/apache/supervise/pid").stdout != started[name]
    codes = [line.text for line in statuses]
    assert codes.count("200") == len(codes) > 5  # no client has noticed


LOAD = f"while :; do curl -s --max-time 5 -o /dev/null -w '%{{http_code}}\\n' http://{VIPS[0]}/alive; sleep 0.2; done"


def test_a_real_server_in_maintenance_has_weight_0_and_comes_back_when_the_work_is_broken_off(lab: DockerLab) -> None:
    """The work cannot go on, because Apache is somebody else's: nothing of it is left."""
    lease = lab.node("web-6").lease("test", "service apache", ())
    try:
        with (
            pytest.raises(LabError, match="service apache is taken by test"),
            FAULTS["cluster.rolling-maintenance"](nodes=("web-6",)).inject(lab),
        ):
            pytest.fail("it was taken for injected")
    finally:
        lease.release()
    settled(lab, AS_BEFORE_S)
    assert rows([lab.node("lb-1")], ["198.18.1.106"])[0][0] == 1
