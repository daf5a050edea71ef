"""Mutations of what users wrote and read: scores, profiles, transfers, uploads, and the record of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from harness.history import History, Op
from tests.mutations.kinds import Base, Kind, Plant
from tests.support import anomalies as a
from tests.support import histories as h
from tests.support.anomalies import change
from tests.support.games import Game, Site, acknowledged

LITTLE = {
    "durability": {"acknowledged": 1},
    "linearizable": {"writes": 1, "reads": 1},
    "counters": {"scores": 1, "reads": 1},
    "bank": {"transfers": 1, "reads": 2},
    "uploads": {"uploads": 1, "downloads": 1, "servers": 1},
}
RICH, MUCH = 1_000, 500
"""Each player's coins at first; and more coins than all transfers together that can overlap with a read."""


def fresh() -> Site:
    """A site without data of an earlier run; all players are rich."""
    players = (1, 2, 3)
    profiles, nothing, rich = dict.fromkeys(players, ("", 0)), dict.fromkeys(players, 0), dict.fromkeys(players, RICH)
    return replace(Site.used(), ledger=[], transfers=[], profiles=profiles, scores=nothing, coins=rich)


SURE = Base("a game with all answers", lambda seed: Game(seed, ops=60, sure=True, site=fresh()).history(), LITTLE)
NOISY = Base("a game with lost answers", lambda seed: Game(seed, ops=60).history(), LITTLE)

# --- the ledgers

ENTERED = {"ledger": "score", "transfers": "transfer"}


def entry_of(history: History, f: str, chance: random.Random) -> tuple[Op, dict[str, Any]]:
    return chance.choice(list(a.pages(history, f)))


def with_entry(history: History, f: str, entry: dict[str, Any]) -> History:
    """One entry more at the end of the last reading."""
    page = a.last(history, f)
    added = entry | {"entry": max((one["entry"] for _, one in a.pages(history, f)), default=0) + 1}
    return change(history, page, entries=[*page["entries"], added], limit=page["limit"] + 1)


def entry_lost(f: str) -> Plant:
    return lambda history, chance: a.drop_entry(history, f, entry_of(history, f, chance)[1]["op"])


def entry_twice(f: str) -> Plant:
    return lambda history, chance: with_entry(history, f, entry_of(history, f, chance)[1])


def entry_foreign(f: str) -> Plant:
    def plant(history: History, chance: random.Random) -> History:
        entry = entry_of(history, f, chance)[1]
        return with_entry(history, f, entry | {"op": f"{entry['op']}99"})

    return plant


def entry_changed(f: str, key: str) -> Plant:
    def plant(history: History, chance: random.Random) -> History:
        page, wrong = entry_of(history, f, chance)
        entries = [one | {key: one[key] + 1} if one is wrong or one == wrong else one for one in page["entries"]]
        return change(history, page, entries=entries)

    return plant


def ledgers() -> Iterator[Kind]:
    for f, write in ENTERED.items():
        yield Kind(f"{f}: an acknowledged {write} is not there", SURE, entry_lost(f), "what was acknowledged stays")
        yield Kind(f"{f}: a {write} is there twice", SURE, entry_twice(f), "the site executes each op once")
        yield Kind(f"{f}: a {write} that nobody sent", SURE, entry_foreign(f), "only players write, and with their ids")
    fields = {"ledger": ("player", "points"), "transfers": ("from", "to", "coins")}
    for f, keys in fields.items():
        for key in keys:
            why = "an entry has what was sent"
            yield Kind(f"{f}: another {key}", SURE, entry_changed(f, key), why)


# --- points


def total_by(by: int, entries: int = 0, f: str = "score-read", where: int = -1) -> Plant:
    """The total of one answer is off."""

    def plant(history: History, chance: random.Random) -> History:
        read = acknowledged(history, f)[where]
        more = {"entries": read["entries"] + entries} if entries else {}
        return change(history, read, total=read["total"] + by, **more)

    return plant


def final_total_lacks_one(history: History, chance: random.Random) -> History:
    score = chance.choice(acknowledged(history, "score"))
    read = a.last(history, "score-read", "player", score["player"])
    return change(history, read, total=read["total"] - score["points"], entries=read["entries"] - 1)


def final_total_has_one_twice(history: History, chance: random.Random) -> History:
    score = chance.choice(acknowledged(history, "score"))
    read = a.last(history, "score-read", "player", score["player"])
    return change(history, read, total=read["total"] + score["points"], entries=read["entries"] + 1)


def stale_total(history: History, chance: random.Random) -> History:
    """A read of a user lacks the last score that ended before it began."""
    found = []
    for pair in history.pairs("score-read"):
        if pair.completion is None or not pair.invoke.process.startswith("user:"):
            continue
        player = pair.invoke["player"]
        before = [op for op in acknowledged(history, "score") if op["player"] == player and op.time < pair.invoke.time]
        overlapping = [
            one
            for one in history.pairs("score")
            if one.completion and one.invoke["player"] == player and one.invoke.time < pair.completion.time
            and one.completion.time > pair.invoke.time
        ]  # fmt: skip
        if before and not overlapping:
            found.append((pair.completion, before[-1]))
    read, score = chance.choice(found)
    return change(history, read, total=read["total"] - score["points"], entries=read["entries"] - 1)


def same_total(history: History, chance: random.Random) -> History:
    """Two scores of a player return the same total."""
    scores = acknowledged(history, "score")
    pairs = [(one, two) for one in scores for two in scores if one["player"] == two["player"] and one.time < two.time]
    one, two = chance.choice(pairs)
    return change(history, two, total=one["total"])


def points() -> Iterator[Kind]:
    sums = "with all answers known, the last total is the sum of all scores"
    yield Kind("total: 1 more at the end", SURE, total_by(1), sums)
    yield Kind("total: 1 fewer at the end", SURE, total_by(-1), sums)
    yield Kind("total: a score is missing at the end", SURE, final_total_lacks_one, sums)
    yield Kind("total: a score counts twice at the end", SURE, final_total_has_one_twice, sums)
    yield Kind("entries: 1 more at the end", SURE, total_by(0, 1), "the number of scores is known")
    yield Kind("entries: 1 fewer at the end", SURE, total_by(0, -1), "the number of scores is known")
    yield Kind("total: stale", SURE, stale_total, "a read has every score that ended before it began")
    for by in (-MUCH, -1, 1, MUCH):
        why = "the total that a score returns is that of a sum of scores"
        yield Kind(f"score: returns {by:+} points", SURE, total_by(by, f="score", where=0), why)
    yield Kind("score: 2 return the same total", SURE, same_total, "points are above 0, so totals grow")


# --- profiles


def profile_read(**value: Any) -> Plant:
    """The last read of a written profile says something else."""

    def plant(history: History, chance: random.Random) -> History:
        write = chance.choice(acknowledged(history, "profile-write"))
        read = a.last(history, "profile-read", "player", write["player"])
        changed = {key: read[key] + by if key == "version" else by for key, by in value.items()}
        return change(history, read, **changed)

    return plant


def other_motto(history: History, chance: random.Random) -> History:
    """The last read has the motto of another player."""
    writes = acknowledged(history, "profile-write")
    one, two = chance.choice([(one, two) for one in writes for two in writes if one["player"] != two["player"]])
    return change(history, a.last(history, "profile-read", "player", one["player"]), motto=two["motto"])


def old_motto(history: History, chance: random.Random) -> History:
    """The last read has the motto of an earlier write, with its version."""
    writes = acknowledged(history, "profile-write")
    older = [
        (one, two)
        for one in writes
        for two in writes
        if one["player"] == two["player"] and one["version"] < two["version"]
    ]
    one, _ = chance.choice(older)
    read = a.last(history, "profile-read", "player", one["player"])
    return change(history, read, motto=one["motto"], version=one["version"])


def old_motto_new_version(history: History, chance: random.Random) -> History:
    """A lost update: the last read has an earlier motto under the newest version."""
    changed = old_motto(history, chance)
    read = next(new for new, old in zip(changed, history, strict=True) if new != old)
    return change(changed, read, version=next(old["version"] for old in history if old.index == read.index))


def same_version(history: History, chance: random.Random) -> History:
    writes = acknowledged(history, "profile-write")
    pairs = [(one, two) for one in writes for two in writes if one["player"] == two["player"] and one.time < two.time]
    one, two = chance.choice(pairs)
    return change(history, two, version=one["version"])


def read_too_early(history: History, chance: random.Random) -> History:
    """A read has a motto that was only sent after it was answered."""
    found = []
    for pair in history.pairs("profile-write"):
        if pair.completion is not None and pair.completion.type == "ok":
            reads = [
                op
                for op in acknowledged(history, "profile-read")
                if op["player"] == pair.invoke["player"] and op.time < pair.invoke.time
            ]
            found += [(read, pair.completion) for read in reads]
    read, write = chance.choice(found)
    return change(history, read, motto=write["motto"], version=write["version"])


def profiles() -> Iterator[Kind]:
    yield Kind(
        "profile: a motto that nobody wrote", SURE, profile_read(motto="nobody"), "mottos are written by players"
    )
    yield Kind("profile: an empty motto at the end", SURE, profile_read(motto=""), "a written motto does not disappear")
    yield Kind("profile: 1 version back at the end", SURE, profile_read(version=-1), "all writes are acknowledged")
    yield Kind("profile: 1 version more at the end", SURE, profile_read(version=1), "each write makes one version")
    yield Kind("profile: 9 versions more at the end", SURE, profile_read(version=9), "each write makes one version")
    yield Kind("profile: the motto of another player", SURE, other_motto, "a profile has what was written to it")
    yield Kind("profile: an older motto at the end", SURE, old_motto, "it was overwritten by an acknowledged write")
    yield Kind("profile: an older motto, newest version", SURE, old_motto_new_version, "a version has one motto")
    yield Kind("profile: 2 writes of one version", SURE, same_version, "each write makes one version")
    yield Kind("profile: read before it was sent", SURE, read_too_early, "nobody reads what is not yet written")


# --- coins


def balances(how: Callable[[dict[str, int]], dict[str, int]], place: str, *, same_total: bool = False) -> Plant:
    """One read of all balances is different; its total is the new sum, or the one before."""

    def plant(history: History, chance: random.Random) -> History:
        reads = acknowledged(history, "coins")
        read = reads[-1] if place == "at the end" else chance.choice(reads[1:-1])
        told = how(dict(read["balances"]))
        return change(history, read, balances=told, total=read["total"] if same_total else sum(told.values()))

    return plant


def by(**coins: int) -> Callable[[dict[str, int]], dict[str, int]]:
    """Some players have more or fewer: ``p1`` is player 1."""
    return lambda told: told | {name[1:]: told[name[1:]] + more for name, more in coins.items()}


def last_transfer(times: int, *sides: str) -> Plant:
    """The last balances have a transfer so many times more, or only one side of it."""

    def plant(history: History, chance: random.Random) -> History:
        made, read = chance.choice(acknowledged(history, "transfer")), acknowledged(history, "coins")[-1]
        told = dict(read["balances"])
        for side in sides:
            told[str(made[side])] += (-1 if side == "from" else 1) * times * made["coins"]
        return change(history, read, balances=told, total=sum(told.values()))

    return plant


def coins() -> Iterator[Kind]:
    constant = "transfers keep the sum of all coins"
    many = f"{MUCH} coins are more than all transfers that overlap"
    for place in ("in between", "at the end"):
        yield Kind(f"balances {place}: 1 coin more", SURE, balances(by(p1=1), place), constant)
        yield Kind(f"balances {place}: 1 coin fewer", SURE, balances(by(p2=-1), place), constant)
        plant = balances(by(p3=1), place, same_total=True)
        yield Kind(f"balances {place}: 1 coin more than the total says", SURE, plant, "a total is the sum")
        yield Kind(
            f"balances {place}: {MUCH} coins moved by nobody", SURE, balances(by(p1=-MUCH, p2=MUCH), place), many
        )
        plant = balances(by(p1=-3 * RICH, p3=3 * RICH), place)
        yield Kind(f"balances {place}: below 0", SURE, plant, "nobody can give more than he has")
        gone = balances(lambda told: {player: held for player, held in told.items() if player != "2"}, place)
        yield Kind(f"balances {place}: a player is missing", SURE, gone, "players do not come or go")
        plant = balances(lambda told: told | {"9": 0}, place)
        yield Kind(f"balances {place}: a player more", SURE, plant, "players do not come or go")
    sums = "with all answers known, the last balances are the sum of all transfers"
    both = ("from", "to")
    yield Kind("balances: an acknowledged transfer is missing", SURE, last_transfer(-1, *both), sums)
    yield Kind("balances: a transfer made twice", SURE, last_transfer(1, *both), sums)
    yield Kind("balances: a transfer the other way round", SURE, last_transfer(-2, *both), sums)
    yield Kind("balances: a transfer only taken", SURE, last_transfer(-1, "to"), constant)
    yield Kind("balances: a transfer only given", SURE, last_transfer(-1, "from"), constant)


# --- uploads


def download(**value: Any) -> Plant:
    """The last download of an acknowledged upload says something else."""

    def plant(history: History, chance: random.Random) -> History:
        sent = chance.choice(acknowledged(history, "upload"))
        return change(history, a.last(history, "download", "name", sent["name"]), **value)

    return plant


def missing_at_the_end(history: History, chance: random.Random) -> History:
    """Every later download of an acknowledged upload is told that there is none."""
    sent = chance.choice(acknowledged(history, "upload"))
    read = a.last(history, "download", "name", sent["name"])
    missing = {"name": sent["name"], "vip": h.VIP1, "node": "web-1", "status": 404, "written": "no", "said": "no"}
    return h.changed(
        history,
        lambda one: one == read,
        lambda one: one.copy(type="fail", value=missing, error="status 404"),
    )


def downloaded_too_early(history: History, chance: random.Random) -> History:
    sent = chance.choice([op for op in history.of("upload") if op.type == "invoke"])
    asked = {"name": sent["name"], "vip": h.VIP1}
    answer = asked | {"node": "web-1", "status": 200, "sha256": sent["sha256"], "bytes": len(sent["name"])}
    at = history.of("worker")[0].time / h.MS + 1
    return h.with_ops(
        history,
        h.op(at, "user:9", "download", asked, "invoke"),
        h.op(at + 1, "user:9", "download", answer, "ok"),
    )


def uploads() -> Iterator[Kind]:
    yield Kind("upload: other bytes", SURE, download(sha256="0" * 64), "an upload keeps its bytes")
    yield Kind("upload: gone at the end", SURE, missing_at_the_end, "an acknowledged upload stays")
    yield Kind("upload: there before it was sent", SURE, downloaded_too_early, "its name is new")


# --- what is there already, and the record


def known() -> Iterator[Kind]:
    for name, (plant, _) in a.SURE.items():
        yield Kind(name, SURE, plant, " ".join((plant.__doc__ or "").split()))
    for name, (plant, _) in a.NOISY.items():
        yield Kind(name, NOISY, plant, " ".join((plant.__doc__ or "").split()))
    for name, plant in a.RECORD.items():
        yield Kind(f"record: {name}", NOISY, plant, "a client has one request at a time, and no line is lost")


KINDS: tuple[Kind, ...] = (*ledgers(), *points(), *profiles(), *coins(), *uploads(), *known())
