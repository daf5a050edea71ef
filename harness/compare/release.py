"""Runs of one load, repeated and compared: the report before a release. The lab is the caller's.

A folder of such runs has ``baseline/`` and ``candidate/`` with run directories, ``comparison.json`` and
``comparison.html``. Without anything to compare with it has ``candidate/`` alone, and is a baseline for a later one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias, get_args

from harness.algorithms.rank_tests import least_p, runs_for
from harness.artifacts import run_directory, stored_run
from harness.compare import CompareError, CompareSettings, Measures, Result, Statistic, Tolerance, compare, measure
from harness.errors import UserError
from harness.report.comparison import render
from harness.verdict import Judgement, Outcome
from harness.wait import REAL, Clock

__all__ = [
    "BASELINE",
    "CANDIDATE",
    "PAGE",
    "ReleaseError",
    "Runs",
    "carry_out",
    "compared",
    "conclude",
    "folder",
    "read",
    "settings",
    "too_few",
    "turns",
]

BASELINE, CANDIDATE = "baseline", "candidate"
JSON, PAGE = "comparison.json", "comparison.html"

Runs: TypeAlias = list[tuple[Measures, Path]]
"""The numbers of each run, and its directory."""


class ReleaseError(UserError):
    """Runs that cannot be made or compared."""


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


def read(place: Path) -> Runs:
    """The runs of a folder of runs, or of a run's own directory; the numbers of each, and its directory.

    Of a folder that this module made, the candidate's: what was the candidate then is the baseline now. Raises
    ReleaseError when there are none.
    """
    own = place / CANDIDATE
    within = own if own.is_dir() else place
    below = sorted(path.parent for path in within.glob(f"*/{run_directory.HISTORY}"))
    one = (within / run_directory.HISTORY).is_file()
    directories = [within] if one else [each for each in below if not each.is_symlink()]  # not `latest`
    if not directories:
        raise ReleaseError(f"there are no runs in {place}", "Give a folder that `monkeywrench load` made.")
    return [(measure(each.resolve().name, stored_run.load(each / run_directory.HISTORY)), each) for each in directories]


def settings(words: Iterable[str]) -> CompareSettings:
    """What matters, in words: ``p50_ms=10``, ``p90_ms=20%`` of the baseline's, or ``p99_ms=no``. Raises ReleaseError.

    What is not named matters as usual.

    >>> settings(["p50_ms=5", "p90_ms=10%", "p99_ms=no"]).judged["p90_ms"]
    Matters(share=0.1, least=0.0)
    """
    judged: dict[Any, Tolerance] = {**CompareSettings().judged}
    for word in words:
        statistic, _, much = word.partition("=")
        try:
            if much == "no" and statistic in get_args(Statistic):
                judged.pop(statistic, None)
            elif much.endswith("%"):
                judged[statistic] = Tolerance(share=float(much[:-1]) / 100, least=0)
            else:
                judged[statistic] = Tolerance(share=0, least=float(much))
            CompareSettings(judged=judged)
        except ValueError as error:
            raise ReleaseError(
                f"--tolerance {word}: nobody knows what that means",
                f"Give one of {', '.join(get_args(Statistic))}, and =NUMBER (ms, a share, or a second), =PERCENT% of "
                "the baseline's, or =no.",
            ) from error
    return CompareSettings(judged=judged)


def too_few(first: Result, runs: tuple[int, int]) -> str:
    """A sentence when so many runs of both sides cannot tell whatever they show; empty else. Pure.

    ``first`` is what one run of each side, or some more, came to: by it one knows how much there is to compare.
    """
    if least_p(*runs) * first.family <= first.settings.alpha:
        return ""
    needed = runs_for(first.settings.alpha / first.family)
    return (
        f"{min(runs)} runs on a side cannot tell, whatever they show: there are {first.family} comparisons, which take "
        f"{needed} runs on each side at least (--runs {needed}; or fewer of them, --tolerance p90_ms=no)"
    )


def conclude(
    target: Path, title: str, sides: Mapping[str, Runs], command: str, wanted: CompareSettings | None = None
) -> Result:
    """Compare, and write ``comparison.json`` and ``comparison.html``. Raises ReleaseError."""
    result = compared(sides, wanted)
    runs = [(side, run, _link(target, place)) for side, some in sides.items() for run, place in some]
    try:
        run_directory.write(target / JSON, result.model_dump_json(indent=2) + "\n")
        run_directory.write(target / PAGE, render(result, title, runs, command))
    except OSError as error:
        raise ReleaseError(f"{target} cannot be written to: {error.strerror}", "Name another with --to DIR.") from error
    return result


def compared(sides: Mapping[str, Runs], wanted: CompareSettings | None = None) -> Result:
    """As ``compare`` does. Raises ReleaseError for runs that cannot be compared."""
    try:
        result = compare([run for run, _ in sides[BASELINE]], [run for run, _ in sides[CANDIDATE]], wanted)
    except CompareError as error:
        raise ReleaseError(str(error), "Compare runs of one scenario on one topology.") from error
    return result.model_copy(update={"notes": (*_not_valid(sides), *result.notes)})


def _not_valid(sides: Mapping[str, Runs]) -> Iterator[str]:
    """A sentence for each run in which something went wrong: medians over runs do not show that a node died in one."""
    for side, runs in sides.items():
        for run, place in runs:
            judgement = _judgement(place / run_directory.VERDICT)
            if judgement and judgement.outcome is not Outcome.VALID:
                worst = next((each for each in judgement.verdicts if each.outcome is judgement.outcome), None)
                why = f" {worst.check}: {worst.summary}" if worst else ""
                yield f"Run {run.name} of the {side} is {judgement.outcome}.{why}"


def _judgement(path: Path) -> Judgement | None:
    """What was decided of a run; None where there is nothing that can be read: a history alone has its numbers too."""
    try:
        return Judgement.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _link(target: Path, place: Path) -> str:
    """Where a run's own report is, from the page; nothing where it has none."""
    page = place / run_directory.REPORT
    return Path(os.path.relpath(page, target)).as_posix() if page.is_file() else ""
