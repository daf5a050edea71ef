"""Complete reads of the site's ledger and transfers, put together from their pages. Pure.

The site answers ``ledger.php?after=<entry>&limit=<1..1000>`` with the entries after that one, in order of their
numbers, and where the next page starts (``last``). Each page is an op:

    invoke  {"after": 0, "limit": 1000, "vip": "203.0.113.101"}
    ok      {..., "entries": [{"entry": 1, "op": "5f0c-0-7", "player": 3, "points": 20}, ...], "last": 1000,
             "node": "web-2", "status": 200, "ms": 12.5}

Its ``f`` is ``ledger``; ``transfers`` is the same with entries ``{"entry", "op", "from", "to", "coins"}``. A read is
the pages of one process from ``after`` 0 on, each starting where the last one ended, until one has fewer entries than
its limit. A failed page may be requested again. A read that did not reach the end shows what exists, but not what is
missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.algorithms.arrays import FOREVER, NEVER
from harness.history import History, HistoryError, Op
from harness.history.client_ops import Call, answered


@dataclass(frozen=True)
class LedgerRead:
    """Pages that follow one another. ``whole``: from the first entry to the last."""

    pages: tuple[Call, ...]
    whole: bool

    @property
    def start(self) -> int:
        """When the first page was asked for, in ns."""
        return self.pages[0].start

    @property
    def end(self) -> int:
        """When the last page was answered, in ns."""
        return self.pages[-1].end

    def entries(self) -> Iterator[tuple[Call, Mapping[str, Any]]]:
        """Each entry, and the page that it is on."""
        for page in self.pages:
            for entry in _entries(page):
                yield page, entry


def ledger_reads(history: History, f: str) -> list[LedgerRead]:
    """All reads, whole or not, by time. Raises HistoryError for a page that cannot be read."""
    found: list[LedgerRead] = []
    open_: dict[str, list[Call]] = {}
    for page in answered(history, f):
        process, after = page.invoke.process, page.number("after")
        chain = open_.pop(process, [])
        if chain and after != chain[-1].number("last"):
            found.append(LedgerRead(tuple(chain), whole=False))
            chain = []
        if not chain and after != 0:
            found.append(LedgerRead((page,), whole=False))
            continue
        chain.append(page)
        if len(_entries(page)) < page.number("limit"):
            found.append(LedgerRead(tuple(chain), whole=True))
        else:
            open_[process] = chain
    found += [LedgerRead(tuple(chain), whole=False) for chain in open_.values()]
    return sorted(found, key=lambda reading: (reading.start, reading.end))


def _entries(page: Call) -> Sequence[Mapping[str, Any]]:
    entries = page.latest["entries"]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "op" in entry for entry in entries):
        raise HistoryError(f"op {page.latest.index} ({page.latest.f}): its entries cannot be read")
    return entries


def resolved(history: History, writes: Sequence[Call], f: str) -> list[Call]:
    """The writes, with what reads of their ledger show of those that have no answer.

    A write whose entry a page has took effect before that page was answered. One that is missing in a read from the
    first entry to the last had not taken effect when that read began. Nothing else decides about it: the site makes
    the entry and the change in one transaction.

    The final reads have all ledgers twice, before and after the sums. Where they have one only once, it counts as the
    state at the beginning of the final reads: a write without an answer by then took effect before them, or never.
    """
    reads = ledger_reads(history, f)
    seen: dict[str, int] = {}
    for read in reads:
        for page, entry in read.entries():
            name = str(entry["op"])
            seen[name] = min(seen.get(name, page.end), page.end)
    missing = max((read.start for read in reads if read.whole), default=NEVER)
    settled = _settled(history, reads)
    return [write if write.ok else _resolved(write, seen.get(write.text("op")), missing, settled) for write in writes]


def _resolved(write: Call, seen: int | None, missing: int, settled: int) -> Call:
    """``missing``: the beginning of the last read of all entries. ``settled``: nothing takes effect from then on."""
    if write.latest.time + write.slack < settled:
        return replace(write, not_before=FOREVER) if seen is None else replace(write, not_after=min(seen, settled))
    return replace(write, not_before=missing) if seen is None else replace(write, not_after=seen)


def _settled(history: History, reads: Sequence[LedgerRead]) -> int:
    """When the final reads began, if they have the ledger from the first entry to the last exactly once; else NEVER."""
    whole = [read for read in reads if read.whole and _final(read.pages[0].invoke)]
    if len(whole) != 1:
        return NEVER
    return min(op.time for op in history if _final(op) and op.type == "invoke") - whole[0].pages[0].slack


def _final(op: Op) -> bool:
    return op.process.partition(":")[0] == "final"
