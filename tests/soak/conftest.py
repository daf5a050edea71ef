"""What the tests on a real lab have around them."""

from __future__ import annotations

from collections.abc import Sequence

from tests.support.faulty import settled
from topology.lab.docker_lab import DockerLab


def pytest_monkeywrench_mend(lab: DockerLab, problems: Sequence[str]) -> None:
    """Bring addresses home that a director left where they are after a stall: the next tests need them there."""
    settled(lab)
