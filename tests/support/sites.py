"""Sites that are made up: runs of a known latency, known failures, and a known knee."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from harness.artifacts import run_directory
from harness.cli import main
from harness.compare import Measures, measure, release
from harness.history import History, Op
from tests.support import histories as h

BASE_MS = {"get /": 20.0, "get /scores.php": 60.0, "transfer": 35.0}
"""Endpoint -> its usual median latency."""


@dataclass(frozen=True)
class Site:
    """A site whose runs differ by some percent of luck each, and whose answers have a long tail."""

    slower_ms: Mapping[str, float] = field(default_factory=dict)
    failing: float = 0.0
    requests: int = 320
    luck: float = 0.01

    def __hash__(self) -> int:
        return hash(repr(self))

    def run(self, name: str, seed: int) -> Measures:
        return measure(name, h.of(self.ops(random.Random(seed))))

    def ops(self, chance: random.Random) -> Iterator[Op]:
        yield h.start()
        for user, (endpoint, usual) in enumerate(BASE_MS.items()):
            luck = chance.gauss(1, self.luck)
            for number in range(self.requests):
                took = usual * luck * chance.lognormvariate(0, 0.15) + self.slower_ms.get(endpoint, 0)
                yield from request(100 * number, f"user:{user}", endpoint, took, chance.random() < self.failing)
        yield h.end(100 * self.requests + 1_000)


def request(at_ms: float, process: str, endpoint: str, took_ms: float, failed: bool = False) -> list[Op]:
    f, _, path = endpoint.partition(" ")
    asked: dict[str, Any] = {"vip": h.VIP1} | ({"url": f"{path}?seed={at_ms}"} if path else {})
    kind, error = ("fail", "status 503") if failed else ("ok", None)
    took = max(took_ms, 0.1)
    done = h.op(at_ms + took, process, f, asked | {"ms": took}, kind, error=error)
    return [h.op(at_ms, process, f, asked, "invoke"), done]


STEP_S = 30
"""Long enough for a queue of 1 s when the rate exceeds the knee by 6 %."""


def stepped(rates: list[int], carries: float, *, refuses: bool = False) -> History:
    """A site that serves a fixed number of ops per second, one after another, and queues or refuses the rest."""
    return h.of([h.start(), *_ops(rates, carries, refuses), h.end((STEP_S * len(rates) + 600) * 1000)])


def _ops(rates: list[int], carries: float, refuses: bool) -> Iterator[Op]:
    free_ms, number = 0.0, 0
    for place, rate in enumerate(rates):
        for n in range(rate * STEP_S):
            due_ms = 1000 * (place * STEP_S + n / rate)
            begun_ms = max(due_ms, free_ms)
            served_ms = begun_ms + 1000 / carries
            kind, error = "ok", None
            if refuses and begun_ms - due_ms > 50:
                kind, error, served_ms = "fail", "status 503", due_ms + 2
            else:
                free_ms = served_ms
            asked = {"url": "http://www.example.test/", "vip": h.VIP1}
            user = f"user:{number}"
            number += 1
            yield h.op(due_ms + 0.5, user, "get", {**asked, "late_ms": 0.5, "free": True}, "invoke")
            yield h.op(served_ms, user, "get", {**asked, "ms": served_ms - due_ms, "status": 200}, kind, error=error)


def risen(carries: float, name: str) -> Measures:
    """A load that becomes more and more, on a site that carries so much."""
    return measure(name, stepped([5, 10, 20, 40, 80], carries))


def folder(place: Path, runs: int, site: Site, seed: int, side: str = release.CANDIDATE) -> Path:
    """A folder as ``monkeywrench load`` makes it."""
    for number in range(runs):
        directory = place / side / f"run-{seed}-{number}"
        directory.mkdir(parents=True)
        history = h.of(site.ops(random.Random(f"{seed} {number}")))
        (directory / run_directory.HISTORY).write_text("".join(op.line() + "\n" for op in history))
    return place


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])
