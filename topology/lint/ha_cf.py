"""``/etc/ha.d/ha.cf``: settings that heartbeat refuses, or accepts with an unexpected effect."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from harness.formats.ha_cf import DEFAULT_PORT, MEDIA, PINGS, TRUE, UDP_MEDIA, HaCf, parse
from harness.formats.lines import quoted
from topology.lint.model import NETWORK, ClusterFiles, Config, Hit, Remark, cited, others, per_node

LONGEST_MS = {
    "keepalive": 30_000,
    "warntime": 180_000,
    "deadtime": 180_000,
    "deadping": 180_000,
    "initdead": 900_000,
}
"""Above this, a duration probably lacks its unit, ms. A judgement of ours, not a limit of heartbeat."""
SHORTEST_KEEPALIVE_MS = 20
"""Below this, one delayed timer tick of a busy machine is longer. A judgement of ours, not a limit of heartbeat."""
INITDEAD_WARNED_MS = 10_000
"""Below this, heartbeat itself logs "may be too small" (heartbeat/config.c)."""


def seconds(ms: int) -> str:
    """A duration in a sentence."""
    return f"{ms / 60_000:g} minutes" if ms >= 120_000 else f"{ms / 1000:g} s"


def implausible_duration(cf: HaCf) -> Iterator[Remark]:
    """Accepted: a number of milliseconds without its unit."""
    for name, longest_ms in LONGEST_MS.items():
        value, found = cf.last(name), cf.duration(name)
        if value is None or found is None:
            continue
        if found.ms > longest_ms:
            unitless = re.fullmatch(r"[0-9.]+", value[1])
            right = f"; for milliseconds write {value[1]}ms" if unitless else ""
            unit = " (a number without a unit is seconds)" if unitless else ""
            yield found.line, f"{name} is {seconds(found.ms)}{unit}{right} [ha.cf(5)]"
        elif name == "keepalive" and found.ms < SHORTEST_KEEPALIVE_MS:
            yield (
                found.line,
                f"keepalive is {found.ms} ms: a busy director cannot send that often, and its peer takes over. "
                "Use 100ms or more.",
            )


def initdead_against_deadtime(cf: HaCf) -> Iterator[Remark]:
    """Accepted, with a warning in the log."""
    initdead, deadtime = cf.duration("initdead"), cf.duration("deadtime")
    if initdead is None or deadtime is None:
        return
    if deadtime.ms <= initdead.ms < INITDEAD_WARNED_MS:
        yield (
            initdead.line,
            f"initdead is {seconds(initdead.ms)}: while networks come up, each director declares the other dead "
            "and takes its VIPs. Use 10 s or more [ha.cf(5), heartbeat/config.c]",
        )


def warntime_against_deadtime(cf: HaCf) -> Iterator[Remark]:
    """Accepted: heartbeat never warns."""
    warntime, deadtime = cf.duration("warntime"), cf.duration("deadtime")
    if warntime and deadtime and warntime.ms >= deadtime.ms:
        yield (
            warntime.line,
            f"warntime ({seconds(warntime.ms)}) is not below deadtime ({seconds(deadtime.ms)}): heartbeat accepts it "
            "but never warns of late heartbeats, because the peer counts as dead first. Lower it [ha.cf(5)]",
        )


def udpport_after_media(cf: HaCf) -> Iterator[Remark]:
    """Accepted: media before this line use the default port."""
    media = [directive.line for directive in cf if directive.name in UDP_MEDIA]
    late = [directive.line for directive in cf if directive.name == "udpport" and directive.words]
    if media and late and late[-1] > media[0] and cf.udpport != DEFAULT_PORT:
        yield (
            late[-1],
            f"udpport comes after a medium that uses it (line {media[0]}), which keeps the default port, 694. "
            "Move udpport before all media [ha.cf(5)]",
        )


def heartbeat_paths(cf: HaCf) -> Iterator[Remark]:
    """Accepted: at risk of a split brain."""
    media = [directive for directive in cf if directive.name in MEDIA and directive.words]
    every_word = {"bcast", "serial"}
    paths = {word for medium in media for word in (medium.words if medium.name in every_word else medium.words[:1])}
    if len(paths) == 1:
        yield (
            media[0].line,
            f"Heartbeats have only one path ({quoted(*paths)}): if it fails, both directors take both VIPs (split "
            "brain). Add a medium on a second network.",
        )


def failback(cf: HaCf) -> Iterator[Remark]:
    """Accepted: the default is the deprecated mode ``legacy``."""
    value = cf.last("auto_failback")
    if cf.uses_haresources and (value is None or value[1].lower() == "legacy"):
        mode = "is legacy" if value else "is not set, which means legacy"
        yield (
            value[0] if value else 0,
            f"auto_failback {mode}: a deprecated mode in which ipfail and hb_standby do not work. Set it to on or off "
            "[heartbeat/config.c]",
        )


def ipfail(cf: HaCf) -> Iterator[Remark]:
    """Accepted: ipfail compares how many ping nodes each director reaches, and there are none."""
    if any(directive.name in PINGS and directive.words for directive in cf):
        return
    for directive in cf:
        if directive.name in {"respawn", "failfast"} and any(word.endswith("/ipfail") for word in directive.words):
            yield (
                directive.line,
                "ipfail has no ping nodes to compare, so it never moves a resource. Add ping or ping_group [ha.cf(5)]",
            )


def stonith(cf: HaCf) -> Iterator[Remark]:
    """Accepted: a takeover waits for a reset that may never succeed."""
    for directive in cf:
        if directive.name in {"stonith", "stonith_host"}:
            yield (
                directive.line,
                f"With {directive.name} a takeover waits until the device has reset the peer. While that fails, "
                "heartbeat retries every 5 s and takes nothing over. Make sure that the device works "
                "[heartbeat/hb_resource.c]",
            )


def ucast_to_itself(config: Config, cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted: heartbeat skips the node's own address, so that both directors can share a file with both addresses."""
    own = {
        address
        for network in cluster.on(config.node, NETWORK)
        for address in re.findall(r"address replace ([0-9a-fA-F.:]+)/", network.text)
    }
    media = [d for d in parse(config.text) if d.name in {"ucast", "ucast6"} and len(d.words) > 1]
    for interface in sorted({medium.words[0] for medium in media}):
        lines = [medium for medium in media if medium.words[0] == interface]
        if all(medium.words[1] in own for medium in lines):
            yield Hit(
                config,
                lines[0].line,
                f"{lines[0].name} {' '.join(lines[0].words[:2])[:60]} is {config.node}'s own address, which heartbeat "
                "skips: it sends no heartbeats through this interface. A file for both directors needs a line for "
                "each of them [ha.cf(5)]",
            )


def ucast_interface(config: Config, cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted by ``heartbeat -R``: ucast looks for its interface only when it opens it (SO_BINDTODEVICE)."""
    there = cluster.interfaces(config.node)
    for medium in parse(config.text) if there else ():
        if medium.name in {"ucast", "ucast6"} and medium.words and medium.words[0] not in there:
            yield Hit(
                config,
                medium.line,
                f"There is no interface {quoted(medium.words[0])} (only {', '.join(sorted(there))}): heartbeat "
                "reads this line and stops when it opens the medium [lib/plugins/HBcomm/ucast.c]",
            )


def deadtimes_differ(configs: Sequence[Config], _: ClusterFiles) -> Iterator[Hit]:
    """Accepted: the peer uses the deadtime that a director advertises."""
    deadtimes = {config: deadtime for config in configs if (deadtime := parse(config.text).duration("deadtime"))}
    if len({deadtime.ms for deadtime in deadtimes.values()}) > 1:
        here = cited(deadtimes)
        values = per_node((config.node, seconds(deadtime.ms)) for config, deadtime in deadtimes.items())
        yield Hit(
            here,
            deadtimes[here].line,
            f"deadtime differs ({values}): the peer uses the deadtime that a director advertises, so a director's own "
            "file decides how late its failure is noticed. Use the same value on both.",
            others(here, deadtimes),
        )


def failback_differs(configs: Sequence[Config], cluster: ClusterFiles) -> Iterator[Hit]:
    """Accepted: what the lab waits for, and what heartbeat does, are two things."""
    comes_home = {config: home for config in configs if (home := _failback(parse(config.text))) is not None}
    if len(set(comes_home.values())) > 1:
        here = cited(comes_home)
        values = per_node((config.node, "on" if home else "off") for config, home in comes_home.items())
        yield Hit(
            here,
            _failback_line(here),
            f"auto_failback differs ({values}): whether an address comes home depends on which director was away. Use "
            "the same value on both [ha.cf(5)]",
            others(here, comes_home),
        )
    for config, home in comes_home.items():
        wanted = cluster.lab.auto_failback if cluster.lab else home
        if home != wanted:
            yield Hit(
                config,
                _failback_line(config),
                f"auto_failback is {'on' if home else 'off'} here, but the topology says directors.auto_failback = "
                f"{str(wanted).lower()}: status and the checks wait for addresses to "
                f"{'come home' if wanted else 'stay'}, and they do not. Say the same in both "
                "[docs/adding-a-topology.md]",
            )


def _failback(cf: HaCf) -> bool | None:
    value = cf.last("auto_failback")
    return value[1].lower() in TRUE if value and value[1].lower() != "legacy" else None


def _failback_line(config: Config) -> int:
    value = parse(config.text).last("auto_failback")
    return value[0] if value else 0


def node_lists_differ(configs: Sequence[Config], _: ClusterFiles) -> Iterator[Hit]:
    """Accepted: a director ignores heartbeats of nodes that it does not list."""
    names = {config: frozenset(parse(config.text).node_names) for config in configs}
    if len(set(names.values())) > 1:
        here = cited(names)
        lines = [directive.line for directive in parse(here.text) if directive.name == "node"]
        values = per_node((config.node, " ".join(sorted(listed)) or "none") for config, listed in names.items())
        yield Hit(
            here,
            max(lines, default=0),
            f"The node lists differ ({values}): a director ignores a peer that it does not list, and takes its "
            "resources. Use the same list on both.",
            others(here, names),
        )


def ports_differ(configs: Sequence[Config], _: ClusterFiles) -> Iterator[Hit]:
    """Accepted: the directors do not hear each other."""
    ports = {config: parse(config.text).last("udpport") or (0, "694") for config in configs}
    if len({port for _, port in ports.values()}) > 1:
        here = cited(ports)
        values = per_node((config.node, port) for config, (_, port) in ports.items())
        yield Hit(
            here,
            ports[here][0],
            f"udpport differs ({values}): the directors do not hear each other, and both take both VIPs "
            "after initdead. Use the same port on both.",
            others(here, ports),
        )
