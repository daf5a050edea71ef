"""Does the total number of coins stay the same at all times, and is every balance at least zero?"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from functools import cached_property
from itertools import chain, islice
from typing import Any, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from harness.algorithms import snapshots, sum_bounds
from harness.algorithms.arrays import FOREVER, Ints, ints
from harness.history import History, HistoryError
from harness.history.client_ops import (
    LARGEST,
    NAMED,
    SHOWN,
    Call,
    answered,
    attempted,
    calls,
    doubts,
    ends,
    named,
    number,
    once,
    shown,
    starts,
    too_few,
    unless_gaps,
)
from harness.history.ledger_reads import resolved
from harness.history.planned_load import untried
from harness.history.timeline import count_of, instant
from harness.verdict import Finding, Outcome, Verdict, conclude, invalid

NAME = "bank"


class BankSettings(BaseModel):
    """``[checks.bank]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    total: int | None = Field(
        default=None, ge=0, description="Total number of coins; by default the total of the first read"
    )
    transfers: int = Field(default=20, ge=1, description="Minimum number of acknowledged transfers")
    reads: int = Field(default=10, ge=2, description="Minimum number of reads of all balances")


def check(history: History, settings: BankSettings) -> Verdict:
    """All reads of all balances are moments of one history of whole transfers; no coin is lost, no balance negative.

    It promises:

    - Every read finds the same players and the same total, and no balance below zero.
    - Between 2 reads a player's balance changes only by the transfers of the run: by all that were acknowledged in
      between, and by any that were in progress or never answered. So a transfer that was lost completely, made twice or
      made by no player is found, although the total stays the same.
    - A transfer without an answer is resolved by the list of transfers (``transfers``) before sums are judged: with an
      entry it moved its coins by the time of that read, without one it had not moved them. Half a transfer is invalid.
    - Each read has whole transfers, and no read lacks a transfer that an earlier one has; 2 concurrent reads do not see
      2 transfers in opposite orders (``algorithms/snapshots.py``).
    - A transfer is refused for lack of coins (409) only if the payer may have had too few.

    It cannot see what happened before the first read and after the last one; a run should read ``coins`` once before
    the first fault and once at the end. A read passes if any choice of the concurrent transfers explains it; one with
    too many choices (``reads_undecided``) is judged by its sums only. It does not know other writers than the run's
    players.

    It is unknown with too few transfers or reads, with gaps in the record of the load, and where what it found may be
    due to those gaps or to clocks of load machines.
    """
    if nothing := [*untried(history, "transfer no coins", "transfer")]:
        return conclude(NAME, nothing, "")
    accounts = _Accounts(history, settings)
    findings = [*doubts(history), *accounts.minimum_evidence(), *accounts.totals(), *accounts.debts()]
    findings += [*accounts.players(), *accounts.clashes()]
    if all(finding.outcome != Outcome.INVALID for finding in findings):
        findings += [*accounts.unexplained(), *accounts.refused()]
    held = (
        f"The total was {count_of(accounts.total, 'coin')} in all {count_of(len(accounts.reads), 'read')}; no balance "
        "was negative."
    )
    return conclude(NAME, findings, held, accounts.numbers())


class _Accounts:
    """The transfers of a run, and its reads of all balances: a row for each read, a column for each player."""

    def __init__(self, history: History, settings: BankSettings) -> None:
        self.history = history
        self.settings = settings
        self.transfers = resolved(history, once(attempted(history, "transfer"), "op"), "transfers")
        self.reads = answered(history, "coins")
        self.balances = _all_balances(self.reads)
        self.sums = ints([sum(balances.values()) for balances in self.balances])
        first = int(self.sums[0]) if self.reads else 0
        self.total = first if settings.total is None else settings.total
        self.exact = snapshots.Found((), (), ())

    def minimum_evidence(self) -> Iterator[Finding]:
        """Reasons why the run tested too little."""
        yield from too_few("Acknowledged transfers", sum(call.ok for call in self.transfers), self.settings.transfers)
        yield from too_few("Reads of all balances", len(self.reads), self.settings.reads)

    def totals(self) -> Iterator[Finding]:
        """Reads with another sum, or whose sum is not the total that the site reported."""
        places = [int(place) for place in np.flatnonzero(self.sums != self.total)]
        wrong = [self.reads[place] for place in places]
        if wrong:
            had = [f"{self.sums[place]:,} at {instant(self.reads[place].start)}" for place in places]
            yield invalid(f"The total must be {count_of(self.total, 'coin')}, but it was {named(had)}.", *_ops(wrong))
        untrue = [call for call, total in zip(self.reads, self.sums, strict=True) if call.number("total") != total]
        if untrue:
            yield invalid(
                f"{count_of(len(untrue), 'read')} reported a total that is not the sum of the balances.", *_ops(untrue)
            )

    def debts(self) -> Iterator[Finding]:
        """Balances below zero."""
        debts = [
            (call, balances)
            for call, balances in zip(self.reads, self.balances, strict=True)
            if min(balances.values(), default=0) < 0
        ]
        if debts:
            players = [f"{player} ({coins:,})" for _, found in debts for player, coins in found.items() if coins < 0]
            yield invalid(f"Balances were negative: player {named(players)}.", *_ops([call for call, _ in debts]))

    def players(self) -> Iterator[Finding]:
        """Reads with other players than the first read."""
        others = [
            call
            for call, balances in zip(self.reads, self.balances, strict=True)
            if balances.keys() != self.balances[0].keys()
        ]
        if others:
            yield invalid(
                f"{count_of(len(others), 'read')} found other players than the first read.",
                *_ops([self.reads[0], *others]),
            )

    def clashes(self) -> Iterator[Finding]:
        """Balances that the transfers do not explain."""
        found = []
        for some in _groups(chain.from_iterable(self._lists())):
            key = {player: place for place, player in enumerate(some)}
            reads, read_of = self._reads(key)
            found += [
                (
                    some[clash.key],
                    clash,
                    [int(read_of[place]) for place in (clash.most, clash.least) if place is not None],
                )
                for clash in sum_bounds.clashes(self._adds(key), reads)
            ]
        for player, clash, places in found[:NAMED]:
            yield self._clash(player, clash, places)
        if len(found) > NAMED:
            yield unless_gaps(
                self.history, f"Transfers do not explain the balances of {count_of(len(found) - NAMED, 'more player')}."
            )

    def _clash(self, player: int, clash: sum_bounds.Clash, places: Sequence[int]) -> Finding:
        had = [
            f"{count_of(self.balances[place][player], 'coin')} at {instant(self.reads[place].start)}"
            for place in sorted(places)
        ]
        sentence = f"Player {player} had {' and '.join(had)}: {clash.by:,} off from what the transfers explain."
        return unless_gaps(self.history, sentence, *_ops([self.reads[place] for place in sorted(places)]))

    def unexplained(self) -> Iterator[Finding]:
        """Reads that no choice of the transfers in progress explains, or that have no common order."""
        found = self.exact = snapshots.judge(
            [
                snapshots.Transfer(call.number("from"), call.number("to"), call.number("coins"), call.start, call.end)
                for call in self.transfers
            ],
            [
                snapshots.Snapshot(balances, call.start, call.end)
                for call, balances in zip(self.reads, self.balances, strict=True)
            ],
        )
        if found.unexplained:
            wrong = [self.reads[place] for place in found.unexplained]
            at = named([instant(call.start) for call in wrong])
            sentence = f"No choice of the transfers explains all balances that were read at {at}."
            yield unless_gaps(self.history, sentence, *_ops(wrong))
        for first, second in found.disordered:
            both = [self.reads[first], self.reads[second]]
            at = " and ".join(instant(call.start) for call in both)
            sentence = f"The balances read at {at} contradict each other: each lacks a transfer that the other has."
            if both[0].end < both[1].start:
                sentence = (
                    f"The balances read at {at} contradict each other: the later lacks a transfer that the earlier has."
                )
            yield unless_gaps(self.history, sentence, *_ops(both))

    def refused(self) -> Iterator[Finding]:
        """Transfers that the site refused for lack of coins though the payer certainly had them."""
        if not self.reads:
            return
        known = self.balances[0].keys()
        tried = [call for call in calls(self.history, "transfer") if _too_poor(call) and call.number("from") in known]
        by_payer: dict[int, list[Call]] = defaultdict(list)
        for call in tried:
            by_payer[call.number("from")].append(call)
        had = {
            call.invoke.index: coins
            for some in _groups(by_payer)
            for call, coins in self._least_coins([call for payer in some for call in by_payer[payer]])
        }
        wrong = [(call, had[call.invoke.index]) for call in tried if had[call.invoke.index] >= call.number("coins")]
        if wrong:
            payer = named(
                [f"player {call.number('from')} ({call.number('coins')} of {coins:,})" for call, coins in wrong]
            )
            yield unless_gaps(
                self.history,
                f"Transfers were refused although the payers had the coins: {payer}.",
                *shown(call for call, _ in wrong),
            )

    def _lists(self) -> Iterator[Iterable[int]]:
        """The players of the reads; most reads share one list."""
        return iter({id(balances.place): balances.place for balances in self.balances}.values())

    def _least_coins(self, tried: Sequence[Call]) -> Iterator[tuple[Call, int]]:
        """The fewest coins that each payer of these transfers can have had."""
        key = {player: place for place, player in enumerate(dict.fromkeys(call.number("from") for call in tried))}
        reads, adds = self._reads(key)[0], self._adds(key)
        _, most = sum_bounds.bounds(adds, reads)
        floor = np.full(len(key), -FOREVER)
        np.maximum.at(floor, reads.key, reads.value - most)
        payers = ints([key[call.number("from")] for call in tried])
        begun, done = starts(tried), ints([call.latest.time + call.slack for call in tried])
        least, _ = sum_bounds.bounds(adds, sum_bounds.Reads(payers, begun * 0, begun, done, begun * 0))
        return zip(tried, map(int, floor[payers] + least), strict=True)

    def _adds(self, key: Mapping[int, int]) -> sum_bounds.Adds:
        """Each transfer takes from one player and gives to another."""
        player, amount, begun, done = self._sides
        known = ints(list(key))
        order = np.argsort(known)
        place = np.minimum(np.searchsorted(known, player, sorter=order), len(key) - 1)
        keys = ints(list(key.values()))[order][place]
        mine = known[order][place] == player
        return sum_bounds.Adds(keys[mine], amount[mine], begun[mine], done[mine])

    @cached_property
    def _sides(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Both sides of each transfer: the player, what is added, and when."""
        sides = [
            (call.number(side), sign * call.number("coins"), call.start, call.end)
            for call in self.transfers
            for side, sign in (("from", -1), ("to", 1))
        ]
        player, amount, begun, done = np.array(sides, dtype=np.int64).reshape(-1, 4).T
        return player, amount, begun, done

    def _reads(self, key: Mapping[int, int]) -> tuple[sum_bounds.Reads, Ints]:
        """The balances of some players in each read, and the place of the read of each balance."""
        columns: dict[int, tuple[Ints, Ints]] = {}
        for balances in self.balances:
            if id(balances.place) not in columns:
                columns[id(balances.place)] = _columns(balances.place, key)
        rows = [balances.of(*columns[id(balances.place)]) for balances in self.balances]
        sizes = [row.size for row, _ in rows]
        begun, done = np.repeat(starts(self.reads), sizes), np.repeat(ends(self.reads), sizes)
        keys, values = _row([keys for keys, _ in rows]), _row([values for _, values in rows])
        reads = sum_bounds.Reads(keys, values, begun, done, np.zeros(sum(sizes), dtype=np.int64))
        return reads, np.repeat(np.arange(len(rows)), sizes)

    def numbers(self) -> dict[str, Any]:
        """What was measured."""
        acknowledged = [call for call in self.transfers if call.ok]
        return {
            "coins": self.total,
            "players": len(self.balances[0]) if self.balances else 0,
            "transfers": len(self.transfers),
            "acknowledged": len(acknowledged),
            "indeterminate": len(self.transfers) - len(acknowledged),
            "coins_moved": sum(call.number("coins") for call in acknowledged),
            "reads": len(self.reads),
            "reads_undecided": len(self.exact.given_up),
            "lowest_balance": min((min(row.values(), default=0) for row in self.balances), default=None),
        }


AT_A_TIME = 16
"""How many players' balances are judged together: all balances of all reads at once would need 1 GiB for a long run."""


def _groups(players: Iterable[int]) -> Iterator[list[int]]:
    """Each player once, so many at a time."""
    left = iter(dict.fromkeys(players))
    while some := list(islice(left, AT_A_TIME)):
        yield some


class Balances(Mapping[int, int]):
    """Each player's coins, in 8 bytes each: a long run reads millions of them. Reads share ``place``."""

    __slots__ = ("coins", "place")

    def __init__(self, place: Mapping[int, int], coins: array[int]) -> None:
        self.place, self.coins = place, coins

    def __getitem__(self, player: int) -> int:
        return self.coins[self.place[player]]

    def __iter__(self) -> Iterator[int]:
        return iter(self.place)

    def __len__(self) -> int:
        return len(self.place)

    def keys(self) -> KeysView[int]:
        """The players."""
        return self.place.keys()

    def values(self) -> ValuesView[int]:
        """The coins, in the order of the players."""
        return cast(ValuesView[int], self.coins)

    def items(self) -> ItemsView[int, int]:
        """The players with their coins."""
        return cast(ItemsView[int, int], zip(self.place, self.coins, strict=True))

    def of(self, keys: Ints, places: Ints) -> tuple[Ints, Ints]:
        """The keys of some players, and the coins at their places."""
        return keys, np.frombuffer(self.coins, dtype=np.int64)[places]


def _columns(place: Mapping[int, int], key: Mapping[int, int]) -> tuple[Ints, Ints]:
    """The keys of those players that have a place, and these places."""
    here = [player for player in key if player in place]
    return ints([key[player] for player in here]), ints([place[player] for player in here])


def _all_balances(reads: Sequence[Call]) -> list[Balances]:
    """The balances of each read. Raises HistoryError."""
    places: dict[tuple[str, ...], dict[int, int]] = {}
    found = []
    for call in reads:
        table = call.latest["balances"]
        names = tuple(table) if isinstance(table, dict) else ("",)
        if names not in places:
            if not all(name.isdecimal() for name in names) or len(set(map(int, names))) != len(names):
                raise HistoryError(f"op {call.latest.index} (coins): its balances cannot be read")
            places[names] = {int(name): place for place, name in enumerate(names)}
        coins = list(table.values())
        if {*map(type, coins)} != {int} or not -LARGEST < min(coins) <= max(coins) < LARGEST:
            coins = [number(call.latest, "balance", each) for each in coins]
        found.append(Balances(places[names], array("q", coins)))
    return found


def _too_poor(call: Call) -> bool:
    """Whether the site refused a transfer because the payer had too few coins."""
    said = str(call.latest.get("said", ""))
    return call.type == "fail" and call.latest.get("status") == 409 and not said.startswith("the op ")


def _row(parts: Sequence[Ints]) -> Ints:
    return np.concatenate(parts) if parts else ints([])


def _ops(some: Sequence[Call]) -> tuple[int, ...]:
    """The completions of the first few, which hold the balances."""
    return tuple(call.latest.index for call in some[:SHOWN])
