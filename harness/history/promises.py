"""Where the files that the directors run with disagree with what the topology promises. Pure.

A run is judged by the promise. What a file says differently is said beside the verdict: it explains what the checks
found, and it is a mistake also in a run in which they found nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from harness.history.ops import History, HistoryError
from harness.history.timeline import span_of
from harness.records import Cluster

NAMES = {
    "check_interval_ms": "checkinterval",
    "check_timeout_ms": "negotiatetimeout",
    "check_count": "checkcount",
    "failure_count": "failurecount",
    "persistence_s": "persistent",
}
"""The names of ldirectord.cf; the other settings have their own names there and in ha.cf, without the unit."""


def disagreements(cluster: Cluster) -> Iterator[tuple[str, tuple[str, ...], Any, Any]]:
    """Each setting that differs: its name, the directors, what they have, what was promised."""
    differing: dict[tuple[str, str], list[str]] = defaultdict(list)
    values: dict[tuple[str, str], Any] = {}
    for director, settings in cluster.configured.items():
        for name, value in settings.items():
            if hasattr(cluster, name) and value != getattr(cluster, name):
                key = name, repr(value)
                differing[key].append(director)
                values[key] = value
    for (name, said), directors in differing.items():
        yield name, tuple(directors), values[name, said], getattr(cluster, name)


def remarks(cluster: Cluster) -> tuple[str, ...]:
    """A sentence for each."""
    return tuple(
        f"{' and '.join(directors)} run{'s' if len(directors) == 1 else ''} with {_named(name)} {_shown(name, has)}; "
        f"the topology promises {_shown(name, promised)}, and the run is judged by that."
        for name, directors, has, promised in disagreements(cluster)
    )


def remarks_of(history: History) -> tuple[str, ...]:
    """The same for a recorded run; none where its first op cannot be read, which the checks say."""
    try:
        return remarks(history.cluster)
    except HistoryError:
        return ()


def _named(name: str) -> str:
    return NAMES.get(name, name.removesuffix("_ms"))


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if name.endswith("_ms") and isinstance(value, int | float):
        return span_of(value)
    return f"{value} s" if name.endswith("_s") else str(value)
