"""The probe and the load as feeds of a run: programs that are put on the client node and followed line by line."""

from __future__ import annotations

import io
import json
import logging
import tarfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.history.latency import USERS
from harness.protocols import Feed, Feeds, Lab, Node, Stream
from harness.reading import ReadingError, json_value, shown
from harness.records import Entry, LabError, Line, Power
from harness.scenario import LoadTable
from loadtests import accesslog
from loadtests.lib.site import ARTICLES, JOURNALS, PLAYERS

FOLDER = "/opt/monkeywrench"
"""Where the programs are put on the client node: each feed's in a folder of its own."""
UNPACK = 'mkdir -p "$2" && cd "$2" && tar -xf "$1" && shift 2 && exec "$@"'
PYTHON = "/usr/bin/python3"
LOCUST = "/opt/venv/bin/locust"
PERSONAS = {
    "visitors": ("Visitor",),
    "players": ("Player",),
    "uploaders": ("Uploader",),
    "administrators": ("Administrator",),
    "everyone": ("Visitor", "Player", "Uploader", "Administrator"),
    "log": ("Replayer",),
}
"""The classes of the locustfile for each persona; without a class, Locust would start all of them."""
WRITERS = frozenset({"players", "uploaders", "administrators", "everyone"})
"""The personas that change the site's data, which is read at the end."""
HERE = Path(__file__).parent
LIB = ("__init__.py", *(f"lib/{path.name}" for path in sorted((HERE / "lib").glob("*.py"))))
LOCUSTFILE, PROBE, CONNECTIONS = "loadtests/locustfile.py", "loadtests/probe.py", "loadtests/connections.py"
READER, READERS = "Reader", 6
READ_WITHIN_S = 180
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
"""The feed of the load; the feeds of its workers have this name and a number."""
WORKERS_WITHIN_S = 60
REPLAY = "replay.json"
NO_CLIENT = "the lab has no node with the role client, which probes and load need"
FOREVER_S = 1e9
SEED = 1
"""Of all open arrivals: each run of a scenario has the same ones, so that runs are comparable."""
TYPES = ("invoke", "ok", "fail", "info")


@dataclass(frozen=True)
class ProgramFeed:
    """A program of the client node whose lines are ops already.

    ``files`` maps paths, relative to a folder of the feed's own, to their content. The program starts in that folder.
    """

    name: str
    node: Node
    files: Mapping[str, bytes]
    argv: tuple[str, ...]

    def open(self) -> Stream:
        """Put the files on the node, again if it was opened before, and start the program. Raises LabError."""
        return self.node.stream(*installed(self.node, self.name, self.files, *self.argv))

    def entries(self, line: Line) -> Iterable[Entry]:
        """The op of a line."""
        return [entry(line, self.name)]

    def ready(self) -> bool:
        """True when the client node runs."""
        return self.node.power() is Power.RUNNING


class PlannedFeed(ProgramFeed):
    """A load whose requests have their times: it reports when the last of them was sent."""

    def over(self, entry: Entry) -> bool:
        """Whether this is the locustfile's op for that."""
        return entry.f == "plan" and isinstance(entry.value, dict) and entry.value.get("phase") == "over"


def entry(line: Line, feed: str = "feed") -> Entry:
    """Read ``{"t": ns, "process", "type", "f", "value"?, "error"?}``.

    Any other line becomes an ``info`` op of the process ``feed`` at the time it was received, with the line as its
    value: it may be the program's last message before it died.
    """
    try:
        return _entry(json_value(line.text))
    except (ValueError, ReadingError) as error:
        return Entry(line.time_ns, feed, "info", "feed", line.text, f"unreadable line: {error}")


def _entry(op: Any) -> Entry:
    """Raises ValueError when ``op`` is not an op."""
    if not isinstance(op, dict):
        raise ValueError("not an object")
    time_ns, error = op.get("t"), op.get("error")
    if type(time_ns) is not int or abs(time_ns) >= 2**63:
        raise ValueError(f"t is {time_ns!r}, not ns")
    if op.get("type") not in TYPES:
        raise ValueError(f"type is {op.get('type')!r}, not one of {', '.join(TYPES)}")
    for key in ("process", "f"):
        if not isinstance(op.get(key), str):
            raise ValueError(f"{key} is {op.get(key)!r}, not a text")
    if not isinstance(error, str | None):
        raise ValueError(f"error is {error!r}, not a text")
    return Entry(time_ns, op["process"], op["type"], op["f"], op.get("value"), error)


def feeds(lab: Lab, load: LoadTable | None) -> Feeds:
    """The probe of every VIP and, with ``load``, the users, who resolve the site's name, and connections kept open.

    A load that writes comes with two feeds that read the site's data, before and after it. Raises LabError when the lab
    has no client node.
    """
    clients = lab.nodes("client")
    if not clients:
        raise LabError(NO_CLIENT)
    probe = _probe(lab, clients[0])
    if load is None:
        return Feeds(during=[probe])
    during = [probe, *([_connections(lab, clients[0], load.connections)] if load.connections else [])]
    users = _load(lab, clients, load)
    if load.persona not in WRITERS:
        return Feeds(during=[*during, *users])
    site = (clients[0], lab.cluster.site, lab.cluster.resolver)
    first, final = Reader("first", *site), Reader("final", *site, JOURNALS, ARTICLES)
    return Feeds(before=[first], during=during, writers=users, after=[final])


@dataclass(frozen=True)
class Reader:
    """A program that reads the site's data once and ends on its own: all coins and scores, ``pages``, ``articles``.

    If it follows the run, it also reads each upload that the run tried, answered or not.
    """

    name: str
    client: Node
    site: str
    resolver: str
    pages: tuple[str, ...] = ()
    articles: int = 0
    uploads: set[str] = field(default_factory=set)

    def learn(self, entry: Entry) -> None:
        """Remember the name of an upload that is tried."""
        if entry.f == "upload" and entry.type == "invoke" and isinstance(entry.value, dict):
            self.uploads.add(str(entry.value.get("name")))

    def open(self) -> Stream:
        """Start the program with the uploads that are known now."""
        return self._program().open()

    def entries(self, line: Line) -> Iterable[Entry]:
        """The one op of a line."""
        return [entry(line, self.name)]

    def ready(self) -> bool:
        """True when the client node is running."""
        return self.client.power() is Power.RUNNING

    def _program(self) -> ProgramFeed:
        path = f"{self.name}.json"
        uploads = sorted(self.uploads)
        wanted = {"pages": self.pages, "players": PLAYERS, "uploads": uploads, "articles": self.articles}
        files = {**program(LOCUSTFILE), path: json.dumps(wanted).encode()}
        own = (f"MONKEYWRENCH_READ={path}", f"MONKEYWRENCH_PROCESS={self.name}")
        users = ("--users", str(READERS), "--spawn-rate", str(READERS), "--run-time", f"{READ_WITHIN_S}s")
        argv = ("env", *_environment(self.resolver), *own, *_locust(self.site), *users, READER)
        return ProgramFeed(self.name, self.client, files, argv)


def program(path: str) -> Mapping[str, bytes]:
    """A program of this package with all that it imports: paths that begin with ``loadtests/``, and their content."""
    paths = (path, *(f"loadtests/{name}" for name in LIB))
    return {path: (HERE.parent / path).read_bytes() for path in paths}


def installed(node: Node, name: str, files: Mapping[str, bytes], *argv: str) -> tuple[str, ...]:
    """Put files on a node, in one transfer, and return the command that unpacks them and runs ``argv`` beside them."""
    archive, folder = f"{FOLDER}/{name}.tar", f"{FOLDER}/{name}"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mtime = len(content), int(time.time())
            tar.addfile(member, io.BytesIO(content))
    node.put(archive, packed.getvalue())
    return ("sh", "-c", UNPACK, "unpack", archive, folder, *argv)


def by_hand(lab: Lab, words: Sequence[str], client: str, ops: bool) -> tuple[str, ...]:
    """Put Locust's files on the first client, and return the command that starts it there with its web page.

    ``words`` are options and classes for Locust; without a class, users choose on its page. With ``ops`` the command
    prints each op as a line, among Locust's own messages. Raises LabError when the lab has no client node.
    """
    clients = lab.nodes("client")
    if not clients:
        raise LabError(NO_CLIENT)
    classes = {name for names in PERSONAS.values() for name in names}
    choose = () if classes & set(words) else ("--class-picker",)
    to = (f"MONKEYWRENCH_OPS={'/dev/stdout' if ops else ''}",)
    environment = (*to, f"MONKEYWRENCH_RESOLVER={lab.cluster.resolver}", f"MONKEYWRENCH_CLIENT={client}")
    page = ("--web-host", "127.0.0.1", "--web-port", str(WEB_PORT))
    locust = (LOCUST, "--locustfile", LOCUSTFILE, "--host", f"http://{lab.cluster.site}")
    both = ("sh", "-c", 'exec "$@" 2>&1', "locust")
    command = (*both, "env", *environment, *locust, *page, *choose, *words)
    return installed(clients[0], "by-hand", program(LOCUSTFILE), *command)


def _probe(lab: Lab, client: Node) -> Feed:
    vips = [word for vip in lab.cluster.vips for word in ("--vip", vip)]
    page = ("--host", lab.cluster.site, "--path", ALIVE_PATH, "--expect", ALIVE_TEXT)
    pace = ("--every-ms", PROBE_EVERY_MS, "--timeout-ms", PROBE_TIMEOUT_MS, "--slots", PROBE_SLOTS)
    argv = (PYTHON, PROBE, *vips, *page, *map(str, pace))
    return ProgramFeed("probe", client, program(PROBE), argv)


def _connections(lab: Lab, client: Node, each: int) -> Feed:
    vips = [word for vip in lab.cluster.vips for word in ("--vip", vip)]
    page = ("--host", lab.cluster.site, "--path", TICKER_PATH, "--each", str(each))
    argv = (PYTHON, CONNECTIONS, *vips, *page)
    return ProgramFeed("connections", client, program(CONNECTIONS), argv)


def _load(lab: Lab, clients: Sequence[Node], load: LoadTable) -> list[Feed]:
    """One Locust, or a master, which sends nothing itself, and its workers, each with its share of the planned ops."""
    files = {**program(LOCUSTFILE), **_replay(load)}
    classes = PERSONAS[load.persona]
    users = ("--users", str(load.users), "--spawn-rate", str(load.spawn_per_s))

    def locust(*options: str, **more: str) -> tuple[str, ...]:
        own = tuple(f"MONKEYWRENCH_{key}={value}" for key, value in more.items())
        policy = (f"MONKEYWRENCH_CLIENT={load.client}",)
        mix = (f"MONKEYWRENCH_MIX={json.dumps(dict(load.mix))}",) if load.mix else ()
        environment = (*_environment(lab.cluster.resolver), *policy, *mix, *_pace(load), *own)
        return ("env", *environment, *_locust(lab.cluster.site), *options, *classes)

    feed = PlannedFeed if load.planned else ProgramFeed
    if not load.workers:
        return [feed(LOAD, clients[0], files, locust(*users))]
    address = _address(lab, clients)
    workers = ("--expect-workers", str(load.workers), "--expect-workers-max-wait", str(WORKERS_WITHIN_S))
    master = locust("--master", "--master-bind-host", address, *workers, *users)
    found: list[Feed] = [ProgramFeed(LOAD, clients[0], files, master)]
    for number in range(load.workers):
        share = {"PROCESS": f"{USERS}{number}", "SHARE": f"{number}/{load.workers}"}
        argv = locust("--worker", "--master-host", address, **share)
        found.append(feed(f"{LOAD}:{number}", clients[number % len(clients)], files, argv))
    return found


def _address(lab: Lab, clients: Sequence[Node]) -> str:
    """The address of the workers' master, on the first client; on a single client loopback, which no fault cuts."""
    if len(clients) == 1:
        return "127.0.0.1"
    addresses = [address for cable in lab.cables if cable.node == clients[0].name for address in cable.addresses]
    return addresses[0]


def _replay(load: LoadTable) -> Mapping[str, bytes]:
    """The requests of an access log as a file for the client. Raises LabError for a log without any."""
    replay = replayed(load)
    if replay is None:
        return {}
    if replay.broken or replay.skipped:
        logging.getLogger("monkeywrench").warning(
            "%s: %d requests; left out: %s", load.log, len(replay.requests), replay.left_out
        )
    return {REPLAY: json.dumps(replay.requests).encode()}


def replayed(load: LoadTable) -> accesslog.Replay | None:
    """The requests of the load's access log; None for a load without one. Raises LabError for a log without any."""
    if load.log is None:
        return None
    try:
        lines = Path(load.log).read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise LabError(
            f"cannot read the access log {shown(load.log)}: {getattr(error, 'strerror', None) or error}",
            "Give its path from the current folder.",
        ) from error
    replay = accesslog.read(lines, load.speed)
    if not replay.requests:
        raise LabError(
            f"the access log {load.log!r} has no request to replay: {replay.left_out}",
            "Use the Common Log Format, or one that begins like it.",
        )
    return replay


def _pace(load: LoadTable) -> tuple[str, ...]:
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
    # Failed requests are findings, not a reason to end with an error: hence the last option.
    end = ("--exit-code-on-error", "0")
    return (LOCUST, "--headless", "--locustfile", LOCUSTFILE, "--host", f"http://{site}", *end)
