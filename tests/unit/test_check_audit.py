"""The audit after a run: nothing is left behind, and no log complains without a fault."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.checks import judge
from harness.history import History, Op
from harness.verdict import Outcome, Verdict
from tests.support import histories as h
from tests.support.histories import PowerCut

CUT = PowerCut()
HEARTBEAT = "Nov 23 07:13:20 lb-2 heartbeat: [804]: "
LATE = f"{HEARTBEAT}CRIT: Late heartbeat: Node lb-1: interval 5000 ms (> deadtime)"
APACHE = "[Mon Nov 23 07:13:20.1 2026] [core:error] [pid 7] AH00099: it broke"
MARIADB = "2026-11-23  7:13:20 0 [ERROR] InnoDB: it broke"


def line(at_ms: float, process: str, text: str) -> Op:
    return h.op(at_ms, f"log:{process}", "log", text)


def audited(*more: Op, **found: Any) -> History:
    """A power cut, and what its run found at its end."""
    seen = h.changed(CUT.history(), lambda op: op.f == "audit", lambda op: replace(op, value=op.value | found))
    return h.with_ops(seen, *more)


def check(history: History, **table: Any) -> Verdict:
    (verdict,) = judge(history, {"audit": table})
    return verdict


@settings(deadline=None, max_examples=100)
@given(at_ms=st.floats(CUT.cut, CUT.released), said=st.sampled_from([LATE, f"{HEARTBEAT}ERROR: both"]))
def test_an_error_while_a_fault_is_in_is_explained(at_ms: float, said: str) -> None:
    verdict = check(audited(line(at_ms, "lb-2:heartbeat", said)))
    assert verdict.outcome is Outcome.VALID, verdict.findings
    assert verdict.numbers["error_lines"] == 1


def test_a_lab_that_is_as_it_was_is_valid() -> None:
    assert check(audited()).summary == "Nothing is left behind; no error line."


@pytest.mark.parametrize(
    ("process", "said"),
    [
        ("lb-2:heartbeat", LATE),
        ("lb-1:heartbeat", f"{HEARTBEAT}ERROR: Both machines own our resources!"),
        ("web-3:apache", APACHE),
        ("db:console", MARIADB),
        ("web-3:console", "apache2[812]: segfault at 0 ip 0000 sp 0000 error 4"),
        ("lb-1:console", "BUG: kernel NULL pointer dereference"),
    ],
)
def test_an_error_without_a_fault_is_found(process: str, said: str) -> None:
    history = audited(line(500, process, said), line(700, process, said))
    verdict = check(history)
    assert verdict.outcome is Outcome.INVALID
    assert said in verdict.summary
    assert "and 1 more" in verdict.summary
    assert len(verdict.findings[0].evidence) == 2
    assert check(history, announced=[re.escape(said)]).outcome is Outcome.VALID


@pytest.mark.parametrize(
    ("process", "said"),
    [
        ("lb-2:heartbeat", f"{HEARTBEAT}WARN: node lb-1: is dead"),
        ("lb-2:heartbeat", f"{HEARTBEAT}info: no ERROR at all"),
        ("web-3:apache", "[Mon Nov 23 07:13:20.1 2026] [mpm_prefork:notice] [pid 7] AH00163: resuming"),
        ("db:console", "2026-11-23  7:13:20 0 [Note] InnoDB: it works"),
        ("lb-1:ldirectord", "ERROR: of a service that has no word for it"),
        ("web-3:console", "EXT4-fs (dm-0): mounted filesystem"),
    ],
)
def test_other_lines_are_no_errors(process: str, said: str) -> None:
    assert check(audited(line(500, process, said))).numbers["error_lines"] == 0


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({"left": ["lb-1: now: qdisc: eth0 netem"]}, "Not as it was: lb-1: now: qdisc: eth0 netem."),
        ({"left": [f"line {n}" for n in range(9)]}, "and 4 more"),
        ({"problems": ["web-2 does not answer"]}, "not well at the end: web-2 does not answer"),
        ({"owners": {h.VIP1: ["lb-1", "lb-2"]}}, f"{h.VIP1} is held by lb-1 and lb-2"),
        ({"owners": {h.VIP1: []}}, f"{h.VIP1} is held by nobody"),
        ({"weights": {"lb-1": {h.VIP1: h.WEIGHTS}, "lb-2": {h.VIP1: h.WEIGHTS | {"web-2": 0}}}}, "tables differ"),
        ({"weights": {"lb-1": {h.VIP1: h.WEIGHTS}, "lb-2": {}}}, f"tables differ at the end: {h.VIP1}"),
    ],
)
def test_what_is_left_is_found(found: dict[str, Any], says: str) -> None:
    verdict = check(audited(**found))
    assert verdict.outcome is Outcome.INVALID
    assert says in verdict.summary
    assert verdict.evidence


def unread(op: Op) -> Op:
    return replace(op, value={}, error="the container is gone")


def older(op: Op) -> Op:
    return replace(op, value={"left": []})


@pytest.mark.parametrize(
    ("history", "says"),
    [
        (h.without(audited(), lambda op: op.f == "audit"), "Nobody compared"),
        (h.changed(audited(), lambda op: op.f == "audit", unread), "the container is gone"),
        (h.changed(audited(), lambda op: op.f == "audit", older), "Nobody looked at the cluster"),
        (h.killed(audited(), 20_000), "Nobody compared"),
    ],
)
def test_what_nobody_saw_is_unknown(history: History, says: str) -> None:
    verdict = check(history)
    assert verdict.outcome is Outcome.UNKNOWN
    assert says in verdict.summary


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="announced"):
        check(audited(), announced=["("])
