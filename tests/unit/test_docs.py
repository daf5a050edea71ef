"""The documents' examples work as they stand there."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str) -> list[str]:
    """The Python of a page, block by block."""
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_the_fault_that_the_guide_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    fault, _, tests, _ = blocks("adding-a-fault.md")
    module = types.ModuleType("faults.file")
    monkeypatch.setitem(sys.modules, "faults.file", module)
    exec(compile(fault, "faults/file.py", "exec"), module.__dict__)
    written = types.ModuleType("test_file")
    exec(compile(tests, "test_file.py", "exec"), written.__dict__)
    written.test_the_file_is_gone_for_as_long_as_the_fault_is_in()
    written.test_without_effect_it_is_no_fault(monkeypatch)
