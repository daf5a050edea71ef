"""Workers' files merged into one history: complete, on one clock, and honest about what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness.cli import main
from harness.compare import measure
from harness.history import load
from harness.history.client_ops import gaps
from harness.history.latency import load as load_of
from loadtests.merge import MergeError, Worker, merged, read
from tests.support.locust import distributed, dns, finish_plans, plan, site

S = 10**9


def line(t: int, process: str, kind: str, f: str, value: Any) -> str:
    return json.dumps({"t": t, "process": process, "type": kind, "f": f, "value": value})


def file(name: str, user: str, at: int = 0, boot: str = "one", *, wall: int = 1_000 * S, whole: bool = True) -> Worker:
    """A worker that asked for a page at 1 s after ``at`` and got it 20 ms later."""
    asked = {"url": "http://www.example.test:8080/", "vip": "127.0.0.1"}
    answered = {**asked, "node": "web-1", "status": 200, "ms": 20.0}
    lines = [
        line(at, f"worker:{user}", "info", "worker", {"phase": "begin", "boot": boot, "wall_ns": wall}),
        line(at + S, f"{user}:0", "invoke", "get", asked),
        line(at + S + 20_000_000, f"{user}:0", "ok", "get", answered),
        *([line(at + 2 * S, f"worker:{user}", "info", "worker", {"phase": "end"})] if whole else []),
    ]
    return read(name, lines)


def test_workers_of_one_machine_share_its_clock() -> None:
    entries = list(merged([file("a", "user:0", 5 * S), file("b", "user:1", 3 * S, wall=7)], "s"))
    assert [(each.process, each.f, each.time_ns) for each in entries if each.f == "get"] == [
        ("user:1:0", "get", 4 * S),
        ("user:1:0", "get", 4 * S + 20_000_000),
        ("user:0:0", "get", 6 * S),
        ("user:0:0", "get", 6 * S + 20_000_000),
    ]
    assert entries[0].value["moved_ms"] == {}
    assert entries[0].value["cluster"]["vips"] == {"127.0.0.1": ""}
    assert (entries[0].value["cluster"]["site"], entries[0].value["cluster"]["web"]) == ("www.example.test", ["web-1"])


def test_ops_of_another_machine_are_shifted_by_the_difference_of_the_times_of_day() -> None:
    """The other machine booted 500 s later: its clock shows less at the same time of day."""
    first, second = file("a", "user:0", 900 * S, wall=5_000 * S), file("b", "user:1", 400 * S, "two", wall=5_000 * S)
    entries = list(merged([first, second], "s"))
    times = {each.process: each.time_ns for each in entries if each.type == "invoke"}
    assert times == {"user:0:0": 901 * S, "user:1:0": 901 * S}
    assert entries[0].value["moved_ms"] == {"b": 500_000}


def test_a_killed_or_unreadable_worker_leaves_the_load_unknown(tmp_path: Path) -> None:
    for broken, phases in (
        (file("b", "user:1", whole=False), ["open", "lost"]),
        (Worker(**{**vars(file("b", "user:1")), "broken": 3}), ["open", "dropped", "closed"]),
    ):
        entries = list(merged([file("a", "user:0"), broken], "s"))
        assert [each.value["phase"] for each in entries if each.process == "load:b"] == phases
        path = tmp_path / phases[-1]
        path.write_text(
            "".join(
                json.dumps({"index": n, "time": each.time_ns, **_fields(each)}) + "\n" for n, each in enumerate(entries)
            )
        )
        assert gaps(load(path))


def _fields(entry: Any) -> dict[str, Any]:
    return {"process": entry.process, "type": entry.type, "f": entry.f, "value": entry.value}


@pytest.mark.parametrize(
    ("workers", "says"),
    [
        (lambda: [read("a", [])], "a is not a file of a worker's ops: its begin op is missing"),
        (lambda: [read("a", ["nonsense", "{}"])], "a is not a file of a worker's ops: its begin op is missing"),
        (lambda: [file("a", "user:0"), file("b", "user:0")], "user:0:0 is in both a and b"),
        (lambda: [read("a", 2 * [line(1, "worker:user", "info", "worker", {"phase": "begin"})])], "of 2 workers"),
        (lambda: [read("a", [line(1, "worker:user", "info", "worker", {"phase": "begin"})])], "is unreadable"),
    ],
)
def test_files_that_cannot_be_merged_are_refused(workers: Any, says: str) -> None:
    with pytest.raises(MergeError, match=says) as refused:
        list(merged(workers(), "s"))
    assert refused.value.next_step


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.locust
def test_two_workers_of_a_master_are_one_run_that_is_judged_and_compared(tmp_path: Path) -> None:
    """Locust's own master and two workers, as on a user's own machines."""
    with site() as served, dns(tmp_path) as server:
        master, *workers = distributed(served.port, server, plan((4, 39.6, 39.6)))
        for number, ops in enumerate(finish_plans(master, *workers)):
            lines = (json.dumps(op) + "\n" for op in ops)
            (tmp_path / f"ops-{number}.jsonl").write_text("".join(lines))
    files = sorted(tmp_path.glob("ops-*.jsonl"))
    done = call("merge", *files, "--to", tmp_path / "run", "--scenario", "loadtests/profiles/steady.toml")
    assert done.exit_code == 0, done.output
    history = load(tmp_path / "run" / "history.jsonl")
    assert history.complete
    (asked,) = load_of(history).values()
    assert len(asked) == len(served.requests) == 158
    assert {pair.invoke.process.split(":")[1] for pair in asked} == {"0", "1"}
    assert measure("run", history).requests["all"] == 158
    again = call("merge", *files, "--to", tmp_path / "run")
    assert (again.exit_code, "already holds a run" in " ".join(again.output.split())) == (2, True)
    judged = json.loads(call("check", tmp_path / "run", "--json").stdout)
    # there was no lab, so nothing checks how it was left
    assert [each["check"] for each in judged["verdicts"]] == ["errors", "arrivals"]
    assert judged["verdicts"][0]["outcome"] == "valid"
    assert call("report", tmp_path / "run").exit_code == 0
    assert "No request failed" in (tmp_path / "run" / "report.html").read_text()
