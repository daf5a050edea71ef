"""Work that must not be interrupted halfway: Ctrl-C and SIGTERM wait for its end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["deferring_signals"]

DEFERRED = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def deferring_signals() -> Iterator[None]:
    """Defer Ctrl-C and SIGTERM until the block ends, because half of its work could neither be used nor repaired.

    This replaces handlers and does not block signals: a signal that the main thread blocks is delivered to another
    thread, and Python then runs its handler in the main thread all the same.
    """
    deferred: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield
        return
    before = {each: signal.signal(each, lambda number, _: deferred.append(number)) for each in DEFERRED}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        for number in deferred[:1]:
            signal.raise_signal(number)
