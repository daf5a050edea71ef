"""Running a scenario, and recording all that happens. ``stored.py`` judges it; both share only the run directory."""

from __future__ import annotations

import copy
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ValidationError

from harness import history, wait
from harness.artifacts import run_directory
from harness.audit import Audit, aftermath
from harness.interrupts import deferring_signals
from harness.plan import Condition, Heal, Inject, Step, plan
from harness.protocols import Fault, Feed, Lab, Stream
from harness.records import Entry, LabError, Proof
from harness.scenario import Scenario, ScenarioError, first_mistake, suggestion

__all__ = ["Faults", "RunResult", "StepResult", "run"]

Faults = Mapping[str, Callable[..., Fault]]
"""The registry of faults: a name -> what makes the fault of its settings."""

Progress = Callable[[str], None]

STATUS_EVERY_S = 0.5
"""A status costs about 0.1 s of CPU on every director."""

TOLD_EVERY_S = 30.0
"""Who watches a long wait learns this often how it goes."""

READY_EVERY_S = 0.2
FEED_START_S = 10.0
FEED_STOP_S = 5.0
"""How long a feed may take to end once its stream was stopped."""

AUDIT_WITHIN_S = 120.0
"""After the last undo addresses come home and services start; a run that waited for a steady state is done at once."""

NODE_BACK_S = 3600.0
"""How long a lost feed waits for its node; longer than any run, and there only to bound the wait."""

SETTLED_S = 2.0
"""After the load's end, until everything is read: what was under way at its end may still be written."""

LOAD = "load"
"""The feed of the load, wherever it is from; those of its workers are named after it."""


@dataclass(frozen=True)
class StepResult:
    """What came of one step. ``met`` is None when nobody knows, because the lab could not do what the step says."""

    name: str
    met: bool | None
    why: str
    """Empty when all of it went well."""
    took_ms: int


@dataclass(frozen=True)
class RunResult:
    """A run that ended by itself; whether the cluster held is for ``stored.conclude`` to say."""

    directory: Path
    steps: tuple[StepResult, ...]

    @property
    def missed(self) -> tuple[StepResult, ...]:
        """The steps that did not go as planned."""
        return tuple(step for step in self.steps if not step.met)


class Readings(Protocol):
    """Feeds that read the site's data, and end by themselves."""

    def first(self) -> Feed:
        """What there is before anything is done."""

    def final(self, uploads: Sequence[str]) -> Feed:
        """What everything has come to, those uploads among it."""


def run(  # noqa: PLR0913, PLR0917 - each is a seam that tests replace
    scenario: Scenario,
    lab: Lab,
    faults: Faults,
    feeds: Sequence[Feed],
    run_dir: Path,
    on_progress: Progress = lambda _: None,
    *,
    seed: int | None = None,
    clock: wait.Clock = wait.REAL,
    readings: Readings | None = None,
    afterwards: Sequence[Feed] = (),
) -> RunResult:
    """Carry out a scenario and record all that happens to ``history.jsonl`` in ``run_dir``.

    1. Plan the steps, and make their faults: nothing starts if one of them cannot be done.
    2. Open the history, and say in its first op what the run is of.
    3. Start the capture, if the scenario asks for one.
    4. Read what there is at the beginning, if the load is one whose data will be checked (``readings``).
    5. Start every feed (the lab's observers, and ``feeds``), and keep them going. Nothing is done to the lab before
       each of them has begun.
    6. Carry out the steps. One that goes wrong is recorded, and the run goes on.
    7. Undo what is still injected, the latest fault first. This and the rest happen also if the run is interrupted.
    8. Stop the load, and read everything once more, if there are ``readings``.
    9. Follow the feeds that come ``afterwards``, one by one, to their ends; stop the others, then the capture.
    10. Compare the lab with how it was at the beginning, and say what is left, and how the cluster is.
    11. Say in the last op that the run ended by itself, and close the history.

    ``seed`` overrides the scenario's own. Raises ScenarioError for a fault that there is not or that is set wrongly,
    LabError for one that this lab cannot do or when nothing can be recorded.
    """
    seed = scenario.scenario.seed if seed is None else seed
    steps = plan(scenario, seed)
    made = _make_faults(steps, faults, lab, scenario, seed)
    _check_owners(steps, lab, scenario)
    origin_ns = lab.now_ns()
    with history.Recorder(run_dir / run_directory.HISTORY, origin_ns) as recorder:
        journal = _Journal(recorder, lab)
        journal.info("run", "start", _start(scenario, seed, lab, origin_ns), at_ns=origin_ns)
        before = lab.audit()
        with ExitStack() as running:
            running.enter_context(_captured(scenario, lab, run_dir))
            if readings:
                _read(readings.first(), journal, on_progress)
            pumps = running.enter_context(_pumped([*lab.observers(), *feeds], journal, clock))
            ground = StepRunner(lab, made, journal, clock, on_progress, pumps, _askers(scenario))
            running.callback(ground.undo_all)
            results = tuple(ground.carry_out(step, f"{n}/{len(steps)}") for n, step in enumerate(steps, 1))
            if readings:
                ground.undo_all()
                _end_load(pumps)
                wait.pass_time(SETTLED_S, clock=clock)
                _read(readings.final(_uploads_tried(run_dir / run_directory.HISTORY)), journal, on_progress)
            if afterwards:
                ground.undo_all()
            for feed in afterwards:
                _read(feed, journal, on_progress)
        on_progress("comparing the lab with how it was")
        _look_after(lab, before, journal, clock)
        journal.info("run", "end")
    return RunResult(run_dir, results)


def _look_after(lab: Lab, before: Audit, journal: _Journal, clock: wait.Clock) -> None:
    """The last thing a run does. A lab that cannot be looked at any more is for the check to miss."""
    try:
        journal.info("audit", "audit", aftermath(lab, before, AUDIT_WITHIN_S, clock))
    except LabError as error:
        journal.record(Entry(lab.now_ns(), "audit", "info", "audit", {}, str(error)))


def _askers(scenario: Scenario) -> int:
    """How many processes ask what is planned."""
    return max(scenario.load.workers, 1) if scenario.load and scenario.load.planned else 0


def _end_load(pumps: Sequence[FeedThread]) -> None:
    for pump in pumps:
        if pump.feed.name == LOAD:
            pump.stop()
            pump.join()


def _uploads_tried(path: Path) -> list[str]:
    """The names of all uploads that were tried so far, answered or not."""
    ops = history.load(path).of("upload")
    return sorted({op["name"] for op in ops if op.type == "invoke"})


def _read(feed: Feed, journal: _Journal, on_progress: Progress) -> None:
    """Follow a feed that ends by itself. What cannot be read is for the checks to miss."""
    on_progress(f"reading: {feed.name}")
    try:
        stream = feed.open()
        journal.info(feed.name, "feed", {"phase": "open"})
        try:
            for line in stream:
                for entry in feed.entries(line):
                    journal.record(entry)
        finally:
            stream.stop()
        journal.info(feed.name, "feed", {"phase": "closed"})
    except LabError as error:
        journal.info(feed.name, "feed", {"phase": "dropped", "why": str(error)})


def _start(scenario: Scenario, seed: int, lab: Lab, origin_ns: int) -> dict[str, Any]:
    cluster = {f.name: getattr(lab.cluster, f.name) for f in fields(lab.cluster)}
    for name in ("vips", "macs"):
        cluster[name] = dict(cluster[name])
    warm_up = {"warm_up_ms": 1000 * scenario.load.warm_up_s} if scenario.load and scenario.load.warm_up_s else {}
    return {"origin_ns": origin_ns, "scenario": scenario.name, "seed": seed, "cluster": cluster, **warm_up}


def _check_owners(steps: Sequence[Step], lab: Lab, scenario: Scenario) -> None:
    """A condition on a VIP or a director that the lab does not have could never be met. Raises ScenarioError."""
    for step in steps:
        for vip, node in step.until.owners.items() if step.until else ():
            for word, known in ((vip, lab.cluster.vips), (node, lab.cluster.directors)):
                if word not in known:
                    where = f"scenario {scenario.name}: step {step.name!r}: owners"
                    raise ScenarioError(f"{where}: this lab has no {word} ({suggestion(word, known)})")


def _make_faults(steps: Sequence[Step], faults: Faults, lab: Lab, scenario: Scenario, seed: int) -> dict[str, Fault]:
    """Each label -> its fault. Raises ScenarioError or LabError."""
    made: dict[str, Fault] = {}
    for step in steps:
        if isinstance(step.action, Inject):
            fault = _make_fault(step.action, faults, f"scenario {scenario.name}: step {step.name!r}", seed)
            reason = fault.available(lab)
            if reason is not None:
                raise LabError(f"this lab cannot do {step.action.fault} (step {step.name!r}): {reason}")
            made[step.action.label] = fault
    return made


def _make_fault(inject: Inject, faults: Faults, where: str, seed: int) -> Fault:
    if inject.fault not in faults:
        near = suggestion(inject.fault, kin(inject.fault, faults))
        raise ScenarioError(f"{where}: inject: there is no fault {inject.fault} ({near})")
    make = faults[inject.fault]
    try:
        return make(**_seeded(make, inject, seed))
    except ValidationError as error:
        model = make if isinstance(make, type) and issubclass(make, BaseModel) else BaseModel
        raise ScenarioError(f"{where}: {first_mistake(error, model, under=('with',))}") from error


def kin(name: str, faults: Iterable[str]) -> list[str]:
    """The faults of the family that a name is of, or all of them if it is of none. Pure."""
    family = name.partition(".")[0]
    known = sorted(faults)
    return [each for each in known if each.partition(".")[0] == family] or known


def _seeded(make: Callable[..., Fault], inject: Inject, seed: int) -> dict[str, Any]:
    """The settings, with a seed for a fault that draws: the run's and the label's, unless the scenario gives one."""
    settings = dict(inject.settings)
    if "seed" in getattr(make, "model_fields", {}):
        settings.setdefault("seed", zlib.crc32(f"{seed} {inject.label}".encode()))
    return settings


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


class _Journal:
    """The run's own ops, stamped with the lab's clock."""

    def __init__(self, recorder: history.Recorder, lab: Lab) -> None:
        self.record = recorder.record
        self._lab = lab

    def info(self, process: str, f: str, value: object = None, at_ns: int | None = None) -> None:
        self.record(Entry(self._lab.now_ns() if at_ns is None else at_ns, process, "info", f, value))


class FeedThread:
    """One feed, brought line by line into the history by a thread of its own, and opened again when it is lost."""

    def __init__(self, feed: Feed, journal: _Journal, clock: wait.Clock) -> None:
        self.failure: Exception | None = None
        """What ended it, if not ``stop``: a run that is not recorded is not worth going on."""
        self.feed = feed
        self.over = False
        """A load has said that it has asked all that it had planned."""
        self._journal = journal
        self._clock = clock
        self._stopping = threading.Event()
        self._begun = threading.Event()
        self._stream: Stream | None = None
        self._changing = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=f"feed {feed.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def begun(self) -> None:
        """Wait until the feed was opened, or its node found missing. One that hangs is for the checks to miss."""
        self._begun.wait(FEED_START_S)

    def stop(self) -> None:
        """End the stream; ``join`` waits for what it still has to say."""
        with self._changing:
            self._stopping.set()
            stream = self._stream
        if stream is not None:
            stream.stop()

    def join(self) -> None:
        """Wait for the thread. One that does not end is left behind, and the history says so."""
        if self._thread.ident is None:
            return
        self._thread.join(FEED_STOP_S)
        if self._thread.is_alive():
            self._note("dropped", f"it did not end within {FEED_STOP_S:g} s of being stopped")

    def _work(self) -> None:
        try:
            while not self._stopping.is_set():
                self._follow()
        except Exception as error:  # whatever it is, the run has to hear of it
            self.failure = error
            self._begun.set()
            if not isinstance(error, history.HistoryError):
                self._note("dropped", f"{type(error).__name__}: {error}")

    def _follow(self) -> None:
        """Once from opening the stream to its end."""
        if not self._opened():
            return
        self._note("open")
        self._begun.set()
        why = None
        try:
            for line in self._stream or ():
                for entry in self.feed.entries(line):
                    self._journal.record(entry)
                    self.over |= _says_over(entry)
        except LabError as error:
            why = str(error)
        if self._stopping.is_set():
            self._note("closed")
            return
        self._note("lost", why)
        # A program that ends as soon as it starts must not be started thousands of times a second.
        wait.pass_time(READY_EVERY_S, self._stopping.is_set, clock=self._clock)

    def _opened(self) -> bool:
        """True once the feed's stream is open, False if the run stops before. A node can go between ready and open."""

        def ready() -> bool:
            if self._stopping.is_set():
                return True
            try:
                if self.feed.ready():
                    return self._open()
            except LabError as error:
                self._begun.set()
                raise wait.NotYet(str(error)) from error
            self._begun.set()
            return False

        wait.until(ready, NODE_BACK_S, f"the node of {self.feed.name}", READY_EVERY_S, self._clock)
        return not self._stopping.is_set()

    def _open(self) -> bool:
        stream = self.feed.open()
        with self._changing:
            self._stream = stream
            stopping = self._stopping.is_set()
        if stopping:
            stream.stop()
        return True

    def _note(self, phase: Literal["open", "lost", "closed", "dropped"], why: str | None = None) -> None:
        self._journal.info(self.feed.name, "feed", _given({"phase": phase, "why": why}))


def _says_over(entry: Entry) -> bool:
    """Whether it is a load's word that all is over."""
    return entry.f == "plan" and isinstance(entry.value, dict) and entry.value.get("phase") == "over"


@contextmanager
def _pumped(feeds: Sequence[Feed], journal: _Journal, clock: wait.Clock) -> Iterator[Sequence[FeedThread]]:
    pumps = [FeedThread(feed, journal, clock) for feed in feeds]
    try:
        for pump in pumps:
            pump.start()
        for pump in pumps:
            pump.begun()
        yield pumps
    finally:
        for pump in pumps:
            pump.stop()
        for pump in pumps:
            pump.join()


@dataclass(frozen=True)
class Injected:
    """A fault that is in: how to undo it, its proof, and what the proof's detail was then."""

    context: AbstractContextManager[Proof]
    proof: Proof
    detail: Mapping[str, Any]

    def learned(self) -> dict[str, Any]:
        """What the fault has added to its detail since, such as all decisions of a middlebox."""
        return {name: value for name, value in self.proof.detail.items() if value != self.detail.get(name)}


class ThrottledProgress:
    """Says how a long wait goes, every ``TOLD_EVERY_S``."""

    def __init__(self, on_progress: Progress, clock: wait.Clock) -> None:
        self._on_progress, self._clock = on_progress, clock
        self._last_s = clock.now()

    def say(self, text: Callable[[], str]) -> None:
        """Say it, if the last time is long enough ago."""
        if self._clock.now() - self._last_s >= TOLD_EVERY_S:
            self._last_s = self._clock.now()
            self._on_progress(text())


@dataclass
class StepRunner:
    """Where steps are carried out: the lab, and what is injected into it right now."""

    lab: Lab
    faults: Mapping[str, Fault]
    journal: _Journal
    clock: wait.Clock
    on_progress: Progress
    pumps: Sequence[FeedThread]
    askers: int
    injected: dict[str, Injected] = field(default_factory=dict)
    """Each label -> the entered fault, in the order of injection."""

    def carry_out(self, step: Step, number: str) -> StepResult:
        """One step: do, wait, then let time pass. What goes wrong in the lab is recorded, not raised.

        Its end is when its condition came true, or was given up; the time that passes afterwards is not part of what
        its deadline limits, and ends with ``held``.
        """
        what = f"[{number}] {step.name}"
        self.on_progress(what)

        def say(more: str) -> None:
            self.on_progress(f"{what}: {more}")

        within_ms = None if step.until is None else round(step.until.within_s * 1000)
        started_ns = self.lab.now_ns()
        self._note_step(step, "begin", within_ms=within_ms)
        met, why = self._do(step, self.clock.now(), say)
        took_ms = (self.lab.now_ns() - started_ns) // 1_000_000
        result = StepResult(step.name, met, why, took_ms)
        self._note_step(step, "end", met=met, why=why, within_ms=within_ms, took_ms=took_ms)
        if why:
            say(why)
        if step.hold_s:  # also after a missed condition: what comes late is worth seeing
            self._hold(step.hold_s, say)
            self._note_step(step, "held")
        self._raise_failure()
        return result

    def undo_all(self) -> None:
        """Undo what is injected, the latest first. A fault that cannot be undone does not keep the others."""
        with ExitStack() as stack:
            for label in self.injected:
                stack.callback(self._heal_or_tell, label)

    def _hold(self, hold_s: float, say: Progress) -> None:
        """Let time pass, and say how much of it has."""
        began_s, rarely = self.clock.now(), ThrottledProgress(say, self.clock)

        def interrupted() -> bool:
            rarely.say(lambda: f"{self.clock.now() - began_s:,.0f} of {hold_s:,.0f} s")
            return any(pump.failure for pump in self.pumps)

        wait.pass_time(hold_s, interrupted, clock=self.clock)

    def _do(self, step: Step, began_s: float, say: Progress) -> tuple[bool | None, str]:
        """-> whether the step came true, and why not. Its deadline counts from its beginning, not that of the wait."""
        try:
            self._act(step.action)
        except LabError as error:
            return None, str(error)
        if step.until is None:
            return True, ""
        gone_s = self.clock.now() - began_s
        try:
            self._await(step, step.until, max(0.0, step.until.within_s - gone_s), say)
        except LabError as error:
            return False, str(error)
        return True, ""

    def _act(self, action: Inject | Heal | None) -> None:
        match action:
            case Inject():
                self._inject(action)
            case Heal(label=label):
                self._heal(label)

    def _inject(self, inject: Inject) -> None:
        note = self._fault_notes(inject.label)
        note("start")
        context = self.faults[inject.label].inject(self.lab)
        try:
            with deferring_signals():
                proof = context.__enter__()
                self.injected[inject.label] = Injected(context, proof, copy.deepcopy(dict(proof.detail)))
        except LabError as error:
            note("failed", why=str(error))
            raise
        note("proof", at_ns=proof.time_ns, seen=proof.seen, **proof.detail)

    def _heal(self, label: str) -> None:
        if label not in self.injected:
            raise LabError(f"{label} is not injected, so there is nothing to heal")
        note = self._fault_notes(label)
        injected = self.injected.pop(label)
        try:
            with deferring_signals():
                injected.context.__exit__(None, None, None)
        except LabError as error:
            note("failed", why=str(error))
            raise
        note("end", **injected.learned())

    def _heal_or_tell(self, label: str) -> None:
        self.on_progress(f"undoing {label}")
        try:
            self._heal(label)
        except LabError as error:
            self.on_progress(f"{label} could not be undone: {error}")

    def _await(self, step: Step, condition: Condition, within_s: float, say: Progress) -> None:
        told, began_s, rarely = "", self.clock.now(), ThrottledProgress(say, self.clock)

        def holds() -> bool:
            nonlocal told
            self._raise_failure()
            try:
                problems = self._unasked() if condition.asked else _missing(condition, self.lab)
            except LabError as error:
                problems = str(error)
            if problems and problems != told:
                # what a wait is for belongs to the evidence, also where it ends well
                told = problems
                self._note_step(step, "waiting", why=problems)
            if problems:
                rarely.say(lambda: f"{problems}; {self.clock.now() - began_s:,.0f} of at most {within_s:,.0f} s")
                raise wait.NotYet(problems)
            return True

        wait.until(holds, within_s, f"a moment when {condition}", STATUS_EVERY_S, self.clock)

    def _unasked(self) -> str:
        """Which part of the load still has something to ask, or nothing."""
        done = sum(pump.over for pump in self.pumps if pump.feed.name.partition(":")[0] == LOAD)
        return "" if done >= self.askers else f"{done} of {self.askers} processes of the load have asked all"

    def _raise_failure(self) -> None:
        """End the run when a feed broke (not: was lost): what is not recorded cannot be judged."""
        for pump in self.pumps:
            if pump.failure is not None:
                raise LabError(f"the run cannot be recorded any more: {pump.failure}") from pump.failure

    def _note_step(self, step: Step, phase: str, **more: object) -> None:
        self.journal.info("run", "step", {"step": step.name, "phase": phase, **_given(more)})

    def _fault_notes(self, label: str) -> Callable[..., None]:
        fault = self.faults[label]
        settings = fault.model_dump() if hasattr(fault, "model_dump") else {}

        def note(phase: str, at_ns: int | None = None, **more: object) -> None:
            value = {"fault": fault.name, "phase": phase, **settings, **more}
            self.journal.info(f"fault:{label}", "fault", value, at_ns)

        return note


def _missing(condition: Condition, lab: Lab) -> str:
    """What keeps the condition from being so, or nothing."""
    wanted = condition.owners or (lab.cluster.vips if lab.cluster.auto_failback else {})
    held = lab.owners()
    away = [
        f"{vip} is held by {' and '.join(held.get(vip, ())) or 'nobody'}"
        for vip, node in wanted.items()
        if held.get(vip, ()) != (node,)
    ]
    # the parts are asked once the VIPs are where they belong: asking costs the directors what a takeover needs
    return "; ".join(away or (() if condition.owners else lab.status().problems))


def _given(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}
