"""The probe: how it judges answers, and the program against small servers on loopback."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import pytest

from harness.wait import NotYet, until
from loadtests import probe
from loadtests.probe import Judgement, judge
from tests.support.locust import refusing
from tests.support.program import DEADLINE_S, Op, Program

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
    thread.join(timeout=DEADLINE_S)
    for connection in connections:
        connection.close()


def start(port: int, *argv: str) -> Program:
    return Program([sys.executable, probe.__file__, "--vip", "127.0.0.1", "--port", str(port), *argv])


def end(program: Program) -> list[Op]:
    """All ops of a probe, to its clean end."""
    program.terminate()
    assert (program.end(), program.error_text) == (0, "")
    return program.lines


def probed(port: int, enough: Callable[[list[Op]], Any], what: str, *argv: str) -> list[Op]:
    """The ops of one run, to its clean end, once there are enough of them; ``what`` describes these."""
    program = start(port, *argv)
    program.until(lambda: enough(program.lines[:]), what)
    return end(program)


def answered(port: int, count: int, *argv: str) -> list[Op]:
    """The ops of one run, to its clean end, once that many came to ok or fail."""
    return probed(port, lambda ops: sum(op["type"] in {"ok", "fail"} for op in ops) >= count, f"{count} answers", *argv)


def sent_to(ops: list[Op], vip: str = "127.0.0.1") -> dict[int, int]:
    """When each probe of a VIP was sent, by its seq."""
    return {op["value"]["seq"]: op["t"] for op in ops if op["type"] == "invoke" and op["value"]["vip"] == vip}


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


def test_good_answers_from_each_vip() -> None:
    def enough(ops: list[Op]) -> bool:
        return all(len(sent_to(ops, vip)) >= 20 for vip in ("127.0.0.1", "127.0.0.2"))

    before = time.perf_counter_ns()
    with server(answer) as port:
        argv = ("--vip", "127.0.0.2", "--every-ms", "20", "--timeout-ms", str(1000 * DEADLINE_S), "--slots", "10000")
        ops = probed(port, enough, "20 probes of each VIP", *argv)
    after = time.perf_counter_ns()
    pairs = paired(ops)
    assert {op["f"] for op in ops} == {"http"}
    assert all(before < op["t"] < after for op in ops)
    served = [end for _, end in pairs if end["type"] == "ok"]
    # The machine may stand still for a moment; what it cannot do is fail.
    assert {end["error"] for _, end in pairs if end["type"] != "ok"} <= {"probe stopped"}
    assert {(end["value"]["node"], end["value"]["status"]) for end in served} == {("web-3", 200)}
    for vip in ("127.0.0.1", "127.0.0.2"):
        assert all(i["process"].startswith(f"probe:{vip}/") for i, _ in pairs if i["value"]["vip"] == vip)


# ---- its times, on a clock of the test


class VirtualSelector(selectors.SelectSelector):
    """What waits for events lets time pass, and a little more than it asked for."""

    now_s = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self.now_s += timeout + 0.003
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.clock = VirtualSelector()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now_s


class Noted:
    """In the place of ``probe.Lines``: the ops, until there are enough of them."""

    def __init__(self, ops: list[Op], enough: int, stop: asyncio.Event) -> None:
        self.ops, self.enough, self.stop = ops, enough, stop

    def op(self, time_ns: int, process: str, kind: str, value: dict[str, Any], error: str | None = None) -> None:
        self.ops.append({"t": time_ns, "process": process, "type": kind, "value": value, "error": error})
        if len(self.ops) == self.enough:
            self.stop.set()

    def close(self) -> None:
        pass


@pytest.fixture
def virtual(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Op]]]:
    """Run the program on a virtual clock until it has so many ops; its times count from the first due time."""
    loop = VirtualLoop()
    began_s = loop.time()
    monkeypatch.setattr(probe, "now_ns", lambda: round((loop.time() - began_s) * 1e9))

    def run(count: int, *vips: str, every_s: float, stall: tuple[float, float] = (0, 0)) -> list[Op]:
        ops: list[Op] = []
        monkeypatch.setattr(probe, "Lines", lambda _, stop: Noted(ops, count, stop))

        def stalls() -> None:
            loop.clock.now_s += stall[1]

        loop.call_at(began_s + stall[0], stalls)
        # The kernel accepts connections up to the backlog, and nobody answers them.
        with socket.create_server(("0.0.0.0", 0), backlog=512) as listener:
            port = listener.getsockname()[1]
            settings = probe.Settings(b"GET / HTTP/1.0\r\n\r\n", b"OK", port, every_s, timeout_s=DEADLINE_S, slots=400)
            loop.run_until_complete(probe.run([*vips], settings))
        return ops

    yield run
    loop.close()


def test_sends_stay_on_the_grid_of_due_times(virtual: Callable[..., list[Op]]) -> None:
    """Each is 3 ms late, and the next is not later for that."""
    sent = sent_to(virtual(200, "127.0.0.1", every_s=0.02))
    assert [*sent] == list(range(200))
    late_ms = [round(time_ns / 1e6 - 20 * seq, 3) for seq, time_ns in sent.items()]
    assert late_ms[0] == 0
    assert max(late_ms) <= 3.001


def test_vips_are_asked_in_turns(virtual: Callable[..., list[Op]]) -> None:
    ops = virtual(40, "127.0.0.1", "127.0.0.2", every_s=0.1)
    for place, vip in enumerate(("127.0.0.1", "127.0.0.2")):
        sent = sent_to(ops, vip)
        assert [*sent] == list(range(20))
        assert all(0 <= time_ns / 1e6 - 100 * seq - 50 * place <= 3.001 for seq, time_ns in sent.items())


def test_due_times_that_passed_during_a_stall_are_not_made_up_for(virtual: Callable[..., list[Op]]) -> None:
    ops = virtual(120, "127.0.0.1", every_s=0.02, stall=(1.205, 0.5))
    [overrun] = [op["value"] for op in ops if op["error"] == "probe overrun"]
    # due at 1.22 s, and on time again at 1.7 s
    assert (overrun["seq"], overrun["skipped"]) == (61, 24)
    assert overrun["late_ms"] == pytest.approx(488, abs=3)
    sent = sent_to(ops)
    assert [*sent] == [*range(61), *range(85, 85 + len(sent) - 61)]
    # one too many at once would put all later ones an interval before their due times
    assert all(0 <= time_ns / 1e6 - 20 * seq <= 8.001 for seq, time_ns in sent.items())
    assert len(sent) > 100


def test_an_answer_that_does_not_come_delays_nothing() -> None:
    def timeouts(ops: list[Op]) -> list[tuple[Op, Op]]:
        invoked = {op["value"]["seq"]: op for op in ops if op["type"] == "invoke"}
        return [(invoked[op["value"]["seq"]], op) for op in ops if op.get("error") == "timeout"]

    def enough(ops: list[Op]) -> bool:
        """20 timeouts, one of them noticed in time, and 6 slots: the sends do not wait for the timeouts."""
        slots = {invoke["process"] for invoke, _ in timeouts(ops)}
        took = [end["t"] - invoke["t"] for invoke, end in timeouts(ops)]
        return len(took) >= 20 and min(took) < 400e6 and len(slots) >= 6

    with server(stall) as port:
        ops = probed(port, enough, "20 timeouts in 6 slots", "--every-ms", "20", "--timeout-ms", "200")
    assert all(end["type"] == "info" for _, end in paired(ops))
    assert min(end["t"] - invoke["t"] for invoke, end in timeouts(ops)) >= 199e6
    assert {end["error"] for _, end in paired(ops)} == {"timeout", "probe stopped"}


def test_with_all_slots_busy_a_probe_is_skipped_and_recorded() -> None:
    places = {"probe:127.0.0.1", "probe:127.0.0.1/0", "probe:127.0.0.1/1"}

    def enough(ops: list[Op]) -> bool:
        return len(ops) >= 40 and {op["process"] for op in ops} >= places

    with server(stall) as port:
        argv = ("--every-ms", "10", "--timeout-ms", "200", "--slots", "2")
        ops = probed(port, enough, "probes in 2 slots, and one that is skipped", *argv)
    assert {op["process"] for op in ops} == places
    overruns = [op for op in ops if op["process"] == "probe:127.0.0.1"]
    assert {(op["type"], op["error"], op["f"]) for op in overruns} == {("info", "probe overrun", "http")}
    assert accounted_for(ops)


def accounted_for(ops: list[Op]) -> bool:
    """Each due time is there once, as a probe or as one that was skipped."""
    overruns = [op["value"] for op in ops if op["process"] == "probe:127.0.0.1"]
    seqs = [value["seq"] + more for value in overruns for more in range(value["skipped"])]
    seqs += [invoke["value"]["seq"] for invoke, _ in paired(ops)]
    return sorted(seqs) == list(range(len(seqs)))


def test_no_probe_begins_after_the_end() -> None:
    """asyncio runs what is due once more when it closes the loop; after a stall that is the next probe."""
    ops: list[Op] = []
    loop = VirtualLoop()
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        port = listener.getsockname()[1]
        settings = probe.Settings(
            b"GET / HTTP/1.0\r\n\r\n", b"OK", port, every_s=0.001, timeout_s=DEADLINE_S, slots=400
        )
        lines = cast(probe.Lines, Noted(ops, 0, asyncio.Event()))
        probes = probe.Probe("127.0.0.1", settings, lines, loop)
        probes.begin(loop.time())
        loop.run_until_complete(asyncio.sleep(0.01))
        probes.end()
        ended = list(ops)
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
    assert ops == ended
    begun = [op["process"] for op in ops if op["type"] == "invoke"]
    assert begun
    assert sorted(begun) == sorted(op["process"] for op in ops if op["type"] == "info" and "/" in op["process"])


def test_refused_reset_and_wrong_answers_fail() -> None:
    with refusing() as port:
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
    def enough(ops: list[Op]) -> bool:
        return any(op["value"]["vip"] == "127.255.255.255" and op["type"] == "fail" for op in ops)

    pairs = paired(probed(80, enough, "a failure of the broadcast address", "--vip", "127.255.255.255"))
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
        pairs = paired(answered(port, 3, "--every-ms", "200", "--timeout-ms", str(1000 * DEADLINE_S)))
    assert {end["type"] for _, end in pairs if end.get("error") != "probe stopped"} == {"ok"}


def test_a_connection_given_up_is_reset_and_so_forgotten() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        program = start(listener.getsockname()[1], "--timeout-ms", "100")
        listener.settimeout(DEADLINE_S)

        def asked() -> socket.socket:
            """A connection that was not given up before it asked."""
            connection, _ = listener.accept()
            connection.settimeout(DEADLINE_S)
            try:
                assert connection.recv(4096).startswith(b"GET ")
            except ConnectionResetError as error:
                raise NotYet("given up before it asked") from error
            return connection

        connection = until(asked, DEADLINE_S, "a request")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        connection.close()
        end(program)


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


def test_a_deaf_reader_ends_it() -> None:
    with server(answer) as port:
        deaf = subprocess.Popen(
            [sys.executable, probe.__file__, "--vip", "127.0.0.1", "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert deaf.stdout is not None
        assert deaf.stderr is not None
        assert deaf.stdout.readline()
        deaf.stdout.close()
        assert deaf.wait(timeout=DEADLINE_S) == 0
        assert deaf.stderr.read() == ""


def test_a_slow_reader_loses_nothing_and_delays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writing, "w"))
    monkeypatch.setattr(probe, "LAST_FLUSH_S", DEADLINE_S)
    loop = VirtualLoop()
    lines = probe.Lines(loop, asyncio.Event())
    printed: list[bytes] = []
    with os.fdopen(reading, "rb") as late:
        # a write that waits for the reader would never come back, for the pipe holds some 40 lines: then it breaks
        guard = threading.Timer(DEADLINE_S, late.close)
        guard.start()
        for number in range(600):
            lines.op(number, "probe:127.0.0.1/0", "ok", {"seq": number})
            loop.run_until_complete(asyncio.sleep(0.005))
        guard.cancel()
        reader = threading.Thread(target=lambda: printed.extend(late))
        reader.start()
        loop.run_until_complete(asyncio.sleep(1))
        lines.close()
        sys.stdout.close()
        reader.join()
    loop.close()
    assert [json.loads(line)["value"]["seq"] for line in printed] == list(range(600))
