"""Was a run the same again? What a stored run must have to be run again, and where two runs parted. Pure."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from harness.artifacts import run_directory
from harness.artifacts.stored_run import Stored, StoredError
from harness.history import History, Op

__all__ = [
    "Parting",
    "Replayed",
    "Rerun",
    "compared",
    "frames_apart",
    "moment_ns",
    "ops_apart",
    "rerun",
    "until_ns",
]

MOMENT = re.compile(r"(\d{1,6})(?:\.(\d{1,9}))?\s*s?")
LINE = re.compile(r"(\d+) (\S+) (\d+) ([0-9a-f]+)")
LONGEST = 300
"""Characters of an op in a sentence."""


@dataclass(frozen=True)
class Parting:
    """The first difference of two runs."""

    place: int
    """The number of the op or frame, from 0."""
    time_ns: int
    """Of the earlier of the two, since the beginning of the run."""
    before: str
    """What the stored run has there; empty: it has nothing more."""
    now: str

    def __str__(self) -> str:
        """The difference, for a person."""
        return f"{self.place} at {self.time_ns / 1e9:.9f} s: {_brief(self.before)}; now {_brief(self.now)}"


def _brief(text: str) -> str:
    return (text if len(text) <= LONGEST else f"{text[:LONGEST]}...") or "nothing more"


@dataclass(frozen=True)
class Replayed:
    """What a replay has shown."""

    same: bool | None
    """None: the stored run has no hash to compare with, because it was killed."""
    sentences: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0: the same run again; 1: another one; 3: not known."""
        return {True: 0, False: 1, None: 3}[self.same]


def moment_ns(text: str) -> int | None:
    """A time like ``50.26s`` in ns, exactly; None for what is none.

    >>> moment_ns("50.26s"), moment_ns("60.123456789"), moment_ns("later")
    (50260000000, 60123456789, None)
    """
    found = MOMENT.fullmatch(text.strip())
    return int(found[1]) * 10**9 + int((found[2] or "").ljust(9, "0")) if found else None


@dataclass(frozen=True)
class Rerun:
    """What makes the same run again."""

    stored: Stored
    topology: Mapping[str, Any]
    images: Mapping[str, str]
    """Each role -> the digest of its image."""
    fresh: bool
    """The stored run had a lab of its own, in which no time had passed before."""

    @property
    def seed(self) -> int:
        """Of the run and of its lab."""
        return int(self.stored.history.start["seed"])

    def since_begin_s(self, virtual_ns: int) -> float:
        """A virtual time of the lab as one of the run, in s."""
        return (virtual_ns - int(self.stored.history.start["origin_ns"])) / 1e9


def rerun(run: Stored, lab: str) -> Rerun:
    """What makes a stored run again. Raises StoredError if that is unknown.

    ``lab`` is the content of its ``lab.json``.
    """
    next_step = f"Run the scenario again: `monkeywrench run {run.scenario.name} --clock virtual`."
    if run.history.clock != "virtual":
        raise StoredError("this run had real time: no two such runs are alike, so it cannot be replayed", next_step)
    try:
        found = _Lab.model_validate_json(lab)
    except ValidationError:
        why = "does not say what the lab of this run was made of, so it cannot be replayed"
        raise StoredError(f"{run_directory.LAB} {why}", next_step) from None
    return Rerun(run, found.topology, found.images, found.fresh)


class _Lab(BaseModel):
    """``lab.json``, see ``HasTrace.made_of``."""

    topology: dict[str, Any]
    images: dict[str, str] = Field(min_length=1)
    fresh: bool


def until_ns(run: Stored, text: str) -> int:
    """The lab's virtual time at a moment of the run like ``50.26s``, in ns. Raises StoredError."""
    since_begin_ns = moment_ns(text)
    if since_begin_ns is None:
        raise StoredError(f"{text!r} is no time", "Give seconds since the beginning of the run, for example 50.26s.")
    if since_begin_ns > run.history.end_ns:
        raise StoredError(
            f"the run ended at {run.history.end_ns / 1e9:.3f} s, before {since_begin_ns / 1e9:.9g} s",
            "Give an earlier time: the times of a report count from the beginning of the run.",
        )
    return int(run.history.start["origin_ns"]) + since_begin_ns


def ops_apart(before: Sequence[Op], now: Sequence[Op], whole: bool = True) -> Parting | None:
    """The first op that differs; None where there is none. Not ``whole``: one of them may simply end earlier."""
    for place, (was, is_) in enumerate(itertools.zip_longest(before, now)):
        if was is None or is_ is None:
            if not whole:
                return None
        elif was.line() == is_.line():
            continue
        times = [op.time for op in (was, is_) if op is not None]
        return Parting(place, min(times), was.line() if was else "", is_.line() if is_ else "")
    return None


def frames_apart(before: Iterable[str], now: Iterable[str], origin_ns: int, until_ns: int) -> Parting | None:
    """The first line of two traces that differs, in the order of their times; lines from ``until_ns`` on do not count.

    Kernels that cannot reach each other run side by side, so the order of lines in a file means nothing between nodes.
    """
    pairs = itertools.zip_longest(_ordered(before, until_ns), _ordered(now, until_ns))
    for place, (was, is_) in enumerate(pairs):
        if was != is_:
            times = [each[0] for each in (was, is_) if each is not None]
            return Parting(place, min(times) - origin_ns, _frame(was), _frame(is_))
    return None


Frame = tuple[int, str, int, str]
"""Time in ns, the place, bytes, hash of the content."""


def _ordered(lines: Iterable[str], until_ns: int) -> list[Frame]:
    """The lines before that time, by time and place; the lines of one place keep their order."""
    return sorted((frame for frame in _read(lines) if frame[0] < until_ns), key=lambda frame: frame[:2])


def _read(lines: Iterable[str]) -> Iterator[Frame]:
    for line in lines:
        if found := LINE.fullmatch(line.strip()):
            yield int(found[1]), found[2], int(found[3]), found[4]


def _frame(frame: Frame | None) -> str:
    return f"{frame[1]} sent {frame[2]} bytes (hash {frame[3]})" if frame else ""


def compared(
    run: Rerun, now: History, traces: tuple[Iterable[str], Iterable[str]] | None, until_ns: int | None = None
) -> Replayed:
    """Whether a run was the same again, until a virtual time or to its end.

    ``traces``: of both runs, None where one of them was not kept.
    """
    before = run.stored.history
    origin_ns = int(before.start["origin_ns"])
    whole = until_ns is None and before.complete
    op = ops_apart(before, now, whole)
    frame = None if traces is None else frames_apart(*traces, origin_ns, _ends(before, now, until_ns))
    digests = [_digest(before), _digest(now)]
    if whole and all(digests):
        same: bool | None = digests[0] == digests[1] and op is None
        first = _judged(digests[0], digests[1], len(now), same)
    elif op or frame:
        same, first = False, "another run"
    else:
        same = None if until_ns is None else True
        why = "the stored run was killed, and has no hash" if same is None else "the same run so far"
        first = f"{why}; the {min(len(before), len(now)):,} ops that both have are equal"
    return Replayed(same, (first, *_why(same, op, frame, traces is not None, run.fresh)))


def _judged(before: str | None, now: str | None, ops: int, same: bool | None) -> str:
    if same:
        return f"the same run again: hash {now}, {ops:,} ops"
    if before == now:
        return f"the nodes sent the same again (hash {now}), but the harness recorded something else"
    return f"another run: hash {now}; before: hash {before}"


def _why(same: bool | None, op: Parting | None, frame: Parting | None, traced: bool, fresh: bool) -> Iterator[str]:
    if op:
        yield f"the first op that differs is {op}"
    if frame:
        yield f"the first frame that differs is {frame}"
    if not same and not traced:
        yield f"frames cannot be compared: one of the runs has no {run_directory.TRACE}"
    if same is False and not fresh:
        yield "the stored run used a lab in which time had passed before; a replay begins with a new one"


def _digest(run: History) -> str | None:
    return next((op.get("hash") for op in run.of("end") if op.process == "run"), None)


def _ends(before: History, now: History, until_ns: int | None) -> int:
    """Until when two traces can be compared, in virtual ns: one that was killed has no frames after its end."""
    if until_ns is not None:
        return until_ns
    return sys.maxsize if before.complete else int(now.start["origin_ns"]) + before.end_ns
