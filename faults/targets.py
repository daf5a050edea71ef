"""How a fault finds what it is for in a lab: the database, the shared files, the replication, the backups, the pair.

The nodes themselves are asked, by what the topology's parts wrote below ``/etc/monkeywrench``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from faults.fault import running
from faults.programs import SETTINGS
from harness.protocols import Lab, Node
from harness.records import LabError, Output, Power
from harness.wait import NotYet

BackupKind = Literal["database", "uploads"]

NFS_SERVER = f"{SETTINGS}/uploads-backup"
"""The master of the uploads backs them up, and exports them."""
NFS_CLIENT = f"{SETTINGS}/uploads.mount"
REPLICATION = f"{SETTINGS}/replicate.json"
BACKUP = f"{SETTINGS}/{{kind}}-backup"
"""On the node that is backed up."""
KEEPER = "/etc/rsyncd.d/{kind}-backup.conf"
"""On the node that keeps the backup."""

LOOK_S = 2
"""How long a look at a mount may take: a hard mount waits forever, and only SIGKILL ends the wait (nfs(5))."""


def having(lab: Lab, path: str, role: str = "web") -> list[tuple[Node, str]]:
    """The running nodes of a role that have such a file, and its content."""
    found = [(node, node.exec("cat", path)) for node in lab.nodes(role) if node.power() is Power.RUNNING]
    return [(node, done.stdout) for node, done in found if done.ok]


# --- the database


def database_of(lab: Lab) -> Node:
    """The database's node. Raises LabError."""
    nodes = lab.nodes("db")
    if not nodes:
        raise LabError("this lab has no database", "Boot a topology with the table [database].")
    return nodes[0]


def database_client_of(lab: Lab) -> Node:
    """A running real server, as a client of the database. Raises LabError."""
    for node in lab.nodes("web"):
        if node.power() is Power.RUNNING:
            return node
    raise LabError("no real server is running, so no client can ask the database", "Boot one.")


# --- the files that real servers share over NFS


@dataclass(frozen=True)
class Share:
    """The folder that real servers share over NFS, its server, and one of its clients."""

    server: Node
    client: Node
    folder: str

    def look(self) -> Output:
        """statfs(2), for which an NFS client always asks its server."""
        return self.client.exec("timeout", "-s", "KILL", str(LOOK_S), "stat", "-f", "-c", "%T", self.folder)

    def served(self) -> str:
        """See that the client is served. Raises NotYet."""
        done = self.look()
        if done.stdout.strip() != "nfs":
            raise NotYet(f"{self.client.name}: {done.stderr.strip() or f'{self.folder} does not answer'}")
        return f"{self.client.name} sees {self.folder}"

    def refused(self, *errors: str) -> Callable[[], str]:
        """A proof: the client gets one of these errors."""

        def look() -> str:
            done = self.look()
            if not any(error in done.stderr for error in errors):
                raise NotYet(f"{self.client.name}: {done.stdout.strip()} {done.stderr.strip()}")
            return f"{self.client.name}: {done.stderr.strip()}"

        return look


def share_of(lab: Lab) -> Share:
    """The variable data. Raises LabError when the lab has none, or its nodes do not run."""
    servers, clients = having(lab, NFS_SERVER), having(lab, NFS_CLIENT)
    words = clients[0][1].split() if clients else []
    if not servers or len(words) < 2:
        raise LabError(
            "no variable data is shared between running nodes of this lab",
            "It needs the table [variable_data], the running master, and another running real server.",
        )
    return Share(servers[0][0], clients[0][0], words[1])


# --- the web data that is replicated


@dataclass(frozen=True)
class Replication:
    """The replication of the site's folder: its master, the file of its state, and its running targets."""

    master: Node
    folder: str
    state: str
    targets: tuple[Node, ...]

    def account(self) -> dict[str, Any]:
        """The state that the master's program recorded. Raises NotYet."""
        return parse_account(self.master.exec("cat", self.state).stdout)


def parse_account(printed: str) -> dict[str, Any]:
    """The recorded state: ``rounds``, ``failed`` and ``problems``. Raises NotYet for anything else. Pure."""
    try:
        found = json.loads(printed)
        return {"rounds": int(found["rounds"]), "failed": list(found["failed"]), "problems": str(found["problems"])}
    except (ValueError, KeyError, TypeError):
        raise NotYet("the replication has recorded no state") from None


def replication_of(lab: Lab) -> Replication:
    """The replication. Raises LabError when the lab has none, or none of its targets runs."""
    for master, text in having(lab, REPLICATION):
        plan: Mapping[str, Any] = json.loads(text) if text else {}
        nodes = [lab.node(name) for name in plan.get("targets", {})]
        targets = tuple(node for node in nodes if node.power() is Power.RUNNING)
        if targets:
            return Replication(master, plan["folder"], plan["state"], targets)
    raise LabError(
        "no web data is replicated between running nodes of this lab",
        "It needs the table [web_data], the running master, and another running real server.",
    )


# --- the backups


@dataclass(frozen=True)
class Backup:
    """A backup: the node that keeps it, the node that it is of, and where it can be fetched."""

    kind: BackupKind
    keeper: Node
    folder: str
    source: Node
    original: str
    """The folder of the source that is backed up."""
    url: str


def parse_settings(text: str) -> dict[str, str]:
    """``KEY=value`` and ``key = value`` lines. Pure."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs}


def backup_of(lab: Lab, kind: BackupKind) -> Backup:
    """The backup of that kind. Raises LabError when the lab has none, or one of its nodes does not run."""
    sources = having(lab, BACKUP.format(kind=kind), "db" if kind == "database" else "web")
    keepers = having(lab, KEEPER.format(kind=kind))
    if not sources or not keepers or not keepers[0][1]:
        raise LabError(
            f"no backup of the {kind} is kept on running nodes of this lab",
            "`backup_on` in the tables [database] and [variable_data] names the node that keeps it.",
        )
    made, kept = parse_settings(sources[0][1]), parse_settings(keepers[0][1])
    return Backup(kind, keepers[0][0], kept["path"], sources[0][0], made["FOLDER"], made["TARGET"])


# --- the directors


def pair(lab: Lab) -> list[Node]:
    """The 2 directors, if both run. Raises LabError."""
    found = lab.nodes("director")
    if len(found) != 2:
        raise LabError(f"this lab has {len(found)} directors; this fault needs 2")
    return [running(node) for node in found]


def other_director(lab: Lab, name: str) -> Node:
    """The peer of a director. Raises LabError where there is no such pair."""
    names = [node.name for node in lab.nodes("director")]
    if name not in names or len(names) != 2:
        raise LabError(f"{name} is not one of 2 directors", f"The directors are: {', '.join(names)}.")
    return next(node for node in lab.nodes("director") if node.name != name)
