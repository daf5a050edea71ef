#!/usr/bin/env python3
"""Request one page from each virtual IP at a fixed rate, whatever happens, and print the outcomes.

``probe.py --vip 203.0.113.101 --vip 203.0.113.102 --host www.example.test --path /alive --every-ms 50``

Open loop: each probe is a new connection with one GET. It begins at its due time, even if earlier ones have no answer
yet. Prints ops of the history, one JSON object a line, with ``t`` in ns of ``time.perf_counter_ns``:

- ``invoke`` when the connection begins, value ``{"vip", "seq"}``; ``seq`` counts the due times of a VIP;
- ``ok`` for status 200 and the expected text, value ``{"vip", "seq", "node", "status"}``, the node from ``X-Node``;
- ``fail`` when certainly not served correctly: refused, reset, unreachable, cut short, another status or text;
- ``info`` for a timeout, and for what was still open at the end;
- ``info`` without invoke, error ``probe overrun``, when due times passed without a probe: ``skipped`` is their number,
  ``late_ms`` how long this machine was stalled; without ``late_ms`` all slots were busy, or no socket was left on this
  machine. What the site would have answered then is unknown.

A process is one slot of one VIP and has at most one op outstanding. Standard library only, one thread, no HTTP library
and no asyncio transports: it shares a small machine with the cluster that it measures.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a program of the client node
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from loadtests.lib.addresses import NETWORKS, in_lab

FLUSH_S = 0.1
LAST_FLUSH_S = 2.0
UNREAD_BYTES = 16 * 1024 * 1024
"""Give up when the reader of the lines is this far behind: about 25 minutes at 40 probes a second."""
ANSWER_BYTES = 64 * 1024
OWN_TROUBLE = {errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN}
"""Errors of this machine, which are no evidence about the cluster."""
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""struct linger, socket(7). An abandoned connection is dropped at once and not retransmitted to the next owner."""


@dataclass(frozen=True)
class Judgement:
    """The type of an answer, ``ok`` or ``fail``, with the node that served it and the HTTP status, if known."""

    type: str
    node: str | None = None
    status: int | None = None
    error: str | None = None


def judge(raw: bytes, expect: bytes, *, ended: bool) -> Judgement | None:
    """Judge the part of an HTTP answer that was received so far; None as long as it is incomplete.

    ``ended``: the server has closed. The answer is complete at its Content-Length, or without one at its end.
    """
    head, found, body = raw.partition(b"\r\n\r\n")
    if not found:
        return Judgement("fail", error="closed before an answer") if ended else None
    first, *lines = head.split(b"\r\n")
    version, _, rest = first.partition(b" ")
    if not version.startswith(b"HTTP/") or not rest[:3].isdigit():
        return Judgement("fail", error="not an HTTP answer")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    status, node = int(rest[:3]), headers.get(b"x-node", b"").decode("latin-1") or None
    length = headers.get(b"content-length", b"")
    whole = len(body) >= int(length) if length.isdigit() else ended
    if not whole:
        return Judgement("fail", node, status, "closed before the whole answer") if ended else None
    if status != 200:
        return Judgement("fail", node, status, f"status {status}")
    if expect not in body:
        return Judgement("fail", node, status, "wrong body")
    return Judgement("ok", node, status)


def now_ns() -> int:
    """The lab's clock: on Linux ``perf_counter`` is CLOCK_MONOTONIC (``main`` refuses anything else)."""
    return time.perf_counter_ns()


class Lines:
    """Standard output without waiting for its reader: lines collect and are written every 100 ms."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
        self._loop = loop
        self._stop = stop
        self._waiting = bytearray()
        self._due = False
        self._fd = sys.stdout.fileno()
        os.set_blocking(self._fd, False)

    def op(self, time_ns: int, process: str, kind: str, value: dict[str, Any], error: str | None = None) -> None:
        """Record an op."""
        line = {"t": time_ns, "process": process, "type": kind, "f": "http", "value": value}
        if error is not None:
            line["error"] = error
        self._waiting += json.dumps(line, separators=(",", ":")).encode() + b"\n"
        if not self._due:
            self._due = True
            self._loop.call_later(FLUSH_S, self._flush)

    def _flush(self) -> None:
        self._due = False
        try:
            self._write()
        except OSError:
            self._stop.set()
        if len(self._waiting) > UNREAD_BYTES:
            self._stop.set()
        if self._waiting and not self._stop.is_set():
            self._due = True
            self._loop.call_later(FLUSH_S, self._flush)

    def _write(self) -> None:
        try:
            while self._waiting:
                del self._waiting[: os.write(self._fd, self._waiting)]
        except BlockingIOError:
            return

    def close(self) -> None:
        """Write the rest, if the reader accepts it within 2 s."""
        last = time.monotonic() + LAST_FLUSH_S
        try:
            self._write()  # once in any case: this machine may have been stalled for longer
            while self._waiting and (left := last - time.monotonic()) > 0:
                select.select([], [self._fd], [], left)
                self._write()
            os.set_blocking(self._fd, True)
        except OSError:
            return


@dataclass(frozen=True)
class Settings:
    """The command line. Times in seconds."""

    request: bytes
    expect: bytes
    port: int
    every_s: float
    timeout_s: float
    slots: int


class Attempt:
    """One probe on its way: a connection and a GET, begun by :meth:`start`."""

    __slots__ = ("_fd", "_forget", "_loop", "_probe", "_received", "_seq", "_slot", "_socket", "_timer")

    def __init__(self, probe: Probe, slot: int, seq: int) -> None:
        self._probe = probe
        self._loop = probe.loop
        self._slot = slot
        self._seq = seq
        self._received = b""
        self._forget: Callable[[int], object] | None = None

    def start(self) -> bool:
        """Send the SYN. False when this machine cannot, and nothing was sent or recorded."""
        try:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:
            return False
        # The loop gets the descriptor, not the socket: it would look up both addresses of a socket again and again.
        self._fd = self._socket.fileno()
        sent_ns = now_ns()
        error = self._socket.connect_ex((self._probe.vip, self._probe.settings.port))
        if error in OWN_TROUBLE:
            self._socket.close()
            return False
        self._record(sent_ns, "invoke")
        self._timer = self._loop.call_later(self._probe.settings.timeout_s, self.abandon, "timeout")
        if error not in (0, errno.EINPROGRESS):
            self._failed(error)
        else:
            self._loop.add_writer(self._fd, self._connected)
            self._forget = self._loop.remove_writer
        return True

    def _connected(self) -> None:
        self._loop.remove_writer(self._fd)
        self._forget = None
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._failed(error)
            return
        try:
            # Always fits: the send buffer of a new socket holds far more than one request.
            self._socket.send(self._probe.settings.request)
        except OSError as problems:
            self._failed(problems.errno or errno.EIO)
            return
        self._loop.add_reader(self._fd, self._readable)
        self._forget = self._loop.remove_reader

    def _readable(self) -> None:
        try:
            data = self._socket.recv(ANSWER_BYTES)
        except BlockingIOError:
            return
        except OSError as problems:
            self._failed(problems.errno or errno.EIO)
            return
        self._received += data
        judgement = judge(self._received, self._probe.settings.expect, ended=not data)
        if judgement is None and len(self._received) > ANSWER_BYTES:
            judgement = Judgement("fail", error="answer too long")
        if judgement is not None:
            known = {} if judgement.status is None else {"node": judgement.node, "status": judgement.status}
            self._finish(judgement.type, known, judgement.error)

    def _failed(self, error: int) -> None:
        self._finish("fail", {}, os.strerror(error).lower())

    def abandon(self, why: str) -> None:
        """End it without knowing its outcome."""
        self._finish("info", {}, why)

    def _finish(self, kind: str, known: dict[str, Any], error: str | None) -> None:
        self._timer.cancel()
        if self._forget is not None:
            self._forget(self._fd)
        if kind == "info":
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._socket.close()
        self._record(now_ns(), kind, known, error)
        self._probe.finished(self._slot)

    def _record(self, time_ns: int, kind: str, known: dict[str, Any] | None = None, error: str | None = None) -> None:
        vip = self._probe.vip
        value = {"vip": vip, "seq": self._seq, **(known or {})}
        self._probe.lines.op(time_ns, f"probe:{vip}/{self._slot}", kind, value, error)


class Probe:
    """All probes of one VIP."""

    def __init__(self, vip: str, settings: Settings, lines: Lines, loop: asyncio.AbstractEventLoop) -> None:
        self.vip = vip
        self.settings = settings
        self.lines = lines
        self.loop = loop
        self._free = list(range(settings.slots - 1, -1, -1))
        self._open: dict[int, Attempt] = {}
        self._seq = 0
        self._due = 0.0
        self._next: asyncio.TimerHandle | None = None

    def begin(self, due: float) -> None:
        """Probe at ``due`` (of the loop's clock) and every interval after it."""
        self._due = due
        self._next = self.loop.call_at(due, self._tick)

    def _tick(self) -> None:
        # Due times that passed while this machine was stalled are not made up for: a burst measures something else.
        late_s = self.loop.time() - self._due
        passed = int(late_s / self.settings.every_s)
        if passed > 0:
            self._overrun(passed, late_ms=round(1000 * late_s, 3))
            self._due += passed * self.settings.every_s
        self._start()
        self._due += self.settings.every_s
        self._next = self.loop.call_at(self._due, self._tick)

    def _overrun(self, due_times: int, **more: float) -> None:
        value = {"vip": self.vip, "seq": self._seq, "skipped": due_times, **more}
        self.lines.op(now_ns(), f"probe:{self.vip}", "info", value, "probe overrun")
        self._seq += due_times

    def _start(self) -> None:
        if not self._free:
            self._overrun(1)
            return
        slot, seq = self._free.pop(), self._seq
        attempt = self._open[slot] = Attempt(self, slot, seq)
        if attempt.start():
            self._seq += 1
        else:
            self.finished(slot)
            self._overrun(1)

    def finished(self, slot: int) -> None:
        """The slot is free again."""
        del self._open[slot]
        self._free.append(slot)

    def end(self) -> None:
        """Leave no op without an end, and begin no other: asyncio still runs what is due when it closes the loop."""
        if self._next is not None:
            self._next.cancel()
        for attempt in list(self._open.values()):
            attempt.abandon("probe stopped")


async def run(vips: list[str], settings: Settings) -> None:
    """Probe until SIGTERM or SIGINT, or until no one reads the lines."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    lines = Lines(loop, stop)
    probes = [Probe(vip, settings, lines, loop) for vip in vips]
    for place, probe in enumerate(probes):
        # Spread over the interval, so that the VIPs' probes do not wait for each other.
        probe.begin(loop.time() + settings.every_s * place / len(probes))
    await stop.wait()
    for probe in probes:
        probe.end()
    lines.close()


def lab_address(text: str) -> str:
    """An IPv4 address of a lab or of this machine. A probe must never reach any other machine."""
    if not in_lab(text):
        raise argparse.ArgumentTypeError(f"{text} is outside of {NETWORKS}: probes stay inside the lab")
    return text


def main(argv: list[str] | None = None) -> int:
    """The program. Exit 0 at the end, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="probe.py", description="Open-loop HTTP probes; prints one JSON line per op.")
    parser.add_argument("--vip", action="append", required=True, type=lab_address)
    parser.add_argument("--host", default="www.example.test")
    parser.add_argument("--path", default="/alive")
    parser.add_argument("--port", type=int, default=80)
    parser.add_argument("--expect", default="OK", help="text that the page must contain")
    parser.add_argument("--every-ms", type=float, default=50)
    parser.add_argument("--timeout-ms", type=float, default=800)
    parser.add_argument("--slots", type=int, default=32, help="most probes outstanding per VIP")
    given = parser.parse_args(argv)
    if min(given.every_ms, given.timeout_ms, given.slots) <= 0:
        parser.error("--every-ms, --timeout-ms and --slots must be greater than 0")
    # The lab's clock is CLOCK_MONOTONIC, and so is perf_counter on Linux; on anything else the times would not compare.
    assert time.get_clock_info("perf_counter").implementation == "clock_gettime(CLOCK_MONOTONIC)"
    # HTTP/1.0: the server closes after its answer, and sends no chunks.
    request = f"GET {given.path} HTTP/1.0\r\nHost: {given.host}\r\nUser-Agent: probe\r\n\r\n".encode()
    settings = Settings(
        request, given.expect.encode(), given.port, given.every_ms / 1000, given.timeout_ms / 1000, given.slots
    )
    asyncio.run(run(given.vip, settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
