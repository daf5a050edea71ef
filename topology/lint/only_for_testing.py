"""``/etc/ha.d/OnlyForTesting``: heartbeat's built-in packet loss."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.formats.lines import numbered
from topology.lint.model import Remark

PATH = "/etc/ha.d/OnlyForTesting"

Settings = tuple[tuple[int, str, str], ...]


def parse(text: str) -> Settings:
    """(line, name, value) of each ``name=value`` line."""
    found = ((number, re.match(r"([a-zA-Z_]+)=(\S*)", line.strip(" \t\r"))) for number, line in numbered(text))
    return tuple((number, match[1], match[2]) for number, match in found if match)


def loses_packets(settings: Settings) -> Iterator[Remark]:
    """The file alone enables heartbeat's test code."""
    losses = [
        (line, name, value) for line, name, value in settings if name in {"xmitloss", "rcvloss"} and value.strip("0.")
    ]
    what = ", ".join(f"{name}={value}" for _, name, value in losses)
    yield (
        losses[0][0] if losses else 0,
        f"This file enables heartbeat's test code{f' ({what})' if what else ''}: it drops heartbeats at random, sent "
        "ones with xmitloss and received ones with rcvloss. Remove it unless you test that loss "
        "[heartbeat/heartbeat.c]",
    )
