"""Random games: a correct site in memory, players whose ops overlap, and the history that they record.

Ops have the shapes that ``loadtests/locustfile.py`` records. The games have everything that real runs have: data of an
earlier run, missing answers (without an effect, with one, or with a late one), refusals, and real servers that find a
new upload late. ``plant`` corrupts the site after the players have finished and before the final reads.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from harness.history import History, Op
from tests.support import histories as h

PLAYERS: tuple[int, ...] = (1, 2, 3)
NODES = ("web-1", "web-2", "web-3")
PAGE = 7
LAG_MS = 1500
FINAL_MS = 3000
"""Time from the last op to the final reads: longer than any real server may lag."""


@dataclass
class Site:
    """The data of the site. A planted defect changes it."""

    ledger: list[dict[str, Any]]
    transfers: list[dict[str, Any]]
    profiles: dict[int, tuple[str, int]]
    scores: dict[int, int]
    coins: dict[int, int]
    files: dict[str, tuple[str, int]]
    """Each upload -> its digest, and the time since which it exists."""
    blind: set[tuple[str, str]] = field(default_factory=set)
    """Uploads, and real servers that never find them."""

    @classmethod
    def used(cls) -> Site:
        """A site with the data of an earlier run."""
        return cls(
            ledger=[{"entry": n, "op": f"old-0-{n}", "player": 1, "points": 5} for n in range(1, 5)],
            transfers=[{"entry": 1, "op": "old-0-9", "from": 1, "to": 2, "coins": 7}],
            profiles={1: ("old-0-8", 3), 2: ("", 0), 3: ("old-1-1", 1)},
            scores={1: 20, 2: 0, 3: 0},
            coins={1: 93, 2: 107, 3: 100},
            files={},
        )


@dataclass
class Ask:
    """An op before it is executed. ``effect`` is the time when the site executes it; None: never."""

    process: str
    f: str
    asked: dict[str, Any]
    start: int
    effect: int | None
    end: int
    answer: bool


@dataclass
class Game:
    """A game with a number of ops. ``sure``: every op gets an answer."""

    seed: int
    ops: int = 40
    sure: bool = False
    users: int = 3
    span_ms: int = 40
    """The longest time from the start of an op to its effect, and from there to its answer."""
    plant: Callable[[Site, History], None] | None = None
    site: Site = field(default_factory=Site.used)
    recorded: list[Op] = field(default_factory=list)
    end: int = 0

    def history(self) -> History:
        """Play, plant the defect, and read everything."""
        self.chance = random.Random(self.seed)
        self.run = f"{self.seed:08x}"
        self._do(Ask("final:0", "coins", {}, 2, 3, 4, answer=True))
        for player in PLAYERS:
            at = 2 + 4 * player
            self._do(Ask("final:0", "score-read", {"player": player}, at, at + 1, at + 2, answer=True))
        for ask in sorted(self._asks(), key=lambda ask: (ask.effect is None, ask.effect)):
            self._do(ask)
        if self.plant is not None:
            self.plant(self.site, h.of(self.recorded))
        self._read_all()
        worker = h.op(0, "worker:load", "worker", {"phase": "begin", "boot": "one", "wall_ns": 0})
        return h.of([h.start(), worker, *self.recorded, h.end(self.end + 10)])

    def _asks(self) -> Iterator[Ask]:
        begin = 4 * len(PLAYERS) + 8  # after the first reads
        clocks = {f"user:{number}": begin + number for number in range(self.users)}
        names: list[str] = []
        for number in range(self.ops):
            process = min(clocks, key=lambda name: clocks[name])
            f, asked = self._ask(f"{self.run}-{process[5:]}-{number}", names)
            start = clocks[process] + self.chance.randint(1, 30)
            effect = start + self.chance.randint(0, self.span_ms)
            end = effect + self.chance.randint(0, self.span_ms)
            answer = self.sure or self.chance.random() > 0.12
            late = 0 if answer else self.chance.choice((0, 0, 200, 10_000))
            done = answer or self.chance.random() < 0.6
            clocks[process] = end + 1
            self.end = max(self.end, end)
            yield Ask(process, f, asked, start, effect + late if done else None, end + 1, answer)

    def _ask(self, op: str, names: list[str]) -> tuple[str, dict[str, Any]]:
        player, chance = self.chance.choice(PLAYERS), self.chance
        f = chance.choice(FS)
        if f == "download" and not names:
            f = "upload"
        if f == "profile-write":
            return f, {"player": player, "motto": op}
        if f == "score":
            return f, {"player": player, "points": chance.randint(1, 20), "op": op}
        if f == "transfer":
            return f, {"from": player, "to": player % 3 + 1, "coins": chance.randint(1, 30), "op": op}
        if f == "upload":
            names.append(op)
            return f, {"name": op, "sha256": hashlib.sha256(op.encode()).hexdigest(), "bytes": len(op)}
        if f == "download":
            return f, {"name": chance.choice(names)}
        return f, {} if f == "coins" else {"player": player}

    # --- the site

    def _do(self, ask: Ask) -> None:
        asked = ask.asked | {"vip": h.VIP1}
        self.recorded.append(h.op(ask.start, ask.process, ask.f, asked, "invoke"))
        served = {"node": self.chance.choice(NODES), "status": 200, "ms": ask.end - ask.start}
        answer: dict[str, Any] | int = 503
        if ask.effect is not None and (self.sure or ask.f not in WRITES or self.chance.random() > 0.08):
            answer = getattr(self, ask.f.replace("-", "_"))(ask, served["node"])
        if not ask.answer:
            self.recorded.append(h.op(ask.end, ask.process, ask.f, asked | {"ms": 5}, "info", error="timeout"))
        elif isinstance(answer, int):
            refused = asked | served | {"status": answer, "written": "no", "said": "no"}
            self.recorded.append(h.op(ask.end, ask.process, ask.f, refused, "fail", error=f"status {answer}"))
        else:
            self.recorded.append(h.op(ask.end, ask.process, ask.f, asked | served | answer, "ok"))

    def profile_read(self, ask: Ask, _: str) -> dict[str, Any]:
        motto, version = self.site.profiles[ask.asked["player"]]
        return {"motto": motto, "version": version}

    def profile_write(self, ask: Ask, _: str) -> dict[str, Any]:
        player = ask.asked["player"]
        self.site.profiles[player] = ask.asked["motto"], self.site.profiles[player][1] + 1
        return {"version": self.site.profiles[player][1]}

    def score(self, ask: Ask, _: str) -> dict[str, Any]:
        player, points = ask.asked["player"], ask.asked["points"]
        self.site.scores[player] += points
        entry = len(self.site.ledger) + 1
        self.site.ledger.append({"entry": entry, "op": ask.asked["op"], "player": player, "points": points})
        return {"total": self.site.scores[player], "entry": entry, "first": True}

    def score_read(self, ask: Ask, _: str) -> dict[str, Any]:
        player = ask.asked["player"]
        entries = sum(entry["player"] == player for entry in self.site.ledger)
        return {"total": self.site.scores[player], "entries": entries}

    def transfer(self, ask: Ask, _: str) -> dict[str, Any] | int:
        asked, coins = ask.asked, self.site.coins
        if coins[asked["from"]] < asked["coins"]:
            return 409
        coins[asked["from"]] -= asked["coins"]
        coins[asked["to"]] += asked["coins"]
        made = {"op": asked["op"], "from": asked["from"], "to": asked["to"], "coins": asked["coins"]}
        self.site.transfers.append({"entry": len(self.site.transfers) + 1, **made})
        return {"first": True}

    def coins(self, _: Ask, __: str) -> dict[str, Any]:
        balances = {str(player): coins for player, coins in self.site.coins.items()}
        return {"balances": balances, "total": sum(balances.values())}

    def upload(self, ask: Ask, _: str) -> dict[str, Any]:
        self.site.files[ask.asked["name"]] = ask.asked["sha256"], ask.effect or 0
        return {}

    def download(self, ask: Ask, node: str) -> dict[str, Any] | int:
        name, now = ask.asked["name"], ask.effect or 0
        if name not in self.site.files or (name, node) in self.site.blind:
            return 404
        sha256, since = self.site.files[name]
        if now < since + LAG_MS and self.chance.random() < 0.3:
            return 404
        return {"sha256": sha256, "bytes": len(name)}

    def ledger(self, ask: Ask, _: str) -> dict[str, Any]:
        return _page(self.site.ledger, ask.asked["after"])

    def transfers(self, ask: Ask, _: str) -> dict[str, Any]:
        return _page(self.site.transfers, ask.asked["after"])

    # --- the final reads

    def _read_all(self) -> None:
        self.end += FINAL_MS
        names = [op["name"] for op in self.recorded if op.f == "upload" and op.type == "invoke"]
        for f, key, values in (
            ("coins", "", [0]),
            ("score-read", "player", PLAYERS),
            ("profile-read", "player", PLAYERS),
            ("download", "name", names),
        ):
            for value in values:
                self._read(f, {key: value} if key else {})
        for f in ("ledger", "transfers"):
            after: int | None = 0
            while after is not None:
                page = self._read(f, {"after": after, "limit": PAGE})
                after = page["last"] if len(page["entries"]) == PAGE else None

    def _read(self, f: str, asked: dict[str, Any]) -> Op:
        self.end += 4
        self._do(Ask("final:0", f, asked, self.end, self.end + 1, self.end + 2, answer=True))
        return self.recorded[-1]


def _page(entries: list[dict[str, Any]], after: int) -> dict[str, Any]:
    page = [entry for entry in entries if entry["entry"] > after][:PAGE]
    return {"entries": page, "last": page[-1]["entry"] if page else after}


WRITES = ("profile-write", "score", "transfer", "upload")
FS = (*WRITES, "score", "profile-read", "profile-read", "score-read", "coins", "download", "download")


def acknowledged(history: History, f: str) -> list[Op]:
    """The completions of all acknowledged ops, by time."""
    return [op for op in history.of(f) if op.type == "ok"]
