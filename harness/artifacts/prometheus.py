"""A run in numbers, in Prometheus' text format 0.0.4: for a textfile collector, a push gateway, or promtool. Pure.

Times are seconds, as Prometheus wants base units. Nothing has a time stamp: the file says what a run came to.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from harness.history import History
from harness.history.latency import latency_ms, load, quantile
from harness.verdict import Judgement, Outcome

QUANTILES = (0.5, 0.9, 0.95, 0.99)

Labels = Mapping[str, str]
Sample = tuple[Labels, float]


@dataclass
class Family:
    """One metric: its samples, by the end of their name (a summary has some that end in ``_sum`` and ``_count``)."""

    name: str
    kind: Literal["gauge", "counter", "summary"]
    meaning: str
    samples: list[tuple[str, Labels, float]] = field(default_factory=list)

    def text(self) -> str:
        """Its lines; a metric without samples is left out."""
        if not self.samples:
            return ""
        head = f"# HELP {self.name} {self.meaning}\n# TYPE {self.name} {self.kind}\n"
        return head + "".join(
            f"{self.name}{end}{_labels(labels)} {value:.12g}\n" for end, labels, value in self.samples
        )


def render(history: History, judgement: Judgement) -> str:
    """The content of ``metrics.prom``."""
    run = {"scenario": judgement.scenario}
    return "".join(family.text() for family in _families(history, judgement, run))


def _families(history: History, judgement: Judgement, run: Labels) -> Iterable[Family]:
    yield _gauge("monkeywrench_run_seconds", "How long the run took.", [({**run}, history.end_ns / 1e9)])
    yield _gauge(
        "monkeywrench_run_complete",
        "1 when the run ended by itself, 0 when it was killed.",
        [({**run}, float(history.complete))],
    )
    yield _gauge(
        "monkeywrench_run_outcome",
        "1 for what the run came to, 0 for the other outcomes.",
        [({**run, "outcome": each}, float(each is judgement.outcome)) for each in Outcome],
    )
    yield _gauge(
        "monkeywrench_verdict",
        "1 for what a check came to, 0 for the other outcomes.",
        [
            ({**run, "check": verdict.check, "outcome": each}, float(each is verdict.outcome))
            for verdict in judgement.verdicts
            for each in Outcome
        ],
    )
    yield Family("monkeywrench_ops_total", "counter", "Ops of the history.", _ops(history, run))
    yield Family(
        "monkeywrench_load_latency_seconds",
        "summary",
        "Time to the answer, of the load's answered requests, by kind of op.",
        _latencies(history, run),
    )
    yield from _outages(judgement, run)
    yield _gauge(
        "monkeywrench_faults",
        "Faults that were proven to have taken effect.",
        [({**run, "fault": name}, float(count)) for name, count in sorted(_proven(history).items())],
    )


def _gauge(name: str, meaning: str, samples: Iterable[Sample]) -> Family:
    return Family(name, "gauge", meaning, [("", labels, value) for labels, value in samples])


def _ops(history: History, run: Labels) -> list[tuple[str, Labels, float]]:
    counts = Counter((op.f, op.type) for op in history)
    return [("", {**run, "f": f, "type": kind}, float(count)) for (f, kind), count in sorted(counts.items())]


def _latencies(history: History, run: Labels) -> list[tuple[str, Labels, float]]:
    samples: list[tuple[str, Labels, float]] = []
    for f, pairs in load(history).items():
        times = [ms for pair in pairs if pair.ok and (ms := latency_ms(pair)) is not None]
        if not times:
            continue
        labels = {**run, "f": f}
        samples += [("", {**labels, "quantile": f"{share:g}"}, quantile(times, share) / 1000) for share in QUANTILES]
        samples += [("_sum", labels, round(sum(times) / 1000, 6)), ("_count", labels, float(len(times)))]
    return samples


def _outages(judgement: Judgement, run: Labels) -> Iterable[Family]:
    rows = [
        ({**run, "vip": str(row["vip"]), "kind": str(row["kind"]), "number": str(number)}, row)
        for verdict in judgement.verdicts
        if verdict.check == "outage"
        for number, row in enumerate(verdict.numbers.get("outages", ()), 1)
    ]
    for key, name, meaning in (
        ("estimate_ms", "", "How long a virtual IP did not answer; the middle of the two bounds."),
        ("lower_ms", "_lower", "The least that an outage certainly took."),
        ("upper_ms", "_upper", "The most that an outage can have taken."),
        ("budget_ms", "_budget", "What an outage of its kind may take."),
    ):
        known = [(labels, float(row[key]) / 1000) for labels, row in rows if row.get(key) is not None]
        yield _gauge(f"monkeywrench_outage{name}_seconds", meaning, known)


def _proven(history: History) -> Counter[str]:
    return Counter(str(op.get("fault", "")) for op in history.seen("fault") if op.get("phase") == "proof")


def _labels(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    text = re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", value)
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
