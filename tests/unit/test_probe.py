"""The probe: how it judges answers, and the program against small servers on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

import pytest

from loadtests import probe
from loadtests.probe import Judgement, judge

Op = dict[str, Any]
STOPPED = {("info", "probe stopped")}
OK = b"HTTP/1.1 200 OK\r\nx-NODE: web-3\r\nContent-Length: 3\r\n\r\nOK\n"


@pytest.mark.parametrize(
    ("raw", "ended", "expected"),
    [
        (OK, False, Judgement("ok", "web-3", 200)),
        (OK[:-1], False, None),
        (OK[:-1], True, Judgement("fail", "web-3", 200, "closed before the whole answer")),
        (OK[:20], False, None),
        (OK[:20], True, Judgement("fail", error="closed before an answer")),
        (b"", True, Judgement("fail", error="closed before an answer")),
        (OK.replace(b"OK\n", b"NO\n"), False, Judgement("fail", "web-3", 200, "wrong body")),
        (OK.replace(b"200", b"503"), False, Judgement("fail", "web-3", 503, "status 503")),
        (OK.replace(b"x-NODE: web-3\r\n", b""), False, Judgement("ok", None, 200)),
        (b"HTTP/1.0 200 OK\r\n\r\nOK", False, None),
        (b"HTTP/1.0 200 OK\r\n\r\nOK", True, Judgement("ok", None, 200)),
        (b"HTTP/1.0 200\r\nX-Node: OK\r\nContent-Length: 0\r\n\r\n", False, Judgement("fail", "OK", 200, "wrong body")),
        (b"SSH-2.0-x\r\n\r\n", False, Judgement("fail", error="not an HTTP answer")),
        (b"HTTP/1.1 okay\r\n\r\n", False, Judgement("fail", error="not an HTTP answer")),
    ],
)
def test_judge(raw: bytes, ended: bool, expected: Judgement | None) -> None:
    assert judge(raw, b"OK", ended=ended) == expected


@pytest.mark.parametrize("address", ["192.0.2.1", "10.0.0.1", "203.0.114.1", "198.20.0.1", "8.8.8.8"])
def test_probes_stay_inside_the_lab(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        probe.main(["--vip", address])
    assert end.value.code == 2
    assert "inside the lab" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["203.0.113.101", "198.18.0.1", "198.19.255.254", "127.0.0.2"])
def test_lab_addresses_are_taken(address: str) -> None:
    assert probe.lab_address(address) == address


# ---- the program


def answer(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(OK)
    connection.close()


def stall(connection: socket.socket) -> None:
    connection.recv(4096)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, probe.RESET_ON_CLOSE)
    connection.close()


@contextmanager
def server(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """Handle each connection in turn on a free port of all of loopback; connections stay open until the end."""
    listener = socket.create_server(("0.0.0.0", 0), backlog=512)
    connections = []

    def accept() -> None:
        for _ in range(100_000):
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            try:
                handle(connection)
            except OSError:
                continue

    thread = threading.Thread(target=accept)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(timeout=5)
    for connection in connections:
        connection.close()


def start(port: int, *argv: str) -> subprocess.Popen[str]:
    program = [sys.executable, probe.__file__, "--vip", "127.0.0.1", "--port", str(port), *argv]
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read(program: subprocess.Popen[str], ops: int) -> list[Op]:
    assert program.stdout is not None
    return [json.loads(program.stdout.readline()) for _ in range(ops)]


def end(program: subprocess.Popen[str]) -> list[Op]:
    # Not communicate(): it forgets what readline() has read ahead.
    assert program.stdout is not None
    assert program.stderr is not None
    program.send_signal(signal.SIGTERM)
    rest = [json.loads(line) for line in program.stdout]
    assert (program.wait(timeout=60), program.stderr.read()) == (0, "")
    return rest


def probed(port: int, ops: int, *argv: str) -> list[Op]:
    """At least ``ops`` ops of one run, to its clean end."""
    program = start(port, *argv)
    return read(program, ops) + end(program)


def answered(port: int, count: int, *argv: str) -> list[Op]:
    """The ops of one run, to its clean end, in which so many or more came to ok or fail."""
    program = start(port, *argv)
    ops: list[Op] = []
    while sum(op["type"] in {"ok", "fail"} for op in ops) < count and len(ops) < 10_000:
        ops += read(program, 1)
    return ops + end(program)


def paired(ops: list[Op]) -> list[tuple[Op, Op]]:
    """Each invoke with its completion. Fails when a process has two ops outstanding or one is left open."""
    outstanding: dict[str, Op] = {}
    pairs = []
    for op in ops:
        if op["type"] == "invoke":
            assert op["process"] not in outstanding
            outstanding[op["process"]] = op
        elif op["process"].count("/"):
            invoke = outstanding.pop(op["process"])
            assert (op["value"]["vip"], op["value"]["seq"]) == (invoke["value"]["vip"], invoke["value"]["seq"])
            assert op["t"] >= invoke["t"]
            pairs.append((invoke, op))
    assert not outstanding
    return pairs


def test_good_answers_at_a_steady_rate_from_each_vip() -> None:
    before = time.perf_counter_ns()
    with server(answer) as port:
        ops = probed(port, 640, "--vip", "127.0.0.2", "--every-ms", "20", "--timeout-ms", "5000")
    after = time.perf_counter_ns()
    pairs = paired(ops)
    assert {op["f"] for op in ops} == {"http"}
    assert all(before < op["t"] < after for op in ops)
    served = [end for _, end in pairs if end["type"] == "ok"]
    # The machine may stand still for a moment; what it cannot do is fail.
    assert {end["error"] for _, end in pairs if end["type"] != "ok"} <= {"probe stopped"}
    assert {(end["value"]["node"], end["value"]["status"]) for end in served} == {("web-3", 200)}
    for vip in ("127.0.0.1", "127.0.0.2"):
        sent = [invoke for invoke, _ in pairs if invoke["value"]["vip"] == vip]
        assert all(invoke["process"].startswith(f"probe:{vip}/") for invoke in sent)
        assert len(sent) >= 80
        sent.sort(key=lambda invoke: int(invoke["value"]["seq"]))
        late = [(invoke["t"] - 20_000_000 * invoke["value"]["seq"]) / 1e6 for invoke in sent]
        # Actual send times stay on the grid of due times: no drift. (A busy machine may hold up a few, and not all.)
        assert abs(min(late[-20:]) - min(late[:20])) < 50


def test_an_answer_that_does_not_come_delays_nothing() -> None:
    with server(stall) as port:
        ops = probed(port, 60, "--every-ms", "20", "--timeout-ms", "200")
    pairs = paired(ops)
    timeouts = [(invoke, end) for invoke, end in pairs if end.get("error") == "timeout"]
    assert len(timeouts) >= 20
    assert all(end["type"] == "info" for _, end in pairs)
    took = sorted(end["t"] - invoke["t"] for invoke, end in timeouts)
    assert took[0] >= 199e6
    assert took[len(took) // 2] < 400e6
    # About ten at once: the sends do not wait for the time-outs.
    assert len({invoke["process"] for invoke, _ in timeouts}) >= 6
    assert {end["error"] for _, end in pairs} == {"timeout", "probe stopped"}


def test_with_all_slots_busy_a_probe_is_skipped_and_said_to_be() -> None:
    with server(stall) as port:
        ops = probed(port, 40, "--every-ms", "10", "--timeout-ms", "200", "--slots", "2")
    assert {op["process"] for op in ops} == {"probe:127.0.0.1", "probe:127.0.0.1/0", "probe:127.0.0.1/1"}
    overruns = [op for op in ops if op["process"] == "probe:127.0.0.1"]
    assert {(op["type"], op["error"], op["f"]) for op in overruns} == {("info", "probe overrun", "http")}
    # Every due time is accounted for, as a probe or as one that was skipped.
    seqs = [op["value"]["seq"] + more for op in overruns for more in range(op["value"]["skipped"])]
    seqs += [invoke["value"]["seq"] for invoke, _ in paired(ops)]
    assert sorted(seqs) == list(range(len(seqs)))


def test_due_times_are_not_made_up_for_after_the_machine_stood_still() -> None:
    with server(answer) as port:
        program = start(port, "--every-ms", "20")
        ops = read(program, 40)
        os.kill(program.pid, signal.SIGSTOP)
        with socket.socket() as silent:
            # Nothing ever comes in here: time passes.
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            silent.settimeout(0.5)
            with pytest.raises(TimeoutError):
                silent.accept()
        os.kill(program.pid, signal.SIGCONT)
        ops += read(program, 20) + end(program)
    stall_of = max(
        (op["value"] for op in ops if op.get("error") == "probe overrun"), key=lambda value: value["skipped"]
    )
    assert stall_of["skipped"] >= 20
    assert stall_of["late_ms"] >= 20 * stall_of["skipped"]
    sent = {op["value"]["seq"]: op["t"] for op in ops if op["type"] == "invoke"}
    resumed = stall_of["seq"] + stall_of["skipped"]
    assert resumed in sent
    assert stall_of["seq"] not in sent
    # Still on the same grid: with one too many at once, all later ones would come an interval before their due times.
    origins = {seq: time_ns - 20e6 * seq for seq, time_ns in sent.items()}
    before = min(origin for seq, origin in origins.items() if seq < stall_of["seq"])
    assert min(origin for seq, origin in origins.items() if seq > resumed) > before - 10e6


def test_refused_reset_and_wrong_answers_fail() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    refused = paired(answered(port, 4, "--every-ms", "10"))
    assert {(end["type"], end["error"]) for _, end in refused} - STOPPED == {("fail", "connection refused")}
    with server(reset) as port:
        ends = {(end["type"], end.get("error")) for _, end in paired(answered(port, 4, "--every-ms", "10"))}
    assert ("fail", "connection reset by peer") in ends
    assert "ok" not in {kind for kind, _ in ends}
    with server(answer) as port:
        pairs = paired(answered(port, 4, "--every-ms", "10", "--expect", "GAME ON"))
    assert ("fail", "wrong body", "web-3") in {(e["type"], e.get("error"), e["value"].get("node")) for _, e in pairs}
    assert "ok" not in {end["type"] for _, end in pairs}


def test_an_unreachable_address_fails_at_once() -> None:
    # Loopback's broadcast address: the kernel refuses to connect to it before anything is sent.
    pairs = paired(probed(80, 10, "--vip", "127.255.255.255"))
    ends = {(end["type"], end["error"]) for _, end in pairs if end["value"]["vip"] == "127.255.255.255"}
    assert ends - STOPPED == {("fail", "network is unreachable")}


def test_an_answer_may_come_in_pieces() -> None:
    def dribble(connection: socket.socket) -> None:
        connection.recv(4096)
        for piece in (OK[:30], OK[30:-1], OK[-1:]):
            connection.sendall(piece)
            connection.settimeout(0.03)
            with suppress(TimeoutError):
                # Nothing more comes from there: time passes.
                connection.recv(1)
        connection.close()

    with server(dribble) as port:
        pairs = paired(answered(port, 3, "--every-ms", "200", "--timeout-ms", "20000"))
    assert {end["type"] for _, end in pairs if end.get("error") != "probe stopped"} == {"ok"}


def test_a_connection_given_up_is_reset_and_so_forgotten() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        program = start(listener.getsockname()[1], "--timeout-ms", "100")
        connection, _ = listener.accept()
        connection.settimeout(60)
        assert connection.recv(4096).startswith(b"GET ")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        connection.close()
        end(program)


def test_vips_are_asked_in_turns() -> None:
    with server(answer) as port:
        ops = probed(port, 40, "--vip", "127.0.0.2", "--every-ms", "100")
    first, second = (
        {i["value"]["seq"]: i["t"] for i, _ in paired(ops) if i["value"]["vip"] == vip}
        for vip in ("127.0.0.1", "127.0.0.2")
    )
    gaps = sorted(second[seq] - first[seq] for seq in first.keys() & second.keys())
    assert 25e6 < gaps[len(gaps) // 2] < 75e6


def test_the_request_names_path_and_host() -> None:
    requests = []

    def note(connection: socket.socket) -> None:
        requests.append(connection.recv(4096))
        connection.sendall(OK)
        connection.close()

    with server(note) as port:
        answered(port, 1, "--host", "www.shop.test", "--path", "/alive.html")
    assert requests[0].startswith(b"GET /alive.html HTTP/1.0\r\nHost: www.shop.test\r\n")
    assert requests[0].endswith(b"\r\n\r\n")


def test_a_deaf_reader_ends_it_and_a_slow_one_loses_nothing() -> None:
    with server(answer) as port:
        deaf = start(port)
        read(deaf, 1)
        assert deaf.stdout is not None
        deaf.stdout.close()
        assert deaf.wait(timeout=60) == 0
        assert deaf.stderr is not None
        assert deaf.stderr.read() == ""
        # The pipe holds the lines of two seconds or so; the rest waits in the probe, which goes on probing.
        slow_end, its_end = os.pipe()
        os.set_blocking(its_end, True)
        slow = subprocess.Popen(
            [sys.executable, probe.__file__, "--vip", "127.0.0.1", "--port", str(port), "--every-ms", "5"],
            stdout=its_end,
        )
        os.close(its_end)
        with pytest.raises(subprocess.TimeoutExpired):
            slow.wait(timeout=10)
        with os.fdopen(slow_end, "rb") as late:
            # All of the ten seconds: what is left at the end has to be read within the probe's patience.
            ops = [json.loads(late.readline()) for _ in range(4400)]
            slow.send_signal(signal.SIGTERM)
            ops += [json.loads(line) for line in late]
        assert slow.wait(timeout=60) == 0
    sent = [invoke["t"] for invoke, _ in paired(ops)]
    assert len(sent) > 500
    assert max(later - earlier for earlier, later in pairwise(sent)) < 5e9
