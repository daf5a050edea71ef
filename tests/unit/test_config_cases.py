"""The lint rules answer the cases of configuration files as each says; programs answer theirs in the lab's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import doctor
from harness.formats import ha_cf
from tests.support.cases import ANSWERS, FOLDER, check, overlaid
from topology.parts.ldirectord import settings

ELSEWHERE = {
    "75-budget-checktimeout-alone",
    "76-budget-units",
    "78-fault-settle-other-spellings",
    "79-log-vhost-combined",
    "81-log-not-broken",
    "82-log-plan-does-not-look",
}
"""Cases that are no overlay: the tests below, test_scripts.py, test_feeds.py, test_cli.py."""


def test_every_case_has_an_answer() -> None:
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} == {*ANSWERS, *ELSEWHERE}


@pytest.mark.parametrize("name", [name for name, answer in ANSWERS.items() if answer.get("by") != "program"])
def test_the_rules_answer_a_case(name: str, tmp_path: Path) -> None:
    check(name, "rule", doctor.lint(overlaid([name], tmp_path)))


@pytest.mark.parametrize("name", [name for name, answer in ANSWERS.items() if answer.get("by") == "program"])
def test_the_rules_leave_refusals_to_the_programs(name: str, tmp_path: Path) -> None:
    findings = doctor.lint(overlaid([name], tmp_path))
    assert not [each for each in findings if "refuses to start" in each.seen]
    check(name, "rule", findings)


def test_the_timeouts_are_defaults_for_each_other() -> None:
    text = (FOLDER / "75-budget-checktimeout-alone" / "ldirectord.cf").read_text()
    assert settings(text)["check_timeout_ms"] == 3000
    connects = "virtual=203.0.113.101:80\n\tchecktype=connect\n"
    assert settings(f"negotiatetimeout=2\n{connects}")["check_timeout_ms"] == 2000
    assert settings(connects)["check_timeout_ms"] == 5000
    assert "check_timeout_ms" not in settings("virtual=203.0.113.101:80\n\tservice=http\n")


@pytest.mark.parametrize(
    ("words", "keepalive_ms", "deadtime_ms"),
    [
        ("keepalive 500ms\ndeadtime 1500msec", 500, 1500),
        ("keepalive .5\ndeadtime 3.", 500, 3000),
        ("deadtime 10,", 1000, 10_000),
    ],
)
def test_times_are_read_as_heartbeat_reads_them(words: str, keepalive_ms: int, deadtime_ms: int) -> None:
    found = ha_cf.parse(words)
    assert (found.keepalive_ms, found.deadtime_ms) == (keepalive_ms, deadtime_ms)


def test_commas_after_words_are_read_as_heartbeat_reads_them() -> None:
    found = ha_cf.parse("udpport 1694,\nbcast eth1, eth2\nucast eth0, 192.0.2.1\nauto_failback yes,\n")
    assert (found.udpport, found.interfaces) == (1694, ("eth1", "eth2", "eth0"))
    assert found.last("auto_failback") == (4, "yes")
