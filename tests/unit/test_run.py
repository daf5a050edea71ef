from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from faults import FAULTS
from harness import history
from harness.artifacts.stored_run import judge_directory
from harness.fake import Defect, FakeFeed, FakeLab, FakeStream
from harness.history import History
from harness.history.windows import faults as fault_windows
from harness.protocols import Feed, Feeds, Lab, Stream
from harness.records import Effect, Entry, LabError, Line, Proof
from harness.run import Faults, RunResult, run
from harness.scenario import Scenario, ScenarioError, load, parse, seeded
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
    """A fault that only records what it does."""

    trace: Trace
    label: str
    name: str = "test.scratch"
    broken_in: bool = False
    broken_out: bool = False
    refusal: str | None = None
    meanwhile: Callable[[], None] = lambda: None

    def available(self, lab: Lab) -> str | None:  # noqa: ARG002 - the protocol's signature
        return self.refusal

    def effects(self, lab: Lab) -> tuple[Effect, ...]:  # noqa: ARG002 - the protocol's signature
        return ()

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


def run_on_fake(
    tmp_path: Path, wanted: Scenario, faults: Faults, lab: FakeLab | None = None, **feeds: Sequence[Feed]
) -> tuple[RunResult, History]:
    result = run(wanted, lab or FakeLab(), faults, Feeds(**feeds), tmp_path)
    return result, history.load(tmp_path / "history.jsonl")


def judged(tmp_path: Path, defect: Defect | None) -> tuple[dict[str, Outcome], Outcome]:
    wanted, lab = load(POWER_CUT), FakeLab(defect=defect)
    run(wanted, lab, FAULTS, lab.feeds(wanted.load), tmp_path)
    verdicts = judge_directory(tmp_path, wanted)
    return {each.check: each.outcome for each in verdicts}, overall(verdicts)


# --- the power cut, end to end


def test_long_waits_report_their_progress(tmp_path: Path) -> None:
    """A hold of 100 s, and a condition that does not become true within 70 s."""
    lab, reported = FakeLab(), list[str]()
    never = {"name": "never", "until": "owned", "owners": {"203.0.113.101": "lb-2"}, "within_s": 70}
    wanted = scenario({"name": "soak", "hold_s": 100}, never)
    run(wanted, lab, FAULTS, Feeds(), tmp_path, reported.append)
    assert [line for line in reported if "soak" in line] == [
        "[1/2] soak",
        "[1/2] soak: 30 of 100 s",
        "[1/2] soak: 60 of 100 s",
        "[1/2] soak: 90 of 100 s",
    ]
    first, second = [line for line in reported if "at most 70 s" in line]
    assert first == "[2/2] never: 203.0.113.101 is held by lb-1; 30 of at most 70 s"
    assert second.endswith("60 of at most 70 s")


def test_a_healthy_cluster_is_valid_and_the_run_directory_is_complete(tmp_path: Path) -> None:
    wanted, lab, reported = load(POWER_CUT), FakeLab(), list[str]()
    result = run(wanted, lab, FAULTS, lab.feeds(wanted.load), tmp_path, reported.append)
    assert result.missed == ()
    assert [step.name for step in result.steps] == [step.name for step in wanted.steps]
    assert reported == [
        *(f"[{number}/4] {step.name}" for number, step in enumerate(wanted.steps, 1)),
        "comparing the lab with its state before the run",
    ]
    (audit,) = history.load(tmp_path / "history.jsonl").of("audit")
    assert audit["left"] == []

    verdicts = judge_directory(tmp_path, wanted)
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


def test_a_run_judged_again_without_a_lab_has_the_same_verdicts(tmp_path: Path) -> None:
    first = judged(tmp_path, None)
    before = (tmp_path / "verdict.json").read_bytes()
    (tmp_path / "verdict.json").unlink()
    again = judge_directory(tmp_path, load(POWER_CUT))
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
def test_a_defect_is_never_valid(
    tmp_path: Path, defect: Defect, check: str, outcome: Outcome, whole: set[Outcome]
) -> None:
    outcomes, overall_outcome = judged(tmp_path, defect)
    assert outcomes[check] is outcome
    assert overall_outcome in whole


# --- what is recorded


def test_the_first_op_has_the_facts_of_the_run_and_the_last_records_its_end(tmp_path: Path) -> None:
    lab = FakeLab()
    origin_ns = lab.now_ns()
    _, ops = run_on_fake(tmp_path, scenario({"hold_s": 1}), {}, lab)
    first, last = ops[0], ops[-1]
    assert (first.index, first.time, first.process, first.type, first.f) == (0, 0, "run", "info", "start")
    assert (first["origin_ns"], first["scenario"], first["seed"]) == (origin_ns, "s", 5)
    assert first["cluster"]["vips"] == {VIP: "lb-1", "203.0.113.102": "lb-2"}
    assert ops.cluster == lab.cluster
    assert (last.process, last.type, last.f) == ("run", "info", "end")
    assert last.time == 1_010_000_000  # feeds are looked at every 5 ms until they have begun, and ended


def test_the_seed_is_the_scenarios(tmp_path: Path) -> None:
    _, ops = run_on_fake(tmp_path, seeded(scenario({"hold_s": 1}), 0), {})
    assert ops[0]["seed"] == 0
    assert seeded(scenario({"hold_s": 1}), None).scenario.seed == 5


def test_a_step_ends_with_its_condition_and_holds_afterwards(tmp_path: Path) -> None:
    lab = FakeLab()
    wanted = scenario({"inject": "node.power-off", "with": {"node": "lb-1"}, "until": "owned", "within_s": 20,
                     "owners": {VIP: "lb-2"}, "hold_s": 4})  # fmt: skip
    result, ops = run_on_fake(tmp_path, wanted, FAULTS, lab)
    begin, waiting, end, held = [op for op in ops.of("step") if op["step"] == "step 0"]
    assert (begin["phase"], waiting["phase"], end["phase"], held["phase"]) == ("begin", "waiting", "end", "held")
    assert VIP in waiting["why"]
    assert (end["met"], end["why"], end["within_ms"]) == (True, "", 20_000)
    assert 3200 <= end["took_ms"] <= 3700  # deadtime and scripts, and one status interval at most
    assert end["took_ms"] == result.steps[0].took_ms == (end.time - begin.time) // 1_000_000
    assert held.time - end.time == pytest.approx(4e9, rel=0.01)


def test_a_step_begins_exactly_at_its_time_and_one_whose_turn_comes_later_at_once(tmp_path: Path) -> None:
    wanted = scenario(
        {"at_s": 12.3456789, "inject": "node.freeze", "with": {"node": "web-1"}},
        {"until": "owned", "owners": {VIP: "lb-2"}, "within_s": 3},
        {"at_s": 14, "hold_s": 1},
        {"at_s": 20.000000001},
    )
    _, ops = run_on_fake(tmp_path, wanted, FAULTS)
    begins = [op.time for op in ops.of("step") if op["phase"] == "begin"]
    assert begins[0] == begins[1] == 12_345_678_900
    assert ops.of("fault")[0].time == 12_345_678_900
    assert begins[2:4] == [15_345_678_900, 20_000_000_001]


def test_a_missed_condition_is_recorded_and_the_run_goes_on(tmp_path: Path) -> None:
    wanted = scenario(
        {"until": "owned", "owners": {VIP: "lb-2"}, "within_s": 3},
        {"until": "steady", "within_s": 3},
    )
    result, ops = run_on_fake(tmp_path, wanted, {})
    assert [step.met for step in result.steps] == [False, True]
    assert result.missed == result.steps[:1]
    end = next(op for op in ops.of("step") if op["phase"] == "end")
    assert end["met"] is False
    assert end["took_ms"] == pytest.approx(3000, abs=1)
    assert "waiting for 203.0.113.101 to be held by lb-2 alone" in end["why"]
    assert end["why"].endswith("last state: 203.0.113.101 is held by lb-1")
    assert ops.complete


def test_a_deadline_counts_from_the_beginning_of_its_step(tmp_path: Path) -> None:
    """Powering on takes 2 s of the 3; the address fails back 4 s later."""
    cut = {"inject": "node.power-off", "with": {"node": "lb-1"}, "as": "cut", "hold_s": 5}
    result, _ = run_on_fake(tmp_path, scenario(cut, {"heal": "cut", "until": "steady", "within_s": 3}), FAULTS)
    assert result.steps[1].met is False
    assert result.steps[1].took_ms == pytest.approx(3000, abs=1)


def test_a_fault_is_recorded_with_start_proof_and_end(tmp_path: Path) -> None:
    cut = {"inject": "node.power-off", "with": {"node": "lb-1"}, "as": "cut", "hold_s": 1}
    _, ops = run_on_fake(tmp_path, scenario(cut, {"heal": "cut"}), FAULTS)
    phases = [(op["phase"], op["fault"], op["node"]) for op in ops.process("fault:cut")]
    assert phases == [(phase, "node.power-off", "lb-1") for phase in ("start", "proof", "end")]
    proof = ops.process("fault:cut")[1]
    assert "off" in proof["seen"]
    assert proof["effects"] == [{"kind": "node-down", "node": "lb-1", "service": ""}]
    assert proof.error is None


def test_the_end_of_a_fault_has_the_details_that_changed_since_its_proof(tmp_path: Path) -> None:
    _, ops = run_on_fake(tmp_path, scenario(inject("a"), {"heal": "a"}), scratches(Trace()))
    _, proof, end = ops.process("fault:a")
    assert proof["scratched"] == [1]
    assert end["scratched"] == [1, 2]
    assert proof["target"] == "lb-1"
    assert end.get("target") is None


# --- faults that go wrong


def test_what_is_injected_is_undone_in_reverse_order(tmp_path: Path) -> None:
    trace = Trace()
    run_on_fake(tmp_path, scenario(inject("a"), inject("b"), inject("c"), {"heal": "b"}), scratches(trace))
    assert trace.done == ["+a", "+b", "+c", "-b", "-c", "-a"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_run_undoes_everything_and_records_no_end(
    tmp_path: Path, interruption: type[BaseException]
) -> None:
    trace, lab = Trace(), FakeLab()
    wanted = scenario(inject("a"), inject("b"), {"name": "here", "hold_s": 1})

    def interrupt(sentence: str) -> None:
        if "here" in sentence:
            raise interruption

    with pytest.raises(interruption):
        run(wanted, lab, scratches(trace), Feeds(), tmp_path, interrupt)
    assert trace.done == ["+a", "+b", "-b", "-a"]
    ops = history.load(tmp_path / "history.jsonl")
    assert not ops.complete
    assert [window.name for window in fault_windows(ops) if "end" in window.phases] == ["a", "b"]
    assert {op["phase"] for op in ops.of("feed")} == {"open", "closed"}
    assert [name for name in lab.time.tasks.alive() if name.startswith("feed ")] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_an_undo_is_deferred_to_its_end(tmp_path: Path, number: int) -> None:
    trace = Trace()

    class Stopped(BaseException):
        pass

    def stop(*_: object) -> None:
        raise Stopped

    before = signal.signal(number, stop)
    try:
        faults = scratches(trace, b={"meanwhile": lambda: os.kill(os.getpid(), number)})
        with pytest.raises(Stopped):
            run_on_fake(tmp_path, scenario(inject("a"), inject("b"), {"heal": "b"}, {"hold_s": 1}), faults)
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)
    assert trace.done == ["+a", "+b", "-b", "-a"]


def test_a_fault_without_effect_leaves_its_step_unknown_and_the_run_goes_on(tmp_path: Path) -> None:
    trace = Trace()
    wanted = scenario(inject("a"), inject("b", until="steady", within_s=5), {"heal": "b"}, {"heal": "a"}, {"hold_s": 1})
    result, ops = run_on_fake(tmp_path, wanted, scratches(trace, b={"broken_in": True}))
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


def test_a_fault_that_cannot_be_undone_is_recorded_and_the_others_are_undone(tmp_path: Path) -> None:
    trace = Trace()
    wanted = scenario(inject("a"), inject("b"), {"heal": "b"}, {"heal": "a"})
    result, ops = run_on_fake(tmp_path, wanted, scratches(trace, b={"broken_out": True}))
    assert [step.met for step in result.steps] == [True, True, None, True]
    assert [op["phase"] for op in ops.process("fault:b")] == ["start", "proof", "failed"]
    assert trace.done == ["+a", "+b", "-b", "-a"]


def test_an_interrupted_run_tries_to_undo_each_fault(tmp_path: Path) -> None:
    trace, lab, reported = Trace(), FakeLab(), list[str]()

    def interrupt(sentence: str) -> None:
        reported.append(sentence)
        if "here" in sentence:
            raise KeyboardInterrupt

    wanted = scenario(inject("a"), inject("b"), {"name": "here", "hold_s": 1})
    faults = scratches(trace, b={"broken_out": True})
    with pytest.raises(KeyboardInterrupt):
        run(wanted, lab, faults, Feeds(), tmp_path, interrupt)
    assert trace.done == ["+a", "+b", "-b", "-a"]
    assert reported[-3:] == ["undoing b", "b could not be undone: b stays", "undoing a"]


# --- what is refused before anything starts


@pytest.mark.parametrize(
    ("step", "error", "expected"),
    [
        (
            {"inject": "node.poweroff", "with": {"node": "lb-1"}},
            ScenarioError,
            "scenario s: step 'step 1': unknown fault 'node.poweroff'; did you mean 'node.power-off'?",
        ),
        (
            {"inject": "node.power-off", "with": {"nod": "lb-1"}},
            ScenarioError,
            "scenario s: step 'step 1': node.power-off: unknown key 'nod'; did you mean 'node'? (and 1 more)",
        ),
        (
            {"inject": "node.power-off", "with": {"node": "lb-9"}},
            LabError,
            "this lab cannot inject node.power-off (step 'step 1'): unknown node 'lb-9'; "
            "nodes: client, lb-1, lb-2, web-1, web-2",
        ),
        (
            {"until": "owned", "within_s": 1, "owners": {"203.0.113.111": "lb-1"}},
            ScenarioError,
            "scenario s: step 'step 1': owners: unknown VIP '203.0.113.111'; did you mean '203.0.113.101'?",
        ),
        (
            {"until": "owned", "within_s": 1, "owners": {VIP: "web-1"}},
            ScenarioError,
            "scenario s: step 'step 1': owners: unknown director 'web-1'; accepted: lb-1, lb-2",
        ),
    ],
)
def test_a_scenario_that_the_lab_cannot_run_does_not_start(
    tmp_path: Path, step: dict[str, Any], error: type[Exception], expected: str
) -> None:
    lab = FakeLab()
    with pytest.raises(error) as caught:
        run_on_fake(tmp_path, scenario({"hold_s": 1}, step), FAULTS, lab)
    assert str(caught.value) == expected
    assert list(tmp_path.iterdir()) == []


# --- feeds


@dataclass
class Ticker:
    """A feed whose program prints one line and ends, ``ends`` times, and then runs until it is stopped."""

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
    _, ops = run_on_fake(tmp_path, scenario({"hold_s": 60}), {}, lab, during=[Ticker(lab, ends=2)])
    recorded = [op["phase"] if op.f == "feed" else op.value for op in ops.process("ticker")]
    assert recorded == ["open", "1", "lost", "open", "2", "lost", "open", "3", "closed"]


def test_a_log_is_lost_with_its_node_and_opened_again_after_it_boots(tmp_path: Path) -> None:
    lab = FakeLab()
    cut = {"inject": "node.power-off", "with": {"node": "lb-1"}, "as": "cut", "hold_s": 5}
    _, ops = run_on_fake(tmp_path, scenario({"hold_s": 2}, cut, {"heal": "cut", "hold_s": 10}), FAULTS, lab)
    notes = [op for op in ops.of("feed") if op.process == "log:lb-1:heartbeat"]
    assert [op["phase"] for op in notes] == ["open", "lost", "open", "closed"]
    booted = next(op for op in ops.of("power") if op["node"] == "lb-1" and op["power"] == "booting")
    assert notes[1].time < booted.time < notes[2].time


def test_a_feed_that_cannot_be_parsed_ends_the_run_and_all_faults_are_undone(tmp_path: Path) -> None:
    lab, trace = FakeLab(), Trace()

    class Broken(Ticker):
        def entries(self, line: Line) -> Iterable[Entry]:  # noqa: ARG002 - the protocol's signature
            raise RuntimeError("no such format")

    with pytest.raises(LabError, match="can no longer be recorded: no such format"):
        run_on_fake(tmp_path, scenario(inject("a"), {"hold_s": 600}), scratches(trace), lab, during=[Broken(lab, 0)])
    assert trace.done == ["+a", "-a"]
    ops = history.load(tmp_path / "history.jsonl")
    assert not ops.complete
    assert [op["phase"] for op in ops.of("feed") if op.process == "ticker"] == ["open", "dropped"]


@dataclass(frozen=True)
class Planned(FakeFeed):
    """A load that reports when it has sent everything."""

    def over(self, entry: Entry) -> bool:
        return entry.f == "plan"


def asking(lab: FakeLab, name: str, over_s: float | None, kind: type[FakeFeed]) -> FakeFeed:
    """A load that has sent everything after so many seconds, or never reports it."""

    def start() -> FakeStream:
        stream = FakeStream(lab.time)
        if over_s is not None:
            line = json.dumps(asdict(Entry(0, "plan", "info", "plan", {"phase": "over"})))
            lab.time.after(1000 * over_s, lambda: stream.put(line))
        return stream

    return kind(name, start, lambda: True)


@pytest.mark.parametrize(
    ("kind", "over_s", "waits_for"),
    [
        (Planned, {"load": 30}, ["load"]),
        (Planned, {"load": None}, ["load"]),
        (Planned, {"load:0": 20, "load:1": 40}, ["load:0, load:1", "load:1"]),
        (Planned, {"load:0": 20, "load:1": None}, ["load:0, load:1", "load:1"]),
    ],
)
def test_a_step_waits_until_every_planned_request_is_sent(
    tmp_path: Path, kind: type[FakeFeed], over_s: Mapping[str, float | None], waits_for: Sequence[str]
) -> None:
    lab = FakeLab()
    load_of = {"arrivals": "constant", "phases": [{"per_s": 5, "for_s": 10}]}
    wanted = scenario({"until": "asked", "within_s": 60}, load=load_of)
    feeds = [asking(lab, name, after, kind) for name, after in over_s.items()]
    result, ops = run_on_fake(tmp_path, wanted, {}, lab, during=[asking(lab, "other", None, FakeFeed)], writers=feeds)
    (step,) = result.steps
    ends = [after for after in over_s.values() if after is not None]
    assert step.met is (len(ends) == len(feeds))
    waits = [op["why"] for op in ops.of("step") if op["phase"] == "waiting"]
    assert waits == [f"still sending planned requests: {names}" for names in waits_for]
    if step.met:
        assert max(ends) <= step.took_ms / 1000 < 60
    else:
        assert "every planned request to be sent" in step.why


def test_without_a_planned_feed_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    load_of = {"arrivals": "constant", "phases": [{"per_s": 5, "for_s": 10}]}
    result, _ = run_on_fake(tmp_path, scenario({"until": "asked", "within_s": 2}, load=load_of), {})
    assert result.steps[0].met is False
    assert result.steps[0].why.endswith("no feed of this run has a plan")


def test_a_run_ends_even_if_the_node_of_a_feed_never_runs(tmp_path: Path) -> None:
    lab = FakeLab()
    feed = FakeFeed("absent", lambda: pytest.fail("opened before it was ready"), lambda: False)
    _, ops = run_on_fake(tmp_path, scenario({"hold_s": 1}), {}, lab, during=[feed])
    assert ops.complete
    assert ops.process("absent") == ()


class Counting(FakeLab):
    """Records when it is asked for the owners and for the whole status."""

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
    """Later ones are those of the audit."""
    (end_ns,) = (ops.start["origin_ns"] + op.time for op in ops.of("step") if op["phase"] == "end")
    return [at_ns for at_ns in asked if at_ns <= end_ns]


@pytest.mark.parametrize("condition", [{"until": "owned", "owners": {VIP: "lb-2"}}, {"until": "steady"}])
def test_owners_are_polled_twice_a_second_and_parts_only_once_the_vips_are_home(
    tmp_path: Path, condition: dict[str, Any]
) -> None:
    lab = Counting()
    if condition["until"] == "steady":
        lab.node("lb-1").power_off()
    _, ops = run_on_fake(tmp_path, scenario({**condition, "within_s": 10, "hold_s": 1}), {}, lab)
    asked = until_the_step_ended(ops, lab.asked)
    assert len(asked) == 21
    assert min(later - earlier for earlier, later in pairwise(asked)) >= 499_000_000
    assert until_the_step_ended(ops, lab.statuses) == []


def test_steady_polls_the_parts_once_the_vips_are_home(tmp_path: Path) -> None:
    lab = Counting()
    lab.node("lb-1").power_off()
    lab.time.after(3_000, lab.node("lb-1").boot)
    _, ops = run_on_fake(tmp_path, scenario({"until": "steady", "within_s": 30, "hold_s": 1}), {}, lab)
    assert len(until_the_step_ended(ops, lab.statuses)) == 1


def test_nothing_is_done_before_every_feed_has_begun(tmp_path: Path) -> None:
    lab = FakeLab()

    class Slow(Ticker):
        def open(self) -> Stream:
            lab.clock.sleep(0.3)
            return super().open()

    _, ops = run_on_fake(tmp_path, scenario({"hold_s": 1}), {}, lab, during=[Slow(lab, 0)])
    opened = [op.index for op in ops.of("feed") if op["phase"] == "open"]
    assert len(opened) == 1 + len(lab.observers())
    assert max(opened) < ops.of("step")[0].index


def test_a_feed_that_ends_at_once_is_not_started_in_a_tight_loop(tmp_path: Path) -> None:
    lab = FakeLab()
    feed = Ticker(lab, ends=1_000_000)
    run_on_fake(tmp_path, scenario({"hold_s": 4}), {}, lab, during=[feed])
    assert 2 <= feed.opened <= 4 / 0.2 + 1


def test_an_address_that_2_nodes_hold_is_not_owned(tmp_path: Path) -> None:
    cut = {"inject": "node.power-off", "with": {"node": "lb-1"}, "as": "cut", "hold_s": 5}
    wanted = scenario(cut, {"heal": "cut", "hold_s": 6}, {"until": "owned", "owners": {VIP: "lb-1"}, "within_s": 1})
    result, _ = run_on_fake(tmp_path, wanted, FAULTS, FakeLab(defect=Defect.BOTH_HOLD))
    assert result.steps[2].met is False
    assert result.steps[2].why.endswith("last state: 203.0.113.101 is held by lb-1 and lb-2")


# --- what is read before and after


def printed(lab: FakeLab, *entries: Entry) -> FakeStream:
    stream = FakeStream(lab.time)
    for entry in entries:
        stream.put(json.dumps(asdict(entry)))
    return stream


@dataclass(frozen=True)
class Read(FakeFeed):
    """A feed that ends on its own, and remembers what was recorded before it opened."""

    learned: list[Entry] = field(default_factory=list)

    def learn(self, entry: Entry) -> None:
        self.learned.append(entry)


def read(lab: FakeLab, name: str, kind: type[FakeFeed] = FakeFeed) -> FakeFeed:
    def start() -> FakeStream:
        stream = printed(lab, Entry(lab.now_ns(), f"{name}:0", "ok", "coins", {"total": 200_000}))
        stream.stop()
        return stream

    return kind(name, start, lambda: True)


def uploading(lab: FakeLab) -> Feed:
    def upload() -> FakeStream:
        ops = [("invoke", "a-0-2"), ("info", "a-0-2"), ("invoke", "a-0-1")]
        return printed(lab, *(Entry(lab.now_ns(), "user:0", kind, "upload", {"name": name}) for kind, name in ops))

    return FakeFeed("load", upload, lambda: True)


def test_data_is_read_before_the_load_and_after_the_last_undo(tmp_path: Path) -> None:
    lab = FakeLab()
    first, final = read(lab, "first"), read(lab, "final", Read)
    wanted = scenario({"inject": "node.power-off", "with": {"node": "lb-1"}, "as": "cut", "hold_s": 1})
    result, ops = run_on_fake(tmp_path, wanted, FAULTS, lab, before=[first], writers=[uploading(lab)], after=[final])
    assert result.missed == ()
    assert isinstance(final, Read)
    assert {entry.value["name"] for entry in final.learned if entry.f == "upload"} == {"a-0-1", "a-0-2"}
    phases = [(op.process, op.get("phase")) for op in ops if op.process in {"first", "load", "final", "fault:cut"}]
    order = [("first", "open"), ("first", "closed"), ("load", "open"), ("fault:cut", "end"), ("final", "open")]
    assert [each for each in phases if each in order] == order
    assert phases.index(("load", "closed")) < phases.index(("final", "open"))
    (first_op, final_op) = ops.of("coins")
    assert (first_op.process, final_op.process) == ("first:0", "final:0")


def test_feeds_after_the_run_are_followed_to_their_ends_after_the_last_undo(tmp_path: Path) -> None:
    lab = FakeLab()

    def restore() -> FakeStream:
        assert lab.leases() == []
        stream = printed(lab, *(Entry(lab.now_ns(), "prove-backup", kind, "prove-backup") for kind in ("invoke", "ok")))
        stream.stop()  # it ends on its own
        return stream

    wanted = scenario({"inject": "node.power-off", "with": {"node": "lb-1"}, "as": "cut", "hold_s": 1})
    _, ops = run_on_fake(tmp_path, wanted, FAULTS, lab, after=[FakeFeed("prove-backup", restore, lambda: True)])
    assert [op.type for op in ops.of("prove-backup")] == ["invoke", "ok"]
    assert max(op.time for op in ops.of("fault")) <= min(op.time for op in ops.of("prove-backup"))


def test_a_read_that_cannot_start_is_recorded_and_the_run_goes_on(tmp_path: Path) -> None:
    def refuse() -> FakeStream:
        raise LabError("the client is off")

    broken = [FakeFeed("broken", refuse, lambda: True)]
    _, ops = run_on_fake(tmp_path, scenario({"hold_s": 1}), FAULTS, before=broken, after=broken)
    assert [op["why"] for op in ops.of("feed") if op["phase"] == "dropped"] == ["the client is off"] * 2
    assert ops.complete


class Losing(FakeLab):
    """A lab that lost a container by the end of the run."""

    def lost(self) -> Mapping[str, str]:
        return {"web-2": "it is exited"}


def test_a_run_on_a_lab_that_lost_a_container_is_unknown(tmp_path: Path) -> None:
    """It is not compared with its state before, for which a run waits up to 2 minutes."""
    lab, wanted = Losing(), load(POWER_CUT)
    run(wanted, lab, FAULTS, lab.feeds(wanted.load), tmp_path)
    (lost,) = history.load(tmp_path / "history.jsonl").of("lost")
    assert (lost.process, lost.value) == ("lab", {"node": "web-2", "why": "it is exited"})
    (audit,) = history.load(tmp_path / "history.jsonl").of("audit")
    assert audit.error == "the lab lost web-2"
    verdicts = judge_directory(tmp_path, wanted)
    assert overall(verdicts) is Outcome.UNKNOWN
    assert all("it lost the container of web-2" in verdict.summary for verdict in verdicts)
