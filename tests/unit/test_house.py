"""The rules of the house, enforced: who may import whom."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("harness", "topology", "faults", "loadtests")
KNOW_ALL = {"harness/cli/__init__.py", "harness/plugin.py", "harness/doctor.py"}
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


def violations(path: str, imported: set[str]) -> set[str]:
    package = path.partition("/")[0]
    others = set() if path in KNOW_ALL else imported & (set(PACKAGES) - {package, "harness"})
    return others | {library for library, home in LIBRARIES.items() if library in imported and package != home}


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    assert not violations(str(path.relative_to(ROOT)), imports(path))


def test_the_rule_catches_what_it_is_for() -> None:
    assert violations("faults/node.py", {"topology", "harness"}) == {"topology"}
    assert violations("harness/run/__init__.py", {"faults"}) == {"faults"}
    assert violations("harness/run/__init__.py", {"docker"}) == {"docker"}
    assert violations("faults/heartbeat.py", {"scapy"}) == {"scapy"}
    assert violations("harness/cli/__init__.py", {"topology", "faults"}) == set()


def test_sleeping_is_left_to_the_one_poll_loop() -> None:
    sleepers = [
        path
        for path in sources()
        if path.name != "locustfile.py" and re.search(r"(?<![\w.])time\.sleep\(", path.read_text())
    ]
    assert sleepers == []
