"""The feeds of the client node: the lines they read and the programs they start."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import loadtests
from harness.protocols import Cluster, Entry, Feed, Lab, LabError, Line, Node, Power, Stream
from loadtests import probe
from loadtests.feeds import entry, feeds

FOLDER = Path(loadtests.__file__).parent
GOOD = {"t": 12, "process": "user:0", "type": "ok", "f": "get", "value": {"vip": "203.0.113.101"}}


def line(op: object) -> Line:
    return Line(99, json.dumps(op))


def test_a_line_becomes_an_op_at_its_own_time() -> None:
    assert entry(line(GOOD)) == Entry(12, "user:0", "ok", "get", {"vip": "203.0.113.101"})
    assert entry(line({**GOOD, "error": "timeout"})).error == "timeout"


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

    def nodes(self, role: str | None = None) -> list[Node]:
        return cast(list[Node], self.clients if role == "client" else [])


@dataclass(frozen=True)
class Load:
    users: int = 10
    spawn_per_s: float = 2.5
    think_ms: int = 70


def made(node: ClientNode, load: Load | None = None) -> list[Feed]:
    return feeds(cast(Lab, ClientLab([node])), load)


def test_without_load_there_is_only_the_probe() -> None:
    assert [feed.name for feed in made(ClientNode())] == ["probe"]
    assert [feed.name for feed in made(ClientNode(), Load())] == ["probe", "load"]


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
    put, argv = node.done
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
    assert node.files[put[1]] == (FOLDER / "locustfile.py").read_bytes()


def test_opening_again_puts_the_files_again() -> None:
    node = ClientNode()
    [feed] = made(node)
    feed.open()
    node.files.clear()
    feed.open()
    assert len(node.files) == 1


@pytest.mark.parametrize("power", list(Power))
def test_a_feed_is_ready_when_its_node_runs(power: Power) -> None:
    assert made(ClientNode(power))[0].ready() is (power is Power.RUNNING)


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
