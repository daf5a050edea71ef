"""The resolver: single answers as packets, and the program on loopback."""

from __future__ import annotations

import re
import signal
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from dnslib import CLASS, OPCODE, QTYPE, RCODE, DNSHeader, DNSQuestion, DNSRecord
from dnslib.dns import EDNS0
from hypothesis import given
from hypothesis import strategies as st

from harness.wait import NotYet, until
from tests.support.program import DEADLINE_S
from topology.images.resolver import resolver
from topology.images.resolver.resolver import Resolver, Zone, ZoneError, zone

VIPS = ("203.0.113.101", "203.0.113.102", "203.0.113.103")
ZONE = Zone("example.test", "www.example.test", 5, VIPS)
FORMERR = bytes.fromhex("1234 8101 0000 0000 0000 0000")


def fresh(served: Zone = ZONE) -> Resolver:
    return Resolver(served, "203.0.113.53")


def ask(server: Resolver, name: str, qtype: str = "A", *, udp: bool = True, **edns: Any) -> Any:
    query = DNSRecord.question(name, qtype)
    if edns:
        query.add_ar(EDNS0(**edns))
    packet = server.answer(query.pack(), udp=udp)
    assert packet is not None
    reply = DNSRecord.parse(packet)
    assert reply.header.id == query.header.id
    return reply


def addresses(reply: Any) -> tuple[str, ...]:
    return tuple(str(record.rdata) for record in reply.rr if record.rtype == QTYPE.A)


def rotated(addresses: tuple[str, ...], steps: int) -> tuple[str, ...]:
    steps %= len(addresses)
    return addresses[steps:] + addresses[:steps]


def test_each_answer_rotates_the_addresses_by_one() -> None:
    server = fresh()
    for step in range(7):
        assert addresses(ask(server, "www.example.test", udp=step % 2 == 0)) == rotated(VIPS, step)


def test_only_queries_for_the_sites_addresses_rotate_them() -> None:
    server = fresh()
    first = addresses(ask(server, "www.example.test"))
    for name, qtype in [("ns.example.test", "A"), ("nope.example.test", "A"), ("www.example.test", "AAAA")]:
        ask(server, name, qtype)
    server.answer(b"\x12\x34\x01\x00\x00\x01" + b"\xff" * 9, udp=True)
    assert addresses(ask(server, "www.example.test")) == rotated(first, 1)


def test_an_answer_is_authoritative_has_the_zones_ttl_and_offers_no_recursion() -> None:
    reply = ask(fresh(), "www.example.test")
    assert (reply.header.qr, reply.header.aa, reply.header.ra, reply.header.rd, reply.header.tc) == (1, 1, 0, 1, 0)
    assert reply.header.rcode == RCODE.NOERROR
    assert [(str(r.rname), r.ttl, r.rclass) for r in reply.rr] == [("www.example.test.", 5, CLASS.IN)] * 3
    assert not reply.auth
    assert not reply.ar


@pytest.mark.parametrize(("asked", "replied"), [(0x0000, 0x8005), (0x0110, 0x8115), (0x07FF, 0x8115)])
def test_an_answer_copies_only_the_flags_rd_and_cd(asked: int, replied: int) -> None:
    query = DNSRecord(DNSHeader(id=7, bitmap=asked), q=DNSQuestion("www.example.org"))
    packet = fresh().answer(query.pack(), udp=True)
    assert packet is not None
    assert int.from_bytes(packet[2:4], "big") == replied


def test_names_match_in_any_case_and_the_question_keeps_its_case() -> None:
    query = DNSRecord.question("wWw.ExAmPlE.tEsT").pack()
    packet = fresh().answer(query, udp=True)
    assert packet is not None
    assert packet[12 : len(query)] == query[12:]
    assert addresses(DNSRecord.parse(packet)) == VIPS


@pytest.mark.parametrize(
    ("name", "qtype", "rcode"),
    [
        ("nope.example.test", "A", "NXDOMAIN"),
        ("x.www.example.test", "A", "NXDOMAIN"),
        ("nope.example.test", "AAAA", "NXDOMAIN"),
        ("www.example.test", "AAAA", "NOERROR"),
        ("www.example.test", "MX", "NOERROR"),
        ("example.test", "A", "NOERROR"),
        ("EXAMPLE.test", "TXT", "NOERROR"),
    ],
)
def test_a_negative_answer_has_the_soa_with_its_minimum_as_ttl(name: str, qtype: str, rcode: str) -> None:
    reply = ask(fresh(), name, qtype)
    assert RCODE[reply.header.rcode] == rcode
    assert reply.header.aa == 1
    assert not reply.rr
    [soa] = reply.auth
    assert (str(soa.rname), soa.rtype, soa.ttl) == ("example.test.", QTYPE.SOA, 5)
    assert soa.rdata.times[4] == 5


def test_the_ttl_of_a_negative_answer_is_at_most_that_of_the_soa() -> None:
    long = Zone("example.test", "www.example.test", 100_000, VIPS)
    [soa] = ask(fresh(long), "nope.example.test").auth
    assert (soa.ttl, soa.rdata.times[4]) == (3600, 100_000)


def test_a_name_above_the_site_exists_without_records() -> None:
    server = fresh(Zone("example.test", "www.shop.example.test", 5, VIPS))
    assert RCODE[ask(server, "shop.example.test").header.rcode] == "NOERROR"
    assert RCODE[ask(server, "hop.example.test").header.rcode] == "NXDOMAIN"


def test_the_zone_has_soa_ns_and_glue_records() -> None:
    server = fresh()
    [soa] = ask(server, "example.test", "SOA").rr
    assert (str(soa.rdata.mname), str(soa.rdata.rname)) == ("ns.example.test.", "hostmaster.example.test.")
    reply = ask(server, "example.test", "NS")
    assert [str(record.rdata) for record in reply.rr] == ["ns.example.test."]
    assert [(str(record.rname), str(record.rdata)) for record in reply.ar] == [("ns.example.test.", "203.0.113.53")]
    assert addresses(ask(server, "ns.example.test")) == ("203.0.113.53",)
    assert {record.rtype for record in ask(server, "example.test", "ANY").rr} == {QTYPE.SOA, QTYPE.NS}


def test_the_site_may_be_the_zone_itself() -> None:
    server = fresh(Zone("example.test", "example.test", 5, VIPS))
    assert addresses(ask(server, "example.test")) == VIPS
    assert len(ask(server, "example.test", "SOA").rr) == 1


@pytest.mark.parametrize(
    ("name", "qtype", "qclass"),
    [
        ("www.example.org", "A", "IN"),
        ("test", "A", "IN"),
        (".", "NS", "IN"),
        ("notexample.test", "A", "IN"),
        ("www.example.test", "A", "CH"),
        ("example.test", "AXFR", "IN"),
        ("example.test", "IXFR", "IN"),
    ],
)
def test_queries_outside_the_zone_are_refused(name: str, qtype: str, qclass: str) -> None:
    packet = fresh().answer(DNSRecord.question(name, qtype, qclass).pack(), udp=False)
    assert packet is not None
    reply = DNSRecord.parse(packet)
    assert (RCODE[reply.header.rcode], reply.header.aa) == ("REFUSED", 0)
    assert not reply.rr
    assert not reply.auth


@pytest.mark.parametrize("opcode", [1, 2, 4, 5, 15])
def test_opcodes_other_than_query_are_answered_with_notimp(opcode: int) -> None:
    query = DNSRecord(DNSHeader(id=7, opcode=opcode), q=DNSQuestion("www.example.test"))
    packet = fresh().answer(query.pack(), udp=True)
    assert packet is not None
    header = DNSRecord.parse(packet).header
    assert (header.id, header.qr, header.opcode, RCODE[header.rcode]) == (7, 1, opcode, "NOTIMP")
    assert OPCODE.QUERY == 0


def _query(*, count: int = 1, body: bytes) -> bytes:
    return struct.pack("!HHHHHH", 0x1234, 0x0100, count, 0, 0, 0) + body


WWW = b"\x03www\x07example\x04test\x00\x00\x01\x00\x01"
LONG_LABEL = b"\x7f" + b"a" * 127 + b"\x04test\x00\x00\x01\x00\x01"
LONG_NAME = (b"\x3f" + b"a" * 63) * 5 + b"\x00\x00\x01\x00\x01"
# At 0x280 a label "a\u0080" hides a pointer to 0x280, and after it stands a pointer into it: two readings of the same
# bytes that point to each other. dnslib recurses until Python stops it.
LOOP = (b"\x3e" + b"a" * 62) * 9 + b"\x3c" + b"a" * 60 + b"\x03a\xc2\x80" + b"\xc2\x82" + b"\x00\x01\x00\x01"


@pytest.mark.parametrize(
    "packet",
    [
        _query(body=WWW[:9]),
        _query(body=WWW[:-1]),
        _query(body=b""),
        _query(body=b"\xc0\x0c\x00\x01\x00\x01"),
        _query(body=b"\xc0\xff\x00\x01\x00\x01"),
        _query(body=LONG_LABEL),
        _query(body=LONG_NAME),
        _query(body=LOOP),
        _query(count=0, body=b""),
        _query(count=2, body=WWW + WWW),
    ],
)
def test_a_broken_packet_with_a_header_is_answered_with_formerr(packet: bytes) -> None:
    assert fresh().answer(packet, udp=True) == FORMERR


def test_a_second_opt_or_one_below_the_root_is_answered_with_formerr() -> None:
    for opts in ([EDNS0(udp_len=4096), EDNS0(udp_len=4096)], [EDNS0("example.test", udp_len=4096)]):
        query = DNSRecord.question("www.example.test")
        query.header.id = 0x1234
        query.add_ar(*opts)
        assert fresh().answer(query.pack(), udp=True) == FORMERR


def test_replies_and_incomplete_headers_are_not_answered() -> None:
    server = fresh()
    assert server.answer(DNSRecord.question("www.example.test").reply().pack(), udp=True) is None
    for length in range(12):
        assert server.answer(_query(body=WWW)[:length], udp=True) is None


@given(st.binary(max_size=80))
def test_every_packet_is_answered_or_ignored(noise: bytes) -> None:
    for packet in (noise, _query(body=noise), _query(body=WWW) + noise):
        reply = fresh().answer(packet, udp=True)
        assert reply is None or (reply[:2] == packet[:2] and reply[2] & 0x80)


@pytest.mark.parametrize("flags", ["", "do"])
def test_an_edns_answer_has_the_resolvers_size_and_the_querys_do_bit(flags: str) -> None:
    [opt] = ask(fresh(), "www.example.test", udp_len=4096, flags=flags).ar
    assert (opt.rtype, opt.edns_ver, opt.edns_len, opt.edns_do) == (QTYPE.OPT, 0, 1232, int(bool(flags)))
    assert opt.rdata == []


def test_an_unknown_edns_version_is_answered_with_badvers() -> None:
    reply = ask(fresh(), "www.example.test", udp_len=4096, version=1)
    [opt] = reply.ar
    assert (opt.edns_rcode << 4 | reply.header.rcode, opt.edns_ver) == (16, 0)
    assert not reply.rr


MANY = Zone("example.test", "www.example.test", 5, tuple(f"198.18.1.{last}" for last in range(1, 61)))
"""60 addresses, 994 bytes: too many for plain UDP, and few enough for EDNS."""


def test_an_answer_too_large_for_udp_is_truncated_and_does_not_rotate() -> None:
    server = fresh(MANY)
    sizes: list[dict[str, Any]] = [{}, {"udp_len": 900}, {"udp_len": 100}]
    for edns in sizes:
        reply = ask(server, "www.example.test", **edns)
        assert (reply.header.tc, reply.header.aa, len(reply.rr), len(reply.ar)) == (1, 1, 0, len(edns))
        assert str(reply.q.qname) == "www.example.test."
    assert addresses(ask(server, "www.example.test", udp=False)) == MANY.addresses
    assert addresses(ask(server, "www.example.test", udp_len=1232)) == rotated(MANY.addresses, 1)


def test_an_edns_size_below_512_counts_as_512() -> None:
    assert addresses(ask(fresh(), "www.example.test", udp_len=50)) == VIPS


def test_a_udp_answer_is_never_larger_than_the_resolvers_size() -> None:
    served = Zone("example.test", "www.example.test", 5, tuple(f"198.18.1.{last}" for last in range(1, 101)))
    server = fresh(served)
    assert ask(server, "www.example.test", udp_len=4096).header.tc == 1
    assert len(ask(server, "www.example.test", udp=False, udp_len=512).rr) == 100


def test_an_answer_with_1000_addresses_fits_tcp() -> None:
    most = tuple(f"198.18.{high}.{low}" for high in range(4) for low in range(250))
    assert len(ask(fresh(Zone("example.test", "www.example.test", 5, most)), "www.example.test", udp=False).rr) == 1000


GOOD = {"zone": "example.test", "site": "www.example.test", "ttl_s": 5, "addresses": list(VIPS)}


def test_a_valid_zone_is_read() -> None:
    assert zone(GOOD) == ZONE


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"colour": "red"}, "colour"),
        ({"site": "www.example.org"}, r"site: www\.example\.org"),
        ({"site": "ns.example.test"}, "name server"),
        ({"ttl_s": -1}, "ttl_s: -1"),
        ({"ttl_s": True}, "ttl_s: True"),
        ({"ttl_s": 2**31}, "ttl_s"),
        ({"addresses": []}, "addresses"),
        ({"addresses": ["203.0.113.1", "203.0.113.1"]}, "different"),
        ({"addresses": ["203.0.113.256"]}, "addresses: .*256"),
        ({"addresses": "203.0.113.1"}, "list"),
    ],
)
def test_an_invalid_zone_is_refused_with_the_key(change: dict[str, object], says: str) -> None:
    with pytest.raises(ZoneError, match=says):
        zone({**GOOD, **change})


def test_an_error_names_a_missing_key() -> None:
    with pytest.raises(ZoneError, match="ttl_s"):
        zone({key: value for key, value in GOOD.items() if key != "ttl_s"})


# ---- the program


def _start(folder: Path, text: str, *argv: str) -> subprocess.Popen[str]:
    path = folder / "zone.toml"
    path.write_text(text, encoding="utf-8")
    program = [sys.executable, resolver.__file__, str(path), "--address", "127.0.0.1", "--port", "0", *argv]
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


ZONE_TOML = f"""
zone = "example.test"
site = "www.example.test"
ttl_s = 5
addresses = {list(VIPS)}
"""


@contextmanager
def _served(folder: Path, idle_s: str) -> Iterator[int]:
    program = _start(folder, ZONE_TOML, "--idle-s", idle_s)
    assert program.stdout is not None
    line = program.stdout.readline()
    found = re.search(r"www\.example\.test .* on 127\.0\.0\.1:(\d+) udp and tcp", line)
    assert found, line
    yield int(found[1])
    program.send_signal(signal.SIGTERM)
    rest, errors = program.communicate(timeout=DEADLINE_S)
    assert (program.returncode, rest, errors) == (0, "", "")


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    with _served(tmp_path, idle_s=str(DEADLINE_S)) as number:
        yield number


def _udp(port: int) -> tuple[str, ...]:
    return addresses(
        DNSRecord.parse(DNSRecord.question("www.example.test").send("127.0.0.1", port, timeout=DEADLINE_S))
    )


class TcpClient:
    """Several queries on one connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        self.stream = self.socket.makefile("rb")

    def send(self, *packets: bytes) -> None:
        self.socket.sendall(b"".join(struct.pack("!H", len(packet)) + packet for packet in packets))

    def receive(self) -> Any:
        (length,) = struct.unpack("!H", self.stream.read(2))
        return DNSRecord.parse(self.stream.read(length))

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


def test_udp_and_tcp_share_one_rotation(port: int) -> None:
    client = TcpClient(port)
    for step in range(0, 60, 2):
        assert _udp(port) == rotated(VIPS, step)
        client.send(DNSRecord.question("www.example.test").pack())
        assert addresses(client.receive()) == rotated(VIPS, step + 1)
    client.close()


def test_pipelined_tcp_queries_are_answered_in_order(port: int) -> None:
    client = TcpClient(port)
    queries = [DNSRecord.question("www.example.test") for _ in range(100)]
    client.send(*(query.pack() for query in queries))
    replies = [client.receive() for _ in queries]
    assert [reply.header.id for reply in replies] == [query.header.id for query in queries]
    assert [addresses(reply) for reply in replies] == [rotated(VIPS, step) for step in range(100)]
    client.close()


def test_the_rotation_is_exact_under_concurrent_clients(port: int) -> None:
    def over_udp(_: int) -> list[tuple[str, ...]]:
        return [_udp(port) for _ in range(60)]

    def over_tcp(_: int) -> list[tuple[str, ...]]:
        client = TcpClient(port)
        found = []
        for _ in range(60):
            client.send(DNSRecord.question("www.example.test").pack())
            found.append(addresses(client.receive()))
        client.close()
        return found

    with ThreadPoolExecutor(8) as clients:
        work = [clients.submit(over_udp if number % 2 else over_tcp, number) for number in range(8)]
        seen = Counter(order for client in work for order in client.result())
    assert seen == {rotated(VIPS, step): 160 for step in range(3)}
    assert _udp(port) == VIPS


def test_an_idle_tcp_connection_is_closed_after_its_answer(tmp_path: Path) -> None:
    with _served(tmp_path, idle_s="0.5") as port:

        def answered() -> TcpClient:
            """A client that sent its query before the connection was idle for 0.5 s."""
            client = TcpClient(port)
            client.send(DNSRecord.question("www.example.test").pack())
            try:
                client.receive()
            except (OSError, struct.error) as error:
                client.close()
                raise NotYet("the connection was closed before the query came") from error
            return client

        client = until(answered, DEADLINE_S, "an answer")
        assert client.socket.recv(1) == b""
        client.close()


def test_nonsense_over_tcp_closes_only_that_connection(port: int) -> None:
    for nonsense in (b"\x00\x00", b"\x00\x03abc"):
        client = TcpClient(port)
        client.socket.sendall(nonsense)
        assert client.socket.recv(1) == b""
        client.close()
    cut = TcpClient(port)
    cut.socket.sendall(b"\x00\x40abc")
    cut.close()
    assert _udp(port) == VIPS


def test_it_ends_without_errors_while_a_client_is_connected(tmp_path: Path) -> None:
    program = _start(tmp_path, ZONE_TOML)
    assert program.stdout is not None
    found = re.search(r":(\d+) udp", program.stdout.readline())
    assert found
    client = TcpClient(int(found[1]))
    client.send(DNSRecord.question("www.example.test").pack())
    client.receive()
    program.send_signal(signal.SIGTERM)
    _, errors = program.communicate(timeout=DEADLINE_S)
    client.close()
    assert (program.returncode, errors) == (0, "")


def test_a_malformed_udp_packet_is_answered_or_ignored(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(DEADLINE_S)
        client.connect(("127.0.0.1", port))
        client.send(b"")
        client.send(b"short")
        client.send(_query(body=b"\xff"))
        assert client.recv(512) == FORMERR


@pytest.mark.parametrize(
    ("text", "says"), [("zone = ", "Invalid value"), (ZONE_TOML.replace("ttl_s = 5", "ttl_s = 'x'"), "ttl_s: 'x'")]
)
def test_an_invalid_zone_file_is_one_line_of_error(tmp_path: Path, text: str, says: str) -> None:
    program = _start(tmp_path, text)
    _, errors = program.communicate(timeout=DEADLINE_S)
    assert program.returncode == 2
    assert says in errors
    assert errors.count("\n") == 1


def test_a_port_in_use_is_one_line_of_error(tmp_path: Path, port: int) -> None:
    program = _start(tmp_path, ZONE_TOML, "--port", str(port))
    _, errors = program.communicate(timeout=DEADLINE_S)
    assert program.returncode == 1
    assert "in use" in errors
    assert errors.count("\n") == 1
