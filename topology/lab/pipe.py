"""A program in a container with its standard input and output: one ``docker exec``, which needs no network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from docker.utils.socket import STDOUT, frames_iter


class Pipe:
    """Bytes to a program's standard input, and from its standard output."""

    def __init__(self, client: Any, container: Any, argv: Sequence[str]) -> None:
        call = client.api.exec_create(container.id, list(argv), stdin=True, stdout=True, stderr=True)
        stream = client.api.exec_start(call["Id"], socket=True)
        self._stream = stream  # keeps the connection alive
        self._socket = getattr(stream, "_sock", stream)
        self._socket.settimeout(None)

    def send(self, data: bytes) -> None:
        """Write all of it. Raises OSError when the program has ended."""
        self._socket.sendall(data)

    def pieces(self) -> Iterator[bytes]:
        """What the program writes, as it comes, until it ends. Raises OSError when the connection breaks."""
        for kind, data in frames_iter(self._socket, tty=False):  # type: ignore[no-untyped-call]
            if kind == STDOUT:
                yield data

    def close(self) -> None:
        """End the connection; the program reads the end of its input."""
        with suppress(OSError):  # already gone
            self._socket.shutdown(2)
