"""The rules of the house, enforced: who may import whom."""

import ast
import re
from pathlib import Path

import pytest

from faults import FAULTS

ROOT = Path(__file__).parents[2]
PACKAGES = ("harness", "topology", "faults", "loadtests")
KNOW_ALL = ("harness/compose.py", "harness/cli/", "harness/plugin.py", "harness/doctor.py")
"""They tie the parts together, or look at them for a person; the rest of the harness knows protocols only."""
LIBRARIES = {"docker": "topology", "locust": "loadtests", "scapy": "nowhere"}
"""Each library -> the package that may import it. scapy is under the GPL: only programs of INSIDE use it."""
INSIDE = "images"
"""Programs of topology/images run inside nodes; they are not part of the package."""


def sources() -> list[Path]:
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return [path for path in found if INSIDE not in path.parts]


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


APART = {
    "harness/algorithms": ("harness.history", "harness.checks"),
    "harness/history": ("harness.checks",),
    "harness/run": ("harness.checks", "harness.report", "harness.compare", "harness.artifacts.stored_run"),
    "harness/report": ("harness.checks",),
    "harness/compare": ("harness.checks",),
}
"""Each folder -> what none of its files may import: the report and comparisons read a history, not a check."""


def modules(source: str) -> set[str]:
    """All that a file imports, by full name: modules, and what it takes from them."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def misplaced(path: str, source: str) -> set[str]:
    """The imports of a file that its folder rules out."""
    ruled_out = next((names for folder, names in APART.items() if path.startswith(f"{folder}/")), ())
    return {name for name in modules(source) if any(f"{name}.".startswith(f"{each}.") for each in ruled_out)}


def violations(path: str, imported: set[str]) -> set[str]:
    package = path.partition("/")[0]
    others = set() if path.startswith(KNOW_ALL) else imported & (set(PACKAGES) - {package, "harness"})
    return others | {library for library, home in LIBRARIES.items() if library in imported and package != home}


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    assert not violations(str(path.relative_to(ROOT)), imports(path))


def test_the_rule_catches_what_it_is_for() -> None:
    assert violations("faults/node.py", {"topology", "harness"}) == {"topology"}
    assert violations("harness/run/__init__.py", {"faults"}) == {"faults"}
    assert violations("harness/run/__init__.py", {"docker"}) == {"docker"}
    assert violations("faults/heartbeat.py", {"scapy"}) == {"scapy"}
    assert violations("harness/cli/lab.py", {"topology", "faults"}) == set()


@pytest.mark.parametrize("folder", APART)
def test_each_step_of_a_run_knows_only_the_steps_before_it(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    found = {path.name: misplaced(str(path.relative_to(ROOT)), path.read_text()) for path in files}
    assert files
    assert {name: names for name, names in found.items() if names} == {}


def test_the_rule_of_the_steps_catches_what_it_is_for() -> None:
    assert misplaced("harness/report/lanes.py", "from harness.checks.outage import PARTS") == {
        "harness.checks.outage.PARTS"
    }
    assert misplaced("harness/compare/measures.py", "from harness import checks, history") == {"harness.checks"}
    assert misplaced("harness/history/latency.py", "import harness.checks.knee") == {"harness.checks.knee"}
    assert misplaced("harness/algorithms/arrays.py", "from harness.history import Op") == {"harness.history.Op"}
    assert misplaced("harness/checks/knee.py", "from harness.history.capacity import windows") == set()


@pytest.mark.parametrize("path", sorted((ROOT / "harness/checks").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_no_check_imports_another_check(path: Path) -> None:
    assert {name for name in modules(path.read_text()) if name.startswith("harness.checks")} == set()


def test_sleeping_is_left_to_the_one_poll_loop() -> None:
    sleepers = [
        path
        for path in sources()
        if path.name != "locustfile.py" and re.search(r"(?<![\w.])time\.sleep\(", path.read_text())
    ]
    assert sleepers == []


NAMES_NO_FAULT = ("harness/checks", "harness/history", "harness/report")
"""They read what a fault did from the history, whoever wrote the fault."""
FAMILIES = {name.partition(".")[0] for name in FAULTS}


def texts(path: Path) -> list[str]:
    """All literal texts of a module but its docstrings, and the literal parts of its formatted ones."""
    tree = ast.parse(path.read_text())
    remarks = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in remarks]
    return [node.value for node in constants if isinstance(node.value, str)]


def fault_names(found: list[str]) -> list[str]:
    """The texts that name a fault, or a family of faults by its prefix."""
    return [text for text in found if text in FAULTS or (text.endswith(".") and text[:-1] in FAMILIES)]


@pytest.mark.parametrize(
    "path", [path for folder in NAMES_NO_FAULT for path in (ROOT / folder).rglob("*.py")], ids=lambda path: path.name
)
def test_what_reads_a_history_knows_no_fault_by_name(path: Path) -> None:
    assert fault_names(texts(path)) == []


def test_the_rule_finds_a_fault_by_its_name_or_its_family() -> None:
    assert fault_names(["node.freeze", "data.", "node.unknown", "a node."]) == ["node.freeze", "data."]


DAEMONS = ("heartbeat", "ldirectord", "apache", "mysqld", "mariadb", "gmetad", "gmond", "rsync", "lsyncd", "nfsd")


def log_text(path: Path) -> list[str]:
    """Regular expressions that a module writes out, and names of services that it compares with."""
    tree = ast.parse(path.read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("re.")]
    patterns = [str(arg.value) for call in calls for arg in call.args[:1] if isinstance(arg, ast.Constant)]
    return [*patterns, *(text for text in texts(path) if text in DAEMONS)]


@pytest.mark.parametrize("path", sorted((ROOT / "harness" / "checks").glob("*.py")), ids=lambda path: path.name)
def test_a_check_has_no_text_of_a_daemons_log(path: Path) -> None:
    assert log_text(path) == []


@pytest.mark.parametrize(
    "path",
    [path for folder in (*NAMES_NO_FAULT, "harness/compare") for path in sorted((ROOT / folder).rglob("*.py"))],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_what_reads_a_history_knows_no_daemon_by_name(path: Path) -> None:
    """The parts of the topology know theirs, and the history records it."""
    assert [text for text in texts(path) if text in DAEMONS] == []


def test_the_rule_finds_text_of_a_log(tmp_path: Path) -> None:
    (tmp_path / "check.py").write_text('DEAD = re.compile("is dead")\nERRORS = {"apache": "error"}\n"""apache"""\n')
    assert log_text(tmp_path / "check.py") == ["is dead", "apache"]
