"""One op before it is sent."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple


class Request(NamedTuple):
    """``asked`` goes into the history; with ``data``, a form or a body, it is a POST."""

    f: str
    asked: Mapping[str, Any]
    path: str
    data: dict[str, Any] | bytes | None = None

    @property
    def method(self) -> str:
        """GET or POST."""
        return "GET" if self.data is None else "POST"

    @property
    def name(self) -> str:
        """What Locust counts it under: the path without its parameters."""
        return self.path.partition("?")[0]


@functools.cache
def process_id(pid: int) -> str:  # noqa: ARG001 (the key of the cache)
    """A random name of this process, with which the ids of its ops begin. Locust may fork after this file was read."""
    return secrets.token_hex(4)
