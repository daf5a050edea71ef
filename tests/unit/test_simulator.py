"""The simulator, with guests that are no kernels: time, frames, faults of frames, captures, garbage.

It is compiled here where that is possible, with the sanitizers on. ``tests/lab/test_simulator.py`` runs these tests on
the program of the switch's image, so no machine leaves them out.
"""

from __future__ import annotations

import base64
import itertools
import os
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.program import DEADLINE_S
from tests.support.simulator import (
    BASE,
    LATENCY_NS,
    WIRE_NS,
    Action,
    Client,
    Device,
    Guest,
    RefusedError,
    built,
    needs_simulator,
    simulator,
)

pytestmark = needs_simulator

MAC = {"a": "02:77:00:00:00:01", "b": "02:77:00:00:00:02", "c": "02:77:00:00:00:03"}
BROADCAST = "ff:ff:ff:ff:ff:ff"
S = 10**9
MS = 10**6


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return built(tmp_path_factory.mktemp("simulator"))


class Site:
    """Guests on one segment."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.client, self.guests = folder, Client(folder), dict[str, Guest]()
        self.client.ask("start", 1_800_000_000 * S)
        self.client.ask("seed", 5)
        self.client.ask("segment", "lan", LATENCY_NS, 10**9)

    def nodes(self, **actions: dict[int, Action]) -> None:
        """Nodes, and guests that stand."""
        for name in actions:
            assert self.client.ask("node", name, f"lan/{MAC[name]}") == [str(list(actions).index(name) + 1)]
        for name, own in actions.items():
            self.boot(name, own)

    def boot(self, name: str, actions: dict[int, Action] | None = None) -> Guest:
        guest = Guest(self.folder, name, ord(name) - ord("a") + 1, actions=actions)
        self.guests[name] = guest
        assert self.client.ask("await", name, DEADLINE_S * 1000) == []
        return guest

    def run(self, until: int, *wakes: str) -> list[str]:
        return self.client.ask("run", until, *wakes)

    def close(self) -> None:
        for guest in self.guests.values():
            guest.kill()
        self.client.close()

    def frames(self, name: str) -> list[bytes]:
        return [frame for _, frame in self.guests[name].frames]


@contextmanager
def begun(command: list[str]) -> Iterator[Site]:
    with simulator(command) as folder:
        made = Site(folder)
        yield made
        made.close()


@pytest.fixture
def site(command: list[str]) -> Iterator[Site]:
    with begun(command) as made:
        yield made


def frame(source: str, target: str, number: int = 0, size: int = 60) -> bytes:
    addresses = [bytes.fromhex(MAC.get(name, BROADCAST).replace(":", "")) for name in (target, source)]
    return b"".join(addresses) + b"\x88\xb5" + struct.pack(">I", number) + bytes(size - 18)


def sends(*frames: bytes) -> Action:
    def act(guest: Guest) -> None:
        for each in frames:
            guest.transmit(each)

    return act


def numbers(frames: list[bytes]) -> list[int]:
    return [struct.unpack(">I", each[14:18])[0] for each in frames]


def series(count: int, every: int = MS, source: str = "a", target: str = "b") -> dict[int, Action]:
    """Frames 1, 2, ... at 1 ms, 2 ms, ..."""
    return {number * every: sends(frame(source, target, number)) for number in range(1, count + 1)}


# --- time


def test_a_guest_runs_at_the_time_it_asked_for(site: Site) -> None:
    site.nodes(a={5: lambda _: None, 70: lambda _: None})
    assert site.run(100) == ["100", "time"]
    assert site.guests["a"].runs == [5, 70]
    assert site.guests["a"].tod == 1_800_000_000 * S


def test_what_is_due_at_the_end_of_a_run_belongs_to_the_next(site: Site) -> None:
    site.nodes(a={100: lambda _: None})
    site.run(100)
    assert site.guests["a"].runs == []
    site.run(101)
    assert site.guests["a"].runs == [100]


def test_a_guest_is_not_granted_more_than_until_another_can_reach_it(site: Site) -> None:
    seen: list[int] = []
    site.nodes(a={1000: lambda guest: seen.append(guest._until())}, b={30_000: lambda _: None})
    site.run(S)
    assert seen == [30_000 + LATENCY_NS]


def test_time_does_not_go_back(site: Site) -> None:
    site.run(100)
    with pytest.raises(RefusedError, match="it is 100 already"):
        site.run(99)


# --- frames


def test_a_frame_takes_two_cables_and_the_latency(site: Site) -> None:
    site.nodes(a={MS: sends(frame("a", "b", size=1000))}, b={}, c={})
    site.run(S)
    wire = WIRE_NS * (1000 + 24)
    ((time, got),) = site.guests["b"].frames
    assert time == MS + wire + LATENCY_NS + wire
    assert got == frame("a", "b", size=1000)


def test_frames_queue_on_a_cable(site: Site) -> None:
    site.nodes(a={MS: sends(frame("a", "c"))}, b={MS: sends(frame("b", "c"))}, c={})
    site.run(S)
    first, second = (time for time, _ in site.guests["c"].frames)
    assert second - first == WIRE_NS * (60 + 24)


def test_the_switch_learns_where_an_address_is(site: Site) -> None:
    to_all, back, again = frame("a", "all", 1), frame("b", "a", 2), frame("a", "b", 3)
    site.nodes(a={MS: sends(to_all), 3 * MS: sends(again)}, b={2 * MS: sends(back)}, c={})
    site.run(S)
    assert (site.frames("a"), site.frames("b"), site.frames("c")) == ([back], [to_all, again], [to_all])


def test_a_cut_cable_carries_nothing_one_way_or_both(site: Site) -> None:
    site.nodes(a=series(5), b={}, c={})
    site.client.ask("cable", "b", 0, "in", "down")
    site.run(2 * MS)
    site.client.ask("cable", "b", 0, "up")
    site.run(3 * MS)
    site.client.ask("cable", "a", 0, "out", "down")
    site.run(4 * MS)
    site.client.ask("cable", "a", 0, "both", "up")
    site.run(S)
    assert numbers(site.frames("b")) == [2, 4, 5]


def test_what_was_changed_is_listed(site: Site) -> None:
    site.nodes(a={}, b={}, c={})
    assert site.client.ask("changed") == []
    assert site.client.events == []
    site.client.ask("rule", "r", "lan", "both", "drop")
    site.client.ask("cable", "a", 0, "down")
    site.client.ask("cable", "b", 0, "out", "down")
    site.client.ask("freeze", "c")
    site.client.ask("changed")
    told = ["rule r", "cable a.0 both down", "cable b.0 out down", "frozen c"]
    assert site.client.events == [f"+changed {each}" for each in told]


def test_a_guest_that_wants_no_interrupts_gets_its_buffers_back(site: Site) -> None:
    def act(guest: Guest) -> None:
        guest.devices[0].rings[1].refuse_interrupts(True)
        for number in range(1, 17):
            guest.transmit(frame("a", "b", number))

    given: list[int] = []
    ask: Action = lambda guest: given.append(len(list(guest.devices[0].rings[1].used())))  # noqa: E731
    site.nodes(a={MS: act, 2 * MS: ask}, b={})
    site.run(S)
    assert site.guests["a"].runs == [MS, 2 * MS]
    assert given == [16]
    assert numbers(site.frames("b")) == list(range(1, 17))


def test_a_guest_that_changes_its_mind_is_interrupted(site: Site) -> None:
    def act(guest: Guest) -> None:
        guest.devices[0].rings[1].refuse_interrupts(True)
        guest.transmit(frame("a", "b", 1))
        guest.devices[0].rings[1].refuse_interrupts(False)

    site.nodes(a={MS: act}, b={})
    site.run(S)
    first, second = site.guests["a"].runs
    assert first == MS
    assert MS < second <= MS + WIRE_NS * 84 + LATENCY_NS


# --- the console


def test_a_run_ends_at_the_instant_of_a_write(site: Site) -> None:
    site.nodes(a={MS: lambda guest: guest.write(b"hello")}, b={MS + LATENCY_NS: lambda _: None})
    assert site.run(S, "*") == [str(MS), "wake", "a"]
    assert site.client.said("a") == [(MS, b"hello")]
    assert site.guests["b"].runs == []


def test_a_write_between_two_waits_ends_the_run_where_it_was_made(site: Site) -> None:
    """The guest has come farther than the others: it stands until they have, too."""

    def act(guest: Guest) -> None:
        guest.spend(30_000)
        guest.write(b"late")

    site.nodes(a={MS: act}, b={MS + 20_000: lambda guest: guest.write(b"early")})
    assert site.run(S, "*") == [str(MS + 20_000), "wake", "b"]
    assert site.run(S, "*") == [str(MS + 30_000), "wake", "a"]


def test_a_write_that_nobody_waits_for_does_not_end_the_run(site: Site) -> None:
    site.nodes(a={MS: lambda guest: guest.write(b"x" * 5000)}, b={})
    assert site.run(S, "b") == [str(S), "time"]
    assert b"".join(text for _, text in site.client.said("a")) == b"x" * 5000


def test_a_run_can_end_for_whole_lines_only(site: Site) -> None:
    def act(guest: Guest) -> None:
        guest.write(b"half a ")
        guest.spend(1000)
        guest.write(b"line\nand")

    site.client.ask("wakes", "lines")
    site.nodes(a={MS: act})
    assert site.run(S, "a") == [str(MS + 1000), "wake", "a"]
    assert site.run(S, "a") == [str(S), "time"]


def test_bytes_reach_a_console_at_this_instant(site: Site) -> None:
    site.nodes(a={})
    site.run(MS)
    site.client.ask("say", "a", base64.b64encode(b"x" * 3000).decode())
    site.run(S)
    assert b"".join(text for _, text in site.guests["a"].heard) == b"x" * 3000
    assert {time for time, _ in site.guests["a"].heard} == {MS}


# --- power


def test_a_kernel_that_ends_ends_the_run(site: Site) -> None:
    site.nodes(a={MS: lambda guest: guest.calendar.close()}, b={})
    assert site.run(S) == [str(MS), "lost", "a"]
    assert site.client.events == [f"+lost a {MS}"]


def test_a_node_whose_power_was_cut_boots_again(site: Site) -> None:
    site.nodes(a=series(3), b={})
    site.run(MS + 20_000)
    site.guests["b"].kill()
    site.client.ask("gone", "b")
    site.client.ask("gone", "b")
    site.run(int(2.5 * MS))
    again = site.boot("b")
    assert site.run(S) == [str(S), "time"]
    assert numbers(site.frames("b")) == [3]
    assert again.offset == int(2.5 * MS)


def test_a_frozen_node_gets_no_time_and_its_clock_leaps(site: Site) -> None:
    site.nodes(a=series(40), b={2 * MS: lambda _: None})
    site.client.ask("freeze", "b")
    site.run(50 * MS)
    assert site.guests["b"].runs == []
    site.client.ask("thaw", "b")
    site.run(S)
    assert set(site.guests["b"].runs) == {50 * MS}
    assert numbers(site.frames("b")) == list(range(1, 17)), "its NIC has 16 buffers"


def wait_for(event: threading.Event) -> None:
    event.wait()


def test_a_node_that_never_stands_is_noticed(site: Site) -> None:
    site.client.ask("spin", 20)
    enough = threading.Event()
    site.nodes(a={MS: lambda _: wait_for(enough)})
    assert site.run(S) == [str(MS), "spin", "a"]
    assert site.run(S) == [str(MS), "spin", "a"]
    enough.set()
    while (answer := site.run(S)) == [str(MS), "spin", "a"]:
        pass
    assert answer == [str(S), "time"]


# --- faults of frames


def rule(site: Site, *words: str | int, count: int = 9) -> list[int]:
    """The frames that b gets of 1 to 9 under a rule."""
    site.nodes(a=series(count), b={})
    site.client.ask("rule", "r", *words)
    site.run(S)
    return numbers(site.frames("b"))


@pytest.mark.parametrize("place", [("b.0", "in"), ("a.0", "out"), ("lan", "both"), ("a.0", "both")])
def test_exactly_the_third_frame_is_lost(site: Site, place: tuple[str, str]) -> None:
    assert rule(site, *place, "drop", "skip=2", "first=1") == [1, 2, 4, 5, 6, 7, 8, 9]
    assert site.client.ask("hits", "r") == ["1", "9"]
    assert site.client.ask("unrule", "r") == ["1"]


def test_every_third_frame_is_lost(site: Site) -> None:
    assert rule(site, "lan", "both", "drop", "skip=2", "every=3") == [1, 2, 4, 5, 7, 8]


def test_a_filter_chooses(site: Site) -> None:
    assert rule(site, "lan", "both", "drop", "--", "ether[17] > 6") == [1, 2, 3, 4, 5, 6]


def test_chance_comes_from_the_seed_and_the_name_alone(command: list[str]) -> None:
    def lost(seed: int, *others: str) -> list[int]:
        with begun(command) as site:
            site.client.ask("seed", seed)
            for other in others:
                site.client.ask("rule", other, "lan", "both", "count", "p=0.5")
            return rule(site, "lan", "both", "drop", "p=0.5", count=60)

    first = lost(1)
    assert 15 < len(first) < 45
    assert lost(1, "other") == first
    assert lost(2) != first


def test_a_delayed_frame_is_overtaken_or_not(site: Site) -> None:
    assert rule(site, "a.0", "out", "delay", "ns=3500000", "every=4") == [2, 3, 4, 1, 6, 7, 8, 5, 9]


def test_a_delayed_frame_can_keep_its_place(site: Site) -> None:
    assert rule(site, "a.0", "out", "delay", "ns=9000000", "jitter=9000000", "order=keep") == list(range(1, 10))


def test_jitter_changes_the_order(site: Site) -> None:
    got = rule(site, "a.0", "out", "delay", "ns=9000000", "jitter=9000000")
    assert sorted(got) == list(range(1, 10))
    assert got != sorted(got)


def test_a_frame_comes_twice(site: Site) -> None:
    assert rule(site, "b.0", "in", "duplicate", "copies=2", "every=4") == [1, 1, 1, 2, 3, 4, 5, 5, 5, 6, 7, 8, 9, 9, 9]


def test_a_frame_is_overtaken_by_two_others(site: Site) -> None:
    assert rule(site, "lan", "both", "reorder", "by=2", "every=5") == [2, 3, 1, 4, 5, 7, 8, 6, 9]


def test_a_frame_that_nobody_overtakes_goes_on(site: Site) -> None:
    assert rule(site, "lan", "both", "reorder", "skip=8", "ns=1000000") == list(range(1, 10))
    assert site.guests["b"].frames[-1][0] == 10 * MS + WIRE_NS * 84 + LATENCY_NS + WIRE_NS * 84


def test_one_bit_is_wrong(site: Site) -> None:
    site.nodes(a=series(9), b={})
    site.client.ask("rule", "r", "lan", "both", "corrupt", "from=20", "skip=4", "first=1")
    site.run(S)
    sent = [frame("a", "b", number) for number in range(1, 10)]
    pairs = zip(site.frames("b"), sent, strict=True)
    flipped = [int.from_bytes(got, "big") ^ int.from_bytes(right, "big") for got, right in pairs]
    assert [value.bit_count() for value in flipped] == [0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_a_slow_cable_delays_and_loses(site: Site) -> None:
    site.nodes(a={MS: sends(*(frame("a", "b", number, 1000) for number in range(1, 10)))}, b={})
    site.client.ask("rule", "r", "b.0", "in", "rate", "bits_per_s=8000000", "queue=3000")
    site.run(S)
    times = [time for time, _ in site.guests["b"].frames]
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == [MS] * 3
    assert numbers(site.frames("b")) == [1, 2, 3, 4]


def test_rules_act_in_their_order_on_what_the_others_left(site: Site) -> None:
    site.nodes(a=series(6), b={})
    site.client.ask("rule", "half", "lan", "both", "drop", "every=2")
    site.client.ask("rule", "late", "lan", "both", "delay", "ns=10000000", "first=1")
    site.client.ask("rule", "count", "lan", "both", "count")
    site.run(S)
    assert numbers(site.frames("b")) == [4, 6, 2]
    assert site.client.ask("unrule", "count") == ["3"]


def test_rules_that_drop_count_all_their_frames_whatever_the_others_drop(site: Site) -> None:
    site.nodes(a=series(6), b={})
    site.client.ask("rule", "all", "lan", "both", "drop")
    site.client.ask("rule", "late", "lan", "both", "delay", "ns=10000000")
    site.client.ask("rule", "third", "a.0", "out", "drop", "every=3")
    site.run(S)
    assert numbers(site.frames("b")) == []
    assert site.client.ask("hits", "third") == ["2", "6"]
    assert site.client.ask("hits", "late") == ["0", "0"]


def test_a_rule_acts_and_rests_in_turns(site: Site) -> None:
    assert rule(site, "lan", "both", "drop", "on=2500000", "off=1500000") == [3, 7]
    assert site.client.ask("hits", "r") == ["7", "9"]


def test_a_frame_waits_for_its_verdict(site: Site) -> None:
    site.nodes(a=series(6), b={})
    other = base64.b64encode(frame("a", "b", 99)).decode()
    site.client.ask("rule", "r", "b.0", "in", "intercept")
    for verdict in (["pass"], ["drop"], ["delay", 5 * MS], ["replace", other], ["also", other]):
        time, *reason = site.run(S)
        assert reason == ["rule", "r"]
        _, _, number, when, place, _ = site.client.events[-1].split()
        assert (when, place) == (time, "b.0/in")
        site.client.ask("verdict", number, *verdict)
        with pytest.raises(RefusedError, match="no frame"):
            site.client.ask("verdict", number, "pass")
    assert site.run(S)[1] == "rule"
    assert site.client.ask("unrule", "r") == ["6"]
    site.run(S)
    assert numbers(site.frames("b")) == [1, 99, 5, 99, 6, 3]


def test_frames_are_told_without_being_held(site: Site) -> None:
    site.nodes(a=series(3), b={})
    site.client.ask("rule", "arp", "lan", "both", "tell", "skip=1", "first=1")
    assert site.run(S) == [str(S), "time"]
    (told,) = site.client.events
    assert base64.b64decode(told.split()[5]) == frame("a", "b", 2)
    assert told.split()[4] == "a.0/out"


def test_a_frame_can_be_made_up(site: Site) -> None:
    site.nodes(a={}, b={}, c={})
    site.client.ask("inject", "b.0", "in", 5 * MS, base64.b64encode(frame("a", "b", 7)).decode())
    site.client.ask("inject", "a.0", "out", 6 * MS, base64.b64encode(frame("a", "all", 8)).decode())
    site.run(S)
    assert (numbers(site.frames("b")), numbers(site.frames("c"))) == ([7, 8], [8])


def test_a_frame_that_is_made_up_behind_a_rule_meets_only_those_behind_it(site: Site) -> None:
    site.nodes(a={}, b={})
    for name, action in (("before", "drop"), ("held", "intercept"), ("after", "count")):
        site.client.ask("rule", name, "b.0", "in", action)
    site.client.ask("inject", "b.0", "in", 5 * MS, base64.b64encode(frame("a", "b", 7)).decode(), "held")
    assert site.run(S) == [str(S), "time"]
    assert numbers(site.frames("b")) == [7]
    assert [site.client.ask("unrule", name) for name in ("before", "held", "after")] == [["0"], ["0"], ["1"]]


# --- what remains of a run


def test_the_same_happens_again_however_a_run_is_cut(command: list[str]) -> None:
    def outcome(*steps: int, wakes: tuple[str, ...] = ()) -> tuple[list[str], str]:
        with begun(command) as site:
            talk = {time + 13: each for time, each in series(50, 30_000, "b", "a").items()}
            site.nodes(a=series(50, 30_000), b=talk, c={700_000: lambda guest: guest.write(b"now")})
            site.client.ask("rule", "r", "lan", "both", "delay", "ns=90000", "jitter=80000", "p=0.7")
            for step in (*steps, 10 * MS):
                while site.run(step, *wakes)[1] != "time":
                    pass
            return site.client.ask("hash"), (site.folder / "trace").read_text()

    whole = outcome()
    assert whole[0][1] == "100"
    assert len(whole[1].splitlines()) == 101
    assert outcome(*range(0, 2 * MS, 17_001)) == whole
    assert outcome(500_000, wakes=("*",)) == whole


def test_another_content_has_another_hash(command: list[str]) -> None:
    def outcome(number: int) -> str:
        with begun(command) as site:
            site.nodes(a={MS: sends(frame("a", "b", number))}, b={})
            site.run(S)
            return site.client.ask("hash")[0]

    assert outcome(1) != outcome(2)


def blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The blocks of a pcapng file: type and body."""
    while data:
        kind, size = struct.unpack_from("<II", data)
        assert size % 4 == 0
        assert struct.unpack_from("<I", data, size - 4)[0] == size
        yield kind, data[8 : size - 4]
        data = data[size:]


def test_a_capture_is_a_pcapng_file_with_virtual_time(site: Site) -> None:
    site.nodes(a=series(4), b={})
    path = site.folder / "capture.pcapng"
    site.client.ask("capture", "c", str(path), "b.0,lan", "--", "ether[17] > 1")
    site.client.ask("rule", "r", "b.0", "in", "drop", "skip=2", "first=1")
    site.run(S)
    assert site.client.ask("uncapture", "c") == ["5"]
    found = list(blocks(path.read_bytes()))
    assert [kind for kind, _ in found] == [0x0A0D0D0A, 1, 1, 6, 6, 6, 6, 6]
    assert b"b.0\0" in found[1][1]
    assert b"lan\0" in found[2][1]
    frames = []
    for _, body in found[3:]:
        place, high, low, length, _ = struct.unpack_from("<5I", body)
        frames.append(((high << 32 | low) - 1_800_000_000 * S, place, body[20 : 20 + length]))
    wire = WIRE_NS * 84
    assert frames == [
        (number * MS + wire, place, frame("a", "b", number))
        for number, place in [(2, 1), (2, 0), (3, 1), (4, 1), (4, 0)]
    ]


def test_a_capture_that_cannot_be_written_is_refused(site: Site) -> None:
    with pytest.raises(RefusedError, match="/nowhere/x: No such file"):
        site.client.ask("capture", "c", "/nowhere/x", "lan")


# --- requests


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("what", "what is what"),
        ("", "words are separated by one blank"),
        ("run  5", "words are separated by one blank"),
        ("run", "run takes 1 to 62 words"),
        ("run x", "the time is not a whole number"),
        ("run 99999999999999999999", "the time is not a whole number"),
        ("run 5 nobody", "there is no node nobody"),
        ("segment lan 5 5", "lan is no name for a segment, or taken"),
        ("segment x 0 5", "a latency is between 1 ns and 60 s"),
        ("node a/b", "a/b is no name for a node"),
        ("node x lan", "a NIC is SEGMENT/MAC"),
        ("node x wan/02:00:00:00:00:01", "there is no segment wan"),
        ("node x lan/02:00:00:00:00:zz", "a NIC is SEGMENT/MAC"),
        ("await n 5", "the kernel of n did not connect"),
        ("say n aaaa", "n is off"),
        ("cable n 5 up", "n has 1 NICs"),
        ("cable n 0 left up", "a cable is up or down, in, out or both"),
        ("wakes up", "a run ends for writes or for lines"),
        ("spin 0", "the limit is between 1 ms and 1 h"),
        ("rule r n.7 in drop", "there is no place n.7"),
        ("rule r n.0 up drop", "a direction is in, out or both, not up"),
        ("rule r lan in drop", "the direction on a segment is both, not in"),
        ("rule r lan both lose", "there is no action lose"),
        ("rule r lan both drop ns=5", "this action has no parameter ns"),
        ("rule r lan both drop p=2", "p is between 0 and 1, not 2"),
        ("rule r lan both drop p=", "p is between 0 and 1"),
        ("rule r lan both drop skip", "skip is not NAME=VALUE"),
        ("rule r lan both drop every=0", "every is out of its range"),
        ("rule r lan both delay", "delay takes ns= or jitter="),
        ("rule r lan both delay ns=5 order=x", "order is keep or change, not x"),
        ("rule r lan both rate", "rate takes bits_per_s="),
        ("rule r lan both drop on=5", "on= goes with the other one"),
        ("rule r lan both drop -- icmp and", "'icmp and' is no filter"),
        ("unrule r", "there is no rule r"),
        ("verdict 1 pass", "no frame 1 is held"),
        ("verdict 1 lose", "a verdict is pass, drop"),
        ("verdict 1 replace !", "this is not a frame in base64"),
        ("inject n.0 in 5 AAAA", "this is not a frame in base64"),
        ("inject lan in 5 AAAA", "there is no NIC lan"),
        ("inject n.0 in 5 AAAA r", "there is no rule r"),
        ("uncapture c", "there is no capture c"),
        ("capture c /tmp/x nowhere", "there is no place nowhere"),
    ],
)
def test_a_request_that_makes_no_sense_gets_a_sentence(site: Site, line: str, sentence: str) -> None:
    site.client.ask("node", "n", f"lan/{MAC['a']}")
    with pytest.raises(RefusedError) as refused:
        site.client.ask(*line.split(" "))
    assert sentence in str(refused.value)
    assert site.client.ask("now") == ["0"]


def test_one_client_at_a_time(site: Site) -> None:
    other = Client(site.folder)
    with pytest.raises(RefusedError, match="busy"):
        other.answer()
    other.close()
    site.client.close()
    site.client = Client(site.folder)
    assert site.client.ask("now") == ["0"]


def test_time_stands_still_when_the_client_hangs_up(site: Site) -> None:
    started: list[bool] = []

    def act(guest: Guest) -> None:
        started.append(True)
        site.client._socket.shutdown(socket.SHUT_RDWR)

    site.nodes(a={MS: act, 2 * MS: act}, b={})
    site.client.send("run", S)
    with pytest.raises(ConnectionError):
        site.client.answer()
    site.client.close()
    site.client = Client(site.folder)
    assert site.client.ask("now") == [str(MS)]
    assert len(started) == 1


# --- garbage


def bad_descriptor(**changes: int) -> Action:
    def act(guest: Guest) -> None:
        ring = guest.devices[0].rings[1]
        values = {"address": BASE, "length": 100, "flags": 0, "following": 0} | changes
        ring.describe(0, **values)
        ring.publish(0)
        guest.devices[0].kick(1)

    return act


def bad_ring(offset: int, value: int, ring: int = 1) -> Action:
    def act(guest: Guest) -> None:
        struct.pack_into("<H", guest.devices[0].memory, ring * 0x10000 + offset, value)
        guest.devices[0].kick(1)

    return act


def bad_message(request: int, payload: bytes = b"", *, device: Callable[[Guest], Device] | None = None) -> Action:
    def act(guest: Guest) -> None:
        (device(guest) if device else guest.devices[0]).ask(request, payload)

    return act


def bad_header(data: bytes) -> Action:
    def act(guest: Guest) -> None:
        guest.devices[0].send(data)
        guest.devices[0].read(1)

    return act


def shrunk(guest: Guest) -> None:
    os.ftruncate(guest.devices[0].file, 0)
    guest.devices[0].kick(1)


def bad_memory(guest: Guest, size: int) -> None:
    guest.devices[0].share(size)


def bad_ring_address(guest: Guest) -> None:
    guest.devices[0].ask(9, struct.pack("<IIQQQQ", 1, 0, 2**60, 2**60, 2**60, 0))
    guest.devices[0].kick(1)


def bad_head(guest: Guest) -> None:
    guest.devices[0].rings[1].publish(777)
    guest.devices[0].kick(1)


def bad_operation(guest: Guest) -> None:
    guest.ask(77)


GARBAGE: dict[str, Action] = {
    "an address outside": bad_descriptor(address=2**63),
    "an address at the end": bad_descriptor(address=BASE + 2 * 0x10000 - 50),
    "an address that wraps": bad_descriptor(address=2**64 - 10),
    "a chain in a circle": bad_descriptor(flags=1, following=0),
    "a chain that leaves the ring": bad_descriptor(flags=1, following=999),
    "an indirect table": bad_descriptor(flags=4),
    "an index far ahead": bad_ring(0x1002, 5000),
    "a head outside of the ring": bad_head,
    "memory that is taken away": shrunk,
    "a ring number": bad_message(35, struct.pack("<II", 77, 0)),
    "a kick without a ring": bad_message(35),
    "an unknown request": bad_message(99),
    "a ring without entries": bad_message(8, struct.pack("<II", 0, 0)),
    "a ring of odd size": bad_message(8, struct.pack("<II", 0, 17)),
    "a huge ring": bad_message(8, struct.pack("<II", 0, 2**31)),
    "a ring base": bad_message(10, struct.pack("<II", 0, 2**31)),
    "memory without a file": bad_message(5, struct.pack("<IIQQQQ", 1, 0, BASE, 4096, BASE, 0)),
    "no memory": bad_message(5, struct.pack("<II", 0, 0)),
    "too many regions": bad_message(5, struct.pack("<II", 9, 0) + bytes(288)),
    "memory longer than its file": lambda guest: bad_memory(guest, 2**30),
    "memory that wraps": lambda guest: bad_memory(guest, 2**64 - 1),
    "features that nobody offered": bad_message(2, struct.pack("<Q", 2**64 - 1)),
    "a configuration outside": bad_message(24, struct.pack("<III", 300, 8, 0) + bytes(8)),
    "a message that is too long": bad_header(struct.pack("<III", 1, 1, 2**31)),
    "a message of another version": bad_header(struct.pack("<III", 1, 3, 0)),
    "a ring elsewhere": bad_ring_address,
    "an operation of the calendar": bad_operation,
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_cuts_off_the_guest_that_sent_it_and_nobody_else(site: Site, what: str) -> None:
    site.nodes(a={MS: GARBAGE[what]}, b=series(3, source="b", target="c"), c={})
    time, *reason = site.run(S)
    assert reason == ["lost", "a"]
    broken = [event for event in site.client.events if event.startswith("+broken")]
    assert len(broken) == 1
    assert broken[0].startswith(f"+broken a {MS} ")
    site.guests["a"].ended()
    assert site.run(S) == [str(S), "time"]
    assert numbers(site.frames("c")) == [1, 2, 3]
    assert int(time) >= MS
    site.boot("a", {2 * S: lambda guest: guest.write(b"again")})
    assert site.run(3 * S, "a") == [str(2 * S), "wake", "a"]


def test_half_a_message_holds_nobody_up(site: Site) -> None:
    site.nodes(a={MS: lambda guest: guest.devices[0].send(b"\1\0\0")}, b=series(1, source="b", target="a"))
    assert site.run(S) == [str(S), "time"]


def test_a_stranger_at_the_calendar_is_turned_away(site: Site) -> None:
    site.nodes(a={})
    for number in (0, 1, 2, 2**63):
        stranger = socket.socket(socket.AF_UNIX)
        stranger.connect(str(site.folder / "calendar"))
        stranger.sendall(struct.pack("<IIQ", 1, 0, number))
        site.client.ask("now")
        assert stranger.recv(16) == b""
        stranger.close()
    assert site.run(S) == [str(S), "time"]


FUZZ = int(os.environ.get("MONKEYWRENCH_FUZZ", "40"))
PATIENCE_S = 0.02
"""How long a guest waits for an answer to garbage before it ends: it may have sent half a message."""
SEED = int(os.environ.get("MONKEYWRENCH_FUZZ_SEED", "1"))


def fuzz(chance: random.Random) -> Action:
    """One of many ways to send garbage."""

    def act(guest: Guest) -> None:
        device = chance.choice(guest.devices)
        device.socket.settimeout(PATIENCE_S)
        match chance.randrange(5):
            case 0:
                size = chance.choice([0, 4, 8, 12, 40, 41, 300])
                device.send(struct.pack("<III", chance.randrange(40), 9, size) + chance.randbytes(size))
            case 1:
                device.send(chance.randbytes(chance.randrange(1, 600)))
            case 2:
                for _ in range(8):
                    at = chance.choice([0, 0x1000, 0x2000]) + chance.randrange(64) + chance.choice([0, 0x10000])
                    device.memory[at] = chance.randrange(256)
                device.kick(chance.randrange(2))
            case 3:
                request = chance.choice([2, 5, 8, 9, 10, 16, 18, 21, 24, 35])
                words = [chance.choice([0, 1, 2, 8, 255, 2**16, 2**31, 2**32 - 1]) for _ in range(chance.randrange(12))]
                files = [device.file] * chance.randrange(3)
                device.send(struct.pack(f"<III{len(words)}I", request, 9, 4 * len(words), *words), files)
            case _:
                guest.calendar.sendall(struct.pack("<IIQ", chance.randrange(12), 0, chance.randrange(2**63)))
        guest.write(b"still here")

    return act


def test_random_garbage_never_ends_the_simulator(site: Site) -> None:
    chance = random.Random(SEED)
    site.nodes(a={}, b=series(FUZZ, source="b", target="c"), c={})
    for now in range(MS, (FUZZ + 1) * MS, MS):
        if "a" in site.guests:
            site.client.ask("gone", "a")
            site.guests.pop("a").ended()
        site.boot("a", {now - MS // 2: fuzz(chance)})
        while site.run(now)[1] != "time":
            pass
    site.client.ask("gone", "a")
    while site.run(FUZZ * MS + MS)[1] != "time":
        pass
    assert not [event for event in site.client.events if event.split()[1] in ("b", "c")]
    assert numbers(site.frames("c")) == list(range(1, FUZZ + 1))
