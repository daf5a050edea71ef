"""Commands that run again: replay."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness import history, scenario
from harness import replay as replays
from harness.artifacts import run_directory, stored_run
from harness.cli import screen
from harness.cli.console import narrator, output
from harness.cli.options import runs_option
from harness.protocols import HasTrace, Lab
from harness.wait import pass_time

if TYPE_CHECKING:
    from harness.replay import Replayed, Rerun

__all__ = ["COMMANDS"]


def leave(code: int) -> None:
    """End this process where it is: nothing is undone, and the lab stands still."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@click.command("replay")
@click.argument("run_name", metavar="[RUN]", default="latest")
@runs_option
@click.option(
    "--until",
    metavar="TIME",
    default=None,
    help="Stop at this time of the run, for example 50.26s, and leave the lab standing there.",
)
@click.option(
    "--lab", "lab_name", default="replay", show_default=True, metavar="NAME", help="Name of the lab that is left."
)
@click.option(
    "--todays-images",
    is_flag=True,
    help="Use the images of this version instead of the run's: it may well be another run then.",
)
def replay(run_name: str, runs_dir: Path, until: str | None, lab_name: str, todays_images: bool) -> None:
    """Run a stored RUN of virtual time again, and compare.

    A new lab gets the run's own scenario, topology, images and seed. Says whether each frame and each op is the same
    again, and where the first difference is. With --until, the lab stands still at that time: `exec` and `status` show
    it as it was. To go on, replay until a later time.

    Exits 0 for the same run, 1 for another one, 3 if the stored run was killed.
    """
    from harness import compose

    path = stored_run.find(run_name, runs_dir)
    stored = stored_run.read(path)
    run = replays.rerun(stored, _text(path.with_name(run_directory.LAB)))
    stop_ns = None if until is None else replays.until_ns(stored, until)
    load_file = path.with_name(run_directory.LOAD)
    report, made = narrator(), list[Path]()
    name = path.parent.resolve().name
    report(f"replaying {name}, seed {run.seed}")
    wanted = scenario.seeded(stored.scenario, run.seed)
    on = f"replay-{os.getpid()}" if stop_ns is None else lab_name
    with compose.again(run, on, report, keep=stop_ns is not None, todays=todays_images) as lab:
        if stop_ns is not None:
            lab.clock.spawn(partial(_stand_still, lab, stop_ns, run, path.parent, made), "until")
        directory = compose.execute(
            wanted,
            path.with_name(run_directory.SCENARIO),
            lab,
            runs_dir,
            report,
            load_file=load_file if load_file.is_file() else None,
            replay_of=name,
            on_begin=made.append,
        )
    verdicts = stored_run.judge_directory(directory, wanted)
    output.print(screen.verdicts(verdicts, clock=stored.history.clock))
    output.print(f"report: {directory / run_directory.REPORT}", soft_wrap=True, markup=False)
    _exit(_compare(run, path.parent, directory))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _compare(run: Rerun, before: Path, now: Path, until_ns: int | None = None) -> Replayed:
    traces = [_frames(directory / run_directory.TRACE) for directory in (before, now)]
    both = (traces[0], traces[1]) if traces[0] is not None and traces[1] is not None else None
    return replays.compared(run, history.load(now / run_directory.HISTORY), both, until_ns)


def _frames(path: Path) -> Sequence[str] | None:
    try:
        with gzip.open(path, "rt", encoding="ascii", errors="replace") as lines:
            return lines.readlines()
    except (OSError, EOFError):
        return None


def _exit(replayed: Replayed) -> None:
    for sentence in replayed.sentences:
        output.print(sentence, soft_wrap=True, markup=False)
    sys.exit(replayed.exit_code)


def _stand_still(lab: Lab, stop_ns: int, run: Rerun, before: Path, made: Sequence[Path]) -> None:
    """At that time: keep what there is of the run, say how to look around, and end this process."""
    left_s = (stop_ns - lab.now_ns()) / 1e9
    pass_time(left_s, every_s=left_s, clock=lab.clock)
    (directory,) = made
    if isinstance(lab, HasTrace):
        lab.stop_captures()
        lab.write_trace(directory / run_directory.TRACE)
    replayed = _compare(run, before, directory, stop_ns)
    capture = directory / run_directory.CAPTURE
    here = f" --lab {lab.name}"
    for line in (
        *replayed.sentences,
        f"lab {lab.name} stands still, {run.since_begin_s(stop_ns):.9f} s after the beginning of the run. Look at it:",
        f"  monkeywrench status{here}",
        f"  monkeywrench exec{here} {lab.cluster.directors[0]} -- ipvsadm -Ln",
        f"  the history until then: {directory / run_directory.HISTORY}",
        *([f"  its packets: {capture}"] if capture.is_file() else []),
        "A command lets a little time pass there, and ends the load of the run; its faults stay.",
        f"Go on: monkeywrench replay {before} --until LATER{here}, which runs it again from its beginning.",
        f"Remove it: monkeywrench down{here}",
    ):
        output.print(line, soft_wrap=True, markup=False)
    leave(replayed.exit_code)


COMMANDS = (replay,)
