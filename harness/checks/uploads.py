"""Can every upload be downloaded from every real server?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.history import History
from harness.history.client_ops import Call, attempted, calls, doubts, named, once, shown, too_few
from harness.history.planned_load import untried
from harness.history.timeline import count_of, moment, ms, span_of
from harness.history.uploads import VISIBLE_MS, reported_missing, same_bytes
from harness.verdict import Finding, Verdict, conclude, invalid

NAME = "uploads"


class UploadsSettings(BaseModel):
    """``[checks.uploads]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    visible_ms: float = Field(
        default=VISIBLE_MS,
        ge=0,
        description="Maximum time from the acknowledgement of an upload until all real servers have it",
    )
    uploads: int = Field(default=10, ge=1, description="Minimum number of acknowledged uploads")
    downloads: int = Field(default=20, ge=1, description="Minimum number of downloads after that time")
    servers: int = Field(default=2, ge=1, description="Minimum number of real servers that answered such a download")


def check(history: History, settings: UploadsSettings) -> Verdict:
    """Each acknowledged upload is available, with the right bytes, from every real server that is asked for it.

    The check sees ``upload`` and ``download`` as the players record them; ``node`` is the real server that answered. A
    real server may report an upload as missing for ``visible_ms`` after the acknowledgement, but not later. The bytes
    must always be right, even those of an upload that was never acknowledged: a file exists completely or not at all.

    An upload counts as missing only when the site itself reports that: status 404 with ``written``. A download that
    fails in another way (no connection, a timeout, an unavailable NFS server) says nothing about the upload; it is
    counted but not judged. The same holds for downloads that began before the acknowledgement. The check sees only what
    was asked for: players choose uploads at random, and each download reaches one real server.
    """
    if nothing := [*untried(history, "upload nothing", "upload")]:
        return conclude(NAME, nothing, "")
    downloads = _Downloads(history, settings)
    findings = [*doubts(history), *downloads.minimum_evidence(), *downloads.wrong(), *downloads.missing()]
    later = (
        f"{count_of(len(downloads.later), 'later download')} from {count_of(len(downloads.servers()), 'real server')}"
    )
    held = f"{count_of(len(downloads.acknowledged), 'upload')} acknowledged; all {later} found them."
    return conclude(NAME, findings, held, downloads.numbers())


class _Downloads:
    """The uploads of a run by name, and the downloads of them."""

    def __init__(self, history: History, settings: UploadsSettings) -> None:
        self.settings = settings
        self.sent = {call.text("name"): call for call in once(attempted(history, "upload"), "name")}
        self.acknowledged = {name: call for name, call in self.sent.items() if call.ok}
        downloads = calls(history, "download")
        self.answered = [call for call in downloads if call.ok and call.text("name") in self.sent]
        self.failed = [call for call in downloads if not call.ok and not reported_missing(call)]
        self.missed = [call for call in downloads if reported_missing(call) and self.age_ms(call) > 0]
        bound = settings.visible_ms
        self.later = [call for call in self.answered + self.missed if self.age_ms(call) > bound]

    def age_ms(self, download: Call) -> float:
        """Time from the upload's acknowledgement to the start of its download; negative if it came later or never."""
        upload = self.acknowledged.get(download.text("name"))
        return ms(download.start - upload.end) if upload else -1.0

    def servers(self) -> Counter[str]:
        """Each real server and the number of later downloads that it answered."""
        return Counter(_node(call) for call in self.later)

    def minimum_evidence(self) -> Iterator[Finding]:
        """Reasons why the run tested too little."""
        yield from too_few("Acknowledged uploads", len(self.acknowledged), self.settings.uploads)
        yield from too_few("Later downloads of acknowledged uploads", len(self.later), self.settings.downloads)
        yield from too_few("Real servers that answered a later download", len(self.servers()), self.settings.servers)

    def wrong(self) -> Iterator[Finding]:
        """Downloads with other bytes than the upload had."""
        wrong = [call for call in self.answered if not same_bytes(call, self.sent[call.text("name")])]
        if wrong:
            yield invalid(f"Downloads returned other bytes than were uploaded: {_where(wrong)}.", *shown(wrong))

    def missing(self) -> Iterator[Finding]:
        """Uploads that a real server did not have in time."""
        missing = [call for call in self.missed if self.age_ms(call) > self.settings.visible_ms]
        if missing:
            bound = f"more than {span_of(self.settings.visible_ms)} after their acknowledgement"
            uploads = [self.sent[call.text("name")] for call in missing]
            yield invalid(f"Uploads were missing {bound}: {_where(missing)}.", *shown(uploads), *shown(missing))

    def numbers(self) -> dict[str, Any]:
        """What was measured."""
        return {
            "acknowledged": len(self.acknowledged),
            "indeterminate": len(self.sent) - len(self.acknowledged),
            "downloads": len(self.answered),
            "later_downloads": len(self.later),
            "failed_downloads": len(self.failed),
            "latest_absence_ms": max(map(self.age_ms, self.missed), default=0.0),
            "servers": {node: {"later_downloads": count} for node, count in sorted(self.servers().items())},
        }


def _node(call: Call) -> str:
    return str(call.latest.get("node") or "an unnamed server")


def _where(downloads: Sequence[Call]) -> str:
    return named([f"{call.text('name')} from {_node(call)} at {moment(call.start)}" for call in downloads])
