from __future__ import annotations

import ast
import copy
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from harness.checks import CHECKS
from harness.scenario import PlayerOp, Scenario, ScenarioError, load, parse, under

MINIMAL: dict[str, Any] = {
    "scenario": {"name": "nothing", "title": "Nothing happens", "expectation": "all stays as it is"},
    "steps": [{"name": "wait", "hold_s": 1}],
}
CHAOS = Path(__file__).parents[1] / "chaos"
PROFILES = Path(__file__).parents[2] / "loadtests" / "profiles"
LOCUSTFILE = Path(__file__).parents[2] / "loadtests" / "locustfile.py"


def with_step(**keys: Any) -> dict[str, Any]:
    tables = copy.deepcopy(MINIMAL)
    tables["steps"].append({"name": "second", **keys})
    return tables


def refusal(tables: dict[str, Any]) -> str:
    with pytest.raises(ScenarioError) as caught:
        parse(tables, "s.toml")
    return str(caught.value)


def test_reads_the_power_cut_as_it_is_meant() -> None:
    scenario = load(CHAOS / "director-power-cut.toml")
    assert scenario.name == "director-power-cut"
    assert scenario.scenario.topology == "ultramonkey"
    assert scenario.scenario.seed == 1
    assert scenario.load is not None
    assert (scenario.load.users, scenario.load.spawn_per_s, scenario.load.think_ms) == (6, 6, 200)
    assert scenario.capture is not None
    assert scenario.capture.segments == ("internet", "heartbeat", "lan")
    steady, cut, heal, again = scenario.steps
    assert (steady.until, steady.hold_s, again.hold_s) == ("steady", 8, 8)
    assert (cut.inject, cut.settings, cut.label, cut.hold_s) == ("node.power-off", {"node": "lb-1"}, "cut", 5)
    assert (cut.until, cut.within_s) == ("owned", 40)
    assert cut.owners == {"203.0.113.101": "lb-2", "203.0.113.102": "lb-2"}
    assert (heal.heal, heal.until, heal.within_s) == ("cut", "steady", 90)
    assert set(scenario.checks) == {"ownership", "outage", "established", "recovery"}
    assert "takes over" in scenario.expectation


def test_optional_tables_have_defaults() -> None:
    scenario = parse(MINIMAL, "s.toml")
    assert scenario.load is None
    assert scenario.capture is None
    assert scenario.checks == {}
    assert (scenario.scenario.topology, scenario.scenario.seed) == ("ultramonkey", 1)


def test_is_frozen() -> None:
    scenario = parse(MINIMAL, "s.toml")
    with pytest.raises(ValidationError, match="frozen"):
        setattr(scenario.scenario, "seed", 2)  # noqa: B010 - as a careless program would


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            {"inject": "a", "heal": "a"},
            "s.toml: steps[1]: inject and heal are two verbs: make them two steps",
        ),
        ({}, "s.toml: steps[1]: does nothing: give inject, heal, draw, until or hold_s"),
        (
            {"hold_s": 1, "with": {"node": "lb-1"}},
            "s.toml: steps[1]: with gives the settings of a fault: give inject too",
        ),
        ({"hold_s": 1, "as": "cut"}, "s.toml: steps[1]: as labels an injected fault: give inject too"),
        ({"until": "steady"}, "s.toml: steps[1]: until needs a deadline: give within_s, in seconds"),
        (
            {"hold_s": 1, "within_s": 5},
            "s.toml: steps[1]: within_s is the deadline of a condition: give until too",
        ),
        (
            {"until": "owned", "within_s": 5},
            's.toml: steps[1]: until = "owned" needs owners: give each virtual IP\'s director',
        ),
        (
            {"until": "steady", "within_s": 5, "owners": {"203.0.113.101": "lb-1"}},
            's.toml: steps[1]: owners goes with until = "owned" only',
        ),
        ({"until": "steady", "within_s": 0}, "s.toml: steps[1].within_s: input should be greater than 0, not 0"),
        ({"hold_s": -1}, "s.toml: steps[1].hold_s: input should be greater than 0, not -1"),
        (
            {"until": "stady", "within_s": 1},
            "s.toml: steps[1].until: input should be 'steady', 'owned' or 'asked', not 'stady'",
        ),
        (
            {"hold": 1},
            "s.toml: steps[1].hold: there is no such key (did you mean hold_s? known: "
            "as, at_once, count, draw, each_s, heal, hold_s, inject, name, owners, pause_s, until, with, within_s)",
        ),
        (
            {"settings": {}, "inject": "node.power-off"},
            "s.toml: steps[1].settings: there is no such key (known: "
            "as, at_once, count, draw, each_s, heal, hold_s, inject, name, owners, pause_s, until, with, within_s)",
        ),
    ],
)
def test_a_wrong_step_is_named_with_its_place_and_what_would_be_right(keys: dict[str, Any], expected: str) -> None:
    assert refusal(with_step(**keys)) == expected


def test_a_missing_table_is_named() -> None:
    assert refusal({"steps": MINIMAL["steps"]}) == "s.toml: scenario: is required, and missing"


def test_a_misspelt_key_is_told_before_the_one_it_should_have_been() -> None:
    tables = copy.deepcopy(MINIMAL)
    tables["scenario"]["titel"] = tables["scenario"].pop("title")
    sentence = refusal(tables)
    assert sentence.startswith(
        "s.toml: scenario.titel: there is no such key (did you mean title? known: name, promise,"
    )
    assert sentence.endswith("(and 1 more)")


def test_a_misspelt_table_is_told() -> None:
    assert "s.toml: lod: there is no such key (did you mean load?" in refusal({**MINIMAL, "lod": {}})


def test_a_log_is_a_load_of_its_own() -> None:
    told = Scenario.model_validate({**MINIMAL, "load": {"persona": "log", "log": "access.log", "speed": 2}})
    assert told.load is not None
    assert told.load.planned
    assert "needs log" in refusal({**MINIMAL, "load": {"persona": "log"}})
    assert "needs log" in refusal({**MINIMAL, "load": {"log": "access.log"}})
    both = {"persona": "log", "log": "a", "arrivals": "poisson", "phases": [{"per_s": 1}]}
    assert "a log has its own times" in refusal({**MINIMAL, "load": both})


def test_open_arrivals_have_phases_and_users_who_wait_have_none() -> None:
    phases = [{"per_s": 0, "to_per_s": 50, "for_s": 30}, {"per_s": 50}]
    table = {"arrivals": "poisson", "phases": phases}
    scenario = Scenario.model_validate({**MINIMAL, "load": table})
    assert scenario.load is not None
    assert scenario.load.phases[0].to_per_s == 50
    assert "arrivals = 'poisson' with 0 phases" in refusal({**MINIMAL, "load": {"arrivals": "poisson"}})
    assert "arrivals = 'closed' with 2 phases" in refusal({**MINIMAL, "load": {"phases": phases}})
    assert "only the last one may" in refusal({**MINIMAL, "load": {**table, "phases": phases[::-1]}})


def test_what_never_ends_is_not_waited_for() -> None:
    ends = {"arrivals": "constant", "phases": [{"per_s": 5, "for_s": 10}, {"per_s": 9, "for_s": 1}]}
    goes_on = {"arrivals": "constant", "phases": [{"per_s": 5, "for_s": 10}, {"per_s": 9}]}
    steps = [{"name": "load", "until": "asked", "within_s": 60}]
    for load_of in (ends, {"persona": "log", "log": "access.log"}):
        told = parse({**MINIMAL, "steps": steps, "load": load_of}, "s.toml")
        assert told.load is not None
        assert told.load.ends
    for load_of in (goes_on, {}, {"persona": "players"}):
        assert 'until = "asked" never comes' in refusal({**MINIMAL, "steps": steps, "load": load_of})
    silent = {key: table for key, table in MINIMAL.items() if key != "load"}
    assert 'until = "asked" never comes' in refusal({**silent, "steps": steps})


def test_the_load_of_another_has_to_end_where_the_end_is_waited_for() -> None:
    ramp = load(PROFILES / "ramp.toml")
    assert under(ramp, PROFILES / "soak.toml").load != ramp.load
    with pytest.raises(ScenarioError, match=r'steady\.toml: .*"asked" never comes'):
        under(ramp, PROFILES / "steady.toml")


def test_a_mix_is_of_what_players_do_and_not_of_nothing() -> None:
    table = {"persona": "players", "mix": {"page": 8, "score": 2, "coins": 0}}
    told = parse({**MINIMAL, "load": table}, "s.toml").load
    assert told is not None
    assert told.mix == {"page": 8, "score": 2, "coins": 0}
    assert "s.toml: load.mix.scores" in refusal({**MINIMAL, "load": {**table, "mix": {"scores": 1}}})
    assert "s.toml: load.mix.page" in refusal({**MINIMAL, "load": {**table, "mix": {"page": -1, "score": 1}}})
    assert "a weight above 0" in refusal({**MINIMAL, "load": {**table, "mix": {"page": 0, "score": 0}}})
    for people in ({"persona": "visitors"}, {}, {"persona": "log", "log": "access.log"}):
        assert "persona = 'players'" in refusal({**MINIMAL, "load": {"mix": {"page": 1}, **people}})
    usual = parse({**MINIMAL, "load": {"persona": "players"}}, "s.toml").load
    assert usual is not None
    assert usual.mix == {}


def test_a_mix_has_the_ops_of_the_locustfile() -> None:
    """Read, and not imported: Locust would patch this interpreter."""
    (usual,) = (
        ast.literal_eval(node.value)
        for node in ast.parse(LOCUSTFILE.read_text()).body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["USUAL_MIX"]
    )
    assert set(get_args(PlayerOp)) == usual.keys()


def test_a_scenario_may_have_the_load_of_another_one(tmp_path: Path) -> None:
    wanted, profile = load(CHAOS / "director-power-cut.toml"), CHAOS / "nfs-power-cut.toml"
    found, of = under(wanted, profile), load(profile)
    assert found.load == of.load != wanted.load
    assert (found.scenario, found.capture) == (wanted.scenario, wanted.capture)
    assert (found.steps, found.checks) == (wanted.steps, wanted.checks)
    silent = tmp_path / "silent.toml"
    silent.write_text('[scenario]\nname = "x"\ntitle = "t"\npromise = "p"\n[[steps]]\nname = "a"\nhold_s = 1\n')
    with pytest.raises(ScenarioError, match=r"silent\.toml: there is no \[load\] in it"):
        under(wanted, silent)
    with pytest.raises(ScenarioError, match=r"none\.toml: cannot be read"):
        under(wanted, tmp_path / "none.toml")


def test_an_unknown_check_and_its_settings_are_refused() -> None:
    assert refusal({**MINIMAL, "checks": {"outages": {}}}) == (
        f"s.toml: checks.outages: there is no such check (did you mean outage? known: {', '.join(sorted(CHECKS))})"
    )
    assert "s.toml: checks.ownership.overlap: there is no such key (did you mean overlap_ms?" in refusal(
        {**MINIMAL, "checks": {"ownership": {"overlap": 1}}}
    )


@pytest.mark.parametrize("name", ["", "Power Cut", "../up", "-x"])
def test_a_name_that_is_no_directory_is_refused(name: str) -> None:
    tables = copy.deepcopy(MINIMAL)
    tables["scenario"]["name"] = name
    assert "s.toml: scenario.name: " in refusal(tables)


def test_what_is_not_there_and_what_is_not_toml_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"none\.toml: cannot be read: No such file or directory"):
        load(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[scenario\n")
    with pytest.raises(ScenarioError, match=r"broken\.toml: is not TOML: .*line 1"):
        load(broken)


def test_the_schema_speaks_the_language_of_the_file() -> None:
    schema = Scenario.model_json_schema()
    assert set(schema["properties"]) == {"scenario", "load", "capture", "steps", "checks"}
    assert schema["additionalProperties"] is False
    assert {"with", "as", "within_s"} <= set(schema["$defs"]["StepTable"]["properties"])
