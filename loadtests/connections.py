#!/usr/bin/env python3
"""Keep connections to each virtual IP open, read a line per second on each, and print the outcomes.

``connections.py --vip 203.0.113.101 --vip 203.0.113.102 --host www.example.test --path /ticker.php --each 2``

A director synchronizes its connections to its peer; whether that works shows on connections that were open before the
peer took over. On such a connection the site is in the middle of a long answer: it retransmits what is not acknowledged
(RFC 6298), and the new owner either knows the connection, or it breaks. (An idle connection is closed by the site after
some seconds, whatever the directors know.) Prints ops of the history, one JSON object per line, with ``t`` in ns of
``time.perf_counter_ns``. All are ``kept`` with ``{"url", "vip", "connection"}``; ``connection`` is unique in this
program. Each op waits for one line of the answer:

- ``ok`` when it came; the value also has ``{"node", "status", "ms"}``, the node from ``X-Node``;
- ``fail`` when none came: refused, reset, closed in the middle, another status;
- ``info`` for a timeout, for the end of the answer, and for what was outstanding at the end.

A process is one place for a connection: when the connection breaks or ends, it opens the next. Standard library only.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

if not __package__:  # run as a program of the client node
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from loadtests.lib.addresses import NETWORKS, in_lab

PAUSE_S = 0.5
"""Before each connection: a site that refuses connections is not flooded."""

STATUS_OK = 200
LAST = b"end\n"

numbers = itertools.count()
printing = threading.RLock()
over = threading.Event()


def record(time_ns: int, process: str, kind: str, value: dict[str, Any], error: str | None = None) -> None:
    """Print one op."""
    op = {"t": time_ns, "process": process, "type": kind, "f": "kept", "value": value}
    if error is not None:
        op["error"] = error
    with printing:
        os.write(sys.stdout.fileno(), json.dumps(op, separators=(",", ":")).encode() + b"\n")


class Place:
    """One connection after another to one virtual IP."""

    def __init__(self, options: argparse.Namespace, vip: str, number: int) -> None:
        self.options, self.vip, self.process = options, vip, f"connection:{vip}:{number}"
        self.under_way: dict[str, Any] | None = None

    def run(self) -> None:
        """Until the program ends."""
        while not over.wait(PAUSE_S):
            kept = http.client.HTTPConnection(self.vip, self.options.port, timeout=self.options.timeout_s)
            self.read(kept, str(next(numbers)))
            kept.close()

    def read(self, kept: http.client.HTTPConnection, name: str) -> None:
        """Read all lines of one connection."""
        asked = {"url": f"http://{self.options.host}{self.options.path}", "vip": self.vip, "connection": name}
        answer: http.client.HTTPResponse | None = None
        kind = "ok"
        while kind == "ok":
            began_ns = time.perf_counter_ns()
            self.begin(began_ns, asked)
            known, error = dict[str, Any](), None
            try:
                if answer is None:
                    kept.request("GET", self.options.path, headers={"Host": self.options.host})
                    answer = kept.getresponse()
                known = {"node": answer.headers.get("X-Node"), "status": answer.status}
                kind, error = judge(answer.status, answer.readline())
            except TimeoutError:
                kind, error = "info", "timeout"
            except (OSError, http.client.HTTPException) as broken:
                kind, error = "fail", str(broken) or type(broken).__name__
            ended_ns = time.perf_counter_ns()
            self.end(ended_ns, kind, {**asked, **known, "ms": round((ended_ns - began_ns) / 1e6, 3)}, error)

    def begin(self, time_ns: int, asked: dict[str, Any]) -> None:
        """An op begins to wait for a line."""
        with printing:
            record(time_ns, self.process, "invoke", asked)
            self.under_way = asked

    def end(self, time_ns: int, kind: str, value: dict[str, Any], error: str | None) -> None:
        """The op ends."""
        with printing:
            self.under_way = None
            record(time_ns, self.process, kind, value, error)


def judge(status: int, line: bytes) -> tuple[str, str | None]:
    """The type and the error of a line. An orderly end has a last line: the library does not report a broken one."""
    if status != STATUS_OK:
        return "fail", f"status {status}"
    if line == LAST:
        return "info", "the answer ended"
    return ("ok", None) if line.endswith(b"\n") else ("fail", "closed in the middle")


def parse(argv: list[str]) -> argparse.Namespace:
    """The options. Exits with an error for an address outside of the lab."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--vip", action="append", required=True, metavar="ADDRESS")
    parser.add_argument("--port", type=int, default=80)
    parser.add_argument("--host", required=True, help="the site's name")
    parser.add_argument("--path", default="/")
    parser.add_argument("--each", type=int, default=2, help="connections per virtual IP")
    parser.add_argument(
        "--timeout-s", type=float, default=60, help="longer than a takeover and TCP's next retransmission after it"
    )
    options = parser.parse_args(argv)
    for vip in options.vip:
        if not in_lab(vip):
            parser.error(f"{vip} is outside of {NETWORKS}: load stays inside the lab")
    return options


def main() -> None:
    """Start all connections and wait for the signal to end."""
    options = parse(sys.argv[1:])
    places = [Place(options, vip, number) for vip in options.vip for number in range(options.each)]
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: over.set())
    for place in places:
        threading.Thread(target=place.run, daemon=True).start()
    over.wait()
    with printing:
        for place in places:
            if (asked := place.under_way) is not None:
                record(time.perf_counter_ns(), place.process, "info", asked, "stopped")
        os._exit(0)  # the others may wait for an answer for a minute


if __name__ == "__main__":
    main()
