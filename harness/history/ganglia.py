"""The hosts that Ganglia knows, as the ops ``ganglia`` record them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.history import HistoryError, Op

DOWN_AFTER = 4
"""A host is down when Ganglia last heard from it more than this many TMAX ago (ganglia-web, ``$host_up``)."""


def hosts_of(op: Op) -> Mapping[str, Any]:
    """Each host in a sample -> its numbers. Raises HistoryError."""
    hosts = op["hosts"]
    if not isinstance(hosts, dict):
        raise HistoryError(f"op {op.index} (ganglia): its hosts cannot be read")
    return hosts


def seconds_of(op: Op, host: Any, key: str) -> float:
    """``tn_s`` or ``tmax_s`` of a host in a sample. Raises HistoryError."""
    try:
        return float(host[key])
    except (KeyError, TypeError, ValueError) as error:
        raise HistoryError(f"op {op.index} (ganglia): a host has no readable {key!r}") from error


def is_down(op: Op, node: str) -> bool:
    """Whether a sample shows a host as down or does not list it. Raises HistoryError."""
    host = hosts_of(op).get(node)
    return host is None or seconds_of(op, host, "tn_s") > DOWN_AFTER * seconds_of(op, host, "tmax_s")
