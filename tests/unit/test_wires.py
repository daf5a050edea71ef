"""Faults of simulated cables, on the simulator itself, with guests that are no kernels: exact to the frame."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest

from faults import FAULTS
from faults.heartbeat import Interception, _Messages
from faults.network.cables import Partition, partition_rules
from faults.network.nft import Frames
from faults.network.rules import all_of, pcap
from harness import frames
from harness.fake import FakeLab
from harness.formats import heartbeat
from harness.protocols import HasWires, Lab
from harness.records import Cable, LabError, Output, Proof, Undo
from harness.tasks import Timeline
from harness.wait import Clock, until
from tests.support.program import DEADLINE_S
from tests.support.simulator import (
    LATENCY_NS,
    POLL_S,
    WIRE_NS,
    Action,
    Guest,
    built,
    connected,
    needs_simulator,
    simulator,
)
from topology.lab.virtual.simulator import Frame, Simulator
from topology.lab.virtual.slices import Slices
from topology.lab.virtual.wires import OWN_MAC, VirtualWires

pytestmark = needs_simulator

NODES = ("lb-1", "lb-2", "web-1")
CABLES = [
    Cable(f"{name}.eth0", name, "eth0", "lan", (f"198.18.1.{number}",), f"02:00:00:00:00:{number:02x}")
    for number, name in enumerate(NODES, 11)
]
LB1, LB2, WEB1 = CABLES
MS, S = 10**6, 10**9
SIZE = 100
BASE_NS = 2 * WIRE_NS * (SIZE + 14 + 24) + LATENCY_NS
"""How long such a packet takes: two cables with preamble, checksum and gap, and the segment's latency."""
BEGAN_NS = 50 * MS


class Control:
    """The control channel. Implements ``topology.lab.virtual.simulator.Wire``."""

    def __init__(self, path: Path) -> None:
        self._socket = until(lambda: connected(path), DEADLINE_S, "the control channel", POLL_S)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def pieces(self) -> Iterator[bytes]:
        while data := self._socket.recv(65536):
            yield data

    def close(self) -> None:
        self._socket.close()


@dataclass
class Armed:
    """A lease of the switch."""

    lab: Site
    undo: Sequence[Undo]

    def release(self) -> None:
        for step in self.undo:
            assert step.where == "wires"
            self.lab.wires.undo(*step.argv)
            self.lab.wires.undo(*step.argv)  # a step is harmless when there is nothing to undo
        self.lab.armed.remove(self)


class Switch:
    """The switch of a site: it only holds leases."""

    name = "switch"

    def __init__(self, lab: Site) -> None:
        self.lab = lab

    def lease(self, _fault: str, _claim: str, undo: Sequence[Undo], _again: Sequence[Undo] = ()) -> Armed:
        self.lab.armed.append(Armed(self.lab, undo))
        return self.lab.armed[-1]


@dataclass
class Machine:
    """A node of a site: its commands succeed."""

    name: str
    kernel: str = "uml"

    def exec(self, *_argv: str, timeout_s: float = 10.0) -> Output:  # noqa: ARG002 - the protocol's signature
        return Output(0, "", "")


class Site:
    """What faults of cables need of a lab: three guests on a simulated segment."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.armed = folder, list[Armed]()
        self.simulator = Simulator(Control(folder / "control"))
        self.simulator.handler = self
        self.timeline = Timeline(self.simulator)
        self.clock: Clock = self.timeline.clock
        self.wires = VirtualWires(self.simulator, self.clock, lambda: CABLES)
        self.cables, self.switch = tuple(CABLES), Switch(self)
        self.guests: dict[str, Guest] = {}
        self.cluster = FakeLab().cluster
        self.simulator.ask("seed", seed)
        self.simulator.ask("segment", "lan", LATENCY_NS, 10**9)
        for cable in CABLES:
            self.simulator.ask("node", cable.node, f"lan/{cable.mac}")

    def boot(self, **actions: dict[int, Action]) -> None:
        for number, cable in enumerate(CABLES, 1):
            own = actions.get(cable.node.replace("-", ""), {})
            self.guests[cable.node] = Guest(self.folder, cable.node, number, actions=own)
            self.simulator.ask("await", cable.node, 10_000)

    def node(self, name: str) -> Machine:
        assert name in NODES
        return Machine(name)

    def now_ns(self) -> int:
        return self.timeline.now_ns

    def said(self, node: str, time_ns: int, data: bytes) -> None: ...

    def ended(self, node: str, time_ns: int) -> None: ...

    def framed(self, frame: Frame) -> None:
        self.wires.framed(frame)

    def until(self, time_ns: int) -> None:
        self.clock.sleep((time_ns - self.now_ns()) / S)

    @contextmanager
    def injected(self, fault: str, **settings: Any) -> Iterator[Proof]:
        """At 50 ms."""
        self.until(BEGAN_NS)
        with self.injected_now(fault, **settings) as proof:
            yield proof
        assert self.armed == []

    def injected_now(self, fault: str, **settings: Any) -> AbstractContextManager[Proof]:
        return FAULTS[fault](**settings).inject(cast(Lab, self))

    def got(self, node: str) -> list[tuple[int, bytes]]:
        """What a node has received: (ns, frame)."""
        return self.guests[node].frames


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return built(tmp_path_factory.mktemp("simulator"))


@contextmanager
def begun(command: list[str], seed: int = 1) -> Iterator[Site]:
    with simulator(command) as folder:
        yield Site(folder, seed)


@pytest.fixture
def site(command: list[str]) -> Iterator[Site]:
    with begun(command) as made:
        yield made


# --- traffic


def udp(number: int, source: Cable = LB1, target: Cable = LB2, size: int = SIZE) -> bytes:
    """A frame with a number."""
    content = struct.pack("!HHHHI", 7, 9, size - 20, 0, number) + bytes(size - 32)
    return frames.packet(target.mac, source.mac, source.addresses[0], target.addresses[0], 17, content)


def tcp(flags: int, sequence: int = 1000, acknowledged: int = 0) -> bytes:
    content = struct.pack("!HHIIBBHHH", 5000, 80, sequence, acknowledged, 5 << 4, flags, 1024, 0, 0)
    return frames.packet(LB2.mac, LB1.mac, LB1.addresses[0], LB2.addresses[0], 6, content)


def number_of(frame: bytes) -> int:
    return int(struct.unpack("!I", frame[42:46])[0])


def sends(*each: bytes) -> Action:
    def act(guest: Guest) -> None:
        for frame in each:
            guest.transmit(frame)

    return act


def series(last: int, make: Callable[[int], bytes] = udp) -> dict[int, Action]:
    """Frames 1, 2, ... at 1 ms, 2 ms, ..."""
    return {number * MS: sends(make(number)) for number in range(1, last + 1)}


def of_series(got: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Without the short frames that a fault sends for its proof."""
    return [(time_ns, frame) for time_ns, frame in got if len(frame) >= SIZE + 14]


def numbered(got: list[tuple[int, bytes]]) -> list[int]:
    """The numbers of the frames of a series."""
    return [number_of(frame) for _, frame in of_series(got)]


def lost(site: Site, fault: str, last: int = 300, hold_ms: int = 100, **settings: Any) -> set[int]:
    """The frames of 1 to ``last`` that lb-2 does not get."""
    site.boot(lb1=series(last))
    with site.injected(fault, **settings):
        site.clock.sleep(hold_ms / 1000)
    site.until(S)
    return set(range(1, last + 1)) - set(numbered(site.got("lb-2")))


# --- each fault, by what a neighbour gets


def test_a_cut_loses_all_frames_from_its_proof_to_its_undo(site: Site) -> None:
    # 50 ms: the first look, and the frame that it sends; 100 ms: the proof; 200 ms: the undo
    assert lost(site, "network.cut", cable="lb-1.eth0") == set(range(50, 200))


@pytest.mark.parametrize(("way", "through"), [("from", set[int]()), ("to", set(range(50, 200)))])
def test_a_cut_of_one_direction_lets_the_other_pass(site: Site, way: str, through: set[int]) -> None:
    assert lost(site, "network.cut", cable="lb-2.eth0", direction=way) == through


def test_a_cut_of_other_frames_lets_these_pass(site: Site) -> None:
    assert lost(site, "network.cut", cable="lb-1.eth0", protocol="udp", port=694) == set()


def test_what_is_lost_comes_from_the_seed(command: list[str]) -> None:
    def of(seed: int) -> set[int]:
        with begun(command, seed) as site:
            return lost(site, "network.loss", cable="lb-1.eth0", percent=50)

    first = of(1)
    assert 30 < len(first) < 120
    assert first <= set(range(50, 200))
    assert of(1) == first
    assert of(2) != first


def test_only_long_packets_are_lost(site: Site) -> None:
    site.boot(lb1=series(200, lambda number: udp(number, size=SIZE + number)))
    with site.injected("network.mtu", cable="lb-1.eth0", mtu=200):
        site.until(180 * MS)
    site.until(S)
    assert set(range(1, 201)) - set(numbered(site.got("lb-2"))) == set(range(101, 180))


def test_a_flapping_cable_carries_in_turns(site: Site) -> None:
    flaps = lost(site, "network.flapping", 700, 500, cable="lb-1.eth0", down_ms=100, up_ms=150)
    assert flaps == {*range(50, 150), *range(300, 400), *range(550, 650)}


def arrivals(site: Site, fault: str, **settings: Any) -> dict[int, list[int]]:
    """How late each frame came that was sent under a fault, and after those for its proof: number -> ns."""
    site.boot(lb1=series(300))
    with site.injected(fault, cable="lb-1.eth0", direction="from", **settings):
        site.clock.sleep(0.1)
    site.until(2 * S)
    late: dict[int, list[int]] = {}
    for time_ns, frame in of_series(site.got("lb-2")):
        if 60 <= (number := number_of(frame)) < 150:
            late.setdefault(number, []).append(time_ns - number * MS - BASE_NS)
    assert len(late) == 90
    return late


def test_a_delay_is_exact(site: Site) -> None:
    assert set(map(tuple, arrivals(site, "network.delay", delay_ms=20).values())) == {(20 * MS,)}


def test_jitter_is_even_and_changes_the_order(site: Site) -> None:
    late = [each for (each,) in arrivals(site, "network.jitter", jitter_ms=20).values()]
    assert 0 <= min(late) < 8 * MS
    assert 32 * MS < max(late) <= 40 * MS
    assert any(later < earlier - MS for earlier, later in pairwise(late))


def test_a_duplicate_comes_at_once(site: Site) -> None:
    late = arrivals(site, "network.duplicate", percent=100).values()
    assert all(len(each) == 2 and each[0] == 0 and 0 < each[1] < MS for each in late)


def test_some_frames_overtake_the_others(site: Site) -> None:
    late = [each for (each,) in arrivals(site, "network.reorder", percent=30, by_ms=20).values()]
    # to the ns, but for the time on the wire of another frame that is due at the same instant
    assert {each // (20 * MS) for each in late if each % (20 * MS) <= BASE_NS - LATENCY_NS} == {0, 1}
    assert 10 < sum(each < MS for each in late) < 50


def test_a_bit_is_wrong(site: Site) -> None:
    site.boot(lb1=series(300))
    with site.injected("network.corrupt", cable="lb-1.eth0", direction="from", percent=100):
        site.clock.sleep(0.1)
    site.until(S)
    right = {int.from_bytes(udp(number), "big") for number in range(1, 301)}
    got = [int.from_bytes(frame, "big") for _, frame in of_series(site.got("lb-2"))]
    wrong = [each for each in got if each not in right]
    assert len(wrong) == 150
    assert all(min((each ^ one).bit_count() for one in right) == 1 for each in wrong)


def test_a_slow_cable_sends_one_frame_after_another(site: Site) -> None:
    site.boot(lb1=series(80))
    with site.injected("network.rate", cable="lb-1.eth0", direction="from", kbit=64):
        site.until(S)
    times = [time_ns for time_ns, frame in of_series(site.got("lb-2")) if 50 < number_of(frame) <= 80]
    assert {later - earlier for earlier, later in pairwise(times)} == {(SIZE + 14) * 8 * S // 64_000}


@pytest.mark.parametrize(("way", "cable"), [("from", "lb-1.eth0"), ("to", "lb-2.eth0")])
def test_rejected_packets_are_answered_and_do_not_arrive(site: Site, way: str, cable: str) -> None:
    site.boot(lb1={80 * MS: sends(tcp(frames.SYN)), 90 * MS: sends(udp(1)), 95 * MS: sends(tcp(frames.RST))})
    with site.injected("network.reject", cable=cable, direction=way) as proof:
        assert "rejected" in proof.seen
    site.until(S)
    assert [frame for time_ns, frame in site.got("lb-2") if time_ns > 70 * MS] == []
    answers = [(time_ns, frames.ipv4_of(frame)) for time_ns, frame in site.got("lb-1") if time_ns > 70 * MS]
    assert [(time_ns // MS, packet.protocol, packet.source) for time_ns, packet in answers if packet] == [
        (80, 6, "198.18.1.12"),
        (90, 1, "198.18.1.12"),
    ]


def test_a_partition_is_between_two_sides_and_one_way_if_that_is_wanted(site: Site) -> None:
    def to_all(number: int) -> bytes:
        return frames.mac_bytes(frames.BROADCAST) + udp(number)[6:]

    site.boot(lb1=series(200, to_all), lb2=series(200, lambda number: udp(number, LB2, LB1)))
    with site.injected("network.partition", one=["lb-1"], other=["lb-2"], mode="one-way") as proof:
        site.until(150 * MS)
        assert "dropped between lb-1 and lb-2: " in proof.seen
    site.until(S)
    assert set(range(1, 201)) - set(numbered(site.got("lb-2"))) == set(range(50, 150))
    assert set(numbered(site.got("web-1"))) == set(numbered(site.got("lb-1"))) == set(range(1, 201))


def test_the_rules_of_a_partition_know_each_sender() -> None:
    made = partition_rules("p", [(LB1, WEB1), (LB2, WEB1)], one_way=False)
    assert [(rule.cable, rule.way, rule.frames) for rule in made["there"]] == [
        ("web-1.eth0", "to", "ether src 02:00:00:00:00:0b or ether src 02:00:00:00:00:0c")
    ]
    assert [rule.cable for rule in made["back"]] == ["lb-1.eth0", "lb-2.eth0"]
    assert Partition(one=("lb-1",)).said({"there": 3}) == "dropped between lb-1 and the others: 3 frames there"


def test_frames_of_a_port_are_found_by_a_filter() -> None:
    assert [pcap(Frames(*each)) for each in (("any",), ("arp",), ("tcp",), ("udp", 694))] == [
        *("", "arp", "ip and tcp", "ip and udp port 694")
    ]
    assert all_of(pcap(Frames("tcp")), "ip[2:2] > 1400") == "(ip and tcp) and (ip[2:2] > 1400)"


def test_two_cuts_of_one_cable_both_count(site: Site) -> None:
    site.boot(lb1=series(300))
    with (
        site.injected("network.cut", cable="lb-1.eth0"),
        FAULTS["network.loss"](cable="lb-1.eth0", percent=50).inject(cast(Lab, site)) as second,
    ):
        assert "dropped" in second.seen


# --- ARP


def test_only_announcements_are_lost(site: Site) -> None:
    announced = frames.Arp(1, LB1.mac, "198.18.1.99", "198.18.1.99").frame(frames.BROADCAST, LB1.mac)
    asked = frames.Arp(1, LB1.mac, "198.18.1.11", "198.18.1.12").frame(frames.BROADCAST, LB1.mac)
    site.boot(lb1={time * MS: sends(announced, asked) for time in (49, 51, 101, 300)})
    with site.injected("network.lost-announcements", cable="lb-1.eth0") as proof:
        assert proof.seen == "1 announcements of lb-1.eth0 dropped"
        site.until(200 * MS)
    site.until(S)
    assert [frame[14:42] for _, frame in site.got("web-1")] == [
        each[14:42] for each in (announced, asked, asked, asked, announced, asked)
    ]


def reply(cable: Cable, address: str) -> Action:
    return sends(frames.Arp(2, cable.mac, address, "0.0.0.0", OWN_MAC).frame(OWN_MAC, cable.mac))


def test_all_who_claim_an_address_are_found_and_nobody_learns_from_the_question(site: Site) -> None:
    at = {BEGAN_NS + 10 * MS: reply(LB1, "198.18.1.99"), BEGAN_NS + 20 * MS: reply(LB1, "198.18.1.98")}
    site.boot(lb1=at, lb2={BEGAN_NS + 499 * MS: reply(LB2, "198.18.1.99"), 900 * MS: reply(LB2, "198.18.1.99")})
    site.until(BEGAN_NS)
    assert site.wires.claimants(WEB1, "198.18.1.99") == [LB1.mac, LB2.mac]
    asked = [frames.arp_of(frame) for _, frame in site.got("web-1") if frame[:6] == b"\xff" * 6]
    assert asked == [frames.Arp(1, OWN_MAC, "0.0.0.0", "198.18.1.99")]
    assert site.wires.claimants(WEB1, "198.18.1.99") == [LB2.mac]


def test_the_true_holder_of_an_address_is_announced(site: Site) -> None:
    site.boot(lb1={BEGAN_NS + 10 * MS: reply(LB1, "198.18.1.99")})
    site.until(BEGAN_NS)
    site.wires.undo("announce", WEB1.name, "198.18.1.99")
    site.wires.undo("announce", WEB1.name, "198.18.1.99")  # nobody has it now
    site.until(S)
    told = [frames.arp_of(frame) for _, frame in site.got("lb-2")]
    assert [each for each in told if each and each.op == 1 and each.address != "0.0.0.0"] == [
        frames.Arp(1, LB1.mac, "198.18.1.99", "198.18.1.99")
    ]


def test_an_address_with_two_holders_has_no_true_one(site: Site) -> None:
    at = {BEGAN_NS + 10 * MS: reply(LB1, "198.18.1.99")}
    site.boot(lb1=at, lb2={BEGAN_NS + 10 * MS: reply(LB2, "198.18.1.99")})
    site.until(BEGAN_NS)
    with pytest.raises(LabError, match="is claimed by 02:00:00:00:00:0b and 02:00:00:00:00:0c"):
        site.wires.undo("announce", WEB1.name, "198.18.1.99")


def test_forged_announcements_go_to_one_node_until_they_are_ended(site: Site) -> None:
    site.boot()
    site.wires.forge("f", LB2, "198.18.1.11", "00:00:5e:00:53:01", 100)
    site.until(350 * MS)
    site.wires.undo("remove", "f")
    site.until(S)
    forged = frames.Arp(1, "00:00:5e:00:53:01", "198.18.1.11", "198.18.1.11").frame(LB2.mac, OWN_MAC)
    assert [frame[:42] for _, frame in site.got("lb-2")] == [forged] * 4
    assert {time_ns // (100 * MS) for time_ns, _ in site.got("lb-2")} == {0, 1, 2, 3}
    assert site.got("web-1") == []


# --- an unplugged cable


def test_an_unplugged_cable_carries_nothing_until_it_is_plugged_in(site: Site) -> None:
    site.boot(lb1=series(300))
    site.until(BEGAN_NS)
    site.wires.unplug(LB1)
    site.until(100 * MS)
    site.wires.undo("plug", "lb-1.eth0")
    site.until(S)
    assert set(range(1, 301)) - set(numbered(site.got("lb-2"))) == set(range(50, 100))


# --- heartbeat's messages


def message(number: int, kind: str = "status") -> bytes:
    """A message as heartbeat sends it."""
    entries = [f"(0)t={kind}", f"(0)seq={number:x}", "(1)srcuuid=,%%%\n###"]
    text = "".join(f"{len(each)}:{each}," for each in entries).encode()
    signed = b"###\n" + text + b"%%%\n"
    return signed + b"42:1 " + b"%040x," % number


def datagram(number: int, kind: str = "status") -> bytes:
    content = struct.pack("!HHHH", 694, 694, 8 + len(message(number, kind)), 0) + message(number, kind)
    return frames.packet(LB2.mac, LB1.mac, LB1.addresses[0], LB2.addresses[0], 17, content)


Arrived = list[tuple[int, int]]


ONE = Interception("lb-1", "lb-2", "lan", LB2.name, LB1.addresses[0])


@pytest.fixture
def one_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the fault would read in ha.cf."""
    monkeypatch.setattr(_Messages, "interceptions", lambda _self, _lab: [ONE])


def messages(site: Site, fault: str, hold_s: float = 0.3, **settings: Any) -> tuple[Arrived, list[dict[str, Any]]]:
    """(ms, number) of each message that lb-2 gets of 1 to 9, sent at 60 ms, 110 ms, ...; and the decisions."""
    site.boot(lb1={(10 + 50 * number) * MS: sends(datagram(number)) for number in range(1, 10)})
    made = FAULTS[fault](sender="lb-1", **settings)
    assert isinstance(made, _Messages)
    site.until(BEGAN_NS)
    with made.inject(cast(Lab, site)) as proof:
        site.clock.sleep(hold_s)
    site.until(5 * S)
    got = [
        (time_ns // MS, int(heartbeat.number(heartbeat.entries(frame[42:]), "seq") or 0))
        for time_ns, frame in site.got("lb-2")
    ]
    return got, list(proof.detail["decisions"][ONE.where])


USUAL = [(10 + 50 * number, number) for number in range(1, 10)]


@pytest.mark.usefixtures("one_path")
def test_chosen_messages_are_dropped_and_each_decision_is_noted(site: Site) -> None:
    got, decisions = messages(site, "heartbeat.drop", first_seq=2, last_seq=3)
    assert got == [each for each in USUAL if each[1] not in {2, 3}]
    assert [(line["seq"], line["decision"], line.get("effect", "")) for line in decisions] == [
        (1, "pass", ""),
        (2, "drop", "was dropped"),
        (3, "drop", "was dropped"),
        *((number, "pass", "") for number in range(4, 9)),
    ]
    assert [line["t"] for line in decisions] == sorted(line["t"] for line in decisions)


@pytest.mark.usefixtures("one_path")
def test_a_late_message_is_late_to_the_ns_and_what_is_held_at_the_end_comes_then(site: Site) -> None:
    got, _ = messages(site, "heartbeat.delay", delay_ms=120, last_seq=8, hold_s=0.22)
    first = [(time, number) for time, number in got if number == 1]
    assert first == [(180, 1)]
    assert sorted(number for _, number in got) == list(range(1, 10))
    ended_ms = got[[number for _, number in got].index(8)][0]
    assert got.index((ended_ms, 8)) < [number for _, number in got].index(9)


@pytest.mark.usefixtures("one_path")
def test_a_message_comes_three_times(site: Site) -> None:
    got, _ = messages(site, "heartbeat.duplicate", copies=2, last_seq=2)
    assert [number for _, number in got] == [1, 1, 1, 2, 2, 2, *range(3, 10)]


@pytest.mark.usefixtures("one_path")
def test_a_message_is_overtaken(site: Site) -> None:
    got, _ = messages(site, "heartbeat.reorder", behind=2, first_seq=2, last_seq=2)
    assert [number for _, number in got] == [1, 3, 4, 2, *range(5, 10)]


@pytest.mark.usefixtures("one_path")
def test_an_old_message_comes_again(site: Site) -> None:
    got, _ = messages(site, "heartbeat.replay", after_ms=120, first_seq=1, last_seq=1)
    assert [number for _, number in got] == [1, 2, 3, 1, *range(4, 10)]


@pytest.mark.usefixtures("one_path")
def test_a_message_comes_with_a_wrong_signature_and_a_right_checksum(site: Site) -> None:
    messages(site, "heartbeat.corrupt", last_seq=1)
    (_, wrong), *right = site.got("lb-2")
    assert wrong[42:] == heartbeat.spoilt(message(1)) != message(1)
    assert frames.rewritten(wrong, wrong[42:]) == wrong  # its checksum is right
    assert [frame for _, frame in right] == [datagram(number) for number in range(2, 10)]


def test_what_was_held_for_a_process_that_is_gone_passes(site: Site) -> None:
    site.boot(lb1=series(20, datagram))
    choice = {"sender": "lb-1", "path": "lan", "types": []}
    settings = {"cable": LB2.name, "source": LB1.addresses[0], "port": 694, "verb": {"name": "drop"}, "choice": choice}
    site.wires.intercept("hb", settings)
    site.until(5 * MS)
    assert site.got("lb-2") == []
    site.wires = VirtualWires(site.simulator, site.clock, lambda: CABLES)
    site.until(15 * MS)
    assert len(site.got("lb-2")) == 10
    assert site.wires.hits("hb")
    site.wires.undo("remove", "hb")
    assert site.wires.hits("hb") is None


@pytest.mark.usefixtures("one_path")
def test_what_is_changed_is_listed_until_it_is_undone(site: Site) -> None:
    site.boot(lb1=series(300, datagram))
    with site.injected("network.cut", cable="web-1.eth0"), site.injected_now("heartbeat.drop", sender="lb-1"):
        site.wires.unplug(WEB1)
        began = [each.partition("-")[0] for each in site.simulator.changed()]
        assert began == ["rule cut", "rule cut", "rule held", "cable web"]
        site.wires.undo("plug", WEB1.name)
    assert site.simulator.changed() == []


def test_a_lab_says_whether_its_cables_are_simulated(site: Site) -> None:
    assert isinstance(site, HasWires)
    with pytest.raises(LabError, match="no undo 'mend'"):
        site.wires.undo("mend", "lb-1.eth0")


# --- a share of time


def beats(guest: Guest) -> None:
    """An action that only shows when the guest had its turn."""


def test_a_machine_with_a_fifth_of_the_time_runs_20_of_100_ms(site: Site) -> None:
    site.boot(lb1={time * MS: beats for time in range(1, 600)})
    slices = Slices("lb-1", site.simulator, site.clock, lambda: True)
    site.until(BEGAN_NS)
    slices.give(0.2)
    site.until(350 * MS)
    slices.give(1)
    site.until(S)
    ran = {time_ns // MS for time_ns in site.guests["lb-1"].runs}
    assert set(range(1, 50)) <= ran
    assert {time for time in ran if 50 <= time < 350} == {*range(130, 150), *range(230, 250), *range(330, 350)}
    assert set(range(350, 600)) <= ran


def test_a_machine_that_is_off_or_frozen_as_a_whole_is_left_alone(site: Site) -> None:
    site.boot(lb1={time * MS: beats for time in range(1, 300)})
    runs = True
    slices = Slices("lb-1", site.simulator, site.clock, lambda: runs)
    slices.give(0.5)
    site.until(40 * MS)
    runs = False  # a fault freezes it as a whole
    site.until(500 * MS)
    assert site.guests["lb-1"].runs == []
    runs = True
    site.until(S)
    assert site.guests["lb-1"].runs[0] >= 500 * MS
    site.guests["lb-1"].kill()
    site.simulator.ask("gone", "lb-1")
    site.until(2 * S)
    slices.give(1)
    slices.give(1)  # an undo is harmless when it is done twice
