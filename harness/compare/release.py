"""Runs of one load, repeated and compared: the report before a release. The caller provides the lab.

A folder of such runs holds ``baseline/`` and ``candidate/`` with run directories, ``comparison.json`` and
``comparison.html``. Without a baseline it holds ``candidate/`` alone, and is the baseline of a later comparison.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias, get_args

from harness.algorithms.rank_tests import least_p, runs_for
from harness.artifacts import run_directory, stored_run
from harness.compare import CompareError, CompareSettings, Measures, Result, Statistic, Tolerance, compare, measure
from harness.errors import UserError
from harness.reading import shown
from harness.report.comparison import render
from harness.verdict import Judgement, Outcome
from harness.wait import REAL, Clock

__all__ = [
    "BASELINE",
    "CANDIDATE",
    "PAGE",
    "ReleaseError",
    "Runs",
    "Series",
    "compared",
    "earlier",
    "folder",
    "in_turn",
    "read",
    "repeat",
    "settings",
    "too_few",
    "turns",
    "write_comparison",
]

BASELINE, CANDIDATE = "baseline", "candidate"
JSON, PAGE = "comparison.json", "comparison.html"

Runs: TypeAlias = list[tuple[Measures, Path]]
"""The measures of each run, and its directory."""


class ReleaseError(UserError):
    """Runs that cannot be made or compared."""


@dataclass(frozen=True)
class Series:
    """What is run, and what it is compared with."""

    folder: Path
    """Where the runs go: ``baseline/`` and ``candidate/`` below it."""
    runs: int
    """Number of runs per side."""
    tolerance: CompareSettings
    alternate: bool = False
    """Run the baseline too, alternating with the candidate."""
    earlier: Path | None = None
    """The folder of a baseline that was run before."""


def turns(runs: int, sides: Sequence[str]) -> list[str]:
    """The order of the runs: each side equally often, and equally often first, so that drift hits both. Pure.

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
        raise ReleaseError(
            f"cannot create {str(made)!r}: {error.strerror}", "Name another directory with --to DIR."
        ) from error
    return made


def earlier(place: Path, scenario: str, topology: str, facts: Mapping[str, Any]) -> Runs:
    """The runs of an earlier baseline, of this scenario and on a topology with these facts. Raises ReleaseError."""
    runs = read(place)
    first = runs[0][0]
    if first.scenario != scenario:
        raise ReleaseError(
            f"{str(place)!r} holds runs of {first.scenario!r}, not of {scenario!r}", "Compare runs of one profile."
        )
    for key, now in facts.items():
        if first.topology.get(key) != now:
            raise ReleaseError(
                f"{str(place)!r} holds runs of another topology: {key} is {first.topology.get(key)} there, and {now} "
                f"in {topology!r}",
                "Compare runs of one topology; --against alternates between two of them.",
            )
    return runs


def repeat(
    series: Series, run: Callable[[str], Path], earlier: Runs, report: Callable[[str], None], clock: Clock = REAL
) -> dict[str, Runs]:
    """Make all runs of a series, and return each side's. ``run`` makes one run of a side: its run directory.

    It warns after the first runs if there will be too few to decide. If it is interrupted, it reports where the
    finished runs are, and how to compare them.
    """
    sides: dict[str, Runs] = {BASELINE: list(earlier), CANDIDATE: []}
    order = turns(series.runs, [BASELINE, CANDIDATE] if series.alternate else [CANDIDATE])
    with _kept(series, sides, report):
        for side, run_dir in in_turn(order, run, report, clock):
            sides[side] += read(run_dir)
            if len(sides[CANDIDATE]) == 1 and sides[BASELINE]:
                # runs that cannot be compared or decide nothing are better known now than after the last one
                first = compared(sides, series.tolerance)
                if why := too_few(first, (len(earlier) or series.runs, series.runs)):
                    report(f"warning: {why}")
    return sides


@contextmanager
def _kept(series: Series, sides: Mapping[str, Runs], report: Callable[[str], None]) -> Iterator[None]:
    """If not all runs can be made: report where the finished ones are, and how to compare them."""
    try:
        yield
    except BaseException:
        places = {BASELINE: series.earlier or series.folder / BASELINE, CANDIDATE: series.folder / CANDIDATE}
        if any(places[side] != series.earlier for side, runs in sides.items() if runs):
            compare_them = (
                f": monkeywrench compare {' '.join(map(str, places.values()))}" if all(sides.values()) else ""
            )
            report(f"interrupted; the finished runs are kept in {series.folder}{compare_them}")
        raise


def in_turn(
    order: Sequence[str], run: Callable[[str], Path], report: Callable[[str], None], clock: Clock = REAL
) -> Iterator[tuple[str, Path]]:
    """Make the runs one after another: the side of each, and its directory."""
    began = clock.now()
    for done, side in enumerate(order):
        left = ""
        if done:
            left = f", about {_span((clock.now() - began) / done * (len(order) - done))} left"
        report(f"run {done + 1} of {len(order)}, {side}{left}")
        yield side, run(side)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def read(place: Path) -> Runs:
    """The runs in a folder, or the one of a run directory.

    In a folder that this module made these are the candidate's runs: the candidate of then is the baseline of now.
    Raises ReleaseError when there are none.
    """
    own = place / CANDIDATE
    within = own if own.is_dir() else place
    below = sorted(path.parent for path in within.glob(f"*/{run_directory.HISTORY}"))
    one = (within / run_directory.HISTORY).is_file()
    directories = [within] if one else [each for each in below if not each.is_symlink()]  # not `latest`
    if not directories:
        raise ReleaseError(f"no runs in {str(place)!r}", "Give a directory that `monkeywrench load` made.")
    histories = [(each, stored_run.load(each / run_directory.HISTORY)) for each in directories]
    for each, history in histories:
        if history.clock == "virtual":
            raise ReleaseError(
                f"{each.resolve().name} is a run in virtual time, where the time that a processor takes is a model: it "
                "says nothing about speed",
                "Compare runs in real time: `monkeywrench load PROFILE`, or `monkeywrench run --clock real`.",
            )
    return [(measure(each.resolve().name, history), each) for each, history in histories]


def settings(words: Iterable[str]) -> CompareSettings:
    """The tolerances of ``METRIC=VALUE`` words: ``p50_ms=10``, ``p90_ms=20%`` of the baseline, or ``p99_ms=no``.

    Other metrics keep their defaults. Raises ReleaseError.

    >>> settings(["p50_ms=5", "p90_ms=10%", "p99_ms=no"]).judged["p90_ms"]
    Tolerance(share=0.1, least=0.0)
    """
    judged: dict[Any, Tolerance] = {**CompareSettings().judged}
    for word in words:
        statistic, _, amount = word.partition("=")
        try:
            if amount == "no" and statistic in get_args(Statistic):
                judged.pop(statistic, None)
            elif amount.endswith("%"):
                judged[statistic] = Tolerance(share=float(amount[:-1]) / 100, least=0)
            else:
                judged[statistic] = Tolerance(share=0, least=float(amount))
            CompareSettings(judged=judged)
        except ValueError as error:
            raise ReleaseError(
                f"invalid tolerance {shown(word)} for --tolerance (examples: p50_ms=5, p90_ms=20%, p99_ms=no)",
                f"Metrics: {', '.join(get_args(Statistic))}. Values: a number in the metric's unit (ms, a share, or "
                "per second), a percentage of the baseline, or `no` to ignore the metric.",
            ) from error
    return CompareSettings(judged=judged)


def too_few(first: Result, runs: tuple[int, int]) -> str:
    """A sentence if these numbers of runs are too few to decide, whatever they show; empty otherwise. Pure.

    ``first`` is the result of the first runs of each side: it shows how many comparisons there are.
    """
    if least_p(*runs) * first.family <= first.settings.alpha:
        return ""
    needed = runs_for(first.settings.alpha / first.family)
    return (
        f"{min(runs)} runs per side are too few to decide: {first.family} comparisons need at least {needed} runs per "
        f"side (--runs {needed}, or fewer comparisons with --tolerance p90_ms=no)"
    )


def write_comparison(
    target: Path, title: str, sides: Mapping[str, Runs], command: str, wanted: CompareSettings | None = None
) -> Result:
    """Compare, and write ``comparison.json`` and ``comparison.html``. Raises ReleaseError."""
    result = compared(sides, wanted)
    runs = [(side, run, _link(target, place)) for side, its_runs in sides.items() for run, place in its_runs]
    try:
        run_directory.write(target / JSON, result.model_dump_json(indent=2) + "\n")
        run_directory.write(target / PAGE, render(result, title, runs, command))
    except OSError as error:
        raise ReleaseError(
            f"cannot write to {str(target)!r}: {error.strerror}", "Name another directory with --to DIR."
        ) from error
    return result


def compared(sides: Mapping[str, Runs], wanted: CompareSettings | None = None) -> Result:
    """The result of ``compare``. Raises ReleaseError for runs that cannot be compared."""
    try:
        result = compare([run for run, _ in sides[BASELINE]], [run for run, _ in sides[CANDIDATE]], wanted)
    except CompareError as error:
        raise ReleaseError(str(error), "Compare runs of one scenario on one topology.") from error
    return result.model_copy(update={"notes": (*_not_valid(sides), *result.notes)})


def _not_valid(sides: Mapping[str, Runs]) -> Iterator[str]:
    """A sentence for each run that is not valid: medians over runs do not show that a node crashed in one of them."""
    for side, runs in sides.items():
        for run, place in runs:
            judgement = _judgement(place / run_directory.VERDICT)
            if judgement and judgement.outcome is not Outcome.VALID:
                worst = next((each for each in judgement.verdicts if each.outcome is judgement.outcome), None)
                why = f" {worst.check}: {worst.summary}" if worst else ""
                yield f"Run {run.name} of the {side} is {judgement.outcome}.{why}"


def _judgement(path: Path) -> Judgement | None:
    """The stored verdict of a run; None if it cannot be read: a history alone has measures too."""
    try:
        return Judgement.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _link(target: Path, place: Path) -> str:
    """The path of a run's own report, relative to the page; empty if it has none."""
    page = place / run_directory.REPORT
    return Path(os.path.relpath(page, target)).as_posix() if page.is_file() else ""
