"""The locustfile, run by Locust itself in a process of its own: importing it here would patch this interpreter."""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import sysconfig
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import loadtests
from harness.wait import pass_time
from topology.images.resolver import resolver

Op = dict[str, Any]
LOCUSTFILE = Path(loadtests.__file__).with_name("locustfile.py")
LOCUST = Path(sysconfig.get_path("scripts")) / "locust"
NAMES = {"127.0.0.1": "web-1", "127.0.0.2": "web-2"}


@dataclass
class Site:
    """Answers GETs on one port of 127.0.0.1 and 127.0.0.2; ``behave`` may replace what happens to a request."""

    behave: Callable[[socket.socket, bytes], bool] = lambda *_: False
    requests: list[tuple[str, int, bytes]] = field(default_factory=list)
    """Of each request: the address it came to, the number of its connection, its head."""
    connections: list[socket.socket] = field(default_factory=list)
    port: int = 0

    def serve(self, listener: socket.socket) -> None:
        for number in range(100_000):
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._converse, args=(connection, number), daemon=True).start()

    def _converse(self, connection: socket.socket, number: int) -> None:
        address = connection.getsockname()[0]
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while request := connection.recv(4096):
                self.requests.append((address, number, request))
                if not self.behave(connection, request):
                    head = f"HTTP/1.1 200 OK\r\nX-Node: {NAMES[address]}\r\nContent-Length: 3\r\n\r\n"
                    connection.sendall(head.encode() + b"OK\n")
        except OSError:
            return


@contextmanager
def site(behave: Callable[[socket.socket, bytes], bool] | None = None, address: str = "0.0.0.0") -> Iterator[Site]:
    served = Site() if behave is None else Site(behave)
    listener = socket.create_server((address, 0), backlog=512)
    served.port = listener.getsockname()[1]
    thread = threading.Thread(target=served.serve, args=(listener,))
    thread.start()
    try:
        yield served
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(timeout=5)
        for connection in served.connections:
            connection.close()


@contextmanager
def dns(folder: Path, ttl_s: int = 0, addresses: tuple[str, ...] = tuple(NAMES)) -> Iterator[str]:
    """The lab's own resolver on loopback; yields what MONKEYWRENCH_RESOLVER must be."""
    path = folder / "zone.toml"
    path.write_text(
        f'zone = "example.test"\nsite = "www.example.test"\nttl_s = {ttl_s}\naddresses = {list(addresses)}\n',
        encoding="utf-8",
    )
    argv = [sys.executable, resolver.__file__, str(path), "--address", "127.0.0.1", "--port", "0"]
    program = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    found = re.search(r"on (127\.0\.0\.1:\d+) ", program.stdout.readline())
    assert found
    try:
        yield found[1]
    finally:
        program.terminate()
        program.communicate(timeout=60)


def start(
    port: int, server: str, *, who: str = "Visitor", users: int = 4, seconds: int = 5, **environment: str
) -> subprocess.Popen[str]:
    pace = f"--users {users} --spawn-rate 100 --run-time {seconds}s --exit-code-on-error 0"
    return locust(port, server, f"--headless {pace} {who}", {"MONKEYWRENCH_THINK_MS": "20", **environment})


def locust(port: int, server: str, more: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    argv = [str(LOCUST), "--locustfile", str(LOCUSTFILE), "--host", f"http://www.example.test:{port}"]
    variables = {"MONKEYWRENCH_OPS": "/dev/stdout", "MONKEYWRENCH_RESOLVER": server, **environment}
    env = {**os.environ, **variables}
    return subprocess.Popen([*argv, *more.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def finish(program: subprocess.Popen[str]) -> list[Op]:
    out, errors = program.communicate(timeout=180)
    assert program.returncode == 0, errors
    assert "Traceback" not in errors, errors
    return [json.loads(line) for line in out.splitlines()]


def paired(ops: list[Op], fs: Collection[str] = ("get",)) -> list[tuple[Op, Op]]:
    """Each invoke with its completion. Fails when a process has two ops outstanding or one is left open."""
    outstanding: dict[str, Op] = {}
    pairs = []
    for op in ops:
        if op["f"] in ("plan", "worker"):
            continue
        assert re.fullmatch(r"(user|user:\d|final|connection:[\d.]+):\d+", op["process"])
        assert op["f"] in fs
        if op["type"] == "invoke":
            assert op["process"] not in outstanding
            outstanding[op["process"]] = op
        else:
            invoke = outstanding.pop(op["process"])
            assert invoke["t"] <= op["t"]
            assert invoke["f"] == op["f"]
            assert invoke["value"]["vip"] == op["value"]["vip"]
            pairs.append((invoke, op))
    assert not outstanding
    return pairs


def test_visitors_take_turns_at_the_addresses_and_record_every_page(tmp_path: Path) -> None:
    with site() as served, dns(tmp_path) as server:
        pairs = paired(finish(start(served.port, server)))
        requests = list(served.requests)
    url = f"http://www.example.test:{served.port}/"
    kinds = Counter(end["type"] for _, end in pairs)
    assert kinds["ok"] > 100
    assert {end.get("error") for _, end in pairs if end["type"] != "ok"} <= {"stopped"}
    assert kinds["info"] <= 4
    assert {invoke["process"] for invoke, _ in pairs} == {f"user:{number}" for number in range(4)}
    for invoke, end in pairs:
        assert invoke["value"] == {"url": url, "vip": invoke["value"]["vip"]}
        if end["type"] == "ok":
            assert end["value"].keys() == {"url", "vip", "node", "status", "ms"}
            assert end["value"]["node"] == NAMES[end["value"]["vip"]]
            assert end["value"]["status"] == 200
            assert 0 < end["value"]["ms"] <= (end["t"] - invoke["t"]) / 1e6 + 0.001
    used = Counter(end["value"]["vip"] for _, end in pairs)
    assert min(used[vip] for vip in NAMES) > 0.3 * len(pairs)
    # With a TTL of nothing every visit resolves again, so every user comes to both.
    assert len({(end["process"], end["value"]["vip"]) for _, end in pairs}) == 8
    # What was recorded is what was sent: to that address, with the site's name, a few pages on each connection.
    sent = Counter(address for address, _, _ in requests)
    assert all(0 <= used[vip] - sent[vip] <= 4 for vip in NAMES)
    assert all(f"Host: www.example.test:{served.port}\r\n".encode() in head for _, _, head in requests)
    pages = Counter(number for _, number, _ in requests)
    assert max(pages.values()) <= 6
    assert len(pages) > 20
    assert sum(count >= 2 for count in pages.values()) >= len(pages) - 4


def plan(*phases: tuple[float, float, float]) -> str:
    return json.dumps({"kind": "constant", "seed": 0, "phases": phases})


def test_planned_ops_are_all_done_and_not_one_more(tmp_path: Path) -> None:
    with site() as served, dns(tmp_path) as server:
        planned = plan((2, 0, 80), (1, 40, 40))
        ops = finish(start(served.port, server, users=20, seconds=15, MONKEYWRENCH_ARRIVALS=planned))
    pairs = paired(ops)
    assert [end["type"] for _, end in pairs] == ["ok"] * 119  # the 120th is at the very end, when it is over
    assert all(invoke["value"]["late_ms"] >= 0 for invoke, _ in pairs)
    assert sum(invoke["value"]["free"] for invoke, _ in pairs) > 15
    told = 0
    for invoke, end in pairs:
        took_ms = (end["t"] - invoke["t"]) / 1e6
        told += end["value"]["ms"] == pytest.approx(took_ms + invoke["value"]["late_ms"], abs=500)
        assert end["value"]["ms"] >= took_ms - 0.001
    # A machine that stands still may catch all of the 20 users between noting that they are late and asking.
    assert told >= 99
    (over,) = (op for op in ops if op["f"] == "plan")
    assert (over["process"], over["type"], over["value"]) == ("plan", "info", {"phase": "over", "share": "0/1"})
    assert over["t"] >= max(end["t"] for _, end in pairs)
    begin, end = (op for op in ops if op["f"] == "worker")
    assert (begin["process"], begin["value"]["phase"], end["value"]) == ("worker:user", "begin", {"phase": "end"})
    assert begin is ops[0]
    assert end is ops[-1]


def test_a_log_is_asked_for_at_its_times(tmp_path: Path) -> None:
    asks = [(0.1 * n, f"/page-{n}.html") for n in range(20)]
    (tmp_path / "replay.json").write_text(json.dumps(asks))
    replay = str(tmp_path / "replay.json")
    with site() as served, dns(tmp_path, ttl_s=3600) as server:
        program = start(served.port, server, who="Replayer", users=5, seconds=10, MONKEYWRENCH_REPLAY=replay)
        pairs = paired(finish(program))
        sent = [re.match(rb"GET (\S+)", head) for _, _, head in served.requests]
    # What is overdue is asked for at once, and is answered in any order: the plan is told by when each was wanted.
    due = {end["value"]["url"].rpartition("/")[2]: end["t"] - 1e6 * end["value"]["ms"] for _, end in pairs}
    assert len(pairs) == len(due)
    assert sorted(due, key=lambda page: due[page]) == [f"page-{n}.html" for n in range(20)]
    assert sorted(match[1].decode() for match in sent if match) == sorted(path for _, path in asks)
    began = [at / 1e9 - 0.1 * number for number, at in enumerate(sorted(due.values()))]
    assert began == pytest.approx([began[0]] * 20, abs=0.001)
    # Between noting how late it is and asking there is time that only a busy machine needs.
    more_ms = [(i["t"] - end["t"]) / 1e6 + end["value"]["ms"] - i["value"]["late_ms"] for i, end in pairs]
    assert min(more_ms) >= -0.01
    assert statistics.median(more_ms) < 500


def distributed(port: int, server: str, arrivals: str, seconds: int) -> tuple[subprocess.Popen[str], ...]:
    """A master and two workers, who share what is planned."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        at = unused.getsockname()[1]
    master = f"--master --master-bind-host 127.0.0.1 --master-bind-port {at} --expect-workers 2 Visitor"
    planned = {"MONKEYWRENCH_ARRIVALS": arrivals}
    workers = [
        locust(
            port,
            server,
            f"--worker --master-host 127.0.0.1 --master-port {at} Visitor",
            {**planned, "MONKEYWRENCH_PROCESS": f"user:{number}", "MONKEYWRENCH_SHARE": f"{number}/2"},
        )
        for number in range(2)
    ]
    return start(port, server, who=master, users=8, seconds=seconds, **planned), *workers


def test_workers_share_the_planned_ops_and_leave_none_out(tmp_path: Path) -> None:
    with site() as served, dns(tmp_path) as server:
        master, *workers = distributed(served.port, server, plan((3, 19.5, 19.5)), 12)
        said = [paired(finish(program)) for program in workers]
        assert finish(master) == []  # it asks for nothing itself
    for number, pairs in enumerate(said):
        assert {invoke["process"].rpartition(":")[0] for invoke, _ in pairs} == {f"user:{number}"}
    assert len(served.requests) == sum(map(len, said)) == 58
    assert sorted(len(pairs) for pairs in said) == [29, 29]


def test_a_worker_that_dies_leaves_the_others_their_share(tmp_path: Path) -> None:
    with site() as served, dns(tmp_path) as server:
        master, dying, other = distributed(served.port, server, plan((4, 19.6, 19.6)), 14)
        assert dying.stdout is not None
        for _ in range(2):  # it has begun, and asked for something
            dying.stdout.readline()
        dying.kill()
        dying.communicate()
        assert len(paired(finish(other))) == 39  # every second one of 78
        finish(master)


def test_an_op_that_finds_everybody_busy_counts_from_when_it_was_planned(tmp_path: Path) -> None:
    """One user, ten ops a second, each of which takes 200 ms: the eighth is begun some 700 ms late."""

    def slow(_: socket.socket, __: bytes) -> bool:
        pass_time(0.2)
        return False

    with site(slow) as served, dns(tmp_path) as server:
        pairs = paired(finish(start(served.port, server, users=1, MONKEYWRENCH_ARRIVALS=plan((0.85, 10, 10)))))
    assert len(pairs) == 8
    assert [invoke["value"]["free"] for invoke, _ in pairs] == [True] + [False] * 7
    late_ms = [invoke["value"]["late_ms"] for invoke, _ in pairs]
    assert late_ms == sorted(late_ms)
    assert late_ms[-1] > 600
    assert all(end["value"]["ms"] >= 200 + invoke["value"]["late_ms"] for invoke, end in pairs)


@pytest.mark.parametrize(
    ("client", "connections"), [("browser", range(2, 60)), ("keep-alive", range(1, 3)), ("new-connections", None)]
)
def test_a_policy_keeps_connections_for_as_long_as_it_says(
    tmp_path: Path, client: str, connections: range | None
) -> None:
    with site() as served, dns(tmp_path, ttl_s=60) as server:
        pairs = paired(finish(start(served.port, server, users=1, seconds=3, MONKEYWRENCH_CLIENT=client)))
        made = len({number for _, number, _ in served.requests})
    assert len(pairs) > 4
    assert made in (connections or [len(served.requests)])
    assert made < len(pairs) or not connections


@pytest.mark.parametrize(("client", "again"), [("browser", True), ("first-address", False)])
def test_a_browser_asks_the_next_address_where_the_first_takes_no_connection(
    tmp_path: Path, client: str, again: bool
) -> None:
    """127.0.0.3 has no server: a connection there is refused."""
    with site(address="127.0.0.1") as served, dns(tmp_path, addresses=("127.0.0.3", "127.0.0.1")) as server:
        pairs = paired(finish(start(served.port, server, users=2, seconds=3, MONKEYWRENCH_CLIENT=client)))
    failed = [(invoke, end) for invoke, end in pairs if end["type"] == "fail"]
    assert failed
    for invoke, end in failed:
        assert end["value"]["vip"] == "127.0.0.3"
        assert end["value"].get("again", False) is again
        if again:
            following = next(
                later for later, _ in pairs if later["process"] == end["process"] and later["t"] >= end["t"]
            )
            assert following["value"] == {**invoke["value"], "vip": "127.0.0.1"}
    assert {end["value"]["vip"] for _, end in pairs if end["type"] == "ok"} == {"127.0.0.1"}


def test_a_client_that_there_is_not_is_told_which_there_are(tmp_path: Path) -> None:
    with dns(tmp_path) as server:
        program = start(1, server, MONKEYWRENCH_CLIENT="lynx")
        _, errors = program.communicate(timeout=180)
    assert program.returncode != 0
    assert "'lynx'; there are browser, first-address, keep-alive, new-connections" in errors
    assert "Traceback" not in errors


def test_an_address_is_kept_until_its_ttl_ends(tmp_path: Path) -> None:
    with site() as served, dns(tmp_path, ttl_s=3600) as server:
        pairs = paired(finish(start(served.port, server, users=2)))
        connections = {number for _, number, _ in served.requests}
    used = {(invoke["process"], invoke["value"]["vip"]) for invoke, _ in pairs}
    assert len(connections) > 4
    assert len(used) == 2
    assert {vip for _, vip in used} == set(NAMES)


def test_a_dead_server_makes_failures_and_no_hanging(tmp_path: Path) -> None:
    with dns(tmp_path, ttl_s=3600) as server:
        with site() as served:
            program = start(served.port, server, seconds=8)
            assert program.stdout is not None
            before = [json.loads(program.stdout.readline()) for _ in range(50)]
            assert "ok" in {op["type"] for op in before}
        # Not communicate(): it forgets what readline() has read ahead.
        after = [json.loads(line) for line in program.stdout]
        assert program.wait(timeout=180) == 0
    pairs = paired(before + after)
    fails = [end for _, end in pairs if end["type"] == "fail"]
    assert sum("refused" in end["error"] for end in fails) > 8
    assert {end["type"] for _, end in pairs[-4:]} <= {"fail", "info"}
    # An address that failed is not kept: the TTL of an hour does not hold the user there.
    vips = {end["value"]["vip"] for end in fails if end["process"] == "user:0"}
    assert vips == set(NAMES)


def _cut(connection: socket.socket, _: bytes) -> bool:
    connection.close()
    return True


def _short(connection: socket.socket, _: bytes) -> bool:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Node: web-1\r\nContent-Length: 300\r\n\r\nOK\n")
    connection.close()
    return True


def _sorry(connection: socket.socket, _: bytes) -> bool:
    connection.sendall(b"HTTP/1.1 503 Sorry\r\nX-Node: web-9\r\nContent-Length: 0\r\n\r\n")
    return True


def _elsewhere(connection: socket.socket, _: bytes) -> bool:
    connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n")
    return True


def test_bad_answers_fail_and_are_not_tried_again(tmp_path: Path) -> None:
    bad = itertools.cycle([_cut, _short, _sorry, _elsewhere])

    def behave(connection: socket.socket, request: bytes) -> bool:
        return next(bad)(connection, request)

    with site(behave) as served, dns(tmp_path) as server:
        pairs = paired(finish(start(served.port, server, users=1)))
        requests = len(served.requests)
    ended = [end for _, end in pairs if end.get("error") != "stopped"]
    assert len(ended) > 8
    assert {end["type"] for end in ended} == {"fail"}
    assert all(end["error"] for end in ended)
    statuses = [end["value"].get("status") for end in ended]
    assert statuses == [status for status, _ in zip(itertools.cycle([None, 200, 503, 302]), ended, strict=False)]
    # A request that is sent again behind the recorder's back would make one op of two.
    assert 0 <= len(pairs) - requests <= 1


def test_no_answer_is_a_timeout_and_nobody_knows(tmp_path: Path) -> None:
    with site(lambda *_: True) as served, dns(tmp_path) as server:
        pairs = paired(finish(start(served.port, server, users=2, seconds=4, MONKEYWRENCH_TIMEOUT_MS="800")))
    assert {end["type"] for _, end in pairs} == {"info"}
    timeouts = [end for _, end in pairs if end["error"] == "timeout"]
    assert len(timeouts) >= 2
    # The default is 5000, and a busy machine may notice late.
    assert all(790 < end["value"]["ms"] < 4000 for end in timeouts)
    assert {end["error"] for _, end in pairs} <= {"timeout", "stopped"}


def test_addresses_outside_of_the_lab_are_never_asked(tmp_path: Path) -> None:
    # The first is anybody's; the second is a lab's, but only behind a router, which is where a lab that is down is.
    with dns(tmp_path, addresses=("192.0.2.1", "198.19.255.1")) as server:
        pairs = paired(finish(start(80, server, users=2, seconds=6)))
    errors = {end["error"] for _, end in pairs}
    assert {end["type"] for _, end in pairs} == {"fail"}
    assert any("192.0.2.1 is outside of 198.18.0.0/15" in error for error in errors)
    assert any("198.19.255.1 is not on this node's own networks" in error for error in errors)
    assert {end["value"]["vip"] for _, end in pairs} == {None}


@pytest.mark.parametrize(
    ("server", "seconds", "says"),
    [
        ("192.0.2.53", 6, "192.0.2.53 is outside of"),
        ("resolver", 6, "Expected 4 octets"),
        ("127.0.0.1:9", 15, "no answer from the resolver 127.0.0.1:9"),
    ],
)
def test_without_a_resolver_the_load_fails(server: str, seconds: int, says: str) -> None:
    pairs = paired(finish(start(80, server, users=1, seconds=seconds)))
    assert pairs
    assert all(end["type"] == "fail" and says in end["error"] for _, end in pairs)
    # No busy loop: with a think time of 20 ms there would be 50 a second.
    assert len(pairs) <= 12.5 * seconds


def test_ops_go_to_a_file_or_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "ops.jsonl"
    with site() as served, dns(tmp_path) as server:
        program = start(served.port, server, users=1, seconds=4, MONKEYWRENCH_OPS=str(path))
        assert finish(program) == []
        assert paired([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])
        assert finish(start(served.port, server, users=1, seconds=4, MONKEYWRENCH_OPS="")) == []
