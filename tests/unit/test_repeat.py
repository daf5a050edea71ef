"""One scenario under many seeds: processes in turn or side by side, and how many came to what."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from harness.algorithms.binomial import interval
from harness.cli import main, screen
from harness.cli.repeat import _Run
from harness.repeat import Share, carry_out, exit_code, outcome, shares
from harness.wait import until
from tests.support.ticks import Ticks


@dataclass
class Run:
    """A process that ends at a time, or a second after it is interrupted."""

    ticks: Ticks
    ends_s: float
    code: int = 0
    interrupted: bool = False

    def poll(self) -> int | None:
        return self.code if self.ticks.time_s >= self.ends_s else None

    def interrupt(self) -> None:
        self.interrupted, self.ends_s, self.code = True, self.ticks.time_s + 1, 130


@dataclass
class Runs:
    """Starts a process for each seed, and sees how many run at once."""

    lasts_s: Callable[[int], float]
    ticks: Ticks = field(default_factory=Ticks)
    started: dict[int, Run] = field(default_factory=dict)
    most: int = 0

    def start(self, seed: int) -> Run:
        self.started[seed] = Run(self.ticks, self.ticks.time_s + self.lasts_s(seed), seed % 2)
        self.most = max(self.most, sum(run.poll() is None for run in self.started.values()))
        return self.started[seed]


@pytest.mark.parametrize(("jobs", "took_s"), [(1, 30), (2, 16), (9, 10)])
def test_as_many_runs_as_allowed_are_made_at_once(jobs: int, took_s: float) -> None:
    runs = Runs(lambda seed: {5: 10, 6: 8, 7: 6, 8: 6}[seed])
    ended = list(carry_out(range(5, 9), jobs, runs.start, runs.ticks.clock))
    assert dict(ended) == {5: 1, 6: 0, 7: 1, 8: 0}
    assert runs.most == min(jobs, 4)
    assert runs.ticks.time_s - 100 == pytest.approx(took_s, abs=1)


def test_an_interrupt_reaches_each_run_and_waits_for_its_end() -> None:
    runs = Runs(lambda _: 50)
    progress = carry_out(range(4), 2, runs.start, runs.ticks.clock)
    assert next(progress)[1] in (0, 1)
    with pytest.raises(KeyboardInterrupt):
        progress.throw(KeyboardInterrupt)
    assert [runs.started[seed].poll() for seed in sorted(runs.started)] == [0, 130]
    assert set(runs.started) == {0, 1}


def test_outcomes_are_counted_with_their_seeds_and_the_exact_interval() -> None:
    codes = {7: 1, 5: 0, 6: 0, 8: 0, 9: 3}
    found = shares(codes)
    assert found == [Share("valid", (5, 6, 8), 5), Share("invalid", (7,), 5), Share("unknown", (9,), 5)]
    assert str(found[0]) == "60 % (95 % interval: 14.7 to 94.7 %)"  # Clopper and Pearson's table
    paper = io.StringIO()
    Console(file=paper, width=120).print(screen.shares(found))
    assert "5, 6, 8" in paper.getvalue()
    assert "5 runs" in paper.getvalue()
    many = io.StringIO()
    Console(file=many, width=200).print(screen.shares(shares(dict.fromkeys(range(100), 0))))
    assert "18, 19 and 80 more" in many.getvalue()


def test_a_run_without_an_outcome_is_counted_as_such() -> None:
    assert [outcome(code) for code in (0, 1, 3, 4, 2, 5, -9, 130)] == ["valid", "invalid", "unknown"] + 5 * [
        "lab error"
    ]
    assert [each.outcome for each in shares({1: 0, 2: 4})] == ["valid", "invalid", "unknown", "lab error"]


@pytest.mark.parametrize(
    ("codes", "code"), [([0, 0], 0), ([0, 3], 3), ([3, 1, 4], 1), ([3, 5], 4), ([0, -9], 4), ([1], 1)]
)
def test_the_worst_run_decides_the_exit_code(codes: Sequence[int], code: int) -> None:
    assert exit_code(dict(enumerate(codes))) == code


@pytest.mark.parametrize(
    ("hits", "tries", "least", "most"),
    [
        (0, 1, 0, 0.975),
        (1, 1, 0.025, 1),
        (4, 11, 0.1093, 0.6921),
        (0, 8, 0, 0.3694),
        (6, 7, 0.4213, 0.9964),
        (50, 100, 0.3983, 0.6017),
        (1000, 1000, 0.9963, 1),
    ],
)
def test_intervals_are_those_of_clopper_and_pearson(hits: int, tries: int, least: float, most: float) -> None:
    assert interval(hits, tries) == pytest.approx((least, most), abs=5e-5)


@pytest.mark.parametrize(("hits", "tries"), [(-1, 5), (6, 5), (0, 0), (0, 1001)])
def test_what_is_no_share_is_refused(hits: int, tries: int) -> None:
    with pytest.raises(ValueError, match="hits in"):
        interval(hits, tries)


# --- the command


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines of the runs that would be made."""
    asked: list[list[str]] = []

    class Child:
        def __init__(self, words: Sequence[str]) -> None:
            asked.append(list(words))

        def poll(self) -> int:
            return 0

        def said(self) -> str:
            return "report: r"

    monkeypatch.setattr("harness.cli.repeat._Run", Child)
    return asked


def test_each_seed_has_a_process_with_the_options_of_the_command(children: list[list[str]], tmp_path: Path) -> None:
    words = ["run", "director-power-cut", "--repeat", "3", "--jobs", "2", "--seed", "5", "--runs", str(tmp_path)]
    done = CliRunner().invoke(main, [*words, "--clock", "virtual", "--cost", "struggling", "--load", "steady"])
    assert done.exit_code == 0, done.output
    assert [each[-2:] for each in children] == [["--seed", "5"], ["--seed", "6"], ["--seed", "7"]]
    first = children[0]
    assert first[0] == "run"
    assert first[1].endswith("director-power-cut.toml")
    pairs = dict(zip(first[2::2], first[3::2], strict=True))
    assert pairs["--clock"] == "virtual"
    assert pairs["--cost"] == "struggling"
    assert pairs["--load"].endswith("steady.toml")
    assert pairs["--runs"] == str(tmp_path)
    assert pairs["--lab"].startswith("repeat-")
    assert "valid" in done.stdout
    assert "100 % (95 % interval: 29.2 to 100.0 %)" in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--jobs", "2"), "--jobs needs --repeat N"),
        (("--repeat", "2", "--jobs", "2"), "--jobs needs virtual time"),
        (("--repeat", "0"), "0 is not in the range"),
        (("--repeat", "2", "--lab", "default"), "--lab cannot be combined with --repeat"),
        (("--repeat", "2", "--unhealthy-ok"), "--unhealthy-ok cannot be combined with --repeat"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    children: list[list[str]], words: tuple[str, ...], says: str
) -> None:
    done = CliRunner().invoke(main, ["run", "director-power-cut", *words])
    assert done.exit_code == 2
    assert says in " ".join(done.stderr.split())
    assert not children


def test_a_run_is_a_process_whose_report_or_last_words_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import sys; print(sys.argv[1:]); print('report: r.html'); sys.exit(3)"
    monkeypatch.setattr("harness.cli.repeat.PROGRAM", (sys.executable, "-ISc", program))
    told = _Run(["run", "s"])
    until(lambda: told.poll() is not None, 60, "the process to end", 0.02)
    assert (told.poll(), told.said()) == (3, "report: r.html")
    monkeypatch.setattr("harness.cli.repeat.PROGRAM", (sys.executable, "-ISc", "raise SystemExit('no lab')"))
    silent = _Run([])
    until(lambda: silent.poll() is not None, 60, "the process to end", 0.02)
    assert (silent.poll(), silent.said()) == (1, "no lab")


def test_an_interrupted_run_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.cli.repeat.PROGRAM", ("sleep", "600"))
    run = _Run([])
    assert run.poll() is None
    run.interrupt()
    until(lambda: run.poll() is not None, 60, "the process to end", 0.02)
    assert run.poll() == -signal.SIGINT
