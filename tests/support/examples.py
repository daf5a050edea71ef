"""How many random cases a test tries: all in `make test`, an eighth in `make fast`."""

from __future__ import annotations

import os

from hypothesis import settings

FEW = "MONKEYWRENCH_FEW_EXAMPLES"
"""`make fast` sets it. It is read when a test module is imported, before pytest's options are known to it."""

FRESH = "MONKEYWRENCH_FRESH_EXAMPLES"
"""With it, each run draws other examples. Without it, all runs of a test try the same ones."""

LEAST = 10


def tries(count: int) -> int:
    """How often to try what `make test` tries ``count`` times."""
    return max(min(count, LEAST), count // 8) if os.environ.get(FEW) else count


def examples(count: int) -> settings:
    """The settings of a property that `make test` tries ``count`` times."""
    return settings(deadline=None, max_examples=tries(count))
