"""The directors' IPVS tables over time, server by server, from the ``table`` ops. Pure; all times are ns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from harness.history import History, HistoryError, Op
from harness.history.ops import remembered

Key: TypeAlias = tuple[str, str, str]
"""A director, a VIP and a real server."""


class Entry(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One real server in one sample. ``weight`` is None where the table does not have it.

    ``conns`` are the connections scheduled to it since it entered the table. ``active`` are those that are open,
    ``inactive`` those that are ending.
    """

    time: int
    op: Op
    weight: int | None
    conns: int = 0
    active: int = 0
    inactive: int = 0

    @property
    def out(self) -> bool:
        """True when it gets no new connections."""
        return not self.weight


UNREADABLE = (AttributeError, KeyError, TypeError, ValueError)


@dataclass(frozen=True)
class Tables:
    """All samples of a run, by time."""

    samples: Mapping[str, Sequence[Op]]
    """Each director -> its samples."""
    rows: Mapping[Key, Sequence[Entry]]
    """Each real server in each table of each director, in every sample of that director."""

    def times(self, director: str) -> list[int]:
        """When a director's table was sampled."""
        return [op.time for op in self.samples.get(director, ())]

    def of_server(self, node: str) -> Iterator[tuple[Key, Sequence[Entry]]]:
        """The rows of one real server."""
        return ((key, entries) for key, entries in self.rows.items() if key[2] == node)


@remembered
def tables(history: History) -> Tables:
    """All tables of a run. Raises HistoryError for one that cannot be read."""
    cluster = history.cluster
    samples: dict[str, list[Op]] = defaultdict(list)
    rows: dict[Key, list[Entry]] = defaultdict(list)
    for op in history.by_time().seen("table"):
        director, vips = str(op["node"]), op["vips"]
        samples[director].append(op)
        for vip in cluster.vips:
            servers = _part(op, vips, vip)
            for node in cluster.web:
                rows[director, vip, node].append(_entry(op, servers.get(node)))
    return Tables(samples, rows)


def weights_of(op: Op) -> dict[str, dict[str, int]]:
    """Each VIP of a sample -> its real servers and their weights. Raises HistoryError."""
    if not isinstance(op["vips"], dict):
        raise HistoryError(f"op {op.index} (table): its virtual services cannot be read")
    found: dict[str, dict[str, int]] = {}
    for vip in sorted(op["vips"]):
        found[vip] = {node: _number(op, row, "weight") for node, row in _part(op, op["vips"], vip).items()}
    return found


def _part(op: Op, vips: Any, vip: str) -> Mapping[str, Any]:
    """The real servers of one VIP; none where the table does not have it."""
    servers = vips.get(vip, {}) if isinstance(vips, dict) else None
    if not isinstance(servers, dict):
        raise HistoryError(f"op {op.index} (table): its virtual services cannot be read")
    return servers


def _entry(op: Op, server: Any) -> Entry:
    if server is None:
        return Entry(op.time, op, None)
    try:
        weight, conns, active, inactive = map(
            int, (server["weight"], server["conns"], server["active"], server["inactive"])
        )
    except UNREADABLE as error:
        raise HistoryError(f"op {op.index} (table): a real server cannot be read: {error!r}") from error
    return Entry(op.time, op, weight, conns, active, inactive)


def _number(op: Op, row: Any, key: str) -> int:
    try:
        return int(row[key])
    except UNREADABLE as error:
        raise HistoryError(f"op {op.index} (table): a real server cannot be read: {error!r}") from error
