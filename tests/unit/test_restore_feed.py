"""A backup's proof as a feed: one op, whatever comes of it."""

from __future__ import annotations

from typing import cast

import pytest

from harness.protocols import Entry, LabError
from harness.verdict import Outcome, Verdict
from topology import restore
from topology.lab import DockerLab


class Now:
    """As much of a lab as the feed itself asks."""

    def now_ns(self) -> int:
        return 7


@pytest.mark.parametrize(
    ("outcome", "kind"), [(Outcome.VALID, "ok"), (Outcome.INVALID, "fail"), (Outcome.UNKNOWN, "info")]
)
def test_a_verdict_becomes_an_op(outcome: Outcome, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Verdict(check="backup", outcome=outcome, summary="So it was.", numbers={"rows": 3})
    monkeypatch.setattr(restore, "prove", lambda *_: found)
    begun, ended = ops()
    assert (begun.type, ended.type, ended.value) == ("invoke", kind, {"of": "database", "rows": 3})
    assert ended.error == (None if kind == "ok" else "So it was.")


def test_what_cannot_be_tried_is_nobodys_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def prove(*_: object) -> Verdict:
        raise LabError("web-3 has no backup of the database yet")

    monkeypatch.setattr(restore, "prove", prove)
    assert [(op.type, op.error) for op in ops()] == [
        ("invoke", None),
        ("info", "web-3 has no backup of the database yet"),
    ]


def ops() -> list[Entry]:
    feed = restore.ProofFeed(None, cast(DockerLab, Now()))
    return [op for line in feed.open() for op in feed.entries(line)]
