"""What a lab shows of itself: VIP owners from the directors, ARP on the wire, logs, and what nodes' witnesses see."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.protocols import Node, Stream
from harness.records import Entry, Line, Power
from topology.lab.node import DockerNode
from topology.lint import ldirectord_syntax

HEARTBEAT_LOG = "/var/log/ha-log"
CONSOLE_LOG = "/var/log/console.log"
COLLECTOR = "/usr/lib/monkeywrench/collector.py"
CPU = """
new=/sys/fs/cgroup/cpu.stat old=/sys/fs/cgroup/cpuacct/cpuacct.usage
while :; do
    if [ -e "$new" ]; then read -r _ used < "$new"; used=${used}000; else read -r used < "$old"; fi
    echo "$used"
    sleep 2
done
"""
"""Nanoseconds of processor time: ``usage_usec`` of cgroup v2 (its first line), or version 1's own file."""


class OwnersFeed:
    """``power`` and ``holds`` of one director, as its own kernel tells its chassis."""

    def __init__(self, node: Node, vips: Iterable[str]) -> None:
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

    def __init__(self, node: Node, what: str, path: str) -> None:
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


class ConsoleFeed:
    """What a machine's kernel and its services print, seen in its chassis: a panic's last words too."""

    def __init__(self, node: DockerNode) -> None:
        self._node = node
        self.name = f"log:{node.name}:console"

    def ready(self) -> bool:
        """Always: the chassis outlives the machine."""
        return True

    def open(self) -> Stream:
        """Follow the console from here on."""
        return self._node.chassis_stream("tail", "-n", "0", "-F", CONSOLE_LOG)

    def entries(self, line: Line) -> Iterable[Entry]:
        """One op a line."""
        yield Entry(line.time_ns, self.name, "info", "log", line.text)


class CpuFeed:
    """How much processor time a node has used, all that its container did: its kernel, or its programs."""

    def __init__(self, node: DockerNode) -> None:
        self._node = node
        self.name = f"cpu:{node.name}"

    def ready(self) -> bool:
        """Always: the chassis outlives the machine."""
        return True

    def open(self) -> Stream:
        """Ask its control group now and then."""
        return self._node.chassis_stream("sh", "-c", CPU)

    def entries(self, line: Line) -> Iterable[Entry]:
        """One op a sample."""
        used = line.text.strip()
        if used.isdecimal():
            value = {"node": self._node.name, "used_ms": round(int(used) / 1_000_000)}
            yield Entry(line.time_ns, self.name, "info", "cpu", value)
        else:
            yield Entry(line.time_ns, self.name, "info", "feed", line.text, "unreadable line")


@dataclass(frozen=True)
class ClockReference:
    """What time of day it was on the lab's clock once, and how long the question took."""

    wall_ns: int
    lab_ns: int
    round_trip_ns: int

    def offset_ms(self, wall_ns: int, lab_ns: int) -> float:
        """How far a clock is ahead that showed ``wall_ns`` at that moment."""
        return round((wall_ns - self.wall_ns - (lab_ns - self.lab_ns)) / 1_000_000, 3)


class CollectorFeed:
    """What a program on a node sees for the node's parts (``images/node/machine/collector.py``)."""

    def __init__(self, node: Node, wanted: Sequence[Mapping[str, Any]], reference: ClockReference) -> None:
        self._node, self._wanted, self._clock_reference = node, wanted, reference
        self.name = f"collector:{node.name}"

    def ready(self) -> bool:
        """True while the machine runs."""
        return self._node.power() is Power.RUNNING

    def open(self) -> Stream:
        """Start the program."""
        return self._node.stream("python3", "-IS", COLLECTOR, json.dumps(self._wanted))

    def entries(self, line: Line) -> Iterable[Entry]:
        """One op a line, at the time at which the line came: a node's own clock may be a fault's."""
        try:
            said = json.loads(line.text)
        except ValueError:
            yield Entry(line.time_ns, self.name, "info", "feed", line.text, "unreadable line")
            return
        what, value = said["what"], said["value"]
        process = f"{what}:{self._whose(what, value)}"
        if what == "clock":
            offset_ms = self._clock_reference.offset_ms(value["wall_ns"], line.time_ns)
            value = {"offset_ms": offset_ms, "round_trip_ms": self._clock_reference.round_trip_ns / 1_000_000}
        value = value["line"] if what == "log" else {"node": self._node.name, **value}
        yield Entry(line.time_ns, process, said["type"], what, value, said.get("error"))

    def _whose(self, what: str, value: Mapping[str, Any]) -> str:
        if what == "log":
            return f"{self._node.name}:{value['service']}"
        return str(value["of"]) if what == "backup" else self._node.name


class ArpFeed:
    """Every ARP frame on a segment, seen in the switch."""

    def __init__(self, switch: Node, segment: str, macs: Mapping[str, str]) -> None:
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


_DURATION = re.compile(r"^(\d+(?:\.\d+)?)\s*(ms|us)?$")
_MS = {"ms": 1.0, "us": 0.001, None: 1000.0}


def parse_ha_cf(text: str) -> dict[str, int]:
    """``keepalive`` and ``deadtime`` of an ha.cf, in milliseconds; a bare number is seconds (ha.cf(5)). Pure."""
    found = {"keepalive": 1000, "deadtime": 30000}  # heartbeat's own defaults (heartbeat/config.c)
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if len(words) == 2 and words[0] in found and (match := _DURATION.match(words[1])):
            found[words[0]] = round(float(match[1]) * _MS[match[2]])
    return found


def parse_ldirectord_cf(text: str) -> dict[str, Any]:
    """The facts of :class:`Cluster` that an ldirectord.cf says, as ldirectord 4.12 reads it; times in ms. Pure.

    Of several virtual services the longest times count, and the first one's kind of check, scheduler and persistence.
    What the file does not say is left out: then ldirectord's own defaults count.
    """
    file = ldirectord_syntax.parse(text)
    if not file.services:
        return {}

    def most(name: str) -> int | None:
        found = [setting.number for service in file.services if (setting := file.of(service, name))]
        return max(found, default=None)

    first = file.services[0]
    timeout_s = most("negotiatetimeout" if first.negotiates else "checktimeout")
    interval_s = most("checkinterval")
    quiescent, scheduler, persistent = (file.of(first, name) for name in ("quiescent", "scheduler", "persistent"))
    found = {
        "check_interval_ms": None if interval_s is None else 1000 * interval_s,
        # without a setting of its own, a check that only connects has 5 s (ldirectord(8), checktimeout)
        "check_timeout_ms": 1000 * timeout_s if timeout_s is not None else None if first.negotiates else 5000,
        "check_count": most("checkcount"),
        "failure_count": most("failurecount"),
        "checktype": first.checktype,
        # the code's own defaults, whatever the manual says
        "quiescent": bool(quiescent and quiescent.value == "yes"),
        "scheduler": scheduler.word if scheduler else "wrr",
        "persistence_s": persistent.number if persistent else None,
    }
    return {name: value for name, value in found.items() if value is not None}
