"""People on the site: they resolve its name through the lab's resolver, and a visit is one connection with a few ops.

``locust -f loadtests/locustfile.py --headless --users 10 --spawn-rate 10 [--host http://www.example.test] [CLASS ...]``

- ``Visitor`` reads the site's front page;
- ``Player`` plays: pages, profiles, scores, transfers of coins, uploads and downloads, sessions;
- ``Uploader`` uploads files, and looks at those of others;
- ``Administrator`` changes the site's content: articles, which the master of the web data replicates.

With no class named all of them come; of 20 users, 5, 12, 2 and 1. ``Replayer`` asks for the pages of a log, and comes
only when ``MONKEYWRENCH_REPLAY`` names it. ``Reader`` reads all that the site has, once, and ends; it comes only when
``MONKEYWRENCH_READ`` says what there is to read.

Environment:

- ``MONKEYWRENCH_RESOLVER``  the lab's resolver, ``address`` or ``address:port``; default 203.0.113.53
- ``MONKEYWRENCH_OPS``       where ops of the history go, one JSON object a line: a path, or the number of an open file
  descriptor; default nowhere. With ``/dev/stdout`` whatever else is printed goes to standard error.
- ``MONKEYWRENCH_CLIENT``    what they ask with, one of ``POLICIES``; default browser
- ``MONKEYWRENCH_THINK_MS``  pause after each op; default 1000
- ``MONKEYWRENCH_MIX``       what players do: JSON, as ``USUAL_MIX``, which is the default
- ``MONKEYWRENCH_RATE``      ops a second of each user, however long they take (constant pacing); default none: think
- ``MONKEYWRENCH_ARRIVALS``  open arrivals, in the form of ``arrivals.read``: each op has its planned time, and users
  are there to do them; with it there is no pause. An op that finds nobody free is done as soon as somebody is, and its
  time is measured from when it was planned. Default none: closed loop
- ``MONKEYWRENCH_REPLAY``    a JSON file for ``Replayer``: ``[[seconds, path], ...]``, in order; like open arrivals, and
  each op asks for its own page
- ``MONKEYWRENCH_SHARE``     ``k/n``: of what is planned, this process does the ops k, k + n, ...; processes with
  all k of 0 to n - 1 do all of it
- ``MONKEYWRENCH_READ``      a JSON file for ``Reader``:
  ``{"pages": ["ledger"], "players": 200, "uploads": [NAME], "articles": 12}``
- ``MONKEYWRENCH_PROCESS``   what the processes of the history are called; default user
- ``MONKEYWRENCH_TIMEOUT_MS`` patience for a connection, and for each next part of an answer; default 5000

What the type of a completion means:

- reads: ``ok`` for status 200 and a right answer; ``info`` for a time-out and for what was under way at the end;
  ``fail`` for everything else, a connection that was lost among it: nothing was read;
- ``worker``, of no user: ``info``, ``{"phase": "begin", "boot": ..., "wall_ns": ...}`` and ``{"phase": "end"}``, so
  that ops of several machines, each with a clock of its own, can be put together (``merge.py``);
- ``plan``, of no user: ``info``, ``{"phase": "over", "share": "0/1"}`` once all that this process had planned was asked
  and answered, or given up;
- writes (and ``session``, which counts): ``ok`` alike; ``fail`` only when certainly nothing was written: no connection
  was made, status 4xx, or the site says ``"written": "no"``; ``info`` for everything else: nobody knows.

``getaddrinfo`` sorts the addresses of an answer (RFC 6724) and so hides the rotation; people ask the resolver
themselves and take the first address, as it came. They keep it until its TTL ends or a request on it gets no answer.
Where it takes no connection a browser asks the next one of the same answer at once: another op, and the first one,
which failed, says ``again``. The time of an answer counts from when its user wanted it.

Every address must be the lab's or this machine's, and reached without a router: with the lab down, its addresses are
somewhere behind the default route, and load must fail there and not leave the machine.
"""

from __future__ import annotations

# Locust patches the interpreter for gevent when it is imported, so it comes before everything that uses sockets.
from locust import FastHttpUser, constant_throughput, events, task  # isort: skip

import collections
import functools
import hashlib
import ipaddress
import itertools
import json
import os
import random
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

import geventhttpclient.client
from dnslib import QTYPE, DNSError, DNSRecord
from locust.contrib.fasthttp import FastResponse
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import MasterRunner

sys.path.insert(0, str(Path(__file__).parent / "lib"))
import arrivals

LAB = tuple(ipaddress.ip_network(text) for text in ("198.18.0.0/15", "203.0.113.0/24", "127.0.0.0/8"))
"""RFC 2544 and RFC 5737: addresses that belong to nobody, and loopback."""
DNS_TIMEOUT_S = 5.0
DNS_TRIES = 2
"""resolv.conf(5): its ``timeout`` and ``attempts`` where nothing else is said."""
TIMEOUT_S = int(os.environ.get("MONKEYWRENCH_TIMEOUT_MS", "5000")) / 1000
THINK_S = int(os.environ.get("MONKEYWRENCH_THINK_MS", "1000")) / 1000
RATE = float(os.environ.get("MONKEYWRENCH_RATE") or 0)
ARRIVALS = os.environ.get("MONKEYWRENCH_ARRIVALS")
REPLAY = os.environ.get("MONKEYWRENCH_REPLAY")
READ = os.environ.get("MONKEYWRENCH_READ")
SHARE = tuple(map(int, os.environ.get("MONKEYWRENCH_SHARE", "0/1").split("/")))
PROCESS = os.environ.get("MONKEYWRENCH_PROCESS", "user")
CLIENT = os.environ.get("MONKEYWRENCH_CLIENT", "browser")
RETRY_S = 0.1
STDOUT = 1

pace = constant_throughput(RATE) if RATE else None

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


def in_reach(address: str) -> bool:
    """Whether it is a lab's address. Sends nothing."""
    try:
        check_address(address)
    except RefusedError:
        return False
    return True


@dataclass(frozen=True)
class Policy:
    """How a client treats addresses and connections. A connection is ``kept`` for a visit, an op, or for good."""

    next_address: bool
    kept: str


POLICIES = {
    "browser": Policy(next_address=True, kept="visit"),
    "first-address": Policy(next_address=False, kept="visit"),
    "keep-alive": Policy(next_address=False, kept="good"),
    "new-connections": Policy(next_address=False, kept="op"),
}
if CLIENT not in POLICIES:
    sys.exit(f"MONKEYWRENCH_CLIENT is {CLIENT!r}; there are {', '.join(POLICIES)}")
POLICY = POLICIES[CLIENT]


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

    encode = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make one for each op

    def record(op: dict[str, Any]) -> None:
        line = encode(op).encode() + b"\n"
        while line:
            line = line[os.write(fd, line) :]

    return record


record = recorder(os.environ.get("MONKEYWRENCH_OPS"))


def say(f: str, process: str, value: dict[str, Any]) -> None:
    """Record something that nobody asked for."""
    record({"t": time.perf_counter_ns(), "process": process, "type": "info", "f": f, "value": value})


def begin(environment: Environment, **_: Any) -> None:
    """Say which machine's clock the ops of this process have, and what it is at. A master has none."""
    if not isinstance(environment.runner, MasterRunner):
        boot = Path("/proc/sys/kernel/random/boot_id")
        clock = {"boot": boot.read_text().strip() if boot.exists() else socket.gethostname(), "wall_ns": time.time_ns()}
        say("worker", f"worker:{PROCESS}", {"phase": "begin", **clock})


def end(environment: Environment, **_: Any) -> None:
    """Say that the record is whole."""
    if not isinstance(environment.runner, MasterRunner):
        say("worker", f"worker:{PROCESS}", {"phase": "end"})


events.init.add_listener(begin)
events.quitting.add_listener(end)


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


class Ask(NamedTuple):
    """One op before it is sent. ``asked`` goes into the history; with ``data``, a form or a body, it is a POST."""

    f: str
    asked: Mapping[str, Any]
    path: str
    data: dict[str, Any] | bytes | None = None

    @property
    def method(self) -> str:
        """GET or POST."""
        return "GET" if self.data is None else "POST"

    @property
    def name(self) -> str:
        """What Locust counts it under."""
        return self.path.partition("?")[0]


class Arrival(NamedTuple):
    """A planned op. Times are ns of the clock that ops have; ``late_ms`` is how long after its time it was begun."""

    due_ns: int
    late_ms: float
    free: bool
    """A user was free for it at its time. If not, all were busy."""
    path: str = ""
    """What is asked for, where the plan says so."""


class Plan:
    """All planned ops of this process, taken one after another by whoever is free."""

    def __init__(self, planned: Iterator[tuple[float, str]]) -> None:
        self.planned = planned
        self.began_ns = 0
        self.exhausted = False
        self.users = 0
        """Who has come and not ended yet."""

    def next(self) -> Arrival:
        """Take the next one, and be there at its time. Raises StopUser when there is none."""
        self.began_ns = self.began_ns or time.perf_counter_ns()
        due_s, path = next(self.planned, (None, ""))
        if due_s is None:
            self.exhausted = True
            raise StopUser
        due_ns = self.began_ns + round(due_s * 1e9)
        free_ns = time.perf_counter_ns()
        if free_ns < due_ns:
            time.sleep((due_ns - free_ns) / 1e9)
        return Arrival(due_ns, round((time.perf_counter_ns() - due_ns) / 1e6, 3), free_ns < due_ns, path)

    def leave(self) -> None:
        """One user's end. The last one after all was taken has nobody's answer left to wait for: all is over."""
        self.users -= 1
        if self.exhausted and not self.users:
            say("plan", "plan", {"phase": "over", "share": "/".join(map(str, SHARE))})


def the_plan() -> Plan | None:
    """What this process has to do at planned times, if anything."""
    planned: Iterator[tuple[float, str]]
    if REPLAY:
        planned = ((at_s, path) for at_s, path in json.loads(Path(REPLAY).read_text()))
    elif ARRIVALS:
        planned = ((at_s, "") for at_s in arrivals.read(ARRIVALS))
    else:
        return None
    mine, of_all = SHARE
    return Plan(itertools.islice(planned, mine, None, of_all))


class Judgement(NamedTuple):
    """The type of a completion, its error, if any, and what it adds to the value."""

    type: str
    error: str
    known: dict[str, Any]


class Browser(FastHttpUser):
    """One person after another at the same browser: a visit is a connection with some ops, then comes the next."""

    abstract = True
    host = "http://www.example.test"
    connection_timeout = TIMEOUT_S
    network_timeout = TIMEOUT_S
    concurrency = 1
    numbers = itertools.count()
    plan = the_plan()
    arrival: Arrival | None = None
    ops_a_visit: ClassVar[tuple[int, int]]

    def on_start(self) -> None:
        """Start with neither an address nor a visit."""
        self.number = next(self.numbers)
        if self.plan:
            self.plan.users += 1
        self.chance = random.Random(f"{PROCESS}:{self.number}")
        self.site = urlsplit(self.host or "")
        self.port = f":{self.site.port}" if self.site.port else ""
        self.headers = {"Host": self.site.netloc}
        # The jar of the client keeps cookies by address; a browser keeps them by name, as do those here who log in.
        self.client.client.cookiejar = None
        self.vip: str | None = None
        self.next_vips: list[str] = []
        self.usable_until = 0.0
        self.ops_left = 0

    def on_stop(self) -> None:
        """Whatever ended it: an empty plan, or Locust."""
        if self.plan:
            self.plan.leave()

    def wait_time(self) -> float:
        """Seconds until the next op; with no address to ask at, never none at all, or it would be a busy loop."""
        if self.plan:
            return 0
        pause = pace(self) if pace else THINK_S
        return pause if self.vip else max(pause, RETRY_S)

    @task
    def turn(self) -> None:
        """Do the next op of the visit, or begin a visit and do its first."""
        if self.plan:
            self.arrival = self.plan.next()
        if self.ops_left == 0:
            self.begin_visit()
        if POLICY.kept == "op":
            self.client.client.clientpool.close()
        ask = self.next_ask()
        if not self._has_address(ask):
            return
        self.ops_left -= 1
        self._exchange(ask)

    def begin_visit(self) -> None:
        """Decide how many ops it has; a browser begins it with a new connection."""
        if POLICY.kept == "visit":
            self.client.client.clientpool.close()
        self.ops_left = self.chance.randint(*self.ops_a_visit)

    def next_ask(self) -> Ask:
        """What this person wants now. (No abstract method: Locust's users have a metaclass of their own.)"""
        raise NotImplementedError

    def send(self, ask: Ask) -> Judgement:
        """Send a request and judge the answer."""
        with self.client.request(
            ask.method,
            self.url(ask),
            name=ask.name,
            data=ask.data,  # type: ignore[arg-type]  # bytes are as good as text
            headers=self.headers,
            allow_redirects=False,
            catch_response=True,
        ) as response:
            judgement = self.judge(ask, response, response.request_meta["exception"])
            if judgement.type != "ok":
                response.failure(judgement.error)
        return judgement

    def judge(self, ask: Ask, response: FastResponse, error: BaseException | None) -> Judgement:  # noqa: ARG002 (Player asks it)
        """Judge an answer, or what came instead of one."""
        kind, why = outcome(error, response.status_code)
        if not response.status_code or response.headers is None:
            return Judgement(kind, why, {})
        return Judgement(kind, why, {"node": response.headers.get("X-Node"), "status": response.status_code})

    def url(self, ask: Ask) -> str:
        """Where to ask: at the address and not at the name."""
        return f"http://{self.vip}{self.port}{ask.path}"

    def report(self, method: str, name: str, error: Exception) -> None:
        """Tell Locust of a failure that its client knows nothing of."""
        self.environment.events.request.fire(
            request_type=method, name=name, response_time=0, response_length=0, exception=error
        )

    def _has_address(self, ask: Ask) -> bool:
        """Resolve when needed. A visit in progress stays on its connection, whatever the TTL."""
        at_start = not self.client.client.clientpool.clients
        if self.vip is not None and (not at_start or time.monotonic() < self.usable_until):
            return True
        began_ns = time.perf_counter_ns()
        try:
            answer = resolve(str(self.site.hostname), resolver())
            self.vip = check_address(answer.addresses[0])
            self.next_vips = [each for each in answer.addresses[1:] if POLICY.next_address and in_reach(each)]
            self.usable_until = time.monotonic() + answer.ttl_s
        except (UnresolvedError, RefusedError) as error:
            self.vip = None
            self._record(began_ns, ask, self._invoked())
            self._record(time.perf_counter_ns(), ask, Judgement("fail", str(error), {}))
            self.report("DNS", str(self.site.hostname), error)
            return False
        return True

    def _exchange(self, ask: Ask) -> None:
        """Do the op; where an address takes no connection, at the next one, if there is one."""
        began_ns = time.perf_counter_ns()
        wanted_ns = self.arrival.due_ns if self.arrival else began_ns
        while self._try(ask, began_ns, wanted_ns).known.get("again"):
            self.vip, began_ns = self.next_vips.pop(0), time.perf_counter_ns()

    def _try(self, ask: Ask, began_ns: int, wanted_ns: int) -> Judgement:
        self._record(began_ns, ask, self._invoked())
        judgement = Judgement("info", "stopped", {})
        try:
            judgement = self._sent(ask)
        finally:
            # Also when Locust ends this user in the middle: then nobody knows.
            ended_ns = time.perf_counter_ns()
            judgement.known["ms"] = round((ended_ns - wanted_ns) / 1e6, 3)
            self._record(ended_ns, ask, judgement)
        if "status" not in judgement.known:
            self.vip = None
        return judgement

    def _sent(self, ask: Ask) -> Judgement:
        """Connect, where what comes of that is to be known by itself: when nothing was sent. Then send."""
        error = self._connect(ask) if self.next_vips or ask.f in WRITES else None
        if error is None:
            return self.send(ask)
        self.report(ask.method, ask.name, error)
        return Judgement("fail", f"not sent: {error}", {"again": True} if self.next_vips else {})

    def _connect(self, ask: Ask) -> OSError | None:
        """Make the connection, unless it is there. The error when it cannot be made."""
        pool = self.client.client.clientpool.get_client(self.url(ask))._connection_pool
        try:
            pool.return_socket(pool.get_socket())
        except OSError as error:
            return error
        return None

    def _invoked(self) -> Judgement:
        planned = {"late_ms": self.arrival.late_ms, "free": self.arrival.free} if self.arrival else {}
        return Judgement("invoke", "", planned)

    def _record(self, time_ns: int, ask: Ask, judgement: Judgement) -> None:
        op = {
            "t": time_ns,
            "process": f"{PROCESS}:{self.number}",
            "type": judgement.type,
            "f": ask.f,
            "value": {**ask.asked, "vip": self.vip, **judgement.known},
        }
        if judgement.error:
            op["error"] = judgement.error
        record(op)


class Visitor(Browser):
    """Reads the front page, a few times a visit."""

    weight = 5
    ops_a_visit = (2, 6)

    def next_ask(self) -> Ask:
        """The front page."""
        return Ask("get", {"url": f"{self.host}/"}, "/")


class Replayer(Browser):
    """Asks for what a log says, at its times."""

    abstract = not REPLAY
    ops_a_visit = (2, 6)

    def next_ask(self) -> Ask:
        """The page of the plan."""
        path = self.arrival.path if self.arrival else "/"
        return Ask("get", {"url": f"{self.host}{path}"}, path)


PLAYERS = 200
"""Players are 1 ... 200; the site has them from the start."""
HOT_PLAYERS = 8
"""The first few players, whom half of all ops are about: users must meet at them, on all nodes."""
PAGES = ("/", "/news.html", "/rules.html", "/style.css")
POINTS = (1, 1000)
COINS = (1, 20)
UPLOAD_BYTES = (0, 500, 4_000, 30_000, 120_000)
"""How much an upload is beyond its own name, with which it begins."""
UPLOADS_KEPT = 10_000
SAID = 200
"""Characters of a bad answer that are recorded."""

ARTICLES = 12
"""Articles are 1 ... 12; one that nobody has written yet has the version 0."""

WRITES = frozenset({"profile-write", "score", "transfer", "upload", "login", "session", "publish"})
"""Ops after which the site is another. ``session`` is one of them: the site counts how often it was asked."""


class Shape(NamedTuple):
    """A right answer: fields that repeat what was asked, and the types of those that tell something."""

    same: tuple[str, ...]
    told: Mapping[str, frozenset[type]]


TEXT, NUMBER, FLAG, TABLE, LIST = (frozenset({kind}) for kind in (str, int, bool, dict, list))
SHAPES = {
    "profile-read": Shape(("player",), {"motto": TEXT, "version": NUMBER}),
    "profile-write": Shape(("player", "motto"), {"version": NUMBER}),
    "score": Shape(("player", "points", "op"), {"total": NUMBER, "entry": NUMBER, "first": FLAG}),
    "score-read": Shape(("player",), {"total": NUMBER, "entries": NUMBER}),
    "transfer": Shape(("from", "to", "coins", "op"), {"first": FLAG}),
    "coins": Shape((), {"balances": TABLE, "total": NUMBER}),
    "upload": Shape(("name",), {"sha256": TEXT, "bytes": NUMBER}),
    "login": Shape(("player", "op"), {}),
    "ledger": Shape((), {"entries": LIST, "last": NUMBER}),
    "transfers": Shape((), {"entries": LIST, "last": NUMBER}),
    "session": Shape((), {"player": NUMBER | {type(None)}, "pages": NUMBER}),
    "publish": Shape(("article", "page", "op"), {"version": NUMBER, "sha256": TEXT}),
    "article": Shape(("article",), {"by": TEXT | {type(None)}, "version": NUMBER}),
}
"""A table's values are numbers. Mottos and names of uploads are the ops' ids."""


class WrongAnswerError(Exception):
    """Status 200, and not an answer to what was asked."""


def parsed(content: bytes | None) -> dict[str, Any]:
    """The JSON object that an answer is. Raises WrongAnswerError."""
    try:
        answer = json.loads(content or b"")
    except (ValueError, RecursionError) as error:
        raise WrongAnswerError("unreadable answer") from error
    if not isinstance(answer, dict):
        raise WrongAnswerError("unreadable answer")
    return answer


def read_told(shape: Shape, asked: Mapping[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """What an answer of that shape tells. Raises WrongAnswerError."""
    for key in shape.same:
        if type(answer.get(key)) is not type(asked[key]) or answer[key] != asked[key]:
            raise WrongAnswerError(f"wrong answer: {key} is not what was asked")
    for key, kinds in shape.told.items():
        if key not in answer or type(answer[key]) not in kinds:
            raise WrongAnswerError(f"wrong answer: no right {key}")
        if kinds is TABLE and not NUMBER.issuperset(map(type, answer[key].values())):
            raise WrongAnswerError(f"wrong answer: no right {key}")
    return {key: answer[key] for key in shape.told}


def not_written(status: int, written: object) -> bool:
    """True when a write that was sent has certainly changed nothing. ``written`` is the site's own word, if any."""
    return written == "no" or (400 <= status < 500 and written != "unknown")


@functools.cache
def process_id(pid: int) -> str:  # noqa: ARG001 (the key of the cache)
    """A name of this process that no other has, in no run: Locust may fork after this file was read."""
    return secrets.token_hex(4)


USUAL_MIX = {
    "page": 28,
    "profile-read": 18,
    "profile-write": 6,
    "score": 10,
    "score-read": 12,
    "transfer": 5,
    "coins": 2,
    "upload": 2,
    "download": 5,
    "session": 12,
}
"""Of 100 ops, how many are which: people look more often than they write. Each is a method of ``Player``."""


def read_mix(text: str) -> dict[str, int]:
    """The mix that the environment names, or the usual one. Raises ValueError. Pure."""
    if not text:
        return USUAL_MIX
    mix: dict[str, int] = json.loads(text)
    strange = sorted(mix.keys() - USUAL_MIX.keys())
    if strange or not any(mix.values()):
        raise ValueError(f"{', '.join(strange) or 'nothing'} in a mix; there are {', '.join(USUAL_MIX)}")
    return mix


try:
    MIX = read_mix(os.environ.get("MONKEYWRENCH_MIX", ""))
except ValueError as error:
    sys.exit(f"MONKEYWRENCH_MIX: {error}")


class Player(Browser):
    """Somebody who plays: one op of the mix after another, and perhaps a session, which ends with the visit."""

    weight = 12
    ops_a_visit = (5, 20)
    mix: ClassVar[Mapping[str, int]] = MIX
    uploads: ClassVar[list[str]] = []
    """Names of acknowledged uploads, by whichever user of this process."""

    def on_start(self) -> None:
        """Start with no op done."""
        super().on_start()
        # What the client would unpack could also be broken in ways that are not the site's.
        self.headers["Accept-Encoding"] = "identity"
        self.ids = (f"{process_id(os.getpid())}-{self.number}-{n}" for n in itertools.count())
        self.login: Ask | None = None
        self.written = self.chance.randrange(ARTICLES)

    def begin_visit(self) -> None:
        """Another person, with a new connection and no session."""
        super().begin_visit()
        self._log_out()

    def next_ask(self) -> Ask:
        """One op of the mix."""
        [choice] = self.chance.choices(tuple(self.mix), tuple(self.mix.values()))
        ask: Ask = getattr(self, choice.replace("-", "_"))()
        return ask

    def page(self) -> Ask:
        """A page without a database."""
        path = self.chance.choice(PAGES)
        return Ask("get", {"url": f"{self.host}{path}"}, path)

    def profile_read(self) -> Ask:
        """Somebody's motto."""
        player = self._anybody()
        return Ask("profile-read", {"player": player}, f"/profile.php?player={player}")

    def profile_write(self) -> Ask:
        """A motto that nobody has ever had: the op's id."""
        motto = next(self.ids)
        asked = {"player": self._anybody(), "motto": motto}
        return Ask("profile-write", asked, "/profile.php", {**asked, "op": motto})

    def score(self) -> Ask:
        """Points."""
        asked = {"player": self._anybody(), "points": self.chance.randint(*POINTS), "op": next(self.ids)}
        return Ask("score", asked, "/score.php", asked)

    def score_read(self) -> Ask:
        """Somebody's points."""
        player = self._anybody()
        return Ask("score-read", {"player": player}, f"/score.php?player={player}")

    def transfer(self) -> Ask:
        """Coins from one player to another."""
        giver = self._anybody()
        taker = (giver + self.chance.randrange(PLAYERS - 1)) % PLAYERS + 1
        asked = {"from": giver, "to": taker, "coins": self.chance.randint(*COINS), "op": next(self.ids)}
        return Ask("transfer", asked, "/transfer.php", asked)

    def coins(self) -> Ask:
        """All balances."""
        return Ask("coins", {}, "/coins.php")

    def upload(self) -> Ask:
        """A file that is like no other."""
        name = next(self.ids)
        body = name.encode() + self.chance.randbytes(self.chance.choice(UPLOAD_BYTES))
        return Ask("upload", {"name": name, **digest(body)}, f"/upload.php?op={name}", body)

    def download(self) -> Ask:
        """An earlier upload; the first one when there is none."""
        if not self.uploads:
            return self.upload()
        name = self.chance.choice(self.uploads)
        return Ask("download", {"name": name}, f"/upload.php?name={name}")

    def session(self) -> Ask:
        """Log in, or look whether the site still knows who did. ``login`` in the value is the op of the login."""
        if self.login is None:
            asked = {"player": self._anybody(), "op": next(self.ids)}
            return Ask("login", asked, "/login.php", asked)
        player, login = self.login.asked["player"], self.login.asked["op"]
        return Ask("session", {"player": player, "login": login}, "/session.php")

    def article(self) -> Ask:
        """An article as the master has it."""
        article = self.chance.randint(1, ARTICLES)
        return Ask("article", {"article": article}, f"/article.php?article={article}")

    def publish(self) -> Ask:
        """The next article, with a text that no other has: nobody changes the same one again at once."""
        self.written += 1
        op, article = next(self.ids), (self.number + self.written) % ARTICLES + 1
        form = {"article": article, "op": op, "text": f"News of {op}"}
        return Ask("publish", {"article": article, "page": f"articles/{article}.html", "op": op}, "/article.php", form)

    def send(self, ask: Ask) -> Judgement:
        """Send a request, and be ready for an answer that cannot be read."""
        try:
            return super().send(ask)
        except ValueError as error:
            # The client decodes the body of a bad answer for a log of its own, and gives up when it is no UTF-8.
            self.report(ask.method, ask.name, WrongAnswerError("unreadable answer"))
            return Judgement("info" if ask.f in WRITES else "fail", f"unreadable answer: {error}", {})

    def judge(self, ask: Ask, response: FastResponse, error: BaseException | None) -> Judgement:
        """Judge an answer; what it tells is right only when it answers what was asked."""
        judgement = super().judge(ask, response, error)
        if ask.f == "get":
            return judgement
        kind, why, known = judgement
        if kind == "ok":
            try:
                known.update(self._told(ask, response))
            except WrongAnswerError as wrong:
                return Judgement("info" if ask.f in WRITES else "fail", str(wrong), known | said(response.content))
        elif kind == "fail":
            if response.status_code not in (0, 200):
                known.update(said(response.content))
            if ask.f in WRITES and not not_written(response.status_code, known.get("written")):
                kind = "info"
        return Judgement(kind, why, known)

    def _told(self, ask: Ask, response: FastResponse) -> dict[str, Any]:
        """What a whole answer with status 200 tells, and what follows from it. Raises WrongAnswerError."""
        if ask.f == "download":
            return digest(response.content or b"")
        told = read_told(SHAPES[ask.f], ask.asked, parsed(response.content))
        if ask.f == "upload":
            self._remember(ask.asked["name"])
        elif ask.f == "login":
            self._log_in(ask, response)
            told["pages"] = 0
        elif ask.f == "session" and told["player"] is None:
            self._log_out()
        return told

    def _anybody(self) -> int:
        return self.chance.randint(1, HOT_PLAYERS if self.chance.random() < 0.5 else PLAYERS)

    def _remember(self, name: str) -> None:
        if len(self.uploads) < UPLOADS_KEPT:
            self.uploads.append(name)
        else:
            self.uploads[self.chance.randrange(UPLOADS_KEPT)] = name

    def _log_in(self, ask: Ask, response: FastResponse) -> None:
        lines = response.headers.getlist("Set-Cookie") if response.headers else []
        cookies = dict(line.partition(";")[0].partition("=")[::2] for line in lines)
        if not cookies:
            raise WrongAnswerError("wrong answer: no cookie")
        self.headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        self.login = ask

    def _log_out(self) -> None:
        self.headers.pop("Cookie", None)
        self.login = None


class Uploader(Player):
    """Somebody with files: uploads them, and looks at what is there."""

    weight = 2
    mix: ClassVar[Mapping[str, int]] = {"upload": 4, "download": 6}


class Administrator(Player):
    """Somebody who changes the site's content, and looks at what it is."""

    weight = 1
    mix: ClassVar[Mapping[str, int]] = {"publish": 3, "article": 4, "page": 3}


PAGE = 1000
"""Entries of a page of the ledger or of the transfers; the site's own limit."""
TRIES = 8
"""How often a reading is asked for: an answer may be lost, and what is not read is not known."""


class Reader(Player):
    """Reads what all that was done has come to. All readers share one list, and the last to find it empty ends it."""

    abstract = not READ
    ops_a_visit = (20, 20)
    wanted: ClassVar[collections.deque[tuple[Ask, int]]] = collections.deque()
    """What is left to be read, and how often it was asked for."""
    under_way: ClassVar[set[int]] = set()

    def on_start(self) -> None:
        """Whoever comes first knows what there is to read."""
        super().on_start()
        if not self.under_way and not self.wanted and READ:
            self.wanted.extend((ask, 0) for ask in to_read(json.loads(Path(READ).read_text())))
        self.under_way.add(self.number)
        self.mine: collections.deque[tuple[Ask, int]] = collections.deque()
        """The next pages of what this one has begun to read: a reading is one process's."""

    def wait_time(self) -> float:
        """No pause, but for a site that does not answer."""
        return 0 if self.vip else RETRY_S

    def next_ask(self) -> Ask:
        """The next on the list."""
        place = self.mine or self.wanted
        if not place:
            self.under_way.discard(self.number)
            if not self.under_way and self.environment.runner:
                self.environment.runner.quit()
            raise StopUser
        self.asked, self.times = place.popleft()
        return self.asked

    def _record(self, time_ns: int, ask: Ask, judgement: Judgement) -> None:
        super()._record(time_ns, ask, judgement)
        unread = judgement.type in ("fail", "info") and judgement.known.get("status", 500) >= 500  # not: there is none
        if judgement.known.get("again"):
            return
        if unread and self.times + 1 < TRIES:
            place = self.mine if ask.f in PAGED else self.wanted
            place.appendleft((ask, self.times + 1))
        elif judgement.type == "ok" and ask.f in PAGED and len(judgement.known["entries"]) == PAGE:
            self.mine.append((page_of(ask.f, judgement.known["last"]), 0))


PAGED = ("ledger", "transfers")


def page_of(what: str, after: int) -> Ask:
    """A page of the ledger or of the transfers."""
    return Ask(what, {"after": after, "limit": PAGE}, f"/{what}.php?after={after}&limit={PAGE}")


def to_read(wanted: Mapping[str, Any]) -> list[Ask]:
    """What there is to read; pages first, as they take longest. Pure."""
    players = range(1, wanted["players"] + 1)
    return [
        *(page_of(what, 0) for what in wanted["pages"]),
        Ask("coins", {}, "/coins.php"),
        *(Ask("score-read", {"player": player}, f"/score.php?player={player}") for player in players),
        *(Ask("profile-read", {"player": player}, f"/profile.php?player={player}") for player in players),
        *(Ask("download", {"name": name}, f"/upload.php?name={name}") for name in wanted["uploads"]),
        *(
            Ask("article", {"article": article}, f"/article.php?article={article}")
            for article in range(1, wanted.get("articles", 0) + 1)
        ),
    ]


def digest(body: bytes) -> dict[str, Any]:
    """The ``sha256`` and the length in ``bytes`` of a body."""
    return {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)}


def said(content: bytes | None) -> dict[str, Any]:
    """What a bad answer said: the site's sentence and its word on ``written``, or the first characters."""
    try:
        answer = parsed(content)
    except WrongAnswerError:
        answer = {}
    sentence = answer.get("error")
    if not isinstance(sentence, str):
        sentence = (content or b"").decode(errors="replace")
    written = {"written": answer["written"]} if answer.get("written") in ("no", "unknown") else {}
    return {**written, "said": sentence[:SAID]}
