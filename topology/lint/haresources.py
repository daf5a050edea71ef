"""``/etc/ha.d/haresources``: the home director of each group of resources."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from harness.formats import ha_cf, ldirectord_cf
from harness.formats.haresources import Group, Resource, parse
from harness.formats.lines import quoted
from topology.lint.model import NETWORK, ClusterFiles, Config, Hit, Remark, cited, others


def on_node(cluster: ClusterFiles, node: str, name: str) -> Config | None:
    """The file that ``ldirectord NAME start`` reads (ld_init of ldirectord)."""
    found = (
        cluster.on(node, f"/etc/ha.d/{name}") or cluster.on(node, f"/etc/ha.d/conf/{name}") or cluster.on(node, name)
    )
    return found[0] if found else None


def first_resource(groups: tuple[Group, ...]) -> Iterator[Remark]:
    """Accepted: heartbeat names a group by its first resource and looks for that anywhere in the file."""
    for group in groups:
        for other in groups:
            key = group.resources[0] if group.resources else None
            if other == group or not key or key not in other.resources:
                continue
            if key == other.resources[0] and other.line > group.line:
                continue  # reported once, on the later line
            yield (
                group.line,
                f"The first resource of a line names the group, but {quoted(key.text)} is also on line {other.line}: "
                "heartbeat takes and gives up the wrong groups. Make it unique [ResourceManager of heartbeat]",
            )
            break


def address_twice(groups: tuple[Group, ...]) -> Iterator[Remark]:
    """Accepted: with both directors up, both have the address."""
    seen: dict[str, tuple[Group, Resource]] = {}
    for group in groups:
        for resource in group.resources:
            other, same = seen.setdefault(resource.address, (group, resource))
            # first_resource says it of a line's first resource
            named = resource == same and resource in (group.resources[0], other.resources[0])
            if resource.address and other != group and not named:
                yield (
                    group.line,
                    f"{resource.address} is also on line {other.line}: with both directors up, both have it. Give each "
                    "address one line [haresources, linux-ha.org]",
                )


def vips(config: Config, cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted: nobody has the address."""
    ha_cfs = cluster.on(config.node, ha_cf.PATH)
    if cluster.lab is None or not all(ha_cf.parse(each.text).uses_haresources for each in ha_cfs):
        return
    # whatever the script is called: that it does not exist is said elsewhere
    words = [word for group in parse(config.text) for each in group.resources for word in each.arguments]
    there = {word.partition("/")[0] for word in words}
    for vip, home in sorted(cluster.lab.vips.items()):
        if vip not in there:
            yield Hit(
                config,
                0,
                f"The topology's VIP {vip} (home {home}) is on no line, so no director has it. Add it, or remove it "
                "from the topology's [[vips]].",
            )


def interface(config: Config, cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted: the script cannot find the interface, and the group is given up."""
    there = cluster.interfaces(config.node)
    for group in parse(config.text) if there else ():
        for resource in group.resources:
            name = resource.arguments[0].split("/")[2:3] if resource.address else []
            # a label, as in eth0:1, is not part of the name; a fourth part is the broadcast address
            if name and name[0].partition(":")[0] not in there and not _is_address(name[0]):
                yield Hit(
                    config,
                    group.line,
                    f"There is no interface {quoted(name[0])} (only {', '.join(sorted(there))}): {resource.script} "
                    "fails, and the group is given up [IPaddr2 of resource-agents]",
                )


def _is_address(word: str) -> bool:
    return re.fullmatch(r"[0-9]+(\.[0-9]+){3}", word) is not None


def shared_ldirectord(groups: tuple[Group, ...]) -> Iterator[Remark]:
    """Accepted: giving one group back stops the other's ldirectord."""
    seen: dict[str, int] = {}
    for group in groups:
        for name in group.ldirectord_files:
            if seen.setdefault(name, group.line) != group.line:
                yield (
                    group.line,
                    f"ldirectord::{name} is also on line {seen[name]}: giving one group back stops ldirectord and "
                    "removes all its virtual services, while the director keeps its other VIP. Give each line its own "
                    "file.",
                )


def reply_gateway(config: Config, cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted: with masq a reply must pass the director of the request, so the gateway must move with the VIP."""
    groups = {address: group for group in parse(config.text) for address in group.addresses}
    for vip, gateway in sorted(_gateways(config.node, cluster)):
        if vip in groups and gateway not in groups[vip].addresses:
            yield Hit(
                config,
                groups[vip].line,
                f"Real servers reply to clients of {vip} through {gateway}, which is not a resource of this line: "
                "while another director has it, replies get lost. Put "
                f"IPaddr2::{gateway} before the VIP (forwarding masq).",
                cluster.on(config.node, *ldirectord_cf.PATHS),
            )


def _gateways(node: str, cluster: ClusterFiles) -> set[tuple[str, str]]:
    """Each VIP with the gateway that real servers use for its replies, from their routing rules."""
    by_address: dict[str, str] = {}
    for network in cluster.matching(NETWORK):
        routes = re.findall(r"route replace default via (\S+) .*table (\d+)", network.text, re.ASCII)
        tables = {table: gateway for gateway, table in routes}
        rules = re.findall(r"rule add .*from (\S+) lookup (\d+)", network.text, re.ASCII)
        by_address |= {address: tables[table] for address, table in rules if table in tables}
    return {
        (service.address.partition(":")[0], by_address[real.server])
        for config in cluster.on(node, *ldirectord_cf.PATHS)
        for service in ldirectord_cf.parse(config.text).services
        for real in service.reals
        if real.forward == "masq" and real.server in by_address
    }


def ldirectord_under_heartbeat(config: Config, cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted: an ldirectord that heartbeat cannot start."""
    for group in parse(config.text):
        for name in group.ldirectord_files:
            here = on_node(cluster, config.node, name)
            if here:
                supervised = ldirectord_cf.parse(here.text).get("supervised")
                if supervised and supervised.value == "yes":
                    yield Hit(
                        config,
                        group.line,
                        f"ldirectord::{name} has supervised=yes: it stays in the foreground, and the start of this "
                        "group never ends. Remove supervised=yes [ldirectord(8)]",
                        (here,),
                    )
                continue
            elsewhere = [found for node in _nodes(cluster) if (found := on_node(cluster, node, name))]
            if elsewhere:
                yield Hit(
                    config,
                    group.line,
                    f"every director starts ldirectord::{name}, but {config.node} lacks this file: heartbeat cannot "
                    "start the group there and gives it up. Add the file [ResourceManager of heartbeat]",
                    tuple(elsewhere),
                )


def _nodes(cluster: ClusterFiles) -> list[str]:
    return sorted({config.node for config in cluster.configs})


def files_differ(configs: Sequence[Config], _: ClusterFiles) -> Iterator[Hit]:
    """Accepted: the directors disagree about the groups."""
    contents = {config: [(group.node, group.resources) for group in parse(config.text)] for config in configs}
    here = cited(configs)
    if all(content == contents[here] for content in contents.values()):
        return
    other = next(content for content in contents.values() if content != contents[here])
    lines = [group.line for group in parse(here.text) if (group.node, group.resources) not in other]
    yield Hit(
        here,
        lines[0] if lines else 0,
        f"haresources differs between {', '.join(sorted(config.node for config in configs))}: both directors or none "
        "hold a resource. Use the same file on both [haresources as packaged with heartbeat]",
        others(here, configs),
    )
