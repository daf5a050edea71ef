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
from harness.algorithms.chi_square import Evenness, evenness, needed, spread, visible
from harness.history import History
from harness.history.injections import quiet
from harness.history.intervals import Interval, Intervals
from harness.history.ipvs_tables import Entry, tables
from harness.history.timeline import MS, moment, ms
from harness.verdict import Finding, Verdict, conclude, invalid, not_tried, unknown

NAME = "balance"

TURNS = frozenset({"rr", "wrr"})
"""Schedulers that take turns: with equal weights, counts differ by one at most (ip_vs_rr.c, ip_vs_wrr.c)."""

LEAST = frozenset({"lc", "wlc", "sed", "nq"})
"""Schedulers that give a connection to the least busy real server (ip_vs_lc.c, ip_vs_wlc.c, ip_vs_sed.c)."""

INACTIVE = 256
"""An open connection counts as this many inactive ones (ip_vs_dest_conn_overhead in the kernel's ip_vs.h)."""


class BalanceSettings(BaseModel):
    """``[checks.balance]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connections: int = Field(default=100, ge=1, description="Minimum number of connections of one service")
    slack: int = Field(
        default=2,
        ge=0,
        description="With a scheduler that takes turns: how far counts may differ beyond 1, for connections that came "
        "while a sample was read",
    )
    turns: int = Field(
        default=10,
        ge=1,
        description="With a scheduler of least connections: minimum number of samples at which a real server was the "
        "least busy one before its director is blamed for passing it over",
    )
    passed_over_percent: float = Field(
        default=50, gt=0, le=100, description="Allowed share of those samples after which it got no connection"
    )
    short_percent: float = Field(
        default=50,
        gt=0,
        le=100,
        description="Without tables: shortage of one real server that the probes must be able to show",
    )
    share: int = Field(
        default=100,
        ge=1,
        description="With a scheduler of least connections: minimum number of connections for each real server from "
        "which on shares are compared; fewer differ on a sound cluster, too",
    )
    share_percent: float = Field(
        default=25,
        gt=0,
        le=100,
        description="Lowest share of a real server, compared with the others' average; 37% were measured on a sound "
        "cluster in windows of 900 connections",
    )
    unequal_percent: float = Field(
        default=10, ge=0, le=100, description="Highest share of the samples in which weights may differ"
    )
    alpha: float = Field(default=0.001, gt=0, lt=0.5, description="Probability of a false alarm of one such test")
    power: float = Field(default=0.9, gt=0.5, lt=1, description="Probability that it detects such a shortage")
    tolerated_percent: float = Field(
        default=10, ge=0, description="Unevenness that is ignored, as the shortage of one real server"
    )
    settle_ms: float = Field(default=5000, ge=0, description="Grace period after the undo of a fault")
    samples_ms: float = Field(default=3000, gt=0, description="Longest time between 2 samples of one window")
    block_ms: float = Field(
        default=2000, gt=0, description="Length of the blocks of time that show how much counts vary on their own"
    )


def check(history: History, settings: BalanceSettings) -> Verdict:
    """While all real servers have equal weights and nothing is injected, each gets its share of new connections.

    It counts connections and not requests, from the directors' tables (``conns``), and compares them with the promise
    of the scheduler. One that takes turns gives each real server the same number. One of least connections gives the
    next connection to the least busy one: so a real server that is strictly less busy than all others at a sample must
    get some of the connections until the next sample. One that keeps connections open rightly gets fewer; one that was
    not busier than the others on average and still got less than a quarter of their connections was passed over, and
    if it was busier that is unknown. Unequal weights promise no equal shares: unknown.

    Without tables it counts which real server answered each probe; each probe is a connection of its own. A chi-square
    test tells whether these counts are uneven, with the clumping of counts taken out and a floor for the size of the
    effect. Other clients' connections take turns, too: with any, uneven answers to probes are unknown.

    It cannot see an imbalance while a fault is active or settling, nor one of requests over few connections. With
    persistence, or a scheduler that chooses by address, one client's connections show nothing: unknown.
    """
    cluster = history.cluster
    if cluster.persistence_s:
        return conclude(
            NAME, [not_tried("The virtual services are persistent: one client stays with one real server.")], ""
        )
    if not cluster.scheduler:
        return conclude(NAME, [unknown("The history does not say which scheduler the cluster has.")], "")
    if cluster.scheduler not in TURNS | LEAST:
        return conclude(NAME, [not_tried(f"The scheduler {cluster.scheduler} does not promise equal shares.")], "")
    if len(cluster.web) < 2:
        return conclude(NAME, [not_tried("The cluster has fewer than 2 real servers.")], "")
    if not history.seen("table"):
        return _by_probes(history, settings)
    services = _services(history, settings)
    findings = list(_judged(services, settings, cluster.scheduler))
    held = f"Each of the {len(cluster.web)} real servers got its share of {_total(services):,} connections"
    numbers = {"scheduler": cluster.scheduler, "services": [service.numbers() for service in services]}
    evidence = [index for service in services for index in service.bounds()]
    return conclude(NAME, findings, f"{held} (scheduler {cluster.scheduler}).", numbers, evidence)


# --- by the directors' tables


@dataclass
class Service:
    """The samples of one director's table for one VIP, in the windows that are judged."""

    director: str
    vip: str
    nodes: Sequence[str]
    windows: list[Sequence[Sequence[Entry]]] = field(default_factory=list)
    """Each window has samples, and each sample has the real servers."""
    calm: int = 0
    """How many samples there are while nothing is injected."""
    unequal: list[Sequence[Entry]] = field(default_factory=list)
    """Those with unequal weights."""

    def weights(self) -> str:
        """The weights of the first such sample: ``web-1 1, web-2 7``."""
        sample = self.unequal[0]
        return ", ".join(f"{node} {entry.weight or 0}" for node, entry in zip(self.nodes, sample, strict=True))

    def loads(self, least: str) -> list[float]:
        """How busy each real server was on average, as the scheduler sees it."""
        samples = [[_load(entry, least) for entry in sample] for window in self.windows for sample in window]
        return [sum(column) / len(samples) for column in zip(*samples, strict=True)]

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
        """How many turns each real server had, and after how many of them it got no connection.

        It has a turn when it was clearly less busy than all others at a sample, and any of them got a connection until
        the next sample.
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
            samples = list(zip(*rows, strict=True))
            service.windows = [w for w in _windows(samples, calm, settings) if len(w) > 1]
            quiet_samples = [sample for sample in samples if sample[0].time in calm]
            service.calm = len(quiet_samples)
            service.unequal = [each for each in quiet_samples if len({entry.weight or 0 for entry in each}) > 1]
            services.append(service)
    return services


def _windows(
    samples: Sequence[Sequence[Entry]], calm: Intervals, settings: BalanceSettings
) -> Iterator[list[Sequence[Entry]]]:
    window: list[Sequence[Entry]] = []
    stretch: Interval | None = None
    for sample in samples:
        now = calm.at(sample[0].time)
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
    """The place of the smallest load, and the distance to the next one."""
    order = sorted(range(len(loads)), key=lambda place: loads[place])
    return order[0], loads[order[1]] - loads[order[0]]


def _judged(services: Sequence[Service], settings: BalanceSettings, scheduler: str) -> Iterator[Finding]:
    for service in services:
        if 100 * len(service.unequal) > settings.unequal_percent * service.calm:
            first, last = service.unequal[0][0].op, service.unequal[-1][0].op
            yield unknown(
                f"The weights of {service.vip} on {service.director} were unequal at {moment(first.time)} "
                f"({service.weights()}) while nothing was injected: equal shares were not promised.",
                first.index,
                last.index,
            )
    enough = [service for service in services if int(service.counts().sum()) >= settings.connections]
    if not enough and not any(service.unequal for service in services):
        most = max((int(service.counts().sum()) for service in services), default=0)
        yield unknown(
            f"No service got more than {most:,} connections while nothing was injected and all weights were equal; at "
            f"least {settings.connections:,} are needed."
        )
    for service in services:
        yield from (
            _uneven_turns(service, settings) if scheduler in TURNS else _passed_over(service, settings, scheduler)
        )


def _uneven_turns(service: Service, settings: BalanceSettings) -> Iterator[Finding]:
    """With a scheduler that takes turns, counts of one window differ by one."""
    for window, got in zip(service.windows, service.growth(), strict=True):
        counts = [int(count) for count in got]
        if spread(counts) > 1 + settings.slack:
            low, high = (service.nodes[counts.index(pick(counts))] for pick in (min, max))
            yield invalid(
                f"{service.director} gave {low} {min(counts):,} connections for {service.vip} and {high} "
                f"{max(counts):,} from {moment(window[0][0].time)} to {moment(window[-1][0].time)}, although the "
                "scheduler takes turns.",
                window[0][0].op.index,
                window[-1][0].op.index,
            )


def _passed_over(service: Service, settings: BalanceSettings, scheduler: str) -> Iterator[Finding]:
    """With a scheduler of least connections, the least busy real server is next."""
    counts = service.counts()
    total, turns = int(counts.sum()), service.turns(scheduler)
    yield from _short(service, settings, scheduler)
    for node, count, (had, missed) in zip(service.nodes, counts, turns, strict=True):
        percent = 100 * missed / max(1, had)
        if had >= settings.turns and percent > settings.passed_over_percent:
            yield invalid(
                f"{service.director} passed {node} over for {service.vip}: it was the least busy at {had:,} samples, "
                f"and after {missed:,} of them others got connections and it got none.",
                *service.bounds(),
            )
        elif total >= settings.connections and not count and had < settings.turns:
            yield unknown(
                f"{node} got none of {total:,} connections for {service.vip} from {service.director}, but was the "
                f"least busy at only {had:,} samples; at least {settings.turns:,} are needed.",
                *service.bounds(),
            )


def _short(service: Service, settings: BalanceSettings, scheduler: str) -> Iterator[Finding]:
    """A real server with far less than its share, whether or not it was busier than the others."""
    counts = [int(count) for count in service.counts()]
    total = sum(counts)
    if total < settings.share * len(counts):
        return
    loads = service.loads(scheduler)
    for place, (node, count) in enumerate(zip(service.nodes, counts, strict=True)):
        share = (total - count) / (len(counts) - 1)
        others = (sum(loads) - loads[place]) / (len(loads) - 1)
        one = 1 if scheduler in {"sed", "nq"} else INACTIVE
        if 100 * count >= settings.share_percent * share:
            continue
        what = (
            f"{service.director} gave {node} {count:,} of {total:,} connections for {service.vip}, and the others "
            f"{share:,.0f} each"
        )
        if 2 * (loads[place] - others) < one:
            yield invalid(f"{what}, although {node} was not busier.", *service.bounds())
        else:
            busier = f"{loads[place] / one:,.1f} open connections on average, and the others {others / one:,.1f}"
            yield unknown(f"{what}; {node} had {busier}.", *service.bounds())


def _total(services: Sequence[Service]) -> int:
    return sum(int(service.counts().sum()) for service in services)


# --- by the answers to probes


def _by_probes(history: History, settings: BalanceSettings) -> Verdict:
    cluster, columns = history.cluster, len(history.cluster.web)
    others = any(op.process.startswith("user:") for op in history)
    rows, evidence, findings = [], list[int](), list[Finding]()
    for vip, (blocks, first, last) in _answers(history, settings).items():
        even = evenness(blocks)
        counts = dict(zip(cluster.web, map(int, blocks.sum(axis=0)), strict=True))
        takes = round(even.clumping * needed(columns, settings.short_percent / 100, settings.alpha, settings.power))
        sees = 100 * visible(columns, even.total / even.clumping, settings.alpha, settings.power)
        row = {"vip": vip, "probes": even.total, "needed": takes, "visible_percent": round(sees, 1)}
        rows.append(row | {"effect": round(even.effect, 4), "p": even.p, **counts})
        evidence += [first, last]
        if _is_uneven(even, columns, settings):
            findings.append(_uneven(vip, counts, even, others, (first, last)))
        elif even.total < takes:
            findings.append(_too_few(vip, even.total, takes, settings, (first, last)))
    if not rows:
        findings.append(unknown("Neither a director's table nor a probe shows which real server got which connection."))
    held = f"The {columns} real servers answered the probes evenly; there are no samples of tables."
    return conclude(NAME, findings, held, {"scheduler": cluster.scheduler, "probes": rows}, evidence)


def _is_uneven(even: Evenness, columns: int, settings: BalanceSettings) -> bool:
    return even.p < settings.alpha and even.effect >= settings.tolerated_percent / 100 / (columns - 1) ** 0.5


def _uneven(vip: str, counts: Mapping[str, int], even: Evenness, others: bool, ops: tuple[int, int]) -> Finding:
    answers = ", ".join(f"{node} {count:,}" for node, count in counts.items())
    sentence = f"The probes of {vip} were not answered evenly: {answers} (p = {even.p:.1e})."
    if others:
        return unknown(f"{sentence} But others' connections take turns, too, and no table was sampled.", *ops)
    return invalid(sentence, *ops)


def _too_few(vip: str, total: int, takes: int, settings: BalanceSettings, ops: tuple[int, int]) -> Finding:
    return unknown(
        f"{total:,} probes of {vip} were answered while nothing was injected; {takes:,} are needed to show that one "
        f"real server is {settings.short_percent:g}% short.",
        *ops,
    )


def _answers(history: History, settings: BalanceSettings) -> Mapping[str, tuple[Ints, int, int]]:
    """Each VIP -> how many probes each real server answered in each block of time, and the first and last op."""
    calm, place = quiet(history, settings.settle_ms), {node: n for n, node in enumerate(history.cluster.web)}
    answers: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for pair in history.pairs("http"):
        done = pair.completion
        if pair.ok and done is not None and done.get("node") in place:
            stretch = calm.at(pair.invoke.time)
            if stretch is not None and done.time <= stretch[1]:
                block = round(pair.invoke.time // (settings.block_ms * MS))
                answers[str(pair.invoke.get("vip"))].append((block, place[done["node"]], done.index))
    found = {}
    for vip, seen in answers.items():
        numbers = {block: n for n, block in enumerate(dict.fromkeys(block for block, _, _ in seen))}
        blocks = np.zeros((len(numbers), len(place)), dtype=np.int64)
        for block, node, _ in seen:
            blocks[numbers[block], node] += 1
        found[vip] = (blocks, seen[0][2], seen[-1][2])
    return found
