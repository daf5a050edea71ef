"""Did connections survive a takeover, as connection synchronization promises?"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from harness.history import History, Pair
from harness.history.client_ops import SHOWN
from harness.history.injections import injections
from harness.history.planned_load import untried
from harness.history.timeline import DOWN, MS, Holding, count_of, holdings, moment, ms
from harness.verdict import Finding, Verdict, conclude, invalid, not_tried, unknown

NAME = "established"


class EstablishedSettings(BaseModel):
    """``[checks.established]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sync_ms: float = Field(
        default=3000,
        ge=0,
        description="How long before the takeover a connection must have been used for the peer to know it",
    )
    requests: int = Field(
        default=2,
        ge=1,
        description="Number of requests that it must have carried by then: the peer learns of it at the third packet "
        "(net.ipv4.vs.sync_threshold, 3)",
    )
    settle_ms: float = Field(
        default=30_000, ge=0, description="Longest time after the takeover until a connection's next request counts"
    )
    broken: int = Field(default=0, ge=0, description="Allowed number of broken connections that the peer knew")
    connections: int = Field(default=1, ge=1, description="Minimum number of connections that the peer knew")


def check(history: History, settings: EstablishedSettings) -> Verdict:
    """With connection synchronization, a connection that the other director knows survives a takeover.

    It needs ops that name their connection (``connection`` in the value, the same text for all requests on one), and
    judges those that carried requests until shortly before the owner of their VIP went down. A connection survived when
    a request on it was answered after the takeover; it broke when its next result was a failure. One whose request
    timed out, or that was not used again, does not count.

    Without connection synchronization nothing is promised: unknown. So is a history whose ops do not name their
    connections, one without a takeover, and one in which no known connection was used again. It cannot see connections
    of clients that record nothing, nor why one broke: a real server that a fault touches at the same time breaks its
    own, and these are left out.
    """
    if not history.cluster.connection_sync:
        return conclude(NAME, [not_tried("The directors do not synchronize their connections.")], "")
    used = _used(history)
    if not used:
        nothing = [*untried(history, "keep no connection open", "kept")]
        return conclude(NAME, nothing or [unknown("No op names its connection.")], "")
    takeovers = list(_takeovers(history))
    if not takeovers:
        return conclude(NAME, [unknown("No virtual IP was taken over.")], "")
    fates = [fate for takeover in takeovers for fate in _fates(history, used, takeover, settings)]
    broken = [fate for fate in fates if fate.result == "broken"]
    survived = [fate for fate in fates if fate.result == "survived"]
    findings = [*_findings(survived, broken, settings)]
    across = count_of(len(takeovers), "takeover")
    held = f"{count_of(len(survived), 'connection')} survived {across}; {len(broken) or 'none'} broke."
    numbers = {
        "takeovers": [
            {"vip": each.vip, "from": each.owner, "to": each.heir, "fell_ms": ms(each.down), "taken_ms": ms(each.taken)}
            for each in takeovers
        ],
        "connections": {
            kind: {"connections": sum(fate.result == kind for fate in fates)}
            for kind in ("survived", "broken", "unknown")
        },
    }
    evidence = [index for fate in survived[:SHOWN] for index in fate.ops]
    return conclude(NAME, findings, held, numbers, evidence)


@dataclass(frozen=True)
class Takeover:
    """The owner of a VIP went down, and another director took it."""

    vip: str
    owner: str
    heir: str
    down: int
    taken: int


@dataclass(frozen=True)
class Fate:
    """The result of one connection: ``survived``, ``broken`` or ``unknown``."""

    connection: str
    result: str
    ops: tuple[int, ...]
    at: int


def _used(history: History) -> Mapping[tuple[str, str], list[Pair]]:
    """Each VIP and connection -> the requests on it, by time."""
    fs = dict.fromkeys(op.f for op in history if op.get("connection") is not None)
    pairs = [pair for f in fs for pair in history.pairs(f)]
    used: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in sorted(pairs, key=lambda pair: pair.invoke.time):
        latest = pair.completion or pair.invoke
        name = latest.get("connection", pair.invoke.get("connection"))
        if name is not None:
            used[str(pair.invoke.get("vip")), str(name)].append(pair)
    return used


def _takeovers(history: History) -> Iterator[Takeover]:
    for vip, spans in holdings(history).items():
        awake = [span for span in spans if not span.frozen]
        for gone in awake:
            heir = _heir(awake, gone)
            if gone.ended_by is not None and gone.ended_by.get("power") in DOWN and heir is not None:
                yield Takeover(vip, gone.what, heir.what, gone.end, heir.start)


def _heir(spans: Sequence[Holding], gone: Holding) -> Holding | None:
    later = [span for span in spans if span.start >= gone.end]
    heir = min(later, key=lambda span: span.start, default=None)
    return heir if heir is not None and heir.what != gone.what else None


def _fates(
    history: History, used: Mapping[tuple[str, str], list[Pair]], takeover: Takeover, settings: EstablishedSettings
) -> Iterator[Fate]:
    """The results of the connections that the new owner must have known."""
    known_by = takeover.down - round(settings.sync_ms * MS)
    until = takeover.taken + round(settings.settle_ms * MS)
    about = [fault for fault in injections(history) if fault.start <= until and fault.end >= takeover.down]
    for (vip, name), pairs in used.items():
        if vip != takeover.vip:
            continue
        times = [pair.invoke.time for pair in pairs]
        before = [pair for pair in pairs[: bisect_right(times, known_by)] if pair.ok and _end(pair) <= known_by]
        after = [pair for pair in pairs if pair.completion is not None and takeover.down < _end(pair) <= until]
        if len(before) < settings.requests or not after:
            continue
        node = before[-1].completion.get("node") if before[-1].completion is not None else None
        if any(fault.targets & {str(node)} for fault in about):
            continue
        yield _fate(name, before, after, takeover)


def _fate(name: str, before: Sequence[Pair], after: Sequence[Pair], takeover: Takeover) -> Fate:
    answered = next((pair for pair in after if pair.ok and _end(pair) > takeover.taken), None)
    first = after[0]
    ops = tuple(op.index for pair in (before[-1], answered or first) for op in (pair.invoke, pair.completion) if op)
    if first.completion is not None and first.completion.type == "fail":
        return Fate(name, "broken", ops, _end(first))
    if answered is not None:
        return Fate(name, "survived", ops, _end(answered))
    return Fate(name, "unknown", ops, _end(first))


def _end(pair: Pair) -> int:
    return (pair.completion or pair.invoke).time


def _findings(survived: Sequence[Fate], broken: Sequence[Fate], settings: EstablishedSettings) -> Iterator[Finding]:
    if len(broken) > settings.broken:
        yield invalid(
            f"{len(broken):,} of {len(broken) + len(survived):,} connections that the other director had to know broke "
            f"in a takeover, first at {moment(broken[0].at)}; allowed: {settings.broken:,}.",
            *(index for fate in broken[:SHOWN] for index in fate.ops),
        )
    elif len(survived) + len(broken) < settings.connections:
        yield unknown(
            f"{count_of(len(survived) + len(broken), 'connection')} that the other director had to know "
            f"{'was' if len(survived) + len(broken) == 1 else 'were'} used again after a takeover; at least "
            f"{settings.connections:,} must be."
        )
