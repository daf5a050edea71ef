"""A backup's proof as a feed: one op, whatever comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import pytest

from harness.records import Entry, LabError, Output, Power
from harness.verdict import Outcome, Verdict
from tests.unit.test_wait import Ticks
from topology.lab import restore
from topology.lab.docker_lab import DockerLab
from topology.model import Topology, load


class Now:
    """As much of a lab as the feed itself asks."""

    def now_ns(self) -> int:
        return 7


@dataclass
class Node:
    """A node that gives one answer after the other, and the last one for ever."""

    answers: tuple[str | LabError, ...]
    asked: int = 0

    def exec(self, *_: str, **__: object) -> Output:
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if isinstance(answer, LabError):
            raise answer
        return Output(0, answer, "")

    def power(self) -> Power:
        return Power.RUNNING


@dataclass
class Backed(Now):
    """As much of a lab as the wait for its backup asks."""

    keeper: Node
    database: Node
    topology: Topology = field(default_factory=lambda: load("ultramonkey"))

    def node(self, name: str) -> Node:
        return {"web-3": self.keeper, "db": self.database}[name]


def backup(scores: int) -> str:
    """What the keeper says of a backup."""
    return f'90\n12\n{{"id": "a", "ledger_entries": {scores}, "ledger_last": {scores}}}'


def wait_for(keeper: Node, database: Node) -> float:
    """How long the wait for a backup took, in seconds."""
    ticks = Ticks(0)
    restore.await_telling(cast(DockerLab, Backed(keeper, database)), ticks.clock)
    return ticks.time_s


@pytest.mark.parametrize("before", [(), ("90\n",), (backup(0), LabError("web-3 is off"))])
def test_a_proof_waits_for_a_backup_with_scores_in_it(before: tuple[str | LabError, ...]) -> None:
    """The first backup of a lab is made before anybody has played."""
    assert wait_for(Node((*before, backup(12))), Node(("3",))) == len(before)


def test_a_proof_does_not_wait_for_what_cannot_come() -> None:
    assert wait_for(Node((backup(0),)), Node(("0",))) == 0


def test_what_nobody_can_tell_in_time_is_for_the_proof_to_say() -> None:
    assert wait_for(Node((backup(0),)), Node((LabError("no answer"),))) == 2 * 60 + restore.MADE_S


@pytest.mark.parametrize(
    ("outcome", "kind"), [(Outcome.VALID, "ok"), (Outcome.INVALID, "fail"), (Outcome.UNKNOWN, "info")]
)
def test_a_verdict_becomes_an_op(outcome: Outcome, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Verdict(check="backup", outcome=outcome, summary="So it was.", numbers={"rows": 3})
    monkeypatch.setattr(restore, "await_telling", lambda *_: None)
    monkeypatch.setattr(restore, "prove", lambda *_: found)
    begun, ended = ops()
    assert (begun.type, ended.type, ended.value) == ("invoke", kind, {"of": "database", "rows": 3})
    assert ended.error == (None if kind == "ok" else "So it was.")


def test_what_cannot_be_tried_is_nobodys_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def prove(*_: object) -> Verdict:
        raise LabError("web-3 has no backup of the database yet")

    monkeypatch.setattr(restore, "await_telling", lambda *_: None)
    monkeypatch.setattr(restore, "prove", prove)
    assert [(op.type, op.error) for op in ops()] == [
        ("invoke", None),
        ("info", "web-3 has no backup of the database yet"),
    ]


def ops() -> list[Entry]:
    feed = restore.ProofFeed(None, cast(DockerLab, Now()))
    return [op for line in feed.open() for op in feed.entries(line)]
