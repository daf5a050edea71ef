"""The ops of one process, written to a file or a pipe as they happen."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

STDOUT = 1
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Recorder:
    """Writes one op as a line to a path or to an open descriptor; each line is one write. Without a place: nothing.

    Besides the ops of users it records

    - ``worker``: ``info``, ``{"phase": "begin", "boot": ..., "wall_ns": ...}`` and ``{"phase": "end"}``, so that ops of
      several machines, each with a clock of its own, can be put together (``merge.py``);
    - ``plan``: ``info``, ``{"phase": "over", "share": "0/1"}`` once each planned op of this process was answered or
      given up.
    """

    def __init__(self, place: str, process: str) -> None:
        self._process = process
        self._fd = _opened(place) if place else None
        self._encode = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make one for each op

    def record(self, op: dict[str, Any]) -> None:
        """Write one op."""
        if self._fd is None:
            return
        line = self._encode(op).encode() + b"\n"
        while line:
            line = line[os.write(self._fd, line) :]

    def begin(self) -> None:
        """Record which machine's clock the ops of this process have, and its time of day."""
        boot = BOOT_ID.read_text().strip() if BOOT_ID.exists() else socket.gethostname()
        self._info(f"worker:{self._process}", "worker", {"phase": "begin", "boot": boot, "wall_ns": time.time_ns()})

    def end(self) -> None:
        """Record that nothing is missing."""
        self._info(f"worker:{self._process}", "worker", {"phase": "end"})

    def plan_over(self, share: tuple[int, int]) -> None:
        """Record that all planned ops of this process are done."""
        self._info("plan", "plan", {"phase": "over", "share": "/".join(map(str, share))})

    def _info(self, process: str, f: str, value: dict[str, Any]) -> None:
        self.record({"t": time.perf_counter_ns(), "process": process, "type": "info", "f": f, "value": value})


def _opened(place: str) -> int:
    if place in ("/dev/stdout", str(STDOUT)):
        # Only ops may appear there, and Locust and its libraries print, too: theirs goes to standard error.
        fd = os.dup(STDOUT)
        os.dup2(sys.stderr.fileno(), STDOUT)
        return fd
    if place.isdigit():
        return int(place)
    return os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
