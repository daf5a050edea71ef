"""Does the resolver list each virtual IP first equally often, and always list all of them?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from harness.algorithms.chi_square import evenness, needed
from harness.history import History, HistoryError, Pair
from harness.history.injections import Injection, injections, unproven
from harness.history.intervals import Intervals, silences
from harness.history.timeline import MS, moment, watched
from harness.verdict import Finding, Verdict, conclude, invalid, not_tried, unknown

NAME = "rotation"

SHOWN = 10
NO_ERROR = frozenset({0, "0", "NOERROR"})
"""RCODE 0 (RFC 1035, 4.1.1), as a number or by its name."""


class RotationSettings(BaseModel):
    """``[checks.rotation]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    short_percent: float = Field(
        default=50, gt=0, le=100, description="Shortage of one address that the answers must be able to show"
    )
    tolerated_percent: float = Field(
        default=20, ge=0, description="Unevenness that is ignored, as the shortage of one address"
    )
    alpha: float = Field(default=0.001, gt=0, lt=0.5, description="Probability of a false alarm")
    power: float = Field(default=0.9, gt=0.5, lt=1, description="Probability that it detects such a shortage")
    settle_ms: float = Field(default=2000, ge=0, description="Grace period after the undo of a fault")
    stop_ms: float = Field(default=3000, gt=0, description="Longest time without a query")
    block_ms: float = Field(
        default=5000, gt=0, description="Length of the blocks of time that show how much counts vary on their own"
    )


def check(history: History, settings: RotationSettings) -> Verdict:
    """Every answer lists all virtual IPs, as a rotation of one list, and each of them is first equally often.

    It sees the raw answers to one query every 250 ms (``getaddrinfo`` would sort them). Each answer must be the list of
    VIPs, rotated by any number of places: other clients' queries rotate it between ours, so the steps are not judged.
    None may be empty. A chi-square test, with a floor for the size of the effect, tells whether each VIP is first
    equally often.

    Answers under faults of the resolver or of the network around it are not judged. Queries without an answer are
    counted and never judged. Other clients that ask in step with the probe can hide a rotation from it. So with users,
    uneven answers are invalid only if the users were sent to the same address as well; otherwise they are unknown.
    """
    judge = _RotationJudge(history, settings)
    findings = [*judge.blindness(), *judge.wrong(), *judge.uneven()]
    held = (
        f"All {len(judge.judged):,} answers listed all {len(history.cluster.vips)} virtual IPs in rotation; listed "
        f"first: {_listed(judge.first)}."
    )
    numbers = {
        "answers": len(judge.judged),
        "not_judged": len(judge.answered) - len(judge.judged),
        "unanswered": judge.unanswered,
        "first": {vip: {"answers": judge.first[vip]} for vip in history.cluster.vips},
    }
    return conclude(NAME, findings, held, numbers, _ends(judge.judged))


class _RotationJudge:
    """Judges the resolver's answers outside of faults that concern it."""

    def __init__(self, history: History, settings: RotationSettings) -> None:
        self.history, self.settings = history, settings
        self.vips = tuple(history.cluster.vips)
        pairs = history.pairs("dns")
        self.sends = [pair.invoke.time for pair in pairs]
        self.answered = [pair for pair in pairs if pair.ok]
        self.unanswered = len(pairs) - len(self.answered)
        self.about = [fault for fault in injections(history, settings.settle_ms) if _concerns(fault)]
        end = max(history.end_ns, 1)
        self.calm = Intervals([(0, end)]).minus((fault.start, fault.settled) for fault in self.about)
        self.judged = [pair for pair in self.answered if self._calm(pair)]
        self.right = [pair for pair in self.judged if self._whole(pair)]
        self.first = Counter(_answers(pair)[0] for pair in self.right)

    def _calm(self, pair: Pair) -> bool:
        stretch = self.calm.at(pair.invoke.time)
        return stretch is not None and pair.completion is not None and pair.completion.time <= stretch[1]

    def _whole(self, pair: Pair) -> bool:
        return sorted(_answers(pair)) == sorted(self.vips)

    def blindness(self) -> Iterator[Finding]:
        """Times without queries, and faults without proof."""
        if not self.sends:
            yield unknown("The resolver was never asked.")
            return
        yield from unproven(self.about)
        until = watched(self.history)[1]
        for since, till in silences(self.sends, self.sends[0], until, round(self.settings.stop_ms * MS)):
            yield unknown(f"The resolver was not asked from {moment(since)} to {moment(till)}.")

    def wrong(self) -> Iterator[Finding]:
        """Answers that are empty, lack an address, have another one, or are in another order."""
        errors = [pair for pair in self.judged if _rcode(pair) not in NO_ERROR]
        empty = [pair for pair in self.judged if _rcode(pair) in NO_ERROR and not _answers(pair)]
        partial = [pair for pair in self.judged if _answers(pair) and not self._whole(pair)]
        turns = _rotations(_answers(self.right[0])) if self.right else set()
        shuffled = [pair for pair in self.right if tuple(_answers(pair)) not in turns]
        for bad, what in (
            (errors, "were errors"),
            (empty, "were empty"),
            (partial, "did not list exactly the virtual IPs"),
            (shuffled, "were not a rotation of the first one"),
        ):
            if bad:
                at = bad[0].completion or bad[0].invoke
                answer = f"{_rcode(bad[0])}, {', '.join(_answers(bad[0])) or 'no address'}"
                yield invalid(
                    f"{len(bad):,} of {len(self.judged):,} answers {what}, first at {moment(at.time)} ({answer}).",
                    *_ends(bad[:SHOWN]),
                )

    def uneven(self) -> Iterator[Finding]:
        """An address that is first more often than the others."""
        columns = len(self.vips)
        if columns < 2:
            yield not_tried("There is only one virtual IP, so nothing can rotate.")
            return
        even = evenness(self._blocks())
        draws = needed(columns, self.settings.short_percent / 100, self.settings.alpha, self.settings.power)
        takes = math.ceil(even.clumping * draws)
        floor = self.settings.tolerated_percent / 100 / (columns - 1) ** 0.5
        if even.p < self.settings.alpha and even.effect >= floor:
            sentence = f"The addresses were not first equally often: {_listed(self.first)} (p = {even.p:.1e})."
            if self._users_differ():
                yield unknown(
                    f"{sentence} But users were sent to all of them; they may ask in step with the probe.",
                    *_ends(self.right),
                )
            else:
                yield invalid(sentence, *_ends(self.right))
        elif even.total < takes:
            yield unknown(
                f"There were {even.total:,} correct answers while nothing was injected; {takes:,} are needed to show "
                f"that one address is {self.settings.short_percent:g}% short.",
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
        """True when users were sent to every address, each at least half as often as in an even split."""
        asked = [op for op in self.history.of("get") if op.type == "invoke" and op.time in self.calm]
        sent = Counter(op.get("vip") for op in asked)
        total = sum(sent[vip] for vip in self.vips)
        return total > 0 and min(sent[vip] for vip in self.vips) >= total / len(self.vips) / 2


def _concerns(fault: Injection) -> bool:
    """Whether a fault may affect the resolver, or the way to it."""
    return not fault.targets or bool(fault.targets & {"resolver", "client"})


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


def _rotations(addresses: Sequence[str]) -> set[tuple[str, ...]]:
    return {(*addresses[place:], *addresses[:place]) for place in range(len(addresses))}


def _listed(first: Counter[str]) -> str:
    return ", ".join(f"{vip} {first[vip]:,}" for vip in sorted(first)) or "none"


def _ends(pairs: Sequence[Pair]) -> list[int]:
    """The completions of the first and the last few."""
    ends = pairs if len(pairs) <= SHOWN else [*pairs[: SHOWN // 2], *pairs[-SHOWN // 2 :]]
    return [pair.completion.index for pair in ends if pair.completion is not None]
