"""The nodes' own logs, one file a node and service, taken out of the history again. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

from harness.history import History

UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
"""A history is only a file: what it calls a node must not become a path."""

BROKEN = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Surrogates that stand for no byte; those that do (PEP 383) become that byte again when the file is written."""


def files(history: History) -> Mapping[str, str]:
    """``<node>.<service>.log`` -> its lines, by time.

    Each line is the time (seconds since the run's start, on the lab's clock), a tab, and what the node wrote. A node's
    own stamp is from its own clock, which may be wrong on purpose.
    """
    lines: dict[str, list[str]] = defaultdict(list)
    for op in history.by_time().of("log"):
        if isinstance(op.value, str):
            text = BROKEN.sub("\N{REPLACEMENT CHARACTER}", op.value.replace("\n", " "))
            lines[_name(op.process)].append(f"{op.time / 1e9:.3f}\t{text}\n")
    return {name: "".join(each) for name, each in sorted(lines.items())}


def _name(process: str) -> str:
    """``log:lb-1:heartbeat`` -> ``lb-1.heartbeat.log``."""
    words = process.removeprefix("log:").split(":")
    return ".".join([*(UNSAFE.sub("_", word) or "_" for word in words), "log"])
