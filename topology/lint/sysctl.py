"""sysctl settings that forwarding and IPVS need on directors, and that gate and ipip need on real servers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

from harness.formats import ldirectord_cf
from harness.formats.lines import numbered
from topology.lint.model import ClusterFiles, Config, Hit, by_node, cited, others, per_node

PATHS = ("/etc/sysctl.d/*", "/etc/sysctl.conf", "/etc/monkeywrench/sysctl.conf")
"""In the order in which they take effect."""

EXPIRE_TEMPLATE = "net.ipv4.vs.expire_quiescent_template"
EXPIRE_NODEST = "net.ipv4.vs.expire_nodest_conn"
FORWARD = "net.ipv4.ip_forward"
REDIRECTS = "net.ipv4.conf.{}.send_redirects"
ARP = {"arp_ignore": 1, "arp_announce": 2}
"""What a real server with the VIP needs at least; the larger of ``all`` and the interface counts (ip-sysctl.rst)."""
ARP_DOES = {
    "arp_ignore": "answer ARP for the VIP and take it from the director",
    "arp_announce": "ask their gateway by ARP in the name of the VIP, and the gateway learns it there",
}
SYNC_VERSION = "net.ipv4.vs.sync_version"
LAST = PATHS[-1]
"""The lab's own file, which is applied after all others (topology/images/node/machine/network)."""

IPVS_WANTS = {
    EXPIRE_TEMPLATE: (
        "a persistent client's new connections still go to a real server of weight 0. Set it to 1 "
        "[ipvs-sysctl.rst of Linux]"
    ),
    EXPIRE_NODEST: (
        "packets of connections to a deleted real server are silently dropped. Set it to 1 to expire them instead "
        "[ipvs-sysctl.rst of Linux]"
    ),
    "net.ipv4.vs.conn_reuse_mode": (
        "a client that reuses a port goes to the real server of its old connection, even a failed one. Set it to 1 "
        "[ipvs-sysctl.rst of Linux]"
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


def files(cluster: ClusterFiles, node: str) -> tuple[Config, ...]:
    """A node's sysctl files in the order in which they take effect."""
    return tuple(
        config for pattern in PATHS for config in sorted(cluster.on(node, pattern), key=lambda config: config.path)
    )


def setting(cluster: ClusterFiles, node: str, key: str) -> tuple[Config, Setting] | None:
    """The line in force for a key."""
    lines = [(config, line) for config in files(cluster, node) for line in parse(config.text) if line.sets(key)]
    return lines[-1] if lines else None


def value(cluster: ClusterFiles, node: str, key: str) -> tuple[str | None, tuple[Config, ...]]:
    """A key's value on a node (None when no file sets it), and the files that set it."""
    found = setting(cluster, node, key)
    return found[1].value if found else None, files(cluster, node)


def forwarding_off(configs: Sequence[Config], cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted: a director that forwards nothing."""
    for node in by_node(configs):
        found = setting(cluster, node, FORWARD)
        if not cluster.is_director(node) or (found and found[1].value != "0"):
            continue
        here = found[0] if found else cited(files(cluster, node))
        yield Hit(
            here,
            found[1].line if found else 0,
            f"{FORWARD} is {'0' if found else 'not set, which means 0'}: a director does not forward the replies of "
            "real servers behind masq. Set it to 1 [ip-sysctl.rst of Linux]",
            others(here, files(cluster, node)),
        )


def redirects_on(configs: Sequence[Config], cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted: a director redirects real servers past itself. Both ``all`` and the interface must be off."""
    for node in by_node(configs):
        if not cluster.is_director(node):
            continue
        for name in ("all", "default"):
            found = setting(cluster, node, REDIRECTS.format(name))
            if found and found[1].value == "0":
                continue
            here = found[0] if found else cited(files(cluster, node))
            yield Hit(
                here,
                found[1].line if found else 0,
                f"{REDIRECTS.format(name)} is {found[1].value[:10] if found else 'not set, which means 1'}: a director "
                "may redirect real servers to a shorter route, and replies bypass it. Set both all and default to "
                "0 [ip-sysctl.rst of Linux]",
                others(here, files(cluster, node)),
            )
            break


def ipvs_zeros(configs: Sequence[Config], cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted: how IPVS treats the connections of failed real servers."""
    for node in by_node(configs):
        for key, consequence in IPVS_WANTS.items():
            found = setting(cluster, node, key)
            if found and found[1].value == "0":
                yield Hit(found[0], found[1].line, f"{key} is 0: {consequence}")


def answers_arp(configs: Sequence[Config], cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted: with gate and ipip a real server has the VIP too, and must not answer ARP for it."""
    directed = [
        config
        for config in cluster.matching(*ldirectord_cf.PATHS)
        for service in ldirectord_cf.parse(config.text).services
        if any(real.forward != "masq" for real in service.reals)
    ]
    for node in by_node(configs) if directed else ():
        for name, least in ARP.items():
            key = f"net.ipv4.conf.all.{name}"
            found = setting(cluster, node, key)
            if found and not cluster.is_director(node) and not arp(cluster, node, name, least):
                yield Hit(
                    found[0],
                    found[1].line,
                    f"{key} is {found[1].value[:10]}, and the directors forward with gate or ipip: this real server "
                    f"would {ARP_DOES[name].replace('their', 'its')}. Set it to {least} [ip-sysctl.rst of Linux]",
                    tuple(directed),
                )


def arp(cluster: ClusterFiles, node: str, name: str, least: int) -> bool:
    """Whether the value for all interfaces, or the values of interfaces, are large enough."""
    lines = [line for config in files(cluster, node) for line in parse(config.text)]
    values = {line.key: line.value for line in lines if line.key.endswith(f".{name}")}
    enough = {key.split(".")[-2] for key, word in values.items() if word.isdigit() and int(word) >= least}
    interfaces = cluster.interfaces(node) - {"lo"}
    return "all" in enough or "*" in enough or (bool(interfaces) and interfaces <= enough)


def overridden(configs: Sequence[Config], cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted: a line without an effect in the lab, whose own file is applied last."""
    for node in by_node(configs):
        labs = [config for config in cluster.on(node, LAST) if not config.source]
        values = {line.key: line.value for config in labs for line in parse(config.text)}
        for config in files(cluster, node):
            for line in parse(config.text) if config.source else ():
                key = next((key for key in values if line.sets(key)), None)
                if key and values[key] != line.value:
                    yield Hit(
                        config,
                        line.line,
                        f"This line has no effect in the lab: its own {LAST} is applied last and sets {key} = "
                        f"{values[key]}. Put it there (an overlay at that path), or the lab tests other settings than "
                        "your cluster's [docs/adding-a-topology.md]",
                    )


def sync_versions_differ(configs: Sequence[Config], cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted: the peer does not learn the persistence of connections in the old format."""
    directors = [node for node in by_node(configs) if cluster.is_director(node)]
    found = {node: setting(cluster, node, SYNC_VERSION) for node in directors}
    values = {node: each[1].value if each else "1" for node, each in found.items()}
    old = sorted((node, each) for node, each in found.items() if each and each[1].value == "0")
    if len(set(values.values())) > 1 and old:
        _, (config, line) = old[0]
        yield Hit(
            config,
            line.line,
            f"{SYNC_VERSION} differs ({per_node(values.items())}): with 0 a "
            "director sends connections in the old format, and their persistence is lost at a takeover. Use the same "
            "value on both [ipvs-sysctl.rst of Linux]",
        )
