"""Locust in a process of its own, with the lab's resolver and a small site on loopback.

Importing the locustfile here would patch this interpreter.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import sysconfig
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import loadtests
from harness.wait import NotYet
from tests.support.program import DEADLINE_S, Op, Program
from topology.images.resolver import resolver

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
        program.communicate(timeout=DEADLINE_S)


def start(port: int, server: str, *, who: str = "Visitor", users: int = 4, **environment: str) -> Program:
    """Locust without its page. It runs until the test ends it: what a test needs takes longer on a busy machine."""
    pace = f"--users {users} --spawn-rate 100 --run-time {2 * DEADLINE_S}s --exit-code-on-error 0"
    return locust(port, server, f"--headless {pace} {who}", {"MONKEYWRENCH_THINK_MS": "20", **environment})


def locust(port: int, server: str, more: str, environment: dict[str, str]) -> Program:
    argv = [str(LOCUST), "--locustfile", str(LOCUSTFILE), "--host", f"http://www.example.test:{port}", *more.split()]
    # No request times out because this machine is busy.
    defaults = {"MONKEYWRENCH_TIMEOUT_MS": str(1000 * DEADLINE_S), "MONKEYWRENCH_OPS": "/dev/stdout"}
    return Program(argv, {**os.environ, **defaults, "MONKEYWRENCH_RESOLVER": server, **environment})


def finish(program: Program) -> list[Op]:
    """Wait for the end. All ops."""
    assert program.end() == 0, program.error_text
    assert "Traceback" not in program.error_text, program.error_text
    assert [op for op in program.lines if op["value"] == {"phase": "end"}] == program.lines[-1:]
    return program.lines


def finish_when(program: Program, enough: Callable[[list[Op]], Any], what: str) -> list[Op]:
    """Wait until Locust has recorded enough, and end it. All ops."""
    program.until(lambda: enough(program.lines[:]), what)
    program.terminate()
    return finish(program)


def completed(ops: list[Op], *types: str) -> list[Op]:
    """The completions, of all types or of these, without those of users whom Locust stopped."""
    wanted = types or ("ok", "fail", "info")
    return [
        op for op in ops if op["f"] not in ("plan", "worker") and op["type"] in wanted and op.get("error") != "stopped"
    ]


def finish_plan(program: Program) -> list[Op]:
    """Wait until the planned ops are done, and end Locust. All ops."""
    return finish_when(program, _plan_is_over, "the planned ops")


def finish_plans(master: Program, *workers: Program) -> list[list[Op]]:
    """Wait until the planned ops of all workers are done, and end them and their master. The ops of each worker."""
    for worker in workers:
        worker.until(partial(_plan_is_over, worker.lines), "the planned ops")
    master.terminate()
    ops = [finish(worker) for worker in workers]
    assert finish(master) == []  # it sends nothing itself
    return ops


def _plan_is_over(ops: list[Op]) -> bool:
    return any(op["f"] == "plan" for op in ops[:])


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


def plan(*phases: tuple[float, float, float]) -> str:
    return json.dumps({"kind": "constant", "seed": 0, "phases": phases})


def own_address() -> str:
    """An address of loopback that only this process uses: a port that is free there stays free."""
    return f"127.77.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}"


def free_port() -> int:
    """A free port of this process's own address."""
    with socket.create_server((own_address(), 0)) as found:
        return int(found.getsockname()[1])


@contextmanager
def refusing(port: int = 0) -> Iterator[int]:
    """A port at which all connections are refused, and which nothing else can take."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("0.0.0.0", port))
        yield held.getsockname()[1]


def distributed(port: int, server: str, arrivals: str) -> tuple[Program, ...]:
    """A master and 2 workers, which share the planned ops."""
    host, at = own_address(), free_port()
    master = f"--master --master-bind-host {host} --master-bind-port {at} --expect-workers 2 Visitor"
    planned = {"MONKEYWRENCH_ARRIVALS": arrivals}
    workers = [
        locust(
            port,
            server,
            f"--worker --master-host {host} --master-port {at} Visitor",
            {**planned, "MONKEYWRENCH_PROCESS": f"user:{number}", "MONKEYWRENCH_SHARE": f"{number}/2"},
        )
        for number in range(2)
    ]
    return start(port, server, who=master, users=8, **planned), *workers


def fetch(url: str, **form: object) -> str:
    data = urllib.parse.urlencode(form).encode() if form else None
    try:
        with urllib.request.urlopen(url, data, timeout=DEADLINE_S) as answer:
            return str(answer.read().decode())
    except OSError as error:
        raise NotYet(str(error)) from error
