"""What people see on a terminal: the status of a lab, verdicts, descriptions and findings. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table

from harness.catalogue import About, Setting
from harness.compare import Result
from harness.doctor import Finding
from harness.plan import Heal, Inject, Step
from harness.records import LeaseStatus, RealServer, Status
from harness.repeat import Share
from harness.report.comparison import HEADLINES, OUTCOMES
from harness.verdict import Outcome, Verdict, overall

OK, FAIL, WARN = "[green]OK[/]", "[red]FAIL[/]", "[yellow]WARN[/]"
COLOURS = {Outcome.VALID: "green", Outcome.INVALID: "red", Outcome.UNKNOWN: "yellow"}
MOST_SEEDS = 20
MOST_FINDINGS = 10
"""Of one check, on the terminal; the report has all of them."""
SENTENCES = {
    Outcome.VALID: "valid: the cluster held",
    Outcome.INVALID: "invalid: the cluster did not hold",
    Outcome.UNKNOWN: "unknown: the evidence does not show whether the cluster held",
}


def status(lab: str, seen: Status, time: str, brief: bool = False) -> RenderableType:
    """A lab at a glance: its parts with their problems, the IPVS tables side by side, and the nodes.

    ``time`` says whose time the lab has. ``brief`` leaves out what does not change, for refreshing displays.
    """
    word, colour = ("healthy", "green") if seen.healthy else ("unhealthy", "red")
    head = f"[bold {colour}]lab {lab} is {word}[/], {time}"
    of_parts = {line for part in seen.parts for line in part.problems}
    other = [f"[red]- {escape(line)}[/]" for line in seen.problems if line not in of_parts]
    tables = [_parts(seen, not brief), _ipvs(seen)] + ([] if brief else [_nodes(seen)])
    return Group(head, *other, *tables)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim")
    for column in columns:
        table.add_column(column)
    return table


def _parts(seen: Status, single_points_of_failure: bool) -> Table:
    """A row for each part of the cluster: its state, its problems, and whether it is a single point of failure."""
    table = _table("parts", "", "part", "state")
    for part in seen.parts:
        mark = OK if part.healthy else FAIL
        table.add_row(mark, part.name, escape(part.seen))
        for line in part.problems:
            table.add_row("", "", f"[red]{escape(line)}[/]")
        if part.single_point_of_failure and single_points_of_failure:
            table.add_row("", "", f"[dim]{escape(part.single_point_of_failure)}[/]")
    return table


def _nodes(seen: Status) -> Table:
    table = _table("nodes", "power", "nodes", "kernel", "reason for this kernel")
    for (power, kernel, why), names in _alike(seen).items():
        colour = "green" if power == "running" else "red"
        table.add_row(f"[{colour}]{power}[/]", ", ".join(names), kernel, why)
    return table


def _alike(seen: Status) -> dict[tuple[str, str, str], list[str]]:
    """Nodes that differ only in their names share a row, so that the odd one stands out."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for node in seen.nodes:
        kernel = f"{node.kernel} {node.kernel_release}".strip()
        groups.setdefault((str(node.power), kernel, node.why), []).append(node.name)
    return groups


def _ipvs(seen: Status) -> Table:
    """A row for each real server, a column for each virtual service on each director."""
    services = sorted({service for tables in seen.ipvs.values() for service in tables})
    columns = [(director, service) for director in seen.ipvs for service in services]
    table = _table(
        "IPVS tables: weight, active, inactive connections", "real server", *("\n".join(column) for column in columns)
    )
    rows = [{server.node: server for server in seen.ipvs[director].get(service, ())} for director, service in columns]
    for node in sorted({name for row in rows for name in row}, key=lambda name: (len(name), name)):
        table.add_row(node, *(_row(row.get(node)) for row in rows))
    return table


def _row(server: RealServer | None) -> str:
    if server is None:
        return "[red]missing[/]"
    numbers = f"{server.weight:3} {server.active:4} {server.inactive:4}"
    return numbers if server.weight else f"[yellow]{numbers}[/]"


def verdicts(found: Sequence[Verdict], remarks: Sequence[str] = (), clock: str = "") -> RenderableType:
    """The outcome in one sentence, the verdict of each check, and what stands beside them.

    ``clock`` is that of the run, real or virtual; empty for the history of another harness.
    """
    outcome = overall(found)
    table = Table.grid(padding=(0, 2))
    for verdict in found:
        table.add_row(f"[{COLOURS[verdict.outcome]}]{verdict.word}[/]", verdict.check, escape(verdict.summary))
        for line in _further(verdict):
            table.add_row("", "", line)
    for remark in remarks:
        table.add_row("[yellow]beside[/]", "", escape(remark))
    colour = COLOURS[outcome]
    return _panel(table, f"{SENTENCES[outcome]} ({clock} time)" if clock else SENTENCES[outcome], colour)


def verdict(found: Verdict) -> RenderableType:
    """One verdict, with the findings that keep it from being valid."""
    table = Table.grid(padding=(0, 2))
    table.add_row(f"[{COLOURS[found.outcome]}]{found.outcome}[/]", escape(found.summary))
    for line in _further(found):
        table.add_row("", line)
    return table


def _further(found: Verdict) -> list[str]:
    """The findings after the first, which is the summary; of many, the first ones and how many more there are."""
    shown = [escape(finding.sentence) for finding in found.findings[1:MOST_FINDINGS]]
    more = len(found.findings) - MOST_FINDINGS
    return [*shown, f"[dim]and {more:,} more: see the report[/]"] if more > 0 else shown


def comparison(result: Result) -> RenderableType:
    """The decision in one sentence, and the decision of each endpoint."""
    table = Table.grid(padding=(0, 2))
    for each in result.endpoints:
        colour = COLOURS[OUTCOMES[each.decision]]
        table.add_row(f"[{colour}]{each.decision}[/]", escape(each.endpoint), escape(each.sentence))
    for note in result.notes:
        table.add_row("", "", escape(note))
    colour = COLOURS[OUTCOMES[result.decision]]
    return _panel(table, f"{result.decision}: {HEADLINES[result.decision]}", colour)


def _panel(table: Table, title: str, colour: str) -> Panel:
    """As wide as its content: without a terminal there is no other width."""
    bold = f"[bold {colour}]{escape(title)}[/]"
    return Panel(table, title=bold, title_align="left", border_style=colour, expand=False)


def shares(found: Sequence[Share]) -> RenderableType:
    """How many of repeated runs came to what, and with which seeds."""
    table = _table(f"{found[0].of} run{'' if found[0].of == 1 else 's'}", "outcome", "runs", "share", "seeds")
    for each in found:
        colour = {str(outcome): colour for outcome, colour in COLOURS.items()}.get(each.outcome, "red")
        seeds = ", ".join(map(str, each.seeds[:MOST_SEEDS]))
        more = len(each.seeds) - MOST_SEEDS
        table.add_row(
            f"[{colour}]{each.outcome}[/]",
            str(len(each.seeds)),
            str(each),
            f"{seeds} and {more} more" if more > 0 else seeds,
        )
    return table


def steps(plan: Sequence[Step]) -> RenderableType:
    """The steps of a run, one per row; ``earliest`` is how long after the run's beginning a step starts at least."""
    table = _table("steps", "earliest", "step", "action", "then")
    at_s = 0.0
    for step in plan:
        at_s = at_s if step.at_s is None else step.at_s
        then = [f"until {step.until} (within {step.until.within_s:g} s)"] if step.until else []
        then += [f"wait {step.hold_s:g} s"] if step.hold_s else []
        table.add_row(f"{at_s:.1f} s", escape(step.name), escape(_action(step)), escape(", ".join(then)))
        at_s += step.hold_s
    return table


def _action(step: Step) -> str:
    match step.action:
        case Inject(fault, _, settings):
            return " ".join([fault, *(f"{key}={value}" for key, value in settings.items())])
        case Heal(label):
            return f"heal {label}"
    return ""


def overview(about: Sequence[About], next_step: str) -> RenderableType:
    """Faults or checks, one per line with its summary."""
    table = Table.grid(padding=(0, 2))
    for each in about:
        table.add_row(f"[bold]{each.name}[/]", escape(each.summary))
    return Group(table, "", next_step)


def descriptions(about: Sequence[About]) -> RenderableType:
    """Faults or checks with all their documentation and settings."""
    return Group(*(_description(each) for each in about))


def _description(about: About) -> RenderableType:
    text = Padding(escape(about.text), (0, 2), expand=False)
    if not about.settings:
        return Group(f"[bold]{about.name}[/]", text, "", "  no settings", "")
    settings = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("setting", "value", "default", "meaning"):
        settings.add_column(column)
    for each in about.settings:
        settings.add_row(f"[bold]{escape(each.name)}[/]", escape(each.kind), _default(each), escape(each.meaning))
    return Group(f"[bold]{about.name}[/]", text, "", Padding(settings, (0, 2), expand=False), "")


def _default(setting: Setting) -> str:
    if setting.required:
        return "required"
    if setting.default is None:
        return "none"
    if isinstance(setting.default, str):
        return escape(setting.default) or "empty"
    return escape(json.dumps(setting.default))


def leases(held: Sequence[LeaseStatus]) -> RenderableType:
    """The faults that are injected now."""
    if not held:
        return "no fault is injected"
    table = _table("injected faults", "fault", "node", "resource", "age", "expires in", "state")
    for lease in held:
        problems = f"{lease.state} {lease.problems}".strip()
        ages = (f"{lease.age_ms / 1000:.1f} s", f"{lease.left_ms / 1000:.1f} s")
        table.add_row(lease.fault, lease.node, escape(lease.claim), *ages, escape(problems))
    return table


def findings(found: Sequence[Finding]) -> RenderableType:
    """The doctor's findings."""
    table = Table.grid(padding=(0, 2))
    for finding in found:
        mark = FAIL if not finding.ok else WARN if finding.warning else OK
        table.add_row(mark, escape(finding.what), escape(finding.seen))
        if finding.next_step:
            table.add_row("", "", f"[bold]Next:[/] {escape(finding.next_step)}")
    return table
