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
    apache,
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
    site,
    sysctl,
)
from topology.lint.model import ClusterFiles, Config, FileKind, Hit, LabFacts, LintFinding, matches, times

__all__ = ["KINDS", "Config", "LabFacts", "LintFinding", "examine"]

SCRIPT = (shell.delete_despite_errors, shell.inplace, shell.ldirectord_restart)

KINDS: tuple[FileKind[Any], ...] = (
    FileKind(
        (ha_cf_file.PATH,),
        ha_cf_file.parse,
        rules=(
            ha_cf.implausible_duration,
            ha_cf.initdead_against_deadtime,
            ha_cf.warntime_against_deadtime,
            ha_cf.udpport_after_media,
            ha_cf.heartbeat_paths,
            ha_cf.failback,
            ha_cf.ipfail,
            ha_cf.stonith,
        ),
        in_context=(
            ha_cf.ucast_to_itself,
            ha_cf.ucast_interface,
        ),
        between=(ha_cf.deadtimes_differ, ha_cf.failback_differs, ha_cf.node_lists_differ, ha_cf.ports_differ),
    ),
    FileKind(
        (authkeys.PATH,),
        authkeys.parse,
        rules=(authkeys.insecure_method,),
        in_context=(authkeys.permissions,),
        between=(authkeys.keys_differ,),
    ),
    FileKind(
        (haresources_file.PATH,),
        haresources_file.parse,
        rules=(haresources.first_resource, haresources.address_twice, haresources.shared_ldirectord),
        in_context=(
            haresources.reply_gateway,
            haresources.vips,
            haresources.interface,
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
            ldirectord.stray_lines,
            ldirectord.external_without_command,
            ldirectord.plain_to_tls,
            ldirectord.fallback_port,
        ),
        in_context=(
            ldirectord.not_supervised,
            ldirectord.not_of_the_lab,
            ldirectord.slow_rounds,
            ldirectord.expiry,
            ldirectord.answers_arp,
        ),
        between=(ldirectord.files_differ,),
    ),
    FileKind(
        sysctl.PATHS,
        sysctl.parse,
        between=(
            sysctl.forwarding_off,
            sysctl.redirects_on,
            sysctl.ipvs_zeros,
            sysctl.answers_arp,
            sysctl.overridden,
            sysctl.sync_versions_differ,
        ),
    ),
    FileKind((ipvs_sync.PATH,), ipvs_sync.parse, rules=(ipvs_sync.both_roles,), between=(ipvs_sync.ids_cross,)),
    FileKind(
        my_cnf.PATHS,
        my_cnf.parse,
        in_context=(my_cnf.world_writable,),
        between=(my_cnf.not_durable, my_cnf.unreachable),
    ),
    FileKind(
        exports_file.PATHS,
        exports_file.parse,
        rules=(exports.asynchronous, exports.no_fsid, exports.same_fsid, exports.read_only, exports.open_to_all),
    ),
    FileKind((nfs_mounts.FSTAB,), nfs_mounts.parse_fstab, rules=(nfs_mounts.soft, nfs_mounts.over_udp)),
    FileKind((nfs_mounts.UPLOADS,), nfs_mounts.parse_uploads, rules=(nfs_mounts.soft, nfs_mounts.over_udp)),
    FileKind(
        gmond.PATHS, gmond.parse, rules=(gmond.never_forgets, gmond.unicast_metadata), between=(gmond.groups_differ,)
    ),
    FileKind(site.PATHS, site.parse, between=(site.overwritten,)),
    FileKind(apache.PATHS, apache.parse, between=(apache.files_differ,)),
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


def examine(configs: Iterable[Config], web: int = 6, lab: LabFacts | None = None) -> list[LintFinding]:
    """The findings in these files, ordered by file and line. ``web`` is the number of real servers, ``lab``
    what the topology says.

    Pass all files of all nodes, because some rules compare them. Only findings that concern a file with a source are
    reported. The same finding on several nodes is reported once. Never raises, whatever the text.
    """
    every = tuple(sorted(configs, key=lambda c: (c.node, c.path, c.source, c.text, c.mode)))
    cluster = ClusterFiles(every, web, lab)
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
    """The same finding on several nodes, or lines, of a file once: on its first line, with how many lines have it."""
    found: dict[tuple[str, str], dict[int, set[str]]] = {}
    for each in findings:
        lines = found.setdefault((each.config.file, each.reason), {})
        lines.setdefault(each.line, set()).update((*each.nodes, *(config.node for config in each.concerned)))
    return sorted(
        (
            LintFinding(file, min(lines), tuple(sorted(set().union(*lines.values()))), reason + times(len(lines)))
            for (file, reason), lines in found.items()
        ),
        key=lambda each: (each.file, each.line, each.reason),
    )
