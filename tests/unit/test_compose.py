"""Runs put together: their run directories, and the feeds that they follow."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from harness import compose
from harness.fake import FakeFeed, FakeLab
from harness.protocols import Feed
from harness.records import LabError, Status
from harness.scenario import Scenario, parse, seeded
from topology.lab import engine, lifecycle
from topology.lab.docker_lab import DockerLab
from topology.load import load
from topology.model import Topology

ABOUT = {"name": "s", "title": "t", "expectation": "p"}


def scenario(**tables: Any) -> Scenario:
    return parse({"scenario": ABOUT, "steps": [{"name": "wait", "hold_s": 1}], **tables}, "s.toml")


class Restoring(FakeLab):
    """A lab in memory that could restore a backup."""

    def restore_proofs(self) -> Sequence[Feed]:
        return [FakeFeed("prove-backup", self.time_out, lambda: True)]

    def time_out(self) -> Any:
        raise LabError("there is no backup")


class Programs:
    """The part of a real lab that the feeds of its client need."""

    def __init__(self, lab: FakeLab) -> None:
        self.cluster, self.nodes, self.cables = lab.cluster, lab.nodes, lab.cables


def names(feeds: Sequence[Feed]) -> list[str]:
    return [feed.name for feed in feeds]


def test_a_run_directory_has_the_files_and_the_command_that_made_it(tmp_path: Path) -> None:
    file, profile = tmp_path / "s.toml", tmp_path / "profile.toml"
    file.write_text("the scenario")
    profile.write_text("its load")
    reported: list[str] = []
    run_dir = compose.execute(
        seeded(scenario(), 7),
        file,
        FakeLab("mine"),
        tmp_path / "runs",
        reported.append,
        load_file=profile,
        argv=["/usr/bin/monkeywrench", "run", "s"],
    )
    assert (run_dir / "scenario.toml").read_text() == "the scenario"
    assert (run_dir / "load.toml").read_text() == "its load"
    facts = json.loads((run_dir / "meta.json").read_text())
    assert (facts["lab"], facts["seed"], facts["command"]) == ("mine", 7, "monkeywrench run s")
    assert json.loads((run_dir / "history.jsonl").read_text().splitlines()[-1])["f"] == "end"
    assert reported[0] == "[1/1] wait"


def test_a_lab_in_memory_has_its_own_load() -> None:
    found = compose.feeds(scenario(load={"connections": 1}), FakeLab())
    assert names(found.during) == ["probe", "load", "connections"]
    assert [*found.before, *found.writers, *found.after] == []


def test_on_a_real_lab_programs_of_the_client_are_the_load() -> None:
    lab = cast(Any, Programs(FakeLab()))
    found = compose.feeds(scenario(load={"persona": "players"}), lab)
    assert [names(some) for some in (found.before, found.during, found.writers, found.after)] == [
        ["first"],
        ["probe"],
        ["load"],
        ["final"],
    ]


@pytest.mark.parametrize(
    ("proofs", "lab", "after"), [(1, Restoring(), ["prove-backup"]), (0, Restoring(), []), (1, FakeLab(), [])]
)
def test_a_backup_is_restored_after_a_run_whose_checks_want_it(proofs: int, lab: FakeLab, after: list[str]) -> None:
    wanted = scenario(checks={"backup": {"proofs": proofs}})
    assert names(compose.feeds(wanted, lab).after) == after


class Running:
    """A lab that is up."""

    def __init__(self, topology: Topology) -> None:
        self.topology, self.done = topology, list[str]()

    def wait_healthy(self, **_: object) -> None:
        self.done.append("wait")

    def status(self) -> Status:
        return Status((), {}, {}, ("web-6 is off",), ())

    def close(self) -> None:
        self.done.append("close")


@pytest.fixture
def topology() -> Topology:
    return load("ultramonkey")


def test_the_lab_that_is_up_is_used(monkeypatch: pytest.MonkeyPatch, topology: Topology) -> None:
    running = Running(topology)
    monkeypatch.setattr(engine, "connect", lambda: None)
    monkeypatch.setattr(lifecycle, "attach", lambda *_: running)
    with compose.lab_for(topology, "mine", lambda _: None) as lab:
        assert cast(object, lab) is running
        assert running.done == ["wait"]
    assert running.done == ["wait", "close"]


def test_a_lab_with_problems_is_used_on_request(monkeypatch: pytest.MonkeyPatch, topology: Topology) -> None:
    running = Running(topology)
    monkeypatch.setattr(engine, "connect", lambda: None)
    monkeypatch.setattr(lifecycle, "attach", lambda *_: running)
    said: list[str] = []
    with compose.lab_for(topology, "mine", said.append, unhealthy_ok=True):
        assert running.done == []
    assert said[-1] == "continuing in spite of a problem: web-6 is off"


def test_a_lab_with_another_topology_is_refused(monkeypatch: pytest.MonkeyPatch, topology: Topology) -> None:
    running = Running(topology.model_copy(update={"name": "other"}))
    monkeypatch.setattr(engine, "connect", lambda: None)
    monkeypatch.setattr(lifecycle, "attach", lambda *_: running)
    sentence = "lab 'mine' is running another topology than 'ultramonkey'"
    with pytest.raises(LabError, match=sentence), compose.lab_for(topology, "mine", lambda _: None):
        pytest.fail("the block must not run")
    assert running.done == ["close"]


def test_without_a_lab_one_is_booted_and_removed(monkeypatch: pytest.MonkeyPatch, topology: Topology) -> None:
    done: list[str] = []

    @contextmanager
    def booted(wanted: Topology, name: str, _: object, seed: int) -> Iterator[DockerLab]:
        assert (wanted, seed) == (topology, 5)
        done.append(name.partition("-")[0])
        yield cast(DockerLab, None)
        done.append("removed")

    monkeypatch.setattr(engine, "connect", lambda: None)
    monkeypatch.setattr(lifecycle, "attach", lambda *_: None)
    monkeypatch.setattr(lifecycle, "booted", booted)
    with compose.lab_for(topology, "mine", done.append, seed=5):
        done.append("block")
    assert done == ["run", "block", "taking the lab down", "removed"]
