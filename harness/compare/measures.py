"""A run in a few numbers: throughput, errors and latency of each endpoint. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from harness.compare.course import Course, course
from harness.history import History, HistoryError, Pair, promises
from harness.history.capacity import rising_knee
from harness.history.client_ops import gaps
from harness.history.latency import latency_ms, load, quantile, refused
from harness.history.timeline import MS

QUANTILES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99}
BEYOND = {"p50_ms": 10, "p90_ms": 30, "p99_ms": 30}
"""The minimum number of answers beyond a quantile; with fewer, chance decides it and it differs from run to run.

For latencies with a long tail, its relative error is about 1 / sqrt(answers beyond) (David and Nagaraja 2003, 10.2):
18 % with 30 answers, less than the tolerance. The median, which has most answers near it, has a far smaller error.
"""
KNEE = "knee_per_s"
STATISTICS = (*QUANTILES, "error_share", "throughput_per_s", KNEE)
ALL = "all"
"""The endpoint of all requests."""


@dataclass(frozen=True)
class Measures:
    """The numbers of one run.

    ``topology`` describes the nodes of the cluster and ``facts`` its settings: runs of different topologies cannot be
    compared, runs with different settings can. ``endpoints`` has the statistics of each endpoint: ``p50_ms``,
    ``p90_ms`` and ``p99_ms`` (latency of answers), ``error_share`` (0 to 1), ``throughput_per_s`` (answers), and for
    ``all`` the ``knee_per_s`` of a rising load (see the check ``knee``). A statistic without enough data is missing.
    ``requests`` counts all requests, answered or not. ``unusable`` is empty, or a sentence why the run cannot be used.
    ``shares`` counts answers by real server (``node``) and by virtual IP (``vip``). ``cpu`` is the CPU use of each node
    during the load: 1 is a whole CPU. ``course`` is drawn on the page.
    """

    name: str
    scenario: str
    topology: Mapping[str, Any]
    facts: Mapping[str, Any]
    endpoints: Mapping[str, Mapping[str, float]]
    requests: Mapping[str, int]
    unusable: str = ""
    shares: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    cpu: Mapping[str, float] = field(default_factory=dict)
    course: Course = field(default_factory=Course)


MEASURED = frozenset({"macs", "resource_start_ms", "pace_ms", "resolver", "configured"})
"""Facts that depend on the lab or the machine, and may differ between two runs of one cluster. Of what the directors
are configured with, only that counts which the topology does not promise."""
MADE_OF = frozenset({"site", "vips", "directors", "web", "nodes"})


def measure(name: str, history: History) -> Measures:
    """The numbers of the run with this name. A run that cannot be used has none, and a reason instead."""
    try:
        facts, scenario, groups = _facts(history), history.scenario, _endpoints(history)
    except HistoryError as error:
        return Measures(name, "", {}, {}, {}, {}, f"{name} cannot be used: {error}.")
    comparable_facts = {key: facts.pop(key) for key in sorted(MADE_OF & facts.keys())}
    unusable = _unusable(name, history, groups)
    if unusable:
        return Measures(name, scenario, comparable_facts, facts, {}, {}, unusable)
    begin_ns, end_ns = _span_ns(groups[ALL])
    seconds = (end_ns - begin_ns) / 1e9
    endpoints = {endpoint: _statistics(pairs, seconds) for endpoint, pairs in groups.items()}
    knee_per_s = rising_knee(history)
    if knee_per_s is not None:
        for endpoint in _whole(groups):
            endpoints[endpoint][KNEE] = knee_per_s
    return Measures(
        name,
        scenario,
        comparable_facts,
        facts,
        endpoints,
        requests={endpoint: len(pairs) for endpoint, pairs in groups.items()},
        shares=_shares(groups[ALL]),
        cpu=_cpu(history, groups[ALL]),
        course=course((pair for pair in groups[ALL] if not refused(pair)), begin_ns),
    )


def _whole(endpoints: Iterable[str]) -> list[str]:
    """The endpoints with all requests: ``all``, and the only other one if there is just one."""
    others = [endpoint for endpoint in endpoints if endpoint != ALL]
    return [ALL, *others] if len(others) == 1 else [ALL]


def _shares(pairs: Iterable[Pair]) -> dict[str, dict[str, int]]:
    answers = [pair.completion for pair in pairs if pair.ok and pair.completion is not None]
    return {
        by: dict(sorted(Counter(str(op.get(by)) for op in answers if op.get(by)).items())) for by in ("node", "vip")
    }


def _cpu(history: History, pairs: Iterable[Pair]) -> dict[str, float]:
    """Each node's CPU use from the first request to the last answer; nodes with fewer than 2 samples are left out."""
    begin_ns, end_ns = _span_ns(pairs)
    samples: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for op in history.seen("cpu"):
        if begin_ns <= op.time <= end_ns and isinstance(op.get("used_ms"), int | float):
            samples[str(op.get("node"))].append((op.time, op["used_ms"] * MS))
    ends = {node: (min(each), max(each)) for node, each in sorted(samples.items())}
    return {node: (last[1] - first[1]) / (last[0] - first[0]) for node, (first, last) in ends.items() if first < last}


def _facts(history: History) -> dict[str, Any]:
    cluster = history.start["cluster"]
    if not isinstance(cluster, dict):
        raise HistoryError(f"op {history.start.index} (start): its cluster cannot be read")
    macs = cluster.get("macs")
    nodes = {"nodes": sorted(map(str, macs.values()))} if isinstance(macs, dict) else {}
    own = {
        f"{name} of {' and '.join(directors)}": has
        for name, directors, has, _ in promises.disagreements(history.cluster)
    }
    return {key: value for key, value in sorted({**cluster, **nodes, **own}.items()) if key not in MEASURED}


def _unusable(name: str, history: History, groups: Mapping[str, Any]) -> str:
    """Why a run cannot be used: what remains of an interrupted load is not a fair sample."""
    if not history.complete:
        return f"{name} cannot be used: the run was killed."
    if gaps(history):
        return f"{name} cannot be used: the record of its load has gaps."
    if not groups:
        return f"{name} cannot be used: its load sent no requests."
    return ""


def _endpoints(history: History) -> dict[str, list[Pair]]:
    """The requests of each endpoint, and of ``all``; empty if there are none.

    Requests in progress at the end of the load, and those of its warm-up, do not count.
    """
    asked = load(history)
    began = min((pair.invoke.time for pairs in asked.values() for pair in pairs), default=0)
    warm = began + _warm_up_ns(history)
    groups: dict[str, list[Pair]] = defaultdict(list)
    for f, pairs in asked.items():
        for pair in pairs:
            finished = pair.completion is not None and pair.completion.error != "stopped"
            if finished and pair.invoke.time >= warm:
                groups[_endpoint(f, pair)].append(pair)
    named = dict(sorted(groups.items()))
    return {ALL: [pair for pairs in named.values() for pair in pairs], **named} if named else {}


def _warm_up_ns(history: History) -> int:
    warm_up_ms = history.start.get("warm_up_ms", 0)
    if isinstance(warm_up_ms, bool) or not isinstance(warm_up_ms, int | float) or warm_up_ms < 0:
        raise HistoryError(f"op {history.start.index} (start): its warm_up_ms is {warm_up_ms!r}, not a duration")
    return round(warm_up_ms * MS)


def _endpoint(f: str, pair: Pair) -> str:
    """The endpoint of a request: its kind of op, and for a page its path without the query."""
    url = pair.invoke.get("url")
    return f"{f} {urlsplit(url).path or '/'}" if f == "get" and isinstance(url, str) else f


def _span_ns(pairs: Iterable[Pair]) -> tuple[int, int]:
    """From the first request of the load to its last answer."""
    ends = [(pair.invoke.time, pair.completion.time) for pair in pairs if pair.completion is not None]
    return min(begin for begin, _ in ends), max(end for _, end in ends)


def _statistics(pairs: list[Pair], seconds: float) -> dict[str, float]:
    times = [ms for pair in pairs if pair.ok and (ms := latency_ms(pair)) is not None]
    failed = sum(not pair.ok and not refused(pair) for pair in pairs)
    return {
        **dict(_quantiles(times)),
        "error_share": failed / len(pairs),
        **({"throughput_per_s": len(times) / seconds} if seconds > 0 else {}),
    }


def _quantiles(times: list[float]) -> Iterator[tuple[str, float]]:
    """The quantiles with enough answers beyond them."""
    for name, share in QUANTILES.items():
        if round(len(times) * (1 - share), 6) >= BEYOND[name]:
            yield name, quantile(times, share)
