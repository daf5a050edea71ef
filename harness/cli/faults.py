"""Commands for faults: faults, inject, heal."""

from __future__ import annotations

import dataclasses
import json
import sys

import click
from rich.markup import escape

from harness import catalogue, injection
from harness.cli import screen
from harness.cli.console import narrator, output, progress
from harness.cli.lab import attached
from harness.cli.options import json_option, lab_option

__all__ = ["COMMANDS"]

CHANGED = 1


@click.command("faults")
@click.argument("name", required=False)
@lab_option
@click.option("--active", is_flag=True, help="List the faults that are injected in the lab now.")
@json_option
def list_faults(name: str | None, lab_name: str, active: bool, as_json: bool) -> None:
    """List all faults, or describe the fault or family NAME.

    Examples: `monkeywrench faults network.delay`, `monkeywrench faults network`
    """
    if active:
        _list_active(lab_name, as_json)
        return
    from faults import FAULTS  # only the commands that use faults load them

    about = catalogue.faults(FAULTS, name)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(each) for each in about], indent=2))
    elif name is None:
        output.print(screen.overview(about, "`monkeywrench faults NAME` describes a fault and its settings."))
    else:
        output.print(screen.descriptions(about))


def _list_active(lab_name: str, as_json: bool) -> None:
    with attached(lab_name) as lab:
        held = lab.leases()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(lease) for lease in held], indent=2))
    else:
        output.print(screen.leases(held))


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("fault")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@lab_option
@click.option(
    "--for",
    "for_s",
    default="10s",
    show_default=True,
    metavar="TIME",
    help="How long to hold the fault, for example 500ms, 10s or 2m.",
)
@json_option
def inject(fault: str, settings: tuple[str, ...], lab_name: str, for_s: str, as_json: bool) -> None:
    """Inject FAULT, prove it, hold it, undo it, and compare.

    Prints the proof of the fault's effect, and after the undo every difference to the state of the lab before.

    Example: `monkeywrench inject node.power-off node=lb-1 --for 10s`

    Ctrl-C undoes the fault at once. If this process is killed, the lab undoes the fault on its own within seconds.
    Exits 1 if differences remain.
    """
    from faults import FAULTS

    hold_s = injection.duration_s(for_s)
    made = catalogue.make(fault, catalogue.settings(fault, settings, FAULTS), FAULTS)
    with attached(lab_name) as lab:
        done = injection.carry_out(made, lab, hold_s, narrator())
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(done), indent=2))
    for line in done.left:
        progress.print(f"[bold red]not restored:[/] {escape(line)}")
    sys.exit(CHANGED if done.left else 0)


@click.command()
@lab_option
def heal(lab_name: str) -> None:
    """Undo all injected faults of a lab, whoever injected them."""
    with attached(lab_name) as lab:
        for lease in lab.heal():
            progress.print(f"undone: {escape(lease.fault)} on {escape(lease.node)} ({escape(lease.claim)})")
        progress.print("no fault is injected")


COMMANDS = (list_faults, inject, heal)
