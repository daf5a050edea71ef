"""The Python that shell scripts run is checked like the rest: mypy does not see it, and a bare machine is rare."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.records import LabError
from topology.lab import engine

ROOT = Path(__file__).parents[2]


def inline_python(path: Path) -> list[str]:
    """The programs that a shell script gives to ``python -c``."""
    return re.findall(r"python3? -c '(.*?)'", path.read_text(), re.DOTALL)


@pytest.mark.parametrize("path", [".ci/environment.sh", ".ci/run", "Makefile"])
def test_what_a_script_imports_exists(path: str) -> None:
    for program in inline_python(ROOT / path):
        for each in ast.walk(ast.parse(program)):
            if isinstance(each, ast.ImportFrom) and each.module:
                module = importlib.import_module(each.module)
                assert not [name.name for name in each.names if not hasattr(module, name.name)], program


def test_the_script_has_python() -> None:
    assert len(inline_python(ROOT / ".ci/environment.sh")) >= 2


def test_an_engine_that_does_not_start_has_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(LabError) as caught:
        engine.wait_until_it_answers(0.0)
    assert "the Docker Engine to answer" in str(caught.value)
    assert f"{tmp_path}/none.sock does not answer" in str(caught.value)


def test_the_script_waits_with_the_same_words(tmp_path: Path) -> None:
    program = next(each for each in inline_python(ROOT / ".ci/environment.sh") if "wait_until" in each)
    done = subprocess.run(
        [sys.executable, "-c", program.replace("(60)", "(0)")],
        env={"DOCKER_HOST": f"unix://{tmp_path}/none.sock", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode
    assert "timed out" in done.stderr
    assert "ImportError" not in done.stderr
