"""A program in a container, and both ends of what goes through it: one ``docker exec``, which needs no network."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

STDOUT = 1
FRAME_HEADER_BYTES = 8
"""Docker's attach protocol: one byte for the stream, three empty, four for the length (big endian)."""


class Pipe:
    """Bytes to a program's standard input, and from its standard output."""

    def __init__(self, client: Any, container: Any, argv: Sequence[str]) -> None:
        call = client.api.exec_create(container.id, list(argv), stdin=True, stdout=True, stderr=True)
        stream = client.api.exec_start(call["Id"], socket=True)
        self._stream = stream  # keeps the connection alive
        self._socket = getattr(stream, "_sock", stream)
        self._socket.settimeout(None)

    def send(self, data: bytes) -> None:
        """All of it. Raises OSError when the program is gone."""
        self._socket.sendall(data)

    def pieces(self) -> Iterator[bytes]:
        """What the program writes, as it comes, until it ends. Raises OSError when the connection breaks."""
        while header := self._exactly(FRAME_HEADER_BYTES):
            kind, length = struct.unpack(">BxxxL", header)
            data = self._exactly(length)
            if kind == STDOUT:
                yield data

    def close(self) -> None:
        """End the connection; the program reads the end of its input."""
        with suppress(OSError):  # already gone
            self._socket.shutdown(2)

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            piece = self._socket.recv(length - len(data))
            if not piece:
                return b""
            data += piece
        return data
