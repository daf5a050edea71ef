"""Mutations of what a cluster did: addresses, answers, tables, names, files, logs, and the record of them.

Most kinds are products: what happens, to which address or node, and when. The times are far beyond what the topology
of the made-up cluster promises (``tests/support/histories.py``), so each is certainly wrong.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import product
from typing import Any

from harness.history import History, Op
from harness.plan import Condition, Heal, Inject, Step
from tests.mutations.kinds import Base, Kind, Plant
from tests.support import clusters as c
from tests.support import histories as h
from tests.support.clusters import Scene
from tests.support.histories import VIP1, VIP2, PowerCut

HOME = {VIP1: "lb-1", VIP2: "lb-2"}
PEER = {"lb-1": "lb-2", "lb-2": "lb-1"}
QUIET = {"before the fault": (4_500.0, 9_000.0), "after the fault": (46_000.0, 58_000.0)}
"""When nothing happens in the power cut."""

STEADY = Condition(30)
PLANNED = [
    Step("steady", until=STEADY, hold_s=5),
    Step("cut", Inject("node.power-off", "cut", {"node": "lb-1"}), Condition(15, {VIP1: "lb-2"}), hold_s=9),
    Step("power on", Heal("cut"), STEADY),
    Step("steady again", until=STEADY, hold_s=2),
]
"""The steps of the power cut that is made up."""


def power_cut(seed: int) -> History:
    """A power cut whose takeover and return come a little earlier or later, with users."""
    chance = random.Random(f"power cut {seed}")
    taken, returned = 14_900 + chance.uniform(-300, 300), 40_900 + chance.uniform(-300, 300)
    cut = PowerCut(
        taken=taken,
        announced=taken + 60,
        served=taken + 110,
        released=returned - 900,
        returned=returned,
        announced_back=returned + 60,
        served_back=returned + 110,
        probe_every=100,
    )
    return h.with_ops(cut.history(), *users(chance))


def users(chance: random.Random) -> Iterator[Op]:
    """6 users who look at pages; those at VIP 1 get no answer while it has no owner."""
    for user, at in product(range(6), range(500, 58_500, 700)):
        begun, vip = at + 100 * user + chance.uniform(0, 40), (VIP1, VIP2)[user % 2]
        lost = vip == VIP1 and (10_000 <= begun < 15_300 or 40_000 <= begun < 41_300)
        asked = {"url": "/", "vip": vip}
        yield h.op(begun, f"user:{user}", "get", asked, "invoke")
        if lost:
            yield h.op(begun + 50, f"user:{user}", "get", asked | {"ms": 50}, "fail", error="no route to host")
        else:
            served = asked | {"node": chance.choice(c.WEB), "status": 200, "ms": 20}
            yield h.op(begun + 20, f"user:{user}", "get", served, "ok")


CUT = Base(
    "a power cut",
    power_cut,
    {"ownership": {}, "outage": {}, "recovery": {}, "failback": {}, "audit": {}, "errors": {}},
    PLANNED,
)

Where = Callable[[Op], bool]


def within(f: str, since: float, till: float, **fields: Any) -> Where:
    """Ops of that ``f`` in [since, till) ms whose values have these fields."""

    def which(op: Op) -> bool:
        there = op.f == f and since * h.MS <= op.time < till * h.MS
        return there and all(op.get(key) == value for key, value in fields.items())

    return which


def told(which: Where, **value: Any) -> Plant:
    """These ops say something else."""
    return changes(which, lambda op: op.copy(value=op.value | value))


def changes(which: Where, how: Callable[[Op], Op]) -> Plant:
    return lambda history, _: h.changed(history, which, how)


def lacks(which: Where) -> Plant:
    """These ops are not there, and nothing was lost: a feed with a ``seq`` counted on."""
    return lambda history, _: h.renumbered(h.without(history, which))


def unrecorded(which: Where) -> Plant:
    """The record lost these ops: a feed with a ``seq`` has gaps."""
    return lambda history, _: h.without(history, which)


def adds(*ops: Op) -> Plant:
    return lambda history, _: h.with_ops(history, *ops)


def both(*plants: Plant) -> Plant:
    def plant(history: History, chance: random.Random) -> History:
        for one in plants:
            history = one(history, chance)
        return history

    return plant


# --- who has the addresses


def holding(node: str, since: float, till: float, *, less: str = "", more: str = "") -> Plant:
    """A director has one address fewer or more."""

    def how(op: Op) -> Op:
        vips = [vip for vip in op["vips"] if vip != less] + [more] * bool(more and more not in op["vips"])
        return op.copy(value=op.value | {"vips": sorted(vips)})

    return changes(within("holds", since, till, node=node), how)


def unanswered(vip: str, since: float, till: float, kind: str = "info") -> Plant:
    """No probe that was sent to an address is answered."""

    def plant(history: History, _: random.Random) -> History:
        lost = {
            pair.completion.index
            for pair in history.pairs("http")
            if pair.completion and pair.invoke["vip"] == vip and since * h.MS <= pair.invoke.time < till * h.MS
        }
        return h.changed(history, lambda op: op.index in lost, lambda op: op.copy(type=kind, error="lost"))

    return plant


def owners() -> Iterator[Kind]:
    for (when, (since, _)), (vip, home) in product(QUIET.items(), HOME.items()):
        other, at = PEER[home], f"{vip} {when}"
        one = "an address has exactly one owner while nothing happens"
        till = since + 3_000
        nobody = holding(home, since, till, less=vip)
        yield Kind(f"owner: nobody has {at}", CUT, both(nobody, unanswered(vip, since, till)), one)
        yield Kind(f"owner: nobody has {at}, and probes are answered", CUT, nobody, "witnesses contradict each other")
        yield Kind(f"owner: 2 have {at}", CUT, holding(other, since, till, more=vip), one)
        swapped = both(nobody, holding(other, since, till, more=vip))
        yield Kind(f"owner: the other one has {at}", CUT, swapped, one)
        reply = [h.arp(since + 300 * turn, other, vip, "reply", "203.0.113.10") for turn in range(9)]
        yield Kind(f"owner: the other one answers ARP for {at}", CUT, adds(*reply), "only the owner answers ARP")
        stranger = [h.arp(since + 300 * turn, "02:00:00:00:09:09", vip, "reply", "203.0.113.10") for turn in range(9)]
        yield Kind(f"owner: a stranger answers ARP for {at}", CUT, adds(*stranger), "only the owner answers ARP")
    until = "the takeover is to be done 7.5 s after the cut"
    late = both(holding("lb-2", 14_000, 24_000, less=VIP1), unanswered(VIP1, 10_000, 24_000))
    yield Kind("takeover: 9 s late", CUT, late, until)
    never = both(holding("lb-2", 14_000, 41_500, less=VIP1), unanswered(VIP1, 10_000, 40_500))
    yield Kind("takeover: never", CUT, never, until)
    yield Kind(
        "takeover: loses its own address", CUT, holding("lb-2", 16_000, 22_000, less=VIP2), "it has it all along"
    )
    silent = lacks(lambda op: op.f == "arp" and op.get("gratuitous") is True and op.time < 20_000 * h.MS)
    yield Kind("takeover: announced to nobody", CUT, silent, "a new owner announces itself by gratuitous ARP")
    silent = lacks(lambda op: op.f == "arp" and op.get("gratuitous") is True and op.time > 20_000 * h.MS)
    yield Kind("failback: announced to nobody", CUT, silent, "a new owner announces itself by gratuitous ARP")
    yield Kind(
        "takeover: the address is dropped again", CUT, holding("lb-2", 20_000, 23_000, less=VIP1), "it has to keep it"
    )
    yield Kind(
        "failback: 2 owners for 4 s", CUT, holding("lb-2", 42_000, 46_000, more=VIP1), "the old one lets go first"
    )
    again = both(holding("lb-1", 46_000, 59_400, less=VIP1), holding("lb-2", 46_000, 59_400, more=VIP1))
    yield Kind("failback: goes back at once", CUT, again, "what came home stays")
    never = both(holding("lb-1", 40_000, 59_400, less=VIP1), holding("lb-2", 39_000, 59_400, more=VIP1))
    yield Kind("failback: never", CUT, never, "auto_failback is on")
    off = [h.holds(at, "lb-1", VIP1) for at in range(16_000, 22_000, 500)]
    yield Kind("record: a machine that is off has an address", CUT, adds(*off), "witnesses contradict each other")
    blind = lacks(within("holds", 9_000, 41_500))
    yield Kind("record: no samples of addresses around the fault", CUT, blind, "who had it then is not known")
    blind = lacks(lambda op: op.f == "arp")
    yield Kind("record: no ARP at all", CUT, blind, "whether it was announced is not known")


# --- whether they answer


def scattered(vip: str, since: float, till: float, every: int) -> Plant:
    """Each ``every``-th probe is lost."""

    def plant(history: History, chance: random.Random) -> History:
        pairs = [pair for pair in history.pairs("http") if pair.invoke["vip"] == vip and pair.completion is not None]
        chosen = [pair for pair in pairs if since * h.MS <= pair.invoke.time < till * h.MS][::every]
        lost = {pair.completion.index for pair in chosen if pair.completion}
        return h.changed(history, lambda op: op.index in lost, lambda op: op.copy(type="info", error="timed out"))

    return plant


def thinned(keep: int) -> Plant:
    """Of the probes only one in ``keep`` is there."""
    return lacks(lambda op: op.f == "http" and op["seq"] % keep != 0)


def slow(vip: str, since: float, till: float) -> Plant:
    """Answers come 1.2 s late, when their slot of 2 s is free again."""

    def plant(history: History, _: random.Random) -> History:
        late = {
            pair.completion.index
            for pair in history.pairs("http")
            if pair.completion and pair.invoke["vip"] == vip and since * h.MS <= pair.invoke.time < till * h.MS
        }
        return h.changed(history, lambda op: op.index in late, lambda op: op.copy(time=op.time + 1_200 * h.MS))

    return plant


def answers() -> Iterator[Kind]:
    why = "an address answers while its owner is sound, and nothing happens to it"
    times = {**QUIET, "while the other director is off": (18_000.0, 24_000.0)}
    for (when, (since, _)), vip in product(times.items(), HOME):
        for lasts, kind in product((1_000, 4_000), ("info", "fail")):
            what = "no answer" if kind == "info" else "refused"
            plant = unanswered(vip, since, since + lasts, kind)
            yield Kind(f"outage: {vip} {when}, {what} for {lasts / 1000:g} s", CUT, plant, why)
        yield Kind(f"outage: {vip} {when}, every third probe lost", CUT, scattered(vip, since, since + 4_000, 3), why)
        yield Kind(f"outage: {vip} {when}, answers late for 2 s", CUT, slow(vip, since, since + 2_000), why)
    cause = "what lies before its cause has no cause"
    yield Kind("outage: begins 4 s before the cut", CUT, unanswered(VIP1, 6_000, 15_000), cause)
    yield Kind("outage: begins 20 s before the failback", CUT, unanswered(VIP1, 20_000, 41_000), cause)
    yield Kind("outage: 8 s longer than the takeover", CUT, unanswered(VIP1, 10_000, 23_000), "7.5 s are promised")
    yield Kind("outage: 9 s longer than the failback", CUT, unanswered(VIP1, 40_000, 50_000), "5.5 s are promised")
    yield Kind("outage: the other address during the takeover", CUT, unanswered(VIP2, 10_000, 15_000), why)
    for vip in HOME:
        silent = lacks(within("http", 17_000, 24_000, vip=vip))
        yield Kind(f"record: no probes of {vip} for 7 s", CUT, silent, "whether it answered then is not known")
        yield Kind(
            f"record: no probes of {vip} at all", CUT, lacks(within("http", 0, 99_000, vip=vip)), "nothing is known"
        )
    yield Kind("record: 1 of 20 probes", CUT, thinned(20), "most of the time nothing was asked")


# --- what the run did


def steps() -> Iterator[Kind]:
    what = "the record is not that of the scenario"
    for step in PLANNED:
        for phase in ("begin", "end"):
            gone = lacks(within("step", 0, 99_000, step=step.name, phase=phase))
            yield Kind(f"run: step {step.name!r} has no {phase}", CUT, gone, what)
        ended = within("step", 0, 99_000, step=step.name, phase="end")
        yield Kind(f"run: step {step.name!r} was not met", CUT, told(ended, met=False, why="no"), "a condition failed")
        yield Kind(f"run: step {step.name!r} took 99 s", CUT, told(ended, took_ms=99_000), "its deadline is shorter")
        gone = lacks(within("step", 0, 99_000, step=step.name))
        yield Kind(f"run: step {step.name!r} is missing", CUT, gone, what)
    for phase in ("start", "proof", "end"):
        gone = lacks(within("fault", 0, 99_000, phase=phase))
        yield Kind(f"run: the fault has no {phase}", CUT, gone, what)
    yield Kind("run: no fault at all", CUT, lacks(lambda op: op.f == "fault"), what)
    yield Kind("run: another node failed", CUT, told(lambda op: op.f == "fault", node="lb-2"), what)
    yield Kind("run: another fault", CUT, told(lambda op: op.f == "fault", fault="node.freeze"), what)
    late = changes(within("fault", 0, 99_000, phase="proof"), lambda op: op.copy(time=30_000 * h.MS))
    yield Kind("run: a proof after its undo", CUT, late, "it proves nothing of the time before")
    failed = told(within("fault", 0, 99_000, phase="end"), phase="failed", why="it would not boot")
    yield Kind("run: an undo failed", CUT, failed, "the cluster is not as it was")
    yield Kind("run: killed in its middle", CUT, lambda history, _: h.killed(history, 30_000), "its end is not known")
    yield Kind("run: no cluster", CUT, changes(lambda op: op.f == "start", _without_cluster), "nothing can be judged")


def _without_cluster(op: Op) -> Op:
    return op.copy(value={key: value for key, value in op.value.items() if key != "cluster"})


# --- what is left behind, and logs


LINES = {
    "heartbeat": "heartbeat: [804]: ERROR: Both machines own our resources!",
    "console": "BUG: kernel NULL pointer dereference",
    "apache": "[Mon Nov 23 07:13:20.1 2026] [core:error] [pid 7] AH00099: it broke",
}


def logs() -> Iterator[Kind]:
    nodes = {"heartbeat": ("lb-1", "lb-2"), "console": ("lb-1", "lb-2", "web-3", "db"), "apache": ("web-2", "web-5")}
    for service, line in LINES.items():
        for node, (when, (since, _)) in product(nodes[service], QUIET.items()):
            said = h.op(since + 500, f"log:{node}:{service}", "log", line)
            yield Kind(f"log: an error of {node}'s {service} {when}", CUT, adds(said), "no fault explains it")
    for service, node in (("console", "db"), ("console", "web-4"), ("apache", "web-4")):
        said = h.op(18_000, f"log:{node}:{service}", "log", LINES[service])
        why = "the fault is one of lb-1, and explains nothing of this node"
        yield Kind(f"log: an error of {node}'s {service} during the fault", CUT, adds(said), why)
    audited = within("audit", 0, 99_000)
    left = {"left": ["iptables rules on web-2"]}
    why = "a run leaves all as it was"
    yield Kind("audit: something is left", CUT, told(audited, **left), why)
    yield Kind("audit: a problem is left", CUT, told(audited, problems=["web-2 answers 500"]), why)
    yield Kind("audit: an address is away", CUT, told(audited, owners={VIP1: ["lb-2"], VIP2: ["lb-2"]}), why)
    yield Kind(
        "audit: an address has 2 owners", CUT, told(audited, owners={VIP1: ["lb-1", "lb-2"], VIP2: ["lb-2"]}), why
    )
    yield Kind("audit: an address is missing", CUT, told(audited, owners={VIP2: ["lb-2"]}), why)
    zero = {f"{vip}:80": {"web-1": 0, "web-2": 1} for vip in HOME}
    yield Kind("audit: a weight is 0", CUT, told(audited, weights={"lb-1": zero, "lb-2": zero}), why)
    yield Kind("audit: none was taken", CUT, lacks(audited), "what is left is not known")
    yield Kind("audit: no log was followed", CUT, lacks(lambda op: op.f == "log"), "what logs said is not known")


# --- users


def users_fail() -> Iterator[Kind]:
    errors: dict[str, tuple[str, dict[str, Any]]] = {
        "status 500": ("fail", {"status": 500}),
        "status 503": ("fail", {"status": 503}),
        "status 404": ("fail", {"status": 404}),
        "connection refused": ("fail", {}),
        "timeout": ("info", {}),
    }
    for (error, (kind, more)), (when, (since, _)) in product(errors.items(), QUIET.items()):

        def failed(op: Op, error: str = error, kind: str = kind, more: Any = more) -> Op:
            return op.copy(type=kind, error=error, value={"url": "/", "vip": op["vip"], "ms": 20} | more)

        def which(op: Op, since: float = since) -> bool:
            return op.f == "get" and op.type == "ok" and since * h.MS <= op.time < (since + 1_500) * h.MS

        yield Kind(f"users: {error} {when}", CUT, changes(which, failed), "nothing happens then")


# --- the record of probes and of users


def records() -> Iterator[Kind]:
    for f in ("http", "get"):
        feed = "probes" if f == "http" else "users"

        def pick(history: History, chance: random.Random, f: str = f) -> tuple[Op, Op]:
            pairs = [pair for pair in history.pairs(f) if pair.completion is not None and pair.completion.type == "ok"]
            pair = chance.choice(pairs[len(pairs) // 4 : len(pairs) // 2])
            assert pair.completion is not None
            return pair.invoke, pair.completion

        def plant(how: Callable[[History, Op, Op], Iterable[Op]], pick: Any = pick) -> Plant:
            return lambda history, chance: h.of(how(history, *pick(history, chance)))

        why = "a client sends a request, then gets one answer to it, by one clock"
        yield Kind(f"record: {feed}, an answer without a request", CUT, plant(_less_invoke), why)
        yield Kind(f"record: {feed}, an answer twice", CUT, plant(_twice), why)
        yield Kind(f"record: {feed}, a request twice", CUT, plant(_asked_twice), why)
        yield Kind(f"record: {feed}, an answer before its request", CUT, plant(_turned), why)
        yield Kind(f"record: {feed}, status 99", CUT, plant(_status), "HTTP has no such status")
    lost = [within("http", 17_000, 19_000), within("http", 4_500, 5_000, vip=VIP1)]
    for number, which in enumerate(lost, start=1):
        name = f"record: probes, numbers are missing ({number})"
        yield Kind(name, CUT, unrecorded(which), "each probe has the next number")
    yield Kind("record: lines are missing", CUT, with_missing_lines, "each line has the next index")
    yield Kind("record: 2 starts", CUT, adds(h.start(5_000)), "a run starts once")
    yield Kind("record: 2 ends", CUT, adds(h.end(50_000)), "a run ends once")
    after = h.probe(60_500, VIP1, 595)
    yield Kind("record: requests after the end", CUT, adds(*after), "clients end before the run does")
    early = changes(within("get", 0, 1_000), lambda op: op.copy(time=op.time - 5_000 * h.MS))
    yield Kind("record: requests before the start", CUT, early, "clients start after the run does")


def with_missing_lines(history: History, _: random.Random) -> History:
    """A line is missing now and then."""
    return History(op for op in history if op.index % 97 != 50)


def _less_invoke(history: History, invoke: Op, _: Op) -> Iterable[Op]:
    return (op for op in history if op != invoke)


def _twice(history: History, _: Op, answer: Op) -> Iterable[Op]:
    return (*history, answer.copy(time=answer.time + h.MS))


def _asked_twice(history: History, invoke: Op, _: Op) -> Iterable[Op]:
    return (*history, invoke.copy(time=invoke.time + h.MS))


def _turned(history: History, invoke: Op, answer: Op) -> Iterable[Op]:
    times = {invoke.index: answer.time + h.MS, answer.index: invoke.time - h.MS}
    return (op.copy(time=times.get(op.index, op.time)) for op in history)


def _status(history: History, _: Op, answer: Op) -> Iterable[Op]:
    return (op.copy(value=op.value | {"status": 99}) if op == answer else op for op in history)


# --- the directors' tables

SERVERS = Base(
    "real servers that fail",
    lambda seed: Scene(seed, faults=1, rests=(50_000, 60_000)).history(c.tables),
    {"quiescing": {}, "balance": {"connections": 50}},
)
CALM = Base(
    "a quiet cluster",
    lambda seed: Scene(seed, faults=0, rests=(60_000, 60_000)).history(c.tables, c.users),
    {"balance": {}, "errors": {}},
)


def table(director: str, vip: str, since: Callable[[Any], float], till: Callable[[Any], float], **values: Any) -> Plant:
    """One director's table has other values for the real server that failed."""

    def plant(history: History, _: random.Random) -> History:
        fault = {op["phase"]: op for op in history.of("fault")}
        times = {phase: op.time / h.MS for phase, op in fault.items()}
        node, begin, end = fault["start"]["node"], since(times), till(times)

        def tell(op: Op) -> Any:
            mine = op["node"] == director and begin * h.MS <= op.time < end * h.MS
            return c.reweighed(op, vip, node, **values) if mine else None

        return c.with_values(history, "table", tell)

    return plant


def tables() -> Iterator[Kind]:
    budget = "2 s between checks, 3 s for each check that hangs, and a margin of 3 s"
    for director, vip in product(HOME.values(), HOME):
        where = f"{vip} on {director}"
        stays = table(director, vip, lambda t: t["proof"], lambda t: t["end"], weight=1)
        yield Kind(f"table: never out of {where}", SERVERS, stays, budget)
        late = table(director, vip, lambda t: t["proof"], lambda t: t["proof"] + 15_500, weight=1)
        yield Kind(f"table: 15 s late out of {where}", SERVERS, late, budget)
        never = table(director, vip, lambda t: t["end"], lambda _: 1e9, weight=0)
        yield Kind(f"table: never back in {where}", SERVERS, never, budget)
        late = table(director, vip, lambda t: t["end"], lambda t: t["end"] + 30_000, weight=0)
        yield Kind(f"table: 30 s late back in {where}", SERVERS, late, budget)
        other = table(director, vip, lambda t: t["end"] + 15_000, lambda _: 1e9, weight=7)
        yield Kind(f"table: back with another weight in {where}", SERVERS, other, "the file has one weight")
        gone = table(director, vip, lambda t: t["proof"] + 10_000, lambda t: t["proof"] + 16_000, gone=True)
        yield Kind(f"table: removed from {where}", SERVERS, gone, "a quiescent director only lowers the weight")
        before = table(director, vip, lambda t: t["start"] - 8_000, lambda t: t["start"] - 3_000, weight=0)
        yield Kind(f"table: out of {where} before it failed", SERVERS, before, "it was sound")


def starved(node: str, to: int) -> Plant:
    """One real server gets only 1 in ``to`` connections of its share, on both directors."""

    def tell(op: Op) -> Any:
        value = op.value
        for vip in HOME:
            had = op["vips"][vip][node]["conns"]
            value = c.reweighed(op.copy(value=value), vip, node, conns=had // to if to else 0, active=0, inactive=0)
        return value

    return lambda history, _: c.with_values(history, "table", tell)


def shares() -> Iterator[Kind]:
    for node in c.WEB:
        yield Kind(f"balance: {node} gets nothing", CALM, starved(node, 0), "all have the same weight")
        yield Kind(f"balance: {node} gets a tenth", CALM, starved(node, 10), "all have the same weight")


# --- names, files, monitoring, backups

NAMES = Base("a resolver", lambda seed: Scene(seed, faults=0, rests=(90_000, 90_000)).history(c.dns), {"rotation": {}})


def answered(how: Callable[[list[str]], list[str]], since: float = 20_000, till: float = 99_000, **more: Any) -> Plant:
    """The resolver says something else."""
    asked = within("dns", since, till)
    return changes(
        lambda op: op.type == "ok" and asked(op),
        lambda op: op.copy(value=op.value | {"answers": how(op["answers"])} | more),
    )


def but(vip: str, addresses: list[str]) -> list[str]:
    """The other addresses."""
    return [each for each in addresses if each != vip]


def first(vip: str, addresses: list[str]) -> list[str]:
    """The addresses with one of them in front, always in one order."""
    return sorted(addresses, key=lambda each: (each != vip, each))


def names() -> Iterator[Kind]:
    why = "the zone has both addresses, and the resolver turns their list"
    for vip in HOME:
        yield Kind(f"names: {vip} is missing", NAMES, answered(partial(but, vip)), why)
        yield Kind(f"names: {vip} is missing for 2 s", NAMES, answered(partial(but, vip), 40_000, 42_000), why)
        yield Kind(f"names: {vip} is always first", NAMES, answered(partial(first, vip)), why)
    yield Kind("names: no address", NAMES, answered(lambda _: []), why)
    yield Kind("names: an address more", NAMES, answered(lambda a: [*a, "203.0.113.103"]), why)
    yield Kind("names: another address", NAMES, answered(lambda a: [a[0], "198.51.100.1"]), why)
    yield Kind("names: an address twice", NAMES, answered(lambda a: [a[0], a[0]]), why)
    yield Kind("names: SERVFAIL", NAMES, answered(lambda _: [], rcode=2), why)
    yield Kind("names: NXDOMAIN", NAMES, answered(lambda _: [], rcode=3), why)


FILES = Base(
    "a site's folder", lambda seed: Scene(seed, faults=0, rests=(90_000, 100_000)).history(c.docroot), {"content": {}}
)


def folder(node: str, how: Callable[[dict[str, str]], dict[str, str]], since: float, till: float) -> Plant:
    """A real server has other files."""
    return changes(
        within("docroot", since, till, node=node),
        lambda op: op.copy(value=op.value | {"files": how(dict(op["files"]))}),
    )


def stuck(node: str) -> Plant:
    """A real server keeps for ever what it had after 30 s."""

    def plant(history: History, _: random.Random) -> History:
        mine = [op for op in history.of("docroot") if op["node"] == node and op.time < 30e9]
        files = mine[-1]["files"]
        return folder(node, lambda _: files, 30_000, 1e9)(history, random.Random())

    return plant


def files() -> Iterator[Kind]:
    for node in c.WEB[1:]:
        yield Kind(f"files: {node} gets no more changes", FILES, stuck(node), "changes arrive within the interval")
        torn = folder(node, lambda f: f | {"page-2.html": "torn"}, 20_000, 40_000)
        yield Kind(f"files: {node} has half a file", FILES, torn, "files are renamed into place")
        more = folder(node, lambda f: f | {"shell.php": "evil"}, 30_000, 1e9)
        yield Kind(f"files: {node} has a file that the master never had", FILES, more, "all files come from the master")
        empty = folder(node, lambda _: {}, 30_000, 1e9)
        yield Kind(f"files: {node} has none", FILES, empty, "its folder is a copy of the master's")


WATCHED = Base(
    "a node that Ganglia misses",
    lambda seed: Scene(
        seed,
        faults=1,
        kinds=("node.power-off", "node.freeze"),
        nodes=c.WEB,
        holds=(112_000, 130_000),
        rests=(75_000, 90_000),
    ).history(c.ganglia),
    {"monitoring": {}},
)


def heard(node: str | None, tn_s: float | None, *, down: bool) -> Plant:
    """Ganglia says something else of a node (None: of the one that failed), while it was down or before that."""

    def plant(history: History, _: random.Random) -> History:
        fault = {op["phase"]: op for op in history.of("fault")}
        of = node or str(fault["start"]["node"])
        if node == fault["start"]["node"]:
            raise IndexError("this one failed")

        def tell(op: Op) -> Any:
            if (op.time > fault["proof"].time) != down:
                return None
            hosts = {name: told for name, told in op["hosts"].items() if name != of}
            return op.value | {"hosts": hosts if tn_s is None else hosts | {of: {"tn_s": tn_s, "tmax_s": 20}}}

        return c.with_values(history, "ganglia", tell)

    return plant


def monitoring() -> Iterator[Kind]:
    yield Kind("monitoring: a lost node looks sound", WATCHED, heard(None, 3, down=True), "it sends nothing any more")
    for node in ("web-2", "web-5", "lb-2"):
        alarm = heard(node, 200, down=False)
        yield Kind(f"monitoring: a false alarm for {node}", WATCHED, alarm, "it runs and sends")
        yield Kind(f"monitoring: {node} is not listed", WATCHED, heard(node, None, down=False), "it runs and sends")


def backed_up(seed: int) -> History:
    """Backups that come every minute."""
    chance = random.Random(f"backups {seed}")
    ops = [h.start(), h.end(400_000)]
    for of, node in (("database", "web-3"), ("uploads", "web-2")):
        made = -chance.uniform(0, 50_000)
        for at in range(300, 399_000, 5_000):
            made = at - chance.uniform(0, 900) if at - made > 60_000 else made
            ops.append(h.op(at, f"backup:{of}", "backup", {"of": of, "node": node, "age_s": (at - made) / 1_000}))
    return h.of(ops)


BACKUPS = Base("backups", backed_up, {"backup": {}})


def backups() -> Iterator[Kind]:
    for of in ("database", "uploads"):
        old = changes(
            within("backup", 100_000, 1e9, of=of), lambda op: op.copy(value=op.value | {"age_s": op.time / 1e9})
        )
        yield Kind(f"backup: none of the {of} any more", BACKUPS, old, "one is due every minute")
        yield Kind(
            f"backup: no samples of the {of}", BACKUPS, lacks(within("backup", 0, 1e9, of=of)), "nothing is known"
        )


# --- below what the checks can tell


def limits() -> Iterator[Kind]:
    """Certainly wrong, too, and not seen: each with its reason."""
    why = "an address answers while its owner is sound"
    short = unanswered(VIP2, 50_000, 50_150)
    yield Kind("limit: no answer for 150 ms", CUT, short, why, "2 probes 100 ms apart may be lost by chance")
    begins = scattered(VIP1, 16_000, 19_000, 3)
    limit = "losses that begin within settle_ms of a takeover belong to it"
    yield Kind("limit: every third probe lost right after a takeover", CUT, begins, why, limit)
    limit = "the topology promises 7.5 s"
    yield Kind("limit: a takeover 1 s slower than usual", CUT, later(1_000), "it usually takes 5.1 s", limit)
    few = starved_a_little("web-3", 0.5)
    limit = "least connections promise no equal shares; below a quarter of the others' it was passed over"
    yield Kind("limit: a real server gets half of its connections", CALM, few, "all have the same weight", limit)
    late = table("lb-1", VIP1, lambda t: t["proof"], lambda t: t["proof"] + 8_000, weight=1)
    limit = "the topology promises 11 s"
    yield Kind(
        "limit: a failed real server is out 5 s later than usual",
        SERVERS,
        late,
        "the director usually notices within 3 s",
        limit,
    )
    said = h.op(18_000, "log:lb-1:heartbeat", "log", LINES["heartbeat"])
    limit = "a fault explains the lines of the nodes that it touches"
    yield Kind("limit: an error of the node that failed", CUT, adds(said), "a machine that is off says nothing", limit)


def later(by_ms: float) -> Plant:
    """The takeover comes later by so much: the address, its announcement and the first answer."""
    announced = within("arp", 14_000, 17_000, gratuitous=True)
    return both(
        holding("lb-2", 14_000, 15_300 + by_ms, less=VIP1),
        unanswered(VIP1, 10_000, 15_400 + by_ms),
        changes(announced, lambda op: op.copy(time=op.time + round((by_ms + 400) * h.MS))),
    )


def starved_a_little(node: str, share: float) -> Plant:
    """One real server gets only a share of the connections that it should get."""

    def tell(op: Op) -> Any:
        value = op.value
        for vip in HOME:
            value = c.reweighed(op.copy(value=value), vip, node, conns=round(op["vips"][vip][node]["conns"] * share))
        return value

    return lambda history, _: c.with_values(history, "table", tell)


KINDS: tuple[Kind, ...] = (
    *owners(),
    *answers(),
    *steps(),
    *logs(),
    *users_fail(),
    *records(),
    *tables(),
    *shares(),
    *names(),
    *files(),
    *monitoring(),
    *backups(),
    *limits(),
)
