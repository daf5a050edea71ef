"""The ARP watcher: literal frames, clock arithmetic, and the program on a veth pair in a namespace of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from harness.wait import until
from tests.support.program import DEADLINE_S, Program
from topology.images.switch import arpwatch
from topology.images.switch.arpwatch import Arp, monotonic_ns, parse, stamp

REQUEST = bytes.fromhex(
    "ffffffffffff 0242c6120a01 0806"  # to all, from 02:42:c6:12:0a:01, ARP
    "0001 0800 06 04 0001"  # Ethernet, IPv4, lengths, request
    "0242c6120a01 cb00710a 000000000000 cb007165"  # 203.0.113.10 asks for 203.0.113.101
)
REPLY = bytes.fromhex("0242c6120a01 0242c6120a02 0806 0001 0800 06 04 0002 0242c6120a02 cb007165 0242c6120a01 cb00710a")
GRATUITOUS = bytes.fromhex(
    "ffffffffffff 0242c6120a02 0806 0001 0800 06 04 0001 0242c6120a02 cb007165 ffffffffffff cb007165"
)


def changed(frame: bytes, at: int, to: str) -> bytes:
    new = bytes.fromhex(to)
    return frame[:at] + new + frame[at + len(new) :]


def test_a_request() -> None:
    assert parse(REQUEST) == Arp("request", "203.0.113.10", "02:42:c6:12:0a:01", "203.0.113.101", False)


def test_a_reply() -> None:
    assert parse(REPLY) == Arp("reply", "203.0.113.101", "02:42:c6:12:0a:02", "203.0.113.10", False)


def test_gratuitous_requests_and_replies() -> None:
    assert parse(GRATUITOUS) == Arp("request", "203.0.113.101", "02:42:c6:12:0a:02", "203.0.113.101", True)
    reply = parse(changed(GRATUITOUS, 20, "0002"))
    assert reply is not None
    assert (reply.op, reply.gratuitous) == ("reply", True)


def test_the_sender_is_the_one_in_the_arp_message_and_not_the_frames() -> None:
    forged = parse(changed(REPLY, 6, "020000000099"))
    assert forged is not None
    assert forged.mac == "02:42:c6:12:0a:02"


def test_the_zero_address_announces_nothing() -> None:
    probe = parse(changed(changed(GRATUITOUS, 28, "00000000"), 38, "00000000"))
    assert probe is not None
    assert not probe.gratuitous


def test_padding_does_not_matter() -> None:
    assert parse(REQUEST.ljust(60, b"\x00")) == parse(REQUEST)


@pytest.mark.parametrize(
    "frame",
    [
        REQUEST[:41],
        b"",
        changed(REQUEST, 12, "0800"),
        changed(REQUEST, 12, "8100"),
        changed(REQUEST, 14, "0006"),
        changed(REQUEST, 16, "86dd"),
        changed(REQUEST, 18, "08"),
        changed(REQUEST, 19, "10"),
        changed(REQUEST, 20, "0003"),
        changed(REQUEST, 20, "0000"),
    ],
)
def test_anything_else_is_ignored(frame: bytes) -> None:
    assert parse(frame) is None


def test_a_kernel_stamp_becomes_monotonic_by_the_offset_of_now() -> None:
    assert monotonic_ns(1_700_000_000_000_000_000, 1_700_000_000_000_250_000, 5_000_000) == 4_750_000


@pytest.mark.parametrize("stamp_ns", [None, 1_001, 1_000 - 1_000_000_001])
def test_without_a_believable_stamp_it_is_now(stamp_ns: int | None) -> None:
    assert monotonic_ns(stamp_ns, 1_000, 777) == 777


def test_the_stamp_is_found_among_ancillary_data() -> None:
    data = struct.pack("@ll", 1_700_000_000, 123)
    assert stamp([(1, 2, data), (socket.SOL_SOCKET, 35, data)]) == 1_700_000_000_000_000_123
    assert stamp([(1, 35, data[:8]), (263, 35, data)]) is None


def test_both_clocks_are_read_at_the_same_moment() -> None:
    """The wall clock's lead, as it was before and after: however long this takes, it lies in between."""
    before_ns = time.monotonic_ns(), time.time_ns()
    realtime, monotonic = arpwatch.clocks()
    after_ns = time.time_ns(), time.monotonic_ns()
    assert before_ns[0] <= monotonic <= after_ns[1]
    assert before_ns[1] <= realtime <= after_ns[0]


def test_wrong_usage_and_wrong_interfaces_end_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert arpwatch.main([]) == 2
    assert "usage" in capsys.readouterr().err
    assert arpwatch.main(["no-such-if"]) == 1
    assert capsys.readouterr().err.startswith("arpwatch: cannot watch no-such-if: ")


class Quiet:
    """A clock that moves on where the program waits, for 300 ms at a time: a frame that is no ARP comes that often."""

    def __init__(self) -> None:
        self.now_ns = 5_000_000_000

    def monotonic_ns(self) -> int:
        return self.now_ns

    def select(
        self, wires: list[socket.socket], _: list[object], __: list[object], within_s: float
    ) -> tuple[list[socket.socket], list[object], list[object]]:
        waited_ns = min(round(1e9 * within_s), 300_000_000)
        self.now_ns += waited_ns
        return (wires if waited_ns == 300_000_000 else []), [], []


def test_it_prints_a_sign_of_life_every_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, alive = Quiet(), list[int]()

    def noted(line: dict[str, Any]) -> None:
        alive.append(line["t"])
        if len(alive) == 5:
            raise BrokenPipeError

    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        far.setblocking(False)
        monkeypatch.setattr(arpwatch, "listen", lambda _: far)
        monkeypatch.setattr(arpwatch, "emit", noted)
        monkeypatch.setattr(arpwatch, "time", clock)
        monkeypatch.setattr(arpwatch, "select", clock)
        assert arpwatch.main(["lo"]) == 0
    assert [later - earlier for earlier, later in pairwise(alive)] == [1_000_000_000] * 4


# ---- the program


def _ip(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *argv], capture_output=True, text=True, check=False, timeout=DEADLINE_S)


class Wire:
    """Two ends of a veth pair in one namespace; frames sent at ``near`` arrive at ``far``."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def watch(self) -> Program:
        return Program(self._argv(arpwatch.__file__, "far"))

    def send(self, frame: bytes) -> int:
        """Send one frame; returns the monotonic time right after it, in ns."""
        code = (
            "import socket, sys, time; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('near', 0));"
            "s.send(bytes.fromhex(sys.argv[1])); print(time.monotonic_ns())"
        )
        argv = self._argv("-c", code, frame.hex())
        return int(subprocess.run(argv, capture_output=True, check=True, timeout=DEADLINE_S).stdout)

    def link(self, *argv: str) -> None:
        assert _ip("-n", self.namespace, "link", *argv).returncode == 0

    def wait_until_up(self) -> None:
        """Both ends have a carrier. The kernel hands it on a little later, and drops what is sent before."""

        def up() -> bool:
            links = json.loads(_ip("-n", self.namespace, "-j", "link", "show", "type", "veth").stdout)
            return {link["ifname"]: link["operstate"] for link in links} == {"near": "UP", "far": "UP"}

        until(up, DEADLINE_S, "the carrier")

    def _argv(self, *argv: str) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, sys.executable, *argv]


@pytest.fixture
def wire() -> Iterator[Wire]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2 to make a network namespace")
    namespace = f"arpwatch-{os.getpid()}"
    made = _ip("netns", "add", namespace)
    if made.returncode != 0:
        pytest.skip(f"cannot make a network namespace: {made.stderr.strip()}")
    try:
        pair = _ip("-n", namespace, "link", "add", "near", "type", "veth", "peer", "name", "far")
        if pair.returncode != 0:
            pytest.skip(f"cannot make a veth pair: {pair.stderr.strip()}")
        for end in ("near", "far"):
            # Without addresses, and without IPv6, the kernel itself says nothing on this wire.
            assert _ip("-n", namespace, "link", "set", end, "up").returncode == 0
        made_of = Wire(namespace)
        made_of.wait_until_up()
        yield made_of
    finally:
        _ip("netns", "del", namespace)


def _frames(program: Program, count: int) -> list[dict[str, Any]]:
    """The first frames, once there are that many."""
    program.until(lambda: len(_all_frames(program)) >= count, f"{count} frames")
    return _all_frames(program)[:count]


def _all_frames(program: Program) -> list[dict[str, Any]]:
    return [line for line in program.lines[:] if "op" in line]


def test_frames_on_a_real_wire(wire: Wire) -> None:
    program = wire.watch()
    [alive] = program.lines_until(1)
    assert alive.keys() == {"t", "alive"}
    # A veth end passes everything up; a bridge gives others' unicast replies only to who is promiscuous.
    [link] = json.loads(_ip("-n", wire.namespace, "-d", "-j", "link", "show", "far").stdout)
    assert link["promiscuity"] == 1
    seen = 0

    def in_order() -> bool:
        """Send frames; whether each has the time at which it arrived, and not the one at which it was read.

        A kernel's timestamp that is a second old counts as now, so this may need a moment without such a stall.
        """
        nonlocal seen
        before = time.monotonic_ns()
        # The IPv4 frame between is not ARP.
        sent = [wire.send(frame) for frame in (REPLY, changed(REPLY, 12, "0800").ljust(60, b"\x00"), GRATUITOUS)]
        seen += 2
        reply, gratuitous = (dict(frame) for frame in _frames(program, seen)[-2:])
        at, later = reply.pop("t"), gratuitous.pop("t")
        assert before < at <= later <= time.monotonic_ns()
        assert (reply, gratuitous) == (vars(parse(REPLY)), vars(parse(GRATUITOUS)))
        return bool(at <= sent[0] < later <= sent[2])

    until(in_order, DEADLINE_S, "frames with the times of their arrival")
    program.process.kill()
    program.end()


def test_it_goes_on_when_its_interface_goes_down_and_up(wire: Wire) -> None:
    program = wire.watch()
    program.lines_until(1)
    wire.link("set", "far", "down")
    program.lines_until(2)
    wire.link("set", "far", "up")
    wire.wait_until_up()
    wire.send(GRATUITOUS)
    [frame] = _frames(program, 1)
    assert frame["op"] == "request"
    program.process.kill()
    program.end()


def test_it_ends_when_its_reader_is_gone(wire: Wire) -> None:
    argv = ["ip", "netns", "exec", wire.namespace, sys.executable, arpwatch.__file__, "far"]
    deaf = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert deaf.stdout is not None
    assert deaf.stderr is not None
    assert deaf.stdout.readline()
    deaf.stdout.close()
    assert deaf.wait(timeout=DEADLINE_S) == 0
    assert deaf.stderr.read() == ""


def test_it_ends_when_its_interface_is_gone(wire: Wire) -> None:
    watcher = wire.watch()
    watcher.lines_until(1)
    wire.link("del", "far")
    assert watcher.end() == 1
    assert watcher.error_text.startswith("arpwatch: cannot watch far: ")
