"""sysctl settings: what forwarding and IPVS need of a director's kernel, and gate and ipip of a real server's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

from topology.lint import ldirectord_syntax
from topology.lint.model import Cluster, Config, Finding, by_node, cited, numbered, others

PATHS = ("/etc/sysctl.d/*", "/etc/sysctl.conf", "/etc/monkeywrench/sysctl.conf")
"""In the order in which they take effect."""

EXPIRE_TEMPLATE = "net.ipv4.vs.expire_quiescent_template"
EXPIRE_NODEST = "net.ipv4.vs.expire_nodest_conn"
FORWARD = "net.ipv4.ip_forward"
REDIRECTS = "net.ipv4.conf.{}.send_redirects"
ARP_IGNORE = "net.ipv4.conf.all.arp_ignore"
ARP_ANNOUNCE = "net.ipv4.conf.all.arp_announce"

IPVS_WANTS = {
    EXPIRE_TEMPLATE: (
        "a persistent client's new connections still go to a real server of weight 0; 1 is right "
        "[ipvs-sysctl.rst of Linux]"
    ),
    EXPIRE_NODEST: (
        "the packets of connections to a deleted real server are silently dropped; 1 expires the connections instead "
        "[ipvs-sysctl.rst of Linux]"
    ),
    "net.ipv4.vs.conn_reuse_mode": (
        "a client that uses a port again is sent to the real server of the old connection, even a failed one; 1 is "
        "right [ipvs-sysctl.rst of Linux]"
    ),
}
"""Sysctls of IPVS that must not be 0, and what happens when they are."""


@dataclass(frozen=True)
class Setting:
    """One line. ``key`` may be a pattern, as sysctl(8) has them."""

    line: int
    key: str
    value: str

    def sets(self, key: str) -> bool:
        """True when this line sets the key."""
        return self.key == key or ("*" in self.key and fnmatchcase(key, self.key))


@lru_cache(maxsize=64)
def parse(text: str) -> tuple[Setting, ...]:
    """The settings of a file (sysctl.conf(5)): comments are whole lines, a leading ``-`` ignores errors."""
    return tuple(_settings(text))


def _settings(text: str) -> Iterator[Setting]:
    for number, line in numbered(text):
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith(("#", ";")):
            yield Setting(number, key.strip().removeprefix("-").replace("/", "."), value.strip())


def files(cluster: Cluster, node: str) -> tuple[Config, ...]:
    """A node's sysctl files in the order in which they take effect."""
    return tuple(
        config for pattern in PATHS for config in sorted(cluster.on(node, pattern), key=lambda config: config.path)
    )


def setting(cluster: Cluster, node: str, key: str) -> tuple[Config, Setting] | None:
    """The line in force for a key."""
    lines = [(config, line) for config in files(cluster, node) for line in parse(config.text) if line.sets(key)]
    return lines[-1] if lines else None


def value(cluster: Cluster, node: str, key: str) -> tuple[str | None, tuple[Config, ...]]:
    """A key's value on a node, None when no file sets it, and the files that say so."""
    found = setting(cluster, node, key)
    return found[1].value if found else None, files(cluster, node)


def forwarding_off(configs: Sequence[Config], cluster: Cluster) -> Iterator[Finding]:
    """Accepted: a director that forwards nothing."""
    for node in by_node(configs):
        found = setting(cluster, node, FORWARD)
        if not cluster.is_director(node) or (found and found[1].value != "0"):
            continue
        here = found[0] if found else cited(files(cluster, node))
        yield Finding(
            here,
            found[1].line if found else 0,
            f"{FORWARD} is {'0' if found else 'not set, which means 0'}: a director does not forward the replies of "
            "real servers behind masq. It must be 1 [ip-sysctl.rst of Linux]",
            others(here, files(cluster, node)),
        )


def redirects_on(configs: Sequence[Config], cluster: Cluster) -> Iterator[Finding]:
    """Accepted: a director tells real servers a way past itself. Both ``all`` and the interface must be off."""
    for node in by_node(configs):
        if not cluster.is_director(node):
            continue
        for name in ("all", "default"):
            found = setting(cluster, node, REDIRECTS.format(name))
            if found and found[1].value == "0":
                continue
            here = found[0] if found else cited(files(cluster, node))
            yield Finding(
                here,
                found[1].line if found else 0,
                f"{REDIRECTS.format(name)} is {found[1].value[:10] if found else 'not set, which means 1'}: a director "
                "may tell real servers of a shorter way, and replies no longer pass it. Both all and default must be "
                "0 [ip-sysctl.rst of Linux]",
                others(here, files(cluster, node)),
            )
            break


def ipvs_zeros(configs: Sequence[Config], cluster: Cluster) -> Iterator[Finding]:
    """Accepted: how IPVS treats the connections of failed real servers."""
    for node in by_node(configs):
        for key, consequence in IPVS_WANTS.items():
            found = setting(cluster, node, key)
            if found and found[1].value == "0":
                yield Finding(found[0], found[1].line, f"{key} is 0: {consequence}")


def answers_arp(configs: Sequence[Config], cluster: Cluster) -> Iterator[Finding]:
    """Accepted: with gate and ipip a real server has the VIP too, and must not say so."""
    directed = [
        config
        for config in cluster.matching(*ldirectord_syntax.PATHS)
        for service in ldirectord_syntax.parse(config.text).services
        if any(real.forward != "masq" for real in service.reals)
    ]
    for node in by_node(configs) if directed else ():
        for key, least in ((ARP_IGNORE, 1), (ARP_ANNOUNCE, 2)):
            found = setting(cluster, node, key)
            if found and not cluster.is_director(node) and found[1].value in {str(number) for number in range(least)}:
                yield Finding(
                    found[0],
                    found[1].line,
                    f"{key} is {found[1].value}, and the directors forward by gate or ipip: this real server speaks "
                    f"for the VIP by ARP and takes it from the director. It must be {least} [ip-sysctl.rst of Linux]",
                    tuple(directed),
                )
