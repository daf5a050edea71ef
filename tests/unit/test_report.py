"""The report: one self-contained file with the verdict first, and a timeline that matches the history."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from harness.checks import CHECKS, judge
from harness.history import History, Op
from harness.history.latency import quantile
from harness.report import curves, lanes, render
from harness.report.lanes import LEFT, RIGHT, WIDTH
from harness.report.render import story
from harness.verdict import Outcome, Verdict
from tests.support import every_feed
from tests.support import histories as h
from tests.support.histories import VIP1, VIP2, PowerCut

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
    """The ms at a place on the timeline."""
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


def test_it_is_self_contained_and_well_formed() -> None:
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
        (Outcome.UNKNOWN, "does not show whether the cluster held"),
    ],
)
def test_the_verdict_comes_first_in_one_sentence(outcome: Outcome, says: str) -> None:
    other = Verdict(check="recovery", outcome=Outcome.VALID, summary="All steps.")
    text = page(CLEAN, [other, Verdict(check="outage", outcome=outcome, summary="It was so.")])
    body = text[text.index("<body>") :]
    assert says in body
    assert body.index(says) < body.index("It was so.") < body.index("Checks")
    assert body.index("It was so.") < body.index("All steps.")


def test_a_run_without_checks_is_not_reported_as_valid() -> None:
    text = page(CLEAN, [])
    assert "does not show whether the cluster held" in text
    assert "The scenario has no checks." in text
    assert "The cluster held." not in text


def test_texts_from_outside_are_never_markup() -> None:
    evil = "<script>alert(1)</script>"
    verdict = Verdict(check="x", outcome=Outcome.INVALID, summary=evil, numbers={evil: evil}, evidence=(5,))
    text = page(h.with_ops(CLEAN, h.log(10_500, "lb-2", evil)), [verdict], title=evil)
    assert evil not in text
    assert text.count("&lt;script&gt;alert(1)") >= 5
    assert text.count("<script>") == 1
    assert text.count("</script>") == 1
    assert "kernel &lt;b&gt;" in text


def test_every_check_shows_its_numbers_its_findings_and_its_evidence() -> None:
    late = PowerCut(probe_every=200, taken=19_000, announced=19_050, served=19_100).history()
    verdicts = judge(late, {name: {} for name in CHECKS})
    text = html.unescape(page(late, verdicts))
    for verdict in verdicts:
        assert f"<b>{verdict.check}</b>" in text
        for finding in verdict.findings:
            assert finding.sentence in text
    for index in verdicts[0].evidence:
        assert f"<td>{index}</td>" in text
    assert "9,000" in text
    assert str(META["command"]) in text
    assert "<dt>seed</dt><dd>1</dd>" in text


def test_killed_and_empty_runs_have_a_report() -> None:
    assert "The run was killed" in page(h.killed(CLEAN, 12_000))
    assert "does not show whether the cluster held" in page(History([]))
    assert "does not show whether the cluster held" in page(History([h.start()]))
    for at in range(500, 60_000, 3_500):
        assert "<h1>" in page(h.killed(CLEAN, at))


def test_it_is_readable_without_a_script() -> None:
    text = page(every_feed.history())
    assert '<p class="tools" hidden>' in text
    assert '<dl class="readout" hidden>' in text
    ticks = text[text.index('<g class="ticks">') : text.index("</g>", text.index('<g class="ticks">'))]
    assert "10 s" in ticks
    assert "visibility" not in text[: text.index('<line class="cursor"')].partition("<body>")[2]


def test_without_a_timeline_the_rest_is_still_there() -> None:
    text = page(History([h.end(5)]))
    assert "The timeline cannot be drawn: the history has no start" in text
    assert "<h2>Evidence</h2>" in text


# --- the timeline


def spans(history: History, row: lanes.Lane, css: str) -> list[tuple[float, float]]:
    return [
        (round(time_at(mark.x, history), -2), round(time_at(mark.x + mark.width, history), -2))
        for mark in row.marks
        if css in mark.css.split()
    ]


def test_owners_and_their_absence_are_at_their_times() -> None:
    row = lane(CLEAN, VIP1, "owner")
    assert spans(CLEAN, row, "node-0") == [(100, 10_000), (40_900, 59_500)]
    assert spans(CLEAN, row, "node-1") == [(14_900, 40_000)]
    assert spans(CLEAN, row, "unowned") == [(10_000, 14_900), (40_000, 40_900)]
    assert spans(CLEAN, lane(CLEAN, VIP2, "owner"), "unowned") == []


def test_two_owners_are_marked() -> None:
    quiet = h.without(CLEAN, lambda op: op.process == "owners:lb-2" and 50_000 * h.MS <= op.time <= 52_000 * h.MS)
    both = h.with_ops(quiet, h.holds(50_000, "lb-2", VIP1, VIP2), h.holds(52_000, "lb-2", VIP2))
    assert spans(both, lane(both, VIP1, "owner"), "both") == [(50_000, 52_000)]
    assert not spans(CLEAN, lane(CLEAN, VIP1, "owner"), "both")


def test_power_probes_and_faults_are_at_their_times() -> None:
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


def test_marks_stay_on_the_page_and_lanes_do_not_overlap() -> None:
    rows = lanes.lanes(CLEAN)
    for above, below in pairwise(rows):
        assert above.y + above.height < below.y
    for row in rows:
        for mark in row.marks:
            assert mark.x >= LEFT
            assert mark.x + mark.width <= WIDTH


def test_weights_of_both_directors_have_lanes_with_gaps_where_there_are_no_samples() -> None:
    history = every_feed.history()
    quiesced, out = every_feed.QUIESCED, every_feed.OUT
    assert spans(history, lane(history, "lb-2 web-3", "weight"), "quiesced") == [(quiesced[0] + 300, quiesced[1] + 300)]
    assert spans(history, lane(history, "lb-2 web-5", "weight"), "out") == [(out[0] + 300, out[1] + 300)]
    first, *_, last = spans(history, lane(history, "lb-1 web-1", "weight"), "in")
    assert (first, last[0]) == ((300, 9_800), 30_800)
    assert len([row for row in lanes.lanes(history) if row.note == "weight"]) == 12
    assert not [row for row in lanes.lanes(CLEAN) if row.note == "weight"]


def test_virtual_services_with_different_weights_are_marked_and_broken_tables_left_out() -> None:
    rows = {VIP1: {"web-1": {"weight": 1}}, VIP2: {"web-1": {"weight": 0}}}
    broken = [{"node": "lb-1", "vips": vips} for vips in (None, {VIP1: 3}, {VIP1: {"web-1": 3}})]
    tables = [{"node": "lb-1", "vips": rows}, *broken, {"node": "lb-1", "vips": rows}]
    history = h.with_ops(CLEAN, *(h.op(5_000 + 300 * n, "table:lb-1", "table", each) for n, each in enumerate(tables)))
    (mark,) = lane(history, "lb-1 web-1", "weight").marks
    assert mark.css == "weight mixed"
    assert f"{VIP1}: 1, {VIP2}: 0: 5.000 s to 6.200 s" in mark.title
    assert [mark.css for mark in lane(history, "lb-1 web-2", "weight").marks] == ["weight out"]


def test_web_data_that_differs_from_the_master_is_marked() -> None:
    history = every_feed.history()
    (late,) = spans(history, lane(history, "web-4", "web data"), "bad")
    assert late == (20_500, 25_500)  # sampled every 5 s
    assert not [row for row in ("web-2", "web-3", "web-5") if spans(history, lane(history, row, "web data"), "bad")]
    changed, still = lane(history, "web-1", "web data").marks
    assert changed.title.split(",")[1] != still.title.split(",")[1]


def test_an_unfinished_file_of_rsync_is_no_difference() -> None:
    files = {"index.html": "a" * 64}
    half = h.op(6_000, "docroot:web-2", "docroot", {"node": "web-2", "files": files | {".index.html.Ab12Cd": "0"}})
    history = h.with_ops(CLEAN, h.op(5_000, "docroot:web-1", "docroot", {"node": "web-1", "files": files}), half)
    assert [mark.css for mark in lane(history, "web-2", "web data").marks] == ["state good"]


def test_each_backup_is_a_mark() -> None:
    first, second = lane(every_feed.history(), "database", "backup").marks
    assert "backup made 50 s before the run: 0.500 s to 30.500 s" in first.title
    assert "backup made at 30 s" in second.title
    assert first.css != second.css


def test_hosts_that_ganglia_misses_and_clocks_that_are_off_are_named() -> None:
    history = every_feed.history()
    hosts = lane(history, "lb-2", "hosts")
    assert spans(history, hosts, "bad") == [(25_500, 40_500)]
    assert "web-6 down, 5 up" in next(mark.title for mark in hosts.marks if "bad" in mark.css)
    clocks = lane(history, "Clocks", "all nodes")
    assert spans(history, clocks, "bad") == [(36_700, 46_700)]
    assert "web-2 off by +3,600 s" in next(mark.title for mark in clocks.marks if "bad" in mark.css)


def test_samples_that_cannot_be_read_are_left_out() -> None:
    strange = [
        h.op(5_000, "docroot:web-1", "docroot", {"node": "web-1", "files": 3}),
        h.op(5_000, "backup:database", "backup", {"of": "database", "age_s": "old"}),
        h.op(5_000, "ganglia:lb-1", "ganglia", {"node": "lb-1", "hosts": {"web-1": 3}}),
        h.op(5_000, "clock:web-1", "clock", {"node": "web-1", "offset_ms": None}),
    ]
    drawn = {row.group for row in lanes.lanes(h.with_ops(CLEAN, *strange))}
    assert not {"docroot", "backup", "ganglia", "clock"} & drawn


def test_each_repeated_question_has_a_lane() -> None:
    history = every_feed.history()
    assert spans(history, lane(history, "web-2", "nfs"), "lost") == [
        (44_400, 49_400)
    ]  # the drawing does not show a tenth of a second
    assert spans(history, lane(history, "web-1", "nfs"), "lost") == []
    for label, note in (("resolver", "dns"), ("web-1", "database"), ("web-2", "database")):
        assert len(lane(history, label, note).marks) == 1


def test_the_load_has_all_requests_of_its_users() -> None:
    history = every_feed.history()
    assert spans(history, lane(history, "Load", "errors per second"), "error")[0] == (10_000, 11_000)
    total = sum(value for _, value in curves.charts(history)[0].curves[0].values)
    assert total == sum(op.type == "ok" for op in history if op.process.startswith("user:"))


def test_changes_of_weight_are_events() -> None:
    text = page(every_feed.history())
    assert "web-3: weight 1, then weight 0" in text
    assert "web-5: weight 1, then not in the table" in text
    assert "web-5: not in the table, then weight 1" in text


def test_the_commands_that_reproduce_the_run_are_at_the_end() -> None:
    text = page(CLEAN)
    for command in (META["command"], "monkeywrench run scenario.toml --seed 1 --runs ..", "monkeywrench check ."):
        assert str(command) in text
    assert "Run it again" not in render(CLEAN, [], "x", "y", {})


def test_a_step_that_missed_its_deadline_is_marked() -> None:
    missed = h.changed(
        CLEAN,
        lambda op: op.get("step") == "cut" and op["phase"] == "end",
        lambda _: h.step(15_300, "cut", "end", met=False),
    )
    assert spans(missed, lane(missed, "Steps"), "missed") == [(10_000, 15_300)]


def test_curves_count_answers_and_break_where_there_are_none() -> None:
    history = h.with_ops(CLEAN, *gets((5_000, 10, "ok"), (5_100, 30, "ok"), (5_200, 90, "fail"), (9_000, 40, "ok")))
    load, latency = curves.charts(history)
    assert [label for _, label in load.grid] == ["0", "1", "2"]
    assert [curve.name for curve in latency.curves] == ["p99", "p95", "p50"]
    assert latency.curves[0].path.count("M") == 2
    assert latency.curves[2].values == ((5, 10.0), (9, 40.0))
    assert [label for _, label in latency.grid] == ["10", "100"]
    assert dict(load.curves[0].values)[5] == 2
    assert curves.charts(CLEAN) == []
    errors = lane(history, "Load", "errors per second")
    assert [mark.title for mark in errors.marks] == ["1 request failed in second 5"]


@pytest.mark.parametrize(("share", "expected"), [(0.5, 5), (0.95, 10), (0.9, 9), (0.91, 10), (0.01, 1), (1.0, 10)])
def test_quantiles_are_nearest_rank(share: float, expected: float) -> None:
    assert quantile([float(n) for n in range(10, 0, -1)], share) == expected


def test_the_budget_bar_has_four_parts_only_when_all_four_are_known() -> None:
    assert page(CLEAN).count('class="detection"') == 2  # the legend and the bar
    unseen = h.without(CLEAN, lambda op: op.f == "log")
    assert 'class="detection"' not in page(unseen)
    assert "phases unknown" in page(unseen)


def test_the_log_has_the_events_and_only_the_lines_near_them() -> None:
    far = h.with_ops(CLEAN, h.log(34_000, "lb-1", "nothing happened here"), h.log(12_000, "lb-2", "near the cut"))
    text = page(far)
    assert "near the cut" in text
    assert "node lb-1: is dead" in text
    assert "nothing happened here" not in text


def test_the_story_has_the_events_in_order_and_a_long_one_lacks_its_middle() -> None:
    lines = story(PowerCut().history())
    assert [line for line in lines if "fault:cut" in line] == sorted(line for line in lines if "fault:cut" in line)
    assert any("owners:lb-2: holds 203.0.113.101, 203.0.113.102" in line for line in lines)
    assert not any("log:" in line for line in lines)
    many = [h.op(12_000 + n, "run", "step", {"step": f"step {n}", "phase": "begin"}) for n in range(300)]
    long = story(h.with_ops(PowerCut().history(), *many))
    assert len(long) == 81
    assert re.fullmatch(r" +\d+ more events", long[40])


def test_only_the_nearest_of_too_many_log_lines_are_shown_and_the_rest_is_counted() -> None:
    chatter = [h.log(10_100 + 5 * n, "lb-2", f"line {n}.") for n in range(1000)]
    text = page(h.with_ops(CLEAN, *chatter))
    assert "line 0." in text
    assert "line 500." not in text
    assert "steady again: end" in text
    (left_out,) = re.findall(r"([\d,]+) more left out; logs/ has all lines", text)
    shown = text.count('class="line"') + text.count('class="event ')
    assert shown == 400
    assert int(left_out) > 600
    assert "more left out" not in page(CLEAN)


def test_events_are_described_in_words() -> None:
    lost = h.op(10_010, "owners:lb-1", "feed", {"phase": "lost", "why": "the node has no power"})
    audits = [h.op(59_900 + n, "audit", "audit", {"left": left}) for n, left in enumerate(([], ["lb-1: a route"]))]
    text = page(h.with_ops(CLEAN, lost, *audits))
    for words in (
        "steady: begin; within: 30.0 s",
        "node.power-off on lb-1: proof; seen: the machine is off; effects: node-down lb-1",
        "<td>off</td>",
        f"holds {VIP1}, {VIP2}",
        "holds no virtual IP",
        "phase: lost; why: the node has no power",
        "nothing left behind",
        "left behind: lb-1: a route",
    ):
        assert words in text


def test_a_wide_table_is_turned_so_that_it_fits() -> None:
    row = {f"field_{n}": n for n in range(12)}
    verdict = Verdict(
        check="x", outcome=Outcome.VALID, summary="", numbers={"rows": [row, row], "few": [{"a": 1, "b_ms": 2.5}]}
    )
    text = page(CLEAN, [verdict])
    assert "<tr><td>field 7</td><td>7</td><td>7</td></tr>" in text
    assert "<tr><th>a</th><th>b (ms)</th></tr>" in text
    assert "<tr><td>1</td><td>2.5</td></tr>" in text
