"""``/etc/ha.d/ha.cf`` as heartbeat 3.0.6 reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from topology.lint.model import numbered

PATH = "/etc/ha.d/ha.cf"
NETWORK = "/etc/monkeywrench/network.batch"
"""The addresses and routes of a node of the lab, in ip(8)'s own words."""

UDP_MEDIA = frozenset({"bcast", "ucast", "ucast6"})
"""Media that use ``udpport``; mcast has a port of its own on its line (ha.cf(5))."""
MEDIA = UDP_MEDIA | {"mcast", "mcast6", "serial"}
PINGS = frozenset({"ping", "ping6", "ping_group"})

_PLAIN = """
apiauth auto_failback autojoin baud cluster compression compression_threshold conn_logd_time coredumps coreroot crm
crm_daemon_dir crmd_spawns_pengine deadping deadtime debug debugfile enable_config_writes env failfast hbgenmethod
hopfudge initdead keepalive log_badpack logfacility logfile max_rexmit_delay memreserve msgfmt nice_failback node
pacemaker quorum_server realtime record_config_changes record_pengine_inputs respawn rtprio stonith stonith_host
syslogmsgfmt traditional_compression udpport use_apphbd use_logd uuidfrom warntime watchdog
"""
DIRECTIVES = MEDIA | PINGS | frozenset(_PLAIN.split())
"""What heartbeat 3.0.6 knows (heartbeat/config.c), with the media and pings that Debian packages plugins for."""

DEFAULT_MS = {"keepalive": 1000, "deadtime": 30_000}
"""heartbeat/config.c."""
LEAST_MS = {"keepalive": 1, "warntime": 1, "deadtime": 0, "initdead": 0, "deadping": 0}
"""Less than this fails in the directive's setter (heartbeat/config.c)."""
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


HaCf = tuple[Directive, ...]


@lru_cache(maxsize=64)
def parse(text: str) -> HaCf:
    """The directives in the order of the file."""
    return tuple(_directives(text))


def _directives(text: str) -> Iterator[Directive]:
    for number, line in numbered(text):
        kept = re.split(r"[#\r]", line.lstrip(" \t\r\f"), maxsplit=1)[0]
        name, *rest = re.split(r"[ \t\f]", kept, maxsplit=1)
        if name:
            words = tuple(word for word in re.split(r"[, \t\f]+", "".join(rest)) if word)
            # heartbeat replaces this old name itself, with a warning
            yield Directive(number, "bcast" if name == "udp" else name, words)


def milliseconds(word: str) -> int | None:
    """A duration as libplumb's cl_get_msec reads it: seconds, or with the units ms or us. No other unit is known."""
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


def seconds(ms: int) -> str:
    """A duration for people."""
    return f"{ms / 60_000:g} minutes" if ms >= 120_000 else f"{ms / 1000:g} s"


def last(cf: HaCf, name: str) -> tuple[int, str] | None:
    """The line and value that count: a later one replaces an earlier one."""
    values = [(directive.line, word) for directive in cf if directive.name == name for word in directive.words]
    return values[-1] if values else None


def duration(cf: HaCf, name: str) -> Duration | None:
    """What is in force; None when it is neither set nor has a default, or cannot be read."""
    value = last(cf, name)
    if value is None:
        return Duration(0, DEFAULT_MS[name]) if name in DEFAULT_MS else None
    ms = milliseconds(value[1])
    return None if ms is None or ms < LEAST_MS[name] else Duration(value[0], ms)


def node_names(cf: HaCf) -> tuple[str, ...]:
    """All names of ``node`` lines; heartbeat makes them lower case."""
    return tuple(word.lower() for directive in cf if directive.name == "node" for word in directive.words)


def uses_haresources(cf: HaCf) -> bool:
    """True unless Pacemaker is to manage the resources."""
    values = [last(cf, name) for name in ("crm", "pacemaker")]
    return not any(value and value[1].lower() in PACEMAKER for value in values)
