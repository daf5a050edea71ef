"""What the rules look at and what they say: configuration files as nodes will have them, and findings."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Generic, TypeVar

T = TypeVar("T")

Remark = tuple[int, str]
"""A line (1-based; 0 is the file as a whole, or something absent from it), and what is wrong there."""

QUOTED_LENGTH = 40
"""How much of a word that makes no sense is repeated in a reason."""


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
    """Where a person edits it: the user's file, or empty when the lab rendered it."""

    @property
    def file(self) -> str:
        """What to call it: the user's file where there is one, otherwise its path on the node."""
        return self.source or self.path


@dataclass(frozen=True)
class Pitfall:
    """A setting that is known to bite, and what would be right."""

    file: str
    """``Config.source``, or its path on the node when there is none."""
    line: int
    """1-based; 0 when it is about something absent or the file as a whole."""
    nodes: tuple[str, ...]
    reason: str
    """What happens, what would be right, and in brackets who says so."""


@dataclass(frozen=True)
class Finding:
    """What a rule found in ``config``; ``others`` are the files that it compared it with."""

    config: Config
    line: int
    reason: str
    others: tuple[Config, ...] = ()
    nodes: tuple[str, ...] = ()
    """Nodes that it concerns although none of their files is among the others."""

    @property
    def concerned(self) -> tuple[Config, ...]:
        """All files that could be changed to be rid of it."""
        return (self.config, *self.others)


@dataclass(frozen=True)
class Cluster:
    """All files of all nodes, for rules that compare. ``web`` is the number of real servers."""

    configs: tuple[Config, ...]
    web: int

    def matching(self, *patterns: str) -> tuple[Config, ...]:
        """The files whose paths match one of the patterns (``*`` matches ``/`` too)."""
        return tuple(config for config in self.configs if matches(config.path, patterns))

    def on(self, node: str, *patterns: str) -> tuple[Config, ...]:
        """The files of one node whose paths match one of the patterns."""
        return tuple(config for config in self.matching(*patterns) if config.node == node)

    def real_servers(self) -> list[str]:
        """The nodes with Apache's configuration."""
        return sorted({config.node for config in self.matching("/etc/apache2/*")})

    def is_director(self, node: str) -> bool:
        """True for a node with heartbeat's or ldirectord's configuration."""
        return bool(self.on(node, "/etc/ha.d/*", "/etc/ldirectord.cf"))


@dataclass(frozen=True)
class Kind(Generic[T]):
    """One kind of file: how it is read, and the rules for it.

    ``rules`` see one parsed file, ``in_context`` one file and the whole cluster, ``between`` all files of this kind.
    """

    paths: tuple[str, ...]
    parse: Callable[[str], T]
    rules: tuple[Callable[[T], Iterable[Remark]], ...] = ()
    in_context: tuple[Callable[[Config, Cluster], Iterable[Finding]], ...] = ()
    between: tuple[Callable[[Sequence[Config], Cluster], Iterable[Finding]], ...] = ()

    def findings(self, configs: Sequence[Config], cluster: Cluster) -> Iterator[Finding]:
        """What all the rules say of the files of this kind."""
        for config in configs:
            parsed = self.parse(config.text)
            for rule in self.rules:
                yield from (Finding(config, line, reason) for line, reason in rule(parsed))
            for look in self.in_context:
                yield from look(config, cluster)
        for compare in self.between:
            yield from compare(configs, cluster)


def matches(path: str, patterns: Iterable[str]) -> bool:
    """True when one of the patterns matches the whole path."""
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def numbered(text: str) -> Iterator[tuple[int, str]]:
    """The lines as the daemons count them: only a newline ends one, none of Python's further separators does."""
    return enumerate(text.split("\n"), 1)


def by_node(configs: Iterable[Config]) -> dict[str, list[Config]]:
    """The files of each node, in the order given."""
    nodes: dict[str, list[Config]] = {}
    for config in configs:
        nodes.setdefault(config.node, []).append(config)
    return nodes


def cited(configs: Iterable[Config]) -> Config:
    """Of files that contradict each other the one to name: the first that a person can edit."""
    return min(configs, key=lambda config: (not config.source, config.node, config.path))


def others(config: Config, configs: Iterable[Config]) -> tuple[Config, ...]:
    """All of them but this one."""
    return tuple(other for other in configs if other != config)


def quoted(word: str) -> str:
    """A word of a file as a reason repeats it."""
    return repr(word if len(word) <= QUOTED_LENGTH else word[: QUOTED_LENGTH - 3] + "...")


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` when something known resembles the word, otherwise nothing."""
    near = difflib.get_close_matches(word[:QUOTED_LENGTH], list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def per_node(values: Iterable[tuple[str, str]]) -> str:
    """``3 s on lb-1, 8 s on lb-2``."""
    return ", ".join(f"{value} on {node}" for node, value in sorted(values))
