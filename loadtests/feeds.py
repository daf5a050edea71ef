"""The probe and the load as feeds of a run: programs put on the client node and followed line by line."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.history.latency import USERS
from harness.protocols import Feed, Lab, Node, Stream
from harness.records import Entry, LabError, Line, Power
from loadtests import accesslog

FOLDER = "/opt/monkeywrench"
"""Where the programs are put on the client node."""
PYTHON = "/usr/bin/python3"
LOCUST = "/opt/venv/bin/locust"
PEOPLE = {
    "visitors": ("Visitor",),
    "players": ("Player",),
    "uploaders": ("Uploader",),
    "administrators": ("Administrator",),
    "everyone": ("Visitor", "Player", "Uploader", "Administrator"),
    "log": ("Replayer",),
}
"""The classes of the locustfile that make a scenario's load; with none named, Locust would start them all."""
WRITERS = frozenset({"players", "uploaders", "administrators", "everyone"})
"""Those whose ops leave something on the site, which is read at the end."""
LOAD_PROGRAM = ("locustfile.py", "lib/arrivals.py")
"""What Locust needs on the client."""
READER, READERS = "Reader", 6
READ_WITHIN_S = 180
PLAYERS = 200
"""As many as the site has from the start (topology/images/db/schema.sql)."""
ARTICLES = 12
"""As many as the site has (topology/site/lib/articles.php)."""
PAGES = ("ledger", "transfers")
PROBE_EVERY_MS = 50
PROBE_TIMEOUT_MS = 800
"""Shorter than TCP's first retransmission of a SYN (1 s, RFC 6298 2): a probe is one try, never a late second one."""
PROBE_SLOTS = 32
ALIVE_PATH = "/alive"
ALIVE_TEXT = "OK"
TICKER_PATH = "/ticker.php"
WEB_PORT = 8089
"""Of Locust's page, on the client's own loopback: its default."""
LOAD = "load"
"""The feed of the load; each of its workers' is named after it, with a number."""
WORKERS_WITHIN_S = 60
REPLAY = f"{FOLDER}/replay.json"
FOREVER_S = 1e9
SEED = 1
"""Of all open arrivals: they are the same in each run of a scenario, which is what makes runs comparable."""
TYPES = ("invoke", "ok", "fail", "info")


class Phase(Protocol):
    """Part of a load with open arrivals."""

    @property
    def for_s(self) -> float | None:
        """How long; None: to the end."""

    @property
    def per_s(self) -> float:
        """Ops a second at its beginning."""

    @property
    def to_per_s(self) -> float | None:
        """At its end; None: the same."""


class LoadSettings(Protocol):
    """What the load needs to know of a scenario."""

    @property
    def persona(self) -> str:
        """Who they are: one of ``PEOPLE``."""

    @property
    def log(self) -> str | None:
        """The access log that is played."""

    @property
    def speed(self) -> float:
        """How many times as fast."""

    @property
    def mix(self) -> Mapping[Any, int]:
        """What players do, by weight; empty: the usual mix."""

    @property
    def users(self) -> int:
        """How many there are at once."""

    @property
    def spawn_per_s(self) -> float:
        """How many come a second, until all are there."""

    @property
    def client(self) -> str:
        """What they ask with: a policy of the locustfile."""

    @property
    def workers(self) -> int:
        """How many processes share them, with a master; 0: one process has them all."""

    @property
    def think_ms(self) -> int:
        """How long each pauses after a page."""

    @property
    def connections(self) -> int:
        """How many are kept open to each virtual IP."""

    @property
    def arrivals(self) -> str:
        """``closed``, or the kind of open arrivals."""

    @property
    def phases(self) -> Sequence[Phase]:
        """The rate of open arrivals, one phase after another."""


@dataclass(frozen=True)
class ProgramFeed:
    """A program of the client node whose lines are ops already. ``files`` maps paths on the node to their content."""

    name: str
    node: Node
    files: Mapping[str, bytes]
    argv: tuple[str, ...]

    def open(self) -> Stream:
        """Put the files on the node, again if need be, and start the program. Raises LabError."""
        for path, content in self.files.items():
            self.node.put(path, content)
        return self.node.stream(*self.argv)

    def entries(self, line: Line) -> Iterable[Entry]:
        """The one op of a line."""
        return [entry(line, self.name)]

    def ready(self) -> bool:
        """True when the client node is running."""
        return self.node.power() is Power.RUNNING


def entry(line: Line, feed: str = "feed") -> Entry:
    """Read ``{"t": ns, "process", "type", "f", "value"?, "error"?}``.

    A line that is anything else becomes an ``info`` op of the process ``feed`` at the time it was received, with the
    line as its value: it may be the program's last words.
    """
    try:
        return _entry(json.loads(line.text))
    except (ValueError, RecursionError) as error:
        return Entry(line.time_ns, feed, "info", "feed", line.text, f"unreadable line: {error}")


def _entry(op: Any) -> Entry:
    """Raises ValueError when ``op`` is not an op."""
    if not isinstance(op, dict):
        raise ValueError("not an object")
    time_ns, error = op.get("t"), op.get("error")
    if type(time_ns) is not int:
        raise ValueError(f"t is {time_ns!r}, not ns")
    if op.get("type") not in TYPES:
        raise ValueError(f"type is {op.get('type')!r}, not one of {', '.join(TYPES)}")
    for key in ("process", "f"):
        if not isinstance(op.get(key), str):
            raise ValueError(f"{key} is {op.get(key)!r}, not a text")
    if not isinstance(error, str | None):
        raise ValueError(f"error is {error!r}, not a text")
    return Entry(time_ns, op["process"], op["type"], op["f"], op.get("value"), error)


def feeds(lab: Lab, load: LoadSettings | None) -> list[Feed]:
    """The probe of every VIP and, with ``load``, the users, who resolve the site's name, and connections kept open.

    Raises LabError when the lab has no client node.
    """
    clients = lab.nodes("client")
    if not clients:
        raise LabError("The lab has no node with the role client, so nothing can ask the site for pages.")
    found: list[Feed] = [_probe(lab, clients[0])]
    if load is not None:
        found += _load(lab, clients, load)
        if load.connections:
            found.append(_connections(lab, clients[0], load.connections))
    return found


@dataclass(frozen=True)
class Readings:
    """What is read of the site before anything happens and once all is over; each ends by itself."""

    client: Node
    site: str
    resolver: str

    def first(self) -> Feed:
        """All coins and all scores: what players begin with."""
        return self._feed("first", {"pages": [], "players": PLAYERS, "uploads": []})

    def final(self, uploads: Sequence[str]) -> Feed:
        """What everything has come to; ``uploads`` are the names of all that were tried."""
        everything = {"pages": PAGES, "players": PLAYERS, "uploads": list(uploads), "articles": ARTICLES}
        return self._feed("final", everything)

    def _feed(self, name: str, wanted: Mapping[str, Any]) -> Feed:
        path = f"{FOLDER}/{name}.json"
        files = {**program(*LOAD_PROGRAM), path: json.dumps(wanted).encode()}
        environment = (*_environment(self.resolver), f"MONKEYWRENCH_READ={path}", f"MONKEYWRENCH_PROCESS={name}")
        users = ("--users", str(READERS), "--spawn-rate", str(READERS), "--run-time", f"{READ_WITHIN_S}s")
        return ProgramFeed(name, self.client, files, ("env", *environment, *_locust(self.site), *users, READER))


def readings(lab: Lab, load: LoadSettings | None) -> Readings | None:
    """What is to be read before and after a load that writes; None where there is nothing to read."""
    clients = lab.nodes("client")
    if load is None or load.persona not in WRITERS or not clients:
        return None
    return Readings(clients[0], lab.cluster.site, lab.cluster.resolver)


def program(*names: str) -> Mapping[str, bytes]:
    """Files of this package, by their paths on the client."""
    return {f"{FOLDER}/{name}": (Path(__file__).parent / name).read_bytes() for name in names}


def by_hand(lab: Lab, words: Sequence[str], client: str, ops: bool) -> tuple[str, ...]:
    """The command that starts Locust with its own page on the first client, which has all its files then.

    ``words`` are options and classes for Locust; without a class its page lets one choose. With ``ops`` each op is a
    line of what the command prints, beside what Locust says. Raises LabError when the lab has no client node.
    """
    clients = lab.nodes("client")
    if not clients:
        raise LabError("The lab has no node with the role client, so nothing can ask the site for pages.")
    for path, content in program(*LOAD_PROGRAM).items():
        clients[0].put(path, content)
    classes = {each for some in PEOPLE.values() for each in some}
    choose = () if classes & set(words) else ("--class-picker",)
    to = (f"MONKEYWRENCH_OPS={'/dev/stdout' if ops else ''}",)
    environment = (*to, f"MONKEYWRENCH_RESOLVER={lab.cluster.resolver}", f"MONKEYWRENCH_CLIENT={client}")
    page = ("--web-host", "127.0.0.1", "--web-port", str(WEB_PORT))
    locust = (LOCUST, "--locustfile", f"{FOLDER}/locustfile.py", "--host", f"http://{lab.cluster.site}")
    both = ("sh", "-c", 'exec "$@" 2>&1', "locust")
    return (*both, "env", *environment, *locust, *page, *choose, *words)


def _probe(lab: Lab, client: Node) -> Feed:
    vips = [word for vip in lab.cluster.vips for word in ("--vip", vip)]
    page = ("--host", lab.cluster.site, "--path", ALIVE_PATH, "--expect", ALIVE_TEXT)
    pace = ("--every-ms", PROBE_EVERY_MS, "--timeout-ms", PROBE_TIMEOUT_MS, "--slots", PROBE_SLOTS)
    argv = (PYTHON, f"{FOLDER}/probe.py", *vips, *page, *map(str, pace))
    return ProgramFeed("probe", client, program("probe.py"), argv)


def _connections(lab: Lab, client: Node, each: int) -> Feed:
    vips = [word for vip in lab.cluster.vips for word in ("--vip", vip)]
    page = ("--host", lab.cluster.site, "--path", TICKER_PATH, "--each", str(each))
    argv = (PYTHON, f"{FOLDER}/connections.py", *vips, *page)
    return ProgramFeed("connections", client, program("connections.py"), argv)


def _load(lab: Lab, clients: Sequence[Node], load: LoadSettings) -> list[Feed]:
    """One Locust, or a master, which asks nothing itself, and its workers, each with its share of the planned ops."""
    files = {**program(*LOAD_PROGRAM), **_replay(load)}
    people = PEOPLE[load.persona]
    users = ("--users", str(load.users), "--spawn-rate", str(load.spawn_per_s))

    def locust(*what: str, **more: str) -> tuple[str, ...]:
        own = tuple(f"MONKEYWRENCH_{key}={value}" for key, value in more.items())
        policy = (f"MONKEYWRENCH_CLIENT={load.client}",)
        mix = (f"MONKEYWRENCH_MIX={json.dumps(dict(load.mix))}",) if load.mix else ()
        environment = (*_environment(lab.cluster.resolver), *policy, *mix, *_pace(load), *own)
        return ("env", *environment, *_locust(lab.cluster.site), *what, *people)

    if not load.workers:
        return [ProgramFeed(LOAD, clients[0], files, locust(*users))]
    address = _address(lab, clients)
    workers = ("--expect-workers", str(load.workers), "--expect-workers-max-wait", str(WORKERS_WITHIN_S))
    master = locust("--master", "--master-bind-host", address, *workers, *users)
    found: list[Feed] = [ProgramFeed(LOAD, clients[0], files, master)]
    for number in range(load.workers):
        share = {"PROCESS": f"{USERS}{number}", "SHARE": f"{number}/{load.workers}"}
        argv = locust("--worker", "--master-host", address, **share)
        found.append(ProgramFeed(f"{LOAD}:{number}", clients[number % len(clients)], files, argv))
    return found


def _address(lab: Lab, clients: Sequence[Node]) -> str:
    """Where the workers find their master: on the first client; beside it, by no cable, which may be a fault's."""
    if len(clients) == 1:
        return "127.0.0.1"
    addresses = [address for cable in lab.cables if cable.node == clients[0].name for address in cable.addresses]
    return addresses[0]


def _replay(load: LoadSettings) -> Mapping[str, bytes]:
    """What a log asks for, as a file for the client. Raises LabError for a log without anything to ask for."""
    if load.log is None:
        return {}
    try:
        lines = Path(load.log).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise LabError(f"the log {load.log} cannot be read: {error.strerror}", "Name one from this folder.") from error
    replay = accesslog.read(lines, load.speed)
    if not replay.asks:
        raise LabError(
            f"nothing in {load.log} can be played: {replay.broken} lines are broken, {replay.skipped} are no GET",
            "It has to be in the Common Log Format, or one that begins like it.",
        )
    if replay.broken or replay.skipped:
        left_out = f"{replay.broken} lines are broken, {replay.skipped} are no GET"
        logging.getLogger("monkeywrench").warning("%s: %d requests; %s", load.log, len(replay.asks), left_out)
    return {REPLAY: json.dumps(replay.asks).encode()}


def _pace(load: LoadSettings) -> tuple[str, ...]:
    if load.log is not None:
        return (f"MONKEYWRENCH_REPLAY={REPLAY}",)
    if load.arrivals == "closed":
        return (f"MONKEYWRENCH_THINK_MS={load.think_ms}",)
    phases = [
        (phase.for_s or FOREVER_S, phase.per_s, phase.per_s if phase.to_per_s is None else phase.to_per_s)
        for phase in load.phases
    ]
    plan = {"kind": load.arrivals, "seed": SEED, "phases": phases}
    return (f"MONKEYWRENCH_ARRIVALS={json.dumps(plan)}",)


def _environment(resolver: str) -> tuple[str, ...]:
    return ("MONKEYWRENCH_OPS=/dev/stdout", f"MONKEYWRENCH_RESOLVER={resolver}")


def _locust(site: str) -> tuple[str, ...]:
    # Failed pages are findings, not a reason to end with an error: that is what the last option says.
    end = ("--exit-code-on-error", "0")
    return (LOCUST, "--headless", "--locustfile", f"{FOLDER}/locustfile.py", "--host", f"http://{site}", *end)
