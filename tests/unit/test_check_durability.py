"""Durability: set-full agrees with a slow search, pages form the right reads, and the check names what is lost."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from harness.algorithms.arrays import FOREVER, flags, ints
from harness.algorithms.set_full import Elements, State
from harness.checks import judge
from harness.history import History, Op
from harness.history.ledger_reads import ledger_reads
from harness.verdict import Outcome, Verdict
from tests.support import histories as h
from tests.support.examples import examples
from tests.support.games import Game

Reading = tuple[int, int, frozenset[int]]
"""start, length, and the elements that it found."""

ACKNOWLEDGED = st.lists(st.integers(0, 14), min_size=1, max_size=4)
READINGS = st.lists(st.tuples(st.integers(0, 14), st.integers(0, 5), st.frozensets(st.integers(0, 3))), max_size=4)


def slow_state(acknowledged: int, element: int, made: list[Reading]) -> State:
    present = [(start, start + length) for start, length, had in made if element in had]
    absent = [start for start, _, had in made if element not in had]
    known = min([acknowledged, *(end for _, end in present)])
    missed = [start for start in absent if known < start]
    if not missed:
        return State.STABLE if present else State.NEVER_READ
    return State.STALE if any(end >= max(missed) for _, end in present) else State.LOST


def agree(given_: list[int], made: list[Reading]) -> set[State]:
    """14 stands for: never acknowledged."""
    acknowledged = [FOREVER if time == 14 else time for time in given_]
    size = len(acknowledged)
    whole, each = Elements(ints(acknowledged)), Elements(ints(acknowledged))
    for start, length, had in made:
        mine = sorted(element for element in had if element < size)
        whole.whole(ints(mine), start, start + length)
        present = flags([element in mine for element in range(size)])
        times = ints([start] * size)
        each.each(ints(list(range(size))), present, times, times + length)
    slow = [slow_state(time, element, made) for element, time in enumerate(acknowledged)]
    assert whole.states().tolist() == each.states().tolist() == slow
    assert [state in {State.STALE, State.LOST} for state in slow] == (whole.missing_for() > 0).tolist()
    return set(slow)


@given(ACKNOWLEDGED, READINGS)
@examples(200)
def test_each_state_agrees_with_a_slow_search(acknowledged: list[int], made: list[Reading]) -> None:
    agree(acknowledged, made)


def test_the_states_agree_in_thousands_of_random_cases() -> None:
    chance = random.Random(2)
    seen: set[State] = set()
    for _ in range(2_000):
        made = [
            (chance.randint(0, 14), chance.randint(0, 5), frozenset(chance.sample(range(4), chance.randint(0, 4))))
            for _ in range(chance.randint(0, 4))
        ]
        seen |= agree([chance.randint(0, 14) for _ in range(chance.randint(1, 4))], made)
    assert seen == set(State)


# --- reads of ledgers


def page(at: float, after: int, *entries: dict[str, Any], f: str = "ledger", process: str = "final:0") -> list[Op]:
    asked = {"after": after, "limit": 2, "vip": h.VIP1}
    reply = asked | {"entries": list(entries), "last": entries[-1]["entry"] if entries else after}
    return [h.op(at, process, f, asked, "invoke"), h.op(at + 5, process, f, reply, "ok")]


def entry(number: int, op: str, points: int = 5) -> dict[str, Any]:
    return {"entry": number, "op": op, "player": 1, "points": points}


def history(*ops: list[Op]) -> History:
    return h.of([h.start(), *(op for pair in ops for op in pair), h.end(100_000)])


def test_pages_form_one_read() -> None:
    first, second = page(10, 0, entry(1, "a"), entry(2, "b")), page(20, 2, entry(5, "c"))
    (reading,) = ledger_reads(history(first, second), "ledger")
    assert (reading.whole, [found["op"] for _, found in reading.entries()]) == (True, ["a", "b", "c"])
    assert (reading.start, reading.end) == (10 * h.MS, 25 * h.MS)
    assert [one.whole for one in ledger_reads(history(first), "ledger")] == [False]
    assert [one.whole for one in ledger_reads(history(second), "ledger")] == [False]
    assert [one.whole for one in ledger_reads(history(page(10, 0)), "ledger")] == [True]


def test_the_reads_of_two_processes_do_not_mix() -> None:
    one = [page(10, 0, entry(1, "a"), entry(2, "b")), page(30, 2)]
    other = [page(12, 0, entry(1, "a"), entry(2, "b"), process="p"), page(20, 1, entry(2, "b"), process="p")]
    found = ledger_reads(history(*one, *other), "ledger")
    assert [reading.whole for reading in found] == [True, False, False]


# --- the check


def score(at: float, op: str, kind: str = "ok") -> list[Op]:
    asked = {"player": 1, "points": 5, "op": op, "vip": h.VIP1}
    process = f"user:{at}"
    return [h.op(at, process, "score", asked, "invoke"), h.op(at + 5, process, "score", asked, kind)]


def check(*ops: list[Op], of: str = "scores", **table: Any) -> Verdict:
    (verdict,) = judge(history(*ops), {"durability": {"acknowledged": 1, "of": [of], **table}})
    return verdict


A, B = score(10, "r-0-1"), score(20, "r-0-2")
BOTH = [page(100, 0, entry(1, "r-0-1"), entry(2, "r-0-2")), page(110, 2)]


def test_acknowledged_scores_that_are_present_are_valid() -> None:
    verdict = check(A, B, *BOTH)
    assert verdict.outcome is Outcome.VALID, verdict.summary
    assert verdict.summary == "All acknowledged writes are present: 2 scores."
    assert verdict.numbers["scores"]["stable"] == 2


def test_a_lost_score_is_named() -> None:
    verdict = check(A, B, page(100, 0, entry(1, "r-0-1")))
    assert verdict.outcome is Outcome.INVALID
    assert verdict.summary == "1 acknowledged or seen score was lost: r-0-2."
    assert verdict.evidence == (3, 4)


def test_an_indeterminate_score_may_be_present_or_not_but_must_stay() -> None:
    unsure = score(30, "r-0-3", "info")
    assert check(A, B, unsure, *BOTH).outcome is Outcome.VALID
    third = page(210, 2, entry(3, "r-0-3"))
    verdict = check(A, B, unsure, page(200, 0, entry(1, "r-0-1"), entry(2, "r-0-2")), third)
    assert (verdict.outcome, verdict.numbers["scores"]["indeterminate_present"]) == (Outcome.VALID, 1)
    again = [page(300, 0, entry(1, "r-0-1"), entry(2, "r-0-2")), page(310, 2)]
    verdict = check(A, B, unsure, page(200, 0, entry(1, "r-0-1"), entry(2, "r-0-2")), third, *again)
    assert verdict.outcome is Outcome.INVALID


def test_a_refused_score_must_not_be_present() -> None:
    refused = score(30, "r-0-3", "fail")
    assert check(A, B, refused, *BOTH).outcome is Outcome.VALID
    there = page(110, 2, entry(3, "r-0-3"))
    verdict = check(A, B, refused, BOTH[0], there)
    assert verdict.outcome is Outcome.INVALID
    assert "1 refused score is present: r-0-3" in verdict.summary


def test_a_score_that_was_missing_for_a_while_is_stale() -> None:
    away = page(50, 0, entry(1, "r-0-1"))
    verdict = check(A, B, away, *BOTH)
    assert verdict.outcome is Outcome.INVALID
    assert "missing for up to 25 ms: r-0-2" in verdict.summary
    assert check(A, B, away, *BOTH, stale_ms=25).outcome is Outcome.VALID


def test_without_a_final_read_it_is_unknown() -> None:
    assert check(A, B).outcome is Outcome.UNKNOWN
    early = [page(16, 0, entry(1, "r-0-1"))]
    assert "no final read of all scores after the last write" in check(A, B, *early).summary
    assert check(A, B, BOTH[0]).outcome is Outcome.UNKNOWN
    assert check(A, B, *BOTH, acknowledged=3).outcome is Outcome.UNKNOWN


def test_entries_of_earlier_runs_are_not_judged_and_phantoms_are() -> None:
    verdict = check(A, B, BOTH[0], page(110, 2, entry(3, "old-0-1")))
    assert (verdict.outcome, verdict.numbers["scores"]["of_earlier_runs"]) == (Outcome.VALID, 1)
    verdict = check(A, B, BOTH[0], page(110, 2, entry(3, "r-7-1")))
    assert verdict.outcome is Outcome.INVALID
    assert "1 score is present that no player sent: r-7-1" in verdict.summary
    lost = [h.op(60, "load", "feed", {"phase": "lost", "why": "gone"})]
    assert check(A, B, lost, BOTH[0], page(110, 2, entry(3, "r-7-1"))).outcome is Outcome.UNKNOWN


def test_an_entry_twice_or_with_other_content_is_invalid() -> None:
    twice = check(A, B, BOTH[0], page(110, 2, entry(3, "r-0-1")))
    assert "r-0-1 is present twice" in twice.summary
    other = check(A, B, page(100, 0, entry(1, "r-0-1"), entry(2, "r-0-2", points=6)), page(110, 2))
    assert "r-0-2 has other content" in other.summary
    assert twice.outcome is other.outcome is Outcome.INVALID


def test_a_score_that_was_sent_twice_counts_once() -> None:
    again = [h.op(op.time / h.MS + 20, "user:9", op.f, op.value, op.type) for op in A]
    refused = [h.op(op.time / h.MS + 30, "user:8", op.f, op.value, op.type) for op in score(10, "r-0-1", "fail")]
    verdict = check(A, again, refused, B, *BOTH)
    assert (verdict.outcome, verdict.numbers["scores"]["attempted"]) == (Outcome.VALID, 2)


def test_transfers_have_their_own_pages() -> None:
    asked = {"from": 1, "to": 2, "coins": 3, "op": "r-0-1", "vip": h.VIP1}
    made = [h.op(10, "user:1", "transfer", asked, "invoke"), h.op(15, "user:1", "transfer", asked, "ok")]
    right = {"entry": 1, "op": "r-0-1", "from": 1, "to": 2, "coins": 3}
    assert check(made, page(100, 0, right, f="transfers"), of="transfers").outcome is Outcome.VALID
    swapped = right | {"from": 2, "to": 1}
    assert check(made, page(100, 0, swapped, f="transfers"), of="transfers").outcome is Outcome.INVALID
    assert check(made, page(100, 0, f="transfers"), of="transfers").outcome is Outcome.INVALID


def motto(at: float, f: str, text: str, version: int, kind: str = "ok") -> list[Op]:
    reply = {"player": 1, "motto": text, "version": version, "vip": h.VIP1}
    asked = {key: reply[key] for key in ("player", "vip", *(["motto"] if f == "profile-write" else []))}
    return [h.op(at, f"user:{at}", f, asked, "invoke"), h.op(at + 5, f"user:{at}", f, reply, kind)]


def test_a_try_without_a_connection_is_not_a_refused_change() -> None:
    asked = {"player": 1, "vip": h.VIP1, "motto": "a"}
    reply = asked | {"again": True}
    tried = [
        h.op(5, "user:1", "profile-write", asked, "invoke"),
        h.op(8, "user:1", "profile-write", reply, "fail", error="not sent: timed out"),
    ]
    read = motto(100, "profile-read", "a", 4)
    assert check(tried, motto(10, "profile-write", "a", 4), read, of="profiles").outcome is Outcome.VALID
    refused = [tried[0], h.op(8, "user:1", "profile-write", asked, "fail", error="status 409")]
    assert check(refused, motto(10, "profile-write", "b", 3), read, of="profiles").outcome is Outcome.INVALID


def test_a_profile_is_present_if_its_version_is() -> None:
    written = [motto(10, "profile-write", "a", 4), motto(20, "profile-write", "b", 5)]
    for text, version, outcome in (
        ("b", 5, Outcome.VALID),
        ("a", 4, Outcome.INVALID),
        ("old", 3, Outcome.INVALID),
        ("x", 6, Outcome.VALID),  # the check linearizable finds that no player wrote x
        ("x", 5, Outcome.INVALID),
    ):
        verdict = check(*written, motto(100, "profile-read", text, version), of="profiles")
        assert verdict.outcome is outcome, (text, version, verdict.summary)
    assert check(*written, motto(22, "profile-read", "b", 5), of="profiles").outcome is Outcome.UNKNOWN


def article(at: float, f: str, op: str | None, version: int, kind: str = "ok") -> list[Op]:
    reply = {"article": 1, ("op" if f == "publish" else "by"): op, "version": version, "vip": h.VIP1}
    asked = {key: reply[key] for key in ("article", "vip", *(["op"] if f == "publish" else []))}
    done = reply if kind == "ok" else asked
    return [h.op(at, f"user:{at}", f, asked, "invoke"), h.op(at + 5, f"user:{at}", f, done, kind)]


def test_an_article_is_present_if_its_version_is() -> None:
    written = [article(10, "publish", "a", 1), article(20, "publish", "b", 2)]
    unsure = article(30, "publish", "c", 0, "info")
    for more, by, version, outcome in (
        ([], "b", 2, Outcome.VALID),
        ([], "a", 1, Outcome.INVALID),
        ([], None, 0, Outcome.INVALID),
        ([unsure], "b", 2, Outcome.VALID),
        ([unsure], "c", 3, Outcome.VALID),
        ([unsure], "c", 2, Outcome.INVALID),  # b is lost
        ([article(30, "publish", "c", 0, "fail")], "c", 3, Outcome.INVALID),
        ([article(30, "publish", "c", 2)], "c", 2, Outcome.INVALID),  # b and c both had version 2
    ):
        verdict = check(*written, *more, article(100, "article", by, version), of="articles")
        assert verdict.outcome is outcome, (more, by, version, verdict.summary)
    assert check(*written, of="articles").outcome is Outcome.UNKNOWN
    same = check(*written, article(30, "publish", "c", 2), article(100, "article", "c", 2), of="articles")
    assert "b and c were both version 2" in " ".join(finding.sentence for finding in same.findings)


def test_an_upload_is_asked_for_by_its_name() -> None:
    asked = {"name": "r-0-1", "sha256": "ab", "bytes": 1, "vip": h.VIP1}
    sent = [h.op(10, "user:1", "upload", asked, "invoke"), h.op(15, "user:1", "upload", asked, "ok")]

    def download(at: float, kind: str, **reply: Any) -> list[Op]:
        value = {"name": "r-0-1", "vip": h.VIP1}
        process = f"final:{at}"
        reply = value | {"node": "web-1"} | reply
        return [h.op(at, process, "download", value, "invoke"), h.op(at + 5, process, "download", reply, kind)]

    gone = {"status": 404, "written": "no", "said": "there is no upload r-0-1"}
    for read, outcome in (
        (download(9_000, "ok", status=200, sha256="ab", bytes=1), Outcome.VALID),
        (download(9_000, "ok", status=200, sha256="cd", bytes=1), Outcome.INVALID),
        (download(9_000, "fail", **gone), Outcome.INVALID),
        (download(1_000, "fail", **gone), Outcome.UNKNOWN),  # a real server may have it later
        (download(9_000, "fail", status=503, written="no"), Outcome.UNKNOWN),
        (download(9_000, "info"), Outcome.UNKNOWN),
    ):
        verdict = check(sent, read, of="uploads")
        assert verdict.outcome is outcome, (read, verdict.summary)


def test_an_upload_without_a_final_download_is_unknown() -> None:
    game = Game(5, ops=120).history()
    name = next(op["name"] for op in game.of("upload") if op.type == "ok")
    unread = h.without(game, lambda op: op.f == "download" and op["name"] == name)
    table = {"durability": {"acknowledged": 1, "of": ["uploads"]}}
    assert judge(game, table)[0].outcome is Outcome.VALID
    (verdict,) = judge(unread, table)
    assert verdict.outcome is Outcome.UNKNOWN
    assert f"not read at the end: {name}" in verdict.summary
