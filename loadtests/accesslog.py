"""The requests in one of Apache's access logs, and when they came. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

LINE = re.compile(r'\S+ \S+ \S+ \[(?P<time>[^\]]+)\] "(?P<method>[A-Z]+) (?P<path>\S+) HTTP/[\d.]+" \d{3} ')
"""The Common Log Format, with or without more fields after it (mod_log_config, LogFormat)."""

TIME = "%d/%b/%Y:%H:%M:%S %z"


@dataclass(frozen=True)
class Replay:
    """The GET requests of a log: seconds after the first second, and path."""

    requests: tuple[tuple[float, str], ...]
    broken: int
    """Lines that cannot be read."""
    skipped: int
    """Requests other than GET: a log does not have what they wrote."""


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
        elif match["method"] != "GET" or not match["path"].startswith("/"):
            skipped += 1
        else:
            found.append((at_s, match["path"]))
    found.sort(key=lambda request: request[0])
    return Replay(tuple(_spread(found, speed)), broken, skipped)


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
