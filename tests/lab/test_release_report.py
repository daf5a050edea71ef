"""`monkeywrench load` as its users have it: two sites by turns on a lab that is up."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from harness.artifacts.run_directory import HISTORY
from harness.wait import NotYet, until
from tests.support.command import MONKEYWRENCH
from tests.support.site import OWN, contents
from topology.lab.docker_lab import DockerLab

PROFILE = """\
[scenario]
name = "short"
title = "A short load"
topology = "ultramonkey"
seed = 1
expectation = "No request goes wrong."

[load]
users = 10
arrivals = "constant"
phases = [{ per_s = 20 }]

[[steps]]
name = "load"
until = "steady"
within_s = 60
hold_s = 8

[checks.errors]
"""
FIRST = "declare(strict_types=1);"
SLOW_MS = 200


@pytest.fixture
def load(lab: DockerLab, tmp_path: Path) -> list[str]:
    """The command: the site as it is, against one whose front page takes its time."""
    (tmp_path / "short.toml").write_text(PROFILE)
    shutil.copytree(OWN, tmp_path / "slow")
    index = tmp_path / "slow" / "index.php"
    index.write_text(index.read_text().replace(FIRST, f"{FIRST} usleep({SLOW_MS * 1000});", 1))
    words = ["load", "short.toml", "--lab", lab.name, "--site", "slow", "--against", str(OWN), "--to", "out"]
    return [*MONKEYWRENCH, *words]


def begin(command: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_two_sites_take_turns_and_the_slower_one_is_seen(lab: DockerLab, load: list[str], tmp_path: Path) -> None:
    lab.wait_healthy()
    own = contents(lab)
    done = begin([*load, "--runs", "1"], tmp_path)
    said, _ = done.communicate()
    assert done.returncode == 3, said  # one run on a side cannot tell
    told = " ".join(said.split())
    for words in ("run 1 of 2, baseline", "run 2 of 2, candidate, about", "too few to decide"):
        assert words in told
    (out,) = (tmp_path / "out").iterdir()
    assert sorted(path.parts[-3] for path in out.rglob(HISTORY) if not path.parent.is_symlink()) == [
        "baseline",
        "candidate",
    ]
    found = json.loads((out / "comparison.json").read_text())
    (front,) = [each for each in found["endpoints"] if each["endpoint"] == "get /"]
    (median,) = [each for each in front["comparisons"] if each["statistic"] == "p50_ms"]
    assert median["test"]["shift"] > SLOW_MS / 2
    assert (out / "comparison.html").stat().st_size > 10_000
    assert contents(lab) == own


def test_a_load_that_is_interrupted_keeps_its_runs_and_takes_its_site_back(
    lab: DockerLab, load: list[str], tmp_path: Path
) -> None:
    lab.wait_healthy()
    own = contents(lab)
    done = begin([*load, "--runs", "3"], tmp_path)

    def second() -> bool:
        found = list(tmp_path.glob(f"out/*/candidate/*Z-*/{HISTORY}"))
        if done.poll() is None and not (found and '"get"' in found[0].read_text()):
            raise NotYet("the second run has not begun")
        return True

    until(second, 200, "the second run")
    done.send_signal(signal.SIGINT)
    said, _ = done.communicate()
    assert done.returncode == 130, said
    assert "interrupted; the finished runs are kept in out/" in said
    assert contents(lab) == own
