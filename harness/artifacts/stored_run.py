"""A run on disk: found, judged again, and all that is made of it. Needs no lab and no Docker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import checks, history, scenario, verdict
from harness.artifacts import junit, logs, prometheus, run_directory
from harness.checks.arrivals import NAME as ARRIVALS
from harness.checks.audit import NAME as AUDIT
from harness.errors import UserError
from harness.history import History, HistoryError
from harness.report.render import render
from harness.scenario import Scenario
from harness.verdict import Verdict

__all__ = ["Stored", "StoredError", "conclude", "find", "judge", "load", "read", "write"]


class StoredError(UserError):
    """A run that cannot be read or written to."""


@dataclass(frozen=True)
class Stored:
    """A run as it was read: what happened, what was asked of it, and its ``meta.json`` (empty when it has none)."""

    history: History
    scenario: Scenario
    meta: Mapping[str, Any]


def find(run: str, runs: Path) -> Path:
    """The history of a run: of a run directory, a history file, or the name of a run in ``runs`` such as ``latest``.

    Raises StoredError when there is none.
    """
    for place in (Path(run), runs / run):
        path = place / run_directory.HISTORY if place.is_dir() else place
        if path.is_file():
            return path
        if place.is_dir():
            raise StoredError(*_nothing_in(place))
        if place.is_symlink():
            raise StoredError(f"{place} points at {place.readlink()}, which is not there", _choice(runs))
    raise StoredError(f"there is no run {run!r}, neither as a path nor in {runs}/", _choice(runs))


def _nothing_in(place: Path) -> tuple[str, str]:
    if _names(place):
        return f"{place} is no run; it holds runs", _choice(place)
    if (place / run_directory.SCENARIO).exists():
        return (
            f"{place} has no {run_directory.HISTORY}: the run ended before anything was recorded",
            "Run its scenario again.",
        )
    return f"{place} is no run directory: it has no {run_directory.HISTORY}", "Give a run directory, or a history file."


def _names(runs: Path) -> list[str]:
    """The runs in a directory, the newest first: their names begin with their time."""
    return sorted(path.parent.name for path in runs.glob(f"*/{run_directory.HISTORY}") if not path.parent.is_symlink())[
        ::-1
    ]


def _choice(runs: Path) -> str:
    names = _names(runs)
    if not names:
        return f"There are no runs in {runs}/. `monkeywrench run SCENARIO` makes one; --runs says where runs are."
    more = f", and {len(names) - 3} older ones" if len(names) > 3 else ""
    return f"In {runs}/ there are {', '.join(names[:3])}{more}."


def read(path: Path, scenario_file: Path | None = None) -> Stored:
    """Read a run from its history file. What was asked of it is in ``scenario.toml`` beside it, unless given.

    Its load was that of ``load.toml``, if there is one.

    Raises StoredError for what is missing or broken, ScenarioError for a scenario that is not right.
    """
    asked = scenario_file or path.with_name(run_directory.SCENARIO)
    if not asked.is_file():
        raise StoredError(
            f"there is no {asked}, so nobody knows what to ask of this run",
            "Give its scenario with --scenario NAME or FILE.",
        )
    wanted, load_of = scenario.load(asked), path.with_name(run_directory.LOAD)
    if not scenario_file and load_of.is_file():
        wanted = scenario.under(wanted, load_of)
    return Stored(load(path), wanted, run_directory.read_meta(path.parent))


def load(path: Path) -> History:
    """Read a history alone. Raises StoredError."""
    try:
        return history.load(path)
    except HistoryError as error:
        raise StoredError(
            f"{path}: {error}",
            "Its record has a hole. Keep the lines before it in a file of their own, and judge that: "
            "`monkeywrench check FILE --scenario FILE`. It comes to unknown at best.",
        ) from error
    except OSError as error:
        raise StoredError(f"{path} cannot be read: {error.strerror}", "Give a history that can be read.") from error


def judge(run: Stored) -> list[Verdict]:
    """Ask all that its scenario asks, whether its load came as planned, and what the run has left behind.

    Of a scenario that asks nothing, nothing is asked.
    """
    asked, load = run.scenario.checks, run.scenario.load
    always = [ARRIVALS] if load is not None and load.planned else []
    # of a load that somebody drove at a cluster of their own there was no lab to look after
    always += [] if run.history.load_only else [AUDIT]
    unasked = {name: asked.get(name, {}) for name in always}
    return checks.judge(run.history, {**asked, **unasked} if asked else {})


def write(directory: Path, run: Stored, verdicts: Sequence[Verdict]) -> None:
    """Write all that is made of a run, whatever was there of it before. Raises OSError."""
    judgement = verdict.judgement(run.scenario.name, verdicts)
    run_directory.write(directory / run_directory.VERDICT, judgement.model_dump_json(indent=2) + "\n")
    run_directory.write(directory / run_directory.JUNIT, junit.render(run.history, judgement, run.meta))
    run_directory.write(directory / run_directory.METRICS, prometheus.render(run.history, judgement))
    page = render(run.history, verdicts, run.scenario.title, run.scenario.expectation, run.meta)
    run_directory.write(directory / run_directory.REPORT, page)
    lines = logs.files(run.history)
    (directory / run_directory.LOGS).mkdir(exist_ok=True)
    for name, text in lines.items():
        run_directory.write(directory / run_directory.LOGS / name, text, errors="surrogateescape")


def conclude(run_dir: Path, scenario: Scenario) -> list[Verdict]:
    """Judge a run from its directory alone, and write there all that is made of it. Needs no lab.

    Raises HistoryError when there is no history to judge.
    """
    run = Stored(history.load(run_dir / run_directory.HISTORY), scenario, run_directory.read_meta(run_dir))
    verdicts = judge(run)
    write(run_dir, run, verdicts)
    return verdicts
