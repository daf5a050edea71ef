"""The nodes' own logs, extracted from the history: one file per node and service. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

from harness.history import History

UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
"""A name from a history must not become a path."""

BROKEN = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Surrogates that do not stand for a byte. The others (PEP 383) become bytes again when the file is written."""


def files(history: History) -> Mapping[str, str]:
    """``<node>.<service>.log`` -> its lines, by time.

    Each line has the time (seconds since the start of the run, on the lab's clock), a tab, and the line as the node
    wrote it. A timestamp in the line is from the node's own clock, which a fault may have changed.
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
