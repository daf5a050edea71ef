"""Faults of the network: each is seen by a neighbour that knows nothing of it, and is gone afterwards."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from queue import Queue
from typing import Any

import pytest

from faults import FAULTS
from harness.records import LabError, Output, Proof
from harness.wait import NotYet
from tests.support.faulty import eventually, together
from topology.lab.docker_lab import DockerLab

pytestmark = pytest.mark.usefixtures("audited_once")

CABLE, ADDRESS, OTHER = "web-5.eth0", "198.18.1.105", "198.18.1.106"


def ask(lab: DockerLab, *argv: str, node: str = "web-6") -> Output:
    """What a neighbour sees."""
    return lab.node(node).exec(*argv, timeout_s=40)


def ping(lab: DockerLab, *options: str, node: str = "web-6", address: str = ADDRESS) -> Output:
    return ask(lab, "ping", "-n", "-W", "1", *options, address, node=node)


def reached(lab: DockerLab, node: str = "web-6", address: str = ADDRESS) -> bool:
    return ping(lab, "-c", "1", node=node, address=address).ok


def well(lab: DockerLab, node: str = "web-6", address: str = ADDRESS) -> bool:
    """True as soon as an address answers; the machines are short of CPU time now and then."""
    return eventually(lambda: reached(lab, node, address), f"{address} to answer {node}")


def lost(said: Output) -> int:
    """Percent, as ping(8) says."""
    found = re.search(r"([\d.]+)% packet loss", said.stdout)
    assert found
    return round(float(found[1]))


def times_ms(said: Output) -> list[float]:
    return [float(each) for each in re.findall(r"time=([\d.]+)", said.stdout)]


def least_ms(said: Output) -> float:
    return min(times_ms(said), default=0)


def pinged_ms(lab: DockerLab) -> float:
    """The least of three round trips: a busy machine is late with some on its own, and rarely with all."""
    return least_ms(ping(lab, "-c", "3", "-i", "0.1"))


def order(said: Output) -> list[int]:
    return [int(each) for each in re.findall(r"icmp_seq=(\d+)", said.stdout)]


def claims(lab: DockerLab) -> int:
    """How many machines answer for an address."""
    said = ask(lab, "arping", "-c", "3", "-I", "eth0", ADDRESS).stdout
    return len(set(re.findall(r"\[([0-9A-F:]{17})\]", said)))


@dataclass(frozen=True)
class Target:
    """A real server whose cable has the fault, and a neighbour that has none and looks at it."""

    lab: DockerLab
    node: str
    address: str
    neighbour: str

    @property
    def cable(self) -> str:
        return f"{self.node}.eth0"

    def ping(self, *options: str) -> Output:
        return ping(self.lab, *options, node=self.neighbour, address=self.address)

    def reached(self) -> bool:
        return reached(self.lab, self.neighbour, self.address)

    def well(self) -> bool:
        return well(self.lab, self.neighbour, self.address)

    def connection(self) -> Output:
        """A connection to its web server."""
        script = f"< /dev/tcp/{self.address}/80"
        return ask(self.lab, "timeout", "2", "bash", "-c", script, node=self.neighbour)

    def pinged_ms(self) -> float:
        return least_ms(self.ping("-c", "3", "-i", "0.1"))

    def announced(self) -> bool:
        """True when an announcement of its address reaches its segment."""
        lines = iter(watch := self.lab.switch.stream("python3", "/usr/lib/monkeywrench/arpwatch.py", "br-lan"))
        next(lines)
        ask(self.lab, "arping", "-U", "-c", "2", "-I", "eth0", self.address, node=self.node)
        alive = 0
        for line in lines:
            seen = json.loads(line.text)
            if seen.get("gratuitous") and seen["ip"] == self.address:
                watch.stop()
                return True
            alive += "alive" in seen
            if alive == 3:
                watch.stop()
        return False


SHOWN: dict[str, tuple[str, dict[str, Any], Callable[[Target], bool]]] = {
    "a cut": ("cut", {}, lambda at: not at.reached()),
    "a cut of one port, towards the node": (
        "cut",
        {"direction": "to", "protocol": "tcp", "port": 80},
        lambda at: not at.connection().ok and at.well(),
    ),
    "a link that is down": ("unplugged", {}, lambda at: not at.reached()),
    "loss": ("loss", {"percent": 50}, lambda at: 0 < lost(at.ping("-c", "60", "-i", "0.02")) < 100),
    "a small MTU": (
        "mtu",
        {"mtu": 1000},
        lambda at: at.well() and not at.ping("-c", "1", "-M", "do", "-s", "1400").ok,
    ),
    "a firewall": (
        "reject",
        {"protocol": "tcp", "port": 80},
        lambda at: "Connection refused" in at.connection().stderr,
    ),
    "a flapping cable": (
        "flapping",
        {"up_ms": 500, "down_ms": 500},
        lambda at: 10 < lost(at.ping("-c", "40", "-i", "0.05")) < 90,
    ),
    "lost announcements": ("lost-announcements", {}, lambda at: not at.announced()),
    "delay": ("delay", {"delay_ms": 60}, lambda at: at.pinged_ms() >= 100),
    "delay of one direction of UDP": (
        "delay",
        {"delay_ms": 60, "direction": "from", "protocol": "udp"},
        lambda at: at.pinged_ms() < 50,
    ),
    "jitter": (
        "jitter",
        {"jitter_ms": 40},
        lambda at: statistics.pstdev(times_ms(at.ping("-c", "20", "-i", "0.02"))) > 10,
    ),
    "duplicates": ("duplicate", {"percent": 30}, lambda at: "DUP!" in at.ping("-c", "30", "-i", "0.02").stdout),
    "another order": (
        "reorder",
        {"percent": 30},
        lambda at: order(answers := at.ping("-c", "40", "-i", "0.01")) != sorted(order(answers)),
    ),
    "bit errors": (
        "corrupt",
        {"percent": 50},
        # with a deadline: a bit error in the time that ping(8) sends along is a round trip of years, which it waits for
        lambda at: lost(at.ping("-c", "40", "-i", "0.02", "-w", "5")) > 5,
    ),
    "a slow cable": (
        "rate",
        {"kbit": 256},
        lambda at: least_ms(at.ping("-c", "3", "-i", "0.3", "-s", "1372")) > 60,
    ),
}

TARGETS = ("web-2", "web-3", "web-4", "web-5", "web-6")
NEIGHBOURS = ("web-1", "db")


@contextmanager
def inside(lab: DockerLab, name: str, **settings: Any) -> Iterator[Proof]:
    """A fault for as long as the block runs."""
    made = FAULTS[name](**settings)
    assert made.available(lab) is None
    with made.inject(lab) as proof:
        assert proof.seen
        assert name in {lease.fault for lease in lab.leases()}
        yield proof
    assert lab.leases() == []


def test_a_neighbour_sees_each_fault_and_sees_that_it_is_gone(lab: DockerLab) -> None:
    """Each real server has one fault at a time; those of the others must not be seen on its cable."""
    free: Queue[Target] = Queue()
    for number, node in enumerate(TARGETS):
        free.put(Target(lab, node, lab.topology.machine(node).addresses["lan"][0].compressed, NEIGHBOURS[number % 2]))

    def seen_and_gone(case: str) -> None:
        name, settings, shows = SHOWN[case]
        at = free.get()
        try:
            with FAULTS[f"network.{name}"](cable=at.cable, **settings).inject(lab) as proof:
                assert at.cable in proof.seen
                assert f"network.{name}" in {lease.fault for lease in lab.leases()}
                assert eventually(lambda: shows(at), "the effect")
            assert at.well()
            assert eventually(lambda: at.connection().ok, "its web server to answer")
            if case != "delay of one direction of UDP":  # what is seen there is that nothing else is delayed
                assert eventually(lambda: not shows(at), "the effect to be gone")
        finally:
            free.put(at)

    together(SHOWN, seen_and_gone)
    assert lab.leases() == []


def test_a_partition_cuts_both_ways_and_nothing_else(lab: DockerLab) -> None:
    with inside(lab, "network.partition", one=["web-5"], other=["web-6", "web-4"]):
        assert not reached(lab)
        assert not reached(lab, "web-5", OTHER)
        assert well(lab, "web-3")
    assert well(lab)


def test_a_one_way_partition_lets_the_other_way_pass(lab: DockerLab) -> None:
    with FAULTS["network.partition"](one=["web-5"], other=["web-6"], mode="one-way").inject(lab) as proof:
        assert "there" in proof.seen
        assert "back" not in proof.seen
        before = icmp_in(lab)
        assert not reached(lab)
        assert eventually(lambda: icmp_in(lab) > before, "the question")  # it came, the answer did not
    assert well(lab)


def icmp_in(lab: DockerLab) -> int:
    """Echo requests that web-5 has got."""
    names, numbers = (
        line.split() for line in ask(lab, "grep", "Icmp:", "/proc/net/snmp", node="web-5").stdout.splitlines()
    )
    return int(numbers[names.index("InEchos")])


def test_a_bridge_still_reaches_both_sides(lab: DockerLab) -> None:
    sides = {"one": ["web-3", "web-5"], "other": ["web-4", "web-5", "web-6"]}
    with FAULTS["network.partition"](**sides, mode="bridge", through="web-5").inject(lab):
        assert not reached(lab, "web-6", "198.18.1.103")
        assert well(lab, "web-6")
        assert well(lab, "web-3")
    assert well(lab, "web-6", "198.18.1.103")


def test_two_machines_claim_one_address(lab: DockerLab) -> None:
    assert eventually(lambda: claims(lab) == 1, "one machine to answer")
    with inside(lab, "network.duplicate-address", cable="web-4.eth0", address=ADDRESS):
        assert eventually(lambda: claims(lab) == 2, "both machines to answer")
    assert eventually(lambda: claims(lab) == 1, "one machine to answer")
    assert well(lab)


@pytest.mark.parametrize("fault", ["stale-neighbour", "poisoned-arp"])
def test_a_wrong_neighbour_is_never_reached(lab: DockerLab, fault: str) -> None:
    with inside(lab, f"network.{fault}", cable="web-6.eth0", address=ADDRESS):
        assert not reached(lab)
        assert well(lab, "web-4")
    assert well(lab)


@pytest.mark.parametrize("first_out", [0, 1])
def test_two_cuts_of_one_cable_are_healed_in_either_order(lab: DockerLab, first_out: int) -> None:
    with ExitStack() as one, ExitStack() as other:
        for stack in (one, other):
            proof = stack.enter_context(FAULTS["network.cut"](cable=CABLE).inject(lab))
            assert "dropped" in proof.seen  # the second one counts what the first one drops too
        (one, other)[first_out].close()
        assert not reached(lab)
    assert well(lab)
    assert lab.leases() == []


def test_a_cable_is_unplugged_once(lab: DockerLab) -> None:
    unplugged = FAULTS["network.unplugged"]
    with unplugged(cable="client.eth0").inject(lab):
        carrier = lab.node("client").exec("cat", "/sys/class/net/eth0/carrier")
        assert carrier.stdout.strip() == "0"  # the host's kernel sees it
        with pytest.raises(LabError, match="does not reach"), unplugged(cable="client.eth0").inject(lab):
            pytest.fail("it was taken for injected")
    assert well(lab, "client", "203.0.113.53")


def test_what_shapes_and_what_loses_compose(lab: DockerLab) -> None:
    with ExitStack() as stack:
        stack.enter_context(FAULTS["network.loss"](cable=CABLE, percent=30).inject(lab))
        stack.enter_context(FAULTS["network.duplicate"](cable=CABLE, percent=40).inject(lab))
        with FAULTS["network.delay"](cable=CABLE, delay_ms=40).inject(lab):
            assert eventually(lambda: suffers(lab, delayed=True), "all three effects")
        assert eventually(lambda: suffers(lab, delayed=False), "all but the delay")


def suffers(lab: DockerLab, delayed: bool) -> bool:
    """True when a neighbour sees loss, duplicates, and the delay or none."""
    said = ping(lab, "-c", "40", "-i", "0.02")
    if lost(said) <= 5 or "DUP!" not in said.stdout or (least_ms(said) >= 60) != delayed:
        raise NotYet(said.stdout[-300:])
    return True


def test_the_same_kind_of_the_same_frames_is_refused_and_of_others_composes(lab: DockerLab) -> None:
    def delay(**settings: Any) -> AbstractContextManager[Proof]:
        return FAULTS["network.delay"](cable=CABLE, delay_ms=60, direction="from", **settings).inject(lab)

    with delay():
        with (
            pytest.raises(
                LabError, match=r"delay from web-5\.eth0 \(any\) is taken by network\.delay, which is still active"
            ),
            delay(),
        ):
            pytest.fail("it was taken for injected")
        with delay(protocol="icmp"):
            assert eventually(lambda: pinged_ms(lab) >= 100, "both delays")
        assert eventually(lambda: 50 <= pinged_ms(lab) < 100, "one delay")
    assert well(lab)


def test_shaping_is_there_again_after_a_reboot_of_the_node(lab: DockerLab) -> None:
    with inside(lab, "network.delay", cable=CABLE, delay_ms=60):
        lab.node("web-5").power_off()
        lab.node("web-5").boot()
        assert eventually(lambda: pinged_ms(lab) >= 100, "the delay")


def test_the_cable_of_the_client_which_is_on_the_hosts_kernel_can_be_cut(lab: DockerLab) -> None:
    with inside(lab, "network.cut", cable="client.eth0", direction="from"):
        assert not reached(lab, "client", "203.0.113.53")
    assert well(lab, "client", "203.0.113.53")


def test_what_nobody_would_notice_is_no_fault(lab: DockerLab) -> None:
    nobody = "198.18.1.250"

    def refused(name: str) -> None:
        fault = FAULTS[f"network.{name}"](cable="web-6.eth0", address=nobody)
        with pytest.raises(LabError, match=r"no node on the segment|does not reach"), fault.inject(lab):
            pytest.fail("it was taken for injected")

    together(("duplicate-address", "stale-neighbour", "poisoned-arp"), refused)
