"""Proof that a backup of the database restores: a throwaway server starts on a copy of it, and the rows are compared.

The server runs in its own container beside the lab, without a network. The cluster is not touched, and the proof works
even while the database is down. The server takes real time, also beside a lab in virtual time, which stands still then.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.history.timeline import count_of
from harness.interrupts import deferring_signals
from harness.protocols import Stream
from harness.records import Entry, LabError, Line, Power
from harness.verdict import Finding, Outcome, Verdict, conclude, invalid, unknown
from harness.wait import REAL, Clock, NotYet, Timeout, until
from topology.lab import engine, image
from topology.lab.node import DockerNode
from topology.model import DatabaseTable
from topology.parts.database import BACKUP
from topology.parts.variable_data import backup_question, parse_backup

if TYPE_CHECKING:
    from topology.lab.docker_lab import DockerLab

FRESH_S = 180
START_S = 90
QUERY_S = 60
MADE_S = 60
"""Longer than it takes to make, send and store a backup."""
FOLDER, SOCKET, LOG = "/restore", "/run/mysqld/restore.sock", "/var/log/restore.log"
LEDGER = "SELECT op, player, points FROM site.ledger ORDER BY entry"
COINS = "SELECT COALESCE(SUM(coins), 0), COUNT(*) FROM site.players"
TABLES = "CHECK TABLE site.players, site.ledger, site.transfers EXTENDED"
COINS_EACH = 1000
"""The coins that each player starts with (schema.sql); transfers move coins and never create or lose any."""

Rows = Mapping[str, tuple[str, ...]]
"""The ledger: the id of an operation -> the rest of its row."""


@dataclass(frozen=True)
class Restored:
    """What the throwaway server found in a backup; ``error`` when it did not start or could not read it."""

    ledger: Rows
    coins: int = 0
    players: int = 0
    damaged: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Known:
    """What a backup is compared with."""

    before: Rows | None
    """The rows committed before the backup began; None when only their number is known."""
    entries_before: int
    now: Rows | None
    """The ledger of the running database; None while it is down."""


def prove(client: Any, lab: DockerLab, fresh: bool = False) -> Verdict:
    """Restore the current backup, or a ``fresh`` one, and compare. Raises LabError when there is none to restore."""
    keeper, database = _places(lab)
    before = None
    if fresh:
        before = ledger(database.exec("mariadb", "-NBe", LEDGER, timeout_s=QUERY_S).stdout)
        taken = database.exec("/usr/lib/monkeywrench/database-backup", "once", timeout_s=FRESH_S)
        if not taken.ok:
            raise LabError(f"taking a backup failed: {taken.stdout.strip() or taken.stderr.strip()}")
    backup = _current(keeper)
    if "age_s" not in backup:
        raise LabError(
            f"{keeper.name} has no backup of the database yet", "Wait for the first one, or take one with --fresh."
        )
    folder = keeper.exec("readlink", "-f", f"{BACKUP}/current").stdout.strip()
    pieces, _ = keeper.container.get_archive(f"{folder}/.")
    with _server(client, lab, b"".join(pieces)) as container:
        restored = _read(container)
    now = None
    if database.power() is Power.RUNNING:
        living = database.exec("mariadb", "-NBe", LEDGER, timeout_s=QUERY_S)
        now = ledger(living.stdout) if living.ok else None
    return compare(Known(before, _scores_before(backup), now), restored, backup["age_s"])


def await_scores(lab: DockerLab, clock: Clock = REAL) -> None:
    """Wait for a backup that has scores, so that restoring it proves something.

    The cluster makes backups on its own schedule, so the current one may be older than the first score. Gives up
    without an error after 2 backup intervals plus the time to make one, and at once if the database has no score;
    :func:`prove` then reports that nothing was compared.
    """
    keeper, database = _places(lab)
    within_s = 2 * _wanted(lab).backup_every_s + MADE_S

    def has_scores() -> bool:
        try:
            return _scores_before(_current(keeper)) > 0 or _has_no_score(database)
        except LabError as error:  # a machine may be off
            raise NotYet(str(error)) from error

    with suppress(Timeout):
        until(has_scores, within_s, "a backup with scores", 1, clock)


def _places(lab: DockerLab) -> tuple[DockerNode, DockerNode]:
    """The node that keeps the backup, and the database. Raises LabError."""
    return lab.node(_wanted(lab).backup_on), lab.node(lab.topology.of_role("db")[0].name)


def _wanted(lab: DockerLab) -> DatabaseTable:
    if lab.topology.database is None:
        raise LabError("this lab has no database", "Boot a topology that has a [database] table.")
    return lab.topology.database


def _current(keeper: DockerNode) -> dict[str, Any]:
    return parse_backup(keeper.exec("sh", "-c", backup_question(BACKUP)).stdout)


def _scores_before(backup: Mapping[str, Any]) -> int:
    """How many scores were committed for certain before a backup began, from the backup's own record."""
    return int((backup.get("says") or {}).get("ledger_entries", 0))


def _has_no_score(database: DockerNode) -> bool:
    """False also for a database that does not answer: it may have some."""
    if database.power() is not Power.RUNNING:
        return False
    return database.exec("mariadb", "-NBe", "SELECT COUNT(*) FROM site.ledger", timeout_s=QUERY_S).stdout.strip() == "0"


class ProofFeed:
    """A proof as a feed that ends on its own: one op, from the start of the restore to its result."""

    name = "prove-backup"

    def __init__(self, client: Any, lab: DockerLab) -> None:
        self.client, self.lab = client, lab

    def open(self) -> Stream:
        """Begin."""
        return _Proof(self.client, self.lab)

    def entries(self, line: Line) -> Iterable[Entry]:
        """The op of a line."""
        op = json.loads(line.text)
        yield Entry(line.time_ns, self.name, op["type"], self.name, op["value"], op.get("error"))

    def ready(self) -> bool:
        """Always: the files of a container can be read whatever state its machine is in."""
        return True


class _Proof:
    def __init__(self, client: Any, lab: DockerLab) -> None:
        self.client, self.lab = client, lab

    def __iter__(self) -> Iterator[Line]:
        yield self._line("invoke", {"of": "database"})
        try:
            await_scores(self.lab, self.lab.clock)
            verdict = prove(self.client, self.lab)
        except LabError as error:
            yield self._line("info", {"of": "database"}, str(error))
            return
        kind = TYPES[verdict.outcome]
        yield self._line(kind, {"of": "database", **verdict.numbers}, None if kind == "ok" else verdict.summary)

    def _line(self, kind: str, value: Mapping[str, Any], error: str | None = None) -> Line:
        op = {"type": kind, "value": value, **({"error": error} if error else {})}
        return Line(self.lab.now_ns(), json.dumps(op))

    def stop(self) -> None:
        """Nothing to do: it ends on its own."""


TYPES = {Outcome.VALID: "ok", Outcome.INVALID: "fail", Outcome.UNKNOWN: "info"}


@contextmanager
def _server(client: Any, lab: DockerLab, archive: bytes) -> Iterator[Any]:
    """A container with the backup in it. It is removed afterwards, or together with the lab."""
    with deferring_signals():
        container = client.containers.run(
            image.names(lab.topology.clock)["db"],
            ["sleep", "infinity"],
            detach=True,
            init=True,
            network_mode="none",
            labels={engine.LABEL: lab.name},
        )
    try:
        container.exec_run(["mkdir", "-p", FOLDER, "/run/mysqld"])
        container.put_archive(FOLDER, io.BytesIO(archive))
        container.exec_run(["chown", "-R", "mysql:", FOLDER, "/run/mysqld"])
        yield container
    finally:
        container.remove(force=True, v=True)


def _read(container: Any) -> Restored:
    command = f"exec mariadbd --user=mysql --datadir={FOLDER} --socket={SOCKET} --skip-networking --skip-grant-tables"
    container.exec_run(["sh", "-c", f"{command} > {LOG} 2>&1"], detach=True)

    def answers() -> bool:
        if container.exec_run(["pgrep", "mariadbd"]).exit_code != 0:
            raise LabError("the throwaway server stopped")
        if _query(container, "SELECT 1") != [("1",)]:
            raise NotYet("the throwaway server does not answer")
        return True

    try:
        until(answers, START_S, "the throwaway server to answer", 0.2)
        damaged = [row[0] for row in _query(container, TABLES) if row[2:3] != ("status",) or row[3:] != ("OK",)]
        ((coins, players),) = _query(container, COINS)
        rows = {op: tuple(rest) for op, *rest in _query(container, LEDGER)}
    except (LabError, Timeout, ValueError):
        errors = [line for line in _text(container, ["cat", LOG]).splitlines() if "[ERROR]" in line]
        return Restored({}, error=errors[0].partition("[ERROR]")[2].strip() if errors else "its log gives no reason")
    return Restored(rows, int(coins), int(players), tuple(damaged))


def _text(container: Any, argv: Sequence[str]) -> str:
    return str(container.exec_run(list(argv)).output.decode("utf-8", "replace"))


def _query(container: Any, statement: str) -> list[tuple[str, ...]]:
    done = container.exec_run(["mariadb", f"--socket={SOCKET}", "-NBe", statement], demux=True)
    return [tuple(line.split("\t")) for line in (done.output[0] or b"").decode().splitlines()]


def ledger(printed: str) -> Rows:
    """The ledger as ``mariadb -NBe`` prints it. Pure."""
    return {op: tuple(rest) for op, *rest in (line.split("\t") for line in printed.splitlines())}


def compare(known: Known, restored: Restored, age_s: int) -> Verdict:
    """Judge a backup. Pure.

    The ledger only grows: a good backup has every row committed before it began, and none that the running database
    lacks.
    """
    if restored.error:
        findings = [invalid(f"The backup does not restore: {restored.error}.")]
    else:
        findings = [*_table_findings(restored), *_ledger_findings(known, restored.ledger)]
    valid = f"The backup is {age_s} s old and restores {count_of(len(restored.ledger), 'score')}"
    valid += f", including all {len(known.before)} committed before it began." if known.before is not None else "."
    numbers = {"age_s": age_s, "restored": len(restored.ledger), "before": known.entries_before}
    return conclude("backup", findings, valid, numbers)


def _table_findings(restored: Restored) -> Iterator[Finding]:
    if restored.damaged:
        yield invalid(f"The backup has damaged tables: {', '.join(sorted(set(restored.damaged)))}.")
    expected = restored.players * COINS_EACH
    if restored.coins != expected:
        yield invalid(
            f"The players in the backup have {restored.coins:,} coins in total instead of {expected:,}; "
            "transfers never change the total."
        )


def _ledger_findings(known: Known, rows: Rows) -> Iterator[Finding]:
    if known.before is not None:
        if lost := _missing(known.before, rows):
            scores = count_of(len(lost), "score")
            yield invalid(f"The backup lacks {scores} committed before it began: {_some(lost)}.")
        yield from _changed(known.before, rows)
    elif len(rows) < known.entries_before:
        scores = count_of(len(rows), "score")
        yield invalid(f"The backup has {scores}, although {known.entries_before} were committed before it began.")
    if not (known.entries_before if known.before is None else known.before):
        yield unknown("There was no score before the backup began, so nothing was compared.")
    if known.now is not None:
        if extra := _missing(rows, known.now):
            scores = count_of(len(extra), "score")
            yield invalid(f"The backup has {scores} that the running database lacks: {_some(extra)}.")
        yield from _changed(rows, known.now)


def _missing(wanted: Rows, rows: Rows) -> list[str]:
    return [op for op in wanted if op not in rows]


def _changed(wanted: Rows, rows: Rows) -> Iterator[Finding]:
    if changed := [op for op in wanted if op in rows and rows[op] != wanted[op]]:
        yield invalid(f"The backup has {count_of(len(changed), 'score')} with other values: {_some(changed)}.")


def _some(ops: Iterable[str]) -> str:
    first = sorted(ops)
    return ", ".join(first[:3]) + (", ..." if len(first) > 3 else "")
