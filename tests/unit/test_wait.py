from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from harness.records import LabError
from harness.wait import Clock, NotYet, Timeout, pass_time, until
from tests.support.ticks import Ticks


def test_returns_the_first_truthy_value_without_sleeping_when_it_holds_at_once() -> None:
    ticks = Ticks()
    assert until(lambda: "up", 5, "it", clock=ticks.clock) == "up"
    assert ticks.slept == []


def test_polls_at_the_given_interval_until_it_holds() -> None:
    ticks = Ticks()
    answers: Iterator[object] = iter([None, 0, [], "lb-2"])
    assert until(lambda: next(answers), 5, "it", every_s=0.25, clock=ticks.clock) == "lb-2"
    assert ticks.slept == [0.25, 0.25, 0.25]


def test_the_last_try_is_at_the_deadline_and_not_after_it() -> None:
    ticks = Ticks()
    tried: list[float] = []
    with pytest.raises(Timeout):
        until(lambda: tried.append(ticks.time_s), 1.0, "it", every_s=0.4, clock=ticks.clock)
    assert tried == pytest.approx([100.0, 100.4, 100.8, 101.0])


def test_a_wait_of_no_time_is_one_try() -> None:
    assert until(lambda: 7, 0, "it") == 7
    with pytest.raises(Timeout, match=r"timed out after 0 s waiting for it; last state: None"):
        until(lambda: None, 0, "it")


def test_the_sentence_says_what_how_long_and_why_not_yet() -> None:
    counter = itertools.count(1)

    def condition() -> bool:
        raise NotYet(f"lb-2 holds {next(counter)} of 9")

    with pytest.raises(Timeout) as caught:
        until(condition, 0.2, "the takeover", every_s=0.08, clock=Ticks().clock)
    assert str(caught.value) == "timed out after 0.2 s waiting for the takeover; last state: lb-2 holds 4 of 9"
    assert isinstance(caught.value, LabError)


def test_other_exceptions_pass_through_at_once() -> None:
    ticks = Ticks()

    def condition() -> bool:
        raise LabError("lb-1 is gone")

    with pytest.raises(LabError, match="lb-1 is gone") as caught:
        until(condition, 5, "it", clock=ticks.clock)
    assert not isinstance(caught.value, Timeout)
    assert ticks.slept == []


def test_an_interrupt_from_the_keyboard_is_not_swallowed() -> None:
    def condition() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        until(condition, 5, "it", clock=Ticks().clock)


def test_a_clock_too_coarse_for_the_remainder_still_ends() -> None:
    now_ms = [0]
    coarse = Clock(lambda: now_ms[0] / 1000, lambda s: now_ms.__setitem__(0, now_ms[0] + int(s * 1000)))
    with pytest.raises(Timeout):
        until(lambda: None, 0.1004, "it", every_s=0.1, clock=coarse)


def test_time_passes_whole_unless_interrupted() -> None:
    ticks = Ticks()
    assert pass_time(8.0004, clock=ticks.clock) is True
    assert ticks.time_s == pytest.approx(108.0004, abs=1e-9)
    assert pass_time(8, lambda: ticks.time_s >= 110, clock=ticks.clock) is False
    assert ticks.time_s == pytest.approx(110, abs=0.11)
