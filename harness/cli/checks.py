"""Commands for checks and the schemas of files: checks, schema."""

from __future__ import annotations

import dataclasses
import json

import click

from harness import catalogue
from harness.cli import screen
from harness.cli.console import output
from harness.cli.options import json_option
from harness.verdict import schema as verdict_schema

__all__ = ["COMMANDS"]


@click.command("checks")
@click.argument("name", required=False)
@json_option
def list_checks(name: str | None, as_json: bool) -> None:
    """List all checks, or describe the check NAME."""
    about = catalogue.checks(name)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(each) for each in about], indent=2))
    elif name is None:
        output.print(screen.overview(about, "`monkeywrench checks NAME` describes a check and its settings."))
    else:
        output.print(screen.descriptions(about))


@click.command()
@click.argument("file", type=click.Choice(["verdict", "scenario"]))
def schema(file: str) -> None:
    """Print the JSON Schema of verdict.json or a scenario."""
    from faults import FAULTS

    found = verdict_schema() if file == "verdict" else catalogue.scenario_schema(FAULTS)
    click.echo(json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **found}, indent=2))


COMMANDS = (list_checks, schema)
