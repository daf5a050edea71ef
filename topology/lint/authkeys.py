"""``/etc/ha.d/authkeys``: the key that signs heartbeat's messages. No finding ever contains a secret."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from harness.formats.lines import numbered
from topology.lint.model import ClusterFiles, Config, Hit, Remark, cited, others, per_node

PATH = "/etc/ha.d/authkeys"

METHODS = {"crc": False, "md5": True, "sha1": True}
"""The plugins of Debian's package, and whether each needs a secret."""
MAXAUTH = 16
"""Ids are below it (include/heartbeat.h)."""
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
    keys: tuple[Key, ...]
    signing: Key | None
    problems: tuple[Remark, ...]


@lru_cache(maxsize=64)
def parse(text: str) -> Authkeys:
    """Line by line, as parse_authfile of heartbeat/auth.c does: a key counts only after the auth line that names it."""
    auth: tuple[int, int] | None = None
    keys: list[Key] = []
    signing: Key | None = None
    problems: list[Remark] = []
    for number, line in numbered(text):
        words = line.strip(" \t\r\f")
        if not words or words.startswith("#"):
            continue
        if words.startswith("a"):
            match = re.match(r"auth\s*([+-]?[0-9]{1,9})", words)
            if match:
                auth = (number, int(match[1]))
            else:
                problems.append(
                    (
                        number,
                        "This auth line has no key id: heartbeat refuses to start. Write auth 1 [heartbeat/auth.c]",
                    )
                )
            continue
        key, complaint = _key(number, words)
        if complaint:
            problems.append((number, complaint))
        if key:
            keys.append(key)
            signing = key if auth and key.id == auth[1] else signing
    return Authkeys(auth, tuple(keys), signing, tuple(problems))


def _key(number: int, words: str) -> tuple[Key | None, str]:
    """A key line, and the problem with it."""
    match = re.match(r"([+-]?[0-9]{1,9})\s*(\S+)\s*(\S*)\s*(.*)", words)
    if match is None:
        return (
            None,
            "This is neither an auth line nor a key line: heartbeat refuses to start. Remove it [heartbeat/auth.c]",
        )
    identity, method, secret, rest = int(match[1]), match[2], match[3], match[4]
    refused = "heartbeat refuses to start [heartbeat/auth.c]"
    if not 0 <= identity < MAXAUTH:
        return None, f"A key's id must be 0 to {MAXAUTH - 1}: {refused}"
    if method not in METHODS:
        # the word is not repeated: it may be the secret of a line that lacks its method
        return None, f"The method must be one of {', '.join(METHODS)}: {refused}"
    if METHODS[method] and not secret:
        return None, f"{method} needs a secret: {refused}"
    if not METHODS[method] and secret:
        return None, f"{method} takes no secret: {refused}"
    extra = rest and not rest.startswith("#")
    problem = "Only the first word is the secret; heartbeat ignores the rest of the line [heartbeat/auth.c]"
    complaint = problem if extra else ""
    return Key(number, identity, method, secret), complaint


def refused_lines(authkeys: Authkeys) -> Iterator[Remark]:
    """Lines that heartbeat rejects, or reads only in part."""
    yield from authkeys.problems


def no_key(authkeys: Authkeys) -> Iterator[Remark]:
    """Refused at start."""
    refused = "heartbeat refuses to start [authkeys(5), heartbeat/auth.c]"
    if authkeys.auth is None:
        yield 0, f"There is no auth line, which selects the key: {refused}"
    elif authkeys.signing is None:
        line, identity = authkeys.auth
        early = any(key.id == identity for key in authkeys.keys)
        what = "must come after this line" if early else "is missing"
        yield line, f"auth {identity}: the line of key {identity} {what}; {refused}"


def insecure_method(authkeys: Authkeys) -> Iterator[Remark]:
    """Accepted: any machine on the network can impersonate a director."""
    if authkeys.signing and authkeys.signing.method == "crc":
        yield (
            authkeys.signing.line,
            "crc is a checksum without a secret: any machine on the network can impersonate a director. Use sha1 "
            "[authkeys(5)]",
        )


def permissions(config: Config, _: ClusterFiles) -> Iterator[Hit]:
    """Refused at start when others can read it."""
    if config.mode & READABLE:
        yield Hit(
            config,
            0,
            f"Its mode is {config.mode & 0o777:o}, so others can read it: heartbeat refuses to start. "
            "Set it to 600 [authkeys(5), heartbeat/auth.c]",
        )
    elif config.mode & WRITABLE:
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
