"""``/etc/ha.d/authkeys``: the key that heartbeats are signed with. No reason ever repeats a secret."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from topology.lint.model import Cluster, Config, Finding, Remark, cited, numbered, others, per_node

PATH = "/etc/ha.d/authkeys"

METHODS = {"crc": False, "md5": True, "sha1": True}
"""The plugins of Debian's package, and whether each needs a secret."""
MAXAUTH = 16
"""Ids are below it (include/heartbeat.h)."""
READABLE = 0o044
"""What heartbeat looks at (heartbeat/auth.c)."""
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
                problems.append((number, "This is no auth line: heartbeat refuses to start [heartbeat/auth.c]"))
            continue
        key, complaint = _key(number, words)
        if complaint:
            problems.append((number, complaint))
        if key:
            keys.append(key)
            signing = key if auth and key.id == auth[1] else signing
    return Authkeys(auth, tuple(keys), signing, tuple(problems))


def _key(number: int, words: str) -> tuple[Key | None, str]:
    """A key line, and what is wrong with it."""
    match = re.match(r"([+-]?[0-9]{1,9})\s*(\S+)\s*(\S*)\s*(.*)", words)
    if match is None:
        return None, "This is neither an auth line nor a key line: heartbeat refuses to start [heartbeat/auth.c]"
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
    complaint = "Only the first word is the secret, the rest of the line is dropped [heartbeat/auth.c]" if extra else ""
    return Key(number, identity, method, secret), complaint


def refused_lines(authkeys: Authkeys) -> Iterator[Remark]:
    """Lines that heartbeat does not take, or does not take whole."""
    yield from authkeys.problems


def no_key(authkeys: Authkeys) -> Iterator[Remark]:
    """Refused at start."""
    refused = "heartbeat refuses to start [authkeys(5), heartbeat/auth.c]"
    if authkeys.auth is None:
        yield 0, f"There is no auth line to say which key is used: {refused}"
    elif authkeys.signing is None:
        line, identity = authkeys.auth
        early = any(key.id == identity for key in authkeys.keys)
        what = "must stand after this line" if early else "is missing"
        yield line, f"auth {identity}: the line of key {identity} {what}; {refused}"


def insecure_method(authkeys: Authkeys) -> Iterator[Remark]:
    """Accepted: anybody on the wire can speak for a director."""
    if authkeys.signing and authkeys.signing.method == "crc":
        yield (
            authkeys.signing.line,
            "crc is a checksum without a secret: any machine on the wire can speak for a director. Use sha1 "
            "[authkeys(5)]",
        )


def permissions(config: Config, _: Cluster) -> Iterator[Finding]:
    """Refused at start when others can read it."""
    if config.mode & READABLE:
        yield Finding(
            config,
            0,
            f"Its mode is {config.mode & 0o777:o}, so that others can read it: heartbeat refuses to start. "
            "It must be 600 [authkeys(5), heartbeat/auth.c]",
        )
    elif config.mode & WRITABLE:
        yield Finding(
            config,
            0,
            f"Its mode is {config.mode & 0o777:o}: heartbeat does not mind, but whoever can write it can speak for "
            "a director. It must be 600 [authkeys(5)]",
        )


def keys_differ(configs: Sequence[Config], _: Cluster) -> Iterator[Finding]:
    """Accepted: each director takes the other for dead."""
    keys = {config: key for config in configs if (key := parse(config.text).signing)}
    both = "each director takes the other for dead, and both take both VIPs after initdead"
    if len({key.id for key in keys.values()}) > 1:
        here = cited(keys)
        auth = parse(here.text).auth
        values = per_node((config.node, f"auth {key.id}") for config, key in keys.items())
        yield Finding(
            here,
            auth[0] if auth else 0,
            f"The directors sign with different keys ({values}): {both}. That is so even while both files know both "
            "keys, so a key cannot be changed on one director after the other.",
            others(here, keys),
        )
    elif len({(key.method, key.secret) for key in keys.values()}) > 1:
        here = cited(keys)
        yield Finding(
            here,
            keys[here].line,
            f"Key {keys[here].id} is not the same on all directors: {both}.",
            others(here, keys),
        )
