"""The simulator of the switch's image passes the tests that tests/unit asks of one that is compiled there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator

import pytest

from tests.support.simulator import COMMAND
from topology.lab import engine, image

TESTS = "tests/unit/test_simulator.py"


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    """A container of the switch's image that shares the folder for temporary files."""
    client = engine.connect()
    name = f"monkeywrench-simulator-{uuid.uuid4().hex[:8]}"
    folder = tempfile.gettempdir()
    made = client.containers.run(
        image.ensure(client, print)["switch"],
        ["sleep", "infinity"],
        name=name,
        detach=True,
        init=True,
        network_mode="none",
        cap_drop=["ALL"],
        volumes={folder: {"bind": folder, "mode": "rw"}},
    )
    yield name
    made.remove(force=True)


def test_the_simulator_in_the_image_is_the_one_that_is_tested(container: str) -> None:
    command = f"docker exec {container} /usr/lib/monkeywrench/simulator"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS],
        env={**os.environ, COMMAND: command},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert "skipped" not in done.stdout
