"""Where runs are kept: one directory a run, and ``latest`` pointing at the newest.

========================  ===============================================================
``scenario.toml``         the scenario as it was run
``load.toml``             where the run had the load of another scenario: that one
``meta.json``             lab, seed, command line and versions
``history.jsonl``         all that happened; everything below is made from it
``capture.pcapng``        packets, if the scenario asks for them
``verdict.json``          what each check says
``report.html``           the same for people
``junit.xml``             the same for CI servers
``metrics.prom``          the run in numbers, for Prometheus
``logs/``                 the nodes' own logs, a file a node and service
========================  ===============================================================
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness.records import LabError

__all__ = [
    "CAPTURE",
    "HISTORY",
    "JUNIT",
    "LOAD",
    "LOGS",
    "META",
    "METRICS",
    "REPORT",
    "SCENARIO",
    "VERDICT",
    "command",
    "create",
    "keep_load",
    "meta",
    "read_meta",
    "write",
]

SCENARIO = "scenario.toml"
LOAD = "load.toml"
META = "meta.json"
HISTORY = "history.jsonl"
CAPTURE = "capture.pcapng"
VERDICT = "verdict.json"
REPORT = "report.html"
JUNIT = "junit.xml"
METRICS = "metrics.prom"
LOGS = "logs"

LATEST = "latest"
MOST_AT_ONCE = 1000
"""Runs of one scenario that may start in one second; only there to bound the search for a free name."""


def create(root: Path, scenario_file: Path, name: str, facts: Mapping[str, Any], at: datetime | None = None) -> Path:
    """Make a new run directory under ``root``, with its copy of the scenario and its ``meta.json``; -> its path.

    ``at`` is when the run starts (now, unless given). ``latest`` points at it when this returns. Raises LabError when
    the directory cannot be made.
    """
    stamp = (at or datetime.now(UTC)).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    try:
        root.mkdir(parents=True, exist_ok=True)
        directory = _unused(root, f"{stamp}-{name}")
        shutil.copyfile(scenario_file, directory / SCENARIO)
        write(directory / META, json.dumps(dict(facts), indent=2) + "\n")
        _point(root / LATEST, directory.name)
    except OSError as error:
        raise LabError(
            f"the run directory cannot be made in {root}: {error.strerror}", "give a directory that can be written to"
        ) from error
    return directory


def keep_load(directory: Path, scenario_file: Path) -> None:
    """Copy the scenario whose load a run has, where that is not its own. Raises OSError."""
    shutil.copyfile(scenario_file, directory / LOAD)


def meta(lab: str, seed: int, argv: Sequence[str] = tuple(sys.argv)) -> dict[str, Any]:
    """The facts for ``meta.json``: what made this run, for whoever wants to repeat it."""
    return {
        "lab": lab,
        "seed": seed,
        "command": command(argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "monkeywrench": _version("monkeywrench"),
            "python": platform.python_version(),
            "kernel": platform.release(),
            "machine": platform.machine(),
        },
    }


def read_meta(directory: Path) -> dict[str, Any]:
    """The facts of a run; empty when it has none, for a history can be judged without."""
    try:
        facts = json.loads((directory / META).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def write(path: Path, text: str, errors: str = "replace") -> None:
    """Write a file whole or not at all: a reader never sees half of it.

    ``errors`` is what becomes of a lone surrogate, which stands for a byte of a log that is no UTF-8.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8", errors=errors)
    draft.replace(path)


def _unused(root: Path, name: str) -> Path:
    for number in range(1, MOST_AT_ONCE + 1):
        directory = root / (name if number == 1 else f"{name}-{number}")
        try:
            directory.mkdir()
        except FileExistsError:
            continue
        return directory
    raise LabError(f"{MOST_AT_ONCE} runs called {name} exist in {root}", "delete old runs")


def _point(link: Path, target: str) -> None:
    """Renaming replaces a symbolic link in one step; there is always a latest run."""
    draft = link.with_name(f".{link.name}.{target}")
    draft.symlink_to(target)
    draft.replace(link)


def command(argv: Sequence[str] = tuple(sys.argv)) -> str:
    """The command line as somebody would type it, wherever the program is installed."""
    program, *rest = argv
    path = Path(program)
    words = ["python", "-m", path.parent.name] if path.name == "__main__.py" else [path.name]
    return shlex.join([*words, *rest])


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"
