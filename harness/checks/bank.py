"""Are there as many coins as ever, at every moment, and does nobody owe any?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from harness.algorithms import sum_bounds
from harness.algorithms.arrays import Ints, ints
from harness.history import History, HistoryError
from harness.history.client_ops import (
    NAMED,
    SHOWN,
    Call,
    answered,
    attempted,
    doubts,
    ends,
    named,
    number,
    once,
    starts,
    too_few,
    unless_gaps,
)
from harness.history.timeline import moment
from harness.verdict import Finding, Verdict, conclude, invalid

NAME = "bank"


class BankSettings(BaseModel):
    """``[checks.bank]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    total: int | None = Field(
        default=None, ge=0, description="How many coins there are; left out: as many as at the first reading"
    )
    transfers: int = Field(default=20, ge=1, description="How many acknowledged transfers it takes to tell")
    reads: int = Field(default=10, ge=2, description="How many readings of all balances it takes to tell")


def check(history: History, settings: BankSettings) -> Verdict:
    """Every reading of all balances has the same players and the same sum, and no balance below zero.

    It sees ``coins`` (all balances in one snapshot) and ``transfer`` as the players record them. Between two readings a
    player's balance can only change by transfers: all that were acknowledged in between, and any that were under way or
    have no answer. So a transfer that is lost whole is seen, although it leaves the sum as it was, and so is one that
    was made twice, or by nobody.

    It cannot see what happened before the first and after the last reading. A run should read ``coins`` once before the
    first fault and once at the end. A balance that some choice of the concurrent transfers could explain passes.
    Writers other than the run's own players are not known.
    """
    facts = _Facts(history, settings)
    findings = [*doubts(history), *facts.minimum_evidence(), *facts.totals(), *facts.debts(), *facts.players()]
    findings += [*facts.clashes()]
    held = f"{facts.total:,} coins in each of {len(facts.reads):,} readings, and nobody owed any."
    return conclude(NAME, findings, held, facts.numbers())


class _Facts:
    """A history and all that is read from it once. Readings are rows, players columns."""

    def __init__(self, history: History, settings: BankSettings) -> None:
        self.history = history
        self.settings = settings
        self.transfers = once(attempted(history, "transfer"), "op")
        self.reads = answered(history, "coins")
        self.balances = [_balances(call) for call in self.reads]
        self.sums = ints([sum(balances.values()) for balances in self.balances])
        first = int(self.sums[0]) if self.reads else 0
        self.total = first if settings.total is None else settings.total

    def minimum_evidence(self) -> Iterator[Finding]:
        """Reasons to say that too little was tested."""
        yield from too_few("Acknowledged transfers", sum(call.ok for call in self.transfers), self.settings.transfers)
        yield from too_few("Readings of all balances", len(self.reads), self.settings.reads)

    def totals(self) -> Iterator[Finding]:
        """Readings with another sum, or whose sum is not the total that the site told."""
        wrong = [self.reads[place] for place in np.flatnonzero(self.sums != self.total)]
        if wrong:
            had = [f"{sum(_balances(call).values()):,} at {moment(call.start)}" for call in wrong]
            yield invalid(f"There are {self.total:,} coins, and readings had {named(had)}.", *_ops(wrong))
        untrue = [call for call, told in zip(self.reads, self.sums, strict=True) if call.number("total") != told]
        if untrue:
            yield invalid(
                f"{len(untrue):,} readings told a total that is not the sum of their balances.", *_ops(untrue)
            )

    def debts(self) -> Iterator[Finding]:
        """Balances below zero."""
        debts = [
            (call, all_)
            for call, all_ in zip(self.reads, self.balances, strict=True)
            if min(all_.values(), default=0) < 0
        ]
        if debts:
            whose = [f"{player} ({coins:,})" for _, all_ in debts for player, coins in all_.items() if coins < 0]
            yield invalid(f"Balances were below zero: of player {named(whose)}.", *_ops([call for call, _ in debts]))

    def players(self) -> Iterator[Finding]:
        """Readings with other players than the first."""
        others = [
            call
            for call, balances in zip(self.reads, self.balances, strict=True)
            if balances.keys() != self.balances[0].keys()
        ]
        if others:
            yield invalid(
                f"{len(others):,} readings had other players than the first.", *_ops([self.reads[0], *others])
            )

    def clashes(self) -> Iterator[Finding]:
        """Balances that no transfers explain."""
        players = list(dict.fromkeys(player for balances in self.balances for player in balances))
        key = {player: place for place, player in enumerate(players)}
        found = sum_bounds.clashes(self._adds(key), self._reads(key))
        whose = [reading for reading, balances in enumerate(self.balances) for _ in balances]
        for clash in found[:NAMED]:
            yield self._clash(players[clash.key], clash, whose)
        if len(found) > NAMED:
            yield unless_gaps(
                self.history, f"Of {len(found) - NAMED:,} more players no transfers explain the balances."
            )

    def _clash(self, player: int, clash: sum_bounds.Clash, whose: Sequence[int]) -> Finding:
        places = [whose[place] for place in (clash.most, clash.least) if place is not None]
        had = [f"{self.balances[place][player]:,} at {moment(self.reads[place].start)}" for place in sorted(places)]
        sentence = f"Player {player} had {' and '.join(had)} coins: {clash.by:,} off from what transfers explain."
        return unless_gaps(self.history, sentence, *_ops([self.reads[place] for place in sorted(places)]))

    def _adds(self, key: Mapping[int, int]) -> sum_bounds.Adds:
        """Each transfer takes from one player and gives to another."""
        sides = [
            (key[call.number(side)], sign * call.number("coins"), call.start, call.end)
            for call in self.transfers
            for side, sign in (("from", -1), ("to", 1))
            if call.number(side) in key
        ]
        keys, amounts, begun, done = np.array(sides, dtype=np.int64).reshape(-1, 4).T
        return sum_bounds.Adds(keys, amounts, begun, done)

    def _reads(self, key: Mapping[int, int]) -> sum_bounds.Reads:
        """Each reading reads every balance."""
        keys = [ints([key[player] for player in balances]) for balances in self.balances]
        values = [ints(list(balances.values())) for balances in self.balances]
        sizes = [row.size for row in keys]
        begun, done = np.repeat(starts(self.reads), sizes), np.repeat(ends(self.reads), sizes)
        return sum_bounds.Reads(_row(keys), _row(values), begun, done, np.zeros(sum(sizes), dtype=np.int64))

    def numbers(self) -> dict[str, Any]:
        """What was measured."""
        acknowledged = [call for call in self.transfers if call.ok]
        return {
            "coins": self.total,
            "players": len(self.balances[0]) if self.balances else 0,
            "transfers": len(self.transfers),
            "acknowledged": len(acknowledged),
            "nobody_knows": len(self.transfers) - len(acknowledged),
            "coins_moved": sum(call.number("coins") for call in acknowledged),
            "readings": len(self.reads),
            "least_balance": min((min(all_.values(), default=0) for all_ in self.balances), default=None),
        }


def _balances(call: Call) -> dict[int, int]:
    """Each player's coins. Raises HistoryError."""
    table = call.told["balances"]
    if not isinstance(table, dict) or not all(str(player).isdecimal() for player in table):
        raise HistoryError(f"op {call.told.index} (coins): its balances cannot be read")
    return {int(player): number(call.told, "balance", coins) for player, coins in table.items()}


def _row(parts: Sequence[Ints]) -> Ints:
    return np.concatenate(parts) if parts else ints([])


def _ops(some: Sequence[Call]) -> tuple[int, ...]:
    """The completions of the first few: they hold the balances."""
    return tuple(call.told.index for call in some[:SHOWN])
