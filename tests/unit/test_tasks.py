"""Virtual time in the harness: who gets a turn, when, and what ends a wait."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.records import LabError
from harness.tasks import Mailbox, Timeline
from harness.wait import Timeout, each, until

S = 1_000_000_000


class Simulated:
    """A lab without nodes: time passes at once; something may arrive on its way."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.arrivals: list[tuple[int, Callable[[], None]]] = []
        self.runs: list[int] = []

    def run(self, until_ns: int) -> None:
        self.runs.append(until_ns)
        due = sorted((each for each in self.arrivals if each[0] <= until_ns), key=lambda each: each[0])
        if not due:
            self.now_ns = until_ns
            return
        self.arrivals.remove(due[0])
        self.now_ns = due[0][0]
        due[0][1]()


@pytest.fixture
def simulated() -> Simulated:
    return Simulated()


@pytest.fixture
def timeline(simulated: Simulated) -> Timeline:
    return Timeline(simulated)


def test_a_wait_takes_virtual_time_alone(timeline: Timeline) -> None:
    timeline.clock.sleep(3600)
    assert timeline.now_ns == 3600 * S
    assert timeline.clock.now() == 3600.0


def test_tasks_take_turns_by_virtual_time(timeline: Timeline) -> None:
    happened: list[tuple[str, int]] = []

    def worker(name: str, every_s: float) -> Callable[[], None]:
        def work() -> None:
            for _ in range(3):
                timeline.sleep(every_s)
                happened.append((name, timeline.now_ns // S))

        return work

    tasks = [timeline.spawn(worker("a", 2), "a"), timeline.spawn(worker("b", 3), "b")]
    until(lambda: not any(task.is_alive() for task in tasks), 60, "both to end", 0.5, timeline.clock)
    assert happened == [("a", 2), ("b", 3), ("a", 4), ("b", 6), ("a", 6), ("b", 9)]


def test_two_that_are_due_at_once_go_in_the_order_of_their_waits(timeline: Timeline) -> None:
    order: list[int] = []

    def work(number: int) -> None:
        timeline.sleep(1)
        order.append(number)

    each(work, range(5), timeline.clock)
    assert order == [0, 1, 2, 3, 4]


def test_a_message_ends_a_wait_at_its_time(simulated: Simulated, timeline: Timeline) -> None:
    box: Mailbox[str] = Mailbox(timeline)
    simulated.arrivals.append((1_234_567_891, lambda: box.put("hello")))
    assert box.get(10) == "hello"
    assert timeline.now_ns == 1_234_567_891


def test_without_a_message_the_wait_ends_at_its_deadline(timeline: Timeline) -> None:
    box: Mailbox[str] = Mailbox(timeline)
    with pytest.raises(TimeoutError):
        box.get(2.5)
    assert timeline.now_ns == 2.5 * S
    with pytest.raises(TimeoutError):
        box.get(0)
    assert timeline.now_ns == 2.5 * S


def test_a_wait_without_a_deadline_lasts_until_a_message(simulated: Simulated, timeline: Timeline) -> None:
    box: Mailbox[str] = Mailbox(timeline)
    simulated.arrivals.append((7200 * S, lambda: box.put("late")))
    assert box.get() == "late"


def test_a_message_for_one_does_not_wake_another(simulated: Simulated, timeline: Timeline) -> None:
    mine: Mailbox[str] = Mailbox(timeline)
    others: Mailbox[str] = Mailbox(timeline)
    got: list[str] = []
    timeline.spawn(lambda: got.append(others.get()), "other")
    simulated.arrivals += [(1 * S, lambda: others.put("theirs")), (2 * S, lambda: mine.put("mine"))]
    assert mine.get(5) == "mine"
    assert got == ["theirs"]


def test_an_error_of_the_lab_reaches_the_main_task(simulated: Simulated, timeline: Timeline) -> None:
    def fail() -> None:
        raise LabError("the simulator is gone")

    simulated.arrivals.append((1 * S, fail))
    timeline.spawn(lambda: timeline.sleep(100), "beside")
    with pytest.raises(LabError, match="gone"):
        timeline.sleep(50)
    timeline.sleep(1)  # and it can go on
    assert timeline.now_ns == 2 * S


def test_an_interruption_reaches_the_main_task(simulated: Simulated, timeline: Timeline) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    simulated.arrivals.append((1 * S, interrupt))
    with pytest.raises(KeyboardInterrupt):
        timeline.sleep(50)


def test_each_gives_the_results_in_order_and_the_first_failure(timeline: Timeline) -> None:
    def slow(number: int) -> int:
        timeline.sleep(10 - number)
        if number in (3, 5):
            raise LabError(f"number {number}")
        return number * number

    assert each(slow, range(3), timeline.clock) == [0, 1, 4]
    with pytest.raises(LabError, match="number 3"):
        each(slow, range(7), timeline.clock)


def test_until_polls_in_virtual_time(timeline: Timeline) -> None:
    seen: list[float] = []

    def never() -> bool:
        seen.append(timeline.clock.now())
        return False

    with pytest.raises(Timeout, match="timed out after 2 s waiting for nothing"):
        until(never, 2, "nothing", 0.5, timeline.clock)
    assert seen == [0.0, 0.5, 1.0, 1.5, 2.0]


def test_a_closed_timeline_ends_its_tasks(timeline: Timeline) -> None:
    ended: list[str] = []

    def work() -> None:
        try:
            timeline.sleep(1000)
        finally:
            ended.append("work")

    task = timeline.spawn(work, "work")
    timeline.spawn(lambda: timeline.sleep(500), "another")
    timeline.sleep(1)
    timeline.close()
    assert ended == ["work"]
    assert not task.is_alive()
    assert timeline.now_ns == 1 * S  # nobody waits, so no time passes
