"""How long each part of a takeover, a handover and a health check may take. Pure; all in ms.

Every budget follows from what the topology promises, which is in the first op of a history (``Cluster``), never from
the files that the directors run with: a file that promises less would excuse itself (``promises.py``).

A peer is declared dead one deadtime after its last packet, noticed within one keepalive (heartbeat 3.0.6,
``check_for_timeouts``). Then the resource scripts of haresources run one after another (its ``ResourceManager``).

ldirectord checks all real servers of all its virtual services one after another, then pauses for ``checkinterval``
(ldirectord 4.12, ``ld_main``). One that hangs costs its timeout in each virtual service, and so delays all others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce

from harness.history.ops import History
from harness.history.phases import TAKEOVER_PHASES
from harness.records import Cluster

MOST_SLOWDOWN = 2.0
"""In real time a machine may be this many times slower during a run than just before it; what takes even longer is
beyond what can be judged."""

VIRTUAL_MARGIN = 1.5
"""In virtual time nothing depends on a machine; each part may take this many times what its settings and the cost model
say. A takeover that takes twice as long is beyond it."""

LOOK_MS = 700
"""From the end of deadtime + keepalive to the line in the log: heartbeat must get a processor and look. It was 10 ms on
a quiet machine with 2 cores; a native heartbeat said it up to 700 ms late."""

ANNOUNCE_MS = 1000
"""From the address on the interface to the first gratuitous ARP, which IPaddr2 sends at once: 50 to 370 ms were
measured on 2 cores."""

ANSWER_MS = 1000
"""From the announcement to the next good probe: the retransmission timer of TCP starts at 1 s (RFC 6298)."""

VIRTUAL_START_MS = 625
"""One resource script with the costs of system calls, forks and execs that a lab in virtual time has: 1.24 and 1.25 s
were measured for 2."""

VIRTUAL_ANNOUNCE_MS = VIRTUAL_ANSWER_MS = 50
"""In virtual time: 25 to 41 ms were measured for each; the probe is sent every 50 ms."""


@dataclass(frozen=True)
class Budget:
    """``fixed_ms`` follows from settings alone; ``work_ms`` is work, which takes longer where the machine is slower."""

    fixed_ms: float
    work_ms: float = 0.0

    def __add__(self, other: Budget) -> Budget:
        return Budget(self.fixed_ms + other.fixed_ms, self.work_ms + other.work_ms)

    def ms(self, slowdown: float = 1.0) -> float:
        """The longest time on a machine that is ``slowdown`` times slower than before the run (never above 2)."""
        return self.fixed_ms + self.work_ms * min(max(slowdown, 1.0), MOST_SLOWDOWN)


NOTHING = Budget(0)


def total(budgets: Iterable[Budget]) -> Budget:
    """All of them, one after another."""
    return reduce(Budget.__add__, budgets, NOTHING)


@dataclass(frozen=True)
class Budgets:
    """The budgets of a cluster. ``virtual``: its lab had virtual time (``clock`` in the first op of its history)."""

    cluster: Cluster
    virtual: bool = False

    @classmethod
    def of(cls, history: History) -> Budgets:
        """Those of a recorded run."""
        return cls(history.cluster, history.start.get("clock") == "virtual")

    def takeover_parts(self) -> Mapping[str, Budget]:
        """Each part of a takeover, from the owner's failure to the first good answer."""
        silence = self.cluster.deadtime_ms + self.cluster.keepalive_ms
        parts = (
            self._whole(silence, 0 if self.virtual else LOOK_MS),
            self._starts(self.cluster.resources_per_vip),
            self._whole(0, VIRTUAL_ANNOUNCE_MS if self.virtual else ANNOUNCE_MS),
            self.answer(),
        )
        return dict(zip(TAKEOVER_PHASES, parts, strict=True))

    def unowned(self) -> Budget:
        """From the owner's failure until its peer has the address, with all of its group."""
        parts = self.takeover_parts()
        return parts["detection"] + parts["takeover"]

    def handover(self) -> Budget:
        """From the release of an address until the other director has started all its resources.

        One more resource than there are, because the director that gives the group away stops the rest of it before
        the other one may start (heartbeat's standby). 2.8 and 3.4 times a resource's share of a takeover were measured
        for 2 resources.
        """
        return self._starts(self.cluster.resources_per_vip + 1)

    def shutdown(self) -> Budget:
        """The same when the director that releases it shuts down.

        It also stops the rest of its groups and heartbeat itself, and its peer looks through its own resources before
        it takes the others: 6.2 times a resource's share of a takeover were measured for 2 resources.
        """
        return self._starts(3 * self.cluster.resources_per_vip + 1)

    def answer(self) -> Budget:
        """From the announcement of an address to the next good answer."""
        return self._whole(0, VIRTUAL_ANSWER_MS if self.virtual else ANSWER_MS)

    def notice(self, failed: int = 1, round_ms: float = 0) -> Budget:
        """From a real server's failure until a director takes it out, while ``failed`` real servers do not answer.

        ``round_ms`` is how long a round of checks of sound servers takes.
        """
        return self._whole(self.cluster.failure_count * self._between_checks_ms(failed), round_ms)

    def back(self, failed: int = 1, round_ms: float = 0) -> Budget:
        """From the first answer of a real server until a director puts it back: the next check."""
        return self._whole(self._between_checks_ms(failed), round_ms)

    def _starts(self, resources: int) -> Budget:
        return self._whole(0, resources * (VIRTUAL_START_MS if self.virtual else self.cluster.resource_start_ms))

    def _whole(self, fixed_ms: float, work_ms: float) -> Budget:
        return Budget(VIRTUAL_MARGIN * (fixed_ms + work_ms)) if self.virtual else Budget(fixed_ms, work_ms)

    def _between_checks_ms(self, failed: int) -> float:
        # checkcount is for pings only (ldirectord(8))
        tries = self.cluster.check_count if self.cluster.checktype == "ping" else 1
        hanging = failed * len(self.cluster.vips) * tries * self.cluster.check_timeout_ms
        return self.cluster.check_interval_ms + hanging
