"""``/etc/ha.d/shellfuncs``: the functions with which heartbeat's scripts send messages to heartbeat."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.formats.lines import numbered
from topology.lint.model import Remark

PATH = "/etc/ha.d/shellfuncs"

Lines = tuple[tuple[int, str], ...]


def parse(text: str) -> Lines:
    """The lines with their numbers."""
    return tuple(numbered(text))


def message_in_pieces(lines: Lines) -> Iterator[Remark]:
    """cat(1) writes what it has read so far: a message that 3 commands print goes out in pieces."""
    writers = [(number, line) for number, line in lines if re.search(r">>?\s*\"?\$\{?HA_FIFO\b", line)]
    if writers and re.search(r"\|\s*cat\b", writers[-1][1]):
        yield (
            writers[-1][0],
            "cat writes a message to heartbeat's FIFO in pieces, and heartbeat's reader drops an incomplete message "
            "once per second: sometimes no director takes an address. Debian's file has this defect. Write the message "
            "in one piece: printf '>>>\\n%s\\n<<<\\n' \"$(cat)\" >> $HA_FIFO "
            "[heartbeat/heartbeat.c, fifo_child]",
        )
