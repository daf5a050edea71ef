"""What the load's programs share, without Locust: settings, addresses, DNS, answers, the plan, the reading list."""

from __future__ import annotations

import json
import time
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from loadtests.lib import addresses, answers, dns, plan, reader, settings
from loadtests.lib.answers import Judgement
from loadtests.lib.recorder import Recorder
from loadtests.lib.request import Request, process_id
from loadtests.lib.site import USUAL_MIX


def test_without_variables_the_settings_are_the_defaults() -> None:
    found = settings.read({"PATH": "/usr/bin", "MONKEYWRENCH_OPS": ""})
    assert (found.resolver, found.ops, found.process) == (("203.0.113.53", 53), "", "user")
    assert (found.timeout_s, found.think_s, found.rate, found.share) == (5.0, 1.0, 0.0, (0, 1))
    assert found.policy == settings.POLICIES["browser"]
    assert found.mix == USUAL_MIX


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("CLIENT", "lynx", "unknown client 'lynx' (one of: browser, first-address, keep-alive, new-connections)"),
        ("THINK_MS", "1s", "invalid value '1s' (example: 1000)"),
        ("SHARE", "1", "invalid value '1' (example: 0/1)"),
        ("RESOLVER", "198.18.0.1:dns", "invalid value '198.18.0.1:dns' (example: 203.0.113.53)"),
        ("MIX", '{"page": 0}', "at least one op needs a weight above 0"),
        ("MIX", '{"scores": 1}', f"unknown op 'scores' (one of: {', '.join(USUAL_MIX)})"),
    ],
)
def test_a_wrong_variable_is_refused_with_what_is_accepted(name: str, text: str, error: str) -> None:
    with pytest.raises(settings.SettingsError) as refused:
        settings.read({f"MONKEYWRENCH_{name}": text})
    assert str(refused.value) == f"MONKEYWRENCH_{name}: {error}"


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("192.0.2.1", "192.0.2.1 is outside of 198.18.0.0/15, 203.0.113.0/24, 127.0.0.0/8: load stays inside the lab"),
        ("198.19.255.1", "198.19.255.1 is not on this node's own networks: load stays inside the lab"),
        ("resolver", "Expected 4 octets in 'resolver'"),
    ],
)
def test_only_addresses_of_the_lab_without_a_router_are_accepted(address: str, error: str) -> None:
    with pytest.raises(addresses.RefusedError) as refused:
        addresses.check_address(address)
    assert str(refused.value) == error
    assert not addresses.in_reach(address)
    assert addresses.in_reach("127.0.0.9")
    with pytest.raises(addresses.RefusedError):
        dns.resolve("www.example.test", (address, 53))


def test_a_resolver_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "TIMEOUT_S", 0.05)
    with pytest.raises(dns.UnresolvedError, match=r"no answer from the resolver 127\.0\.0\.1:9: "):
        dns.resolve("www.example.test", ("127.0.0.1", 9))


def test_a_plan_gives_each_op_its_time_and_is_over_when_the_last_user_leaves() -> None:
    over: list[bool] = []
    planned = plan.Plan(iter([(0.0, "/a"), (3600.0, "/b")]), lambda: over.append(True))
    for _ in range(2):
        planned.join()
    slept: list[float] = []
    first = planned.next(slept.append)
    second = planned.next(slept.append)
    assert first is not None
    assert second is not None
    assert (first.path, first.free, second.path, second.free) == ("/a", False, "/b", True)
    assert second.due_ns - first.due_ns == 3600 * 10**9
    assert 0 < slept[0] <= 3600
    assert planned.next(slept.append) is None
    planned.leave()
    assert over == []
    planned.leave()
    assert over == [True]


def test_processes_share_a_plan(tmp_path: Path) -> None:
    (tmp_path / "replay").write_text(json.dumps([[0, f"/{number}"] for number in range(5)]))
    paths = []
    for share in ("0/2", "1/2"):
        read = settings.read({"MONKEYWRENCH_REPLAY": str(tmp_path / "replay"), "MONKEYWRENCH_SHARE": share})
        mine = plan.planned(read, lambda: None)
        assert mine is not None
        found = []
        while arrival := mine.next(time.sleep):
            found.append(arrival.path)
        paths.append(found)
    assert paths == [["/0", "/2", "/4"], ["/1", "/3"]]
    assert plan.planned(settings.read({}), lambda: None) is None


def test_ops_are_lines_of_a_file_or_go_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "ops.jsonl"
    for recorder in (Recorder(str(path), "user"), Recorder("", "user")):
        recorder.begin()
        recorder.record({"t": 1, "f": "get"})
        recorder.plan_over((1, 4))
        recorder.end()
    begin, op, over, end = map(json.loads, path.read_text().splitlines())
    assert (begin["process"], begin["value"]["phase"], end["value"]) == ("worker:user", "begin", {"phase": "end"})
    assert (op, over["value"]) == ({"t": 1, "f": "get"}, {"phase": "over", "share": "1/4"})


def test_a_process_has_one_id_of_its_own() -> None:
    assert process_id(1) == process_id(1) != process_id(2)


@pytest.mark.parametrize(
    ("status", "written", "certainly_not"),
    [(503, "no", True), (409, None, True), (409, "unknown", False), (503, None, False), (200, None, False)],
)
def test_a_write_certainly_changed_nothing_only_where_the_site_reports_it(
    status: int, written: str | None, certainly_not: bool
) -> None:
    assert answers.not_written(status, written) is certainly_not


def judgement(kind: str, **known: Any) -> Judgement:
    return Judgement(kind, "", known)


def test_a_journal_is_read_page_by_page_by_one_reader(tmp_path: Path) -> None:
    path = tmp_path / "wanted.json"
    path.write_text(json.dumps({"pages": ["ledger"], "players": 1, "uploads": []}))
    shared = reader.ReadingList(str(path))
    shared.join(0)
    mine: deque[reader.Try] = deque()
    found = shared.next(mine)
    assert found == (reader.journal_page("ledger", 0), 0)
    shared.answered(mine, *found, judgement("ok", status=200, entries=[{}] * 1000, last=1000))
    assert shared.next(mine) == (reader.journal_page("ledger", 1000), 0)
    assert [request.f for request, _ in iter(lambda: shared.next(mine), None)] == [
        "profile-read",
        "score-read",
        "coins",
        "ledger",
    ]
    assert shared.leave(0)


def test_what_was_not_read_is_tried_again_unless_it_is_on_its_way_or_does_not_exist(tmp_path: Path) -> None:
    shared, mine = reader.ReadingList(""), deque[reader.Try]()
    request = Request("coins", {}, "/coins.php")
    for no_more in (judgement("fail", again=True), judgement("fail", status=404), judgement("ok", status=200)):
        shared.answered(mine, request, 0, no_more)
        assert shared.next(mine) is None
    shared.answered(mine, request, 0, judgement("info"))
    assert shared.next(mine) == (request, 1)
    shared.answered(mine, request, reader.TRIES - 1, judgement("fail", status=503))
    assert shared.next(mine) is None
