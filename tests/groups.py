"""Run groups of tests, one after another, and show where the time went: ``python -m tests.groups [GROUP ...]``.

Without a group all of them run: the cheap ones first, so that a slip costs seconds. The first group that fails is the
last one. docs/testing.md says what belongs where.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

PYTHON = sys.executable
SCRIPTS = Path(PYTHON).parent
SLOWEST = 20
SLOW = "browser or locust or packaging"
"""The marks of the unit tests that take seconds."""
BESIDE = ("-n", "2", "--dist", "worksteal")


def pytest(*words: str) -> list[str]:
    return [PYTHON, "-m", "pytest", *words]


GROUPS: dict[str, list[list[str]]] = {
    "style": [
        [str(SCRIPTS / "ruff"), "format", "--check", "."],
        [str(SCRIPTS / "ruff"), "check", "."],
        [str(SCRIPTS / "mypy")],
    ],
    "fast": [pytest("-n", "3", "--dist", "worksteal", "-m", f"not ({SLOW})", "tests/unit", "tests/plugin")],
    # these wait more than they compute
    "load": [pytest("-n", "4", "--dist", "worksteal", "-m", SLOW, "tests/unit")],
    "images": [[PYTHON, "-m", "harness.cli", "build"]],
    # alone: their budgets are those of a quiet machine
    "scenarios": [pytest("--chaos", "tests/chaos")],
    # two labs, each with the files that come its way
    "lab": [pytest("-n", "2", "--dist", "loadfile", "tests/lab")],
}


def main(wanted: Sequence[str]) -> int:
    """Run the groups; -> the exit code of the first command that fails, 0 if none does."""
    if unknown := [name for name in wanted if name not in GROUPS]:
        print(f"unknown group '{unknown[0]}'; the groups are: {', '.join(GROUPS)}", file=sys.stderr)
        return 2
    minutes: dict[str, float] = {}
    code = 0
    with TemporaryDirectory() as folder:
        for name in wanted or GROUPS:
            began = time.monotonic()
            code = run(GROUPS[name], Path(folder) / name)
            minutes[name] = (time.monotonic() - began) / 60
            if code:
                break
        print(summary(minutes, durations(Path(folder)), failed=name if code else ""))
    return code


def run(commands: Sequence[Sequence[str]], results: Path) -> int:
    """Run commands until one fails; -> its exit code."""
    for number, command in enumerate(commands):
        report = [f"--junitxml={results}-{number}.xml"] if "pytest" in command else []
        if code := subprocess.run([*command, *report], check=False).returncode:
            return code
    return 0


def durations(folder: Path) -> list[tuple[float, str]]:
    """How long each test took, with its setup and teardown, in s; the slowest first."""
    cases = [case for path in folder.glob("*.xml") for case in ElementTree.parse(path).iter("testcase")]
    return sorted(
        ((float(each.get("time", 0)), f"{each.get('classname')}::{each.get('name')}") for each in cases), reverse=True
    )


def summary(minutes: dict[str, float], tests: Sequence[tuple[float, str]], failed: str) -> str:
    lines = [f"the {min(SLOWEST, len(tests))} slowest of {len(tests)} tests:"] if tests else []
    lines += [f"{seconds:8.1f} s  {name}" for seconds, name in tests[:SLOWEST]]
    lines += [f"{spent:8.1f} min  {name}{' FAILED' if name == failed else ''}" for name, spent in minutes.items()]
    lines += [f"{sum(minutes.values()):8.1f} min  in all"]
    return "\n".join(["", *lines])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
