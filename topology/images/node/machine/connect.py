"""Connects a ``docker exec`` to the chassis, or to a port of the container's loopback if one is given.

Copies standard input to the socket, and the socket to standard output.
"""

import os
import select
import socket
import sys

if len(sys.argv) > 1:
    there = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
else:
    there = socket.socket(socket.AF_UNIX)
    there.connect("/run/monkeywrench.sock")
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
