"""``/etc/ha.d/ha.cf``: what heartbeat refuses, and what it accepts and does otherwise than meant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from topology.lint.ha_cf_syntax import (
    DIRECTIVES,
    LEAST_MS,
    MEDIA,
    NETWORK,
    PACEMAKER,
    PINGS,
    UDP_MEDIA,
    HaCf,
    duration,
    last,
    milliseconds,
    node_names,
    parse,
    seconds,
    uses_haresources,
)
from topology.lint.model import Cluster, Config, Finding, Remark, cited, nearest, others, per_node, quoted

PROGRAMS = "/usr/libexec/heartbeat/"
"""Where Debian has ipfail and its like."""
LONGEST_MS = {
    "keepalive": 30_000,
    "warntime": 180_000,
    "deadtime": 180_000,
    "deadping": 180_000,
    "initdead": 900_000,
}
"""Beyond it a duration more likely lacks its unit, ms, than is meant so. A judgement, no limit of heartbeat."""
SHORTEST_KEEPALIVE_MS = 20
"""Below this, one delayed timer tick of a busy machine is longer. A judgement, no limit of heartbeat."""
INITDEAD_WARNED_MS = 10_000
"""heartbeat itself says "may be too small" below it (heartbeat/config.c)."""


def unknown_directive(cf: HaCf) -> Iterator[Remark]:
    """Refused at start."""
    for directive in cf:
        if directive.name not in DIRECTIVES:
            hint = nearest(directive.name.partition("=")[0], DIRECTIVES)
            yield (
                directive.line,
                f"heartbeat does not know {quoted(directive.name)} and refuses to start{hint} [heartbeat/config.c]",
            )


def unreadable_duration(cf: HaCf) -> Iterator[Remark]:
    """Refused at start, or a directive without a value, which is skipped."""
    for directive in cf:
        if directive.name not in LEAST_MS:
            continue
        if not directive.words:
            yield directive.line, f"{directive.name} has no value: heartbeat skips the line and keeps its default."
        for word in directive.words:
            ms = milliseconds(word)
            if ms is None or ms < LEAST_MS[directive.name]:
                yield (
                    directive.line,
                    f"heartbeat cannot take {quoted(word)} for {directive.name} and refuses to start: "
                    "a bare number is seconds, ms and us are the only units [cl_get_msec of cluster-glue]",
                )


def implausible_duration(cf: HaCf) -> Iterator[Remark]:
    """Accepted: a number of milliseconds that lacks its unit."""
    for name, longest_ms in LONGEST_MS.items():
        value, found = last(cf, name), duration(cf, name)
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
                f"keepalive is {found.ms} ms: a busy director misses such beats, and its peer takes over.",
            )


def deadtime_against_keepalive(cf: HaCf) -> Iterator[Remark]:
    """Refused at start."""
    keepalive, deadtime = duration(cf, "keepalive"), duration(cf, "deadtime")
    if keepalive and deadtime and deadtime.ms <= 2 * keepalive.ms:
        yield (
            deadtime.line or keepalive.line,
            f"deadtime ({seconds(deadtime.ms)}) must be more than twice keepalive ({seconds(keepalive.ms)}): "
            "heartbeat refuses to start [heartbeat/config.c]",
        )


def deadping_against_keepalive(cf: HaCf) -> Iterator[Remark]:
    """Refused at start."""
    keepalive, deadping = duration(cf, "keepalive"), duration(cf, "deadping")
    if keepalive and deadping and deadping.ms <= 2 * keepalive.ms:
        yield (
            deadping.line,
            f"deadping ({seconds(deadping.ms)}) must be more than twice keepalive ({seconds(keepalive.ms)}): "
            "heartbeat refuses to start [heartbeat/config.c]",
        )


def initdead_against_deadtime(cf: HaCf) -> Iterator[Remark]:
    """Refused at start when shorter than deadtime; accepted, with a warning in the log, when merely short."""
    initdead, deadtime = duration(cf, "initdead"), duration(cf, "deadtime")
    if initdead is None or deadtime is None:
        return
    if initdead.ms < deadtime.ms:
        yield (
            initdead.line,
            f"initdead ({seconds(initdead.ms)}) is less than deadtime ({seconds(deadtime.ms)}): "
            "heartbeat refuses to start [heartbeat/config.c]",
        )
    elif initdead.ms < INITDEAD_WARNED_MS:
        yield (
            initdead.line,
            f"initdead is {seconds(initdead.ms)}: while networks still come up, each director declares the other dead "
            "and takes its VIPs; 10 s and more are right [ha.cf(5), heartbeat/config.c]",
        )


def warntime_against_deadtime(cf: HaCf) -> Iterator[Remark]:
    """Accepted: the warning can never come."""
    warntime, deadtime = duration(cf, "warntime"), duration(cf, "deadtime")
    if warntime and deadtime and warntime.ms >= deadtime.ms:
        yield (
            warntime.line,
            f"warntime ({seconds(warntime.ms)}) is not below deadtime ({seconds(deadtime.ms)}): heartbeat takes it "
            "without a word and never warns of late heartbeats, for the node is dead first [ha.cf(5)]",
        )


def udpport_after_media(cf: HaCf) -> Iterator[Remark]:
    """Accepted: media that stand before it have the default port."""
    media = [directive.line for directive in cf if directive.name in UDP_MEDIA]
    late = [directive.line for directive in cf if directive.name == "udpport" and directive.words]
    if media and late and late[-1] > media[0]:
        yield (
            late[-1],
            f"udpport stands after a medium that uses it (line {media[0]}): that one keeps the default port, 694; "
            "udpport must come first [ha.cf(5)]",
        )


def heartbeat_paths(cf: HaCf) -> Iterator[Remark]:
    """Refused at start without a medium; a split brain waiting to happen with one path."""
    media = [directive for directive in cf if directive.name in MEDIA and directive.words]
    every_word = {"bcast", "serial"}
    paths = {word for medium in media for word in (medium.words if medium.name in every_word else medium.words[:1])}
    if not media:
        yield 0, "There is no medium (ucast, bcast, mcast ...): heartbeat refuses to start [heartbeat/config.c]"
    elif len(paths) == 1:
        yield (
            media[0].line,
            f"Heartbeats have one path only ({quoted(*paths)}): when it fails, both directors live on and both take "
            "both VIPs. Add a medium on a second network.",
        )


def failback(cf: HaCf) -> Iterator[Remark]:
    """Accepted: the default is the deprecated mode ``legacy``."""
    value = last(cf, "auto_failback")
    if uses_haresources(cf) and (value is None or value[1].lower() == "legacy"):
        said = "is legacy" if value else "is absent, which means legacy"
        yield (
            value[0] if value else 0,
            f"auto_failback {said}: a deprecated mode in which ipfail and hb_standby do not work; say on or off "
            "[heartbeat/config.c]",
        )


def pacemaker(cf: HaCf) -> Iterator[Remark]:
    """Accepted: haresources is not read."""
    if uses_haresources(cf):
        return
    for name in ("crm", "pacemaker"):
        value = last(cf, name)
        if value and value[1].lower() in PACEMAKER:
            yield (
                value[0],
                f"{name} {value[1]} gives the resources to Pacemaker: haresources is not used, and nobody has a VIP. "
                "For haresources it must be no [ha.cf(5), heartbeat/config.c]",
            )


def autojoin(cf: HaCf) -> Iterator[Remark]:
    """Refused at start together with haresources."""
    value = last(cf, "autojoin")
    if value and value[1].lower() in {"any", "other"} and uses_haresources(cf):
        yield (
            value[0],
            f"autojoin {value[1]} conflicts with haresources: heartbeat refuses to start; list the directors with "
            "node instead [heartbeat/config.c]",
        )


def ipfail(cf: HaCf) -> Iterator[Remark]:
    """Accepted: ipfail compares how many ping nodes each director reaches, here none."""
    if any(directive.name in PINGS and directive.words for directive in cf):
        return
    for directive in cf:
        if directive.name in {"respawn", "failfast"} and any(word.endswith("/ipfail") for word in directive.words):
            yield (
                directive.line,
                "ipfail has no ping or ping_group to judge by: it runs and never moves anything [ha.cf(5)]",
            )


def stonith(cf: HaCf) -> Iterator[Remark]:
    """Accepted: a takeover that waits for a reset which may never succeed."""
    for directive in cf:
        if directive.name in {"stonith", "stonith_host"}:
            yield (
                directive.line,
                f"With {directive.name} a takeover waits until the device has reset the peer: while that fails "
                "heartbeat tries again every 5 s and takes nothing over. Make sure that the device answers "
                "[heartbeat/hb_resource.c]",
            )


def own_name(config: Config, _: Cluster) -> Iterator[Finding]:
    """Refused at start."""
    cf = parse(config.text)
    joins = last(cf, "autojoin")
    if config.node.lower() in node_names(cf) or (joins and joins[1].lower() == "any"):
        return
    line = max((directive.line for directive in cf if directive.name == "node"), default=0)
    names = ", ".join(node_names(cf)) or "nobody"
    yield Finding(
        config,
        line,
        f"node lists {names} but not {config.node}, as `uname -n` says there: heartbeat refuses to start "
        "[ha.cf(5), heartbeat/config.c]",
    )


def ucast_to_itself(config: Config, cluster: Cluster) -> Iterator[Finding]:
    """Accepted: the own address is skipped, so that both directors can have the same file, which needs both."""
    own = {
        address
        for network in cluster.on(config.node, NETWORK)
        for address in re.findall(r"address replace ([0-9a-fA-F.:]+)/", network.text)
    }
    media = [d for d in parse(config.text) if d.name in {"ucast", "ucast6"} and len(d.words) > 1]
    for interface in sorted({medium.words[0] for medium in media}):
        lines = [medium for medium in media if medium.words[0] == interface]
        if all(medium.words[1] in own for medium in lines):
            yield Finding(
                config,
                lines[0].line,
                f"{lines[0].name} {' '.join(lines[0].words[:2])[:60]} is {config.node}'s own address, which heartbeat "
                "skips: it sends no heartbeats by this interface. A file for both directors needs a line for each "
                "[ha.cf(5)]",
            )


def respawned_program(config: Config, cluster: Cluster) -> Iterator[Finding]:
    """Refused at start: a program that is not there."""
    for directive in parse(config.text):
        program = directive.words[1] if directive.name in {"respawn", "failfast"} and directive.words[1:] else ""
        if program.startswith(("/usr/lib/heartbeat/", "/usr/lib64/heartbeat/")) and not cluster.on(
            config.node, program
        ):
            yield Finding(
                config,
                directive.line,
                f"There is no {program} on Debian 12: heartbeat refuses to start; it is "
                f"{PROGRAMS}{program.rpartition('/')[2]} [heartbeat/config.c]",
            )


def deadtimes_differ(configs: Sequence[Config], _: Cluster) -> Iterator[Finding]:
    """Accepted: each node is judged by its own."""
    deadtimes = {config: deadtime for config in configs if (deadtime := duration(parse(config.text), "deadtime"))}
    if len({deadtime.ms for deadtime in deadtimes.values()}) > 1:
        here = cited(deadtimes)
        values = per_node((config.node, seconds(deadtime.ms)) for config, deadtime in deadtimes.items())
        yield Finding(
            here,
            deadtimes[here].line,
            f"deadtime differs ({values}): a director is judged by the deadtime that it advertises itself, so its own "
            "file decides how late its death is noticed. Both need the same.",
            others(here, deadtimes),
        )


def node_lists_differ(configs: Sequence[Config], _: Cluster) -> Iterator[Finding]:
    """Accepted: a node that is not listed is not listened to."""
    names = {config: frozenset(node_names(parse(config.text))) for config in configs}
    if len(set(names.values())) > 1:
        here = cited(names)
        lines = [directive.line for directive in parse(here.text) if directive.name == "node"]
        values = per_node((config.node, " ".join(sorted(listed)) or "none") for config, listed in names.items())
        yield Finding(
            here,
            max(lines, default=0),
            f"The node lists differ ({values}): a director does not listen to one that it does not list, and takes "
            "what the other holds. Both need the same.",
            others(here, names),
        )


def ports_differ(configs: Sequence[Config], _: Cluster) -> Iterator[Finding]:
    """Accepted: the directors do not hear each other."""
    ports = {config: last(parse(config.text), "udpport") or (0, "694") for config in configs}
    if len({port for _, port in ports.values()}) > 1:
        here = cited(ports)
        values = per_node((config.node, port) for config, (_, port) in ports.items())
        yield Finding(
            here,
            ports[here][0],
            f"udpport differs ({values}): the directors do not hear each other, and both take both VIPs "
            "after initdead. Both need the same.",
            others(here, ports),
        )
