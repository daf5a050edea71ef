"""Times and durations in sentences."""

from __future__ import annotations

import pytest

from harness.history.timeline import count_of, distinct_spans, instant, moment, span_of


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [(0, "0 ms"), (54.4, "54 ms"), (999.4, "999 ms"), (999.6, "1.0 s"), (15_004, "15.0 s"), (3_600_000, "3,600.0 s")],
)
def test_a_duration_is_in_seconds_from_one_second_on(duration_ms: float, text: str) -> None:
    assert span_of(duration_ms) == text


@pytest.mark.parametrize(
    ("durations_ms", "texts"),
    [
        ((5_310, 5_000), ("5.3 s", "5.0 s")),
        ((5_010, 5_000), ("5.01 s", "5.00 s")),
        ((15_001, 15_000), ("15.001 s", "15.000 s")),
        ((1_000, 990), ("1.0 s", "990 ms")),
        ((7_000, 7_000), ("7.000 s", "7.000 s")),
    ],
)
def test_compared_durations_have_the_digits_that_tell_them_apart(
    durations_ms: tuple[float, float], texts: tuple[str, str]
) -> None:
    assert distinct_spans(*durations_ms) == texts


def test_times_of_the_run_and_counts() -> None:
    assert (moment(61_302_000_000), instant(61_302_000_000)) == ("61.3 s", "61.302 s")
    assert (count_of(0, "step"), count_of(1, "step"), count_of(2_000, "step")) == ("0 steps", "1 step", "2,000 steps")
