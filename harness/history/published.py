"""The versions of pages that administrators published, as far as the site's answers show them. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.history import History
from harness.history.client_ops import attempted


@dataclass(frozen=True)
class Published:
    """What was published to the site's folder on the master, whether or not a sample shows it there.

    A version that the next one replaces at once is in no sample of the master; another real server may have it.
    """

    acknowledged: Mapping[tuple[str, str], int]
    """A page and the digest of one of its versions -> when that was acknowledged, in ns."""
    unsure: Mapping[str, Sequence[int]]
    """A page -> when a version of unknown digest, or of unknown result, was sent, in ns."""

    def may_be(self, page: str, time: int) -> bool:
        """Whether any content of a page at that time may be a version of unknown digest."""
        return any(sent <= time for sent in self.unsure.get(page, ()))


def published(history: History) -> Published:
    """All versions that administrators published in a run, or may have."""
    acknowledged: dict[tuple[str, str], int] = {}
    unsure: dict[str, list[int]] = defaultdict(list)
    for call in attempted(history, "publish"):
        page, digest = call.latest.get("page"), call.latest.get("sha256") if call.ok else None
        if digest is None:
            unsure[str(page)].append(call.start)
        else:
            acknowledged[str(page), str(digest)] = call.end
    return Published(acknowledged, unsure)
