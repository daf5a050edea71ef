"""The pytest plugin: a ``lab`` fixture, the marker ``chaos``, and scenario files as tests.

``pytest -m chaos`` runs every ``*.toml`` file that has a ``[scenario]`` table, and the tests marked ``chaos``;
``pytest --chaos`` runs them beside the other tests. Without either they are deselected. A test that uses ``lab`` gets
one that is booted once per session (and per xdist worker); its status is checked after each test.

To use another lab, override the fixture ``monkeywrench_lab_factory`` in a ``conftest.py``:

    @pytest.fixture(scope="session")
    def monkeywrench_lab_factory():
        return lambda topology, name, progress: contextlib.nullcontext(FakeLab(name))
"""

from __future__ import annotations

import logging
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias

import pytest

# Every pytest of an environment with monkeywrench imports this module: what only a test needs is imported by the test.
if TYPE_CHECKING:
    from harness.errors import UserError
    from harness.protocols import Lab
    from harness.scenario import Scenario
    from harness.verdict import Outcome, Verdict

__all__ = ["Hooks", "LabFactory", "ScenarioFile", "ScenarioItem"]

LabFactory: TypeAlias = Callable[[str, str, Callable[[str], None]], AbstractContextManager["Lab"]]
"""topology, lab's name, progress -> a booted lab."""

HEALTHY_WITHIN_S = 180.0
"""How long a lab may take to be healthy again after a test: a failback and its checks."""

STATUS_EVERY_S = 0.5

DEFAULTS = {"topology": "ultramonkey", "clock": "", "lab": "", "runs": "runs", "seed": "", "load": ""}

BROKEN_BY = pytest.StashKey[str]()
"""The test that left the lab unhealthy."""

NO_LAB = pytest.StashKey[bool]()
"""Set once a test has reported why the lab failed to boot."""

log = logging.getLogger("monkeywrench")


def pytest_addoption(parser: pytest.Parser) -> None:
    """One group of options, each with an ini key of the same name."""
    group = parser.getgroup("monkeywrench", "chaos tests of a high-availability cluster")
    for name, metavar, text in (
        ("topology", "NAME", "the topology to boot"),
        ("clock", "KIND", "the clock of the lab, virtual or real (default: the topology's)"),
        ("lab", "NAME", "the name of the lab; xdist workers append theirs (default: pytest-PID)"),
        ("runs", "DIR", "the parent of run directories"),
        ("seed", "N", "the seed of all runs (default: each scenario's own)"),
        ("load", "FILE", "a scenario file whose load all runs use (default: each scenario's own)"),
    ):
        default = DEFAULTS[name]
        shown = f"{text} (default: {default})" if default else text
        group.addoption(f"--monkeywrench-{name}", metavar=metavar, default=None, help=shown)
        parser.addini(f"monkeywrench_{name}", shown, default=default)

    group.addoption("--chaos", action="store_true", help="run chaos tests and scenarios beside the others")


class Hooks:
    """Hooks that a ``conftest.py`` can implement."""

    @pytest.hookspec
    def pytest_monkeywrench_mend(self, lab: Lab, problems: Sequence[str]) -> None:
        """Repair a lab that a test left with these problems, as an operator would.

        The plugin then waits until the lab is healthy, and fails the test if it does not become so.
        """


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks."""
    pluginmanager.add_hookspecs(Hooks)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and refuse an invalid seed or clock."""
    config.addinivalue_line("markers", "chaos: breaks a lab on purpose; runs only with --chaos or -m chaos")
    _seed(config)
    _clock(config)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A TOML file with a ``[scenario]`` table is a test; other TOML files are ignored."""
    if file_path.suffix == ".toml" and not _is_record(file_path) and _is_scenario(file_path):
        return ScenarioFile.from_parent(parent, path=file_path)
    return None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave chaos out unless --chaos or -m asks for it, so that no lab is broken by accident."""
    if config.getoption("chaos") or re.search(r"\bchaos\b", config.getoption("markexpr") or ""):
        return
    chaos = [item for item in items if item.get_closest_marker("chaos")]
    if chaos:
        config.hook.pytest_deselected(items=chaos)
        items[:] = [item for item in items if not item.get_closest_marker("chaos")]


class ScenarioFile(pytest.File):
    """A scenario file; it holds one test."""

    def collect(self) -> Iterator[pytest.Item]:
        """The test. A scenario with a mistake is an error of collection."""
        from harness import scenario as scenarios

        try:
            scenario = scenarios.load(self.path)
        except scenarios.ScenarioError as error:
            raise self.CollectError(str(error)) from error
        yield ScenarioItem.from_parent(self, name=scenario.name, callobj=_carry_out, scenario=scenario)


class ScenarioItem(pytest.Function):
    """A scenario as a test. It is a pytest function, so that it can use fixtures."""

    def __init__(self, *, scenario: Scenario, **given: Any) -> None:
        super().__init__(**given)
        self.scenario = scenario
        self.add_marker(pytest.mark.chaos)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """The scenario's file, not the function's."""
        return self.path, None, f"scenario {self.name}"


def _carry_out(request: pytest.FixtureRequest, lab: Lab) -> None:
    """Run a scenario, judge it, and fail unless it is valid."""
    from harness.artifacts import run_directory
    from harness.errors import UserError
    from harness.verdict import Outcome, overall

    item = request.node
    try:
        verdicts, directory = _run(item, lab)
    except UserError as error:
        _fail(error)
    outcome = overall(verdicts)
    item.user_properties += [
        ("verdict", str(outcome)),
        ("clock", lab.clock.kind),
        *((f"verdict.{each.check}", str(each.outcome)) for each in verdicts),
        ("report", str(directory / run_directory.REPORT)),
    ]
    if outcome is not Outcome.VALID:
        pytest.fail(_sentences(outcome, verdicts, directory), pytrace=False)


def _run(item: ScenarioItem, lab: Lab) -> tuple[Sequence[Verdict], Path]:
    from harness import compose, scenario
    from harness.artifacts.stored_run import judge_directory

    config, load = item.config, _setting(item.config, "load")
    load_file = config.rootpath / load if load else None
    wanted = scenario.under(item.scenario, load_file) if load_file else item.scenario
    wanted = scenario.seeded(wanted, _seed(config))
    runs_dir = config.rootpath / _setting(config, "runs")
    directory = compose.execute(wanted, item.path, lab, runs_dir, log.info, load_file=load_file)
    return judge_directory(directory, wanted), directory


def _sentences(outcome: Outcome, verdicts: Sequence[Verdict], directory: Path) -> str:
    """The worst sentence, each check's, the report's path, and the story of the run: CI servers often keep no files."""
    from harness import history
    from harness.artifacts import run_directory
    from harness.report.render import story
    from harness.verdict import Outcome

    lines = [f"{each.check}: {each.outcome}: {each.summary}" for each in verdicts if each.outcome is not Outcome.VALID]
    worst = next((each.summary for each in verdicts if each.outcome is outcome), "there was no check")
    happened = story(history.load(directory / run_directory.HISTORY))
    return "\n".join([f"{outcome}: {worst}", *lines, f"report: {directory / run_directory.REPORT}", *happened])


@pytest.fixture(scope="session")
def monkeywrench_lab_factory(pytestconfig: pytest.Config) -> LabFactory:
    """Boots the lab. Override it to run the tests on another one."""
    clock, seed = _clock(pytestconfig), _seed(pytestconfig)

    def factory(topology: str, name: str, progress: Callable[[str], None]) -> AbstractContextManager[Lab]:
        from topology.lab import lifecycle  # Docker is needed only where a lab is booted
        from topology.load import load as load_topology

        return lifecycle.booted(load_topology(topology, clock), name, progress, seed or 0)

    return factory


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Report what is wrong with the lab once, not again with each of hundreds of tests."""
    if NO_LAB in item.config.stash and "lab" in getattr(item, "fixturenames", ()):
        pytest.fail("the lab failed to boot (see the first error)", pytrace=False)


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config, monkeywrench_lab_factory: LabFactory) -> Iterator[Lab]:
    """A booted lab, the same one for the whole session, and healthy at the start of each test."""
    from harness.records import LabError

    topology, name = _setting(pytestconfig, "topology"), _lab_name(pytestconfig)
    try:
        with monkeywrench_lab_factory(topology, name, log.info) as booted:
            yield booted
    except LabError as error:
        pytestconfig.stash[NO_LAB] = True
        _fail(error)


@pytest.fixture(autouse=True)
def _monkeywrench_audit(request: pytest.FixtureRequest) -> Iterator[None]:
    """Take one status after each test that used the lab. If it shows problems, mend the lab and wait for its health."""
    if "lab" not in request.fixturenames:
        yield
        return
    lab: Lab = request.getfixturevalue("lab")
    stash = request.config.stash
    if BROKEN_BY in stash:
        if problems := _problems(lab):
            pytest.fail(f"the lab has been broken since {stash[BROKEN_BY]}: {'; '.join(problems)}", pytrace=False)
        del stash[BROKEN_BY]
    yield
    if problems := _problems(lab):
        stash[BROKEN_BY] = request.node.nodeid
        request.node.ihook.pytest_monkeywrench_mend(lab=lab, problems=problems)
        if why := _wait_healthy(lab):
            pytest.fail(f"the test left the lab broken: {why}", pytrace=False)
        del stash[BROKEN_BY]


def _problems(lab: Lab) -> Sequence[str]:
    """What is wrong with the lab now; empty when nothing is."""
    from harness.records import LabError

    try:
        return lab.status().problems
    except LabError as error:
        return (str(error),)


def _wait_healthy(lab: Lab) -> str:
    """Wait until nothing is wrong with the lab; -> what is still wrong at the deadline, or nothing."""
    from harness import wait

    def healthy() -> bool:
        if problems := _problems(lab):
            raise wait.NotYet("; ".join(problems))
        return True

    try:
        wait.until(healthy, HEALTHY_WITHIN_S, "the lab to be healthy", STATUS_EVERY_S, lab.clock)
    except wait.Timeout as error:
        return str(error)
    return ""


def _is_record(path: Path) -> bool:
    """True for the copy of a scenario in a run directory: it records a run and is not a test."""
    from harness.artifacts import run_directory

    return path.name == run_directory.SCENARIO and path.with_name(run_directory.META).exists()


def _is_scenario(path: Path) -> bool:
    """True for a TOML file with a ``[scenario]`` table, even if the file is not valid TOML."""
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
        raise pytest.UsageError(f"monkeywrench_seed: invalid seed {text!r}; it must be a whole number, at least 0")
    return int(text) if text else None


def _clock(config: pytest.Config) -> Literal["real", "virtual"] | None:
    """The clock of the lab, None for the topology's own. Raises UsageError."""
    match _setting(config, "clock"):
        case "":
            return None
        case "real" | "virtual" as clock:
            return clock
        case other:
            raise pytest.UsageError(f"monkeywrench_clock: unknown clock {other!r}; it is virtual or real")


def _lab_name(config: pytest.Config) -> str:
    """The lab's name: each process and each xdist worker has a lab of its own."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    name = _setting(config, "lab") or f"pytest-{os.getpid()}"
    return f"{name}-{worker}" if worker else name


def _fail(error: UserError) -> NoReturn:
    """End with a sentence, not with a traceback."""
    from harness.records import LabError
    from harness.scenario import ScenarioError

    kinds = {LabError: "lab error", ScenarioError: "scenario error"}
    kind = next((name for kind, name in kinds.items() if isinstance(error, kind)), "error")
    pytest.fail(f"{kind}: {error}{f'; {error.next_step}' if error.next_step else ''}", pytrace=False)
