"""What ``ipvsadm -Ln`` and ``ipvsadm -L --daemon`` print (ipvsadm(8)). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

FORWARDING = {"masq": "Masq", "gate": "Route", "ipip": "Tunnel"}
"""ldirectord's words for the forwarding methods -> those of ipvsadm."""


@dataclass(frozen=True)
class Destination:
    """A real server of a virtual service."""

    address: str
    port: int
    forwarding: str
    """``Masq``, ``Route``, ``Tunnel`` or ``Local``."""
    weight: int
    active: int
    """Connections."""
    inactive: int


@dataclass(frozen=True)
class Service:
    """A virtual service and its real servers."""

    protocol: str
    """``TCP``, ``UDP``, ``SCTP``, or ``FWM`` for a firewall mark."""
    address: str
    """``203.0.113.101:80``, or the number of a firewall mark."""
    scheduler: str
    persistence_s: int
    """0 for none."""
    destinations: tuple[Destination, ...] = ()


_SERVICE = re.compile(r"(TCP|UDP|SCTP|FWM)\s+(\S+)(?:\s+(\S+))?(.*)")
_PERSISTENT = re.compile(r"\bpersistent ([0-9]+)")
_DESTINATION = re.compile(r"\s*-> (\S+):([0-9]+)\s+(\w+)\s+([0-9]+)\s+([0-9]+)\s+([0-9]+)", re.ASCII)


MOST_DIGITS = 20
"""The kernel's counters have 64 bits; a line with a longer number is not from ipvsadm."""


def parse(printed: str) -> tuple[Service, ...]:
    """The virtual services of ``ipvsadm -Ln``, in its order. Lines of another form are skipped."""
    services: list[tuple[re.Match[str], list[Destination]]] = []
    for line in printed.splitlines():
        if match := _SERVICE.match(line):
            services.append((match, []))
        elif services and (match := _DESTINATION.match(line)):
            address, port, forwarding, *counts = match.groups()
            if max(map(len, (port, *counts))) > MOST_DIGITS:
                continue
            weight, active, inactive = (int(count) for count in counts)
            services[-1][1].append(Destination(address, int(port), forwarding, weight, active, inactive))
    return tuple(_service(match, destinations) for match, destinations in services)


def _service(match: re.Match[str], destinations: list[Destination]) -> Service:
    persistent = _PERSISTENT.search(match[4])
    return Service(
        match[1], match[2], match[3] or "", int(persistent[1][:MOST_DIGITS]) if persistent else 0, tuple(destinations)
    )


def parse_daemons(printed: str) -> tuple[str, ...]:
    """The roles of the running connection sync daemons that ``ipvsadm -L --daemon`` lists: ``master``, ``backup``."""
    return tuple(re.findall(r"(?m)^(master|backup) sync daemon", printed))
