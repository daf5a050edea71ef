from __future__ import annotations

import json
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from faults.real_server import (
    UNDO,
    Answer,
    Error,
    Partial,
    Redirect,
    Refuse,
    Reset,
    Slow,
    Stall,
    WrongContent,
    addresses,
    observer_of,
)
from harness.fake import FakeLab
from harness.records import Cable, LabError, Undo

IMAGES = Path(__file__).parents[2] / "topology/images"
GOOD = Answer("closed", 200, "OK\n", {"content-length": "3"}, 4)
SILENT = Answer("silent", 0, "", {}, 1500)


@pytest.fixture
def fake() -> FakeLab:
    lab = FakeLab()
    lab.cables = tuple(
        Cable(f"{node}.eth0", node, "eth0", "lan", tuple(f"198.18.1.{base + n}" for base in (100, 200)), "")
        for n, node in enumerate(("web-1", "web-2", "lb-1"), 1)
    )
    return lab


def program(path: str) -> ModuleType:
    """A node's program, as a module."""
    module = ModuleType("program")
    SourceFileLoader("program", str(IMAGES / path)).exec_module(module)
    return module


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        (Refuse(node="web-1"), Answer("refused", 0, "", {}, 1)),
        (Stall(node="web-1"), SILENT),
        (Reset(node="web-1"), Answer("reset", 0, "", {}, 1)),
        (Partial(node="web-1"), Answer("silent", 200, "OK", {"content-length": "3"}, 1500)),
        (Slow(node="web-1"), Answer("closed", 200, "OK\n", {}, 1002)),
        (Error(node="web-1"), Answer("closed", 500, "", {}, 2)),
        (WrongContent(node="web-1", content="no"), Answer("closed", 200, "no", {}, 2)),
        (Redirect(node="web-1", to="web-2"), Answer("closed", 302, "", {"location": "http://198.18.1.102/alive"}, 2)),
    ],
)
def test_each_fault_knows_its_effect_from_a_good_answer_and_from_another_one(fault: Stall, answer: Answer) -> None:
    assert fault.shows(answer)
    assert not fault.shows(GOOD)
    assert not fault.shows(Answer("closed", 404, "?", {}, 3))
    assert isinstance(fault, Stall) or not fault.shows(SILENT)


def test_one_impostor_takes_the_port_and_comes_back_after_a_reboot(fake: FakeLab) -> None:
    (change,) = Redirect(node="web-1", to="web-2").changes(fake)
    (again,) = change.again
    assert again.argv[:2] == ("/usr/lib/monkeywrench/faults/take-port", "80")
    to = {"198.18.1.101": "198.18.1.102", "198.18.1.201": "198.18.1.202"}
    assert json.loads(again.argv[3]) == {"kind": "redirect", "to": to}
    assert change.claim == "port 80"
    assert change.undo == UNDO
    (change,) = Refuse(node="web-1").changes(fake)
    assert change.again == (Undo(("/usr/lib/monkeywrench/faults/take-port", "80")),)


def test_at_a_rate_the_first_error_is_proof() -> None:
    assert Error(node="web-1", rate=0.1).proven(["", "500"])
    assert not Stall(node="web-1").proven(["", "silent"])


def test_the_observer_is_another_running_node_preferably_a_real_server(fake: FakeLab) -> None:
    assert observer_of(fake, fake.node("web-1")).name == "web-2"
    fake.node("web-2").power_off()
    assert observer_of(fake, fake.node("web-1")).name == "lb-1"
    fake.node("lb-1").power_off()
    with pytest.raises(LabError, match="no other node on the segment lan"):
        observer_of(fake, fake.node("web-1"))
    assert addresses(fake, "web-1") == ("198.18.1.101", "198.18.1.201")


def test_a_refusal_gives_the_reason(fake: FakeLab) -> None:
    assert Stall(node="lb-1").available(fake) == "lb-1 is not a real server: its role is director"
    reason = Redirect(node="web-1", to="lb-1").available(fake)
    assert reason == "'lb-1' is not another real server. Other real servers: web-2."


def test_the_impostor_picks_the_same_requests_for_the_same_seed_at_its_rate() -> None:
    picked = program("web/faults/impostor").picked
    assert [picked(7, n, 0.3) for n in range(50)] == [picked(7, n, 0.3) for n in range(50)]
    assert [picked(7, n, 0.3) for n in range(50)] != [picked(8, n, 0.3) for n in range(50)]
    for rate in (0.05, 0.5):
        assert sum(picked(1, n, rate) for n in range(10_000)) == pytest.approx(rate * 10_000, rel=0.1)
    assert all(picked(1, n, 1.0) for n in range(1000))


def test_every_jump_of_the_bpf_program_ends_inside_it() -> None:
    take_port = program("node/machine/faults/take-port")
    for sockets in (None, 5):
        code = take_port.program(80, sockets)
        words = [code[at : at + 8] for at in range(0, len(code), 8)]
        assert words[-1] == take_port.instruction(take_port.EXIT)
        for number, word in enumerate(words):
            if word[0] in {take_port.IF_EQUAL, take_port.IF_OTHER, take_port.IF_SAME}:
                assert number < number + 1 + int.from_bytes(word[2:4], "little") < len(words)
