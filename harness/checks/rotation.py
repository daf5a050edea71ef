"""Does the resolver give each virtual IP first as often as the others, and always all of them?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from harness.algorithms.chi_square import evenness, needed
from harness.history import History, HistoryError, Pair
from harness.history.injections import Stretch, injections, interval_at, subtract, unproven
from harness.history.timeline import MS, moment, silences, watched
from harness.verdict import Finding, Verdict, conclude, invalid, unknown

NAME = "rotation"

SHOWN = 10
NO_ERROR = frozenset({0, "0", "NOERROR"})
"""RCODE 0 (RFC 1035, 4.1.1), as a number or by its name."""


class RotationSettings(BaseModel):
    """``[checks.rotation]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    short_percent: float = Field(
        default=50, gt=0, le=100, description="The shortage of one address that the answers must be able to show"
    )
    tolerated_percent: float = Field(
        default=20, ge=0, description="Unevenness as of one address that is so much short is never held against it"
    )
    alpha: float = Field(default=0.001, gt=0, lt=0.5, description="The chance of a false alarm")
    power: float = Field(default=0.9, gt=0.5, lt=1, description="The chance that it sees such a shortage")
    settle_ms: float = Field(default=2000, ge=0, description="How long after the undo of a fault nothing is judged")
    stop_ms: float = Field(default=3000, gt=0, description="The longest time without a query")
    block_ms: float = Field(default=5000, gt=0, description="Blocks of time, to see how much counts vary by themselves")


def check(history: History, settings: RotationSettings) -> Verdict:
    """Every answer has all virtual IPs, in a rotation of one list, and each of them is first as often.

    It sees the raw answers to one query every 250 ms (``getaddrinfo`` would sort them). Each answer must be the list of
    VIPs, turned by any number of places: other clients' queries turn it on between ours, so the steps are not judged.
    None may be empty. Whether each VIP is first as often is a chi-square test, with a floor for the size of the effect.

    Answers under faults of the resolver or of the network around it are not judged, and a query without an answer
    never is: it is counted. Other clients who ask in step with the probe can hide a rotation from it. So where there
    are users, uneven answers are invalid only if the users were sent to the same address as well, else unknown.
    """
    facts = _Facts(history, settings)
    findings = [*facts.witnesses(), *facts.wrong(), *facts.split()]
    held = (
        f"All of {len(facts.judged):,} answers had all {len(history.cluster.vips)} virtual IPs, in turn: first were "
        f"{_told(facts.first)}."
    )
    numbers = {
        "answers": len(facts.judged),
        "not_judged": len(facts.answered) - len(facts.judged),
        "unanswered": facts.unanswered,
        "first": {vip: {"answers": facts.first[vip]} for vip in history.cluster.vips},
    }
    return conclude(NAME, findings, held, numbers, _ends(facts.judged))


class _Facts:
    """A history and all that is read from it once."""

    def __init__(self, history: History, settings: RotationSettings) -> None:
        self.history, self.settings = history, settings
        self.vips = tuple(history.cluster.vips)
        pairs = history.pairs("dns")
        self.sends = [pair.invoke.time for pair in pairs]
        self.answered = [pair for pair in pairs if pair.ok]
        self.unanswered = len(pairs) - len(self.answered)
        self.about = [one for one in injections(history, settings.settle_ms) if _concerns(one.fault, one.targets)]
        end = max(history.end_ns, 1)
        self.calm: list[Stretch] = subtract([(0, end)], [(one.start, one.settled) for one in self.about])
        self.judged = [pair for pair in self.answered if self._calm(pair)]
        self.right = [pair for pair in self.judged if self._whole(pair)]
        self.first = Counter(_answers(pair)[0] for pair in self.right)

    def _calm(self, pair: Pair) -> bool:
        stretch = interval_at(self.calm, pair.invoke.time)
        return stretch is not None and pair.completion is not None and pair.completion.time <= stretch[1]

    def _whole(self, pair: Pair) -> bool:
        return sorted(_answers(pair)) == sorted(self.vips)

    def witnesses(self) -> Iterator[Finding]:
        """Why not all of the run can be judged."""
        if not self.history.complete:
            yield unknown("The run was killed: what came after is not known.")
        if not self.sends:
            yield unknown("Nobody asked the resolver.")
            return
        yield from unproven(self.about)
        until = watched(self.history)[1]
        for since, till in silences(self.sends, self.sends[0], until, round(self.settings.stop_ms * MS)):
            yield unknown(f"The resolver was not asked from {moment(since)} to {moment(till)}.")

    def wrong(self) -> Iterator[Finding]:
        """Answers that are empty, lack an address, have a strange one, or are in another order."""
        errors = [pair for pair in self.judged if _rcode(pair) not in NO_ERROR]
        empty = [pair for pair in self.judged if _rcode(pair) in NO_ERROR and not _answers(pair)]
        partial = [pair for pair in self.judged if _answers(pair) and not self._whole(pair)]
        turns = _rotations(_answers(self.right[0])) if self.right else set()
        shuffled = [pair for pair in self.right if tuple(_answers(pair)) not in turns]
        for some, what in (
            (errors, "were errors"),
            (empty, "were empty"),
            (partial, "had not exactly all virtual IPs"),
            (shuffled, "were no rotation of the first one"),
        ):
            if some:
                at = some[0].completion or some[0].invoke
                told = f"{_rcode(some[0])}, {', '.join(_answers(some[0])) or 'nothing'}"
                yield invalid(
                    f"{len(some):,} of {len(self.judged):,} answers {what}, first at {moment(at.time)} ({told}).",
                    *_ends(some[:SHOWN]),
                )

    def split(self) -> Iterator[Finding]:
        """One address is first more often than the others."""
        columns = len(self.vips)
        if columns < 2:
            yield unknown("There is one virtual IP: nothing can take turns.")
            return
        even = evenness(self._blocks())
        draws = needed(columns, self.settings.short_percent / 100, self.settings.alpha, self.settings.power)
        takes = math.ceil(even.clumping * draws)
        floor = self.settings.tolerated_percent / 100 / (columns - 1) ** 0.5
        if even.p < self.settings.alpha and even.effect >= floor:
            sentence = f"First in the answers were {_told(self.first)}, which is not even (p = {even.p:.1e})."
            if self._users_differ():
                yield unknown(
                    f"{sentence} But users were sent to all of them: they may ask in step with the probe.",
                    *_ends(self.right),
                )
            else:
                yield invalid(sentence, *_ends(self.right))
        elif even.total < takes:
            yield unknown(
                f"{even.total:,} right answers were seen while nothing was injected, and it takes "
                f"{takes:,} to see one address {self.settings.short_percent:g}% short.",
                *_ends(self.right),
            )

    def _blocks(self) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
        place = {vip: number for number, vip in enumerate(self.vips)}
        numbers = [int(pair.invoke.time // (self.settings.block_ms * MS)) for pair in self.right]
        rows = {block: row for row, block in enumerate(dict.fromkeys(numbers))}
        blocks = np.zeros((len(rows), len(place)), dtype=np.int64)
        for pair, block in zip(self.right, numbers, strict=True):
            blocks[rows[block], place[_answers(pair)[0]]] += 1
        return blocks

    def _users_differ(self) -> bool:
        """True when users were sent to every address, each at least half as often as is even."""
        asked = [op for op in self.history.of("get") if op.type == "invoke" and interval_at(self.calm, op.time)]
        sent = Counter(op.get("vip") for op in asked)
        total = sum(sent[vip] for vip in self.vips)
        return total > 0 and min(sent[vip] for vip in self.vips) >= total / len(self.vips) / 2


def _concerns(fault: str, targets: frozenset[str]) -> bool:
    """Whether a fault is of the resolver, or may be of the way to it."""
    return fault.startswith("dns.") or not targets or bool(targets & {"resolver", "client"})


def _answers(pair: Pair) -> Sequence[str]:
    if pair.completion is None:
        return ()
    found = pair.completion["answers"]
    if not isinstance(found, list) or not all(isinstance(address, str) for address in found):
        raise HistoryError(f"op {pair.completion.index} (dns): its answers cannot be read")
    return found


def _rcode(pair: Pair) -> Any:
    rcode = pair.completion["rcode"] if pair.completion is not None else None
    return rcode if isinstance(rcode, int) else str(rcode)


def _rotations(some: Sequence[str]) -> set[tuple[str, ...]]:
    return {(*some[place:], *some[:place]) for place in range(len(some))}


def _told(first: Counter[str]) -> str:
    return ", ".join(f"{vip} {first[vip]:,}" for vip in sorted(first)) or "none"


def _ends(pairs: Sequence[Pair]) -> list[int]:
    """The completions of the first and the last few."""
    some = pairs if len(pairs) <= SHOWN else [*pairs[: SHOWN // 2], *pairs[-SHOWN // 2 :]]
    return [pair.completion.index for pair in some if pair.completion is not None]
