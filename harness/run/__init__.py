"""Running a scenario and recording all that happens. ``harness.artifacts.stored_run`` judges it.

Both share only the run directory. This file plans a run and narrates it; ``steps`` carries out its steps, ``feeds``
follows what goes on beside them, ``journal`` writes the history.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness import catalogue, wait
from harness.artifacts import run_directory
from harness.audit import Audit, aftermath
from harness.catalogue import Faults
from harness.history import Recorder, promises
from harness.mistakes import unknown
from harness.plan import Inject, Step, plan
from harness.protocols import CanLoseNodes, Fault, Feeds, HasTrace, Lab, LearningFeed
from harness.records import Entry, LabError
from harness.run.feeds import follow, following, stop
from harness.run.journal import Journal
from harness.run.steps import Progress, StepResult, StepRunner
from harness.scenario import Scenario, ScenarioError

__all__ = ["Faults", "RunResult", "StepResult", "run"]

AUDIT_WITHIN_S = 120.0
"""How long addresses may take to fail back, and services to start, after the last undo."""

SETTLED_S = 2.0
"""After the writers have stopped: requests that were in flight may still be carried out."""


@dataclass(frozen=True)
class RunResult:
    """A run that ended on its own. ``stored_run.judge_directory`` decides whether the cluster did what was expected."""

    directory: Path
    steps: tuple[StepResult, ...]

    @property
    def missed(self) -> tuple[StepResult, ...]:
        """The steps that did not go as planned."""
        return tuple(step for step in self.steps if not step.met)


def run(  # noqa: PLR0913, PLR0917 - each is a seam that tests replace
    scenario: Scenario,
    lab: Lab,
    faults: Faults,
    feeds: Feeds,
    run_dir: Path,
    on_progress: Progress = lambda _: None,
) -> RunResult:
    """Carry out a scenario and record all that happens to ``history.jsonl`` in ``run_dir``.

    1. Plan the steps, and make their faults: nothing starts if one of them cannot be injected.
    2. Open the history, and record what the run is about in its first op.
    3. Start the capture, if the scenario asks for one.
    4. Follow the feeds that come ``before``, one after another, to their ends.
    5. Start every other feed (the lab's observers, ``during`` and ``writers``), and keep them running. Nothing is done
       to the lab before each of them has begun.
    6. Carry out the steps. One that goes wrong is recorded, and the run goes on.
    7. Undo what is still injected, the latest fault first. This and the rest happen also if the run is interrupted.
    8. Stop the ``writers``, and follow the feeds that come ``after``, one after another, to their ends.
    9. Stop the other feeds, then the capture.
    10. Compare the lab with its state at the beginning, and record the differences and the state of the cluster.
    11. Record in the last op that the run ended on its own, and close the history.

    Raises ScenarioError for an unknown fault or wrong settings, LabError for a fault that this lab cannot do or when
    nothing can be recorded.
    """
    seed = scenario.scenario.seed
    steps = plan(scenario, seed)
    made = _make_faults(steps, faults, lab, scenario, seed)
    _check_owners(steps, lab, scenario)
    origin_ns = lab.now_ns()
    with Recorder(run_dir / run_directory.HISTORY, origin_ns) as recorder:
        journal = Journal(recorder, lab, [feed.learn for feed in feeds.after if isinstance(feed, LearningFeed)])
        journal.info("run", "start", _start(scenario, seed, lab, origin_ns), at_ns=origin_ns)
        for remark in promises.remarks(lab.cluster):
            on_progress(remark)
        before = lab.audit()
        with ExitStack() as running:
            running.enter_context(_captured(scenario, lab, run_dir))
            for feed in feeds.before:
                on_progress(f"running {feed.name}")
                follow(feed, journal)
            beside = [*lab.observers(), *feeds.during, *feeds.writers]
            threads = running.enter_context(following(beside, journal, lab.clock))
            writers = threads[len(threads) - len(feeds.writers) :]
            runner = StepRunner(lab, made, journal, on_progress, threads, origin_ns)
            running.callback(runner.undo_all)
            results = tuple(runner.carry_out(step, f"{n}/{len(steps)}") for n, step in enumerate(steps, 1))
            if feeds.after:
                runner.undo_all()
                stop(writers)
                if writers:
                    wait.pass_time(SETTLED_S, clock=lab.clock)
            for feed in feeds.after:
                on_progress(f"running {feed.name}")
                follow(feed, journal)
        on_progress("comparing the lab with its state before the run")
        _look_after(lab, before, journal)
        if isinstance(lab, HasTrace):
            lab.write_trace(run_dir / run_directory.TRACE)
        journal.info("run", "end", dict(lab.trace()) if isinstance(lab, HasTrace) else None)
    return RunResult(run_dir, results)


def _look_after(lab: Lab, before: Audit, journal: Journal) -> None:
    """The last thing a run does. If the lab can no longer be inspected, the check ``audit`` says so.

    A lab that lost nodes is not compared: it cannot become as it was.
    """
    try:
        if lost := lab.lost() if isinstance(lab, CanLoseNodes) else {}:
            for node, why in lost.items():
                journal.info("lab", "lost", {"node": node, "why": why})
            raise LabError(f"the lab lost {' and '.join(lost)}")
        journal.info("audit", "audit", aftermath(lab, before, AUDIT_WITHIN_S))
    except LabError as error:
        journal.record(Entry(lab.now_ns(), "audit", "info", "audit", {}, str(error)))


def _start(scenario: Scenario, seed: int, lab: Lab, origin_ns: int) -> dict[str, Any]:
    cluster = asdict(lab.cluster)
    warm_up = {"warm_up_ms": 1000 * scenario.load.warm_up_s} if scenario.load and scenario.load.warm_up_s else {}
    return {
        "origin_ns": origin_ns,
        "scenario": scenario.name,
        "seed": seed,
        "cluster": cluster,
        "clock": lab.clock.kind,
        "load": scenario.load.model_dump(mode="json") if scenario.load else None,
        **warm_up,
    }


def _check_owners(steps: Sequence[Step], lab: Lab, scenario: Scenario) -> None:
    """Refuse a condition on a VIP or a director that the lab does not have. Raises ScenarioError."""
    for step in steps:
        for vip, node in step.until.owners.items() if step.until else ():
            for kind, word, known in (("VIP", vip, lab.cluster.vips), ("director", node, lab.cluster.directors)):
                if word not in known:
                    where = f"scenario {scenario.name}: step {step.name!r}: owners"
                    raise ScenarioError(f"{where}: {unknown(kind, word, known)}")


def _make_faults(steps: Sequence[Step], faults: Faults, lab: Lab, scenario: Scenario, seed: int) -> dict[str, Fault]:
    """Each label -> its fault. Raises ScenarioError or LabError."""
    made: dict[str, Fault] = {}
    for step in steps:
        if isinstance(step.action, Inject):
            action, where = step.action, f"scenario {scenario.name}: step {step.name!r}: "
            fault = catalogue.make(action.fault, action.settings, faults, seed, action.label, where)
            reason = fault.available(lab)
            if reason is not None:
                raise LabError(f"this lab cannot inject {step.action.fault} (step {step.name!r}): {reason}")
            made[step.action.label] = fault
    return made


@contextmanager
def _captured(scenario: Scenario, lab: Lab, run_dir: Path) -> Iterator[None]:
    if scenario.capture is None:
        yield
        return
    capture = lab.capture(str(run_dir / run_directory.CAPTURE), scenario.capture.segments, scenario.capture.filter)
    try:
        yield
    finally:
        capture.stop()
