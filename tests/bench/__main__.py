"""Speed and size of a lab, beside the same number of idle containers: ``make bench``.

Prints a table; judges nothing. The floor is what Docker itself needs to run as many idle containers of the same image,
started the same way, so that a ratio can be compared between machines.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from harness.wait import until
from loadtests.feeds import LOCUST, LOCUSTFILE, installed, program
from tests.bench import checks, faults, judging, load
from topology.lab import engine, image, lifecycle
from topology.lab.docker_lab import HEALTHY_S, DockerLab
from topology.load import load as load_topology
from topology.model import Topology

NAME = "bench"
OPS = "/tmp/bench-ops.jsonl"
LOAD_PER_S, LOAD_USERS, LOAD_S, LOAD_WARM_S = 200, 60, 40, 5
"""What the site should hold; the first seconds, while users come, are not counted."""
UNITLESS = ("mixed ops a second", "mixed ops ill", "least share of a VIP")
MIB = 2**20
TABLES = ("lab", "faults", "checks", "load")


@click.command()
@click.option(
    "--rounds", default=3, show_default=True, help="How often each figure is taken; the table shows the median."
)
@click.option("--topology", default="ultramonkey", show_default=True, help="What to boot.")
@click.option("--only", type=click.Choice(TABLES), multiple=True, help="One table; may be given more than once.")
def bench(rounds: int, topology: str, only: tuple[str, ...]) -> None:
    """Measure a lab beside as many idle containers, faults beside Docker's verbs, load beside wrk, and the checks."""
    console = Console(stderr=True)
    tables = only or TABLES
    if "checks" in tables:
        console.print("checks")
        Console().print(_checks_table(checks.checks_table()))
        console.print("judging")
        Console().print(judging.table())
    client, wanted = engine.connect(), load_topology(topology)
    images = image.ensure(client, console.print)
    if "load" in tables:
        console.print("load generators")
        Console().print(_load_table(load.load_table(client, images["web"])))
    if "lab" in tables:
        Console().print(_table(_figures(client, wanted, images["web"], rounds, console.print), len(wanted.machines)))
    if "faults" in tables:
        console.print("faults")
        Console().print(_faults_table(_faults(client, wanted, images["web"], console.print)))


def _figures(
    client: Any, wanted: Topology, image_name: str, rounds: int, say: Callable[[str], None]
) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {}
    for number in range(1, rounds + 1):
        say(f"round {number} of {rounds}")
        floor = _floor(client, image_name, len(wanted.machines) + 1)
        for name, value in {**floor, **_lab(client, wanted), **_parts(client, wanted)}.items():
            figures.setdefault(name, []).append(value)
    return figures


def _faults(client: Any, wanted: Topology, image_name: str, say: Callable[[str], None]) -> dict[str, list[float]]:
    try:
        booted = lifecycle.boot(client, wanted, NAME, lambda _: None)
        rows = faults.faults_table(booted, image_name, say)
        booted.close()
    finally:
        lifecycle.remove(client, NAME)
    return rows


def _checks_table(rows: dict[str, dict[int, float]]) -> Table:
    table = Table(title="operations a second that a check judges, by the length of its history", title_justify="left")
    table.add_column("check")
    sizes = list(next(iter(rows.values())))
    for size in sizes:
        table.add_column(f"{size:,}", justify="right")
    for name, rates in rows.items():
        table.add_row(name, *(f"{rates[size]:,.0f}" if size in rates else "-" for size in sizes))
    return table


def _faults_table(rows: dict[str, list[float]]) -> Table:
    table = Table(title="from inject to effect, in ms", title_justify="left")
    for column in ("fault", "times", "median", "p99", "aim (p99)"):
        table.add_column(column, justify="left" if column == "fault" else "right")
    for name, times_ms in rows.items():
        table.add_row(name, *faults.summary(times_ms), faults.AIMS.get(name, ""))
    return table


def _load_table(rows: dict[str, dict[str, float]]) -> Table:
    table = Table(title="load generators, one core each, against the same Apache", title_justify="left")
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    table.add_column("generator")
    for name in columns:
        table.add_column(name, justify="right")
    for name, row in rows.items():
        table.add_row(name, *(f"{row[column]:,.1f}" if column in row else "-" for column in columns))
    return table


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
        down_s, _ = _timed(lambda: lifecycle.remove(client, f"{NAME}-floor"))
    return {"floor up": up_s, "floor memory": memory_mib, "floor down": down_s}


def _lab(client: Any, wanted: Topology) -> dict[str, float]:
    """A lab: up, with the time of each part, memory, status, down."""
    began = time.perf_counter()
    parts: dict[str, float] = {}
    marks: list[tuple[str, float]] = []
    try:
        booted = lifecycle.boot(client, wanted, NAME, lambda text: marks.append((text, time.perf_counter())))
        up_s = time.perf_counter() - began
        ends = [at for _, at in marks[1:]] + [began + up_s]
        for (text, at), end in zip(marks, ends, strict=True):
            parts[f"up: {text}"] = end - at
        status_s, _ = _timed(booted.status)
        exec_s = statistics.median(_timed(lambda: booted.node("web-1").exec("true"))[0] for _ in range(20))
        load = _load(booted)
        memory_mib = sum(_memory_mib(container) for container in engine.containers(client, NAME))
        booted.close()
    finally:
        down_s, _ = _timed(lambda: lifecycle.remove(client, NAME))
    return {"up": up_s, **parts, "status": status_s, "exec": exec_s, **load, "memory": memory_mib, "down": down_s}


def _parts(client: Any, wanted: Topology) -> dict[str, float]:
    """How long after the beginning of `up` each part was seen healthy for the first time.

    A boot of its own: looking at all parts all the time makes it longer.
    """
    began, first = time.perf_counter(), dict[str, float]()

    try:
        booted = lifecycle.power_on(client, wanted, NAME, lambda _: None)

        def all_healthy() -> bool:
            status = booted.status()
            for part in status.parts:
                if part.healthy:
                    first.setdefault(f"healthy: {part.name}", time.perf_counter() - began)
            return status.healthy

        until(all_healthy, HEALTHY_S, "all parts to be healthy")
        booted.close()
    finally:
        lifecycle.remove(client, NAME)
    return dict(sorted(first.items(), key=lambda item: item[1]))


def _load(lab: DockerLab) -> dict[str, float]:
    """The site's mixed operations through both VIPs, at a rate that it should hold: how many it answered, and how."""
    client = lab.node("client")
    pace = f"MONKEYWRENCH_OPS={OPS} MONKEYWRENCH_RATE={LOAD_PER_S / LOAD_USERS}"
    users = f"--headless --users {LOAD_USERS} --spawn-rate {LOAD_USERS} --run-time {LOAD_S}s --exit-code-on-error 0"
    command = f"rm -f {OPS}; {pace} {LOCUST} -f {LOCUSTFILE} Player {users} --host http://{lab.cluster.site}"
    script = ("sh", "-c", f"{command} > {OPS}.log 2>&1; cat {OPS}")
    done = client.exec(*installed(client, NAME, program(LOCUSTFILE), *script), timeout_s=4 * LOAD_S)
    ops = [json.loads(line) for line in done.stdout.splitlines()]
    began_ns = min(op["t"] for op in ops) + LOAD_WARM_S * 10**9
    ended_ns = max(op["t"] for op in ops if op["type"] == "invoke")
    counted = [op for op in ops if op["type"] != "invoke" and began_ns <= op["t"] <= ended_ns]
    good = [op for op in counted if op["type"] == "ok"]
    vips = Counter(op["value"]["vip"] for op in good)
    return {
        "mixed ops a second": len(good) / ((ended_ns - began_ns) / 1e9),
        "mixed ops ill": float(len(counted) - len(good)),
        "mixed op median": statistics.median(op["value"]["ms"] for op in good) / 1000,
        "least share of a VIP": min(vips.values()) / len(good) if len(vips) > 1 else 0.0,
    }


def _memory_mib(container: Any) -> float:
    """What the kernel accounts to a container, its page cache left out, as ``docker stats`` does."""
    usage = container.stats(stream=False)["memory_stats"]
    cache = usage.get("stats", {}).get("total_inactive_file", usage.get("stats", {}).get("inactive_file", 0))
    return float(usage.get("usage", 0) - cache) / MIB


def _table(figures: dict[str, list[float]], nodes: int) -> Table:
    table = Table(title=f"{nodes} nodes and the switch; floor: as many idle containers", title_justify="left")
    for column in ("figure", "median", "least", "most", "aim", "times the floor"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    aims = {"up": "40 s", "down": "3 s", "memory": "3072 MiB", "mixed ops a second": LOAD_PER_S, "mixed ops ill": 0}
    for name, values in figures.items():
        unit = "MiB" if "memory" in name else "" if name in UNITLESS else "s"
        digits = 0 if unit == "MiB" else 2
        floor = figures.get(f"floor {name}")
        ratio = f"{statistics.median(values) / statistics.median(floor):.1f}" if floor else ""
        shown = [f"{figure:.{digits}f} {unit}" for figure in (statistics.median(values), min(values), max(values))]
        table.add_row(name, *shown, str(aims.get(name, "")), ratio)
    return table


if __name__ == "__main__":
    bench()
