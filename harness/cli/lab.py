"""Commands for labs: build, up, down, status, exec, prove-backup, doctor."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click
from rich.live import Live
from rich.markup import escape

from harness import doctor as doctors
from harness.cli import screen
from harness.cli.console import complain, narrator, output, progress
from harness.cli.options import DEFAULT_LAB, clock_option, cost_option, json_option, lab_option, topology_option
from harness.errors import UserError
from harness.records import LabError, Status
from harness.wait import pass_time

if TYPE_CHECKING:
    from topology.lab.docker_lab import DockerLab
    from topology.model import ClockKind, CostPreset

__all__ = ["COMMANDS", "attached"]

UNHEALTHY, LAB_ERROR = 1, 4


@contextmanager
def attached(name: str) -> Iterator[DockerLab]:
    """The running lab with that name. Raises LabError."""
    from topology.lab import engine, lifecycle  # only the commands that need Docker load it

    client = engine.connect()
    running = lifecycle.attach(client, name)
    if running is None:
        others = ", ".join(lifecycle.names(client))
        hint = f" Running labs: {others}." if others else ""
        option = "" if name == DEFAULT_LAB else f" --lab {name}"
        raise LabError(f"lab {name!r} is not running", f"Run `monkeywrench up{option}` to boot it.{hint}")
    try:
        yield running
    finally:
        running.close()


@click.command()
@click.option(
    "--clock",
    type=click.Choice(["virtual", "real"]),
    default="real",
    show_default=True,
    help="Build for labs with this clock.",
)
def build(clock: ClockKind) -> None:
    """Build the missing images ahead of the first lab.

    Labs in virtual time (--clock virtual) have a kernel of their own, which is compiled: about 4 minutes on 2 cores.
    """
    from topology.lab import engine, image

    report = narrator()
    image.ensure(engine.connect(), report, clock)
    report("all images are built")


@click.command()
@topology_option
@clock_option
@cost_option
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of a lab in virtual time.")
@lab_option
def up(topology: str, clock: ClockKind | None, cost: CostPreset | None, seed: int, lab_name: str) -> None:
    """Boot a lab and wait until it is healthy.

    A healthy lab with the same topology is left as it is.
    """
    from topology.lab import engine, lifecycle
    from topology.load import load as load_topology

    report = narrator()
    wanted = load_topology(topology, clock, cost)
    client = engine.connect()
    running = lifecycle.attach(client, lab_name)
    if running and running.topology == wanted and running.status().healthy:
        report(f"lab {lab_name} is already up")
        running.close()
        return
    try:
        running = lifecycle.boot(client, wanted, lab_name, report, keep=True, seed=seed)
    except lifecycle.UnhealthyError as error:
        # with overlays, the user wants to see what their own files do
        step = f"The lab stays up. Run `monkeywrench status` and `monkeywrench doctor --topology {topology}`."
        complain(UserError(str(error), step))
        sys.exit(UNHEALTHY)
    report(f"lab {lab_name} is up and healthy")
    running.close()


@click.command()
@lab_option
@click.option("--all", "every", is_flag=True, help="Remove all labs of this Docker Engine.")
def down(lab_name: str, every: bool) -> None:
    """Remove a lab and everything that it created. Does nothing if there is none."""
    from topology.lab import engine, lifecycle

    client = engine.connect()
    for name in lifecycle.names(client) if every else [lab_name]:
        count = lifecycle.remove(client, name)
        removed = f"{count} container{'s' if count > 1 else ''} removed" if count else "not running"
        progress.print(f"lab {escape(name)}: {removed}")


@click.command()
@lab_option
@json_option
@click.option("--watch", is_flag=True, help="Refresh until Ctrl-C; with --json, print one line per refresh.")
@click.option(
    "--every", "every_s", default=1.0, show_default=True, metavar="SECONDS", help="Pause between two refreshes."
)
def status(lab_name: str, as_json: bool, watch: bool, every_s: float) -> None:
    """Show the health of a lab: parts, IPVS tables and nodes.

    Exits 0 if the lab is healthy, 1 if not.
    """
    with attached(lab_name) as lab:
        if watch:
            seen = _watched(lab, as_json, every_s)
        else:
            seen = lab.status()
            click.echo(_status_json(lab, seen, 2)) if as_json else output.print(
                screen.status(lab_name, seen, _time(lab))
            )
    sys.exit(0 if seen.healthy else UNHEALTHY)


def _status_json(lab: DockerLab, seen: Status, indent: int | None = None) -> str:
    time = {"clock": lab.clock.kind} | ({"virtual_ns": lab.now_ns()} if lab.clock.kind == "virtual" else {})
    facts = {"lab": lab.name, **time, "healthy": seen.healthy, **dataclasses.asdict(seen)}
    return json.dumps(facts, indent=indent)


def _time(lab: DockerLab) -> str:
    """Whose time the lab has, for the head of a status."""
    return "real time" if lab.clock.kind == "real" else f"virtual time {lab.now_ns() / 1e9:.3f} s, standing still"


def _watched(lab: DockerLab, as_json: bool, every_s: float) -> Status:
    """Refresh the status until Ctrl-C, and return the last one."""
    seen = lab.status()
    with Live(console=output, screen=not as_json, auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while True:
            if as_json:
                click.echo(_status_json(lab, seen))
            else:
                live.update(screen.status(lab.name, seen, _time(lab), brief=True), refresh=True)
            pass_time(every_s, clock=lab.clock)
            seen = lab.status()
    return seen


@click.command("exec", context_settings={"ignore_unknown_options": True})
@lab_option
@click.option(
    "--timeout", "timeout_s", default=60.0, show_default=True, metavar="SECONDS", help="Time limit of the command."
)
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(lab_name: str, timeout_s: float, node: str, command: tuple[str, ...]) -> None:
    """Run a command on a node, and exit with its exit code.

    Example: `monkeywrench exec lb-1 -- ipvsadm -Ln`
    """
    with attached(lab_name) as lab:
        done = lab.node(node).exec(*command, timeout_s=timeout_s)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    sys.exit(done.exit_code if done.exit_code >= 0 else 128 - done.exit_code)


@click.command("prove-backup")
@lab_option
@click.option("--fresh", is_flag=True, help="Take a new backup first, and compare it row by row with the data before.")
@json_option
def prove_backup(lab_name: str, fresh: bool, as_json: bool) -> None:
    """Restore the database's backup, and compare its rows.

    The backup is restored on a temporary server, which is removed afterwards. Exits as `run` does.
    """
    from topology.lab import engine, restore

    with attached(lab_name) as lab:
        verdict = restore.prove(engine.connect(), lab, fresh)
    if as_json:
        click.echo(verdict.model_dump_json(indent=2))
    else:
        output.print(screen.verdict(verdict))
    sys.exit(verdict.outcome.exit_code)


@click.command()
@topology_option
@json_option
@click.option("--offline", is_flag=True, help="Do not ask the nodes' own programs about their files.")
def doctor(topology: str, as_json: bool, offline: bool) -> None:
    """Check whether this machine can run a lab.

    Shows how to fix what is missing, what the nodes' own programs say about their configuration (each only reads it, in
    a container that is thrown away), and the lint rules that it breaks. Changes nothing.
    Exits 4 if a lab cannot run.
    """
    findings = doctors.examine(topology, offline)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        output.print(screen.findings(findings))
    sys.exit(0 if all(finding.ok for finding in findings) else LAB_ERROR)


COMMANDS = (build, up, down, status, execute, prove_backup, doctor)
