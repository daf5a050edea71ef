"""``/etc/ha.d/OnlyForTesting``: heartbeat's own loss injector."""

from __future__ import annotations

import re
from collections.abc import Iterator

from topology.lint.model import Remark, numbered

PATH = "/etc/ha.d/OnlyForTesting"

Settings = tuple[tuple[int, str, str], ...]


def parse(text: str) -> Settings:
    """(line, name, value) of each ``name=value`` line."""
    found = ((number, re.match(r"([a-zA-Z_]+)=(\S*)", line.strip(" \t\r"))) for number, line in numbered(text))
    return tuple((number, match[1], match[2]) for number, match in found if match)


def loses_packets(settings: Settings) -> Iterator[Remark]:
    """Its mere presence switches heartbeat's test code on."""
    losses = [
        (line, name, value) for line, name, value in settings if name in {"xmitloss", "rcvloss"} and value.strip("0.")
    ]
    what = ", ".join(f"{name}={value}" for _, name, value in losses)
    yield (
        losses[0][0] if losses else 0,
        f"This file switches heartbeat's test code on{f' ({what})' if what else ''}: it drops heartbeats by chance, "
        "sent ones by xmitloss and heard ones by rcvloss. Leave it out, unless the loss is what is tested "
        "[heartbeat/heartbeat.c]",
    )
