"""The audit after a run: nothing is left behind, and no log complains without a fault."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.checks import judge
from harness.history import History, Op
from harness.verdict import Outcome, Verdict
from tests.support import histories as h
from tests.support.examples import examples
from tests.support.histories import PowerCut
from topology.lab.observers import CONSOLE_ERROR
from topology.load import load
from topology.parts import heartbeat, parts_of, real_servers

CUT = PowerCut(probe_every=1_000)
HEARTBEAT = "Nov 23 07:13:20 lb-2 heartbeat: [804]: "
LATE = f"{HEARTBEAT}CRIT: Late heartbeat: Node lb-1: interval 5000 ms (> deadtime)"
APACHE = "[Mon Nov 23 07:13:20.1 2026] [core:error] [pid 7] AH00099: it broke"
MARIADB = "2026-11-23  7:13:20 0 [ERROR] InnoDB: it broke"


def line(at_ms: float, process: str, text: str) -> Op:
    return h.op(at_ms, f"log:{process}", "log", text)


def audited(*more: Op, **found: Any) -> History:
    """A power cut, and what its run found at its end."""
    seen = h.changed(CUT.history(), lambda op: op.f == "audit", lambda op: op.copy(value=op.value | found))
    return h.with_ops(seen, *more)


def check(history: History, **table: Any) -> Verdict:
    (verdict,) = judge(history, {"audit": table})
    return verdict


@examples(40)
@given(at_ms=st.floats(CUT.cut, CUT.released), said=st.sampled_from([LATE, f"{HEARTBEAT}ERROR: both"]))
def test_an_error_while_a_fault_is_in_is_explained(at_ms: float, said: str) -> None:
    verdict = check(audited(line(at_ms, "lb-2:heartbeat", said)))
    assert verdict.outcome is Outcome.VALID, verdict.findings
    assert verdict.numbers["error_lines"] == 1


def test_the_parts_of_a_topology_know_these_error_lines() -> None:
    assert re.search(heartbeat.ERROR, LATE)
    assert re.search(real_servers.ERROR, APACHE)
    assert re.search(CONSOLE_ERROR, MARIADB)
    assert re.search(heartbeat.PEER_DEAD.replace("{node}", "lb-1"), f"{HEARTBEAT}WARN: node lb-1: is dead")
    assert not re.search(heartbeat.ERROR, f"{HEARTBEAT}info: no ERROR at all")


def test_the_parts_of_the_topology_know_these_consequences() -> None:
    topology = load("ultramonkey")
    found = [asdict(each) for part in parts_of(topology) for each in part.consequences(topology)]
    assert json.loads(json.dumps(found)) == h.CLUSTER["consequences"]


def test_without_recorded_consequences_a_line_beside_a_fault_is_unknown() -> None:
    older = h.changed(
        under("lb-1", DOWN, "lb-2:heartbeat", LATE), lambda op: op.f == "start", lambda _: h.start(consequences=None)
    )
    assert check(older).outcome is Outcome.UNKNOWN


def test_a_history_without_error_expressions_is_unknown() -> None:
    verdict = check(h.of(h.start(error_lines=None) if op.f == "start" else op for op in audited()))
    assert verdict.outcome is Outcome.UNKNOWN
    assert verdict.summary == "The history does not say which log lines are errors."


def test_a_lab_that_is_as_it_was_is_valid() -> None:
    assert check(audited()).summary == "Nothing is left behind; no error lines."


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
    assert "(and 1 more)" in verdict.summary
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
        ({"left": ["lb-1: now: qdisc: eth0 netem"]}, "The run left changes behind: lb-1: now: qdisc: eth0 netem."),
        ({"left": [f"line {n}" for n in range(9)]}, "and 4 more"),
        ({"problems": ["web-2 does not answer"]}, "unhealthy at the end of the run: web-2 does not answer"),
        ({"owners": {h.VIP1: ["lb-1", "lb-2"]}}, f"{h.VIP1} is held by lb-1 and lb-2"),
        ({"owners": {h.VIP1: []}}, f"{h.VIP1} is held by no director"),
        ({"weights": {"lb-1": {h.VIP1: h.WEIGHTS}, "lb-2": {h.VIP1: h.WEIGHTS | {"web-2": 0}}}}, "tables differ"),
        ({"weights": {"lb-1": {h.VIP1: h.WEIGHTS}, "lb-2": {}}}, f"tables differ at the end of the run: {h.VIP1}"),
    ],
)
def test_what_is_left_is_found(found: dict[str, Any], says: str) -> None:
    verdict = check(audited(**found))
    assert verdict.outcome is Outcome.INVALID
    assert says in verdict.summary
    assert verdict.evidence


def unread(op: Op) -> Op:
    return op.copy(value={}, error="the container is gone")


def older(op: Op) -> Op:
    return op.copy(value={"left": []})


@pytest.mark.parametrize(
    ("history", "says"),
    [
        (h.without(audited(), lambda op: op.f == "audit"), "was not compared"),
        (h.changed(audited(), lambda op: op.f == "audit", unread), "the container is gone"),
        (h.changed(audited(), lambda op: op.f == "audit", older), "at the end of the run was not recorded"),
        (h.killed(audited(), 20_000), "was not compared"),
    ],
)
def test_what_was_not_recorded_is_unknown(history: History, says: str) -> None:
    verdict = check(history)
    assert verdict.outcome is Outcome.UNKNOWN
    assert any(says in finding.sentence for finding in verdict.findings)


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="announced"):
        check(audited(), announced=["("])


# --- which lines a fault explains

PANIC = "Kernel panic - not syncing: Fatal exception"
HUNG = "INFO: task apache2:812 blocked for more than 120 seconds."
BOTH = f"{HEARTBEAT}ERROR: Both machines own our resources!"
DOWN, SERVICE, PATH = "node-down", "service-down", "cuts-path"


def under(node: str, kind: str, line_of: str, said: str, service: str = "") -> History:
    """One fault from 43 s to 50 s, and one line at 45 s."""
    effects = [{"kind": kind, "node": node, "service": service}]
    more = {"node": node, "fault": "x", "effects": effects}
    lines = {**h.CLUSTER["error_lines"], "console": CONSOLE_ERROR}
    return h.with_ops(
        h.without(audited(), lambda op: op.f in {"fault", "start"}),
        h.start(error_lines=lines),
        h.fault(43_000, "x", "start", node=node, fault="x"),
        h.fault(43_100, "x", "proof", **more),
        h.step(49_000, "heal", "begin"),
        h.fault(50_000, "x", "end", node=node, fault="x"),
        line(45_000, line_of, said),
    )


@pytest.mark.parametrize(
    ("history", "explained"),
    [
        (under("lb-1", DOWN, "lb-1:heartbeat", LATE), True),
        (under("lb-1", DOWN, "lb-2:heartbeat", LATE), True),
        (under("lb-1", DOWN, "lb-2:heartbeat", BOTH), False),
        (under("lb-1", PATH, "lb-2:heartbeat", BOTH), True),
        (under("lb-1", SERVICE, "lb-2:heartbeat", LATE, "heartbeat"), True),
        (under("lb-1", SERVICE, "lb-2:heartbeat", LATE, "ldirectord"), False),
        (under("lb-1", DOWN, "db:console", MARIADB), False),
        (under("lb-1", DOWN, "db:console", PANIC), False),
        (under("lb-1", DOWN, "lb-2:console", PANIC), False),
        (under("lb-1", DOWN, "web-2:apache", APACHE), False),
        (under("web-3", DOWN, "lb-2:heartbeat", LATE), False),
        (under("web-3", DOWN, "web-3:console", PANIC), True),
        (under("web-3", DOWN, "web-4:apache", APACHE), False),
        (under("web-3", DOWN, "web-4:console", HUNG), False),
        (under("web-3", SERVICE, "web-3:apache", APACHE, "apache"), True),
        (under("web-3", SERVICE, "web-3:console", PANIC, "apache"), False),
        (under("web-1", DOWN, "web-4:apache", APACHE), True),
        (under("web-1", DOWN, "web-4:console", HUNG), True),
        (under("web-1", DOWN, "web-4:console", PANIC), False),
        (under("web-1", DOWN, "db:console", MARIADB), False),
        (under("db", DOWN, "db:console", MARIADB), True),
        (under("db", DOWN, "web-5:apache", APACHE), True),
        (under("db", DOWN, "web-5:console", PANIC), False),
        (under("db", DOWN, "lb-1:heartbeat", LATE), False),
        (under("client", DOWN, "lb-1:heartbeat", LATE), False),
    ],
)
def test_a_fault_explains_lines_of_what_it_touches_and_of_what_depends_on_that(
    history: History, explained: bool
) -> None:
    verdict = check(history)
    assert verdict.outcome is (Outcome.VALID if explained else Outcome.INVALID), verdict.findings


def test_lines_of_ldirectord_about_a_real_server_are_explained() -> None:
    lines = {"heartbeat": "ERROR", "ldirectord": "ERROR"}
    for node, outcome in (("web-3", Outcome.VALID), ("db", Outcome.INVALID), ("lb-1", Outcome.INVALID)):
        history = under(node, DOWN, "lb-2:ldirectord", "ERROR: web-3 does not answer")
        history = h.changed(history, lambda op: op.f == "start", lambda _: h.start(error_lines=lines))
        assert check(history).outcome is outcome, node


def test_a_line_after_a_fault_that_says_both_own_the_resources_is_explained() -> None:
    """A frozen director still holds its address when it thaws."""
    late = h.with_ops(under("lb-1", DOWN, "lb-2:heartbeat", LATE), line(49_500, "lb-2:heartbeat", BOTH))
    assert check(late).outcome is Outcome.VALID


def test_what_an_older_record_does_not_tell_of_a_fault_is_unknown() -> None:
    def older(op: Op) -> Op:
        return op.copy(value={key: value for key, value in op.value.items() if key not in {"effects", "node"}})

    history = h.changed(under("lb-1", DOWN, "db:console", MARIADB), lambda op: op.f == "fault", older)
    verdict = check(history)
    assert verdict.outcome is Outcome.UNKNOWN
    assert "what it touched was not recorded" in verdict.summary
    assert check(h.with_ops(history, line(500, "db:console", MARIADB))).outcome is Outcome.INVALID


def test_without_a_log_it_is_unknown() -> None:
    deaf = h.without(audited(), lambda op: op.f == "log")
    assert check(deaf).outcome is Outcome.UNKNOWN
    assert check(deaf).summary == "No log was followed, so error lines are unknown."
    half = h.without(audited(), lambda op: op.process == "log:lb-1:heartbeat")
    assert check(half).summary == "The log 'heartbeat' of lb-1 was not followed."


def feed(at_ms: float, process: str, phase: str) -> Op:
    return h.op(at_ms, process, "feed", {"phase": phase})


def test_a_log_that_was_lost_is_unknown() -> None:
    lost = [feed(100, "log:lb-1:heartbeat", "open"), feed(30_000, "log:lb-1:heartbeat", "lost")]
    assert "A log was lost at 30.0 s (lb-1, heartbeat)" in check(h.with_ops(audited(), *lost)).summary
    again = [feed(31_000, "log:lb-1:heartbeat", "open"), feed(59_500, "log:lb-1:heartbeat", "closed")]
    assert check(h.with_ops(audited(), *lost, *again)).outcome is Outcome.VALID
    consoles = [feed(100, f"log:{node}:console", "open") for node in ("lb-1", "lb-2", "web-1")]
    verdict = check(h.with_ops(audited(), *consoles))
    assert verdict.outcome is Outcome.UNKNOWN
    assert "of web-2 was not followed" in verdict.summary


TABLES: Any = h.AS_BEFORE["weights"]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({"owners": {h.VIP1: ["lb-1"]}}, f"The owner of {h.VIP2} at the end"),
        ({"owners": {}}, f"The owner of {h.VIP1} at the end"),
        ({"weights": {"lb-1": TABLES["lb-1"]}}, "The table of lb-2 at the end"),
        ({"weights": {}}, "The table of lb-1 at the end"),
        (
            {"weights": {node: {f"{h.VIP1}:80": h.WEIGHTS} for node in TABLES}},
            f"The real servers of {h.VIP2} at the end",
        ),
    ],
)
def test_an_audit_without_a_virtual_ip_a_director_or_a_service_is_unknown(found: dict[str, Any], says: str) -> None:
    verdict = check(audited(**found))
    assert verdict.outcome is Outcome.UNKNOWN
    assert says in verdict.summary


def test_a_last_look_that_contradicts_the_last_samples_is_unknown() -> None:
    verdict = check(audited(owners={h.VIP1: ["lb-2"], h.VIP2: ["lb-2"]}))
    assert verdict.outcome is Outcome.UNKNOWN
    assert "the last sample of lb-1 disagree on who holds 203.0.113.101" in verdict.summary


def test_a_real_server_that_is_out_at_the_end_is_unknown_unless_it_always_was() -> None:
    weights = {node: {f"{vip}:80": {"web-1": 0, "web-2": 1} for vip in (h.VIP1, h.VIP2)} for node in ("lb-1", "lb-2")}
    verdict = check(audited(weights=weights))
    assert verdict.outcome is Outcome.UNKNOWN
    assert "web-1 for 203.0.113.101:80 on lb-1" in verdict.summary

    def table(node: str, weight: int) -> Op:
        rows = {"web-1": {"weight": weight, "active": 0, "inactive": 0, "conns": 0}}
        return h.op(5_000, f"table:{node}", "table", {"node": node, "vips": {h.VIP1: rows, h.VIP2: rows}})

    assert check(audited(table("lb-1", 0), table("lb-2", 0), weights=weights)).outcome is Outcome.VALID
    assert check(audited(table("lb-1", 1), table("lb-2", 0), weights=weights)).outcome is Outcome.UNKNOWN
