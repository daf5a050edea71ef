"""Which clock a run had is said wherever its outcome is, and speed is not measured in virtual time."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from harness import compose, history
from harness.artifacts.stored_run import judge, judge_directory, read
from harness.cli import main, screen
from harness.compare import release
from harness.fake import FakeLab
from harness.records import LabError
from harness.scenario import parse

SCENARIO = """
[scenario]
name = "short"
title = "A short run"
expectation = "Nothing happens."
[[steps]]
name = "wait"
hold_s = 1
[checks.recovery]
"""


def call(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def a_lab(clock: Any) -> FakeLab:
    lab = FakeLab()
    lab.clock = replace(lab.clock, kind=clock)
    return lab


def a_run(tmp_path: Path, clock: Any, **checks: Any) -> Path:
    path = tmp_path / "short.toml"
    path.write_text(SCENARIO)
    about = {"name": "short", "title": "A short run", "expectation": "Nothing happens."}
    wanted = parse(
        {"scenario": about, "steps": [{"name": "wait", "hold_s": 1}], "checks": {"recovery": {}, **checks}}, "s"
    )
    directory = compose.execute(wanted, path, a_lab(clock), tmp_path / "runs", lambda _: None)
    judge_directory(directory, wanted)
    return directory


@pytest.mark.parametrize("clock", ["real", "virtual"])
def test_every_file_of_a_run_says_which_clock_it_had(tmp_path: Path, clock: str) -> None:
    directory = a_run(tmp_path, clock)
    assert history.load(directory / "history.jsonl").clock == clock
    assert json.loads((directory / "verdict.json").read_text())["clock"] == clock
    assert f'<property name="clock" value="{clock}" />' in (directory / "junit.xml").read_text()
    assert (
        f'monkeywrench_run_virtual_time{{scenario="short"}} {float(clock == "virtual")}'
        in (directory / "metrics.prom").read_text()
    )
    assert f"A short run &nbsp;·&nbsp; {clock} time" in (directory / "report.html").read_text()
    assert ("monkeywrench replay ." in (directory / "report.html").read_text()) == (clock == "virtual")
    assert ("scenario.toml --seed 1 --clock virtual" in (directory / "report.html").read_text()) == (clock == "virtual")
    shown = call("check", str(directory))
    assert f"({clock} time)" in shown.stdout
    assert json.loads(call("check", str(directory), "--json").stdout)["clock"] == clock


def test_a_history_that_does_not_name_its_clock_is_one_of_real_time(tmp_path: Path) -> None:
    directory = a_run(tmp_path, "virtual")
    path = directory / "history.jsonl"
    path.write_text(path.read_text().replace(',"clock":"virtual"', ""))
    assert history.load(path).clock == "real"
    paper = io.StringIO()
    Console(file=paper, width=120).print(screen.verdicts(judge(read(path)), clock=history.load(path).clock))
    assert "(real time)" in paper.getvalue()


def test_runs_in_virtual_time_are_not_compared(tmp_path: Path) -> None:
    directory = a_run(tmp_path, "virtual")
    with pytest.raises(release.ReleaseError, match=r"is a run in virtual time.*says nothing about speed") as refused:
        release.read(directory)
    assert "monkeywrench load" in refused.value.next_step
    assert release.read(a_run(tmp_path, "real"))


def test_a_check_of_speed_is_refused_before_anything_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="the check knee of scenario short measures speed") as refused:
        a_run(tmp_path, "virtual", knee={})
    assert refused.value.next_step == "Run it with --clock real."
    assert not (tmp_path / "runs").exists()
    assert a_run(tmp_path, "real", knee={}).is_dir()


def test_load_refuses_a_topology_in_virtual_time(tmp_path: Path) -> None:
    topology = Path(__file__).parents[2] / "topology" / "ultramonkey.toml"
    virtual = tmp_path / "virtual.toml"
    virtual.write_text(f'clock = "virtual"\n{topology.read_text()}')
    for words in (("--topology", str(virtual)), ("--against", str(virtual))):
        refused = call("load", "steady", *words)
        assert refused.exit_code == 4
        assert "measures speed" in refused.stderr
        assert "Next:" in refused.stderr


def test_locust_refuses_a_lab_in_virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def attached(_: str) -> Iterator[FakeLab]:
        yield a_lab("virtual")

    monkeypatch.setattr("harness.cli.load.attached", attached)
    refused = call("locust")
    assert refused.exit_code == 4
    assert "locust on lab 'default' measures speed" in " ".join(refused.stderr.split())
