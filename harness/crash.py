"""Internal errors: the traceback goes to a file, and the user gets one sentence and the next step."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.errors import UserError

__all__ = ["EXIT_CODE", "InternalError", "explain", "noted_in"]

EXIT_CODE = 5
"""Of a command that fails because of a mistake in monkeywrench. It is never 1, which means invalid."""

PLACE = "_monkeywrench_run_directory"
LONGEST_CHARACTERS = 200


class InternalError(UserError):
    """A mistake in monkeywrench itself."""


@contextmanager
def noted_in(directory: Path) -> Iterator[None]:
    """``explain`` writes the traceback of an exception that leaves the block to this run directory."""
    try:
        yield
    except Exception as error:
        vars(error).setdefault(PLACE, directory)
        raise


def explain(error: BaseException, command: str) -> InternalError:
    """Write the traceback of an exception to a file, and return the sentence that names it."""
    found = vars(error).get(PLACE)
    text = _details(error, command)
    for folder in ([Path(found)] if found else []) + [Path(tempfile.gettempdir())]:
        try:
            path = _write(folder, text)
        except OSError:
            continue
        return InternalError(_sentence(error, command, path), f"Report this, and attach {path}.")
    # nowhere to write: the terminal is the last place for it
    sys.stderr.write(text.encode("ascii", "backslashreplace").decode())
    return InternalError(
        _sentence(error, command, None), "Report this with the traceback above: no file could be written."
    )


def _sentence(error: BaseException, command: str, path: Path | None) -> str:
    what = " ".join(str(error).split())
    if len(what) > LONGEST_CHARACTERS:
        what = f"{what[:LONGEST_CHARACTERS]}..."
    why = f"{type(error).__name__}: {what}" if what else type(error).__name__
    return f"internal error in `{command}`: {_printable(why)}{f'; the details are in {path}' if path else ''}"


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _details(error: BaseException, command: str) -> str:
    head = [
        f"command: {command}",
        f"arguments: {sys.argv[1:]!r}",
        f"time: {datetime.now(UTC).isoformat(timespec='seconds')}",
        f"monkeywrench {_version()}, Python {platform.python_version()}, Linux {platform.release()}",
        "",
    ]
    return "\n".join(head) + "\n" + "".join(traceback.format_exception(error))


def _version() -> str:
    try:
        return version("monkeywrench")
    except PackageNotFoundError:
        return "(not installed)"


def _write(folder: Path, text: str) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    handle, name = tempfile.mkstemp(prefix=f"internal-error-{stamp}-", suffix=".txt", dir=folder)
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return Path(name)
