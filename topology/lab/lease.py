"""The harness's end of a lease: a thread renews it until it is released. See lease.py of the chassis."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from contextlib import suppress

from harness.records import LabError, Undo
from topology.lab.channel import Channel, NodeRefusedError

LEASE_S = 10.0
"""How long a fault stays after its harness is gone. A busy machine can delay renewals by seconds."""

RENEWALS = 5
"""In the time that a lease lasts."""
ANSWER_S = 5.0
RELEASE_S = 120.0
"""An undo may have to boot the machine and its services."""


class DockerLease:
    """A change of a node that the node undoes when the lease expires. Implements ``harness.protocols.Lease``."""

    def __init__(  # noqa: PLR0913, PLR0917 - one record of the wire's protocol
        self,
        channel: Channel,
        node: str,
        fault: str,
        claim: str,
        undo: Sequence[Undo],
        again: Sequence[Undo],
        lease_s: float = LEASE_S,
    ) -> None:
        self._channel, self._node, self._fault, self._renew_s = channel, node, fault, lease_s / RENEWALS
        self._name = str(uuid.uuid4())
        self._over = threading.Event()
        try:
            channel.ask(
                "lease",
                ANSWER_S,
                name=self._name,
                fault=fault,
                claim=claim,
                ttl_ms=round(lease_s * 1000),
                undo=[_step(each) for each in undo],
                again=[_step(each) for each in again],
            )
        except NodeRefusedError as refusal:
            raise LabError(
                f"{node}: {fault} cannot be injected: {refusal}",
                "Undo the other fault first: `monkeywrench heal` undoes all faults.",
            ) from None
        threading.Thread(target=self._renew, name=f"lease of {fault} on {node}", daemon=True).start()

    def _renew(self) -> None:
        while not self._over.wait(self._renew_s):
            with suppress(LabError):  # without an answer the next renewal may still come in time
                if self._name not in self._channel.ask("renew", ANSWER_S, names=[self._name])["held"]:
                    return

    def release(self) -> None:
        """Undo it and wait until that is done. Raises LabError when that fails, or when it was undone before."""
        self._over.set()
        try:
            self._channel.ask("release", RELEASE_S, name=self._name)
        except NodeRefusedError as refusal:
            raise LabError(
                f"{self._node}: {self._fault}: {refusal}",
                "`monkeywrench faults --active` shows the active faults; `monkeywrench heal` tries again.",
            ) from None


def _step(undo: Undo) -> dict[str, object]:
    return {"where": undo.where, "argv": list(undo.argv)}
