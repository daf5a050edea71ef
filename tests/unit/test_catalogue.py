"""Faults and checks by name, and the schema of a scenario."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from faults import FAULTS
from harness import catalogue
from harness.catalogue import About, Setting
from harness.checks import CHECKS
from harness.scenario import ScenarioError, shipped

KINDS = ("one of", "list", "non-empty list", "number", "string", "table", "true or false", "whole number")
SCHEMA = catalogue.scenario_schema(FAULTS)
MINIMAL = {"scenario": {"name": "a", "title": "t", "expectation": "e"}}


def made(name: str, *words: str) -> Any:
    return catalogue.make(name, catalogue.settings(name, words, FAULTS), FAULTS)


def about(name: str) -> About:
    (found,) = catalogue.checks(name) if name in CHECKS else catalogue.faults(FAULTS, name)
    return found


def setting(name: str, key: str) -> Setting:
    return next(each for each in about(name).settings if each.name == key)


def test_a_fault_is_made_from_words_or_from_a_table() -> None:
    expected = FAULTS["node.slow"](node="web-1", share=0.5)
    assert made("node.slow", "node=web-1", "share=0.5") == expected
    assert catalogue.make("node.slow", {"node": "web-1", "share": 0.5}, FAULTS) == expected


@pytest.mark.parametrize(
    ("words", "one", "other"),
    [
        (["one=web-5", "other=db"], ("web-5",), ("db",)),
        (["one=web-5,web-6", "other=db"], ("web-5", "web-6"), ("db",)),
        (['one=["web-5"]', "other=db"], ("web-5",), ("db",)),
    ],
)
def test_one_name_for_a_list_is_a_list_of_one(words: list[str], one: tuple[str, ...], other: tuple[str, ...]) -> None:
    fault = made("network.partition", *words)
    assert (fault.one, fault.other) == (one, other)


def test_a_string_keeps_its_commas_and_its_digits() -> None:
    assert catalogue.settings("node.host-name", ["node=web-1", "to=7"], FAULTS) == {"node": "web-1", "to": "7"}
    assert catalogue.settings("node.freeze", ["node=a,b"], FAULTS) == {"node": "a,b"}


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("node.pwer-off", ["node=lb-1"], "unknown fault 'node.pwer-off'; did you mean 'node.power-off'?"),
        ("power-off", ["node=lb-1"], "unknown fault 'power-off'; did you mean 'node.power-off'?"),
        ("node.slow", ["web-1"], "node.slow: invalid setting 'web-1': expected KEY=VALUE, for example node=lb-1"),
        ("node.slow", ["nod=web-1"], "node.slow: unknown key 'nod'; did you mean 'node'? (and 1 more)"),
        ("node.slow", ["node=web-1", "share=7"], "node.slow: share: must be at most 0.5 (got 7)"),
        ("node.slow", [], "node.slow: missing key 'node'"),
    ],
)
def test_words_that_make_no_fault_are_refused(name: str, words: list[str], expected: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        made(name, *words)
    assert str(caught.value) == expected


def test_a_fault_that_draws_gets_its_seed_from_the_run_and_the_step() -> None:
    def seed_of(**given: Any) -> int:
        fault: Any = catalogue.make("heartbeat.drop", {"sender": "lb-1", "rate": 0.5}, FAULTS, **given)
        return int(fault.seed)

    assert seed_of() == seed_of(seed=1, label="heartbeat.drop")
    assert len({seed_of(seed=1, label="a"), seed_of(seed=2, label="a"), seed_of(seed=1, label="b")}) == 3
    given = catalogue.make("heartbeat.drop", {"sender": "lb-1", "rate": 0.5, "seed": 7}, FAULTS)
    assert given == FAULTS["heartbeat.drop"](sender="lb-1", rate=0.5, seed=7)


def test_the_documentation_of_every_fault_and_check_is_complete() -> None:
    everything = [*catalogue.faults(FAULTS), *catalogue.checks()]
    assert [each.name for each in everything] == [*sorted(FAULTS), *sorted(CHECKS)]
    for each in everything:
        assert re.fullmatch(r"[A-Z].{8,180}\.", each.summary), each
        assert each.text.startswith(each.summary)
        for one in each.settings:
            assert one.meaning, (each.name, one.name)
            assert one.kind.split()[0] in {
                "one",
                "list",
                "non-empty",
                "number",
                "regular",
                "string",
                "table",
                "true",
                "whole",
            }


def test_a_summary_ends_with_the_first_sentence() -> None:
    """Also where the sentence ends its paragraph, or a full stop stands within a word."""
    for name in ("cluster.settle", "node.reboot", "process.hang", "network.duplicate-address"):
        summary = about(name).summary
        assert "\n" not in summary
        assert ". " not in summary


def test_settings_are_described_with_their_values_and_ranges() -> None:
    assert setting("network.delay", "direction").allowed == ("both", "from", "to")
    assert setting("network.delay", "direction").kind == "one of: both, from, to"
    assert setting("network.delay", "port").kind == "whole number from 1 to 65535"
    assert setting("node.slow", "share").kind == "number from 0.02 to 0.5"
    assert setting("network.partition", "one").kind == "non-empty list of strings"
    assert setting("network.partition", "one").required
    assert setting("durability", "of").allowed == ("scores", "transfers", "profiles", "uploads", "articles")
    assert setting("audit", "announced").kind == "list of regular expressions"
    assert setting("ownership", "owners").kind == "table of NAME = list of strings"


def test_a_family_of_faults_is_listed() -> None:
    names = [each.name for each in catalogue.faults(FAULTS, "node")]
    assert len(names) > 10
    assert all(name.startswith("node.") for name in names)


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda: catalogue.faults(FAULTS, "nod"), "unknown fault or family 'nod'; did you mean 'node'?"),
        (lambda: catalogue.faults(FAULTS, "node.slo"), "unknown fault or family 'node.slo'; did you mean 'node.slow'?"),
        (
            lambda: catalogue.faults(FAULTS, "zzz"),
            "unknown fault or family 'zzz'; families: "
            "cluster, data, dns, heartbeat, network, node, process, real-server",
        ),
        (lambda: catalogue.checks("outages"), "unknown check 'outages'; did you mean 'outage'?"),
    ],
)
def test_an_unknown_name_is_refused(ask: Any, expected: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        ask()
    assert str(caught.value) == expected


def test_the_schema_is_valid_json_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", shipped().values(), ids=lambda path: path.stem)
def test_every_shipped_scenario_is_valid_by_the_schema(path: Path) -> None:
    assert mistakes(tomllib.loads(path.read_text())) == []


@pytest.mark.parametrize(
    "step",
    [
        {"inject": "node.power-of", "with": {"node": "lb-1"}},
        {"inject": "node.power-off", "with": {"nod": "lb-1"}},
        {"inject": "node.power-off", "with": {}},
        {"inject": "node.power-off"},
        {"inject": "node.slow", "with": {"node": "lb-1", "share": 7}},
        {"draw": [{"inject": "node.slow", "with": {"node": "lb-1", "share": 7}}]},
        {"inject": "network.delay", "with": {"node": "lb-1", "direction": "up"}},
    ],
)
def test_the_schema_refuses_wrong_settings_of_faults(step: dict[str, Any]) -> None:
    assert mistakes({**MINIMAL, "steps": [{"name": "a", **step}]})


@pytest.mark.parametrize("checks", [{"outages": {}}, {"outage": {"loses": 1}}, {"outage": {"losses": -1}}])
def test_the_schema_refuses_wrong_settings_of_checks(checks: dict[str, Any]) -> None:
    steps = [{"name": "a", "hold_s": 1}]
    assert mistakes({**MINIMAL, "steps": steps}) == []
    assert mistakes({**MINIMAL, "steps": steps, "checks": checks})


def mistakes(tables: dict[str, Any]) -> list[str]:
    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors(tables)]
