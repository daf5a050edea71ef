"""The proof that a backup restores: its sentences, and its feed with one op for each result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import pytest

from harness.records import Entry, LabError, Output, Power
from harness.verdict import Outcome, Verdict
from harness.wait import REAL
from tests.support.ticks import Ticks
from topology.lab import restore
from topology.lab.docker_lab import DockerLab
from topology.lab.restore import Known, Restored
from topology.load import load
from topology.model import Topology


class Now:
    """The part of a lab that the feed uses."""

    clock = REAL

    def now_ns(self) -> int:
        return 7


@dataclass
class Node:
    """A node that gives one answer after the other, and repeats the last."""

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
    """The part of a lab that the wait for a backup uses."""

    keeper: Node
    database: Node
    topology: Topology = field(default_factory=lambda: load("ultramonkey"))

    def node(self, name: str) -> Node:
        return {"web-3": self.keeper, "db": self.database}[name]


def backup(scores: int) -> str:
    """The keeper's answer about a backup with this number of scores."""
    return f'90\n12\n{{"id": "a", "ledger_entries": {scores}, "ledger_last": {scores}}}'


def wait_for(keeper: Node, database: Node) -> float:
    """How long the wait for a backup took, in seconds."""
    ticks = Ticks(0)
    restore.await_scores(cast(DockerLab, Backed(keeper, database)), ticks.clock)
    return ticks.time_s


@pytest.mark.parametrize("before", [(), ("90\n",), (backup(0), LabError("web-3 is off"))])
def test_a_proof_waits_for_a_backup_with_scores_in_it(before: tuple[str | LabError, ...]) -> None:
    """A lab makes its first backup before the first score."""
    assert wait_for(Node((*before, backup(12))), Node(("3",))) == len(before)


def test_a_proof_does_not_wait_for_scores_that_the_database_does_not_have() -> None:
    assert wait_for(Node((backup(0),)), Node(("0",))) == 0


def test_the_wait_ends_without_an_error() -> None:
    assert wait_for(Node((backup(0),)), Node((LabError("no answer"),))) == 2 * 60 + restore.MADE_S


@pytest.mark.parametrize(
    ("outcome", "kind"), [(Outcome.VALID, "ok"), (Outcome.INVALID, "fail"), (Outcome.UNKNOWN, "info")]
)
def test_a_verdict_becomes_an_op(outcome: Outcome, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Verdict(check="backup", outcome=outcome, summary="A summary.", numbers={"rows": 3})
    monkeypatch.setattr(restore, "await_scores", lambda *_: None)
    monkeypatch.setattr(restore, "prove", lambda *_: found)
    begun, ended = ops()
    assert (begun.type, ended.type, ended.value) == ("invoke", kind, {"of": "database", "rows": 3})
    assert ended.error == (None if kind == "ok" else "A summary.")


def test_a_proof_that_cannot_be_made_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def prove(*_: object) -> Verdict:
        raise LabError("web-3 has no backup of the database yet")

    monkeypatch.setattr(restore, "await_scores", lambda *_: None)
    monkeypatch.setattr(restore, "prove", prove)
    assert [(op.type, op.error) for op in ops()] == [
        ("invoke", None),
        ("info", "web-3 has no backup of the database yet"),
    ]


def ops() -> list[Entry]:
    feed = restore.ProofFeed(None, cast(DockerLab, Now()))
    return [op for line in feed.open() for op in feed.entries(line)]


ROWS = {"a": ("7", "5"), "b": ("8", "3")}


def judged(known: Known, restored: Restored) -> str:
    return restore.compare(known, restored, 12).summary


def test_a_good_backup() -> None:
    restored = Restored(ROWS, coins=2000, players=2)
    assert judged(Known(ROWS, 2, ROWS), restored) == (
        "The backup is 12 s old and restores 2 scores, including all 2 committed before it began."
    )
    assert judged(Known(None, 1, None), restored) == "The backup is 12 s old and restores 2 scores."


@pytest.mark.parametrize(
    ("known", "restored", "sentence"),
    [
        (
            Known({**ROWS, "c": ("9", "1")}, 3, None),
            Restored(ROWS),
            "The backup lacks 1 score committed before it began: c.",
        ),
        (
            Known(None, 5, None),
            Restored(ROWS),
            "The backup has 2 scores, although 5 were committed before it began.",
        ),
        (
            Known(ROWS, 2, {"a": ROWS["a"]}),
            Restored(ROWS),
            "The backup has 1 score that the running database lacks: b.",
        ),
        (Known({**ROWS, "b": ("8", "4")}, 2, None), Restored(ROWS), "The backup has 1 score with other values: b."),
        (Known(None, 0, None), Restored(ROWS), "There was no score before the backup began, so nothing was compared."),
        (
            Known(ROWS, 2, None),
            Restored(ROWS, 1900, 2),
            "The players in the backup have 1,900 coins in total instead of 2,000; transfers never change the total.",
        ),
        (
            Known(ROWS, 2, None),
            Restored(ROWS, damaged=("site.ledger", "site.ledger")),
            "The backup has damaged tables: site.ledger.",
        ),
        (Known(ROWS, 2, None), Restored({}, error="no space left"), "The backup does not restore: no space left."),
    ],
)
def test_each_defect_of_a_backup_has_its_sentence(known: Known, restored: Restored, sentence: str) -> None:
    assert judged(known, restored) == sentence
