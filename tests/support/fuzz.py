"""Readers of files, and broken input for them: each input follows from a seed and a number alone.

A reader may refuse its input with one sentence (a UserError or a pydantic ValidationError where its caller makes one
of it), or take it. Everything else is a traceback for a user.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import PcapNgWriter, PcapWriter

import topology
from faults import FAULTS
from harness import catalogue, doctor, history, plan, scenario
from harness.artifacts import junit, run_directory, stored_run
from harness.checks import CHECKS
from harness.compare import measure, release
from harness.errors import UserError
from harness.formats import exports, ha_cf, haresources, ipvsadm, ldirectord_cf
from harness.history import History, Op, jepsen
from harness.records import Entry, Line
from harness.report.render import render
from harness.verdict import Outcome, Verdict, judgement
from loadtests import accesslog, merge
from loadtests.feeds import entry
from tests.support import every_feed
from tests.support import histories as h
from tests.support.games import Game
from tests.support.histories import PowerCut
from topology import load as topologies
from topology.files import files_of

sys.path.append(str(Path(topology.__file__).parent / "images" / "switch" / "heartbeat"))  # as in the switch
import dissect

SHORT = 12
"""Ops of a history that stays small enough to be judged thousands of times."""

WORDS: Sequence[Any] = (
    None, True, False, [], {}, [[]], [None], {"": None}, "", "x", "\0", "a\0b", "\ud800", "\udc80", "ä",
    "x" * 5000, "../../x",
    "[[[[", "NaN", "1e999", "-", "2031-02-30", "198.18.0.256", "203.0.113.101", "web-1", "lb-1",
    -1, 0, 1, 0.5, -0.0, 1e-300, 1e300, float("inf"), float("nan"), 2**31, 2**63, 2**64, 10**30, 10**400,
)  # fmt: skip
"""Values that are wrong almost everywhere."""

TEXTS = (
    b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\n", b"\n\n",
    b" ", b"\t", b'"', b"'", b"\\", b"=", b"[", b"]", b"{", b"}", b"#",
    b",", b":", b"[[" * 600, b"{" * 600, b'{"a":' * 600, b"9" * 5000,
    b"x" * 5000, b"0x" + b"f" * 6000, b"1e999", b"nan", b"NaN", b"-inf",
    b"null", b"true", b"[]", b'"\\u0000"', b'"\\ud800"', b"1979-05-27T07:32:00Z", b"%", b"$(x)", b"*", b"?",
)  # fmt: skip
"""Bytes that readers trip over."""


@dataclass(frozen=True)
class Reader:
    """What reads a kind of file: its good inputs, how they are broken, and how they are read."""

    good: Callable[[], Sequence[bytes]]
    broken: Callable[[random.Random, bytes], bytes]
    read: Callable[[bytes, Path], object]
    share: int = 1
    """Inputs for this reader in one round of inputs for all readers."""


def inputs(name: str, seed: int = 1) -> Any:
    """Broken inputs for a reader, without an end."""
    reader = READERS[name]
    good = reader.good()
    number = 0
    while True:
        chance = random.Random(f"{seed} {name} {number}")
        yield reader.broken(chance, good[number % len(good)])
        number += 1


def attempt(name: str, data: bytes, folder: Path) -> str:
    """Read an input; -> the sentence of the refusal, or an empty text."""
    try:
        READERS[name].read(data, folder)
    except UserError as error:
        return str(error)
    return ""


# --- how input is broken


def bytes_broken(chance: random.Random, data: bytes) -> bytes:
    """One to four changes of bytes: some deleted, doubled, moved, flipped or inserted."""
    text = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(text) + 1)
        length = chance.choice((1, 1, 2, 8, 40))
        match chance.randrange(6):
            case 0:
                del text[at : at + length]
            case 1:
                text[at:at] = text[at : at + length]
            case 2 if text:
                text[at % len(text)] ^= 1 << chance.randrange(8)
            case 3:
                text[at : at + chance.choice((0, length))] = chance.choice(TEXTS)
            case 4:
                del text[at:]
            case _:
                text[at:at] = bytes(chance.randrange(256) for _ in range(length))
        if len(text) > 200_000:
            break
    return bytes(text)


def toml_broken(chance: random.Random, data: bytes) -> bytes:
    """A value or a key replaced, a line removed, doubled or moved; else broken bytes."""
    if chance.random() < 0.3:
        return bytes_broken(chance, data)
    lines = data.decode().split("\n")
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(lines))
        match chance.randrange(5):
            case 0 | 1 | 2:
                key, equals, _old = lines[at].partition("=")
                if equals:
                    lines[at] = f"{key}= {toml_value(chance)}"
            case 3:
                lines.insert(chance.randrange(len(lines)), lines[at])
            case _:
                del lines[at]
        lines = lines or [""]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def toml_value(chance: random.Random) -> str:
    special = (
        "[" * 1200 + "]" * 1200,
        "9" * 4500,
        "0x" + "f" * 5000,
        "{a = {a = {a = 1}}}",
        "1979-05-27",
        "07:32:00",
        "inf",
        "nan",
    )
    if chance.random() < 0.2:
        return chance.choice(special)
    value = chance.choice(WORDS)
    if value is None or value in ({"": None}, [None]):
        return "{}"
    if isinstance(value, float):
        return str(value)
    return json.dumps(value)


def lines_broken(chance: random.Random, data: bytes) -> bytes:
    """Lines of JSON: values replaced at any depth, lines removed, doubled or moved; sometimes broken bytes."""
    if chance.random() < 0.1:
        return bytes_broken(chance, data)
    rows = [json.loads(line) for line in data.splitlines()]
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(rows))
        match chance.randrange(8):
            case 0 if len(rows) > 1:
                del rows[at]
            case 1:
                rows.insert(chance.randrange(len(rows)), json.loads(json.dumps(rows[at])))
            case 2 | 3 | 4 if isinstance(rows[at], dict) and isinstance(rows[at].get("value"), dict | list):
                value_broken(chance, rows[at]["value"])
            case 5 if isinstance(rows[at], dict) and "time" in rows[at]:
                rows[at]["time"] = chance.choice((0, -1, -(10**9), 10**9, 10**12, 30 * 86_400 * 10**9, 2**62))
            case _:
                value_broken(chance, rows[at])
    if chance.random() < 0.9:  # well-formed, so that it is not refused at its first line
        for number, row in enumerate(rows):
            if isinstance(row, dict) and "index" in row:
                row["index"] = number
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def value_broken(chance: random.Random, value: Any) -> None:
    """Replace, remove or add something in a JSON value, in place."""
    here = value
    while True:
        places: list[Any] = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not places:
            break
        at = chance.choice(places)
        if isinstance(here[at], dict | list) and here[at] and chance.random() < 0.85:
            here = here[at]
            continue
        if isinstance(here, dict) and chance.random() < 0.15:
            del here[at]
        else:
            here[at] = deepcopy(chance.choice(WORDS))
        return
    if isinstance(here, dict):
        here[str(chance.choice(WORDS))] = deepcopy(chance.choice(WORDS))


# --- what reads it


def _file(data: bytes, folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def read_scenario(data: bytes, folder: Path) -> None:
    wanted = scenario.load(_file(data, folder, "scenario.toml"))
    for step in islice(plan.plan(wanted, wanted.scenario.seed), 50):
        match step.action:
            case plan.Inject(fault, label, settings):
                catalogue.make(fault, settings, FAULTS, wanted.scenario.seed, label)


def read_topology(data: bytes, folder: Path) -> None:
    topologies.load(str(_file(data, folder, "topology.toml")))


def read_topology_files(data: bytes, folder: Path) -> None:
    """As `doctor` does."""
    doctor.lint(topologies.load(str(_file(data, folder, "topology.toml"))))


def read_history(data: bytes, folder: Path) -> None:
    """As `check`, `history` and `report` do."""
    found = stored_run.load(_file(data, folder, run_directory.HISTORY))
    for model in jepsen.MODELS:
        json.dumps(list(jepsen.export(found, model)))
    run = stored_run.Stored(found, EVERY_CHECK, run_directory.read_meta(folder))
    verdicts = stored_run.judge(run)
    stored_run.write(folder, run, verdicts)


def read_compared(data: bytes, folder: Path) -> None:
    """As `compare` does."""
    found = measure("candidate", stored_run.load(_file(data, folder, run_directory.HISTORY)))
    good = measure("baseline", _players())
    sides = {release.BASELINE: [(good, folder)], release.CANDIDATE: [(found, folder)]}
    release.write_comparison(folder, "title", sides, "monkeywrench compare")


def read_verdict(data: bytes, folder: Path) -> None:
    """The verdict.json and meta.json that a comparison and a report read."""
    path = _file(data, folder, run_directory.VERDICT)
    release._judgement(path)
    path.replace(folder / run_directory.META)
    run = stored_run.Stored(SMALL, SCENARIO, run_directory.read_meta(folder))
    junit.render(run.history, judgement("x", []), run.meta)
    render(run.history, [], "title", "expectation", run.meta)
    (folder / run_directory.META).unlink()


def read_workers(data: bytes, folder: Path) -> None:
    """As `merge` does; and what it writes can be read."""
    worker = merge.read("a", data.decode("utf-8", "replace").splitlines())
    other = merge.read("b", OTHER_WORKER.splitlines())
    for workers in ([worker], [worker, other], [other, worker]):
        entries = list(merge.merged(workers, "load"))
        history_file = folder / "merged" / run_directory.HISTORY
        history_file.unlink(missing_ok=True)
        merge.write(folder / "merged", entries, None)
        history.load(history_file)


def read_feed(data: bytes, _: Path) -> None:
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        found = entry(Line(0, line))
        assert isinstance(found, Entry)


def read_log(data: bytes, _: Path) -> None:
    accesslog.read(data.decode("utf-8", "replace").splitlines(), 2)


def read_settings(data: bytes, _: Path) -> None:
    """As `inject` does."""
    name, *words = data.decode("utf-8", "surrogateescape").split(" ")
    catalogue.make(name, catalogue.settings(name, words, FAULTS), FAULTS)


def read_tolerance(data: bytes, _: Path) -> None:
    release.settings(data.decode("utf-8", "surrogateescape").split(" "))


def text_reader(parse: Callable[[str], object]) -> Callable[[bytes, Path], None]:
    def read(data: bytes, _: Path) -> None:
        parse(data.decode("utf-8", "surrogateescape"))

    return read


# --- good input

SCENARIO = scenario.load(Path(__file__).parents[1] / "chaos" / "director-power-cut.toml")
EVERY_CHECK = SCENARIO.model_copy(update={"checks": {name: {} for name in CHECKS}})
BEGIN = {"phase": "begin", "boot": "two", "wall_ns": 9}
URL = "http://www.example.test/"
OTHER_WORKER = "\n".join(
    json.dumps(each)
    for each in (
        {"t": 5, "process": "worker:user:9", "type": "info", "f": "worker", "value": BEGIN},
        {"t": 6, "process": "user:9:0", "type": "invoke", "f": "get", "value": {"url": URL, "vip": "1.2.3.4"}},
        {"t": 7, "process": "user:9:0", "type": "ok", "f": "get", "value": {"status": 200, "ms": 1.5}},
        {"t": 8, "process": "worker:user:9", "type": "info", "f": "worker", "value": {"phase": "end"}},
    )
)  # fmt: skip

SMALL = h.of([*every_feed.history(PowerCut(probe_every=6_000))][::SHORT])


def _players() -> History:
    return Game(1, ops=SHORT).history()


def _lines(ops: Iterable[Op]) -> bytes:
    return "".join(f"{op.line()}\n" for op in ops).encode()


def some_of_each(found: History, most: int) -> History:
    """The first ops of each kind."""
    kinds: Counter[tuple[str, str]] = Counter()
    kept = []
    for op in found:
        kinds[op.process, op.f] += 1
        if kinds[op.process, op.f] <= most:
            kept.append(op)
    return h.of(kept)


def scenarios() -> list[bytes]:
    return [path.read_bytes() for path in scenario.shipped().values()]


def shipped_topologies() -> list[bytes]:
    return [path.read_bytes() for path in topologies.shipped().values()]


def histories() -> list[bytes]:
    cut = some_of_each(every_feed.history(PowerCut(probe_every=2_000)), 4)
    return [_lines(cut), _lines(_players())]


def workers() -> list[bytes]:
    own = OTHER_WORKER.replace("user:9", "user:0").replace('"two"', '"one"')
    return [own.encode()]


def access_logs() -> list[bytes]:
    line = '198.51.100.9 - - [10/Oct/2031:13:55:{:02d} +0200] "GET /articles/{}.html HTTP/1.1" 200 2326 "-" "curl/8"'
    return ["\n".join(line.format(second, second) for second in range(20)).encode()]


def settings_words() -> list[bytes]:
    return [
        b"network.partition one=web-5 other=db",
        b"network.delay node=web-1 delay_ms=50",
        b"node.power-off node=lb-1",
        b"process.kill node=web-1 service=apache",
        b"clock.skew node=lb-1 offset_s=3600",
    ]


def configuration(*names: str) -> Callable[[], Sequence[bytes]]:
    """The files with those names of a node of the shipped topology, as it is made."""

    def found() -> list[bytes]:
        wanted = topologies.load("ultramonkey")
        files = [file for each in wanted.machines for file in files_of(wanted, each, "fuzz", "key")]
        return list({file.data for file in files if Path(file.path).name in names})

    return found


IPVSADM = b"""IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  203.0.113.101:80 wlc persistent 600
  -> 198.18.1.101:80              Route   1      3          7
  -> 198.18.1.102:80              Route   0      0          0
"""


def judged() -> bytes:
    verdict = Verdict(check="outage", outcome=Outcome.INVALID, summary="Out.", findings=(), numbers={"ms": 5})
    return judgement("cut", [verdict]).model_dump_json().encode()


def captures() -> list[bytes]:
    """One heartbeat message, as pcapng and as pcap."""
    stored = json.loads((Path(__file__).parent / "heartbeat_messages.json").read_text())
    payload = bytes.fromhex(stored[0]["messages"][0])
    packet = Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=694, dport=694) / payload
    found = []
    with TemporaryDirectory() as folder:
        for writer in (PcapNgWriter, PcapWriter):
            path = Path(folder) / writer.__name__
            with writer(str(path)) as into:
                into.write(packet)
            found.append(path.read_bytes())
    return found


def read_capture(data: bytes, folder: Path) -> None:
    try:
        list(dissect.lines(str(_file(data, folder, "x.pcapng"))))
    except dissect.UnreadableError as error:
        raise UserError(str(error)) from error


READERS: Mapping[str, Reader] = {
    "scenario": Reader(scenarios, toml_broken, read_scenario, 4),
    "topology": Reader(shipped_topologies, toml_broken, read_topology, 4),
    "doctor": Reader(shipped_topologies, toml_broken, read_topology_files),
    "history": Reader(histories, lines_broken, read_history),
    "compare": Reader(histories, lines_broken, read_compared),
    "verdict.json": Reader(lambda: [judged()], lines_broken, read_verdict),
    "merge": Reader(workers, lines_broken, read_workers, 4),
    "feed": Reader(workers, lines_broken, read_feed, 4),
    "access log": Reader(access_logs, bytes_broken, read_log, 4),
    "inject": Reader(settings_words, bytes_broken, read_settings, 4),
    "tolerance": Reader(lambda: [b"p50_ms=5 p90_ms=20% p99_ms=no"], bytes_broken, read_tolerance, 4),
    "ha.cf": Reader(configuration("ha.cf"), bytes_broken, text_reader(ha_cf.parse), 4),
    "haresources": Reader(configuration("haresources"), bytes_broken, text_reader(haresources.parse), 4),
    "ldirectord.cf": Reader(configuration("ldirectord.cf"), bytes_broken, text_reader(ldirectord_cf.parse), 4),
    "exports": Reader(configuration("exports"), bytes_broken, text_reader(exports.parse), 4),
    "ipvsadm": Reader(lambda: [IPVSADM], bytes_broken, text_reader(ipvsadm.parse), 4),
    "capture": Reader(captures, bytes_broken, read_capture, 1),
}
"""All readers of what a user gives, or a program of a node."""
