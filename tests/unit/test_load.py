"""The locustfile, run by Locust in a separate process: importing it here would patch this interpreter."""

from __future__ import annotations

import itertools
import json
import re
import socket
from collections import Counter
from pathlib import Path

import pytest

from harness.wait import pass_time
from loadtests.lib import arrivals
from tests.support.locust import (
    NAMES,
    completed,
    distributed,
    dns,
    finish_plan,
    finish_plans,
    finish_when,
    paired,
    plan,
    refusing,
    site,
    start,
)
from tests.support.program import Op

pytestmark = pytest.mark.locust


def all_at_both(ops: list[Op]) -> bool:
    """150 pages were read, by each of 4 users from both addresses."""
    pages = completed(ops, "ok")
    return len(pages) >= 150 and len({(op["process"], op["value"]["vip"]) for op in pages}) == 8


def test_visitors_alternate_between_the_addresses_and_record_every_page(tmp_path: Path) -> None:
    with site() as served, dns(tmp_path) as server:
        ops = finish_when(start(served.port, server), all_at_both, "150 pages, from both addresses for each user")
        requests = list(served.requests)
    pairs = paired(ops)
    url = f"http://www.example.test:{served.port}/"
    assert {end.get("error") for _, end in pairs if end["type"] != "ok"} <= {"stopped"}
    assert sum(end["type"] == "info" for _, end in pairs) <= 4
    assert {invoke["process"] for invoke, _ in pairs} == {f"user:{number}" for number in range(4)}
    for invoke, end in pairs:
        assert invoke["value"] == {"url": url, "vip": invoke["value"]["vip"]}
        if end["type"] == "ok":
            assert end["value"].keys() == {"url", "vip", "node", "status", "ms"}
            assert end["value"]["node"] == NAMES[end["value"]["vip"]]
            assert end["value"]["status"] == 200
            assert 0 < end["value"]["ms"] <= (end["t"] - invoke["t"]) / 1e6 + 0.001
    used = Counter(end["value"]["vip"] for _, end in pairs)
    assert min(used[vip] for vip in NAMES) > 0.3 * len(pairs)
    # The site received what was recorded: at that address, with the site's name, 2 to 6 pages per connection.
    sent = Counter(address for address, _, _ in requests)
    assert all(0 <= used[vip] - sent[vip] <= 4 for vip in NAMES)
    assert all(f"Host: www.example.test:{served.port}\r\n".encode() in head for _, _, head in requests)
    pages = Counter(number for _, number, _ in requests)
    assert max(pages.values()) <= 6
    assert len(pages) > 20
    assert sum(count >= 2 for count in pages.values()) >= len(pages) - 4


def test_each_planned_op_is_done_once_and_counts_from_its_planned_time(tmp_path: Path) -> None:
    with site() as served, dns(tmp_path) as server:
        planned = plan((2, 0, 80), (1, 40, 40))
        ops = finish_plan(start(served.port, server, users=20, MONKEYWRENCH_ARRIVALS=planned))
    pairs = paired(ops)
    assert [end["type"] for _, end in pairs] == ["ok"] * 119  # the 120th would be due at the end, when the plan is over
    assert all(invoke["value"]["late_ms"] >= 0 for invoke, _ in pairs)
    # Each counts from its planned time, to the microsecond, however late this machine began it.
    due_ms = sorted(end["t"] / 1e6 - end["value"]["ms"] for _, end in pairs)
    began = [at - 1000 * planned_s for at, planned_s in zip(due_ms, arrivals.read(planned), strict=True)]
    assert began == pytest.approx([began[0]] * 119, abs=0.01)
    for invoke, end in pairs:
        took_ms = (end["t"] - invoke["t"]) / 1e6
        assert end["value"]["ms"] >= took_ms + invoke["value"]["late_ms"] - 0.01
    (over,) = (op for op in ops if op["f"] == "plan")
    assert (over["process"], over["type"], over["value"]) == ("plan", "info", {"phase": "over", "share": "0/1"})
    assert over["t"] >= max(end["t"] for _, end in pairs)
    begin, end = (op for op in ops if op["f"] == "worker")
    assert (begin["process"], begin["value"]["phase"], end["value"]) == ("worker:user", "begin", {"phase": "end"})
    assert begin is ops[0]
    assert end is ops[-1]


def test_the_requests_of_a_log_are_sent_at_their_times(tmp_path: Path) -> None:
    asks = [(0.1 * n, f"/page-{n}.html") for n in range(20)]
    (tmp_path / "replay.json").write_text(json.dumps(asks))
    replay = str(tmp_path / "replay.json")
    with site() as served, dns(tmp_path, ttl_s=3600) as server:
        program = start(served.port, server, who="Replayer", users=5, MONKEYWRENCH_REPLAY=replay)
        pairs = paired(finish_plan(program))
        sent = [re.match(rb"GET (\S+)", head) for _, _, head in served.requests]
    # Overdue requests are sent at once and answered in any order, so this compares the times when they were due.
    due = {end["value"]["url"].rpartition("/")[2]: end["t"] - 1e6 * end["value"]["ms"] for _, end in pairs}
    assert len(pairs) == len(due)
    assert sorted(due, key=lambda page: due[page]) == [f"page-{n}.html" for n in range(20)]
    assert sorted(match[1].decode() for match in sent if match) == sorted(path for _, path in asks)
    began = [at / 1e9 - 0.1 * number for number, at in enumerate(sorted(due.values()))]
    assert began == pytest.approx([began[0]] * 20, abs=0.001)
    # A request is sent after its lateness was noted; on a busy machine there may be time in between.
    more_ms = [(i["t"] - end["t"]) / 1e6 + end["value"]["ms"] - i["value"]["late_ms"] for i, end in pairs]
    assert min(more_ms) >= -0.01


def test_workers_share_all_planned_ops(tmp_path: Path) -> None:
    with site() as served, dns(tmp_path) as server:
        master, *workers = distributed(served.port, server, plan((3, 19.5, 19.5)))
        shares = [paired(ops) for ops in finish_plans(master, *workers)]
    for number, pairs in enumerate(shares):
        assert {invoke["process"].rpartition(":")[0] for invoke, _ in pairs} == {f"user:{number}"}
    assert len(served.requests) == sum(map(len, shares)) == 58
    assert sorted(len(pairs) for pairs in shares) == [29, 29]


def test_the_death_of_a_worker_does_not_change_the_share_of_the_others(tmp_path: Path) -> None:
    with site() as served, dns(tmp_path) as server:
        master, dying, other = distributed(served.port, server, plan((4, 19.6, 19.6)))
        dying.lines_until(2)  # it has begun and sent a request
        dying.process.kill()
        dying.end()
        [ops] = finish_plans(master, other)
        assert len(paired(ops)) == 39  # half of 78


def test_an_op_that_waits_for_a_free_user_counts_from_its_planned_time(tmp_path: Path) -> None:
    """1 user, 10 ops per second, 200 ms each: the eighth op begins about 700 ms late."""

    def slow(_: socket.socket, __: bytes) -> bool:
        pass_time(0.2)
        return False

    with site(slow) as served, dns(tmp_path) as server:
        pairs = paired(finish_plan(start(served.port, server, users=1, MONKEYWRENCH_ARRIVALS=plan((0.85, 10, 10)))))
    assert len(pairs) == 8
    assert [invoke["value"]["free"] for invoke, _ in pairs[1:]] == [False] * 7
    late_ms = [invoke["value"]["late_ms"] for invoke, _ in pairs]
    assert late_ms == sorted(late_ms)
    assert late_ms[-1] > 600
    assert all(end["value"]["ms"] >= 200 + invoke["value"]["late_ms"] for invoke, end in pairs)


@pytest.mark.parametrize(
    ("client", "connections"), [("browser", range(5, 16)), ("keep-alive", range(1, 2)), ("new-connections", None)]
)
def test_each_client_policy_keeps_its_connections_as_documented(
    tmp_path: Path, client: str, connections: range | None
) -> None:
    with site() as served, dns(tmp_path, ttl_s=3600) as server:
        program = start(served.port, server, users=1, MONKEYWRENCH_CLIENT=client)
        finish_when(program, lambda ops: len(completed(ops)) >= 30, "30 pages")
        made = len({number for _, number, _ in served.requests[:30]})
    assert made in (connections or [30])


def served_and_refused(ops: list[Op]) -> bool:
    """5 pages were read, and 5 connections refused."""
    return min(len(completed(ops, "ok")), len(completed(ops, "fail"))) >= 5


@pytest.mark.parametrize(("client", "again"), [("browser", True), ("first-address", False)])
def test_only_a_browser_tries_the_next_address_when_the_first_refuses(tmp_path: Path, client: str, again: bool) -> None:
    """127.0.0.3 has no server: it refuses connections."""
    with site(address="127.0.0.1") as served, dns(tmp_path, addresses=("127.0.0.3", "127.0.0.1")) as server:
        program = start(served.port, server, users=2, MONKEYWRENCH_CLIENT=client)
        pairs = paired(finish_when(program, served_and_refused, "5 pages and 5 refused connections"))
    failed = [(invoke, end) for invoke, end in pairs if end["type"] == "fail"]
    for invoke, end in failed:
        assert end["value"]["vip"] == "127.0.0.3"
        assert end["value"].get("again", False) is again
        if again:
            following = next(
                later for later, _ in pairs if later["process"] == end["process"] and later["t"] >= end["t"]
            )
            assert following["value"] == {**invoke["value"], "vip": "127.0.0.1"}
    assert {end["value"]["vip"] for _, end in pairs if end["type"] == "ok"} == {"127.0.0.1"}


def test_a_user_keeps_an_address_until_its_ttl_ends(tmp_path: Path) -> None:
    with site() as served, dns(tmp_path, ttl_s=3600) as server:
        program = start(served.port, server, users=2)
        finish_when(program, lambda _: len({number for _, number, _ in served.requests[:]}) > 8, "9 connections")
        pairs = paired(program.lines)
    used = {(invoke["process"], invoke["value"]["vip"]) for invoke, _ in pairs}
    assert len(used) == 2
    assert {vip for _, vip in used} == set(NAMES)


def refused_at_both(ops: list[Op]) -> bool:
    """9 connections were refused, and the first user's at both addresses."""
    refused = [op for op in completed(ops, "fail") if "refused" in op["error"]]
    vips = {op["value"]["vip"] for op in refused if op["process"] == "user:0"}
    return len(refused) > 8 and vips == set(NAMES)


def test_users_of_a_dead_server_fail_at_both_addresses(tmp_path: Path) -> None:
    with dns(tmp_path, ttl_s=3600) as server:
        with site() as served:
            program = start(served.port, server)
            program.until(lambda: len(completed(program.lines[:], "ok")) >= 20, "20 pages")
        with refusing(served.port):
            pairs = paired(finish_when(program, refused_at_both, "refused connections at both addresses"))
    fails = [end for _, end in pairs if end["type"] == "fail"]
    assert {end["type"] for _, end in pairs[-4:]} <= {"fail", "info"}
    # An address that failed is not kept, although its TTL is an hour.
    vips = {end["value"]["vip"] for end in fails if end["process"] == "user:0"}
    assert vips == set(NAMES)


def _cut(connection: socket.socket, _: bytes) -> bool:
    connection.close()
    return True


def _short(connection: socket.socket, _: bytes) -> bool:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Node: web-1\r\nContent-Length: 300\r\n\r\nOK\n")
    connection.close()
    return True


def _sorry(connection: socket.socket, _: bytes) -> bool:
    connection.sendall(b"HTTP/1.1 503 Sorry\r\nX-Node: web-9\r\nContent-Length: 0\r\n\r\n")
    return True


def _elsewhere(connection: socket.socket, _: bytes) -> bool:
    connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n")
    return True


def test_a_bad_answer_is_a_failure_and_is_not_requested_again(tmp_path: Path) -> None:
    bad = itertools.cycle([_cut, _short, _sorry, _elsewhere])

    def behave(connection: socket.socket, request: bytes) -> bool:
        return next(bad)(connection, request)

    with site(behave) as served, dns(tmp_path) as server:
        program = start(served.port, server, users=1)
        pairs = paired(finish_when(program, lambda ops: len(completed(ops)) > 8, "9 answers"))
        requests = len(served.requests)
    ended = [end for _, end in pairs if end.get("error") != "stopped"]
    assert {end["type"] for end in ended} == {"fail"}
    assert all(end["error"] for end in ended)
    statuses = [end["value"].get("status") for end in ended]
    assert statuses == [status for status, _ in zip(itertools.cycle([None, 200, 503, 302]), ended, strict=False)]
    # A request that the client repeats on its own would not be recorded.
    assert 0 <= len(pairs) - requests <= 1


def test_a_request_without_an_answer_times_out_with_an_unknown_outcome(tmp_path: Path) -> None:
    with site(lambda *_: True) as served, dns(tmp_path) as server:
        program = start(served.port, server, users=2, MONKEYWRENCH_TIMEOUT_MS="800")
        pairs = paired(finish_when(program, lambda ops: len(completed(ops)) >= 2, "2 timeouts"))
    assert {end["type"] for _, end in pairs} == {"info"}
    timeouts = [end for _, end in pairs if end["error"] == "timeout"]
    assert all(end["value"]["ms"] > 790 for end in timeouts)
    assert {end["error"] for _, end in pairs} <= {"timeout", "stopped"}


def test_no_request_is_sent_outside_the_lab(tmp_path: Path) -> None:
    # The first is outside. The second belongs to a lab, but behind a router, as when that lab is down.
    with dns(tmp_path, addresses=("192.0.2.1", "198.19.255.1")) as server:
        program = start(80, server, users=2)
        pairs = paired(finish_when(program, lambda ops: len({op["error"] for op in completed(ops)}) >= 2, "2 errors"))
    errors = {end["error"] for _, end in pairs}
    assert {end["type"] for _, end in pairs} == {"fail"}
    assert any("192.0.2.1 is outside of 198.18.0.0/15" in error for error in errors)
    assert any("198.19.255.1 is not on this node's own networks" in error for error in errors)
    assert {end["value"]["vip"] for _, end in pairs} == {None}


def test_without_a_resolver_every_op_fails() -> None:
    program = start(80, "192.0.2.53", users=1)
    pairs = paired(finish_when(program, lambda ops: len(completed(ops)) >= 10, "10 errors"))
    assert all(end["type"] == "fail" and "192.0.2.53 is outside of" in end["error"] for _, end in pairs)
    # No busy loop: the next try comes after 100 ms, although the think time is 20 ms.
    tries = [invoke["t"] for invoke, _ in pairs]
    assert min(later - earlier for earlier, later in itertools.pairwise(tries)) > 95e6
