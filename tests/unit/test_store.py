from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from harness.artifacts import run_directory
from harness.records import LabError

AT = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.fixture
def scenario_file(tmp_path: Path) -> Path:
    path = tmp_path / "cut.toml"
    path.write_text("[scenario]\n")
    return path


def test_a_run_directory_is_named_by_time_and_scenario_and_holds_both(tmp_path: Path, scenario_file: Path) -> None:
    root = tmp_path / "deep" / "runs"
    directory = run_directory.create(root, scenario_file, "cut", {"lab": "fake", "seed": 7}, AT)
    assert directory == root / "20310203T040506Z-cut"
    assert (directory / "scenario.toml").read_text() == "[scenario]\n"
    assert json.loads((directory / "meta.json").read_text()) == {"lab": "fake", "seed": 7}
    assert run_directory.read_meta(directory) == {"lab": "fake", "seed": 7}
    assert sorted(path.name for path in directory.iterdir()) == ["meta.json", "scenario.toml"]


def test_the_time_is_utc_in_any_time_zone(tmp_path: Path, scenario_file: Path) -> None:
    elsewhere = AT.astimezone(timezone(timedelta(hours=9)))
    assert run_directory.create(tmp_path, scenario_file, "cut", {}, elsewhere).name == "20310203T040506Z-cut"


def test_two_runs_in_one_second_do_not_share_a_directory(tmp_path: Path, scenario_file: Path) -> None:
    names = [run_directory.create(tmp_path, scenario_file, "cut", {}, AT).name for _ in range(3)]
    assert names == ["20310203T040506Z-cut", "20310203T040506Z-cut-2", "20310203T040506Z-cut-3"]


def test_latest_points_at_the_newest_and_can_be_moved(tmp_path: Path, scenario_file: Path) -> None:
    root = tmp_path / "runs"
    run_directory.create(root, scenario_file, "one", {}, AT)
    two = run_directory.create(root, scenario_file, "two", {}, AT)
    latest = root / "latest"
    assert latest.is_symlink()
    assert str(latest.readlink()) == two.name  # relative, so that the whole folder can be moved
    assert latest.resolve() == two.resolve()
    assert [path for path in root.iterdir() if path.name.startswith(".")] == []


def test_a_root_that_is_not_writable_gets_one_sentence(tmp_path: Path, scenario_file: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(LabError, match=r"cannot create a run directory in .*file: "):
        run_directory.create(blocked, scenario_file, "cut", {}, AT)


def test_a_file_is_replaced_atomically(tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    run_directory.write(path, "old")
    run_directory.write(path, "new")
    assert path.read_text() == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["verdict.json"]


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_run_without_readable_meta_data_can_still_be_judged(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "meta.json").write_text(content)
    assert run_directory.read_meta(tmp_path) == {}


def test_the_meta_data_has_what_is_needed_to_repeat_the_run() -> None:
    facts = run_directory.meta("demo", 7, ["/opt/bin/monkeywrench", "run", "a b.toml"])
    assert (facts["lab"], facts["seed"], facts["command"]) == ("demo", 7, "monkeywrench run 'a b.toml'")
    assert run_directory.meta("demo", 7, ["/x/pytest/__main__.py", "-q"])["command"] == "python -m pytest -q"
    assert {"monkeywrench", "python", "kernel", "machine"} <= facts["versions"].keys()
    json.dumps(facts)
