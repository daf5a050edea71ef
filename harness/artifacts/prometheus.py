"""A run in numbers, as ``metrics.prom``: Prometheus' text format, for a textfile collector or a push gateway. Pure.

Times are seconds, Prometheus' base unit. Samples have no timestamps: the file describes a finished run.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from harness.history import History
from harness.history.latency import latency_ms, load, quantile
from harness.verdict import NOT_TRIED, Judgement, Outcome

QUANTILES = (0.5, 0.9, 0.95, 0.99)

SURROGATE = re.compile("[\ud800-\udfff]")
"""A history keeps bytes of a log that are not UTF-8 as surrogates (PEP 383), which UTF-8 cannot encode."""

Labels: TypeAlias = Mapping[str, str]


def render(history: History, judgement: Judgement) -> str:
    """The content of ``metrics.prom``; a metric without samples is left out."""
    registry = CollectorRegistry()
    registry.register(_Run(history, judgement))
    return generate_latest(registry).decode()


class _Run(Collector):
    """The metrics of one run, each labelled with its scenario."""

    def __init__(self, history: History, judgement: Judgement) -> None:
        self.history, self.judgement = history, judgement

    def collect(self) -> Iterator[Metric]:
        """Each metric that has samples."""
        return (metric for metric in self._metrics() if metric.samples)

    def _metrics(self) -> Iterator[Metric]:
        history, judgement = self.history, self.judgement
        yield self._gauge("monkeywrench_run_seconds", "Duration of the run.", [({}, history.end_ns / 1e9)])
        yield self._gauge(
            "monkeywrench_run_complete", "1 if the run ended normally, 0 if it was killed.", [({}, history.complete)]
        )
        yield self._gauge(
            "monkeywrench_run_virtual_time",
            "1 if the run's times are virtual, 0 if they are the host's.",
            [({}, judgement.clock == "virtual")],
        )
        yield self._gauge(
            "monkeywrench_run_outcome",
            "1 for the outcome of the run, 0 for the other outcomes.",
            [({"outcome": outcome}, outcome is judgement.outcome) for outcome in Outcome],
        )
        yield self._gauge(
            "monkeywrench_verdict",
            "1 for the outcome of a check, 0 for the other outcomes; not tried is one of its own here.",
            [
                ({"check": verdict.check, "outcome": word}, word == verdict.word)
                for verdict in judgement.verdicts
                for word in (*(outcome.value for outcome in Outcome), NOT_TRIED)
            ],
        )
        yield self._ops()
        yield self._latency()
        yield from self._outages()
        yield self._gauge(
            "monkeywrench_faults",
            "Faults with a proof that they took effect.",
            [({"fault": name}, count) for name, count in sorted(_proven(history).items())],
        )

    def _gauge(self, name: str, documentation: str, samples: Iterable[tuple[Labels, float]]) -> Metric:
        metric = GaugeMetricFamily(name, documentation)
        for labels, value in samples:
            metric.add_sample(name, self._labels(labels), float(value))
        return metric

    def _labels(self, labels: Labels) -> dict[str, str]:
        every = {"scenario": self.judgement.scenario, **labels}
        return {name: SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value) for name, value in every.items()}

    def _ops(self) -> Metric:
        metric = CounterMetricFamily("monkeywrench_ops", "Ops of the history.")
        counts = Counter((op.f, op.type) for op in self.history)
        for (f, kind), count in sorted(counts.items()):
            metric.add_sample("monkeywrench_ops_total", self._labels({"f": f, "type": kind}), float(count))
        return metric

    def _latency(self) -> Metric:
        name = "monkeywrench_load_latency_seconds"
        metric = SummaryMetricFamily(name, "Latency of the load's answered requests, by kind of op.")
        for f, pairs in load(self.history).items():
            times = [ms for pair in pairs if pair.ok and (ms := latency_ms(pair)) is not None]
            if not times:
                continue
            for share in QUANTILES:
                labels = self._labels({"f": f, "quantile": f"{share:g}"})
                metric.add_sample(name, labels, quantile(times, share) / 1000)
            metric.add_sample(f"{name}_sum", self._labels({"f": f}), round(sum(times) / 1000, 6))
            metric.add_sample(f"{name}_count", self._labels({"f": f}), float(len(times)))
        return metric

    def _outages(self) -> Iterator[Metric]:
        rows = [
            ({"vip": str(row["vip"]), "kind": str(row["kind"]), "number": str(number)}, row)
            for verdict in self.judgement.verdicts
            if verdict.check == "outage"
            for number, row in enumerate(verdict.numbers.get("outages", ()), 1)
        ]
        for key, suffix, documentation in (
            ("estimate_ms", "", "Duration of an outage of a virtual IP: the middle between its bounds."),
            ("lower_ms", "_lower", "Shortest possible duration of an outage."),
            ("upper_ms", "_upper", "Longest possible duration of an outage."),
            ("budget_ms", "_budget", "Longest allowed duration of an outage of its kind."),
        ):
            known = [(labels, float(row[key]) / 1000) for labels, row in rows if row.get(key) is not None]
            yield self._gauge(f"monkeywrench_outage{suffix}_seconds", documentation, known)


def _proven(history: History) -> Counter[str]:
    return Counter(str(op.get("fault", "")) for op in history.seen("fault") if op.get("phase") == "proof")
