"""The requests in one of Apache's access logs, and when they came. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

LINE = re.compile(r'\S+ \S.* \[(?P<time>[0-9]+/[^\]]+)\] "(?P<request>(?:[^"\\]|\\.)*)" (?:\d{3}|-)(?: |$)')
"""The Common Log Format, with or without a virtual host before it (``vhost_combined`` of Debian's apache2.conf) and
more fields after it. The user's name may have blanks (mod_log_config, LogFormat, ``%u``)."""

REQUEST = re.compile(r"(?P<method>[A-Z]+) (?P<path>/\S*) HTTP/[\d.]+")
"""A request line; a log also has ``-`` for a connection that asked nothing (408), and the bytes of TLS (400)."""

ESCAPED = re.compile(r"\\(?:x([0-9a-fA-F]{2})|(.))")
"""What Apache does to bytes that cannot be printed, to quotes and to backslashes (ap_escape_logitem)."""

TIME = "%d/%b/%Y:%H:%M:%S %z"


@dataclass(frozen=True)
class Replay:
    """The GET requests of a log: seconds after the first second, and path."""

    requests: tuple[tuple[float, str], ...]
    broken: int
    """Lines that cannot be read."""
    skipped: int
    """Requests other than GET, of which a log does not have what they wrote, and lines without a request."""

    @property
    def left_out(self) -> str:
        """How many lines are not replayed, and why."""
        return f"{self.broken} unreadable {'line' if self.broken == 1 else 'lines'}, {self.skipped} other than GET"


def read(lines: Iterable[str], speed: float = 1.0) -> Replay:
    """Read a log; ``speed`` is how many times as fast to replay it. Lines may be in any order: Apache writes a line at
    the end of a request.

    A log's times are whole seconds. The requests of one second are spread evenly over it.
    """
    found: list[tuple[int, str]] = []
    broken = skipped = 0
    for line in lines:
        if not line.strip():
            continue
        match = LINE.match(line)
        at_s = _seconds(match["time"]) if match else None
        if match is None or at_s is None:
            broken += 1
            continue
        request = REQUEST.fullmatch(match["request"])
        if request is None or request["method"] != "GET":
            skipped += 1
        else:
            found.append((at_s, ESCAPED.sub(_quoted, request["path"])))
    found.sort(key=lambda request: request[0])
    return Replay(tuple(_spread(found, speed)), broken, skipped)


def _quoted(escape: re.Match[str]) -> str:
    """An escape of the log as it is written in a URL."""
    if escape[1]:
        return f"%{escape[1].upper()}"
    return quote({"n": "\n", "r": "\r", "t": "\t"}.get(escape[2], escape[2]))


def _seconds(text: str) -> int | None:
    try:
        return round(datetime.strptime(text, TIME).timestamp())
    except ValueError:
        return None


def _spread(found: list[tuple[int, str]], speed: float) -> Iterator[tuple[float, str]]:
    in_second = Counter(at_s for at_s, _ in found)
    passed = Counter[int]()
    for at_s, path in found:
        share = (passed[at_s] + 0.5) / in_second[at_s]
        passed[at_s] += 1
        yield (at_s - found[0][0] + share) / speed, path
