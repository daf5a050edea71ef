"""What a reboot wipes and has to be done again, though not before the service that it concerns is up."""

from __future__ import annotations

from faults.fault import sh
from harness.records import Undo

__all__ = ["when_ready"]


def when_ready(ready: str, *argv: str) -> Undo:
    """The step that carries out a command as soon as ``ready``, a shell command, succeeds: within 60 s or so.

    An undo that is asked for meanwhile waits for it, as for all that is done again.
    """
    return Undo(sh(f'for _ in $(seq 60); do {ready} && exec "$@"; sleep 1; done; exit 1', *argv))
