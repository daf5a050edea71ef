"""What lint rules read and return: configuration files as the nodes will have them, and findings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Generic, TypeVar

T = TypeVar("T")

Remark = tuple[int, str]
"""A line (from 1; 0 for the whole file, or for something missing from it), and the reason."""

SERVICES = "/etc/monkeywrench/services"
"""The services of a node of the lab, one a line."""
NETWORK = "/etc/monkeywrench/network.batch"
"""The addresses and routes of a node of the lab, in the syntax of ``ip -batch`` (ip(8))."""


@dataclass(frozen=True)
class Config:
    """One configuration file as a node will have it."""

    node: str
    """For example ``lb-1``."""
    path: str
    """On the node, for example ``/etc/ha.d/ha.cf``."""
    text: str
    mode: int
    """Permission bits."""
    source: str
    """The user's file that it comes from; empty when the lab rendered it."""

    @property
    def file(self) -> str:
        """Its name in a finding: the user's file if there is one, otherwise its path on the node."""
        return self.source or self.path


@dataclass(frozen=True)
class LintFinding:
    """A finding as it is reported."""

    file: str
    """``Config.source``, or the path on the node without one."""
    line: int
    """From 1; 0 for the whole file, or for something missing from it."""
    nodes: tuple[str, ...]
    reason: str
    """What is wrong, what happens, what to do, and the source in brackets."""


@dataclass(frozen=True)
class Hit:
    """What a rule found in ``config``; ``others`` are the files it was compared with."""

    config: Config
    line: int
    reason: str
    others: tuple[Config, ...] = ()
    nodes: tuple[str, ...] = ()
    """Further nodes that it concerns, without a file among the others."""

    @property
    def concerned(self) -> tuple[Config, ...]:
        """All files in which it could be fixed."""
        return (self.config, *self.others)


@dataclass(frozen=True)
class LabFacts:
    """What the topology says, for rules that look for contradictions with it."""

    vips: Mapping[str, str]
    """Address -> home director."""
    addresses: frozenset[str]
    """Of all nodes."""
    auto_failback: bool
    master: str = ""
    """The real server whose site the others copy; empty without replication."""


@dataclass(frozen=True)
class ClusterFiles:
    """All files of all nodes, for rules that compare. ``web`` is the number of real servers."""

    configs: tuple[Config, ...]
    web: int
    lab: LabFacts | None = None

    def interfaces(self, node: str) -> frozenset[str]:
        """The interfaces of a node that have addresses."""
        texts = [config.text for config in self.on(node, NETWORK)]
        return frozenset(name for text in texts for name in re.findall(r"address replace \S+ dev (\S+)", text))

    def matching(self, *patterns: str) -> tuple[Config, ...]:
        """The files whose paths match one of the patterns (``*`` matches ``/`` too)."""
        return tuple(config for config in self.configs if matches(config.path, patterns))

    def on(self, node: str, *patterns: str) -> tuple[Config, ...]:
        """The files of one node whose paths match one of the patterns."""
        return tuple(config for config in self.matching(*patterns) if config.node == node)

    def addresses(self, node: str) -> frozenset[str]:
        """The addresses of a node."""
        texts = [config.text for config in self.on(node, NETWORK)]
        return frozenset(address for text in texts for address in re.findall(r"address replace ([^\s/]+)/", text))

    def real_servers(self) -> list[str]:
        """The nodes with Apache's configuration."""
        return sorted({config.node for config in self.matching("/etc/apache2/*")})

    def is_director(self, node: str) -> bool:
        """Whether the node has a configuration of heartbeat or ldirectord."""
        return bool(self.on(node, "/etc/ha.d/*", "/etc/ldirectord.cf"))


@dataclass(frozen=True)
class FileKind(Generic[T]):
    """One kind of file: its reader and its rules.

    ``rules`` get one parsed file, ``in_context`` one file and all files of the cluster, ``between`` all files of this
    kind.
    """

    paths: tuple[str, ...]
    parse: Callable[[str], T]
    rules: tuple[Callable[[T], Iterable[Remark]], ...] = ()
    in_context: tuple[Callable[[Config, ClusterFiles], Iterable[Hit]], ...] = ()
    between: tuple[Callable[[Sequence[Config], ClusterFiles], Iterable[Hit]], ...] = ()

    def findings(self, configs: Sequence[Config], cluster: ClusterFiles) -> Iterator[Hit]:
        """What all rules find in the files of this kind."""
        for config in configs:
            parsed = self.parse(config.text)
            for rule in self.rules:
                yield from (Hit(config, line, reason) for line, reason in rule(parsed))
            for in_context in self.in_context:
                yield from in_context(config, cluster)
        for compare in self.between:
            yield from compare(configs, cluster)


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns matches the whole path."""
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def by_node(configs: Iterable[Config]) -> dict[str, list[Config]]:
    """The files of each node, in the order given."""
    nodes: dict[str, list[Config]] = {}
    for config in configs:
        nodes.setdefault(config.node, []).append(config)
    return nodes


def cited(configs: Iterable[Config]) -> Config:
    """The file to name when several contradict each other: the first that the user can edit."""
    return min(configs, key=lambda config: (not config.source, config.node, config.path))


def others(config: Config, configs: Iterable[Config]) -> tuple[Config, ...]:
    """All other files."""
    return tuple(other for other in configs if other != config)


def per_node(values: Iterable[tuple[str, str]]) -> str:
    """``3 s on lb-1, 8 s on lb-2``."""
    return ", ".join(f"{value} on {node}" for node, value in sorted(values))


def times(count: int) -> str:
    """`` (12 times, this is the first)``; empty for one."""
    return f" ({count} times, first on this line)" if count > 1 else ""
