"""``/etc/ha.d/haresources``: which director serves what."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from topology.lint import ha_cf_syntax, ldirectord_syntax
from topology.lint.model import Cluster, Config, Finding, Remark, cited, nearest, numbered, others, quoted

PATH = "/etc/ha.d/haresources"

FOLDERS = ("/etc/ha.d/resource.d/", "/etc/init.d/")
"""Where ResourceManager looks for a resource's script."""


@dataclass(frozen=True)
class Group:
    """One line: the director whose it is when all is well, and its resources."""

    line: int
    node: str
    resources: tuple[str, ...]


@lru_cache(maxsize=64)
def parse(text: str) -> tuple[Group, ...]:
    """As the script ResourceManager reads it: comments anywhere, lines joined at a backslash, names in lower case."""
    groups: list[Group] = []
    pending, start = "", 0
    for number, line in numbered(text):
        start = start if pending else number
        pending += line.rstrip("\r").partition("#")[0]
        if pending.endswith("\\"):
            pending = pending[:-1] + " "
            continue
        words = pending.split()
        pending = ""
        if words:
            groups.append(Group(start, words[0].lower(), tuple(words[1:])))
    words = pending.split()
    return (*groups, Group(start, words[0].lower(), tuple(words[1:]))) if words else tuple(groups)


def ldirectord_files(group: Group) -> list[str]:
    """The configurations that a group starts ldirectord with."""
    parts = [resource.split("::") for resource in group.resources]
    return [arguments[0] for script, *arguments in parts if script == "ldirectord" and arguments]


def on_node(cluster: Cluster, node: str, name: str) -> Config | None:
    """The file that ``ldirectord NAME start`` reads (ld_init of ldirectord)."""
    found = (
        cluster.on(node, f"/etc/ha.d/{name}") or cluster.on(node, f"/etc/ha.d/conf/{name}") or cluster.on(node, name)
    )
    return found[0] if found else None


def first_resource(groups: tuple[Group, ...]) -> Iterator[Remark]:
    """Accepted: heartbeat names a group by its first resource and looks for that anywhere in the file."""
    for group in groups:
        for other in groups:
            key = group.resources[0] if group.resources else ""
            if other == group or not key or key not in other.resources:
                continue
            if key == other.resources[0] and other.line > group.line:
                continue  # said once, on the later line
            yield (
                group.line,
                f"The first resource of a line names the group, and {quoted(key)} is on line {other.line} too: "
                "heartbeat takes and gives up the wrong ones. It must be unique [ResourceManager of heartbeat]",
            )
            break


def shared_ldirectord(groups: tuple[Group, ...]) -> Iterator[Remark]:
    """Accepted: giving one group back stops the other's ldirectord."""
    seen: dict[str, int] = {}
    for group in groups:
        for name in ldirectord_files(group):
            if seen.setdefault(name, group.line) != group.line:
                yield (
                    group.line,
                    f"ldirectord::{name} is on line {seen[name]} too: giving one group back stops the one ldirectord "
                    "and purges all its virtual services, while the director keeps its other VIP. Give each line a "
                    "file of its own.",
                )


def unknown_node(config: Config, cluster: Cluster) -> Iterator[Finding]:
    """Refused at start."""
    ha_cfs = cluster.on(config.node, ha_cf_syntax.PATH)
    names = {name for ha in ha_cfs for name in ha_cf_syntax.node_names(ha_cf_syntax.parse(ha.text))}
    if not ha_cfs:
        nodes = {other.node.lower() for other in cluster.configs}
        names = nodes if len(nodes) > 1 else set()
    for group in parse(config.text) if names else ():
        if group.node not in names:
            yield Finding(
                config,
                group.line,
                f"{quoted(group.node)} is no node of the cluster ({', '.join(sorted(names))}): heartbeat refuses to "
                f"start{nearest(group.node, names)} [heartbeat/config.c]",
                ha_cfs,
            )


def reply_gateway(config: Config, cluster: Cluster) -> Iterator[Finding]:
    """Accepted: with masq the reply must pass the director that took the request, so gateway and VIP move together."""
    groups = {address: group for group in parse(config.text) for address in addresses(group)}
    for vip, gateway in sorted(_gateways(config.node, cluster)):
        if vip in groups and gateway not in addresses(groups[vip]):
            yield Finding(
                config,
                groups[vip].line,
                f"Real servers reply to clients of {vip} through {gateway}, which is not among the resources of this "
                "line: when it is not where the VIP is, replies get lost. Put "
                f"IPaddr2::{gateway} before the VIP (forwarding masq).",
                cluster.on(config.node, *ldirectord_syntax.PATHS),
            )


def addresses(group: Group) -> set[str]:
    """The addresses that a group brings up."""
    parts = [resource.split("::") for resource in group.resources]
    named = [words[1] for words in parts if words[0] in {"IPaddr", "IPaddr2"} and words[1:]]
    return {word.partition("/")[0] for word in (*named, *(words[0] for words in parts if words[0][:1].isdigit()))}


def _gateways(node: str, cluster: Cluster) -> set[tuple[str, str]]:
    """Each VIP with the gateway by which real servers answer for it, as their routing rules have it."""
    by_address: dict[str, str] = {}
    for network in cluster.matching(ha_cf_syntax.NETWORK):
        routes = re.findall(r"route replace default via (\S+) .*table (\d+)", network.text, re.ASCII)
        tables = {table: gateway for gateway, table in routes}
        rules = re.findall(r"rule add .*from (\S+) lookup (\d+)", network.text, re.ASCII)
        by_address |= {address: tables[table] for address, table in rules if table in tables}
    return {
        (service.address.partition(":")[0], by_address[real.server])
        for config in cluster.on(node, *ldirectord_syntax.PATHS)
        for service in ldirectord_syntax.parse(config.text).services
        for real in service.reals
        if real.forward == "masq" and real.server in by_address
    }


def missing_script(config: Config, cluster: Cluster) -> Iterator[Finding]:
    """Accepted: the group cannot start."""
    script = "LVSSyncDaemonSwap"
    there = cluster.on(config.node, *(folder + script for folder in FOLDERS))
    for group in parse(config.text) if not there else ():
        if any(resource.split("::")[0] == script for resource in group.resources):
            yield Finding(
                config,
                group.line,
                f"Debian has no {script}: heartbeat cannot start the group and gives all of it up. Start both "
                "connection sync daemons at boot instead, see ipvsadm(8) [ResourceManager of heartbeat]",
            )


def ldirectord_under_heartbeat(config: Config, cluster: Cluster) -> Iterator[Finding]:
    """Accepted: an ldirectord that heartbeat cannot start."""
    for group in parse(config.text):
        for name in ldirectord_files(group):
            here = on_node(cluster, config.node, name)
            if here:
                supervised = ldirectord_syntax.parse(here.text).get("supervised")
                if supervised and supervised.value == "yes":
                    yield Finding(
                        config,
                        group.line,
                        f"ldirectord::{name} has supervised=yes: it stays in the foreground, and the start of this "
                        "group never ends. Take that line out of it [ldirectord(8)]",
                        (here,),
                    )
                continue
            elsewhere = [found for node in _nodes(cluster) if (found := on_node(cluster, node, name))]
            if elsewhere:
                yield Finding(
                    config,
                    group.line,
                    f"ldirectord::{name} is started on every director, and {config.node} has no such file: heartbeat "
                    "cannot start the group there and gives all of it up [ResourceManager of heartbeat]",
                    tuple(elsewhere),
                )


def _nodes(cluster: Cluster) -> list[str]:
    return sorted({config.node for config in cluster.configs})


def files_differ(configs: Sequence[Config], _: Cluster) -> Iterator[Finding]:
    """Accepted: each director has its own idea of who serves what."""
    contents = {config: [(group.node, group.resources) for group in parse(config.text)] for config in configs}
    here = cited(configs)
    if all(content == contents[here] for content in contents.values()):
        return
    other = next(content for content in contents.values() if content != contents[here])
    lines = [group.line for group in parse(here.text) if (group.node, group.resources) not in other]
    yield Finding(
        here,
        lines[0] if lines else 0,
        f"haresources differs between {', '.join(sorted(config.node for config in configs))}: resources are served by "
        "both directors or by none. It must be the same on both [haresources as packaged with heartbeat]",
        others(here, configs),
    )
