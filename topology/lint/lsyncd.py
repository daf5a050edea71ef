"""lsyncd's configuration (Lua)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from topology.lint import my_cnf
from topology.lint.model import ClusterFiles, Config, Hit, Remark

PATHS = ("/etc/lsyncd/*", "/etc/lsyncd.conf", "/etc/lsyncd.conf.lua")


@dataclass(frozen=True)
class Token:
    """A word, a string (``text`` without its quotes) or a sign."""

    line: int
    text: str
    is_string: bool = False


Tokens = tuple[Token, ...]

_TOKEN = re.compile(
    r"""(?P<comment>--\[\[.*?(?:\]\]|\Z)|--[^\n]*)"""
    r"""|(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
    r"""|(?P<word>[\w.]+)|(?P<sign>[^\s\w])""",
    re.DOTALL,
)


@lru_cache(maxsize=64)
def parse(text: str) -> Tokens:
    """Words, strings and signs, with their lines; comments are left out."""
    tokens: list[Token] = []
    line, seen = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", seen, match.start())
        seen = match.start()
        if match.lastgroup == "string":
            tokens.append(Token(line, match[0][1:-1], is_string=True))
        elif match.lastgroup != "comment":
            tokens.append(Token(line, match[0]))
    return tuple(tokens)


def _assigned(tokens: Tokens, name: str) -> Iterator[Token]:
    """The values of ``name = value``."""
    for left, equals, right in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if left.text == name and not left.is_string and equals.text == "=" and not equals.is_string:
            yield right


def _syncs(tokens: Tokens) -> Iterator[tuple[Token, Tokens]]:
    """Each ``sync { ... }``: its first word, and the tokens between its braces."""
    for place, token in enumerate(tokens):
        if token.text != "sync" or token.is_string or [next_.text for next_ in tokens[place + 1 : place + 2]] != ["{"]:
            continue
        depth = 0
        for end in range(place + 1, len(tokens)):
            sign = "" if tokens[end].is_string else tokens[end].text
            depth += (sign == "{") - (sign == "}")
            if depth == 0:
                break
        yield token, tokens[place + 2 : end]


def deletes_despite_errors(tokens: Tokens) -> Iterator[Remark]:
    """Accepted: lsyncd's own default."""
    for start, inside in _syncs(tokens):
        delete = next(_assigned(inside, "delete"), None)
        by_rsync = any(token.text in {"default.rsync", "default.rsyncssh"} for token in inside)
        if by_rsync and (delete is None or delete.text in {"true", "startup", "running"}):
            yield (
                (delete or start).line,
                "lsyncd deletes files at the target and calls rsync with --ignore-errors: after an I/O error at the "
                "source it deletes what it could not read. Set delete = false [default-rsync.lua of lsyncd]",
            )


def inplace(tokens: Tokens) -> Iterator[Remark]:
    """Accepted: clients get half-written files."""
    lines = [value.line for value in _assigned(tokens, "inplace") if value.text == "true"]
    lines += [token.line for token in tokens if token.is_string and token.text == "--inplace"]
    for line in lines:
        yield (
            line,
            "inplace writes into files that are being served: clients get half-written pages. Remove it, so that "
            "rsync renames a finished copy [rsync(1)]",
        )


def source_is_datadir(config: Config, cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted: a copy that cannot be restored."""
    for value in _assigned(parse(config.text), "source"):
        if value.is_string and my_cnf.in_datadir(value.text, cluster):
            yield Hit(
                config,
                value.line,
                "A copy of MariaDB's data folder made while the server writes to it is not a backup: its pages are "
                "from different times. Use mariadb-backup or mariadb-dump --single-transaction.",
            )
