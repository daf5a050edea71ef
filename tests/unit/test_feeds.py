"""The feeds of the client node: the lines they read and the programs they start."""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import sysconfig
import tarfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import loadtests
from harness.protocols import Feed, Lab, LearningFeed, Node, PlannedFeed, Stream
from harness.records import Cable, Cluster, Entry, LabError, Line, Power
from harness.scenario import LoadTable, PhaseTable
from loadtests import accesslog, probe
from loadtests.feeds import CONNECTIONS, LOCUSTFILE, PROBE, entry, feeds, installed, program
from loadtests.lib import addresses, arrivals
from loadtests.lib.site import PLAYERS
from tests.support.cases import FOLDER as CONFIG
from tests.support.program import DEADLINE_S
from topology.lab.restore import COINS_EACH
from topology.model import ALLOWED

FOLDER = Path(loadtests.__file__).parent
GOOD = {"t": 12, "process": "user:0", "type": "ok", "f": "get", "value": {"vip": "203.0.113.101"}}


def line(op: object) -> Line:
    return Line(99, json.dumps(op))


def test_a_line_becomes_an_op_at_its_own_time() -> None:
    assert entry(line(GOOD)) == Entry(12, "user:0", "ok", "get", {"vip": "203.0.113.101"})
    assert entry(line({**GOOD, "error": "timeout"})).error == "timeout"


@pytest.mark.parametrize("name", ["PLAYERS", "ARTICLES", "PAGE"])
def test_the_site_and_its_users_agree_on_numbers(name: str) -> None:
    """The site is PHP, and so has its own copy."""
    found = {
        (path.suffix, number)
        for folder in (FOLDER, FOLDER.parent / "topology" / "site")
        for path in (*folder.rglob("*.py"), *folder.rglob("*.php"))
        for number in re.findall(rf"^(?:const )?{name} = (\d+)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert {suffix for suffix, _ in found} == {".py", ".php"}
    assert len({number for _, number in found}) == 1


def test_the_database_starts_with_these_players_and_their_coins() -> None:
    schema = (FOLDER.parent / "topology/images/db/schema.sql").read_text()
    assert f"FROM seq_1_to_{PLAYERS};" in schema
    assert re.search(rf"coins +INT NOT NULL DEFAULT {COINS_EACH},", schema)


def test_load_may_be_sent_to_all_networks_that_a_topology_may_have() -> None:
    assert {str(network) for network in addresses.LAB} == {*map(str, ALLOWED), "127.0.0.0/8"}


@pytest.mark.parametrize("kind", ["invoke", "ok", "fail", "info"])
def test_the_four_types(kind: str) -> None:
    assert entry(line({**GOOD, "type": kind})).type == kind


def test_value_and_error_may_be_absent_or_null() -> None:
    bare = {"t": 1, "process": "p", "type": "info", "f": "http"}
    assert entry(line(bare)) == entry(line({**bare, "value": None, "error": None})) == Entry(1, "p", "info", "http")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Traceback (most recent call last):", "Expecting value"),
        ('{"t":12,"process":"user:0","ty', "Unterminated string"),
        ("[1]", "not an object"),
        ("", "Expecting value"),
        ("[" * 100_000, "nested more than 64 deep"),
        (json.dumps({**GOOD, "t": 1.5}), "t is 1.5"),
        (json.dumps({**GOOD, "t": True}), "t is True"),
        (json.dumps({**GOOD, "t": None}), "t is None"),
        (json.dumps({**GOOD, "type": "done"}), "type is 'done'"),
        (json.dumps({**GOOD, "type": ["ok"]}), "type is"),
        (json.dumps({**GOOD, "process": 3}), "process is 3"),
        (json.dumps({**GOOD, "f": None}), "f is None"),
        (json.dumps({**GOOD, "error": 5}), "error is 5"),
    ],
)
def test_a_broken_line_becomes_an_info_op_that_says_why(text: str, says: str) -> None:
    op = entry(Line(99, text), "load")
    assert (op.time_ns, op.process, op.type, op.f, op.value) == (99, "load", "info", "feed", text)
    assert op.error is not None
    assert op.error.startswith("unreadable line: ")
    assert says in op.error


@given(
    st.one_of(st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(json.dumps))
)
def test_no_line_raises(text: str) -> None:
    assert entry(Line(99, text)).type == "info"


class NoStream:
    """A program that printed nothing and has ended."""

    def __iter__(self) -> NoStream:
        return self

    def __next__(self) -> Line:
        raise StopIteration

    def stop(self) -> None:
        return


@dataclass
class ClientNode:
    """Notes the files that are put on it, and the commands that are started beside them."""

    name: str = "client"
    now: Power = Power.RUNNING
    started: list[tuple[str, ...]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    """Of the last archive."""
    puts: int = 0
    stream_of: NoStream = field(default_factory=NoStream)

    def put(self, path: str, content: bytes) -> None:
        self.puts += 1
        self.archive, self.content = path, content
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            self.files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]

    def stream(self, *argv: str) -> Stream:
        assert argv[4:6] == (self.archive, self.archive.removesuffix(".tar"))
        self.started.append(argv[6:])
        return self.stream_of

    def power(self) -> Power:
        return self.now


@dataclass
class ClientLab:
    """A lab of clients, with all that the feeds use."""

    clients: list[ClientNode]
    cluster: Cluster = field(
        default_factory=lambda: Cluster(
            site="www.shop.test",
            vips={"203.0.113.101": "lb-1", "203.0.113.102": "lb-2"},
            directors=("lb-1", "lb-2"),
            web=("web-1",),
            macs={},
            keepalive_ms=500,
            deadtime_ms=3000,
            resolver="203.0.113.54",
        )
    )

    cables: list[Cable] = field(default_factory=list)

    def nodes(self, role: str | None = None) -> list[Node]:
        return cast(list[Node], self.clients if role == "client" else [])


def a_load(**settings: Any) -> LoadTable:
    return LoadTable(**{"spawn_per_s": 2.5, "think_ms": 70, **settings})


def made(node: ClientNode, load: LoadTable | None = None) -> list[Feed]:
    found = feeds(cast(Lab, ClientLab([node])), load)
    return [*found.during, *found.writers]


def test_without_load_there_is_only_the_probe() -> None:
    assert [feed.name for feed in made(ClientNode())] == ["probe"]
    assert [feed.name for feed in made(ClientNode(), a_load())] == ["probe", "load"]


def test_open_arrivals_are_planned_before_anything_is_asked() -> None:
    node, phases = ClientNode(), (PhaseTable(per_s=0, to_per_s=50, for_s=10), PhaseTable(per_s=50))
    made(node, a_load(arrivals="poisson", phases=phases))[1].open()
    argv = node.started[-1]
    (plan,) = (word.partition("=")[2] for word in argv if word.startswith("MONKEYWRENCH_ARRIVALS="))
    assert json.loads(plan) == {"kind": "poisson", "seed": 1, "phases": [[10, 0, 50], [1e9, 50, 50]]}
    assert not any(word.startswith("MONKEYWRENCH_THINK_MS") for word in argv)
    assert next(arrivals.read(plan)) > 0


LOG = """\
203.0.113.10 - - [23/Nov/2026:14:00:01 +0000] "GET /news.html HTTP/1.1" 200 512 "-" "Mozilla/5.0"
203.0.113.10 - - [23/Nov/2026:14:00:01 +0000] "GET /rules.html?all=1 HTTP/1.1" 200 512
203.0.113.10 - - [23/Nov/2026:14:00:00 +0000] "GET / HTTP/1.0" 404 12 812
203.0.113.10 - - [23/Nov/2026:14:00:05 +0000] "POST /score.php HTTP/1.1" 200 12
203.0.113.10 - - [23/Nov/2026:15:00:05 +0100] "GET /style.css HTTP/1.1" 200 12
half a line [23/Nov

203.0.113.10 - - [41/Nov/2026:14:00:05 +0000] "GET / HTTP/1.1" 200 12
"""


def test_a_log_is_played_at_its_times_in_order_and_what_cannot_be_is_counted() -> None:
    replay = accesslog.read(LOG.splitlines())
    assert replay.requests == ((0.5, "/"), (1.25, "/news.html"), (1.75, "/rules.html?all=1"), (5.5, "/style.css"))
    assert (replay.broken, replay.skipped) == (2, 1)
    assert accesslog.read(LOG.splitlines(), speed=2).requests[-1] == (2.75, "/style.css")


@pytest.mark.parametrize(
    ("start", "request_line", "path"),
    [
        ("www.example.test:80 192.0.2.7 - -", "GET /news.html HTTP/1.1", "/news.html"),
        ("192.0.2.9 - Ann Lee", "GET /members HTTP/1.1", "/members"),
        ("192.0.2.9 - -", r"GET /caf\xc3\xa9?q=\"a\\b\" HTTP/1.1", "/caf%C3%A9?q=%22a%5Cb%22"),
        ("192.0.2.9 - -", "-", None),
        ("192.0.2.9 - -", r"\x16\x03\x01", None),
        ("192.0.2.9 - -", "OPTIONS * HTTP/1.0", None),
    ],
)
def test_lines_that_apache_writes_are_read(start: str, request_line: str, path: str | None) -> None:
    replay = accesslog.read([f'{start} [10/Oct/2023:13:55:36 +0200] "{request_line}" 200 512 "-" "agent [x]"'])
    assert [asked for _, asked in replay.requests] == ([path] if path else [])
    assert (replay.broken, replay.skipped) == (0, 0 if path else 1)


def test_the_logs_of_the_cases_are_read() -> None:
    logs = {
        name: (CONFIG / name / "access.log").read_text().splitlines()
        for name in ("79-log-vhost-combined", "81-log-not-broken")
    }
    assert [path for _, path in accesslog.read(logs["79-log-vhost-combined"]).requests] == ["/news.html"]
    replay = accesslog.read(logs["81-log-not-broken"])
    assert ([path for _, path in replay.requests], replay.broken, replay.skipped) == (["/members"], 0, 2)


@given(st.text())
def test_no_line_of_a_log_is_fatal(text: str) -> None:
    assert accesslog.read([text]).requests == ()


def test_the_requests_of_a_log_are_put_on_the_client(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = tmp_path / "access.log"
    log.write_text(LOG)
    node = ClientNode()
    made(node, a_load(persona="log", log=str(log)))[1].open()
    assert json.loads(node.files["replay.json"])[0] == [0.5, "/"]
    assert "MONKEYWRENCH_REPLAY=replay.json" in node.started[-1]
    assert node.started[-1][-1] == "Replayer"
    assert "4 requests; left out: 2 unreadable lines, 1 other than GET" in caplog.text


def test_a_log_without_requests_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="cannot read the access log"):
        made(ClientNode(), a_load(persona="log", log=str(tmp_path / "none")))
    (tmp_path / "posts").write_text(LOG.splitlines()[3])
    with pytest.raises(LabError, match=r"has no request to replay: 0 unreadable lines, 1 other than GET"):
        made(ClientNode(), a_load(persona="log", log=str(tmp_path / "posts")))


def test_the_probe_is_put_on_the_node_and_then_started_with_what_it_understands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = ClientNode()
    [feed] = made(node)
    assert (node.puts, node.started) == (0, [])
    assert feed.open() is node.stream_of
    [(python, path, *argv)] = node.started
    assert python == "/usr/bin/python3"
    assert node.files[path] == (FOLDER / "probe.py").read_bytes()
    seen: list[tuple[list[str], probe.Settings]] = []

    async def note(vips: list[str], settings: probe.Settings) -> None:
        seen.append((vips, settings))

    monkeypatch.setattr(probe, "run", note)
    assert probe.main(argv) == 0
    [(vips, settings)] = seen
    assert vips == ["203.0.113.101", "203.0.113.102"]
    assert settings.request.startswith(b"GET /alive HTTP/1.0\r\nHost: www.shop.test\r\n")
    assert (settings.expect, settings.port, settings.every_s, settings.timeout_s) == (b"OK", 80, 0.05, 0.8)
    # A VIP that answers nothing must not run out of slots.
    assert settings.slots > settings.timeout_s / settings.every_s


def test_the_load_is_locust_in_the_clients_own_environment() -> None:
    node = ClientNode()
    feed = made(node, a_load())[1]
    assert feed.open() is node.stream_of
    [argv] = node.started
    text = " ".join(argv)
    assert argv[0] == "env"
    assert argv.index("MONKEYWRENCH_OPS=/dev/stdout") < argv.index("/opt/venv/bin/locust")
    assert "MONKEYWRENCH_RESOLVER=203.0.113.54" in argv
    assert "MONKEYWRENCH_THINK_MS=70" in argv
    assert "--locustfile loadtests/locustfile.py" in text
    assert "--headless" in argv
    assert "--host http://www.shop.test" in text
    assert "--users 10 --spawn-rate 2.5" in text
    assert "--exit-code-on-error 0" in text
    # Without a class, Locust would start all of them.
    assert argv[-1] == "Visitor"
    assert "\nclass Visitor(" in (FOLDER / "locustfile.py").read_text(encoding="utf-8")
    assert node.files["loadtests/locustfile.py"] == (FOLDER / "locustfile.py").read_bytes()


def test_a_mix_reaches_every_locust_and_without_one_it_is_the_usual() -> None:
    node = ClientNode()
    mix = {"page": 8, "score-read": 2}
    _, master, worker = made(node, a_load(persona="players", mix=mix, workers=1))
    for feed in (master, worker):
        feed.open()
        (sent,) = (word.partition("=")[2] for word in node.started[-1] if word.startswith("MONKEYWRENCH_MIX="))
        assert json.loads(sent) == mix
        assert node.started[-1][-1] == "Player"
    made(node, a_load(persona="players"))[1].open()
    assert not any(word.startswith("MONKEYWRENCH_MIX") for word in node.started[-1])


def test_a_load_that_writes_is_read_before_and_after() -> None:
    node = ClientNode()
    found = feeds(cast(Lab, ClientLab([node])), a_load(persona="uploaders"))
    assert [
        [feed.name for feed in feeds_then] for feeds_then in (found.before, found.during, found.writers, found.after)
    ] == [
        ["first"],
        ["probe"],
        ["load"],
        ["final"],
    ]
    (first,), (final,) = found.before, found.after
    assert isinstance(final, LearningFeed)
    for kind, name in (("invoke", "b"), ("ok", "b"), ("invoke", "a"), ("info", "c")):
        final.learn(Entry(0, "user:0", kind, "upload", {"name": name}))
    read = {}
    for feed in (first, final):
        feed.open()
        read[feed.name] = json.loads(node.files[f"{feed.name}.json"])
    assert read["first"] == {"pages": [], "players": 200, "uploads": [], "articles": 0}
    assert read["final"] == {"pages": ["ledger", "transfers"], "players": 200, "uploads": ["a", "b"], "articles": 12}
    assert node.started[-1][-1] == "Reader"
    assert "MONKEYWRENCH_PROCESS=final" in node.started[-1]


def test_only_a_load_with_planned_requests_reports_its_end() -> None:
    node, over = ClientNode(), Entry(0, "plan", "info", "plan", {"phase": "over"})
    planned = a_load(arrivals="constant", phases=(PhaseTable(per_s=5, for_s=1),), workers=2)
    found = [feed for feed in made(node, planned) if isinstance(feed, PlannedFeed)]
    assert [feed.name for feed in found] == ["load:0", "load:1"]
    assert found[0].over(over)
    assert not found[0].over(replace(over, value={"phase": "begin"}))
    assert not any(isinstance(feed, PlannedFeed) for feed in made(node, a_load()))


def test_workers_are_a_feed_each_on_the_clients_in_turn() -> None:
    one, two = ClientNode("one"), ClientNode("two")
    addresses = {"two": "203.0.113.11", "one": "203.0.113.10"}
    cables = [Cable(f"{name}.eth0", name, "eth0", "internet", (ip,), "") for name, ip in addresses.items()]
    lab = ClientLab([one, two], cables=cables)
    _, master, *workers = feeds(cast(Lab, lab), a_load(workers=3)).during
    assert [feed.name for feed in (master, *workers)] == ["load", "load:0", "load:1", "load:2"]
    for feed in (master, *workers):
        feed.open()
    argv = " ".join(one.started[0])
    assert "--master --master-bind-host 203.0.113.10 --expect-workers 3" in argv
    assert "--users 10 --spawn-rate 2.5" in argv
    assert [sum("--worker" in argv for argv in node.started) for node in (one, two)] == [2, 1]
    (started,) = [argv for argv in two.started if "--worker" in argv]
    assert "MONKEYWRENCH_PROCESS=user:1" in started
    assert "MONKEYWRENCH_SHARE=1/3" in started
    assert "--master-host 203.0.113.10" in " ".join(started)
    assert "--users" not in started


def test_workers_beside_their_master_stay_on_loopback() -> None:
    node = ClientNode()
    _, master, worker = made(node, a_load(workers=1))
    master.open()
    worker.open()
    assert "--master-bind-host 127.0.0.1" in " ".join(node.started[0])
    assert "--master-host 127.0.0.1" in " ".join(node.started[-1])


def test_opening_again_puts_the_files_again() -> None:
    node = ClientNode()
    [feed] = made(node)
    feed.open()
    node.files.clear()
    feed.open()
    assert PROBE in node.files


@pytest.mark.parametrize("power", list(Power))
def test_a_feed_is_ready_when_its_node_runs(power: Power) -> None:
    assert made(ClientNode(now=power))[0].ready() is (power is Power.RUNNING)


def test_broken_lines_carry_the_feeds_name() -> None:
    for feed in made(ClientNode(), a_load()):
        [op] = feed.entries(Line(5, "oops"))
        assert (op.process, op.type) == (feed.name, "info")
        [op] = feed.entries(line(GOOD))
        assert op.process == "user:0"


def test_a_lab_without_a_client_is_refused() -> None:
    with pytest.raises(LabError, match="role client"):
        feeds(cast(Lab, ClientLab([])), None)


def imported(path: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse((FOLDER.parent / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    return {name for name in names if name.partition(".")[0] in {"harness", "topology", "faults", "loadtests"}}


def test_the_programs_of_the_client_import_nothing_but_their_library() -> None:
    shipped = {path for name in (PROBE, CONNECTIONS, LOCUSTFILE) for path in program(name)}
    assert shipped > {PROBE, CONNECTIONS, LOCUSTFILE}
    assert {name for path in shipped for name in imported(path) if not name.startswith("loadtests.lib")} == set()


@pytest.mark.parametrize(
    ("path", "argv", "prints"),
    [
        (PROBE, (sys.executable, PROBE, "--help"), "--every-ms"),
        (CONNECTIONS, (sys.executable, CONNECTIONS, "--help"), "--each"),
        pytest.param(
            LOCUSTFILE,
            (f"{sysconfig.get_path('scripts')}/locust", "-f", LOCUSTFILE, "--list"),
            "Administrator",
            marks=pytest.mark.locust,
        ),
    ],
)
def test_a_program_has_all_it_needs_where_it_is_unpacked(
    tmp_path: Path, path: str, argv: tuple[str, ...], prints: str
) -> None:
    node = ClientNode()
    command = installed(cast(Node, node), "feed", program(path), *argv)
    (tmp_path / "feed.tar").write_bytes(node.content)
    here = [word.replace("/opt/monkeywrench", str(tmp_path)) for word in command]
    done = subprocess.run(here, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    assert prints in done.stdout
