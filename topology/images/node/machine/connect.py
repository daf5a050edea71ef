"""Joins a ``docker exec`` to the chassis: standard input to its socket, its socket to standard output."""

import os
import select
import socket
import sys

chassis = socket.socket(socket.AF_UNIX)
chassis.connect("/run/monkeywrench.sock")
while True:
    readable, _, _ = select.select([0, chassis.fileno()], [], [])
    for source in readable:
        data = os.read(source, 65536)
        if not data:
            sys.exit()
        if source == 0:
            chassis.sendall(data)
        else:
            while data:
                data = data[os.write(1, data) :]
