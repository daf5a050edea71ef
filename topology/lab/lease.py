"""The harness's end of a lease: kept alive by a thread of its own, until it is released. See the chassis' lease.py."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from contextlib import suppress

from harness.records import LabError, Undo
from topology.lab.channel import Channel, NodeRefusedError

LEASE_S = 10.0
"""How long a fault outlives a harness that is gone. A machine that is short of processor delays renewals by seconds."""

RENEW_S = LEASE_S / 5
ANSWER_S = 5.0
RELEASE_S = 120.0
"""An undo may have to boot the machine, and its services with it."""


class DockerLease:
    """Something done to a node that undoes itself when nobody renews it. Implements ``harness.protocols.Lease``."""

    def __init__(  # noqa: PLR0913, PLR0917 - one record of the wire's protocol
        self, channel: Channel, node: str, fault: str, claim: str, undo: Sequence[Undo], again: Sequence[Undo]
    ) -> None:
        self._channel, self._node, self._fault = channel, node, fault
        self._name = str(uuid.uuid4())
        self._over = threading.Event()
        try:
            channel.ask(
                "lease",
                ANSWER_S,
                name=self._name,
                fault=fault,
                claim=claim,
                ttl_ms=round(LEASE_S * 1000),
                undo=[_step(each) for each in undo],
                again=[_step(each) for each in again],
            )
        except NodeRefusedError as refusal:
            raise LabError(
                f"{node}: {fault} cannot be injected: {refusal}",
                "Heal the other one first: `monkeywrench heal` undoes all that is injected.",
            ) from None
        threading.Thread(target=self._renew, name=f"lease of {fault} on {node}", daemon=True).start()

    def _renew(self) -> None:
        while not self._over.wait(RENEW_S):
            with suppress(LabError):  # no answer now: the next one may come before it runs out
                if self._name not in self._channel.ask("renew", ANSWER_S, names=[self._name])["held"]:
                    return

    def release(self) -> None:
        """Undo it, and wait until that is done. Raises LabError when it cannot be, or was undone before."""
        self._over.set()
        try:
            self._channel.ask("release", RELEASE_S, name=self._name)
        except NodeRefusedError as refusal:
            raise LabError(
                f"{self._node}: {self._fault}: {refusal}",
                "`monkeywrench faults --active` shows what is still in; `monkeywrench heal` tries again.",
            ) from None


def _step(undo: Undo) -> dict[str, object]:
    return {"where": undo.where, "argv": list(undo.argv)}
