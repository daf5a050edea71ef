"""What the lab's own tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from topology.model import shipped


@pytest.fixture
def small_topology(tmp_path: Path) -> Path:
    """The shipped cluster with two real servers instead of six."""
    path = tmp_path / "small.toml"
    path.write_text(shipped()["ultramonkey"].read_text().replace("count = 6", "count = 2"))
    return path
