"""The only poll loop of the code base. Every wait is a condition with a deadline; nothing else sleeps.

>>> until(lambda: "up", within_s=1.0, what="the node to boot")
'up'
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, retry_if_result

from harness.records import LabError

__all__ = ["REAL", "Clock", "NotYet", "Task", "Timeout", "each", "never", "of_tasks", "pass_time", "until"]

T = TypeVar("T")
A = TypeVar("A")

LEAST_S = 0.001
"""A shorter remainder counts as 0: a coarse clock would round it away, and the wait would never end."""


class NotYet(Exception):  # noqa: N818 - it is not an error
    """Raised by a condition, instead of returning something falsy, to give the reason why it is not true yet."""


class Timeout(LabError):  # noqa: N818 - the common name of it
    """A condition did not become true in time; the sentence names it, the time and the last state."""


class Task(Protocol):
    """A function that runs beside its caller."""

    def is_alive(self) -> bool:
        """False once the function has ended."""


def _in_a_thread(function: Callable[[], None], name: str) -> Task:
    thread = threading.Thread(target=function, name=name, daemon=True)
    thread.start()
    return thread


@dataclass(frozen=True)
class Clock:
    """The time in seconds, from any origin, and a way to let it pass. Tests and virtual labs have virtual ones."""

    now: Callable[[], float]
    sleep: Callable[[float], None]
    spawn: Callable[[Callable[[], None], str], Task] = _in_a_thread
    """Start a function beside the caller; the name is for people who look at a stack."""
    kind: Literal["real", "virtual"] = "real"
    """Whether the time passes on its own. Virtual time passes only while somebody waits on this clock."""


REAL = Clock(time.monotonic, time.sleep)


def of_tasks(clock: Clock) -> Clock:
    """The clock on which to wait for its tasks: threads take real time."""
    return REAL if clock.spawn is _in_a_thread else clock


def never() -> bool:
    """No interruption."""
    return False


def until(
    condition: Callable[[], T | None], within_s: float, what: str, every_s: float = 0.1, clock: Clock = REAL
) -> T:
    """Poll ``condition`` until it returns something truthy, and return that.

    ``what`` completes the sentence "timed out waiting for ...". The condition is tried at once, then every ``every_s``
    seconds, and for the last time at the deadline, so that a wait of 0 s is one try. Raises :class:`Timeout`; an
    exception from the condition other than :class:`NotYet` passes through at once.
    """
    started = clock.now()

    def left() -> float:
        return started + within_s - clock.now()

    def give_up(state: RetryCallState) -> T:
        raise Timeout(f"timed out after {within_s:g} s waiting for {what}; last state: {_last_state(state)}")

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
    """Let time pass; True when all of it did, False if ``interrupted`` became true before.

    In virtual time exactly that time passes.
    """
    began_s = clock.now()
    try:
        until(interrupted, seconds, "an interruption", every_s, clock)
    except Timeout:
        if (rest_s := began_s + seconds - clock.now()) > 0:
            clock.sleep(rest_s)
        return True
    return False


def each(function: Callable[[A], T], items: Iterable[A], clock: Clock = REAL, within_s: float = 3600.0) -> list[T]:
    """Call a function for each item, all at the same time on the clock; -> the results in the order of the items.

    Raises the exception of the first item that failed, once all calls have ended.
    """
    wanted = list(items)
    results: dict[int, T] = {}
    failures: dict[int, BaseException] = {}

    def call(number: int) -> None:
        try:
            results[number] = function(wanted[number])
        except BaseException as error:
            failures[number] = error

    tasks = [clock.spawn(partial(call, number), f"{number}") for number in range(len(wanted))]
    until(lambda: not any(task.is_alive() for task in tasks), within_s, "all calls to end", 0.005, of_tasks(clock))
    for number in sorted(failures):
        raise failures[number]
    return [results[number] for number in range(len(wanted))]


def _last_state(state: RetryCallState) -> str:
    outcome = state.outcome
    if outcome is None:
        return "nothing"
    error = outcome.exception()
    seen = str(error) if error is not None else repr(outcome.result())
    return seen or "nothing"
