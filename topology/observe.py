"""What a lab shows of itself: VIP owners from the directors, ARP on the wire, heartbeat's log, IPVS tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from harness.protocols import Entry, Line, Power, RealServer, Stream
from topology.node import DockerNode

HEARTBEAT_LOG = "/var/log/ha-log"


class OwnersFeed:
    """``power`` and ``holds`` of one director, as its own kernel tells its chassis."""

    def __init__(self, node: DockerNode, vips: Iterable[str]) -> None:
        self._node, self._vips = node, frozenset(vips)
        self.name = f"owners:{node.name}"

    def ready(self) -> bool:
        """Always: the chassis outlives the machine."""
        return True

    def open(self) -> Stream:
        """Follow the machine."""
        return self._node.watch()

    def entries(self, line: Line) -> Iterable[Entry]:
        """One op for each change or sample."""
        seen, node = json.loads(line.text), self._node.name
        if "power" in seen:
            yield Entry(line.time_ns, f"power:{node}", "info", "power", {"node": node, "power": seen["power"]})
        else:
            held = [address for address in seen["addresses"] if address in self._vips]
            yield Entry(line.time_ns, self.name, "info", "holds", {"node": node, "vips": held})


class LogFeed:
    """The lines that a daemon of a node adds to its log."""

    def __init__(self, node: DockerNode, what: str, path: str) -> None:
        self._node, self._path = node, path
        self.name = f"log:{node.name}:{what}"

    def ready(self) -> bool:
        """True while the machine runs."""
        return self._node.power() is Power.RUNNING

    def open(self) -> Stream:
        """Follow the file from its end, whether or not it exists yet."""
        return self._node.stream("tail", "-n", "0", "-F", self._path)

    def entries(self, line: Line) -> Iterable[Entry]:
        """One op a line."""
        yield Entry(line.time_ns, self.name, "info", "log", line.text)


class ArpFeed:
    """Every ARP frame on a segment, seen in the switch."""

    def __init__(self, switch: DockerNode, segment: str, macs: Mapping[str, str]) -> None:
        self._switch, self._segment, self._macs = switch, segment, macs
        self.name = f"arp:{segment}"

    def ready(self) -> bool:
        """The switch is up as long as the lab is."""
        return True

    def open(self) -> Stream:
        """Watch the segment's bridge."""
        return self._switch.stream("python3", "/usr/lib/monkeywrench/arpwatch.py", f"br-{self._segment}")

    def entries(self, line: Line) -> Iterable[Entry]:
        """One op a frame, and one a second that says that the witness is awake."""
        seen = json.loads(line.text)
        time_ns = seen.pop("t")
        if "mac" in seen:
            seen["node"] = self._macs.get(seen["mac"])
        yield Entry(time_ns, self.name, "info", "arp", seen)


_SERVICE = re.compile(r"^TCP\s+(\S+:\d+)\s")
_SERVER = re.compile(r"^\s+->\s+(\S+):\d+\s+\S+\s+(\d+)\s+(\d+)\s+(\d+)")


def parse_ipvs(text: str, nodes: Mapping[str, str]) -> dict[str, tuple[RealServer, ...]]:
    """The output of ``ipvsadm -Ln``; ``nodes`` names the node of each real server's address. Pure."""
    table: dict[str, list[RealServer]] = {}
    service: list[RealServer] = []
    for line in text.splitlines():
        if match := _SERVICE.match(line):
            service = table.setdefault(match[1], [])
        elif match := _SERVER.match(line):
            weight, active, inactive = (int(number) for number in match.groups()[1:])
            service.append(RealServer(match[1], nodes.get(match[1], match[1]), weight, active, inactive))
    return {name: tuple(servers) for name, servers in table.items()}


_DURATION = re.compile(r"^(\d+(?:\.\d+)?)\s*(ms|us|s)?$")
_MS = {"ms": 1.0, "us": 0.001, "s": 1000.0, None: 1000.0}


def parse_ha_cf(text: str) -> dict[str, int]:
    """``keepalive`` and ``deadtime`` of an ha.cf, in milliseconds; a bare number is seconds (ha.cf(5)). Pure."""
    found = {"keepalive": 1000, "deadtime": 30000}  # heartbeat's own defaults (heartbeat/config.c)
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if len(words) == 2 and words[0] in found and (match := _DURATION.match(words[1])):
            found[words[0]] = round(float(match[1]) * _MS[match[2]])
    return found
