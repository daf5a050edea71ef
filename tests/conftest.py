"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from harness.audit import Audit
from tests.support.examples import FRESH
from topology.load import shipped

if TYPE_CHECKING:
    from topology.lab.docker_lab import DockerLab

pytest_plugins = ["pytester"]

# How long an example takes says how busy the machine is, and nothing else. Every run tries the same examples, so that
# a change is judged by itself; MONKEYWRENCH_FRESH_EXAMPLES draws others.
settings.register_profile(
    "monkeywrench", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=not os.environ.get(FRESH)
)
settings.load_profile("monkeywrench")

AUDIT = pytest.StashKey[tuple[Path, Audit]]()
"""The lab's audit after the last test of a file that was audited: the baseline of the next one of this file."""


@pytest.fixture
def audited(request: pytest.FixtureRequest, lab: DockerLab) -> Iterator[None]:
    """Fail a test of a real lab that leaves a lease, or an audit that differs from the one before the test."""
    yield from _audited(request, lab)


@pytest.fixture(scope="module")
def audited_once(request: pytest.FixtureRequest, lab: DockerLab) -> Iterator[None]:
    """As ``audited``, once for all tests of a module."""
    yield from _audited(request, lab)


def _audited(request: pytest.FixtureRequest, lab: DockerLab) -> Iterator[None]:
    from tests.support.faulty import left_behind  # noqa: PLC0415 - tests without a lab load no fault

    stash, file = request.config.stash, request.path
    if AUDIT not in stash or stash[AUDIT][0] != file:
        stash[AUDIT] = file, lab.audit()
    before = stash[AUDIT][1]
    yield
    if left := left_behind(lab, before):
        stash[AUDIT] = file, lab.audit()
        pytest.fail("the test left the lab changed:\n" + "\n".join(left), pytrace=False)


@pytest.fixture
def small_topology(tmp_path: Path) -> Path:
    """The shipped cluster with two real servers instead of six, and no data."""
    path = tmp_path / "small.toml"
    text = shipped()["ultramonkey"].read_text().replace("count = 6", "count = 2")
    without_parts = text.partition("[web_data]")[0]
    before_db, _, after_db = without_parts.partition('[[nodes]]\nname = "db"')
    path.write_text(before_db + after_db.partition("\n\n")[2])
    return path
