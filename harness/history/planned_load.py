"""What the load of a run was to do, as its first op says. Pure.

It tells what a run did not try from what was not recorded: users who were never to write anything leave no writes, and
nothing is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from harness.history.ops import History, remembered
from harness.scenario import PlayerOp
from harness.verdict import Finding, not_tried

DONE_BY: Mapping[str, frozenset[str]] = {
    "page": frozenset({"get"}),
    "session": frozenset({"login", "session"}),
}
"""The ops of an entry of a player's mix that has another name than its op."""

PLAYING = frozenset(get_args(PlayerOp))
"""The usual mix (``USUAL_MIX`` in loadtests/lib/site.py; a test compares them)."""

OF_PERSONA: Mapping[str, frozenset[str]] = {
    "visitors": frozenset({"page"}),
    "log": frozenset({"page"}),
    "players": PLAYING,
    "uploaders": frozenset({"upload", "download"}),
    "administrators": frozenset({"page", "publish", "article"}),
    "everyone": PLAYING | {"publish", "article"},
}

UNRECORDED = "?"


def planned(history: History) -> Mapping[str, Any] | str | None:
    """The scenario's ``[load]``, None for a run without users, UNRECORDED for a history that does not say."""
    starts = history.of("start")
    value = starts[0].get("load", UNRECORDED) if starts else UNRECORDED
    return value if value is None or isinstance(value, dict) else UNRECORDED


@remembered
def planned_ops(history: History) -> frozenset[str] | None:
    """The ``f`` of all ops that the users of a run were to do; None for a history that does not say."""
    load = planned(history)
    if load is None:
        return frozenset()
    if not isinstance(load, dict) or load.get("persona") not in OF_PERSONA:
        return None
    mix = load.get("mix")
    entries = {name for name, weight in mix.items() if weight} if isinstance(mix, dict) and mix else None
    kinds = OF_PERSONA[load["persona"]] if entries is None else entries
    return frozenset().union(*(DONE_BY.get(kind, {kind}) for kind in kinds)) | (
        {"kept"} if load.get("connections") else set()
    )


def leaves_out(history: History, *fs: str) -> bool:
    """True when the users of a run were to do no op of these kinds, and did none."""
    wanted = planned_ops(history)
    return wanted is not None and wanted.isdisjoint(fs) and not any(_by_users(history, f) for f in fs)


def _by_users(history: History, f: str) -> bool:
    return any(op.process.startswith(("user:", "connection:")) for op in history.of(f))


def has_no_plan(history: History) -> bool:
    """True when the load of a run was to have no planned times."""
    load = planned(history)
    if load is None:
        return True
    return isinstance(load, dict) and load.get("persona") != "log" and load.get("arrivals") == "closed"


def untried(history: History, what: str, *fs: str) -> Iterator[Finding]:
    """The finding that the load was to do none of these, if it was: ``what`` completes "The users of this run ..."."""
    if leaves_out(history, *fs):
        yield not_tried(f"The users of this run {what}." if planned(history) is not None else "The run had no users.")


def lacks(history: History, part: str) -> bool:
    """True when the topology certainly does not have that part."""
    parts = history.cluster.parts
    return parts is not None and part not in parts
