"""One run in a few numbers: for each endpoint, how much was served and failed, and how long answers took. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from harness.checks.errors import REFUSALS
from harness.checks.knee import rising
from harness.compare.course import Course, course
from harness.history import History, HistoryError, Pair
from harness.history.client_ops import gaps
from harness.history.latency import latency_ms, load, quantile
from harness.history.timeline import MS

QUANTILES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99}
BEYOND = {"p50_ms": 10, "p90_ms": 30, "p99_ms": 30}
"""So many answers must be beyond a quantile: with fewer it is the luck of a few, and differs from run to run by it.

Of times with a long tail that luck is about 1 / sqrt(answers beyond) of the time (David and Nagaraja 2003, 10.2):
with 30 a fifth, less than what matters. In the middle, where most answers are, it is far less than that.
"""
KNEE = "knee_per_s"
STATISTICS = (*QUANTILES, "error_share", "throughput_per_s", KNEE)
ALL = "all"
"""The endpoint that has all requests, whatever they asked for."""


@dataclass(frozen=True)
class Measures:
    """The numbers of one run.

    ``topology`` is what a cluster is made of and ``facts`` how it is set up: runs of two topologies are not comparable,
    those of two set-ups are. ``endpoints`` has statistics by endpoint: ``p50_ms``, ``p90_ms`` and ``p99_ms`` (of
    answers), ``error_share`` (0 to 1), ``throughput_per_s`` (answers), and ``knee_per_s`` of ``all`` where the load
    becomes more and more (see the check ``knee``); one that a run cannot tell is missing. ``requests`` counts them,
    answered or not. ``spoilt`` says in a sentence why the run cannot be used, if it cannot. ``shares`` counts answers
    by the real server (``node``) and by the virtual IP (``vip``) that they came from. ``cpu`` is how much of a
    processor each node took meanwhile: 1 is a whole one. ``course`` is what a page draws.
    """

    name: str
    scenario: str
    topology: Mapping[str, Any]
    facts: Mapping[str, Any]
    endpoints: Mapping[str, Mapping[str, float]]
    requests: Mapping[str, int]
    spoilt: str = ""
    shares: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    cpu: Mapping[str, float] = field(default_factory=dict)
    course: Course = field(default_factory=Course)


MEASURED = frozenset({"macs", "resource_start_ms", "resolver"})
"""Facts of a cluster that are the lab's or the machine's, and may differ from one run of a cluster to the next."""
MADE_OF = frozenset({"site", "vips", "directors", "web", "nodes"})


def measure(name: str, history: History) -> Measures:
    """The numbers of a run that is called so. A run that cannot be used says why, and has none."""
    try:
        facts, scenario, groups = _facts(history), history.scenario, _endpoints(history)
    except HistoryError as error:
        return Measures(name, "", {}, {}, {}, {}, f"{name} cannot be used: {error}.")
    comparable_facts = {key: facts.pop(key) for key in sorted(MADE_OF & facts.keys())}
    spoilt = _spoilt(name, history, groups)
    if spoilt:
        return Measures(name, scenario, comparable_facts, facts, {}, {}, spoilt)
    begin_ns, end_ns = _span_ns(groups[ALL])
    seconds = (end_ns - begin_ns) / 1e9
    endpoints = {endpoint: _statistics(pairs, seconds) for endpoint, pairs in groups.items()}
    knee_per_s = rising(history)
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
        course=course((pair for pair in groups[ALL] if not _refused(pair)), begin_ns),
    )


def _whole(endpoints: Iterable[str]) -> list[str]:
    """Those that have all requests: ``all``, and where there is only one besides, that one, too."""
    others = [endpoint for endpoint in endpoints if endpoint != ALL]
    return [ALL, *others] if len(others) == 1 else [ALL]


def _shares(pairs: Iterable[Pair]) -> dict[str, dict[str, int]]:
    told = [pair.completion for pair in pairs if pair.ok and pair.completion is not None]
    return {of: dict(sorted(Counter(str(op.get(of)) for op in told if op.get(of)).items())) for of in ("node", "vip")}


def _cpu(history: History, pairs: Iterable[Pair]) -> dict[str, float]:
    """By the samples between the first request and the last answer; there are two or more, or the node is left out."""
    begin_ns, end_ns = _span_ns(pairs)
    samples: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for op in history.seen("cpu"):
        if begin_ns <= op.time <= end_ns and isinstance(op.get("used_ms"), int | float):
            samples[str(op.get("node"))].append((op.time, op["used_ms"] * MS))
    ends = {node: (min(some), max(some)) for node, some in sorted(samples.items())}
    return {node: (last[1] - first[1]) / (last[0] - first[0]) for node, (first, last) in ends.items() if first < last}


def _facts(history: History) -> dict[str, Any]:
    cluster = history.start["cluster"]
    if not isinstance(cluster, dict):
        raise HistoryError(f"op {history.start.index} (start): its cluster cannot be read")
    macs = cluster.get("macs")
    nodes = {"nodes": sorted(map(str, macs.values()))} if isinstance(macs, dict) else {}
    return {key: value for key, value in sorted({**cluster, **nodes}.items()) if key not in MEASURED}


def _spoilt(name: str, history: History, groups: Mapping[str, Any]) -> str:
    """Why a run cannot be used: what is left of a load that broke off is a sample of its better part."""
    if not history.complete:
        return f"{name} cannot be used: the run was killed."
    if gaps(history):
        return f"{name} cannot be used: the record of its load has gaps."
    if not groups:
        return f"{name} cannot be used: its load asked for nothing."
    return ""


def _endpoints(history: History) -> dict[str, list[Pair]]:
    """The requests of each endpoint, and of all if there are any.

    Without those that the end of the load broke off, and those of its warm-up.
    """
    asked = load(history)
    began = min((pair.invoke.time for pairs in asked.values() for pair in pairs), default=0)
    warm = began + _warm_up_ns(history)
    groups: dict[str, list[Pair]] = defaultdict(list)
    for f, pairs in asked.items():
        for pair in pairs:
            told = pair.completion is not None and pair.completion.error != "stopped"
            if told and pair.invoke.time >= warm:
                groups[_endpoint(f, pair)].append(pair)
    named = dict(sorted(groups.items()))
    return {ALL: [pair for pairs in named.values() for pair in pairs], **named} if named else {}


def _warm_up_ns(history: History) -> int:
    told = history.start.get("warm_up_ms", 0)
    if isinstance(told, bool) or not isinstance(told, int | float) or told < 0:
        raise HistoryError(f"op {history.start.index} (start): its warm_up_ms is {told!r}")
    return round(told * MS)


def _endpoint(f: str, pair: Pair) -> str:
    """What was asked for: a kind of op, and for pages which one, without its query."""
    url = pair.invoke.get("url")
    return f"{f} {urlsplit(url).path or '/'}" if f == "get" and isinstance(url, str) else f


def _span_ns(pairs: Iterable[Pair]) -> tuple[int, int]:
    """From the first request of the load to its last answer."""
    ends = [(pair.invoke.time, pair.completion.time) for pair in pairs if pair.completion is not None]
    return min(begin for begin, _ in ends), max(end for _, end in ends)


def _statistics(pairs: list[Pair], seconds: float) -> dict[str, float]:
    times = [ms for pair in pairs if pair.ok and (ms := latency_ms(pair)) is not None]
    failed = sum(not pair.ok and not _refused(pair) for pair in pairs)
    return {
        **dict(_quantiles(times)),
        "error_share": failed / len(pairs),
        **({"throughput_per_s": len(times) / seconds} if seconds > 0 else {}),
    }


def _quantiles(times: list[float]) -> Iterator[tuple[str, float]]:
    """Those that enough answers are beyond."""
    for name, share in QUANTILES.items():
        if round(len(times) * (1 - share), 6) >= BEYOND[name]:
            yield name, quantile(times, share)


def _refused(pair: Pair) -> bool:
    """Refused by a site that was right to: no such upload, not enough coins."""
    told = pair.completion
    return told is not None and told.get("status") in REFUSALS and told.get("written") == "no"
