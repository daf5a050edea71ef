"""Anomalies that no right site has, planted in a right game: of the site's data, of single answers, and of the record.

Each takes a history and a chance. It raises IndexError where the history has nothing to plant it in. What each does
cannot be explained by any order of the ops, so the history is certainly not of a right site; the docstring says why.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeAlias

from harness.history import History, Op
from tests.support import histories as h
from tests.support.games import PLAYERS, acknowledged

Plant: TypeAlias = Callable[[History, random.Random], History]


def change(history: History, changed: Op, /, **value: Any) -> History:
    return h.changed(history, lambda one: one == changed, lambda one: one.copy(value=one.value | value))


def last(history: History, f: str, key: str = "", of: object = None) -> Op:
    """The last answered op."""
    return [op for op in acknowledged(history, f) if not key or op[key] == of][-1]


def pages(history: History, f: str) -> Iterator[tuple[Op, dict[str, Any]]]:
    for page in acknowledged(history, f):
        for entry in page["entries"]:
            yield page, entry


def drop_entry(history: History, f: str, name: str) -> History:
    """Without one entry of a ledger, whose other entries keep their numbers."""
    for page in acknowledged(history, f):
        if any(entry["op"] == name for entry in page["entries"]):
            entries = [entry for entry in page["entries"] if entry["op"] != name]
            full = len(page["entries"]) == page["limit"]  # and must stay so, or it would be the last page
            value = {"entries": entries, "limit": len(entries) if full else page["limit"]}
            history = change(history, page, **value)
    return history


def unanswered(history: History, f: str, chance: random.Random) -> tuple[History, Op]:
    """One of the last writes of that kind as if it had got no answer, though it was made; and its invocation."""
    answers = acknowledged(history, f)
    chosen = chance.choice(answers[-3:])
    pair = next(pair for pair in history.pairs(f) if pair.completion == chosen)
    asked = pair.invoke.value | {"ms": 5}
    lost = h.changed(
        history, lambda one: one == chosen, lambda one: one.copy(type="info", value=asked, error="timeout")
    )
    return lost, pair.invoke


# --- half transactions: one part of an unanswered write is there, the other is not


def entered_not_counted(history: History, chance: random.Random) -> History:
    """The last ledger has the entry of an unanswered score, and a later read of the points lacks them."""
    history, sent = unanswered(history, "score", chance)
    after = [op for op in acknowledged(history, "score") if op["player"] == sent["player"] and op.time > sent.time]
    if after:
        raise IndexError("later scores show the points")
    for read in acknowledged(history, "score-read"):
        if read["player"] == sent["player"] and read.time > sent.time:
            history = change(history, read, total=read["total"] - sent["points"])
    return later_reads(history, sent)


def later_reads(history: History, sent: Op) -> History:
    """Final reads of points and coins come after those of the ledgers, so that these decide about them."""
    ledgers = [op.time for op in history if op.f in ("ledger", "transfers")]
    by = max(ledgers) + 5 * h.MS
    moved = {
        index
        for f in ("score-read", "coins")
        for pair in history.pairs(f)
        if pair.completion is not None and pair.invoke.process == "final:0" and pair.invoke.time > sent.time
        for index in (pair.invoke.index, pair.completion.index)
    }
    shift = by - min((op.time for op in history if op.index in moved), default=by)
    ends = {op.index for op in history.of("end")}
    return h.of(
        op.copy(
            time=op.time + (shift if op.index in moved else 10 * abs(shift) if op.index in ends else 0),
            process="final:1" if op.index in moved else op.process,
        )
        for op in history
    )


def counted_not_entered(history: History, chance: random.Random) -> History:
    """Points of an unanswered score that a read has, and that no later ledger has."""
    history, sent = unanswered(history, "score", chance)
    return drop_entry(history, "ledger", sent["op"])


def moved_not_entered(history: History, chance: random.Random) -> History:
    """Coins of an unanswered transfer that the balances have, and that no later list of transfers has."""
    history, sent = unanswered(history, "transfer", chance)
    return drop_entry(history, "transfers", sent["op"])


def entered_not_moved(history: History, chance: random.Random) -> History:
    """The list of transfers has an unanswered one, and later balances lack it."""
    history, sent = unanswered(history, "transfer", chance)
    for read in acknowledged(history, "coins"):
        if read.time > sent.time:
            history = change(history, read, balances=_moved(read["balances"], sent, -1))
    return later_reads(history, sent)


def _moved(balances: dict[str, int], sent: Op, sign: int) -> dict[str, int]:
    payer, payee = str(sent["from"]), str(sent["to"])
    by = sign * sent["coins"]
    return balances | {payer: balances[payer] - by, payee: balances[payee] + by}


# --- losses behind an unanswered write


def points_lost_behind_unanswered(history: History, chance: random.Random) -> History:
    """Acknowledged points are gone, and an unanswered score of as many, which the ledger has, stands for them."""
    history, sent = unanswered(history, "score", chance)
    mine = [op for op in acknowledged(history, "score") if op["player"] == sent["player"] and op.time < sent.time]
    gone = mine[-1]
    after = [op for op in acknowledged(history, "score") if op["player"] == sent["player"] and op.time > sent.time]
    if after:
        raise IndexError("later scores show the points")
    for read in acknowledged(history, "score-read"):
        if read["player"] == sent["player"] and read.time > sent.time:
            history = change(history, read, total=read["total"] - gone["points"])
    return later_reads(history, sent)


def transfer_seen_then_gone(history: History, chance: random.Random) -> History:
    """An unanswered transfer is in the balances of one read, and in no later one. It was never entered."""
    history, sent = unanswered(history, "transfer", chance)
    given_up = next(op for op in history.of("transfer") if op.type == "info" and op["op"] == sent["op"])
    reads = [pair for pair in history.pairs("coins") if pair.completion and pair.invoke.time > given_up.time]
    with_it, without = reads[-2].completion, reads[-1].completion
    assert with_it is not None
    assert without is not None
    if reads[-1].invoke.time < with_it.time:
        raise IndexError("both reads overlap")
    history = change(history, without, balances=_moved(without["balances"], sent, -1))
    return drop_entry(history, "transfers", sent["op"])


# --- values that no choice explains


def total_between(history: History, chance: random.Random) -> History:
    """The last total has half of an unanswered score: no sum of whole scores gives it (all points are made even)."""
    history = h.changed(history, lambda one: one.f in ("score", "score-read", "ledger"), _doubled)
    read = last(history, "score-read")
    return change(history, read, total=read["total"] + 1)


def _doubled(op: Op) -> Op:
    value = dict(op.value)
    for key in ("points", "total"):
        if key in value:
            value[key] *= 2
    if "entries" in value and isinstance(value["entries"], list):
        value["entries"] = [entry | {"points": 2 * entry["points"]} for entry in value["entries"]]
    return op.copy(value=value)


def half_transfer(history: History, chance: random.Random) -> History:
    """A read has a part of a transfer (all transfers are made even)."""
    history = h.changed(history, lambda one: one.f in ("transfer", "coins", "transfers"), _even)
    read = chance.choice(acknowledged(history, "coins")[1:])
    balances = read["balances"]
    return change(history, read, balances=balances | {"1": balances["1"] - 1, "2": balances["2"] + 1})


def _even(op: Op) -> Op:
    value = dict(op.value)
    if "coins" in value:
        value["coins"] *= 2
    if "balances" in value:
        value["balances"] = {player: 2 * coins for player, coins in value["balances"].items()}
        value["total"] *= 2
    if "entries" in value:
        value["entries"] = [entry | {"coins": 2 * entry["coins"]} for entry in value["entries"]]
    return op.copy(value=value)


def torn_total(history: History, chance: random.Random) -> History:
    """One answer has the total of one moment and the number of entries of another."""
    read = chance.choice([op for op in acknowledged(history, "score-read") if op.time > 100 * h.MS][:-1])
    return change(history, read, entries=read["entries"] + 1)


# --- versions, entry numbers and refusals


def version_jump(history: History, chance: random.Random) -> History:
    """A write made two versions: all later versions of the player are one higher (the game has no unsure writes)."""
    answers = acknowledged(history, "profile-write") + acknowledged(history, "profile-read")
    lowest = {player: min((op["version"] for op in answers if op["player"] == player), default=0) for player in PLAYERS}
    writes = [op for op in acknowledged(history, "profile-write") if op["version"] > lowest[op["player"]]]
    write = chance.choice(writes)  # the first version that was seen shows no jump

    def raised(op: Op) -> Op:
        return op.copy(value=op.value | {"version": op["version"] + 1})

    return h.changed(
        history,
        lambda one: (
            one.type == "ok"
            and one.f in ("profile-write", "profile-read")
            and one["player"] == write["player"]
            and one["version"] >= write["version"]
        ),
        raised,
    )


def refused_but_made(history: History, chance: random.Random) -> History:
    """A change of a profile was refused, and made all the same: its version is there, its motto was overwritten."""
    jumped = version_jump(history, chance)
    before = {op.index: op for op in history if op.type == "ok" and op.f == "profile-write"}
    write = next(op for op in jumped if op.type == "ok" and op.f == "profile-write" and before.get(op.index) != op)
    sent = next(pair for pair in jumped.pairs("profile-write") if pair.completion == write).invoke
    asked = {"player": write["player"], "motto": "refused", "vip": h.VIP1}
    answer = asked | {"status": 503, "written": "no", "node": "web-1", "ms": 1}
    return h.with_ops(
        jumped,
        h.op(sent.time / h.MS, "user:9", "profile-write", asked, "invoke"),
        h.op(sent.time / h.MS + 1, "user:9", "profile-write", answer, "fail", error="status 503"),
    )


def opposite_orders(history: History, chance: random.Random) -> History:
    """2 transfers without an answer and 2 concurrent reads after all others: each read has another one of them."""
    read = last(history, "coins")
    at, asked = read.time / h.MS + 50, {"vip": h.VIP1}
    moves = [{"from": 1, "to": 2, "coins": 1, "op": "x-1"}, {"from": 2, "to": 3, "coins": 2, "op": "x-2"}]
    ops = []
    for user, sent in enumerate(moves, start=7):
        process = f"user:{user}"
        balances = _moved(read["balances"], h.op(0, "", "", sent), 1)
        answer = asked | {"node": "web-1", "status": 200, "balances": balances, "total": read["total"], "ms": 20}
        ops += [
            h.op(at, process, "transfer", sent | asked, "invoke"),
            h.op(at + 5, process, "transfer", sent | asked | {"ms": 5}, "info", error="timeout"),
            h.op(at + 10 + user, process, "coins", asked, "invoke"),
            h.op(at + 30 + user, process, "coins", answer, "ok"),
        ]
    end = next(iter(history.of("end")))
    return h.of([*(op for op in history if op != end), *ops, end.copy(time=end.time + 1_000 * h.MS)])


def other_entry(history: History, chance: random.Random) -> History:
    """A score was acknowledged with another number than the ledger has."""
    score = chance.choice(acknowledged(history, "score"))
    return change(history, score, entry=score["entry"] + 1_000)


def refused_although_rich(history: History, chance: random.Random) -> History:
    """A transfer of one coin is refused for lack of coins; the payer had 100 more at all times."""
    score = chance.choice(acknowledged(history, "score"))
    rich = h.changed(
        history,
        lambda one: one.f == "coins" and one.type == "ok",
        lambda one: one.copy(
            value=one.value
            | {
                "balances": {player: coins + 1_000 for player, coins in one["balances"].items()},
                "total": one["total"] + 3_000,
            }
        ),
    )
    asked = {"from": 1, "to": 2, "coins": 1, "op": f"{score['op']}9", "vip": h.VIP1}
    answer = asked | {"status": 409, "written": "no", "said": "player 1 has not got 1 coins", "node": "web-1", "ms": 1}
    at = score.time / h.MS
    return h.with_ops(
        rich,
        h.op(at, "user:9", "transfer", asked, "invoke"),
        h.op(at + 1, "user:9", "transfer", answer, "fail", error="status 409"),
    )


SURE: Mapping[str, tuple[Plant, str]] = {
    "entered, not counted": (entered_not_counted, "counters"),
    "counted, not entered": (counted_not_entered, "counters"),
    "moved, not entered": (moved_not_entered, "bank"),
    "entered, not moved": (entered_not_moved, "bank"),
    "points lost behind an unanswered score": (points_lost_behind_unanswered, "counters"),
    "a transfer seen, then gone": (transfer_seen_then_gone, "bank"),
    "a version jumps by two": (version_jump, "linearizable"),
    "refused, made and overwritten": (refused_but_made, "linearizable"),
}
"""Planted in games in which every op has an answer, so that nothing else can explain them."""

NOISY: Mapping[str, tuple[Plant, str]] = {
    "a total between scores": (total_between, "counters"),
    "half of a transfer": (half_transfer, "bank"),
    "total and entries torn": (torn_total, "counters"),
    "2 transfers in opposite orders": (opposite_orders, "bank"),
    "another entry number": (other_entry, "durability"),
    "refused although rich": (refused_although_rich, "bank"),
}
"""Planted in games with unanswered and refused ops."""


# --- the record


def requests(history: History) -> list[tuple[Op, Op]]:
    """The requests of users, each with its answer."""
    return [
        (pair.invoke, pair.completion)
        for f in ("score", "profile-write", "profile-read", "coins", "transfer", "score-read")
        for pair in history.pairs(f)
        if pair.completion is not None and pair.invoke.process.startswith("user:")
    ]


def without_invoke(history: History, chance: random.Random) -> History:
    invoke, _ = chance.choice(requests(history))
    return h.without(history, lambda one: one == invoke)


def completed_twice(history: History, chance: random.Random) -> History:
    _, answer = chance.choice(requests(history))
    return h.with_ops(history, answer.copy(time=answer.time))


def completed_before(history: History, chance: random.Random) -> History:
    """The answer comes before the request, in the file and by its time."""
    invoke, answer = chance.choice(requests(history))
    return h.of(
        op.copy(time=answer.time if op == invoke else invoke.time if op == answer else op.time) for op in history
    )


def back_in_time(history: History, chance: random.Random) -> History:
    """An answer has a time before its request; the order of the lines stays."""
    invoke, answer = chance.choice(requests(history))
    return History(op.copy(time=invoke.time - h.MS) if op == answer else op for op in history)


def never_completed(history: History, chance: random.Random) -> History:
    """The answer is missing, and the process goes on."""
    found = requests(history)
    _, answer = chance.choice([each for each in found if each[1].time < max(one.time for one, _ in found) / 2])
    return h.without(history, lambda one: one == answer)


def lines_missing(history: History, chance: random.Random) -> History:
    """2 % of the lines, with the indexes of the rest as they were."""
    gone = {chance.randrange(1, len(history) - 1) for _ in range(max(1, len(history) // 50))}
    return History(op for op in history if op.index not in gone)


def other_op(history: History, chance: random.Random) -> History:
    """An answer to another op than the one that was sent."""
    invoke, answer = chance.choice([each for each in requests(history) if each[0].f == "score"])
    return change(history, answer, op=invoke["op"] + "1")


def merged(history: History, processes: Collection[str], by_ms: float) -> History:
    """The ops of these processes moved in time, and no record of the machines that recorded them."""
    return h.of(
        op.copy(time=op.time + round(by_ms * h.MS)) if op.process in processes else op
        for op in history
        if op.f != "worker"
    )


def clock_off(history: History, chance: random.Random) -> History:
    """A worker's clock is 2 s slow: its answers have what others had not sent yet."""
    user = chance.choice(["user:0", "user:1", "user:2"])
    moved = merged(history, (user,), -2_000)
    opening = next(op for op in moved if op.f == "start")
    return h.of([opening.copy(time=moved[0].time - h.MS), *(op for op in moved if op != opening)])


RECORD: Mapping[str, Plant] = {
    "a completion without invoke": without_invoke,
    "a completion twice": completed_twice,
    "a completion before its invoke": completed_before,
    "a time that goes back": back_in_time,
    "a completion missing": never_completed,
    "lines missing": lines_missing,
    "a completion of another op": other_op,
}
"""Wrong records: never valid, never invalid."""
