"""The derived files of a run, each read by a parser as strict as its readers."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from harness import checks
from harness.artifacts import junit, logs, prometheus, run_directory
from harness.artifacts.stored_run import Stored, write
from harness.checks import CHECKS, judge
from harness.history import History, Op
from harness.report.render import render
from harness.scenario import parse
from harness.verdict import Judgement, Outcome, Verdict, conclude, invalid, judgement, not_tried, overall, unknown
from tests.support import every_feed
from tests.support import histories as h
from tests.support.histories import VIP1, PowerCut

CLEAN = PowerCut(probe_every=200).history()
ASKED = {"scenario": {"name": "x", "title": "t", "expectation": "p"}, "steps": [{"name": "a", "hold_s": 1}]}
META = {"seed": 4, "started": "2031-02-03T04:05:06+00:00"}


def judged(history: History) -> Judgement:
    return judgement("director-power-cut", judge(history, {name: {} for name in ("ownership", "outage", "recovery")}))


def gets(*done: tuple[float, str]) -> list[Op]:
    """Requests (how long each took, how it ended), one a second."""
    ops = []
    for user, (took, kind) in enumerate(done, 1):
        value = {"url": "/", "vip": VIP1}
        ops.append(h.op(user * 1000, f"user:{user}", "get", value, "invoke"))
        ops.append(
            h.op(user * 1000 + took, f"user:{user}", "get", value | ({"ms": took} if kind == "ok" else {}), kind)
        )
    return ops


# --- junit.xml


def suite(text: str) -> ElementTree.Element:
    root = ElementTree.fromstring(text.encode())
    assert root.tag == "testsuites"
    (found,) = root
    assert found.tag == "testsuite"
    cases = list(found.iter("testcase"))
    for element in (root, found):
        assert element.get("tests") == str(len(cases))
        assert element.get("failures") == str(len(list(found.iter("failure"))))
        assert element.get("errors") == str(len(list(found.iter("error"))))
        assert float(element.get("time", "")) >= 0
    return found


def test_junit_has_a_test_case_for_each_check() -> None:
    found = suite(junit.render(CLEAN, judged(CLEAN), META))
    assert [case.get("name") for case in found.iter("testcase")] == ["ownership", "outage", "recovery"]
    assert (found.get("failures"), found.get("errors"), found.get("timestamp")) == ("0", "0", META["started"])
    assert {each.get("name"): each.get("value") for each in found.iter("property")} == {
        "outcome": "valid",
        "clock": "real",
        "seed": "4",
    }


def test_invalid_is_a_failure_and_unknown_an_error_with_their_sentences() -> None:
    broken = conclude("a", [invalid("It broke.", 3, 5), unknown("And slept.")], "")
    unsure = conclude("b", [unknown("Who knows?")], "")
    held = conclude("c", [], "It held.")
    found = suite(junit.render(CLEAN, judgement("x", [broken, unsure, held]), {}))
    (failure,), (error,) = found.iter("failure"), found.iter("error")
    assert failure.get("message") == "It broke (and 1 more)."
    assert failure.text == "invalid: It broke. (ops 3, 5)\nunknown: And slept."
    assert (error.get("message"), error.text) == ("Who knows?", "unknown: Who knows?")


def test_a_run_without_checks_does_not_pass() -> None:
    found = suite(junit.render(CLEAN, judgement("x", []), {}))
    assert [error.get("message") for error in found.iter("error")] == ["The scenario has no checks."]


def test_characters_that_xml_cannot_express_are_replaced() -> None:
    evil = "<b>&\x00\x1b[31m\ufffe\udc80]]>\N{PILE OF POO}"
    verdict = conclude(evil, [invalid(evil)], "")
    (failure,) = suite(junit.render(CLEAN, judgement("x", [verdict]), {"seed": evil})).iter("failure")
    assert failure.get("message") == "<b>&\ufffd\ufffd[31m\ufffd?]]>\N{PILE OF POO}"


# --- metrics.prom

SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? ([^ ]+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)')
SUFFIXES = {"summary": ("", "_sum", "_count"), "counter": ("",), "gauge": ("",)}

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str) -> Samples:
    """Every sample by its name and labels; as strict as the format's description, and as promtool where it is stricter.

    Source: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4).
    """
    assert text.endswith("\n")
    samples: Samples = {}
    seen: set[str] = set()
    name, kind = "", ""
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            assert line.split(" ", 3)[3]
            assert name not in seen, "the lines of a metric must be adjacent"
            seen.add(name)
        elif line.startswith("# TYPE "):
            _, _, typed, kind = line.split(" ")
            assert typed == name
            assert kind in SUFFIXES
            assert (kind == "counter") == name.endswith("_total")
        else:
            found = SAMPLE.fullmatch(line)
            assert found, line
            assert found[1].removeprefix(name) in SUFFIXES[kind]
            assert found[1].startswith(name)
            pairs = LABEL.findall(found[2] or "")
            assert "".join(f'{key}="{value}",' for key, value in pairs) == f"{found[2]},", line
            assert len({key for key, _ in pairs}) == len(pairs)
            key = (found[1], tuple(sorted(pairs)))
            assert key not in samples, "duplicate sample"
            samples[key] = float(found[3])
    return samples


def value(samples: Samples, name: str, **labels: str) -> float:
    found = [
        number for (each, pairs), number in samples.items() if each == name and labels.items() <= dict(pairs).items()
    ]
    assert len(found) == 1, found
    return found[0]


def test_metrics_have_the_ops_and_the_outcome_of_the_run() -> None:
    samples = parsed(prometheus.render(CLEAN, judged(CLEAN)))
    assert value(samples, "monkeywrench_run_seconds", scenario="director-power-cut") == 60
    assert value(samples, "monkeywrench_run_complete") == 1
    assert value(samples, "monkeywrench_run_outcome", outcome="valid") == 1
    assert value(samples, "monkeywrench_run_outcome", outcome="unknown") == 0
    assert value(samples, "monkeywrench_verdict", check="outage", outcome="valid") == 1
    assert value(samples, "monkeywrench_ops_total", f="http", type="invoke") == len(CLEAN.pairs("http"))
    assert value(samples, "monkeywrench_faults", fault="node.power-off") == 1
    counted = sum(number for (name, _), number in samples.items() if name == "monkeywrench_ops_total")
    assert counted == len(CLEAN)


def test_what_was_not_tried_is_neither_valid_nor_unknown_in_the_metrics() -> None:
    untried = judgement("x", judge(CLEAN, {"outage": {}, "quiescing": {}}))
    assert [verdict.word for verdict in untried.verdicts] == ["valid", "unknown"]  # there are no tables at all
    quiet = conclude("rotation", [not_tried("There is only one virtual IP.")], "")
    samples = parsed(prometheus.render(CLEAN, judgement("x", [*untried.verdicts, quiet])))
    assert value(samples, "monkeywrench_verdict", check="rotation", outcome="not tried") == 1
    assert value(samples, "monkeywrench_verdict", check="rotation", outcome="unknown") == 0
    assert value(samples, "monkeywrench_verdict", check="quiescing", outcome="unknown") == 1
    assert value(samples, "monkeywrench_verdict", check="quiescing", outcome="not tried") == 0


def test_the_report_says_not_tried() -> None:
    quiet = conclude("rotation", [not_tried("There is only one virtual IP.")], "")
    page = render(CLEAN, [quiet], "title", "expectation", {})
    assert '<span class="badge skipped">not tried</span>' in page
    assert '<span class="badge skipped">' not in render(CLEAN, judge(CLEAN, {"outage": {}}), "title", "expectation", {})


def test_metrics_have_the_outages_with_their_bounds_and_budgets_in_seconds() -> None:
    summary = judged(CLEAN)
    samples = parsed(prometheus.render(CLEAN, summary))
    (outage, *_) = next(verdict for verdict in summary.verdicts if verdict.check == "outage").numbers["outages"]
    for name, key in (("", "estimate"), ("_lower", "lower"), ("_upper", "upper"), ("_budget", "budget")):
        measured = value(samples, f"monkeywrench_outage{name}_seconds", vip=VIP1, number="1", kind="takeover")
        assert measured == pytest.approx(outage[f"{key}_ms"] / 1000)


def test_metrics_have_the_quantiles_of_answered_requests_only() -> None:
    history = h.with_ops(CLEAN, *gets(*[(n, "ok") for n in range(1, 21)], (5000, "info"), (900, "fail")))
    samples = parsed(prometheus.render(history, judged(history)))
    name = "monkeywrench_load_latency_seconds"
    assert [value(samples, name, f="get", quantile=q) for q in ("0.5", "0.95", "0.99")] == [0.010, 0.019, 0.020]
    assert value(samples, f"{name}_count", f="get") == 20
    assert value(samples, f"{name}_sum", f="get") == pytest.approx(0.210)
    assert not any(each.startswith(name) for each, _ in parsed(prometheus.render(CLEAN, judged(CLEAN))))


def test_metrics_of_a_killed_run_an_empty_one_and_of_names_that_need_escaping() -> None:
    killed = h.killed(CLEAN, 12_000)
    samples = parsed(prometheus.render(killed, judged(killed)))
    assert value(samples, "monkeywrench_run_complete") == 0
    assert value(samples, "monkeywrench_run_outcome", outcome="unknown") == 1
    assert parsed(prometheus.render(History([]), judgement("x", [])))
    evil = 'a"b\\c\nd}\udc80'
    samples = parsed(prometheus.render(h.with_ops(CLEAN, h.op(5, "x", evil)), judgement(evil, [])))
    assert value(samples, "monkeywrench_ops_total", f='a\\"b\\\\c\\nd}\ufffd') == 1


# --- logs


def test_logs_have_each_line_once_with_the_time_of_the_run() -> None:
    found = logs.files(h.with_ops(CLEAN, h.op(7, "log:web-1:apache", "log", "GET /")))
    assert sorted(found) == ["lb-1.heartbeat.log", "lb-2.heartbeat.log", "web-1.apache.log"]
    assert found["web-1.apache.log"] == "0.007\tGET /\n"
    lines = [line.split("\t", 1) for line in found["lb-2.heartbeat.log"].splitlines()]
    assert [text for _, text in lines] == [op.value for op in CLEAN.of("log") if op.process == "log:lb-2:heartbeat"]
    assert [float(time) for time, _ in lines] == sorted(float(time) for time, _ in lines)


def test_a_name_in_a_history_is_no_path_and_bytes_of_a_log_stay_bytes(tmp_path: Path) -> None:
    odd = [h.op(1, "log:../../x:..", "log", "caf\udce9 \ud800"), h.op(2, "log:a/b:", "log", "x\ny")]
    asked = parse(ASKED, "x.toml")
    write(tmp_path, Stored(h.with_ops(CLEAN, *odd), asked, {}), [])
    names = sorted(path.name for path in (tmp_path / run_directory.LOGS).iterdir())
    assert names == ["______x.__.log", "a_b._.log", "lb-1.heartbeat.log", "lb-2.heartbeat.log"]
    assert (tmp_path / "logs" / "______x.__.log").read_bytes() == b"0.001\tcaf\xe9 \xef\xbf\xbd\n"
    assert (tmp_path / "logs" / "a_b._.log").read_text() == "0.002\tx y\n"


ODD: list[Any] = [None, {}, [], "x", 5, -1, True, 1.5, {"a": 1}, "\udc80", 3e300, 10**30]


def odd(history: History, chance: random.Random) -> History:
    """The history with some values that no feed writes, in ops of all kinds."""
    ops = list(history)
    for _ in range(chance.choice([1, 1, 3, 20])):
        f = chance.choice(sorted({op.f for op in ops}))
        place = chance.choice([place for place, op in enumerate(ops) if op.f == f])
        value = ops[place].value
        if isinstance(value, dict) and value and chance.random() < 0.7:
            value = {**value, chance.choice(list(value)): chance.choice(ODD)}
        else:
            value = chance.choice(ODD)
        ops[place] = ops[place].copy(value=value)
    return History(ops)


@pytest.mark.parametrize("seed", range(25))
def test_any_history_is_judged_and_gets_all_files(seed: int, tmp_path: Path) -> None:
    history = odd(every_feed.history(PowerCut(probe_every=1000)), random.Random(seed))
    verdicts = judge(history, {name: {} for name in CHECKS})
    write(tmp_path, Stored(history, parse(ASKED, "x.toml"), META), verdicts)
    assert json.loads((tmp_path / run_directory.VERDICT).read_text())["outcome"] == overall(verdicts)
    suite((tmp_path / run_directory.JUNIT).read_text())
    parsed((tmp_path / run_directory.METRICS).read_text())
    assert "</html>" in (tmp_path / run_directory.REPORT).read_text()


def test_a_check_that_fails_itself_is_unknown_and_does_not_affect_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_: History, settings: object) -> Verdict:
        raise ZeroDivisionError("by nothing")

    settings = CHECKS["recovery"].settings
    monkeypatch.setattr(checks, "CHECKS", {**CHECKS, "breaks": checks.Check(settings, breaks)})
    broken, recovery = judge(CLEAN, {"breaks": {}, "recovery": {}})
    assert (broken.outcome, recovery.outcome) == (Outcome.UNKNOWN, Outcome.VALID)
    assert re.search(r"ZeroDivisionError: by nothing \(test_run_files.py, line \d+\)", broken.summary)


def test_every_format_has_every_check() -> None:
    summary = judgement("x", judge(CLEAN, {name: {} for name in CHECKS}))
    assert len(list(suite(junit.render(CLEAN, summary, META)).iter("testcase"))) == len(CHECKS)
    samples = parsed(prometheus.render(CLEAN, summary))
    assert {dict(pairs)["check"] for name, pairs in samples if name == "monkeywrench_verdict"} == set(CHECKS)
    assert summary.outcome in Outcome
    assert all(isinstance(verdict, Verdict) for verdict in summary.verdicts)
