"""The programs and folders of a node that faults use, and programs that outlive the command that starts them.

The images bring the programs, and the topology's parts write what is below ``SETTINGS``: a unit test compares both.
"""

from __future__ import annotations

from faults.fault import sh
from harness.records import Undo

__all__ = [
    "LIBRARY",
    "PROGRAMS",
    "SERVICES",
    "SETTINGS",
    "STATE",
    "containing",
    "detached",
    "ended",
    "when_ready",
]

LIBRARY = "/usr/lib/monkeywrench"
PROGRAMS = f"{LIBRARY}/faults"

STATE = "/run/monkeywrench/faults"
"""What faults keep on a node while they are injected; a reboot empties it."""

SETTINGS = "/etc/monkeywrench"
"""What the topology's parts write for the node's own programs."""

SERVICES = "/run/service"
"""One folder per service of the node (runit)."""


def detached(*argv: str) -> tuple[str, ...]:
    """The command that starts a program and returns at once."""
    return (f"{LIBRARY}/detach", *argv)


def ended(pattern: str) -> Undo:
    """The step that kills such a program, if it runs. The pattern is for pgrep(1), and must not match itself."""
    return Undo(sh('pkill -KILL -f "$1"; true', pattern))


def containing(text: str) -> str:
    """The pattern for a command line that contains a text; it does not match itself. Pure."""
    return f"[{text[0]}]{text[1:]}"


def when_ready(ready: str, *argv: str) -> Undo:
    """The step that runs a command as soon as ``ready``, a shell command, succeeds: within about 60 s.

    It is for what a reboot wipes, and has to be done again once the service that it concerns is up. An undo waits for
    it, as for every such step.
    """
    return Undo(sh(f'for _ in $(seq 60); do {ready} && exec "$@"; sleep 1; done; exit 1', *argv))
