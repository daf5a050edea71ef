"""Work that must not be broken off in its middle: Ctrl-C and SIGTERM wait for its end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["deferring_signals"]

HELD_BACK = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def deferring_signals() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the block ends: half of what it does could be neither used nor repaired.

    Handlers are replaced, not signals blocked: a signal that the main thread blocks goes to another thread, and Python
    then runs its handler in the main thread all the same.
    """
    held: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield
        return
    before = {each: signal.signal(each, lambda number, _: held.append(number)) for each in HELD_BACK}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        for number in held[:1]:
            signal.raise_signal(number)
