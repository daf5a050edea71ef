"""Run directories that are made up, and judged as if they were stored."""

from __future__ import annotations

from pathlib import Path

from harness.artifacts import run_directory
from harness.history import History
from tests.support.histories import PowerCut

POWER_CUT = Path(__file__).parents[1] / "chaos" / "director-power-cut.toml"
CLEAN = PowerCut().history()

STEPS = """\
[[steps]]
name = "steady"
until = "steady"
within_s = 30

[[steps]]
name = "cut"
inject = "node.power-off"
with = { node = "lb-1" }
as = "cut"
until = "owned"
owners = { "203.0.113.101" = "lb-2", "203.0.113.102" = "lb-2" }
within_s = 15

[[steps]]
name = "power on"
heal = "cut"
until = "steady"
within_s = 30

[[steps]]
name = "steady again"
until = "steady"
within_s = 30

"""
"""The steps of the power cut that is made up."""


def planned(scenario: str) -> str:
    """A scenario file with these steps instead of its own."""
    head, _, rest = scenario.partition("[[steps]]")
    return head + STEPS + rest[rest.index("[checks.") :]


def make_run(directory: Path, history: History = CLEAN, asked: Path = POWER_CUT) -> Path:
    directory.mkdir(parents=True)
    # histories that are made up have no long answers in them
    text = asked.read_text().replace("[checks.established]\n", "")
    (directory / run_directory.SCENARIO).write_text(planned(text) if asked == POWER_CUT else text)
    (directory / run_directory.HISTORY).write_text("".join(op.line() + "\n" for op in history))
    return directory
