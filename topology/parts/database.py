"""MySQL: MariaDB on a dedicated machine with its own disk; a real server keeps a backup."""

from __future__ import annotations

from collections.abc import Iterator

from harness.records import Consequence
from topology.model import Machine, Topology
from topology.parts.part import Collector, Disk, Judgement, Observations, Part, Secrets, mounted
from topology.parts.variable_data import backup_line, backup_problem, backup_question, parse_backup
from topology.render import File, render

BACKUP = "/srv/backup/database"
MOUNT = "/srv/database"

STATEMENT = "SELECT COUNT(*) FROM players WHERE player = 1"
"""The query of its collector."""

PATIENCE_S = 2


class Database(Part):
    """The server and its backup."""

    name = "MySQL"
    single_point_of_failure = "one database server: if it is down, the site can neither read nor write data"

    def enabled(self, topology: Topology) -> bool:
        """Whether the topology has a database."""
        return topology.database is not None

    def files(self, topology: Topology, machine: Machine, secrets: Secrets) -> Iterator[File]:
        """The server's settings and user, and the rsync module for the backup."""
        wanted = topology.database
        if wanted is None:
            return
        if machine.role == "db":
            values = {"mount": MOUNT, "address": topology.lan(machine.name)}
            yield mounted("database", MOUNT, "noatime", "mysql")
            yield File("/etc/mysql/mariadb.conf.d/60-site.cnf", render("site.cnf.j2", **values))
            lan = topology.segments["lan"]
            hosts = f"{lan.network_address}/{lan.netmask}"
            yield File("/etc/mysql/site-user.sql", render("site-user.sql.j2", hosts=hosts, password=secrets.database))
            target = f"rsync://{topology.lan(wanted.backup_on)}/database-backup"
            plan = f"FOLDER={MOUNT}\nTARGET={target}\nEVERY_S={wanted.backup_every_s}\n"
            yield File("/etc/monkeywrench/database-backup", plan)
        if machine.name == wanted.backup_on:
            allow = topology.of_role("db")[0].addresses["lan"][0]
            values = {"name": "database-backup", "path": BACKUP, "allow": allow, "keep": True}
            yield File("/etc/rsyncd.d/database-backup.conf", render("rsyncd-module.conf.j2", **values))

    def services(self, topology: Topology, machine: Machine) -> tuple[str, ...]:
        """The server and its backup job; the rsync daemon that receives the backup."""
        if topology.database and machine.name == topology.database.backup_on:
            return ("rsyncd",)
        return ("mariadb", "database-backup") if machine.role == "db" else ()

    def consequences(self, topology: Topology) -> Iterator[Consequence]:
        """The pages of all real servers complain when they have no database."""
        web, db = ([machine.name for machine in topology.of_role(role)] for role in ("web", "db"))
        yield Consequence("apache", tuple(web), tuple(db), on_console=True)

    def disk(self, topology: Topology, machine: Machine) -> Disk | None:
        """The server's disk, with the data folder of the image."""
        if topology.database is None or machine.role != "db":
            return None
        return Disk("database", topology.database.disk_mib, "/usr/share/monkeywrench/database")

    def probe_command(self, topology: Topology, machine: Machine) -> str:
        """A local query on the server; the age of the backup on the node that keeps it."""
        if topology.database and machine.name == topology.database.backup_on:
            return backup_question(BACKUP)
        if machine.role == "db":
            return "mariadb -NBe 'SELECT VERSION(), (SELECT COUNT(*) FROM site.ledger)'"
        return ""

    def collectors(self, topology: Topology, machine: Machine) -> Iterator[Collector]:
        """Round trips of a database client and the age of the backup, both on the node that keeps the backup."""
        if topology.database and machine.name == topology.database.backup_on:
            yield {"what": "database", "every_s": 1, "statement": STATEMENT, "patience_s": PATIENCE_S}
            yield {"what": "backup", "every_s": 5, "of": "database", "folder": BACKUP}

    def judge(self, seen: Observations) -> Judgement:
        """Healthy: the server answers, and a recent backup exists."""
        wanted = seen.topology.database
        assert wanted is not None
        answers = seen.answers.get(self.name, {})
        node = seen.topology.of_role("db")[0].name
        words = answers.get(node, "").split()
        up = len(words) == 2 and words[1].isdigit()
        problems = [] if up else [f"the database on {node} does not answer"]
        backup = parse_backup(answers.get(wanted.backup_on, ""))
        problem = backup_problem(backup, wanted.backup_every_s)
        problems += [f"the backup of the database on {wanted.backup_on} {problem}"] if problem else []
        line = f"{words[0]} on {node}, {words[1]} scores" if up else f"no answer from {node}"
        return Judgement(f"{line}; {backup_line(backup)}", tuple(problems), {"backup": backup})
