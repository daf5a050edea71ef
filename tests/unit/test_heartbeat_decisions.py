"""Which heartbeat messages are chosen, and what happens to them: pure, so the same every time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import topology

sys.path.append(str(Path(topology.__file__).parent / "images" / "switch" / "heartbeat"))  # as in the switch
from decide import MS, OVERTAKEN_WITHIN_MS, Choice, Decider, Heard, LogLine, Verb, draw

ALL = Choice("lb-1", "lan")
SECOND = 1000 * MS
DRAWN = 0.0580927441
"""The first eight bytes of BLAKE2b-64 of 1/lan/lb-1/54, over 2**64."""


class Cable:
    """The messages that arrive, and the log."""

    def __init__(self, verb: Verb, choice: Choice = ALL) -> None:
        self.arrived: list[bytes] = []
        self.told: list[LogLine] = []
        self.decider = Decider(choice, verb, self.arrived.append, lambda frame: b"bad " + frame, self.told.append)

    def carry(self, *numbers: int, at_s: float = 0, kind: str = "status") -> list[bytes]:
        for number in numbers:
            self.decider.decide(Heard(kind, number), b"%d" % number, round(at_s * SECOND))
        return self.arrived

    def effects(self) -> list[tuple[int | None, str]]:
        return [(told.message.seq, told.effect) for told in self.told if told.effect]


def test_draws_are_the_same_on_every_machine() -> None:
    assert draw(1, "lan", "lb-1", 54) == pytest.approx(DRAWN)
    assert draw(1, "lan", "lb-1", None) != draw(1, "lan", "lb-1", 54)
    others = {draw(2, "lan", "lb-1", 54), draw(1, "heartbeat", "lb-1", 54), draw(1, "lan", "lb-2", 54)}
    assert len({draw(1, "lan", "lb-1", 54), *others}) == 4


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_that_is_chosen_is_the_rate(rate: float) -> None:
    choice = Choice("lb-1", "lan", rate=rate, seed=7)
    taken = sum(choice.takes(Heard("status", number)) for number in range(10_000))
    assert taken == pytest.approx(10_000 * rate, abs=150)  # three standard deviations of a fair draw


def test_by_type_and_by_range() -> None:
    by_type = Choice("lb-1", "lan", types=("status",))
    assert by_type.takes(Heard("status", 5))
    assert not by_type.takes(Heard("resource", 5))
    by_range = Choice("lb-1", "lan", first_seq=5, last_seq=6)
    assert [number for number in range(10) if by_range.takes(Heard("status", number))] == [5, 6]
    assert not by_range.takes(Heard("NS_ackmsg", ackseq=5))


def test_an_acknowledgement_is_drawn_by_what_it_acknowledges() -> None:
    choice = Choice("lb-1", "lan", rate=0.5)
    for number in range(20):
        assert choice.takes(Heard("NS_ackmsg", ackseq=number)) == choice.takes(Heard("status", number))


def test_drop() -> None:
    cable = Cable(Verb("drop"), Choice("lb-1", "lan", first_seq=2, last_seq=3))
    assert cable.carry(1, 2, 3, 4) == [b"1", b"4"]
    assert cable.effects() == [(2, "was dropped"), (3, "was dropped")]
    assert [told.decision for told in cable.told] == ["pass", "drop", "drop", "pass"]


def test_duplicate() -> None:
    cable = Cable(Verb("duplicate", copies=2))
    assert cable.carry(1) == [b"1"] * 3
    assert cable.effects() == [(1, "arrived 3 times")]


def test_corrupt() -> None:
    assert Cable(Verb("corrupt")).carry(1) == [b"bad 1"]


def test_delay() -> None:
    cable = Cable(Verb("delay", delay_ms=2000), Choice("lb-1", "lan", last_seq=2))
    assert cable.carry(1, 2, 3) == [b"3"]
    assert cable.decider.due_ns() == 2 * SECOND
    cable.decider.pass_time(2 * SECOND - 1)
    assert (cable.arrived, cable.effects()) == ([b"3"], [])
    cable.decider.pass_time(2 * SECOND)
    assert cable.arrived == [b"3", b"1", b"2"]
    assert cable.effects() == [(1, "arrived late, by 2000 ms"), (2, "arrived late, by 2000 ms")]
    assert cable.decider.due_ns() is None


def test_replay() -> None:
    cable = Cable(Verb("replay", delay_ms=1000))
    assert cable.carry(1) == [b"1"]
    assert not cable.effects()
    cable.decider.pass_time(SECOND)
    assert cable.arrived == [b"1", b"1"]
    assert cable.effects() == [(1, "arrived again after 1000 ms")]


def test_reorder_holds_one_at_a_time() -> None:
    cable = Cable(Verb("reorder", copies=2))
    assert cable.carry(1, 2, 3, 4) == [b"2", b"3", b"1"]
    assert cable.effects() == [(1, "arrived behind 2 of its successors")]


def test_reorder_gives_up_when_nothing_follows() -> None:
    cable = Cable(Verb("reorder"))
    assert not cable.carry(1)
    cable.decider.pass_time(OVERTAKEN_WITHIN_MS * MS)
    assert (cable.arrived, cable.effects()) == ([b"1"], [])


@pytest.mark.parametrize(
    ("verb", "arrived"),
    [(Verb("delay", delay_ms=9), [b"1"]), (Verb("reorder"), [b"1"]), (Verb("replay", delay_ms=9), [b"1"])],
    ids=lambda it: getattr(it, "name", None),
)
def test_what_is_held_back_arrives_at_the_end_and_nothing_twice(verb: Verb, arrived: list[bytes]) -> None:
    cable = Cable(verb)
    cable.carry(1)
    cable.decider.flush()
    assert cable.arrived == arrived
    assert cable.decider.due_ns() is None
