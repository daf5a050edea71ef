"""Leases: a change to a node is undone when its lease expires, because no harness renews it.

A lease lives in the chassis, which outlives a crash of the machine, of the harness, and of the connection between them.
It is armed before the change, so that there is no moment at which only the harness could undo it.

A step of an undo is ``{"where": "machine" | "chassis" | "power", "argv": [...]}``; the argv of a power step is one of
``boot``, ``reboot``, ``thaw`` and ``unthrottle``. Steps on the machine wait until it runs. Each step must be harmless
when there is nothing to undo, and when it runs twice.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False  # as in wire.py
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from chassis import Chassis, Client
    from wire import Message

RETRY_S = 1.0
TRIES = 10
REMEMBERED = 100
"""Number of ended leases that are remembered, for late releases."""

NEVER = float("inf")

RELEASED, EXPIRED = "was released", "expired"
"""How a lease ended."""

NOW = "{now}"
"""In an argument of a step: the host's time of day, in seconds, when the step runs."""


class Steps:
    """Steps, one after another. ``done`` gets the error, or an empty text after success."""

    def __init__(self, chassis: Chassis, steps: list[Message], done: Callable[[str], None]) -> None:
        self.chassis, self.left, self.done = chassis, list(steps), done
        self.running, self.output = False, ""

    def go_on(self) -> None:
        """Begin the next step, if it can begin. Called again after each change of the machine's state.

        A step that changes the state itself causes such a call in its middle, which must not begin it again.
        """
        if self.running:
            return
        self.running = True
        while self.left and self.left[0]["where"] == "power" and self.chassis.power_step(self.left[0]):
            self.left.pop(0)
        self.running = False
        if not self.left:
            self.done("")
        elif self.left[0]["where"] == "chassis" or (
            self.left[0]["where"] == "machine" and self.chassis.machine.state == "running"
        ):
            self.running, self.output = True, ""
            ready = [argument.replace(NOW, f"{time.time():.6f}") for argument in self.left[0]["argv"]]
            self.chassis.carry_out(self, self.left[0]["where"], ready)

    def send(self, message: Message) -> None:
        """Output of a step, or its end."""
        self.output += message.get("out", "") + message.get("err", "")
        if "done" not in message and "error" not in message:
            return
        self.running = False
        if message.get("done") == 0:
            self.left.pop(0)
            self.go_on()
        elif "done" in message or self.chassis.machine.state == "running":
            argv = " ".join(self.left[0]["argv"])[:200]
            self.done(f"`{argv}` failed: {(self.output.strip() or str(message.get('error', '')))[-300:]}")
        # else the machine went down during the step: the step begins again when the machine runs


class Lease:
    """One change to this node, and the steps that undo it."""

    def __init__(self, chassis: Chassis, request: Message) -> None:
        self.chassis = chassis
        self.name, self.fault, self.claim = request["name"], request["fault"], request["claim"]
        self.ttl_s = request["ttl_ms"] / 1000
        self.undo_steps, self.again_steps = request["undo"], request["again"]
        self.noted: Message = {}
        if chassis.spec.get("clock") == "virtual":
            # only the harness lets time pass, so it carries out the steps; a harness that is gone changes nothing
            self.noted = {"undo": self.undo_steps, "again": self.again_steps}
            self.ttl_s, self.undo_steps, self.again_steps = NEVER, [], []
        self.began = self.deadline = time.monotonic()
        self.steps: Steps | None = None
        self.again: Steps | None = None
        self.ending, self.how, self.tries, self.problems = False, "", 0, ""
        self.waiting: list[tuple[Client, int]] = []
        self.renew()

    def renew(self) -> None:
        """Extend it."""
        if not self.ending:
            self.deadline = time.monotonic() + self.ttl_s

    def end(self, how: str) -> None:
        """Undo its change now. ``how`` is ``RELEASED`` or ``EXPIRED``."""
        if self.steps is not None:
            return
        if not self.ending:
            self.ending, self.how = True, how
        self.deadline = NEVER
        if self.again is not None and self.again.running:
            return  # a change that is being repeated must not end after its undo: ``repeated`` goes on from here
        self.again = None
        self.tries += 1
        self.steps = Steps(self.chassis, self.undo_steps, self.undone)
        self.steps.go_on()

    def undone(self, problems: str) -> None:
        """The undo ended."""
        self.steps, self.problems = None, problems
        if not problems:
            self.chassis.leases.over(self)
            return
        if self.tries < TRIES:
            self.deadline = time.monotonic() + RETRY_S
        else:
            self.answer({"error": f"{self.fault} could not be undone: {problems}"})

    def answer(self, message: Message) -> None:
        """Answer all clients that wait for its end."""
        waiting, self.waiting = self.waiting, []
        for client, key in waiting:
            client.send({"id": key, **message})

    def machine_changed(self, booted: bool) -> None:
        """Continue steps that wait for the machine; repeat a change that a reboot removed."""
        if booted and self.again_steps and not self.ending:
            self.again = Steps(self.chassis, self.again_steps, self.repeated)
        for steps in (self.steps, self.again):
            if steps is not None:
                steps.go_on()

    def repeated(self, problems: str) -> None:
        """The change was repeated after a reboot, or could not be."""
        self.again, self.problems = None, problems
        if self.ending:
            self.end(self.how)

    def facts(self) -> Message:
        """Its state, for `faults --active` and audits."""
        now = time.monotonic()
        state = "held"
        if self.ending:
            state = "undoing" if self.tries < TRIES or self.steps else "stuck"
        return {
            "name": self.name,
            "fault": self.fault,
            "claim": self.claim,
            "state": state,
            "age_ms": round((now - self.began) * 1000),
            "left_ms": round((self.deadline - now) * 1000) if state == "held" and self.deadline < NEVER else 0,
            "problems": self.problems,
            **self.noted,
        }


class Leases:
    """All leases of a node."""

    def __init__(self, chassis: Chassis) -> None:
        self.chassis = chassis
        self.held: dict[str, Lease] = {}
        self.ended: dict[str, str] = {}  # name -> RELEASED or EXPIRED
        self.down = True  # whether the machine went down since it last ran

    def arm(self, request: Message) -> str:
        """Arm a new lease; the reason if that is refused."""
        for lease in self.held.values():
            if lease.claim == request["claim"] or lease.name == request["name"]:
                return f"{lease.claim} is taken by {lease.fault}, which is still active"
        self.held[request["name"]] = Lease(self.chassis, request)
        return ""

    def release(self, client: Client, request: Message) -> None:
        """Undo the change of a lease, and answer when that is done."""
        name = request["name"]
        if name not in self.held:
            known = self.ended.get(name, "is unknown")
            client.send({"id": request["id"], "error": f"already undone: the lease {known}"})
            return
        lease = self.held[name]
        lease.waiting.append((client, request["id"]))
        if lease.tries >= TRIES:
            lease.tries = 0
        lease.end(RELEASED)

    def over(self, lease: Lease) -> None:
        """The change of a lease is undone."""
        self.held.pop(lease.name, None)
        self.ended[lease.name] = lease.how
        while len(self.ended) > REMEMBERED:
            del self.ended[next(iter(self.ended))]
        if lease.how == RELEASED:
            lease.answer({"done": 0})
        else:
            lease.answer({"error": "the lease expired, so the fault was undone before its release"})

    def forget(self, client: Client) -> None:
        """A harness disconnected: it waits for nothing any more, and its leases will expire."""
        for lease in self.held.values():
            lease.waiting = [entry for entry in lease.waiting if entry[0] is not client]

    def changed(self) -> None:
        """The machine's state changed."""
        booted = self.down and self.chassis.machine.state == "running"
        if self.chassis.machine.state in ("off", "panicked", "running"):
            self.down = self.chassis.machine.state != "running"
        for lease in list(self.held.values()):
            lease.machine_changed(booted)

    def deadlines(self) -> Iterator[float]:
        """When leases expire or undos are tried again."""
        return (lease.deadline for lease in self.held.values() if lease.deadline < NEVER)

    def tick(self) -> None:
        """End the leases that were not renewed, and try failed undos again."""
        now = time.monotonic()
        for lease in list(self.held.values()):
            if lease.deadline <= now:
                lease.end(EXPIRED)

    def facts(self) -> list[Any]:
        """The states of all leases."""
        return [lease.facts() for lease in self.held.values()]
