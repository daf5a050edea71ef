"""The site's addresses, from the lab's resolver itself.

``getaddrinfo`` sorts the addresses of an answer (RFC 6724) and so hides the resolver's rotation.
"""

from __future__ import annotations

from dataclasses import dataclass

from dnslib import QTYPE, DNSError, DNSRecord

from loadtests.lib.addresses import check_address

TIMEOUT_S = 5.0
TRIES = 2
"""resolv.conf(5): the defaults of ``timeout`` and ``attempts``."""


class UnresolvedError(Exception):
    """The resolver gave no usable answer."""


@dataclass(frozen=True)
class Answer:
    """A name's addresses in the order of the answer, and how long they may be used."""

    addresses: tuple[str, ...]
    ttl_s: int


def read_answer(query: DNSRecord, packet: bytes) -> Answer:
    """Read a resolver's reply. Raises UnresolvedError when it holds no address. Pure."""
    reply = DNSRecord.parse(packet)
    records = [record for record in reply.rr if record.rtype == QTYPE.A]
    if reply.header.id != query.header.id or not reply.header.qr:
        raise UnresolvedError("the resolver answered another question")
    if not records:
        raise UnresolvedError(f"the resolver has no address for {query.q.qname} (RCODE {reply.header.rcode})")
    return Answer(tuple(str(record.rdata) for record in records), min(record.ttl for record in records))


def resolve(name: str, server: tuple[str, int]) -> Answer:
    """Ask the lab's resolver for the addresses of a name. Raises UnresolvedError or RefusedError."""
    check_address(server[0])
    why = ""
    for _ in range(TRIES):
        query = DNSRecord.question(name)
        try:
            packet = query.send(*server, timeout=TIMEOUT_S)
            if DNSRecord.parse(packet).header.tc:
                packet = query.send(*server, tcp=True, timeout=TIMEOUT_S)
            return read_answer(query, packet)
        except (OSError, DNSError) as error:
            why = str(error) or type(error).__name__
    raise UnresolvedError(f"no answer from the resolver {server[0]}:{server[1]}: {why}")
