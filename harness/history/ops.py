"""The history of a run: ops in Jepsen's terms, one JSON line each, written as they occur and read back unchanged.

A verdict rests on the history alone, so the file must survive the run that wrote it: a line is flushed before
``record`` returns, and a killed run leaves at most one torn line, at the end.
"""

from __future__ import annotations

import gc
import itertools
import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property, wraps
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, cast, overload

import msgspec
from pydantic import TypeAdapter, ValidationError

from harness.errors import UserError
from harness.reading import DEEPEST, ReadingError, brief, json_value, nested_too_deep
from harness.records import Cluster, Entry

TYPES = frozenset({"invoke", "ok", "fail", "info"})
"""``info``: the result is unknown (a timeout); and the type of all ops that are not a client's."""


class HistoryError(UserError):
    """A history that cannot be read, or that lacks something. The message says where."""


class Op(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One line of a history. ``time`` is in ns since the run's start, on the lab's clock.

    A history of a million ops has to fit into memory. So the fields of an op's value are in ``cells``, their names in
    ``shape``, which all ops with the same fields share, and lists and objects stay JSON until they are asked for.
    Without a shape, ``cells`` is the value.
    """

    index: int
    time: int
    process: str
    type: str
    f: str
    cells: Any = None
    error: str | None = None
    shape: Mapping[str, str] | None = None
    """Each field of the value -> the name of its cell."""

    @property
    def value(self) -> Any:
        """What it says: any value that JSON has."""
        if self.shape is None:
            return self.cells
        return dict(zip(self.shape, map(_plain, msgspec.structs.astuple(self.cells)), strict=True))

    @property
    def has_fields(self) -> bool:
        """True when its value is an object."""
        return self.shape is not None or isinstance(self.cells, dict)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Op):
            return NotImplemented
        return self is other or (self._head() == other._head() and self.value == other.value)

    def __ne__(self, other: object) -> bool:
        return not self == other  # a Struct without eq compares identities here

    __hash__ = None  # type: ignore[assignment]  # a value may be a list, and so has no hash

    def _head(self) -> tuple[int, int, str, str, str, str | None]:
        return self.index, self.time, self.process, self.type, self.f, self.error

    def __getitem__(self, key: str) -> Any:
        """The field ``key`` of the value. Raises HistoryError when there is none."""
        if self.shape is not None:
            cell = self.shape.get(key)
            if cell is not None:
                return _plain(getattr(self.cells, cell))
        elif isinstance(self.cells, dict) and key in self.cells:
            return self.cells[key]
        raise HistoryError(f"op {self.index} ({self.f}): its value has no {key!r}")

    def get(self, key: str, default: Any = None) -> Any:
        """The field ``key`` of the value, or ``default``."""
        if self.shape is not None:
            cell = self.shape.get(key)
            return default if cell is None else _plain(getattr(self.cells, cell))
        return self.cells.get(key, default) if isinstance(self.cells, dict) else default

    def copy(self, **changes: Any) -> Op:
        """The same op with other values in some fields."""
        if "value" in changes:
            changes |= {"cells": changes.pop("value"), "shape": None}
        return msgspec.structs.replace(self, **changes)

    def line(self) -> str:
        """The op as one line of JSON, without its newline. Raises TypeError or ValueError for what JSON cannot hold."""
        fields = {
            "index": self.index,
            "time": self.time,
            "process": self.process,
            "type": self.type,
            "f": self.f,
            "value": self.value,
        }
        if self.error is not None:
            fields["error"] = self.error
        # ASCII only: a log line may have bytes that are not UTF-8; they become surrogates, which no encoder accepts.
        return json.dumps(fields, separators=(",", ":"), allow_nan=False)


def _plain(cell: Any) -> Any:
    """A cell as the value that it holds: bytes are JSON, which has none itself."""
    return msgspec.json.decode(cell) if type(cell) is bytes else cell


class Pair(msgspec.Struct, frozen=True, gc=False):
    """An invocation and its completion; None: the run ended first."""

    invoke: Op
    completion: Op | None

    @property
    def ok(self) -> bool:
        """True when it certainly happened."""
        return self.completion is not None and self.completion.type == "ok"


DAY_NS = 86_400 * 10**9
LONGEST_NS = 30 * DAY_NS
"""A time that is further from the start of a run is a mistake: the report has a value for each second of a run."""

CLUSTER = TypeAdapter(Cluster)

T = TypeVar("T")


def remembered(question: Callable[[History], T]) -> Callable[[History], T]:
    """Ask this question of a history once: all checks share its answer, so none may change it."""

    @wraps(question)
    def answer(history: History) -> T:
        known = history.answers
        if question not in known:
            known[question] = question(history)
        return cast(T, known[question])

    return answer


class History(Sequence[Op]):
    """The ops of one run, in the order in which they were recorded, which is only nearly the order of their times."""

    def __init__(self, ops: Iterable[Op]) -> None:
        self._ops = tuple(ops)
        self._pairs: dict[str, tuple[Pair, ...]] = {}
        self.answers: dict[Callable[..., Any], Any] = {}
        """What was asked of it before (``remembered``)."""

    @overload
    def __getitem__(self, place: int) -> Op: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Op, ...]: ...
    def __getitem__(self, place: int | slice) -> Op | tuple[Op, ...]:
        return self._ops[place]

    def __len__(self) -> int:
        return len(self._ops)

    def __iter__(self) -> Iterator[Op]:
        return iter(self._ops)

    def __repr__(self) -> str:
        return f"<History of {len(self)} ops>"

    @cached_property
    def _by_f(self) -> dict[str, tuple[Op, ...]]:
        groups: dict[str, list[Op]] = defaultdict(list)
        for op in self._ops:
            groups[op.f].append(op)
        return {f: tuple(ops) for f, ops in groups.items()}

    @cached_property
    def _by_index(self) -> dict[int, Op]:
        return {op.index: op for op in self._ops}

    @cached_property
    def _by_time(self) -> History:
        ordered = all(
            one.time < two.time or (one.time == two.time and one.index < two.index)
            for one, two in itertools.pairwise(self._ops)
        )
        return self if ordered else History(sorted(self._ops, key=attrgetter("time", "index")))

    def by_time(self) -> History:
        """The same ops sorted by time; equal times keep the order of recording."""
        return self._by_time

    def of(self, f: str) -> tuple[Op, ...]:
        """All ops of that ``f``."""
        return self._by_f.get(f, ())

    def seen(self, f: str) -> tuple[Op, ...]:
        """The ops of that ``f`` that carry an observation: a line that a feed could not read carries an error."""
        return tuple(op for op in self.of(f) if op.error is None and op.has_fields)

    def process(self, prefix: str) -> tuple[Op, ...]:
        """All ops whose process starts with ``prefix``."""
        return tuple(op for op in self._ops if op.process.startswith(prefix))

    def op(self, index: int) -> Op:
        """The op with that index. Raises HistoryError when there is none."""
        try:
            return self._by_index[index]
        except KeyError:
            raise HistoryError(f"the history has no op {index}") from None

    def pairs(self, f: str) -> tuple[Pair, ...]:
        """Each invocation of ``f`` with its completion, by time of the invocation.

        A process has one op outstanding. One that invokes again without an answer gave up the first one.
        """
        if f not in self._pairs:
            self._pairs[f] = tuple(self._paired(f))
        return self._pairs[f]

    def _paired(self, f: str) -> list[Pair]:
        pairs: list[Pair] = []
        outstanding: dict[str, Op] = {}
        for op in self.of(f):
            invoke = outstanding.pop(op.process, None)
            if invoke is not None:
                pairs.append(Pair(invoke, None if op.type == "invoke" else op))
            if op.type == "invoke":
                outstanding[op.process] = op
        pairs += [Pair(invoke, None) for invoke in outstanding.values()]
        pairs.sort(key=lambda pair: (pair.invoke.time, pair.invoke.index))
        return pairs

    @property
    def start(self) -> Op:
        """The op that opened the run. Raises HistoryError when the run did not get that far."""
        for op in self.of("start"):
            if op.process == "run":
                return op
        raise HistoryError("the history has no start: the run ended before anything was recorded")

    @cached_property
    def cluster(self) -> Cluster:
        """The cluster of the run. MAC addresses are in lower case."""
        start = self.start
        try:
            cluster = CLUSTER.validate_python(start["cluster"])
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
            raise HistoryError(f"op {start.index} (start): its cluster cannot be read: {wrong}") from error
        return replace(cluster, macs={mac.lower(): node for mac, node in cluster.macs.items()})

    @property
    def scenario(self) -> str:
        """The name of the scenario."""
        return str(self.start["scenario"])

    @property
    def clock(self) -> Literal["real", "virtual"]:
        """Whose time its ops have: the host's, or the virtual clock of all kernels of the lab.

        A history that does not say is one of real time.
        """
        virtual = any(op.process == "run" and op.get("clock") == "virtual" for op in self.of("start"))
        return "virtual" if virtual else "real"

    @property
    def load_only(self) -> bool:
        """True when it has only the ops of a load: those of workers, put together."""
        return any(op.process == "run" and op.get("load_only") is True for op in self.of("start"))

    @property
    def complete(self) -> bool:
        """True when the run ended on its own; False when it was killed."""
        return any(op.process == "run" for op in self.of("end"))

    @cached_property
    def end_ns(self) -> int:
        """The time of the latest op; 0 when there is none."""
        return max((op.time for op in self._ops), default=0)


class Recorder:
    """Writes a history. Any thread may record; ops get their index in the order of the calls.

    ``path`` must not exist: two runs never share a history. Raises FileExistsError otherwise.
    """

    def __init__(self, path: str | Path, origin_ns: int) -> None:
        self._file = Path(path).open("x", encoding="ascii", newline="\n")  # noqa: SIM115 (closed by close)
        self._origin_ns = origin_ns
        self._lock = threading.Lock()
        self._next = 0

    def record(self, entry: Entry) -> Op:
        """Write one entry and return its op. Raises HistoryError once closed, TypeError for what JSON cannot hold."""
        with self._lock:
            if self._file.closed:
                raise HistoryError("the history is closed")
            op = Op(
                index=self._next,
                time=entry.time_ns - self._origin_ns,
                process=entry.process,
                type=entry.type,
                f=entry.f,
                cells=entry.value,
                error=entry.error,
            )
            # One write and one flush: after that the line belongs to the kernel, and killing this process keeps it.
            self._file.write(op.line() + "\n")
            self._file.flush()
            self._next += 1
            return op

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        with self._lock:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def load(path: str | Path) -> History:
    """Read a history. A torn last line is dropped; any other broken line raises HistoryError.

    Lines may be missing; their indexes show it, and ``harness/history/record.py`` finds it.
    """
    packer = _Packer()
    ops: list[Op] = []
    with Path(path).open("rb") as file, without_collections():
        for number, line in enumerate(file):
            if line.endswith(b"\n"):
                ops.append(packer.op(_parse(line[:-1], number)))
                continue
            with suppress(HistoryError):  # no newline: the writer was killed within this line
                ops.append(packer.op(_parse(line, number)))
    for number, (before, op) in enumerate(itertools.pairwise(ops)):
        if op.index <= before.index:
            raise HistoryError(
                f"line {number + 2} of the history has index {op.index} after {before.index}: out of order"
            )
    return History(ops)


@contextmanager
def without_collections() -> Iterator[None]:
    """Turn the garbage collector off: it would look at millions of objects that never form a circle."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


class _Line(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One line of the file."""

    index: int
    time: int
    process: str
    type: str
    f: str
    value: Any = None
    error: str | None = None


LINES = msgspec.json.Decoder(_Line)

SHARED_LETTERS = 40
"""Texts up to this length are kept once for all ops: names, addresses and ids recur, longer texts seldom do."""


MOST_CELLS = 24
"""A value with more fields is kept as it is: no feed writes one."""

CELLS = [
    msgspec.defstruct(f"Cells{number}", [f"cell_{place}" for place in range(number)], frozen=True, eq=False, gc=False)
    for number in range(MOST_CELLS + 1)
]
"""Rooms for so many values: each is half the size of a tuple, and the garbage collector does not look at it."""


class _Packer:
    """Makes ops of lines. Ops share the names of their fields and the short texts in them."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[str, ...], Mapping[str, str]] = {}
        self._texts: dict[str, str] = {}

    def op(self, line: _Line) -> Op:
        """The op of a line."""
        cells, shape, shared = line.value, None, self._texts.setdefault
        if isinstance(cells, dict) and len(cells) <= MOST_CELLS:
            names = tuple(cells)
            shape = self._shapes.get(names)
            if shape is None:
                shape = self._shapes[names] = {name: f"cell_{place}" for place, name in enumerate(names)}
            cells = CELLS[len(names)](
                *[
                    (shared(cell, cell) if len(cell) <= SHARED_LETTERS else cell)
                    if cell.__class__ is str
                    else (_packed(cell) if cell.__class__ is dict or cell.__class__ is list else cell)
                    for cell in cells.values()
                ]
            )
        process, kind, f = line.process, line.type, line.f
        return Op(
            line.index,
            line.time,
            shared(process, process),
            shared(kind, kind),
            shared(f, f),
            cells,
            line.error,
            shape,
        )


def _packed(cell: Any) -> Any:
    """A list or an object as JSON; as it is where it has a lone surrogate or a very large number."""
    try:
        return msgspec.json.encode(cell)
    except (msgspec.EncodeError, OverflowError, ValueError):
        return cell


def _parse(line: bytes, number: int) -> _Line:
    where = f"line {number + 1} of the history"
    if len(line) > DEEPEST and nested_too_deep(line):
        raise HistoryError(f"{where} is not an op: its value is nested too deep")
    try:
        op = _decoded(line)
    except msgspec.ValidationError as error:
        raise HistoryError(f"{where} is not an op: {_reason(error)}") from error
    except ValueError as error:
        raise HistoryError(f"{where} is not JSON: {brief(str(error))}") from error
    except ReadingError as error:
        raise HistoryError(f"{where} is {error}") from error
    if op.type not in TYPES:
        raise HistoryError(
            f"{where} is not an op: its 'type' is {brief(op.type)!r}; accepted: {', '.join(sorted(TYPES))}"
        )
    if not -LONGEST_NS <= op.time <= LONGEST_NS:
        days = LONGEST_NS // DAY_NS
        raise HistoryError(f"{where} is not an op: its 'time' is more than {days} days from the start of the run")
    return op


def _decoded(line: bytes) -> _Line:
    try:
        return LINES.decode(line)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # a log line may have bytes that are not UTF-8; they are recorded as lone surrogates, which msgspec refuses
        return msgspec.convert(json_value(line.decode("utf-8", "surrogateescape")), _Line)


def _reason(error: msgspec.ValidationError) -> str:
    """msgspec's message in our words: its paths start with ``$``."""
    message, _, path = str(error).replace("`", "'").partition(" - at '$.")
    return f"its {path.rstrip(chr(39))!r} is wrong ({message.lower()})" if path else message.lower()
