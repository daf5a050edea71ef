"""What has a run left behind? Asked after every run, whether or not its scenario names it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.history import History, Op
from harness.history.client_ops import named
from harness.history.injections import Stretch, injections, interval_at, merged
from harness.history.timeline import count_of, moment
from harness.verdict import Finding, Verdict, conclude, invalid, unknown

NAME = "audit"

ERRORS: Mapping[str, re.Pattern[str]] = {
    # kernel: lib/bug.c, kernel/panic.c, arch/*/kernel/dumpstack.c, mm/oom_kill.c, kernel/hung_task.c, fs/ext4/super.c;
    # and what services print: "Error Log" in MariaDB's documentation
    "console": re.compile(
        r"\bBUG: |\bOops\b|Call Trace:|Kernel panic|: segfault at |Out of memory: |blocked for more than|EXT4-fs error"
        r"|\[ERROR\]"
    ),
    # cluster-glue's cl_log.c: the priorities above WARN
    "heartbeat": re.compile(r" (?:ERROR|CRIT|ALERT|EMERG): "),
    # ErrorLogFormat: [module:level]; core.html#loglevel
    "apache": re.compile(r"\[\w*:(?:error|crit|alert|emerg)\]"),
}
"""Each service -> a line of its log that is an error. ldirectord, rsync and Ganglia tell errors by no word."""


class AuditSettings(BaseModel):
    """``[checks.audit]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    announced: tuple[re.Pattern[str], ...] = Field(
        default=(), description="Regular expressions of lines in logs that this scenario brings about, at any time"
    )
    settle_ms: float = Field(
        default=10_000, ge=0, description="How long after its undo a fault may still be the reason for an error line"
    )


def check(history: History, settings: AuditSettings) -> Verdict:
    """The cluster is as it was, and no log has an error line that no fault explains.

    As it was: every node's audit (network, mounts, settings, services, files, core files) is as before the run and no
    lease is left; every part of the cluster is well; every virtual IP has one owner; both directors have the same
    real servers with the same weights. The run looks at its very end, and waits some time for it.

    An error line is explained by any fault that was in, or had not settled, when it came: which fault makes which
    daemon complain is not known. It sees the lines that daemons mark as errors themselves, and what a kernel says when
    something is badly wrong. It cannot see the lines of a log whose feed was lost.
    """
    audits, injected = history.of("audit"), injections(history, settings.settle_ms)
    excused = merged((one.start, one.settled) for one in injected)
    lines = [op for op in history.of("log") if isinstance(op.value, str) and _is_error(op)]
    unexplained = [op for op in lines if not _explained(op, excused, settings.announced)]
    findings = [*_line_findings(unexplained)]
    if not audits:
        findings.append(unknown("Nobody compared the lab with how it was."))
    else:
        findings += _lab_findings(audits[-1])
    numbers = {
        "error_lines": len(lines),
        "unexplained_lines": len(unexplained),
        "left": audits[-1].get("left") if audits else None,
    }
    explained = f"{count_of(len(lines), 'error line')}, explained by faults or announced" if lines else "no error line"
    held = f"Nothing is left behind; {explained}."
    return conclude(NAME, findings, held, numbers, [op.index for op in audits[-1:]])


def _is_error(op: Op) -> bool:
    pattern = ERRORS.get(op.process.rpartition(":")[2])
    return pattern is not None and pattern.search(op.value) is not None


def _explained(op: Op, excused: Sequence[Stretch], announced: Sequence[re.Pattern[str]]) -> bool:
    return interval_at(excused, op.time) is not None or any(each.search(op.value) for each in announced)


def _line_findings(lines: Sequence[Op]) -> Iterator[Finding]:
    if lines:
        first, more = lines[0], len(lines) - 1
        where = first.process.removeprefix("log:").replace(":", ", ")
        others = f", and {more} more" if more else ""
        said = f"{first.value.strip()[:200]}{others}"
        yield invalid(
            f"An error line that no fault explains, at {moment(first.time)} ({where}): {said}.",
            *(op.index for op in lines),
        )


def _lab_findings(audit: Op) -> Iterator[Finding]:
    if audit.error:
        yield unknown(f"The lab could not be compared with how it was: {audit.error}.", audit.index)
        return
    left, problems = audit.get("left") or (), audit.get("problems") or ()
    if left:
        yield invalid(f"Not as it was: {named(left, '; ')}.", audit.index)
    if problems:
        yield invalid(f"The cluster is not well at the end: {named(problems, '; ')}.", audit.index)
    if "owners" not in audit.value:
        yield unknown("Nobody looked at the cluster at the end.", audit.index)
        return
    for vip, owners in audit["owners"].items():
        if len(owners) != 1:
            holders = " and ".join(owners) or "nobody"
            yield invalid(f"{vip} is held by {holders} at the end.", audit.index)
    if differing := _differing(audit["weights"]):
        yield invalid(f"The directors' tables differ at the end: {named(differing)}.", audit.index)


def _differing(weights: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The virtual services that not all directors have alike."""
    services = sorted({service for table in weights.values() for service in table})
    tables = list(weights.values())
    return [each for each in services if any(table.get(each) != tables[0].get(each) for table in tables)]
