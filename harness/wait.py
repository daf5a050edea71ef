"""Waiting: the one poll loop of the code base. Every wait is a condition with a deadline; nothing else sleeps.

>>> until(lambda: "up", within_s=1.0, what="the node to boot")
'up'
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, retry_if_result

from harness.records import LabError

__all__ = ["REAL", "Clock", "NotYet", "Timeout", "never", "pass_time", "until"]

T = TypeVar("T")

LEAST_S = 0.001
"""A shorter remainder counts as nothing: rounded away by a coarse clock, it would be slept for ever."""


class NotYet(Exception):  # noqa: N818 - it is no error
    """What a condition raises instead of returning something falsy, to say why it does not hold yet."""


class Timeout(LabError):  # noqa: N818 - the common name of it
    """A condition did not come true in time: what was waited for, how long, and what was seen last."""


@dataclass(frozen=True)
class Clock:
    """Something that tells the time in seconds, from any origin, and lets it pass. Tests give a virtual one."""

    now: Callable[[], float]
    sleep: Callable[[float], None]


REAL = Clock(time.monotonic, time.sleep)


def never() -> bool:
    """The interruption that does not come."""
    return False


def until(
    condition: Callable[[], T | None], within_s: float, what: str, every_s: float = 0.1, clock: Clock = REAL
) -> T:
    """Poll ``condition`` until it returns something truthy, and return that.

    ``what`` completes the sentence "waited for ...". The condition is tried at once, then every ``every_s`` seconds,
    and for the last time at the deadline, so that a wait of 0 s is one try. Raises :class:`Timeout`; an exception from
    the condition other than :class:`NotYet` passes through at once.
    """
    started = clock.now()

    def left() -> float:
        return started + within_s - clock.now()

    def give_up(state: RetryCallState) -> T:
        raise Timeout(f"waited {within_s:g} s for {what}, in vain; last seen: {_last_seen(state)}")

    return Retrying(
        retry=retry_if_exception_type(NotYet) | retry_if_result(lambda seen: not seen),
        stop=lambda _: left() < LEAST_S,
        wait=lambda _: min(every_s, left()),
        sleep=clock.sleep,
        retry_error_callback=give_up,
    )(condition)  # type: ignore[return-value]  # what it returns is truthy, so it is not None


def pass_time(
    seconds: float, interrupted: Callable[[], bool] = never, every_s: float = 0.1, clock: Clock = REAL
) -> bool:
    """Let time pass; True when all of it did, False when ``interrupted`` came true before."""
    try:
        until(interrupted, seconds, "an interruption", every_s, clock)
    except Timeout:
        return True
    return False


def _last_seen(state: RetryCallState) -> str:
    outcome = state.outcome
    if outcome is None:
        return "nothing"
    error = outcome.exception()
    seen = str(error) if error is not None else repr(outcome.result())
    return seen or "nothing"
