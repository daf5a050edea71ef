"""``/etc/ha.d/shellfuncs``: what heartbeat's scripts tell heartbeat."""

from __future__ import annotations

import re
from collections.abc import Iterator

from topology.lint.model import Remark, numbered

PATH = "/etc/ha.d/shellfuncs"

Lines = tuple[tuple[int, str], ...]


def parse(text: str) -> Lines:
    """(line, what it says) of each line that says something."""
    return tuple(numbered(text))


def message_in_pieces(lines: Lines) -> Iterator[Remark]:
    """cat(1) writes what it has read: of a message that three commands print, parts. The last function counts."""
    writers = [(number, line) for number, line in lines if re.search(r">>?\s*\"?\$\{?HA_FIFO\b", line)]
    if writers and re.search(r"\|\s*cat\b", writers[-1][1]):
        yield (
            writers[-1][0],
            "A message to heartbeat goes into its FIFO in pieces, as cat reads them. The reader forgets what it has of "
            "a message when its alarm rings, once a second: now and then an address is taken by nobody. Debian's file "
            "does so; write it in one piece: printf '>>>\\n%s\\n<<<\\n' \"$(cat)\" >> $HA_FIFO "
            "[heartbeat/heartbeat.c, fifo_child]",
        )
