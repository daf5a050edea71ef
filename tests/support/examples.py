"""How many examples a property is tried with: all in `make test`, an eighth in `make fast`."""

from __future__ import annotations

import os

from hypothesis import settings

FEW = "MONKEYWRENCH_FEW_EXAMPLES"
"""`make fast` sets it. It is read when a test module is imported, before pytest's options are known to it."""

LEAST = 10


def examples(count: int) -> settings:
    """The settings of a property that `make test` tries ``count`` times."""
    few = max(min(count, LEAST), count // 8)
    return settings(deadline=None, max_examples=few if os.environ.get(FEW) else count)
