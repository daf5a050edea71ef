"""Which addresses load may be sent to: the lab's and this machine's own, and only without a router in between.

With the lab down, its addresses are somewhere behind the default route. Load must fail there and not leave the machine.
"""

from __future__ import annotations

import ipaddress
import socket

LAB = tuple(ipaddress.ip_network(text) for text in ("198.18.0.0/15", "203.0.113.0/24", "127.0.0.0/8"))
"""RFC 2544 and RFC 5737: addresses that belong to no one, and loopback."""
NETWORKS = ", ".join(map(str, LAB))


class RefusedError(Exception):
    """An address outside of the lab."""


def in_lab(address: str) -> bool:
    """Whether an IPv4 address belongs to a lab or to this machine. Raises ValueError for any other text. Pure."""
    return any(ipaddress.IPv4Address(address) in network for network in LAB)


def check_address(address: str) -> str:
    """Return a lab's address that is reached without a router, or raise RefusedError. Sends nothing."""
    try:
        inside = in_lab(address)
    except ValueError as error:
        raise RefusedError(str(error)) from error
    if not inside:
        raise RefusedError(f"{address} is outside of {NETWORKS}: load stays inside the lab")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        route.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
        try:
            route.connect((address, 9))
        except OSError as error:
            raise RefusedError(f"{address} is not on this node's own networks: load stays inside the lab") from error
    return address


def in_reach(address: str) -> bool:
    """Whether ``check_address`` accepts an address. Sends nothing."""
    try:
        check_address(address)
    except RefusedError:
        return False
    return True
