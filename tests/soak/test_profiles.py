"""The loads that come along, on a real lab: each does what it says."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from harness.artifacts.run_directory import HISTORY
from harness.history import History, load
from harness.history.latency import load as load_of
from tests.support.command import MONKEYWRENCH
from topology.lab.docker_lab import DockerLab

PROFILES = Path("loadtests/profiles")
HALF_AN_HOUR = re.compile(r"for_s = 1800")


def run(lab: DockerLab, profile: Path, folder: Path) -> tuple[int, str, History]:
    argv = [*MONKEYWRENCH, "run", str(profile.resolve()), "--lab", lab.name, "--runs", str(folder / "runs")]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    (history,) = (folder / "runs").glob(f"*Z-*/{HISTORY}")
    return done.returncode, done.stdout + done.stderr, load(history)


@pytest.mark.parametrize("name", ["steady", "ramp", "spike", "steps"])
def test_a_profile_is_valid_on_a_right_cluster(lab: DockerLab, tmp_path: Path, name: str) -> None:
    code, said, history = run(lab, PROFILES / f"{name}.toml", tmp_path)
    assert code == 0, said
    assert sum(map(len, load_of(history).values())) > 1_000


def test_a_soak_of_five_minutes_loses_nothing(lab: DockerLab, tmp_path: Path) -> None:
    shorter = tmp_path / "soak.toml"
    shorter.write_text(HALF_AN_HOUR.sub("for_s = 300", (PROFILES / "soak.toml").read_text()))
    code, said, history = run(lab, shorter, tmp_path)
    assert code == 0, said
    assert {"get", "score", "upload", "publish"} <= load_of(history).keys()


def test_yesterdays_log_is_asked_for_again(lab: DockerLab, tmp_path: Path) -> None:
    """A real server's own access log, with a line that cannot be read; what was asked then is asked again."""
    (tmp_path / "before").mkdir()
    run(lab, PROFILES / "ramp.toml", tmp_path / "before")
    asked = "grep -h 'GET / HTTP' /var/log/apache2/access.log | tail -n 200"
    lines = [line for node in lab.nodes("web") for line in node.exec("sh", "-c", asked).stdout.splitlines()]
    (tmp_path / "access.log").write_text("\n".join([*lines, "half a li"]) + "\n")
    code, said, history = run(lab, PROFILES / "replay.toml", tmp_path)
    assert code == 0, said
    assert "1 lines are broken" in said
    (pages,) = load_of(history).values()
    assert len(pages) == len(lines) > 500
    verdict = json.loads(next((tmp_path / "runs").glob("*Z-*/verdict.json")).read_text())
    assert verdict["outcome"] == "valid"
