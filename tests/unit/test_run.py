from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from faults import FAULTS
from harness import history
from harness.artifacts.stored_run import conclude
from harness.fake import Defect, FakeFeed, FakeLab, FakeStream
from harness.history import History
from harness.history.timeline import faults as fault_windows
from harness.protocols import Feed, Lab, Stream
from harness.records import Entry, LabError, Line, Proof
from harness.run import Faults, RunResult, run
from harness.scenario import Scenario, ScenarioError, load, parse
from harness.verdict import Outcome, overall

POWER_CUT = Path(__file__).parents[1] / "chaos" / "director-power-cut.toml"
VIP = "203.0.113.101"


def scenario(*steps: dict[str, Any], **tables: Any) -> Scenario:
    about = {"name": "s", "title": "t", "expectation": "p", "seed": 5}
    named = [{"name": f"step {number}", **step} for number, step in enumerate(steps)]
    return parse({"scenario": about, "steps": named, **tables}, "s.toml")


@dataclass
class Trace:
    """What faults did, in order."""

    done: list[str] = field(default_factory=list)


@dataclass
class Scratch:
    """A fault that only writes down what it does."""

    trace: Trace
    label: str
    name: str = "test.scratch"
    broken_in: bool = False
    broken_out: bool = False
    refusal: str | None = None
    meanwhile: Callable[[], None] = lambda: None

    def available(self, lab: Lab) -> str | None:  # noqa: ARG002 - the protocol's signature
        return self.refusal

    @contextmanager
    def inject(self, lab: Lab) -> Iterator[Proof]:
        if self.broken_in:
            raise LabError(f"{self.label} has no effect")
        self.trace.done.append(f"+{self.label}")
        scratched = [1]
        try:
            yield Proof(lab.now_ns(), "a scratch", {"target": "lb-1", "scratched": scratched})
        finally:
            scratched.append(2)
            self.meanwhile()
            self.trace.done.append(f"-{self.label}")
            if self.broken_out:
                raise LabError(f"{self.label} stays")


def inject(label: str, **more: Any) -> dict[str, Any]:
    return {"inject": "test.scratch", "as": label, "with": {"label": label}, **more}


def scratches(trace: Trace, **of_label: Mapping[str, Any]) -> Faults:
    return {"test.scratch": lambda label: Scratch(trace, label, **of_label.get(label, {}))}


def carried_out(
    tmp_path: Path, told: Scenario, faults: Faults, lab: FakeLab | None = None, **more: Any
) -> tuple[RunResult, History]:
    lab = lab or FakeLab()
    result = run(told, lab, faults, more.pop("feeds", ()), tmp_path, clock=lab.clock, **more)
    return result, history.load(tmp_path / "history.jsonl")


def judged(tmp_path: Path, defect: Defect | None) -> tuple[dict[str, Outcome], Outcome]:
    told, lab = load(POWER_CUT), FakeLab(defect=defect)
    run(told, lab, FAULTS, lab.feeds(told.load), tmp_path, clock=lab.clock)
    verdicts = conclude(tmp_path, told)
    return {each.check: each.outcome for each in verdicts}, overall(verdicts)


# --- the power cut, end to end


def test_long_waits_tell_how_they_go(tmp_path: Path) -> None:
    """A hold of 100 s, and a condition that does not come within 70 s."""
    lab, said = FakeLab(), list[str]()
    never = {"name": "never", "until": "owned", "owners": {"203.0.113.101": "lb-2"}, "within_s": 70}
    told = scenario({"name": "soak", "hold_s": 100}, never)
    run(told, lab, FAULTS, (), tmp_path, said.append, clock=lab.clock)
    assert [line for line in said if "soak" in line] == [
        "[1/2] soak",
        "[1/2] soak: 30 of 100 s",
        "[1/2] soak: 60 of 100 s",
        "[1/2] soak: 90 of 100 s",
    ]
    first, second = [line for line in said if "at most 70 s" in line]
    assert first == "[2/2] never: 203.0.113.101 is held by lb-1; 30 of at most 70 s"
    assert second.endswith("60 of at most 70 s")


def test_a_right_cluster_is_valid_and_all_of_it_is_on_disk(tmp_path: Path) -> None:
    told, lab, said = load(POWER_CUT), FakeLab(), list[str]()
    result = run(told, lab, FAULTS, lab.feeds(told.load), tmp_path, said.append, clock=lab.clock)
    assert result.missed == ()
    assert [step.name for step in result.steps] == [step.name for step in told.steps]
    assert said == [
        *(f"[{number}/4] {step.name}" for number, step in enumerate(told.steps, 1)),
        "comparing the lab with how it was",
    ]
    (audit,) = history.load(tmp_path / "history.jsonl").of("audit")
    assert audit["left"] == []

    verdicts = conclude(tmp_path, told)
    assert {each.check: each.outcome for each in verdicts} == dict.fromkeys(
        ("ownership", "outage", "established", "recovery", "audit"), "valid"
    )
    judgement = json.loads((tmp_path / "verdict.json").read_text())
    assert judgement["outcome"] == "valid"
    assert "<html" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "capture.pcapng").exists()
    assert lab.status().healthy

    ops = history.load(tmp_path / "history.jsonl")
    assert {"holds", "power", "arp", "log", "http", "get", "step", "fault", "feed"} <= {op.f for op in ops}
    assert (tmp_path / "report.html").stat().st_mtime_ns >= (tmp_path / "history.jsonl").stat().st_mtime_ns


def test_concluding_again_needs_no_lab_and_says_the_same(tmp_path: Path) -> None:
    first = judged(tmp_path, None)
    before = (tmp_path / "verdict.json").read_bytes()
    (tmp_path / "verdict.json").unlink()
    again = conclude(tmp_path, load(POWER_CUT))
    assert overall(again) is first[1]
    assert (tmp_path / "verdict.json").read_bytes() == before


@pytest.mark.parametrize(
    ("defect", "check", "outcome", "whole"),
    [
        (Defect.NEVER_TAKES_OVER, "ownership", Outcome.INVALID, {Outcome.INVALID}),
        (Defect.TAKES_OVER_LATE, "outage", Outcome.INVALID, {Outcome.INVALID}),
        (Defect.BOTH_HOLD, "ownership", Outcome.INVALID, {Outcome.INVALID}),
        (Defect.PROBE_DIES, "outage", Outcome.UNKNOWN, {Outcome.UNKNOWN}),
        (Defect.FAULT_WITHOUT_EFFECT, "recovery", Outcome.UNKNOWN, {Outcome.UNKNOWN, Outcome.INVALID}),
    ],
)
def test_a_defect_is_never_called_valid(
    tmp_path: Path, defect: Defect, check: str, outcome: Outcome, whole: set[Outcome]
) -> None:
    outcomes, summed_up = judged(tmp_path, defect)
    assert outcomes[check] is outcome
    assert summed_up in whole


# --- what is recorded


def test_the_first_op_says_what_the_run_is_of_and_the_last_that_it_ended_by_itself(tmp_path: Path) -> None:
    lab = FakeLab()
    origin_ns = lab.now_ns()
    _, ops = carried_out(tmp_path, scenario({"hold_s": 1}), {}, lab)
    first, last = ops[0], ops[-1]
    assert (first.index, first.time, first.process, first.type, first.f) == (0, 0, "run", "info", "start")
    assert (first["origin_ns"], first["scenario"], first["seed"]) == (origin_ns, "s", 5)
    assert first["cluster"]["vips"] == {VIP: "lb-1", "203.0.113.102": "lb-2"}
    assert ops.cluster == lab.cluster
    assert (last.process, last.type, last.f) == ("run", "info", "end")
    assert last.time == 1_000_000_000


def test_the_given_seed_goes_before_the_scenarios_own(tmp_path: Path) -> None:
    _, ops = carried_out(tmp_path, scenario({"hold_s": 1}), {}, seed=0)
    assert ops[0]["seed"] == 0


def test_a_step_ends_with_its_condition_and_the_time_it_holds_comes_after(tmp_path: Path) -> None:
    lab = FakeLab()
    told = scenario({"inject": "node.power-off", "with": {"node": "lb-1"}, "until": "owned", "within_s": 20,
                     "owners": {VIP: "lb-2"}, "hold_s": 4})  # fmt: skip
    result, ops = carried_out(tmp_path, told, FAULTS, lab)
    begin, waiting, end, held = [op for op in ops.of("step") if op["step"] == "step 0"]
    assert (begin["phase"], waiting["phase"], end["phase"], held["phase"]) == ("begin", "waiting", "end", "held")
    assert VIP in waiting["why"]
    assert (end["met"], end["why"], end["within_ms"]) == (True, "", 20_000)
    assert 3200 <= end["took_ms"] <= 3700  # deadtime and scripts, and one status interval at most
    assert end["took_ms"] == result.steps[0].took_ms == (end.time - begin.time) // 1_000_000
    assert held.time - end.time == pytest.approx(4e9, rel=0.01)


def test_a_missed_condition_is_recorded_and_the_run_goes_on(tmp_path: Path) -> None:
    told = scenario(
        {"until": "owned", "owners": {VIP: "lb-2"}, "within_s": 3},
        {"until": "steady", "within_s": 3},
    )
    result, ops = carried_out(tmp_path, told, {})
    assert [step.met for step in result.steps] == [False, True]
    assert result.missed == result.steps[:1]
    end = next(op for op in ops.of("step") if op["phase"] == "end")
    assert end["met"] is False
    assert end["took_ms"] == pytest.approx(3000, abs=1)
    assert "203.0.113.101 is held by lb-2 alone" in end["why"]
    assert end["why"].endswith("last seen: 203.0.113.101 is held by lb-1")
    assert ops.complete


def test_a_deadline_counts_from_the_beginning_of_its_step(tmp_path: Path) -> None:
    """Powering on takes 2 s of the 3; heartbeat brings the address home after 4 more."""
    cut = {"inject": "node.power-off", "with": {"node": "lb-1"}, "as": "cut", "hold_s": 5}
    result, _ = carried_out(tmp_path, scenario(cut, {"heal": "cut", "until": "steady", "within_s": 3}), FAULTS)
    assert result.steps[1].met is False
    assert result.steps[1].took_ms == pytest.approx(3000, abs=1)


def test_a_fault_is_recorded_from_start_over_proof_to_end(tmp_path: Path) -> None:
    cut = {"inject": "node.power-off", "with": {"node": "lb-1"}, "as": "cut", "hold_s": 1}
    _, ops = carried_out(tmp_path, scenario(cut, {"heal": "cut"}), FAULTS)
    phases = [(op["phase"], op["fault"], op["node"]) for op in ops.process("fault:cut")]
    assert phases == [(phase, "node.power-off", "lb-1") for phase in ("start", "proof", "end")]
    proof = ops.process("fault:cut")[1]
    assert "off" in proof["seen"]
    assert proof.error is None


def test_the_end_of_a_fault_says_what_it_has_learned_since_its_proof(tmp_path: Path) -> None:
    _, ops = carried_out(tmp_path, scenario(inject("a"), {"heal": "a"}), scratches(Trace()))
    _, proof, end = ops.process("fault:a")
    assert proof["scratched"] == [1]
    assert end["scratched"] == [1, 2]
    assert proof["target"] == "lb-1"
    assert end.get("target") is None


# --- faults that go wrong


def test_what_is_injected_is_undone_in_reverse_order(tmp_path: Path) -> None:
    trace = Trace()
    carried_out(tmp_path, scenario(inject("a"), inject("b"), inject("c"), {"heal": "b"}), scratches(trace))
    assert trace.done == ["+a", "+b", "+c", "-b", "-c", "-a"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_run_undoes_everything_and_does_not_say_that_it_ended(
    tmp_path: Path, interruption: type[BaseException]
) -> None:
    trace, lab = Trace(), FakeLab()
    told = scenario(inject("a"), inject("b"), {"name": "here", "hold_s": 1})

    def interrupt(sentence: str) -> None:
        if "here" in sentence:
            raise interruption

    with pytest.raises(interruption):
        run(told, lab, scratches(trace), (), tmp_path, interrupt, clock=lab.clock)
    assert trace.done == ["+a", "+b", "-b", "-a"]
    ops = history.load(tmp_path / "history.jsonl")
    assert not ops.complete
    assert [window.name for window in fault_windows(ops) if "end" in window.phases] == ["a", "b"]
    assert {op["phase"] for op in ops.of("feed")} == {"open", "closed"}
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("feed ")] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_fault_is_undone_waits_until_it_is(tmp_path: Path, number: int) -> None:
    trace = Trace()

    class Stopped(BaseException):
        pass

    def stop(*_: object) -> None:
        raise Stopped

    before = signal.signal(number, stop)
    try:
        faults = scratches(trace, b={"meanwhile": lambda: os.kill(os.getpid(), number)})
        with pytest.raises(Stopped):
            carried_out(tmp_path, scenario(inject("a"), inject("b"), {"heal": "b"}, {"hold_s": 1}), faults)
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)
    assert trace.done == ["+a", "+b", "-b", "-a"]


def test_a_fault_without_effect_leaves_its_step_unknown_and_the_run_goes_on(tmp_path: Path) -> None:
    trace = Trace()
    told = scenario(inject("a"), inject("b", until="steady", within_s=5), {"heal": "b"}, {"heal": "a"}, {"hold_s": 1})
    result, ops = carried_out(tmp_path, told, scratches(trace, b={"broken_in": True}))
    assert [(step.met, step.why) for step in result.steps] == [
        (True, ""),
        (None, "b has no effect"),
        (None, "b is not injected, so there is nothing to heal"),
        (True, ""),
        (True, ""),
    ]
    assert [op["phase"] for op in ops.process("fault:b")] == ["start", "failed"]
    assert ops.process("fault:b")[1]["why"] == "b has no effect"
    assert trace.done == ["+a", "-a"]
    assert ops.complete


def test_a_fault_that_cannot_be_undone_is_recorded_and_does_not_keep_the_others(tmp_path: Path) -> None:
    trace = Trace()
    told = scenario(inject("a"), inject("b"), {"heal": "b"}, {"heal": "a"})
    result, ops = carried_out(tmp_path, told, scratches(trace, b={"broken_out": True}))
    assert [step.met for step in result.steps] == [True, True, None, True]
    assert [op["phase"] for op in ops.process("fault:b")] == ["start", "proof", "failed"]
    assert trace.done == ["+a", "+b", "-b", "-a"]


def test_an_interrupted_undo_of_several_tries_each(tmp_path: Path) -> None:
    trace, lab, said = Trace(), FakeLab(), list[str]()

    def interrupt(sentence: str) -> None:
        said.append(sentence)
        if "here" in sentence:
            raise KeyboardInterrupt

    told = scenario(inject("a"), inject("b"), {"name": "here", "hold_s": 1})
    faults = scratches(trace, b={"broken_out": True})
    with pytest.raises(KeyboardInterrupt):
        run(told, lab, faults, (), tmp_path, interrupt, clock=lab.clock)
    assert trace.done == ["+a", "+b", "-b", "-a"]
    assert said[-3:] == ["undoing b", "b could not be undone: b stays", "undoing a"]


# --- what is refused before anything starts


@pytest.mark.parametrize(
    ("step", "error", "expected"),
    [
        (
            {"inject": "node.poweroff", "with": {"node": "lb-1"}},
            ScenarioError,
            "scenario s: step 'step 1': inject: there is no fault node.poweroff "
            "(did you mean node.power-off? known: "
            + ", ".join(name for name in sorted(FAULTS) if name.startswith("node."))
            + ")",
        ),
        (
            {"inject": "node.power-off", "with": {"nod": "lb-1"}},
            ScenarioError,
            "scenario s: step 'step 1': with.nod: there is no such key (did you mean node? known: node) (and 1 more)",
        ),
        (
            {"inject": "node.power-off", "with": {"node": "lb-9"}},
            LabError,
            "this lab cannot do node.power-off (step 'step 1'): there is no node lb-9; "
            "there are client, lb-1, lb-2, web-1, web-2",
        ),
        (
            {"until": "owned", "within_s": 1, "owners": {"203.0.113.111": "lb-1"}},
            ScenarioError,
            "scenario s: step 'step 1': owners: this lab has no 203.0.113.111 "
            "(did you mean 203.0.113.101? known: 203.0.113.101, 203.0.113.102)",
        ),
        (
            {"until": "owned", "within_s": 1, "owners": {VIP: "web-1"}},
            ScenarioError,
            "scenario s: step 'step 1': owners: this lab has no web-1 (known: lb-1, lb-2)",
        ),
    ],
)
def test_a_scenario_that_the_lab_cannot_do_does_not_start(
    tmp_path: Path, step: dict[str, Any], error: type[Exception], expected: str
) -> None:
    lab = FakeLab()
    with pytest.raises(error) as caught:
        carried_out(tmp_path, scenario({"hold_s": 1}, step), FAULTS, lab)
    assert str(caught.value) == expected
    assert list(tmp_path.iterdir()) == []


# --- feeds


@dataclass
class Ticker:
    """A feed whose program prints one line and ends, so many times, and then goes on until it is stopped."""

    lab: FakeLab
    ends: int
    name: str = "ticker"
    opened: int = 0

    def open(self) -> Stream:
        self.opened += 1
        stream = FakeStream(self.lab.time)
        stream.put(str(self.opened))
        if self.opened <= self.ends:
            stream.stop()
        return stream

    def entries(self, line: Line) -> Iterable[Entry]:
        return [Entry(line.time_ns, "ticker", "info", "log", line.text)]

    def ready(self) -> bool:
        return True


def test_a_lost_feed_is_opened_again(tmp_path: Path) -> None:
    lab = FakeLab()
    _, ops = carried_out(tmp_path, scenario({"hold_s": 60}), {}, lab, feeds=[Ticker(lab, ends=2)])
    told = [op["phase"] if op.f == "feed" else op.value for op in ops.process("ticker")]
    assert told == ["open", "1", "lost", "open", "2", "lost", "open", "3", "closed"]


def test_a_log_is_lost_with_its_node_and_found_again_after_it_boots(tmp_path: Path) -> None:
    lab = FakeLab()
    cut = {"inject": "node.power-off", "with": {"node": "lb-1"}, "as": "cut", "hold_s": 5}
    _, ops = carried_out(tmp_path, scenario({"hold_s": 2}, cut, {"heal": "cut", "hold_s": 10}), FAULTS, lab)
    notes = [op for op in ops.of("feed") if op.process == "log:lb-1:heartbeat"]
    assert [op["phase"] for op in notes] == ["open", "lost", "open", "closed"]
    booted = next(op for op in ops.of("power") if op["node"] == "lb-1" and op["power"] == "booting")
    assert notes[1].time < booted.time < notes[2].time


def test_a_feed_that_cannot_be_read_ends_the_run_but_not_the_undo(tmp_path: Path) -> None:
    lab, trace = FakeLab(), Trace()

    class Broken(Ticker):
        def entries(self, line: Line) -> Iterable[Entry]:  # noqa: ARG002 - the protocol's signature
            raise RuntimeError("no such format")

    with pytest.raises(LabError, match="cannot be recorded any more: no such format"):
        carried_out(tmp_path, scenario(inject("a"), {"hold_s": 600}), scratches(trace), lab, feeds=[Broken(lab, 0)])
    assert trace.done == ["+a", "-a"]
    ops = history.load(tmp_path / "history.jsonl")
    assert not ops.complete
    assert [op["phase"] for op in ops.of("feed") if op.process == "ticker"] == ["open", "dropped"]


def asking(lab: FakeLab, name: str, over_s: float | None) -> FakeFeed:
    """A load that has asked all after so long, or never says so."""

    def start() -> FakeStream:
        stream = FakeStream(lab.time)

        def says() -> None:
            told = asdict(Entry(lab.now_ns(), "plan", "info", "plan", {"phase": "over"}))
            stream.put(json.dumps(told))

        if over_s is not None:
            lab.time.after(1000 * over_s, says)
        return stream

    return FakeFeed(name, start, lambda: True)


@pytest.mark.parametrize(
    ("workers", "over_s", "met"),
    [
        (0, {"load": 30}, True),
        (0, {"load": None}, False),
        (0, {"loads": 30}, False),
        (2, {"load": None, "load:0": 20, "load:1": 40}, True),
        (2, {"load": None, "load:0": 20, "load:1": None}, False),
    ],
)
def test_a_step_waits_until_all_that_was_planned_is_asked(
    tmp_path: Path, workers: int, over_s: Mapping[str, float | None], met: bool
) -> None:
    lab = FakeLab()
    load_of = {"arrivals": "constant", "phases": [{"per_s": 5, "for_s": 10}], "workers": workers}
    told = scenario({"until": "asked", "within_s": 60}, load=load_of)
    feeds = [asking(lab, name, after) for name, after in over_s.items()]
    result, ops = carried_out(tmp_path, told, {}, lab, feeds=feeds)
    (step,) = result.steps
    assert step.met is met
    waits = [op["why"] for op in ops.of("step") if op["phase"] == "waiting"]
    assert waits[0] == f"0 of {max(workers, 1)} processes of the load have asked all"
    if met:
        assert max(after for after in over_s.values() if after) <= step.took_ms / 1000 < 60
    else:
        assert "all that was planned is asked" in step.why


def test_a_feed_whose_node_never_comes_does_not_keep_the_run_from_ending(tmp_path: Path) -> None:
    lab = FakeLab()
    feed = FakeFeed("absent", lambda: pytest.fail("opened before it was ready"), lambda: False)
    _, ops = carried_out(tmp_path, scenario({"hold_s": 1}), {}, lab, feeds=[feed])
    assert ops.complete
    assert ops.process("absent") == ()


class Counting(FakeLab):
    """Notes when it is asked for the owners, and how often for the whole status."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []
        self.statuses: list[int] = []

    def owners(self) -> Any:
        self.asked.append(self.now_ns())
        return super().owners()

    def status(self) -> Any:
        self.statuses.append(self.now_ns())
        return super().status()


def until_the_step_ended(ops: History, asked: list[int]) -> list[int]:
    """What comes after its time of rest is the audit's."""
    (end_ns,) = (ops.start["origin_ns"] + op.time for op in ops.of("step") if op["phase"] == "end")
    return [at_ns for at_ns in asked if at_ns <= end_ns]


@pytest.mark.parametrize("condition", [{"until": "owned", "owners": {VIP: "lb-2"}}, {"until": "steady"}])
def test_the_owners_are_asked_for_twice_a_second_and_the_parts_not_before_the_vips_are_home(
    tmp_path: Path, condition: dict[str, Any]
) -> None:
    lab = Counting()
    if condition["until"] == "steady":
        lab.node("lb-1").power_off()
    _, ops = carried_out(tmp_path, scenario({**condition, "within_s": 10, "hold_s": 1}), {}, lab)
    asked = until_the_step_ended(ops, lab.asked)
    assert len(asked) == 21
    assert min(later - earlier for earlier, later in pairwise(asked)) >= 499_000_000
    assert until_the_step_ended(ops, lab.statuses) == []


def test_steady_asks_the_parts_once_the_vips_are_home(tmp_path: Path) -> None:
    lab = Counting()
    lab.node("lb-1").power_off()
    lab.time.after(3_000, lab.node("lb-1").boot)
    _, ops = carried_out(tmp_path, scenario({"until": "steady", "within_s": 30, "hold_s": 1}), {}, lab)
    assert len(until_the_step_ended(ops, lab.statuses)) == 1


def test_nothing_is_done_before_every_feed_has_begun(tmp_path: Path) -> None:
    lab = FakeLab()

    class Slow(Ticker):
        def open(self) -> Stream:
            threading.Event().wait(0.3)  # real time: the lab's stands still
            return super().open()

    _, ops = carried_out(tmp_path, scenario({"hold_s": 1}), {}, lab, feeds=[Slow(lab, 0)])
    opened = [op.index for op in ops.of("feed") if op["phase"] == "open"]
    assert len(opened) == 1 + len(lab.observers())
    assert max(opened) < ops.of("step")[0].index


def test_a_feed_that_ends_as_soon_as_it_starts_is_not_started_over_and_over(tmp_path: Path) -> None:
    lab = FakeLab()
    feed = Ticker(lab, ends=1_000_000)
    carried_out(tmp_path, scenario({"hold_s": 4}), {}, lab, feeds=[feed])
    assert 2 <= feed.opened <= 4 / 0.2 + 1


def test_an_address_that_another_node_holds_as_well_is_not_owned(tmp_path: Path) -> None:
    cut = {"inject": "node.power-off", "with": {"node": "lb-1"}, "as": "cut", "hold_s": 5}
    told = scenario(cut, {"heal": "cut", "hold_s": 6}, {"until": "owned", "owners": {VIP: "lb-1"}, "within_s": 1})
    result, _ = carried_out(tmp_path, told, FAULTS, FakeLab(defect=Defect.BOTH_HOLD))
    assert result.steps[2].met is False
    assert result.steps[2].why.endswith("last seen: 203.0.113.101 is held by lb-1 and lb-2")


# --- what is read before and after


def printed(lab: FakeLab, *entries: Entry) -> FakeStream:
    stream = FakeStream(lab.time)
    for entry in entries:
        stream.put(json.dumps(asdict(entry)))
    return stream


@dataclass
class Readers:
    """What they were asked to read, and one op each that says that they did."""

    lab: FakeLab
    uploads: list[Sequence[str]] = field(default_factory=list)

    def first(self) -> Feed:
        return self._feed("first")

    def final(self, uploads: Sequence[str]) -> Feed:
        self.uploads.append(uploads)
        return self._feed("final")

    def _feed(self, name: str) -> Feed:
        def read() -> FakeStream:
            stream = printed(self.lab, Entry(self.lab.now_ns(), f"{name}:0", "ok", "coins", {"total": 200_000}))
            stream.stop()
            return stream

        return FakeFeed(name, read, lambda: True)


def uploading(lab: FakeLab) -> Feed:
    def upload() -> FakeStream:
        ops = [("invoke", "a-0-2"), ("info", "a-0-2"), ("invoke", "a-0-1")]
        return printed(lab, *(Entry(lab.now_ns(), "user:0", kind, "upload", {"name": name}) for kind, name in ops))

    return FakeFeed("load", upload, lambda: True)


def test_the_sites_data_is_read_before_the_load_and_after_all_is_undone(tmp_path: Path) -> None:
    lab = FakeLab()
    readers = Readers(lab)
    told = scenario({"inject": "node.power-off", "with": {"node": "lb-1"}, "as": "cut", "hold_s": 1})
    result, ops = carried_out(tmp_path, told, FAULTS, lab, feeds=[uploading(lab)], readings=readers)
    assert result.missed == ()
    assert [tuple(each) for each in readers.uploads] == [("a-0-1", "a-0-2")]
    told_of = [(op.process, op.get("phase")) for op in ops if op.process in {"first", "load", "final", "fault:cut"}]
    order = [("first", "open"), ("first", "closed"), ("load", "open"), ("fault:cut", "end"), ("final", "open")]
    assert [each for each in told_of if each in order] == order
    assert told_of.index(("load", "closed")) < told_of.index(("final", "open"))
    (first, final) = ops.of("coins")
    assert (first.process, final.process) == ("first:0", "final:0")


def test_what_comes_afterwards_is_followed_to_its_end_once_all_is_undone(tmp_path: Path) -> None:
    lab = FakeLab()

    def restore() -> FakeStream:
        assert lab.leases() == []
        stream = printed(lab, *(Entry(lab.now_ns(), "prove-backup", kind, "prove-backup") for kind in ("invoke", "ok")))
        stream.stop()  # it ends by itself
        return stream

    told = scenario({"inject": "node.power-off", "with": {"node": "lb-1"}, "as": "cut", "hold_s": 1})
    _, ops = carried_out(tmp_path, told, FAULTS, lab, afterwards=[FakeFeed("prove-backup", restore, lambda: True)])
    assert [op.type for op in ops.of("prove-backup")] == ["invoke", "ok"]
    assert max(op.time for op in ops.of("fault")) <= min(op.time for op in ops.of("prove-backup"))


def test_a_reading_that_cannot_begin_is_noted_and_the_run_goes_on(tmp_path: Path) -> None:
    class Broken(Readers):
        def _feed(self, name: str) -> Feed:
            def nobody() -> FakeStream:
                raise LabError("the client is off")

            return FakeFeed(name, nobody, lambda: True)

    lab = FakeLab()
    _, ops = carried_out(tmp_path, scenario({"hold_s": 1}), FAULTS, lab, readings=Broken(lab))
    assert [op["why"] for op in ops.of("feed") if op["phase"] == "dropped"] == ["the client is off"] * 2
    assert ops.complete
