"""Faults of whole machines, on real machines."""

from __future__ import annotations

import re

import pytest

from faults import FAULTS
from harness.audit import differences
from harness.records import LabError, Power
from harness.wait import NotYet
from tests.support.faulty import eventually, injected
from topology.lab.docker_lab import DockerLab

pytestmark = pytest.mark.usefixtures("audited")

OWNERS_S = 180


@pytest.mark.parametrize("fault", ["node.power-off", "node.freeze", "node.panic", "node.shutdown"])
def test_a_machine_that_is_down_answers_nobody(lab: DockerLab, fault: str) -> None:
    with injected(lab, fault, node="web-5"):
        assert not lab.node("lb-1").exec("ping", "-c", "1", "-W", "1", "198.18.1.105").ok
    assert eventually(lambda: lab.node("lb-1").exec("ping", "-c", "1", "-W", "5", "198.18.1.105").ok, "an answer")


def test_a_reboot_is_another_boot_and_all_services_are_back(lab: DockerLab) -> None:
    with injected(lab, "node.reboot", node="web-5") as proof:
        assert "rebooted" in proof.seen
        up_s = float(lab.node("web-5").exec("cut", "-d", " ", "-f", "1", "/proc/uptime").stdout)
        assert up_s < (lab.now_ns() - proof.time_ns) / 1e9


def test_a_slow_machine_takes_longer(lab: DockerLab) -> None:
    with injected(lab, "node.slow", node="web-5", share=0.1) as proof:
        assert "takes" in proof.seen


def test_a_clock_that_jumped_is_seen_by_the_next_audit(lab: DockerLab) -> None:
    before = lab.audit()["web-5"]
    with injected(lab, "node.clock-jump", node="web-5", by_s=-7200):
        now = lab.audit()["web-5"]
        assert any("clock: off by -7" in line for line in differences({"web-5": before}, {"web-5": now}))


def test_a_clock_that_drifts_is_put_right(lab: DockerLab) -> None:
    with injected(lab, "node.clock-drift", node="web-5", ppm=-100_000) as proof:
        assert "has drifted by -" in proof.seen


def test_a_kernel_without_memory_kills_and_the_services_come_back(lab: DockerLab) -> None:
    with injected(lab, "node.out-of-memory", node="web-5") as proof:
        assert "has killed" in proof.seen


def test_a_host_name_changes_and_is_the_old_one_again(lab: DockerLab) -> None:
    with injected(lab, "node.host-name", node="web-5", to="web-6"):
        assert lab.node("web-5").exec("uname", "-n").stdout == "web-6\n"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("node.disk-full", "No space left"),
        ("node.disk-read-only", "Read-only"),
        ("node.disk-errors", "Input/output error|Read-only"),
    ],
)
def test_a_disk_that_fails_fails_its_users(lab: DockerLab, fault: str, error: str) -> None:
    """web-1's disk holds the uploads, which all real servers have mounted.

    A disk of errors is read-only from the moment at which the kernel could not write its journal (ext4(5), errors).
    """
    with injected(lab, fault, node="web-1"):
        tried = lab.node("web-1").exec(
            "dd", "if=/dev/zero", "of=/srv/uploads/tried", "bs=1M", "count=8", "conv=fsync", timeout_s=60
        )
        assert re.search(error, tried.stderr), tried.stderr
        lab.node("web-1").exec("rm", "-f", "/srv/uploads/tried")

    def writes() -> bool:
        write = "echo good > /srv/uploads/tried && sync && rm /srv/uploads/tried"
        done = lab.node("web-1").exec("sh", "-c", write, timeout_s=60)
        if not done.ok:
            raise NotYet(done.stderr)
        return True

    assert eventually(writes, "a write to succeed")


def test_a_slow_disk_makes_a_commit_slow(lab: DockerLab) -> None:
    """The database's log is flushed at each commit."""
    commit = "create or replace table site.tried (x int); insert into site.tried values (1)"

    def took_ms() -> int:
        began_ns = lab.now_ns()
        assert lab.node("db").exec("mariadb", "-e", commit, timeout_s=60).ok
        return (lab.now_ns() - began_ns) // 1_000_000

    with injected(lab, "node.disk-slow", node="db", delay_ms=500):
        assert took_ms() > 500
    lab.node("db").exec("mariadb", "-e", "drop table site.tried", timeout_s=60)


def test_a_director_without_power_loses_its_address_to_its_peer(lab: DockerLab) -> None:
    peer = lab.node("lb-2")
    begin = str(int(peer.exec("sh", "-c", "wc -l < /var/log/ha-log").stdout) + 1)
    with injected(lab, "node.power-off", node="lb-1"):

        def taken() -> bool:
            if set((owners := lab.owners()).values()) != {("lb-2",)}:
                raise NotYet(str(owners))
            return "takeover complete" in peer.exec("tail", "-n", f"+{begin}", "/var/log/ha-log").stdout

        eventually(taken, "lb-2 to take over", OWNERS_S)


def test_a_second_fault_of_the_same_thing_is_refused_and_changes_nothing(lab: DockerLab) -> None:
    with injected(lab, "node.clock-jump", node="web-5", by_s=-3600):
        with (
            pytest.raises(LabError, match=r"clock is taken by node\.clock-jump, which is still active"),
            FAULTS["node.clock-drift"](node="web-5").inject(lab),
        ):
            pytest.fail("it was taken for injected")
        assert len(lab.leases()) == 1


def test_a_target_that_reboots_in_the_middle_keeps_its_fault_and_is_healed(lab: DockerLab) -> None:
    with injected(lab, "node.host-name", node="web-5", to="web-6"):
        node = lab.node("web-5")
        node.power_off()
        node.boot()
        # done again after the boot, which others need not wait for
        eventually(lambda: node.exec("hostname").stdout == "web-6\n", "the name to be changed again")
    assert lab.node("web-5").exec("hostname").stdout == "web-5\n"


def test_faults_of_different_things_compose(lab: DockerLab) -> None:
    with injected(lab, "node.host-name", node="web-5", to="web-6"):
        with FAULTS["node.clock-jump"](node="web-5").inject(lab), FAULTS["node.slow"](node="web-5").inject(lab):
            assert len(lab.leases()) == 3
        assert lab.node("web-5").exec("hostname").stdout == "web-6\n"


def test_a_machine_that_is_off_cannot_be_slowed_down(lab: DockerLab) -> None:
    with injected(lab, "node.power-off", node="web-5"):
        with pytest.raises(LabError, match="web-5 is off"), FAULTS["node.slow"](node="web-5").inject(lab):
            pytest.fail("it was taken for injected")
        assert lab.node("web-5").power() is Power.OFF


def test_a_node_without_a_disk_of_its_own_has_no_faults_of_disks(lab: DockerLab) -> None:
    assert "web-5 has no disk of its own in this lab" in (FAULTS["node.disk-full"](node="web-5").available(lab) or "")
