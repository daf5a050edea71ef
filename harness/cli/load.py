"""Commands for load and comparisons: load, compare, locust, merge."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from harness import scenario as scenarios
from harness.artifacts import run_directory
from harness.artifacts.stored_run import StoredError, judge_directory
from harness.cli import screen
from harness.cli.console import narrator, output, progress
from harness.cli.lab import attached
from harness.cli.options import PlaceType, json_option, lab_option, to_option, tolerance_option
from harness.compare import Result, release
from harness.report.comparison import OUTCOMES
from harness.scenario import ScenarioError
from harness.verdict import overall

__all__ = ["COMMANDS"]

OP = '{"t":'
"""The beginning of each line of the locustfile's output that is an op."""


@click.command("load")
@click.argument("profile")
@click.option(
    "--runs", "count", type=click.IntRange(1, 60), default=6, show_default=True, help="Number of runs per side."
)
@lab_option
@click.option("--topology", default=None, metavar="NAME|FILE", help="Use this topology instead of the profile's.")
@click.option(
    "--baseline",
    type=PlaceType(exists=True),
    default=None,
    metavar="DIR",
    help="Compare with the earlier runs in this directory.",
)
@click.option(
    "--site",
    type=PlaceType(exists=True, file_okay=False),
    default=None,
    metavar="DIR",
    help="Deploy this site for the candidate's runs.",
)
@click.option(
    "--against",
    default=None,
    metavar="DIR|NAME|FILE",
    help="Run the baseline too, alternating with the candidate: the directory of a site, or a topology.",
)
@tolerance_option
@click.option(
    "--to",
    "target",
    type=PlaceType(),
    default=Path("runs"),
    show_default=True,
    metavar="DIR",
    help="Create the directory of the runs in this one.",
)
def load_runs(  # noqa: PLR0913, PLR0917 - click passes each option as an argument
    profile: str,
    count: int,
    lab_name: str,
    topology: str | None,
    baseline: Path | None,
    site: Path | None,
    against: str | None,
    tolerance: tuple[str, ...],
    target: Path,
) -> None:
    """Repeat the load of PROFILE, and compare with a baseline.

    Reports whether the site is slower than the baseline, for example before a release.

    PROFILE is the name of a shipped load profile, or a scenario file with a [load] table.

    The baseline is a directory of earlier runs (--baseline), or it is run now, alternating with the candidate
    (--against): the directory of a site, deployed alternately on one lab, or a topology, with a new lab for each run.
    Without a baseline, the runs are stored as the baseline of a later comparison.

    Exits 0 for no difference or an improvement, 1 for a regression, 3 if there are too few runs to decide.
    """
    from harness import compose
    from topology.load import load as load_topology

    if baseline and against:
        raise click.UsageError("--baseline and --against exclude each other: give one of them.")
    earlier_site = Path(against) if against and Path(against).is_dir() else None
    if site and against and not earlier_site:
        raise click.UsageError("--site needs --against DIR, the directory of a site: change one thing at a time.")
    report, path, settings = narrator(), scenarios.find(profile), release.settings(tolerance)
    wanted = _with_load(path)
    candidate = load_topology(topology or wanted.scenario.topology)
    other = load_topology(against) if against and not earlier_site else candidate
    for side in (candidate, other):
        compose.only_in_real_time(
            side.clock, f"load on topology {side.name!r}", 'Give a topology with clock = "real" with --topology.'
        )
    earlier = release.earlier(baseline, wanted.name, candidate.name, candidate.comparable_facts) if baseline else []
    if against and not earlier_site:
        labs = compose.labs_by_side({release.BASELINE: other, release.CANDIDATE: candidate}, report)
    else:
        sites = {release.BASELINE: earlier_site, release.CANDIDATE: site}
        labs = compose.sites_by_side(candidate, sites, lab_name, report)
    folder = release.folder(target, wanted.name)
    series = release.Series(folder, count, settings, alternate=bool(against), earlier=baseline)
    with labs as lab_of:

        def run(side: str) -> Path:
            with lab_of(side) as lab:
                run_dir = compose.execute(wanted, path, lab, folder / side, report)
            report(f"{run_dir.name}: {overall(judge_directory(run_dir, wanted))}")
            return run_dir

        sides = release.repeat(series, run, earlier, report)
    if not sides[release.BASELINE]:
        output.print(f"baseline for `monkeywrench load {profile} --baseline`: {folder}", soft_wrap=True, markup=False)
        return
    _show(release.write_comparison(folder, wanted.title, sides, run_directory.command(), settings), folder)


def _with_load(path: Path) -> scenarios.Scenario:
    profile = scenarios.load(path)
    if profile.load is None:
        raise ScenarioError(f"{path}: missing table [load]: there is nothing to measure")
    return profile


@click.command("compare")
@click.argument("baseline", type=PlaceType(exists=True))
@click.argument("candidate", type=PlaceType(exists=True))
@to_option
@tolerance_option
@json_option
def compare_runs(
    baseline: Path, candidate: Path, target: Path | None, tolerance: tuple[str, ...], as_json: bool
) -> None:
    """Compare the stored runs in two directories. Needs no lab. Exits as `load` does."""
    settings = release.settings(tolerance)
    sides = {release.BASELINE: release.read(baseline), release.CANDIDATE: release.read(candidate)}
    target = target or candidate
    target.mkdir(parents=True, exist_ok=True)
    title = sides[release.CANDIDATE][0][0].scenario
    _show(release.write_comparison(target, title, sides, run_directory.command(), settings), target, as_json)


def _show(result: Result, folder: Path, as_json: bool = False) -> None:
    """Print a comparison, and exit by its decision."""
    if as_json:
        click.echo(result.model_dump_json(indent=2))
    else:
        output.print(screen.comparison(result))
        output.print(f"report: {folder / release.PAGE}", soft_wrap=True, markup=False)
    sys.exit(OUTCOMES[result.decision].exit_code)


@click.command("locust", context_settings={"ignore_unknown_options": True})
@lab_option
@click.option(
    "--port",
    default=8089,
    show_default=True,
    metavar="PORT",
    help="Local port for Locust's web UI (0 picks a free port).",
)
@click.option(
    "--client",
    default="browser",
    show_default=True,
    metavar="POLICY",
    help="How simulated users reuse connections and addresses.",
)
@click.option(
    "--ops",
    type=PlaceType(dir_okay=False),
    default=None,
    metavar="FILE",
    help="Append each op to this file.",
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[LOCUST OPTION|CLASS]...")
def locust_page(lab_name: str, port: int, client: str, ops: Path | None, words: tuple[str, ...]) -> None:
    """Run Locust with its web UI on a running lab until Ctrl-C.

    Example: `monkeywrench locust Player --users 20 --autostart`

    The web UI listens on 127.0.0.1 of this machine. The user classes are Visitor, Player, Uploader and Administrator;
    without any, the web UI offers all of them. Other words are passed to Locust. Exits with Locust's exit code.
    """
    from harness import compose
    from loadtests.feeds import WEB_PORT, by_hand
    from topology.lab import engine
    from topology.lab.port_forward import doorway

    with ExitStack() as stack:
        lab = stack.enter_context(attached(lab_name))
        compose.only_in_real_time(
            lab.clock.kind,
            f"locust on lab {lab_name!r}",
            "Boot another lab: `monkeywrench up --clock real --lab NAME`.",
        )
        argv = by_hand(lab, words, client, ops is not None)
        node: Any = lab.nodes("client")[0]  # a node of a real lab: its streams have an exit code
        local_port = stack.enter_context(doorway(engine.connect(), node, WEB_PORT, port))
        ops_file = stack.enter_context(ops.open("a", encoding="utf-8")) if ops else sys.stderr
        progress.print(f"Locust's web UI: http://127.0.0.1:{local_port}/ (Ctrl-C ends it)", soft_wrap=True)
        stream = node.stream(*argv)
        stack.callback(stream.stop)
        try:
            for line in stream:
                (ops_file if line.text.startswith(OP) else sys.stderr).write(f"{line.text}\n")
        except KeyboardInterrupt:
            return
    sys.exit(stream.exit_code)


@click.command("merge")
@click.argument("files", nargs=-1, required=True, type=PlaceType(exists=True, dir_okay=False))
@click.option(
    "--to",
    "target",
    type=PlaceType(file_okay=False),
    required=True,
    metavar="DIR",
    help="Write the run to this directory.",
)
@click.option(
    "--scenario",
    "checks_of",
    default=None,
    metavar="NAME|FILE",
    help="Scenario whose checks to run; stored with the run.",
)
def merge_ops(files: tuple[Path, ...], target: Path, checks_of: str | None) -> None:
    """Merge the ops of several Locust workers into one run.

    For load from machines outside the lab: FILES are the ops of one worker each. Needs no lab.

    Afterwards `monkeywrench check DIR`, `report DIR` and `compare DIR DIR` work as with a run in a lab.
    """
    from loadtests import merge

    path = scenarios.find(checks_of) if checks_of else None
    name = scenarios.load(path).name if path else "load"
    workers = [merge.read(str(file), file.read_text("utf-8", "replace").splitlines()) for file in files]
    entries = list(merge.merged(workers, name))
    try:
        merge.write(target, entries, path)
    except FileExistsError as error:
        raise StoredError(f"{str(target)!r} already holds a run", "Name another directory with --to DIR.") from error
    except OSError as error:
        raise StoredError(
            f"cannot write to {str(target)!r}: {error.strerror}", "Name another directory with --to DIR."
        ) from error
    for worker in workers:
        progress.print(escape(_merged(worker, merge.shift_ns(worker, workers[0]))))
    output.print(f"run: {target}", soft_wrap=True, markup=False)


def _merged(worker: Any, shift_ns: float) -> str:
    """The summary of a worker's file."""
    killed = "" if worker.whole else ", killed before its end"
    broken = f"; {_count(worker.broken, 'unreadable line')}" if worker.broken else ""
    shifted = f"; another machine, clock shifted by {shift_ns / 1e6:,.0f} ms" if shift_ns else ""
    counts = f"{_count(len(worker.entries), 'op')} of {_count(len(worker.processes), 'user')}"
    return f"{worker.name}: {counts}{killed}{broken}{shifted}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


COMMANDS = (load_runs, compare_runs, locust_page, merge_ops)
