"""The command ``monkeywrench``: a thin layer on ``compose``, the stored runs and the catalogue.

Exit codes: 0 valid (or done), 1 invalid, 2 usage, 3 unknown, 4 lab error, 5 internal error.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import click

from harness import crash
from harness.cli import checks, faults, lab, load, replay, runs
from harness.cli.console import complain
from harness.errors import UserError
from harness.history import HistoryError
from harness.records import LabError

USAGE, LAB_ERROR = 2, 4


class _Monkeywrench(click.Group):
    """Turns every error that a user can cause into one clear sentence and the next step."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.

        Exits 4 on an error of the lab or its engine, 2 on a wrong scenario or stored run, 130 when interrupted, 5 on an
        internal error.
        """
        try:
            return super().invoke(ctx)
        except UserError as error:
            complain(error)
            sys.exit(LAB_ERROR if isinstance(error, LabError | HistoryError) else USAGE)
        except (KeyboardInterrupt, click.Abort):
            complain(UserError("interrupted; all changes were rolled back"))
            sys.exit(128 + signal.SIGINT)
        except BrokenPipeError:
            sys.exit(LAB_ERROR)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except Exception as error:
            if told := _of_the_engine(error):
                complain(told)
                sys.exit(LAB_ERROR)
            complain(crash.explain(error, ctx.invoked_subcommand or "monkeywrench"))
            sys.exit(crash.EXIT_CODE)


def _of_the_engine(error: Exception) -> LabError | None:
    """What the Docker Engine did wrong, in a sentence. Only commands that talk to it have loaded its client."""
    if "docker.errors" not in sys.modules:
        return None
    from topology.lab import engine

    return engine.explained(error)


@click.group(cls=_Monkeywrench, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="monkeywrench")
def main() -> None:
    """Boot a real high-availability web cluster, inject faults, and judge from evidence whether it held."""
    # as for Ctrl-C: a command undoes its changes before the process ends
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # a shell starts background processes with SIGINT ignored; an explicit SIGINT is still meant for us
    signal.signal(signal.SIGINT, signal.default_int_handler)


for command in (*lab.COMMANDS, *faults.COMMANDS, *checks.COMMANDS, *runs.COMMANDS, *replay.COMMANDS, *load.COMMANDS):
    main.add_command(command)
