"""Sample the site once, as a client sees it, and print JSON.

``site.py dns RESOLVER SITE TIMES``  the resolver's answers: ``[["203.0.113.101", ...], ...]``
``site.py http SITE VIP ...``        the node that serves the page through each VIP: ``{"<vip>": "<node>" or null}``
"""

from __future__ import annotations

import http.client
import json
import sys

import dnsquery

TIMEOUT_S = 2


def resolve(resolver: str, site: str) -> list[str]:
    """The addresses in the resolver's answer, in its order; none when there is no answer."""
    question = dnsquery.query(site, 1)
    try:
        answer = dnsquery.read(question, dnsquery.ask(resolver, question, TIMEOUT_S))
    except (OSError, ValueError):
        return []
    return [address for address, _ in answer["records"]]


def fetch(vip: str, site: str) -> str | None:
    """The node that serves the site's page through a VIP; None if no node does."""
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
