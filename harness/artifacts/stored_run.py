"""A stored run: find it on disk, read it, judge it, and write its derived files. Needs no lab and no Docker.

``read(find("latest", Path("runs")))`` gives a ``Stored`` run: its history, its scenario and its ``meta.json``.
``judge`` asks its checks. ``write`` writes ``verdict.json``, ``report.html``, ``junit.xml``, ``metrics.prom`` and
``logs/``. ``run_directory.py`` has the names of all files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import checks, crash, history, reading, scenario, verdict
from harness.artifacts import junit, logs, prometheus, run_directory
from harness.checks.arrivals import NAME as ARRIVALS
from harness.checks.audit import NAME as AUDIT
from harness.checks.recovery import NAME as RECOVERY
from harness.errors import UserError
from harness.history import History, HistoryError, promises
from harness.plan import Step, plan
from harness.report.render import render
from harness.scenario import Scenario
from harness.verdict import Finding, Verdict, unknown

__all__ = ["Stored", "StoredError", "find", "judge", "judge_directory", "load", "made", "read", "write"]


class StoredError(UserError):
    """A run that cannot be found, read or written."""


@dataclass(frozen=True)
class Stored:
    """A run as it was read: its history, its scenario, and its ``meta.json`` (empty if it has none)."""

    history: History
    scenario: Scenario
    meta: Mapping[str, Any]


def find(run: str, runs: Path) -> Path:
    """The path of a run's history. ``run`` is a run directory, a history file, or a name in ``runs`` like ``latest``.

    Raises StoredError if there is none.
    """
    for place in (Path(run), runs / run):
        is_dir = reading.is_dir(place)
        path = place / run_directory.HISTORY if is_dir else place
        if reading.is_file(path):
            return path
        if is_dir:
            raise StoredError(*_nothing_in(place))
        if _is_link(place):
            raise StoredError(f"{place} points at {place.readlink()}, which does not exist", _choice(runs))
    raise StoredError(f"run {reading.shown(run)} not found: neither a path nor a run in {runs}/", _choice(runs))


def _is_link(place: Path) -> bool:
    try:
        return place.is_symlink()
    except (OSError, ValueError):
        return False


def _nothing_in(place: Path) -> tuple[str, str]:
    if _names(place):
        return f"{place} is a directory of runs, not a run", _choice(place)
    if (place / run_directory.SCENARIO).exists():
        return (
            f"{place} has no {run_directory.HISTORY}: the run ended before it recorded anything",
            "Run its scenario again.",
        )
    return (
        f"{place} is not a run directory: it has no {run_directory.HISTORY}",
        "Give a run directory or a history file.",
    )


def _names(runs: Path) -> list[str]:
    """The names of the runs in a directory, newest first: a name begins with the start time."""
    return sorted(path.parent.name for path in runs.glob(f"*/{run_directory.HISTORY}") if not path.parent.is_symlink())[
        ::-1
    ]


def _choice(runs: Path) -> str:
    names = _names(runs)
    if not names:
        return (
            f"{runs}/ has no runs. Start one with `monkeywrench run SCENARIO`, or choose another directory with --runs."
        )
    more = f" and {len(names) - 3} older ones" if len(names) > 3 else ""
    return f"Runs in {runs}/: {', '.join(names[:3])}{more}."


def read(path: Path, scenario_file: Path | None = None) -> Stored:
    """Read a run from its history file. Its scenario is ``scenario_file``, by default ``scenario.toml`` beside it.

    With the default, a ``load.toml`` beside it replaces the scenario's load, as it did during the run.

    Raises StoredError for a missing or broken file, ScenarioError for an invalid scenario.
    """
    asked = scenario_file or path.with_name(run_directory.SCENARIO)
    if not asked.is_file():
        raise StoredError(
            f"{asked} not found, so the checks of this run are unknown",
            "Give its scenario with --scenario NAME or --scenario FILE.",
        )
    wanted, load_of = scenario.load(asked), path.with_name(run_directory.LOAD)
    if not scenario_file and load_of.is_file():
        wanted = scenario.under(wanted, load_of)
    return Stored(load(path), wanted, run_directory.read_meta(path.parent))


def load(path: Path) -> History:
    """Read only a history. Raises StoredError."""
    try:
        return history.load(path)
    except HistoryError as error:
        raise StoredError(
            f"{path}: {error}",
            "The history has a broken line. Copy the lines before it to a new file and check that with "
            "`monkeywrench check FILE --scenario FILE`; the outcome can be at most unknown.",
        ) from error
    except OSError as error:
        raise StoredError(f"cannot read {path}: {error.strerror}", "Check the path and its permissions.") from error


def judge(run: Stored) -> list[Verdict]:
    """The verdicts of the scenario's checks, of ``arrivals`` if it has open arrivals, of ``recovery`` and ``audit``.

    A scenario without checks has no verdicts. ``recovery`` of a run of another scenario is never valid.
    """
    asked, load = run.scenario.checks, run.scenario.load
    always = [ARRIVALS] if load is not None and load.planned else []
    # a load against a cluster of the user's own had no steps, and no lab to audit
    always += [] if run.history.load_only else [RECOVERY, AUDIT]
    added = {name: asked.get(name, {}) for name in always}
    verdicts = checks.judge(run.history, {**asked, **added} if asked else {}, _planned(run))
    if not run.history.of("start") or run.history.scenario == run.scenario.name:
        return verdicts
    other = unknown(f"This is a run of scenario {run.history.scenario!r}, not of {run.scenario.name!r}.")
    return [_with(each, other) if each.check == RECOVERY else each for each in verdicts]


JUDGED_FROM = (run_directory.HISTORY, run_directory.SCENARIO, run_directory.LOAD)


def made(directory: Path, run: Stored) -> list[Verdict] | None:
    """The verdicts that were made of a run; None where there are none, or what they were made of is newer."""
    path = directory / run_directory.VERDICT
    sources = [directory / name for name in JUDGED_FROM if (directory / name).exists()]
    try:
        judged = verdict.Judgement.model_validate_json(path.read_bytes())
        newer = any(source.stat().st_mtime_ns > path.stat().st_mtime_ns for source in sources)
    except (OSError, ValueError):
        return None
    return None if newer or judged.scenario != run.scenario.name else list(judged.verdicts)


def _with(found: Verdict, more: Finding) -> Verdict:
    return verdict.conclude(found.check, [more, *found.findings], "", found.numbers, found.evidence)


def _planned(run: Stored) -> list[Step] | None:
    """The steps that a run was to carry out, with what its seed drew; None for the history of a load alone."""
    if run.history.load_only or not run.history.of("start"):
        return None
    seed = run.history.start.get("seed")
    return plan(run.scenario, seed if isinstance(seed, int) else run.scenario.scenario.seed)


def write(directory: Path, run: Stored, verdicts: Sequence[Verdict]) -> None:
    """Write all derived files of a run, replacing existing ones. Raises OSError."""
    judgement = verdict.judgement(run.scenario.name, verdicts, promises.remarks_of(run.history), run.history.clock)
    run_directory.write(directory / run_directory.VERDICT, judgement.model_dump_json(indent=2) + "\n")
    run_directory.write(directory / run_directory.JUNIT, junit.render(run.history, judgement, run.meta))
    run_directory.write(directory / run_directory.METRICS, prometheus.render(run.history, judgement))
    page = render(run.history, verdicts, run.scenario.title, run.scenario.expectation, run.meta)
    run_directory.write(directory / run_directory.REPORT, page)
    lines = logs.files(run.history)
    (directory / run_directory.LOGS).mkdir(exist_ok=True)
    for name, text in lines.items():
        run_directory.write(directory / run_directory.LOGS / name, text, errors="surrogateescape")


def judge_directory(run_dir: Path, scenario: Scenario) -> list[Verdict]:
    """Judge a run from its directory alone and write all derived files there.

    Raises HistoryError if its history cannot be read.
    """
    with crash.noted_in(run_dir):
        run = Stored(history.load(run_dir / run_directory.HISTORY), scenario, run_directory.read_meta(run_dir))
        verdicts = judge(run)
        write(run_dir, run, verdicts)
    return verdicts
