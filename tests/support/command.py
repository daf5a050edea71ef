"""The command line as a user of a lab has it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from harness.wait import NotYet
from tests.support.faulty import eventually
from topology.lab.docker_lab import DockerLab

MONKEYWRENCH = [sys.executable, "-m", "harness.cli"]


def healthy_status(lab: DockerLab) -> dict[str, Any]:
    """What ``monkeywrench status --json`` shows once it finds nothing wrong, which it says with its exit code."""

    def shown() -> dict[str, Any]:
        command = [*MONKEYWRENCH, "status", "--json", "--lab", lab.name]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        if said.returncode != 0:
            raise NotYet(said.stdout + said.stderr)
        status: dict[str, Any] = json.loads(said.stdout)
        return status

    return eventually(shown, "a status without trouble")
