"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harness.reading import shown

__all__ = [
    "DEFAULT_LAB",
    "PlaceType",
    "checks_of_option",
    "clock_option",
    "cost_option",
    "json_option",
    "lab_option",
    "runs_option",
    "to_option",
    "tolerance_option",
    "topology_option",
]

DEFAULT_LAB = "default"


class PlaceType(click.Path):
    """A path. A name that no file can have, with a NUL or a lone surrogate, is refused like any other wrong one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path. Fails as click does."""
        try:
            return super().convert(value, param, ctx)
        except ValueError:
            self.fail(f"no file can be called {shown(value)}", param, ctx)


lab_option = click.option(
    "--lab", "lab_name", default=DEFAULT_LAB, show_default=True, metavar="NAME", help="Name of the lab."
)
topology_option = click.option(
    "--topology",
    default="ultramonkey",
    show_default=True,
    metavar="NAME|FILE",
    help="Name of a shipped topology, or a TOML file.",
)
clock_option = click.option(
    "--clock",
    type=click.Choice(["virtual", "real"]),
    default=None,
    help="Use this clock instead of the topology's. Virtual time passes only while a command waits for the lab.",
)
cost_option = click.option(
    "--cost",
    type=click.Choice(["fast", "typical", "struggling"]),
    default=None,
    help="Use these costs of processor work instead of the topology's. Only in virtual time.",
)
runs_option = click.option(
    "--runs",
    "runs_dir",
    type=PlaceType(),
    default=Path("runs"),
    show_default=True,
    metavar="DIR",
    help="Directory of the run directories.",
)
to_option = click.option(
    "--to",
    "target",
    type=PlaceType(file_okay=False),
    default=None,
    metavar="DIR",
    help="Write to this directory instead.",
)
tolerance_option = click.option(
    "--tolerance",
    multiple=True,
    metavar="METRIC=VALUE",
    help="Smallest change to report, for example p50_ms=5 or p90_ms=20%; repeatable. `=no` ignores the metric.",
)
checks_of_option = click.option(
    "--scenario",
    "checks_of",
    default=None,
    metavar="NAME|FILE",
    help="Run the checks of this scenario instead of the run's own.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
