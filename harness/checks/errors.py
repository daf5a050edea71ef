"""Which users saw errors, and how many requests failed before, during and after faults?"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.history import History, Pair
from harness.history.client_ops import SHOWN, gap_doubts, named, too_few
from harness.history.failover_budget import Budgets
from harness.history.injections import Injection, failed_servers, injections, unproven
from harness.history.intervals import Intervals, silences
from harness.history.latency import asked, asked_again, refused
from harness.history.pace import slowdown, too_slow
from harness.history.planned_load import planned_ops
from harness.history.served import UNSIGNED, foreign, signs
from harness.history.timeline import MS, count_of, moment, ms, watched
from harness.verdict import Finding, Verdict, conclude, invalid, not_tried, unknown

NAME = "errors"

WINDOWS = ("before", "during", "settling", "after")
"""Before the first fault; while a fault is active; until the cluster is steady again; at all other times."""

CALM = ("before", "after")

BAD = ("failed", "indeterminate")

LETTERS = 100
"""How many characters of an error's text distinguish one kind of error from another."""


class ErrorsSettings(BaseModel):
    """``[checks.errors]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    failed: int = Field(
        default=0, ge=0, description="Maximum number of failed requests outside of faults and their settling"
    )
    indeterminate: int = Field(
        default=0,
        ge=0,
        description="Maximum number of requests without an answer outside of faults and their settling",
    )
    during_percent: float = Field(
        default=100,
        ge=0,
        le=100,
        description="Maximum share of requests that fail or get no answer during faults and their settling",
    )
    settle_ms: float = Field(
        default=5000,
        ge=0,
        description="How long after the undo of a fault errors still count as its effect; in any case until the end of "
        "the first step with a deadline after it",
    )
    out_ms: float | None = Field(
        default=None,
        gt=0,
        description="Time from the failure of real servers until nobody may see it any more; default: what ldirectord "
        "may take to notice it + margin_ms",
    )
    margin_ms: float = Field(
        default=3000, ge=0, description="Added to that default: a round of checks of sound servers on this machine"
    )
    out_of_service: int = Field(
        default=0, ge=0, description="Maximum number of bad requests after that time and before the undo begins"
    )
    requests: int = Field(default=50, ge=1, description="Minimum number of requests outside of faults")
    requests_during: int = Field(
        default=1, ge=0, description="Minimum number of requests during faults, if there are any"
    )
    stop_ms: float = Field(default=15_000, gt=0, description="Maximum time without a request")


def check(history: History, settings: ErrorsSettings) -> Verdict:
    """Requests fail only while a fault is active or settling, and then no more of them than allowed.

    The check counts every request of the load by its result, by the kind of error, and by the window that it fell into:
    a request belongs to ``during`` if any moment of it does, otherwise to ``settling`` in the same way. Three things
    are not errors: a refusal for a good reason (no such upload, not enough coins), a request that was in progress when
    the load ended, and an address that accepted no connection if the client tried the next address at once (``again``),
    because the user saw only the last result.

    Errors must also end while a fault lasts: once the directors had to take a failed real server out of service,
    whoever sends a request gets another one. That is judged from then on until the undo begins, as far as no other
    fault is active or settling. Three things are excused: the first real server, which serves the files of all; a
    persistent virtual service, whose clients may stay; a connection older than the failure. What is late on a machine
    that was more than twice slower than before the run, or was not measured, is unknown.

    An answer with a good status that no real server signed (``X-Node``), such as ldirectord's fallback page, is an
    error, unless no answer of the run is signed.

    The check cannot see requests that were never sent: users who wait for an answer send none, so a long outage costs
    them few requests and much time. The check ``outage`` measures that time. Nor does this check judge whether a
    signed answer was right.
    """
    if planned_ops(history) == frozenset() and not asked(history):
        return conclude(NAME, [not_tried("The run had no users.")], "")
    requests = _Requests(history, settings)
    findings = [
        *requests.doubts(),
        *requests.outside(),
        *requests.out_of_service(),
        *requests.during(),
        *requests.minimum_evidence(),
    ]
    return conclude(NAME, findings, "" if findings else requests.held(), requests.numbers(), requests.evidence())


@dataclass(frozen=True, slots=True)
class Request:
    """One request, its result (``ok``, ``refused``, ``again``, ``failed``, ``indeterminate``), and its window."""

    pair: Pair
    result: str
    window: str

    @property
    def user(self) -> str:
        """The user who sent it."""
        return self.pair.invoke.process

    @property
    def error(self) -> str:
        """The kind of error, as the client described it."""
        completion = self.pair.completion
        if completion is not None and completion.type == "ok":
            return UNSIGNED
        return ((completion.error if completion else None) or "no answer")[:LETTERS]

    @property
    def ops(self) -> tuple[int, ...]:
        """The indexes of its ops."""
        return tuple(op.index for op in (self.pair.invoke, self.pair.completion) if op is not None)


class _Requests:
    """The requests of a run and the windows of its faults."""

    def __init__(self, history: History, settings: ErrorsSettings) -> None:
        self.history, self.settings = history, settings
        self.injections = injections(history, settings.settle_ms)
        self.first_ns = min((fault.start for fault in self.injections), default=2**62)
        self.faults = Intervals((fault.start, fault.end) for fault in self.injections)
        self.settling = Intervals((fault.end, fault.settled) for fault in self.injections)
        pairs = [pair for pairs in asked(history).values() for pair in pairs]
        web = history.cluster.web
        signed = signs(pairs, web)
        self.foreign = {pair.invoke.index for pair in pairs if signed and pair.ok and foreign(pair.completion, web)}
        self.all = list(self._requests())
        self.bad = [request for request in self.all if request.result in BAD]
        self.results = {window: Counter[str]() for window in WINDOWS}
        for request in self.all:
            self.results[request.window][request.result] += 1

    def _requests(self) -> Iterator[Request]:
        """All requests with a result, by time."""
        pairs = (pair for pairs in asked(self.history).values() for pair in pairs)
        for pair in sorted(pairs, key=lambda pair: (pair.invoke.time, pair.invoke.index)):
            result = "failed" if pair.invoke.index in self.foreign else _result(pair)
            if result:
                yield Request(pair, result, self._window(pair))

    def _window(self, pair: Pair) -> str:
        start, end = pair.invoke.time, (pair.completion or pair.invoke).time
        if self.faults.overlaps(start, end):
            return "during"
        if self.settling.overlaps(start, end):
            return "settling"
        return "before" if start < self.first_ns else "after"

    # --- what is wrong

    def doubts(self) -> Iterator[Finding]:
        """Reasons why not all requests are known."""
        yield from gap_doubts(self.history, "users may have seen more errors")
        yield from unproven(self.injections)
        sends = [request.pair.invoke.time for request in self.all]
        if sends:
            for since, till in silences(sends, sends[0], watched(self.history)[1], round(self.settings.stop_ms * MS)):
                yield unknown(f"No user sent a request from {moment(since)} to {moment(till)}.")

    def outside(self) -> Iterator[Finding]:
        """Errors that no fault explains."""
        for result, allowed, verb in (
            ("failed", self.settings.failed, "failed"),
            ("indeterminate", self.settings.indeterminate, "got no answer"),
        ):
            bad = [request for request in self.bad if request.result == result and request.window in CALM]
            if len(bad) > allowed:
                users = sorted({request.user for request in bad}, key=_number)
                limit = f"; {allowed:,} {'is' if allowed == 1 else 'are'} allowed" if allowed else ""
                yield invalid(
                    f"{count_of(len(bad), 'request')} {verb} while no fault was active, first at "
                    f"{moment(bad[0].pair.invoke.time)} ({_common_errors(bad)}; {named(users)}){limit}.",
                    *(index for request in bad[:SHOWN] for index in request.ops),
                )

    def out_of_service(self) -> Iterator[Finding]:
        """Errors that users saw although the failed real servers had to be out of service."""
        if self.history.cluster.persistence_s:
            return
        for fault in self.injections:
            failed = failed_servers(self.history, fault)
            if fault.sure is None or not failed or self.history.cluster.web[0] in fault.targets | failed:
                continue
            since, undoing = fault.sure
            slow = slowdown(self.history, since, undoing)
            noticed = since + round(self.out_ms(len(failed), slow or 1.0) * MS)
            others = [(each.start, each.settled) for each in self.injections if each is not fault]
            alone = Intervals([(noticed, undoing)] if noticed < undoing else []).minus(others)
            bad = [
                request for request in self.bad if request.pair.invoke.time in alone and not self.old(request, since)
            ]
            if len(bad) > self.settings.out_of_service:
                yield self.still_seen(bad, fault, failed, noticed, too_slow(slow))

    def still_seen(
        self, bad: Sequence[Request], fault: Injection, failed: Collection[str], noticed: int, slow: str
    ) -> Finding:
        """The finding for such errors."""
        sentence = (
            f"{count_of(len(bad), 'request')} failed or got no answer after {named(sorted(failed))} ({fault.fault}) "
            f"had to be out of service, from {moment(noticed)} on, first at {moment(bad[0].pair.invoke.time)} "
            f"({_common_errors(bad)})"
        )
        ops = [index for request in bad[:SHOWN] for index in request.ops]
        return unknown(f"{sentence}; but {slow}.", *ops) if slow else invalid(f"{sentence}.", *ops)

    def out_ms(self, failed: int, slow: float) -> float:
        """How long users may see the failure of real servers, in ms."""
        if self.settings.out_ms is not None:
            return self.settings.out_ms
        return Budgets.of(self.history).notice(failed, self.settings.margin_ms).ms(slow)

    def old(self, request: Request, since: int) -> bool:
        """True when its connection may be older than the failure: the user had sent nothing since."""
        sent = self.sent[request.user]
        place = bisect_left(sent, request.pair.invoke.time)
        return place > 0 and sent[place - 1] < since

    @cached_property
    def sent(self) -> dict[str, list[int]]:
        """Each user -> when their requests were sent, in order."""
        found: dict[str, list[int]] = defaultdict(list)
        for request in self.all:
            found[request.user].append(request.pair.invoke.time)
        return found

    def during(self) -> Iterator[Finding]:
        """More errors during faults than allowed."""
        disturbed = [request for request in self.all if request.window not in CALM]
        bad = [request for request in disturbed if request.result in BAD]
        percent = 100 * len(bad) / max(1, len(disturbed))
        if percent > self.settings.during_percent:
            yield invalid(
                f"{percent:.2f} % of {count_of(len(disturbed), 'request')} failed or got no answer while faults were "
                f"active or settling ({_common_errors(bad)}); {self.settings.during_percent:g} % is allowed.",
                *(index for request in bad[:SHOWN] for index in request.ops),
            )

    def minimum_evidence(self) -> Iterator[Finding]:
        """Reasons why the run tested too little."""
        yield from too_few("Requests while no fault was active", self._total(*CALM), self.settings.requests)
        if self.injections:
            yield from too_few("Requests during faults", self._total("during"), self.settings.requests_during)

    def _total(self, *windows: str) -> int:
        return sum(sum(self.results[window].values()) for window in windows)

    # --- the verdict

    def held(self) -> str:
        """The sentence of a valid verdict."""
        bad = Counter(request.window for request in self.bad)
        calm = bad["before"] + bad["after"]
        failed = f"{calm:,} of {count_of(self._total(*CALM), 'request')}" if calm else "No request"
        if not self.injections:
            return f"{failed} failed; the run had no faults."
        users = len({request.user for request in self.bad if request.window not in CALM})
        return (
            f"{failed} failed while no fault was active; {bad['during']:,} of {self._total('during'):,} failed during "
            f"faults and {bad['settling']:,} of {self._total('settling'):,} while they settled, affecting "
            f"{count_of(users, 'user')}."
        )

    def numbers(self) -> dict[str, Any]:
        """What was measured."""
        groups: dict[tuple[str, str, str, str], list[Request]] = defaultdict(list)
        for request in self.bad:
            groups[request.window, request.pair.invoke.f, request.result, request.error].append(request)
        return {
            "windows": {
                window: {
                    result: self.results[window][result]
                    for result in ("ok", "refused", "again", "failed", "indeterminate")
                }
                for window in WINDOWS
            },
            "errors": [
                {
                    "window": window,
                    "f": f,
                    "result": result,
                    "error": error,
                    "requests": len(requests),
                    "users": len({request.user for request in requests}),
                    "first_ms": ms(requests[0].pair.invoke.time),
                }
                for (window, f, result, error), requests in sorted(groups.items(), key=_by_window)
            ],
            "users": self._users(),
        }

    def _users(self) -> dict[str, dict[str, int]]:
        """Each user who saw an error, and the results of their requests."""
        table: dict[str, Counter[str]] = defaultdict(Counter)
        for request in self.all:
            table[request.user][request.result] += 1
        affected = sorted({request.user for request in self.bad}, key=_number)
        return {user: {result: table[user][result] for result in ("ok", *BAD)} for user in affected}

    def evidence(self) -> Sequence[int]:
        """The first errors of the run."""
        return [index for request in self.bad[:SHOWN] for index in request.ops]


def _result(pair: Pair) -> str:
    """The result of a request; empty for one that was in progress when the load ended."""
    completion = pair.completion
    if completion is None or completion.error == "stopped":
        return ""
    if completion.type == "ok":
        return "ok"
    if asked_again(pair):
        return "again"
    if completion.type == "fail":
        return "refused" if refused(pair) else "failed"
    return "indeterminate"


def _common_errors(requests: Sequence[Request]) -> str:
    """The most frequent errors."""
    common = Counter(request.error for request in requests).most_common(3)
    return ", ".join(f"{error}: {count:,}" for error, count in common)


def _by_window(group: tuple[tuple[str, str, str, str], Sequence[Request]]) -> tuple[int, int]:
    (window, *_), requests = group
    return WINDOWS.index(window), -len(requests)


def _number(user: str) -> tuple[int, str]:
    digits = user.rpartition(":")[2]
    return (int(digits) if digits.isdecimal() else -1, user)
