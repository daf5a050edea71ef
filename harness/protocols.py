"""The seams of the harness: what a lab, a node, a fault and a feed promise.

``topology`` implements :class:`Lab` and :class:`Node` on Docker, ``harness.fake`` implements them in memory, ``faults``
and ``loadtests`` are written against them. Nothing here does anything.

All times are nanoseconds of **the lab's clock**: the monotonic clock of the machine that runs the client node. No
node's own clock is ever used, because a node's clock can be what a fault breaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from harness.records import (
    Cable,
    Cluster,
    Entry,
    LeaseStatus,
    Line,
    Output,
    Power,
    Proof,
    Status,
    Undo,
)


class Stream(Protocol):
    """A running program's lines. Iterating blocks until the next line, and ends with the program (or its node)."""

    def __iter__(self) -> Iterator[Line]: ...

    def stop(self) -> None:
        """End the program; iteration ends soon after. Safe to call twice and from another thread."""


class Lease(Protocol):
    """A fault's undo, armed where the fault is: carried out by itself when the harness stops renewing it."""

    def release(self) -> None:
        """Undo now, and wait until that is done. Raises LabError when it could not be, or was undone before."""


class Node(Protocol):
    """One machine of the cluster. Every power verb is idempotent and returns only when it is so."""

    @property
    def name(self) -> str:
        """As the topology calls it."""

    @property
    def role(self) -> str:
        """``"client"``, ``"resolver"``, ``"director"``, ``"web"`` or ``"db"``."""

    @property
    def kernel(self) -> str:
        """``"uml"`` (a kernel of its own) or ``"host"``."""

    def services(self) -> tuple[str, ...]:
        """What its init supervises, whether the machine runs or not."""

    def exec(self, *argv: str, timeout_s: float = 10.0) -> Output:
        """Run a command to its end. Raises LabError when the node is not running or the deadline passes."""

    def stream(self, *argv: str) -> Stream:
        """Start a program and follow its standard output line by line."""

    def watch(self) -> Stream:
        """Follow the machine itself, across power cuts.

        Each line is a JSON object: ``{"power": "off"}`` at every change of power, and
        ``{"addresses": ["203.0.113.101", ...]}`` at every change of the node's IPv4 addresses and at least every 500 ms
        while it runs.
        """

    def put(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Write a file on the node, parents included."""

    def power(self) -> Power:
        """What the machine is doing now."""

    def boot(self) -> None:
        """Power on, and wait until the machine takes commands."""

    def power_off(self) -> int:
        """Cut the power: nothing is flushed. Returns the lab's time of the cut, in ns (now, if it was off already)."""

    def shutdown(self) -> None:
        """Stop all services in order, then power off."""

    def freeze(self) -> None:
        """Stop the whole machine where it is: no instruction runs until ``thaw``."""

    def thaw(self) -> None:
        """Let a frozen machine go on where it stopped."""

    def panic(self) -> None:
        """Make the node's kernel panic. It stays down until ``boot``."""

    def throttle(self, share: float) -> None:
        """Give the machine this share of a processor's time only, in periods of 100 ms; 1 is all of it."""

    def lease(self, fault: str, claim: str, undo: Sequence[Undo], again: Sequence[Undo] = ()) -> Lease:
        """Arm the undo of a fault on this node, before the fault is applied; it is renewed until it is released.

        ``claim`` names what the fault takes for itself; the node refuses (LabError) a second lease of the same claim.
        ``again`` is carried out whenever the machine has booted meanwhile, for what a reboot wipes.
        """


class Feed(Protocol):
    """Something that goes on beside the run and becomes ops: a probe, the load, a log, an observer."""

    @property
    def name(self) -> str:
        """What it is told apart by."""

    def open(self) -> Stream:
        """Start it, or start it again after its node came back."""

    def entries(self, line: Line) -> Iterable[Entry]:
        """The ops that one line stands for. A line that cannot be read becomes an ``info`` op with ``error`` set."""

    def ready(self) -> bool:
        """True when ``open`` can work: its node is running."""


class Capture(Protocol):
    """A packet capture being written to a file."""

    def stop(self) -> None:
        """Flush and close the file. Safe to call twice."""


class Lab(Protocol):
    """A booted cluster."""

    @property
    def name(self) -> str:
        """What it is told apart by on its engine."""

    @property
    def cluster(self) -> Cluster:
        """The facts of its cluster."""

    def nodes(self, role: str | None = None) -> list[Node]:
        """All nodes, or those of one role."""

    def node(self, name: str) -> Node:
        """The node of that name. Raises LabError naming the nodes there are."""

    @property
    def switch(self) -> Node:
        """The switch: every cable ends in it. It is no machine of the cluster and never loses power."""

    @property
    def cables(self) -> tuple[Cable, ...]:
        """All cables."""

    def leases(self) -> list[LeaseStatus]:
        """All leases of all nodes, the oldest first: what is injected now, by whomever."""

    def heal(self) -> list[LeaseStatus]:
        """Undo all that is injected, the newest first, whoever did it. Raises LabError if something sticks."""

    def audit(self) -> Mapping[str, tuple[str, ...]]:
        """Each node -> all of its state that a fault could leave changed, in lines; empty when it does not run.

        Two audits of a cluster that is as it was are equal.
        """

    def now_ns(self) -> int:
        """The lab's clock."""

    def owners(self) -> Mapping[str, tuple[str, ...]]:
        """Each VIP -> the directors that hold it now. Cheap: it can be asked while a takeover needs the directors."""

    def status(self) -> Status:
        """The cluster now: every part is asked, which costs the nodes some work."""

    def observers(self) -> list[Feed]:
        """Feeds for VIP owners (each director's ``holds`` and ``power``), ARP on the wire, and the directors' logs."""

    def capture(self, path: str, segments: tuple[str, ...], packet_filter: str) -> Capture:
        """Write a pcapng of whole segments, or of cables named ``node.interface``, to a local file."""


class Fault(Protocol):
    """Frozen settings plus one verb."""

    @property
    def name(self) -> str:
        """Its name in the registry."""

    def available(self, lab: Lab) -> str | None:
        """None, or the reason why this lab cannot do it."""

    def inject(self, lab: Lab) -> AbstractContextManager[Proof]:
        """Inject on entry, prove it, undo exactly that on exit and verify the undo."""
