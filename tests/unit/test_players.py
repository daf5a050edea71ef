"""The players of the locustfile, against a small game on loopback that can plant wrong answers."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
import socket
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.support.locust import NAMES, completed, dns, finish, finish_when, paired, refusing, start
from tests.support.program import DEADLINE_S, Op

pytestmark = pytest.mark.locust

READS = {"get", "profile-read", "score-read", "coins", "download"}
WRITES = {"profile-write", "score", "transfer", "upload", "login", "session", "publish"}
FS = READS | WRITES - {"publish"}
"""What players do."""
ALL_FS = FS | {"publish", "article"}
PATHS = {
    ("GET", "/profile.php"): "profile-read",
    ("POST", "/profile.php"): "profile-write",
    ("POST", "/score.php"): "score",
    ("GET", "/score.php"): "score-read",
    ("POST", "/transfer.php"): "transfer",
    ("GET", "/coins.php"): "coins",
    ("POST", "/upload.php"): "upload",
    ("GET", "/upload.php"): "download",
    ("POST", "/login.php"): "login",
    ("GET", "/session.php"): "session",
    ("GET", "/article.php"): "article",
    ("POST", "/article.php"): "publish",
    ("GET", "/ledger.php"): "ledger_page",
    ("GET", "/transfers.php"): "transfers_page",
    **{("GET", path): "get" for path in ("/", "/news.html", "/rules.html", "/style.css")},
}
ASKED = {
    "get": {"url"},
    "profile-read": {"player"},
    "profile-write": {"player", "motto"},
    "score": {"player", "points", "op"},
    "score-read": {"player"},
    "transfer": {"from", "to", "coins", "op"},
    "coins": set(),
    "upload": {"name", "sha256", "bytes"},
    "download": {"name"},
    "login": {"player", "op"},
    "session": {"player", "login"},
    "article": {"article"},
    "publish": {"article", "page", "op"},
}
ANSWERED = {
    "get": set(),
    "profile-read": {"motto", "version"},
    "profile-write": {"version"},
    "score": {"entry", "total", "first"},
    "score-read": {"total", "entries"},
    "transfer": {"first"},
    "coins": {"balances", "total"},
    "upload": set(),
    "download": {"sha256", "bytes"},
    "login": {"pages"},
    "session": {"pages"},
    "article": {"by", "version"},
    "publish": {"version", "sha256"},
}
OP_ID = r"[0-9a-f]{8}-\d+-\d+"


@dataclass
class Request:
    """One request as it arrived, by the number of its connection. ``given`` are its parameters."""

    f: str
    connection: int
    given: dict[str, Any]
    body: bytes
    cookie: str | None


@dataclass
class Reply:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def refusal(status: int, **fields: Any) -> Reply:
    return Reply(status, json.dumps({"node": "web-1", "error": "no, sorry", **fields}).encode())


@dataclass
class Game:
    """The site's rules in memory, as one node behind two addresses. ``plant`` may answer in its place."""

    plant: Callable[[Game, Request], Reply | Callable[[socket.socket], None] | None] = lambda *_: None
    requests: list[Request] = field(default_factory=list)
    profiles: dict[int, tuple[str, int]] = field(default_factory=lambda: defaultdict(lambda: ("", 0)))
    ledger: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """Of each op: entry, player, points."""
    balances: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(1, 201), 1000))
    moved: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    articles: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Of each: the ops that wrote it."""
    sessions: dict[str, list[int]] = field(default_factory=dict)
    """Of each cookie: player, pages."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    port: int = 0
    address: str = "0.0.0.0"

    def answer(self, request: Request) -> Reply | Callable[[socket.socket], None]:
        with self.lock:
            self.requests.append(request)
            return self.plant(self, request) or self.rightly(request)

    def rightly(self, request: Request) -> Reply:
        handle: Callable[[Request], dict[str, Any] | Reply] = getattr(self, request.f.replace("-", "_"))
        found = handle(request)
        if isinstance(found, Reply):
            return found
        return Reply(200, json.dumps({"node": "web-1", "vip": None, "op": request.given.get("op"), **found}).encode())

    def get(self, _: Request) -> Reply:
        return Reply(200, b"<p>a page\n")

    def profile_read(self, request: Request) -> dict[str, Any]:
        motto, version = self.profiles[request.given["player"]]
        return {"player": request.given["player"], "motto": motto, "version": version}

    def profile_write(self, request: Request) -> dict[str, Any]:
        player = request.given["player"]
        self.profiles[player] = (request.given["motto"], self.profiles[player][1] + 1)
        return self.profile_read(request)

    def score(self, request: Request) -> dict[str, Any]:
        player, points = request.given["player"], request.given["points"]
        entry = len(self.ledger) + 1
        self.ledger[request.given["op"]] = (entry, player, points)
        total = sum(points for _, whose, points in self.ledger.values() if whose == player)
        return {"player": player, "points": points, "total": total, "entry": entry, "first": True}

    def score_read(self, request: Request) -> dict[str, Any]:
        mine = [points for _, whose, points in self.ledger.values() if whose == request.given["player"]]
        return {"player": request.given["player"], "total": sum(mine), "entries": len(mine)}

    def transfer(self, request: Request) -> dict[str, Any] | Reply:
        giver, taker, coins = (request.given[key] for key in ("from", "to", "coins"))
        assert giver != taker
        if self.balances[giver] < coins:
            return refusal(409, written="no")
        self.balances[giver] -= coins
        self.balances[taker] += coins
        return {"from": giver, "to": taker, "coins": coins, "first": True}

    def coins(self, _: Request) -> dict[str, Any]:
        return {"balances": {str(player): coins for player, coins in self.balances.items()}, "total": 200_000}

    def upload(self, request: Request) -> dict[str, Any]:
        self.files[request.given["op"]] = request.body
        digest = hashlib.sha256(request.body).hexdigest()
        return {"name": request.given["op"], "bytes": len(request.body), "sha256": digest}

    def download(self, request: Request) -> Reply:
        name = request.given["name"]
        return Reply(200, self.files[name]) if name in self.files else refusal(404)

    def ledger_page(self, request: Request) -> dict[str, Any]:
        entries = [
            {"entry": entry, "op": op, "player": player, "points": points}
            for op, (entry, player, points) in self.ledger.items()
        ]
        return page(entries, request)

    def transfers_page(self, request: Request) -> dict[str, Any]:
        return page(self.moved, request)

    def article(self, request: Request) -> dict[str, Any]:
        written = self.articles[request.given["article"]]
        last = written[-1] if written else None
        return {"article": request.given["article"], "by": last, "version": len(written)}

    def publish(self, request: Request) -> dict[str, Any]:
        assert request.given["op"] in request.given["text"]
        article, text = request.given["article"], request.given["text"]
        self.articles[article].append(request.given["op"])
        written = {"version": len(self.articles[article]), "sha256": hashlib.sha256(text.encode()).hexdigest()}
        return {"article": article, "page": f"articles/{article}.html", **written}

    def login(self, request: Request) -> Reply:
        cookie = f"PHPSESSID=s{len(self.sessions)}"
        self.sessions[cookie] = [request.given["player"], 0]
        body = {"player": request.given["player"], "op": request.given["op"]}
        return Reply(200, json.dumps(body).encode(), {"Set-Cookie": f"{cookie}; path=/; HttpOnly"})

    def session(self, request: Request) -> dict[str, Any]:
        session = self.sessions.get(request.cookie or "")
        if session is None:
            return {"player": None, "pages": 0}
        session[1] += 1
        return {"player": session[0], "pages": session[1]}


def page(entries: list[dict[str, Any]], request: Request) -> dict[str, Any]:
    after, limit = request.given["after"], request.given["limit"]
    found = [entry for entry in entries if entry["entry"] > after][:limit]
    return {"entries": found, "last": found[-1]["entry"] if found else after}


def parameters(text: str) -> dict[str, Any]:
    return {key: int(value) if value.isdigit() else value for key, value in parse_qsl(text, strict_parsing=bool(text))}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    game: Game
    numbers = itertools.count()

    def setup(self) -> None:
        super().setup()
        # Not the port: on loopback Linux uses one again after a second.
        self.number = next(self.numbers)

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        url = urlsplit(self.path)
        f = PATHS[str(self.command), url.path]
        given = parameters(url.query)
        if f in WRITES - {"upload", "session"}:
            assert self.headers["Content-Type"].startswith("application/x-www-form-urlencoded")
            given |= parameters(body.decode())
        assert self.headers["Host"] == f"www.example.test:{self.game.port}"
        reply = self.game.answer(Request(f, self.number, given, body, self.headers["Cookie"]))
        if not isinstance(reply, Reply):
            reply(self.connection)
            return
        node = NAMES[self.connection.getsockname()[0]]
        headers = {"X-Node": node, "Content-Length": str(len(reply.body)), **reply.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.connection.sendall(f"HTTP/1.1 {reply.status} Said\r\n{lines}\r\n".encode() + reply.body)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512
    broken: list[str]

    def handle_error(self, *_: Any) -> None:
        """A game that fails would look like a planted mistake. A player who is gone is no failure."""
        error = sys.exception()
        if not isinstance(error, OSError):
            self.broken.append(repr(error))


@contextmanager
def play(game: Game) -> Iterator[Game]:
    handler = type("GameHandler", (Handler,), {"game": game, "log_message": lambda *_: None})
    with Server((game.address, 0), handler) as server:
        server.broken = []
        game.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield game
        finally:
            server.shutdown()
            thread.join(timeout=DEADLINE_S)
    assert not server.broken, server.broken[0]


def run(
    game: Game, folder: Path, enough: Callable[[list[Op]], Any], what: str, *, who: str = "Player", **settings: Any
) -> list[tuple[Op, Op]]:
    """Play until enough was recorded; ``what`` that is completes "waiting for ..."."""
    settings = {"MONKEYWRENCH_THINK_MS": "2", **settings}
    with play(game), dns(folder) as server:
        return paired(finish_when(start(game.port, server, who=who, **settings), enough, what), ALL_FS)


def done(*fs: str, kind: str = "ok", times: int = 1) -> Callable[[list[Op]], bool]:
    """Whether each of these ops was completed with this type, and that often."""

    def enough(ops: list[Op]) -> bool:
        counted = Counter(op["f"] for op in completed(ops, kind))
        return all(counted[f] >= times for f in fs)

    return enough


def of(pairs: list[tuple[Op, Op]], f: str, kind: str = "ok") -> list[dict[str, Any]]:
    """The values of the completions of that ``f`` and type."""
    return [end["value"] for _, end in pairs if end["f"] == f and end["type"] == kind]


def op_ids(pairs: list[tuple[Op, Op]]) -> list[str]:
    values = [invoke["value"] for invoke, _ in pairs]
    asked = [value.get("op") or value.get("motto") or value.get("name") for value in values]
    return [op for op, (invoke, _) in zip(asked, pairs, strict=True) if op and invoke["f"] != "download"]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Game, list[tuple[Op, Op]]]:
    """A healthy game, and what its players recorded."""
    game = Game()

    def enough(ops: list[Op]) -> bool:
        return len(ops) > 2000 and done(*FS)(ops) and len({op["process"] for op in completed(ops)}) == 4

    return game, run(game, tmp_path_factory.mktemp("game"), enough, "1,000 ops of 4 users, of all kinds", users=4)


Played = tuple[Game, list[tuple[Op, Op]]]


def test_players_do_everything_and_every_op_is_recorded(played: Played) -> None:
    game, pairs = played
    for invoke, end in pairs:
        f, kind, value = end["f"], end["type"], end["value"]
        assert invoke["value"].keys() == ASKED[f] | {"vip"}
        assert "error" not in invoke
        if kind == "ok":
            assert value.keys() == ASKED[f] | ANSWERED[f] | {"vip", "node", "status", "ms"}
            assert (value["node"], value["status"]) == (NAMES[value["vip"]], 200)
            assert "error" not in end
            assert {key: value[key] for key in ASKED[f]} == {key: invoke["value"][key] for key in ASKED[f]}
        else:
            assert (end["error"], kind) in {("stopped", "info"), ("status 409", "fail")}
    # What was recorded is what was sent, and was sent once.
    sent = Counter(request.f for request in game.requests)
    asked = Counter(end["f"] for _, end in pairs)
    assert all(0 <= asked[f] - sent[f] <= 4 for f in FS)
    assert {end["value"]["vip"] for _, end in pairs} == set(NAMES)
    assert {invoke["process"] for invoke, _ in pairs} == {f"user:{number}" for number in range(4)}


def test_a_visit_is_one_connection_with_some_ops(played: Played) -> None:
    game, _ = played
    visits = Counter(request.connection for request in game.requests)
    assert len(visits) > 4
    assert max(visits.values()) <= 20
    # At the start and end of the run visits are cut short.
    assert sum(count >= 5 for count in visits.values()) >= len(visits) - 4


def test_what_was_acknowledged_is_what_the_site_has(played: Played) -> None:
    game, pairs = played
    ids = op_ids(pairs)
    assert len(ids) == len(set(ids)) > 20
    assert all(re.fullmatch(OP_ID, op) for op in ids)
    assert len({op.partition("-")[0] for op in ids}) == 1

    scores = {value["op"]: (value["entry"], value["player"], value["points"]) for value in of(pairs, "score")}
    assert scores.items() <= game.ledger.items()
    assert game.ledger.keys() <= set(ids)

    written: dict[int, dict[int, str]] = defaultdict(dict)
    for value in of(pairs, "profile-write"):
        written[value["player"]][value["version"]] = value["motto"]
    for value in of(pairs, "profile-read"):
        known = written[value["player"]].get(value["version"], value["motto"])
        assert value["motto"] == (known if value["version"] else "")

    for value in of(pairs, "upload"):
        assert value["sha256"] == hashlib.sha256(game.files[value["name"]]).hexdigest()
        assert value["bytes"] == len(game.files[value["name"]])
    uploads = {value["name"]: value["sha256"] for value in of(pairs, "upload")}
    assert len(set(uploads.values())) == len(uploads)
    for value in of(pairs, "download"):
        assert value["sha256"] == uploads[value["name"]]
    assert all(sum(value["balances"].values()) == value["total"] == 200_000 for value in of(pairs, "coins"))
    assert all(value["from"] != value["to"] for value in of(pairs, "transfer"))


def test_players_of_one_process_read_each_others_uploads(played: Played) -> None:
    _, pairs = played
    own = [
        value["name"].split("-")[1] == invoke["process"].removeprefix("user:")
        for invoke, _ in pairs
        if invoke["f"] == "download"
        for value in [invoke["value"]]
    ]
    assert False in own


def test_half_of_all_ops_are_about_the_hot_players_and_the_rest_about_all(played: Played) -> None:
    _, pairs = played
    players = Counter(end["value"]["player"] for _, end in pairs if end["f"] in {"profile-read", "score-read"})
    assert set(players) <= set(range(1, 201))
    assert sum(players[player] for player in range(1, 9)) > 0.3 * players.total()
    assert len(players) > 20


def test_a_session_is_of_one_visit_and_counts_its_pages(played: Played) -> None:
    game, pairs = played
    pages: Counter[str] = Counter()
    logins = {value["op"]: value for value in of(pairs, "login")}
    assert {value["pages"] for value in logins.values()} == {0}
    for value in of(pairs, "session"):
        pages[value["login"]] += 1
        assert value["pages"] == pages[value["login"]]
        assert value["player"] == logins[value["login"]]["player"]
    assert max(pages.values()) > 1
    # The next visit begins without the cookie of the last.
    connections = defaultdict(set)
    for request in game.requests:
        if request.cookie:
            connections[request.cookie].add(request.connection)
    assert {len(numbers) for numbers in connections.values()} == {1}


def _raw(status_line: bytes, body: bytes, length: int, more: bytes = b"") -> Callable[[socket.socket], None]:
    def send(connection: socket.socket) -> None:
        head = b"HTTP/1.1 " + status_line + b"\r\nX-Node: web-9\r\n" + more
        connection.sendall(head + f"Content-Length: {length}\r\n\r\n".encode() + body)
        _drop(connection)

    return send


def _drop(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _other(request: Request) -> Reply:
    """The answer to another user's request."""
    body = {"node": "web-1", "op": "another-user", "player": 999, "motto": "m", "version": 1, "from": 1, "to": 2}
    return Reply(200, json.dumps({**body, "name": "other", "pages": "many", "balances": {"1": "rich"}}).encode())


PLANTED: dict[str, tuple[Callable[[Request], Reply | Callable[[socket.socket], None]], str, str, int | None, str]] = {
    # name: what is done, type of a write, type of a read, status, error
    "broken JSON": (lambda _: Reply(200, b'{"node": "web-1", "pla'), "info", "fail", 200, "unreadable answer"),
    "no object": (lambda _: Reply(200, b"[1]"), "info", "fail", 200, "unreadable answer"),
    "deep": (lambda _: Reply(200, b"[" * 100_000), "info", "fail", 200, "unreadable answer"),
    "empty": (lambda _: Reply(200, b""), "info", "fail", 200, "unreadable answer"),
    "other": (_other, "info", "fail", 200, "wrong answer: "),
    "dropped": (lambda _: _drop, "info", "fail", None, "connection closed"),
    "cut": (lambda _: _raw(b"200 OK", b"{}", 300), "info", "fail", 200, ""),
    "no HTTP": (lambda _: lambda connection: connection.sendall(b"what?\r\n\r\n"), "info", "fail", None, ""),
    "cut refusal": (lambda _: _raw(b"503 Sorry", b'{"written": "no"', 300), "info", "fail", None, ""),
    "503 no": (lambda _: refusal(503, written="no"), "fail", "fail", 503, "status 503"),
    "503": (lambda _: Reply(503, b"<h1>Service Unavailable</h1>"), "info", "fail", 503, "status 503"),
    "500 unknown": (lambda _: refusal(500, written="unknown"), "info", "fail", 500, "status 500"),
    "500 no": (lambda _: refusal(500, written="no"), "fail", "fail", 500, "status 500"),
    "500": (lambda _: Reply(500, b""), "info", "fail", 500, "status 500"),
    "500 binary": (lambda _: Reply(500, b"\xff\xfe"), "info", "fail", None, "unreadable answer: "),
    "409": (lambda _: refusal(409, written="no"), "fail", "fail", 409, "status 409"),
    "400 without a word": (lambda _: Reply(400, b"<h1>Bad Request</h1>"), "fail", "fail", 400, "status 400"),
    "404 unknown": (lambda _: refusal(404, written="unknown"), "info", "fail", 404, "status 404"),
    "302": (lambda _: Reply(302, b"", {"Location": "http://192.0.2.1/"}), "info", "fail", 302, "status 302"),
}
ANY_BODY = {"broken JSON", "no object", "deep", "empty", "other"}
"""Of a page and of a download any body is a right one."""


def any_body_is_right(f: str, name: str | None) -> bool:
    return name in ANY_BODY and f in {"get", "download"}


def test_planted_mistakes_are_distinguished(tmp_path: Path) -> None:
    # Each in turn, for writes, for reads of data, and for other reads. Now and then the truth: without uploads there
    # are no downloads, and without logins no sessions.
    names = [*PLANTED, *[None] * 8]
    random.Random(1).shuffle(names)
    writes, reads, others = (itertools.cycle(names) for _ in range(3))
    planted: list[tuple[str, str | None]] = []

    def plant(_: Game, request: Request) -> Reply | Callable[[socket.socket], None] | None:
        name = next(writes if request.f in WRITES else others if request.f in {"get", "download"} else reads)
        planted.append((request.f, name))
        return PLANTED[name][0](request) if name else None

    wanted = set(itertools.product(PLANTED, (True, False)))

    def enough(ops: list[Op]) -> bool:
        answered = [(f, name) for (f, name), _ in zip(planted, completed(ops), strict=False)]
        return {(name, f in WRITES) for f, name in answered if not any_body_is_right(f, name)} >= wanted

    pairs = run(Game(plant), tmp_path, enough, "each mistake, in the answer to a write and to a read", users=1)
    # A request that is sent again behind the recorder's back would make one op of two.
    assert 0 <= len(pairs) - len(planted) <= 1
    seen = set()
    for (f, name), (_, end) in zip(planted, pairs, strict=False):
        assert end["f"] == f
        if end.get("error") == "stopped":
            continue
        if name is None or any_body_is_right(f, name):
            assert (end["type"], end["value"]["status"]) in {("ok", 200), ("fail", 409)}
            continue
        _, write, read, status, error = PLANTED[name]
        expected = write if f in WRITES else read
        assert (name, f, end["type"]) == (name, f, expected)
        assert end["value"].get("status") == status, (name, end)
        assert end["error"].startswith(error), (name, end)
        assert end["error"]
        seen.add((name, f in WRITES))
        if name in {"503 no", "500 unknown", "409"} and f != "get":
            assert end["value"]["said"] == "no, sorry"
            assert end["value"]["written"] == (name.partition(" ")[2] or "no")
        if name == "503" and f != "get":
            assert end["value"]["said"] == "<h1>Service Unavailable</h1>"
        if name == "broken JSON":
            assert end["value"]["said"] == '{"node": "web-1", "pla'
    assert seen == wanted


def test_a_reply_that_is_not_quite_right_is_no_answer(tmp_path: Path) -> None:
    """One field at a time."""
    chance = random.Random(2)
    harm: list[tuple[str, str | None]] = []
    values: list[Any] = [None, True, 1.5, "1", "x", [], {}, -7]

    def plant(game: Game, request: Request) -> Reply | None:
        if request.f in {"get", "download"} or chance.random() < 0.3:
            harm.append((request.f, None))
            return None
        reply = game.rightly(request)
        answer = json.loads(reply.body)
        key = chance.choice([key for key in answer if key in ASKED[request.f] | ANSWERED[request.f]] or [None])
        if key is None or reply.status != 200:
            harm.append((request.f, None))
            return reply
        wrong = [value for value in values if type(value) is not type(answer[key])]
        answer[key] = {"1": None} if key == "balances" else chance.choice(wrong)
        if chance.random() < 0.2:
            del answer[key]
        logged_out = request.f == "session" and key == "player" and answer.get(key) is None and key in answer
        harm.append((request.f, None if logged_out else key))
        return Reply(200, json.dumps(answer).encode(), reply.headers)

    harmful = {"profile-read", "profile-write", "score", "score-read", "transfer", "login"}

    def enough(ops: list[Op]) -> bool:
        return {f for (f, key), _ in zip(harm, completed(ops), strict=False) if key is not None} >= harmful

    pairs = run(Game(plant), tmp_path, enough, "a wrong field in the answer to each kind of op", users=1)
    seen = set()
    for (f, key), (_, end) in zip(harm, pairs, strict=False):
        assert end["f"] == f
        if key is None:
            assert end["type"] == "ok" or end["error"] in {"stopped", "status 409"}, end
        elif end.get("error") != "stopped":
            assert end["type"] == ("info" if f in WRITES else "fail"), (key, end)
            assert end["error"].startswith("wrong answer: ")
            assert key in end["error"]
            seen.add(f)
    assert seen >= harmful


def test_a_lost_session_is_recorded_and_the_player_logs_in_again(tmp_path: Path) -> None:
    def plant(game: Game, request: Request) -> None:
        if request.f == "session":
            game.sessions.clear()

    def lost(ops: list[Op]) -> list[tuple[Op, Op]]:
        turns = [op for op in completed(ops, "ok") if op["f"] in {"login", "session"}]
        return [(end, after) for end, after in itertools.pairwise(turns) if end["value"]["player"] is None]

    pairs = run(Game(plant), tmp_path, lost, "a lost session and what follows", users=1)
    for end, after in lost([end for _, end in pairs]):
        assert (end["f"], end["value"]["pages"], after["f"]) == ("session", 0, "login")
    assert all(invoke["value"]["player"] for invoke, _ in pairs if invoke["f"] == "session")


def test_a_login_without_a_cookie_is_no_login(tmp_path: Path) -> None:
    def plant(game: Game, request: Request) -> Reply | None:
        return Reply(200, game.rightly(request).body) if request.f == "login" else None

    pairs = run(Game(plant), tmp_path, done("login", kind="info", times=3), "3 failed logins", users=1)
    logins = [end for _, end in pairs if end["f"] == "login" and end.get("error") != "stopped"]
    assert {(end["type"], end["error"]) for end in logins} == {("info", "wrong answer: no cookie")}
    assert not any(end["f"] == "session" for _, end in pairs)


def test_without_an_answer_the_outcome_is_unknown(tmp_path: Path) -> None:
    def enough(ops: list[Op]) -> bool:
        fs = {op["f"] for op in completed(ops, "info")}
        return bool(fs & READS and fs & WRITES)

    game, timeout = Game(lambda *_: lambda _: None), {"MONKEYWRENCH_TIMEOUT_MS": "700"}
    pairs = run(game, tmp_path, enough, "timeouts of a read and of a write", users=20, **timeout)
    assert {end["type"] for _, end in pairs} == {"info"}
    assert {end["error"] for _, end in pairs} <= {"timeout", "stopped"}


def refused_write(ops: list[Op]) -> bool:
    return any(op["f"] in WRITES for op in completed(ops, "fail"))


def test_what_was_refused_was_not_written(tmp_path: Path) -> None:
    with refusing() as port, dns(tmp_path) as server:
        program = start(port, server, who="Player", users=4)
        pairs = paired(finish_when(program, refused_write, "a write that is refused"), FS)
    ended = [end for _, end in pairs if end.get("error") != "stopped"]
    assert {end["type"] for end in ended} == {"fail"}
    assert all("refused" in end["error"] for end in ended)
    writes = [end for end in ended if end["f"] in WRITES]
    assert all(end["error"].startswith("not sent: ") for end in writes)
    assert all(end["value"].keys() - {"again"} == ASKED[end["f"]] | {"vip", "ms"} for end in ended)


@contextmanager
def _silence() -> Iterator[int]:
    """A port at which SYNs are dropped: the queue of a listener that accepts no connection is full."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.create_server(("0.0.0.0", 0), backlog=0))
        port: int = listener.getsockname()[1]
        for _ in range(8):
            try:
                sockets.enter_context(socket.create_connection(("127.0.0.1", port), timeout=0.5))
            except TimeoutError:
                break
        else:
            pytest.fail("this kernel's queues are longer than asked for")
        yield port


def test_a_connection_that_never_was_carried_no_write(tmp_path: Path) -> None:
    def enough(ops: list[Op]) -> bool:
        return {(op["f"] in READS, "again" in op["value"]) for op in completed(ops)} >= {
            (True, True),
            (True, False),
            (False, True),
        }

    with _silence() as port, dns(tmp_path) as server:
        program = start(port, server, who="Player", users=20, MONKEYWRENCH_TIMEOUT_MS="700")
        pairs = paired(finish_when(program, enough, "a write, and reads at the first and at the last address"), FS)
    ended = [end for _, end in pairs if end.get("error") != "stopped"]
    reads = [end for end in ended if end["f"] in READS]
    last = {(end["type"], end["error"]) for end in reads if "again" not in end["value"]}
    assert last == {("info", "timeout")}
    assert {(end["type"], end["error"]) for end in reads if "again" in end["value"]} == {
        ("fail", "not sent: timed out")
    }
    assert {(end["type"], end["error"]) for end in ended if end["f"] in WRITES} == {("fail", "not sent: timed out")}


def test_without_an_address_nothing_is_sent() -> None:
    program = start(80, "192.0.2.53", who="Player", users=4)
    pairs = paired(finish_when(program, lambda ops: len({op["f"] for op in completed(ops)}) > 3, "4 kinds of ops"), FS)
    assert {end["type"] for _, end in pairs} == {"fail"}
    assert all("192.0.2.53 is outside of" in end["error"] for _, end in pairs)
    assert {end["value"]["vip"] for _, end in pairs} == {None}


def test_ids_belong_to_one_process_and_all_personas_come_by_default(tmp_path: Path) -> None:
    def enough(ops: list[Op]) -> bool:
        counted = Counter(op["process"] for op in completed(ops))
        return len(counted) == 20 and min(counted.values()) >= 30

    game = Game()
    with play(game), dns(tmp_path) as server:
        programs = [start(game.port, server, who=who, users=20) for who in ("Player", "")]
        one, all_ = (paired(finish_when(program, enough, "30 ops of each user"), ALL_FS) for program in programs)
    ids = op_ids(one) + op_ids(all_)
    assert len(ids) == len(set(ids))
    assert len({op.partition("-")[0] for op in ids}) == 2
    # 5 visitors, 12 players, 2 uploaders and an administrator, each with a name of its own.
    people = defaultdict(set)
    for invoke, _ in all_:
        people[invoke["process"]].add(invoke["f"])
    assert len(people) == 20
    assert sum(fs == {"get"} for fs in people.values()) == 5
    assert sum(fs <= {"upload", "download"} for fs in people.values()) == 2
    assert sum("article" in fs for fs in people.values()) == 1


def test_administrators_change_articles_and_read_them(tmp_path: Path) -> None:
    game = Game()

    def enough(ops: list[Op]) -> bool:
        published = {op["value"]["article"] for op in completed(ops, "ok") if op["f"] == "publish"}
        return len(published) == 12 and done("article", "get")(ops)

    pairs = run(game, tmp_path, enough, "12 articles that were published", who="Administrator", users=3)
    assert {end["f"] for _, end in pairs if end["type"] == "ok"} == {"publish", "article", "get"}
    for value in of(pairs, "publish"):
        assert game.articles[value["article"]][value["version"] - 1] == value["op"]
    for value in of(pairs, "article"):
        assert value["by"] == (game.articles[value["article"]][value["version"] - 1] if value["version"] else None)
    assert {value["article"] for value in of(pairs, "publish")} == {*range(1, 13)}
    # without an answer the outcome is unknown; an answer with written = no is certain
    game = Game(plant=lambda _, request: refusal(503, written="no") if request.f == "publish" else None)
    failed = done("publish", kind="fail")
    pairs = run(game, tmp_path, failed, "a publication that is refused", who="Administrator")
    refused = [end for _, end in pairs if end["f"] == "publish"]
    assert {end["type"] for end in refused} <= {"fail", "info"}
    assert all(end["value"]["written"] == "no" for end in refused if end["type"] == "fail")


def test_uploaders_upload_and_download(tmp_path: Path) -> None:
    game = Game()
    pairs = run(game, tmp_path, done("upload", "download"), "an upload and a download", who="Uploader", users=3)
    assert {end["f"] for _, end in pairs if end["type"] == "ok"} == {"upload", "download"}
    assert {value["name"] for value in of(pairs, "upload")} <= game.files.keys()


def test_a_rate_replaces_the_think_time(tmp_path: Path) -> None:
    """With its think time of an hour a user would do 1 op."""
    settings = {"MONKEYWRENCH_RATE": "20", "MONKEYWRENCH_THINK_MS": "3600000"}
    pairs = run(Game(), tmp_path, lambda ops: len(completed(ops)) >= 60, "60 ops", users=2, **settings)
    for user in ("user:0", "user:1"):
        began = [invoke["t"] / 1e9 for invoke, _ in pairs if invoke["process"] == user]
        # An op that comes late shortens the next pause, by no more than the pause.
        assert began[-1] - began[0] > (len(began) - 3) / 20


# --- readers


def read(game: Game, folder: Path, wanted: dict[str, Any]) -> list[tuple[Op, Op]]:
    path = folder / "final.json"
    path.write_text(json.dumps(wanted))
    more = {"MONKEYWRENCH_READ": str(path), "MONKEYWRENCH_PROCESS": "final"}
    with play(game), dns(folder) as server:
        program = start(game.port, server, who="Reader", users=3, **more)
        return paired(finish(program), {*PAGED, "coins", "score-read", "profile-read", "download", "article"})


def old_game(scores: int = 2500) -> Game:
    game = Game(files={"a-0-1": b"one", "a-0-2": b"two"})
    game.ledger = {f"a-0-{n}": (n, n % 200 + 1, 7) for n in range(1, scores + 1)}
    game.articles[3] = ["a-2-1"]
    game.moved = [{"entry": n, "op": f"a-1-{n}", "from": 1, "to": 2, "coins": 3} for n in (1, 2, 4)]
    return game


PAGED = ["ledger", "transfers"]
EVERYTHING = {"pages": PAGED, "players": 200, "uploads": ["a-0-1", "a-0-2", "a-0-3"], "articles": 12}


def test_readers_read_ledgers_before_and_after_the_rest_and_end(tmp_path: Path) -> None:
    """What a sum counted must be in the ledger that is read after it, and what is in the one before, in the sum."""
    game = old_game()
    pairs = read(game, tmp_path, EVERYTHING)
    counted = Counter((end["f"], end["type"]) for _, end in pairs)
    assert counted == {
        ("ledger", "ok"): 2 * 3,
        ("transfers", "ok"): 2 * 1,
        ("coins", "ok"): 1,
        ("score-read", "ok"): 200,
        ("profile-read", "ok"): 200,
        ("download", "ok"): 2,
        ("download", "fail"): 1,  # it was never written; another request would not change that
        ("article", "ok"): 12,
    }
    assert {end["value"]["player"] for _, end in pairs if end["f"] == "profile-read"} == {*range(1, 201)}


def test_one_reader_reads_all_pages_of_a_ledger(tmp_path: Path) -> None:
    """Of one process, each from where the last one ended; 2,000 entries end with a page that is empty."""
    for scores, last in ((2500, 2500), (2000, 2000)):
        pairs = [(invoke, end) for invoke, end in read(old_game(scores), tmp_path, EVERYTHING) if end["f"] == "ledger"]
        assert [invoke["value"]["after"] for invoke, _ in pairs] == 2 * [0, 1000, 2000]
        for reading in (pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]):
            assert len({end["process"] for _, end in reading}) == 1
        assert pairs[-1][1]["value"]["last"] == last
        found = [entry["op"] for _, end in pairs for entry in end["value"]["entries"]]
        assert found == 2 * [f"a-0-{n}" for n in range(1, scores + 1)]


def test_an_unanswered_request_is_sent_again(tmp_path: Path) -> None:
    refused: Counter[str] = Counter()

    def busy(_: Game, request: Request) -> Reply | None:
        key = f"{request.f} {request.given}"
        refused[key] += 1
        return refusal(503) if refused[key] <= 2 else None

    game = old_game()
    game.plant = busy
    counted = Counter((end["f"], end["type"]) for _, end in read(game, tmp_path, {**EVERYTHING, "players": 5}))
    assert counted["ledger", "ok"] == 2 * 3
    assert counted["ledger", "fail"] == 6
    assert counted["score-read", "ok"] == 5


def test_a_request_sent_to_the_next_address_is_read_once(tmp_path: Path) -> None:
    """127.0.0.2 takes no connection."""
    game = old_game()
    game.address = "127.0.0.1"
    pairs = read(game, tmp_path, {**EVERYTHING, "players": 5})
    assert [end for _, end in pairs if end["value"].get("again")]
    read_well = Counter(
        json.dumps(invoke["value"] | {"vip": 0, "f": end["f"]}) for invoke, end in pairs if end["type"] == "ok"
    )
    twice = [request for request, times in read_well.items() if times != 1]
    assert {json.loads(request)["f"] for request in twice} == set(PAGED)
    assert {read_well[request] for request in twice} == {2}
    assert len(read_well) == 3 + 1 + 1 + 5 + 5 + 2 + 12


def test_a_request_that_is_never_answered_is_given_up(tmp_path: Path) -> None:
    game = old_game()
    game.plant = lambda _, request: refusal(500) if request.f == "coins" else None
    pairs = read(game, tmp_path, {**EVERYTHING, "players": 5})
    assert [end["type"] for _, end in pairs if end["f"] == "coins"] == ["fail"] * 8


def test_players_do_what_the_mix_says(tmp_path: Path) -> None:
    mix = json.dumps({"score": 3, "coins": 1, "page": 0})
    pairs = run(Game(), tmp_path, lambda ops: len(completed(ops)) >= 100, "100 ops", users=2, MONKEYWRENCH_MIX=mix)
    counted = Counter(invoke["f"] for invoke, _ in pairs)
    assert counted.keys() == {"score", "coins"}
    assert counted["score"] > counted["coins"]


def test_an_impossible_mix_is_refused(tmp_path: Path) -> None:
    with dns(tmp_path) as server:
        program = start(1, server, who="Player", MONKEYWRENCH_MIX='{"scores": 1}')
        assert program.end() != 0
    assert "MONKEYWRENCH_MIX: unknown op 'scores' (one of: page, profile-read" in program.error_text
    assert "Traceback" not in program.error_text


def test_without_a_list_there_are_no_readers(tmp_path: Path) -> None:
    with play(Game()) as game, dns(tmp_path) as server:
        program = start(game.port, server, who="Reader")
        assert program.end() != 0
    assert "Reader" in program.error_text
