"""Faults of the site's database, as its clients see them: no server, no answer, no writes, no connection, no lock."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from faults.fault import Change, SimpleFault, must, running, sh
from faults.node import BOOT
from faults.when_ready import when_ready
from harness.protocols import Lab, Node
from harness.records import LabError, Power, Undo
from harness.wait import NotYet

SERVICE = "/run/service/mariadb"
DAEMON = "mariadbd"
PROGRAMS = "/usr/lib/monkeywrench/faults"
HOLD = f"{PROGRAMS}/hold-connections"

PROCESS = "service mariadb"
"""The claim of what stops or ends the server's process, as of faults of any service's processes."""

UP = "mariadb-admin ping > /dev/null 2>&1"

CLIENT_S = 2
"""How long a client waits, to connect and for an answer; a database that is well has one within milliseconds."""

ASK = f"/usr/lib/monkeywrench/ask-database {CLIENT_S}"
"""One statement of the site's user on a connection of its own. Prints the milliseconds, the error's code, its text."""

SELECT = "SELECT 1"
WRITE = "DELETE FROM players WHERE player < 0"
"""A write that changes nothing; refused all the same by a server that refuses writes."""

# Error codes: "Server Error Codes" of MariaDB's documentation.
TOO_MANY_CONNECTIONS = 1040
LOCK_WAIT_TIMEOUT = 1205
READ_ONLY = 1290


@dataclass(frozen=True)
class Answer:
    """What a client of the database was told; code 0 is success."""

    ms: int
    code: int
    text: str = ""

    @property
    def words(self) -> str:
        """For a person."""
        return f"error {self.code} ({self.text}) after {self.ms} ms" if self.code else f"success after {self.ms} ms"


def parse_answer(printed: str) -> Answer:
    """What ``ASK`` printed. Raises NotYet for anything else. Pure."""
    ms, _, said = printed.strip().rpartition("\n")[2].partition(" ")
    code, _, text = said.partition(" ")
    if not ms.isdigit() or not code.isdigit():
        raise NotYet(printed.strip()[-200:] or "the client printed nothing")
    return Answer(int(ms), int(code), text)


def ask(client: Node, statement: str) -> Answer:
    """Let a node be a client of the database."""
    return parse_answer(client.exec(*sh(f"printf '%s\\n' \"$1\" | {ASK}", statement), timeout_s=30).stdout)


def database_of(lab: Lab) -> Node:
    """The database's node. Raises LabError."""
    nodes = lab.nodes("db")
    if not nodes:
        raise LabError("this lab has no database", "Boot a topology with the table [database].")
    return nodes[0]


def client_of(lab: Lab) -> Node:
    """A real server that can be asked what the database looks like from there. Raises LabError."""
    for node in lab.nodes("web"):
        if node.power() is Power.RUNNING:
            return node
    raise LabError("no real server runs, so nobody can see what the database does", "Boot one.")


def begin(*argv: str) -> tuple[str, ...]:
    """The command that starts a program which goes on by itself."""
    return ("/usr/lib/monkeywrench/detach", *argv)


def end(pattern: str) -> Undo:
    """The end of such a program, if it is there; ``pattern`` is what pgrep(1) finds its command line by."""
    return Undo(sh('pkill -KILL -f "$1"; true', pattern))


class DatabaseFault(SimpleFault):
    """A fault of the one database."""

    def available(self, lab: Lab) -> str | None:
        """None, or the reason why this lab cannot do it."""
        try:
            return self.possible(database_of(lab))
        except LabError as error:
            return str(error)

    def possible(self, node: Node) -> str | None:
        """None, or the reason why this node cannot have it."""
        return None

    def changes(self, lab: Lab) -> Sequence[Change]:
        """One change."""
        return [self.change(running(database_of(lab)), client_of(lab))]

    @abstractmethod
    def change(self, node: Node, client: Node) -> Change:
        """What is done to the database's node, and what a client of it sees."""


def refused(client: Node, statement: str, *codes: int) -> Callable[[], str]:
    """A proof: a client gets one of these errors; any error will do when none is named."""

    def look() -> str:
        answer = ask(client, statement)
        if not answer.code or (codes and answer.code not in codes):
            raise NotYet(f"{client.name} gets {answer.words}")
        return f"{client.name} gets {answer.words}"

    return look


def served(client: Node, statement: str = SELECT) -> Callable[[], str]:
    """The opposite."""

    def look() -> str:
        answer = ask(client, statement)
        if answer.code:
            raise NotYet(f"{client.name} gets {answer.words}")
        return f"{client.name} gets {answer.words}"

    return look


class DatabaseKilled(DatabaseFault):
    """Kill the database server (SIGKILL) and keep it down. Undone by starting it, which recovers what was committed."""

    name: ClassVar[str] = "data.database-killed"

    def change(self, node: Node, client: Node) -> Change:
        """``sv once``: a service that is not started again when it ends (sv(8))."""
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
    """Cut the power of the database's machine. Undone by powering it on; committed transactions are still there."""

    name: ClassVar[str] = "data.database-power-cut"

    def change(self, node: Node, client: Node) -> Change:
        """The machine's power."""

        def dark() -> str:
            if node.power() is not Power.OFF:
                raise NotYet(f"{node.name} is {node.power()}")
            return f"{node.name} is off; {refused(client, SELECT)()}"

        return Change(node, "power", node.power_off, (BOOT,), dark, served(client))


GO_ON = sh(f"pkill -CONT -x {DAEMON}; true")


class DatabaseFrozen(DatabaseFault):
    """Stop the database server's process: connections are made by its kernel, and never answered. Undone by SIGCONT."""

    name: ClassVar[str] = "data.database-frozen"

    def change(self, node: Node, client: Node) -> Change:
        """SIGSTOP."""
        stop = ("pkill", "-STOP", "-x", DAEMON)

        def silent() -> str:
            answer = ask(client, SELECT)
            if not answer.code or answer.ms < CLIENT_S * 1000:
                raise NotYet(f"{client.name} gets {answer.words}")
            return f"{client.name} waits in vain: {answer.words}"

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
    """Let the database server run a share of each second only, in one piece. Undone by letting it run."""

    name: ClassVar[str] = "data.database-slow"
    share: float = Field(0.2, ge=0.05, le=0.5, description="Of each second that the server runs")

    def change(self, node: Node, client: Node) -> Change:
        """SIGSTOP and SIGCONT in turn."""
        slow_ms = (1 - self.share) * 1000 / 2
        program = f"{PROGRAMS}/slow-process"
        slow = begin(program, DAEMON, str(self.share))
        undo = (end(f"^/usr/bin/python3 -IS {program}"), Undo(GO_ON))

        def slower() -> str:
            answer = ask(client, SELECT)
            if answer.ms < slow_ms:
                raise NotYet(f"{client.name} gets {answer.words}")
            return f"a query of {client.name} that needs milliseconds ends with {answer.words}"

        def quick() -> None:
            answer = min((ask(client, SELECT) for _ in range(3)), key=lambda each: each.ms)
            if answer.code or answer.ms >= slow_ms:
                raise NotYet(f"{client.name} gets {answer.words}")

        return Change(node, PROCESS, lambda: must(node, *slow), undo, slower, quick, again=(Undo(slow),))


def administer(node: Node, statement: str) -> str:
    """What the administrator is answered on the database's node. Raises LabError."""
    return must(node, "mariadb", "-NBe", statement).stdout.strip()


def put_back(statement: str) -> Undo:
    """A setting of the running server as it was; a server that does not run has lost the fault by itself.

    The statement may be refused while what the fault held is let go.
    """
    tried = (
        f'for _ in $(seq 60); do pgrep -x {DAEMON} > /dev/null || exit 0; mariadb -e "$1" && exit 0; sleep 0.5; done'
    )
    return Undo(sh(f"{tried}; exit 1", statement))


class DatabaseReadOnly(DatabaseFault):
    """Let the database refuse writes, as a replica does that nobody has promoted. Undone by the setting it had."""

    name: ClassVar[str] = "data.database-read-only"

    def change(self, node: Node, client: Node) -> Change:
        """``read_only``, which binds all but administrators."""
        before = administer(node, "SELECT @@GLOBAL.read_only")
        if before != "0":
            raise LabError(f"the database on {node.name} is read-only already")
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
    """Take all connections that the database allows, as a leaking application does. Undone by giving them back.

    The limit is lowered to little more than is in use, the site's connections are ended, and others of its user take
    their places. The one that a server keeps for an administrator stays free.
    """

    name: ClassVar[str] = "data.database-out-of-connections"

    def change(self, node: Node, client: Node) -> Change:
        """``max_connections``, and idle connections."""
        claim, before = "connections of mariadbd", administer(node, "SELECT @@GLOBAL.max_connections")
        take = sh(TAKE, *begin(HOLD, before))

        def whole() -> str:
            if (now := administer(node, "SELECT @@GLOBAL.max_connections")) != before:
                raise NotYet(f"max_connections is {now}")
            return served(client)()

        return Change(
            node,
            claim,
            lambda: must(node, *take, timeout_s=30),
            (
                end(f"^/usr/bin/python3 -I {HOLD} {before}$"),
                put_back(f"SET GLOBAL max_connections = {before}"),
            ),
            refused(client, SELECT, TOO_MANY_CONNECTIONS),
            whole,
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
"""The limit is never below what is in use: then a server refuses administrators too, and the undo with them. Other
connections are ended more than once, because some are made again before their places are taken."""


class DatabaseLocked(DatabaseFault):
    """Lock all rows of a table in a transaction that stays open. Undone by ending it, which changes nothing."""

    name: ClassVar[str] = "data.database-locked"
    table: str = Field("players", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Of the site's schema")

    def change(self, node: Node, client: Node) -> Change:
        """``SELECT ... FOR UPDATE`` on an idle connection."""
        lock = f"SELECT 1 FROM site.{self.table} FOR UPDATE"
        pattern = f"^/usr/bin/python3 -I {HOLD} 1 START TRANSACTION {lock}$"
        claim, hold = f"rows of {self.table}", begin(HOLD, "1", "START TRANSACTION", lock)
        try_it = f"SET STATEMENT innodb_lock_wait_timeout = 1 FOR SELECT 1 FROM {self.table} LIMIT 1 FOR UPDATE"
        return Change(
            node,
            claim,
            lambda: must(node, *hold),
            (end(pattern),),
            refused(client, try_it, LOCK_WAIT_TIMEOUT),
            served(client, try_it),
            again=(when_ready(UP, *hold),),
        )
