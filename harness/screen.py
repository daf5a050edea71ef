"""What people see on a terminal: the status of a lab, verdicts, and the doctor's findings. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from harness.doctor import Finding
from harness.protocols import RealServer, Status
from harness.verdict import Outcome, Verdict, overall

COLOURS = {Outcome.VALID: "green", Outcome.INVALID: "red", Outcome.UNKNOWN: "yellow"}
SENTENCES = {
    Outcome.VALID: "valid: the cluster held",
    Outcome.INVALID: "invalid: the cluster did not hold",
    Outcome.UNKNOWN: "unknown: nobody can tell whether the cluster held",
}


def status(lab: str, seen: Status) -> RenderableType:
    """A lab at a glance: trouble first, then VIPs, nodes, and the IPVS tables side by side."""
    head = f"[bold green]lab {lab} is healthy[/]" if seen.healthy else f"[bold red]lab {lab} has trouble[/]"
    trouble = [f"[red]- {escape(line)}[/]" for line in seen.trouble]
    return Group(head, *trouble, _owners(seen), _nodes(seen), _ipvs(seen))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim")
    for column in columns:
        table.add_column(column)
    return table


def _owners(seen: Status) -> Table:
    table = _table("virtual IP addresses", "VIP", "held by")
    for vip, owners in seen.owners.items():
        table.add_row(vip, " [red]and[/] ".join(owners) or "[red]nobody[/]")
    return table


def _nodes(seen: Status) -> Table:
    table = _table("nodes", "node", "role", "power", "kernel", "why")
    for node in seen.nodes:
        colour = "green" if node.power == "running" else "red"
        kernel = f"{node.kernel} {node.kernel_release}".strip()
        table.add_row(node.name, node.role, f"[{colour}]{node.power}[/]", kernel, node.why)
    return table


def _ipvs(seen: Status) -> Table:
    directors = list(seen.ipvs)
    table = _table("IPVS tables: weight, active, inactive connections", "virtual service", "real server", *directors)
    services = sorted({service for tables in seen.ipvs.values() for service in tables})
    for service in services:
        rows = {director: {row.node: row for row in seen.ipvs[director].get(service, ())} for director in directors}
        for node in sorted({name for row in rows.values() for name in row}, key=lambda name: (len(name), name)):
            table.add_row(service, node, *(_row(rows[director].get(node)) for director in directors))
            service = ""  # noqa: PLW2901 - a service is named once, at its first row
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


def findings(found: Sequence[Finding]) -> RenderableType:
    """What the doctor found."""
    table = Table.grid(padding=(0, 2))
    for finding in found:
        mark = "[green]ok[/]" if finding.ok else "[red]no[/]"
        table.add_row(mark, finding.what, escape(finding.seen))
        if finding.next_step:
            table.add_row("", "", f"[bold]Next:[/] {escape(finding.next_step)}")
    return table
