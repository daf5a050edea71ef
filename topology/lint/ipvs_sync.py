"""``/etc/monkeywrench/ipvs-sync``: a director starts these connection sync daemons at boot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from topology.lint import shell
from topology.lint.model import ClusterFiles, Config, Hit, Remark, cited, others

PATH = "/etc/monkeywrench/ipvs-sync"

ROLES = ("master", "backup")


@dataclass(frozen=True)
class Daemon:
    """A sync daemon; a backup with ipvsadm's default sync id, 0, accepts everything (ipvsadm(8))."""

    line: int
    role: str
    syncid: str


def parse(text: str) -> tuple[Daemon, ...]:
    """The daemons that the script starts."""
    return tuple(_daemons(text))


def _daemons(text: str) -> Iterator[Daemon]:
    for command in shell.parse(text):
        words = command.after("ipvsadm") or ()
        for role in ROLES:
            if "--start-daemon" in words and role in words:
                yield Daemon(command.line, role, _after(words, "--syncid") or "0")


def _after(words: tuple[str, ...], option: str) -> str:
    places = [place for place, word in enumerate(words[:-1]) if word == option]
    return words[places[-1] + 1] if places else ""


def both_roles(daemons: tuple[Daemon, ...]) -> Iterator[Remark]:
    """Accepted: the peer does not learn the connections of one direction."""
    missing = [role for role in ROLES if role not in {daemon.role for daemon in daemons}]
    if missing:
        yield (
            daemons[0].line if daemons else 0,
            f"No {' and no '.join(missing)} sync daemon is started: established masq connections break at a takeover. "
            "With a VIP on each director, start both daemons on both directors [ipvsadm(8)]",
        )


def ids_cross(configs: Sequence[Config], _: ClusterFiles) -> Iterator[Hit]:
    """Accepted: a backup filters out what its peer sends."""
    for config in configs:
        for daemon in parse(config.text):
            sent = {
                (other, master.syncid)
                for other in others(config, configs)
                for master in parse(other.text)
                if master.role == "master"
            }
            if daemon.role == "backup" and daemon.syncid != "0" and sent and daemon.syncid not in {i for _, i in sent}:
                peers = tuple(sorted({other for other, _ in sent}, key=lambda other: other.node))
                here = config if config.source else cited((*peers, config))
                line = daemon.line if here == config else 0
                ids = ", ".join(sorted({identity for _, identity in sent}))
                yield Hit(
                    here,
                    line,
                    f"The backup sync daemon of {config.node} accepts sync id {daemon.syncid}, but its peer sends "
                    f"{ids}: it learns no connections, and all break at a takeover. Use the peer's id [ipvsadm(8)]",
                    others(here, (config, *peers)),
                )
