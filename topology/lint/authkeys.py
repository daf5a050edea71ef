"""``/etc/ha.d/authkeys``: the key that signs heartbeat's messages. No finding ever contains a secret."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from harness.formats.lines import numbered
from topology.lint.model import ClusterFiles, Config, Hit, Remark, cited, others, per_node

PATH = "/etc/ha.d/authkeys"

READABLE = 0o044
"""The permission bits that heartbeat checks (heartbeat/auth.c)."""
WRITABLE = 0o022


@dataclass(frozen=True)
class Key:
    """One key line."""

    line: int
    id: int
    method: str
    secret: str


@dataclass(frozen=True)
class Authkeys:
    """The file as heartbeat reads it. ``auth`` is the last auth line: (line, id)."""

    auth: tuple[int, int] | None
    signing: Key | None


@lru_cache(maxsize=64)
def parse(text: str) -> Authkeys:
    """Line by line, as parse_authfile of heartbeat/auth.c does: a key counts only after the auth line that names it."""
    auth: tuple[int, int] | None = None
    signing: Key | None = None
    for number, line in numbered(text):
        words = line.strip(" \t\r\f")
        if match := re.match(r"auth\s*([+-]?[0-9]{1,9})", words):
            auth = (number, int(match[1]))
        elif auth and (match := re.match(r"([+-]?[0-9]{1,9})\s*(\S+)\s*(\S*)", words)) and int(match[1]) == auth[1]:
            signing = Key(number, int(match[1]), match[2], match[3])
    return Authkeys(auth, signing)


def insecure_method(authkeys: Authkeys) -> Iterator[Remark]:
    """Accepted: any machine on the network can impersonate a director."""
    if authkeys.signing and authkeys.signing.method == "crc":
        yield (
            authkeys.signing.line,
            "crc is a checksum without a secret: any machine on the network can impersonate a director. Use sha1 "
            "[authkeys(5)]",
        )


def permissions(config: Config, _: ClusterFiles) -> Iterator[Hit]:
    """Accepted when nobody else can read it: heartbeat refuses only that (heartbeat/auth.c)."""
    if config.mode & WRITABLE and not config.mode & READABLE:
        yield Hit(
            config,
            0,
            f"Its mode is {config.mode & 0o777:o}: heartbeat accepts it, but anyone who can write it can impersonate "
            "a director. Set it to 600 [authkeys(5)]",
        )


def keys_differ(configs: Sequence[Config], _: ClusterFiles) -> Iterator[Hit]:
    """Accepted: each director considers the other dead."""
    keys = {config: key for config in configs if (key := parse(config.text).signing)}
    both = "each director considers the other dead, and both take both VIPs after initdead"
    if len({key.id for key in keys.values()}) > 1:
        here = cited(keys)
        auth = parse(here.text).auth
        values = per_node((config.node, f"auth {key.id}") for config, key in keys.items())
        yield Hit(
            here,
            auth[0] if auth else 0,
            f"The directors sign with different keys ({values}): {both}, even if both files have both keys. Change "
            "the auth line on both directors at the same time.",
            others(here, keys),
        )
    elif len({(key.method, key.secret) for key in keys.values()}) > 1:
        here = cited(keys)
        yield Hit(
            here,
            keys[here].line,
            f"Key {keys[here].id} differs between the directors: {both}. Use the same key on both.",
            others(here, keys),
        )
