#!/usr/bin/env python3
"""Keep connections to each virtual IP open, read a line a second on each, and print what became of it.

``connections.py --vip 203.0.113.101 --vip 203.0.113.102 --host www.example.test --path /ticker.php --each 2``

What a director keeps for its peer to know, users see on connections that were open before the peer took over. On such a
connection the site is in the middle of an answer that goes on and on: it sends again and again what is not acknowledged
(RFC 6298), and the new owner either knows the connection, or it is over. (One that waits for its next request is closed
by the site after some seconds, whatever the directors know.) Prints ops of the history, one JSON object a line, with
``t`` in ns of ``time.perf_counter_ns``, all of them ``kept`` with ``{"url", "vip", "connection"}``, the last a text
that no other connection of this program has. Each waits for a line:

- ``ok`` when it came, value ``{"node", "status", "ms"}`` more, the node from ``X-Node``;
- ``fail`` when there is none: refused, reset, closed in the middle, another status;
- ``info`` for a time-out, for the answer's end, and for what was under way at the end.

A process is one place for a connection: when the one breaks or ends, it makes the next. Standard library only.
"""

from __future__ import annotations

import argparse
import http.client
import ipaddress
import itertools
import json
import os
import signal
import sys
import threading
import time
from typing import Any

LAB = tuple(ipaddress.ip_network(text) for text in ("198.18.0.0/15", "203.0.113.0/24", "127.0.0.0/8"))
"""RFC 2544 and RFC 5737: addresses that belong to nobody, and loopback."""

PAUSE_S = 0.5
"""Before each connection, so that a site that refuses them is not asked all the time."""

STATUS_OK = 200
LAST = b"end\n"

numbers = itertools.count()
printing = threading.RLock()
over = threading.Event()


def say(time_ns: int, process: str, kind: str, value: dict[str, Any], error: str | None = None) -> None:
    """One op."""
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
        """Until the end."""
        while not over.wait(PAUSE_S):
            kept = http.client.HTTPConnection(self.vip, self.options.port, timeout=self.options.timeout_s)
            self.read(kept, str(next(numbers)))
            kept.close()

    def read(self, kept: http.client.HTTPConnection, name: str) -> None:
        """All that comes on a connection of that name."""
        asked = {"url": f"http://{self.options.host}{self.options.path}", "vip": self.vip, "connection": name}
        answer: http.client.HTTPResponse | None = None
        kind = "ok"
        while kind == "ok":
            began_ns = time.perf_counter_ns()
            self.begin(began_ns, asked)
            told, error = dict[str, Any](), None
            try:
                if answer is None:
                    kept.request("GET", self.options.path, headers={"Host": self.options.host})
                    answer = kept.getresponse()
                told = {"node": answer.headers.get("X-Node"), "status": answer.status}
                kind, error = judge(answer.status, answer.readline())
            except TimeoutError:
                kind, error = "info", "timeout"
            except (OSError, http.client.HTTPException) as broken:
                kind, error = "fail", str(broken) or type(broken).__name__
            ended_ns = time.perf_counter_ns()
            self.end(ended_ns, kind, {**asked, **told, "ms": round((ended_ns - began_ns) / 1e6, 3)}, error)

    def begin(self, time_ns: int, asked: dict[str, Any]) -> None:
        """An op that waits for a line."""
        with printing:
            say(time_ns, self.process, "invoke", asked)
            self.under_way = asked

    def end(self, time_ns: int, kind: str, told: dict[str, Any], error: str | None) -> None:
        """What came of it."""
        with printing:
            self.under_way = None
            say(time_ns, self.process, kind, told, error)


def judge(status: int, line: bytes) -> tuple[str, str | None]:
    """What a line is: its type and its error. The library tells an end in order from one in the middle by nothing."""
    if status != STATUS_OK:
        return "fail", f"status {status}"
    if line == LAST:
        return "info", "the answer ended"
    return ("ok", None) if line.endswith(b"\n") else ("fail", "closed in the middle")


def parse(argv: list[str]) -> argparse.Namespace:
    """The options. Exits with a sentence for an address outside of the lab."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--vip", action="append", required=True, metavar="ADDRESS")
    parser.add_argument("--port", type=int, default=80)
    parser.add_argument("--host", required=True, help="the site's name")
    parser.add_argument("--path", default="/")
    parser.add_argument("--each", type=int, default=2, help="connections to each virtual IP")
    parser.add_argument(
        "--timeout-s", type=float, default=60, help="longer than a takeover, and TCP's next try after it"
    )
    options = parser.parse_args(argv)
    for vip in options.vip:
        if not any(ipaddress.ip_address(vip) in network for network in LAB):
            parser.error(f"{vip} is outside of {', '.join(map(str, LAB))}: load stays inside the lab")
    return options


def main() -> None:
    """Start all, and wait for the end."""
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
                say(time.perf_counter_ns(), place.process, "info", asked, "stopped")
        os._exit(0)  # the others may wait for an answer for a minute


if __name__ == "__main__":
    main()
