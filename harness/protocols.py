"""The protocols of the harness: what a lab, a node, a fault and a feed have to provide.

``topology`` implements :class:`Lab` and :class:`Node` on Docker, ``harness.fake`` implements them in memory; ``faults``
and ``loadtests`` use them. There is no behaviour here.

All times are nanoseconds on **the lab's clock**: the monotonic clock of the machine that runs the client node. A node's
own clock is never used, because faults can change it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from harness.records import (
    Cable,
    Cluster,
    Effect,
    Entry,
    FrameRule,
    Hits,
    LeaseStatus,
    Line,
    Output,
    Power,
    Proof,
    Status,
    Undo,
)
from harness.wait import Clock

if TYPE_CHECKING:
    from harness.scenario import LoadTable


class Stream(Protocol):
    """A running program's lines. Iterating blocks until the next line, and ends with the program (or its node)."""

    def __iter__(self) -> Iterator[Line]: ...

    def stop(self) -> None:
        """End the program; iteration ends soon after. Safe to call twice and from another thread."""


class Lease(Protocol):
    """A fault's undo, armed on the target, which carries it out on its own when nobody renews the lease."""

    def release(self) -> None:
        """Undo now, and wait until that is done. Raises LabError if that fails, or if it was undone before."""


class Node(Protocol):
    """One node of the cluster. Every power verb is idempotent, and returns when the node is in that state."""

    @property
    def name(self) -> str:
        """Its name in the topology."""

    @property
    def role(self) -> str:
        """``"client"``, ``"resolver"``, ``"director"``, ``"web"`` or ``"db"``."""

    @property
    def kernel(self) -> str:
        """``"uml"`` (a kernel of its own) or ``"host"``."""

    @property
    def clock(self) -> Clock:
        """The clock of its lab."""

    def services(self) -> tuple[str, ...]:
        """The services that its init supervises, whether the node runs or not."""

    def exec(self, *argv: str, timeout_s: float = 10.0) -> Output:
        """Run a command to its end. Raises LabError if the node is not running or the deadline passes."""

    def stream(self, *argv: str) -> Stream:
        """Start a program and follow its standard output line by line."""

    def watch(self) -> Stream:
        """Follow the node's power and addresses, across power cuts.

        Each line is a JSON object: ``{"power": "off"}`` at every change of power, and
        ``{"addresses": ["203.0.113.101", ...]}`` at every change of the node's IPv4 addresses and at least every 500 ms
        while it runs.
        """

    def put(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Write a file on the node, parents included."""

    def power(self) -> Power:
        """The state of its machine now."""

    def boot(self) -> None:
        """Power on, and wait until the node accepts commands."""

    def power_off(self) -> int:
        """Cut the power: nothing is flushed. Returns the lab's time of the cut, in ns (now, if it was off already)."""

    def shutdown(self) -> None:
        """Stop all services in order, then power off."""

    def freeze(self) -> None:
        """Pause the whole machine: no instruction runs until ``thaw``."""

    def thaw(self) -> None:
        """Let a frozen machine continue where it stopped."""

    def panic(self) -> None:
        """Make the node's kernel panic. It stays down until ``boot``."""

    def throttle(self, share: float) -> None:
        """Limit the machine to this share of one processor's time, in periods of 100 ms; 1 is no limit."""

    def lease(self, fault: str, claim: str, undo: Sequence[Undo], again: Sequence[Undo] = ()) -> Lease:
        """Arm the undo of a fault on this node, before the fault is applied; it is renewed until it is released.

        ``claim`` names the resource that the fault occupies; the node refuses (LabError) a second lease with the same
        claim. ``again`` is carried out after each boot while the lease is held, because a reboot wipes some faults.
        """


class Feed(Protocol):
    """A stream of ops that is recorded during a run: a probe, the load, a log, an observer."""

    @property
    def name(self) -> str:
        """Its name in the history, unique in a run."""

    def open(self) -> Stream:
        """Start it, or start it again after its node has booted."""

    def entries(self, line: Line) -> Iterable[Entry]:
        """The ops in one line. A line that cannot be parsed becomes an ``info`` op with ``error`` set."""

    def ready(self) -> bool:
        """True when ``open`` can work: its node is running."""


@runtime_checkable
class PlannedFeed(Feed, Protocol):
    """A feed that carries out a plan of its own, such as requests at planned times. `until = "asked"` waits for it."""

    def over(self, entry: Entry) -> bool:
        """Whether this entry of the feed reports that everything planned has been sent."""


@runtime_checkable
class LearningFeed(Feed, Protocol):
    """A feed of ``Feeds.after`` that needs to know what the run recorded before it opens."""

    def learn(self, entry: Entry) -> None:
        """Called with each entry of the run as it is recorded, from any thread."""


@dataclass(frozen=True)
class Feeds:
    """What a run records besides the lab's own observers."""

    before: Sequence[Feed] = ()
    """Followed to their ends, one after another, before the other feeds start."""
    during: Sequence[Feed] = ()
    """Run from before the first step to the end of the run."""
    writers: Sequence[Feed] = ()
    """Also run from before the first step, but stop after the last undo: they change what ``after`` reads."""
    after: Sequence[Feed] = ()
    """Followed to their ends, one after another, once all faults are undone and the writers have stopped."""


class Capture(Protocol):
    """A packet capture being written to a file."""

    def stop(self) -> None:
        """Flush and close the file. Safe to call twice."""


class Lab(Protocol):
    """A booted cluster."""

    @property
    def name(self) -> str:
        """Its name, unique on its Docker Engine."""

    @property
    def clock(self) -> Clock:
        """The clock for all waits on this lab: real time, or the virtual time of a lab in memory."""

    @property
    def cluster(self) -> Cluster:
        """The facts of its cluster."""

    def nodes(self, role: str | None = None) -> list[Node]:
        """All nodes, or those of one role."""

    def node(self, name: str) -> Node:
        """The node of that name. Raises LabError, with the names of all nodes."""

    @property
    def switch(self) -> Node:
        """The switch: every cable ends in it. It is not part of the cluster and never loses power."""

    @property
    def cables(self) -> tuple[Cable, ...]:
        """All cables."""

    def leases(self) -> list[LeaseStatus]:
        """All leases of all nodes, the oldest first: everything that is injected now, by any process."""

    def heal(self) -> list[LeaseStatus]:
        """Undo everything that is injected, by any process, the newest first. Raises LabError if an undo fails."""

    def audit(self) -> Mapping[str, tuple[str, ...]]:
        """Each node -> the state that a fault could leave changed, in lines; empty if the node does not run.

        Two audits of an unchanged cluster are equal.
        """

    def now_ns(self) -> int:
        """The lab's clock."""

    def owners(self) -> Mapping[str, tuple[str, ...]]:
        """Each VIP -> the directors that hold it now. Cheap enough to call during a takeover."""

    def status(self) -> Status:
        """The cluster now: every part is queried, which costs the nodes CPU time."""

    def observers(self) -> list[Feed]:
        """Feeds for VIP owners (``holds`` and ``power`` of each director), ARP on the wire, and the directors' logs."""

    def capture(self, path: str, segments: tuple[str, ...], packet_filter: str) -> Capture:
        """Write a pcapng of whole segments, or of cables named ``node.interface``, to a local file."""


@runtime_checkable
class HasOwnLoad(Protocol):
    """A lab that simulates the probe and the users itself, because no programs can run on its nodes."""

    def feeds(self, load: LoadTable | None) -> Feeds:
        """The probe, and the load if there is one."""


@runtime_checkable
class CanLoseNodes(Protocol):
    """A lab whose nodes can break themselves, apart from what faults do to the machines in them."""

    def lost(self) -> Mapping[str, str]:
        """Each node that broke, and how. Raises LabError if that cannot be found out."""


@runtime_checkable
class HasTrace(Protocol):
    """A lab that digests all that its nodes send, so that a run on it can be repeated."""

    def trace(self) -> Mapping[str, Any]:
        """``hash`` (of all frames and console bytes so far, with their times), ``frames``, ``virtual_ns`` (the time)
        and ``images`` (each node -> the digest of its image): 2 runs are the same exactly if these are.
        """

    def write_trace(self, path: Path) -> None:
        """Write a line for each frame and console write so far: ``NS PLACE BYTES HASH``, compressed by gzip."""

    def made_of(self) -> Mapping[str, Any]:
        """What makes the same lab again: ``topology``, ``images`` (each role -> the digest of its image), and
        ``fresh``: no time has passed since its boot.
        """

    def stop_captures(self) -> None:
        """End all captures of this process, and write their files."""


class Wires(Protocol):
    """The cables of a lab whose switch is simulated: it acts on single frames, while time stands still.

    What is made here ends with ``Undo(("remove", NAME), "wires")``. Raises LabError.
    """

    def fresh(self, kind: str) -> str:
        """A name for a rule that no other rule of the lab has; a repeated run gets the same names again."""

    def rule(self, rule: FrameRule) -> None:
        """Let a rule act from now on, behind those that exist."""

    def hits(self, name: str) -> Hits | None:
        """What a rule has done; None: there is none of that name."""

    def send(self, cable: Cable, way: str, frame: bytes) -> None:
        """A frame that no node has sent: as if it came from a cable's node, or from the switch on its way to it."""

    def unplug(self, cable: Cable) -> None:
        """The cable carries nothing; ``plug`` ends it."""

    def claimants(self, cable: Cable, address: str) -> list[str]:
        """The MAC addresses that claim an address on the cable's segment; asking takes virtual time."""

    def reject(self, rules: Sequence[FrameRule]) -> None:
        """Answer the frames of these rules as a firewall does, instead of forwarding them (``does`` is ignored)."""

    def forge(self, name: str, cable: Cable, address: str, mac: str, every_ms: int) -> None:
        """Tell the cable's node again and again that an address is at a MAC address."""

    def intercept(self, name: str, settings: Mapping[str, Any]) -> None:
        """Lead heartbeat's messages through a middlebox, with the settings of the one in a real switch."""

    def intercepted(self, name: str) -> Sequence[Mapping[str, Any]]:
        """The lines of a middlebox's log: ``t`` (ns), ``type``, ``seq``, ``decision``, ``effect``."""

    def pass_again(self, name: str) -> None:
        """A middlebox decides no more, and sends what it holds; its log stays until it is removed."""


@runtime_checkable
class HasWires(Protocol):
    """A lab whose cables are simulated."""

    @property
    def wires(self) -> Wires:
        """Its cables."""


@runtime_checkable
class RestoresBackups(Protocol):
    """A lab that can restore a backup of its database, beside the cluster."""

    def restore_proofs(self) -> Sequence[Feed]:
        """Feeds that each restore the current backup, compare its rows, and end on their own."""


class Fault(Protocol):
    """Frozen settings and one verb."""

    @property
    def name(self) -> str:
        """Its name in the registry."""

    def available(self, lab: Lab) -> str | None:
        """None, or the reason why it cannot be injected into this lab."""

    def effects(self, lab: Lab) -> tuple[Effect, ...]:
        """What it certainly does from its proof to its undo; checks rely on it.

        Ask before the fault is injected: it may read the nodes to find the one that it concerns. Raises LabError.
        """

    def inject(self, lab: Lab) -> AbstractContextManager[Proof]:
        """Inject on entry and prove the effect; undo exactly that on exit and verify the undo."""
