"""Which programs to ask about which files of a node, and their complaints as findings. Pure.

``inside.py`` asks them, in a container of the node's image; ``topology/lab/daemons.py`` starts it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from topology.daemons.inside import Complaint
from topology.lint.model import Config, LintFinding, times

ROLES = ("director", "web", "db")
"""The roles whose nodes have such programs."""

READS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "director": {
        "heartbeat": ("/etc/ha.d/ha.cf", "/etc/ha.d/haresources", "/etc/ha.d/authkeys"),
        "ldirectord": ("/etc/ha.d/*.cf", "/etc/ldirectord.cf"),
        "gmetad": ("/etc/ganglia/gmetad.conf",),
    },
    "web": {
        "apache2": ("/etc/apache2/*",),
        "exportfs": ("/etc/exports", "/etc/exports.d/*"),
        "gmond": ("/etc/ganglia/gmond.conf",),
    },
    "db": {"mariadbd": ("/etc/my.cnf", "/etc/mysql/*")},
}
"""The programs of a role, and the files that they read."""
EVERYWHERE: Mapping[str, tuple[str, ...]] = {
    "keepalived": ("/etc/keepalived/keepalived.conf",),
    "sysctl": ("/etc/sysctl.d/*", "/etc/sysctl.conf", "/etc/monkeywrench/sysctl.conf"),
    "sh": (
        "/etc/monkeywrench/boot.d/*",
        "/etc/ha.d/resource.d/*",
        "/etc/init.d/*",
        "*.sh",
        "*/sv/*/run",
        "/usr/local/*bin/*",
    ),
}
"""Those of every role."""
PER_NODE = frozenset({"heartbeat"})
"""Programs whose answer depends on the node's name and addresses."""
NETWORK, HOSTS = "/etc/monkeywrench/network.batch", "/etc/monkeywrench/hosts"
OUTSIDE = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/*", "/proc/*", "/sys/*")
"""Files that belong to the container, not to the node."""


@dataclass(frozen=True)
class Question:
    """What to ask in one container: the files of its nodes are the same."""

    role: str
    nodes: tuple[str, ...]
    """The container has the name of the first."""
    files: tuple[Config, ...]
    """Those of the first node."""
    data: Mapping[str, bytes]
    programs: Mapping[str, tuple[str, ...]]
    """The programs, each with the paths to ask about."""
    interfaces: tuple[str, ...]

    @property
    def text(self) -> str:
        """What ``inside.py`` reads."""
        return json.dumps({"interfaces": self.interfaces, "programs": self.programs})


def programs(role: str, paths: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The programs to ask on a node of this role with these files; those without a file are left out."""
    there = sorted(paths)
    wanted = {**READS.get(role, {}), **EVERYWHERE}
    found = {
        program: tuple(path for path in there if any(fnmatchcase(path, pattern) for pattern in patterns))
        for program, patterns in wanted.items()
    }
    if "ldirectord" in found:
        found["ldirectord"] = tuple(path for path in found["ldirectord"] if path != "/etc/ha.d/ha.cf")
    return {program: files for program, files in found.items() if files}


def questions(nodes: Iterable[tuple[str, str, Sequence[str], Mapping[Config, bytes]]]) -> list[Question]:
    """One question for all nodes of a role that would get the same answer.

    A node is its name, its role, its interfaces, and its files. A node whose programs read no file of it has none.
    """
    found: dict[object, Question] = {}
    for name, role, interfaces, files in nodes:
        wanted = programs(role, (config.path for config in files))
        if not wanted:
            continue
        read = {path for paths in wanted.values() for path in paths}
        same = tuple(sorted((config.path, config.mode, files[config]) for config in files if config.path in read))
        key = (role, same, name if PER_NODE & wanted.keys() else "")
        if key in found:
            earlier = found[key]
            found[key] = Question(
                role, (*earlier.nodes, name), earlier.files, earlier.data, earlier.programs, earlier.interfaces
            )
        else:
            data = {config.path: files[config] for config in files}
            found[key] = Question(role, (name,), tuple(files), data, wanted, tuple(interfaces))
    return list(found.values())


def findings(question: Question, complaints: Iterable[Complaint]) -> list[LintFinding]:
    """The complaints, each about the user's file where it is one."""
    sources = {config.path: config.file for config in question.files}
    return [
        LintFinding(
            sources.get(each.path, each.path),
            each.line,
            question.nodes,
            f"{each.program} {each.effect}: {each.message}{times(each.times)}",
        )
        for each in complaints
    ]


def merged(found: Iterable[LintFinding]) -> list[LintFinding]:
    """The same finding on several nodes, or lines, of a file once: on its first line, with how many lines have it."""
    lines: dict[tuple[str, str], dict[int, set[str]]] = {}
    for each in found:
        lines.setdefault((each.file, each.reason), {}).setdefault(each.line, set()).update(each.nodes)
    return sorted(
        (
            LintFinding(file, min(at), tuple(sorted(set().union(*at.values()))), reason + times(len(at)))
            for (file, reason), at in lines.items()
        ),
        key=lambda each: (each.file, each.line, each.reason),
    )
