"""The table of the mutation suite: ``python -m tests.mutations``; ``--sensitivity``: how small a defect is seen."""

from __future__ import annotations

from collections import Counter

import click
from rich.console import Console
from rich.table import Table

from tests.mutations import cluster, data
from tests.mutations.kinds import tried
from tests.mutations.sensitivity import SWEEPS


@click.command()
@click.option("--times", default=4, show_default=True, help="How often each kind is planted.")
@click.option("--sensitivity", is_flag=True, help="Plant some kinds in several sizes instead.")
@click.option("--why", is_flag=True, help="Also show why each kind is certainly wrong, and what was found.")
def main(times: int, sensitivity: bool, why: bool) -> None:
    """Plant every kind of mutation in right histories, and show what the checks say."""
    console = Console(width=200 if why else None)
    if sensitivity:
        for sweep in SWEEPS:
            console.print(f"{sweep.name}: {', '.join(sweep.shares())}", soft_wrap=True, highlight=False)
        return
    table = Table("kind", "planted", "caught", "outcome", *(("certainly wrong because", "found") if why else ()))
    counts: Counter[str] = Counter()
    for kind in (*data.KINDS, *cluster.KINDS):
        result = tried(kind, times)
        missed = result.caught < len(result.outcomes) or not result.outcomes
        counts["a documented limit" if kind.limit else "missed" if missed else "caught"] += 1
        table.add_row(*result.row, *((kind.why, kind.limit or result.said) if why else ()))
    console.print(table)
    console.print(", ".join(f"{number} kinds {what}" for what, number in sorted(counts.items())))


if __name__ == "__main__":
    main()
