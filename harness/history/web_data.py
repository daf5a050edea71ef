"""The files of the site's folder on a real server, as the ops ``docroot`` record them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from harness.history import HistoryError, Op

UNFINISHED = re.compile(r"(^|/)\.([^/]+\.[A-Za-z0-9]{6}$|[^/]*-partial/)")
"""rsync gives a file that it has not finished a name like the first alternative (rsync(1), --temp-dir). It keeps what
an interrupted transfer left in a folder like the second one (--partial-dir). Apache serves neither."""


def files_of(op: Op) -> Mapping[str, str]:
    """Each file in a sample of a site's folder -> its digest, without unfinished files. Raises HistoryError."""
    files = op["files"]
    if not isinstance(files, dict):
        raise HistoryError(f"op {op.index} (docroot): its files cannot be read")
    return {path: digest for path, digest in files.items() if not UNFINISHED.search(path)}
