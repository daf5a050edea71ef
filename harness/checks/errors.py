"""Which users saw what: how many requests failed, before, while, and after something was injected?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.history import History, Pair
from harness.history.client_ops import SHOWN, gap_doubts, named, too_few
from harness.history.injections import injections, merged, overlaps, unproven
from harness.history.latency import asked, asked_again
from harness.history.timeline import MS, count_of, moment, ms, silences, watched
from harness.verdict import Finding, Verdict, conclude, invalid, unknown

NAME = "errors"

WINDOWS = ("before", "during", "settling", "after")
"""Before the first fault; while one is in; until the cluster is steady again; at all other times."""

REFUSALS = frozenset({404, 409})
"""What the site answers when it is right to refuse: no such upload, not enough coins. It says so (``written``)."""

LETTERS = 100
"""How much of an error's text tells one kind of error from another."""


class ErrorsSettings(BaseModel):
    """``[checks.errors]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    failed: int = Field(default=0, ge=0, description="How many requests may fail while nothing is injected or settling")
    indeterminate: int = Field(
        default=0,
        ge=0,
        description="How many requests may stay without an answer while nothing is injected or settling",
    )
    during_percent: float = Field(
        default=100,
        ge=0,
        le=100,
        description="The largest share of requests that may fail or stay without an answer while something is",
    )
    settle_ms: float = Field(
        default=5000,
        ge=0,
        description="How long after the undo of a fault errors are still put down to it; it is also waited for the end "
        "of the first step with a deadline after it",
    )
    requests: int = Field(default=50, ge=1, description="How many requests outside of faults it takes to tell")
    requests_during: int = Field(default=1, ge=0, description="How many during faults, where there were any")
    stop_ms: float = Field(default=15_000, gt=0, description="The longest time in which no user asks for anything")


def check(history: History, settings: ErrorsSettings) -> Verdict:
    """No request of a user fails but while a fault is in or settles, and then no more than are allowed to.

    It counts every request of the load by what came of it, by the kind of error, and by the window that it fell into: a
    request belongs to ``during`` when any moment of it does, else to ``settling`` alike. Refusals that the site is
    right to give (no such upload, not enough coins) are no errors. Nor is what was under way when the load ended. Nor
    is an address that took no connection where the client asked the next one at once (``again``): its user saw what
    that one said.

    It cannot see requests that nobody made: users who wait for an answer ask nothing, so a long outage costs them few
    requests and much time. How long it was is for the outage check. Nor does it judge whether an answer was right.
    """
    facts = _Facts(history, settings)
    findings = [*facts.doubts(), *facts.outside(), *facts.during(), *facts.minimum_evidence()]
    return conclude(NAME, findings, facts.held() if not findings else "", facts.numbers(), facts.evidence())


@dataclass(frozen=True)
class Seen:
    """One request, what came of it (``ok``, ``refused``, ``again``, ``failed``, ``indeterminate``), and when it was."""

    pair: Pair
    kind: str
    window: str

    @property
    def user(self) -> str:
        """Who asked."""
        return self.pair.invoke.process

    @property
    def error(self) -> str:
        """The kind of error, in the words of whoever saw it."""
        completion = self.pair.completion
        return ((completion.error if completion else None) or "no answer")[:LETTERS]

    @property
    def ops(self) -> tuple[int, ...]:
        """The indexes of its ops."""
        return tuple(op.index for op in (self.pair.invoke, self.pair.completion) if op is not None)


class _Facts:
    """A history and all that is read from it once."""

    def __init__(self, history: History, settings: ErrorsSettings) -> None:
        self.history, self.settings = history, settings
        self.injections = injections(history, settings.settle_ms)
        self.first_ns = min((one.start for one in self.injections), default=2**62)
        self.faults = merged((one.start, one.end) for one in self.injections)
        self.settling = merged((one.end, one.settled) for one in self.injections)
        self.seen = list(self._seen())
        self.bad = [one for one in self.seen if one.kind in {"failed", "indeterminate"}]
        self.kinds = {window: Counter[str]() for window in WINDOWS}
        for one in self.seen:
            self.kinds[one.window][one.kind] += 1

    def _seen(self) -> Iterator[Seen]:
        """All requests that came to something, by time."""
        pairs = (pair for some in asked(self.history).values() for pair in some)
        for pair in sorted(pairs, key=lambda pair: (pair.invoke.time, pair.invoke.index)):
            kind = _kind(pair)
            if kind:
                yield Seen(pair, kind, self._window(pair))

    def _window(self, pair: Pair) -> str:
        start, end = pair.invoke.time, (pair.completion or pair.invoke).time
        if overlaps(self.faults, start, end):
            return "during"
        if overlaps(self.settling, start, end):
            return "settling"
        return "before" if start < self.first_ns else "after"

    # --- what is wrong

    def doubts(self) -> Iterator[Finding]:
        """Why not all requests are known."""
        if not self.history.complete:
            yield unknown("The run was killed: what came after is not known.")
        yield from gap_doubts(self.history, "users may have seen more")
        yield from unproven(self.injections)
        sends = [one.pair.invoke.time for one in self.seen]
        if sends:
            for since, till in silences(sends, sends[0], watched(self.history)[1], round(self.settings.stop_ms * MS)):
                yield unknown(f"No user asked for anything from {moment(since)} to {moment(till)}.")

    def outside(self) -> Iterator[Finding]:
        """Errors that nothing explains."""
        for kind, allowed, word in (
            ("failed", self.settings.failed, "failed"),
            ("indeterminate", self.settings.indeterminate, "stayed without an answer"),
        ):
            bad = [one for one in self.bad if one.kind == kind and one.window in {"before", "after"}]
            if len(bad) > allowed:
                ops = [index for one in bad[:SHOWN] for index in one.ops]
                users = sorted({one.user for one in bad}, key=_number)
                yield invalid(
                    f"{count_of(len(bad), 'request')} {word} while nothing was injected, first at "
                    f"{moment(bad[0].pair.invoke.time)} ({_kinds(bad)}; {named(users)}); allowed are {allowed:,}.",
                    *ops,
                )

    def during(self) -> Iterator[Finding]:
        """More errors than faults may cost."""
        some = [one for one in self.seen if one.window in {"during", "settling"}]
        bad = [one for one in some if one.kind in {"failed", "indeterminate"}]
        percent = 100 * len(bad) / max(1, len(some))
        if percent > self.settings.during_percent:
            yield invalid(
                f"{percent:.2f}% of {len(some):,} requests failed or stayed without an answer while faults were in or "
                f"settling ({_kinds(bad)}); allowed are {self.settings.during_percent:g}%.",
                *(index for one in bad[:SHOWN] for index in one.ops),
            )

    def minimum_evidence(self) -> Iterator[Finding]:
        """Why too little was tested."""
        calm = sum(self.kinds["before"].values()) + sum(self.kinds["after"].values())
        yield from too_few("Requests while nothing was injected", calm, self.settings.requests)
        if self.injections:
            told = sum(self.kinds["during"].values())
            yield from too_few("Requests while a fault was in", told, self.settings.requests_during)

    # --- what is said

    def held(self) -> str:
        """The sentence of a valid verdict."""
        bad = Counter(one.window for one in self.bad)
        allowed = self.settings.failed + self.settings.indeterminate
        calm_bad = count_of(bad["before"] + bad["after"], "request")
        calm = f"{calm_bad} of {_total(self.kinds, 'before', 'after'):,} went wrong"
        quiet = f"{calm} while nothing was injected" if allowed else "No request went wrong while nothing was injected"
        if not self.injections:
            return f"{quiet}; nothing was."
        users = len({one.user for one in self.bad if one.window in {"during", "settling"}})
        return (
            f"{quiet}; {bad['during']:,} of {_total(self.kinds, 'during'):,} did during faults and "
            f"{bad['settling']:,} of {_total(self.kinds, 'settling'):,} afterwards, seen by {users:,} users."
        )

    def numbers(self) -> dict[str, Any]:
        """What was measured."""
        groups: dict[tuple[str, str, str, str], list[Seen]] = defaultdict(list)
        for one in self.bad:
            groups[one.window, one.pair.invoke.f, one.kind, one.error].append(one)
        return {
            "windows": {
                window: {
                    kind: self.kinds[window][kind] for kind in ("ok", "refused", "again", "failed", "indeterminate")
                }
                for window in WINDOWS
            },
            "errors": [
                {
                    "window": window,
                    "f": f,
                    "came_to": kind,
                    "error": error,
                    "requests": len(some),
                    "users": len({one.user for one in some}),
                    "first_ms": ms(some[0].pair.invoke.time),
                }
                for (window, f, kind, error), some in sorted(groups.items(), key=_by_window)
            ],
            "users": self._users(),
        }

    def _users(self) -> dict[str, dict[str, int]]:
        """Each user who saw an error, and what of."""
        table: dict[str, Counter[str]] = defaultdict(Counter)
        for one in self.seen:
            table[one.user][one.kind] += 1
        unlucky = sorted({one.user for one in self.bad}, key=_number)
        kinds = ("ok", "failed", "indeterminate")
        return {user: {kind: table[user][kind] for kind in kinds} for user in unlucky}

    def evidence(self) -> Sequence[int]:
        """The first errors, whenever they were."""
        return [index for one in self.bad[:SHOWN] for index in one.ops]


def _kind(pair: Pair) -> str:
    """What came of a request; empty for one that the end of the load broke off."""
    completion = pair.completion
    if completion is None or completion.error == "stopped":
        return ""
    if completion.type == "ok":
        return "ok"
    if asked_again(pair):
        return "again"
    if completion.type == "fail":
        rightly = completion.get("status") in REFUSALS and completion.get("written") == "no"
        return "refused" if rightly else "failed"
    return "indeterminate"


def _kinds(some: Sequence[Seen]) -> str:
    """The commonest errors."""
    common = Counter(one.error for one in some).most_common(3)
    return ", ".join(f"{error}: {count:,}" for error, count in common)


def _by_window(group: tuple[tuple[str, str, str, str], Sequence[Seen]]) -> tuple[int, int]:
    (window, *_), some = group
    return WINDOWS.index(window), -len(some)


def _number(user: str) -> tuple[int, str]:
    digits = user.rpartition(":")[2]
    return (int(digits) if digits.isdecimal() else -1, user)


def _total(kinds: Mapping[str, Counter[str]], *windows: str) -> int:
    return sum(sum(kinds[window].values()) for window in windows)
