from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.metadata import entry_points
from pathlib import Path

import pytest

# an inner run does not import again what is imported here, and numpy cannot be imported twice
import harness.checks  # noqa: F401
import topology.lab.lifecycle  # noqa: F401
from harness.fake import FakeLab
from topology.model import Topology

POWER_CUT = Path(__file__).parents[1] / "chaos" / "director-power-cut.toml"

ENTRY_POINT = entry_points(group="pytest11", name="monkeywrench")
# Locust's plugin patches the interpreter, and takes a second to do it; an inner run would import it each time.
ARGS = ("-p", "no:locust", *(() if ENTRY_POINT else ("-p", "harness.plugin")))

CONFTEST = """
import contextlib
import pytest
from harness.fake import Defect, FakeLab

@pytest.fixture(scope="session")
def monkeywrench_lab_factory():
    @contextlib.contextmanager
    def factory(topology, name, progress):
        print(f"booted {{name}} of {{topology}}")
        yield FakeLab(name, {defect})
        print(f"down {{name}}")
    return factory
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with the power cut's scenario, and a right lab."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    return with_defect(pytester, None)


def with_defect(pytester: pytest.Pytester, defect: str | None) -> pytest.Pytester:
    pytester.makeconftest(CONFTEST.format(defect=f"Defect.{defect}" if defect else None))
    shutil.copy(POWER_CUT, pytester.path / "power-cut.toml")
    return pytester


def properties(junit: Path) -> dict[str, str]:
    return {str(each.get("name")): str(each.get("value")) for each in ET.parse(junit).iter("property")}


def latest(suite: pytest.Pytester) -> Path:
    return suite.path / "runs" / "latest"


HEAVY = ("numpy", "jinja2", "pydantic", "tenacity", "docker", "harness.checks", "harness.run", "faults", "topology")


def test_the_plugin_loads_nothing_that_no_test_uses() -> None:
    """Every pytest in an environment with the plugin imports it."""
    program = f"import sys, harness.plugin; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- scenario files


def test_a_scenario_runs_as_a_test_and_junit_carries_its_verdict(suite: pytest.Pytester) -> None:
    result = suite.runpytest(*ARGS, "-m", "chaos", "--junitxml=junit.xml", "-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*power-cut.toml::director-power-cut PASSED*"])
    found = properties(suite.path / "junit.xml")
    assert found["verdict"] == "valid"
    assert {name: found[f"verdict.{name}"] for name in ("ownership", "outage", "recovery")} == dict.fromkeys(
        ("ownership", "outage", "recovery"), "valid"
    )
    assert Path(found["report"]).is_file()
    assert latest(suite).resolve() == Path(found["report"]).parent
    assert (latest(suite) / "scenario.toml").read_bytes() == POWER_CUT.read_bytes()


def test_an_invalid_verdict_fails_with_the_sentences_of_the_report(suite: pytest.Pytester) -> None:
    result = with_defect(suite, "TAKES_OVER_LATE").runpytest(*ARGS, "-m", "chaos", "--junitxml=junit.xml")
    result.assert_outcomes(failed=1)
    verdicts = json.loads((latest(suite) / "verdict.json").read_text())["verdicts"]
    summary = next(each["summary"] for each in verdicts if each["check"] == "ownership")
    assert "203.0.113.101" in summary
    result.stdout.fnmatch_lines([f"invalid: {summary}", "ownership: invalid: *", "report: *report.html"])
    result.stdout.fnmatch_lines(["*fault:cut: node.power-off on lb-1: start", "*owners:lb-2: holds 203.0.113.101, *"])
    result.stdout.no_fnmatch_line("*Traceback*")
    assert properties(suite.path / "junit.xml")["verdict"] == "invalid"


def test_an_unknown_verdict_fails_and_is_named_first(suite: pytest.Pytester) -> None:
    result = with_defect(suite, "PROBE_DIES").runpytest(*ARGS, "-m", "chaos", "--junitxml=junit.xml")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["unknown: *was not probed*", "outage: unknown: *"])
    result.stdout.no_fnmatch_line("*invalid*")
    assert properties(suite.path / "junit.xml")["verdict"] == "unknown"


def test_a_fault_that_the_lab_cannot_inject_has_no_verdict(suite: pytest.Pytester) -> None:
    scenario = suite.path / "power-cut.toml"
    scenario.write_text(scenario.read_text().replace('node = "lb-1"', 'node = "lb-9"'))
    result = suite.runpytest(*ARGS, "-m", "chaos")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["lab error: this lab cannot inject node.power-off*unknown node 'lb-9'*"])
    assert not (latest(suite) / "verdict.json").exists()


def test_a_mistake_in_a_scenario_is_an_error_of_collection_in_one_sentence(suite: pytest.Pytester) -> None:
    (suite.path / "power-cut.toml").write_text('[scenario]\nnam = "x"\n')
    result = suite.runpytest(*ARGS, "-m", "chaos")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*power-cut.toml: scenario: unknown key 'nam'; did you mean 'name'?*"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_scenario_that_is_not_toml_is_an_error_of_collection(suite: pytest.Pytester) -> None:
    (suite.path / "power-cut.toml").write_text('[scenario]\nname = "x\n')
    result = suite.runpytest(*ARGS, "-m", "chaos")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*power-cut.toml: invalid TOML: *"])


def test_other_toml_files_are_ignored(suite: pytest.Pytester) -> None:
    suite.makepyprojecttoml("[tool.pytest.ini_options]\n")
    (suite.path / "broken.toml").write_text("[other\n")
    (suite.path / "value.toml").write_text("scenario = 1\n")
    result = suite.runpytest(*ARGS, "-m", "chaos", "--collect-only", "-q")
    result.stdout.fnmatch_lines(["power-cut.toml::director-power-cut", "*1 test collected*"])


# --- chaos only when asked for


MARKED = """
import pytest

@pytest.mark.chaos
def test_breaks(lab):
    lab.node("lb-1").power_off()
    lab.node("lb-1").boot()

def test_looks(lab):
    assert lab.status().healthy
"""


@pytest.mark.parametrize(
    ("args", "names"),
    [
        ((), {"test_looks"}),
        (("-m", "not slow"), {"test_looks"}),
        (("-m", "chaos"), {"director-power-cut", "test_breaks"}),
        (("-m", "not chaos"), {"test_looks"}),
        (("--chaos",), {"director-power-cut", "test_breaks", "test_looks"}),
        (("--chaos", "-m", "chaos"), {"director-power-cut", "test_breaks"}),
        (("--chaos", "-m", "not chaos"), {"test_looks"}),
    ],
)
def test_chaos_is_deselected_unless_an_option_asks_for_it(
    suite: pytest.Pytester, args: tuple[str, ...], names: set[str]
) -> None:
    suite.makepyfile(test_it=MARKED)
    result = suite.runpytest(*ARGS, *args, "--collect-only", "-q")
    assert {line.split("::")[1] for line in result.outlines if "::" in line} == names


def test_chaos_that_does_not_run_is_counted_as_deselected(suite: pytest.Pytester) -> None:
    suite.makepyfile(test_it=MARKED)
    suite.runpytest(*ARGS).assert_outcomes(passed=1, deselected=2)


def test_the_marker_is_registered(suite: pytest.Pytester) -> None:
    suite.makepyfile(test_it=MARKED)
    suite.runpytest(*ARGS, "--strict-markers", "-m", "chaos", "-k", "breaks").assert_outcomes(passed=1, deselected=2)
    suite.runpytest(*ARGS, "--markers").stdout.fnmatch_lines(["@pytest.mark.chaos:*"])


# --- the lab


def test_the_lab_is_booted_once_and_only_for_tests_that_use_it(suite: pytest.Pytester) -> None:
    suite.makepyfile("def test_a(lab): pass\ndef test_b(lab): pass\n")
    result = suite.runpytest(*ARGS, "-s")
    result.assert_outcomes(passed=2)
    assert result.stdout.str().count(f"booted pytest-{os.getpid()} of ultramonkey") == 1
    assert result.stdout.str().count("down pytest") == 1
    suite.makepyfile("def test_c(): pass\n")
    suite.runpytest(*ARGS, "-s").stdout.no_fnmatch_line("*booted pytest*")


def test_a_worker_of_xdist_has_a_lab_of_its_own(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw3")
    suite.makepyfile("def test_name(lab): assert lab.name == 'mine-gw3'\n")
    suite.runpytest(*ARGS, "--monkeywrench-lab", "mine").assert_outcomes(passed=1)


def test_a_test_that_leaves_the_lab_broken_fails_and_so_does_the_next(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        def test_breaks(lab): lab.node("lb-1").power_off()
        def test_next(lab): pass
        def test_mends(): pass
        """
    )
    result = suite.runpytest(*ARGS)
    result.assert_outcomes(passed=2, errors=2)  # the culprit's body passed; the next one did not begin
    result.stdout.fnmatch_lines(
        [
            "the test left the lab broken: timed out after 180 s waiting for the lab to be healthy*lb-1 is off*",
            "the lab has been broken since *test_breaks*lb-1 is off*",
        ]
    )


MENDING = """

class Counting(FakeLab):
    looks = 0

    def status(self):
        self.looks += 1
        return super().status()

@pytest.fixture(scope="session")
def monkeywrench_lab_factory():
    return lambda topology, name, progress: contextlib.nullcontext(Counting(name))

def pytest_configure():
    pytest.mended = []

def pytest_monkeywrench_mend(lab, problems):
    pytest.mended.append(list(problems))
    lab.node("lb-1").boot()
"""


def test_a_lab_with_problems_is_mended_and_a_healthy_one_costs_one_status(suite: pytest.Pytester) -> None:
    suite.makeconftest(CONFTEST.format(defect=None) + MENDING)
    suite.makepyfile(
        """
        import pytest

        def test_looks(lab): assert lab.looks == 0

        def test_breaks(lab):
            assert lab.looks == 1
            lab.node("lb-1").power_off()

        def test_next(lab):
            assert pytest.mended == [["lb-1 is off", "203.0.113.101 is held by no director; its home is lb-1"]]
            assert lab.status().healthy
        """
    )
    suite.runpytest(*ARGS).assert_outcomes(passed=3)


def test_a_lab_has_time_to_become_healthy_again(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        def test_breaks(lab):
            lab.node("lb-1").power_off()
            lab.clock.sleep(5)
            lab.node("lb-1").boot()
            assert not lab.status().healthy

        def test_next(lab): assert lab.status().healthy
        """
    )
    suite.runpytest(*ARGS).assert_outcomes(passed=2)


def test_a_lab_that_fails_to_boot_is_reported_once(suite: pytest.Pytester) -> None:
    suite.makeconftest(
        """
        import pytest
        from harness.records import (LabError)

        @pytest.fixture(scope="session")
        def monkeywrench_lab_factory():
            def factory(topology, name, progress):
                raise LabError("no Docker answers", "start it")
            return factory
        """
    )
    suite.makepyfile("def test_a(lab): pass\ndef test_b(lab): pass\ndef test_c(): pass\n")
    result = suite.runpytest(*ARGS)
    result.assert_outcomes(errors=2, passed=1)
    result.stdout.fnmatch_lines(
        ["lab error: no Docker answers; start it", "the lab failed to boot (see the first error)"]
    )
    # as a report of its own: with CI set, pytest's summary has it a second time, behind the name of the first test
    assert result.stdout.lines.count("lab error: no Docker answers; start it") == 1
    result.stdout.no_fnmatch_line("*Traceback*")


# --- settings


@pytest.mark.parametrize("how", ["option", "ini"])
def test_each_setting_is_an_option_and_an_ini_key(suite: pytest.Pytester, how: str) -> None:
    settings = {"topology": "small", "lab": "mine", "runs": "kept", "seed": "42"}
    options: list[str] = []
    if how == "ini":
        suite.makeini("[pytest]\n" + "\n".join(f"monkeywrench_{name} = {value}" for name, value in settings.items()))
    else:
        options = [f"--monkeywrench-{name}={value}" for name, value in settings.items()]
    result = suite.runpytest(*ARGS, "-m", "chaos", "-s", *options)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*booted mine of small*"])
    run = suite.path / "kept" / "latest"
    facts = json.loads((run / "meta.json").read_text())
    assert (facts["lab"], facts["seed"]) == ("mine", 42)
    assert json.loads((run / "history.jsonl").read_text().splitlines()[0])["value"]["seed"] == 42


def test_an_option_goes_before_the_ini_key(suite: pytest.Pytester) -> None:
    suite.makeini("[pytest]\nmonkeywrench_lab = ini\n")
    suite.makepyfile("def test_name(lab): assert lab.name == 'option'\n")
    suite.runpytest(*ARGS, "--monkeywrench-lab=option").assert_outcomes(passed=1)


def test_the_lab_gets_the_clock_and_the_seed_of_the_options(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    (suite.path / "conftest.py").unlink()
    booted: list[tuple[str, int]] = []

    def boots(topology: Topology, name: str, _: object, seed: int) -> contextlib.AbstractContextManager[FakeLab]:
        booted.append((topology.clock, seed))
        return contextlib.nullcontext(FakeLab(name))

    monkeypatch.setattr("topology.lab.lifecycle.booted", boots)
    suite.runpytest(*ARGS, "-m", "chaos").assert_outcomes(passed=1)
    given = ("--monkeywrench-clock=virtual", "--monkeywrench-seed=7")
    suite.runpytest(*ARGS, "-m", "chaos", *given, "--junitxml=junit.xml").assert_outcomes(passed=1)
    assert booted == [("real", 0), ("virtual", 7)]
    assert properties(suite.path / "junit.xml")["clock"] == "real"  # that of the lab, not of the option


def test_an_unknown_clock_is_a_usage_error(suite: pytest.Pytester) -> None:
    result = suite.runpytest(*ARGS, "--monkeywrench-clock=virtuel")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*monkeywrench_clock: unknown clock 'virtuel'; it is virtual or real*"])


def test_an_invalid_seed_is_a_usage_error(suite: pytest.Pytester) -> None:
    result = suite.runpytest(*ARGS, "--monkeywrench-seed=x")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*monkeywrench_seed: invalid seed 'x'; it must be a whole number, at least 0*"])


def test_all_options_are_in_one_group_and_prefixed(suite: pytest.Pytester) -> None:
    suite.runpytest(*ARGS, "--help").stdout.fnmatch_lines(
        ["chaos tests of a high-availability cluster:", "*--monkeywrench-topology=NAME*"]
    )
