"""The examples in the documents work as printed, and the map names every file."""

from __future__ import annotations

import re
import sys
import tomllib
import types
from pathlib import Path

import pytest

from harness import scenario
from harness.plan import plan
from topology import load
from topology.load import shipped
from topology.model import TopologyError

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PACKAGES = ("harness", "topology", "faults", "loadtests")


def blocks(page: str, language: str = "python") -> list[str]:
    """The code blocks of a page in one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def module(code: str, name: str, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A block of a page, executed as the module of that name."""
    made = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, made)
    exec(compile(code, f"{name}.py", "exec"), made.__dict__)
    return made


def test_the_fault_of_the_guide(monkeypatch: pytest.MonkeyPatch) -> None:
    fault, _, tests, _ = blocks("adding-a-fault.md")
    module(fault, "faults.file", monkeypatch)
    written = module(tests, "test_file", monkeypatch)
    written.test_the_file_is_missing_while_the_fault_is_injected()
    written.test_without_an_effect_the_injection_fails(monkeypatch)


def test_the_check_of_the_guide(monkeypatch: pytest.MonkeyPatch) -> None:
    check, _, tests = blocks("adding-a-check.md")
    spread = module(check, "harness.checks.spread", monkeypatch)
    monkeypatch.setattr("harness.checks.spread", spread, raising=False)
    written = module(tests, "test_spread", monkeypatch)
    (mark,) = written.test_every_web_node_serves_its_share.pytestmark
    for nodes, outcome in mark.args[1]:
        written.test_every_web_node_serves_its_share(nodes, outcome)


def test_the_scenario_of_the_guide() -> None:
    whole, load, steps, *_ = blocks("adding-a-scenario.md", "toml")
    read = scenario.parse(tomllib.loads(whole), "adding-a-scenario.md")
    assert [step.name for step in plan(read, 1)][:2] == ["steady state", "lb-2 freezes, lb-1 takes over"]
    for part in (load, steps):
        tables = tomllib.loads(whole)
        scenario.parse({**tables, **tomllib.loads(part)}, "adding-a-scenario.md")


def test_the_part_of_the_guide(monkeypatch: pytest.MonkeyPatch) -> None:
    part, _, tests = blocks("adding-a-part.md")
    module(part, "topology.parts.memory", monkeypatch)
    written = module(tests, "test_memory", monkeypatch)
    written.test_enough_memory_is_healthy()
    written.test_a_node_without_memory_and_one_without_an_answer_are_problems()


def test_the_errors_of_the_topology_guide() -> None:
    text = shipped()["ultramonkey"].read_text()
    printed = [
        *wrong(text.replace("count = 6", "cuont = 6")),
        *wrong(text.replace("deadtime_ms = 3000", "deadtime_ms = 900")),
    ]
    assert blocks("adding-a-topology.md", "text")[-1].splitlines() == printed


def wrong(text: str) -> list[str]:
    """The sentences of the error for a topology."""
    with pytest.raises(TopologyError) as caught:
        load.parse(text, "small.toml")
    return str(caught.value).splitlines()


def on_the_map() -> set[str]:
    """Every path that the map's list of files names: a folder's line ends in a slash, its files stand below it."""
    (listing,) = re.findall(r"## Files\n.*?```text\n(.*?)```", (DOCS / "map.md").read_text(), re.DOTALL)
    named: set[str] = set()
    folders: list[tuple[int, str]] = []
    for line in listing.splitlines():
        found = re.match(r"( *)(\S+)", line)
        if not found or len(found[1]) > 8:
            continue  # the second line of a remark
        depth = len(found[1])
        folders = [(at, name) for at, name in folders if at < depth]
        path = "".join(name for _, name in folders) + found[2]
        named.add(path)
        if path.endswith("/"):
            folders.append((depth, found[2]))
    return named


def test_the_map_names_every_file() -> None:
    files = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    named = on_the_map()
    files = {path for path in files if not path.endswith("__init__.py")}
    missing = sorted(path for path in files if path not in named and not _within(path, named))
    gone = sorted(path for path in named if not (ROOT / path).exists())
    assert not missing, f"docs/map.md does not name {missing}"
    assert not gone, f"docs/map.md names what does not exist: {gone}"


def _within(path: str, named: set[str]) -> bool:
    """Whether the map names a folder of the file, and none of that folder's files: then the folder stands for all."""
    folder = path.rpartition("/")[0] + "/"
    while folder != "/":
        if folder in named:
            return not any(other != folder and other.startswith(folder) for other in named)
        folder = folder.rstrip("/").rpartition("/")[0] + "/"
    return False
