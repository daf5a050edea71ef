"""The serial line from a chassis to the agent in its guest: messages in frames, one frame outstanding at a time."""

from __future__ import annotations

import contextlib
import json
import socket
import time

from wire import Lines, encode

TYPE_CHECKING = False  # as in wire.py
if TYPE_CHECKING:
    from collections.abc import Callable

    from wire import Message, Poller

FRAME_BYTES = 1000  # below the 4096 bytes that a serial port's line discipline buffers (n_tty.c, N_TTY_BUF_SIZE)
NUDGE_S = 0.1


class Serial:
    """Sends messages to a guest's agent; ``received`` gets each of the agent's."""

    def __init__(self, poller: Poller, received: Callable[[Message], None]) -> None:
        self.poller, self.received = poller, received
        self.connection: socket.socket | None = None
        self.lines, self.frames, self.in_flight, self.next_nudge = Lines(), list[bytes](), False, 0.0

    def attach(self, connection: socket.socket) -> None:
        """Use the serial line of a machine that boots."""
        self.detach()
        self.connection, self.lines = connection, Lines()
        self.poller.add(connection.fileno(), self.readable)

    def detach(self) -> None:
        """Close the line of a machine that is down; what was not sent yet is dropped."""
        if self.connection:
            self.poller.remove(self.connection.fileno())
            self.connection.close()
        self.connection, self.frames, self.in_flight = None, [], False

    def send(self, message: Message) -> None:
        """Queue a message, cut into frames."""
        data = encode(message)[:-1]
        pieces = [data[at : at + FRAME_BYTES] for at in range(0, len(data), FRAME_BYTES)]
        self.frames += [(b"." if piece is pieces[-1] else b"-") + piece + b"\n" for piece in pieces]
        self.next_frame()

    def next_frame(self) -> None:
        """Send one frame, unless one is outstanding."""
        if self.connection and self.frames and not self.in_flight:
            self.in_flight, self.next_nudge = True, time.monotonic() + NUDGE_S
            with contextlib.suppress(OSError):  # the machine is going down: the chassis sees its process end
                self.connection.sendall(self.frames.pop(0))

    def nudge(self) -> None:
        """Send an empty line after a frame that the guest does not fetch.

        User-Mode Linux is notified of input once, when it arrives (edge-triggered), and sometimes misses that. The
        frame then stays in the socket until more arrives, and nothing more does. Seen once in some hundred requests to
        a busy director.
        """
        self.next_nudge = time.monotonic() + NUDGE_S
        with contextlib.suppress(OSError):  # the buffer is full, so the guest is notified anyway; or it goes down
            if self.connection:
                self.connection.send(b"\n", socket.MSG_DONTWAIT)

    def readable(self) -> None:
        """Acknowledgements or messages of the agent arrived."""
        if self.connection is None:
            return
        try:
            data = self.connection.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.poller.remove(self.connection.fileno())
            return
        for line in self.lines.feed(data):
            if line == b"+":
                self.in_flight = False
                self.next_frame()
            elif line:
                self.received(json.loads(line))
