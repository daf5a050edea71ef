"""The verdicts as JUnit XML, the format that CI servers read: one test case per check. Pure.

Invalid becomes a ``failure`` and unknown an ``error``, so that no server counts either as passed. The format has no
official schema; this keeps to what Jenkins, GitLab and pytest's ``--junitxml`` have in common.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from harness.history import History
from harness.verdict import Finding, Judgement, Outcome, Verdict, unknown

TAGS = {Outcome.INVALID: "failure", Outcome.UNKNOWN: "error"}

FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot express (2.2, Char)."""

NO_CHECKS = Verdict(check="checks", outcome=Outcome.UNKNOWN, summary="The scenario has no checks.")
"""Many servers count a suite without test cases as passed, but a run without checks is unknown."""


def render(history: History, judgement: Judgement, meta: Mapping[str, Any]) -> str:
    """The content of ``junit.xml``. ``meta`` has the start time and the seed, if they are known."""
    verdicts = judgement.verdicts or (NO_CHECKS,)
    counts = {
        "tests": str(len(verdicts)),
        "failures": str(_count(verdicts, Outcome.INVALID)),
        "errors": str(sum(verdict.outcome is Outcome.UNKNOWN and verdict.tried for verdict in verdicts)),
        "skipped": str(sum(not verdict.tried for verdict in verdicts)),
        "time": f"{history.end_ns / 1e9:.3f}",
    }
    root = Element("testsuites", {"name": "monkeywrench", **counts})
    suite = SubElement(root, "testsuite", {"name": _text(judgement.scenario), **counts, **_start(meta)})
    properties = SubElement(suite, "properties")
    for name, value in {"outcome": judgement.outcome, "clock": judgement.clock, "seed": meta.get("seed")}.items():
        if value is not None:
            SubElement(properties, "property", {"name": name, "value": _text(str(value))})
    for verdict in verdicts:
        suite.append(_case(judgement.scenario, verdict))
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _count(verdicts: tuple[Verdict, ...], outcome: Outcome) -> int:
    return sum(verdict.outcome is outcome for verdict in verdicts)


def _start(meta: Mapping[str, Any]) -> dict[str, str]:
    started = meta.get("started")
    return {"timestamp": _text(started)} if isinstance(started, str) else {}


def _case(scenario: str, verdict: Verdict) -> Element:
    case = Element("testcase", {"classname": _text(scenario), "name": _text(verdict.check), "time": "0"})
    if verdict.outcome in TAGS:
        findings = verdict.findings or (unknown(verdict.summary),)
        attributes = {"message": _text(verdict.summary), "type": str(verdict.outcome)}
        tag = TAGS[verdict.outcome] if verdict.tried else "skipped"
        SubElement(case, tag, attributes).text = "\n".join(map(_line, findings))
    SubElement(case, "system-out").text = _text(verdict.summary)
    return case


def _line(finding: Finding) -> str:
    ops = f" (ops {', '.join(map(str, finding.evidence))})" if finding.evidence else ""
    return _text(f"{finding.outcome}: {finding.sentence}{ops}")


def _text(text: str) -> str:
    return FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
