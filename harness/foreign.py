"""Histories that another harness recorded: is a register in them linearizable? Reading them, and the verdict.

A line is one op: a JSON object with Jepsen's fields (``process``, ``type``, ``f``, ``value``; ``time`` and ``error`` if
there are any), or a line of Jepsen's log (``INFO  jepsen.util - 3\t:invoke\t:cas\t[1 4]``). No versions are needed.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.algorithms import wing_gong
from harness.algorithms.arrays import FOREVER
from harness.errors import UserError
from harness.history.client_ops import named, too_few
from harness.history.ops import TYPES, HistoryError
from harness.reading import brief, nested_too_deep
from harness.verdict import Finding, Verdict, conclude, invalid, unknown

NAME = "register"

FIRST = "first"
"""The key of ``[key, value]``, as Jepsen's independent registers have it."""


class RegisterSettings(BaseModel):
    """What ``--register KEY=VALUE`` sets: the names that the history uses, and what its register is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    read: str = Field(default="read", description="The f of reads")
    write: str = Field(default="write", description="The f of writes")
    cas: str = Field(default="cas", description="The f of compare-and-set; its value is [expected, new]")
    key: str = Field(
        default="", description="The field of a value that names the register, or `first` for [key, value]"
    )
    value: str = Field(default="", description="The field of a value that holds the register's value")
    initial: str = Field(default="", description="The value before the first op, as JSON; default: not known")
    search_s: float = Field(default=60, gt=0, description="Time limit of the search in seconds")

    @property
    def first(self) -> Any:
        """The register's value before the first op. Raises UserError when it is not JSON."""
        try:
            return _hashable(msgspec.json.decode(self.initial.encode())) if self.initial else wing_gong.UNKNOWN
        except msgspec.DecodeError as error:
            raise UserError(
                f"initial={self.initial} is not JSON", "Give it as JSON, for example initial=null."
            ) from error


def settings(words: Iterable[str]) -> RegisterSettings:
    """The settings of ``KEY=VALUE`` words. Raises UserError."""
    pairs = [word.partition("=") for word in words]
    try:
        return RegisterSettings.model_validate({key: value for key, _, value in pairs})
    except ValidationError as error:
        known = ", ".join(RegisterSettings.model_fields)
        wrong = ", ".join(str(each["loc"][0]) for each in error.errors())
        raise UserError(f"--register cannot set {wrong}", f"Known settings: {known}.") from error


class _Line(msgspec.Struct, gc=False):
    process: int | str
    type: str
    f: str
    value: Any = None
    time: int | float | None = None
    error: Any = None


@dataclass(frozen=True)
class Foreign:
    """An op of another harness. ``at`` is its time, or its line where the history has no times."""

    line: int
    at: float
    process: int | str
    type: str
    f: str
    value: Any
    error: Any = None


LINES = msgspec.json.Decoder(_Line)
LOGGED = re.compile(rb"^\S+\s+\S+\s+-\s+(\S+)\s+:(\w+)\s+:(\w+)\s+(.*)$")
EDN_VALUE = re.compile(r"nil|-?\d+|\[-?\d+\s+-?\d+\]")


def read(path: Path) -> list[Foreign]:
    """The ops of a file. Raises HistoryError for a line that is neither JSON nor of a log, UserError for the file."""
    try:
        with path.open("rb") as file:
            lines = [(number, line.strip()) for number, line in enumerate(file, start=1) if line.strip()]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", "Check the path and its permissions.") from error
    found = [(number, _line(line, number)) for number, line in lines]
    timed = all(each.time is not None for _, each in found)
    return [
        Foreign(number, float(each.time if timed and each.time is not None else number), each.process, each.type,
                each.f, each.value, each.error)
        for number, each in found
    ]  # fmt: skip


def _line(line: bytes, number: int) -> _Line:
    where = f"line {number} of the history"
    logged = LOGGED.match(line)
    if logged:
        found = _logged(*(part.decode("utf-8", "replace") for part in logged.groups()))
    elif nested_too_deep(line):
        raise HistoryError(f"{where} is not an op: its value is nested too deep")
    else:
        try:
            found = LINES.decode(line)
        except msgspec.MsgspecError as error:
            raise HistoryError(f"{where} is not an op: {brief(str(error))}") from error
    if found.type not in TYPES:
        raise HistoryError(f"{where} is not an op: its type is {brief(found.type)!r}")
    return found


def _logged(process: str, kind: str, f: str, value: str) -> _Line:
    if not EDN_VALUE.fullmatch(value):  # `:timed-out` stands where the value was
        return _Line(process, kind, f, None, None, value)
    if value.startswith("["):
        return _Line(process, kind, f, [int(part) for part in value[1:-1].split()])
    return _Line(process, kind, f, None if value == "nil" else int(value))


def check(ops: Sequence[Foreign], wanted: RegisterSettings) -> Verdict:
    """Each register is linearizable: its reads, writes and compare-and-sets fit into one order that respects time.

    A failed write or read did not happen. A failed compare-and-set without an error found another value than the one
    that it expected; with an error it did not happen. An op without a result may have happened at any later time.

    It is unknown when the search takes too long, without any write or read, and where the record cannot be so: a
    completion without its invocation. It cannot see anything of ops with another ``f``.
    """
    until = time.monotonic() + wanted.search_s
    registers, flaws = _registers(ops, wanted)
    calls = [call for mine in registers.values() for call in mine]
    reads = sum(call.reads for call in calls)
    findings: list[Finding] = [*flaws, *too_few("Answered reads", reads, 1)]
    findings += too_few("Writes", sum(call.writes for call in calls), 1)
    given_up, wrong = [], []
    for name, mine in registers.items():
        answer = wing_gong.linearizable(mine, lambda: time.monotonic() > until, wanted.first)
        if answer is None:
            given_up.append(name)
        elif not answer:
            wrong.append(name)
    if wrong:
        sentence = "No order of the ops explains the values that were read"
        findings.append((unknown if flaws else invalid)(f"{sentence}{_of(wrong)}."))
    if given_up:
        findings.append(unknown(f"The search hit its limit of {wanted.search_s:g} s{_of(given_up)}."))
    held = f"{len(registers):,} register{'' if len(registers) == 1 else 's'}: {len(calls):,} ops fit into one order."
    return conclude(NAME, findings, held, {"registers": len(registers), "ops": len(calls), "reads": reads})


def _of(names: Sequence[Any]) -> str:
    return f" of {named([repr(name) for name in names])}" if names != [None] else ""


def _registers(
    ops: Sequence[Foreign], wanted: RegisterSettings
) -> tuple[Mapping[Any, Sequence[wing_gong.Call]], list[Finding]]:
    """Each register's calls, and what cannot be so in the record."""
    calls: dict[Any, list[wing_gong.Call]] = defaultdict(list)
    flaws = []
    for invoke, completion in _pairs([op for op in ops if op.f in (wanted.read, wanted.write, wanted.cas)]):
        if invoke is None:
            line = completion.line if completion else 0
            flaws.append(unknown(f"Line {line} is a completion without its invocation."))
            continue
        key, call = _call(invoke, completion, wanted)
        if call is not None:
            calls[key].append(call)
    return calls, flaws[:1]


def _pairs(ops: Sequence[Foreign]) -> Iterator[tuple[Foreign | None, Foreign | None]]:
    outstanding: dict[int | str, Foreign] = {}
    for op in sorted(ops, key=lambda op: (op.at, op.line)):
        before = outstanding.pop(op.process, None)
        if op.type == "invoke":
            if before is not None:
                yield before, None
            outstanding[op.process] = op
        else:
            yield before, op
    for op in outstanding.values():
        yield op, None


def _call(invoke: Foreign, completion: Foreign | None, wanted: RegisterSettings) -> tuple[Any, wing_gong.Call | None]:
    """The register, and what was done to it; None for what certainly did nothing."""
    kind = completion.type if completion is not None else "info"
    end = completion.at if completion is not None and kind in ("ok", "fail") else FOREVER
    key, sent = _parts(invoke, invoke.value, wanted)
    if invoke.f == wanted.read:
        if completion is None or kind != "ok":
            return key, None
        return key, wing_gong.Call(invoke.at, end, write=False, value=_parts(invoke, completion.value, wanted)[1])
    refused = kind == "fail"
    if invoke.f == wanted.write:
        return key, None if refused else wing_gong.Call(invoke.at, end, write=True, value=sent)
    if not isinstance(sent, tuple) or len(sent) != 2:
        raise HistoryError(f"line {invoke.line} of the history: the value of {invoke.f} is not [expected, new]")
    if refused and completion is not None and completion.error is not None:
        return key, None
    expected, new = sent
    return key, wing_gong.Call(invoke.at, end, write=True, value=new, expected=expected, refused=refused)


def _parts(op: Foreign, value: Any, wanted: RegisterSettings) -> tuple[Any, Any]:
    """The register and the value of an op's value."""
    if wanted.key == FIRST:
        if not isinstance(value, list) or len(value) != 2:
            raise HistoryError(f"line {op.line} of the history: its value is not [key, value]")
        return _hashable(value[0]), _hashable(value[1])
    if not wanted.key and not wanted.value:
        return None, _hashable(value)
    fields = value if isinstance(value, dict) else {}
    return _hashable(fields.get(wanted.key)), _hashable(fields.get(wanted.value))


def _hashable(value: Any) -> Any:
    """The same value, lists as tuples and objects as JSON."""
    if isinstance(value, list):
        return tuple(map(_hashable, value))
    return msgspec.json.encode(value, order="sorted") if isinstance(value, dict) else value
