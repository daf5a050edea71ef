#!/usr/bin/env python3
"""The site's round-robin DNS server: authoritative for one zone, over UDP and TCP.

``resolver.py ZONE.toml [--address 203.0.113.53] [--port 53]``, where ZONE.toml holds::

    zone = "example.test"
    site = "www.example.test"
    ttl_s = 5
    addresses = ["203.0.113.101", "203.0.113.102"]

Every answer with the site's addresses has all of them, in an order that is one cyclic step on from the answer
before. One thread computes and sends every answer, UDP or TCP, so the order on the wire is the order of the rotation;
threads would need a lock held until the packet is out. ``dnslib.server`` is not used for that reason, and because it
answers one query per TCP connection and neither malformed packets nor EDNS.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import signal
import socket
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from dnslib import CLASS, NS, QTYPE, RCODE, RD, RR, SOA, A, DNSHeader, DNSRecord
from dnslib.dns import EDNS0
from dnslib.label import DNSBuffer

HEADER_BYTES = 12
QUERY = 0
KEPT_BITS = 0x7910
"""The bits that a reply copies from the query's flags: opcode, RD and CD (RFC 1035 4.1.1, RFC 4035 3.2.2)."""
RESPONSE = 0x8000
PLAIN_UDP_BYTES = 512
"""RFC 1035 4.2.1: the largest UDP message for a client without EDNS."""
OWN_UDP_BYTES = 1232
"""Fits an IPv6 minimum MTU unfragmented; the usual EDNS buffer size since DNS flag day 2020."""
ZONE_TTL_S = 3600
MAX_TTL_S = 2**31 - 1
"""RFC 2181 8."""
MAX_ADDRESSES = 1000
"""A TCP message holds 65,535 bytes, an address takes 16."""
IDLE_S = 10.0
BADVERS = 1
"""The upper 8 bits of BADVERS (16), which the OPT record has (RFC 6891 6.1.3)."""
IP_FREEBIND = 15
"""linux/in.h. Python's socket module has no name for it."""

Name = tuple[bytes, ...]


class ZoneError(Exception):
    """The zone file is wrong; the message is one sentence that names the key."""


@dataclass(frozen=True)
class Zone:
    """The content of ZONE.toml."""

    zone: str
    site: str
    ttl_s: int
    addresses: tuple[str, ...]


def zone(table: Mapping[str, Any]) -> Zone:
    """Check the content of ZONE.toml. Raises ZoneError."""
    keys = {"zone", "site", "ttl_s", "addresses"}
    if table.keys() != keys:
        wrong = ", ".join(sorted(table.keys() ^ keys))
        raise ZoneError(f"the zone file must have exactly the keys addresses, site, ttl_s and zone (look at: {wrong})")
    found = Zone(str(table["zone"]), str(table["site"]), _ttl(table["ttl_s"]), _addresses(table["addresses"]))
    if not _within(name_of(found.site), name_of(found.zone)):
        raise ZoneError(f"site: {found.site} is not in the zone {found.zone}")
    if name_of(found.site) == (b"ns", *name_of(found.zone)):
        raise ZoneError(f"site: {found.site} is the name of the zone's own name server")
    return found


def _ttl(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_TTL_S:
        raise ZoneError(f"ttl_s: {value!r} is not a whole number of seconds from 0 to {MAX_TTL_S}")
    return value


def _addresses(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_ADDRESSES or len(set(value)) < len(value):
        raise ZoneError(f"addresses: must be a list of 1 to {MAX_ADDRESSES} different IPv4 addresses")
    try:
        return tuple(str(ipaddress.IPv4Address(text)) for text in value)
    except ValueError as error:
        raise ZoneError(f"addresses: {error}") from error


def name_of(text: str) -> Name:
    """A name as its labels in lower case, for comparisons (RFC 4343: only ASCII letters fold)."""
    return tuple(label.lower() for label in text.encode("ascii").rstrip(b".").split(b"."))


def _within(name: Name, ancestor: Name) -> bool:
    return name[-len(ancestor) :] == ancestor


class Resolver:
    """Packets in, packets out. Not for use by several threads: see the module's docstring."""

    def __init__(self, served: Zone, address: str) -> None:
        """``address`` is where the zone's name server is reached; it becomes the A record of ``ns.<zone>``."""
        self._zone = served
        self._apex = name_of(served.zone)
        self._site = name_of(served.site)
        self._turn = 0
        ns = f"ns.{served.zone}"
        times = (1, ZONE_TTL_S, 600, 86_400, served.ttl_s)
        self._soa = SOA(ns, f"hostmaster.{served.zone}", times)
        self._fixed: dict[Name, dict[int, RD]] = {
            self._apex: {QTYPE.SOA: self._soa, QTYPE.NS: NS(ns)},
            name_of(ns): {QTYPE.A: A(address)},
        }

    def answer(self, packet: bytes, *, udp: bool) -> bytes | None:
        """The reply to one packet, or None when none may be sent: it has no header, or is itself a reply."""
        if len(packet) < HEADER_BYTES:
            return None
        header = DNSHeader.parse(DNSBuffer(packet))
        if header.qr:
            return None
        if header.opcode != QUERY:
            return _bare(header, RCODE.NOTIMP)
        query = _parse(packet)
        if query is None:
            return _bare(header, RCODE.FORMERR)
        return self._reply(query, udp=udp)

    def _reply(self, query: DNSRecord, *, udp: bool) -> bytes:
        reply = DNSRecord(_reply_header(query.header), q=query.q)
        opt = _opt(query)
        if opt is not None:
            reply.add_ar(_own_opt(opt))
        if opt is None or opt.edns_ver == 0:
            self._fill(reply)
        packed: bytes = reply.pack()
        if len(packed) > _limit(opt, udp=udp):
            return _truncated(reply)
        # A truncated reply shows no order, so it does not rotate: the client's retry over TCP does.
        if any(record.rtype == QTYPE.A for record in reply.rr) and self._labels(reply) == self._site:
            self._turn = (self._turn + 1) % len(self._zone.addresses)
        return packed

    @staticmethod
    def _labels(reply: DNSRecord) -> Name:
        return tuple(label.lower() for label in reply.q.qname.label)

    def _fill(self, reply: DNSRecord) -> None:
        """Answer the question of ``reply`` by RFC 1034 4.3.2."""
        name, question = self._labels(reply), reply.q
        if not _within(name, self._apex) or question.qclass != CLASS.IN or question.qtype in (QTYPE.AXFR, QTYPE.IXFR):
            reply.header.rcode = RCODE.REFUSED
            return
        reply.header.aa = 1
        reply.add_answer(*self._answers(name, question))
        if not reply.rr:
            reply.header.rcode = RCODE.NOERROR if self._exists(name) else RCODE.NXDOMAIN
            # RFC 2308 3: the SOA of a negative answer lives as long as the negative answer itself may.
            reply.add_auth(RR(self._zone.zone, QTYPE.SOA, ttl=min(self._zone.ttl_s, ZONE_TTL_S), rdata=self._soa))
        elif question.qtype == QTYPE.NS:
            ns = f"ns.{self._zone.zone}"
            reply.add_ar(RR(ns, QTYPE.A, ttl=ZONE_TTL_S, rdata=self._fixed[name_of(ns)][QTYPE.A]))

    def _answers(self, name: Name, question: Any) -> list[RR]:
        wanted = {QTYPE.A, QTYPE.NS, QTYPE.SOA} if question.qtype == QTYPE.ANY else {question.qtype}
        fixed = self._fixed.get(name, {})
        found = [
            RR(question.qname, rtype, ttl=ZONE_TTL_S, rdata=data) for rtype, data in fixed.items() if rtype in wanted
        ]
        if name == self._site and QTYPE.A in wanted:
            order = self._zone.addresses[self._turn :] + self._zone.addresses[: self._turn]
            found += [RR(question.qname, QTYPE.A, ttl=self._zone.ttl_s, rdata=A(address)) for address in order]
        return found

    def _exists(self, name: Name) -> bool:
        """True for a name with records, and for one that only has names below it (RFC 8020: an empty non-terminal)."""
        return any(_within(known, name) for known in (self._site, *self._fixed))


def _parse(packet: bytes) -> DNSRecord | None:
    """The query, or None when it is malformed. One question only (RFC 9619), at most one OPT, at the root."""
    try:
        query = DNSRecord.parse(packet)
        # dnslib reads labels and names that are too long (RFC 1035 2.3.4) and only complains when it has to write them.
        DNSBuffer().encode_name(query.q.qname)
    except Exception:  # malformed packets make dnslib raise many types, UnicodeError and RecursionError included
        return None
    opts = [record for record in query.ar if record.rtype == QTYPE.OPT]
    if len(query.questions) != 1 or len(opts) > 1 or any(opt.rname.label for opt in opts):
        return None
    return query


def _opt(query: DNSRecord) -> Any:
    return next((record for record in query.ar if record.rtype == QTYPE.OPT), None)


def _own_opt(opt: Any) -> EDNS0:
    """The OPT record of the reply: version 0, DO as the client set it (RFC 3225 3), no options."""
    ext_rcode = BADVERS if opt.edns_ver > 0 else 0
    return EDNS0(ext_rcode=ext_rcode, udp_len=OWN_UDP_BYTES, flags="do" if opt.edns_do else "")


def _limit(opt: Any, *, udp: bool) -> int:
    if not udp:
        return 0xFFFF
    # RFC 6891 6.2.3: a client's size below 512 means 512.
    return PLAIN_UDP_BYTES if opt is None else max(PLAIN_UDP_BYTES, min(opt.edns_len, OWN_UDP_BYTES))


def _reply_header(header: DNSHeader) -> DNSHeader:
    return DNSHeader(id=header.id, bitmap=RESPONSE | header.bitmap & KEPT_BITS)


def _bare(header: DNSHeader, rcode: int) -> bytes:
    reply = DNSRecord(_reply_header(header))
    reply.header.rcode = rcode
    packed: bytes = reply.pack()
    return packed


def _truncated(reply: DNSRecord) -> bytes:
    """The same reply with TC and without records, but with its question and OPT (RFC 6891 7)."""
    reply.header.tc = 1
    reply.rr, reply.auth = [], []
    reply.ar = [record for record in reply.ar if record.rtype == QTYPE.OPT]
    packed: bytes = reply.pack()
    return packed


class Udp(asyncio.DatagramProtocol):
    """Answers each datagram, to its sender."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, for the answers."""
        # Python 3.11's own datagram transport is no instance of DatagramTransport.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer one query."""
        reply = self._resolver.answer(data, udp=True)
        if reply is not None:
            self._transport.sendto(reply, addr)


async def converse(
    resolver: Resolver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle_s: float
) -> None:
    """Answer the queries of one TCP connection in their order until it ends or idles (RFC 7766)."""
    try:
        while True:
            async with asyncio.timeout(idle_s):
                length = int.from_bytes(await reader.readexactly(2), "big")
                reply = resolver.answer(await reader.readexactly(length), udp=False)
                if reply is None:
                    return
                writer.write(len(reply).to_bytes(2, "big") + reply)
                await writer.drain()
    except (TimeoutError, asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        # An open conversation is cancelled at the program's end, which Python 3.11 would log as an error.
        return
    finally:
        writer.close()


def _bound(kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, kind)
    bound.setblocking(False)
    if kind == socket.SOCK_STREAM:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # The program may start before its cable is plugged in; the address does not exist then.
    bound.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
    bound.bind((address, port))
    return bound


async def serve(served: Zone, address: str, port: int, idle_s: float) -> None:
    """Serve until SIGTERM or SIGINT. ``port`` 0 takes a free one; the first line printed has it. Raises OSError."""
    resolver = Resolver(served, address)
    tcp = _bound(socket.SOCK_STREAM, address, port)
    port = tcp.getsockname()[1]
    loop = asyncio.get_running_loop()
    udp, _ = await loop.create_datagram_endpoint(lambda: Udp(resolver), sock=_bound(socket.SOCK_DGRAM, address, port))
    server = await asyncio.start_server(lambda r, w: converse(resolver, r, w, idle_s), sock=tcp)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    addresses = " ".join(served.addresses)
    print(f"resolver: {served.site} -> {addresses}, ttl {served.ttl_s} s, on {address}:{port} udp and tcp", flush=True)
    await stop.wait()
    udp.close()
    server.close()


def main(argv: list[str] | None = None) -> int:
    """The program. Exit 0 after SIGTERM, 2 when the zone file is wrong, 1 when the address cannot be served."""
    parser = argparse.ArgumentParser(prog="resolver.py", description="Round-robin DNS for one zone.")
    parser.add_argument("zone", type=Path, metavar="ZONE.toml")
    parser.add_argument("--address", default="203.0.113.53")
    parser.add_argument("--port", type=int, default=53)
    parser.add_argument("--idle-s", type=float, default=IDLE_S, help="close a TCP connection that is silent this long")
    given = parser.parse_args(argv)
    try:
        served = zone(tomllib.loads(given.zone.read_text(encoding="utf-8")))
        asyncio.run(serve(served, given.address, given.port, given.idle_s))
    except (ZoneError, ValueError) as error:
        print(f"resolver: {given.zone}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"resolver: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
