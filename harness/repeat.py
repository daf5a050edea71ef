"""One scenario under many seeds: a process for each run, and how many came to what."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.algorithms import binomial
from harness.verdict import EXIT_CODES
from harness.wait import REAL, Clock, until

__all__ = ["ERROR", "Child", "Share", "carry_out", "exit_code", "outcome", "shares"]

RUN_S = 6 * 3600.0
"""Longer than any run; there only to bound the wait."""
POLL_S = 0.2
END_S = 300.0
"""How long a run that is interrupted may take to undo what it did, and to remove its lab."""

ERROR, ERROR_CODE = "lab error", 4
"""What became of a run that ended without an outcome."""


class Child(Protocol):
    """The process of a run."""

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""

    def interrupt(self) -> None:
        """Let it undo what it did, and end."""


def carry_out(
    seeds: Sequence[int], jobs: int, start: Callable[[int], Child], clock: Clock = REAL
) -> Generator[tuple[int, int], None, None]:
    """Start a process for each seed, at most so many at once; -> each seed and exit code, as they end.

    If this is interrupted, so are all that run, and it waits for their ends.
    """
    waiting, running = deque(seeds), dict[int, Child]()

    def ended() -> list[tuple[int, int]]:
        return [(seed, code) for seed, child in running.items() if (code := child.poll()) is not None]

    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running[waiting[0]] = start(waiting[0])
                waiting.popleft()
            for seed, code in until(ended, RUN_S, "a run to end", POLL_S, clock):
                del running[seed]
                yield seed, code
    finally:
        for child in running.values():
            child.interrupt()
        until(lambda: len(ended()) == len(running), END_S, "the interrupted runs to end", POLL_S, clock)


def outcome(code: int) -> str:
    """What an exit code of `run` means: valid, invalid, unknown or ``ERROR``."""
    return next((str(word) for word, known in EXIT_CODES.items() if known == code), ERROR)


@dataclass(frozen=True)
class Share:
    """How many runs came to one outcome."""

    outcome: str
    seeds: tuple[int, ...]
    of: int
    """All runs that were made."""

    def __str__(self) -> str:
        """The share with its exact 95 % interval."""
        least, most = (f"{100 * end:.1f}" for end in binomial.interval(len(self.seeds), self.of))
        return f"{100 * len(self.seeds) / self.of:.0f} % (95 % interval: {least} to {most} %)"


def shares(codes: Mapping[int, int]) -> list[Share]:
    """The share of each outcome: those that may happen, and what else did. ``codes``: the exit code of each seed."""
    words = [*map(str, EXIT_CODES), *([ERROR] if any(outcome(code) == ERROR for code in codes.values()) else [])]
    return [
        Share(word, tuple(seed for seed, code in sorted(codes.items()) if outcome(code) == word), len(codes))
        for word in words
    ]


def exit_code(codes: Mapping[int, int]) -> int:
    """1 if a run is invalid, else 4 if one ended without an outcome, else 3 if one is unknown, else 0."""
    found = {code if outcome(code) != ERROR else ERROR_CODE for code in codes.values()}
    return next((code for code in (1, ERROR_CODE, 3) if code in found), 0)
