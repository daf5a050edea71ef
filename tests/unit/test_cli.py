"""The command line without a lab: exit codes, sentences, and what people see."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from harness.cli import main, screen
from harness.doctor import Finding
from harness.records import NodeStatus, PartStatus, Power, RealServer, Status
from harness.verdict import Outcome, Verdict


def call(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")


@pytest.mark.parametrize(
    "words", [("up",), ("down",), ("status",), ("exec", "lb-1", "true"), ("heal",), ("faults", "--active")]
)
@pytest.mark.usefixtures("no_engine")
def test_without_an_engine_every_command_says_so_and_what_to_do(words: tuple[str, ...]) -> None:
    result = call(*words)
    assert result.exit_code == 4
    assert "no Docker Engine answers" in result.stderr
    assert "make setup" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.usefixtures("no_engine")
def test_the_doctor_goes_on_where_something_is_missing() -> None:
    result = call("doctor")
    assert result.exit_code == 4
    assert "no Docker Engine answers" in " ".join(result.stdout.split())
    assert "11 nodes, 2 VIPs" in result.stdout


def test_a_topology_that_is_not_right_is_refused_before_anything_is_made(tmp_path: Path) -> None:
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
    wrong.write_text('[scenario]\nname = "x"\ntitle = "x"\npromise = "x"\n[[steps]]\nname = "a"\nuntill = "steady"\n')
    result = call("run", str(wrong))
    assert result.exit_code == 2
    assert "untill" in result.stderr


def drawn(what: object) -> str:
    paper = io.StringIO()
    Console(file=paper, width=120).print(what)
    return paper.getvalue()


def test_status_shows_trouble_owners_kernels_and_both_tables() -> None:
    server = RealServer("198.18.1.101", "web-1", 1, 3, 7)
    seen = Status(
        nodes=(NodeStatus("lb-1", "director", Power.OFF, "uml", "", "asked for"),),
        owners={"203.0.113.101": (), "203.0.113.102": ("lb-1", "lb-2")},
        ipvs={"lb-1": {"203.0.113.101:80": (server,)}, "lb-2": {}},
        problems=("lb-1 is off", "203.0.113.101 is held by nobody"),
        parts=(
            PartStatus("Linux Directors", "both on one", ("203.0.113.101 is held by nobody",)),
            PartStatus("MySQL", "answers", (), "one database"),
        ),
    )
    text = drawn(screen.status("default", seen))
    assert "lab default has trouble" in text
    assert "- lb-1 is off" in text
    assert text.count("203.0.113.101 is held by nobody") == 1  # with its part, and not again above
    assert "one database" in text
    assert "a kernel" not in text
    assert "one database" not in drawn(screen.status("default", seen, brief=True))
    assert "1    3    7" in text
    assert "missing" in text


def test_verdicts_show_each_check_and_the_worst_as_the_title() -> None:
    held = Verdict(check="outage", outcome=Outcome.VALID, summary="No outage.")
    unsure = Verdict(check="ownership", outcome=Outcome.UNKNOWN, summary="The witness fell asleep.")
    text = drawn(screen.verdicts([held, unsure]))
    assert "unknown: nobody can tell whether the cluster held" in text
    assert "No outage." in text
    assert "The witness fell asleep." in text


def test_findings_show_the_next_step() -> None:
    text = drawn(screen.findings([Finding("disk", False, "1 GiB free", "Free some space.")]))
    assert "no" in text
    assert "Next: Free some space." in text


def test_a_plan_is_shown_without_a_lab_and_depends_on_the_seed(tmp_path: Path) -> None:
    file = tmp_path / "storm.toml"
    file.write_text(
        '[scenario]\nname = "storm"\ntitle = "t"\npromise = "p"\n[[steps]]\nname = "storm"\ncount = 9\nat_once = 2\n'
        'draw = [{ inject = "node.freeze", with = { node = "web-3" } }, '
        '{ inject = "node.slow", with = { node = "web-4" } }]\n'
    )
    shown = call("plan", str(file), "--seed", "1")
    assert shown.exit_code == 0
    assert "node.freeze" in shown.output
    plans = [call("plan", str(file), "--json", "--seed", seed).output for seed in ("1", "1", "2")]
    assert plans[0] == plans[1] != plans[2]
    assert len(json.loads(plans[0])) == 18


def test_the_faults_are_listed_and_one_is_told_in_full() -> None:
    listed = call("faults")
    assert listed.exit_code == 0
    assert "node.power-off" in listed.output
    told = call("faults", "node.slow")
    assert "share" in told.output
    assert json.loads(call("faults", "node.slow", "--json").output)[0]["name"] == "node.slow"
    assert call("faults", "node.slo").exit_code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("inject", "node.slo", "node=web-1"), "did you mean node.slow?"),
        (("inject", "node.slow", "web-1"), "settings are key=value"),
        (("inject", "node.slow", "node=web-1", "--for", "soon"), "is no time"),
    ],
)
def test_a_fault_that_is_not_right_is_a_usage_error(words: tuple[str, ...], said: str) -> None:
    result = call(*words)
    assert result.exit_code == 2
    assert said in result.stderr.replace("\n", " ")
