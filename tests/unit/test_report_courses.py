"""The curves of a comparison: they show the right values and stay within their chart."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from harness.compare import Measures
from harness.compare.course import Course
from harness.report.courses import HEIGHT, LEFT, RIGHT, WIDTH, Chart, charts
from tests.support.sites import Site, call, folder, risen


def run(name: str, course: Course) -> Measures:
    return Measures(name, "s", {}, {}, {}, {}, course=course)


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path)]


def level(at: Chart, side: str, name: str) -> float:
    """The y of a horizontal line."""
    (line,) = (line for line in at.lines if (line.side, line.name) == (side, name))
    (y,) = {y for _, y in points(line.path)}
    return y


def steady(rate: int, ms: float, seconds: int = 300, failed: int = 0) -> Course:
    each = range(seconds + 1)
    times = dict.fromkeys(each, ms)
    bad = dict.fromkeys(each, failed)
    return Course(dict.fromkeys(each, rate), bad, times, dict.fromkeys(each, 2 * ms), {0.0: ms, 0.5: ms, 0.99: 9 * ms})


def test_the_slower_side_is_higher_in_the_chart_and_each_line_is_the_median_of_its_runs() -> None:
    before = [run(f"old-{n}", steady(20, ms)) for n, ms in enumerate((10, 20, 900))]
    now = [run("new", steady(10, 40))]
    answers, latency, percentiles = charts(
        [*(("baseline", one) for one in before), *(("candidate", one) for one in now)]
    )
    assert (answers.unit, latency.unit, percentiles.unit) == ("per second", "ms, over time", "ms, by percentile")
    assert level(answers, "baseline", "answers") < level(answers, "candidate", "answers")
    assert level(latency, "candidate", "p50") < level(latency, "baseline", "p50")
    assert level(latency, "baseline", "p90") == level(latency, "candidate", "p50")  # 2 * 20 ms, the median of three
    assert [label for _, label in percentiles.ticks] == ["0 %", "50 %", "99 %"]


def test_failures_are_drawn_if_there_are_any() -> None:
    (answers, *_) = charts([("baseline", run("a", steady(20, 10))), ("candidate", run("b", steady(20, 10, failed=3)))])
    assert [(line.side, line.name, line.thin) for line in answers.lines] == [
        ("baseline", "answers", False),
        ("candidate", "answers", False),
        ("candidate", "failed", True),
    ]


@pytest.mark.parametrize("seconds", [1, 2, 7, 149, 150, 151, 3_600])
def test_all_curves_stay_within_the_chart(seconds: int) -> None:
    chance = random.Random(seconds)
    times = {second: chance.lognormvariate(3, 2) for second in range(seconds + 1)}
    course = replace(steady(5, 10, seconds), p50_ms=times, p90_ms={s: 3 * ms for s, ms in times.items()})
    for chart in charts([("candidate", run("one", course))]):
        for line in chart.lines:
            assert len(points(line.path)) <= 151
            for x, y in points(line.path):
                assert LEFT - 0.1 <= x <= WIDTH - RIGHT + 0.1
                assert -0.1 <= y <= HEIGHT + 0.1
        assert all(0 <= y <= HEIGHT for y, _ in chart.grid)
        assert all(LEFT <= x <= WIDTH - RIGHT for x, _ in chart.ticks)
        assert len(chart.grid) >= 2


def test_runs_without_answers_have_no_charts() -> None:
    assert charts([]) == []
    assert charts([("candidate", run("none", Course()))]) == []
    silent = Course(answered=dict.fromkeys(range(5), 0), failed=dict.fromkeys(range(5), 4))
    (answers,) = charts([("candidate", run("silent", silent))])
    assert {line.name for line in answers.lines} == {"answers", "failed"}


def test_a_page_has_the_curves_of_both_sides_and_a_knee_only_if_there_is_one(tmp_path: Path) -> None:
    before, now = folder(tmp_path / "a", 5, Site(), 1), folder(tmp_path / "b", 5, Site(), 2)
    call("compare", before, now)
    page = (now / "comparison.html").read_text()
    assert page.count('class="curve baseline"') == page.count('class="curve candidate"') == 2 * 3  # legend and line
    assert "knee, a second" not in page
    assert risen(30, "x").endpoints["all"]["knee_per_s"] == 20
