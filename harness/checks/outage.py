"""How long was each virtual IP unreachable, and do the cluster's own settings allow that?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.history import History, Op, Pair
from harness.history.arp_claims import claims
from harness.history.failover_budget import ANSWER_MS, MOST_SLOWDOWN, Budget, Budgets, total
from harness.history.injections import (
    Injection,
    failed_servers,
    injections,
)
from harness.history.intervals import Intervals, silences
from harness.history.pace import slowdown, too_slow
from harness.history.phases import TAKEOVER_PHASES
from harness.history.served import UNSIGNED, foreign, signs
from harness.history.timeline import (
    DOWN,
    MS,
    Holding,
    blindness,
    count_of,
    distinct_spans,
    holdings,
    moment,
    ms,
    shuts_down,
    span_of,
    watched,
)
from harness.records import EffectKind
from harness.verdict import Finding, Outcome, Verdict, conclude, invalid, unknown

NAME = "outage"

Part = Literal["detection", "takeover", "announcement", "answer"]


class OutageSettings(BaseModel):
    """``[checks.outage]``. Durations are milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    losses: int = Field(default=3, ge=2, description="Number of consecutive lost probes that make an outage")
    takeover_ms: float | None = Field(
        default=None,
        gt=0,
        description="Longest outage after the owner went down; default: the sum of its parts",
    )
    parts_ms: Mapping[Part, float] = Field(
        default={},
        description="Longest parts of a takeover: detection (default: deadtime + keepalive + 700), takeover (the start "
        "of all its resources), announcement (1000), answer (answer_ms)",
    )
    failback_ms: float | None = Field(
        default=None,
        gt=0,
        description="Longest outage while one director hands the address to the other; default: the start of all its "
        "resources and one more + answer_ms; of a director that shuts down, three times as many and one more",
    )
    real_server_ms: float | None = Field(
        default=None,
        gt=0,
        description="Longest outage while a real server fails and no director has noticed it; default: failurecount * "
        "(checkinterval + the timeouts of all checks that hang in one round) + margin_ms",
    )
    margin_ms: float = Field(
        default=3000,
        ge=0,
        description="Added to that default: the duration of a round of checks of sound servers on this machine",
    )
    other_ms: float = Field(default=0, ge=0, description="Longest outage without an explanation")
    answer_ms: float | None = Field(
        default=None,
        ge=0,
        description=f"Time from the announcement to the first good answer; default: {ANSWER_MS}",
    )
    held_ms: float = Field(
        default=5000,
        gt=0,
        description="Longest silence once the new owner has the address; it only has to announce it then",
    )
    before_ms: float = Field(default=1000, ge=0, description="How long before an outage its cause may have happened")
    settle_ms: float = Field(
        default=2000,
        ge=0,
        description="An outage that begins this soon after the new owner got the address belongs to the same change: "
        "heartbeat's scripts still run on the new owner (1.6 s measured), and it answers slowly",
    )
    late_ms: float = Field(
        default=1000,
        gt=0,
        description="An answer this late counts as lost: it came by a retransmission, whose timer starts at 1 s "
        "(RFC 6298)",
    )
    stop_ms: float = Field(default=1000, gt=0, description="Longest time without sending a probe")
    probes: int = Field(default=20, ge=1, description="Minimum number of probes of a virtual IP")
    missing_percent: float = Field(
        default=5, ge=0, le=100, description="Highest share of probes that the history may lack, by their numbers"
    )
    thin_ms: float = Field(
        default=1000, gt=0, description="Longest outage that may hide between the probes: losses times their interval"
    )
    scattered_of: int = Field(
        default=60, ge=10, description="Number of consecutive probes of which most must have been answered"
    )
    scattered_percent: float = Field(
        default=20, gt=0, le=100, description="Highest share of these that may be lost, fewer than losses in a row"
    )
    samples_ms: float = Field(
        default=3000, gt=0, description="Longest time without a sample of a running director; longer hides a cause"
    )
    sample_ms: float = Field(
        default=500,
        ge=0,
        description="How far samples of addresses and answers to probes may disagree: the interval of the samples",
    )

    def parts(self, budgets: Budgets) -> Mapping[str, Budget]:
        """Each part of a takeover -> the longest time that it may take."""
        found = {**budgets.takeover_parts(), "answer": self.answer(budgets)}
        return found | {part: Budget(own) for part, own in self.parts_ms.items()}

    def answer(self, budgets: Budgets) -> Budget:
        """The longest time from an announcement to the first good answer."""
        return budgets.answer() if self.answer_ms is None else Budget(self.answer_ms)

    def budget(self, cause: Cause, budgets: Budgets) -> Budget:
        """The longest outage that this cause excuses."""
        match cause.kind:
            case "takeover":
                own, usual = self.takeover_ms, total(self.parts(budgets).values())
            case "handover":
                scripts = budgets.shutdown() if cause.shut_down else budgets.handover()
                own, usual = self.failback_ms, scripts + self.answer(budgets)
            case "real server failure":
                own, usual = self.real_server_ms, budgets.notice(len(cause.failed), self.margin_ms)
            case _:
                own, usual = self.other_ms, Budget(0)
        return usual if own is None else Budget(own)


@dataclass(frozen=True)
class LossStreak:
    """Probes lost in a row, between the last good one and the next good one (None: there was none)."""

    before: Pair | None
    lost: tuple[Pair, ...]
    after: Pair | None
    since: int | None = None
    until: int | None = None
    """The bounds of a part of a row: what began before its cause, and the rest."""

    @property
    def start(self) -> int:
        """The earliest moment at which the outage can have begun."""
        return (self.before or self.lost[0]).invoke.time if self.since is None else self.since

    @property
    def end(self) -> int:
        """The latest moment at which it can have ended."""
        if self.until is not None:
            return self.until
        if self.after is None or self.after.completion is None:
            return self.lost[-1].invoke.time
        return self.after.completion.time

    def lower_ns(self, stop_ns: int) -> int:
        """The shortest outage that explains it. Nothing is claimed for times in which no probe was sent."""
        sends = [pair.invoke.time for pair in self.lost]
        return sum(later - earlier for earlier, later in pairwise(sends) if later - earlier <= stop_ns)

    def split(self, time: int) -> tuple[LossStreak, LossStreak]:
        """The parts before a time and from it on; both have lost probes."""
        early = tuple(pair for pair in self.lost if pair.invoke.time < time)
        rest = replace(self, lost=self.lost[len(early) :], since=time)
        return replace(self, lost=early, until=time), rest

    def ops(self) -> tuple[int, ...]:
        """The ops at its bounds: last good, first lost, last lost, first good."""
        bounds = [pair for pair in (self.before, self.lost[0], self.lost[-1], self.after) if pair]
        return tuple(dict.fromkeys(op.index for pair in bounds for op in (pair.invoke, pair.completion) if op))


@dataclass(frozen=True)
class Cause:
    """What explains an outage: its kind, the op at which it began, who held the VIP and who took it.

    ``failed`` are the real servers that failed at about that time; ``fault`` is the name of a fault elsewhere.
    ``shut_down``: the owner handed it over because its machine was shut down.
    """

    kind: str
    op: Op | None = None
    owner: str | None = None
    survivor: Holding | None = None
    failed: frozenset[str] = frozenset()
    fault: str = ""
    shut_down: bool = False

    @property
    def survivor_name(self) -> str | None:
        """The director that took it."""
        return self.survivor.what if self.survivor else None


@dataclass(frozen=True)
class Outage:
    """The loss streaks that one cause explains, by time. Without a cause, each streak is an outage of its own."""

    cause: Cause
    streaks: tuple[LossStreak, ...]

    @property
    def lost(self) -> tuple[Pair, ...]:
        """The lost probes of all its streaks."""
        return tuple(pair for streak in self.streaks for pair in streak.lost)

    @property
    def after(self) -> Pair | None:
        """The first good probe after the last streak."""
        return self.streaks[-1].after

    def bounds(self, stop_ns: int) -> tuple[float, float | None]:
        """It was longer than the first and shorter than the second, in ms (None: no good probe on one side).

        Good answers between two streaks shorten what is certain (the lower bound) and not what is possible.
        """
        first, last = self.streaks[0], self.streaks[-1]
        lower = ms(sum(streak.lower_ns(stop_ns) for streak in self.streaks))
        return lower, ms(last.end - first.start) if first.before and last.after else None

    def silent_after_takeover_ms(self) -> float:
        """For how long at least it did not answer although its new owner held it."""
        survivor = self.cause.survivor
        return max(0.0, ms(self.lost[-1].invoke.time - survivor.start)) if survivor else 0.0

    def ops(self) -> tuple[int, ...]:
        """The ops at the bounds of its streaks."""
        return tuple(dict.fromkeys(index for streak in self.streaks for index in streak.ops()))


def check(history: History, settings: OutageSettings) -> Verdict:
    """Each VIP answers a fast probe at all times, except during takeovers and handovers within their budgets.

    The probe is open loop: it sends at a fixed interval whether answers come or not, so an outage cannot silence it. k
    consecutive losses, d apart, are an outage longer than (k-1)d and shorter than (k+1)d. The bounds here come from the
    actual times: it was longer than from the first to the last lost probe's sending, and shorter than from the last
    good probe's sending to the next good answer. (To the answer, because a packet can wait for its neighbour's address:
    when it was sent the VIP may have had no owner.) An outage is invalid when even its lower bound exceeds the budget,
    and unknown when only its upper bound does. It is also invalid when the address stays silent for long after its new
    owner has it: most of a takeover's budget is for heartbeat's scripts, which have finished by then.

    A probe without an answer does not count as sent when the client was stalled for half of the time that it waited,
    and an outage that only stalls show is unknown. Only what follows a change of owner belongs to it: what was lost
    before is an outage of its own. Losses that are not consecutive are invalid when they are many (``scattered_``).

    It is unknown when probes are missing or far apart, when good answers contradict the samples of the addresses, and
    when there are no samples that could show the cause of an outage.

    An answer that no real server signed (``X-Node``) is none of the site's: ldirectord's fallback page counts as lost,
    unless no answer of the run is signed. What the body of a signed answer says is judged by the probe alone.

    It cannot see outages shorter than k-1 probes, nor those of a part of the clients: it is one client. A virtual IP
    whose owner did not fail has no budget, with two exceptions. A real server that certainly fails, and that no
    director can have noticed yet, still gets new connections (under wlc more than the others: it is never busy); that
    may take as long as noticing takes. And while another fault touches only real servers or the client, the cause is
    unknown.

    What a change of owner explains is one outage, though it may have several loss streaks: a new owner that has the
    address and is still busy with the rest of its scripts answers, stalls, and answers again. The budget counts from
    the first loss to the last answer.

    Budgets follow from what the topology promises, not from the directors' own files. In real time the part of them
    that is work may take up to twice as long where the machine was slower than before the run (``pace``); an outage
    that is too long on a machine that was slower than that, or was not measured, is unknown. In virtual time there is
    no such allowance: each part may take 1.5 times what settings and cost model say.

    A takeover's outage is split where the samples allow it: detection (until the survivor's log declares the owner
    dead), takeover (until the survivor has the address), announcement (until its first gratuitous ARP) and answer
    (until the next good probe is sent). A part whose bounds are missing or in the wrong order is None. Each
    part has a budget of its own; one whose bound is missing shares that of the next.
    """
    judge = _OutageJudge(history, settings)
    findings: list[Finding] = []
    for vip in history.cluster.vips:
        findings += [*judge.probe_findings(vip), *judge.outage_findings(vip)]
    return conclude(NAME, findings, "" if findings else judge.held(), judge.numbers(), judge.evidence())


class _OutageJudge:
    """Groups the lost probes of each VIP into outages, finds their causes, and judges them."""

    def __init__(self, history: History, settings: OutageSettings) -> None:
        self.history = history
        self.settings = settings
        self.budgets = Budgets.of(history)
        self.since, self.until = watched(history)
        self.held_by = holdings(history)
        self.injections = injections(history)
        self.late_ns = round(settings.late_ms * MS)
        self.claims = claims(history, 0, history.end_ns)
        self.overruns = [op for op in history.of("http") if op.error == "probe overrun"]
        self.stalls = _stalls(history)
        self.blind = list(blindness(history, round(settings.samples_ms * MS)))
        web = history.cluster.web
        signed = signs(history.pairs("http"), web)
        self.foreign = {
            pair.invoke.index for pair in history.pairs("http") if signed and pair.ok and foreign(pair.completion, web)
        }
        self.sent = {vip: self._sent(vip) for vip in history.cluster.vips}
        self.probes = {vip: self._probes(vip) for vip in history.cluster.vips}
        self.streaks = {
            vip: _streaks([(pair, self.good(pair)) for pair in pairs]) for vip, pairs in self.probes.items()
        }
        self.outages = {vip: self._outages(vip) for vip in self.streaks}

    def _sent(self, vip: str) -> list[Pair]:
        """All probes, without those that the client itself delayed."""
        pairs = [pair for pair in self.history.pairs("http") if pair.invoke.get("vip") == vip]
        return [pair for pair in pairs if self.good(pair) or not self.overslept(pair)]

    def overslept(self, pair: Pair) -> bool:
        """True when the client was stalled for half of the time that this probe waited, or more."""
        return self.stalled_meanwhile(pair, 2)

    def _probes(self, vip: str) -> list[Pair]:
        """The probes to judge, by time of sending. The last ones were still under way when the run closed the probe."""
        in_time = [pair for pair in self.sent[vip] if pair.invoke.time <= self.until]
        settled = self.until - round(self.settings.late_ms * MS)
        return [pair for pair in in_time if pair.completion is not None or pair.invoke.time <= settled]

    def good(self, pair: Pair) -> bool:
        """True for an answer of the site that came in time."""
        completion = pair.completion
        if completion is None or completion.type != "ok" or pair.invoke.index in self.foreign:
            return False
        return not self.late(pair)

    def late(self, pair: Pair) -> bool:
        """True for a right answer that came too late to count."""
        if not pair.ok or pair.completion is None:
            return False
        return pair.completion.time - pair.invoke.time >= self.late_ns

    def _outages(self, vip: str) -> list[Outage]:
        found: list[Outage] = []
        for streak in self.streaks[vip]:
            if len(streak.lost) < self.settings.losses:
                continue
            for part, cause in self.parts(vip, streak):
                if found and cause.op is not None and cause == found[-1].cause:
                    found[-1] = replace(found[-1], streaks=(*found[-1].streaks, part))
                else:
                    found.append(Outage(cause, (part,)))
        return found

    # --- causes

    def parts(self, vip: str, streak: LossStreak) -> list[tuple[LossStreak, Cause]]:
        """A streak with its cause. Only what follows a change of owner belongs to it; the part before is another's."""
        cause = self.cause(vip, streak)
        began = self.began(cause)
        first = streak.lost[0].invoke.time
        if began is None or first >= began - round(self.settings.before_ms * MS) or streak.lost[-1].invoke.time < began:
            return [(streak, cause)]
        early, rest = streak.split(began)
        if len(early.lost) < self.settings.losses:
            return [(streak, cause)]
        return [*self.parts(vip, early), (rest, cause)]

    def began(self, cause: Cause) -> int | None:
        """When a change of owner began: at the fault that took its owner down, if there was one, or when it was seen.

        None for other causes.
        """
        if cause.op is None or cause.kind not in {"takeover", "handover"}:
            return None
        began: int = cause.op.time
        if cause.kind == "takeover":
            faults = [each for each in self.injections if cause.owner in each.nodes(EffectKind.NODE_DOWN)]
            began = min([began, *(each.start for each in faults if each.start <= began <= each.undoing)])
        return began

    def cause(self, vip: str, streak: LossStreak) -> Cause:
        """The first change of the VIP's owner at about that time, or else the change that just ended."""
        since = streak.start - round(self.settings.before_ms * MS)
        spans = [span for span in self.held_by.get(vip, []) if not span.frozen]
        changes = [self.with_shutdown(cause) for span in spans if (cause := _change(spans, span)) is not None]
        for kind in ("takeover", "handover"):
            for cause in changes:
                if cause.kind == kind and cause.op and since <= cause.op.time < streak.end:
                    return cause
        settling = streak.start - round(self.settings.settle_ms * MS)
        ended = [cause for cause in changes if cause.survivor and settling <= cause.survivor.start <= streak.start]
        dropped = any(_dropped(spans, span) and since <= span.end < streak.end for span in spans)
        return ended[-1] if ended and not dropped else self.elsewhere(streak)

    def with_shutdown(self, cause: Cause) -> Cause:
        """The same cause, knowing whether the owner's machine was shut down."""
        if cause.kind != "handover" or cause.op is None or cause.owner is None:
            return cause
        until = cause.survivor.start if cause.survivor else self.until
        return replace(cause, shut_down=shuts_down(self.history, cause.owner, cause.op.time, until))

    def budget(self, outage: Outage) -> Budget:
        """How long an outage may last."""
        return self.settings.budget(outage.cause, self.budgets)

    def budget_ms(self, outage: Outage) -> float:
        """The same on this machine, as slow as it was meanwhile."""
        return self.budget(outage).ms(self.slowdown(outage) or 1.0)

    def slowdown(self, outage: Outage) -> float | None:
        """How many times slower the machine was during an outage."""
        return slowdown(self.history, outage.streaks[0].start, outage.streaks[-1].end)

    def elsewhere(self, streak: LossStreak) -> Cause:
        """A fault at about that time that touches only real servers or the client, if there is one."""
        web, about = frozenset(self.history.cluster.web), [each for each in self.injections if _about(each, streak)]
        for each in about:
            failed = self.failing(each) if each.targets <= web else frozenset()
            if failed and each.proof:
                cause = Cause("real server failure", each.proof, failed=failed)
                noticed = each.proof.time + round(self.noticed_ms(cause, each.proof.time) * MS)
                if streak.start <= noticed:
                    return cause
        for each in about:
            unsure = each.targets <= web and not (each.proof and self.failing(each))
            if each.targets and (unsure or each.targets == {"client"}):
                return Cause("disturbance", each.proof, fault=each.fault)
        return Cause("other")

    def noticed_ms(self, cause: Cause, since: int) -> float:
        """How long after the failure of real servers the directors may still send connections to them."""
        budget = self.settings.budget(cause, self.budgets)
        slow = slowdown(self.history, since, since + round(budget.ms(MOST_SLOWDOWN) * MS))
        return budget.ms(slow or 1.0)

    def failing(self, about: Injection) -> frozenset[str]:
        """The real servers that fail because of a fault, and because of others meanwhile; none where it fails none."""
        if not failed_servers(self.history, about):
            return frozenset()
        meanwhile = [each for each in self.injections if each.start <= about.end and about.start <= each.end]
        return frozenset[str]().union(*(failed_servers(self.history, each) for each in meanwhile))

    def milestones(self, vip: str, outage: Outage) -> list[Op | None]:
        """The ops at which a takeover's parts begin and end: fall, declared dead, address held, announced, answered."""
        cause = outage.cause
        if cause.kind != "takeover" or cause.op is None:
            return []
        survivor = cause.survivor
        return [
            cause.op,
            self.declared_dead(survivor.what, cause) if survivor else None,
            survivor.began_by if survivor else None,
            self.announced(vip, survivor.what, cause.op.time) if survivor else None,
            outage.after.invoke if outage.after else None,
        ]

    def declared_dead(self, survivor: str, cause: Cause) -> Op | None:
        """The first line of the survivor's log that declares the owner dead; None when the words for it are unknown."""
        if not self.history.cluster.peer_dead:
            return None
        words = re.compile(self.history.cluster.peer_dead.replace("{node}", re.escape(cause.owner or "")))
        for op in self.history.by_time().of("log"):
            mine = op.process.startswith(f"log:{survivor}:")
            if mine and cause.op and op.time >= cause.op.time and words.search(str(op.value)):
                return op
        return None

    def announced(self, vip: str, node: str, since: int) -> Op | None:
        for claim in self.claims[vip]:
            if claim.gratuitous and claim.node == node and claim.op.time >= since:
                return claim.op
        return None

    # --- what is wrong

    def probe_findings(self, vip: str) -> Iterator[Finding]:
        """Reasons why the probe cannot show an outage."""
        sends = [pair.invoke.time for pair in self.probes[vip]]
        if len(sends) < self.settings.probes:
            yield unknown(
                f"{vip} was probed {count_of(len(sends), 'time')}; at least {self.settings.probes} are needed."
            )
        yield from self.missing(vip)
        for since, till in self.stops(vip):
            why = ": the client was stalled" if self.stalls.overlaps(since, till) else ""
            yield unknown(f"{vip} was not probed from {moment(since)} to {moment(till)}{why}.")
        first_fault = min((op.time for op in self.history.seen("fault")), default=None)
        if sends and first_fault is not None and first_fault < sends[0]:
            yield unknown(f"{vip} was first probed at {moment(sends[0])}, after the first fault started.")

    def missing(self, vip: str) -> Iterator[Finding]:
        """Probes that were sent and are not in the history, and probes too far apart to show an outage."""
        sent = [pair.invoke.get("seq") for pair in self.history.pairs("http") if pair.invoke.get("vip") == vip]
        numbers = {number for number in sent if isinstance(number, int)}
        if len(numbers) == len(sent) and sent:
            skipped = sum(op.get("skipped") or 0 for op in self.overruns if op.get("vip") == vip)
            planned = max(numbers) - min(numbers) + 1 - skipped
            absent = planned - len(numbers)
            if absent * 100 > self.settings.missing_percent * planned:
                yield unknown(f"{absent:,} of {planned:,} probes of {vip} are missing from the history.")
        interval = self.interval_ms(vip)
        if interval is not None and interval * self.settings.losses > self.settings.thin_ms:
            yield unknown(
                f"{vip} was probed every {span_of(interval)}: {self.settings.losses} lost probes in a row last longer "
                f"than {span_of(self.settings.thin_ms)}, so shorter outages are not seen."
            )

    def interval_ms(self, vip: str) -> float | None:
        """The usual time from a probe to the next one."""
        steps = sorted(later - earlier for earlier, later in pairwise(pair.invoke.time for pair in self.probes[vip]))
        return ms(steps[len(steps) // 2]) if steps else None

    def contradictions(self, vip: str) -> Iterator[Finding]:
        """Good answers while no director held the VIP: a sample or a probe is wrong."""
        slack = round(self.settings.sample_ms * MS)
        spans = self.held_by.get(vip, [])
        if not spans:
            return
        whole = [(self.since, self.until)]
        awake = [(span.start, span.end) for span in spans if not span.frozen]
        for start, end in Intervals(whole).minus(awake):
            answered = [
                pair
                for pair in self.probes[vip]
                if self.good(pair)
                and pair.completion is not None
                and start + slack <= pair.invoke.time
                and pair.completion.time <= end - slack
            ]
            if len(answered) >= self.settings.losses:
                yield unknown(
                    f"{vip} answered {count_of(len(answered), 'probe')} from {moment(start)} to {moment(end)}, while "
                    "no director held it: the probes and the samples of addresses contradict each other.",
                    answered[0].invoke.index,
                    answered[-1].invoke.index,
                )

    def scattered(self, vip: str) -> Iterator[Finding]:
        """Times in which many probes were lost, but never enough in a row."""
        width, few = self.settings.scattered_of, self.settings.losses
        single = [streak for streak in self.streaks[vip] if len(streak.lost) < few]
        lost = {pair.invoke.index for streak in single for pair in streak.lost}
        rows = {pair.invoke.index for streak in self.streaks[vip] if len(streak.lost) >= few for pair in streak.lost}
        pairs = [pair for pair in self.probes[vip] if pair.invoke.index not in rows]
        marks = [0, *accumulate(pair.invoke.index in lost for pair in pairs)]
        width = min(width, len(pairs))
        limit = self.settings.scattered_percent / 100 * width
        bad = [n for n in range(len(pairs) - width + 1) if marks[n + width] - marks[n] > limit]
        for start, end in Intervals((n, n + width) for n in bad):
            hit = [pair for pair in pairs[start:end] if pair.invoke.index in lost]
            cause = self.cause(vip, LossStreak(None, tuple(hit), None))
            what = (
                f"{len(hit):,} of {end - start:,} probes of {vip} were lost from {moment(hit[0].invoke.time)} to "
                f"{moment(hit[-1].invoke.time)}, never {few} in a row"
            )
            ops = (hit[0].invoke.index, hit[-1].invoke.index)
            if cause.kind == "disturbance":
                yield unknown(f"{what}, while {cause.fault} was active: the cause is unknown.", *ops)
            elif cause.kind == "other" and self.settings.other_ms == 0:
                yield self.unless_unseen(hit[0].invoke.time, hit[-1].invoke.time, f"{what}, without a cause.", *ops)

    def stops(self, vip: str) -> list[tuple[int, int]]:
        """When no probe was sent although the run went on."""
        stop = round(self.settings.stop_ms * MS)
        sends = [pair.invoke.time for pair in self.sent[vip]]
        return silences(sends, min(sends), self.until, stop) if sends else []

    def outage_findings(self, vip: str) -> Iterator[Finding]:
        """What is wrong with the outages of a VIP."""
        for outage in self.outages[vip]:
            yield from self.findings(vip, outage)
        yield from self.scattered(vip)
        yield from self.contradictions(vip)

    def unless_unseen(self, start: int, end: int, sentence: str, *ops: int) -> Finding:
        """Invalid, or unknown when the owner was not sampled at the time: its change may be the cause."""
        before = round(self.settings.before_ms * MS)
        if start < self.since:
            known = f"the owners are known only from {moment(self.since)} on"
            return unknown(f"{sentence.removesuffix('.')}; but {known}, so the cause is unknown.", *ops)
        for node, since, till in self.blind:
            if since <= end and start - before <= till:
                hidden = f"there are no samples of {node} from {moment(since)} to {moment(till)}"
                return unknown(f"{sentence.removesuffix('.')}; but {hidden}, so the cause is unknown.", *ops)
        return invalid(sentence, *ops)

    def findings(self, vip: str, outage: Outage) -> list[Finding]:
        """What is wrong with one outage, as a whole and in its parts."""
        whole = self.finding(vip, outage)
        return [*([whole] if whole else []), *self.part_findings(vip, outage)]

    def part_findings(self, vip: str, outage: Outage) -> Iterator[Finding]:
        """The parts of a takeover that took too long. One whose bound was not seen is judged together with the next."""
        budgets = self.settings.parts(self.budgets)
        for names, begin, end in _segments(self.milestones(vip, outage)):
            if self.settings.takeover_ms is not None and not set(names) <= self.settings.parts_ms.keys():
                continue
            slow = slowdown(self.history, begin.time, end.time)
            allowed = total(budgets[name] for name in names).ms(slow or 1.0)
            # the first good probe was sent up to one interval after the first that would have been answered
            surely = max(begin.time, outage.lost[-1].invoke.time) if "answer" in names else end.time
            if ms(end.time - begin.time) <= allowed:
                continue
            took, limit = distinct_spans(ms(end.time - begin.time), allowed)
            what = f"{vip}: {' and '.join(names)} took {took} from {moment(begin.time)}; {limit} is allowed"
            why = too_slow(slow)
            if not why and "answer" in names and self.stalls.overlaps(begin.time, end.time):
                why = "the client was stalled meanwhile"
            if not why and ms(surely - begin.time) <= allowed:
                why = "the probe is too coarse to decide"
            ops = (begin.index, end.index)
            yield unknown(f"{what}, but {why}.", *ops) if why else invalid(f"{what}.", *ops)

    def finding(self, vip: str, outage: Outage) -> Finding | None:
        """What is wrong with one outage as a whole; None when nothing is."""
        kind, ops = outage.cause.kind, outage.ops()
        budget = self.budget_ms(outage)
        lower, upper = self.bounds(outage)
        state = self.state(outage)
        what = f"{vip} {state} for {_between(lower, upper)} from {moment(outage.lost[0].invoke.time)}"
        if (upper is None or upper > budget) and self.may_be_the_client(outage, budget):
            return unknown(f"{what}, but the client was stalled meanwhile: how long is unknown.", *ops)
        if outage.after is None and self.history.complete:
            return invalid(f"{vip} had not recovered when the run ended ({_last_answer(outage)}).", *ops)
        if kind == "disturbance" and (upper is None or upper > budget):
            return unknown(f"{what}, while {outage.cause.fault} was active: the cause is unknown.", *ops)
        if lower > budget:
            return self.too_long(outage, f"{what}; {_allowed(kind, budget)}.", ops)
        if (held := outage.silent_after_takeover_ms()) > self.settings.held_ms:
            took, limit = distinct_spans(held, self.settings.held_ms)
            owner = outage.cause.survivor_name
            sentence = f"{what}: {owner} had the address for {took} of that time; {limit} is allowed."
            return self.unless_slow(outage, sentence, ops)
        coarse = upper is None or upper > budget
        return (
            unknown(f"{what}; {_allowed(kind, budget)}. The probe is too coarse to decide.", *ops) if coarse else None
        )

    def state(self, outage: Outage) -> str:
        """What the lost probes saw: nothing, or wrong answers. An answer is not silence, whatever it says."""
        said = Counter(why for pair in outage.lost if (why := self.wrong_answer(pair)))
        if not said:
            return "was unreachable"
        named = ", ".join(f"{why}: {count:,}" for why, count in said.most_common(3))
        whole = sum(said.values()) == len(outage.lost)
        return f"answered wrongly ({named})" if whole else f"was unreachable or answered wrongly ({named})"

    def wrong_answer(self, pair: Pair) -> str:
        """What was wrong with the answer to a lost probe; empty when there was none."""
        if pair.invoke.index in self.foreign:
            return UNSIGNED
        if pair.completion is None or pair.completion.type != "fail" or pair.completion.get("status") is None:
            return ""
        return pair.completion.error or f"status {pair.completion.get('status')}"

    def too_long(self, outage: Outage, sentence: str, ops: Sequence[int]) -> Finding:
        """Invalid. Without a cause: unless the cause may have been missed."""
        if outage.cause.kind == "other":
            return self.unless_unseen(outage.streaks[0].start, outage.streaks[-1].end, sentence, *ops)
        return self.unless_slow(outage, sentence, ops)

    def unless_slow(self, outage: Outage, sentence: str, ops: Sequence[int]) -> Finding:
        """Invalid, or unknown when the machine was too slow to judge how long something took."""
        why = too_slow(self.slowdown(outage))
        return unknown(f"{sentence.removesuffix('.')}; but {why}.", *ops) if why else invalid(sentence, *ops)

    def may_be_the_client(self, outage: Outage, budget: float) -> bool:
        """True when the probes that were lost while the client ran are too few, or allow a shorter outage."""
        sure = [self.awake(streak) for streak in outage.streaks]
        if sum(map(len, sure)) == len(outage.lost):
            return False
        certain = sum(_within_ns(pairs, one, self.stop_ns) for pairs, one in zip(sure, outage.streaks, strict=True))
        return all(len(pairs) < self.settings.losses for pairs in sure) or ms(certain) <= budget

    def awake(self, streak: LossStreak) -> list[Pair]:
        """The lost probes that the client certainly waited for: it was stalled for less than a fifth of the time."""
        return [pair for pair in streak.lost if not self.stalled_meanwhile(pair, 5)]

    def stalled_meanwhile(self, pair: Pair, part: int) -> bool:
        """True when the client was stalled for that part of the time that a probe waited. A refusal is an answer."""
        if pair.completion is None or pair.completion.type == "fail":
            return False
        start, end = pair.invoke.time, pair.completion.time
        return part * self.stalls.length_within(start, end) >= end - start

    @property
    def stop_ns(self) -> int:
        return round(self.settings.stop_ms * MS)

    def bounds(self, outage: Outage) -> tuple[float, float | None]:
        return outage.bounds(self.stop_ns)

    # --- the verdict

    def held(self) -> str:
        outages = [self.numbers_of(vip, outage) for vip, found in self.outages.items() for outage in found]
        if not outages:
            return "Every virtual IP answered at all times."
        worst = max(outages, key=lambda outage: (outage["kind"] == "takeover", outage["lower_ms"]))
        spared = self.probes.keys() - {outage["vip"] for outage in outages}
        others = f" {' and '.join(sorted(spared))} answered at all times." if spared else ""
        return (
            f"{worst['vip']} was unreachable for {span_of(worst['estimate_ms'])} ± {span_of(worst['plus_minus_ms'])} "
            f"{_WHEN[worst['kind']]}, within the budget of {span_of(worst['budget_ms'])}.{others}"
        )

    def numbers(self) -> dict[str, Any]:
        return {
            "vips": {vip: self.probe_numbers(vip) for vip in self.probes},
            "outages": [self.numbers_of(vip, outage) for vip, found in self.outages.items() for outage in found],
        }

    def probe_numbers(self, vip: str) -> dict[str, Any]:
        pairs = self.probes[vip]
        good = sum(map(self.good, pairs))
        isolated = [len(streak.lost) for streak in self.streaks[vip] if len(streak.lost) < self.settings.losses]
        return {
            "probes": len(pairs),
            "good": good,
            "late": sum(self.late(pair) for pair in pairs),
            "lost": len(pairs) - good,
            "isolated": sum(isolated),
            "interval_ms": self.interval_ms(vip),
        }

    def numbers_of(self, vip: str, outage: Outage) -> dict[str, Any]:
        cause = outage.cause
        lower, upper = self.bounds(outage)
        outcomes = {finding.outcome for finding in self.findings(vip, outage)}
        return {
            "vip": vip,
            "kind": cause.kind,
            "outcome": next((each for each in WORST_FIRST if each in outcomes), Outcome.VALID).value,
            "from_ms": ms(outage.lost[0].invoke.time),
            "to_ms": ms(outage.lost[-1].invoke.time),
            "lost": len(outage.lost),
            "stretches": len(outage.streaks),
            "lower_ms": lower,
            "upper_ms": upper,
            "estimate_ms": round((lower + upper) / 2, 3) if upper is not None else lower,
            "plus_minus_ms": round((upper - lower) / 2, 3) if upper is not None else None,
            "ended": outage.after is not None,
            "budget_ms": self.budget_ms(outage),
            "owner": cause.owner,
            "survivor": cause.survivor_name,
            "slowdown": self.slowdown(outage),
            **self.split(vip, outage),
        }

    def split(self, vip: str, outage: Outage) -> dict[str, Any]:
        """A takeover's parts in ms, and when its milestones were."""
        marks = self.milestones(vip, outage)
        if not marks:
            return {}
        answer = outage.after.completion if outage.after else None
        return {
            "parts_ms": dict(zip(TAKEOVER_PHASES, [_part(*bounds) for bounds in pairwise(marks)], strict=True)),
            "allowed_ms": {part: budget.ms() for part, budget in self.settings.parts(self.budgets).items()},
            "fell_at_ms": ms(marks[0].time) if marks[0] else None,
            "answered_at_ms": ms(answer.time) if answer else None,
        }

    def evidence(self) -> set[int]:
        indexes: set[int] = set()
        for vip, outages in self.outages.items():
            for outage in outages:
                indexes |= {*outage.ops()}
                indexes |= {op.index for op in self.milestones(vip, outage) if op}
        return indexes


_KINDS: Mapping[str, str] = {
    "takeover": "a takeover",
    "handover": "a handover",
    "real server failure": "a failing real server",
    "disturbance": "a fault elsewhere",
    "other": "an unexplained outage",
}
_WHEN: Mapping[str, str] = {
    "takeover": "during the takeover",
    "handover": "during the handover",
    "real server failure": "while a real server failed",
    "disturbance": "while another fault was active",
    "other": "without an explanation",
}


def _about(injection: Injection, streak: LossStreak) -> bool:
    return injection.start <= streak.end and streak.start <= injection.settled


def _stalls(history: History) -> Intervals:
    """When the client was stalled, as its probes noticed afterwards."""
    noticed = [op for op in history.of("http") if op.error == "probe overrun" and op.get("late_ms")]
    return Intervals((op.time - round(op["late_ms"] * MS), op.time) for op in noticed)


def _within_ns(pairs: Sequence[Pair], streak: LossStreak, stop_ns: int) -> int:
    """The time between those lost probes that follow each other in the streak."""
    places = {pair.invoke.index: place for place, pair in enumerate(streak.lost)}
    total = 0
    for earlier, later in pairwise(pairs):
        apart = later.invoke.time - earlier.invoke.time
        if places[later.invoke.index] - places[earlier.invoke.index] == 1 and apart <= stop_ns:
            total += apart
    return total


def _streaks(probes: Sequence[tuple[Pair, bool]]) -> list[LossStreak]:
    streaks: list[LossStreak] = []
    before: Pair | None = None
    lost: list[Pair] = []
    for pair, good in probes:
        if not good:
            lost.append(pair)
            continue
        if lost:
            streaks.append(LossStreak(before, tuple(lost), pair))
        before, lost = pair, []
    return [*streaks, LossStreak(before, tuple(lost), None)] if lost else streaks


def _change(spans: Sequence[Holding], gone: Holding) -> Cause | None:
    """Why a holding ended: its owner went down, or handed the VIP over; None when the same owner took it again."""
    if gone.ended_by is None:
        return None
    later = [span for span in spans if span.start >= gone.end]
    heir = min(later, key=lambda span: span.start, default=None)
    survivor = heir if heir and heir.what != gone.what else None
    if gone.ended_by.get("power") in DOWN:
        return Cause("takeover", gone.ended_by, gone.what, survivor)
    return None if heir and survivor is None else Cause("handover", gone.ended_by, gone.what, survivor)


def _dropped(spans: Sequence[Holding], gone: Holding) -> bool:
    """True when a director that ran let go of the VIP, and was the next one to take it."""
    if gone.ended_by is None or gone.ended_by.f == "power":
        return False
    heir = min((span for span in spans if span.start >= gone.end), key=lambda span: span.start, default=None)
    return heir is not None and heir.what == gone.what and heir.start > gone.end


WORST_FIRST = (Outcome.INVALID, Outcome.UNKNOWN)


def _segments(marks: Sequence[Op | None]) -> Iterator[tuple[tuple[str, ...], Op, Op]]:
    """The parts between those milestones that were seen, in order: their names, and the ops at their bounds.

    A milestone that was seen after a later one is left out: its witness was late.
    """
    known = [(place, mark) for place, mark in enumerate(marks) if mark is not None]
    sure = [(place, mark) for place, mark in known if all(mark.time <= other.time for at, other in known if at > place)]
    if sure and sure[0][0] == 0:
        for (first, begin), (last, end) in pairwise(sure):
            yield TAKEOVER_PHASES[first:last], begin, end


def _part(begin: Op | None, end: Op | None) -> float | None:
    if begin is None or end is None or end.time < begin.time:
        return None
    return ms(end.time - begin.time)


def _between(lower: float, upper: float | None) -> str:
    if upper is None:
        return f"at least {span_of(lower)}"
    return f"{span_of(lower)} to {span_of(upper)}"


def _allowed(kind: str, budget_ms: float) -> str:
    return f"{_KINDS[kind]} may take {span_of(budget_ms)}" if budget_ms else "unexplained outages are not allowed"


def _last_answer(outage: Outage) -> str:
    streak = outage.streaks[-1]
    return f"{'last answer at' if streak.before else 'no answer since'} {moment(streak.start)}"
