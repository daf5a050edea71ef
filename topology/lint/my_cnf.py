"""MariaDB's option files: settings with which an acknowledged transaction can be lost. The value in force is judged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from harness.formats.lines import numbered
from topology.lint.model import ClusterFiles, Config, Hit, by_node, others

PATHS = ("/etc/my.cnf", "/etc/mysql/*.cnf")

GROUP = re.compile(r"(?:server|mysqld|mariadb|mariadbd)(?:-[0-9]+(?:\.[0-9]+)?)?")
"""The groups that the server reads."""
OFF = frozenset({"0", "off", "false"})
DATADIR = "/var/lib/mysql"
POWER = "a power cut loses acknowledged transactions"


@dataclass(frozen=True)
class Option:
    """One option of the server; ``value`` is None for a bare name."""

    line: int
    name: str
    value: str | None

    @property
    def word(self) -> str:
        """The value in lower case; a bare name switches on."""
        return "on" if self.value is None else self.value.lower()


Placed = tuple[Config, Option]


@lru_cache(maxsize=64)
def parse(text: str) -> tuple[Option, ...]:
    """The server's options: ``-`` is ``_``, ``loose-`` is dropped, ``skip-`` and ``disable-`` are 0."""
    return tuple(_options(text))


def _options(text: str) -> Iterator[Option]:
    of_server = False
    for number, raw in numbered(text):
        line = _uncommented(raw).strip()
        group = re.fullmatch(r"\[([^\]]*)\].*", line)
        if group:
            of_server = GROUP.fullmatch(group[1].strip()) is not None
        elif line and of_server and not line.startswith("!"):
            name, equals, value = line.partition("=")
            yield _option(number, name.strip().replace("-", "_"), _unquoted(value.strip()) if equals else None)


def _uncommented(line: str) -> str:
    """A line without its comment: ``;`` only at the start of a line, ``#`` anywhere except in quotes."""
    if line.lstrip().startswith(";"):
        return ""
    found = re.match(r"""(?:[^#"']|"[^"]*"|'[^']*'|["'])*""", line)
    return found[0] if found else ""


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def _option(number: int, name: str, value: str | None) -> Option:
    name = name.removeprefix("loose_")
    for prefix, meaning in (("skip_", "0"), ("disable_", "0"), ("enable_", "1")):
        if name.startswith(prefix) and value is None:
            return Option(number, name.removeprefix(prefix), meaning)
    return Option(number, name, value)


def in_order(configs: Iterable[Config]) -> list[Config]:
    """As MariaDB reads them: the files that include folders, then the folders' files, each by name."""
    return sorted(configs, key=lambda config: (config.path.count("/"), config.path))


def effective(configs: Iterable[Config]) -> dict[str, Placed]:
    """The options in force; a later one replaces an earlier one. Files that anybody can write are not read."""
    readable = [config for config in in_order(configs) if not config.mode & 0o002]
    return {option.name: (config, option) for config in readable for option in parse(config.text)}


def datadirs(cluster: ClusterFiles) -> frozenset[str]:
    """Debian's data folder, and those that are set anywhere."""
    options = [option for config in cluster.matching(*PATHS) for option in parse(config.text)]
    return frozenset(
        {DATADIR} | {option.value.rstrip("/") for option in options if option.name == "datadir" and option.value}
    )


def in_datadir(path: str, cluster: ClusterFiles) -> bool:
    """Whether a path, with or without a host, is a data folder or below one."""
    local = path.rpartition(":")[2].rstrip("/")
    return any(folder and (local == folder or local.startswith(folder + "/")) for folder in datadirs(cluster))


def world_writable(config: Config, _: ClusterFiles) -> Iterator[Hit]:
    """Accepted: the whole file is ignored."""
    if config.mode & 0o002:
        yield Hit(
            config,
            0,
            f"Its mode is {config.mode & 0o777:o}: MariaDB ignores a file that everyone can write, and all its "
            "settings. Set it to 644 [my_default.c of MariaDB]",
        )


def _judge(options: dict[str, Placed]) -> Iterator[tuple[Placed, str]]:
    for rule in (_trx_commit, _binlog, _flush_method, _doublewrite, _engine):
        yield from rule(options)


def _trx_commit(options: dict[str, Placed]) -> Iterator[tuple[Placed, str]]:
    found = options.get("innodb_flush_log_at_trx_commit")
    if found and found[1].word == "0":
        yield (
            found,
            "innodb_flush_log_at_trx_commit=0: even a crash of the server alone loses up to 1 s of transactions. Use 1",
        )
    elif found and found[1].word == "2":
        yield found, f"innodb_flush_log_at_trx_commit=2: {POWER}, up to 1 s of them (a kill -9 does not). Use 1"


def _binlog(options: dict[str, Placed]) -> Iterator[tuple[Placed, str]]:
    binlog, sync = options.get("log_bin"), options.get("sync_binlog")
    if binlog is None or binlog[1].value == "0":
        return
    if sync is None:
        yield (
            binlog,
            f"log_bin without sync_binlog, whose default is 0: {POWER}, even with innodb_flush_log_at_trx_commit=1, "
            "because MariaDB recovers from the binary log. Set sync_binlog=1",
        )
    elif sync[1].word.strip("0") == "":
        yield (
            sync,
            f"sync_binlog=0 with log_bin: {POWER}, even with innodb_flush_log_at_trx_commit=1, because MariaDB "
            "recovers from the binary log. Set sync_binlog=1",
        )
    elif sync[1].word.isdigit() and int(sync[1].word) > 1:
        yield (
            sync,
            f"sync_binlog={sync[1].word} with log_bin: {POWER}, up to {sync[1].word} groups of them, because MariaDB "
            "recovers from the binary log. Set sync_binlog=1",
        )


LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
ANY = frozenset({"*", "0.0.0.0", "::"})


def unreachable(configs: Sequence[Config], cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted: the real servers do not reach the database. Debian's own 50-server.cnf says so."""
    for node, on_node in by_node(configs).items():
        options = effective(on_node)
        bound, own = options.get("bind_address"), cluster.addresses(node)
        word = bound[1].word if bound else ""
        if bound and (word in LOOPBACK or (own and word not in ANY | own and word[:1].isdigit() and "," not in word)):
            why = "real servers do not reach the database" if word in LOOPBACK else f"{node} has no such address"
            yield Hit(
                bound[0],
                bound[1].line,
                f"bind_address={word}: {why}. Remove it, or name the file so that it comes before the lab's "
                "60-site.cnf [Server System Variables of MariaDB]",
            )
        networking, skipped = options.get("networking"), options.get("skip_networking")
        off = [networking] if networking and networking[1].value == "0" else []
        off += [skipped] if skipped and skipped[1].word not in OFF else []
        for config, option in off[:1]:
            yield Hit(
                config,
                option.line,
                "skip_networking: real servers do not reach the database. Remove it [Server System Variables of "
                "MariaDB]",
            )


def _flush_method(options: dict[str, Placed]) -> Iterator[tuple[Placed, str]]:
    found = options.get("innodb_flush_method")
    if found and found[1].word in {"nosync", "littlesync"}:
        yield found, f"innodb_flush_method={found[1].value}: InnoDB does not flush, so {POWER}. Remove it"


def _doublewrite(options: dict[str, Placed]) -> Iterator[tuple[Placed, str]]:
    found = options.get("innodb_doublewrite")
    if found and found[1].word in OFF:
        yield found, "innodb_doublewrite is off: a power cut leaves torn pages that InnoDB cannot recover. Turn it on"


def _engine(options: dict[str, Placed]) -> Iterator[tuple[Placed, str]]:
    found = options.get("default_storage_engine") or options.get("storage_engine")
    if found and found[1].word in {"myisam", "aria"}:
        yield found, f"New tables use {found[1].value}: {POWER}. Use InnoDB"


def not_durable(configs: Sequence[Config], _: ClusterFiles) -> Iterator[Hit]:
    """Accepted: each of these trades acknowledged transactions for speed."""
    for on_node in by_node(configs).values():
        for (config, option), reason in _judge(effective(on_node)):
            yield Hit(
                config,
                option.line,
                f"{reason} [Server System Variables of MariaDB]",
                # a missing sync_binlog may be added to any of them
                others(config, on_node) if option.name == "log_bin" else (),
            )
