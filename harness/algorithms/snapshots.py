"""Can reads of all accounts have seen what they saw? Transfers between accounts, and snapshots of all balances.

Transfers commute, so a snapshot is decided by the set of transfers that it includes. All that ended before it began
must be in it, none that began after it ended; of the others any choice that gives the balances. Snapshots must also
have an order in which these sets only grow, and which respects their times. Of each snapshot the search lists all
choices; then choices are dropped that fit to no choice of a snapshot near it in time (arc consistency: necessary, not
sufficient, for an order of all of them).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

STEPS, CHOICES, ALL_STEPS = 3_000, 64, 1_000_000
"""The most steps of the search, and the most choices, for one snapshot, which is not judged if it has more; and the
most steps for all of them, some seconds."""

MOST_OPTIONS = 400
"""The most undecided transfers at a time; a snapshot with more of them is not judged."""

NEAR = 8
"""Each snapshot is compared with this number of later ones; those further on follow from them."""


@dataclass(frozen=True)
class Transfer:
    """``coins`` from one account to another; it took effect within [start, end], in ns. FOREVER: or never."""

    payer: int
    payee: int
    coins: int
    start: int
    end: int


@dataclass(frozen=True)
class Snapshot:
    """All balances, as they were at one moment within [start, end], in ns."""

    balances: Mapping[int, int]
    start: int
    end: int


@dataclass(frozen=True)
class Found:
    """Places of snapshots: those that no choice explains, pairs that have no common order, those not judged."""

    unexplained: tuple[int, ...]
    disordered: tuple[tuple[int, int], ...]
    given_up: tuple[int, ...]


def judge(transfers: Sequence[Transfer], snapshots: Sequence[Snapshot]) -> Found:
    """Judge all snapshots by the first one; those concurrent with it are not judged."""
    if not snapshots:
        return Found((), (), ())
    base = min(range(len(snapshots)), key=lambda place: snapshots[place].end)
    bank = _Bank(transfers, snapshots, base)
    bank.choose()
    return Found(tuple(bank.unexplained), tuple(bank.disordered()), tuple(bank.given_up))


@dataclass
class _Judged:
    """A snapshot with its undecided transfers, and the choices of them that explain it."""

    place: int
    options: frozenset[int]
    choices: list[frozenset[int]]


class _Bank:
    def __init__(self, transfers: Sequence[Transfer], snapshots: Sequence[Snapshot], base: int) -> None:
        self.transfers, self.snapshots, self.base = transfers, snapshots, snapshots[base]
        self.in_base = {number for number, each in enumerate(transfers) if each.start <= self.base.end}
        """The base may include these: in later snapshots they may differ from it or not."""
        self.ends = [each.end for each in transfers]
        self.ending: list[tuple[int, int]] = []
        """The undecided transfers that the base cannot include, by their end: a heap."""
        self.decided: set[int] = set()
        self.steps = 0
        self.judged: list[_Judged] = []
        self.unexplained: list[int] = []
        self.given_up: list[int] = []

    def certain(self, number: int, snapshot: Snapshot) -> bool:
        """Whether a snapshot includes a transfer that the base does not."""
        return number not in self.in_base and self.ends[number] < snapshot.start

    def choose(self) -> None:
        """Each snapshot's choices, by its start."""
        by_start = sorted(range(len(self.transfers)), key=lambda number: self.transfers[number].start)
        order = sorted(
            (place for place, each in enumerate(self.snapshots) if each.start > self.base.end),
            key=lambda place: self.snapshots[place].start,
        )
        # those that ended before the base began are in it for certain, and change nothing later
        live: set[int] = set()
        expected: dict[int, int] = defaultdict(int, self.base.balances)
        at = 0
        for place in order:
            snapshot = self.snapshots[place]
            while at < len(by_start) and self.transfers[by_start[at]].start <= snapshot.end:
                if self.transfers[by_start[at]].end >= self.base.start:
                    live.add(by_start[at])
                    self._ends(by_start[at])
                at += 1
            for number in self._decided(snapshot):
                live.discard(number)
                expected[self.transfers[number].payer] -= self.transfers[number].coins
                expected[self.transfers[number].payee] += self.transfers[number].coins
            if len(live) > MOST_OPTIONS:
                self.given_up.append(place)
                continue
            options = [number for number in live if self.transfers[number].start <= snapshot.end]
            self._judge(place, sorted(options), expected)

    def _ends(self, number: int) -> None:
        if number not in self.in_base:
            heappush(self.ending, (self.ends[number], number))

    def _decided(self, snapshot: Snapshot) -> Iterator[int]:
        """The transfers that this snapshot is the first to include for certain."""
        while self.ending and self.ending[0][0] < snapshot.start:
            end, number = heappop(self.ending)
            if end == self.ends[number] and number not in self.decided:
                self.decided.add(number)
                yield number

    def _judge(self, place: int, options: Sequence[int], expected: Mapping[int, int]) -> None:
        now = self.snapshots[place].balances
        if now.keys() != self.base.balances.keys():
            return
        rest = {player: coins - expected[player] for player, coins in now.items() if coins != expected[player]}
        choices = self._choices([self.transfers[number] for number in options], rest)
        if choices is None:
            self.given_up.append(place)
            return
        found = [frozenset(options[at] for at in choice) for choice in choices]
        found = [choice for choice in found if self._timely(choice, options)]
        if found:
            self.judged.append(_Judged(place, frozenset(options), found))
            if len(found) == 1:  # certainly seen: later snapshots have them, too
                for number in found[0]:
                    if self.snapshots[place].end < self.ends[number]:
                        self.ends[number] = self.snapshots[place].end
                        self._ends(number)
        else:
            self.unexplained.append(place)

    def _choices(self, options: Sequence[Transfer], rest: Mapping[int, int]) -> list[tuple[int, ...]] | None:
        """All choices of transfers that change the balances by ``rest``; None when there are too many to try."""
        degree: dict[int, int] = defaultdict(int)
        for each in options:
            degree[each.payer] += 1
            degree[each.payee] += 1
        if any(player not in degree for player in rest):
            return []
        if self.steps > ALL_STEPS:
            return None
        order = sorted(range(len(options)), key=lambda at: min(degree[options[at].payer], degree[options[at].payee]))
        search = _Choices([options[at] for at in order], rest)
        found = search.all()
        self.steps += search.steps
        return None if found is None else [tuple(order[at] for at in choice) for choice in found]

    def _timely(self, choice: frozenset[int], options: Sequence[int]) -> bool:
        """Whether a choice with a transfer has all that ended before that one began."""
        last = max((self.transfers[number].start for number in choice), default=None)
        return last is None or all(
            number in choice or number in self.in_base or self.ends[number] >= last for number in options
        )

    def disordered(self) -> list[tuple[int, int]]:
        """Pairs of snapshots of which no choices fit to each other."""
        changed = True
        while changed:
            changed = False
            for at, one in enumerate(self.judged):
                for two in self.judged[at + 1 : at + 1 + NEAR]:
                    if not one.options & two.options:
                        continue
                    if len(one.choices) == len(two.choices) == 1 and self._fit(
                        one, one.choices[0], two, two.choices[0]
                    ):
                        continue
                    ones = [mine for mine in one.choices if any(self._fit(one, mine, two, its) for its in two.choices)]
                    twos = [its for its in two.choices if any(self._fit(one, mine, two, its) for mine in one.choices)]
                    if not ones:
                        return [(one.place, two.place)]
                    changed |= len(ones) < len(one.choices) or len(twos) < len(two.choices)
                    one.choices, two.choices = ones, twos
        return []

    def _fit(self, one: _Judged, mine: frozenset[int], two: _Judged, its: frozenset[int]) -> bool:
        """Whether one snapshot with its choice can be before the other, or after it if they are concurrent."""
        first, second = self.snapshots[one.place], self.snapshots[two.place]
        if mine <= its or all(number in its or self.certain(number, second) for number in mine):
            return True
        if first.end < second.start:
            return False
        later = {number for number in one.options if self.certain(number, second)} | its
        return all(number in mine or self.certain(number, first) for number in later)


class _Choices:
    def __init__(self, options: Sequence[Transfer], rest: Mapping[int, int]) -> None:
        self.options = options
        self.left = defaultdict(int, rest)
        self.out: dict[int, int] = defaultdict(int)
        self.into: dict[int, int] = defaultdict(int)
        for each in options:
            self.out[each.payer] += each.coins
            self.into[each.payee] += each.coins
        self.found: list[tuple[int, ...]] = []
        self.steps = 0

    def all(self) -> list[tuple[int, ...]] | None:
        """None when there are more than CHOICES, or it takes more than STEPS."""
        if all(self._possible(player) for player in {*self.left, *self.out, *self.into}):
            self._search(0, [])
        return None if self.steps > STEPS or len(self.found) > CHOICES else self.found

    def _possible(self, player: int) -> bool:
        return -self.out[player] <= self.left[player] <= self.into[player]

    def _search(self, at: int, chosen: list[int]) -> None:
        self.steps += 1
        if self.steps > STEPS or len(self.found) > CHOICES:
            return
        if at == len(self.options):
            self.found.append(tuple(chosen))
            return
        each = self.options[at]
        self.out[each.payer] -= each.coins
        self.into[each.payee] -= each.coins
        for take in (False, True):
            if take:
                self.left[each.payer] += each.coins
                self.left[each.payee] -= each.coins
                chosen.append(at)
            if self._possible(each.payer) and self._possible(each.payee):
                self._search(at + 1, chosen)
        chosen.pop()
        self.left[each.payer] -= each.coins
        self.left[each.payee] += each.coins
        self.out[each.payer] += each.coins
        self.into[each.payee] += each.coins
