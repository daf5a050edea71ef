"""The pytest plugin: a ``lab`` fixture, the marker ``chaos``, and scenario files as tests.

``pytest -m chaos`` runs every ``*.toml`` file that has a ``[scenario]`` table, and the tests marked ``chaos``; without
``chaos`` in the ``-m`` expression both stay out. A test that uses ``lab`` gets one that is booted once per session (and
per xdist worker) and looked over after each test.

To use another lab, override the fixture ``monkeywrench_lab_factory`` in a ``conftest.py``:

    @pytest.fixture(scope="session")
    def monkeywrench_lab_factory():
        return lambda topology, name, progress: contextlib.nullcontext(FakeLab(name))
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import pytest

from harness import history, wait
from harness import scenario as scenarios
from harness.artifacts import run_directory
from harness.artifacts.stored_run import conclude
from harness.fake import FakeLab
from harness.protocols import Lab
from harness.records import LabError
from harness.report.render import story
from harness.run import run
from harness.scenario import Scenario, ScenarioError
from harness.verdict import Outcome, Verdict, overall

__all__ = ["LabFactory", "ScenarioFile", "ScenarioItem"]

LabFactory: TypeAlias = Callable[[str, str, Callable[[str], None]], AbstractContextManager[Lab]]
"""topology, lab's name, progress -> a booted lab."""

AUDIT_WITHIN_S = 180.0
"""How long a lab may take to be healthy again after a test: a failback and its checks."""

AUDIT_EVERY_S = 0.5

DEFAULTS = {"topology": "ultramonkey", "lab": "", "runs": "runs", "seed": "", "load": ""}

BROKEN_BY = pytest.StashKey[str]()
"""The test after which the lab was not healthy."""

NO_LAB = pytest.StashKey[bool]()
"""Set when a test that needs the lab has been told why there is none."""

log = logging.getLogger("monkeywrench")


def pytest_addoption(parser: pytest.Parser) -> None:
    """One group of options, each with an ini key of the same name."""
    group = parser.getgroup("monkeywrench", "chaos tests of a high-availability cluster")
    for name, metavar, text in (
        ("topology", "NAME", "the topology to boot"),
        ("lab", "NAME", "the name of the lab; an xdist worker adds its own (default: pytest and the process id)"),
        ("runs", "DIR", "where run directories are made"),
        ("seed", "N", "the seed of all runs (default: each scenario's own)"),
        ("load", "FILE", "a scenario file whose load all runs have (default: each scenario's own)"),
    ):
        default = DEFAULTS[name]
        shown = f"{text} (default: {default})" if default else text
        group.addoption(f"--monkeywrench-{name}", metavar=metavar, default=None, help=shown)
        parser.addini(f"monkeywrench_{name}", shown, default=default)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and refuse a seed that is none."""
    config.addinivalue_line("markers", "chaos: breaks a lab on purpose; runs only when -m asks for chaos")
    _seed(config)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A TOML file with a ``[scenario]`` table is a test; all others are somebody else's."""
    if file_path.suffix == ".toml" and not _is_record(file_path) and _is_scenario(file_path):
        return ScenarioFile.from_parent(parent, path=file_path)
    return None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave chaos out unless it is asked for by name: nobody should break a lab by accident."""
    if re.search(r"\bchaos\b", config.getoption("markexpr") or ""):
        return
    chaos = [item for item in items if item.get_closest_marker("chaos")]
    if chaos:
        config.hook.pytest_deselected(items=chaos)
        items[:] = [item for item in items if not item.get_closest_marker("chaos")]


class ScenarioFile(pytest.File):
    """A scenario file; it holds one test."""

    def collect(self) -> Iterator[pytest.Item]:
        """The test. A scenario that is not right is an error of collection."""
        try:
            scenario = scenarios.load(self.path)
        except ScenarioError as error:
            raise self.CollectError(str(error)) from error
        yield ScenarioItem.from_parent(self, name=scenario.name, callobj=_carry_out, scenario=scenario)


class ScenarioItem(pytest.Function):
    """A scenario as a test. It is a function underneath so that it can use fixtures."""

    def __init__(self, *, scenario: Scenario, **given: Any) -> None:
        super().__init__(**given)
        self.scenario = scenario
        self.add_marker(pytest.mark.chaos)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """The scenario's file, not the function's."""
        return self.path, None, f"scenario {self.name}"


def _carry_out(request: pytest.FixtureRequest, lab: Lab) -> None:
    """Run a scenario, judge it, and fail unless it is valid."""
    item = request.node
    try:
        verdicts, directory = _run(item, lab)
    except (LabError, ScenarioError) as error:
        _fail(error)
    outcome = overall(verdicts)
    item.user_properties += [
        ("verdict", str(outcome)),
        *((f"verdict.{each.check}", str(each.outcome)) for each in verdicts),
        ("report", str(directory / run_directory.REPORT)),
    ]
    if outcome is not Outcome.VALID:
        pytest.fail(_sentences(outcome, verdicts, directory), pytrace=False)


def _run(item: ScenarioItem, lab: Lab) -> tuple[Sequence[Verdict], Path]:
    scenario, config = item.scenario, item.config
    load_file = config.rootpath / _setting(config, "load") if _setting(config, "load") else None
    if load_file:
        scenario = scenarios.under(scenario, load_file)
    seed = _seed(config)
    seed = scenario.scenario.seed if seed is None else seed
    root = config.rootpath / _setting(config, "runs")
    directory = run_directory.create(root, item.path, scenario.name, run_directory.meta(lab.name, seed, sys.argv))
    if load_file:
        run_directory.keep_load(directory, load_file)
    run(
        scenario,
        lab,
        _faults(),
        run_dir=directory,
        on_progress=log.info,
        seed=seed,
        clock=_clock(lab),
        **_feeds(lab, scenario),
    )
    return conclude(directory, scenario), directory


def _sentences(outcome: Outcome, verdicts: Sequence[Verdict], directory: Path) -> str:
    """``invalid: ...``, each check's sentences, where the report is, and what happened: a CI server keeps no report."""
    lines = [f"{each.check}: {each.outcome}: {each.summary}" for each in verdicts if each.outcome is not Outcome.VALID]
    worst = next((each.summary for each in verdicts if each.outcome is outcome), "no check was made")
    happened = story(history.load(directory / run_directory.HISTORY))
    return "\n".join([f"{outcome}: {worst}", *lines, f"report: {directory / run_directory.REPORT}", *happened])


@pytest.fixture(scope="session")
def monkeywrench_lab_factory() -> LabFactory:
    """What boots the lab. Override it to give the tests another one."""

    def factory(topology: str, name: str, progress: Callable[[str], None]) -> AbstractContextManager[Lab]:
        from topology.lab.lifecycle import booted  # Docker is needed only where a lab is booted

        return booted(topology, name, progress)

    return factory


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Say what is wrong with the lab once, not again with each of hundreds of tests."""
    if NO_LAB in item.config.stash and "lab" in getattr(item, "fixturenames", ()):
        pytest.fail("there is no lab, as the first of these errors says", pytrace=False)


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config, monkeywrench_lab_factory: LabFactory) -> Iterator[Lab]:
    """A booted lab, the same for the whole session, and healthy when a test gets it."""
    topology, name = _setting(pytestconfig, "topology"), _lab_name(pytestconfig)
    try:
        with monkeywrench_lab_factory(topology, name, log.info) as booted:
            yield booted
    except LabError as error:
        pytestconfig.stash[NO_LAB] = True
        _fail(error)


@pytest.fixture(autouse=True)
def _monkeywrench_audit(request: pytest.FixtureRequest) -> Iterator[None]:
    """Look the lab over after each test that used it; a test must leave it as it got it."""
    if "lab" not in request.fixturenames:
        yield
        return
    lab: Lab = request.getfixturevalue("lab")
    stash = request.config.stash
    if BROKEN_BY in stash:
        if problems := _problems_of(lab, 0):
            pytest.fail(f"the lab has been broken since {stash[BROKEN_BY]}: {problems}", pytrace=False)
        del stash[BROKEN_BY]
    yield
    if problems := _problems_of(lab, AUDIT_WITHIN_S):
        stash[BROKEN_BY] = request.node.nodeid
        pytest.fail(f"the test left the lab broken: {problems}", pytrace=False)


def _problems_of(lab: Lab, within_s: float) -> str:
    """What is still wrong with the lab at the deadline, or nothing."""

    def healthy() -> bool:
        try:
            problems = lab.status().problems
        except LabError as error:
            raise wait.NotYet(str(error)) from error
        if problems:
            raise wait.NotYet("; ".join(problems))
        return True

    try:
        wait.until(healthy, within_s, "the lab to be healthy", AUDIT_EVERY_S, _clock(lab))
    except wait.Timeout as error:
        return str(error)
    return ""


def _faults() -> Any:
    from faults import FAULTS  # the harness knows no fault by name but here

    return FAULTS


def _feeds(lab: Lab, scenario: Scenario) -> dict[str, Any]:
    """What goes on beside the run, and after it: arguments of ``run``."""
    if isinstance(lab, FakeLab):
        return {"feeds": lab.feeds(scenario.load)}
    from loadtests.feeds import feeds, readings  # the harness knows no load and no topology but here
    from topology.lab.docker_lab import DockerLab
    from topology.lab.restore import proofs

    afterwards = proofs(lab, scenario.checks) if isinstance(lab, DockerLab) else []
    return {
        "feeds": feeds(lab, scenario.load),
        "readings": readings(lab, scenario.load),
        "afterwards": afterwards,
    }


def _clock(lab: Lab) -> wait.Clock:
    return lab.clock if isinstance(lab, FakeLab) else wait.REAL


def _is_record(path: Path) -> bool:
    """True for the copy of a scenario in a run directory: what was run once is no test."""
    return path.name == run_directory.SCENARIO and path.with_name(run_directory.META).exists()


def _is_scenario(path: Path) -> bool:
    """True for a TOML file with a ``[scenario]`` table; also for one that would be, were it not broken."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    try:
        return isinstance(tomllib.loads(text).get("scenario"), dict)
    except tomllib.TOMLDecodeError:
        return re.search(r"^\s*\[scenario\]", text, re.MULTILINE) is not None


def _setting(config: pytest.Config, name: str) -> str:
    given = config.getoption(f"monkeywrench_{name}")
    return str(config.getini(f"monkeywrench_{name}") if given is None else given)


def _seed(config: pytest.Config) -> int | None:
    """The seed of all runs, None for the scenarios' own. Raises UsageError."""
    text = _setting(config, "seed")
    if text and not text.isdecimal():
        raise pytest.UsageError(f"monkeywrench_seed: {text!r} is no seed: give a whole number, 0 or greater")
    return int(text) if text else None


def _lab_name(config: pytest.Config) -> str:
    """Each process and each xdist worker has a lab of its own."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    name = _setting(config, "lab") or f"pytest-{os.getpid()}"
    return f"{name}-{worker}" if worker else name


def _fail(error: LabError | ScenarioError) -> NoReturn:
    """End in sentences, not in a traceback."""
    kind = "lab error" if isinstance(error, LabError) else "scenario error"
    pytest.fail(f"{kind}: {error}{f'; {error.next_step}' if error.next_step else ''}", pytrace=False)
