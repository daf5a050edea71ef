"""``/etc/ha.d/ha.cf`` as heartbeat 3.0.6 reads it (ha.cf(5), heartbeat/config.c). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from harness.formats.lines import numbered

PATH = "/etc/ha.d/ha.cf"

UDP_MEDIA = frozenset({"bcast", "ucast", "ucast6"})
"""Media that use ``udpport``; an mcast line has its own port (ha.cf(5))."""
MEDIA = UDP_MEDIA | {"mcast", "mcast6", "serial"}
PINGS = frozenset({"ping", "ping6", "ping_group"})

DEFAULT_MS = {"keepalive": 1000, "deadtime": 30_000}
"""heartbeat/config.c."""
LEAST_MS = {"keepalive": 1, "warntime": 1, "deadtime": 0, "initdead": 0, "deadping": 0}
"""Directives with a duration, and the shortest that their setters accept (heartbeat/config.c)."""
DEFAULT_PORT = 694
"""``udpport`` without a setting (ha.cf(5))."""
TRUE = frozenset({"true", "on", "yes", "y", "1"})
"""cl_str_to_boolean, without regard to case."""
PACEMAKER = TRUE | {"respawn", "minimal", "manual", "ccm-only", "valgrind"}


@dataclass(frozen=True)
class Directive:
    """One directive with its values."""

    line: int
    name: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Duration:
    """A duration in force; line 0 is heartbeat's own default."""

    line: int
    ms: int


@dataclass(frozen=True)
class HaCf:
    """A whole file: its directives, in the order of the file."""

    directives: tuple[Directive, ...]

    def __iter__(self) -> Iterator[Directive]:
        """The directives in order."""
        return iter(self.directives)

    def last(self, name: str) -> tuple[int, str] | None:
        """The line and value in force: a later one replaces an earlier one. None without the directive."""
        values = [(each.line, word) for each in self.directives if each.name == name for word in each.words]
        return values[-1] if values else None

    def duration(self, name: str) -> Duration | None:
        """The duration in force, or heartbeat's default; None for neither, and for one that heartbeat rejects."""
        value = self.last(name)
        if value is None:
            return Duration(0, DEFAULT_MS[name]) if name in DEFAULT_MS else None
        ms = milliseconds(value[1])
        return None if ms is None or ms < LEAST_MS[name] else Duration(value[0], ms)

    @property
    def keepalive_ms(self) -> int:
        """The interval between heartbeats; the default where the setting cannot be read."""
        return self._ms("keepalive")

    @property
    def deadtime_ms(self) -> int:
        """How long a peer is silent before it counts as dead; the default where the setting cannot be read."""
        return self._ms("deadtime")

    def _ms(self, name: str) -> int:
        found = self.duration(name)
        return found.ms if found else DEFAULT_MS[name]

    @property
    def udpport(self) -> int:
        """The port of heartbeats, read as atoi(3) reads it; the default where the setting cannot be read."""
        value = self.last("udpport")
        digits = re.match(r"[0-9]{1,5}", value[1]) if value else None
        return int(digits[0]) or DEFAULT_PORT if digits else DEFAULT_PORT

    @property
    def interfaces(self) -> tuple[str, ...]:
        """The network interfaces that heartbeats are sent by, each once, in the order of the file."""
        found = [word for each in self.directives for word in _interfaces(each)]
        return tuple(dict.fromkeys(found))

    @property
    def node_names(self) -> tuple[str, ...]:
        """All names of ``node`` lines; heartbeat makes them lower case."""
        return tuple(word.lower() for each in self.directives if each.name == "node" for word in each.words)

    @property
    def uses_haresources(self) -> bool:
        """True unless Pacemaker manages the resources."""
        values = [self.last(name) for name in ("crm", "pacemaker")]
        return not any(value and value[1].lower() in PACEMAKER for value in values)


@lru_cache(maxsize=64)
def parse(text: str) -> HaCf:
    """Read a file."""
    return HaCf(tuple(_directives(text)))


def _directives(text: str) -> Iterator[Directive]:
    for number, line in numbered(text):
        kept = re.split(r"[#\r]", line.lstrip(" \t\r\f"), maxsplit=1)[0]
        name, *rest = re.split(r"[ \t\f]", kept, maxsplit=1)
        if name:
            words = tuple(word for word in re.split(r"[, \t\f]+", "".join(rest)) if word)
            # heartbeat replaces this old name itself, with a warning
            yield Directive(number, "bcast" if name == "udp" else name, words)


def _interfaces(directive: Directive) -> tuple[str, ...]:
    if directive.name == "bcast":
        return directive.words
    return directive.words[:1] if directive.name in MEDIA - {"serial"} else ()


def milliseconds(word: str) -> int | None:
    """A duration as libplumb's cl_get_msec reads it: seconds, or with the units ms or us. None for any other unit."""
    match = re.fullmatch(r"(?s)([0-9]*\.?[0-9]*)[0-9.]*\s*(.*)", word)
    if match is None or word[:1] not in "0123456789.":
        return None
    number = min(float(match[1]) if match[1].strip(".") else 0.0, 1e15)
    unit = match[2].lower()
    if unit.startswith("ms"):
        return int(number + 0.5)
    if unit.startswith("us"):
        return int(number / 1000 + 0.5)
    return None if unit else int(number * 1000 + 0.5)
