"""The states of things that feeds sample again and again, such as weights and backups. Pure; the timeline draws them.

A state is a pair: the class of its mark, and its text. Ops that cannot be read are left out. States are what a sample
shows; how late a file or how old a backup may be is for the checks.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from harness.history import History, HistoryError, Op
from harness.history.backups import age_ms, first_samples
from harness.history.ganglia import hosts_of, is_down
from harness.history.ipvs_tables import weights_of
from harness.history.timeline import MS, count_of
from harness.history.web_data import files_of

SECOND = 1_000 * MS
GOOD, BAD = "state good", "state bad"
CLOCK_OFF_MS = 1000
"""A smaller offset may be the time that the node's report took to arrive, on a busy machine."""

State = tuple[str, str]


@dataclass(frozen=True)
class Sample:
    """A state at a time, in ns: its class and its text."""

    time: int
    css: str
    text: str


@dataclass(frozen=True)
class Track:
    """The states of one thing over time. Its state is unknown ``silent_ns`` after a sample."""

    label: str
    note: str
    samples: tuple[Sample, ...]
    silent_ns: int

    def intervals(self) -> Iterator[tuple[int, int, Sample]]:
        """The intervals in which it had the same state: start, end, and first sample."""
        first: Sample | None = None
        for sample, after in zip_longest(self.samples, self.samples[1:]):
            first = first or sample
            silent = after is None or after.time - sample.time > self.silent_ns
            if after is None or silent or (after.css, after.text) != (sample.css, sample.text):
                yield first.time, sample.time if silent or after is None else after.time, sample
                first = None


def weights(history: History) -> dict[str, list[Track]]:
    """Each director -> the weights of each real server in its IPVS table, in all its virtual services."""
    return _sampled({f"weights {node}": _weights(history, node) for node in history.cluster.directors})


def parts(history: History) -> dict[str, list[Track]]:
    """Web data, backups, monitoring and clocks -> their states."""
    return _sampled(
        {
            "docroot": _docroots(history),
            "backup": _backups(history),
            "ganglia": _ganglia(history),
            "clock": _clocks(history),
        }
    )


def _sampled(tracks: Mapping[str, Iterable[Track]]) -> dict[str, list[Track]]:
    """Only the tracks with samples."""
    found = {kind: [track for track in each if track.samples] for kind, each in tracks.items()}
    return {kind: each for kind, each in found.items() if each}


# --- weights


Weights = Mapping[str, Mapping[str, int]]
"""Each VIP -> its real servers and their weights."""


def weight_samples(history: History, director: str) -> list[tuple[Op, Weights]]:
    """The director's readable IPVS tables, by time."""
    return _read((op for op in history.by_time().seen("table") if op.get("node") == director), weights_of)


def weight_state(table: Weights, server: str) -> State:
    """The state of a real server in one table."""
    found = {vip: servers.get(server) for vip, servers in table.items()}
    weights = set(found.values())
    if weights <= {None}:
        return "weight out", "not in the table"
    if len(weights) > 1:
        each = ", ".join(f"{vip}: {'out' if weight is None else weight}" for vip, weight in found.items())
        return "weight mixed", each
    (weight,) = weights
    return ("weight in" if weight else "weight quiesced"), f"weight {weight}"


def _weights(history: History, director: str) -> list[Track]:
    tables = weight_samples(history, director)
    named = {server for _, table in tables for servers in table.values() for server in servers}
    servers = [*history.cluster.web, *sorted(named - set(history.cluster.web))]
    return [
        Track(
            f"{director} {server}",
            "weight",
            tuple(Sample(op.time, *weight_state(table, server)) for op, table in tables),
            2 * SECOND,
        )
        for server in servers
    ]


# --- web data


def _docroots(history: History) -> list[Track]:
    """Each real server: whether its files of the site match the master's at that time."""
    if not history.cluster.web:
        return []
    ops = _by("node", history, "docroot")
    master, *replicas = history.cluster.web
    changes = _read(ops.get(master, []), files_of)
    found = [Track(master, "web data", _samples(changes, _version), 12 * SECOND)]
    for node in replicas:
        samples, wanted, left = [], None, list(reversed(changes))
        for op, files in _read(ops.get(node, []), files_of):
            while left and left[-1][0].time <= op.time:
                wanted = left.pop()[1]
            if wanted is not None:
                samples.append(Sample(op.time, *_compared(files, wanted, master)))
        found.append(Track(node, "web data", tuple(samples), 12 * SECOND))
    return found


def _version(files: Mapping[str, Any]) -> State:
    digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:7]
    return GOOD, f"the master's {count_of(len(files), 'file')}, {digest}"


def _compared(files: Mapping[str, Any], wanted: Mapping[str, Any], master: str) -> State:
    others = [path for path in sorted(files.keys() | wanted.keys()) if files.get(path) != wanted.get(path)]
    if not others:
        return GOOD, f"same as {master}"
    more = f" and {len(others) - 1:,} more" if len(others) > 1 else ""
    return BAD, f"differs from {master}: {others[0]}{more}"


# --- backups


def _backups(history: History) -> list[Track]:
    """Each backup, from its first sample until the first sample of the next one."""
    found = []
    for of, ops in sorted(_by("of", history, "backup").items()):
        readable, new = [op for op, _ in _read(ops, age_ms)], 0
        first = {op.index for op in (*readable[:1], *first_samples(readable))}
        samples: list[Sample] = []
        for op in readable:
            if op.index in first:
                new += 1
                css, text = f"state {'odd' if new % 2 == 0 else 'even'}", _made(op)
            samples.append(Sample(op.time, css, text))
        found.append(Track(of, "backup", tuple(samples), 20 * SECOND))
    return found


def _made(op: Op) -> str:
    at_s = op.time / SECOND - age_ms(op) / 1000
    return f"backup made {-at_s:,.0f} s before the run" if at_s < 0 else f"backup made at {at_s:,.0f} s"


# --- monitoring and clocks


def _ganglia(history: History) -> list[Track]:
    """The hosts that gmetad considers up, by the node that it runs on."""
    by_node = sorted(_by("node", history, "ganglia").items())
    return [Track(node, "hosts", _samples(_read(ops, _down), _hosts), 20 * SECOND) for node, ops in by_node]


def _down(op: Op) -> Mapping[str, bool]:
    """Each host in a sample of Ganglia, and whether it is down. Raises HistoryError."""
    return {host: is_down(op, host) for host in sorted(hosts_of(op))}


def _hosts(down: Mapping[str, bool]) -> State:
    away = [host for host, is_away in down.items() if is_away]
    if not down:
        return BAD, "no hosts"
    if away:
        return BAD, f"{', '.join(away)} down, {len(down) - len(away)} up"
    return GOOD, f"{count_of(len(down), 'host')} up"


def _clocks(history: History) -> list[Track]:
    """The clocks of all nodes together, by each node's latest sample."""
    offsets: dict[str, float] = {}
    samples = []
    for op, offset in _read(history.by_time().seen("clock"), _offset_ms):
        offsets[str(op.get("node"))] = offset
        off = {node: ms for node, ms in sorted(offsets.items()) if abs(ms) >= CLOCK_OFF_MS}
        each = ", ".join(f"{node} off by {ms / 1000:+,.0f} s" for node, ms in off.items())
        samples.append(Sample(op.time, BAD if off else GOOD, each or "same as the lab's clock"))
    return [Track("Clocks", "all nodes", tuple(samples), 6 * SECOND)]


def _offset_ms(op: Op) -> float:
    offset = op["offset_ms"]
    if isinstance(offset, bool) or not isinstance(offset, int | float):
        raise HistoryError(f"op {op.index} (clock): its offset_ms is {offset!r}, not a number")
    return float(offset)


# --- all of them


def _by(key: str, history: History, f: str) -> dict[str, list[Op]]:
    """The ops of a feed, grouped by a value."""
    groups: dict[str, list[Op]] = defaultdict(list)
    for op in history.by_time().seen(f):
        groups[str(op.get(key))].append(op)
    return groups


def _read(ops: Iterable[Op], reading: Callable[[Op], Any]) -> list[tuple[Op, Any]]:
    """The readable ops and their content."""
    found = []
    for op in ops:
        with suppress(HistoryError):
            found.append((op, reading(op)))
    return found


def _samples(read: Sequence[tuple[Op, Any]], state: Callable[[Any], State]) -> tuple[Sample, ...]:
    return tuple(Sample(op.time, *state(content)) for op, content in read)
