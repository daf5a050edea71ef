"""An internal error has its own exit code and a file with the traceback; a broken file gets one sentence."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import docker.errors
import pytest
import requests
from click.testing import CliRunner, Result

from harness import crash, doctor
from harness.artifacts import run_directory, stored_run
from harness.cli import main
from harness.errors import UserError
from loadtests import merge
from tests.support.stored import make_run

LINE = {"index": 0, "time": 0, "process": "user:0", "type": "ok", "f": "profile-write", "value": None}

WORKER = {"phase": "begin", "boot": "a", "wall_ns": 1}
BEGIN = {"t": 1, "process": "worker:user:0", "type": "info", "f": "worker", "value": WORKER}
ASK = {"t": 2, "process": "user:0:0", "type": "invoke", "f": "get", "value": {"url": "http://x.test/"}}


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def stderr(result: Result) -> str:
    return " ".join(result.stderr.split())


def breaks(*_: object, **__: object) -> NoReturn:
    raise ZeroDivisionError("a mistake of ours")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            docker.errors.APIError("409 Client Error", explanation="container web-2 is not running"),
            "web-2 is not running",
        ),
        (
            docker.errors.NotFound("404 Client Error", explanation="No such container: web-2"),
            "No such container: web-2",
        ),
        (docker.errors.APIError("500", explanation="write /x: no space left on device"), "the engine's disk is full"),
        (requests.exceptions.ConnectionError("Connection aborted."), "Connection aborted."),
    ],
)
def test_what_the_engine_does_wrong_is_an_error_of_the_lab(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def refuses(*_: object, **__: object) -> NoReturn:
        raise error

    monkeypatch.setattr(doctor, "examine", refuses)
    result = call("doctor")
    assert result.exit_code == 4
    assert words in stderr(result)
    assert "internal error" not in result.output
    assert list(temporary.iterdir()) == []


def test_an_internal_error_names_the_file_with_its_details(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", breaks)
    result = call("doctor")
    assert result.exit_code == crash.EXIT_CODE == 5
    (file,) = temporary.iterdir()
    assert f"internal error in `doctor`: ZeroDivisionError: a mistake of ours; the details are in {file}" in stderr(
        result
    )
    assert f"Next: Report this, and attach {file}." in stderr(result)
    assert "Traceback" not in result.output
    assert "ZeroDivisionError: a mistake of ours" in file.read_text()
    assert "in breaks" in file.read_text()


def test_the_details_of_a_report_are_in_the_run_directory(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run")
    monkeypatch.setattr(stored_run, "write", breaks)
    assert call("report", run).exit_code == 5
    assert len([*run.glob("internal-error-*.txt")]) == 1
    assert not [*temporary.iterdir()]


def test_check_changes_nothing_even_then(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run")
    before = sorted(run.iterdir())
    monkeypatch.setattr(stored_run, "judge", breaks)
    assert call("check", run).exit_code == 5
    assert sorted(run.iterdir()) == before
    assert len([*temporary.iterdir()]) == 1


def test_wrong_use_and_help_are_no_internal_errors() -> None:
    assert call("check", "--no-such").exit_code == 2
    assert call("check", "--help").exit_code == 0


def test_the_sentence_is_short_and_printable(temporary: Path) -> None:
    error = crash.explain(ValueError("\ud800" + "x\n" * 5000), "check")
    assert isinstance(error, UserError)
    assert len(str(error)) < 400
    str(error).encode()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"type": []}, "its 'type' is wrong"),
        ({"value": "DEEP"}, "nested too deep"),
        ({"time": 3_700_000_000_000_000_000_000}, "more than 30 days"),
        ({"value": "NAN"}, "is not JSON"),
        ({"error": "\ud800", "value": "NAN"}, "is not JSON"),
    ],
)
def test_an_op_that_cannot_be_read_is_refused(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    run = make_run(tmp_path / "run")
    line = json.dumps({**LINE, **changes}).replace('"DEEP"', "[" * 100_000 + "]" * 100_000).replace('"NAN"', "NaN")
    (run / run_directory.HISTORY).write_text(f"{line}\n")
    for words in (("check", run), ("report", run), ("history", run), ("compare", run, run)):
        result = call(*words)
        assert (result.exit_code, sentence in stderr(result)) == (2, True), words


@pytest.mark.parametrize(("f", "value"), [("profile-read", {"player": [[]], "motto": {}}), ("get", {"status": []})])
def test_a_value_that_makes_no_sense_breaks_no_command(tmp_path: Path, f: str, value: dict[str, Any]) -> None:
    run = make_run(tmp_path / "run")
    path = run / run_directory.HISTORY
    lines = path.read_text().splitlines()
    for kind in ("invoke", "ok"):
        lines.append(json.dumps({**LINE, "index": len(lines), "time": 50, "type": kind, "f": f, "value": value}))
    path.write_text("".join(f"{line}\n" for line in lines))
    for words in (("history", run, "--of", "profiles"), ("history", run, "--of", "coins"), ("report", run)):
        assert call(*words).exit_code == 0, words
    assert call("check", run).exit_code in {0, 1, 3}
    assert call("compare", run, run).exit_code in {2, 3}


TOO_LONG, TOO_DEEP = f"seed = {'9' * 5000}", f"seed = {'[' * 1000}{']' * 1000}"


@pytest.mark.parametrize("line", [TOO_LONG, TOO_DEEP, "seed = 0x" + "f" * 5000])
def test_toml_that_python_cannot_read_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(f'[scenario]\nname = "x"\n{line}\n')
    assert call("plan", path).exit_code == 2
    path.write_text(f'name = "x"\n{line}\n')
    result = call("up", "--topology", path)
    assert result.exit_code == 4
    assert "x.toml" in stderr(result)


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b", "x" * 5000])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    commands: tuple[tuple[str, ...], ...] = (
        *((command, name) for command in ("plan", "check", "report", "history", "run")),
        ("compare", name, name),
        ("merge", name, "--to", "x"),
        ("load", "steady", "--baseline", name),
    )
    for words in commands:
        assert call(*words).exit_code == 2, words
    assert call("up", "--topology", name).exit_code == 4
    assert call("doctor", "--topology", name).exit_code == 4


def test_a_setting_of_brackets_is_refused() -> None:
    result = call("inject", "network.delay", "node=web-1", f"delay_ms={'[' * 100_000}")
    assert result.exit_code == 2
    assert len(stderr(result)) < 1000


@pytest.mark.parametrize("value", ["inf", "nan", "-1", "-5%", "inf%", "nan%", "1e999"])
def test_a_tolerance_is_a_finite_number(tmp_path: Path, value: str) -> None:
    run = make_run(tmp_path / "run")
    result = call("compare", run, run, "--tolerance", f"p50_ms={value}")
    assert result.exit_code == 2
    assert f"invalid tolerance 'p50_ms={value}'" in stderr(result)


def test_a_value_that_json_does_not_have_is_an_unreadable_line_of_a_worker(tmp_path: Path) -> None:
    text = (
        f"{json.dumps(BEGIN)}\n{json.dumps(ASK)}\n" + '{"t":3,"process":"user:0:0","type":"ok","f":"get","value":NaN}\n'
    )
    file = tmp_path / "ops"
    file.write_text(text)
    result = call("merge", file, "--to", tmp_path / "merged")
    assert result.exit_code == 0
    assert "1 unreadable line" in stderr(result)
    assert stored_run.load(tmp_path / "merged" / run_directory.HISTORY)


def test_a_merge_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = merge.read("a", [json.dumps(BEGIN), json.dumps(ASK)])
    entries = list(merge.merged([worker], "load"))
    with pytest.raises(OSError, match="nowhere"):
        merge.write(tmp_path / "merged", entries, tmp_path / "nowhere")
    assert not (tmp_path / "merged").exists()
    (tmp_path / "own").mkdir()
    with pytest.raises(OSError, match="nowhere"):
        merge.write(tmp_path / "own", entries, tmp_path / "nowhere")
    assert not [*(tmp_path / "own").iterdir()]
