"""The checks of data on games made up by chance: no false alarm in thousands, and every planted defect found."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from harness.checks import judge
from harness.history import History, Op
from harness.verdict import Outcome
from tests.support import histories as h
from tests.support.games import Game, Site, acknowledged

LITTLE: Mapping[str, Mapping[str, Any]] = {
    "durability": {"acknowledged": 1},
    "linearizable": {"writes": 1, "reads": 1},
    "counters": {"scores": 1, "reads": 1},
    "bank": {"transfers": 1, "reads": 2, "total": 300},
    "uploads": {"uploads": 1, "downloads": 1, "servers": 1},
}
CLEAN_GAMES = 600
"""Five checks each. Run with thousands more when a check or the games change."""
SPOILT_GAMES = 12


def outcomes(history: History) -> dict[str, Outcome]:
    return {verdict.check: verdict.outcome for verdict in judge(history, LITTLE)}


def test_a_right_site_is_never_accused() -> None:
    valid = 0
    for seed in range(CLEAN_GAMES):
        told = outcomes(Game(seed, ops=20).history())
        assert Outcome.INVALID not in told.values(), (seed, told)
        valid += sum(outcome is Outcome.VALID for outcome in told.values())
    # In a short game not all of it comes about, and that is unknown.
    assert valid > 0.75 * CLEAN_GAMES * len(LITTLE)


def test_long_games_are_valid() -> None:
    for seed in range(20):
        told = outcomes(Game(seed, ops=400).history())
        assert set(told.values()) == {Outcome.VALID}, (seed, told)


# --- defects of the site, after the players have gone


def lose_score(site: Site, history: History) -> None:
    gone = random.Random(1).choice(acknowledged(history, "score"))["op"]
    site.ledger = [entry for entry in site.ledger if entry["op"] != gone]


def lose_points(site: Site, history: History) -> None:
    last = acknowledged(history, "score")[-1]
    site.scores[last["player"]] = last["total"] - 1


def phantom_points(site: Site, _: History) -> None:
    site.scores[2] += 10_000


def lose_entries(site: Site, history: History) -> None:
    """All of one player's; the total stays as it is."""
    player = acknowledged(history, "score")[0]["player"]
    mine = {op["op"] for op in acknowledged(history, "score") if op["player"] == player}
    site.ledger = [entry for entry in site.ledger if entry["op"] not in mine]


def lose_transfer(site: Site, history: History) -> None:
    """Only its record: the coins are where they should be."""
    gone = acknowledged(history, "transfer")[0]["op"]
    site.transfers = [entry for entry in site.transfers if entry["op"] != gone]


def undo_transfer(site: Site, history: History) -> None:
    """All of it, so the sum stays as it was."""
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
    """As a backup brings it back."""
    last = acknowledged(history, "profile-write")[-1]
    site.profiles[last["player"]] = ("", last["version"] - 1)


def lose_upload(site: Site, history: History) -> None:
    del site.files[acknowledged(history, "upload")[0]["name"]]


def hide_upload(site: Site, history: History) -> None:
    """On each real server: which of them the final reading will ask is not known."""
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
"""With ops of which nobody knows, these could be explained."""


@pytest.mark.parametrize("name", [*SITE, *SURE])
def test_every_defect_of_the_site_is_found(name: str) -> None:
    plant, found_by = (SITE | SURE)[name]
    found = 0
    for seed in range(SPOILT_GAMES):
        try:
            told = outcomes(Game(seed, ops=100, sure=name in SURE, plant=plant).history())
        except (IndexError, StopIteration):
            continue  # this game has nothing to spoil
        found += 1
        assert {check for check, outcome in told.items() if outcome is Outcome.INVALID} >= found_by, (seed, told)
    assert found >= SPOILT_GAMES / 4


# --- defects of single answers


def _change(history: History, op: Op, **value: Any) -> History:
    return h.changed(history, lambda one: one == op, lambda one: replace(one, value=one.value | value))


def _move(history: History, op: Op, ahead_ms: int) -> History:
    """An answered op, as one of a process of its own and that much earlier."""
    pair = next(pair for pair in history.pairs(op.f) if pair.completion == op)
    return h.changed(
        history,
        lambda one: one in (pair.invoke, pair.completion),
        lambda one: replace(one, process="user:early", time=one.time - ahead_ms * h.MS),
    )


def stale_read(history: History, chance: random.Random) -> History:
    """A player's last read says what it was before the last acknowledged change."""
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
    """As above, and without a version to tell: all versions are the same number."""
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
    """A read of a motto that ends before the motto is sent."""
    writes = {op["motto"]: op for op in history.of("profile-write") if op.type == "invoke"}
    reads = [op for op in acknowledged(history, "profile-read") if op["motto"] in writes]
    read = chance.choice(reads)
    return _move(history, read, (read.time - writes[read["motto"]].time) // h.MS + 1)


def phantom_motto(history: History, chance: random.Random) -> History:
    """A motto that nobody wrote, under the version of one that somebody did."""
    versions = {(op["player"], op["version"]) for op in acknowledged(history, "profile-write")}
    reads = [op for op in acknowledged(history, "profile-read") if (op["player"], op["version"]) in versions]
    return _change(history, chance.choice(reads), motto="nobody's")


def lost_update(history: History, chance: random.Random) -> History:
    """Two changes of a profile are given one version."""
    writes = acknowledged(history, "profile-write")
    one = chance.choice(writes)
    other = next(op for op in writes if op["player"] == one["player"] and op != one)
    return _change(history, one, version=other["version"])


def same_total(history: History, chance: random.Random) -> History:
    """Two scores are told one total."""
    scores = acknowledged(history, "score")
    one = chance.choice(scores)
    other = next(op for op in scores if op["player"] == one["player"] and op != one)
    return _change(history, one, total=other["total"])


def points_back(history: History, chance: random.Random) -> History:
    """A last read of points has less than an answer before it."""
    score = chance.choice(acknowledged(history, "score"))
    read = [op for op in acknowledged(history, "score-read") if op["player"] == score["player"]][-1]
    return _change(history, read, total=score["total"] - 1)


def early_points(history: History, chance: random.Random) -> History:
    """The final reading of points, before the first score was sent."""
    first = next(op for op in history.of("score") if op.type == "invoke")
    player = acknowledged(history, "score")[0]["player"]
    read = [op for op in acknowledged(history, "score-read") if op["player"] == player][-1]
    return _move(history, read, (read.time - first.time) // h.MS + 1)


def torn_snapshot(history: History, chance: random.Random) -> History:
    """A reading has one side of a transfer only."""
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
    "early answer": (early_answer, {"linearizable"}),
    "phantom motto": (phantom_motto, {"linearizable"}),
    "lost update": (lost_update, {"linearizable"}),
    "same total": (same_total, {"counters"}),
    "points back": (points_back, {"counters"}),
    "early points": (early_points, {"counters"}),
    "torn snapshot": (torn_snapshot, {"bank"}),
    "false total": (false_total, {"bank"}),
    "other bytes": (other_bytes, {"uploads", "durability"}),
    "early entry": (early_entry, {"durability"}),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_wrong_answer_is_found(name: str) -> None:
    spoil, found_by = ANSWERS[name]
    found = 0
    for seed in range(SPOILT_GAMES):
        try:
            history = spoil(Game(seed, ops=100).history(), random.Random(seed))
        except (IndexError, StopIteration):
            continue  # this game has nothing to spoil
        found += 1
        told = outcomes(history)
        assert {check for check, outcome in told.items() if outcome is Outcome.INVALID} >= found_by, (seed, told)
    assert found >= SPOILT_GAMES / 4


# --- what makes all of them unknown


@pytest.mark.parametrize("check", LITTLE)
def test_a_run_that_was_killed_is_unknown(check: str) -> None:
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
def test_little_is_unknown_by_default(check: str) -> None:
    (verdict,) = judge(Game(3, ops=20).history(), {check: {}})
    assert verdict.outcome is Outcome.UNKNOWN
    assert "it takes" in verdict.summary


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
def test_what_cannot_be_read_is_unknown(check: str, f: str, value: dict[str, Any]) -> None:
    history = Game(3, ops=60).history()
    at = history.end_ns / h.MS - 5
    odd = [h.op(at, "odd", f, value, "invoke"), h.op(at + 1, "odd", f, value, "ok")]
    (verdict,) = judge(h.with_ops(history, *odd), {check: LITTLE[check]})
    assert verdict.outcome is Outcome.UNKNOWN
    assert "cannot be judged" in verdict.summary
