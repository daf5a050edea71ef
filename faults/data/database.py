"""Faults of the database as its clients see them: no server, no answer, no writes, no connections, no locks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from faults.fault import Change, SimpleFault, must, running, sh
from faults.node import BOOT
from faults.programs import LIBRARY, PROGRAMS, SERVICES, detached, ended, when_ready
from faults.targets import database_client_of, database_of
from harness.protocols import Lab, Node
from harness.records import EffectKind, LabError, Power, Undo
from harness.wait import NotYet

SERVICE = f"{SERVICES}/mariadb"
DAEMON = "mariadbd"
HOLD = f"{PROGRAMS}/hold-connections"

PROCESS = "service mariadb"
"""The claim of faults of the server's process, as for any service."""

UP = "mariadb-admin ping > /dev/null 2>&1"

CLIENT_S = 2
"""How long a client waits to connect and for an answer; a healthy database answers within milliseconds."""

ASK = f"{LIBRARY}/ask-database {CLIENT_S}"
"""Runs a statement as the site's user on its own connection. Prints milliseconds, error code and error text."""

SELECT = "SELECT 1"
WRITE = "DELETE FROM players WHERE player < 0"
"""A write that changes nothing; a read-only server still refuses it."""

# Error codes: "Server Error Codes" of MariaDB's documentation.
TOO_MANY_CONNECTIONS = 1040
LOCK_WAIT_TIMEOUT = 1205
READ_ONLY = 1290


@dataclass(frozen=True)
class Answer:
    """The answer to a client of the database; code 0 is success."""

    ms: int
    code: int
    text: str = ""

    @property
    def words(self) -> str:
        """The answer in words."""
        return f"error {self.code} ({self.text}) after {self.ms} ms" if self.code else f"success after {self.ms} ms"


def parse_answer(printed: str) -> Answer:
    """The answer that ``ASK`` printed. Raises NotYet for anything else. Pure."""
    ms, _, rest = printed.strip().rpartition("\n")[2].partition(" ")
    code, _, text = rest.partition(" ")
    if not ms.isdigit() or not code.isdigit():
        raise NotYet(printed.strip()[-200:] or "the client printed nothing")
    return Answer(int(ms), int(code), text)


def ask(client: Node, statement: str) -> Answer:
    """Ask the database from a node, as a client of it."""
    return parse_answer(client.exec(*sh(f"printf '%s\\n' \"$1\" | {ASK}", statement), timeout_s=30).stdout)


class DatabaseFault(SimpleFault):
    """A fault of the database."""

    of_service: ClassVar[str] = "mariadb"

    def affected(self, lab: Lab) -> tuple[str, ...]:
        """The database's node."""
        return (database_of(lab).name,)

    def target(self, lab: Lab) -> Node:
        """The database's node."""
        return database_of(lab)

    def changes(self, lab: Lab) -> Sequence[Change]:
        """The one change of the database's node."""
        return [self.change(running(database_of(lab)), database_client_of(lab))]

    @abstractmethod
    def change(self, node: Node, client: Node) -> Change:
        """What happens to the database's node, and what a client sees."""


def refused(client: Node, statement: str, *codes: int) -> Callable[[], str]:
    """A proof: a client gets one of these errors, or any error if none is named."""

    def look() -> str:
        answer = ask(client, statement)
        if not answer.code or (codes and answer.code not in codes):
            raise NotYet(f"{client.name} gets {answer.words}")
        return f"{client.name} gets {answer.words}"

    return look


def served(client: Node, statement: str = SELECT) -> Callable[[], str]:
    """The opposite: a client gets an answer."""

    def look() -> str:
        answer = ask(client, statement)
        if answer.code:
            raise NotYet(f"{client.name} gets {answer.words}")
        return f"{client.name} gets {answer.words}"

    return look


class DatabaseKilled(DatabaseFault):
    """Kill the database server (SIGKILL) and keep it down. Undone by starting it, which recovers commits."""

    name: ClassVar[str] = "data.database-killed"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.SERVICE_DOWN,)

    def change(self, node: Node, client: Node) -> Change:
        """``sv once``: the service is not restarted when it ends (sv(8))."""
        kill = sh(f"sv once {SERVICE} > /dev/null && pkill -KILL -x {DAEMON}")
        return Change(
            node,
            PROCESS,
            lambda: must(node, *kill),
            (Undo(("sv", "up", SERVICE)),),
            refused(client, SELECT),
            served(client),
            again=(when_ready(UP, *kill),),
        )


class DatabasePowerCut(DatabaseFault):
    """Cut the power of the database's node. Undone by powering it on; committed transactions must survive."""

    name: ClassVar[str] = "data.database-power-cut"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.NODE_DOWN,)
    of_service: ClassVar[str] = ""

    def change(self, node: Node, client: Node) -> Change:
        """The node's power."""

        def dark() -> str:
            if node.power() is not Power.OFF:
                raise NotYet(f"{node.name} is {node.power()}")
            return f"{node.name} is off; {refused(client, SELECT)()}"

        return Change(node, "power", node.power_off, (BOOT,), dark, served(client))


GO_ON = sh(f"pkill -CONT -x {DAEMON}; true")


class DatabaseFrozen(DatabaseFault):
    """Stop the database server (SIGSTOP): connections succeed, but get no answer. Undone by SIGCONT."""

    name: ClassVar[str] = "data.database-frozen"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.SERVICE_DOWN,)

    def change(self, node: Node, client: Node) -> Change:
        """The server's process stops."""
        stop = ("pkill", "-STOP", "-x", DAEMON)

        def silent() -> str:
            answer = ask(client, SELECT)
            if not answer.code or answer.ms < CLIENT_S * 1000:
                raise NotYet(f"{client.name} gets {answer.words}")
            return f"{client.name} gets no answer: {answer.words}"

        return Change(
            node,
            PROCESS,
            lambda: must(node, *stop),
            (Undo(GO_ON),),
            silent,
            served(client),
            again=(when_ready(UP, *stop),),
        )


class DatabaseSlow(DatabaseFault):
    """Let the database server run only for a share of each second. Undone by letting it run."""

    name: ClassVar[str] = "data.database-slow"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.SLOWS,)
    share: float = Field(0.2, ge=0.05, le=0.5, description="Share of each second in which the server runs")

    def change(self, node: Node, client: Node) -> Change:
        """A program sends SIGSTOP and SIGCONT in turn."""
        slow_ms = (1 - self.share) * 1000 / 2
        program = f"{PROGRAMS}/slow-process"
        slow = detached(program, DAEMON, str(self.share))
        undo = (ended(f"^/usr/bin/python3 -IS {program}"), Undo(GO_ON))

        def slower() -> str:
            answer = ask(client, SELECT)
            if answer.ms < slow_ms:
                raise NotYet(f"{client.name} gets {answer.words}")
            return f"a query of {client.name} that takes milliseconds otherwise: {answer.words}"

        def quick() -> None:
            answer = min((ask(client, SELECT) for _ in range(3)), key=lambda each: each.ms)
            if answer.code or answer.ms >= slow_ms:
                raise NotYet(f"{client.name} gets {answer.words}")

        return Change(node, PROCESS, lambda: must(node, *slow), undo, slower, quick, again=(Undo(slow),))


def administer(node: Node, statement: str) -> str:
    """The administrator's answer on the database's node. Raises LabError."""
    return must(node, "mariadb", "-NBe", statement).stdout.strip()


def put_back(statement: str) -> Undo:
    """The step that restores a setting of the running server; a server that is down has already lost the fault.

    It repeats the statement, which the server may refuse while it frees what the fault held.
    """
    tried = (
        f'for _ in $(seq 60); do pgrep -x {DAEMON} > /dev/null || exit 0; mariadb -e "$1" && exit 0; sleep 0.5; done'
    )
    return Undo(sh(f"{tried}; exit 1", statement))


class DatabaseReadOnly(DatabaseFault):
    """Make the database refuse writes, as a replica that was not promoted. Undone by the old setting."""

    name: ClassVar[str] = "data.database-read-only"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.FAILS_WRITES,)

    def change(self, node: Node, client: Node) -> Change:
        """``read_only``, which applies to all users but administrators."""
        before = administer(node, "SELECT @@GLOBAL.read_only")
        if before != "0":
            raise LabError(f"the database on {node.name} is already read-only")
        claim, change = "setting read_only", ("mariadb", "-e", "SET GLOBAL read_only = 1")
        return Change(
            node,
            claim,
            lambda: must(node, *change),
            (put_back(f"SET GLOBAL read_only = {before}"),),
            refused(client, WRITE, READ_ONLY),
            served(client, WRITE),
            again=(when_ready(UP, *change),),
        )


class DatabaseOutOfConnections(DatabaseFault):
    """Take all connections of the database, as a leaking application does. Undone by closing them.

    The limit is lowered to just above the connections in use, the site's connections are killed, and idle connections
    of its user take their places. The server's extra connection for an administrator stays free.
    """

    name: ClassVar[str] = "data.database-out-of-connections"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.EXHAUSTS,)

    def change(self, node: Node, client: Node) -> Change:
        """``max_connections``, and idle connections that use them up."""
        claim, before = "connections of mariadbd", administer(node, "SELECT @@GLOBAL.max_connections")
        take = sh(TAKE, *detached(HOLD, before))

        def restored() -> str:
            if (now := administer(node, "SELECT @@GLOBAL.max_connections")) != before:
                raise NotYet(f"max_connections is {now}")
            return served(client)()

        return Change(
            node,
            claim,
            lambda: must(node, *take, timeout_s=30),
            (
                ended(f"^/usr/bin/python3 -I {HOLD} {before}$"),
                put_back(f"SET GLOBAL max_connections = {before}"),
            ),
            refused(client, SELECT, TOO_MANY_CONNECTIONS),
            restored,
            again=(when_ready(UP, *take),),
        )


TAKE = """
mariadb -e "SET GLOBAL max_connections = (
    SELECT GREATEST(10, 5 + CAST(VARIABLE_VALUE AS INTEGER)) FROM information_schema.GLOBAL_STATUS
    WHERE VARIABLE_NAME = 'THREADS_CONNECTED')" &&
"$@" || exit 1
for _ in 1 2 3 4 5; do
    mariadb -NBe "
        SELECT CONCAT('KILL ', ID, ';') FROM information_schema.PROCESSLIST
        WHERE USER NOT IN ('system user', 'event_scheduler', SUBSTRING_INDEX(USER(), '@', 1))
        AND HOST NOT LIKE CONCAT(@@bind_address, ':%')" | mariadb --force
    sleep 0.1
done
"""
"""The limit never goes below the connections in use: the server would then refuse administrators, too, and with them
the undo. Other connections are killed repeatedly, because some reconnect before their places are taken."""


class DatabaseLocked(DatabaseFault):
    """Lock all rows of a table in a transaction that stays open. Undone by ending it without a change."""

    name: ClassVar[str] = "data.database-locked"
    does: ClassVar[tuple[EffectKind, ...]] = (EffectKind.FAILS_WRITES,)
    table: str = Field("players", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Table in the schema of the site")

    def change(self, node: Node, client: Node) -> Change:
        """``SELECT ... FOR UPDATE`` on a connection that stays idle."""
        lock = f"SELECT 1 FROM site.{self.table} FOR UPDATE"
        pattern = f"^/usr/bin/python3 -I {HOLD} 1 START TRANSACTION {lock}$"
        claim, hold = f"rows of {self.table}", detached(HOLD, "1", "START TRANSACTION", lock)
        try_it = f"SET STATEMENT innodb_lock_wait_timeout = 1 FOR SELECT 1 FROM {self.table} LIMIT 1 FOR UPDATE"
        return Change(
            node,
            claim,
            lambda: must(node, *hold),
            (ended(pattern),),
            refused(client, try_it, LOCK_WAIT_TIMEOUT),
            served(client, try_it),
            again=(when_ready(UP, *hold),),
        )
