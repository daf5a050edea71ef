"""An installed wheel has everything that the packages need, and finds it from any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.program import DEADLINE_S

ROOT = Path(__file__).parents[2]
PACKAGES = ("harness", "topology", "faults", "loadtests")
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"

pytestmark = pytest.mark.packaging


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of a wheel that was built from a copy of this repository: setuptools leaves folders behind."""
    place = tmp_path_factory.mktemp("wheel")
    copy = place / "copy"
    for package in (*PACKAGES, "tests/chaos"):
        shutil.copytree(ROOT / package, copy / package, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    subprocess.run(
        [sys.executable, "-c", BUILD, str(place)], cwd=copy, check=True, capture_output=True, timeout=DEADLINE_S
    )
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "installed")
    return place / "installed"


def test_the_wheel_has_every_file_of_the_packages(installed: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", *PACKAGES, "tests/chaos"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    expected = {name.replace("tests/chaos/", "harness/scenarios/") for name in listed.stdout.splitlines()}
    expected -= {"harness/scenarios"}  # the link itself
    assert expected - {path.relative_to(installed).as_posix() for path in installed.rglob("*")} == set()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("plan", "director-power-cut"), "node.power-off node=lb-1"),
        (("plan", "steady"), "wait 45 s"),
        (("schema", "scenario"), "fault.node.power-off"),
    ],
)
def test_it_finds_scenarios_and_profiles_from_any_folder(
    installed: Path, tmp_path: Path, words: tuple[str, ...], expected: str
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-P", "-m", "harness.cli", *words]
    done = subprocess.run(
        command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert expected in done.stdout
