"""Content: all real servers have the master's files in time, and never a file that the master never had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.checks import judge
from harness.history import History, Op
from harness.verdict import Outcome, Verdict
from tests.support import clusters as c
from tests.support import histories as h
from tests.support.clusters import Scene
from tests.support.examples import examples

SCENES = st.builds(
    Scene,
    seed=st.integers(0, 10**6),
    faults=st.integers(0, 1),
    kinds=st.just(("node.power-off", "node.freeze")),
    nodes=st.sampled_from([("web-1",), c.WEB]),
    holds=st.just((5_000.0, 20_000.0)),
    rests=st.just((110_000.0, 130_000.0)),
)


def check(history: History, **table: Any) -> Verdict:
    (verdict,) = judge(history, {"content": table})
    return verdict


@examples(100)
@given(scene=SCENES)
def test_a_correct_replication_is_valid(scene: Scene) -> None:
    verdict = check(scene.history(c.docroot))
    assert verdict.outcome is Outcome.VALID, (scene, verdict.findings)
    assert verdict.numbers["slowest_ms"] > 0


def spoilt(seed: int, defect: Callable[[Op], dict[str, str] | None]) -> History:
    """A history in which one node's samples are changed."""
    history = Scene(seed, faults=0, rests=(60_000, 60_000)).history(c.docroot)

    def other(op: Op) -> Any:
        files = defect(op) if op["node"] == "web-4" else None
        return None if files is None else op.value | {"files": files}

    return c.with_values(history, "docroot", other)


def torn(op: Op) -> dict[str, str] | None:
    return op["files"] | {"page-2.html": "torn"} if 20e9 < op.time < 26e9 else None


def planted(op: Op) -> dict[str, str] | None:
    return op["files"] | {"shell.php": "evil"} if op.time > 30e9 else None


def stuck(op: Op) -> dict[str, str] | None:
    """Nothing arrives any more."""
    first = {f"page-{number}.html": f"{number:02d}-0" for number in range(4)}
    return first if op.time > 5e9 else None


def emptied(op: Op) -> dict[str, str] | None:
    return {} if op.time > 40e9 else None


@pytest.mark.parametrize("defect", [torn, planted, stuck, emptied])
def test_every_defect_is_found(defect: Callable[[Op], dict[str, str] | None]) -> None:
    for seed in range(12):
        verdict = check(spoilt(seed, defect))
        assert verdict.outcome is Outcome.INVALID, (seed, verdict.summary)
        assert "web-4" in verdict.summary
        assert verdict.findings[0].evidence


def master(*changes: tuple[float, dict[str, str]]) -> list[Op]:
    """The master's samples: its files every 2 s."""
    ops = []
    for at in range(100, 60_000, 2_000):
        files = [files for since, files in changes if since <= at][-1]
        ops.append(h.op(at, "docroot:web-1", "docroot", {"node": "web-1", "files": files}))
    return ops


def replica(*changes: tuple[float, dict[str, str]]) -> list[Op]:
    return [
        h.op(op.time / h.MS + 50, "docroot:web-2", "docroot", op.value | {"node": "web-2"}) for op in master(*changes)
    ]


def two(*ops: Op) -> History:
    return h.of([h.start(web=["web-1", "web-2"]), *ops, h.end(60_000)])


A, B, C = {"a": "1", "b": "1"}, {"a": "2", "b": "1"}, {"b": "1"}


@pytest.mark.parametrize(
    ("there", "outcome"),
    [
        ([(0, A), (20_000, B)], Outcome.VALID),
        ([(0, A), (24_000, B)], Outcome.VALID),
        ([(0, A), (40_000, B)], Outcome.INVALID),
        ([(0, A)], Outcome.INVALID),
        ([(0, C), (3_000, A), (22_000, B)], Outcome.VALID),
        ([(0, C)], Outcome.INVALID),
        ([(0, {"a": "0", "b": "1"}), (9_000, A), (22_000, B)], Outcome.VALID),
        ([(0, A), (9_000, {"a": "0", "b": "1"}), (9_500, A), (22_000, B)], Outcome.VALID),
        ([(0, A), (9_000, {"a": "0", "b": "1"}), (12_500, A), (22_000, B)], Outcome.INVALID),
    ],
)
def test_literal_replicas(there: list[tuple[float, dict[str, str]]], outcome: Outcome) -> None:
    verdict = check(two(*master((0, A), (20_000, B)), *replica(*there)))
    assert verdict.outcome is outcome, verdict.findings


def publish(at: float, digest: str, kind: str = "ok", page: str = "a") -> list[Op]:
    """An administrator's change, and its result after 5 ms."""
    asked = {"article": 1, "page": page, "op": digest, "vip": h.VIP1}
    reply = asked | ({"version": 2, "sha256": digest} if kind == "ok" else {})
    process = f"user:{at}"
    return [h.op(at, process, "publish", asked, "invoke"), h.op(at + 5, process, "publish", reply, kind)]


X = {"a": "x", "b": "1"}
AT_ONCE = [(0, A), (19_900, X), (22_000, B)]


@pytest.mark.parametrize(
    ("there", "written", "outcome"),
    [
        (AT_ONCE, [], Outcome.INVALID),
        (AT_ONCE, publish(19_500, "x"), Outcome.VALID),  # replaced before the next sample of the master
        (AT_ONCE, publish(19_500, "x", page="b"), Outcome.INVALID),
        (AT_ONCE, publish(19_500, "y"), Outcome.INVALID),
        (AT_ONCE, publish(19_500, "x", "fail"), Outcome.INVALID),
        (AT_ONCE, publish(19_500, "x", "info"), Outcome.UNKNOWN),
        (AT_ONCE, publish(19_500, "x", "info")[:1], Outcome.UNKNOWN),
        (AT_ONCE, publish(19_500, "x", "info", page="b"), Outcome.INVALID),
        (AT_ONCE, publish(29_500, "x", "info"), Outcome.INVALID),
        ([(0, A), (19_900, X)], publish(19_500, "x"), Outcome.INVALID),  # it stays
        ([(0, A), (19_900, X), (34_000, B)], publish(19_500, "x"), Outcome.VALID),
    ],
)
def test_the_master_had_what_an_administrator_published(
    there: list[tuple[float, dict[str, str]]], written: list[Op], outcome: Outcome
) -> None:
    verdict = check(two(*master((0, A), (20_000, B)), *replica(*there), *written))
    assert verdict.outcome is outcome, verdict.findings


def test_a_removed_file_must_disappear() -> None:
    ops = master((0, A), (20_000, C))
    assert check(two(*ops, *replica((0, A), (22_000, C)))).outcome is Outcome.VALID
    assert check(two(*ops, *replica((0, A)))).outcome is Outcome.INVALID


def test_a_fault_of_replication_excuses_a_late_version_but_no_torn_page() -> None:
    fault = [
        h.fault(5_000, "cut", "start", node="web-1"),
        h.fault(5_100, "cut", "proof", node="web-1"),
        h.fault(50_000, "cut", "end", node="web-1"),
    ]
    ops = [*master((0, A), (20_000, B)), *fault]
    late = check(two(*ops, *replica((0, A))))
    assert late.outcome is Outcome.UNKNOWN
    assert "late enough after a change" in late.summary
    torn_page = check(two(*ops, *replica((0, A), (30_000, {"a": "half", "b": "1"}), (34_000, B))))
    assert torn_page.outcome is Outcome.INVALID


@pytest.mark.parametrize(
    ("history", "says"),
    [
        (Scene(1).history(), "There are no samples of the site's folder."),
        (two(*master((0, A)), *replica((0, A))), "changed 0 times on web-1; at least 1 is needed"),
        (two(*master((0, A), (20_000, B))), "folder on web-2"),
        (h.killed(two(*master((0, A), (20_000, B)), *replica((0, A), (20_000, B))), 50_000), "killed"),
        (
            h.without(
                two(*master((0, A), (20_000, B)), *replica((0, A), (20_000, B))),
                lambda op: op.process == "docroot:web-2" and 30e9 < op.time < 45e9,
            ),
            "There are no samples of the site's folder on web-2 from",
        ),
        (
            h.without(
                two(*master((0, A), (20_000, B)), *replica((0, A), (40_000, {"a": "x", "b": "1"}), (42_000, B))),
                lambda op: op.process == "docroot:web-1" and 22e9 < op.time < 50e9,
            ),
            "no samples of web-1 at that time",
        ),
    ],
)
def test_too_little_evidence_is_unknown(history: History, says: str) -> None:
    verdict = check(history, converge_ms=25_000)
    assert verdict.outcome is Outcome.UNKNOWN, verdict.findings
    assert says in " ".join(finding.sentence for finding in verdict.findings)


@pytest.mark.parametrize(
    ("path", "outcome"),
    [
        (".page.html.x7Yz01", Outcome.VALID),
        ("news/.page.html.x7Yz01", Outcome.VALID),
        (".rsync-partial/page.html", Outcome.VALID),
        ("news/.monkeywrench-partial/page.html", Outcome.VALID),
        ("partial/page.html", Outcome.INVALID),
        ("news/page-partial.html", Outcome.INVALID),
    ],
)
def test_unfinished_files_of_rsync_are_ignored(path: str, outcome: Outcome) -> None:
    ops = [*master((0, A), (20_000, B)), *replica((0, A), (20_000, {**B, path: "half"}))]
    assert check(two(*ops)).outcome is outcome
