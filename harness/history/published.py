"""The versions of pages that administrators wrote, as far as the site told them. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.history import History
from harness.history.client_ops import attempted


@dataclass(frozen=True)
class Published:
    """What was written to the site's folder on the master, without having to be seen there.

    A version that the next one replaces at once is in no look at the master; another real server may have it.
    """

    acknowledged: Mapping[tuple[str, str], int]
    """A page and the digest of a version that it had -> when that was acknowledged, in ns."""
    unsure: Mapping[str, Sequence[int]]
    """A page -> when a version was sent of which nobody knows the digest, or whether it ever was there, in ns."""

    def may_be(self, page: str, time: int) -> bool:
        """Whether what a page has at that time, whatever it is, may be a version of which nobody knows."""
        return any(sent <= time for sent in self.unsure.get(page, ()))


def published(history: History) -> Published:
    """All that administrators wrote in a run, or may have."""
    acknowledged: dict[tuple[str, str], int] = {}
    unsure: dict[str, list[int]] = defaultdict(list)
    for call in attempted(history, "publish"):
        page, digest = call.told.get("page"), call.told.get("sha256") if call.ok else None
        if digest is None:
            unsure[str(page)].append(call.start)
        else:
            acknowledged[str(page), str(digest)] = call.end
    return Published(acknowledged, unsure)
