"""Which faults certainly make a real server fail ldirectord's check."""

from __future__ import annotations

from typing import Any

import pytest

from harness.history.injections import failed_servers, injections
from tests.support import histories as h


@pytest.mark.parametrize(
    ("fault", "settings", "fails"),
    [
        ("real-server.refuse", {"node": "web-4"}, True),
        ("real-server.error", {"node": "web-4", "rate": 1.0}, True),
        ("real-server.error", {"node": "web-4", "rate": 0.5}, False),
        ("real-server.partial", {"node": "web-4"}, False),
        ("process.stop", {"node": "web-4", "service": "apache"}, True),
        ("process.hang", {"node": "web-4", "service": "gmond"}, False),
        ("process.kill", {"node": "web-4", "service": "apache", "restart": False}, True),
        ("process.kill", {"node": "web-4", "service": "apache", "restart": True}, False),
        ("node.power-off", {"node": "web-4"}, True),
        ("node.power-off", {"node": "lb-1"}, False),
    ],
)
def test_a_fault_fails_the_check_or_may_not(fault: str, settings: dict[str, Any], fails: bool) -> None:
    phases = {phase: {"fault": fault, "phase": phase, **settings} for phase in ("start", "proof", "end")}
    times = {"start": 5_000, "proof": 5_100, "end": 9_000}
    ops = [h.op(times[phase], "fault:x", "fault", value) for phase, value in phases.items()]
    history = h.of([h.start(), *ops, h.end(20_000)])
    (injection,) = injections(history)
    assert failed_servers(history, injection) == (frozenset({"web-4"}) if fails else frozenset())
