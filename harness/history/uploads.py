"""What the site answers when it is asked for an upload. Pure."""

from __future__ import annotations

from harness.history.client_ops import Call

VISIBLE_MS = 2000
"""After this time all real servers must find a file that one of them has stored. A real server caches a folder's
entries for 1 s (``actimeo=1`` of ``MOUNT_OPTIONS`` in topology/parts/variable_data.py; nfs(5), "Directory entry
caching"); twice that leaves room for the answer."""


def reported_missing(download: Call) -> bool:
    """The site itself reports that the upload does not exist. Any other 404 comes from a missing script or site."""
    return download.type == "fail" and download.latest.get("status") == 404 and download.latest.get("written") == "no"


def same_bytes(download: Call, upload: Call) -> bool:
    """Whether a download returned the bytes that the upload sent."""
    return bool(download.text("sha256") == upload.invoke["sha256"])
