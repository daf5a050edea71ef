"""The feeds of a lab: VIP owners from the directors, ARP on the wire, logs, and the samples of the collectors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median
from typing import Any

from harness.protocols import Node, Stream
from harness.records import Entry, LabError, Line, Power
from topology.lab.node import DockerNode

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


WORK = """
import time
began = time.monotonic()
sum(range(2_500_000))
print(round(1000 * (time.monotonic() - began), 3))
"""
"""A fixed piece of work (about 30 ms of a processor), and how many ms it took."""
PACE = 'while :; do python3 -IS -c "$1"; sleep 1; done'
PACE_NOW = 'for _ in 1 2 3 4 5 6 7 8 9; do python3 -IS -c "$1"; sleep 0.1; done'


class OwnersFeed:
    """``power`` and ``holds`` of one director, as its kernel reports them to its chassis."""

    def __init__(self, node: Node, vips: Iterable[str]) -> None:
        self._node, self._vips = node, frozenset(vips)
        self.name = f"owners:{node.name}"

    def ready(self) -> bool:
        """Always: the chassis runs while the machine is off."""
        return True

    def open(self) -> Stream:
        """Watch the machine."""
        return self._node.watch()

    def entries(self, line: Line) -> Iterable[Entry]:
        """One op per change or sample."""
        seen, node = json.loads(line.text), self._node.name
        if "power" in seen:
            yield Entry(line.time_ns, f"power:{node}", "info", "power", {"node": node, "power": seen["power"]})
        else:
            held = [address for address in seen["addresses"] if address in self._vips]
            yield Entry(line.time_ns, self.name, "info", "holds", {"node": node, "vips": held})


class LogFeed:
    """The new lines in the log of a service on a node."""

    def __init__(self, node: Node, service: str, path: str) -> None:
        self._node, self._path = node, path
        self.name = f"log:{node.name}:{service}"

    def ready(self) -> bool:
        """True while the machine runs."""
        return self._node.power() is Power.RUNNING

    def open(self) -> Stream:
        """Follow the file from its end, even if it does not exist yet."""
        return self._node.stream("tail", "-n", "0", "-F", self._path)

    def entries(self, line: Line) -> Iterable[Entry]:
        """One op per line."""
        yield Entry(line.time_ns, self.name, "info", "log", line.text)


CONSOLE_ERROR = (
    r"\bBUG: |\bOops\b|Call Trace:|Kernel panic|: segfault at |Out of memory: |blocked for more than|EXT4-fs error"
    r"|\[ERROR\]"
)
"""Error lines on a console: of the kernel (lib/bug.c, kernel/panic.c, arch/*/kernel/dumpstack.c, mm/oom_kill.c,
kernel/hung_task.c, fs/ext4/super.c), and of services that print there ("Error Log" in MariaDB's documentation)."""


class ConsoleFeed:
    """The console of a machine's kernel and services, read in its chassis, so that it includes a panic."""

    def __init__(self, node: DockerNode) -> None:
        self._node = node
        self.name = f"log:{node.name}:console"

    def ready(self) -> bool:
        """Always: the chassis runs while the machine is off."""
        return True

    def open(self) -> Stream:
        """Follow the console from its current end."""
        return self._node.chassis_stream("tail", "-n", "0", "-F", CONSOLE_LOG)

    def entries(self, line: Line) -> Iterable[Entry]:
        """One op per line."""
        yield Entry(line.time_ns, self.name, "info", "log", line.text)


class CpuFeed:
    """The processor time that a node has used: everything in its container, its own kernel included."""

    def __init__(self, node: DockerNode) -> None:
        self._node = node
        self.name = f"cpu:{node.name}"

    def ready(self) -> bool:
        """Always: the chassis runs while the machine is off."""
        return True

    def open(self) -> Stream:
        """Read its control group every 2 s."""
        return self._node.chassis_stream("sh", "-c", CPU)

    def entries(self, line: Line) -> Iterable[Entry]:
        """One op per sample."""
        used = line.text.strip()
        if used.isdecimal():
            value = {"node": self._node.name, "used_ms": round(int(used) / 1_000_000)}
            yield Entry(line.time_ns, self.name, "info", "cpu", value)
        else:
            yield Entry(line.time_ns, self.name, "info", "feed", line.text, "unreadable line")


class PaceFeed:
    """How long a fixed piece of work takes in the switch, which shares the machine with all nodes and is none."""

    name = "pace:switch"

    def __init__(self, switch: Node) -> None:
        self._switch = switch

    def ready(self) -> bool:
        """Always: the switch is up as long as the lab is."""
        return True

    def open(self) -> Stream:
        """Do it once a second."""
        return self._switch.stream("sh", "-c", PACE, "sh", WORK)

    def entries(self, line: Line) -> Iterable[Entry]:
        """One op per sample."""
        took_ms = _pace_ms(line.text)
        if took_ms is None:
            yield Entry(line.time_ns, self.name, "info", "feed", line.text, "unreadable line")
        else:
            yield Entry(line.time_ns, self.name, "info", "pace", {"ms": took_ms})


def pace_ms(switch: Node) -> float:
    """How long it takes now: the median of some. Raises LabError."""
    printed = switch.exec("sh", "-c", PACE_NOW, "sh", WORK, timeout_s=60).stdout
    took = [each for line in printed.splitlines() if (each := _pace_ms(line)) is not None]
    if not took:
        raise LabError("the speed of the machine cannot be measured in the switch: it printed no number")
    return median(took)


def _pace_ms(text: str) -> float | None:
    try:
        took_ms = float(text)
    except ValueError:
        return None
    return took_ms if 0 < took_ms < inf else None


@dataclass(frozen=True)
class ClockReference:
    """A time of day, the lab's clock at that moment, and the round trip of reading both."""

    wall_ns: int
    lab_ns: int
    round_trip_ns: int

    def offset_ms(self, wall_ns: int, lab_ns: int) -> float:
        """How far a clock is ahead that showed ``wall_ns`` at ``lab_ns``."""
        return round((wall_ns - self.wall_ns - (lab_ns - self.lab_ns)) / 1_000_000, 3)


class CollectorFeed:
    """The samples of a node's collector for the node's parts (``images/node/machine/collector.py``)."""

    def __init__(self, node: Node, wanted: Sequence[Mapping[str, Any]], reference: ClockReference) -> None:
        self._node, self._wanted, self._clock_reference = node, wanted, reference
        self.name = f"collector:{node.name}"

    def ready(self) -> bool:
        """True while the machine runs."""
        return self._node.power() is Power.RUNNING

    def open(self) -> Stream:
        """Start the collector."""
        return self._node.stream("python3", "-IS", COLLECTOR, json.dumps(self._wanted))

    def entries(self, line: Line) -> Iterable[Entry]:
        """One op per line, at the time of the line's arrival: a fault may have changed the node's own clock."""
        try:
            sample = json.loads(line.text)
        except ValueError:
            yield Entry(line.time_ns, self.name, "info", "feed", line.text, "unreadable line")
            return
        what, value = sample["what"], sample["value"]
        process = f"{what}:{self._subject(what, value)}"
        if what == "clock":
            offset_ms = self._clock_reference.offset_ms(value["wall_ns"], line.time_ns)
            value = {"offset_ms": offset_ms, "round_trip_ms": self._clock_reference.round_trip_ns / 1_000_000}
        value = value["line"] if what == "log" else {"node": self._node.name, **value}
        yield Entry(line.time_ns, process, sample["type"], what, value, sample.get("error"))

    def _subject(self, what: str, value: Mapping[str, Any]) -> str:
        if what == "log":
            return f"{self._node.name}:{value['service']}"
        return str(value["of"]) if what == "backup" else self._node.name


class ArpFeed:
    """Every ARP frame on a segment, captured in the switch."""

    def __init__(self, switch: Node, segment: str, macs: Mapping[str, str]) -> None:
        self._switch, self._segment, self._macs = switch, segment, macs
        self.name = f"arp:{segment}"

    def ready(self) -> bool:
        """Always: the switch is up as long as the lab is."""
        return True

    def open(self) -> Stream:
        """Watch the segment's bridge."""
        return self._switch.stream("python3", "/usr/lib/monkeywrench/arpwatch.py", f"br-{self._segment}")

    def entries(self, line: Line) -> Iterable[Entry]:
        """One op per frame, and one per second as a sign of life."""
        seen = json.loads(line.text)
        time_ns = seen.pop("t")
        if "mac" in seen:
            seen["node"] = self._macs.get(seen["mac"])
        yield Entry(time_ns, self.name, "info", "arp", seen)
