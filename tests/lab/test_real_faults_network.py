"""Faults of the network: each is seen by a neighbour that knows nothing of it, and is gone afterwards."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import pytest

from faults import FAULTS
from harness.records import LabError, Output, Proof
from harness.wait import NotYet
from tests.support.faulty import as_before, eventually
from topology.lab.docker_lab import DockerLab

CABLE, ADDRESS, OTHER = "web-5.eth0", "198.18.1.105", "198.18.1.106"


def ask(lab: DockerLab, *argv: str, node: str = "web-6") -> Output:
    """What a neighbour sees."""
    return lab.node(node).exec(*argv, timeout_s=40)


def ping(lab: DockerLab, *options: str, node: str = "web-6", address: str = ADDRESS) -> Output:
    return ask(lab, "ping", "-n", "-W", "1", *options, address, node=node)


def reached(lab: DockerLab, node: str = "web-6", address: str = ADDRESS) -> bool:
    return ping(lab, "-c", "1", node=node, address=address).ok


def well(lab: DockerLab, node: str = "web-6", address: str = ADDRESS) -> bool:
    """True as soon as an address answers; the machines are short of processor now and then."""
    return eventually(lambda: reached(lab, node, address), f"{address} to answer {node}")


def connect(lab: DockerLab) -> str:
    """What comes of a connection to a web server: nothing when it is well."""
    return ask(lab, "timeout", "2", "bash", "-c", f"< /dev/tcp/{ADDRESS}/80").stderr


def connected(lab: DockerLab) -> bool:
    return ask(lab, "timeout", "2", "bash", "-c", f"< /dev/tcp/{ADDRESS}/80").ok


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
    """The least of three round trips: by itself, a busy machine is late with some, and rarely with all."""
    return least_ms(ping(lab, "-c", "3", "-i", "0.1"))


def order(said: Output) -> list[int]:
    return [int(each) for each in re.findall(r"icmp_seq=(\d+)", said.stdout)]


def claims(lab: DockerLab) -> int:
    """How many machines answer for an address."""
    said = ask(lab, "arping", "-c", "3", "-I", "eth0", ADDRESS).stdout
    return len(set(re.findall(r"\[([0-9A-F:]{17})\]", said)))


def announced(lab: DockerLab) -> bool:
    """True when an announcement of web-5 comes to its segment."""
    lines = iter(watch := lab.switch.stream("python3", "/usr/lib/monkeywrench/arpwatch.py", "br-lan"))
    next(lines)
    ask(lab, "arping", "-U", "-c", "2", "-I", "eth0", ADDRESS, node="web-5")
    alive = 0
    for line in lines:
        seen = json.loads(line.text)
        if seen.get("gratuitous") and seen["ip"] == ADDRESS:
            watch.stop()
            return True
        alive += "alive" in seen
        if alive == 3:
            watch.stop()
    return False


SHOWN: dict[str, tuple[str, dict[str, Any], Callable[[DockerLab], bool]]] = {
    "a cut": ("cut", {}, lambda lab: not reached(lab)),
    "a cut of what comes, of one port": (
        "cut",
        {"direction": "to", "protocol": "tcp", "port": 80},
        lambda lab: not connected(lab) and well(lab),
    ),
    "a link that is down": ("unplugged", {}, lambda lab: not reached(lab)),
    "loss": ("loss", {"percent": 50}, lambda lab: 0 < lost(ping(lab, "-c", "60", "-i", "0.02")) < 100),
    "a small MTU": (
        "mtu",
        {"mtu": 1000},
        lambda lab: well(lab) and not ping(lab, "-c", "1", "-M", "do", "-s", "1400").ok,
    ),
    "a firewall": ("reject", {"protocol": "tcp", "port": 80}, lambda lab: "Connection refused" in connect(lab)),
    "a flapping cable": (
        "flapping",
        {"up_ms": 500, "down_ms": 500},
        lambda lab: 10 < lost(ping(lab, "-c", "40", "-i", "0.05")) < 90,
    ),
    "lost announcements": ("lost-announcements", {}, lambda lab: not announced(lab)),
    "delay": ("delay", {"delay_ms": 60}, lambda lab: pinged_ms(lab) >= 100),
    "delay of one direction of UDP": (
        "delay",
        {"delay_ms": 60, "direction": "from", "protocol": "udp"},
        lambda lab: pinged_ms(lab) < 50,
    ),
    "jitter": (
        "jitter",
        {"jitter_ms": 40},
        lambda lab: statistics.pstdev(times_ms(ping(lab, "-c", "20", "-i", "0.02"))) > 10,
    ),
    "duplicates": ("duplicate", {"percent": 30}, lambda lab: "DUP!" in ping(lab, "-c", "30", "-i", "0.02").stdout),
    "another order": (
        "reorder",
        {"percent": 30},
        lambda lab: order(answers := ping(lab, "-c", "40", "-i", "0.01")) != sorted(order(answers)),
    ),
    "bit errors": (
        "corrupt",
        {"percent": 50},
        # with a deadline: a bit error in the time that ping(8) sends along is a round trip of years, which it waits for
        lambda lab: lost(ping(lab, "-c", "40", "-i", "0.02", "-w", "5")) > 5,
    ),
    "a slow cable": (
        "rate",
        {"kbit": 256},
        lambda lab: least_ms(ping(lab, "-c", "3", "-i", "0.3", "-s", "1372")) > 60,
    ),
}


@pytest.fixture(scope="module", autouse=True)
def untouched(lab: DockerLab) -> Iterator[None]:
    """The whole lab is as it was after all these faults, which is asked once: an audit costs seconds."""
    lab.wait_healthy(180)
    before = lab.audit()
    yield
    as_before(lab, before)


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


@pytest.mark.parametrize("case", SHOWN)
def test_a_neighbour_sees_it_and_sees_that_it_is_gone(lab: DockerLab, case: str) -> None:
    name, settings, shows = SHOWN[case]
    with inside(lab, f"network.{name}", cable=CABLE, **settings) as proof:
        assert CABLE in proof.seen
        assert eventually(lambda: shows(lab), "the effect")
    assert well(lab)
    assert eventually(lambda: connected(lab), "its web server to answer")
    if case != "delay of one direction of UDP":  # what is seen there is that nothing else is delayed
        assert eventually(lambda: not shows(lab), "the effect to be gone")


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
                LabError, match=r"delay from web-5\.eth0 \(any\) is taken by network\.delay, which is still in"
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


def test_the_client_has_no_netem_and_says_so_but_its_cable_can_be_cut(lab: DockerLab) -> None:
    reason = FAULTS["network.delay"](cable="client.eth0").available(lab)
    assert reason is not None
    assert "client is on the host's kernel, which has no netem" in reason
    with inside(lab, "network.cut", cable="client.eth0", direction="from"):
        assert not reached(lab, "client", "203.0.113.53")
    assert well(lab, "client", "203.0.113.53")


@pytest.mark.parametrize(
    ("name", "settings", "why"),
    [
        ("cut", {"cable": "web-5.eth7"}, "there is no cable 'web-5.eth7'"),
        ("reject", {"cable": CABLE, "protocol": "arp"}, "ARP cannot be rejected"),
        ("mtu", {"cable": CABLE, "protocol": "arp"}, "no ARP packet is big"),
        ("corrupt", {"cable": CABLE, "protocol": "arp"}, "cannot be proven"),
        ("partition", {"one": ["web-5"], "other": ["client"]}, "share no such segment"),
        ("partition", {"one": ["web-5"], "segments": ["wan"]}, "there is no segment 'wan'"),
        ("partition", {"one": ["web-9"]}, "there is no node 'web-9'"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(
    lab: DockerLab, name: str, settings: dict[str, Any], why: str
) -> None:
    reason = FAULTS[f"network.{name}"](**settings).available(lab)
    assert reason is not None
    assert why in reason


def test_what_nobody_would_notice_is_no_fault(lab: DockerLab) -> None:
    nobody = "198.18.1.250"
    for name in ("duplicate-address", "stale-neighbour", "poisoned-arp"):
        fault = FAULTS[f"network.{name}"](cable="web-6.eth0", address=nobody)
        with pytest.raises(LabError, match=r"nobody on the segment|does not reach"), fault.inject(lab):
            pytest.fail("it was taken for injected")
