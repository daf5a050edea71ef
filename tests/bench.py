"""Speed and size of a lab, beside the same number of idle containers: ``make bench``.

Prints a table; judges nothing. The floor is what Docker itself needs to run as many idle containers of the same image,
started the same way, so that a ratio can be compared between machines.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from topology import engine, image, life, model

NAME = "bench"
MIB = 2**20


@click.command()
@click.option(
    "--rounds", default=3, show_default=True, help="How often each figure is taken; the table shows the median."
)
@click.option("--topology", default="ultramonkey", show_default=True, help="What to boot.")
def bench(rounds: int, topology: str) -> None:
    """Boot a lab, and as many idle containers, some times over."""
    console = Console(stderr=True)
    client, wanted = engine.connect(), model.load(topology)
    images = image.ensure(client, console.print)
    figures: dict[str, list[float]] = {}
    for number in range(1, rounds + 1):
        console.print(f"round {number} of {rounds}")
        for name, value in {**_floor(client, images["web"], len(wanted.machines) + 1), **_lab(client, wanted)}.items():
            figures.setdefault(name, []).append(value)
    Console().print(_table(figures, len(wanted.machines)))


def _timed(action: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = action()
    return time.perf_counter() - began, result


def _floor(client: Any, image_name: str, count: int) -> dict[str, float]:
    """Idle containers: up, memory, down."""
    labels = {engine.LABEL: f"{NAME}-floor"}

    def start(_: int) -> Any:
        return client.containers.run(
            image_name, ["sleep", "infinity"], detach=True, network_mode="none", labels=labels, init=True
        )

    try:
        with ThreadPoolExecutor(max_workers=8) as pool:
            up_s, containers = _timed(lambda: list(pool.map(start, range(count))))
        memory_mib = sum(_memory_mib(container) for container in containers)
    finally:
        down_s, _ = _timed(lambda: life.remove(client, f"{NAME}-floor"))
    return {"floor up": up_s, "floor memory": memory_mib, "floor down": down_s}


def _lab(client: Any, wanted: model.Topology) -> dict[str, float]:
    """A lab: up, with the time of each part, memory, status, down."""
    began = time.perf_counter()
    parts: dict[str, float] = {}
    marks: list[tuple[str, float]] = []
    try:
        booted = life.boot(client, wanted, NAME, lambda text: marks.append((text, time.perf_counter())))
        up_s = time.perf_counter() - began
        ends = [at for _, at in marks[1:]] + [began + up_s]
        for (text, at), end in zip(marks, ends, strict=True):
            parts[f"up: {text}"] = end - at
        status_s, _ = _timed(booted.status)
        exec_s = statistics.median(_timed(lambda: booted.node("web-1").exec("true"))[0] for _ in range(20))
        memory_mib = sum(_memory_mib(container) for container in engine.containers(client, NAME))
        booted.close()
    finally:
        down_s, _ = _timed(lambda: life.remove(client, NAME))
    return {"up": up_s, **parts, "memory": memory_mib, "status": status_s, "exec": exec_s, "down": down_s}


def _memory_mib(container: Any) -> float:
    """What the kernel accounts to a container, its page cache left out, as ``docker stats`` does."""
    usage = container.stats(stream=False)["memory_stats"]
    cache = usage.get("stats", {}).get("total_inactive_file", usage.get("stats", {}).get("inactive_file", 0))
    return float(usage.get("usage", 0) - cache) / MIB


def _table(figures: dict[str, list[float]], nodes: int) -> Table:
    table = Table(title=f"{nodes} nodes and the switch; floor: as many idle containers", title_justify="left")
    for column in ("figure", "median", "least", "most", "aim", "times the floor"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    aims = {"up": "25 s", "down": "3 s", "memory": "2048 MiB"}
    for name, values in figures.items():
        unit = "MiB" if "memory" in name else "s"
        digits = 0 if unit == "MiB" else 2
        floor = figures.get(f"floor {name}")
        ratio = f"{statistics.median(values) / statistics.median(floor):.1f}" if floor else ""
        shown = [f"{figure:.{digits}f} {unit}" for figure in (statistics.median(values), min(values), max(values))]
        table.add_row(name, *shown, aims.get(name, ""), ratio)
    return table


if __name__ == "__main__":
    bench()
