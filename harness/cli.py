"""The command ``monkeywrench``. The only module, beside the pytest plugin, that knows all the others.

Exit codes: 0 valid (or done), 1 invalid, 2 usage, 3 unknown, 4 lab error.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from harness import doctor as doctors
from harness import scenario as scenarios
from harness import screen, store
from harness.history import HistoryError
from harness.protocols import LabError
from harness.run import conclude, run
from harness.scenario import ScenarioError
from harness.verdict import Verdict, overall

LAB_ERROR = 4
DEFAULT_TOPOLOGY = "ultramonkey"
DEFAULT_LAB = "default"
SCENARIOS = Path("tests/chaos")
"""Where a scenario's bare name is looked for."""

progress = Console(stderr=True, highlight=False)
output = Console(highlight=False)


class _Monkeywrench(click.Group):
    """Turns every error that a user can cause into one clear sentence and the next step."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a lab error exits 4, a scenario that is not right 2, an interruption 130."""
        try:
            return super().invoke(ctx)
        except ScenarioError as error:
            _complain(error, "")
            sys.exit(2)
        except (LabError, HistoryError) as error:
            _complain(error, getattr(error, "next_step", ""))
            sys.exit(LAB_ERROR)
        except (KeyboardInterrupt, click.Abort):
            _complain(LabError("interrupted; what was begun has been undone"), "")
            sys.exit(128 + signal.SIGINT)
        except BrokenPipeError:
            sys.exit(LAB_ERROR)


def _complain(error: Exception, next_step: str) -> None:
    progress.print(f"[bold red]monkeywrench:[/] {escape(str(error))}")
    if next_step:
        progress.print(f"[bold]Next:[/] {escape(next_step)}")


@click.group(cls=_Monkeywrench, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="monkeywrench")
def main() -> None:
    """Boot a real high-availability web cluster, break it on purpose, and judge with evidence whether it held."""
    # as for Ctrl-C: what a command has begun is undone before the process ends
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # a shell starts what it puts into the background with SIGINT ignored; whoever sends it means it
    signal.signal(signal.SIGINT, signal.default_int_handler)


lab_option = click.option("--lab", "lab_name", default=DEFAULT_LAB, show_default=True, metavar="NAME", help="The lab.")
topology_option = click.option(
    "--topology",
    default=DEFAULT_TOPOLOGY,
    show_default=True,
    metavar="NAME|FILE",
    help="A shipped topology, or a TOML file.",
)


def _narrator() -> Callable[[str], None]:
    began = time.monotonic()

    def say(text: str) -> None:
        progress.print(f"[dim]{time.monotonic() - began:6.1f} s[/]  {escape(text)}")

    return say


@main.command()
def build() -> None:
    """Build the images that are missing, ahead of the first lab."""
    from topology import engine, image

    say = _narrator()
    image.ensure(engine.connect(), say)
    say("all images are built")


@main.command()
@topology_option
@lab_option
def up(topology: str, lab_name: str) -> None:
    """Boot a lab, and wait until all parts are healthy. A healthy lab of the same topology is left as it is."""
    from topology import engine, life, model  # only the commands that need Docker load it

    say = _narrator()
    wanted = model.load(topology)
    client = engine.connect()
    running = life.attach(client, lab_name)
    if running and running.topology == wanted and running.status().healthy:
        say(f"lab {lab_name} is up already")
    else:
        running = life.boot(client, wanted, lab_name, say, keep=True)
        say(f"lab {lab_name} is up; all parts are healthy")
    running.close()


@main.command()
@lab_option
@click.option("--all", "every", is_flag=True, help="All labs on this engine.")
def down(lab_name: str, every: bool) -> None:
    """Remove a lab, and all that it made. Fine to call when there is none."""
    from topology import engine, life

    client = engine.connect()
    for name in life.names(client) if every else [lab_name]:
        count = life.remove(client, name)
        progress.print(
            f"lab {escape(name)}: {count} containers removed" if count else f"there is no lab {escape(name)}"
        )


@contextmanager
def _attached(lab_name: str) -> Iterator[Any]:
    """The running lab of that name."""
    from topology import engine, life

    client = engine.connect()
    running = life.attach(client, lab_name)
    if running is None:
        others = ", ".join(life.names(client))
        hint = f" Labs there are: {others}." if others else ""
        raise LabError(f"there is no lab {lab_name!r}", f"Run `monkeywrench up` to boot one.{hint}")
    try:
        yield running
    finally:
        running.close()


@main.command()
@lab_option
@click.option("--json", "as_json", is_flag=True, help="The same as JSON on standard output.")
def status(lab_name: str, as_json: bool) -> None:
    """Show who holds each VIP, both IPVS tables, and every node's kernel. Exits 1 when something is wrong."""
    with _attached(lab_name) as lab:
        seen = lab.status()
    if as_json:
        click.echo(json.dumps({"lab": lab_name, "healthy": seen.healthy, **dataclasses.asdict(seen)}, indent=2))
    else:
        output.print(screen.status(lab_name, seen))
    sys.exit(0 if seen.healthy else 1)


@main.command("exec", context_settings={"ignore_unknown_options": True})
@lab_option
@click.option(
    "--timeout", "timeout_s", default=60.0, show_default=True, metavar="S", help="Seconds the command may take."
)
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(lab_name: str, timeout_s: float, node: str, command: tuple[str, ...]) -> None:
    """Run a command on a node: `monkeywrench exec lb-1 -- ipvsadm -Ln`. Exits with the command's exit code."""
    with _attached(lab_name) as lab:
        done = lab.node(node).exec(*command, timeout_s=timeout_s)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    sys.exit(done.exit_code if done.exit_code >= 0 else 128 - done.exit_code)


@main.command("run")
@click.argument("scenario")
@lab_option
@click.option("--topology", default=None, metavar="NAME|FILE", help="Instead of the scenario's own.")
@click.option("--seed", type=int, default=None, help="Instead of the scenario's own.")
@click.option(
    "--runs",
    "runs_dir",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Where run directories go.",
)
def run_scenario(scenario: str, lab_name: str, topology: str | None, seed: int | None, runs_dir: Path) -> None:
    """Run a SCENARIO (a TOML file, or the name of one in tests/chaos) and judge it.

    Uses the lab if it is up; else boots one of its own, and leaves nothing of it behind.
    """
    from faults import FAULTS
    from loadtests.feeds import feeds

    say = _narrator()
    path = _scenario_file(scenario)
    wanted = scenarios.load(path)
    seed = wanted.scenario.seed if seed is None else seed
    with _lab_for(topology or wanted.scenario.topology, lab_name, say) as lab:
        run_dir = store.create(runs_dir, path, wanted.name, store.meta(lab.name, seed))
        run(wanted, lab, FAULTS, feeds(lab, wanted.load), run_dir, say, seed=seed)
    verdicts = conclude(run_dir, wanted)
    _show(verdicts, run_dir)
    sys.exit(overall(verdicts).exit_code)


def _scenario_file(name: str) -> Path:
    for path in (Path(name), SCENARIOS / f"{name}.toml"):
        if path.is_file():
            return path
    shipped = ", ".join(sorted(path.stem for path in SCENARIOS.glob("*.toml"))) or "none here"
    raise ScenarioError(f"there is no scenario {name!r}: give a TOML file, or a name from {SCENARIOS}/ ({shipped})")


@contextmanager
def _lab_for(topology: str, lab_name: str, say: Callable[[str], None]) -> Iterator[Any]:
    """A lab that is up already, or one of this run's own."""
    from topology import engine, life, model

    client = engine.connect()
    running = life.attach(client, lab_name)
    if running is None:
        own = f"run-{os.getpid()}"
        with life.booted(topology, own, say) as lab:
            yield lab
            say("taking the lab down")
        return
    if running.topology != model.load(topology):
        running.close()
        raise LabError(
            f"lab {lab_name} is up with another topology than {topology}",
            f"`monkeywrench down --lab {lab_name}` first, or name another lab with --lab.",
        )
    try:
        say(f"using lab {lab_name}, which is up")
        running.wait_healthy()
        yield running
    finally:
        running.close()


def _show(verdicts: list[Verdict], run_dir: Path) -> None:
    output.print(screen.verdicts(verdicts))
    output.print(f"report: {run_dir / store.REPORT}", soft_wrap=True)


@main.command()
@topology_option
@click.option("--json", "as_json", is_flag=True, help="The same as JSON on standard output.")
def doctor(topology: str, as_json: bool) -> None:
    """Check what a lab needs of this machine, and say what to do about what is missing. Changes nothing."""
    findings = doctors.examine(topology)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        output.print(screen.findings(findings))
    sys.exit(0 if all(finding.ok for finding in findings) else LAB_ERROR)


if __name__ == "__main__":
    main()
