"""Run groups of tests, one after another, and show where the time went: ``python -m tests.groups [GROUP ...]``.

Without a group all of them run: the cheap ones first, so that a slip costs seconds. The first group that fails is the
last one. docs/testing.md says what belongs where.
"""

from __future__ import annotations

import os
import re
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
LONG_MIN = 0.5
"""Files of tests that take longer together are listed."""
SLOW = "browser or locust or packaging"
"""The marks of the unit tests that take seconds."""
BESIDE = ("-n", "2", "--dist", "worksteal")


ROOT = Path(__file__).parents[1]


def pytest(*words: str) -> list[str]:
    return [PYTHON, "-m", "pytest", *words]


def marked(folder: str) -> list[str]:
    """The files of a folder that have tests with one of the marks of SLOW: each worker reads all that it is given."""
    mark = re.compile(rf"mark\.({SLOW.replace(' or ', '|')})\b")
    return sorted(str(path) for path in Path(ROOT, folder).glob("test_*.py") if mark.search(path.read_text()))


GROUPS: dict[str, list[list[str]]] = {
    "style": [
        [str(SCRIPTS / "ruff"), "format", "--check", "."],
        [str(SCRIPTS / "ruff"), "check", "."],
        [str(SCRIPTS / "mypy")],
    ],
    "fast": [pytest("-n", "3", "--dist", "worksteal", "-m", f"not ({SLOW})", "tests/unit", "tests/plugin")],
    "mutations": [pytest("-n", "2", "--dist", "worksteal", "tests/mutations")],
    # these wait more than they compute
    "load": [pytest("-n", "4", "--dist", "worksteal", "-m", SLOW, *marked("tests/unit"))],
    # a kernel that is compiled beside a lab in real time would make it late
    "images": [[PYTHON, "-m", "harness.cli", "build", "--clock", clock] for clock in ("real", "virtual")],
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


def environment() -> dict[str, str]:
    """This one, but Python keeps what it compiles even where it is told not to: a run of tests has 100 processes."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(ROOT / ".pytest_cache" / "compiled")}


def run(commands: Sequence[Sequence[str]], results: Path) -> int:
    """Run commands until one fails; -> its exit code."""
    for number, command in enumerate(commands):
        report = [f"--junitxml={results}-{number}.xml"] if "pytest" in command else []
        if code := subprocess.run([*command, *report], check=False, env=environment()).returncode:
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
    files: dict[str, float] = {}
    for seconds, name in tests:
        file = name.partition("::")[0]
        files[file] = files.get(file, 0) + seconds / 60
    longest = sorted(((spent, file) for file, spent in files.items() if spent > LONG_MIN), reverse=True)
    lines += [f"{spent:8.1f} min  {file}" for spent, file in longest]
    lines += [f"{spent:8.1f} min  {name}{' FAILED' if name == failed else ''}" for name, spent in minutes.items()]
    lines += [f"{sum(minutes.values()):8.1f} min  in all"]
    return "\n".join(["", *lines])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
