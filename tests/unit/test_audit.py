"""Two audits, compared; and what an audit says of a clock."""

from __future__ import annotations

import pytest

from harness.audit import LeftBehindError, audited, differences, left_over
from harness.fake import FakeLab
from topology.lab.docker_lab import clock_line


def test_equal_audits_have_no_differences() -> None:
    assert differences({"a": ("x", "y")}, {"a": ("y", "x")}) == []


def test_lines_that_went_or_came_and_nodes_that_are_down_are_differences() -> None:
    assert differences({"a": ("x", "y"), "b": ("z",)}, {"a": ("y", "w"), "b": ()}) == [
        "a: was: x",
        "a: now: w",
        "b: was: z",
    ]


def test_differences_have_time_to_go_away() -> None:
    lab = FakeLab()
    before = lab.audit()
    lab.node("web-1").power_off()
    lab.time.after(3000, lab.node("web-1").boot)
    assert left_over(lab, before, 1.0) == ["web-1: was: power: running", "web-1: now: power: off"]
    lab.node("web-1").boot()
    assert left_over(lab, before, 1.0) == []


def test_a_lease_that_is_still_held_is_a_difference() -> None:
    lab = FakeLab()
    lease = lab.node("web-1").lease("node.slow", "processor", ())
    assert left_over(lab, lab.audit(), 1.0) == ["web-1: node.slow is still held"]
    lease.release()
    assert left_over(lab, lab.audit(), 1.0) == []


def test_a_block_that_leaves_differences_raises_them() -> None:
    lab = FakeLab()
    with audited(lab, 1.0):
        pass
    with pytest.raises(LeftBehindError, match="web-1: now: power: off") as caught, audited(lab, 1.0):
        lab.node("web-1").power_off()
    assert caught.value.left == ["web-1: was: power: running", "web-1: now: power: off"]


def test_the_error_of_a_block_passes_through() -> None:
    lab = FakeLab()

    def broken() -> None:
        lab.node("web-1").power_off()
        raise KeyError

    with pytest.raises(KeyError), audited(lab, 1.0):
        broken()


@pytest.mark.parametrize(
    ("now_s", "state"),
    [(100, "right"), (110, "right"), (97, "right"), (113, "right"), (90, "off by -10 s"), (3710, "off by 3600 s")],
)
def test_a_clock_is_compared_with_the_hosts_before_and_after(now_s: int, state: str) -> None:
    """However long the reading took: it took from 100 to 110."""
    assert clock_line(now_s, 100, 110) == f"clock: {state}"
