"""Lint rules for configuration files: settings that a daemon refuses, or accepts with a harmful effect.

``KINDS`` lists every kind of file with its rules. To add a rule, write a pure function in the module of its kind and
add its name here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.formats import exports as exports_file
from harness.formats import ha_cf as ha_cf_file
from harness.formats import haresources as haresources_file
from harness.formats import ldirectord_cf as ldirectord_file
from topology.lint import (
    authkeys,
    exports,
    gmond,
    ha_cf,
    haresources,
    ipvs_sync,
    ldirectord,
    lsyncd,
    my_cnf,
    nfs_mounts,
    only_for_testing,
    shell,
    shellfuncs,
    sysctl,
)
from topology.lint.model import ClusterFiles, Config, FileKind, Hit, LintFinding, matches

__all__ = ["KINDS", "Config", "LintFinding", "examine"]

SCRIPT = (shell.delete_despite_errors, shell.inplace, shell.ldirectord_restart)

KINDS: tuple[FileKind[Any], ...] = (
    FileKind(
        (ha_cf_file.PATH,),
        ha_cf_file.parse,
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
    FileKind(
        (authkeys.PATH,),
        authkeys.parse,
        rules=(authkeys.refused_lines, authkeys.no_key, authkeys.insecure_method),
        in_context=(authkeys.permissions,),
        between=(authkeys.keys_differ,),
    ),
    FileKind(
        (haresources_file.PATH,),
        haresources_file.parse,
        rules=(haresources.first_resource, haresources.shared_ldirectord),
        in_context=(
            haresources.unknown_node,
            haresources.reply_gateway,
            haresources.missing_script,
            haresources.ldirectord_under_heartbeat,
        ),
        between=(haresources.files_differ,),
    ),
    FileKind((only_for_testing.PATH,), only_for_testing.parse, rules=(only_for_testing.loses_packets,)),
    FileKind((shellfuncs.PATH,), shellfuncs.parse, rules=(shellfuncs.message_in_pieces,)),
    FileKind(
        ldirectord_file.PATHS,
        ldirectord_file.parse,
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
    FileKind(
        sysctl.PATHS,
        sysctl.parse,
        between=(sysctl.forwarding_off, sysctl.redirects_on, sysctl.ipvs_zeros, sysctl.answers_arp),
    ),
    FileKind((ipvs_sync.PATH,), ipvs_sync.parse, rules=(ipvs_sync.both_roles,), between=(ipvs_sync.ids_cross,)),
    FileKind(my_cnf.PATHS, my_cnf.parse, in_context=(my_cnf.world_writable,), between=(my_cnf.not_durable,)),
    FileKind(
        exports_file.PATHS, exports_file.parse, rules=(exports.asynchronous, exports.no_fsid, exports.open_to_all)
    ),
    FileKind((nfs_mounts.FSTAB,), nfs_mounts.parse_fstab, rules=(nfs_mounts.soft, nfs_mounts.over_udp)),
    FileKind((nfs_mounts.UPLOADS,), nfs_mounts.parse_uploads, rules=(nfs_mounts.soft, nfs_mounts.over_udp)),
    FileKind(gmond.PATHS, gmond.parse, rules=(gmond.never_forgets, gmond.unicast_metadata)),
    FileKind(
        lsyncd.PATHS,
        lsyncd.parse,
        rules=(lsyncd.deletes_despite_errors, lsyncd.inplace),
        in_context=(lsyncd.source_is_datadir,),
    ),
    FileKind(shell.PATHS, shell.parse, rules=SCRIPT, in_context=(shell.rsync_of_datadir,)),
    FileKind(("*",), shell.parse_if_script, rules=SCRIPT, in_context=(shell.rsync_of_datadir,)),
)
"""Every kind of file. The first kind with a matching path applies."""


def examine(configs: Iterable[Config], web: int = 6) -> list[LintFinding]:
    """The findings in these files, ordered by file and line. ``web`` is the number of real servers.

    Pass all files of all nodes, because some rules compare them. Only findings that concern a file with a source are
    reported. The same finding on several nodes is reported once. Never raises, whatever the text.
    """
    every = tuple(sorted(configs, key=lambda c: (c.node, c.path, c.source, c.text, c.mode)))
    cluster = ClusterFiles(every, web)
    findings = [finding for kind, mine in _by_kind(every) for finding in kind.findings(mine, cluster)]
    return _merged(finding for finding in findings if any(config.source for config in finding.concerned))


def _by_kind(configs: Iterable[Config]) -> list[tuple[FileKind[Any], list[Config]]]:
    """Each kind that has files, with these files."""
    mine: list[list[Config]] = [[] for _ in KINDS]
    for config in configs:
        number = next(number for number, kind in enumerate(KINDS) if matches(config.path, kind.paths))
        mine[number].append(config)
    return [(kind, files) for kind, files in zip(KINDS, mine, strict=True) if files]


def _merged(findings: Iterable[Hit]) -> list[LintFinding]:
    nodes: dict[tuple[str, int, str], set[str]] = {}
    for finding in findings:
        key = (finding.config.file, finding.line, finding.reason)
        nodes.setdefault(key, set()).update((*finding.nodes, *(config.node for config in finding.concerned)))
    return [
        LintFinding(file, line, tuple(sorted(nodes[file, line, reason])), reason)
        for file, line, reason in sorted(nodes)
    ]
