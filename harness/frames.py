"""Ethernet frames of ARP and IPv4, made and read. Pure; addresses are text, as ``ip`` shows them.

The formats: RFC 826 (ARP), RFC 791 (IPv4), RFC 768 (UDP), RFC 9293 (TCP), RFC 792 (ICMP).
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

__all__ = [
    "ANY_ADDRESS",
    "BROADCAST",
    "REPLY",
    "REQUEST",
    "UDP_HEADER",
    "Arp",
    "Ipv4",
    "arp_of",
    "datagram",
    "ipv4_of",
    "refusal",
    "rewritten",
]

ARP, IPV4 = b"\x08\x06", b"\x08\x00"
BROADCAST = "ff:ff:ff:ff:ff:ff"
NOBODY, ANY_ADDRESS = "00:00:00:00:00:00", "0.0.0.0"
REQUEST, REPLY = 1, 2
UDP_HEADER = 8
"""Bytes."""
DISCARD = 9
"""The port where no program listens (RFC 863)."""
NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "any": 17}
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
LEAST_TTL = 64
ICMP_ECHO, ICMP_UNREACHABLE, ICMP_ERRORS = 8, 3, (3, 4, 5, 11, 12)
HOST = 1
"""The code of "host unreachable"."""
QUOTED = 8
"""Bytes of a packet's content that an ICMP error quotes."""


def mac_bytes(mac: str) -> bytes:
    """A MAC address as on the wire."""
    return bytes.fromhex(mac.replace(":", ""))


def mac_text(mac: bytes) -> str:
    """A MAC address in text."""
    return mac.hex(":")


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return int(~(total + (total >> 16)) & 0xFFFF)


@dataclass(frozen=True)
class Arp:
    """An ARP message: who says (or asks) what to whom. An announcement has one address twice (RFC 5227, 3)."""

    op: int
    mac: str
    address: str
    target: str
    target_mac: str = NOBODY

    def frame(self, to: str, of: str) -> bytes:
        """The frame, for one MAC address from another."""
        says = mac_bytes(self.mac) + socket.inet_aton(self.address)
        about = mac_bytes(self.target_mac) + socket.inet_aton(self.target)
        return mac_bytes(to) + mac_bytes(of) + ARP + struct.pack("!HHBBH", 1, 0x0800, 6, 4, self.op) + says + about


def arp_of(frame: bytes) -> Arp | None:
    """The ARP message of a frame for Ethernet and IPv4; None for another frame."""
    if frame[12:14] != ARP or len(frame) < 42 or frame[14:20] != b"\x00\x01\x08\x00\x06\x04":
        return None
    op = int.from_bytes(frame[20:22])
    addresses = [socket.inet_ntoa(frame[at : at + 4]) for at in (28, 38)]
    return Arp(op, mac_text(frame[22:28]), addresses[0], addresses[1], mac_text(frame[32:38]))


@dataclass(frozen=True)
class Ipv4:
    """An IPv4 packet with its frame's MAC addresses. ``fragment`` is its offset; ``whole`` has all its bytes."""

    to: str
    of: str
    source: str
    destination: str
    protocol: int
    fragment: int
    content: bytes
    whole: bytes


def ipv4_of(frame: bytes) -> Ipv4 | None:
    """The packet of a frame; None for another frame, and for a packet that is cut off."""
    packet = frame[14:]
    if frame[12:14] != IPV4 or len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    header, total = (packet[0] & 15) * 4, int.from_bytes(packet[2:4])
    if not 20 <= header <= total <= len(packet):
        return None
    return Ipv4(
        mac_text(frame[:6]),
        mac_text(frame[6:12]),
        socket.inet_ntoa(packet[12:16]),
        socket.inet_ntoa(packet[16:20]),
        packet[9],
        int.from_bytes(packet[6:8]) & 0x1FFF,
        packet[header:total],
        packet[:total],
    )


def packet(to: str, of: str, source: str, destination: str, protocol: int, content: bytes) -> bytes:  # noqa: PLR0913, PLR0917 - the fields of two headers
    """A frame with an IPv4 packet, and the checksums of both the packet and its content, whose own is 0."""
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    pseudo = b"" if protocol == NUMBERS["icmp"] else ends + struct.pack("!BBH", 0, protocol, len(content))
    at = {NUMBERS["icmp"]: 2, NUMBERS["tcp"]: 16}.get(protocol, 6)
    content = content[:at] + struct.pack("!H", checksum(pseudo + content)) + content[at + 2 :]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(content), 0, 0x4000, LEAST_TTL, protocol, 0) + ends
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return mac_bytes(to) + mac_bytes(of) + IPV4 + head + content


def rewritten(frame: bytes, content: bytes) -> bytes:
    """The same frame of UDP with another content of the same length, and the checksum that goes with it."""
    old = ipv4_of(frame)
    if old is None or len(content) != len(old.content) - UDP_HEADER:
        raise ValueError("no frame of UDP with a content of that length")
    body = old.content[:6] + b"\0\0" + content
    ends = socket.inet_aton(old.source) + socket.inet_aton(old.destination)
    right = checksum(ends + struct.pack("!BBH", 0, NUMBERS["udp"], len(body)) + body) or 0xFFFF
    body = body[:6] + struct.pack("!H", right) + content
    begin, end = 14 + len(old.whole) - len(old.content), 14 + len(old.whole)
    return frame[:begin] + body + frame[end:]


def datagram(to: str, of: str, source: str, destination: str, protocol: str, port: int = 0, size: int = 0) -> bytes:  # noqa: PLR0913, PLR0917 - the fields of two headers
    """A frame that a node may get at any time, as the program ``frames`` of a node sends it.

    ``protocol`` is tcp (a reset, which is never answered), udp, icmp (an echo request), arp (a probe without a sender
    address, RFC 5227, which changes no cache), or any, which is udp. It comes from ``port`` (0: from port 9) and goes
    to port 9. ``size`` is the packet's size in bytes; 0: as small as possible.
    """
    if protocol == "arp":
        return Arp(REQUEST, of, ANY_ADDRESS, destination).frame(to, of)
    port = port or DISCARD
    if protocol == "icmp":
        header = struct.pack("!BBHHH", ICMP_ECHO, 0, 0, port, 1)
    elif protocol == "tcp":
        header = struct.pack("!HHIIBBHHH", port, DISCARD, 1, 0, 5 << 4, RST, 0, 0, 0)
    else:
        header = struct.pack("!HHHH", port, DISCARD, max(8, size - 20), 0)
    content = header + bytes(max(0, size - 20 - len(header)))
    return packet(to, of, source, destination, NUMBERS[protocol], content)


def refusal(frame: bytes) -> bytes | None:
    """The answer of a firewall that rejects a packet, for the way back: TCP gets a reset, others ICMP host unreachable.

    None for what gets no answer: other frames, broadcast and multicast, later fragments, resets, and ICMP errors
    (RFC 1122, 3.2.2).
    """
    asked = ipv4_of(frame)
    if asked is None or frame[0] & 1 or asked.fragment:
        return None
    if asked.protocol == NUMBERS["tcp"]:
        content = reset(asked.content)
    elif asked.protocol == NUMBERS["icmp"] and (not asked.content or asked.content[0] in ICMP_ERRORS):
        return None
    else:
        header = len(asked.whole) - len(asked.content)
        quoted = asked.whole[: header + QUOTED]
        content = struct.pack("!BBHI", ICMP_UNREACHABLE, HOST, 0, 0) + quoted
    protocol = NUMBERS["tcp" if asked.protocol == NUMBERS["tcp"] else "icmp"]
    return packet(asked.of, asked.to, asked.destination, asked.source, protocol, content) if content else None


def reset(segment: bytes) -> bytes:
    """The reset that answers a TCP segment (RFC 9293, 3.10.7.1); empty for a reset, and for what is no segment."""
    if len(segment) < 20 or segment[13] & RST:
        return b""
    source, destination, sequence, acknowledged = struct.unpack("!HHII", segment[:12])
    if segment[13] & ACK:
        return struct.pack("!HHIIBBHHH", destination, source, acknowledged, 0, 5 << 4, RST, 0, 0, 0)
    length = len(segment) - (segment[12] >> 4) * 4 + bool(segment[13] & SYN) + bool(segment[13] & FIN)
    numbers = struct.pack("!HHII", destination, source, 0, (sequence + length) & 0xFFFFFFFF)
    return numbers + struct.pack("!BBHHH", 5 << 4, RST | ACK, 0, 0, 0)
