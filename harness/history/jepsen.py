"""A history as Jepsen's own tools want it: knossos, elle and elle-cli. Pure.

Our ops have Jepsen's fields. What differs is what those tools tell clients by: a client's process is an integer there,
and all else is taken for the nemesis and skipped; and a process ends with its first ``info``, because a client of which
nobody knows what became must not go on. Source: the README of jepsen-io/history, and the histories of ligurio/elle-cli.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from harness.history import History, Op

NEMESIS = "nemesis"

Told = tuple[str, Any]
"""``f`` and ``value`` as a model of those tools wants them."""


def export(history: History, of: str) -> Iterator[dict[str, Any]]:
    """The ops by time, numbered anew from 0; ``line`` is an op's index in our history.

    ``of`` is one of MODELS. Ops that its model has no words for are left out.
    """
    tell = MODELS[of](history)
    fresh = itertools.count()
    open_: dict[str, int] = {}
    numbers: dict[str, int] = {}
    index = 0
    for op in history.by_time():
        told = tell(op)
        if told is None:
            continue
        process: int | str = NEMESIS
        if op.type == "invoke":
            if op.process in open_ or op.process not in numbers:  # it never heard of its last op, or is new
                numbers[op.process] = next(fresh)
            process = open_[op.process] = numbers[op.process]
        elif op.process in open_:
            process = open_.pop(op.process)
            if op.type == "info":
                del numbers[op.process]
        yield _fields(op, index, process, told)
        index += 1


def _fields(op: Op, index: int, process: int | str, told: Told) -> dict[str, Any]:
    f, value = told
    fields = {"index": index, "time": op.time, "process": process, "type": op.type, "f": f, "value": value}
    return {**fields, "line": op.index} if op.error is None else {**fields, "line": op.index, "error": op.error}


def _all(_: History) -> Callable[[Op], Told | None]:
    return lambda op: (op.f, op.value)


def _profiles(history: History) -> Callable[[Op], Told | None]:
    """Each player's motto is a register. What it was before the run is null: elle knows only what was written."""
    first = _unwritten(history)

    def tell(op: Op) -> Told | None:
        player, motto = op.get("player"), op.get("motto")
        if op.f == "profile-write":
            return "txn", [["w", player, motto]]
        if op.f == "profile-read":
            seen = motto if op.type == "ok" and first.get(player) != motto else None
            return "txn", [["r", player, seen]]
        return None

    return tell


def _unwritten(history: History) -> dict[Any, Any]:
    """Each player -> the first motto that was read and that nobody wrote."""
    written = {(op.get("player"), op.get("motto")) for op in history.of("profile-write")}
    found: dict[Any, Any] = {}
    for op in history.by_time().of("profile-read"):
        if op.type == "ok" and (op.get("player"), op.get("motto")) not in written:
            found.setdefault(op.get("player"), op.get("motto"))
    return found


def _coins(_: History) -> Callable[[Op], Told | None]:
    """A bank: transfers, and readings of all balances."""

    def tell(op: Op) -> Told | None:
        if op.f == "coins":
            return "read", op.get("balances") if op.type == "ok" else None
        if op.f == "transfer":
            return "transfer", {"from": op.get("from"), "to": op.get("to"), "amount": op.get("coins")}
        return None

    return tell


MODELS: Mapping[str, Callable[[History], Callable[[Op], Told | None]]] = {
    "all": _all,
    "profiles": _profiles,
    "coins": _coins,
}
"""What can be exported: all ops as they are, or some in the words of elle's ``rw-register`` or Jepsen's ``bank``."""
