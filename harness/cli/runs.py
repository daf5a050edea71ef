"""Commands for runs: plan, run, check, report, history."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness import crash, foreign
from harness import scenario as scenarios
from harness.algorithms import binomial
from harness.artifacts import run_directory, stored_run
from harness.artifacts.stored_run import StoredError
from harness.cli import screen
from harness.cli.console import narrator, output
from harness.cli.options import (
    checks_of_option,
    clock_option,
    cost_option,
    json_option,
    lab_option,
    runs_option,
    to_option,
)
from harness.cli.repeat import repeat
from harness.history import jepsen, promises
from harness.plan import plan
from harness.verdict import judgement, overall

if TYPE_CHECKING:
    from topology.model import ClockKind, CostPreset

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
@cost_option
@click.option("--seed", type=int, default=None, help="Use this seed instead of the scenario's.")
@click.option(
    "--load", "profile", default=None, metavar="PROFILE", help="Use this profile's load instead of the scenario's."
)
@click.option(
    "--unhealthy-ok", is_flag=True, help="Use a lab that is up even if it has problems, which the run then starts with."
)
@click.option(
    "--repeat",
    "count",
    type=click.IntRange(1, binomial.MOST),
    default=None,
    metavar="N",
    help="Make N runs, each on a new lab, with the seeds SEED, SEED+1, and so on, and count their outcomes.",
)
@click.option(
    "--jobs", type=click.IntRange(1, 16), default=1, show_default=True, help="Runs at once; only in virtual time."
)
@runs_option
@click.pass_context
def run_scenario(  # noqa: PLR0913, PLR0917 - click passes each option as an argument
    context: click.Context,
    scenario: str,
    lab_name: str,
    topology: str | None,
    clock: ClockKind | None,
    cost: CostPreset | None,
    seed: int | None,
    profile: str | None,
    unhealthy_ok: bool,
    count: int | None,
    jobs: int,
    runs_dir: Path,
) -> None:
    """Run SCENARIO, and judge whether the cluster held.

    SCENARIO is the name of a shipped scenario, or a TOML file. Uses the lab if it is up; otherwise boots a temporary
    one. Exits 0 if the outcome is valid, 1 if it is invalid, 3 if it is unknown; of several runs the worst counts.
    """
    from harness import compose  # only the commands that make runs load the faults, the load and the topology
    from topology.load import load as load_topology

    report = narrator()
    path = scenarios.find(scenario)
    wanted = scenarios.seeded(scenarios.load(path), seed)
    load_file = scenarios.find(profile) if profile else None
    if load_file:
        wanted = scenarios.under(wanted, load_file)
    wanted_topology = load_topology(topology or wanted.scenario.topology, clock, cost)
    if count is not None or jobs > 1:
        _check_repeat(context, count, jobs, wanted_topology.clock)
        compose.judges_no_speed(wanted, wanted_topology.clock)
        words = ["run", str(path), "--runs", str(runs_dir), "--lab", f"repeat-{os.getpid()}"]
        given = {"--topology": topology, "--clock": clock, "--cost": cost, "--load": load_file}
        words += [word for name, value in given.items() if value for word in (name, str(value))]
        first = wanted.scenario.seed
        sys.exit(repeat(words, range(first, first + (count or 1)), jobs, report))
    if log := compose.access_log(wanted):  # before a lab is booted for it
        report(log)
    seed = wanted.scenario.seed
    with compose.lab_for(wanted_topology, lab_name, report, seed=seed, unhealthy_ok=unhealthy_ok) as lab:
        run_dir = compose.execute(wanted, path, lab, runs_dir, report, load_file=load_file)
        remarks = promises.remarks(lab.cluster)
        clock = lab.clock.kind
    verdicts = stored_run.judge_directory(run_dir, wanted)
    output.print(screen.verdicts(verdicts, remarks, clock))
    output.print(f"report: {run_dir / run_directory.REPORT}", soft_wrap=True, markup=False)
    sys.exit(overall(verdicts).exit_code)


def _check_repeat(context: click.Context, count: int | None, jobs: int, clock: ClockKind) -> None:
    """Raises UsageError for options that do not go together."""
    if count is None:
        raise click.UsageError("--jobs needs --repeat N: it is the number of runs at once.")
    if jobs > 1 and clock == "real":
        raise click.UsageError(
            "--jobs needs virtual time: labs in real time slow each other down. Add --clock virtual."
        )
    for name, option in (("lab_name", "--lab"), ("unhealthy_ok", "--unhealthy-ok")):
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise click.UsageError(f"{option} cannot be combined with --repeat: each run has a new lab.")


@click.command()
@click.argument("run_name", metavar="[RUN]", default="latest")
@runs_option
@checks_of_option
@click.option(
    "--register",
    "register",
    multiple=True,
    metavar="KEY=VALUE",
    help="Judge only whether the registers of a history are linearizable, also of a history of another harness. KEY is "
    "read, write, cas (the f of these ops), key, value (fields of their values), initial or search_s; may be repeated.",
)
@json_option
def check(run_name: str, runs_dir: Path, checks_of: str | None, register: tuple[str, ...], as_json: bool) -> None:
    """Judge a stored RUN again. Needs no lab and changes nothing.

    RUN is a run directory, a history file, or the name of a run (default: latest). Exits as `run` does.
    """
    if register:
        verdict = foreign.check(foreign.read(stored_run.find(run_name, runs_dir)), foreign.settings(register))
        output.print(verdict.model_dump_json(indent=2) if as_json else screen.verdicts([verdict]))
        sys.exit(verdict.outcome.exit_code)
    found = stored_run.read(stored_run.find(run_name, runs_dir), scenarios.find(checks_of) if checks_of else None)
    verdicts, remarks = stored_run.judge(found), promises.remarks_of(found.history)
    if as_json:
        judged = judgement(found.scenario.name, verdicts, remarks, found.history.clock)
        click.echo(judged.model_dump_json(indent=2))
    else:
        output.print(screen.verdicts(verdicts, remarks, found.history.clock))
    sys.exit(overall(verdicts).exit_code)


@click.command()
@click.argument("run_name", metavar="[RUN]", default="latest")
@runs_option
@checks_of_option
@click.option("--again", is_flag=True, help="Judge the run again even if its verdicts were made.")
@to_option
def report(run_name: str, runs_dir: Path, checks_of: str | None, again: bool, target: Path | None) -> None:
    """Write the report of a stored RUN again. Needs no lab.

    It takes the verdicts that were made, unless the history or the scenario changed since, or --scenario names another
    one: then it judges the run again. The other files that are made from the history are written again, too.

    RUN is a run directory, a history file, or the name of a run (default: latest). Exits 0 whatever the outcome.
    """
    path = stored_run.find(run_name, runs_dir)
    found = stored_run.read(path, scenarios.find(checks_of) if checks_of else None)
    directory = target or path.parent
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with crash.noted_in(directory):
            verdicts = None if checks_of or again else stored_run.made(path.parent, found)
            stored_run.write(directory, found, stored_run.judge(found) if verdicts is None else verdicts)
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
