"""The probe and the load as feeds of a run: programs put on the client node and followed line by line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.protocols import Entry, Feed, Lab, LabError, Line, Node, Power, Stream

FOLDER = "/opt/monkeywrench"
"""Where the programs are put on the client node."""
PYTHON = "/usr/bin/python3"
LOCUST = "/opt/venv/bin/locust"
PROBE_EVERY_MS = 50
PROBE_TIMEOUT_MS = 800
"""Shorter than TCP's first retransmission of a SYN (1 s, RFC 6298 2): a probe is one try, never a late second one."""
PROBE_SLOTS = 32
ALIVE_PATH = "/alive"
ALIVE_TEXT = "OK"
TYPES = ("invoke", "ok", "fail", "info")


class LoadSettings(Protocol):
    """What the load needs to know of a scenario."""

    @property
    def users(self) -> int:
        """How many there are at once."""

    @property
    def spawn_per_s(self) -> float:
        """How many come a second, until all are there."""

    @property
    def think_ms(self) -> int:
        """How long each pauses after a page."""


@dataclass(frozen=True)
class ProgramFeed:
    """A program of the client node whose lines are ops already. ``files`` maps paths on the node to their content."""

    name: str
    node: Node
    files: Mapping[str, bytes]
    argv: tuple[str, ...]

    def open(self) -> Stream:
        """Put the files on the node, again if need be, and start the program. Raises LabError."""
        for path, content in self.files.items():
            self.node.put(path, content)
        return self.node.stream(*self.argv)

    def entries(self, line: Line) -> Iterable[Entry]:
        """The one op of a line."""
        return [entry(line, self.name)]

    def ready(self) -> bool:
        """True when the client node is running."""
        return self.node.power() is Power.RUNNING


def entry(line: Line, feed: str = "feed") -> Entry:
    """Read ``{"t": ns, "process", "type", "f", "value"?, "error"?}``.

    A line that is anything else becomes an ``info`` op of the process ``feed`` at the time it was received, with the
    line as its value: it may be the program's last words.
    """
    try:
        return _entry(json.loads(line.text))
    except (ValueError, RecursionError) as error:
        return Entry(line.time_ns, feed, "info", "feed", line.text, f"unreadable line: {error}")


def _entry(op: Any) -> Entry:
    """Raises ValueError when ``op`` is not an op."""
    if not isinstance(op, dict):
        raise ValueError("not an object")
    time_ns, error = op.get("t"), op.get("error")
    if type(time_ns) is not int:
        raise ValueError(f"t is {time_ns!r}, not ns")
    if op.get("type") not in TYPES:
        raise ValueError(f"type is {op.get('type')!r}, not one of {', '.join(TYPES)}")
    for key in ("process", "f"):
        if not isinstance(op.get(key), str):
            raise ValueError(f"{key} is {op.get(key)!r}, not a text")
    if not isinstance(error, str | None):
        raise ValueError(f"error is {error!r}, not a text")
    return Entry(time_ns, op["process"], op["type"], op["f"], op.get("value"), error)


def feeds(lab: Lab, load: LoadSettings | None) -> list[Feed]:
    """The probe of every VIP and, with ``load``, the visitors, who resolve the site's name at its resolver.

    Raises LabError when the lab has no client node.
    """
    clients = lab.nodes("client")
    if not clients:
        raise LabError("The lab has no node with the role client, so nothing can ask the site for pages.")
    found: list[Feed] = [_probe(lab, clients[0])]
    if load is not None:
        found.append(_load(lab, clients[0], load, lab.cluster.resolver))
    return found


def _program(name: str) -> Mapping[str, bytes]:
    return {f"{FOLDER}/{name}": Path(__file__).with_name(name).read_bytes()}


def _probe(lab: Lab, client: Node) -> Feed:
    vips = [word for vip in lab.cluster.vips for word in ("--vip", vip)]
    page = ("--host", lab.cluster.site, "--path", ALIVE_PATH, "--expect", ALIVE_TEXT)
    pace = ("--every-ms", PROBE_EVERY_MS, "--timeout-ms", PROBE_TIMEOUT_MS, "--slots", PROBE_SLOTS)
    argv = (PYTHON, f"{FOLDER}/probe.py", *vips, *page, *map(str, pace))
    return ProgramFeed("probe", client, _program("probe.py"), argv)


def _load(lab: Lab, client: Node, load: LoadSettings, resolver: str) -> Feed:
    environment = (
        "MONKEYWRENCH_OPS=/dev/stdout",
        f"MONKEYWRENCH_RESOLVER={resolver}",
        f"MONKEYWRENCH_THINK_MS={load.think_ms}",
    )
    # Failed pages are findings, not a reason to end with an error: that is what the last option says.
    pace = ("--users", str(load.users), "--spawn-rate", str(load.spawn_per_s), "--exit-code-on-error", "0")
    locust = (LOCUST, "--headless", "--locustfile", f"{FOLDER}/locustfile.py", "--host", f"http://{lab.cluster.site}")
    return ProgramFeed("load", client, _program("locustfile.py"), ("env", *environment, *locust, *pace))
