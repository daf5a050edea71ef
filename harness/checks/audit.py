"""What has a run left behind? Asked after every run, even if its scenario does not name it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.history import History, Op
from harness.history.client_ops import named
from harness.history.injections import injections
from harness.history.intervals import Intervals
from harness.history.timeline import count_of, moment
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

    Any fault that was active or settling explains an error line: which fault makes which daemon complain is unknown.
    The check sees the lines that services mark as errors, and those of a kernel in trouble, by the expressions that the
    run recorded. It cannot see the lines of a log whose feed was lost.
    """
    if history.cluster.error_lines is None:
        return conclude(NAME, [unknown("The history does not say which log lines are errors.")], "")
    audits, injected = history.of("audit"), injections(history, settings.settle_ms)
    excused = Intervals((fault.start, fault.settled) for fault in injected)
    lines = _error_lines(history, history.cluster.error_lines)
    unexplained = [op for op in lines if not _explained(op, excused, settings.announced)]
    findings = [*_line_findings(unexplained)]
    if not audits:
        findings.append(unknown("The state of the lab was not compared with the one before the run."))
    else:
        findings += _lab_findings(audits[-1])
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


def _explained(op: Op, excused: Intervals, announced: Sequence[re.Pattern[str]]) -> bool:
    return op.time in excused or any(each.search(op.value) for each in announced)


def _line_findings(lines: Sequence[Op]) -> Iterator[Finding]:
    if lines:
        first, more = lines[0], len(lines) - 1
        where = first.process.removeprefix("log:").replace(":", ", ")
        others = f" (and {more:,} more)" if more else ""
        text = f"{first.value.strip()[:200]}{others}"
        sentence = f"No fault explains this error line at {moment(first.time)} ({where}): {text}."
        yield invalid(sentence, *(op.index for op in lines))


def _lab_findings(audit: Op) -> Iterator[Finding]:
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
    if differing := _differing(audit["weights"]):
        yield invalid(f"The directors' tables differ at the end of the run: {named(differing)}.", audit.index)


def _differing(weights: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The virtual services whose tables differ between directors."""
    services = sorted({service for table in weights.values() for service in table})
    tables = list(weights.values())
    return [each for each in services if any(table.get(each) != tables[0].get(each) for table in tables)]
