"""Forwarding a port of this machine's loopback to a port of a node, to open a page of the lab in a browser.

This machine does not join a network of the lab: each connection goes through its own ``docker exec``. That reaches only
nodes that share the host's kernel.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from harness.records import LabError
from topology.lab.channel import CONNECT
from topology.lab.node import DockerNode
from topology.lab.pipe import Pipe

LOOPBACK = "127.0.0.1"
PIECE_BYTES = 65536


@contextmanager
def doorway(client: Any, node: DockerNode, node_port: int, port: int) -> Iterator[int]:
    """Open it; yields the local port: ``port``, or a free one for 0. Raises LabError when the port is taken."""
    if node.kernel != "host":
        raise LabError(f"{node.name} has its own kernel, so its ports cannot be reached from this machine")
    try:
        listener = socket.create_server((LOOPBACK, port))
    except OSError as error:
        raise LabError(f"cannot use port {port} of {LOOPBACK}: {error.strerror}", "Choose another port.") from error
    threading.Thread(target=_serve, args=(listener, client, node, node_port), name="doorway", daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # otherwise accept() keeps waiting
        listener.close()


def _serve(listener: socket.socket, client: Any, node: DockerNode, node_port: int) -> None:
    with suppress(OSError):  # closed: this is over
        while True:
            visitor, _ = listener.accept()
            threading.Thread(target=_carry, args=(visitor, client, node, node_port), daemon=True).start()


def _carry(visitor: socket.socket, client: Any, node: DockerNode, node_port: int) -> None:
    """Carry one connection until either side closes it."""
    with visitor, suppress(OSError):
        pipe = Pipe(client, node.container, [*CONNECT, str(node_port)])
        threading.Thread(target=_bring, args=(pipe, visitor), daemon=True).start()
        try:
            while data := visitor.recv(PIECE_BYTES):
                pipe.send(data)
        finally:
            pipe.close()


def _bring(pipe: Pipe, visitor: socket.socket) -> None:
    with suppress(OSError):
        for piece in pipe.pieces():
            visitor.sendall(piece)
        visitor.shutdown(socket.SHUT_RDWR)
