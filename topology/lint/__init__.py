"""Settings that are known to bite: accepted but wrong, or refused at start.

``KINDS`` names every kind of file and every rule. To add a rule: a pure function in the module of its kind, and its
name here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from topology.lint import (
    authkeys,
    exports,
    gmond,
    ha_cf,
    ha_cf_syntax,
    haresources,
    ipvs_sync,
    ldirectord,
    ldirectord_syntax,
    lsyncd,
    my_cnf,
    nfs_mounts,
    only_for_testing,
    shell,
    shellfuncs,
    sysctl,
)
from topology.lint.model import Cluster, Config, Finding, Kind, Pitfall, matches

__all__ = ["KINDS", "Config", "Pitfall", "examine"]

SCRIPT = (shell.delete_despite_errors, shell.inplace, shell.ldirectord_restart)

KINDS: tuple[Kind[Any], ...] = (
    Kind(
        (ha_cf_syntax.PATH,),
        ha_cf_syntax.parse,
        rules=(
            ha_cf.unknown_directive,
            ha_cf.unreadable_duration,
            ha_cf.implausible_duration,
            ha_cf.deadtime_against_keepalive,
            ha_cf.deadping_against_keepalive,
            ha_cf.initdead_against_deadtime,
            ha_cf.warntime_against_deadtime,
            ha_cf.udpport_after_media,
            ha_cf.heartbeat_paths,
            ha_cf.failback,
            ha_cf.pacemaker,
            ha_cf.autojoin,
            ha_cf.ipfail,
            ha_cf.stonith,
        ),
        in_context=(ha_cf.own_name, ha_cf.ucast_to_itself, ha_cf.respawned_program),
        between=(ha_cf.deadtimes_differ, ha_cf.node_lists_differ, ha_cf.ports_differ),
    ),
    Kind(
        (authkeys.PATH,),
        authkeys.parse,
        rules=(authkeys.refused_lines, authkeys.no_key, authkeys.insecure_method),
        in_context=(authkeys.permissions,),
        between=(authkeys.keys_differ,),
    ),
    Kind(
        (haresources.PATH,),
        haresources.parse,
        rules=(haresources.first_resource, haresources.shared_ldirectord),
        in_context=(
            haresources.unknown_node,
            haresources.reply_gateway,
            haresources.missing_script,
            haresources.ldirectord_under_heartbeat,
        ),
        between=(haresources.files_differ,),
    ),
    Kind((only_for_testing.PATH,), only_for_testing.parse, rules=(only_for_testing.loses_packets,)),
    Kind((shellfuncs.PATH,), shellfuncs.parse, rules=(shellfuncs.message_in_pieces,)),
    Kind(
        ldirectord_syntax.PATHS,
        ldirectord_syntax.parse,
        rules=(
            ldirectord.refused,
            ldirectord.quiescent_unset,
            ldirectord.checkinterval_unset,
            ldirectord.timeouts_unset,
            ldirectord.blind_checktype,
            ldirectord.no_receive,
            ldirectord.no_request,
            ldirectord.head_with_receive,
            ldirectord.sql_check,
            ldirectord.port_cannot_change,
            ldirectord.mixed_forwarding,
            ldirectord.address_without_port,
            ldirectord.unknown_scheduler,
            ldirectord.slow_notice,
        ),
        in_context=(ldirectord.slow_rounds, ldirectord.expiry, ldirectord.answers_arp),
        between=(ldirectord.files_differ,),
    ),
    Kind(
        sysctl.PATHS,
        sysctl.parse,
        between=(sysctl.forwarding_off, sysctl.redirects_on, sysctl.ipvs_zeros, sysctl.answers_arp),
    ),
    Kind((ipvs_sync.PATH,), ipvs_sync.parse, rules=(ipvs_sync.both_roles,), between=(ipvs_sync.ids_cross,)),
    Kind(my_cnf.PATHS, my_cnf.parse, in_context=(my_cnf.world_writable,), between=(my_cnf.not_durable,)),
    Kind(exports.PATHS, exports.parse, rules=(exports.asynchronous, exports.no_fsid, exports.open_to_all)),
    Kind((nfs_mounts.FSTAB,), nfs_mounts.parse_fstab, rules=(nfs_mounts.soft, nfs_mounts.over_udp)),
    Kind((nfs_mounts.UPLOADS,), nfs_mounts.parse_uploads, rules=(nfs_mounts.soft, nfs_mounts.over_udp)),
    Kind(gmond.PATHS, gmond.parse, rules=(gmond.never_forgets, gmond.unicast_metadata)),
    Kind(
        lsyncd.PATHS,
        lsyncd.parse,
        rules=(lsyncd.deletes_despite_errors, lsyncd.inplace),
        in_context=(lsyncd.source_is_datadir,),
    ),
    Kind(shell.PATHS, shell.parse, rules=SCRIPT, in_context=(shell.rsync_of_datadir,)),
    Kind(("*",), shell.parse_if_script, rules=SCRIPT, in_context=(shell.rsync_of_datadir,)),
)
"""Every kind of file; the first with a matching path is a file's kind."""


def examine(configs: Iterable[Config], web: int = 6) -> list[Pitfall]:
    """What is known to bite in these files, in the order of file and line. ``web`` is the number of real servers.

    Give all files of all nodes: some rules compare them. Reported is what concerns at least one file with a source; the
    same of several nodes is one pitfall. No text makes it raise.
    """
    every = tuple(sorted(configs, key=lambda c: (c.node, c.path, c.source, c.text, c.mode)))
    cluster = Cluster(every, web)
    findings = [finding for kind, mine in _by_kind(every) for finding in kind.findings(mine, cluster)]
    return _merged(finding for finding in findings if any(config.source for config in finding.concerned))


def _by_kind(configs: Iterable[Config]) -> list[tuple[Kind[Any], list[Config]]]:
    """Each kind that there are files of, with its files."""
    mine: list[list[Config]] = [[] for _ in KINDS]
    for config in configs:
        number = next(number for number, kind in enumerate(KINDS) if matches(config.path, kind.paths))
        mine[number].append(config)
    return [(kind, files) for kind, files in zip(KINDS, mine, strict=True) if files]


def _merged(findings: Iterable[Finding]) -> list[Pitfall]:
    nodes: dict[tuple[str, int, str], set[str]] = {}
    for finding in findings:
        key = (finding.config.file, finding.line, finding.reason)
        nodes.setdefault(key, set()).update((*finding.nodes, *(config.node for config in finding.concerned)))
    return [
        Pitfall(file, line, tuple(sorted(nodes[file, line, reason])), reason) for file, line, reason in sorted(nodes)
    ]
