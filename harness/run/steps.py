"""Carrying out the steps of a plan on a lab: inject or heal, wait for a condition, let time pass."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from harness import wait
from harness.interrupts import deferring_signals
from harness.plan import Condition, Heal, Inject, Step
from harness.protocols import Fault, Lab
from harness.records import LabError, Proof
from harness.run.feeds import FeedThread
from harness.run.journal import Journal, given

__all__ = ["Progress", "StepResult", "StepRunner", "ThrottledProgress"]

Progress = Callable[[str], None]

STATUS_EVERY_S = 0.5
"""A status costs about 0.1 s of CPU on every director."""

REPORT_EVERY_S = 30.0
"""How often a long wait reports its progress."""


@dataclass(frozen=True)
class StepResult:
    """The result of one step."""

    name: str
    met: bool | None
    """None when the lab could not do what the step demands."""
    why: str
    """Why the step did not go as planned; empty when it did."""
    took_ms: int


@dataclass(frozen=True)
class Injected:
    """A fault that is injected now: how to undo it, its proof, and a copy of the proof's detail at the injection."""

    context: AbstractContextManager[Proof]
    proof: Proof
    detail: Mapping[str, Any]

    def learned(self) -> dict[str, Any]:
        """What the fault has added to its detail since, such as all decisions of a message filter."""
        return {name: value for name, value in self.proof.detail.items() if value != self.detail.get(name)}


class ThrottledProgress:
    """Reports how a long wait goes, once every ``REPORT_EVERY_S``."""

    def __init__(self, on_progress: Progress, clock: wait.Clock) -> None:
        self._on_progress, self._clock = on_progress, clock
        self._began_s = self._last_s = clock.now()

    def report(self, text: Callable[[float], str]) -> None:
        """Report what ``text`` makes of the seconds since the wait began, unless the last report is too recent."""
        now_s = self._clock.now()
        if now_s - self._last_s >= REPORT_EVERY_S:
            self._last_s = now_s
            self._on_progress(text(now_s - self._began_s))


@dataclass
class StepRunner:
    """Carries out steps on a lab, and knows which faults are injected right now."""

    lab: Lab
    faults: Mapping[str, Fault]
    """Each label -> its fault."""
    journal: Journal
    on_progress: Progress
    feeds: Sequence[FeedThread]
    origin_ns: int = 0
    """The beginning of the run, on the lab's clock."""
    injected: dict[str, Injected] = field(default_factory=dict)
    """Each label -> the injected fault, in the order of injection."""

    def carry_out(self, step: Step, number: str) -> StepResult:
        """Wait for the step's time, do what it says, wait for its condition, then let time pass.

        A LabError is recorded, not raised. A step whose turn comes after its time is done at once.

        The step ends when its condition became true or its deadline passed. The time that it holds comes after that
        and does not count towards the deadline; it ends with ``held``.
        """
        title = f"[{number}] {step.name}"
        self.on_progress(title)

        def report(text: str) -> None:
            self.on_progress(f"{title}: {text}")

        if step.at_s is not None:
            self._hold((self.origin_ns + round(step.at_s * 1e9) - self.lab.now_ns()) / 1e9, report)
            self._raise_failure()
        within_ms = None if step.until is None else round(step.until.within_s * 1000)
        started_ns = self.lab.now_ns()
        self._note_step(step, "begin", within_ms=within_ms)
        met, why = self._act_and_wait(step, report)
        took_ms = (self.lab.now_ns() - started_ns) // 1_000_000
        self._note_step(step, "end", met=met, why=why, within_ms=within_ms, took_ms=took_ms)
        if why:
            report(why)
        if step.hold_s:  # after a missed condition as well: what happens late belongs to the evidence
            self._hold(step.hold_s, report)
            self._note_step(step, "held")
        self._raise_failure()
        return StepResult(step.name, met, why, took_ms)

    def undo_all(self) -> None:
        """Undo all injected faults, the latest first. If one cannot be undone, the others still are."""
        with ExitStack() as stack:
            for label in self.injected:
                stack.callback(self._undo, label)

    def _undo(self, label: str) -> None:
        self.on_progress(f"undoing {label}")
        try:
            self._heal(label)
        except LabError as error:
            self.on_progress(f"{label} could not be undone: {error}")

    def _hold(self, hold_s: float, report: Progress) -> None:
        """Let time pass, and report how much of it has; nothing for a time that is over."""
        if hold_s <= 0:
            return
        progress = ThrottledProgress(report, self.lab.clock)

        def interrupted() -> bool:
            progress.report(lambda gone_s: f"{gone_s:,.0f} of {hold_s:,.0f} s")
            return any(thread.failure for thread in self.feeds)

        wait.pass_time(hold_s, interrupted, clock=self.lab.clock)

    def _act_and_wait(self, step: Step, report: Progress) -> tuple[bool | None, str]:
        """-> whether the step's condition became true, and why not. Its deadline counts from the step's beginning."""
        began_s = self.lab.clock.now()
        try:
            self._act(step.action)
        except LabError as error:
            return None, str(error)
        if step.until is None:
            return True, ""
        left_s = max(0.0, step.until.within_s - (self.lab.clock.now() - began_s))
        try:
            self._wait_for(step, step.until, left_s, report)
        except LabError as error:
            return False, str(error)
        return True, ""

    def _act(self, action: Inject | Heal | None) -> None:
        match action:
            case Inject(label=label):
                self._inject(label)
            case Heal(label=label):
                self._heal(label)

    def _inject(self, label: str) -> None:
        note, fault = self._fault_notes(label), self.faults[label]
        note("start")
        try:
            effects = [asdict(effect) for effect in fault.effects(self.lab)]
            context = fault.inject(self.lab)
            with deferring_signals():
                proof = context.__enter__()
                self.injected[label] = Injected(context, proof, copy.deepcopy(dict(proof.detail)))
        except LabError as error:
            note("failed", why=str(error))
            raise
        note("proof", at_ns=proof.time_ns, seen=proof.seen, effects=effects, **proof.detail)

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

    def _wait_for(self, step: Step, condition: Condition, within_s: float, report: Progress) -> None:
        noted, progress = "", ThrottledProgress(report, self.lab.clock)

        def holds() -> bool:
            nonlocal noted
            self._raise_failure()
            try:
                obstacle = self._unsent() if condition.asked else _obstacle(condition, self.lab)
            except LabError as error:
                obstacle = str(error)
            if not obstacle:
                return True
            if obstacle != noted:
                # each reason to wait belongs to the evidence, even if the wait ends well
                noted = obstacle
                self._note_step(step, "waiting", why=obstacle)
            progress.report(lambda gone_s: f"{obstacle}; {gone_s:,.0f} of at most {within_s:,.0f} s")
            raise wait.NotYet(obstacle)

        wait.until(holds, within_s, condition.goal, STATUS_EVERY_S, self.lab.clock)

    def _unsent(self) -> str:
        """Which planned feeds still have requests to send; empty when none has."""
        planned = [thread for thread in self.feeds if thread.planned]
        if not planned:
            return "no feed of this run has a plan"
        left = [thread.feed.name for thread in planned if not thread.over]
        return f"still sending planned requests: {', '.join(left)}" if left else ""

    def _raise_failure(self) -> None:
        """End the run when a feed broke (not: was lost): what is not recorded cannot be judged."""
        for thread in self.feeds:
            if thread.failure is not None:
                raise LabError(f"the run can no longer be recorded: {thread.failure}") from thread.failure

    def _note_step(self, step: Step, phase: str, **more: object) -> None:
        self.journal.info("run", "step", {"step": step.name, "phase": phase, **given(more)})

    def _fault_notes(self, label: str) -> Callable[..., None]:
        fault = self.faults[label]
        settings = fault.model_dump() if hasattr(fault, "model_dump") else {}

        def note(phase: str, at_ns: int | None = None, **more: object) -> None:
            value = {"fault": fault.name, "phase": phase, **settings, **more}
            self.journal.info(f"fault:{label}", "fault", value, at_ns)

        return note


def _obstacle(condition: Condition, lab: Lab) -> str:
    """What keeps the condition from being true; empty when it is."""
    wanted = condition.owners or (lab.cluster.vips if lab.cluster.auto_failback else {})
    owners = lab.owners()
    misplaced = [
        f"{vip} is held by {' and '.join(owners.get(vip, ())) or 'no director'}"
        for vip, node in wanted.items()
        if owners.get(vip, ()) != (node,)
    ]
    # all parts are asked once the VIPs are in place: asking costs the directors CPU time that a takeover needs
    return "; ".join(misplaced or (() if condition.owners else lab.status().problems))
