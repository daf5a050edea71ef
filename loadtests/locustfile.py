"""Visitors of the site: they resolve its name through the lab's resolver and read a few pages a visit.

``locust -f loadtests/locustfile.py --headless --users 10 --spawn-rate 10 [--host http://www.example.test]``

Environment:

- ``MONKEYWRENCH_RESOLVER``  the lab's resolver, ``address`` or ``address:port``; default 203.0.113.53
- ``MONKEYWRENCH_OPS``       where ops of the history go, one JSON object a line: a path, or the number of an open file
  descriptor; default nowhere. With ``/dev/stdout`` whatever else is printed goes to standard error.
- ``MONKEYWRENCH_THINK_MS``  pause after each page; default 1000
- ``MONKEYWRENCH_TIMEOUT_MS`` patience for a connection, and for each next part of an answer; default 5000

``getaddrinfo`` sorts the addresses of an answer (RFC 6724) and so hides the rotation; visitors ask the resolver
themselves and take the first address, as it came. They keep it until its TTL ends or a request on it gets no answer.

Every address must be the lab's or this machine's, and reached without a router: with the lab down, its addresses are
somewhere behind the default route, and load must fail there and not leave the machine.
"""

from __future__ import annotations

# Locust patches the interpreter for gevent when it is imported, so it comes before everything that uses sockets.
from locust import FastHttpUser, task  # isort: skip

import ipaddress
import itertools
import json
import os
import random
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import geventhttpclient.client
from dnslib import QTYPE, DNSError, DNSRecord

LAB = tuple(ipaddress.ip_network(text) for text in ("198.18.0.0/15", "203.0.113.0/24", "127.0.0.0/8"))
"""RFC 2544 and RFC 5737: addresses that belong to nobody, and loopback."""
DNS_TIMEOUT_S = 1.0
DNS_TRIES = 2
TIMEOUT_S = int(os.environ.get("MONKEYWRENCH_TIMEOUT_MS", "5000")) / 1000
THINK_S = int(os.environ.get("MONKEYWRENCH_THINK_MS", "1000")) / 1000
PAGES_A_VISIT = (2, 6)
RETRY_S = 0.1
STDOUT = 1

# The client would send a GET again, and again, when its connection closes without an answer; the op that is recorded
# would be another one than the first that was sent, and its failure would be lost.
geventhttpclient.client.IDEMPOTENT_METHODS = frozenset()


class RefusedError(Exception):
    """An address outside of the lab."""


class UnresolvedError(Exception):
    """The resolver gave no usable answer."""


def check_address(address: str) -> str:
    """Return a lab's address, or raise RefusedError. Sends nothing."""
    try:
        inside = any(ipaddress.IPv4Address(address) in network for network in LAB)
    except ValueError as error:
        raise RefusedError(str(error)) from error
    if not inside:
        raise RefusedError(f"{address} is outside of {', '.join(map(str, LAB))}: load stays inside the lab")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        route.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
        try:
            route.connect((address, 9))
        except OSError as error:
            raise RefusedError(f"{address} is not on this node's own networks: load stays inside the lab") from error
    return address


@dataclass(frozen=True)
class Answer:
    """A name's addresses in the order of the answer, and for how long they may be used."""

    addresses: tuple[str, ...]
    ttl_s: int


def read_answer(query: DNSRecord, packet: bytes) -> Answer:
    """Read a resolver's reply. Raises UnresolvedError when it holds no address."""
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
    for _ in range(DNS_TRIES):
        query = DNSRecord.question(name)
        try:
            packet = query.send(*server, timeout=DNS_TIMEOUT_S)
            if DNSRecord.parse(packet).header.tc:
                packet = query.send(*server, tcp=True, timeout=DNS_TIMEOUT_S)
            return read_answer(query, packet)
        except (OSError, DNSError) as error:
            why = str(error) or type(error).__name__
    raise UnresolvedError(f"no answer from the resolver {server[0]}:{server[1]}: {why}")


def resolver() -> tuple[str, int]:
    """The resolver's address and port, from the environment."""
    address, _, port = os.environ.get("MONKEYWRENCH_RESOLVER", "203.0.113.53").partition(":")
    return address, int(port or 53)


def recorder(where: str | None) -> Callable[[dict[str, Any]], None]:
    """A function that writes one op as a line to a path or to an open descriptor; each line is one write."""
    if not where:
        return lambda _: None
    if where in ("/dev/stdout", str(STDOUT)):
        # Nothing but ops may come out there, and not all that Locust and its libraries print is in our hands.
        fd = os.dup(STDOUT)
        os.dup2(sys.stderr.fileno(), STDOUT)
    elif where.isdigit():
        fd = int(where)
    else:
        fd = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def record(op: dict[str, Any]) -> None:
        line = json.dumps(op, separators=(",", ":")).encode() + b"\n"
        while line:
            line = line[os.write(fd, line) :]

    return record


record = recorder(os.environ.get("MONKEYWRENCH_OPS"))


def outcome(error: BaseException | None, status: int) -> tuple[str, str]:
    """The type of a finished op and its error, if any: ``info`` for a time-out, which may have been served too late."""
    # The client wraps what it would try again, time-outs among it.
    error = getattr(error, "original", error)
    if isinstance(error, TimeoutError):
        return "info", "timeout"
    if status and status != 200:
        return "fail", f"status {status}"
    if error is not None:
        return "fail", str(error) or type(error).__name__
    return "ok", ""


class Visitor(FastHttpUser):
    """One person after another at the same browser: a visit is a connection with some pages, then comes the next."""

    host = "http://www.example.test"
    connection_timeout = TIMEOUT_S
    network_timeout = TIMEOUT_S
    concurrency = 1
    numbers = itertools.count()

    def on_start(self) -> None:
        """Start with neither an address nor a visit."""
        self.number = next(self.numbers)
        self.chance = random.Random(self.number)
        self.site = urlsplit(self.host or "")
        self.url = f"{self.host}/"
        self.vip: str | None = None
        self.usable_until = 0.0
        self.pages_left = 0

    def wait_time(self) -> float:
        """Seconds until the next page; with no address to ask at, never none at all, or it would be a busy loop."""
        return THINK_S if self.vip else max(THINK_S, RETRY_S)

    @task
    def page(self) -> None:
        """Read the next page of the visit, or begin a visit and read its first."""
        if self.pages_left == 0:
            self.client.client.clientpool.close()
            self.pages_left = self.chance.randint(*PAGES_A_VISIT)
        if not self._has_address():
            return
        self.pages_left -= 1
        self._get()

    def _has_address(self) -> bool:
        """Resolve when needed. A visit in progress stays on its connection, whatever the TTL."""
        at_start = not self.client.client.clientpool.clients
        if self.vip is not None and (not at_start or time.monotonic() < self.usable_until):
            return True
        began_ns = time.perf_counter_ns()
        try:
            answer = resolve(str(self.site.hostname), resolver())
            self.vip = check_address(answer.addresses[0])
            self.usable_until = time.monotonic() + answer.ttl_s
        except (UnresolvedError, RefusedError) as error:
            self._unresolved(began_ns, error)
            return False
        return True

    def _unresolved(self, began_ns: int, error: Exception) -> None:
        self.vip = None
        self._record(began_ns, "invoke", {})
        self._record(time.perf_counter_ns(), "fail", {}, str(error))
        self.environment.events.request.fire(
            request_type="DNS", name=self.site.hostname, response_time=0, response_length=0, exception=error
        )

    def _get(self) -> None:
        port = f":{self.site.port}" if self.site.port else ""
        began_ns = time.perf_counter_ns()
        self._record(began_ns, "invoke", {})
        kind, error = "info", "stopped"
        known: dict[str, Any] = {}
        try:
            with self.client.get(
                f"http://{self.vip}{port}/",
                name="/",
                headers={"Host": self.site.netloc},
                allow_redirects=False,
                catch_response=True,
            ) as response:
                kind, error = outcome(response.request_meta["exception"], response.status_code)
                if kind != "ok":
                    response.failure(error)
                if response.status_code:
                    known = {"node": response.headers.get("X-Node"), "status": response.status_code}
        finally:
            # Also when Locust ends this user in the middle: then nobody knows.
            ended_ns = time.perf_counter_ns()
            known["ms"] = round((ended_ns - began_ns) / 1e6, 3)
            self._record(ended_ns, kind, known, error)
        if not known.get("status"):
            self.vip = None

    def _record(self, time_ns: int, kind: str, known: dict[str, Any], error: str = "") -> None:
        op: dict[str, Any] = {"t": time_ns, "process": f"user:{self.number}", "type": kind, "f": "get"}
        op["value"] = {"url": self.url, "vip": self.vip, **known}
        if error:
            op["error"] = error
        record(op)
