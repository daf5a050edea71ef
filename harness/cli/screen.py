"""What people see on a terminal: the status of a lab, verdicts, and the doctor's findings. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table

from harness.compare import Result
from harness.doctor import Finding
from harness.injection import About
from harness.plan import Heal, Inject, Step
from harness.records import LeaseStatus, RealServer, Status
from harness.report.comparison import HEADLINES, OUTCOMES
from harness.verdict import Outcome, Verdict, overall

COLOURS = {Outcome.VALID: "green", Outcome.INVALID: "red", Outcome.UNKNOWN: "yellow"}
SENTENCES = {
    Outcome.VALID: "valid: the cluster held",
    Outcome.INVALID: "invalid: the cluster did not hold",
    Outcome.UNKNOWN: "unknown: nobody can tell whether the cluster held",
}


def status(lab: str, seen: Status, brief: bool = False) -> RenderableType:
    """A lab at a glance: its parts with their trouble, the IPVS tables side by side, and the nodes.

    ``brief`` is for looking at again and again: without what stays the same.
    """
    head = f"[bold green]lab {lab} is healthy[/]" if seen.healthy else f"[bold red]lab {lab} has trouble[/]"
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
    """A row for each part of the cluster: what was seen, what is wrong, and what it has no stand-in for."""
    table = _table("parts", "", "part", "seen")
    for part in seen.parts:
        mark = "[green]ok[/]" if part.healthy else "[red]no[/]"
        table.add_row(mark, part.name, escape(part.seen))
        for line in part.problems:
            table.add_row("", "", f"[red]{escape(line)}[/]")
        if part.single_point_of_failure and single_points_of_failure:
            table.add_row("", "", f"[dim]{escape(part.single_point_of_failure)}[/]")
    return table


def _nodes(seen: Status) -> Table:
    table = _table("nodes", "power", "nodes", "kernel", "why")
    for (power, kernel, why), names in _alike(seen).items():
        colour = "green" if power == "running" else "red"
        table.add_row(f"[{colour}]{power}[/]", ", ".join(names), kernel, why)
    return table


def _alike(seen: Status) -> dict[tuple[str, str, str], list[str]]:
    """Nodes that differ by their names only share a row: a person looks for the one that differs."""
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


def verdicts(found: Sequence[Verdict]) -> RenderableType:
    """The verdict in one sentence, and what each check says."""
    outcome = overall(found)
    table = Table.grid(padding=(0, 2))
    for verdict in found:
        table.add_row(f"[{COLOURS[verdict.outcome]}]{verdict.outcome}[/]", verdict.check, escape(verdict.summary))
        for finding in verdict.findings[1:]:
            table.add_row("", "", escape(finding.sentence))
    colour = COLOURS[outcome]
    return Panel(table, title=f"[bold {colour}]{SENTENCES[outcome]}[/]", title_align="left", border_style=colour)


def verdict(found: Verdict) -> RenderableType:
    """One verdict by itself, with all that stands in the way of valid."""
    table = Table.grid(padding=(0, 2))
    table.add_row(f"[{COLOURS[found.outcome]}]{found.outcome}[/]", escape(found.summary))
    for finding in found.findings[1:]:
        table.add_row("", escape(finding.sentence))
    return table


def comparison(result: Result) -> RenderableType:
    """The decision in one sentence, and what each endpoint comes to."""
    table = Table.grid(padding=(0, 2))
    for each in result.endpoints:
        colour = COLOURS[OUTCOMES[each.decision]]
        table.add_row(f"[{colour}]{each.decision}[/]", escape(each.endpoint), escape(each.sentence))
    for note in result.notes:
        table.add_row("", "", escape(note))
    colour = COLOURS[OUTCOMES[result.decision]]
    title = f"[bold {colour}]{result.decision}: {escape(HEADLINES[result.decision])}[/]"
    return Panel(table, title=title, title_align="left", border_style=colour)


def steps(plan: Sequence[Step]) -> RenderableType:
    """What a run would do, a row a step; ``from`` is the least time since its beginning."""
    table = _table("steps", "from", "step", "does", "then")
    at_s = 0.0
    for step in plan:
        then = [f"until {step.until} (within {step.until.within_s:g} s)"] if step.until else []
        then += [f"{step.hold_s:g} s pass"] if step.hold_s else []
        table.add_row(f"{at_s:.1f} s", escape(step.name), escape(_does(step)), escape(", ".join(then)))
        at_s += step.hold_s
    return table


def _does(step: Step) -> str:
    match step.action:
        case Inject(fault, _, settings):
            return " ".join([fault, *(f"{key}={value}" for key, value in settings.items())])
        case Heal(label):
            return f"heal {label}"
    return ""


def faults(about: Sequence[About], whole: bool) -> RenderableType:
    """The catalogue: a line for each fault, or with ``whole`` all about each."""
    if whole:
        return Group(*(_fault(each) for each in about))
    table = Table.grid(padding=(0, 2))
    for each in about:
        table.add_row(f"[bold]{each.name}[/]", escape(each.summary))
    return Group(table, "", "`monkeywrench faults NAME` shows its settings.")


def _fault(about: About) -> RenderableType:
    settings = Table.grid(padding=(0, 2))
    for each in about.settings:
        value = "required" if each.required else f"default {each.default}"
        settings.add_row("", f"[bold]{escape(each.name)}[/]", escape(each.kind), escape(value), escape(each.meaning))
    return Group(f"[bold]{about.name}[/]", Padding(escape(about.text), (0, 2)), settings, "")


def leases(held: Sequence[LeaseStatus]) -> RenderableType:
    """What is injected now."""
    if not held:
        return "nothing is injected"
    table = _table("injected", "fault", "node", "what it takes", "for", "runs out in", "state")
    for lease in held:
        problems = f"{lease.state} {lease.problems}".strip()
        ages = (f"{lease.age_ms / 1000:.1f} s", f"{lease.left_ms / 1000:.1f} s")
        table.add_row(lease.fault, lease.node, escape(lease.claim), *ages, escape(problems))
    return table


def findings(found: Sequence[Finding]) -> RenderableType:
    """What the doctor found."""
    table = Table.grid(padding=(0, 2))
    for finding in found:
        mark = "[red]no[/]" if not finding.ok else "[yellow]mind[/]" if finding.warning else "[green]ok[/]"
        table.add_row(mark, escape(finding.what), escape(finding.seen))
        if finding.next_step:
            table.add_row("", "", f"[bold]Next:[/] {escape(finding.next_step)}")
    return table
