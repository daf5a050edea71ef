"""The run directory: the names of its files, and how they are created and written.

Each run has its own directory below a common root (``runs/`` by default). It is called
``<start time>-<scenario>``, and the link ``latest`` beside it points at the newest one.

A run writes these files:

==================  ====================================================================
``scenario.toml``   a copy of the scenario
``load.toml``       the other scenario or profile whose load the run used, if it did
``meta.json``       lab, seed, command line and versions
``history.jsonl``   everything that happened, one op per line
``capture.pcapng``  packets, if the scenario captures any
``lab.json``        in virtual time: what the lab was made of
``trace.gz``        in virtual time: time, place and hash of each frame
==================  ====================================================================

The others are derived from the history, and can be written again at any time:

==================  ====================================================================
``verdict.json``    the verdict of each check
``report.html``     the report
``junit.xml``       the verdicts for CI servers
``metrics.prom``    the run in numbers, for Prometheus
``logs/``           the nodes' own logs, one file per node and service
==================  ====================================================================

``stored_run.py`` reads a run directory and writes its derived files. docs/run-directory.md describes their formats.
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
    "LAB",
    "LOAD",
    "LOGS",
    "META",
    "METRICS",
    "REPORT",
    "SCENARIO",
    "TRACE",
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
LAB = "lab.json"
TRACE = "trace.gz"
VERDICT = "verdict.json"
REPORT = "report.html"
JUNIT = "junit.xml"
METRICS = "metrics.prom"
LOGS = "logs"

LATEST = "latest"
REPLAY_OF = "replay_of"
"""The key of ``meta.json`` with the name of the run that this one repeats."""
MOST_AT_ONCE = 1000
"""Limit on the runs of one scenario that start in the same second; it bounds the search for a free name."""


def create(root: Path, scenario_file: Path, name: str, facts: Mapping[str, Any], at: datetime | None = None) -> Path:
    """Create a run directory below ``root`` with a copy of the scenario and ``meta.json``, and return its path.

    ``at`` is the start time of the run, by default now. ``latest`` points at the directory when this returns, unless
    its facts name another run of which it is a replay. Raises LabError if the directory cannot be created.
    """
    stamp = (at or datetime.now(UTC)).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    try:
        root.mkdir(parents=True, exist_ok=True)
        directory = _unused(root, f"{stamp}-{name}")
        shutil.copyfile(scenario_file, directory / SCENARIO)
        write(directory / META, json.dumps(dict(facts), indent=2) + "\n")
        if REPLAY_OF not in facts:
            _point(root / LATEST, directory.name)
    except OSError as error:
        raise LabError(
            f"cannot create a run directory in {root}: {error.strerror}", "choose a writable directory with --runs"
        ) from error
    return directory


def keep_load(directory: Path, scenario_file: Path) -> None:
    """Copy the scenario or profile whose load replaces the one of the run's own scenario. Raises OSError."""
    shutil.copyfile(scenario_file, directory / LOAD)


def meta(lab: str, seed: int, argv: Sequence[str] = tuple(sys.argv)) -> dict[str, Any]:
    """The content of ``meta.json``: what is needed to repeat the run."""
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
    """The content of ``meta.json``; empty if it is missing or broken, because a history can be judged without it."""
    try:
        facts = json.loads((directory / META).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def write(path: Path, text: str, errors: str = "replace") -> None:
    """Write a file atomically, so that a reader never sees a partial one.

    ``errors`` is the error handler for lone surrogates, which stand for bytes of a log that are not UTF-8.
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
    raise LabError(f"{root} already has {MOST_AT_ONCE:,} runs called {name}", "delete old runs")


def _point(link: Path, target: str) -> None:
    """Replace the link by renaming a new one, so that it always exists."""
    draft = link.with_name(f".{link.name}.{target}")
    draft.symlink_to(target)
    draft.replace(link)


def command(argv: Sequence[str] = tuple(sys.argv)) -> str:
    """The command line as a user would type it, without the path of the program."""
    program, *rest = argv
    path = Path(program)
    words = ["python", "-m", path.parent.name] if path.name == "__main__.py" else [path.name]
    return shlex.join([*words, *rest])


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"
