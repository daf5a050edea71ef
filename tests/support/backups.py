"""Backups as an operator takes them by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from topology.lab.docker_lab import DockerLab


@contextmanager
def paused(lab: DockerLab, node: str, service: str) -> Iterator[None]:
    """No backup by itself for a while: a test looks at one that stays."""
    try:
        assert lab.node(node).exec("sv", "down", f"/run/service/{service}").ok
        yield
    finally:
        lab.node(node).exec("sv", "up", f"/run/service/{service}")


def back_up(lab: DockerLab, node: str, kind: str) -> str:
    """Take a backup now. Returns what was wrong."""
    taken = lab.node(node).exec(f"/usr/lib/monkeywrench/{kind}-backup", "once", timeout_s=300)
    return "" if taken.ok else taken.stdout + taken.stderr or "it failed"
