"""Uploads: available with the right bytes from every real server, after the bound."""

from __future__ import annotations

from typing import Any

from harness.checks import judge
from harness.history import Op
from harness.verdict import Outcome, Verdict
from tests.support import histories as h

RIGHT, WRONG = "ab" * 32, "cd" * 32


def upload(at: float, name: str, kind: str = "ok") -> list[Op]:
    asked = {"name": name, "sha256": RIGHT, "bytes": 9, "vip": h.VIP1}
    process = f"user:{at}"
    return [h.op(at, process, "upload", asked, "invoke"), h.op(at + 5, process, "upload", asked, kind)]


def download(at: float, name: str, node: str, sha256: str = RIGHT, status: int = 200, **more: Any) -> list[Op]:
    process, asked = f"user:{at}", {"name": name, "vip": h.VIP1}
    served = asked | {"node": node, "status": status, "ms": 5} | more
    kind, error = ("ok", None) if status == 200 else ("fail", f"status {status}")
    reply = served | ({"sha256": sha256, "bytes": 9} if status == 200 else {})
    return [h.op(at, process, "download", asked, "invoke"), h.op(at + 5, process, "download", reply, kind, error=error)]


def missing(at: float, name: str, node: str) -> list[Op]:
    return download(at, name, node, status=404, written="no", said=f"there is no upload {name}")


def check(*ops: list[Op], **table: Any) -> Verdict:
    history = h.of([h.start(), *(op for pair in ops for op in pair), h.end(100_000)])
    (verdict,) = judge(history, {"uploads": {"uploads": 1, "downloads": 2, "servers": 2, **table}})
    return verdict


SENT = upload(100, "a")
LATER = [*download(3_000, "a", "web-1"), *download(3_100, "a", "web-2")]


def test_uploads_that_all_servers_have_are_valid() -> None:
    verdict = check(SENT, LATER)
    assert verdict.outcome is Outcome.VALID, verdict.summary
    assert verdict.numbers["servers"] == {"web-1": {"later_downloads": 1}, "web-2": {"later_downloads": 1}}


def test_a_real_server_may_have_an_upload_late_but_not_too_late() -> None:
    early = check(SENT, LATER, missing(1_105, "a", "web-3"))
    assert (early.outcome, early.numbers["latest_absence_ms"]) == (Outcome.VALID, 1_000)
    assert check(SENT, LATER, missing(1_105, "a", "web-3"), visible_ms=900).outcome is Outcome.INVALID
    late = check(SENT, LATER, missing(5_000, "a", "web-3"))
    assert late.outcome is Outcome.INVALID
    assert "a from web-3 at 5.0 s" in late.summary
    assert late.evidence == (1, 2, 7, 8)


def test_other_bytes_are_always_invalid() -> None:
    assert check(SENT, LATER, download(110, "a", "web-3", sha256=WRONG)).outcome is Outcome.INVALID
    unsure = upload(50, "b", "info")
    assert check(SENT, LATER, unsure, download(60, "b", "web-3")).outcome is Outcome.VALID
    assert check(SENT, LATER, unsure, download(60, "b", "web-3", sha256=WRONG)).outcome is Outcome.INVALID


def test_an_upload_that_was_not_acknowledged_may_be_missing() -> None:
    assert check(SENT, LATER, upload(50, "b", "info"), missing(5_000, "b", "web-3")).outcome is Outcome.VALID
    assert check(SENT, LATER, upload(50, "b", "fail"), missing(5_000, "b", "web-3")).outcome is Outcome.VALID


def test_only_the_site_itself_reports_an_upload_as_missing() -> None:
    # from a server without its site, and from one without its folder
    verdict = check(SENT, LATER, download(5_000, "a", "web-3", status=404, said="<h1>Not Found</h1>"))
    assert (verdict.outcome, verdict.numbers["failed_downloads"]) == (Outcome.VALID, 1)
    assert check(SENT, LATER, download(5_000, "a", "web-3", status=503, written="no")).outcome is Outcome.VALID


def test_a_download_that_began_before_the_acknowledgement_is_not_judged() -> None:
    assert check(SENT, LATER, missing(104, "a", "web-3")).outcome is Outcome.VALID


def test_too_little_evidence_is_unknown() -> None:
    assert check(SENT, LATER, uploads=2).outcome is Outcome.UNKNOWN
    assert check(SENT, LATER, downloads=3).outcome is Outcome.UNKNOWN
    assert check(SENT, LATER, servers=3).outcome is Outcome.UNKNOWN
    early = [*download(300, "a", "web-1"), *download(310, "a", "web-2")]
    assert check(SENT, early).outcome is Outcome.UNKNOWN
