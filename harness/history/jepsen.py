"""A history in the format of Jepsen's own tools: knossos, elle and elle-cli. Pure.

Our ops have Jepsen's fields. Two things differ. Those tools recognize a client by an integer process; they take all
others for the nemesis and skip them. And a process ends with its first ``info``, because a client must not go on when
the result of its op is unknown. Source: the README of jepsen-io/history, and the histories of ligurio/elle-cli.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from harness.history import History, Op

NEMESIS = "nemesis"

Translated = tuple[str, Any]
"""``f`` and ``value`` in the terms of a model of those tools."""


def export(history: History, of: str) -> Iterator[dict[str, Any]]:
    """The ops by time, numbered anew from 0; ``line`` is an op's index in our history.

    ``of`` is one of MODELS. Ops that its model does not have are left out.
    """
    translate = MODELS[of](history)
    fresh = itertools.count()
    open_: dict[str, int] = {}
    numbers: dict[str, int] = {}
    index = 0
    for op in history.by_time():
        translated = translate(op)
        if translated is None:
            continue
        process: int | str = NEMESIS
        if op.type == "invoke":
            if op.process in open_ or op.process not in numbers:  # its last op has no result, or it is new
                numbers[op.process] = next(fresh)
            process = open_[op.process] = numbers[op.process]
        elif op.process in open_:
            process = open_.pop(op.process)
            if op.type == "info":
                del numbers[op.process]
        yield _fields(op, index, process, translated)
        index += 1


def _fields(op: Op, index: int, process: int | str, translated: Translated) -> dict[str, Any]:
    f, value = translated
    fields = {"index": index, "time": op.time, "process": process, "type": op.type, "f": f, "value": value}
    return {**fields, "line": op.index} if op.error is None else {**fields, "line": op.index, "error": op.error}


def _all(_: History) -> Callable[[Op], Translated | None]:
    return lambda op: (op.f, op.value)


def _profiles(history: History) -> Callable[[Op], Translated | None]:
    """Each player's motto is a register. Its value before the run is null: elle knows only what was written."""
    first = _unwritten(history)

    def translate(op: Op) -> Translated | None:
        player, motto = op.get("player"), op.get("motto")
        if op.f == "profile-write":
            return "txn", [["w", player, motto]]
        if op.f == "profile-read":
            seen = motto if op.type == "ok" and first.get(_profile(op)[0]) != motto else None
            return "txn", [["r", player, seen]]
        return None

    return translate


def _unwritten(history: History) -> dict[Any, Any]:
    """Each player -> the first motto that was read and never written."""
    written = {_profile(op) for op in history.of("profile-write")}
    found: dict[Any, Any] = {}
    for op in history.by_time().of("profile-read"):
        player, motto = _profile(op)
        if op.type == "ok" and (player, motto) not in written:
            found.setdefault(player, op.get("motto"))
    return found


def _profile(op: Op) -> tuple[str, str]:
    """The player and the motto as JSON: a broken op may have any value there."""
    return json.dumps(op.get("player")), json.dumps(op.get("motto"))


def _coins(_: History) -> Callable[[Op], Translated | None]:
    """A bank: transfers, and reads of all balances."""

    def translate(op: Op) -> Translated | None:
        if op.f == "coins":
            return "read", op.get("balances") if op.type == "ok" else None
        if op.f == "transfer":
            return "transfer", {"from": op.get("from"), "to": op.get("to"), "amount": op.get("coins")}
        return None

    return translate


MODELS: Mapping[str, Callable[[History], Callable[[Op], Translated | None]]] = {
    "all": _all,
    "profiles": _profiles,
    "coins": _coins,
}
"""What can be exported: all ops as they are, or some in the terms of elle's ``rw-register`` or Jepsen's ``bank``."""
