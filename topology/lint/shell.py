"""Shell scripts and cron files: calls of rsync and ldirectord that do harm."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from harness.formats.lines import joined
from topology.lint import my_cnf
from topology.lint.model import ClusterFiles, Config, Hit, Remark, matches

PATHS = (
    "*.sh",
    "/etc/cron*",
    "/etc/ha.d/resource.d/*",
    "/etc/init.d/*",
    "/usr/local/bin/*",
    "/usr/local/sbin/*",
    "/var/spool/cron/*",
)

VALUE_LENGTH = 4096
"""The longest value of a variable that is filled in."""
SPEAKERS = frozenset({"apt-get", "command", "echo", "killall", "logger", "pgrep", "pkill", "printf", "which"})
"""Commands that name programs without running them."""
_VALUED = """
backup-dir block-size bwlimit chmod chown compare-dest compress-level contimeout copy-dest exclude exclude-from
files-from filter include include-from info link-dest log-file log-file-format max-delete max-size min-size
modify-window out-format partial-dir password-file port rsh rsync-path sockopts suffix temp-dir timeout
"""
VALUED = frozenset(f"--{name}" for name in _VALUED.split())
"""Long options of rsync(1) whose value may be the next word."""
VALUED_SHORT = frozenset("efBMT")
"""Short ones."""
STOPS_SERVER = re.compile(
    r"\bstop\s+\S*(?:mysql|mariadb)|(?:mysql|mariadb)\S*\s+(?:stop|down)\b|\bdown\s+\S*(?:mysql|mariadb)"
    r"|(?:mysqladmin|mariadb-admin)\b.*\bshutdown"
)


@dataclass(frozen=True)
class Command:
    """A simple command, with variables of the script filled in."""

    line: int
    words: tuple[str, ...]

    def after(self, program: str) -> tuple[str, ...] | None:
        """The words after the program's name, wherever it stands (``nice rsync ...``); None without it."""
        if not self.words or self.words[0] in SPEAKERS:
            return None
        places = [place for place, word in enumerate(self.words) if word.rpartition("/")[2] == program]
        return self.words[places[0] + 1 :] if places else None


Script = tuple[Command, ...]

_TOKEN = re.compile(r"""[;&|()<>]+|(?:\\.|'[^']*'|"(?:\\.|[^"\\])*"|[^\s;&|()<>'"\\]|['"\\])+""", re.DOTALL)
_QUOTES = re.compile(r"""'([^']*)'|"((?:\\.|[^"\\])*)"|\\(.)""", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))", re.ASCII)
_ASSIGNMENT = re.compile(r"(\w+)=(.*)", re.ASCII | re.DOTALL)


@lru_cache(maxsize=64)
def parse(text: str) -> Script:
    """The commands of a shell script or a cron file; empty for a script in another language."""
    first = text.partition("\n")[0]
    return () if first.startswith("#!") and not _names_shell(first) else tuple(_commands(text))


@lru_cache(maxsize=64)
def parse_if_script(text: str) -> Script:
    """The commands of a file whose first line names a shell; empty for any other file."""
    return parse(text) if _names_shell(text.partition("\n")[0]) else ()


def _names_shell(first_line: str) -> bool:
    return re.match(r"#!.*\b(?:ba|da|k|z|a)?sh\b", first_line) is not None


def _commands(text: str) -> Iterator[Command]:
    variables: dict[str, str] = {}
    for number, line in joined(text, comments=True):
        for operator, group in groupby(_tokens(line), key=lambda token: token[0] in ";&|()<>"):
            if operator:
                continue
            words = [_plain(token, variables) for token in group]
            assigned = [_ASSIGNMENT.fullmatch(word) for word in words]
            for match in assigned:
                if match:
                    variables[match[1]] = match[2][:VALUE_LENGTH]
            yield Command(number, tuple(words))
            for word in words[1:] if not SPEAKERS & set(words) else ():
                if " " in word and re.search(r"\b(rsync|ldirectord)\b", word):  # run by ssh or sh -c
                    yield from (Command(number, inner.words) for inner in _commands(word))


def _tokens(line: str) -> Iterator[str]:
    for match in _TOKEN.finditer(line):
        if match[0].startswith("#"):
            return  # a comment
        yield match[0]


def _plain(token: str, variables: dict[str, str]) -> str:
    """Without quotes, and with the variables that are known."""
    bare = _QUOTES.sub(lambda match: match[1] or match[2] or match[3] or "", token)
    return _VARIABLE.sub(lambda match: variables.get(match[1] or match[2], match[0]), bare)


@dataclass(frozen=True)
class Rsync:
    """One call of rsync."""

    line: int
    options: tuple[str, ...]
    sources: tuple[str, ...]
    target: str


def rsyncs(script: Script) -> Iterator[Rsync]:
    """All calls of rsync."""
    for command in script:
        words = command.after("rsync")
        if words is not None:
            options, paths = _arguments(words)
            alone = len(paths) == 1  # rsync lists then
            yield Rsync(command.line, options, paths if alone else paths[:-1], "" if alone or not paths else paths[-1])


def _arguments(words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(options without their values, paths)."""
    options: list[str] = []
    paths: list[str] = []
    rest = iter(words)
    for word in rest:
        if word.startswith("-") and len(word) > 1:
            options.append(word.partition("=")[0])
            if word in VALUED or (not word.startswith("--") and word[-1] in VALUED_SHORT):
                next(rest, None)
        else:
            paths.append(word)
    return tuple(options), tuple(paths)


def rsync_of_datadir(config: Config, cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted: a copy that cannot be restored, or a database that is gone at its next start."""
    script = parse(config.text) if matches(config.path, PATHS) else parse_if_script(config.text)
    stopped_at = [command.line for command in script if STOPS_SERVER.search(" ".join(command.words))]
    for rsync in rsyncs(script):
        if any(line <= rsync.line for line in stopped_at):
            continue
        if any(my_cnf.in_datadir(path, cluster) for path in rsync.sources):
            yield Hit(
                config,
                rsync.line,
                "rsync of MariaDB's data folder while the server writes to it is not a backup: its pages are from "
                "different times, and InnoDB cannot recover from them. Use mariadb-backup or mariadb-dump "
                "--single-transaction, or stop the server first.",
            )
        if my_cnf.in_datadir(rsync.target, cluster):
            yield Hit(
                config,
                rsync.line,
                "rsync into MariaDB's data folder under a running server: the server keeps using its open files, and "
                "the copied data is lost at its next start. Stop the server first [MySQL bug 35641]",
            )


def delete_despite_errors(script: Script) -> Iterator[Remark]:
    """Accepted: what could not be read is deleted at the other end."""
    for rsync in rsyncs(script):
        deletes = any(option == "--del" or option.startswith("--delete") for option in rsync.options)
        if deletes and "--ignore-errors" in rsync.options:
            yield (
                rsync.line,
                "--delete with --ignore-errors: after an I/O error at the source rsync deletes at the target what it "
                "could not read. Remove --ignore-errors [rsync(1)]",
            )


def inplace(script: Script) -> Iterator[Remark]:
    """Accepted: clients get half-written files."""
    for rsync in rsyncs(script):
        if "--inplace" in rsync.options:
            yield (
                rsync.line,
                "--inplace writes into files that are being served: clients get half-written pages, for good if rsync "
                "is interrupted. Remove it, so that rsync renames a finished copy [rsync(1)]",
            )


def ldirectord_restart(script: Script) -> Iterator[Remark]:
    """Accepted: the start does nothing, and the old daemon then empties the table."""
    stopped = False
    for command in script:
        words = command.after("ldirectord")
        if command.words[:1] == ("sleep",):
            stopped = False
        elif words is not None and "stop" in words:
            stopped = True
        elif words is not None and "start" in words and stopped:
            stopped = False
            yield (
                command.line,
                "ldirectord's stop returns at once: this start finds the old daemon, does nothing and exits 0, and the "
                "old daemon then leaves an empty table. Use restart, which waits [ld_init of ldirectord]",
            )
