"""Does every real server get its share of the connections?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from harness.algorithms.arrays import Ints, ints
from harness.algorithms.chi_square import evenness, needed, spread, visible
from harness.history import History
from harness.history.injections import Stretch, interval_at, quiet
from harness.history.ipvs_tables import Entry, tables
from harness.history.timeline import MS, moment, ms
from harness.verdict import Finding, Verdict, conclude, invalid, unknown

NAME = "balance"

TURNS = frozenset({"rr", "wrr"})
"""Schedulers that take turns: with equal weights, counts differ by one at most (ip_vs_rr.c, ip_vs_wrr.c)."""

LEAST = frozenset({"lc", "wlc", "sed", "nq"})
"""Schedulers that give a connection to whoever has the least to do (ip_vs_lc.c, ip_vs_wlc.c, ip_vs_sed.c)."""

INACTIVE = 256
"""An open connection weighs as much as so many that are ending (ip_vs_dest_conn_overhead of the kernel's ip_vs.h)."""


class BalanceSettings(BaseModel):
    """``[checks.balance]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connections: int = Field(default=100, ge=1, description="How many connections of one service it takes to tell")
    slack: int = Field(
        default=2,
        ge=0,
        description="With a scheduler that takes turns, by how many counts may differ beyond one: connections that "
        "came while a sample was read",
    )
    turns: int = Field(
        default=10,
        ge=1,
        description="With a scheduler of least connections, at how many samples a real server must have been the one "
        "with the least to do before it is held against the director that it got nothing",
    )
    passed_over_percent: float = Field(
        default=50, gt=0, le=100, description="The largest share of those turns in which it may have got nothing"
    )
    short_percent: float = Field(
        default=50,
        gt=0,
        le=100,
        description="Without tables: the shortage of one real server that the probes must be able to show",
    )
    alpha: float = Field(default=0.001, gt=0, lt=0.5, description="The chance of a false alarm of one such test")
    power: float = Field(default=0.9, gt=0.5, lt=1, description="The chance that it sees such a shortage")
    tolerated_percent: float = Field(
        default=10, ge=0, description="Unevenness as of one real server that is so much short is never held against it"
    )
    settle_ms: float = Field(default=5000, ge=0, description="How long after the undo of a fault nothing is judged")
    samples_ms: float = Field(default=3000, gt=0, description="The longest time between two samples of one window")
    block_ms: float = Field(default=2000, gt=0, description="Blocks of time, to see how much counts vary by themselves")


def check(history: History, settings: BalanceSettings) -> Verdict:
    """While all real servers have equal weights and nothing is injected, each gets its share of new connections.

    It counts connections and not requests, as the directors' tables tell them (``conns``), and asks what the scheduler
    promises. One that takes turns gives each as many. One of least connections gives the next connection to whoever has
    the least to do: so a real server that has strictly less to do than all others at a sample must get some of the
    connections until the next; who keeps connections open rightly gets fewer, so the counts themselves are no test.

    Without tables it counts which real server answered each probe, each a connection of its own. Whether these counts
    are uneven is a chi-square test, with the clumping of counts taken out and a floor for the size of the effect. Other
    clients' connections take turns, too: where there are any, uneven answers to probes are unknown.

    It cannot see an imbalance while something is injected or settles, nor one of requests over few connections. With
    persistence, or a scheduler that chooses by address, one client's connections say nothing: unknown.
    """
    cluster = history.cluster
    if cluster.persistence_s:
        return conclude(NAME, [unknown("The virtual services are persistent: one client stays with one server.")], "")
    if not cluster.scheduler:
        return conclude(NAME, [unknown("The history does not say which scheduler the cluster has.")], "")
    if cluster.scheduler not in TURNS | LEAST:
        return conclude(NAME, [unknown(f"The scheduler {cluster.scheduler} promises nobody an equal share.")], "")
    if len(cluster.web) < 2:
        return conclude(NAME, [unknown("There are not two real servers to share anything.")], "")
    findings = [] if history.complete else [unknown("The run was killed: what came after is not known.")]
    if not history.seen("table"):
        return _by_probes(history, settings, findings)
    services = _services(history, settings)
    findings += _told(services, settings, cluster.scheduler)
    held = f"Each of {len(cluster.web)} real servers got its share of {_total(services):,} connections"
    numbers = {"scheduler": cluster.scheduler, "services": [one.numbers() for one in services]}
    evidence = [index for one in services for index in one.bounds()]
    return conclude(NAME, findings, f"{held}, as {cluster.scheduler} gives them.", numbers, evidence)


# --- by the directors' tables


@dataclass
class Service:
    """What one director did for one VIP in all windows that are judged."""

    director: str
    vip: str
    nodes: Sequence[str]
    windows: list[Sequence[Sequence[Entry]]] = field(default_factory=list)
    """In each window the samples, in each sample the real servers."""

    def growth(self) -> list[Ints]:
        """How many connections each real server got in each window."""
        return [ints([last.conns - first.conns for first, last in zip(w[0], w[-1], strict=True)]) for w in self.windows]

    def counts(self) -> Ints:
        """The same of all windows together."""
        return sum(self.growth(), np.zeros(len(self.nodes), dtype=np.int64))

    def bounds(self) -> list[int]:
        """The indexes of the first and the last sample of each window that saw connections."""
        grown = zip(self.windows, self.growth(), strict=True)
        return [sample[0].op.index for window, got in grown if got.any() for sample in (window[0], window[-1])]

    def turns(self, least: str) -> list[tuple[int, int]]:
        """Each real server's turns and in how many it got nothing.

        Its turn is when at a sample it had clearly less to do than all others, and somebody got a connection by the
        next sample.
        """
        table = [[0, 0] for _ in self.nodes]
        for window in self.windows:
            for sample, after in pairwise(window):
                loads = [_load(entry, least) for entry in sample]
                place, margin = _least(loads)
                got = [late.conns - early.conns for early, late in zip(sample, after, strict=True)]
                if margin >= (2 if least in {"lc", "wlc"} else 1) and any(got):
                    table[place][0] += 1
                    table[place][1] += got[place] == 0
        return [(turns, missed) for turns, missed in table]

    def numbers(self) -> dict[str, Any]:
        """What was measured of it."""
        counts = [int(count) for count in self.counts()]
        return {
            "director": self.director,
            "vip": self.vip,
            "windows": len(self.windows),
            "ms": sum(ms(window[-1][0].time - window[0][0].time) for window in self.windows),
            "connections": sum(counts),
            **dict(zip(self.nodes, counts, strict=True)),
        }


def _services(history: History, settings: BalanceSettings) -> list[Service]:
    """Each director's service of each VIP, with its windows: equal weights, nothing injected, no gap."""
    found, cluster = tables(history), history.cluster
    calm = quiet(history, settings.settle_ms)
    services = []
    for director in found.samples:
        for vip in cluster.vips:
            rows = [found.rows[director, vip, node] for node in cluster.web]
            service = Service(director, vip, cluster.web)
            service.windows = [w for w in _windows(list(zip(*rows, strict=True)), calm, settings) if len(w) > 1]
            services.append(service)
    return services


def _windows(
    samples: Sequence[Sequence[Entry]], calm: Sequence[Stretch], settings: BalanceSettings
) -> Iterator[list[Sequence[Entry]]]:
    window: list[Sequence[Entry]] = []
    stretch: Stretch | None = None
    for sample in samples:
        now = interval_at(calm, sample[0].time)
        weights = {entry.weight for entry in sample}
        equal = len(weights) == 1 and bool(sample[0].weight) and all(entry.conns >= 0 for entry in sample)
        goes_on = bool(window) and now == stretch and _follows(window[-1], sample, settings)
        if window and not (goes_on and equal):
            yield window
            window = []
        if now is not None and equal:
            window.append(sample)
        stretch = now
    yield window


def _follows(before: Sequence[Entry], after: Sequence[Entry], settings: BalanceSettings) -> bool:
    soon = after[0].time - before[0].time <= settings.samples_ms * MS
    return soon and all(late.conns >= early.conns for early, late in zip(before, after, strict=True))


def _load(entry: Entry, scheduler: str) -> int:
    """What the scheduler compares, with equal weights."""
    return entry.active if scheduler in {"sed", "nq"} else INACTIVE * entry.active + entry.inactive


def _least(loads: Sequence[int]) -> tuple[int, int]:
    """The place of the least, and by how much the next one is more."""
    order = sorted(range(len(loads)), key=lambda place: loads[place])
    return order[0], loads[order[1]] - loads[order[0]]


def _told(services: Sequence[Service], settings: BalanceSettings, scheduler: str) -> Iterator[Finding]:
    enough = [one for one in services if int(one.counts().sum()) >= settings.connections]
    if not enough:
        most = max((int(one.counts().sum()) for one in services), default=0)
        yield unknown(
            f"No service got more than {most:,} connections while nothing was injected and all weights were equal; it "
            f"takes {settings.connections:,} to tell."
        )
    for one in services:
        yield from _uneven_turns(one, settings) if scheduler in TURNS else _passed_over(one, settings, scheduler)


def _uneven_turns(service: Service, settings: BalanceSettings) -> Iterator[Finding]:
    """With a scheduler that takes turns, counts of one window differ by one."""
    for window, got in zip(service.windows, service.growth(), strict=True):
        counts = [int(count) for count in got]
        if spread(counts) > 1 + settings.slack:
            low, high = (service.nodes[counts.index(pick(counts))] for pick in (min, max))
            yield invalid(
                f"{service.director} gave {low} {min(counts):,} connections for {service.vip} and {high} "
                f"{max(counts):,} from {moment(window[0][0].time)} to {moment(window[-1][0].time)}, and should take "
                "turns.",
                window[0][0].op.index,
                window[-1][0].op.index,
            )


def _passed_over(service: Service, settings: BalanceSettings, scheduler: str) -> Iterator[Finding]:
    """With a scheduler of least connections, who has the least to do is next."""
    counts = service.counts()
    total, turns = int(counts.sum()), service.turns(scheduler)
    for node, count, (had, missed) in zip(service.nodes, counts, turns, strict=True):
        percent = 100 * missed / max(1, had)
        if had >= settings.turns and percent > settings.passed_over_percent:
            yield invalid(
                f"{service.director} passed {node} over for {service.vip}: at {had:,} samples it had the least to do, "
                f"and in {missed:,} of the times until the next it got no connection and others did.",
                *service.bounds(),
            )
        elif total >= settings.connections and not count and had < settings.turns:
            yield unknown(
                f"{node} got none of {total:,} connections for {service.vip} from {service.director}, and had the "
                f"least to do at {had:,} samples only; it takes {settings.turns:,} to tell.",
                *service.bounds(),
            )


def _total(services: Sequence[Service]) -> int:
    return sum(int(one.counts().sum()) for one in services)


# --- by the answers to probes


def _by_probes(history: History, settings: BalanceSettings, findings: list[Finding]) -> Verdict:
    cluster, columns = history.cluster, len(history.cluster.web)
    others = any(op.process.startswith("user:") for op in history)
    rows, evidence = [], []
    for vip, (blocks, first, last) in _answers(history, settings).items():
        even = evenness(blocks)
        counts = dict(zip(cluster.web, map(int, blocks.sum(axis=0)), strict=True))
        takes = round(even.clumping * needed(columns, settings.short_percent / 100, settings.alpha, settings.power))
        sees = 100 * visible(columns, even.total / even.clumping, settings.alpha, settings.power)
        row = {"vip": vip, "probes": even.total, "needed": takes, "visible_percent": round(sees, 1)}
        rows.append(row | {"effect": round(even.effect, 4), "p": even.p, **counts})
        floor = settings.tolerated_percent / 100 / (columns - 1) ** 0.5
        uneven = even.p < settings.alpha and even.effect >= floor
        evidence += [first, last]
        if uneven:
            told = ", ".join(f"{node} {count:,}" for node, count in counts.items())
            sentence = f"The probes of {vip} were not answered evenly: {told} (p = {even.p:.1e})."
            if others:
                findings.append(
                    unknown(f"{sentence} But others' connections take turns, too, and no table was seen.", first, last)
                )
            else:
                findings.append(invalid(sentence, first, last))
        elif even.total < takes:
            findings.append(
                unknown(
                    f"{even.total:,} probes of {vip} were answered while nothing was injected, and it takes {takes:,} "
                    f"to see one real server {settings.short_percent:g}% short.",
                    first,
                    last,
                )
            )
    if not rows:
        findings.append(unknown("Neither a director's table nor a probe says who got which connection."))
    held = f"The probes were answered evenly by {columns} real servers; no table was seen."
    return conclude(NAME, findings, held, {"scheduler": cluster.scheduler, "probes": rows}, evidence)


def _answers(history: History, settings: BalanceSettings) -> Mapping[str, tuple[Ints, int, int]]:
    """Each VIP -> how many probes each real server answered in each block of time, and the first and last op."""
    calm, place = quiet(history, settings.settle_ms), {node: n for n, node in enumerate(history.cluster.web)}
    told: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for pair in history.pairs("http"):
        done = pair.completion
        if pair.ok and done is not None and done.get("node") in place:
            stretch = interval_at(calm, pair.invoke.time)
            if stretch is not None and done.time <= stretch[1]:
                block = round(pair.invoke.time // (settings.block_ms * MS))
                told[str(pair.invoke.get("vip"))].append((block, place[done["node"]], done.index))
    found = {}
    for vip, some in told.items():
        numbers = {block: n for n, block in enumerate(dict.fromkeys(block for block, _, _ in some))}
        blocks = np.zeros((len(numbers), len(place)), dtype=np.int64)
        for block, node, _ in some:
            blocks[numbers[block], node] += 1
        found[vip] = (blocks, some[0][2], some[-1][2])
    return found
