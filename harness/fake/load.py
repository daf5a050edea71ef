"""The probe, users and connections of a lab in memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from harness.fake.time import MS, FakeFeed, FakeStream
from harness.protocols import Feed, Feeds

if TYPE_CHECKING:
    from harness.fake.lab import FakeLab
    from harness.scenario import LoadTable

__all__ = ["FakeLoad"]

PROBE_MS = 50
PROBE_SLOTS = 20
PROBE_TIMEOUT_MS = 800
ANSWER_MS = 3
GET_TIMEOUT_MS = 3000
LINE_EVERY_MS = 1000


class FakeLoad:
    """Programs of the client that ask a lab's virtual IPs, and print ops."""

    def __init__(self, lab: FakeLab) -> None:
        self._lab, self._time, self._topics = lab, lab.time, lab.topics
        self._probe_died = False

    def feeds(self, load: LoadTable | None) -> Feeds:
        """The probe, and the load if there is one."""
        found: list[Feed] = [FakeFeed("probe", self._probe, lambda: not self._probe_died)]
        if load is not None:
            found.append(FakeFeed("load", lambda: self._users(load), lambda: True))
            if load.connections:
                found.append(FakeFeed("connections", lambda: self._connections(load), lambda: True))
        return Feeds(during=found)

    def _probe(self) -> FakeStream:
        stream = self._topics.subscribe("probe")
        counter = itertools.count()
        self._time.every(PROBE_MS, lambda: self._probe_all(next(counter)), lambda: not stream.ended)
        if self._lab.probe_dies_after_ms is not None:
            self._time.after(self._lab.probe_dies_after_ms, lambda: self._kill_probe(stream))
        return stream

    def _kill_probe(self, stream: FakeStream) -> None:
        self._probe_died = True
        stream.stop()

    def _probe_all(self, seq: int) -> None:
        for vip in self._lab.cluster.vips:
            process = f"probe:{vip}/{seq % PROBE_SLOTS}"
            asked = {"vip": vip, "seq": seq}
            self._request("probe", process, "http", asked, PROBE_TIMEOUT_MS, lambda: None)

    def _users(self, load: LoadTable) -> FakeStream:
        stream = self._topics.subscribe("load")
        vips = tuple(self._lab.cluster.vips)
        for user in range(load.users):
            self._visit(user, vips[user % len(vips)], load.think_ms, stream)
        return stream

    def _visit(self, user: int, vip: str, think_ms: int, stream: FakeStream) -> None:
        """One page after another; the next one is asked for when the last one has been answered."""
        if stream.ended:
            return
        asked = {"url": f"http://{self._lab.cluster.site}/", "vip": vip}

        def again() -> None:
            self._time.after(max(1, think_ms), lambda: self._visit(user, vip, think_ms, stream))

        self._request("load", f"user:{user}", "get", asked, GET_TIMEOUT_MS, again)

    def _connections(self, load: LoadTable) -> FakeStream:
        stream = self._topics.subscribe("connections")
        places = itertools.product(self._lab.cluster.vips, range(load.connections))
        for name, (vip, number) in enumerate(places):
            asked = {"url": f"http://{self._lab.cluster.site}/ticker.php", "vip": vip, "connection": str(name)}
            self._wait_for_line(f"connection:{vip}:{number}", asked, stream)
        return stream

    def _wait_for_line(self, process: str, asked: Mapping[str, str], stream: FakeStream) -> None:
        """A line each second, for as long as the VIP is served: connections are synced, so none breaks."""
        begun_ns = self._time.now_ns
        self._topics.entry("connections", process, "invoke", "kept", asked)

        def poll() -> None:
            server = self._lab.server_of(asked["vip"], int(asked["connection"]))
            if stream.ended:
                return
            if server is None or self._time.now_ns - begun_ns < LINE_EVERY_MS * MS:
                self._time.after(PROBE_MS, poll)
                return
            value = {**asked, "node": server, "status": 200, "ms": (self._time.now_ns - begun_ns) / MS}
            self._topics.entry("connections", process, "ok", "kept", value)
            self._wait_for_line(process, asked, stream)

        self._time.after(PROBE_MS, poll)

    def _request(  # noqa: PLR0913, PLR0917 - an op has that many fields
        self, topic: str, process: str, f: str, asked: Mapping[str, object], timeout_ms: int, then: Callable[[], None]
    ) -> None:
        self._topics.entry(topic, process, "invoke", f, asked)
        server = self._lab.server_of(str(asked["vip"]), self._time.now_ns // MS)
        answered = {**asked, "node": server, "status": 200, **({"ms": ANSWER_MS} if f == "get" else {})}

        def complete() -> None:
            if server is not None:
                self._topics.entry(topic, process, "ok", f, answered)
            else:
                self._topics.entry(topic, process, "info", f, asked, f"no answer within {timeout_ms} ms")
            then()

        self._time.after(ANSWER_MS if server is not None else timeout_ms, complete)
