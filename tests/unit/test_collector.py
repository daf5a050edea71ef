"""Collectors: their sources, literally; and the program as a node runs it."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.fake import FakeLab
from harness.records import Line
from harness.wait import until
from tests.support.program import DEADLINE_S
from topology.lab.observers import ClockReference, CollectorFeed

MACHINE = Path(__file__).parents[2] / "topology/images/node/machine"
sys.path.insert(0, str(MACHINE))
try:
    import collector
    import dnsquery
finally:
    sys.path.remove(str(MACHINE))


def message(kind: int, *attributes: bytes) -> bytes:
    """A message of generic netlink as the kernel sends it: its header, that of the family, the attributes."""
    content = struct.pack("=BBH", 1, 1, 0) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(content), kind, 0, 0, 0) + content


def nested(kind: int, **named: bytes) -> bytes:
    """An attribute with attributes in it, named as the program names them."""
    inner = [collector.attribute(getattr(collector, name), content) for name, content in named.items()]
    return bytes(collector.attribute(kind | collector.NESTED, b"".join(inner)))


def service(address: str, protocol: int = socket.IPPROTO_TCP) -> bytes:
    return nested(
        collector.IPVS_CMD_ATTR_SERVICE,
        SERVICE_AF=struct.pack("=H", socket.AF_INET),
        SERVICE_PROTOCOL=struct.pack("=H", protocol),
        SERVICE_ADDR=socket.inet_aton(address) + bytes(12),
        SERVICE_PORT=struct.pack("!H", 80),
    )


def dest(address: str, weight: int, active: int, inactive: int, conns: int) -> bytes:
    return nested(
        collector.IPVS_CMD_ATTR_DEST,
        DEST_ADDR=socket.inet_aton(address) + bytes(12),
        DEST_WEIGHT=struct.pack("=I", weight),
        DEST_ACTIVE=struct.pack("=I", active),
        DEST_INACTIVE=struct.pack("=I", inactive),
        DEST_STATS64=collector.attribute(collector.STATS_CONNS, struct.pack("=Q", conns)),
    )


FAMILY = message(16, collector.attribute(2, b"IPVS\0"), collector.attribute(1, struct.pack("=H", 27)))
DONE = struct.pack("=IHHIIi", 20, 3, 2, 0, 0, 0)
OF_A_MARK = nested(1, SERVICE_AF=struct.pack("=H", socket.AF_INET))


class Kernel:
    """A netlink socket whose answers are known: what is asked, and what comes for it, in order."""

    def __init__(self, *answers: bytes) -> None:
        self.asked: list[bytes] = []
        self._answers = list(answers)

    def bind(self, _: tuple[int, int]) -> None: ...

    def send(self, asked: bytes) -> None:
        self.asked.append(asked)

    def recv(self, _: int) -> bytes:
        return self._answers.pop(0)


def test_the_table_has_the_virtual_services_for_tcp_and_their_real_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    services = [service("203.0.113.102"), OF_A_MARK, service("203.0.113.9", socket.IPPROTO_UDP)]
    kernel = Kernel(
        FAMILY,
        b"".join(message(27, each) for each in services),
        message(27, service("203.0.113.101")) + DONE,
        message(27, dest("198.18.1.202", 0, 2, 5, 2**33)) + message(27, dest("198.18.1.201", 1, 0, 17, 101)),
        DONE,
        DONE,
    )
    monkeypatch.setattr(socket, "socket", lambda *_: kernel)
    assert collector.Netlink().table() == {
        "203.0.113.102": {
            "198.18.1.202": {"weight": 0, "active": 2, "inactive": 5, "conns": 2**33},
            "198.18.1.201": {"weight": 1, "active": 0, "inactive": 17, "conns": 101},
        },
        "203.0.113.101": {},
    }
    assert [struct.unpack_from("=IHH", asked) for asked in kernel.asked] == [
        (len(kernel.asked[0]), 16, 1),
        (20, 27, 0x301),
        *[(20 + len(service("203.0.113.102")), 27, 0x301)] * 2,
    ]
    assert kernel.asked[2][20:] == service("203.0.113.102")


def test_a_machine_without_ipvs_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = struct.pack("=IHHIIi", 20, 2, 0, 0, 0, -2)
    monkeypatch.setattr(socket, "socket", lambda *_: Kernel(refused))
    with pytest.raises(FileNotFoundError, match="No such file or directory"):
        collector.Netlink()


def record(address: str, ttl_s: int = 5) -> bytes:
    return dnsquery.ANSWER_A + struct.pack("!IH", ttl_s, 4) + socket.inet_aton(address)


def test_answers_are_in_the_order_of_the_packet() -> None:
    question = b"\x12\x34" + b"\x00" * 10 + b"\x03www\x00" + struct.pack("!HH", 1, 1)
    answer = b"\x12\x34\x84\x00" + question[4:] + record("203.0.113.102") + record("203.0.113.101", 600)
    assert collector.parse_answer(question, answer) == {
        "rcode": "NOERROR",
        "answers": ["203.0.113.102", "203.0.113.101"],
        "ttl_s": [5, 600],
    }
    refused = b"\x12\x34\x84\x05" + question[4:]
    assert collector.parse_answer(question, refused)["rcode"] == "REFUSED"
    with pytest.raises(ValueError, match="no answer to this question"):
        collector.parse_answer(question, b"\x12\x35" + answer[2:])


def test_hosts_are_read_from_gmetads_xml() -> None:
    xml = '<CLUSTER NAME="web"><HOST NAME="web-1" IP="198.18.1.101" REPORTED="1" TN="7" TMAX="20" DMAX="0">\n</HOST>'
    assert collector.parse_hosts(xml) == {"web-1": {"tn_s": 7, "tmax_s": 20}}


@contextmanager
def program(*wanted: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """The program; its lines so far."""
    argv = [sys.executable, "-IS", collector.__file__, json.dumps(wanted)]
    running = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    lines: list[dict[str, Any]] = []
    assert running.stdout is not None
    reader = threading.Thread(target=lambda: lines.extend(map(json.loads, running.stdout or ())))
    reader.start()
    try:
        yield lines
    finally:
        running.kill()
        running.wait()
        reader.join()


def of(lines: list[dict[str, Any]], what: str) -> list[Any]:
    return [line["value"] for line in lines if line["what"] == what]


def test_pages_are_seen_at_each_change_and_now_and_then(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("one")
    (tmp_path / ".~tmp~").mkdir()
    (tmp_path / ".~tmp~" / "index.html").write_text("on its way")
    wanted = {"what": "docroot", "every_s": 0.02, "at_least_every_s": 0.3, "folder": str(tmp_path)}
    with program(wanted) as lines:
        until(lambda: len(lines) >= 2, DEADLINE_S, "a second look without a change")
        written(tmp_path / "next", "two").replace(tmp_path / "index.html")
        two = "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"
        until(lambda: of(lines, "docroot")[-1] == {"files": {"index.html": two}}, DEADLINE_S, "the change to be seen")


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_folder_is_written_and_read_and_left_empty(tmp_path: Path) -> None:
    with program({"what": "nfs", "every_s": 0.02, "folder": str(tmp_path)}) as lines:
        until(lambda: len(lines) >= 4, DEADLINE_S, "two round trips")
    assert [line["type"] for line in lines[:4]] == ["invoke", "ok", "invoke", "ok"]
    assert lines[1]["value"]["ms"] > 0


def test_a_folder_that_cannot_be_written_fails(tmp_path: Path) -> None:
    with program({"what": "nfs", "every_s": 0.02, "folder": str(tmp_path / "none")}) as lines:
        until(lambda: len(lines) >= 2, DEADLINE_S, "a round trip")
    assert lines[1]["type"] == "fail"
    assert lines[1]["error"] == "No such file or directory"


def test_one_that_hangs_does_not_keep_the_others(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f".collector-{socket.gethostname()}")
    hangs = {"what": "nfs", "every_s": 0.02, "folder": str(tmp_path)}
    with program(hangs, {"what": "clock", "every_s": 0.02}) as lines:
        until(lambda: of(lines, "nfs") and len(of(lines, "clock")) >= 5, DEADLINE_S, "the clock to go on")
    assert [line["type"] for line in lines if line["what"] == "nfs"] == ["invoke"]


def test_a_log_is_followed_line_by_line_and_into_its_next_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("old\n")

    def begun() -> list[str]:
        """Lines that are added until the collector has found one of them."""
        with path.open("a") as file:
            file.write("begin\n")
        return of(lines, "log")

    wanted = {"what": "log", "every_s": 0.02, "service": "apache", "path": str(path)}
    with program(wanted) as lines:
        until(begun, DEADLINE_S, "the first line")
        with path.open("a") as file:
            file.write("one\ntw")
            file.flush()
            until(lambda: of(lines, "log")[-1]["line"] == "one", DEADLINE_S, "a line")
            file.write("o\n")
        until(lambda: of(lines, "log")[-1]["line"] == "two", DEADLINE_S, "the rest of the next line")
        written(tmp_path / "new", "three\n").replace(path)
        until(lambda: of(lines, "log")[-1]["line"] == "three", DEADLINE_S, "the first line of the next file")
    found = [value["line"] for value in of(lines, "log")]
    assert set(found[:-3]) == {"begin"}
    assert found[-3:] == ["one", "two", "three"]


def entries(line: str, time_ns: int = 5_000_000_000) -> list[Any]:
    feed = CollectorFeed(FakeLab().node("web-2"), (), ClockReference(1_000_000_000_000, 4_000_000_000, 200_000))
    return list(feed.entries(Line(time_ns, line)))


def test_lines_become_ops_of_processes() -> None:
    (nfs,) = entries('{"what":"nfs","type":"fail","value":{},"error":"No space left on device"}')
    assert (nfs.process, nfs.type, nfs.f, nfs.value, nfs.error) == (
        "nfs:web-2",
        "fail",
        "nfs",
        {"node": "web-2"},
        "No space left on device",
    )
    (log,) = entries('{"what":"log","type":"info","value":{"service":"apache","line":"hello"}}')
    assert (log.process, log.f, log.value) == ("log:web-2:apache", "log", "hello")
    (backup,) = entries('{"what":"backup","type":"info","value":{"of":"uploads","age_s":3}}')
    assert backup.process == "backup:uploads"


def test_a_clock_is_compared_with_the_labs() -> None:
    (clock,) = entries('{"what":"clock","type":"info","value":{"wall_ns":1002500000000}}')
    assert clock.value == {"node": "web-2", "offset_ms": 1500.0, "round_trip_ms": 0.2}


def test_a_line_that_cannot_be_read_is_kept() -> None:
    (entry,) = entries("Traceback (most recent call last):")
    assert (entry.process, entry.f, entry.value, entry.error) == (
        "collector:web-2",
        "feed",
        "Traceback (most recent call last):",
        "unreadable line",
    )
