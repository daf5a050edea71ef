"""Two audits, compared; and what an audit says of a clock."""

from __future__ import annotations

import pytest

from harness.audit import LeftBehindError, audited, differences, left_over
from harness.fake import FakeLab
from topology.lab.docker_lab import clock_line


def test_the_same_is_no_difference() -> None:
    assert differences({"a": ("x", "y")}, {"a": ("y", "x")}) == []


def test_what_went_what_came_and_what_is_down_is_told() -> None:
    assert differences({"a": ("x", "y"), "b": ("z",)}, {"a": ("y", "w"), "b": ()}) == [
        "a: was: x",
        "a: now: w",
        "b: was: z",
    ]


def test_what_takes_its_time_is_waited_for() -> None:
    lab = FakeLab()
    before = lab.audit()
    lab.node("web-1").power_off()
    lab.time.after(3000, lab.node("web-1").boot)
    assert left_over(lab, before, 1.0, lab.clock) == ["web-1: was: power: running", "web-1: now: power: off"]
    lab.node("web-1").boot()
    assert left_over(lab, before, 1.0, lab.clock) == []


def test_a_block_that_leaves_something_is_told_what() -> None:
    lab = FakeLab()
    with audited(lab, 1.0, lab.clock):
        pass
    with pytest.raises(LeftBehindError, match="web-1: now: power: off") as told, audited(lab, 1.0, lab.clock):
        lab.node("web-1").power_off()
    assert told.value.left == ["web-1: was: power: running", "web-1: now: power: off"]


def test_a_block_that_raises_says_so_itself() -> None:
    lab = FakeLab()

    def broken() -> None:
        lab.node("web-1").power_off()
        raise KeyError

    with pytest.raises(KeyError), audited(lab, 1.0, lab.clock):
        broken()


@pytest.mark.parametrize(
    ("now_s", "said"),
    [(100, "right"), (110, "right"), (97, "right"), (113, "right"), (90, "off by -10 s"), (3710, "off by 3600 s")],
)
def test_a_clock_is_judged_by_the_hosts_before_and_after(now_s: int, said: str) -> None:
    """However long the reading took: it took from 100 to 110."""
    assert clock_line(now_s, 100, 110) == f"clock: {said}"
