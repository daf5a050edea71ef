"""The harness's end of the simulator's protocol, and of the agents behind it."""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Callable, Iterator

import pytest

from harness.records import LabError
from harness.tasks import Timeline
from topology.lab.virtual.guest import FRAME_BYTES, Guest
from topology.lab.virtual.simulator import Frame, Simulator


class Wire:
    """A simulator that answers by a table, in pieces that do not end with lines."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.out: deque[bytes] = deque()
        self.now_ns = 0
        self.on_say: Callable[[str, bytes], None] = lambda _node, _data: None
        self.events: deque[tuple[int, str]] = deque()
        self.closed = False

    def send(self, data: bytes) -> None:
        for line in data.decode().splitlines():
            self.sent.append(line)
            answer = self.answer(line.split(" ")) + "\n"
            self.out.extend(bytes([byte]) for byte in answer.encode())

    def pieces(self) -> Iterator[bytes]:
        while self.out:
            yield self.out.popleft()

    def close(self) -> None:
        self.closed = True

    def answer(self, words: list[str]) -> str:
        if words[0] == "say":
            self.on_say(words[1], base64.b64decode(words[2]))
        if words[0] == "bad":
            return "error no such thing"
        if words[0] == "run":
            if self.events and self.events[0][0] <= int(words[1]):
                self.now_ns, event = self.events.popleft()
                return f"{event}\nok {self.now_ns} wake"
            self.now_ns = int(words[1])
            return f"ok {self.now_ns} time"
        return f"ok {self.now_ns}"

    def said(self, at_ns: int, node: str, data: bytes) -> None:
        self.events.append((at_ns, f"+said {node} {at_ns} {base64.b64encode(data).decode()}"))


class Heard:
    """Notes what happens."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.on_said: Callable[[int, bytes], None] = lambda _time_ns, _data: None

    def said(self, node: str, time_ns: int, data: bytes) -> None:
        self.events.append((node, time_ns, data))
        self.on_said(time_ns, data)

    def ended(self, node: str, time_ns: int) -> None:
        self.events.append(("lost", node, time_ns))

    def framed(self, frame: Frame) -> None:
        self.events.append(frame)


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def simulator(wire: Wire) -> Simulator:
    return Simulator(wire)


def test_events_come_before_the_answer(wire: Wire, simulator: Simulator) -> None:
    heard = Heard()
    simulator.handler = heard
    wire.said(500, "lb-1", b"hello\n")
    wire.events.append((600, "+lost lb-2 600"))
    wire.events.append((700, f"+frame arp 1 690 internet {base64.b64encode(b'frame').decode()}"))
    simulator.run(1000)
    assert simulator.now_ns == 500
    simulator.run(1000)
    simulator.run(1000)
    simulator.run(1000)
    assert simulator.now_ns == 1000
    assert heard.events == [
        ("lb-1", 500, b"hello\n"),
        ("lost", "lb-2", 600),
        Frame("arp", 1, 690, "internet", b"frame"),
    ]


def test_a_refusal_is_a_sentence(simulator: Simulator) -> None:
    with pytest.raises(LabError, match="the simulator refused `bad one`: no such thing"):
        simulator.ask("bad", "one")
    assert simulator.ask("now") == ["0"]
    simulator.forget("bad")
    with pytest.raises(LabError, match="no such thing"):
        simulator.ask("bad", "two")
    assert simulator.ask("now") == ["0"]  # no answer is left unread


def test_a_simulator_that_is_gone_has_a_next_step(wire: Wire, simulator: Simulator) -> None:
    wire.send = lambda _: None  # type: ignore[method-assign, assignment]
    with pytest.raises(LabError, match="the simulator is gone") as caught:
        simulator.ask("now")
    assert "monkeywrench up" in caught.value.next_step


def test_what_is_said_goes_out_before_time_goes_on(wire: Wire, simulator: Simulator) -> None:
    simulator.say("lb-1", b"x")
    simulator.forget("lb-2")
    assert wire.sent == ["now"]
    simulator.run(10)
    assert wire.sent[1:] == ["say lb-1 eA==", "gone lb-2", "run 10 *"]


class Machine:
    """An agent: acknowledges frames, and echoes the requests that they make."""

    def __init__(self, wire: Wire) -> None:
        self.wire, self.frame, self.frames = wire, b"", 0
        wire.on_say = self.heard

    def heard(self, node: str, data: bytes) -> None:
        self.frames += 1
        assert len(data) <= FRAME_BYTES + 2
        self.wire.said(self.wire.now_ns + 10, node, b"+\r\n")
        self.frame += data[1:-1]
        if data[:1] == b".":
            request, self.frame = json.loads(self.frame), b""
            answer = {"id": request["id"], "out": str(len(json.dumps(request.get("argv"))))}
            lines = json.dumps(answer) + "\n" + json.dumps({"id": request["id"], "done": 0}) + "\n"
            self.wire.said(self.wire.now_ns + 25, node, lines[:7].encode())
            self.wire.said(self.wire.now_ns + 30, node, lines[7:].encode())


@pytest.fixture
def guest(wire: Wire, simulator: Simulator) -> Guest:
    Machine(wire)
    timeline = Timeline(simulator)
    made = Guest("lb-1", simulator, timeline)
    heard = Heard()
    heard.on_said = made.heard
    simulator.handler = heard
    return made


def test_a_request_and_its_answers_have_virtual_times(guest: Guest) -> None:
    number = guest.start({"do": "exec", "argv": ["true"]})
    assert guest.answer(number, 10) == {"t": 30, "id": number, "out": "8"}
    assert guest.answer(number, 10)["done"] == 0
    assert guest.running() == []


def test_a_long_request_goes_in_frames_one_at_a_time(wire: Wire, guest: Guest) -> None:
    number = guest.start({"do": "exec", "argv": ["x" * 5 * FRAME_BYTES]})
    assert guest.answer(number, 10)["out"] == str(5 * FRAME_BYTES + 4)
    assert sum(line.startswith("say ") for line in wire.sent) == 6


def test_requests_end_with_their_machine(guest: Guest) -> None:
    number = guest.start({"do": "exec", "argv": ["sleep"]})
    guest.down(77)
    assert guest.answer(number, 10) == {"t": 77, "error": "the machine went down"}
