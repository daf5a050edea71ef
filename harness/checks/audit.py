"""What has a run left behind? Asked after every run, even if its scenario does not name it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.history import History, Op
from harness.history.client_ops import named
from harness.history.explained_lines import Explanations, expected_logs
from harness.history.injections import injections
from harness.history.ipvs_tables import weights_of
from harness.history.timeline import count_of, director_ops, moment
from harness.records import Cluster
from harness.verdict import Finding, Verdict, conclude, invalid, unknown

NAME = "audit"


class AuditSettings(BaseModel):
    """``[checks.audit]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    announced: tuple[re.Pattern[str], ...] = Field(
        default=(), description="Regular expressions of error lines that this scenario causes at any time"
    )
    settle_ms: float = Field(
        default=10_000, ge=0, description="How long after its undo a fault may still explain an error line"
    )


def check(history: History, settings: AuditSettings) -> Verdict:
    """The cluster is as it was before the run, and every error line in a log has an explanation.

    As it was: every node's audit (network, mounts, settings, services, files, core files) is as before the run and no
    lease is left; every part of the cluster is healthy; every virtual IP has one owner; both directors have the same
    real servers with the same weights. The run looks at its very end, and waits some time for that state.

    A fault that was active or settling explains the error lines of the nodes and services that it touches, and those
    that its nodes' roles make others write: the heartbeat of one director about another, ldirectord about a real
    server, Apache about the database and about the first real server's files, and the kernel that waits for these. What
    a fault touches are the nodes that its settings name and that its effects, as recorded with its proof, concern. When
    these are not known, lines are unknown.

    The check sees the lines that services mark as errors, and those of a kernel in trouble, by the expressions that the
    run recorded. It cannot see the lines of a log whose feed was lost; without any log it is unknown.
    """
    if history.cluster.error_lines is None:
        return conclude(NAME, [unknown("The history does not say which log lines are errors.")], "")
    audits, injected = history.of("audit"), injections(history, settings.settle_ms)
    lines = _error_lines(history, history.cluster.error_lines)
    announced = [op for op in lines if any(each.search(op.value) for each in settings.announced)]
    rest = [op for op in lines if op not in announced]
    explain = Explanations(history.cluster, injected)
    unexplained = [op for op in rest if not explain.certainly(op)]
    doubtful = [op for op in unexplained if explain.perhaps(op)]
    findings = [*_line_findings([op for op in unexplained if op not in doubtful])]
    findings += _doubtful_findings(doubtful, explain)
    findings += _silent_logs(history)
    if not audits:
        findings.append(unknown("The state of the lab was not compared with the one before the run."))
    else:
        findings += _lab_findings(audits[-1], history.cluster)
        findings += _contradictions(audits[-1], history)
    numbers = {
        "error_lines": len(lines),
        "unexplained_lines": len(unexplained),
        "left": audits[-1].get("left") if audits else None,
    }
    held = "Nothing is left behind; no error lines."
    if lines:
        held = f"Nothing is left behind; {count_of(len(lines), 'error line')}, explained by faults or announced."
    return conclude(NAME, findings, held, numbers, [op.index for op in audits[-1:]])


def _error_lines(history: History, expressions: Mapping[str, str]) -> list[Op]:
    """The log lines that their service marks as errors; the process of a log is ``log:node:service``."""
    patterns = {service: re.compile(expression) for service, expression in expressions.items()}
    logs = [(op, patterns.get(op.process.rpartition(":")[2])) for op in history.of("log") if isinstance(op.value, str)]
    return [op for op, pattern in logs if pattern is not None and pattern.search(op.value)]


def _silent_logs(history: History) -> Iterator[Finding]:
    """Logs that should have been followed and were not."""
    heard = {op.process for op in history.of("log")}
    feeds = [op for op in history.of("feed") if op.process.startswith("log:")]
    followed = {op.process for op in feeds if op.get("phase") == "open"}
    opened = heard | followed
    if not opened:
        yield unknown("No log was followed, so error lines are unknown.")
        return
    for process in expected_logs(history.cluster, followed):
        if process not in opened:
            _, node, service = process.split(":")
            yield unknown(f"The log {service!r} of {node} was not followed.")
    last = {op.process: op for op in feeds}
    for op in last.values():
        if op.get("phase") in {"lost", "dropped"}:
            where = op.process.removeprefix("log:").replace(":", ", ")
            yield unknown(f"A log was lost at {moment(op.time)} ({where}), and not followed again.", op.index)


def _doubtful_findings(lines: Sequence[Op], explain: Explanations) -> Iterator[Finding]:
    if lines:
        first = lines[0]
        fault = explain.obscure(first)[0]
        yield unknown(
            f"Fault {fault.label!r} ({fault.fault}) may explain {_quoted(lines)}; what it touched was not recorded.",
            *(op.index for op in lines),
        )


def _quoted(lines: Sequence[Op]) -> str:
    first, more = lines[0], len(lines) - 1
    where = first.process.removeprefix("log:").replace(":", ", ")
    others = f" (and {more:,} more)" if more else ""
    return f"this error line at {moment(first.time)} ({where}): {first.value.strip()[:200]}{others}"


def _line_findings(lines: Sequence[Op]) -> Iterator[Finding]:
    if lines:
        yield invalid(f"No fault explains {_quoted(lines)}.", *(op.index for op in lines))


def _lab_findings(audit: Op, cluster: Cluster) -> Iterator[Finding]:
    if audit.error:
        yield unknown(
            f"The state of the lab could not be compared with the one before the run: {audit.error}.", audit.index
        )
        return
    left, problems = audit.get("left") or (), audit.get("problems") or ()
    if left:
        yield invalid(f"The run left changes behind: {named(left, '; ')}.", audit.index)
    if problems:
        yield invalid(f"The cluster is unhealthy at the end of the run: {named(problems, '; ')}.", audit.index)
    if "owners" not in audit.value:
        yield unknown("The state of the cluster at the end of the run was not recorded.", audit.index)
        return
    for vip, owners in audit["owners"].items():
        if len(owners) != 1:
            holders = " and ".join(owners) or "no director"
            yield invalid(f"{vip} is held by {holders} at the end of the run.", audit.index)
    yield from _not_recorded(audit, cluster)
    if differing := _differing(audit["weights"]):
        yield invalid(f"The directors' tables differ at the end of the run: {named(differing)}.", audit.index)


LAST_SAMPLE_NS = 5_000_000_000
"""A sample of a director's addresses that is older than this says nothing of the end of the run."""


def _contradictions(audit: Op, history: History) -> Iterator[Finding]:
    """What the last look says, where the samples of the run say something else."""
    for vip, owners in (audit.get("owners") or {}).items():
        for node, ops in director_ops(history).items():
            samples = [op for op in ops if op.f == "holds" and op.time <= audit.time]
            recent = samples[-1:] if samples and audit.time - samples[-1].time <= LAST_SAMPLE_NS else []
            for op in recent:
                if vip in op["vips"] and owners != [node]:
                    sentence = (
                        f"The last look at the cluster and the last sample of {node} disagree on who holds {vip}."
                    )
                    yield unknown(sentence, audit.index, op.index)
    out = [
        f"{node} for {service} on {director}"
        for director, table in (audit.get("weights") or {}).items()
        for service, weights in table.items()
        for node, weight in weights.items()
        if weight == 0 and not _always_out(history, director, service, node)
    ]
    if out:
        yield unknown(f"Real servers are out of service at the end of the run: {named(out)}.", audit.index)


def _always_out(history: History, director: str, service: str, node: str) -> bool:
    """Whether a real server had weight 0 in all samples of a table: the cluster's own file may say so."""
    mine = [op for op in history.seen("table") if op.get("node") == director]
    weights = [weights_of(op).get(service.partition(":")[0], {}).get(node) for op in mine]
    return bool(weights) and not any(weights)


def _differing(weights: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The virtual services whose tables differ between directors."""
    services = sorted({service for table in weights.values() for service in table})
    tables = list(weights.values())
    return [each for each in services if any(table.get(each) != tables[0].get(each) for table in tables)]


def _not_recorded(audit: Op, cluster: Cluster) -> Iterator[Finding]:
    """Virtual IPs, directors and services that the last look at the cluster lacks."""
    owners, weights = audit["owners"], audit["weights"]
    for vip in cluster.vips:
        if vip not in owners:
            yield unknown(f"The owner of {vip} at the end of the run was not recorded.", audit.index)
        if weights and not any(service.partition(":")[0] == vip for table in weights.values() for service in table):
            yield unknown(f"The real servers of {vip} at the end of the run were not recorded.", audit.index)
    for node in cluster.directors:
        if node not in weights:
            yield unknown(f"The table of {node} at the end of the run was not recorded.", audit.index)
