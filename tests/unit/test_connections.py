"""The program that keeps connections open, against a small server on loopback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from loadtests import connections
from tests.support.locust import paired, refusing
from tests.support.program import Op, Program

WITHOUT_PAUSES = f"""
import sys
sys.path.insert(0, {str(Path(connections.__file__).parents[1])!r})
from loadtests import connections
connections.PAUSE_S = 0.01
connections.main()
"""


class Server(ThreadingHTTPServer):
    """Sends line after line on one answer; the test may change how."""

    daemon_threads = True
    accepted = 0
    status = 200
    lines = 10_000
    silent = False
    breaks = False

    def __init__(self, *where: Any) -> None:
        super().__init__(*where)
        self.ended = Event()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.accepted += 1
        super().process_request(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        if self.server.silent:
            self.server.ended.wait()
            return
        self.send_response(self.server.status)
        self.send_header("X-Node", "web-1")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(self.server.lines):
            line = b"%d\n" % number
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            Event().wait(0.02)
        if self.server.breaks:
            self.close_connection = True
        else:
            self.wfile.write(b"4\r\nend\n\r\n0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def server(**behaviour: Any) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as served:
        for name, value in behaviour.items():
            setattr(served, name, value)
        Thread(target=served.serve_forever, daemon=True).start()
        yield served
        served.ended.set()
        served.shutdown()


def kept(port: int, ops: int, *more: str) -> list[tuple[Op, Op]]:
    """The first ops, and those outstanding at the end: each invoke with its completion."""
    argv = [sys.executable, "-c", WITHOUT_PAUSES, "--vip", "127.0.0.1", "--host", "www.example.test"]
    program = Program([*argv, "--port", str(port), *more])
    program.lines_until(ops)
    program.terminate()
    assert (program.end(), program.error_text) == (0, "")
    return paired(program.lines, ("kept",))


def test_each_place_keeps_one_connection() -> None:
    with server() as served:
        pairs = kept(served.server_port, 80, "--each", "3")
    assert served.accepted == 3
    ok = [end["value"] for _, end in pairs if end["type"] == "ok"]
    assert len(ok) >= 30
    assert {value["connection"] for value in ok} == {"0", "1", "2"}
    assert {(value["node"], value["status"], value["vip"]) for value in ok} == {("web-1", 200, "127.0.0.1")}
    assert all(value["ms"] > 0 for value in ok)


def test_an_answer_that_ends_breaks_no_connection_and_the_next_one_is_made() -> None:
    with server(lines=3) as served:
        pairs = kept(served.server_port, 16, "--each", "1")
    ends = [(end["value"]["connection"], end["type"], end.get("error")) for _, end in pairs[:8]]
    assert ends[:4] == [*[("0", "ok", None)] * 3, ("0", "info", "the answer ended")]
    assert ends[4:] == [*[("1", "ok", None)] * 3, ("1", "info", "the answer ended")]


def test_an_answer_that_breaks_off_is_a_failure() -> None:
    with server(lines=3, breaks=True) as served:
        pairs = kept(served.server_port, 8, "--each", "1")
    assert [end["type"] for _, end in pairs[:4]] == ["ok", "ok", "ok", "fail"]
    assert pairs[3][1]["error"] == "closed in the middle"


def test_another_status_is_a_failure() -> None:
    with server(status=503) as served:
        pairs = kept(served.server_port, 4, "--each", "1")
    assert {(end["type"], end["error"]) for _, end in pairs[:2]} == {("fail", "status 503")}


def test_a_refused_connection_is_a_failure() -> None:
    with refusing() as port:
        pairs = kept(port, 6, "--each", "1")
    assert {end["type"] for _, end in pairs} <= {"fail", "info"}
    assert "refused" in pairs[0][1]["error"]


def test_silence_is_a_timeout_and_an_outstanding_op_is_recorded_at_the_end() -> None:
    with server(silent=True) as served:
        timed_out = kept(served.server_port, 2, "--each", "1", "--timeout-s", "0.2")
        under_way = kept(served.server_port, 1, "--each", "1")
    assert (timed_out[0][1]["type"], timed_out[0][1]["error"]) == ("info", "timeout")
    assert [(end["type"], end["error"]) for _, end in under_way] == [("info", "stopped")]


def test_connections_stay_inside_the_lab(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        connections.parse(["--vip", "192.0.2.1", "--host", "x"])
    assert "192.0.2.1 is outside of" in capsys.readouterr().err
