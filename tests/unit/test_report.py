"""The report: one file that needs nothing but itself, says the verdict first, and shows what the history has."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from harness.checks import CHECKS, judge
from harness.history import History, Op
from harness.report import curves, lanes, render
from harness.report.lanes import LEFT, RIGHT, WIDTH
from harness.verdict import Outcome, Verdict
from tests.unit import histories as h
from tests.unit.histories import VIP1, VIP2, PowerCut

CLEAN = PowerCut(probe_every=200).history()
META = {"seed": 1, "kernel <b>": "uml & host", "command": "monkeywrench run director-power-cut --seed 1"}


def page(history: History, verdicts: list[Verdict] | None = None, title: str = "A power cut") -> str:
    asked = judge(history, {name: {} for name in CHECKS}) if verdicts is None else verdicts
    return render(history, asked, title, "It holds.", META)


def gets(*done: tuple[float, float, str]) -> list[Op]:
    """Requests (sent at, took, how it ended), in ms."""
    ops = []
    for user, (at, took, kind) in enumerate(done):
        value = {"url": "/", "vip": VIP1}
        ops.append(h.op(at, f"user:{user}", "get", value, "invoke"))
        ops.append(h.op(at + took, f"user:{user}", "get", value | ({"ms": took} if kind == "ok" else {}), kind))
    return ops


def lane(history: History, label: str, note: str = "") -> lanes.Lane:
    return next(row for row in lanes.lanes(history) if (row.label, row.note) == (label, note))


def time_at(x: float, history: History) -> float:
    """The ms at a place of the time line."""
    return (x - LEFT) / (WIDTH - LEFT - RIGHT) * history.end_ns / h.MS


class Page(HTMLParser):
    """Collects addresses that a browser would fetch, ids and unclosed tags."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data", "action"}]
        self.fetched += [tag] if tag in {"link", "iframe", "object", "embed"} else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_it_needs_nothing_but_itself_and_is_well_formed() -> None:
    text = page(h.with_ops(CLEAN, *gets((5_000, 20, "ok"), (6_000, 20, "fail"))))
    parsed = Page(text)
    assert parsed.fetched == []
    assert parsed.open == []
    assert "://" not in text
    assert not re.search(r"@import|url\((?!#)", text)
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(drawing)


@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        (Outcome.VALID, "The cluster held."),
        (Outcome.INVALID, "The cluster did not hold."),
        (Outcome.UNKNOWN, "Nobody can tell"),
    ],
)
def test_the_verdict_comes_first_in_one_sentence(outcome: Outcome, says: str) -> None:
    other = Verdict(check="recovery", outcome=Outcome.VALID, summary="All steps.")
    text = page(CLEAN, [other, Verdict(check="outage", outcome=outcome, summary="It was so.")])
    body = text[text.index("<body>") :]
    assert says in body
    assert body.index(says) < body.index("It was so.") < body.index("Checks")
    assert body.index("It was so.") < body.index("All steps.")


def test_nothing_asked_is_not_told_as_held() -> None:
    text = page(CLEAN, [])
    assert "Nobody can tell" in text
    assert "No check was asked." in text
    assert "The cluster held." not in text


def test_what_others_wrote_is_text_and_never_markup() -> None:
    evil = "<script>alert(1)</script>"
    verdict = Verdict(check="x", outcome=Outcome.INVALID, summary=evil, numbers={evil: evil}, evidence=(5,))
    text = page(h.with_ops(CLEAN, h.log(10_500, "lb-2", evil)), [verdict], title=evil)
    assert evil not in text
    assert text.count("&lt;script&gt;alert(1)") >= 5
    assert text.count("<script>") == 1
    assert "kernel &lt;b&gt;" in text


def test_every_check_shows_its_numbers_its_findings_and_its_evidence() -> None:
    late = PowerCut(probe_every=200, taken=19_000, announced=19_050, served=19_100).history()
    verdicts = judge(late, {name: {} for name in CHECKS})
    text = page(late, verdicts)
    for verdict in verdicts:
        assert f"<b>{verdict.check}</b>" in text
        for finding in verdict.findings:
            assert finding.sentence in text
    for index in verdicts[0].evidence:
        assert f"<td>{index}</td>" in text
    assert "9,000" in text
    assert str(META["command"]) in text
    assert "<dt>seed</dt><dd>1</dd>" in text


def test_a_killed_run_and_an_empty_one_have_a_report_too() -> None:
    assert "The run was killed" in page(h.killed(CLEAN, 12_000))
    assert "Nobody can tell" in page(History([]))
    assert "Nobody can tell" in page(History([h.start()]))
    for at in range(500, 60_000, 3_500):
        assert "<h1>" in page(h.killed(CLEAN, at))


# --- the time line


def spans(history: History, row: lanes.Lane, css: str) -> list[tuple[float, float]]:
    return [
        (round(time_at(mark.x, history), -2), round(time_at(mark.x + mark.width, history), -2))
        for mark in row.marks
        if css in mark.css.split()
    ]


def test_owners_and_their_absence_stand_where_they_were() -> None:
    row = lane(CLEAN, VIP1, "owner")
    assert spans(CLEAN, row, "node-0") == [(100, 10_000), (40_900, 59_500)]
    assert spans(CLEAN, row, "node-1") == [(14_900, 40_000)]
    assert spans(CLEAN, row, "nobody") == [(10_000, 14_900), (40_000, 40_900)]
    assert spans(CLEAN, lane(CLEAN, VIP2, "owner"), "nobody") == []


def test_two_owners_are_shown_as_two() -> None:
    quiet = h.without(CLEAN, lambda op: op.process == "owners:lb-2" and 50_000 * h.MS <= op.time <= 52_000 * h.MS)
    both = h.with_ops(quiet, h.holds(50_000, "lb-2", VIP1, VIP2), h.holds(52_000, "lb-2", VIP2))
    assert spans(both, lane(both, VIP1, "owner"), "both") == [(50_000, 52_000)]
    assert not spans(CLEAN, lane(CLEAN, VIP1, "owner"), "both")


def test_power_probes_and_faults_stand_where_they_were() -> None:
    assert spans(CLEAN, lane(CLEAN, "lb-1", "power"), "off") == [(10_000, 25_000)]
    assert spans(CLEAN, lane(CLEAN, "lb-1", "power"), "booting") == [(25_000, 26_400)]
    assert spans(CLEAN, lane(CLEAN, "lb-2", "power"), "running") == [(0, 60_000)]
    assert spans(CLEAN, lane(CLEAN, VIP1, "probe"), "lost") == [(10_100, 15_100), (40_100, 41_100)]
    assert spans(CLEAN, lane(CLEAN, VIP2, "probe"), "lost") == []
    assert spans(CLEAN, lane(CLEAN, "Faults"), "fault") == [(10_000, 26_400)]
    (shade,) = lanes.shades(CLEAN)
    assert (shade.name, round(time_at(shade.x, CLEAN), -2)) == ("cut", 10_000)


def test_one_lost_probe_can_be_seen() -> None:
    lost = h.changed(
        CLEAN,
        lambda op: op.f == "http" and op.type == "ok" and op["vip"] == VIP2 and op["seq"] == 150,
        lambda op: h.op(op.time / h.MS, op.process, "http", op.value, "fail"),
    )
    (mark,) = [mark for mark in lane(lost, VIP2, "probe").marks if "lost" in mark.css]
    assert mark.width >= 1.5


def test_marks_stay_on_the_page_and_lanes_apart() -> None:
    rows = lanes.lanes(CLEAN)
    for above, below in pairwise(rows):
        assert above.y + above.height < below.y
    for row in rows:
        for mark in row.marks:
            assert mark.x >= LEFT
            assert mark.x + mark.width <= WIDTH


def test_a_step_that_missed_is_marked() -> None:
    missed = h.changed(
        CLEAN,
        lambda op: op.get("step") == "cut" and op["phase"] == "end",
        lambda _: h.step(15_300, "cut", "end", met=False),
    )
    assert spans(missed, lane(missed, "Steps"), "missed") == [(10_000, 15_300)]


def test_curves_count_what_was_answered_and_break_where_nothing_was() -> None:
    history = h.with_ops(CLEAN, *gets((5_000, 10, "ok"), (5_100, 30, "ok"), (5_200, 90, "fail"), (9_000, 40, "ok")))
    load, latency = curves.charts(history)
    assert [label for _, label in load.grid] == ["0", "1", "2"]
    assert [curve.name for curve in latency.curves] == ["p95", "p50"]
    assert latency.curves[0].path.count("M") == 2
    assert [label for _, label in latency.grid] == ["0", "20", "40"]
    assert curves.charts(CLEAN) == []
    errors = lane(history, "Load", "errors per second")
    assert [mark.title for mark in errors.marks] == ["1 failed in second 5"]


@pytest.mark.parametrize(("share", "expected"), [(0.5, 5), (0.95, 10), (0.9, 9), (0.91, 10), (0.01, 1), (1.0, 10)])
def test_quantiles_are_nearest_rank(share: float, expected: float) -> None:
    assert curves.quantile([float(n) for n in range(10, 0, -1)], share) == expected


def test_the_budget_bar_has_four_parts_only_when_all_four_are_known() -> None:
    assert page(CLEAN).count('class="detection"') == 2  # the legend and the bar
    unseen = h.without(CLEAN, lambda op: op.f == "log")
    assert 'class="detection"' not in page(unseen)
    assert "not split" in page(unseen)


def test_the_log_has_the_events_and_only_the_lines_near_them() -> None:
    far = h.with_ops(CLEAN, h.log(34_000, "lb-1", "nothing happened here"), h.log(12_000, "lb-2", "near the cut"))
    text = page(far)
    assert "near the cut" in text
    assert "node lb-1: is dead" in text
    assert "nothing happened here" not in text


def test_a_wide_table_is_turned_so_that_it_fits() -> None:
    row = {f"field_{n}": n for n in range(12)}
    verdict = Verdict(
        check="x", outcome=Outcome.VALID, summary="", numbers={"rows": [row, row], "few": [{"a": 1, "b_ms": 2.5}]}
    )
    text = page(CLEAN, [verdict])
    assert "<tr><td>field 7</td><td>7</td><td>7</td></tr>" in text
    assert "<tr><th>a</th><th>b, ms</th></tr>" in text
    assert "<tr><td>1</td><td>2.5</td></tr>" in text
