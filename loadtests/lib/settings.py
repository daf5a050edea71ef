"""The environment variables of the locustfile, read in one place.

- ``MONKEYWRENCH_RESOLVER``: the lab's resolver, ``address`` or ``address:port``; default 203.0.113.53
- ``MONKEYWRENCH_OPS``: where the ops of the history go, one JSON object per line: a path, or the number of an open file
  descriptor; default nowhere. With ``/dev/stdout`` all other output goes to standard error
- ``MONKEYWRENCH_CLIENT``: how users treat addresses and connections, one of ``POLICIES``; default browser
- ``MONKEYWRENCH_TIMEOUT_MS``: longest wait for a connection, and for each next part of an answer; default 5000
- ``MONKEYWRENCH_THINK_MS``: pause after each op; default 1000
- ``MONKEYWRENCH_RATE``: ops per second of each user, however long they take (constant pacing); default none: pause
- ``MONKEYWRENCH_MIX``: the ops of players by weight, as JSON; default ``USUAL_MIX`` in ``site.py``
- ``MONKEYWRENCH_ARRIVALS``: open arrivals, in the form of ``arrivals.read``: each op has its planned time, and there is
  no pause. An op that finds all users busy starts as soon as one is free, and its time counts from when it was planned.
  Default none: closed loop
- ``MONKEYWRENCH_REPLAY``: a JSON file for ``Replayer``: ``[[seconds, path], ...]``, in order; like open arrivals, and
  each op asks for its own page
- ``MONKEYWRENCH_SHARE``: ``k/n``: this process does the planned ops k, k + n, ...; processes with all k from 0 to n - 1
  do all of them. Default 0/1
- ``MONKEYWRENCH_READ``: a JSON file for ``Reader``, in the form of ``reader.requests``
- ``MONKEYWRENCH_PROCESS``: name of this process in the history; default user
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from loadtests.lib.site import USUAL_MIX

PREFIX = "MONKEYWRENCH_"
T = TypeVar("T")


class SettingsError(Exception):
    """An environment variable that has no meaning."""


@dataclass(frozen=True)
class Policy:
    """How a user treats addresses and connections. ``kept`` is how long a connection is kept: op, visit or forever."""

    next_address: bool
    """Where an address takes no connection, try the next one of the DNS answer at once."""
    kept: str


POLICIES = {
    "browser": Policy(next_address=True, kept="visit"),
    "first-address": Policy(next_address=False, kept="visit"),
    "keep-alive": Policy(next_address=False, kept="forever"),
    "new-connections": Policy(next_address=False, kept="op"),
}


@dataclass(frozen=True)
class Settings:
    """One field for each variable."""

    resolver: tuple[str, int]
    ops: str
    policy: Policy
    timeout_s: float
    think_s: float
    rate: float
    mix: Mapping[str, int]
    arrivals: str
    replay: str
    share: tuple[int, int]
    read: str
    process: str


def read(environment: Mapping[str, str]) -> Settings:
    """The settings in an environment. Raises SettingsError. Pure."""

    def get(name: str, default: str, convert: Callable[[str], T]) -> T:
        text = environment.get(PREFIX + name) or default
        try:
            return convert(text)
        except SettingsError as error:
            raise SettingsError(f"{PREFIX}{name}: {error}") from None
        except ValueError:
            raise SettingsError(f"{PREFIX}{name}: invalid value {text!r} (example: {default})") from None

    return Settings(
        resolver=get("RESOLVER", "203.0.113.53", _resolver),
        ops=get("OPS", "", str),
        policy=get("CLIENT", "browser", _policy),
        timeout_s=get("TIMEOUT_MS", "5000", int) / 1000,
        think_s=get("THINK_MS", "1000", int) / 1000,
        rate=get("RATE", "0", float),
        mix=get("MIX", json.dumps(USUAL_MIX), _mix),
        arrivals=get("ARRIVALS", "", str),
        replay=get("REPLAY", "", str),
        share=get("SHARE", "0/1", _share),
        read=get("READ", "", str),
        process=get("PROCESS", "user", str),
    )


def _resolver(text: str) -> tuple[str, int]:
    address, _, port = text.partition(":")
    return address, int(port or 53)


def _policy(text: str) -> Policy:
    if text not in POLICIES:
        raise SettingsError(f"unknown client {text!r} (one of: {', '.join(POLICIES)})")
    return POLICIES[text]


def _share(text: str) -> tuple[int, int]:
    first, processes = map(int, text.split("/"))
    return first, processes


def _mix(text: str) -> Mapping[str, int]:
    mix: dict[str, int] = json.loads(text)
    if unknown := sorted(mix.keys() - USUAL_MIX.keys()):
        raise SettingsError(f"unknown op {unknown[0]!r} (one of: {', '.join(USUAL_MIX)})")
    if not any(mix.values()):
        raise SettingsError("at least one op needs a weight above 0")
    return mix
