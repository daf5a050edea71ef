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
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.markup import escape

from harness import doctor as doctors
from harness import scenario as scenarios
from harness.artifacts import run_directory, stored_run
from harness.artifacts.stored_run import StoredError, conclude
from harness.cli import screen
from harness.compare import CompareSettings, release
from harness.compare.release import ReleaseError, Runs
from harness.errors import UserError
from harness.history import HistoryError, jepsen
from harness.plan import plan
from harness.records import LabError, Status
from harness.report.comparison import OUTCOMES
from harness.run import run
from harness.scenario import Scenario, ScenarioError
from harness.verdict import Verdict, judgement, overall
from harness.verdict import schema as verdict_schema
from harness.wait import pass_time

USAGE, LAB_ERROR = 2, 4
DEFAULT_TOPOLOGY = "ultramonkey"
DEFAULT_LAB = "default"
SCENARIOS, PROFILES = Path("tests/chaos"), Path("loadtests/profiles")
"""Where a scenario's bare name is looked for, one after the other."""

OP = '{"t":'
"""What an op of the locustfile begins with."""

progress = Console(stderr=True, highlight=False)
output = Console(highlight=False)


class _Monkeywrench(click.Group):
    """Turns every error that a user can cause into one clear sentence and the next step."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a lab error exits 4, a scenario or a stored run that is not right 2, an interruption 130."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            _complain(error)
            sys.exit(LAB_ERROR if isinstance(error, LabError | HistoryError) else USAGE)
        except (KeyboardInterrupt, click.Abort):
            _complain(UserError("interrupted; what was begun has been undone"))
            sys.exit(128 + signal.SIGINT)
        except BrokenPipeError:
            sys.exit(LAB_ERROR)


def _complain(error: UserError) -> None:
    progress.print(f"[bold red]monkeywrench:[/] {escape(str(error))}")
    if error.next_step:
        progress.print(f"[bold]Next:[/] {escape(error.next_step)}")


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


runs_option = click.option(
    "--runs",
    "runs_dir",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Where run directories are.",
)
tolerance_option = click.option(
    "--tolerance",
    multiple=True,
    metavar="WHAT=MUCH",
    help="The least difference that matters, such as p50_ms=5, p90_ms=20% or p99_ms=no; again for another.",
)
asked_option = click.option(
    "--scenario",
    "asked",
    default=None,
    metavar="NAME|FILE",
    help="Ask what this scenario asks, instead of the run's own.",
)


def _narrator() -> Callable[[str], None]:
    began = time.monotonic()

    def say(text: str) -> None:
        progress.print(f"[dim]{time.monotonic() - began:6.1f} s[/]  {escape(text)}")

    return say


@main.command()
def build() -> None:
    """Build the images that are missing, ahead of the first lab."""
    from topology.lab import engine, image

    say = _narrator()
    image.ensure(engine.connect(), say)
    say("all images are built")


@main.command()
@topology_option
@lab_option
def up(topology: str, lab_name: str) -> None:
    """Boot a lab, and wait until all parts are healthy. A healthy lab of the same topology is left as it is."""
    from topology import model  # only the commands that need Docker load it
    from topology.lab import engine, lifecycle

    say = _narrator()
    wanted = model.load(topology)
    client = engine.connect()
    running = lifecycle.attach(client, lab_name)
    if running and running.topology == wanted and running.status().healthy:
        say(f"lab {lab_name} is up already")
        running.close()
        return
    try:
        running = lifecycle.boot(client, wanted, lab_name, say, keep=True)
    except lifecycle.UnhealthyError as error:
        # with files of the user's own in it, what happens is what the user wants to see
        step = f"It stays up: look with `monkeywrench status`; `monkeywrench doctor --topology {topology}`."
        _complain(UserError(str(error), step))
        sys.exit(1)
    say(f"lab {lab_name} is up; all parts are healthy")
    running.close()


@main.command()
@lab_option
@click.option("--all", "every", is_flag=True, help="All labs on this engine.")
def down(lab_name: str, every: bool) -> None:
    """Remove a lab, and all that it made. Fine to call when there is none."""
    from topology.lab import engine, lifecycle

    client = engine.connect()
    for name in lifecycle.names(client) if every else [lab_name]:
        count = lifecycle.remove(client, name)
        progress.print(
            f"lab {escape(name)}: {count} containers removed" if count else f"there is no lab {escape(name)}"
        )


@contextmanager
def _attached(lab_name: str) -> Iterator[Any]:
    """The running lab of that name."""
    from topology.lab import engine, lifecycle

    client = engine.connect()
    running = lifecycle.attach(client, lab_name)
    if running is None:
        others = ", ".join(lifecycle.names(client))
        hint = f" Labs there are: {others}." if others else ""
        raise LabError(f"there is no lab {lab_name!r}", f"Run `monkeywrench up` to boot one.{hint}")
    try:
        yield running
    finally:
        running.close()


@main.command()
@lab_option
@click.option("--json", "as_json", is_flag=True, help="The same as JSON on standard output.")
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C; with --json, one line a look.")
@click.option("--every", "every_s", default=1.0, show_default=True, metavar="S", help="The pause between two looks.")
def status(lab_name: str, as_json: bool, watch: bool, every_s: float) -> None:
    """Show how each part of the cluster does, both IPVS tables, and the nodes. Exits 1 when something is wrong."""
    with _attached(lab_name) as lab:
        if watch:
            seen = _watched(lab, as_json, every_s)
        else:
            seen = lab.status()
            click.echo(_status_json(lab, seen, 2)) if as_json else output.print(screen.status(lab_name, seen))
    sys.exit(0 if seen.healthy else 1)


def _status_json(lab: Any, seen: Status, indent: int | None = None) -> str:
    return json.dumps({"lab": lab.name, "healthy": seen.healthy, **dataclasses.asdict(seen)}, indent=indent)


def _watched(lab: Any, as_json: bool, every_s: float) -> Status:
    """Show the status over and over; the last one, when Ctrl-C ends it."""
    seen: Status = lab.status()
    with Live(console=output, screen=not as_json, auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while True:
            if as_json:
                click.echo(_status_json(lab, seen))
            else:
                live.update(screen.status(lab.name, seen, brief=True), refresh=True)
            pass_time(every_s)
            seen = lab.status()
    return seen


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


@main.command("prove-backup")
@lab_option
@click.option(
    "--fresh", is_flag=True, help="Take a backup first, and compare row by row with what was there before it."
)
@click.option("--json", "as_json", is_flag=True, help="The verdict as JSON on standard output.")
def prove_backup(lab_name: str, fresh: bool, as_json: bool) -> None:
    """Start a throwaway server on the backup of the database, and compare its rows. Exits as `run` does."""
    from topology.lab import engine, restore

    with _attached(lab_name) as lab:
        verdict = restore.prove(engine.connect(), lab, fresh)
    if as_json:
        click.echo(verdict.model_dump_json(indent=2))
    else:
        output.print(screen.verdict(verdict))
    sys.exit(verdict.outcome.exit_code)


@main.command(context_settings={"ignore_unknown_options": False})
@click.argument("fault")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@lab_option
@click.option("--for", "for_s", default="10s", show_default=True, metavar="TIME", help="Such as 500ms, 10s or 2m.")
@click.option("--json", "as_json", is_flag=True, help="What happened, as JSON on standard output.")
def inject(fault: str, settings: tuple[str, ...], lab_name: str, for_s: str, as_json: bool) -> None:
    """Inject a FAULT, prove it, hold it, undo it, and compare the lab with how it was.

    `monkeywrench inject node.power-off node=lb-1 --for 10s`. Ctrl-C undoes it at once; if this process is killed, the
    lab undoes it by itself within seconds. Exits 1 when something is left that was not there before.
    """
    from faults import FAULTS
    from harness import injection

    say, duration_s = _narrator(), injection.duration_s(for_s)
    made = injection.make(fault, settings, FAULTS)
    with _attached(lab_name) as lab:
        done = injection.carry_out(made, lab, duration_s, say)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(done), indent=2))
    for line in done.left:
        progress.print(f"[bold red]left:[/] {escape(line)}")
    sys.exit(1 if done.left else 0)


@main.command()
@lab_option
def heal(lab_name: str) -> None:
    """Undo all that is injected into a lab, whoever did it. Fine to call when nothing is."""
    with _attached(lab_name) as lab:
        for lease in lab.heal():
            progress.print(f"undone: {escape(lease.fault)} on {escape(lease.node)} ({escape(lease.claim)})")
        progress.print("nothing is injected")


@main.command("faults")
@click.argument("name", required=False)
@lab_option
@click.option("--active", is_flag=True, help="What is injected into the lab now, instead of what there is.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON on standard output.")
def list_faults(name: str | None, lab_name: str, active: bool, as_json: bool) -> None:
    """List the faults there are, or all about the one of that NAME (or of a family, such as `network`)."""
    from faults import FAULTS
    from harness import injection

    if active:
        with _attached(lab_name) as lab:
            held = lab.leases()
        if as_json:
            click.echo(json.dumps([dataclasses.asdict(lease) for lease in held], indent=2))
        else:
            output.print(screen.leases(held))
        return
    about = injection.catalogue(FAULTS, name)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(each) for each in about], indent=2))
    else:
        output.print(screen.faults(about, whole=name is not None))


@main.command("run")
@click.argument("scenario")
@lab_option
@click.option("--topology", default=None, metavar="NAME|FILE", help="Instead of the scenario's own.")
@click.option("--seed", type=int, default=None, help="Instead of the scenario's own.")
@click.option("--load", "profile", default=None, metavar="PROFILE", help="The load of this one, instead of its own.")
@runs_option
def run_scenario(  # noqa: PLR0913, PLR0917 - click hands over each option as an argument
    scenario: str, lab_name: str, topology: str | None, seed: int | None, profile: str | None, runs_dir: Path
) -> None:
    """Run a SCENARIO (a TOML file, or the name of one in tests/chaos) and judge it.

    Uses the lab if it is up; else boots one of its own, and leaves nothing of it behind.
    """
    say = _narrator()
    path = _scenario_file(scenario)
    wanted = scenarios.load(path)
    if seed is not None:
        wanted = wanted.model_copy(update={"scenario": wanted.scenario.model_copy(update={"seed": seed})})
    load_file = _scenario_file(profile) if profile else None
    if load_file:
        wanted = scenarios.under(wanted, load_file)
    with _lab_for(topology or wanted.scenario.topology, lab_name, say) as lab:
        run_dir = _carried_out(wanted, path, lab, runs_dir, say, load_file)
    verdicts = conclude(run_dir, wanted)
    _show(verdicts, run_dir)
    sys.exit(overall(verdicts).exit_code)


def _carried_out(  # noqa: PLR0913, PLR0917 - what a run needs
    wanted: Scenario, path: Path, lab: Any, runs_dir: Path, say: Callable[[str], None], load_file: Path | None = None
) -> Path:
    """The directory of a run, which is over and not yet judged."""
    from faults import FAULTS
    from loadtests.feeds import feeds, readings
    from topology.lab import restore

    run_dir = run_directory.create(runs_dir, path, wanted.name, run_directory.meta(lab.name, wanted.scenario.seed))
    if load_file:
        run_directory.keep_load(run_dir, load_file)
    read = readings(lab, wanted.load)
    after = restore.proofs(lab, wanted.checks)
    run(wanted, lab, FAULTS, feeds(lab, wanted.load), run_dir, say, readings=read, afterwards=after)
    return run_dir


@main.command("load")
@click.argument("profile")
@click.option("--runs", "count", type=click.IntRange(1, 60), default=6, show_default=True, help="How many, a side.")
@lab_option
@click.option("--topology", default=None, metavar="NAME|FILE", help="Instead of the profile's own.")
@click.option(
    "--baseline", type=click.Path(path_type=Path, exists=True), default=None, metavar="DIR", help="Earlier runs."
)
@click.option(
    "--site",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=None,
    metavar="DIR",
    help="The candidate's site, instead of the topology's own.",
)
@click.option(
    "--against",
    default=None,
    metavar="DIR|NAME|FILE",
    help="The baseline: the folder of a site, or a topology. Both take turns.",
)
@tolerance_option
@click.option("--to", "target", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, metavar="DIR")
def load_runs(  # noqa: PLR0913, PLR0917 - click hands over each option as an argument
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
    """Repeat the load of a PROFILE, and say whether it is slower than a baseline: the report before a release.

    PROFILE is a scenario with a load (a TOML file, or the name of one in loadtests/profiles). The baseline is a folder
    of earlier runs, or is given with --against and takes turns with the candidate: a site, which is deployed by turns
    on one lab, or a topology, with a lab of its own for each run. With neither, what comes out is a baseline for later.
    Exits 0 for no difference or an improvement, 1 for a regression, 3 when there are not enough runs to tell.
    """
    if baseline and against:
        raise click.UsageError("--baseline and --against exclude each other: the one is there already.")
    earlier_site = Path(against) if against and Path(against).is_dir() else None
    if site and against and not earlier_site:
        raise click.UsageError("--site goes with the folder of a site: --against DIR. Change one thing at a time.")
    say, path, judged = _narrator(), _scenario_file(profile), release.settings(tolerance)
    wanted = scenarios.load(path)
    if wanted.load is None:
        raise ScenarioError(f"{path}: there is no [load], so there is nothing to measure")
    before = release.read(baseline) if baseline else []
    for measures, _ in before[:1]:
        if measures.scenario != wanted.name:
            raise ReleaseError(
                f"{baseline} has runs of {measures.scenario}, and this is {wanted.name}",
                "Compare runs of one profile.",
            )
    own = topology or wanted.scenario.topology
    _refuse_another(before, baseline, own)
    made = release.folder(target, wanted.name)
    order = release.turns(count, [release.BASELINE, release.CANDIDATE] if against else [release.CANDIDATE])
    found: dict[str, Runs] = {release.BASELINE: list(before), release.CANDIDATE: []}
    if against and not earlier_site:
        labs = _labs({release.BASELINE: against, release.CANDIDATE: own}, say)
    else:
        labs = _sites(own, {release.BASELINE: earlier_site, release.CANDIDATE: site}, lab_name, say)
    with _kept(made, found, baseline), labs as lab_of:

        def one(side: str) -> Path:
            with lab_of(side) as lab:
                run_dir = _carried_out(wanted, path, lab, made / side, say)
            outcome = overall(conclude(run_dir, wanted))
            say(f"{run_dir.name}: {outcome}")
            return run_dir

        for side, run_dir in release.carry_out(order, one, say):
            found[side] += release.read(run_dir)
            if len(found[release.CANDIDATE]) == 1 and found[release.BASELINE]:
                # what cannot be compared, or told, is better known now than after the last run
                first = release.compared(found, judged)
                if why := release.too_few(first, (len(before) or count, count)):
                    say(f"warning: {why}")
    if not found[release.BASELINE]:
        output.print(f"baseline for `monkeywrench load {profile} --baseline`: {made}", soft_wrap=True)
        return
    _compared(made, wanted.scenario.title, found, judged, as_json=False)


@contextmanager
def _kept(made: Path, found: Mapping[str, Runs], baseline: Path | None) -> Iterator[None]:
    """If not all runs come: where those are that are over, and what can be done with them."""
    try:
        yield
    except BaseException:
        places = {release.BASELINE: baseline or made / release.BASELINE, release.CANDIDATE: made / release.CANDIDATE}
        if any(places[side] != baseline for side, some in found.items() if some):
            told = f"broken off; the runs that are over are kept in {made}"
            if all(found.values()):
                told += f": monkeywrench compare {' '.join(map(str, places.values()))}"
            progress.print(escape(told), soft_wrap=True)
        raise


def _refuse_another(before: Runs, baseline: Path | None, topology: str) -> None:
    """Raises ReleaseError for a baseline of another topology, before anything is booted."""
    from topology import model

    for key, now in model.load(topology).comparable_facts.items() if before else ():
        then = before[0][0].topology.get(key)
        if then != now:
            raise ReleaseError(
                f"{baseline} has runs of another topology: {key} is {then} there, and {now} in {topology}",
                "Compare runs of one topology; --against takes two of them by turns.",
            )


LabOf = Callable[[str], AbstractContextManager[Any]]
"""What gives the lab for a run of a side."""


@contextmanager
def _labs(topologies: Mapping[str, str], say: Callable[[str], None]) -> Iterator[LabOf]:
    """Two topologies take turns: a new lab for each run."""
    from topology.lab import lifecycle

    yield lambda side: lifecycle.booted(topologies[side], f"load-{os.getpid()}", say)


@contextmanager
def _sites(
    topology: str, folders: Mapping[str, Path | None], lab_name: str, say: Callable[[str], None]
) -> Iterator[LabOf]:
    """One lab for all runs; where there are sites they are deployed on it by turns, and None is the lab's own."""
    from topology.lab import deploy

    with _lab_for(topology, lab_name, say) as lab:
        if not any(folders.values()):
            yield lambda _: nullcontext(lab)
            return
        with deploy.sites(lab) as put:

            @contextmanager
            def with_site(side: str) -> Iterator[Any]:
                say(f"deploying the {side}'s site: {folders[side] or 'the one of the lab'}")
                put(folders[side])
                yield lab

            yield with_site


@main.command("locust", context_settings={"ignore_unknown_options": True})
@lab_option
@click.option("--port", default=8089, show_default=True, metavar="N", help="Of 127.0.0.1, for the page; 0: a free one.")
@click.option("--client", default="browser", show_default=True, metavar="POLICY", help="What users ask with.")
@click.option(
    "--ops", type=click.Path(path_type=Path, dir_okay=False), default=None, metavar="FILE", help="Write each op here."
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[LOCUST OPTION|CLASS]...")
def locust_page(lab_name: str, port: int, client: str, ops: Path | None, words: tuple[str, ...]) -> None:
    """Locust with its own page on a lab that is up, until Ctrl-C: `monkeywrench locust Player --users 20 --autostart`.

    Locust runs on the lab's client; its page is at 127.0.0.1 of this machine. Classes are Visitor, Player, Uploader and
    Administrator; with none the page lets you choose. All other words are Locust's own options. Exits as Locust does
    when it ends by itself.
    """
    from loadtests.feeds import WEB_PORT, by_hand
    from topology.lab import engine
    from topology.lab.port_forward import doorway

    with ExitStack() as stack:
        lab = stack.enter_context(_attached(lab_name))
        argv = by_hand(lab, words, client, ops is not None)
        node = lab.nodes("client")[0]
        there = stack.enter_context(doorway(engine.connect(), node, WEB_PORT, port))
        to = stack.enter_context(ops.open("a", encoding="utf-8")) if ops else sys.stderr
        progress.print(f"Locust's page: http://127.0.0.1:{there}/ (Ctrl-C ends it)", soft_wrap=True)
        stream = node.stream(*argv)
        stack.callback(stream.stop)
        try:
            for line in stream:
                (to if line.text.startswith(OP) else sys.stderr).write(f"{line.text}\n")
        except KeyboardInterrupt:
            return
    sys.exit(stream.exit_code)


@main.command("merge")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--to", "target", type=click.Path(path_type=Path, file_okay=False), required=True, metavar="DIR")
@click.option(
    "--scenario", "asked", default=None, metavar="NAME|FILE", help="What is asked of it; kept beside it for `check`."
)
def merge_ops(files: tuple[Path, ...], target: Path, asked: str | None) -> None:
    """Put the ops of Locust's workers on machines of your own together: FILES, one a worker, to one run in DIR.

    Then `monkeywrench check DIR`, `report DIR` and `compare DIR DIR` go on as with a run of the lab. Needs no lab.
    """
    from loadtests import merge

    path = _scenario_file(asked) if asked else None
    name = scenarios.load(path).name if path else "load"
    workers = [merge.read(str(file), file.read_text("utf-8", "replace").splitlines()) for file in files]
    entries = list(merge.merged(workers, name))
    try:
        merge.write(target, entries, path)
    except FileExistsError as error:
        raise StoredError(f"{target} has a run already", "Name another folder with --to DIR.") from error
    except OSError as error:
        raise StoredError(f"{target} cannot be written to: {error.strerror}", "Name another with --to DIR.") from error
    for worker in workers:
        told = "" if worker.whole else ", and was killed"
        told += f"; {worker.broken} lines cannot be read" if worker.broken else ""
        shift_ms = merge.shift_ns(worker, workers[0]) / 1e6
        told += f"; another machine, its clock moved by {shift_ms:,.0f} ms" if shift_ms else ""
        progress.print(f"{worker.name}: {len(worker.entries):,} ops of {len(worker.processes):,} users{told}")
    output.print(f"run: {target}", soft_wrap=True)


@main.command("compare")
@click.argument("baseline", type=click.Path(path_type=Path, exists=True))
@click.argument("candidate", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--to", "target", type=click.Path(path_type=Path, file_okay=False), default=None, metavar="DIR", help="Write here."
)
@tolerance_option
@click.option("--json", "as_json", is_flag=True, help="The content of comparison.json on standard output.")
def compare_runs(
    baseline: Path, candidate: Path, target: Path | None, tolerance: tuple[str, ...], as_json: bool
) -> None:
    """Compare stored runs: two folders of runs of one scenario. Needs no lab. Exits as `load` does."""
    judged = release.settings(tolerance)
    before, now = release.read(baseline), release.read(candidate)
    target = target or candidate
    target.mkdir(parents=True, exist_ok=True)
    sides = {release.BASELINE: before, release.CANDIDATE: now}
    _compared(target, now[0][0].scenario, sides, judged, as_json)


def _compared(target: Path, title: str, sides: Mapping[str, Runs], judged: CompareSettings, as_json: bool) -> None:
    result = release.conclude(target, title, sides, run_directory.command(), judged)
    if as_json:
        click.echo(result.model_dump_json(indent=2))
    else:
        output.print(screen.comparison(result))
        output.print(f"report: {escape(str(target / release.PAGE))}", soft_wrap=True)
    sys.exit(OUTCOMES[result.decision].exit_code)


@main.command()
@click.argument("run_name", metavar="RUN", default="latest")
@runs_option
@asked_option
@click.option("--json", "as_json", is_flag=True, help="The content of verdict.json on standard output.")
def check(run_name: str, runs_dir: Path, asked: str | None, as_json: bool) -> None:
    """Judge a stored RUN again: a run directory, a history file, or the name of a run (latest, unless given).

    Needs no lab, and changes nothing. Exits as `run` does, with 2 for a run that cannot be read.
    """
    found = stored_run.read(stored_run.find(run_name, runs_dir), _scenario_file(asked) if asked else None)
    verdicts = stored_run.judge(found)
    if as_json:
        click.echo(judgement(found.scenario.name, verdicts).model_dump_json(indent=2))
    else:
        output.print(screen.verdicts(verdicts))
    sys.exit(overall(verdicts).exit_code)


@main.command()
@click.argument("run_name", metavar="RUN", default="latest")
@runs_option
@asked_option
@click.option(
    "--to", "target", type=click.Path(path_type=Path, file_okay=False), default=None, metavar="DIR", help="Write here."
)
def report(run_name: str, runs_dir: Path, asked: str | None, target: Path | None) -> None:
    """Write the report of a stored RUN anew, and all else that is made of it, into its directory.

    RUN is as for `check`. Needs no lab. Exits 0 when all is written, whatever the verdict.
    """
    path = stored_run.find(run_name, runs_dir)
    found = stored_run.read(path, _scenario_file(asked) if asked else None)
    directory = target or path.parent
    try:
        directory.mkdir(parents=True, exist_ok=True)
        stored_run.write(directory, found, stored_run.judge(found))
    except OSError as error:
        raise StoredError(
            f"{directory} cannot be written to: {error.strerror}", "Name another with --to DIR."
        ) from error
    output.print(f"report: {escape(str(directory / run_directory.REPORT))}", soft_wrap=True)


@main.command("history")
@click.argument("run_name", metavar="RUN", default="latest")
@runs_option
@click.option("--format", "_shape", type=click.Choice(["jepsen"]), default="jepsen", show_default=True, help="Whose.")
@click.option(
    "--of",
    type=click.Choice(list(jepsen.MODELS)),
    default="all",
    show_default=True,
    help="Which ops: all as they are, profiles for elle's rw-register, or coins for Jepsen's bank.",
)
def show_history(run_name: str, runs_dir: Path, _shape: str, of: str) -> None:
    """Print the history of a stored RUN as JSON that Jepsen's tools (knossos, elle, elle-cli) read."""
    ops = jepsen.export(stored_run.load(stored_run.find(run_name, runs_dir)), of)
    lines = ",\n".join(json.dumps(op, separators=(",", ":")) for op in ops)
    click.echo(f"[{lines}]")


@main.command()
@click.argument("of", type=click.Choice(["verdict", "scenario"]))
def schema(of: str) -> None:
    """Print the JSON Schema of verdict.json, or of a scenario file."""
    found = verdict_schema() if of == "verdict" else scenarios.Scenario.model_json_schema()
    click.echo(json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **found}, indent=2))


@main.command("plan")
@click.argument("scenario")
@click.option("--seed", type=int, default=None, help="Instead of the scenario's own.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON on standard output.")
def show_plan(scenario: str, seed: int | None, as_json: bool) -> None:
    """Show the steps that a run of SCENARIO would take, with what its seed draws. Needs no lab."""
    wanted = scenarios.load(_scenario_file(scenario))
    steps = plan(wanted, wanted.scenario.seed if seed is None else seed)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(step) for step in steps], indent=2))
    else:
        output.print(screen.steps(steps))


def _scenario_file(name: str) -> Path:
    for path in (Path(name), SCENARIOS / f"{name}.toml", PROFILES / f"{name}.toml"):
        if path.is_file():
            return path
    shipped = [
        f"{place}/ ({', '.join(sorted(path.stem for path in place.glob('*.toml'))) or 'none here'})"
        for place in (SCENARIOS, PROFILES)
    ]
    raise ScenarioError(f"there is no scenario {name!r}: give a TOML file, or a name from {' or '.join(shipped)}")


@contextmanager
def _lab_for(topology: str, lab_name: str, say: Callable[[str], None]) -> Iterator[Any]:
    """A lab that is up already, or one of this run's own."""
    from topology import model
    from topology.lab import engine, lifecycle

    client = engine.connect()
    running = lifecycle.attach(client, lab_name)
    if running is None:
        own = f"run-{os.getpid()}"
        with lifecycle.booted(topology, own, say) as lab:
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
    output.print(f"report: {run_dir / run_directory.REPORT}", soft_wrap=True)


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
