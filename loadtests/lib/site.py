"""What the site has and understands. The site's own copies are PHP: topology/site/lib; a test compares them."""

from __future__ import annotations

PLAYERS = 200
"""Players are 1 to 200; the site has them from the start (topology/images/db/schema.sql)."""
HOT_PLAYERS = 8
"""The first players. Half of all ops are about them, so that users on all nodes compete for the same rows."""
ARTICLES = 12
"""Articles are 1 to 12; an article that was never written has version 0."""
PAGES = ("/", "/news.html", "/rules.html", "/style.css")
"""Pages without a database."""
POINTS = (1, 1000)
COINS = (1, 20)
UPLOAD_BYTES = (0, 500, 4_000, 30_000, 120_000)
"""Sizes of an upload beyond its own name, with which it begins."""
JOURNALS = ("ledger", "transfers")
"""What the site lists page by page: all scores, and all transfers."""
PAGE = 1000
"""Most entries of one page of a journal; the site's own limit."""

WRITES = frozenset({"profile-write", "score", "transfer", "upload", "login", "session", "publish"})
"""Ops that change the site. ``session`` is one: the site counts how often it is asked."""
USUAL_MIX = {
    "page": 28,
    "profile-read": 18,
    "profile-write": 6,
    "score": 10,
    "score-read": 12,
    "transfer": 5,
    "coins": 2,
    "upload": 2,
    "download": 5,
    "session": 12,
}
"""A player's ops by weight: users read more often than they write. Each is a method of the persona ``Player``."""
