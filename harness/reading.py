"""What all readers of files have in common: broken input becomes one error, whatever is wrong with it."""

from __future__ import annotations

import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any, NoReturn

__all__ = [
    "ReadingError",
    "brief",
    "exists",
    "is_dir",
    "is_file",
    "json_value",
    "nested_too_deep",
    "read_text",
    "shown",
    "toml",
]

SHOWN_CHARACTERS = 200
"""How much of a name or of another library's message a sentence repeats."""

DEEPEST = 64
"""The deepest JSON value that is accepted. Ours are 4 deep; Python's own reader gives up at about 1,000."""

_TEXTS = re.compile(rb'"(?:[^"\\]|\\.)*"')
_BRACKETS = re.compile(rb"[\[\]{}]")


class ReadingError(Exception):
    """A file that cannot be read, or text that is not what it should be: the reason, for the end of a sentence."""


def read_text(path: Path) -> str:
    """The text of a file. Raises ReadingError, also for a name that no file can have."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ReadingError(f"it is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise ReadingError(error.strerror or str(error)) from error
    except ValueError as error:  # a NUL or a lone surrogate in the name
        raise ReadingError("no file can have this name") from error


def toml(text: str) -> dict[str, Any]:
    """The tables of TOML text. Raises ReadingError."""
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ReadingError("invalid TOML: its values are nested too deep") from error
    except tomllib.TOMLDecodeError as error:
        raise ReadingError(f"invalid TOML: {brief(str(error))}") from error
    except ValueError as error:  # Python refuses to read a number with more than 4,300 digits
        raise ReadingError(f"invalid TOML: a value cannot be read ({brief(str(error))})") from error


def json_value(text: str) -> Any:
    """The value of JSON text as RFC 8259 has it: without the ``NaN`` and ``Infinity`` that Python adds.

    Raises ReadingError, also for a value that is nested too deep or a number that no other reader accepts.
    """
    if nested_too_deep(text.encode("utf-8", "surrogatepass")):
        raise ReadingError(f"nested more than {DEEPEST} deep")
    try:
        return json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except RecursionError as error:
        raise ReadingError("nested too deep") from error
    except ValueError as error:
        raise ReadingError(f"not JSON: {brief(str(error))}") from error


def nested_too_deep(line: bytes) -> bool:
    """Whether JSON is nested more than DEEPEST deep. Brackets within its texts do not count."""
    if line.count(b"[") + line.count(b"{") <= DEEPEST:
        return False
    depth = 0
    for bracket in _BRACKETS.findall(_TEXTS.sub(b"", line)):
        depth += 1 if bracket in b"[{" else -1
        if depth > DEEPEST:
            return True
    return False


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is out of range")
    return number


def brief(text: str) -> str:
    """A text without its middle where it is too long for a sentence.

    >>> len(brief("x" * 5000))
    203
    """
    half = SHOWN_CHARACTERS // 2
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:half]}...{text[-half:]}"


def shown(name: object) -> str:
    """A name in quotes, for a sentence: cut where it is too long, with its unprintable characters escaped.

    >>> shown("a\\0b")
    "'a\\\\x00b'"
    """
    return repr(brief(str(name)))


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_dir(path: Path) -> bool:
    """Whether there is such a directory; False for a name that no directory can have."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def exists(path: Path) -> bool:
    """Whether there is something at the path; False for a name that nothing can have."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
