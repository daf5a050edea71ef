"""Variable data: folders that users write to, on the master's own disk, mounted by all other real servers over NFS.

NFS version 3 over TCP, mounted ``hard``: a write waits for the server rather than being lost. Version 3 keeps no state
of opens and locks that a rebooted server would have to collect again; version 4 has a grace period for that, 90 s by
default, in which every open waits. The site uses no locks, hence ``nolock``. ``lookupcache=positive`` and a short
attribute cache make a file visible that another node has just written (nfs(5), "Directory entry caching"). A backup
is pushed to another real server at an interval.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from harness.records import Consequence
from topology.model import Machine, Topology
from topology.parts.part import Collector, Disk, Judgement, Observations, Part, Secrets, mounted
from topology.parts.real_servers import UPLOADS
from topology.render import File, render

BACKUP = "/srv/backup/uploads"
MOUNT_OPTIONS = "vers=3,proto=tcp,hard,nolock,lookupcache=positive,actimeo=1,timeo=50,retrans=2,mountport=20048"
"""nfs(5). ``timeo`` is in tenths of a second: with its default a client needs 60 s to notice that the server lost its
connections in a power cut. ``mountport`` avoids a query to the port mapper."""
ANSWER_S = 2
"""Timeout for a probe of a mount: a hard mount would wait forever."""


SERVER = "nfsd"
"""The service of the master that the others' files depend on."""
HUNG = "blocked for more than|Call Trace:"
"""What a kernel writes when a program waits for a file server for 2 minutes (kernel/hung_task.c)."""


class VariableData(Part):
    """NFS server, clients, and the backup."""

    name = "variable data"
    single_point_of_failure = "one NFS server: if it is down, uploads wait until it is back"

    def enabled(self, topology: Topology) -> bool:
        """Whether the topology has variable data."""
        return topology.variable_data is not None

    def files(self, topology: Topology, machine: Machine, secrets: Secrets) -> Iterator[File]:
        """The export on the master, the mount on the others, the rsync module for the backup on one of them."""
        wanted = topology.variable_data
        if wanted is None or machine.role != "web":
            return
        if machine.name == wanted.master:
            yield mounted("uploads", UPLOADS, "noatime,dirsync", "www-data")
            lan = topology.segments["lan"]
            yield File("/etc/exports", render("exports.j2", path=UPLOADS, lan=lan))
            target = f"rsync://{topology.lan(wanted.backup_on)}/uploads-backup"
            plan = f"FOLDER={UPLOADS}\nTARGET={target}\nEVERY_S={wanted.backup_every_s}\n"
            yield File("/etc/monkeywrench/uploads-backup", plan)
        else:
            mount = f"{topology.lan(wanted.master)}:{UPLOADS} {UPLOADS} {MOUNT_OPTIONS}\n"
            yield File("/etc/monkeywrench/uploads.mount", mount)
        if machine.name == wanted.backup_on:
            values = {"name": "uploads-backup", "path": BACKUP, "allow": topology.lan(wanted.master), "keep": True}
            yield File("/etc/rsyncd.d/uploads-backup.conf", render("rsyncd-module.conf.j2", **values))

    def services(self, topology: Topology, machine: Machine) -> tuple[str, ...]:
        """The NFS server and its backup job, the mounts, and the rsync daemon that receives the backup."""
        wanted = topology.variable_data
        if wanted is None or machine.role != "web":
            return ()
        if machine.name == wanted.master:
            return "rpcbind", "mountd", "nfsd", "uploads-backup"
        return ("uploads-mount", "rsyncd") if machine.name == wanted.backup_on else ("uploads-mount",)

    def consequences(self, topology: Topology) -> Iterator[Consequence]:
        """All real servers have the master's files: their pages complain, and their kernels."""
        if topology.variable_data is None:
            return
        web, master = tuple(machine.name for machine in topology.of_role("web")), (topology.variable_data.master,)
        yield Consequence("apache", web, master, (SERVER,))
        yield Consequence("console", web, master, (SERVER,), HUNG)

    def modules(self, topology: Topology, machine: Machine) -> tuple[str, ...]:
        """The NFS modules: the server's on the master, the client's on the others."""
        wanted = topology.variable_data
        if wanted is None or machine.role != "web":
            return ()
        return ("nfsd",) if machine.name == wanted.master else ("nfsv3",)

    def disk(self, topology: Topology, machine: Machine) -> Disk | None:
        """The master's disk: NFS can only export a real file system."""
        wanted = topology.variable_data
        return Disk("uploads", wanted.disk_mib) if wanted and machine.name == wanted.master else None

    def probe_command(self, topology: Topology, machine: Machine) -> str:
        """statfs, which an NFS client always asks its server; and the age of the backup on the node that keeps it."""
        wanted = topology.variable_data
        if wanted is None or machine.role != "web":
            return ""
        ask = f"timeout -s KILL {ANSWER_S} stat -f -c %T {UPLOADS} || echo silent"
        return f"{ask}; {backup_question(BACKUP)}" if machine.name == wanted.backup_on else ask

    def collectors(self, topology: Topology, machine: Machine) -> Iterator[Collector]:
        """Round trips on each mount, and the age of the backup on the node that keeps it."""
        wanted = topology.variable_data
        if wanted is None or machine.role != "web":
            return
        if machine.name != wanted.master:
            yield {"what": "nfs", "every_s": 1, "folder": UPLOADS}
        if machine.name == wanted.backup_on:
            yield {"what": "backup", "every_s": 5, "of": "uploads", "folder": BACKUP}

    def judge(self, seen: Observations) -> Judgement:
        """Healthy: the mount answers on every node, and a recent backup exists."""
        wanted = seen.topology.variable_data
        answers = seen.answers.get(self.name, {})
        assert wanted is not None
        web = [machine.name for machine in seen.topology.of_role("web")]
        problems, mounted = [], []
        for node in seen.running(web):
            kind = answers.get(node, "").partition("\n")[0].strip()
            if kind == ("ext2/ext3" if node == wanted.master else "nfs"):
                mounted.append(node)
            else:
                problems.append(_mount_problem(node, kind, node == wanted.master))
        backup = parse_backup(answers.get(wanted.backup_on, "").partition("\n")[2])
        problem = backup_problem(backup, wanted.backup_every_s)
        problems += [f"the backup of the uploads on {wanted.backup_on} {problem}"] if problem else []
        line = f"served by {wanted.master}, mounted on {len(mounted)} of {len(web)}; {backup_line(backup)}"
        return Judgement(line, tuple(problems), {"mounted": mounted, "backup": backup})


def _mount_problem(node: str, kind: str, is_master: bool) -> str:
    if kind in ("", "silent"):
        return f"{UPLOADS} on {node} does not answer"
    return f"{UPLOADS} on {node} is {kind} instead of {'its own disk' if is_master else 'an NFS mount'}"


LATE = 3
"""A backup is too old after this many intervals."""


def backup_question(folder: str) -> str:
    """Prints ages in seconds: of the machine, and of the current backup, followed by the backup's own record.

    All on the node's own clock: the difference of 2 of its readings is right even when the clock is wrong.
    """
    age = f"$(($(date +%s) - $(stat -L -c %Y {folder}/current/backup.json)))"
    return (
        f'cut -d. -f1 /proc/uptime; [ ! -e {folder}/current ] || {{ echo "{age}"; cat {folder}/current/backup.json; }}'
    )


def parse_backup(answer: str) -> dict[str, Any]:
    """``{"up_s", "age_s"?, "says"?}`` from the answer to :func:`backup_question`."""
    up, _, rest = answer.partition("\n")
    age, _, says = rest.partition("\n")
    found: dict[str, Any] = {}
    try:
        found["up_s"] = int(up)
        found["age_s"] = int(age)
        found["says"] = json.loads(says)
    except ValueError:
        pass
    return found


def backup_problem(backup: dict[str, Any], every_s: int) -> str:
    """What is wrong with a backup, as the end of a sentence; empty when nothing is."""
    if "up_s" not in backup:
        return "could not be checked"
    if "age_s" not in backup:
        return "does not exist" if backup["up_s"] > LATE * every_s else ""
    if backup["age_s"] > LATE * every_s:
        return f"is {backup['age_s']} s old; a new one is due every {every_s} s"
    return ""


def backup_line(backup: dict[str, Any]) -> str:
    """A backup's age, for the summary line."""
    return f"backup {backup['age_s']} s old" if "age_s" in backup else "no backup yet"
