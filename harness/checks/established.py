"""Did connections live across a takeover, as connection sync promises?"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from harness.history import History, Pair
from harness.history.client_ops import SHOWN
from harness.history.injections import injections
from harness.history.timeline import DOWN, MS, Holding, count_of, holdings, moment, ms
from harness.verdict import Finding, Verdict, conclude, invalid, unknown

NAME = "established"


class EstablishedSettings(BaseModel):
    """``[checks.established]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sync_ms: float = Field(
        default=3000,
        ge=0,
        description="How long before the takeover a connection must have been used for its peer to know it",
    )
    requests: int = Field(
        default=2,
        ge=1,
        description="How many requests it must have carried by then: the peer is told at the third packet "
        "(net.ipv4.vs.sync_threshold, 3)",
    )
    settle_ms: float = Field(
        default=30_000, ge=0, description="How long after the takeover a connection's next request still tells of it"
    )
    broken: int = Field(default=0, ge=0, description="How many known connections may break")
    connections: int = Field(default=1, ge=1, description="How many known connections it takes to tell")


def check(history: History, settings: EstablishedSettings) -> Verdict:
    """With connection sync, a connection that the other director knows goes on after a takeover.

    It needs ops that name their connection (``connection`` in the value, the same text for all requests on one), and
    judges those that carried requests until shortly before the owner of their VIP fell. One survived when a request on
    it was answered after the takeover; one is broken when the next thing that came of it was a failure. One whose
    client lost patience first (a time-out), or that was not used again, says nothing.

    Without connection sync nothing is promised: unknown. So is a history whose ops do not name their connections, one
    without a takeover, and one in which no known connection was used again. It cannot see connections of clients that
    record nothing, nor why one broke: a real server that fell at the same time breaks its own, and these are left out.
    """
    if not history.cluster.connection_sync:
        return conclude(NAME, [unknown("The directors do not tell each other of their connections.")], "")
    used = _used(history)
    if not used:
        return conclude(NAME, [unknown("No op says which connection it was on.")], "")
    takeovers = list(_takeovers(history))
    if not takeovers:
        return conclude(NAME, [unknown("No virtual IP was taken over.")], "")
    fates = [fate for takeover in takeovers for fate in _fates(history, used, takeover, settings)]
    broken = [fate for fate in fates if fate.came_to == "broken"]
    survived = [fate for fate in fates if fate.came_to == "survived"]
    findings = [*_doubts(history), *_findings(survived, broken, settings)]
    lived, across = count_of(len(survived), "connection"), count_of(len(takeovers), "takeover")
    held = f"{lived} lived across {across}, and {len(broken):,} broke."
    numbers = {
        "takeovers": [
            {"vip": one.vip, "from": one.owner, "to": one.heir, "fell_ms": ms(one.fell), "taken_ms": ms(one.taken)}
            for one in takeovers
        ],
        "connections": {
            kind: {"connections": sum(fate.came_to == kind for fate in fates)}
            for kind in ("survived", "broken", "nobody knows")
        },
    }
    evidence = [index for fate in survived[:SHOWN] for index in fate.ops]
    return conclude(NAME, findings, held, numbers, evidence)


@dataclass(frozen=True)
class Takeover:
    """The owner of a VIP fell, and another director took it."""

    vip: str
    owner: str
    heir: str
    fell: int
    taken: int


@dataclass(frozen=True)
class Fate:
    """What became of one connection: ``survived``, ``broken`` or ``nobody knows``."""

    connection: str
    came_to: str
    ops: tuple[int, ...]
    at: int


def _used(history: History) -> Mapping[tuple[str, str], list[Pair]]:
    """Each VIP and connection -> the requests on it, by time."""
    fs = dict.fromkeys(op.f for op in history if op.get("connection") is not None)
    pairs = [pair for f in fs for pair in history.pairs(f)]
    used: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in sorted(pairs, key=lambda pair: pair.invoke.time):
        told = pair.completion or pair.invoke
        name = told.get("connection", pair.invoke.get("connection"))
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
    """What became of the connections that the heir must have known."""
    known_by = takeover.fell - round(settings.sync_ms * MS)
    until = takeover.taken + round(settings.settle_ms * MS)
    about = [one for one in injections(history) if one.start <= until and one.end >= takeover.fell]
    for (vip, name), pairs in used.items():
        if vip != takeover.vip:
            continue
        times = [pair.invoke.time for pair in pairs]
        before = [pair for pair in pairs[: bisect_right(times, known_by)] if pair.ok and _end(pair) <= known_by]
        after = [pair for pair in pairs if pair.completion is not None and takeover.fell < _end(pair) <= until]
        if len(before) < settings.requests or not after:
            continue
        node = before[-1].completion.get("node") if before[-1].completion is not None else None
        if any(one.targets & {str(node)} for one in about):
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
    return Fate(name, "nobody knows", ops, _end(first))


def _end(pair: Pair) -> int:
    return (pair.completion or pair.invoke).time


def _doubts(history: History) -> Iterator[Finding]:
    if not history.complete:
        yield unknown("The run was killed: what came after is not known.")


def _findings(survived: Sequence[Fate], broken: Sequence[Fate], settings: EstablishedSettings) -> Iterator[Finding]:
    if len(broken) > settings.broken:
        yield invalid(
            f"{len(broken):,} of {len(broken) + len(survived):,} connections that the other director had to know broke "
            f"in a takeover, first at {moment(broken[0].at)}; {settings.broken:,} may.",
            *(index for fate in broken[:SHOWN] for index in fate.ops),
        )
    elif len(survived) + len(broken) < settings.connections:
        yield unknown(
            f"{len(survived) + len(broken):,} connections that the other director had to know were used again after a "
            f"takeover, and it takes {settings.connections:,} to tell."
        )
