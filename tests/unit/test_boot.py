"""A lab that does not become healthy: what the error shows, and what is left. Real labs: tests/lab/test_life.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from harness.protocols import CanLoseNodes
from harness.wait import Timeout
from tests.support.ticks import Ticks
from topology.lab import lifecycle
from topology.lab.channel import Channel, ChannelClosedError
from topology.lab.docker_lab import DockerLab, Unhealthy
from topology.lab.lifecycle import Say
from topology.load import load, shipped
from topology.model import Topology

PROBLEM = (
    "timed out after 180 s waiting for the cluster to be healthy; last state: 203.0.113.101 is held by no director"
)


class Sick:
    """A lab in which these parts never become healthy."""

    def __init__(self, *parts: str) -> None:
        self.parts = frozenset(parts)

    def wait_healthy(self, say: Say) -> None:
        """Never."""
        say(f"not healthy after 10 s: {PROBLEM}")
        raise Unhealthy(PROBLEM, self.parts)

    def last_words(self) -> str:
        return "lb-1: heartbeat: [809]: ERROR: msg2string: Message with zero fields"


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the labs that were removed; the VIPs of every new lab stay without a director."""
    names: list[str] = []
    monkeypatch.setattr(lifecycle, "power_on", lambda *_, **__: Sick("Linux Directors"))
    monkeypatch.setattr(lifecycle, "remove", lambda _client, name: names.append(name))
    return names


def boot(topology: Topology, **given: Any) -> None:
    """Boot a lab ``mine`` without showing progress."""
    lifecycle.boot(None, topology, "mine", lambda _: None, **given)


def test_the_error_has_the_problems_and_heartbeats_last_log_lines(removed: list[str]) -> None:
    with pytest.raises(Timeout, match=r"held by no director\nheartbeat's last log lines:\nlb-1: .*zero fields$"):
        boot(load("ultramonkey"), keep=True)
    assert removed == ["mine"]


def test_heartbeats_log_is_left_out_where_it_explains_nothing(
    removed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "power_on", lambda *_, **__: Sick("MySQL", "real servers"))
    with pytest.raises(Timeout) as caught:
        boot(load("ultramonkey"))
    assert str(caught.value) == PROBLEM
    assert removed == ["mine"]


def test_a_boot_reports_the_problems_while_it_waits(removed: list[str]) -> None:
    progress: list[str] = []
    with pytest.raises(Timeout):
        lifecycle.boot(None, load("ultramonkey"), "mine", progress.append)
    assert progress == ["waiting for all parts to be healthy", f"not healthy after 10 s: {PROBLEM}"]


def test_a_lab_to_keep_stays_up_when_it_runs_files_of_the_users(removed: list[str], tmp_path: Path) -> None:
    (tmp_path / "ha.cf").write_text("deadtime 3\n")
    overlay = '[[overlays]]\nnodes = "director"\npath = "/etc/ha.d/ha.cf"\nsource = "ha.cf"\n'
    (tmp_path / "mine.toml").write_text(shipped()["ultramonkey"].read_text() + overlay)
    topology = load(str(tmp_path / "mine.toml"))
    with pytest.raises(lifecycle.UnhealthyError, match="not healthy: timed out after 180 s"):
        boot(topology, keep=True)
    assert not removed
    with pytest.raises(Timeout):
        boot(topology)
    assert removed == ["mine"]


def test_a_wait_for_health_reports_the_problems_every_10_s(monkeypatch: pytest.MonkeyPatch) -> None:
    lab, progress = DockerLab(None, "mine", load("ultramonkey"), []), list[str]()
    monkeypatch.setattr(lab, "clock", Ticks(0).clock)
    monkeypatch.setattr(lab, "_problems", lambda: ("web-3 is off", frozenset({"MySQL"}), None))
    with pytest.raises(Unhealthy, match="web-3 is off") as caught:
        lab.wait_healthy(35, progress.append)
    assert progress == [f"not healthy after {seconds} s: web-3 is off" for seconds in (10, 20, 30)]
    assert caught.value.parts == {"MySQL"}


@dataclass
class Container:
    """What the engine says of a container."""

    name: str
    status: str = "running"
    removed: bool = False
    id: str = "1"

    @property
    def labels(self) -> dict[str, str]:
        return {f"monkeywrench.{key}": self.name for key in ("node", "role", "kernel", "why")}

    def reload(self) -> None:
        if self.removed:
            raise docker.errors.NotFound("No such container")


def test_a_lab_knows_which_containers_the_engine_lost() -> None:
    containers = [Container("web-1"), Container("web-2", "exited"), Container("switch", removed=True)]
    lab = DockerLab(None, "mine", load("ultramonkey"), containers)
    assert lab.lost() == {"web-2": "it is exited", "switch": "it is gone"}
    assert isinstance(lab, CanLoseNodes)


def test_a_channel_to_a_container_that_does_not_run_is_an_error_of_the_lab() -> None:
    class Engine:
        @property
        def api(self) -> Engine:
            return self

        def exec_create(self, *_: object, **__: object) -> None:
            raise docker.errors.APIError("409 Client Error", explanation="container 1 is not running")

    with pytest.raises(ChannelClosedError, match="web-2 is gone: container 1 is not running"):
        Channel(Engine(), Container("web-2"))
