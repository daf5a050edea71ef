"""What judging a long history costs: ``python -m tests.bench.judging``.

The histories are right ones, written to a file as a run writes them. A process of its own reads and judges each, so its
CPU time and its peak memory are those of the reading and of all the checks that apply.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from harness.checks import judge
from harness.history import History, load
from harness.verdict import overall
from loadtests.lib.site import PLAYERS
from tests.support import clusters as c
from tests.support import games as g

SIZE = 1_000_000
AIMS_S = {"cluster": "10", "players": "20"}
OPS_PER_S = 100
"""About as many as all feeds of a made-up cluster record."""

CLUSTER = (
    "ownership", "outage", "recovery", "quiescing", "errors", "balance", "rotation", "content", "monitoring",
    "failback", "established", "arrivals", "audit",
)  # fmt: skip
DATA = ("durability", "linearizable", "counters", "bank", "uploads")
ANY = {"failed": 10**9, "indeterminate": 10**9}
"""A game has errors without a fault."""
ASKED: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "cluster": {check: {} for check in CLUSTER},
    "players": {check: {} for check in DATA} | {"errors": ANY},
}


def cluster(size: int) -> History:
    """Two faults with every feed of a cluster, and a long quiet time after each."""
    rest = 1_000 * size / OPS_PER_S / 2
    scene = c.Scene(1, holds=(18_000, 20_000), rests=(rest, rest))
    return scene.history(c.tables, c.users, c.dns, c.docroot, c.ganglia, c.probes)


def players(size: int) -> History:
    """A game of as many players as the site has, and 24 users."""
    g.PLAYERS = tuple(range(1, PLAYERS + 1))
    g.PAGE = 500
    everyone = g.PLAYERS
    site = g.Site(
        [], [], dict.fromkeys(everyone, ("", 0)), dict.fromkeys(everyone, 0), dict.fromkeys(everyone, 10_000), {}
    )
    return g.Game(1, ops=size // 2, users=24, site=site).history()


HISTORIES: Mapping[str, Callable[[int], History]] = {"cluster": cluster, "players": players}


def figures(size: int = SIZE) -> dict[str, dict[str, float]]:
    """Each kind of history -> its ops, the CPU seconds of judging it, the peak memory in MiB, and the file's size."""
    return {kind: _figures(kind, make(size)) for kind, make in HISTORIES.items()}


def _figures(kind: str, history: History) -> dict[str, float]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "history.jsonl"
        with path.open("w", encoding="ascii") as file:
            file.writelines(op.line() + "\n" for op in history)
        size_mib = path.stat().st_size / 2**20
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.judging", kind, str(path)], capture_output=True, text=True, check=True
        )
    cpu_s, peak_mib, outcome = done.stdout.split()
    assert outcome != "invalid", done.stderr
    return {"ops": len(history), "CPU s": float(cpu_s), "peak MiB": float(peak_mib), "file MiB": size_mib}


def judged(kind: str, path: Path) -> str:
    """Judge a history in this process: its CPU seconds, its peak memory in MiB, and the outcome."""
    verdicts = judge(load(path), ASKED[kind])
    for verdict in verdicts:
        print(verdict.check, verdict.outcome, verdict.summary, file=sys.stderr)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return f"{used.ru_utime + used.ru_stime:.2f} {used.ru_maxrss / 1024:.0f} {overall(verdicts)}"


def table(size: int = SIZE) -> Table:
    """The figures, beside what is aimed at."""
    columns = ("ops", "file MiB", "CPU s", "aim", "peak MiB", "aim MiB")
    shown = Table("history", *columns, title="judging a stored history by all its checks", title_justify="left")
    for kind, row in figures(size).items():
        cells = {column: f"{row[column]:,.1f}" for column in columns if column in row}
        shown.add_row(kind, *(({**cells, "aim": AIMS_S[kind], "aim MiB": "400"}.get(column, "")) for column in columns))
    return shown


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(judged(sys.argv[1], Path(sys.argv[2])))
    else:
        Console().print(table())
