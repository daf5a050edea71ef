"""The feeds of the client node: the lines they read and the programs they start."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import loadtests
from harness.protocols import Feed, Lab, Node, Stream
from harness.records import Cable, Cluster, Entry, LabError, Line, Power
from harness.scenario import PhaseTable
from loadtests import accesslog, probe
from loadtests.feeds import entry, feeds

FOLDER = Path(loadtests.__file__).parent
GOOD = {"t": 12, "process": "user:0", "type": "ok", "f": "get", "value": {"vip": "203.0.113.101"}}


def line(op: object) -> Line:
    return Line(99, json.dumps(op))


def test_a_line_becomes_an_op_at_its_own_time() -> None:
    assert entry(line(GOOD)) == Entry(12, "user:0", "ok", "get", {"vip": "203.0.113.101"})
    assert entry(line({**GOOD, "error": "timeout"})).error == "timeout"


@pytest.mark.parametrize("name", ["PLAYERS", "ARTICLES", "PAGE"])
def test_the_site_and_its_people_agree_how_many_there_are(name: str) -> None:
    """Each runs where it cannot import the others."""
    said = {
        (path.name, number)
        for folder in (FOLDER, FOLDER.parent / "topology" / "site")
        for path in (*folder.rglob("*.py"), *folder.rglob("*.php"))
        for number in re.findall(rf"^(?:const )?{name} = (\d+)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert len(said) >= 3
    assert len({number for _, number in said}) == 1


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
        ("[" * 100_000, "recursion"),
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
    """Notes what is put and started on it."""

    name: str = "client"
    now: Power = Power.RUNNING
    done: list[tuple[str, ...]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    stream_of: NoStream = field(default_factory=NoStream)

    def put(self, path: str, content: bytes) -> None:
        self.files[path] = content
        self.done.append(("put", path))

    def stream(self, *argv: str) -> Stream:
        self.done.append(argv)
        return self.stream_of

    def power(self) -> Power:
        return self.now


@dataclass
class ClientLab:
    """A lab of clients, as far as the feeds look at it."""

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


@dataclass(frozen=True)
class Load:
    persona: str = "visitors"
    log: str | None = None
    speed: float = 1
    mix: Mapping[Any, int] = field(default_factory=dict)
    users: int = 10
    spawn_per_s: float = 2.5
    client: str = "browser"
    workers: int = 0
    think_ms: int = 70
    connections: int = 0
    arrivals: str = "closed"
    phases: tuple[PhaseTable, ...] = ()


def made(node: ClientNode, load: Load | None = None) -> list[Feed]:
    return feeds(cast(Lab, ClientLab([node])), load)


def test_without_load_there_is_only_the_probe() -> None:
    assert [feed.name for feed in made(ClientNode())] == ["probe"]
    assert [feed.name for feed in made(ClientNode(), Load())] == ["probe", "load"]


def test_open_arrivals_are_planned_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    node, phases = ClientNode(), (PhaseTable(per_s=0, to_per_s=50, for_s=10), PhaseTable(per_s=50))
    made(node, Load(arrivals="poisson", phases=phases))[1].open()
    argv = node.done[-1]
    (plan,) = (word.partition("=")[2] for word in argv if word.startswith("MONKEYWRENCH_ARRIVALS="))
    assert json.loads(plan) == {"kind": "poisson", "seed": 1, "phases": [[10, 0, 50], [1e9, 50, 50]]}
    assert not any(word.startswith("MONKEYWRENCH_THINK_MS") for word in argv)
    monkeypatch.syspath_prepend(str(FOLDER / "lib"))
    assert node.files["/opt/monkeywrench/lib/arrivals.py"] == (FOLDER / "lib" / "arrivals.py").read_bytes()
    assert next(importlib.import_module("arrivals").read(plan)) > 0


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
    assert replay.asks == ((0.5, "/"), (1.25, "/news.html"), (1.75, "/rules.html?all=1"), (5.5, "/style.css"))
    assert (replay.broken, replay.skipped) == (2, 1)
    assert accesslog.read(LOG.splitlines(), speed=2).asks[-1] == (2.75, "/style.css")


@given(st.text())
def test_no_line_of_a_log_is_fatal(text: str) -> None:
    assert accesslog.read([text]).asks == ()


def test_what_a_log_asks_for_is_put_on_the_client(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = tmp_path / "access.log"
    log.write_text(LOG)
    node = ClientNode()
    made(node, Load(persona="log", log=str(log)))[1].open()
    assert json.loads(node.files["/opt/monkeywrench/replay.json"])[0] == [0.5, "/"]
    assert "MONKEYWRENCH_REPLAY=/opt/monkeywrench/replay.json" in node.done[-1]
    assert node.done[-1][-1] == "Replayer"
    assert "4 requests; 2 lines are broken, 1 are no GET" in caplog.text


def test_a_log_without_anything_to_ask_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="cannot be read"):
        made(ClientNode(), Load(persona="log", log=str(tmp_path / "none")))
    (tmp_path / "posts").write_text(LOG.splitlines()[3])
    with pytest.raises(LabError, match=r"nothing in .* can be played: 0 lines are broken, 1 are no GET"):
        made(ClientNode(), Load(persona="log", log=str(tmp_path / "posts")))


def test_the_probe_is_put_on_the_node_and_then_started_with_what_it_understands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = ClientNode()
    [feed] = made(node)
    assert node.done == []
    assert feed.open() is node.stream_of
    put, (python, program, *argv) = node.done
    assert python == "/usr/bin/python3"
    assert put == ("put", program)
    assert node.files[program] == (FOLDER / "probe.py").read_bytes()
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
    feed = made(node, Load())[1]
    assert feed.open() is node.stream_of
    put, _, argv = node.done
    text = " ".join(argv)
    assert argv[0] == "env"
    assert argv.index("MONKEYWRENCH_OPS=/dev/stdout") < argv.index("/opt/venv/bin/locust")
    assert "MONKEYWRENCH_RESOLVER=203.0.113.54" in argv
    assert "MONKEYWRENCH_THINK_MS=70" in argv
    assert f"--locustfile {put[1]}" in text
    assert "--headless" in argv
    assert "--host http://www.shop.test" in text
    assert "--users 10 --spawn-rate 2.5" in text
    assert "--exit-code-on-error 0" in text
    # The file has other people too, and all of them would come if none were named.
    assert argv[-1] == "Visitor"
    assert "\nclass Visitor(" in (FOLDER / "locustfile.py").read_text(encoding="utf-8")
    assert node.files[put[1]] == (FOLDER / "locustfile.py").read_bytes()


def test_a_mix_reaches_every_locust_and_without_one_it_is_the_usual() -> None:
    node = ClientNode()
    mix = {"page": 8, "score-read": 2}
    _, master, worker = made(node, Load(persona="players", mix=mix, workers=1))
    for feed in (master, worker):
        feed.open()
        (said,) = (word.partition("=")[2] for word in node.done[-1] if word.startswith("MONKEYWRENCH_MIX="))
        assert json.loads(said) == mix
        assert node.done[-1][-1] == "Player"
    made(node, Load(persona="players"))[1].open()
    assert not any(word.startswith("MONKEYWRENCH_MIX") for word in node.done[-1])


def test_workers_are_a_feed_each_on_the_clients_in_turn() -> None:
    one, two = ClientNode("one"), ClientNode("two")
    addresses = {"two": "203.0.113.11", "one": "203.0.113.10"}
    cables = [Cable(f"{name}.eth0", name, "eth0", "internet", (ip,), "") for name, ip in addresses.items()]
    lab = ClientLab([one, two], cables=cables)
    _, master, *workers = feeds(cast(Lab, lab), Load(workers=3))
    assert [feed.name for feed in (master, *workers)] == ["load", "load:0", "load:1", "load:2"]
    for feed in (master, *workers):
        feed.open()
    argv = " ".join(one.done[2])
    assert "--master --master-bind-host 203.0.113.10 --expect-workers 3" in argv
    assert "--users 10 --spawn-rate 2.5" in argv
    assert [sum("--worker" in done for done in node.done) for node in (one, two)] == [2, 1]
    (started,) = [done for done in two.done if "--worker" in done]
    assert "MONKEYWRENCH_PROCESS=user:1" in started
    assert "MONKEYWRENCH_SHARE=1/3" in started
    assert "--master-host 203.0.113.10" in " ".join(started)
    assert "--users" not in started


def test_workers_beside_their_master_stay_on_loopback() -> None:
    node = ClientNode()
    _, master, worker = made(node, Load(workers=1))
    master.open()
    worker.open()
    assert "--master-bind-host 127.0.0.1" in " ".join(node.done[2])
    assert "--master-host 127.0.0.1" in " ".join(node.done[-1])


def test_opening_again_puts_the_files_again() -> None:
    node = ClientNode()
    [feed] = made(node)
    feed.open()
    node.files.clear()
    feed.open()
    assert len(node.files) == 1


@pytest.mark.parametrize("power", list(Power))
def test_a_feed_is_ready_when_its_node_runs(power: Power) -> None:
    assert made(ClientNode(now=power))[0].ready() is (power is Power.RUNNING)


def test_broken_lines_carry_the_feeds_name() -> None:
    for feed in made(ClientNode(), Load()):
        [op] = feed.entries(Line(5, "oops"))
        assert (op.process, op.type) == (feed.name, "info")
        [op] = feed.entries(line(GOOD))
        assert op.process == "user:0"


def test_a_lab_without_a_client_is_refused() -> None:
    with pytest.raises(LabError, match="role client"):
        feeds(cast(Lab, ClientLab([])), None)


def test_the_programs_stand_alone() -> None:
    for name in ("probe.py", "locustfile.py"):
        text = (FOLDER / name).read_text(encoding="utf-8")
        assert not any(
            f"{word} {package}" in text for word in ("import", "from") for package in ("harness", "loadtests")
        )
