from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from harness.scenario import PlayerOp, Scenario, ScenarioError, find, load, parse, shipped, under
from loadtests.lib.site import USUAL_MIX

MINIMAL: dict[str, Any] = {
    "scenario": {"name": "nothing", "title": "Nothing happens", "expectation": "all stays as it is"},
    "steps": [{"name": "wait", "hold_s": 1}],
}
CHAOS = Path(__file__).parents[1] / "chaos"
PROFILES = Path(__file__).parents[2] / "loadtests" / "profiles"


def with_step(**keys: Any) -> dict[str, Any]:
    tables = copy.deepcopy(MINIMAL)
    tables["steps"].append({"name": "second", **keys})
    return tables


def refusal(tables: dict[str, Any]) -> str:
    with pytest.raises(ScenarioError) as caught:
        parse(tables, "s.toml")
    return str(caught.value)


def test_reads_the_power_cut() -> None:
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
            "s.toml: steps[1]: inject and heal are two verbs: use two steps",
        ),
        ({}, "s.toml: steps[1]: the step does nothing: give inject, heal, draw, until, hold_s or at_s"),
        (
            {"hold_s": 1, "with": {"node": "lb-1"}},
            "s.toml: steps[1]: with needs inject: it holds the settings of the fault",
        ),
        ({"hold_s": 1, "as": "cut"}, "s.toml: steps[1]: as needs inject: it labels the fault"),
        ({"until": "steady"}, "s.toml: steps[1]: until needs a deadline: give within_s, in seconds"),
        (
            {"hold_s": 1, "within_s": 5},
            "s.toml: steps[1]: within_s needs until: it is the deadline of the condition",
        ),
        (
            {"until": "owned", "within_s": 5},
            's.toml: steps[1]: until = "owned" needs owners: give the director of each virtual IP',
        ),
        (
            {"until": "steady", "within_s": 5, "owners": {"203.0.113.101": "lb-1"}},
            's.toml: steps[1]: owners needs until = "owned"',
        ),
        ({"until": "steady", "within_s": 0}, "s.toml: steps[1].within_s: must be greater than 0 (got 0)"),
        ({"at_s": -1}, "s.toml: steps[1].at_s: must be at least 0 (got -1)"),
        ({"hold_s": -1}, "s.toml: steps[1].hold_s: must be greater than 0 (got -1)"),
        (
            {"until": "stady", "within_s": 1},
            "s.toml: steps[1].until: must be 'steady', 'owned' or 'asked' (got 'stady'; did you mean 'steady'?)",
        ),
        (
            {"hold": 1},
            "s.toml: steps[1]: unknown key 'hold'; did you mean 'hold_s'?",
        ),
        (
            {"settings": {}, "inject": "node.power-off"},
            "s.toml: steps[1]: unknown key 'settings'; accepted: as, "
            "at_once, at_s, count, draw, each_s, heal, hold_s, inject, name, owners, pause_s, until, with, within_s",
        ),
    ],
)
def test_a_wrong_step_is_named_with_its_place_and_the_correction(keys: dict[str, Any], expected: str) -> None:
    assert refusal(with_step(**keys)) == expected


def test_a_missing_table_is_named() -> None:
    assert refusal({"steps": MINIMAL["steps"]}) == "s.toml: missing key 'scenario'"


def test_a_misspelt_key_is_named_before_the_key_that_it_leaves_missing() -> None:
    tables = copy.deepcopy(MINIMAL)
    tables["scenario"]["titel"] = tables["scenario"].pop("title")
    assert refusal(tables) == "s.toml: scenario: unknown key 'titel'; did you mean 'title'? (and 1 more)"


def test_a_misspelt_table_is_named() -> None:
    assert refusal({**MINIMAL, "lod": {}}) == "s.toml: unknown key 'lod'; did you mean 'load'?"


def test_a_log_and_its_persona_go_together() -> None:
    replayed = Scenario.model_validate({**MINIMAL, "load": {"persona": "log", "log": "access.log", "speed": 2}})
    assert replayed.load is not None
    assert replayed.load.planned
    assert "give both or neither" in refusal({**MINIMAL, "load": {"persona": "log"}})
    assert "give both or neither" in refusal({**MINIMAL, "load": {"log": "access.log"}})
    both = {"persona": "log", "log": "a", "arrivals": "poisson", "phases": [{"per_s": 1}]}
    assert "arrivals cannot be combined with a log" in refusal({**MINIMAL, "load": both})


def test_open_arrivals_need_phases_and_closed_ones_refuse_them() -> None:
    phases = [{"per_s": 0, "to_per_s": 50, "for_s": 30}, {"per_s": 50}]
    table = {"arrivals": "poisson", "phases": phases}
    scenario = Scenario.model_validate({**MINIMAL, "load": table})
    assert scenario.load is not None
    assert scenario.load.phases[0].to_per_s == 50
    assert "arrivals = 'poisson' needs phases" in refusal({**MINIMAL, "load": {"arrivals": "poisson"}})
    assert "phases need open arrivals" in refusal({**MINIMAL, "load": {"phases": phases}})
    assert "only the last phase may leave out for_s" in refusal({**MINIMAL, "load": {**table, "phases": phases[::-1]}})


def test_a_load_that_never_ends_is_not_waited_for() -> None:
    ends = {"arrivals": "constant", "phases": [{"per_s": 5, "for_s": 10}, {"per_s": 9, "for_s": 1}]}
    goes_on = {"arrivals": "constant", "phases": [{"per_s": 5, "for_s": 10}, {"per_s": 9}]}
    steps = [{"name": "load", "until": "asked", "within_s": 60}]
    for load_of in (ends, {"persona": "log", "log": "access.log"}):
        ending = parse({**MINIMAL, "steps": steps, "load": load_of}, "s.toml").load
        assert ending is not None
        assert ending.ends
    for load_of in (goes_on, {}, {"persona": "players"}):
        assert 'until = "asked" needs a load that ends' in refusal({**MINIMAL, "steps": steps, "load": load_of})
    silent = {key: table for key, table in MINIMAL.items() if key != "load"}
    assert 'until = "asked" needs a load that ends' in refusal({**silent, "steps": steps})


def test_another_scenarios_load_must_end_if_the_steps_wait_for_its_end() -> None:
    ramp = load(PROFILES / "ramp.toml")
    assert under(ramp, PROFILES / "soak.toml").load != ramp.load
    with pytest.raises(ScenarioError, match=r'steady\.toml: until = "asked" needs a load that ends'):
        under(ramp, PROFILES / "steady.toml")


def test_a_mix_has_ops_of_players_and_a_weight_above_0() -> None:
    table = {"persona": "players", "mix": {"page": 8, "score": 2, "coins": 0}}
    mixed = parse({**MINIMAL, "load": table}, "s.toml").load
    assert mixed is not None
    assert mixed.mix == {"page": 8, "score": 2, "coins": 0}
    assert "s.toml: load.mix.scores" in refusal({**MINIMAL, "load": {**table, "mix": {"scores": 1}}})
    assert "s.toml: load.mix.page" in refusal({**MINIMAL, "load": {**table, "mix": {"page": -1, "score": 1}}})
    assert "at least 1 weight above 0" in refusal({**MINIMAL, "load": {**table, "mix": {"page": 0, "score": 0}}})
    for persona in ({"persona": "visitors"}, {}, {"persona": "log", "log": "access.log"}):
        assert "persona = 'players'" in refusal({**MINIMAL, "load": {"mix": {"page": 1}, **persona}})
    default = parse({**MINIMAL, "load": {"persona": "players"}}, "s.toml").load
    assert default is not None
    assert default.mix == {}


def test_a_mix_has_the_ops_of_the_locustfile() -> None:
    assert set(get_args(PlayerOp)) == USUAL_MIX.keys()


def test_a_scenario_may_have_the_load_of_another_one(tmp_path: Path) -> None:
    wanted, profile = load(CHAOS / "director-power-cut.toml"), CHAOS / "nfs-power-cut.toml"
    found, other = under(wanted, profile), load(profile)
    assert found.load == other.load != wanted.load
    assert (found.scenario, found.capture) == (wanted.scenario, wanted.capture)
    assert (found.steps, found.checks) == (wanted.steps, wanted.checks)
    silent = tmp_path / "silent.toml"
    silent.write_text('[scenario]\nname = "x"\ntitle = "t"\nexpectation = "p"\n[[steps]]\nname = "a"\nhold_s = 1\n')
    with pytest.raises(ScenarioError, match=r"silent\.toml: missing table \[load\]"):
        under(wanted, silent)
    with pytest.raises(ScenarioError, match=r"cannot read .*none\.toml"):
        under(wanted, tmp_path / "none.toml")


def test_an_unknown_check_and_an_unknown_setting_are_refused() -> None:
    assert refusal({**MINIMAL, "checks": {"outages": {}}}) == (
        "s.toml: checks.outages: unknown check 'outages'; did you mean 'outage'?"
    )
    assert refusal({**MINIMAL, "checks": {"ownership": {"overlap": 1}}}) == (
        "s.toml: checks.ownership: unknown key 'overlap'; did you mean 'overlap_ms'?"
    )


@pytest.mark.parametrize("name", ["", "Power Cut", "../up", "-x"])
def test_a_name_that_does_not_fit_a_directory_is_refused(name: str) -> None:
    tables = copy.deepcopy(MINIMAL)
    tables["scenario"]["name"] = name
    assert "s.toml: scenario.name: " in refusal(tables)


def test_a_missing_file_and_invalid_toml_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"cannot read .*none\.toml': No such file or directory"):
        load(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[scenario\n")
    with pytest.raises(ScenarioError, match=r"broken\.toml: invalid TOML: .*line 1"):
        load(broken)


def test_shipped_scenarios_and_profiles_are_found_by_name_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(find("director-power-cut")).name == "director-power-cut"
    assert load(find("steady")).load is not None
    own = tmp_path / "own.toml"
    own.write_text((CHAOS / "director-freeze.toml").read_text())
    assert find("own.toml") == Path("own.toml")


def test_shipped_scenarios_are_those_of_the_repository() -> None:
    in_repository = [*CHAOS.glob("*.toml"), *PROFILES.glob("*.toml")]
    assert {name: path.resolve() for name, path in shipped().items()} == {path.stem: path for path in in_repository}
    assert len(in_repository) == len(shipped())


def test_an_unknown_scenario_names_a_similar_one() -> None:
    with pytest.raises(ScenarioError) as caught:
        find("director-power-cot")
    assert str(caught.value) == "unknown scenario 'director-power-cot'; did you mean 'director-power-cut'?"
    assert caught.value.next_step == "Give the path of a TOML file, or the name of a shipped scenario."
