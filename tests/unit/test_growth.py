"""The exact searches for counters and balances agree with trying every order of all ops."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.algorithms import growth, snapshots
from harness.algorithms.arrays import FOREVER
from harness.algorithms.growth import Maybe, Seen
from harness.algorithms.snapshots import Snapshot, Transfer
from tests.support.examples import tries

RANDOM_CASES = tries(3_000)


@dataclass(frozen=True)
class Step:
    """An op for the search by brute force: when it may take effect, and what it does to the state; None: it cannot."""

    start: int
    end: int
    do: Callable[[tuple[int, ...]], tuple[int, ...] | None]


def possible(steps: Sequence[Step], state: tuple[int, ...]) -> bool:
    """Whether some order of the steps respects their times; those that end FOREVER may be left out."""
    tried: set[tuple[int, tuple[int, ...]]] = set()

    def order(done: int, state: tuple[int, ...]) -> bool:
        rest = [at for at in range(len(steps)) if not done >> at & 1]
        if all(steps[at].end == FOREVER for at in rest):
            return True
        if (done, state) in tried:
            return False
        tried.add((done, state))
        deadline = min(steps[at].end for at in rest)
        for at in rest:
            then = steps[at].do(state) if steps[at].start <= deadline else None
            if then is not None and order(done | 1 << at, then):
                return True
        return False

    return order(0, state)


# --- a counter


def read(seen: Seen) -> Step:
    def do(state: tuple[int, ...]) -> tuple[int, ...] | None:
        value, count = state[0] + seen.own, state[1] + (seen.own > 0)
        return (value, count) if value == seen.value and seen.count in (None, count) else None

    return Step(seen.start, seen.end, do)


def add(maybe: Maybe) -> Step:
    return Step(maybe.start, maybe.end, lambda state: (state[0] + maybe.amount, state[1] + 1))


def counter(chance: random.Random) -> tuple[list[Seen], list[Maybe]]:
    """A right history of a counter from 0, with a first read, whose ops overlap."""
    seen, maybe = [Seen(0, 0, 1, count=0)], []
    value = count = 0
    for effect in range(10, 10 + 4 * chance.randint(2, 7), 4):
        start, end, amount = effect - chance.randint(0, 8), effect + chance.randint(0, 8), chance.randint(1, 4)
        kind = chance.choice(("read", "read", "add", "maybe", "lost", "sure"))
        if kind in ("add", "maybe", "sure"):
            value, count = value + amount, count + 1
        if kind == "read":
            seen.append(Seen(value, max(start, 2), end, count=count))
        elif kind == "add":
            seen.append(Seen(value, max(start, 2), end, own=amount))
        else:
            maybe.append(Maybe(amount, max(start, 2), end + 20 if kind == "sure" else FOREVER))
    return seen, maybe


def wrong(seen: list[Seen], chance: random.Random) -> list[Seen]:
    """One answer has another value or count."""
    at = chance.randrange(1, len(seen)) if len(seen) > 1 else 0
    old = seen[at]
    value, count = old.value + chance.randint(-3, 3), old.count
    if count is not None and chance.random() < 0.5:
        count += chance.choice((-1, 1))
    changed = Seen(value, old.start, old.end, old.own, count)
    return [*seen[:at], changed, *seen[at + 1 :]]


def test_a_right_counter_is_explained() -> None:
    for seed in range(RANDOM_CASES):
        seen, maybe = counter(random.Random(seed))
        assert growth.unexplained(seen, maybe) is None, seed


def test_an_unexplained_counter_is_certainly_wrong() -> None:
    found = wrong_ones = 0
    for seed in range(RANDOM_CASES):
        chance = random.Random(seed)
        right, maybe = counter(chance)
        seen = wrong(right, chance)
        answer = growth.unexplained(seen, maybe)
        truth = possible([*map(read, seen), *map(add, maybe)], (0, 0))
        wrong_ones += not truth
        found += answer is not None
        assert answer is None or not truth, (seed, seen, maybe, answer)
    # the rest are wrong orders of answers, which the bounds of the sums and the order of the totals show
    assert found > 0.6 * wrong_ones > RANDOM_CASES / 6, (found, wrong_ones)


def test_too_many_choices_are_given_up() -> None:
    maybe = [Maybe(2 * amount, 2) for amount in range(40, 90)]
    assert growth.unexplained([Seen(0, 0, 1), Seen(2001, 10, 11)], maybe) is growth.GAVE_UP


# --- accounts


def transfers(chance: random.Random) -> tuple[list[Transfer], list[Snapshot]]:
    """A right history of 3 accounts whose ops overlap."""
    moves, seen = [], [Snapshot({1: 50, 2: 50, 3: 50}, 0, 1)]
    balances = {1: 50, 2: 50, 3: 50}
    for effect in range(10, 10 + 4 * chance.randint(3, 8), 4):
        start, end = max(effect - chance.randint(0, 10), 2), effect + chance.randint(0, 10)
        payer = chance.randint(1, 3)
        payee, coins = payer % 3 + 1, chance.randint(1, 4)
        kind = chance.choice(("read", "read", "move", "move", "maybe", "lost"))
        if kind in ("move", "maybe"):
            balances[payer] -= coins
            balances[payee] += coins
        if kind == "read":
            seen.append(Snapshot(dict(balances), start, end))
        else:
            moves.append(Transfer(payer, payee, coins, start, end if kind == "move" else FOREVER))
    return moves, seen


def move(transfer: Transfer) -> Step:
    def do(state: tuple[int, ...]) -> tuple[int, ...]:
        change = {transfer.payer: -transfer.coins, transfer.payee: transfer.coins}
        return tuple(coins + change.get(player, 0) for player, coins in enumerate(state, start=1))

    return Step(transfer.start, transfer.end, do)


def look(snapshot: Snapshot) -> Step:
    wanted = tuple(snapshot.balances[player] for player in (1, 2, 3))
    return Step(snapshot.start, snapshot.end, lambda state: state if state == wanted else None)


def test_right_balances_are_explained() -> None:
    for seed in range(RANDOM_CASES):
        assert snapshots.judge(*transfers(random.Random(seed))) == snapshots.Found((), (), ()), seed


def test_balances_are_judged_as_by_brute_force() -> None:
    """Wrong in one snapshot: coins moved between 2 accounts."""
    found = wrong_ones = 0
    for seed in range(RANDOM_CASES):
        chance = random.Random(seed)
        moves, seen = transfers(chance)
        if len(seen) < 2:
            continue
        at, coins = chance.randrange(1, len(seen)), chance.randint(1, 4)
        one, two = chance.sample((1, 2, 3), 2)
        old = seen[at].balances
        seen[at] = Snapshot({**old, one: old[one] - coins, two: old[two] + coins}, seen[at].start, seen[at].end)
        answer = snapshots.judge(moves, seen)
        truth = possible([*map(move, moves), *map(look, seen)], (50, 50, 50))
        wrong_ones += not truth
        found += answer != snapshots.Found((), (), ())
        assert truth is False or answer == snapshots.Found((), (), ()), (seed, moves, seen, answer)
    assert found > 0.97 * wrong_ones > RANDOM_CASES / 12, (found, wrong_ones)


def test_two_clients_that_see_two_transfers_in_opposite_orders_contradict_each_other() -> None:
    moves = [Transfer(1, 2, 1, 10, FOREVER), Transfer(2, 3, 2, 10, FOREVER)]
    first, one, two = {1: 9, 2: 9, 3: 9}, {1: 8, 2: 10, 3: 9}, {1: 9, 2: 7, 3: 11}
    seen = [Snapshot(first, 0, 1), Snapshot(one, 20, 30), Snapshot(two, 22, 32)]
    assert snapshots.judge(moves, seen).disordered == ((1, 2),)
