"""Arrays that the algorithms share. Times are int64, in ns."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]

FOREVER = 2**62
"""The end of an op that may have taken effect at any time, or never."""

NEVER = -(2**62)
"""A time before everything."""


def ints(values: object) -> Ints:
    """Any sequence of whole numbers as an array."""
    return np.asarray(values, dtype=np.int64)


def flags(values: object) -> Flags:
    """Any sequence of truths as an array."""
    return np.asarray(values, dtype=np.bool_)


def concatenated(key: Ints, *times: Ints) -> tuple[Ints, ...]:
    """The times of each key (0, 1, ...) put one after another on one line, so that keys never overlap.

    Within a key all comparisons stay as they were, with NEVER before and FOREVER after everything. So an algorithm for
    one object judges many at once. Raises ValueError when they do not fit into 64 bits; 200 keys fit for 270 days.
    """
    finite = [part[(part > NEVER) & (part < FOREVER)] for part in times]
    low = min((int(part.min()) for part in finite if part.size), default=0) - 1
    high = max((int(part.max()) for part in finite if part.size), default=0) + 1
    span = high - low + 1
    if key.size and (int(key.max()) + 1) * span >= FOREVER:
        raise ValueError(f"{int(key.max()) + 1:,} keys of {span:,} ns each do not fit into 64 bits")
    return tuple(key * span + (np.minimum(np.maximum(part, low), high) - low) for part in times)
