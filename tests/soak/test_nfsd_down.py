"""nfsd taken down and up again. In one of 26 runs the question for its processes failed without a word."""

from __future__ import annotations

import pytest

from tests.support.faulty import AS_BEFORE_S, injected, settled
from topology.lab.docker_lab import DockerLab

pytestmark = pytest.mark.usefixtures("audited")

NONE = "grep -qx 0 /proc/fs/nfsd/threads"


def test_nfsd_that_is_down_serves_nobody(lab: DockerLab) -> None:
    with injected(lab, "process.down", node="web-1", service="nfsd"):
        assert lab.node("web-1").exec("sh", "-c", NONE).ok
    settled(lab, AS_BEFORE_S)
    assert not lab.node("web-1").exec("sh", "-c", NONE).ok
