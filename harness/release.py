"""Runs of one load, repeated and compared: the report before a release. The lab is the caller's.

A folder of such runs has ``baseline/`` and ``candidate/`` with run directories, ``comparison.json`` and
``comparison.html``. Without anything to compare with it has ``candidate/`` alone, and is a baseline for a later one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from harness import store, stored
from harness.compare import CompareError, Measures, Result, compare, measure
from harness.report.comparison import render
from harness.wait import REAL, Clock

__all__ = [
    "BASELINE",
    "CANDIDATE",
    "PAGE",
    "ReleaseError",
    "carry_out",
    "compared",
    "conclude",
    "folder",
    "read",
    "turns",
]

BASELINE, CANDIDATE = "baseline", "candidate"
JSON, PAGE = "comparison.json", "comparison.html"


class ReleaseError(Exception):
    """Runs that cannot be made or compared: one sentence, and the next step."""

    def __init__(self, sentence: str, next_step: str) -> None:
        super().__init__(sentence)
        self.next_step = next_step


def turns(runs: int, sides: Sequence[str]) -> list[str]:
    """Whose run is when: each side as often, and each first as often as last, for a machine has its moods. Pure.

    >>> turns(3, ["baseline", "candidate"])
    ['baseline', 'candidate', 'candidate', 'baseline', 'baseline', 'candidate']
    """
    return [side for number in range(runs) for side in (sides if number % 2 == 0 else sides[::-1])]


def folder(root: Path, name: str) -> Path:
    """A new folder for the runs of a load. Raises ReleaseError."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    made = root / f"{stamp}-load-{name}"
    try:
        made.mkdir(parents=True)
    except OSError as error:
        raise ReleaseError(f"{made} cannot be made: {error.strerror}", "Name another place with --to DIR.") from error
    return made


def carry_out(
    order: Sequence[str], one: Callable[[str], Path], say: Callable[[str], None], clock: Clock = REAL
) -> Iterator[tuple[str, Path]]:
    """Make the runs, one after another: the side of each, and its directory. ``one`` makes a run of a side."""
    began = clock.now()
    for done, side in enumerate(order):
        left = ""
        if done:
            left = f", about {_span((clock.now() - began) / done * (len(order) - done))} left"
        say(f"run {done + 1} of {len(order)}, {side}{left}")
        yield side, one(side)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def read(place: Path) -> list[tuple[Measures, Path]]:
    """The runs of a folder of runs, or of a run's own directory; the numbers of each, and its directory.

    Of a folder that this module made, the candidate's: what was the candidate then is the baseline now. Raises
    ReleaseError when there are none.
    """
    own = place / CANDIDATE
    within = own if own.is_dir() else place
    below = sorted(path.parent for path in within.glob(f"*/{store.HISTORY}"))
    one = (within / store.HISTORY).is_file()
    directories = [within] if one else [each for each in below if not each.is_symlink()]  # not `latest`
    if not directories:
        raise ReleaseError(f"there are no runs in {place}", "Give a folder that `monkeywrench load` made.")
    return [(measure(each.resolve().name, stored.load(each / store.HISTORY)), each) for each in directories]


def conclude(
    target: Path,
    title: str,
    baseline: Sequence[tuple[Measures, Path]],
    candidate: Sequence[tuple[Measures, Path]],
    command: str,
) -> Result:
    """Compare, and write ``comparison.json`` and ``comparison.html``. Raises ReleaseError."""
    result = compared([run for run, _ in baseline], [run for run, _ in candidate])
    sides = [*((BASELINE, *run) for run in baseline), *((CANDIDATE, *run) for run in candidate)]
    runs = [(side, run, _link(target, place)) for side, run, place in sides]
    try:
        store.write(target / JSON, result.model_dump_json(indent=2) + "\n")
        store.write(target / PAGE, render(result, title, runs, command))
    except OSError as error:
        raise ReleaseError(f"{target} cannot be written to: {error.strerror}", "Name another with --to DIR.") from error
    return result


def compared(baseline: Sequence[Measures], candidate: Sequence[Measures]) -> Result:
    """As ``compare`` does. Raises ReleaseError for runs that cannot be compared."""
    try:
        return compare(baseline, candidate)
    except CompareError as error:
        raise ReleaseError(str(error), "Compare runs of one scenario on one topology.") from error


def _link(target: Path, place: Path) -> str:
    """Where a run's own report is, from the page; nothing where it has none."""
    page = place / store.REPORT
    return Path(os.path.relpath(page, target)).as_posix() if page.is_file() else ""
