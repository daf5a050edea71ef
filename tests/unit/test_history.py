"""The history: what is written is read back, whatever happened to the writer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.history import History, HistoryError, Op, Recorder, load
from harness.history.ops import LONGEST_NS, TYPES, remembered
from harness.records import Cluster, Entry
from tests.support import histories as h
from tests.support.examples import examples

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ENTRIES = st.builds(
    Entry,
    st.integers(h.ORIGIN_NS - LONGEST_NS, h.ORIGIN_NS + LONGEST_NS),
    st.text(),
    st.sampled_from(sorted(TYPES)),
    st.text(),
    JSON,
    st.none() | st.text(),
)


def write(path: Path, *entries: Entry) -> list[Op]:
    with Recorder(path, h.ORIGIN_NS) as recorder:
        return [recorder.record(entry) for entry in entries]


def entry(ms: float, process: str = "run", f: str = "step") -> Entry:
    return Entry(h.ORIGIN_NS + round(ms * h.MS), process, "info", f)


@examples(50)
@given(entries=st.lists(ENTRIES, max_size=6))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, entries: list[Entry]) -> None:
    path = tmp_path_factory.mktemp("run") / "history.jsonl"
    ops = write(path, *entries)
    assert list(load(path)) == ops
    assert [one.index for one in ops] == list(range(len(entries)))
    assert [one.time for one in ops] == [given.time_ns - h.ORIGIN_NS for given in entries]
    assert path.read_bytes().count(b"\n") == len(entries)


def test_a_line_is_what_the_format_says(tmp_path: Path) -> None:
    write(tmp_path / "h", Entry(h.ORIGIN_NS + 7, "run", "info", "end"), Entry(h.ORIGIN_NS, "p", "fail", "x", 1, "no"))
    one, two = [json.loads(line) for line in (tmp_path / "h").read_text().splitlines()]
    assert one == {"index": 0, "time": 7, "process": "run", "type": "info", "f": "end", "value": None}
    assert two["error"] == "no"


def test_bytes_that_are_no_text_survive(tmp_path: Path) -> None:
    text = b"caf\xe9 \xff".decode(errors="surrogateescape")
    write(tmp_path / "h", Entry(0, "log:lb-1:heartbeat", "info", "log", text))
    assert load(tmp_path / "h")[0].value == text


def test_every_line_is_on_disk_before_record_returns(tmp_path: Path) -> None:
    with Recorder(tmp_path / "h", 0) as recorder:
        for count in range(1, 4):
            recorder.record(entry(count))
            assert len(load(tmp_path / "h")) == count


def test_a_killed_writer_leaves_all_it_recorded(tmp_path: Path) -> None:
    program = (
        "import sys; from harness.history import Recorder; from harness.protocols import Entry\n"
        "recorder = Recorder(sys.argv[1], 0)\n"
        "for n in range(1000): recorder.record(Entry(n, 'p', 'info', 'x'))\n"
        "print('done', flush=True); sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", program, str(tmp_path / "h")]
    root = Path(__file__).parents[2]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"done\n"
        os.kill(writer.pid, signal.SIGKILL)
    assert len(load(tmp_path / "h")) == 1000


def test_threads_share_a_recorder(tmp_path: Path) -> None:
    with Recorder(tmp_path / "h", 0) as recorder:

        def work(name: str) -> None:
            for n in range(200):
                recorder.record(Entry(n, name, "info", "x", "y" * 500))

        threads = [threading.Thread(target=work, args=(str(n),)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    history = load(tmp_path / "h")
    assert len(history) == 1600
    for n in range(8):
        assert [one.time for one in history if one.process == str(n)] == list(range(200))


def test_two_runs_never_share_a_history(tmp_path: Path) -> None:
    write(tmp_path / "h", entry(1))
    with pytest.raises(FileExistsError):
        Recorder(tmp_path / "h", 0)


def test_a_value_that_json_cannot_say_costs_no_index(tmp_path: Path) -> None:
    with Recorder(tmp_path / "h", 0) as recorder:
        with pytest.raises(TypeError):
            recorder.record(Entry(0, "p", "info", "x", object()))
        with pytest.raises(ValueError, match="JSON"):
            recorder.record(Entry(0, "p", "info", "x", float("nan")))
        assert recorder.record(entry(1)).index == 0
    assert len(load(tmp_path / "h")) == 1


def test_nothing_is_recorded_after_the_end(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "h", 0)
    recorder.close()
    recorder.close()
    with pytest.raises(HistoryError, match="closed"):
        recorder.record(entry(1))


def test_a_torn_last_line_is_dropped_wherever_it_tore(tmp_path: Path) -> None:
    write(tmp_path / "h", entry(1), entry(2), entry(3))
    whole = (tmp_path / "h").read_bytes()
    second = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    for length in range(second, len(whole) - 1):
        (tmp_path / "torn").write_bytes(whole[:length])
        assert [one.index for one in load(tmp_path / "torn")] == [0, 1]
    (tmp_path / "torn").write_bytes(whole[:-1])  # all but the newline: the line is whole
    assert len(load(tmp_path / "torn")) == 3


GOOD = '{"index":%d,"time":1,"process":"p","type":"info","f":"x","value":null}'


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"index":1,"ti', "is not JSON"),
        ("", "is not JSON"),
        ("[]", "is not an op: expected 'object', got 'array'"),
        ('["\\udce9"]', "is not an op: expected 'object', got 'array'"),
        (GOOD.replace('"time":1', '"time":"1"') % 1, "'time'"),
        (GOOD.replace('"time":1', '"time":true') % 1, "'time'"),
        (GOOD.replace('"info"', '"perhaps"') % 1, "'type'"),
        (GOOD.replace('"f":"x",', "") % 1, "missing required field 'f'"),
        (GOOD.replace('"value"', '"valeu"') % 1, "unknown field 'valeu'"),
        (GOOD.replace('"x"', "7") % 1, "its 'f' is wrong .expected 'str', got 'int'"),
        (GOOD.replace('"x","value":null', '"x","value":"\\udce9","error":7') % 1, "its 'error' is wrong"),
        (GOOD % 0, "out of order"),
    ],
)
def test_a_broken_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "h").write_text(f"{GOOD % 0}\n{line}\n{GOOD % 2}\n")
    with pytest.raises(HistoryError, match=f"line 2 .*{says}"):
        load(tmp_path / "h")


def test_an_empty_file_is_an_empty_history_without_a_start(tmp_path: Path) -> None:
    (tmp_path / "h").touch()
    history = load(tmp_path / "h")
    assert len(history) == 0
    assert not history.complete
    assert history.end_ns == 0
    with pytest.raises(HistoryError, match="no start"):
        history.cluster  # noqa: B018 - reading it is what fails


def test_pairs_follow_their_process_and_give_up_on_a_second_invocation() -> None:
    vip = {"vip": h.VIP1}
    history = History(
        [
            h.op(1, "a", "http", vip, "invoke", index=0),
            h.op(2, "b", "http", vip, "invoke", index=1),
            h.op(3, "b", "http", vip, "ok", index=2),
            h.op(4, "a", "http", vip, "fail", index=3),
            h.op(5, "a", "http", vip, "invoke", index=4),
            h.op(6, "a", "http", vip, "invoke", index=5),
            h.op(7, "a", "http", vip, "info", index=6),
            h.op(8, "c", "http", vip, "ok", index=7),
            h.op(9, "b", "http", vip, "invoke", index=8),
        ]
    )
    found = [(pair.invoke.index, pair.completion and pair.completion.index, pair.ok) for pair in history.pairs("http")]
    assert found == [(0, 3, False), (1, 2, True), (4, None, False), (5, 6, False), (8, None, False)]


def test_selectors_and_order() -> None:
    history = History(
        [h.op(5, "run", "start", index=0), h.op(3, "owners:lb-1", "holds", index=1), h.op(5, "x", "y", index=2)]
    )
    assert [one.index for one in history.by_time()] == [1, 0, 2]
    assert [one.index for one in history] == [0, 1, 2]
    assert history.by_time().op(0) is history[0]
    assert history.process("owners:") == (history[1],)
    assert history.of("holds") == (history[1],)
    assert history.seen("holds") == ()
    assert history.of("nothing") == ()
    assert history.end_ns == 5 * h.MS


def test_the_cluster_comes_from_the_start() -> None:
    history = h.of([h.start(macs={"02:AA:00:00:00:01": "lb-1"}), h.end(1)])
    assert history.cluster.vips == {h.VIP1: "lb-1", h.VIP2: "lb-2"}
    assert history.cluster.directors == ("lb-1", "lb-2")
    assert history.cluster.macs == {"02:aa:00:00:00:01": "lb-1"}
    assert history.cluster.deadtime_ms == 3000
    assert history.scenario == "director-power-cut"
    assert history.complete
    with pytest.raises(HistoryError, match=r"op 0 \(start\).*cannot be read"):
        h.of([h.start(deadtime_ms=None)]).cluster  # noqa: B018 - reading it is what fails


def test_a_missing_field_is_named_with_its_op() -> None:
    with pytest.raises(HistoryError, match=r"op 4 \(holds\).*'vips'"):
        h.op(0, "owners:lb-1", "holds", {}, index=4)["vips"]


def test_facts_that_an_older_history_lacks_have_defaults() -> None:
    old = {name: value for name, value in h.CLUSTER.items() if name in Cluster.__dataclass_fields__}
    for name in ("check_interval_ms", "check_timeout_ms", "quiescent", "scheduler"):
        old.pop(name)
    first = h.op(0, "run", "start", {"cluster": old})
    assert h.of([first]).cluster.check_interval_ms == Cluster.check_interval_ms
    assert h.of([first]).cluster.auto_failback
    told = h.of([h.start(auto_failback=False, persistence_s=300)]).cluster
    assert (told.auto_failback, told.persistence_s, told.check_timeout_ms) == (False, 300, 3000)


def test_ops_from_a_file_are_small_and_say_what_was_written(tmp_path: Path) -> None:
    """A million ops are to be judged within 400 MiB."""
    ops = [op for seq in range(2_000) for op in h.probe(10 * seq, h.VIP1, seq)]
    path = tmp_path / "h"
    path.write_text("".join(op.copy(index=index).line() + "\n" for index, op in enumerate(ops)))
    load(path)  # what is made once, and not for each history
    tracemalloc.start()
    try:
        history = load(path)
        bytes_an_op = tracemalloc.get_traced_memory()[0] / len(ops)
    finally:
        tracemalloc.stop()
    assert bytes_an_op < 280
    assert [op.value for op in history] == [op.value for op in ops]
    assert history[1].get("node") == "web-1"
    assert history[0].get("node") is None
    assert history[0].has_fields
    assert history[0].copy(value={"seq": 7})["seq"] == 7
    with pytest.raises(HistoryError, match="no 'node'"):
        history[0]["node"]


def test_lists_and_objects_within_a_value_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    value = {"vips": {h.VIP1: {"web-1": {"weight": 1}}}, "large": [2**80], "text": ["\udc80"]}
    op = h.op(1, "table:lb-1", "table", value)
    (tmp_path / "h").write_text(op.line() + "\n")
    (read,) = load(tmp_path / "h")
    assert read == op
    assert not read != op  # noqa: SIM202 (both operators are tried)
    assert read != op.copy(value={})
    assert read["vips"] == value["vips"]
    assert read["large"] == value["large"]
    assert read["text"] == value["text"]


def test_a_history_answers_a_question_once() -> None:
    asked = []

    @remembered
    def question(history: History) -> int:
        asked.append(history)
        return len(history)

    one, two = h.of([h.start()]), h.of([h.start(), h.end(9)])
    assert [question(one), question(one), question(two)] == [1, 1, 2]
    assert len(asked) == 2
