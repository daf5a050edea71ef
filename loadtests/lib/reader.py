"""What there is to read on the site: before a load that writes, and after it."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadtests.lib.answers import Judgement
from loadtests.lib.request import Request
from loadtests.lib.site import JOURNALS, PAGE

TRIES = 8
"""How often a request is sent at most: an answer may be lost."""

Try = tuple[Request, int]
"""A request, and how often it was sent before."""


def journal_page(journal: str, after: int) -> Request:
    """A page of the ledger or of the transfers: the entries after that one."""
    return Request(journal, {"after": after, "limit": PAGE}, f"/{journal}.php?after={after}&limit={PAGE}")


def requests(wanted: Mapping[str, Any]) -> list[Request]:
    """All requests. Pure.

    Journals come first and last: what the first read of one has, all reads of points and coins must have, and none may
    have what the last one lacks. Profiles lie between the first one and the points, so that it has ended by then.

    ``wanted`` is ``{"pages": ["ledger"], "players": 200, "uploads": [NAME], "articles": 12}``.
    """
    players = range(1, wanted["players"] + 1)
    articles = range(1, wanted.get("articles", 0) + 1)
    return [
        *(journal_page(journal, 0) for journal in wanted["pages"]),
        *(Request("profile-read", {"player": player}, f"/profile.php?player={player}") for player in players),
        *(Request("score-read", {"player": player}, f"/score.php?player={player}") for player in players),
        Request("coins", {}, "/coins.php"),
        *(Request("download", {"name": name}, f"/upload.php?name={name}") for name in wanted["uploads"]),
        *(Request("article", {"article": article}, f"/article.php?article={article}") for article in articles),
        *(journal_page(journal, 0) for journal in wanted["pages"]),
    ]


class ReadingList:
    """What all readers of a process share: the requests that are left, and who is still reading."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._tries: deque[Try] = deque()
        self._reading: set[int] = set()

    def join(self, number: int) -> None:
        """A reader starts; the first one fills the list."""
        if not self._reading and not self._tries and self._path:
            self._tries.extend((request, 0) for request in requests(json.loads(Path(self._path).read_text())))
        self._reading.add(number)

    def next(self, mine: deque[Try]) -> Try | None:
        """The next request: a page of a journal that this reader has begun, or of the list. None: nothing is left."""
        place = mine or self._tries
        return place.popleft() if place else None

    def leave(self, number: int) -> bool:
        """A reader ends; whether it was the last."""
        self._reading.discard(number)
        return not self._reading

    def answered(self, mine: deque[Try], request: Request, times: int, judgement: Judgement) -> None:
        """Put back what was not read, and go on to the next page of a journal: all of it is one reader's."""
        if judgement.known.get("again"):
            return  # the same request is on its way to the next address
        # A status below 500 is an answer: there is none.
        unread = judgement.type in ("fail", "info") and judgement.known.get("status", 500) >= 500
        if unread and times + 1 < TRIES:
            (mine if request.f in JOURNALS else self._tries).appendleft((request, times + 1))
        elif judgement.type == "ok" and request.f in JOURNALS and len(judgement.known["entries"]) == PAGE:
            mine.append((journal_page(request.f, judgement.known["last"]), 0))
