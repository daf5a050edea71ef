"""Yesterday's visitors: when they asked for what, from Apache's access log. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

LINE = re.compile(r'\S+ \S+ \S+ \[(?P<time>[^\]]+)\] "(?P<method>[A-Z]+) (?P<path>\S+) HTTP/[\d.]+" \d{3} ')
"""The Common Log Format, and whatever comes after it (mod_log_config, LogFormat)."""

TIME = "%d/%b/%Y:%H:%M:%S %z"


@dataclass(frozen=True)
class Replay:
    """What is to be asked, and when, in seconds after the first; ``broken`` lines could not be read, ``skipped`` were
    no GET: what they wrote is not in a log."""

    asks: tuple[tuple[float, str], ...]
    broken: int
    skipped: int


def read(lines: Iterable[str], speed: float = 1.0) -> Replay:
    """A log, played so many times as fast. Lines need not be in order: Apache writes them at the end of a request.

    Its times are whole seconds. Those of one second are spread evenly over it, which is what is least unlike the
    visitors who came.
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
    found.sort(key=lambda ask: ask[0])
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
