"""What an answer of the site means for an op.

The type of a completion:

- reads: ``ok`` for status 200 and a right answer; ``info`` for a timeout and for what was outstanding at the end;
  ``fail`` for everything else, a lost connection included: nothing was read;
- writes (and ``session``, which counts): ``ok`` alike; ``fail`` only when certainly nothing was written: no connection
  was made, status 4xx, or the site answers ``"written": "no"``; ``info`` for everything else: it may have been written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from loadtests.lib.site import WRITES

SAID_CHARACTERS = 200
"""How much of a bad answer is recorded."""


class WrongAnswerError(Exception):
    """Status 200, and not an answer to what was asked."""


class Judgement(NamedTuple):
    """The type of a completion, its error, if any, and what it adds to the value."""

    type: str
    error: str
    known: dict[str, Any]


class Shape(NamedTuple):
    """A right answer: fields that repeat what was asked, and the types of the fields that are new."""

    repeated: tuple[str, ...]
    new: Mapping[str, frozenset[type]]


TEXT, NUMBER, FLAG, TABLE, LIST = (frozenset({kind}) for kind in (str, int, bool, dict, list))
SHAPES = {
    "profile-read": Shape(("player",), {"motto": TEXT, "version": NUMBER}),
    "profile-write": Shape(("player", "motto"), {"version": NUMBER}),
    "score": Shape(("player", "points", "op"), {"total": NUMBER, "entry": NUMBER, "first": FLAG}),
    "score-read": Shape(("player",), {"total": NUMBER, "entries": NUMBER}),
    "transfer": Shape(("from", "to", "coins", "op"), {"first": FLAG}),
    "coins": Shape((), {"balances": TABLE, "total": NUMBER}),
    "upload": Shape(("name",), {"sha256": TEXT, "bytes": NUMBER}),
    "login": Shape(("player", "op"), {}),
    "ledger": Shape((), {"entries": LIST, "last": NUMBER}),
    "transfers": Shape((), {"entries": LIST, "last": NUMBER}),
    "session": Shape((), {"player": NUMBER | {type(None)}, "pages": NUMBER}),
    "publish": Shape(("article", "page", "op"), {"version": NUMBER, "sha256": TEXT}),
    "article": Shape(("article",), {"by": TEXT | {type(None)}, "version": NUMBER}),
}
"""Of each op with a JSON answer. A table's values are numbers. Mottos and names of uploads are ids of ops."""


def outcome(error: BaseException | None, status: int) -> tuple[str, str]:
    """The type of a finished op and its error, if any: ``info`` for a timeout, which may have been served too late."""
    # The client wraps what it would try again, timeouts included.
    error = getattr(error, "original", error)
    if isinstance(error, TimeoutError):
        return "info", "timeout"
    if status and status != 200:
        return "fail", f"status {status}"
    if error is not None:
        return "fail", str(error) or type(error).__name__
    return "ok", ""


def undecided(f: str) -> str:
    """The type of an op whose answer is useless: a write may have been done, a read has certainly read nothing."""
    return "info" if f in WRITES else "fail"


def not_written(status: int, written: object) -> bool:
    """True when a write that was sent certainly changed nothing. ``written`` is the site's own word, if any."""
    return written == "no" or (400 <= status < 500 and written != "unknown")


def parsed(content: bytes | None) -> dict[str, Any]:
    """The JSON object in an answer. Raises WrongAnswerError."""
    try:
        answer = json.loads(content or b"")
    except (ValueError, RecursionError) as error:
        raise WrongAnswerError("unreadable answer") from error
    if not isinstance(answer, dict):
        raise WrongAnswerError("unreadable answer")
    return answer


def new_fields(shape: Shape, asked: Mapping[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """The new fields of an answer that has that shape. Raises WrongAnswerError."""
    for key in shape.repeated:
        if type(answer.get(key)) is not type(asked[key]) or answer[key] != asked[key]:
            raise WrongAnswerError(f"wrong answer: {key} is not what was asked")
    for key, kinds in shape.new.items():
        if key not in answer or type(answer[key]) not in kinds:
            raise WrongAnswerError(f"wrong answer: no right {key}")
        if kinds is TABLE and not NUMBER.issuperset(map(type, answer[key].values())):
            raise WrongAnswerError(f"wrong answer: no right {key}")
    return {key: answer[key] for key in shape.new}


def digest(body: bytes) -> dict[str, Any]:
    """The ``sha256`` and the length in ``bytes`` of a body."""
    return {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)}


def report(content: bytes | None) -> dict[str, Any]:
    """What a bad answer reports: the site's sentence and its ``written``, or else the first characters."""
    try:
        answer = parsed(content)
    except WrongAnswerError:
        answer = {}
    sentence = answer.get("error")
    if not isinstance(sentence, str):
        sentence = (content or b"").decode(errors="replace")
    written = {"written": answer["written"]} if answer.get("written") in ("no", "unknown") else {}
    return {**written, "said": sentence[:SAID_CHARACTERS]}
