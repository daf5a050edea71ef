# SPDX-License-Identifier: GPL-2.0-only
"""Frames that are made and read, held against scapy, which another program of this project uses."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from harness import frames

A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
ONE, OTHER = "198.18.1.11", "198.18.1.12"


def right(frame: bytes) -> Packet:
    """The frame as scapy reads it, if scapy computes the same checksums."""
    read = Ether(frame)
    again = read.copy()
    for layer in (IP, UDP, TCP, ICMP):
        if layer in again:
            del again[layer].chksum
    assert bytes(again) == frame
    return read


@pytest.mark.parametrize(("protocol", "layer"), [("tcp", TCP), ("udp", UDP), ("icmp", ICMP), ("any", UDP)])
@pytest.mark.parametrize("size", [0, 61, 1500])
def test_a_datagram_has_its_size_and_right_checksums(protocol: str, layer: type[Packet], size: int) -> None:
    read = right(frames.datagram(B, A, ONE, OTHER, protocol, 694, size))
    assert layer in read
    assert (read.dst, read.src, read[IP].src, read[IP].dst) == (B, A, ONE, OTHER)
    assert read[IP].len == size or not size
    if protocol in {"tcp", "udp"}:
        assert (read[layer].sport, read[layer].dport) == (694, 9)


def test_arp_is_read_as_it_was_made() -> None:
    made = frames.Arp(frames.REPLY, A, ONE, OTHER, B)
    frame = made.frame(B, A)
    read = Ether(frame)[ARP]
    assert (read.op, read.hwsrc, read.psrc, read.pdst, read.hwdst) == (2, A, ONE, OTHER, B)
    assert frames.arp_of(frame) == made
    assert frames.arp_of(frame + bytes(18)) == made  # padded to the shortest frame
    assert frames.arp_of(frame[:41]) is None
    assert frames.arp_of(frames.datagram(B, A, ONE, OTHER, "udp")) is None


@pytest.mark.parametrize("cut", [0, 13, 14, 20, 33])
def test_what_is_cut_off_is_no_packet(cut: int) -> None:
    assert frames.ipv4_of(frames.datagram(B, A, ONE, OTHER, "udp", size=100)[:cut]) is None


def test_a_connection_is_reset_as_its_own_machine_would() -> None:
    syn = Ether(src=A, dst=B) / IP(src=ONE, dst=OTHER) / TCP(sport=5000, dport=80, flags="S", seq=1000)
    answer = right(frames.refusal(bytes(syn)) or b"")
    assert (answer.src, answer.dst, answer[IP].src, answer[IP].dst) == (B, A, OTHER, ONE)
    tcp = answer[TCP]
    assert (tcp.sport, tcp.dport, str(tcp.flags), tcp.seq, tcp.ack) == (80, 5000, "RA", 0, 1001)
    data = (
        Ether(src=A, dst=B) / IP(src=ONE, dst=OTHER) / TCP(sport=5000, dport=80, flags="PA", seq=7, ack=99) / b"hello"
    )
    tcp = right(frames.refusal(bytes(data)) or b"")[TCP]
    assert (str(tcp.flags), tcp.seq) == ("R", 99)
    fin = Ether(src=A, dst=B) / IP(src=ONE, dst=OTHER) / TCP(flags="F", seq=2**32 - 3) / b"hello"
    assert right(frames.refusal(bytes(fin)) or b"")[TCP].ack == 3  # 5 bytes and the FIN


def test_other_packets_are_unreachable() -> None:
    asked = Ether(src=A, dst=B) / IP(src=ONE, dst=OTHER) / UDP(sport=5000, dport=53) / Raw(b"x" * 100)
    answer = right(frames.refusal(bytes(asked)) or b"")
    assert (answer[IP].src, answer[IP].dst, answer[ICMP].type, answer[ICMP].code) == (OTHER, ONE, 3, 1)
    assert bytes(answer[ICMP].payload) == bytes(asked[IP])[:28]


@pytest.mark.parametrize(
    "frame",
    [
        bytes(Ether(src=A, dst=B) / IP(src=ONE, dst=OTHER) / TCP(flags="R")),
        bytes(Ether(src=A, dst=B) / IP(src=ONE, dst=OTHER) / ICMP(type=3, code=1) / Raw(bytes(28))),
        bytes(Ether(src=A, dst="ff:ff:ff:ff:ff:ff") / IP(src=ONE, dst="198.18.1.255") / UDP()),
        bytes(Ether(src=A, dst="01:00:5e:00:00:51") / IP(src=ONE, dst="224.0.0.81") / UDP()),
        bytes(Ether(src=A, dst=B) / IP(src=ONE, dst=OTHER, frag=10) / Raw(bytes(50))),
        bytes(Ether(src=A, dst=B) / ARP()),
        bytes(Ether(src=A, dst=B) / IP(src=ONE, dst=OTHER, proto=6) / Raw(bytes(5))),
        b"",
    ],
    ids=["reset", "icmp error", "broadcast", "multicast", "fragment", "arp", "no segment", "nothing"],
)
def test_some_packets_get_no_answer(frame: bytes) -> None:
    assert frames.refusal(frame) is None


def test_another_content_has_another_checksum() -> None:
    frame = frames.datagram(B, A, ONE, OTHER, "udp", 694, 60)
    changed = frames.rewritten(frame + b"pad", b"z" * 32)
    assert bytes(right(changed[:-3])[UDP].payload) == b"z" * 32
    assert changed[-3:] == b"pad"
    with pytest.raises(ValueError, match="of that length"):
        frames.rewritten(frame, b"z")


def test_a_checksum_of_zero_is_sent_as_ones() -> None:
    """0 means that there is none (RFC 768)."""
    frame = frames.datagram(B, A, ONE, OTHER, "udp", 694, 30)
    usual = frames.rewritten(frame, bytes(2))[40:42]
    assert frames.rewritten(frame, usual)[40:42] == b"\xff\xff"
