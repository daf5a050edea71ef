"""One look at the site as a client sees it. Prints JSON.

``site.py dns RESOLVER SITE TIMES``  the resolver's answers: ``[["203.0.113.101", ...], ...]``
``site.py http SITE VIP ...``        the node that serves the page through each VIP: ``{"<vip>": "<node>" or null}``
"""

from __future__ import annotations

import http.client
import json
import socket
import struct
import sys

TIMEOUT_S = 2
TYPE_A, CLASS_IN, ANSWER_A = 1, 1, b"\xc0\x0c\x00\x01\x00\x01"  # RFC 1035; the answer's name points to the question's


def resolve(resolver: str, site: str) -> list[str]:
    """The addresses in the resolver's answer, in its order; none when there is no answer."""
    question = b"".join(bytes([len(label)]) + label.encode() for label in site.split(".")) + b"\0"
    query = struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + question + struct.pack(">HH", TYPE_A, CLASS_IN)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(TIMEOUT_S)
        try:
            udp.sendto(query, (resolver, 53))
            answer = udp.recv(4096)
        except OSError:
            return []
    records = answer[len(query) :].split(ANSWER_A)[1:]
    return [socket.inet_ntoa(record[6:10]) for record in records]


def fetch(vip: str, site: str) -> str | None:
    """The node that serves the site's page through a VIP; None when none does."""
    connection = http.client.HTTPConnection(vip, 80, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/", headers={"Host": site})
        response = connection.getresponse()
        return response.getheader("X-Node") if response.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


if sys.argv[1] == "dns":
    resolver, name, times = sys.argv[2:]
    print(json.dumps([resolve(resolver, name) for _ in range(int(times))]))
else:
    name, *vips = sys.argv[2:]
    print(json.dumps({vip: fetch(vip, name) for vip in vips}))
