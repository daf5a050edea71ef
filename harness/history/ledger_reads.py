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
from dataclasses import dataclass
from typing import Any

from harness.history import History, HistoryError
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
