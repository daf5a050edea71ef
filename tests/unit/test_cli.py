"""The command line without a lab: exit codes, sentences, and what people see."""

from __future__ import annotations

import io
import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from faults import FAULTS
from harness import catalogue, doctor
from harness.checks import CHECKS
from harness.cli import main, screen
from harness.doctor import Finding
from harness.records import NodeStatus, PartStatus, Power, RealServer, Status
from harness.verdict import Outcome, Verdict
from topology.load import load


def call(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")


@pytest.mark.parametrize(
    "words", [("up",), ("down",), ("status",), ("exec", "lb-1", "true"), ("heal",), ("faults", "--active")]
)
@pytest.mark.usefixtures("no_engine")
def test_without_an_engine_every_command_names_the_problem_and_the_next_step(words: tuple[str, ...]) -> None:
    result = call(*words)
    assert result.exit_code == 4
    assert "does not answer" in result.stderr
    assert "make setup" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.usefixtures("no_engine")
def test_the_doctor_continues_after_a_finding_that_fails() -> None:
    result = call("doctor")
    assert result.exit_code == 4
    assert "does not answer" in " ".join(result.stdout.split())
    assert "11 nodes, 2 VIPs" in result.stdout


@pytest.mark.usefixtures("no_engine")
def test_the_doctor_says_that_it_asks_no_program_offline() -> None:
    assert "not asked (--offline)" in call("doctor", "--offline").stdout


def test_the_doctor_says_which_images_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topology.lab.engine.connect", object)
    monkeypatch.setattr("topology.lab.image.exists", lambda *_: False)
    (finding,) = doctor.programs(load("ultramonkey"))
    assert "db and director and web nodes, whose images are not built yet" in finding.seen
    assert (finding.ok, finding.warning, finding.next_step) == (
        True,
        True,
        "Run `monkeywrench build`, then this again.",
    )


def test_a_wrong_topology_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('name = "x"\nsiet = "www.example.test"\n')
    result = call("up", "--topology", str(wrong))
    assert result.exit_code == 4
    assert "did you mean 'site'?" in " ".join(result.stderr.split())


@pytest.mark.parametrize("words", [("run", "no-such-scenario"), ("run",), ("no-such-command",), ("up", "--no-such")])
def test_wrong_use_exits_with_2(words: tuple[str, ...]) -> None:
    assert call(*words).exit_code == 2


def test_a_broken_scenario_exits_with_2_and_names_the_key(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(
        '[scenario]\nname = "x"\ntitle = "x"\nexpectation = "x"\n[[steps]]\nname = "a"\nuntill = "steady"\n'
    )
    result = call("run", str(wrong))
    assert result.exit_code == 2
    assert "unknown key 'untill'; did you mean 'until'?" in " ".join(result.stderr.split())


def drawn(what: object) -> str:
    paper = io.StringIO()
    Console(file=paper, width=120).print(what)
    return paper.getvalue()


def test_status_shows_problems_kernels_and_both_tables() -> None:
    server = RealServer("198.18.1.101", "web-1", 1, 3, 7)
    seen = Status(
        nodes=(NodeStatus("lb-1", "director", Power.OFF, "uml", "", "asked for"),),
        owners={"203.0.113.101": (), "203.0.113.102": ("lb-1", "lb-2")},
        ipvs={"lb-1": {"203.0.113.101:80": (server,)}, "lb-2": {}},
        problems=("lb-1 is off", "203.0.113.101 has no owner"),
        parts=(
            PartStatus("Linux Directors", "both on one", ("203.0.113.101 has no owner",)),
            PartStatus("MySQL", "answers", (), "one database"),
        ),
    )
    text = drawn(screen.status("default", seen, "virtual time 93.500 s, standing still"))
    assert "lab default is unhealthy, virtual time 93.500 s, standing still" in text
    assert "- lb-1 is off" in text
    assert text.count("203.0.113.101 has no owner") == 1  # with its part, and not again above
    assert "one database" in text
    assert "a kernel" not in text
    assert "one database" not in drawn(screen.status("default", seen, "real time", brief=True))
    assert "1    3    7" in text
    assert "missing" in text


def test_verdicts_show_each_check_and_the_worst_as_the_title() -> None:
    held = Verdict(check="outage", outcome=Outcome.VALID, summary="No outage.")
    unsure = Verdict(check="ownership", outcome=Outcome.UNKNOWN, summary="A feed was silent.")
    text = drawn(screen.verdicts([held, unsure]))
    assert "unknown: the evidence does not show whether the cluster held" in text
    assert "No outage." in text
    assert "A feed was silent." in text


def test_of_many_findings_the_terminal_shows_ten_and_how_many_more() -> None:
    found = Verdict.model_validate(
        {
            "check": "errors",
            "outcome": "invalid",
            "summary": "Error 0.",
            "findings": [{"outcome": "invalid", "sentence": f"Error {number}."} for number in range(110)],
        }
    )
    for text in (drawn(screen.verdicts([found])), drawn(screen.verdict(found))):
        assert text.count("Error ") == 10
        assert "and 100 more: see the report" in text


def test_findings_show_the_next_step() -> None:
    found = [
        Finding("disk", False, "1 GiB free", "Free some space."),
        Finding("engine", True, "20.10"),
        Finding("ha.cf:3", True, "deadtime is short", warning=True),
    ]
    text = drawn(screen.findings(found))
    assert [line.split()[0] for line in text.splitlines()] == ["FAIL", "Next:", "OK", "WARN"]
    assert "FAIL" in text
    assert "Next: Free some space." in text


def test_a_plan_is_shown_without_a_lab_and_depends_on_the_seed(tmp_path: Path) -> None:
    file = tmp_path / "storm.toml"
    file.write_text(
        '[scenario]\nname = "storm"\ntitle = "t"\nexpectation = "p"\n[[steps]]\nname = "storm"\ncount = 9\n'
        "at_once = 2\n"
        'draw = [{ inject = "node.freeze", with = { node = "web-3" } }, '
        '{ inject = "node.slow", with = { node = "web-4" } }]\n'
    )
    shown = call("plan", str(file), "--seed", "1")
    assert shown.exit_code == 0
    assert "node.freeze" in shown.output
    plans = [call("plan", str(file), "--json", "--seed", seed).output for seed in ("1", "1", "2")]
    assert plans[0] == plans[1] != plans[2]
    assert len(json.loads(plans[0])) == 18


@pytest.mark.usefixtures("no_engine")
def test_a_plan_and_a_run_look_at_the_access_log_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Path(__file__).parents[1] / "cases" / "config" / "82-log-plan-does-not-look" / "scenario.toml"
    file = tmp_path / "scenario.toml"
    file.write_text(case.read_text().replace("promise", "expectation").replace("people", "persona"))
    monkeypatch.chdir(tmp_path)
    for command in ("plan", "run"):
        refused = call(command, str(file))
        assert refused.exit_code == 4
        assert "cannot read the access log" in refused.stderr
    asked = '192.0.2.7 - - [10/Oct/2023:13:55:3{} +0200] "GET /news.html HTTP/1.1" 200 512\n'
    (tmp_path / "there-is-no-such.log").write_text(asked.format(6) + asked.format(9) + "half a line\n")
    shown = call("plan", str(file))
    assert shown.exit_code == 0, shown.output
    assert "2 requests over 4 s; left out: 1 unreadable line, 0 other than GET" in shown.output


def test_the_faults_are_listed_and_one_is_described() -> None:
    listed = call("faults")
    assert listed.exit_code == 0
    assert "node.power-off" in listed.output
    assert "number from 0.02 to 0.5" in call("faults", "node.slow").output
    assert "one of: both, from, to" in call("faults", "network.delay").output
    assert json.loads(call("faults", "node.slow", "--json").output)[0]["name"] == "node.slow"
    assert call("faults", "node.slo").exit_code == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("inject", "node.slo", "node=web-1"), "did you mean 'node.slow'?"),
        (("inject", "node.slow", "web-1"), "expected KEY=VALUE, for example node=lb-1"),
        (("inject", "node.slow", "node=web-1", "--for", "soon"), "invalid duration 'soon' for --for"),
    ],
)
def test_a_wrong_fault_is_a_usage_error(words: tuple[str, ...], expected: str) -> None:
    result = call(*words)
    assert result.exit_code == 2
    assert expected in " ".join(result.stderr.split())


def test_the_checks_are_listed_and_one_is_described() -> None:
    listed = call("checks")
    assert listed.exit_code == 0
    assert {line.split()[0] for line in listed.output.splitlines() if line[:1].islower()} == set(CHECKS)
    described = call("checks", "durability").output
    assert "non-empty list of: scores, transfers, profiles, uploads, articles" in described
    assert json.loads(call("checks", "outage", "--json").output)[0]["settings"][0]["name"] == "losses"
    assert "no settings" in call("checks", "recovery").output
    unknown = call("checks", "outages")
    assert (unknown.exit_code, "did you mean 'outage'?" in unknown.stderr) == (2, True)


def test_the_schema_of_a_scenario_knows_faults_and_checks() -> None:
    schema = json.loads(call("schema", "scenario").output)
    assert {"fault.node.slow", "check.outage"} <= set(schema["$defs"])
    assert json.loads(call("schema", "verdict").output)["$schema"] == schema["$schema"]


@pytest.mark.parametrize("words", [("faults",), ("faults", "network.delay"), ("checks",), ("checks", "outage")])
def test_a_line_is_not_wrapped_where_output_is_not_a_terminal(words: tuple[str, ...]) -> None:
    about = catalogue.checks() if words[0] == "checks" else catalogue.faults(FAULTS)
    lines = [line.strip() for line in call(*words).output.splitlines()]
    for each in about:
        if len(words) == 1:
            assert f"{each.name}  " in "\n".join(f"{line}  " for line in lines)
            assert any(line.endswith(each.summary) for line in lines)
        elif words[1] == each.name:
            assert each.text.splitlines()[-1] in lines
    assert max(map(len, lines)) < 2000
    assert not any(line.endswith(" ") for line in call(*words).output.splitlines())


def test_every_option_and_command_has_a_help_text() -> None:
    assert len(main.commands) >= 20
    for name, command in main.commands.items():
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, (name, parameter.name)
                assert parameter.help.endswith("."), (name, parameter.name)


def test_no_summary_of_a_command_is_cut_off_on_80_columns() -> None:
    text = CliRunner().invoke(main, ["--help"], terminal_width=80).output
    assert "prove-backup" in text
    assert "..." not in text.partition("Commands:")[2]
