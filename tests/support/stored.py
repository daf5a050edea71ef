"""Run directories that are made up, and judged as if they were stored."""

from __future__ import annotations

from pathlib import Path

from harness.artifacts import run_directory
from harness.history import History
from tests.support.histories import PowerCut

POWER_CUT = Path(__file__).parents[1] / "chaos" / "director-power-cut.toml"
CLEAN = PowerCut().history()


def make_run(directory: Path, history: History = CLEAN, asked: Path = POWER_CUT) -> Path:
    directory.mkdir(parents=True)
    # histories that are made up have no long answers in them
    (directory / run_directory.SCENARIO).write_text(asked.read_text().replace("[checks.established]\n", ""))
    (directory / run_directory.HISTORY).write_text("".join(op.line() + "\n" for op in history))
    return directory
