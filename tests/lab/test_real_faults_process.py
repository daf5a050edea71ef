"""Faults of services' processes: each is injected, seen by another node, and undone exactly."""

from __future__ import annotations

import pytest

from faults.dns import ask as ask_resolver
from faults.process import Hang, Kill, Stop
from faults.real_server import addresses, ask
from harness.records import LabError
from harness.wait import NotYet, until
from tests.support.faulty import AS_BEFORE_S, eventually, injected, settled
from topology.lab.docker_lab import DockerLab

WEB, COLLECTOR = "web-3", "web-2"
TAKEOVER_S = 180

pytestmark = pytest.mark.usefixtures("audited")


def site(lab: DockerLab) -> str:
    """How a request to WEB ends for another real server: ``closed`` when it was answered."""
    return ask(lab.node(COLLECTOR), addresses(lab, WEB))[addresses(lab, WEB)[0]].end


def daemon(lab: DockerLab, node: str, service: str) -> int:
    """The process that its supervisor knows."""
    return int(lab.node(node).exec("cat", f"/run/service/{service}/supervise/pid").stdout or 0)


@pytest.mark.parametrize(
    ("node", "service"),
    [(WEB, "apache"), (WEB, "gmond"), ("web-2", "rsyncd"), ("web-1", "replicate"), ("db", "mariadb")],
)
def test_a_service_that_was_killed_is_started_again(lab: DockerLab, node: str, service: str) -> None:
    before = daemon(lab, node, service)
    with injected(lab, "process.kill", node=node, service=service) as proof:
        assert f"{service} of {node} was killed: {before}" in proof.seen
    assert eventually(lambda: daemon(lab, node, service) not in {0, before}, "another process")


def test_a_service_can_be_kept_from_starting_again(lab: DockerLab) -> None:
    with injected(lab, "process.kill", node=WEB, service="apache", restart=False):
        assert eventually(lambda: site(lab) == "refused", "requests to be refused")
    assert eventually(lambda: site(lab) == "closed", "requests to be answered")


@pytest.mark.parametrize("fault", ["process.stop", "process.hang"])
def test_a_service_that_stands_still_accepts_and_is_silent(lab: DockerLab, fault: str) -> None:
    before = daemon(lab, WEB, "apache")
    with injected(lab, fault, node=WEB, service="apache") as proof:
        assert site(lab) == "silent"
        assert str(before) in proof.seen
    assert eventually(lambda: site(lab) == "closed", "requests to be answered")
    assert daemon(lab, WEB, "apache") == before  # it goes on, it does not start again


def test_what_hangs_takes_no_signal(lab: DockerLab) -> None:
    with injected(lab, "process.hang", node=WEB, service="gmond"):
        pid = daemon(lab, WEB, "gmond")
        lab.node(WEB).exec("kill", "-CONT", str(pid))
        lab.node(WEB).exec("kill", "-KILL", str(pid))
        assert lab.node(WEB).exec("ps", "-o", "state=", "-p", str(pid)).stdout.strip() == "D"
    assert eventually(lambda: daemon(lab, WEB, "gmond") not in {0, pid}, "the signal to end it")


@pytest.mark.parametrize(
    ("node", "service", "gone"),
    [
        (WEB, "apache", "! pgrep -x apache2"),
        (WEB, "uploads-mount", "! mountpoint -q /srv/uploads"),
    ],
)
def test_a_service_that_is_down_does_nothing(lab: DockerLab, node: str, service: str, gone: str) -> None:
    with injected(lab, "process.down", node=node, service=service):
        assert lab.node(node).exec("sh", "-c", gone).ok
    assert eventually(lambda: not lab.node(node).exec("sh", "-c", gone).ok, f"{service} to be back")


def test_a_restart_loop_lets_nothing_live_for_long(lab: DockerLab) -> None:
    with injected(lab, "process.restart-loop", node="resolver", service="resolver", every_ms=1000):
        pids = set[int]()

        def third() -> bool:
            pids.add(daemon(lab, "resolver", "resolver"))
            return len(pids - {0}) >= 3

        until(third, 120, "a third resolver")
    assert eventually(lambda: ask_resolver(lab, patience_s=2)[0].addresses, "the resolver to answer")
    left = daemon(lab, "resolver", "resolver")
    assert ask_resolver(lab, patience_s=20)[0].addresses
    assert daemon(lab, "resolver", "resolver") == left


def test_a_heartbeat_that_is_killed_keeps_its_address_while_the_peer_takes_it(lab: DockerLab) -> None:
    vip = next(vip for vip, home in lab.cluster.vips.items() if home == "lb-1")

    def taken_over() -> bool:
        owners = set(lab.owners()[vip])
        if "lb-1" not in owners:
            raise LabError(f"lb-1 has let go of {vip}, which nobody told it to")
        if owners != {"lb-1", "lb-2"}:
            raise NotYet(f"{vip} is held by {owners}")
        return lab.node("lb-2").exec("sh", "-c", "tail -n +$0 /var/log/ha-log | grep -q 'takeover complete'", begin).ok

    lines = lab.node("lb-2").exec("sh", "-c", "wc -l < /var/log/ha-log").stdout
    begin = str(int(lines) + 1)
    with injected(lab, "process.kill", node="lb-1", service="heartbeat", restart=False):
        # a director that comes back in the middle of its peer's takeover may leave both with its address for ever
        until(taken_over, TAKEOVER_S, "lb-2 to have taken over", 0.5)
    settled(lab, AS_BEFORE_S)
    assert lab.owners()[vip] == ("lb-1",)


def test_one_service_has_one_fault_and_two_services_two(lab: DockerLab) -> None:
    with Hang(node=WEB, service="apache").inject(lab), Hang(node=WEB, service="gmond").inject(lab):
        with (
            pytest.raises(LabError, match=r"service apache is taken by process\.hang"),
            Kill(node=WEB, service="apache").inject(lab),
        ):
            pytest.fail("it was killed")
        assert site(lab) == "silent"


def test_what_is_stopped_is_stopped_again_after_a_reboot(lab: DockerLab) -> None:
    with Stop(node=WEB, service="rsyncd").inject(lab):
        lab.node(WEB).power_off()
        lab.node(WEB).boot()

        def stopped() -> bool:
            return "is stopped" in lab.node(WEB).exec("/usr/lib/monkeywrench/audit", "0", timeout_s=60).stdout

        eventually(stopped, "rsyncd to be stopped again")
