"""Users of the site: they resolve its name through the lab's resolver; a visit is one connection with a few ops.

``locust -f loadtests/locustfile.py --headless --users 10 --spawn-rate 10 [--host http://www.example.test] [CLASS ...]``

- ``Visitor`` reads the site's front page;
- ``Player`` plays: pages, profiles, scores, transfers of coins, uploads and downloads, sessions;
- ``Uploader`` uploads files and downloads those of others;
- ``Administrator`` changes the site's content: articles, which the master of the web data replicates.

Without a class, Locust starts all of these; of 20 users, 5, 12, 2 and 1. ``Replayer`` asks for the pages of an access
log and is there only with ``MONKEYWRENCH_REPLAY``. ``Reader`` reads everything on the site once and ends; it is there
only with ``MONKEYWRENCH_READ``. All settings are environment variables: ``lib/settings.py``. What the type of a
completion means: ``lib/answers.py``.

Users ask the resolver themselves and take the first address of its answer. They keep it until its TTL ends or a request
to it gets no answer. Where it takes no connection, a browser tries the next address of the same answer at once: that is
another op, and the first one, which failed, has ``again``. The time of an answer counts from when its user wanted it.
"""

from __future__ import annotations

# Locust patches the interpreter for gevent when it is imported, so it comes before everything that uses sockets.
from locust import FastHttpUser, constant_throughput, events, task  # isort: skip

import itertools
import os
import random
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import geventhttpclient.client
import locust.runners
from locust.contrib.fasthttp import FastResponse
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import MasterRunner

# Locust loads this file by its path: on a client node, in a checkout, or where monkeywrench is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from loadtests.lib import answers, plan, settings
from loadtests.lib.addresses import RefusedError, check_address, in_reach
from loadtests.lib.answers import Judgement, WrongAnswerError
from loadtests.lib.dns import UnresolvedError, resolve
from loadtests.lib.reader import ReadingList, Try
from loadtests.lib.recorder import Recorder
from loadtests.lib.request import Request, process_id
from loadtests.lib.site import ARTICLES, COINS, HOT_PLAYERS, PAGES, PLAYERS, POINTS, UPLOAD_BYTES, WRITES

RETRY_S = 0.1
"""Pause before the next op of a user who has no address to ask."""
UPLOADS_KEPT = 10_000
"""Names of uploads that a process remembers, for downloads."""

try:
    SETTINGS = settings.read(os.environ)
except settings.SettingsError as error:
    sys.exit(str(error))
RECORDER = Recorder(SETTINGS.ops, SETTINGS.process)
PLAN = plan.planned(SETTINGS, lambda: RECORDER.plan_over(SETTINGS.share))
READING_LIST = ReadingList(SETTINGS.read)
pace = constant_throughput(SETTINGS.rate) if SETTINGS.rate else None

# The client would send a GET again, and again, when its connection closes without an answer; the op that is recorded
# would not be the first one that was sent, whose failure would be lost.
geventhttpclient.client.IDEMPOTENT_METHODS = frozenset()

# A master stops a load for good once it has heard nothing from its workers for 3 s, although a worker that was stalled
# goes on. The feed of a worker that died ends, so nothing needs the master to notice it early.
locust.runners.HEARTBEAT_LIVENESS = 60


def begin(environment: Environment, **_: Any) -> None:
    """Locust starts. A master records nothing: it sends no ops."""
    if not isinstance(environment.runner, MasterRunner):
        RECORDER.begin()
        # Not ``quitting``: on SIGTERM that is before the users are stopped, and their last ops come after it.
        environment.events.quit.add_listener(end)


def end(**_: Any) -> None:
    """All users have ended."""
    RECORDER.end()


events.init.add_listener(begin)


class Browser(FastHttpUser):
    """One user after another at the same browser: a visit is a connection with some ops, then the next user comes."""

    abstract = True
    host = "http://www.example.test"
    connection_timeout = SETTINGS.timeout_s
    network_timeout = SETTINGS.timeout_s
    concurrency = 1
    numbers = itertools.count()
    arrival: plan.Arrival | None = None
    ops_a_visit: ClassVar[tuple[int, int]]

    def on_start(self) -> None:
        """Start with neither an address nor a visit."""
        self.number = next(self.numbers)
        if PLAN:
            PLAN.join()
        self.chance = random.Random(f"{SETTINGS.process}:{self.number}")
        self.site = urlsplit(self.host or "")
        self.port = f":{self.site.port}" if self.site.port else ""
        self.headers = {"Host": self.site.netloc}
        # The client's cookie jar keeps cookies by address; a browser keeps them by name, and so do the players here.
        self.client.client.cookiejar = None
        self.vip: str | None = None
        self.next_vips: list[str] = []
        self.usable_until = 0.0
        self.ops_left = 0

    def on_stop(self) -> None:
        """Locust ended it, or its plan is exhausted."""
        if PLAN:
            PLAN.leave()

    def wait_time(self) -> float:
        """Seconds until the next op; without an address never 0, which would be a busy loop."""
        if PLAN:
            return 0
        pause = pace(self) if pace else SETTINGS.think_s
        return pause if self.vip else max(pause, RETRY_S)

    @task
    def turn(self) -> None:
        """Do the next op of the visit, or begin a visit and do its first."""
        if PLAN:
            self.arrival = PLAN.next(time.sleep)
            if self.arrival is None:
                raise StopUser
        if self.ops_left == 0:
            self.begin_visit()
        if SETTINGS.policy.kept == "op":
            self.client.client.clientpool.close()
        request = self.next_request()
        if not self._has_address(request):
            return
        self.ops_left -= 1
        self._exchange(request)

    def begin_visit(self) -> None:
        """Draw the number of its ops; a browser begins it with a new connection."""
        if SETTINGS.policy.kept == "visit":
            self.client.client.clientpool.close()
        self.ops_left = self.chance.randint(*self.ops_a_visit)

    def next_request(self) -> Request:
        """What this user wants now. (Not an abstract method: Locust's users have a metaclass of their own.)"""
        raise NotImplementedError

    def send(self, request: Request) -> Judgement:
        """Send a request and judge the answer."""
        with self.client.request(
            request.method,
            self.url(request),
            name=request.name,
            data=request.data,  # type: ignore[arg-type]  # it takes bytes, too
            headers=self.headers,
            allow_redirects=False,
            catch_response=True,
        ) as response:
            judgement = self.judge(request, response, response.request_meta["exception"])
            if judgement.type != "ok":
                response.failure(judgement.error)
        return judgement

    def judge(self, request: Request, response: FastResponse, error: BaseException | None) -> Judgement:  # noqa: ARG002 (Player uses it)
        """Judge an answer, or the error in its place."""
        kind, why = answers.outcome(error, response.status_code)
        if not response.status_code or response.headers is None:
            return Judgement(kind, why, {})
        return Judgement(kind, why, {"node": response.headers.get("X-Node"), "status": response.status_code})

    def url(self, request: Request) -> str:
        """The URL with the address in place of the site's name."""
        return f"http://{self.vip}{self.port}{request.path}"

    def report(self, method: str, name: str, error: Exception) -> None:
        """Report a failure to Locust that happened outside of its client."""
        self.environment.events.request.fire(
            request_type=method, name=name, response_time=0, response_length=0, exception=error
        )

    def _has_address(self, request: Request) -> bool:
        """Resolve when needed. A visit in progress stays on its connection, whatever the TTL."""
        at_start = not self.client.client.clientpool.clients
        if self.vip is not None and (not at_start or time.monotonic() < self.usable_until):
            return True
        began_ns = time.perf_counter_ns()
        try:
            answer = resolve(str(self.site.hostname), SETTINGS.resolver)
            self.vip = check_address(answer.addresses[0])
            others = answer.addresses[1:] if SETTINGS.policy.next_address else ()
            self.next_vips = [address for address in others if in_reach(address)]
            self.usable_until = time.monotonic() + answer.ttl_s
        except (UnresolvedError, RefusedError) as error:
            self.vip = None
            self._record(began_ns, request, self._invoked())
            self._record(time.perf_counter_ns(), request, Judgement("fail", str(error), {}))
            self.report("DNS", str(self.site.hostname), error)
            return False
        return True

    def _exchange(self, request: Request) -> None:
        """Do the op; where an address takes no connection, do it at the next one, if there is one."""
        began_ns = time.perf_counter_ns()
        wanted_ns = self.arrival.due_ns if self.arrival else began_ns
        while self._try(request, began_ns, wanted_ns).known.get("again"):
            self.vip, began_ns = self.next_vips.pop(0), time.perf_counter_ns()

    def _try(self, request: Request, began_ns: int, wanted_ns: int) -> Judgement:
        self._record(began_ns, request, self._invoked())
        judgement = Judgement("info", "stopped", {})
        try:
            judgement = self._sent(request)
        finally:
            # Also when Locust ends this user in the middle: then the outcome is unknown.
            ended_ns = time.perf_counter_ns()
            judgement.known["ms"] = round((ended_ns - wanted_ns) / 1e6, 3)
            self._record(ended_ns, request, judgement)
        if "status" not in judgement.known:
            self.vip = None
        return judgement

    def _sent(self, request: Request) -> Judgement:
        """Send; where it matters that nothing was sent, connect first."""
        error = self._connect(request) if self.next_vips or request.f in WRITES else None
        if error is None:
            return self.send(request)
        self.report(request.method, request.name, error)
        return Judgement("fail", f"not sent: {error}", {"again": True} if self.next_vips else {})

    def _connect(self, request: Request) -> OSError | None:
        """Open the connection, unless it is open. Returns the error when that fails."""
        pool = self.client.client.clientpool.get_client(self.url(request))._connection_pool
        try:
            pool.return_socket(pool.get_socket())
        except OSError as error:
            return error
        return None

    def _invoked(self) -> Judgement:
        planned = {"late_ms": self.arrival.late_ms, "free": self.arrival.free} if self.arrival else {}
        return Judgement("invoke", "", planned)

    def _record(self, time_ns: int, request: Request, judgement: Judgement) -> None:
        op = {
            "t": time_ns,
            "process": f"{SETTINGS.process}:{self.number}",
            "type": judgement.type,
            "f": request.f,
            "value": {**request.asked, "vip": self.vip, **judgement.known},
        }
        if judgement.error:
            op["error"] = judgement.error
        RECORDER.record(op)


class Visitor(Browser):
    """Reads the front page, a few times a visit."""

    weight = 5
    ops_a_visit = (2, 6)

    def next_request(self) -> Request:
        """The front page."""
        return Request("get", {"url": f"{self.host}/"}, "/")


class Replayer(Browser):
    """Asks for the pages of an access log, at their times."""

    abstract = not SETTINGS.replay
    ops_a_visit = (2, 6)

    def next_request(self) -> Request:
        """The page of the plan."""
        path = self.arrival.path if self.arrival else "/"
        return Request("get", {"url": f"{self.host}{path}"}, path)


class Player(Browser):
    """Plays: one op of the mix after another, and perhaps a session, which ends with the visit."""

    weight = 12
    ops_a_visit = (5, 20)
    mix: ClassVar[Mapping[str, int]] = SETTINGS.mix
    uploads: ClassVar[list[str]] = []
    """Names of acknowledged uploads of all users of this process."""

    def on_start(self) -> None:
        """Start without a session."""
        super().on_start()
        # Compressed answers could also be broken in ways that are not the site's.
        self.headers["Accept-Encoding"] = "identity"
        self.ids = (f"{process_id(os.getpid())}-{self.number}-{n}" for n in itertools.count())
        self.login: Request | None = None
        self.written = self.chance.randrange(ARTICLES)

    def begin_visit(self) -> None:
        """The next user, with a new connection and no session."""
        super().begin_visit()
        self._log_out()

    def next_request(self) -> Request:
        """One op of the mix."""
        [choice] = self.chance.choices(tuple(self.mix), tuple(self.mix.values()))
        request: Request = getattr(self, choice.replace("-", "_"))()
        return request

    def page(self) -> Request:
        """A page without a database."""
        path = self.chance.choice(PAGES)
        return Request("get", {"url": f"{self.host}{path}"}, path)

    def profile_read(self) -> Request:
        """A player's motto."""
        player = self._player()
        return Request("profile-read", {"player": player}, f"/profile.php?player={player}")

    def profile_write(self) -> Request:
        """A new motto, which no player ever had: the op's id."""
        motto = next(self.ids)
        asked = {"player": self._player(), "motto": motto}
        return Request("profile-write", asked, "/profile.php", {**asked, "op": motto})

    def score(self) -> Request:
        """New points for a player."""
        asked = {"player": self._player(), "points": self.chance.randint(*POINTS), "op": next(self.ids)}
        return Request("score", asked, "/score.php", asked)

    def score_read(self) -> Request:
        """A player's points."""
        player = self._player()
        return Request("score-read", {"player": player}, f"/score.php?player={player}")

    def transfer(self) -> Request:
        """Coins from one player to another."""
        giver = self._player()
        taker = (giver + self.chance.randrange(PLAYERS - 1)) % PLAYERS + 1
        asked = {"from": giver, "to": taker, "coins": self.chance.randint(*COINS), "op": next(self.ids)}
        return Request("transfer", asked, "/transfer.php", asked)

    def coins(self) -> Request:
        """All balances."""
        return Request("coins", {}, "/coins.php")

    def upload(self) -> Request:
        """A file with unique content."""
        name = next(self.ids)
        body = name.encode() + self.chance.randbytes(self.chance.choice(UPLOAD_BYTES))
        return Request("upload", {"name": name, **answers.digest(body)}, f"/upload.php?op={name}", body)

    def download(self) -> Request:
        """Download an earlier upload; upload where there is none."""
        if not self.uploads:
            return self.upload()
        name = self.chance.choice(self.uploads)
        return Request("download", {"name": name}, f"/upload.php?name={name}")

    def session(self) -> Request:
        """Log in, or request whose session this is. ``login`` in the value is the op of the login."""
        if self.login is None:
            asked = {"player": self._player(), "op": next(self.ids)}
            return Request("login", asked, "/login.php", asked)
        player, login = self.login.asked["player"], self.login.asked["op"]
        return Request("session", {"player": player, "login": login}, "/session.php")

    def article(self) -> Request:
        """An article as the master of the web data has it."""
        article = self.chance.randint(1, ARTICLES)
        return Request("article", {"article": article}, f"/article.php?article={article}")

    def publish(self) -> Request:
        """The next article, with a unique text; the same article is not changed twice in a row."""
        self.written += 1
        op, article = next(self.ids), (self.number + self.written) % ARTICLES + 1
        form = {"article": article, "op": op, "text": f"News of {op}"}
        return Request(
            "publish", {"article": article, "page": f"articles/{article}.html", "op": op}, "/article.php", form
        )

    def send(self, request: Request) -> Judgement:
        """Send a request; its answer may be unreadable."""
        try:
            return super().send(request)
        except ValueError as error:
            # The client decodes the body of a bad answer for a log of its own, and raises where it is not UTF-8.
            self.report(request.method, request.name, WrongAnswerError("unreadable answer"))
            return Judgement(answers.undecided(request.f), f"unreadable answer: {error}", {})

    def judge(self, request: Request, response: FastResponse, error: BaseException | None) -> Judgement:
        """Judge an answer; it must also answer what was asked."""
        judgement = super().judge(request, response, error)
        if request.f == "get":
            return judgement
        kind, why, known = judgement
        if kind == "ok":
            try:
                known.update(self._read(request, response))
            except WrongAnswerError as wrong:
                return Judgement(answers.undecided(request.f), str(wrong), known | answers.report(response.content))
        elif kind == "fail":
            if response.status_code not in (0, 200):
                known.update(answers.report(response.content))
            if not answers.not_written(response.status_code, known.get("written")):
                kind = answers.undecided(request.f)
        return Judgement(kind, why, known)

    def _read(self, request: Request, response: FastResponse) -> dict[str, Any]:
        """Read a whole answer with status 200, and act on it. Raises WrongAnswerError."""
        if request.f == "download":
            return answers.digest(response.content or b"")
        known = answers.new_fields(answers.SHAPES[request.f], request.asked, answers.parsed(response.content))
        if request.f == "upload":
            self._remember(request.asked["name"])
        elif request.f == "login":
            self._log_in(request, response)
            known["pages"] = 0
        elif request.f == "session" and known["player"] is None:
            self._log_out()
        return known

    def _player(self) -> int:
        return self.chance.randint(1, HOT_PLAYERS if self.chance.random() < 0.5 else PLAYERS)

    def _remember(self, name: str) -> None:
        if len(self.uploads) < UPLOADS_KEPT:
            self.uploads.append(name)
        else:
            self.uploads[self.chance.randrange(UPLOADS_KEPT)] = name

    def _log_in(self, request: Request, response: FastResponse) -> None:
        lines = response.headers.getlist("Set-Cookie") if response.headers else []
        cookies = dict(line.partition(";")[0].partition("=")[::2] for line in lines)
        if not cookies:
            raise WrongAnswerError("wrong answer: no cookie")
        self.headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        self.login = request

    def _log_out(self) -> None:
        self.headers.pop("Cookie", None)
        self.login = None


class Uploader(Player):
    """Uploads files, and downloads those of others."""

    weight = 2
    mix: ClassVar[Mapping[str, int]] = {"upload": 4, "download": 6}


class Administrator(Player):
    """Changes the site's content, and reads it."""

    weight = 1
    mix: ClassVar[Mapping[str, int]] = {"publish": 3, "article": 4, "page": 3}


class Reader(Player):
    """Reads everything on the site once. All readers share one list; the last to find it empty ends Locust."""

    abstract = not SETTINGS.read
    ops_a_visit = (20, 20)

    def on_start(self) -> None:
        """Join the readers."""
        super().on_start()
        READING_LIST.join(self.number)
        self.mine: deque[Try] = deque()
        """The next pages of the journals that this reader has begun."""
        self.times = 0

    def wait_time(self) -> float:
        """No pause, unless the site does not answer."""
        return 0 if self.vip else RETRY_S

    def next_request(self) -> Request:
        """The next on the list."""
        found = READING_LIST.next(self.mine)
        if found is None:
            if READING_LIST.leave(self.number) and self.environment.runner:
                self.environment.runner.quit()
            raise StopUser
        request, self.times = found
        return request

    def _record(self, time_ns: int, request: Request, judgement: Judgement) -> None:
        super()._record(time_ns, request, judgement)
        READING_LIST.answered(self.mine, request, self.times, judgement)
