"""Stored runs: found by path or name, judged again without a lab, and never better than the record allows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness import checks, scenario
from harness.artifacts import run_directory, stored_run
from harness.artifacts.stored_run import StoredError
from harness.cli import main
from harness.history import History
from harness.verdict import Outcome, Verdict, overall
from tests.support import histories as h
from tests.support.histories import PowerCut
from tests.support.program import DEADLINE_S
from tests.support.stored import CLEAN, POWER_CUT, make_run

LATE = PowerCut(taken=29_000, announced=29_050, served=29_100, booting=31_000, running=32_000).history()
"""The takeover was longer than its budget."""


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def stderr(result: Result) -> str:
    """Standard error as one line."""
    return " ".join(result.stderr.split())


# --- finding a run


def test_a_run_is_found_by_its_path_by_its_history_and_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "runs" / "20310203T040506Z-cut")
    (tmp_path / "runs" / "latest").symlink_to(run.name)
    monkeypatch.chdir(tmp_path)
    for name in (str(run), str(run / "history.jsonl"), "runs/latest", "runs/latest/", "latest", run.name):
        assert stored_run.find(name, Path("runs")).resolve() == run / "history.jsonl"


def test_an_unknown_name_is_answered_with_the_existing_runs(tmp_path: Path) -> None:
    for day in range(1, 6):
        make_run(tmp_path / f"2031020{day}T040506Z-cut")
    (tmp_path / "latest").symlink_to("20310205T040506Z-cut")
    with pytest.raises(StoredError, match="run 'lates' not found") as error:
        stored_run.find("lates", tmp_path)
    assert "20310205T040506Z-cut, 20310204T040506Z-cut, 20310203T040506Z-cut and 2 older" in error.value.next_step
    with pytest.raises(StoredError, match="is a directory of runs, not a run"):
        stored_run.find(str(tmp_path), tmp_path)


def test_a_path_that_is_not_a_run_gets_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to("gone")
    with pytest.raises(StoredError, match="points at gone, which does not exist"):
        stored_run.find("latest", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoredError, match="not a run directory"):
        stored_run.find("empty", tmp_path)
    (tmp_path / "empty" / run_directory.SCENARIO).touch()
    with pytest.raises(StoredError, match="ended before it recorded anything"):
        stored_run.find("empty", tmp_path)
    with pytest.raises(StoredError, match="run 'x' not found") as error:
        stored_run.find("x", tmp_path / "nowhere")
    assert "monkeywrench run" in error.value.next_step


def test_a_stored_run_keeps_its_load(tmp_path: Path) -> None:
    profile = POWER_CUT.with_name("nfs-power-cut.toml")
    run = make_run(tmp_path / "run")
    own = stored_run.read(run / run_directory.HISTORY)
    assert own.scenario.load == scenario.load(POWER_CUT).load
    run_directory.keep_load(run, profile)
    assert (run / run_directory.LOAD).read_bytes() == profile.read_bytes()
    found = stored_run.read(run / run_directory.HISTORY)
    assert found.scenario.load == scenario.load(profile).load != own.scenario.load
    assert (found.scenario.name, found.scenario.steps) == (own.scenario.name, own.scenario.steps)
    assert found.scenario.checks == own.scenario.checks
    # a scenario given by the user counts with its own load
    assert stored_run.read(run / run_directory.HISTORY, POWER_CUT).scenario == scenario.load(POWER_CUT)
    (run / run_directory.LOAD).write_text("[load")
    assert call("check", run).exit_code == 2


# --- check


@pytest.mark.parametrize(
    ("history", "code", "says"),
    [
        (CLEAN, 0, "valid: the cluster held"),
        (LATE, 1, "invalid: the cluster did not hold"),
        (h.killed(CLEAN, 58_000), 3, "The run was killed"),
        (History([]), 3, "does not show whether the cluster held"),
    ],
)
def test_check_judges_again_and_exits_as_the_run_did(tmp_path: Path, history: History, code: int, says: str) -> None:
    run = make_run(tmp_path / "run", history)
    before = sorted(path.name for path in run.iterdir())
    for name in (run, run / "history.jsonl"):
        result = call("check", name)
        assert result.exit_code == code, result.output
        assert says in " ".join(result.stdout.split())
    assert sorted(path.name for path in run.iterdir()) == before
    assert json.loads(call("check", run, "--json").stdout)["outcome"] == {0: "valid", 1: "invalid", 3: "unknown"}[code]


def test_a_torn_last_line_is_a_killed_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    whole = (run / run_directory.HISTORY).read_bytes()
    (run / run_directory.HISTORY).write_bytes(whole[:-20])
    result = call("check", run)
    assert (result.exit_code, "The run was killed" in result.stdout) == (3, True)


def test_a_run_without_a_history_or_a_scenario_or_with_a_broken_line_is_not_judged(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    lines = (run / run_directory.HISTORY).read_text().splitlines(keepends=True)
    (run / run_directory.HISTORY).write_text("".join([*lines[:6], lines[6][:30] + "\n", *lines[7:]]))
    result = call("check", run)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "line 7 of the history is not JSON" in stderr(result)
    assert "Next: The history has a broken line." in stderr(result)
    (run / run_directory.HISTORY).write_text("".join([*lines[:6], *lines[7:]]))
    result = call("check", run)
    assert (result.exit_code, "lines missing" in result.stdout) == (3, True)
    (run / run_directory.SCENARIO).unlink()
    result = call("report", run)
    assert result.exit_code == 2
    assert "so the checks of this run are unknown" in stderr(result)
    assert "--scenario" in stderr(result)
    assert call("check", tmp_path / "none").exit_code == 2


def test_another_scenario_may_be_given_and_one_without_checks_is_unknown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    other = tmp_path / "other.toml"
    head = '[scenario]\nname = "x"\ntitle = "t"\nexpectation = "p"\n[[steps]]\nname = "a"\nhold_s = 1\n'
    other.write_text(head)
    assert call("check", run, "--scenario", other).exit_code == 3
    other.write_text(f"{head}[checks.recovery]\n")
    result = call("check", run, "--scenario", other)
    assert result.exit_code == 3
    assert "This is a run of scenario 'director-power-cut', not of 'x'" in " ".join(result.stdout.split())
    own = (run / "scenario.toml").read_text()
    other.write_text(own[: own.index("[checks.")] + "[checks.recovery]\n")
    result = call("check", run, "--scenario", other)
    assert (result.exit_code, "ownership" in result.stdout) == (0, False)
    (run / run_directory.SCENARIO).write_text(f"{head}[checks.recovry]\n")
    result = call("check", run)
    assert (result.exit_code, "did you mean" in stderr(result)) == (2, True)


def test_a_killed_run_is_never_valid_whatever_its_checks_find(monkeypatch: pytest.MonkeyPatch) -> None:
    def content(_: History, settings: object) -> Verdict:
        return Verdict(check="content", outcome=Outcome.VALID, summary="All well.", numbers={"seen": 1})

    asked = {"content": checks.Check(checks.CHECKS["recovery"].settings, content)}
    monkeypatch.setattr(checks, "CHECKS", asked)
    assert overall(checks.judge(CLEAN, {"content": {}})) is Outcome.VALID
    (verdict,) = checks.judge(h.killed(CLEAN, 58_000), {"content": {}})
    assert (verdict.outcome, verdict.numbers) == (Outcome.UNKNOWN, {"seen": 1})
    assert "The run was killed" in verdict.summary


@pytest.mark.parametrize("command", ["check", "report"])
def test_neither_docker_nor_the_cluster_nor_the_load_is_imported(tmp_path: Path, command: str) -> None:
    run = make_run(tmp_path / "run", PowerCut(probe_every=500).history())
    program = (
        "import sys; from harness.cli import main\n"
        f"try: main([{command!r}, {str(run)!r}])\n"
        "except SystemExit: pass\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'docker', 'topology', 'faults', 'loadtests'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=DEADLINE_S, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


# --- report


MADE = ["junit.xml", "logs", "metrics.prom", "report.html", "verdict.json"]


def test_report_writes_all_derived_files_again_and_always_the_same(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / run_directory.REPORT).write_text("old")
    result = call("report", run)
    assert result.exit_code == 0
    assert f"report: {run / 'report.html'}" in result.stdout
    assert sorted(path.name for path in run.iterdir()) == [
        "history.jsonl",
        *MADE[:3],
        "report.html",
        "scenario.toml",
        "verdict.json",
    ]
    first = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert "The cluster held." in first[run / "report.html"].decode()
    assert call("report", run).exit_code == 0
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == first


def test_report_writes_to_another_directory_even_for_an_invalid_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", LATE)
    assert call("report", run, "--to", tmp_path / "new" / "place").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "new" / "place").iterdir()) == MADE
    assert not (run / "report.html").exists()
    (tmp_path / "file").touch()
    result = call("report", run, "--to", tmp_path / "file" / "x")
    assert (result.exit_code, "cannot write to" in stderr(result)) == (2, True)


def test_report_takes_the_verdicts_that_were_made_unless_they_are_out_of_date(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", LATE)
    assert call("report", run).exit_code == 0
    made = run / run_directory.VERDICT
    told = made.read_text().replace("invalid", "unknown")
    made.write_text(told)

    def outcome(*words: str) -> str:
        assert call("report", run, *words).exit_code == 0
        return str(json.loads(made.read_text())["outcome"])

    assert outcome() == "unknown", "it was not judged again"
    assert outcome("--again") == "invalid"
    for spoilt in (told[: len(told) // 2], "{}", told.replace("director-power-cut", "other")):
        made.write_text(spoilt)
        assert outcome() == "invalid"
    made.write_text(told)
    later = made.stat().st_mtime_ns + 10**9
    os.utime(run / run_directory.SCENARIO, ns=(later, later))
    assert outcome() == "invalid"


@pytest.mark.parametrize(("of", "key"), [("verdict", "outcome"), ("scenario", "steps")])
def test_the_schemas_are_printed(of: str, key: str) -> None:
    result = call("schema", of)
    schema = json.loads(result.stdout)
    assert (result.exit_code, schema["type"]) == (0, "object")
    assert key in schema["properties"]
    assert key in schema["required"]
