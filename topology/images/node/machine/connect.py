"""Connects a ``docker exec`` to the chassis, or to the socket or the port of the container's loopback that is given.

Copies standard input to the socket, and the socket to standard output.
"""

import os
import select
import socket
import sys

place = sys.argv[1] if len(sys.argv) > 1 else "/run/monkeywrench.sock"
if place.startswith("/"):
    there = socket.socket(socket.AF_UNIX)
    there.connect(place)
else:
    there = socket.create_connection(("127.0.0.1", int(place)))
while True:
    readable, _, _ = select.select([0, there.fileno()], [], [])
    for source in readable:
        data = os.read(source, 65536)
        if not data:
            sys.exit()
        if source == 0:
            there.sendall(data)
        else:
            while data:
                data = data[os.write(1, data) :]
