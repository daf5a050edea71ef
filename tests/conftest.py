"""What all tests share."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from topology.model import shipped

pytest_plugins = ["pytester"]

# How long an example takes says how busy the machine is, and nothing else.
settings.register_profile("monkeywrench", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("monkeywrench")


@pytest.fixture
def small_topology(tmp_path: Path) -> Path:
    """The shipped cluster with two real servers instead of six, and no data."""
    path = tmp_path / "small.toml"
    text = shipped()["ultramonkey"].read_text().replace("count = 6", "count = 2")
    without_parts = text.partition("# Web data: changed")[0]
    before_db, _, after_db = without_parts.partition('[[nodes]]\nname = "db"')
    path.write_text(before_db + after_db.partition("\n\n")[2])
    return path
