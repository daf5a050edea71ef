"""The outage that the check reports, and the one that a capture of the client's cable shows."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from faults import FAULTS
from harness.artifacts.stored_run import judge_directory
from harness.run import run
from harness.scenario import CaptureTable, load
from loadtests.feeds import feeds
from topology.lab.docker_lab import DockerLab

SCENARIO = Path(__file__).parents[1] / "chaos/director-power-cut.toml"
CABLE = "client.eth0"
VIP = "203.0.113.101"
AGREE_MS = 5.0

# draft-ietf-opsawg-pcapng: block types, and the option of an interface that has the unit of its times
INTERFACE, PACKET, IF_TSRESOL = 1, 6, 9
SYN, ACK = 0x02, 0x10


def blocks(capture: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each block."""
    at = 0
    while at < len(capture):
        kind, length = struct.unpack_from("<II", capture, at)
        yield kind, capture[at + 8 : at + length - 4]
        at += length


def resolution_s(interface: bytes) -> float:
    """What one step of its times is; microseconds, where it does not say."""
    at = 8
    while at + 4 <= len(interface):
        code, length = struct.unpack_from("<HH", interface, at)
        if code == IF_TSRESOL:
            value = interface[at + 4]
            return float(2 ** -(value & 0x7F) if value & 0x80 else 10**-value)
        at += 4 + (length + 3) // 4 * 4
    return 1e-6


def frames(capture: bytes) -> Iterator[tuple[float, bytes]]:
    """Time and bytes of each frame of a capture of one interface."""
    unit_s = 1e-6
    for kind, body in blocks(capture):
        if kind == INTERFACE:
            unit_s = resolution_s(body)
        elif kind == PACKET:
            _, high, low, length, _ = struct.unpack_from("<IIIII", body)
            yield ((high << 32) | low) * unit_s, body[20 : 20 + length]


@dataclass
class Connection:
    """One of the client's. A port is used again, so it is told apart by its first sequence number as well."""

    isn: int
    began_s: float
    asked: bool = False
    answered_s: float | None = None


def good(capture: bytes, vip: str) -> list[tuple[float, float]]:
    """The probes of a VIP that were answered: when each began, and when its answer came."""
    latest: dict[int, Connection] = {}
    found: list[Connection] = []
    address = bytes(int(part) for part in vip.split("."))
    for time_s, frame in frames(capture):
        ip = frame[14:]
        tcp = ip[(ip[0] & 15) * 4 : int.from_bytes(ip[2:4], "big")]
        source, target, number = struct.unpack_from(">HHI", tcp)
        payload = tcp[(tcp[12] >> 4) * 4 :]
        if ip[16:20] == address and tcp[13] & (SYN | ACK) == SYN:
            if source not in latest or latest[source].isn != number:
                latest[source] = Connection(number, time_s)
                found.append(latest[source])
        elif ip[16:20] == address and payload.startswith(b"GET /alive") and source in latest:
            latest[source].asked = True
        elif ip[12:16] == address and payload.startswith(b"HTTP/1.1 200") and target in latest:
            answered = latest[target]
            answered.answered_s = answered.answered_s or time_s
    return [(each.began_s, each.answered_s) for each in found if each.asked and each.answered_s is not None]


def outage_ms(probes: list[tuple[float, float]]) -> float:
    """From the sending of the last good probe to the next good answer, where that is longest."""
    return max(next_answered - began for (began, _), (_, next_answered) in pairwise(probes)) * 1000


def test_the_outage_of_a_takeover_agrees_with_the_capture(lab: DockerLab, tmp_path: Path) -> None:
    capture = CaptureTable(segments=(CABLE,), filter="tcp port 80")
    told = load(SCENARIO).model_copy(update={"capture": capture})
    run(told, lab, FAULTS, feeds(lab, told.load), tmp_path)
    verdicts = {each.check: each for each in judge_directory(tmp_path, told)}
    reported: list[dict[str, Any]] = verdicts["outage"].numbers["outages"]
    takeover = next(each for each in reported if each["vip"] == VIP and each["kind"] == "takeover")
    wire_ms = outage_ms(good((tmp_path / "capture.pcapng").read_bytes(), VIP))
    assert abs(takeover["upper_ms"] - wire_ms) <= AGREE_MS, (takeover, wire_ms)
