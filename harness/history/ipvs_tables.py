"""The directors' IPVS tables over time, server by server, as the ops ``table`` tell them. Pure; all times are ns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from harness.history import History, HistoryError, Op

Key: TypeAlias = tuple[str, str, str]
"""A director, a VIP and a real server."""


class Entry(NamedTuple):
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
        """It gets no new connections."""
        return not self.weight


@dataclass(frozen=True)
class Tables:
    """All samples of a run, by time."""

    samples: Mapping[str, Sequence[Op]]
    """Each director -> its samples."""
    rows: Mapping[Key, Sequence[Entry]]
    """Each real server in each table of each director, in every sample of that director."""

    def times(self, director: str) -> list[int]:
        """When a director's table was seen."""
        return [op.time for op in self.samples.get(director, ())]

    def of_server(self, node: str) -> Iterator[tuple[Key, Sequence[Entry]]]:
        """The rows of one real server."""
        return ((key, entries) for key, entries in self.rows.items() if key[2] == node)


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


def _part(op: Op, vips: Any, vip: str) -> Mapping[str, Any]:
    """The real servers of one VIP; none where the table does not have it."""
    servers = vips.get(vip, {}) if isinstance(vips, dict) else None
    if not isinstance(servers, dict):
        raise HistoryError(f"op {op.index} (table): its virtual services cannot be read")
    return servers


def _entry(op: Op, told: Any) -> Entry:
    if told is None:
        return Entry(op.time, op, None)
    try:
        counts = (int(told[key]) for key in ("weight", "conns", "active", "inactive"))
        return Entry(op.time, op, *counts)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise HistoryError(f"op {op.index} (table): a real server cannot be read: {error!r}") from error
