"""A run, put together: the only module of the harness that knows scenario, lab, faults and load at the same time.

The command line and the pytest plugin are thin layers on top of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from faults import FAULTS
from harness import crash
from harness.artifacts import run_directory
from harness.protocols import Feeds, HasOwnLoad, HasTrace, Lab, RestoresBackups
from harness.records import LabError
from harness.replay import Rerun
from harness.run import run
from harness.scenario import Scenario
from loadtests import feeds as loads

if TYPE_CHECKING:
    from topology.lab.docker_lab import DockerLab
    from topology.model import Topology

__all__ = [
    "again",
    "execute",
    "feeds",
    "judges_no_speed",
    "lab_for",
    "labs_by_side",
    "only_in_real_time",
    "sites_by_side",
]

MEASURES_SPEED = ("knee",)
"""The checks whose answer is a speed."""

Progress = Callable[[str], None]

LabOf = Callable[[str], "AbstractContextManager[DockerLab]"]
"""The side of a comparison, baseline or candidate -> the lab of its next run."""


def execute(  # noqa: PLR0913 - what a run is made of
    scenario: Scenario,
    path: Path,
    lab: Lab,
    runs_dir: Path,
    progress: Progress,
    *,
    load_file: Path | None = None,
    argv: Sequence[str] | None = None,
    replay_of: str = "",
    on_begin: Callable[[Path], None] = lambda _: None,
) -> Path:
    """Run a scenario on a lab, and return its run directory. The run is over then, but not judged yet.

    ``path`` is the scenario's file and ``load_file`` the one that its load is from, if that is another: the run
    directory keeps a copy of each. ``argv`` is the command to repeat the run with (this process's own by default). A
    replay names the run that it repeats, and ``latest`` keeps pointing at another one. ``on_begin`` gets the run
    directory before anything happens.
    Raises ScenarioError or LabError, as ``run`` does; LabError also for a check of speed on a lab in virtual time.
    """
    judges_no_speed(scenario, lab.clock.kind)
    words = {} if argv is None else {"argv": argv}
    facts = run_directory.meta(lab.name, scenario.scenario.seed, **words)
    facts |= {run_directory.REPLAY_OF: replay_of} if replay_of else {}
    run_dir = run_directory.create(runs_dir, path, scenario.name, facts)
    with crash.noted_in(run_dir):
        if load_file:
            run_directory.keep_load(run_dir, load_file)
        if isinstance(lab, HasTrace):
            run_directory.write(run_dir / run_directory.LAB, json.dumps(dict(lab.made_of()), indent=2) + "\n")
        on_begin(run_dir)
        run(scenario, lab, FAULTS, feeds(scenario, lab), run_dir, progress)
    return run_dir


def only_in_real_time(clock: str, what: str, next_step: str) -> None:
    """Refuse to measure a speed in virtual time. Raises LabError; ``what`` is the sentence's subject."""
    if clock == "virtual":
        raise LabError(
            f"{what} measures speed, and in virtual time the time that a processor takes is a model", next_step
        )


def judges_no_speed(scenario: Scenario, clock: str) -> None:
    """Refuse the checks of a scenario whose answer is a speed, in virtual time. Raises LabError."""
    for check in MEASURES_SPEED:
        if check in scenario.checks:
            what = f"the check {check} of scenario {scenario.name}"
            only_in_real_time(clock, what, "Run it with --clock real.")


def feeds(scenario: Scenario, lab: Lab) -> Feeds:
    """What a run of the scenario records besides the lab's own observers."""
    found = lab.feeds(scenario.load) if isinstance(lab, HasOwnLoad) else loads.feeds(lab, scenario.load)
    wants_proof = scenario.checks.get("backup", {}).get("proofs")
    if wants_proof and isinstance(lab, RestoresBackups):
        return replace(found, after=[*found.after, *lab.restore_proofs()])
    return found


def access_log(scenario: Scenario) -> str:
    """What is in the access log that the load replays; empty for a load without one. Raises LabError."""
    load = scenario.load
    replay = loads.replayed(load) if load else None
    if load is None or replay is None:
        return ""
    found = f"{load.log}: {len(replay.requests)} requests over {replay.requests[-1][0]:.0f} s"
    return found + (f"; left out: {replay.left_out}" if replay.broken or replay.skipped else "")


@contextmanager
def lab_for(
    topology: Topology, name: str, progress: Progress, *, seed: int = 0, unhealthy_ok: bool = False
) -> Iterator[DockerLab]:
    """The lab of that name if it is up, else one that is booted for the block and removed afterwards.

    Waits until the lab is healthy; with ``unhealthy_ok``, a lab that is up is used as it is, and its problems are
    reported. Raises LabError when the lab is up with another topology.
    """
    from topology.lab import engine, lifecycle  # only what needs a real lab loads Docker's client

    running = lifecycle.attach(engine.connect(), name)
    if running is None:
        with lifecycle.booted(topology, f"run-{os.getpid()}", progress, seed) as lab:
            yield lab
            progress("taking the lab down")
        return
    try:
        if running.topology != topology:
            other = f"lab {name!r} is running another topology than {topology.name!r}"
            if running.topology.clock != topology.clock:
                other = f"lab {name!r} has {running.topology.clock} time, and this needs {topology.clock} time"
            raise LabError(other, f"Run `monkeywrench down --lab {name}` first, or name another lab with --lab.")
        progress(f"using lab {name}, which is up")
        if unhealthy_ok:
            for problem in running.status().problems:
                progress(f"continuing in spite of a problem: {problem}")
        else:
            running.wait_healthy(say=progress)
        yield running
    finally:
        running.close()


@contextmanager
def again(
    run: Rerun, name: str, progress: Progress, *, keep: bool = False, todays: bool = False
) -> Iterator[DockerLab]:
    """A new lab as that of an earlier run. It is removed afterwards, unless it is to be kept.

    ``todays``: with the images that this version builds. Raises LabError for images and files that are not there any
    more.
    """
    from topology.lab import engine, image, lifecycle
    from topology.load import as_before

    client, topology = engine.connect(), as_before(run.topology)
    if not todays and (missing := image.missing(client, run.images)):
        what = ", ".join(f"{role} ({digest.removeprefix('sha256:')[:12]})" for role, digest in missing.items())
        raise LabError(
            f"images of that run are not in this Docker Engine any more: {what}",
            "Check out the version that made the run and run `monkeywrench build` there, or replay with the images of "
            "this version (--todays-images): then it is most likely another run.",
        )
    images = None if todays else dict(run.images)
    lab = lifecycle.boot(client, topology, name, progress, keep=keep, seed=run.seed, images=images)
    try:
        yield lab
    except BaseException:
        lab.close()
        lifecycle.remove(client, name)
        raise
    lab.close()
    if not keep:
        lifecycle.remove(client, name)


@contextmanager
def labs_by_side(topologies: Mapping[str, Topology], progress: Progress) -> Iterator[LabOf]:
    """A new lab for each run, with the topology of its side."""
    from topology.lab import lifecycle

    yield lambda side: lifecycle.booted(topologies[side], f"load-{os.getpid()}", progress)


@contextmanager
def sites_by_side(
    topology: Topology, sites: Mapping[str, Path | None], name: str, progress: Progress
) -> Iterator[LabOf]:
    """One lab for all runs, on which the site of each side is deployed in turn; None is the lab's own site."""
    from topology.lab import deploy

    with lab_for(topology, name, progress) as lab:
        if not any(sites.values()):
            yield lambda _: nullcontext(lab)
            return
        with deploy.sites(lab) as put:

            @contextmanager
            def with_site(side: str) -> Iterator[DockerLab]:
                progress(f"deploying the {side}'s site: {sites[side] or 'the one of the lab'}")
                put(sites[side])
                yield lab

            yield with_site
