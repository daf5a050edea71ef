"""How far the clocks of a run's clients may be off, and where they contradict each other. Pure; times are ns.

Ids of ops are unique: no one can read one before it was sent. Where the record has that, its clocks are wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.history.ops import History, Op

MERGED_NS = 250_000_000
"""How far the times of day of 2 load machines may differ: the default uncertainty of a history that was merged from
several machines. NTP keeps machines of one network within some ms, and within 0.1 s on bad paths (RFC 5905, 4; ntpd
steps a clock only beyond 0.128 s); twice that covers both machines."""


def uncertainty_ns(history: History) -> int:
    """By how much the times of 2 clients may differ though they were the same; 0 on one machine's clock."""
    opening = next((op for op in history.of("start") if op.process == "run"), None)
    if opening is None:
        return 0
    recorded = opening.get("uncertain_ms")
    if isinstance(recorded, int | float) and 0 <= recorded < 1e9:
        return round(recorded * 1e6)
    boots = {str(op.get("boot")) for op in history.of("worker") if op.get("phase") == "begin" and op.get("boot")}
    return MERGED_NS if opening.get("moved_ms") or len(boots) > 1 else 0


@dataclass(frozen=True)
class Contradiction:
    """``earlier`` has what ``later`` sent only ``by`` ns after it."""

    later: Op
    earlier: Op
    by: int


def contradictions(history: History) -> list[Contradiction]:
    """Answers to one process with what another one had not sent yet, by more than the clocks' uncertainty."""
    sent: dict[tuple[str, object], Op] = {}
    for f, key in (("profile-write", "motto"), ("score", "op"), ("transfer", "op"), ("upload", "name")):
        for op in history.of(f):
            if op.type == "invoke" and isinstance(op.get(key), str):
                first = sent.setdefault((f, op[key]), op)
                if op.time < first.time:
                    sent[f, op[key]] = op
    slack = uncertainty_ns(history)
    found = []
    for f, name, op in _sightings(history):
        write = sent.get((f, name))
        if write is not None and write.process != op.process and op.time + slack < write.time:
            found.append(Contradiction(write, op, write.time - op.time))
    return found


def _sightings(history: History) -> Iterator[tuple[str, object, Op]]:
    """Each id that an answer has: of what it is, the id, and the answer."""
    for f, read, key in (("profile-write", "profile-read", "motto"), ("upload", "download", "name")):
        for op in history.of(read):
            if op.type == "ok" and isinstance(op.get(key), str):
                yield f, op[key], op
    for f, read in (("score", "ledger"), ("transfer", "transfers")):
        for op in history.of(read):
            entries = op.get("entries") if op.type == "ok" else None
            for entry in entries if isinstance(entries, list) else ():
                if isinstance(entry, dict) and isinstance(entry.get("op"), str):
                    yield f, entry["op"], op
