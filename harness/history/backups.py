"""The age of the current backup, as the ops ``backup`` record it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from harness.history import HistoryError, Op

ROUNDING_MS = 1000
"""A node measures a backup's age in whole seconds."""


def age_ms(op: Op) -> float:
    """The age of the current backup in a sample. Raises HistoryError."""
    age = op["age_s"]
    if isinstance(age, bool) or not isinstance(age, int | float):
        raise HistoryError(f"op {op.index} (backup): its age is {age!r}, not a number")
    return 1000.0 * age


def first_samples(samples: Sequence[Op]) -> list[Op]:
    """The first sample of each new backup: one whose age is lower than in the sample before, beyond rounding."""
    return [after for before, after in pairwise(samples) if age_ms(after) < age_ms(before) - ROUNDING_MS]
