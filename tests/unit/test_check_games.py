"""The checks of data on random games: no false alarms in hundreds of games, and every planted defect is found."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from harness.checks import judge
from harness.history import History, Op
from harness.verdict import Outcome
from tests.support import histories as h
from tests.support.examples import tries
from tests.support.games import Game, Site, acknowledged

LITTLE: Mapping[str, Mapping[str, Any]] = {
    "durability": {"acknowledged": 1},
    "linearizable": {"writes": 1, "reads": 1},
    "counters": {"scores": 1, "reads": 1},
    "bank": {"transfers": 1, "reads": 2, "total": 300},
    "uploads": {"uploads": 1, "downloads": 1, "servers": 1},
}
CLEAN_GAMES = tries(600)
"""Five checks each. Use thousands after changing a check or the games."""
SPOILT_GAMES = 12


def outcomes(history: History) -> dict[str, Outcome]:
    return {verdict.check: verdict.outcome for verdict in judge(history, LITTLE)}


def test_a_correct_site_is_never_invalid() -> None:
    valid = 0
    for seed in range(CLEAN_GAMES):
        by_check = outcomes(Game(seed, ops=20).history())
        assert Outcome.INVALID not in by_check.values(), (seed, by_check)
        valid += sum(outcome is Outcome.VALID for outcome in by_check.values())
    # a short game may lack some evidence, which makes it unknown
    assert valid > 0.75 * CLEAN_GAMES * len(LITTLE)


def test_long_games_are_valid() -> None:
    for seed in range(20):
        by_check = outcomes(Game(seed, ops=400).history())
        assert set(by_check.values()) == {Outcome.VALID}, (seed, by_check)


# --- defects of the site, after the players have finished


def lose_score(site: Site, history: History) -> None:
    gone = random.Random(1).choice(acknowledged(history, "score"))["op"]
    site.ledger = [entry for entry in site.ledger if entry["op"] != gone]


def lose_points(site: Site, history: History) -> None:
    last = acknowledged(history, "score")[-1]
    site.scores[last["player"]] = last["total"] - 1


def phantom_points(site: Site, _: History) -> None:
    site.scores[2] += 10_000


def lose_entries(site: Site, history: History) -> None:
    """All entries of one player; the total stays the same."""
    player = acknowledged(history, "score")[0]["player"]
    mine = {op["op"] for op in acknowledged(history, "score") if op["player"] == player}
    site.ledger = [entry for entry in site.ledger if entry["op"] not in mine]


def lose_transfer(site: Site, history: History) -> None:
    """Only its record; the balances are right."""
    gone = acknowledged(history, "transfer")[0]["op"]
    site.transfers = [entry for entry in site.transfers if entry["op"] != gone]


def undo_transfer(site: Site, history: History) -> None:
    """Completely, so that the total stays the same."""
    lost = acknowledged(history, "transfer")[-1]
    site.coins[lost["from"]] += lost["coins"]
    site.coins[lost["to"]] -= lost["coins"]
    site.transfers = [entry for entry in site.transfers if entry["op"] != lost["op"]]


def unfair_total(site: Site, _: History) -> None:
    site.coins[3] += 1


def debt(site: Site, _: History) -> None:
    site.coins[1] += site.coins[2] + 5
    site.coins[2] = -5


def lose_profile(site: Site, history: History) -> None:
    """As restoring a backup would."""
    last = acknowledged(history, "profile-write")[-1]
    site.profiles[last["player"]] = ("", last["version"] - 1)


def lose_upload(site: Site, history: History) -> None:
    del site.files[acknowledged(history, "upload")[0]["name"]]


def hide_upload(site: Site, history: History) -> None:
    """On all real servers, because the final read may reach any of them."""
    name = acknowledged(history, "upload")[0]["name"]
    site.blind |= {(name, node) for node in ("web-1", "web-2", "web-3")}


def spoil_upload(site: Site, history: History) -> None:
    site.files[acknowledged(history, "upload")[0]["name"]] = "00", 0


def make_refused(site: Site, history: History) -> None:
    refused = next(op for op in history.of("score") if op.type == "fail")
    entry = {"op": refused["op"], "player": refused["player"], "points": refused["points"]}
    site.ledger.append({"entry": len(site.ledger) + 1, **entry})


def make_refused_upload(site: Site, history: History) -> None:
    refused = next(op for op in history.of("upload") if op.type == "fail")
    site.files[refused["name"]] = refused["sha256"], 0


def make_refused_profile(site: Site, history: History) -> None:
    refused = next(op for op in history.of("profile-write") if op.type == "fail")
    site.profiles[refused["player"]] = refused["motto"], 1_000


def phantom_score(site: Site, history: History) -> None:
    op = acknowledged(history, "score")[0]["op"] + "999"
    site.ledger.append({"entry": len(site.ledger) + 1, "op": op, "player": 1, "points": 1})


def score_twice(site: Site, history: History) -> None:
    twice = acknowledged(history, "score")[0]
    entry = next(entry for entry in site.ledger if entry["op"] == twice["op"])
    site.ledger.append(entry | {"entry": len(site.ledger) + 1})


def change_score(site: Site, history: History) -> None:
    changed = acknowledged(history, "score")[0]["op"]
    site.ledger = [entry | ({"points": 99} if entry["op"] == changed else {}) for entry in site.ledger]


SITE: dict[str, tuple[Callable[[Site, History], None], set[str]]] = {
    "lose score": (lose_score, {"durability"}),
    "lose points": (lose_points, {"counters"}),
    "phantom points": (phantom_points, {"counters"}),
    "lose transfer": (lose_transfer, {"durability"}),
    "unfair total": (unfair_total, {"bank"}),
    "debt": (debt, {"bank"}),
    "lose profile": (lose_profile, {"durability", "linearizable"}),
    "lose upload": (lose_upload, {"durability", "uploads"}),
    "hide upload": (hide_upload, {"durability", "uploads"}),
    "spoil upload": (spoil_upload, {"durability", "uploads"}),
    "make refused": (make_refused, {"durability"}),
    "make refused upload": (make_refused_upload, {"durability"}),
    "make refused profile": (make_refused_profile, {"durability", "linearizable"}),
    "phantom score": (phantom_score, {"durability"}),
    "score twice": (score_twice, {"durability"}),
    "change score": (change_score, {"durability"}),
}

SURE = {
    "lose entries": (lose_entries, {"durability", "counters"}),
    "undo transfer": (undo_transfer, {"durability", "bank"}),
}
"""Indeterminate ops could explain these defects, so the games have none."""


@pytest.mark.parametrize("name", [*SITE, *SURE])
def test_every_defect_of_the_site_is_found(name: str) -> None:
    plant, found_by = (SITE | SURE)[name]
    found = 0
    for seed in range(SPOILT_GAMES):
        try:
            by_check = outcomes(Game(seed, ops=100, sure=name in SURE, plant=plant).history())
        except (IndexError, StopIteration):
            continue  # this game has nothing to corrupt
        found += 1
        assert {check for check, outcome in by_check.items() if outcome is Outcome.INVALID} >= found_by, (
            seed,
            by_check,
        )
    assert found >= SPOILT_GAMES / 4


# --- defects of single answers


def _change(history: History, op: Op, **value: Any) -> History:
    return h.changed(history, lambda one: one == op, lambda one: one.copy(value=one.value | value))


def _move(history: History, op: Op, ahead_ms: int) -> History:
    """The history with an answered op moved to its own process and an earlier time."""
    pair = next(pair for pair in history.pairs(op.f) if pair.completion == op)
    return h.changed(
        history,
        lambda one: one in (pair.invoke, pair.completion),
        lambda one: one.copy(process="user:early", time=one.time - ahead_ms * h.MS),
    )


def stale_read(history: History, chance: random.Random) -> History:
    """A player's last read returns the motto before the last acknowledged change."""
    write = chance.choice(acknowledged(history, "profile-write"))
    read = [op for op in acknowledged(history, "profile-read") if op["player"] == write["player"]][-1]
    before = [
        op
        for op in acknowledged(history, "profile-read") + acknowledged(history, "profile-write")
        if op["player"] == write["player"] and op["version"] < write["version"]
    ]
    old = chance.choice(before)
    return _change(history, read, motto=old["motto"], version=old["version"])


def stale_motto(history: History, chance: random.Random) -> History:
    """As above, but without a version that shows it."""
    last: dict[int, Op] = {}
    for pair in history.pairs("profile-write"):
        earlier = last.get(pair.invoke["player"])
        if pair.ok and pair.completion and earlier and earlier.time < pair.invoke.time:
            reads = [one for one in history.pairs("profile-read") if one.invoke.time > pair.completion.time]
            read = [one.completion for one in reads if one.ok and one.invoke["player"] == pair.invoke["player"]][-1]
            assert read is not None
            return _change(history, read, motto=earlier["motto"], version=10**6)
        if pair.ok and pair.completion:
            last[pair.invoke["player"]] = pair.completion
    raise IndexError


def early_answer(history: History, chance: random.Random) -> History:
    """A read of a motto that ends before the motto was sent."""
    writes = {op["motto"]: op for op in history.of("profile-write") if op.type == "invoke"}
    reads = [op for op in acknowledged(history, "profile-read") if op["motto"] in writes]
    read = chance.choice(reads)
    return _move(history, read, (read.time - writes[read["motto"]].time) // h.MS + 1)


def phantom_motto(history: History, chance: random.Random) -> History:
    """A motto that no player wrote, with the version of another one."""
    versions = {(op["player"], op["version"]) for op in acknowledged(history, "profile-write")}
    reads = [op for op in acknowledged(history, "profile-read") if (op["player"], op["version"]) in versions]
    return _change(history, chance.choice(reads), motto="unknown")


def lost_update(history: History, chance: random.Random) -> History:
    """Two changes of a profile have the same version."""
    writes = acknowledged(history, "profile-write")
    one = chance.choice(writes)
    other = next(op for op in writes if op["player"] == one["player"] and op != one)
    return _change(history, one, version=other["version"])


def same_total(history: History, chance: random.Random) -> History:
    """Two scores return the same total."""
    scores = acknowledged(history, "score")
    one = chance.choice(scores)
    other = next(op for op in scores if op["player"] == one["player"] and op != one)
    return _change(history, one, total=other["total"])


def points_back(history: History, chance: random.Random) -> History:
    """A last read has fewer points than an earlier answer."""
    score = chance.choice(acknowledged(history, "score"))
    read = [op for op in acknowledged(history, "score-read") if op["player"] == score["player"]][-1]
    return _change(history, read, total=score["total"] - 1)


def early_points(history: History, chance: random.Random) -> History:
    """The final read of points, before the first score was sent."""
    first = next(op for op in history.of("score") if op.type == "invoke")
    player = acknowledged(history, "score")[0]["player"]
    read = [op for op in acknowledged(history, "score-read") if op["player"] == player][-1]
    return _move(history, read, (read.time - first.time) // h.MS + 1)


def torn_snapshot(history: History, chance: random.Random) -> History:
    """A read has only one side of a transfer."""
    read = chance.choice(acknowledged(history, "coins"))
    return _change(history, read, balances=read["balances"] | {"2": read["balances"]["2"] + 3})


def false_total(history: History, chance: random.Random) -> History:
    return _change(history, chance.choice(acknowledged(history, "coins")), total=299)


def other_bytes(history: History, chance: random.Random) -> History:
    return _change(history, chance.choice(acknowledged(history, "download")), sha256="ab")


def early_entry(history: History, chance: random.Random) -> History:
    """The ledger has a score before it was sent."""
    names = [op["op"] for op in acknowledged(history, "score")]
    pages = [op for op in acknowledged(history, "ledger") if any(entry["op"] in names for entry in op["entries"])]
    page = pages[0]
    first = next(entry["op"] for entry in page["entries"] if entry["op"] in names)
    sent = next(op for op in history.of("score") if op["op"] == first)
    return _move(history, page, (page.time - sent.time) // h.MS + 1)


ANSWERS: Mapping[str, tuple[Callable[[History, random.Random], History], set[str]]] = {
    "stale read": (stale_read, {"linearizable"}),
    "stale motto": (stale_motto, {"linearizable"}),
    "phantom motto": (phantom_motto, {"linearizable"}),
    "lost update": (lost_update, {"linearizable"}),
    "same total": (same_total, {"counters"}),
    "points back": (points_back, {"counters"}),
    "early points": (early_points, {"counters"}),
    "torn snapshot": (torn_snapshot, {"bank"}),
    "false total": (false_total, {"bank"}),
    "other bytes": (other_bytes, {"uploads", "durability"}),
}

IMPOSSIBLE: Mapping[str, Callable[[History, random.Random], History]] = {
    "early answer": early_answer,
    "early entry": early_entry,
}
"""What no site can do: it shows that the clocks of the record are wrong."""


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_no_site_can_do_is_a_flaw_of_the_record(name: str) -> None:
    for seed in range(SPOILT_GAMES):
        try:
            by_check = outcomes(IMPOSSIBLE[name](Game(seed, ops=100).history(), random.Random(seed)))
        except (IndexError, StopIteration):
            continue
        assert set(by_check.values()) == {Outcome.UNKNOWN}, (seed, by_check)


@pytest.mark.parametrize("name", ANSWERS)
def test_every_wrong_answer_is_found(name: str) -> None:
    spoil, found_by = ANSWERS[name]
    found = 0
    for seed in range(SPOILT_GAMES):
        try:
            history = spoil(Game(seed, ops=100).history(), random.Random(seed))
        except (IndexError, StopIteration):
            continue  # this game has nothing to corrupt
        found += 1
        by_check = outcomes(history)
        assert {check for check, outcome in by_check.items() if outcome is Outcome.INVALID} >= found_by, (
            seed,
            by_check,
        )
    assert found >= SPOILT_GAMES / 4


# --- what makes all of them unknown


@pytest.mark.parametrize("check", LITTLE)
def test_a_killed_run_is_unknown(check: str) -> None:
    history = h.without(Game(3, ops=200).history(), lambda op: op.f == "end")
    (verdict,) = judge(history, {check: LITTLE[check]})
    assert verdict.outcome is Outcome.UNKNOWN
    assert "killed" in verdict.summary


@pytest.mark.parametrize("check", LITTLE)
def test_a_record_with_gaps_is_unknown(check: str) -> None:
    lost = h.op(100, "load", "feed", {"phase": "lost", "why": "the node lost power"})
    (verdict,) = judge(h.with_ops(Game(3, ops=200).history(), lost), {check: LITTLE[check]})
    assert verdict.outcome is Outcome.UNKNOWN
    assert "gaps" in verdict.summary


@pytest.mark.parametrize("check", LITTLE)
def test_too_little_evidence_is_unknown_by_default(check: str) -> None:
    (verdict,) = judge(Game(3, ops=20).history(), {check: {}})
    assert verdict.outcome is Outcome.UNKNOWN
    assert "needed" in verdict.summary


@pytest.mark.parametrize("check", LITTLE)
def test_an_empty_game_is_unknown(check: str) -> None:
    (verdict,) = judge(h.of([h.start(), h.end(10)]), {check: {}})
    assert verdict.outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("check", "f", "value"),
    [
        ("durability", "ledger", {"after": 0, "limit": 7, "entries": "none", "last": 0}),
        ("durability", "profile-read", {"player": 1, "motto": None, "version": 1}),
        ("linearizable", "profile-read", {"player": 1, "motto": "", "version": "1"}),
        ("counters", "score-read", {"player": 1, "total": 10**40, "entries": 1}),
        ("bank", "coins", {"balances": {"one": 1}, "total": 1}),
        ("bank", "coins", {"balances": {"1": True}, "total": 1}),
        ("uploads", "download", {"sha256": "", "bytes": 0}),
    ],
)
def test_values_that_cannot_be_read_are_unknown(check: str, f: str, value: dict[str, Any]) -> None:
    history = Game(3, ops=60).history()
    at = history.end_ns / h.MS - 5
    odd = [h.op(at, "odd", f, value, "invoke"), h.op(at + 1, "odd", f, value, "ok")]
    (verdict,) = judge(h.with_ops(history, *odd), {check: LITTLE[check]})
    assert verdict.outcome is Outcome.UNKNOWN
    assert "cannot be judged" in verdict.summary
