"""Is every upload there for everybody, whichever real server is asked?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.history import History
from harness.history.client_ops import Call, attempted, calls, doubts, named, once, shown, too_few
from harness.history.timeline import moment, ms, span_of
from harness.verdict import Finding, Verdict, conclude, invalid

NAME = "uploads"

VISIBLE_MS = 2000
"""When a file that a real server has stored must be found on all others. They keep what they know of a folder for 1 s
(``actimeo=1`` of ``MOUNT_OPTIONS`` in topology/parts/variable_data.py; nfs(5), "Directory entry caching"); twice that
leaves room for the answer."""


class UploadsSettings(BaseModel):
    """``[checks.uploads]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    visible_ms: float = Field(
        default=VISIBLE_MS, ge=0, description="How long after its acknowledgement a real server may not have an upload"
    )
    uploads: int = Field(default=10, ge=1, description="How many acknowledged uploads it takes to tell")
    downloads: int = Field(default=20, ge=1, description="How many of them must have been asked for after that time")
    servers: int = Field(default=2, ge=1, description="How many real servers must have been asked for one then")


def check(history: History, settings: UploadsSettings) -> Verdict:
    """An acknowledged upload is there, with the right bytes, on every real server that was asked for it later.

    It sees ``upload`` and ``download`` as the players record them; ``node`` says who served. A real server may say that
    there is no such upload for ``visible_ms`` after the acknowledgement, and never after that. Bytes must always be
    right, even those of an upload without an answer: a file is there whole, or not at all.

    Only the site's own word counts as an absence: status 404 with ``written``. An answer that failed otherwise (no
    connection, a time-out, a folder whose server is down) says nothing of the upload: it is counted and not judged.
    Downloads that began before the acknowledgement say nothing, either. What nobody asked for is not seen: players pick
    uploads at random, and each download asks one real server.
    """
    facts = _Facts(history, settings)
    findings = [*doubts(history), *facts.minimum_evidence(), *facts.wrong(), *facts.missing()]
    asked = f"{len(facts.later):,} later downloads from {len(facts.servers())} real servers"
    held = f"{len(facts.acknowledged):,} uploads were acknowledged, and all of {asked} found them."
    return conclude(NAME, findings, held, facts.numbers())


def absent(call: Call) -> bool:
    """The site says that there is no such upload. Another 404 is not its own: of no script, or of no site."""
    return call.type == "fail" and call.told.get("status") == 404 and call.told.get("written") == "no"


def right(download: Call, upload: Call) -> bool:
    """The bytes are those that were sent."""
    return bool(download.text("sha256") == upload.invoke["sha256"])


class _Facts:
    """A history and all that is read from it once."""

    def __init__(self, history: History, settings: UploadsSettings) -> None:
        self.settings = settings
        self.sent = {call.text("name"): call for call in once(attempted(history, "upload"), "name")}
        self.acknowledged = {name: call for name, call in self.sent.items() if call.ok}
        asked = calls(history, "download")
        self.answered = [call for call in asked if call.ok and call.text("name") in self.sent]
        self.failed = [call for call in asked if not call.ok and not absent(call)]
        self.missed = [call for call in asked if absent(call) and self.age_ms(call) > 0]
        bound = settings.visible_ms
        self.later = [call for call in self.answered + self.missed if self.age_ms(call) > bound]

    def age_ms(self, download: Call) -> float:
        """How long before it began the upload was acknowledged; below zero: it was not, or only later."""
        upload = self.acknowledged.get(download.text("name"))
        return ms(download.start - upload.end) if upload else -1.0

    def servers(self) -> Counter[str]:
        """Each real server and how many later downloads it answered."""
        return Counter(_node(call) for call in self.later)

    def minimum_evidence(self) -> Iterator[Finding]:
        """Reasons to say that too little was tested."""
        yield from too_few("Acknowledged uploads", len(self.acknowledged), self.settings.uploads)
        yield from too_few("Later downloads of acknowledged uploads", len(self.later), self.settings.downloads)
        yield from too_few("Real servers that answered a later download", len(self.servers()), self.settings.servers)

    def wrong(self) -> Iterator[Finding]:
        """Bytes that nobody sent."""
        wrong = [call for call in self.answered if not right(call, self.sent[call.text("name")])]
        if wrong:
            yield invalid(f"Uploads came back with other bytes: {_where(wrong)}.", *shown(wrong))

    def missing(self) -> Iterator[Finding]:
        """Uploads that a real server did not have in time."""
        missing = [call for call in self.missed if self.age_ms(call) > self.settings.visible_ms]
        if missing:
            bound = f"{span_of(self.settings.visible_ms)} after they were acknowledged"
            uploads = [self.sent[call.text("name")] for call in missing]
            yield invalid(f"Uploads were not there {bound}: {_where(missing)}.", *shown(uploads), *shown(missing))

    def numbers(self) -> dict[str, Any]:
        """What was measured."""
        return {
            "acknowledged": len(self.acknowledged),
            "nobody_knows": len(self.sent) - len(self.acknowledged),
            "downloads": len(self.answered),
            "later_downloads": len(self.later),
            "failed_downloads": len(self.failed),
            "latest_absence_ms": max(map(self.age_ms, self.missed), default=0.0),
            "servers": {node: {"later_downloads": count} for node, count in sorted(self.servers().items())},
        }


def _node(call: Call) -> str:
    return str(call.told.get("node") or "a server without a name")


def _where(some: Sequence[Call]) -> str:
    told = [f"{call.text('name')} from {_node(call)} at {moment(call.start)}" for call in some]
    return named(told)
