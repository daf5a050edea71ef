"""What feeds look at again and again, as the state of one thing after another. Pure; the time line draws it.

A state is a pair: the class of its mark, and what is said of it. Ops that cannot be read are left out. What is right
and what is not is as the checks have it; how late or how old may be is theirs alone.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from harness.checks.backup import age_ms, first_looks
from harness.checks.content import files_of
from harness.checks.monitoring import hosts_of, is_down
from harness.history import History, HistoryError, Op
from harness.history.timeline import MS, count_of

SECOND = 1_000 * MS
GOOD, BAD = "state good", "state bad"
CLOCK_OFF_MS = 1000
"""Less is the way of a line to the run, on a busy machine."""

State = tuple[str, str]


@dataclass(frozen=True)
class Look:
    """A state at a time, in ns: its class and what is said of it."""

    time: int
    css: str
    says: str


@dataclass(frozen=True)
class Course:
    """The states of one thing. After ``silent_ns`` without a look nobody knows its state."""

    label: str
    note: str
    looks: tuple[Look, ...]
    silent_ns: int

    def stretches(self) -> Iterator[tuple[int, int, Look]]:
        """From when to when it was in the same state, as far as anybody knows."""
        start: Look | None = None
        for look, after in zip_longest(self.looks, self.looks[1:]):
            start = start or look
            silent = after is None or after.time - look.time > self.silent_ns
            if after is None or silent or (after.css, after.says) != (look.css, look.says):
                yield start.time, look.time if silent or after is None else after.time, look
                start = None


def weights(history: History) -> dict[str, list[Course]]:
    """Each director -> what each real server weighs in its IPVS table, in all its virtual services."""
    return _seen({f"weights {node}": _weights(history, node) for node in history.cluster.directors})


def parts(history: History) -> dict[str, list[Course]]:
    """Each kind of part that is looked at, and how it was: web data, backups, monitoring, clocks."""
    return _seen(
        {
            "docroot": _docroots(history),
            "backup": _backups(history),
            "ganglia": _ganglia(history),
            "clock": _clocks(history),
        }
    )


def _seen(courses: Mapping[str, Iterable[Course]]) -> dict[str, list[Course]]:
    """Without what nobody looked at."""
    told = {kind: [each for each in some if each.looks] for kind, some in courses.items()}
    return {kind: some for kind, some in told.items() if some}


# --- weights


def weighed(history: History, director: str) -> list[Op]:
    """The director's readable IPVS tables, by time."""
    return [op for op in history.by_time().seen("table") if op.get("node") == director and _is_table(op.get("vips"))]


def weighs(table: Op, server: str) -> tuple[str, str]:
    """The class and the words for a real server's weights."""
    found = {vip: servers.get(server, {}).get("weight") for vip, servers in sorted(table["vips"].items())}
    weights = set(found.values())
    if weights <= {None}:
        return "weight out", "not in the table"
    if len(weights) > 1:
        told = ", ".join(f"{vip}: {'out' if weight is None else weight}" for vip, weight in found.items())
        return "weight mixed", told
    (weight,) = weights
    return ("weight in" if weight else "weight quiesced"), f"weight {weight}"


def _weights(history: History, director: str) -> list[Course]:
    tables = weighed(history, director)
    named = {server for op in tables for servers in op["vips"].values() for server in servers}
    servers = [*history.cluster.web, *sorted(named - set(history.cluster.web))]
    return [
        Course(f"{director} {server}", "weight", tuple(Look(op.time, *weighs(op, server)) for op in tables), 2 * SECOND)
        for server in servers
    ]


def _is_table(vips: Any) -> bool:
    services = vips.values() if isinstance(vips, dict) else [None]
    return all(isinstance(each, dict) and all(isinstance(row, dict) for row in each.values()) for each in services)


# --- web data


def _docroots(history: History) -> list[Course]:
    """Each real server: whether the files of its site are as the master has them at that time."""
    if not history.cluster.web:
        return []
    ops = _by("node", history, "docroot")
    master, *replicas = history.cluster.web
    changes = _read(ops.get(master, []), files_of)
    found = [Course(master, "web data", _looks(changes, _version), 12 * SECOND)]
    for node in replicas:
        looks, wanted, left = [], None, list(reversed(changes))
        for op, files in _read(ops.get(node, []), files_of):
            while left and left[-1][0].time <= op.time:
                wanted = left.pop()[1]
            if wanted is not None:
                looks.append(Look(op.time, *_behind(files, wanted, master)))
        found.append(Course(node, "web data", tuple(looks), 12 * SECOND))
    return found


def _version(files: Mapping[str, Any]) -> State:
    told = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:7]
    return GOOD, f"the master's {count_of(len(files), 'file')}, {told}"


def _behind(files: Mapping[str, Any], wanted: Mapping[str, Any], master: str) -> State:
    others = [path for path in sorted(files.keys() | wanted.keys()) if files.get(path) != wanted.get(path)]
    if not others:
        return GOOD, f"as on {master}"
    more = f" and {len(others) - 1:,} more" if len(others) > 1 else ""
    return BAD, f"not as on {master}: {others[0]}{more}"


# --- backups


def _backups(history: History) -> list[Course]:
    """Each backup, from when it was there until the next one was."""
    found = []
    for of, ops in sorted(_by("of", history, "backup").items()):
        looks, new = [op for op, _ in _read(ops, age_ms)], 0
        first = {op.index for op in (*looks[:1], *first_looks(looks))}
        told: list[Look] = []
        for op in looks:
            if op.index in first:
                new += 1
                css, says = f"state {'odd' if new % 2 == 0 else 'even'}", _made(op)
            told.append(Look(op.time, css, says))
        found.append(Course(of, "backup", tuple(told), 20 * SECOND))
    return found


def _made(op: Op) -> str:
    at_s = op.time / SECOND - age_ms(op) / 1000
    return f"a backup made {-at_s:,.0f} s before the run" if at_s < 0 else f"a backup made at {at_s:,.0f} s"


# --- monitoring and clocks


def _ganglia(history: History) -> list[Course]:
    """Which hosts gmetad takes for up, by the node that it runs on."""
    by_node = sorted(_by("node", history, "ganglia").items())
    return [Course(node, "hosts", _looks(_read(ops, _down), _hosts_told), 20 * SECOND) for node, ops in by_node]


def _down(op: Op) -> Mapping[str, bool]:
    """Each host of a look at Ganglia, and whether it is down. Raises HistoryError."""
    return {host: is_down(op, host) for host in sorted(hosts_of(op))}


def _hosts_told(down: Mapping[str, bool]) -> State:
    away = [host for host, is_away in down.items() if is_away]
    if not down:
        return BAD, "no hosts"
    if away:
        return BAD, f"{', '.join(away)} down, {len(down) - len(away)} up"
    return GOOD, f"{count_of(len(down), 'host')} up"


def _clocks(history: History) -> list[Course]:
    """All nodes' clocks together, as each was told last."""
    offsets: dict[str, float] = {}
    looks = []
    for op, offset in _read(history.by_time().seen("clock"), _offset_ms):
        offsets[str(op.get("node"))] = offset
        off = {node: ms for node, ms in sorted(offsets.items()) if abs(ms) >= CLOCK_OFF_MS}
        told = ", ".join(f"{node} off by {ms / 1000:+,.0f} s" for node, ms in off.items())
        looks.append(Look(op.time, BAD if off else GOOD, told or "as the lab's"))
    return [Course("Clocks", "all nodes", tuple(looks), 6 * SECOND)]


def _offset_ms(op: Op) -> float:
    offset = op["offset_ms"]
    if isinstance(offset, bool) or not isinstance(offset, int | float):
        raise HistoryError(f"op {op.index} (clock): its offset_ms is {offset!r}, not a number")
    return float(offset)


# --- all of them


def _by(key: str, history: History, f: str) -> dict[str, list[Op]]:
    """The ops of a feed by whom they are of."""
    groups: dict[str, list[Op]] = defaultdict(list)
    for op in history.by_time().seen(f):
        groups[str(op.get(key))].append(op)
    return groups


def _read(ops: Iterable[Op], reading: Callable[[Op], Any]) -> list[tuple[Op, Any]]:
    """The ops that can be read, and what they say."""
    found = []
    for op in ops:
        with suppress(HistoryError):
            found.append((op, reading(op)))
    return found


def _looks(read: Sequence[tuple[Op, Any]], tell: Callable[[Any], State]) -> tuple[Look, ...]:
    return tuple(Look(op.time, *tell(said)) for op, said in read)
