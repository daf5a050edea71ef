"""Commands for runs: plan, run, check, report, history."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness import crash
from harness import scenario as scenarios
from harness.artifacts import run_directory, stored_run
from harness.artifacts.stored_run import StoredError
from harness.cli import screen
from harness.cli.console import narrator, output
from harness.cli.options import checks_of_option, clock_option, json_option, lab_option, runs_option, to_option
from harness.history import jepsen
from harness.plan import plan
from harness.verdict import judgement, overall

if TYPE_CHECKING:
    from topology.model import ClockKind

__all__ = ["COMMANDS"]


@click.command("plan")
@click.argument("scenario")
@click.option("--seed", type=int, default=None, help="Use this seed instead of the scenario's.")
@json_option
def show_plan(scenario: str, seed: int | None, as_json: bool) -> None:
    """Show the steps of SCENARIO, random draws included. Needs no lab.

    Also says what is in the access log that the load replays.
    """
    from harness import compose

    wanted = scenarios.seeded(scenarios.load(scenarios.find(scenario)), seed)
    steps = plan(wanted, wanted.scenario.seed)
    log = compose.access_log(wanted)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(step) for step in steps], indent=2))
    else:
        output.print(screen.steps(steps))
        if log:
            output.print(log, soft_wrap=True, markup=False)


@click.command("run")
@click.argument("scenario")
@lab_option
@click.option("--topology", default=None, metavar="NAME|FILE", help="Use this topology instead of the scenario's.")
@clock_option
@click.option("--seed", type=int, default=None, help="Use this seed instead of the scenario's.")
@click.option(
    "--load", "profile", default=None, metavar="PROFILE", help="Use this profile's load instead of the scenario's."
)
@click.option(
    "--unhealthy-ok", is_flag=True, help="Use a lab that is up even if it has problems, which the run then starts with."
)
@runs_option
def run_scenario(  # noqa: PLR0913, PLR0917 - click passes each option as an argument
    scenario: str,
    lab_name: str,
    topology: str | None,
    clock: ClockKind | None,
    seed: int | None,
    profile: str | None,
    unhealthy_ok: bool,
    runs_dir: Path,
) -> None:
    """Run SCENARIO, and judge whether the cluster held.

    SCENARIO is the name of a shipped scenario, or a TOML file. Uses the lab if it is up; otherwise boots a temporary
    one. Exits 0 if the outcome is valid, 1 if it is invalid, 3 if it is unknown.
    """
    from harness import compose  # only the commands that make runs load the faults, the load and the topology
    from topology.load import load as load_topology

    report = narrator()
    path = scenarios.find(scenario)
    wanted = scenarios.seeded(scenarios.load(path), seed)
    load_file = scenarios.find(profile) if profile else None
    if load_file:
        wanted = scenarios.under(wanted, load_file)
    wanted_topology = load_topology(topology or wanted.scenario.topology, clock)
    if log := compose.access_log(wanted):  # before a lab is booted for it
        report(log)
    seed = wanted.scenario.seed
    with compose.lab_for(wanted_topology, lab_name, report, seed=seed, unhealthy_ok=unhealthy_ok) as lab:
        run_dir = compose.execute(wanted, path, lab, runs_dir, report, load_file=load_file)
    verdicts = stored_run.conclude(run_dir, wanted)
    output.print(screen.verdicts(verdicts))
    output.print(f"report: {run_dir / run_directory.REPORT}", soft_wrap=True, markup=False)
    sys.exit(overall(verdicts).exit_code)


@click.command()
@click.argument("run_name", metavar="[RUN]", default="latest")
@runs_option
@checks_of_option
@json_option
def check(run_name: str, runs_dir: Path, checks_of: str | None, as_json: bool) -> None:
    """Judge a stored RUN again. Needs no lab and changes nothing.

    RUN is a run directory, a history file, or the name of a run (default: latest). Exits as `run` does.
    """
    found = stored_run.read(stored_run.find(run_name, runs_dir), scenarios.find(checks_of) if checks_of else None)
    verdicts = stored_run.judge(found)
    if as_json:
        click.echo(judgement(found.scenario.name, verdicts).model_dump_json(indent=2))
    else:
        output.print(screen.verdicts(verdicts))
    sys.exit(overall(verdicts).exit_code)


@click.command()
@click.argument("run_name", metavar="[RUN]", default="latest")
@runs_option
@checks_of_option
@to_option
def report(run_name: str, runs_dir: Path, checks_of: str | None, target: Path | None) -> None:
    """Write the report of a stored RUN again. Needs no lab.

    The other files that are made from the history are written again, too.

    RUN is a run directory, a history file, or the name of a run (default: latest). Exits 0 whatever the outcome.
    """
    path = stored_run.find(run_name, runs_dir)
    found = stored_run.read(path, scenarios.find(checks_of) if checks_of else None)
    directory = target or path.parent
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with crash.noted_in(directory):
            stored_run.write(directory, found, stored_run.judge(found))
    except OSError as error:
        raise StoredError(
            f"cannot write to {str(directory)!r}: {error.strerror}", "Name another directory with --to DIR."
        ) from error
    output.print(f"report: {directory / run_directory.REPORT}", soft_wrap=True, markup=False)


@click.command("history")
@click.argument("run_name", metavar="[RUN]", default="latest")
@runs_option
@click.option(
    "--of",
    "model",
    type=click.Choice(list(jepsen.MODELS)),
    default="all",
    show_default=True,
    help="Ops to print: all as recorded, profiles for elle's rw-register, or coins for Jepsen's bank.",
)
def show_history(run_name: str, runs_dir: Path, model: str) -> None:
    """Print the history of a stored RUN for Jepsen's tools.

    The output is JSON for knossos, elle and elle-cli. RUN is as for `check`.
    """
    ops = jepsen.export(stored_run.load(stored_run.find(run_name, runs_dir)), model)
    lines = ",\n".join(json.dumps(op, separators=(",", ":")) for op in ops)
    click.echo(f"[{lines}]")


COMMANDS = (show_plan, run_scenario, check, report, show_history)
