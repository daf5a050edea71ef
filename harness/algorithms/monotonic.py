"""Does a number that must only grow ever decrease, or belong to two writes? On arrays, in O(n log n)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.algorithms.arrays import Flags, Ints, concatenated, ints

EXAMPLES = 10


@dataclass(frozen=True)
class Marks:
    """The numbers of answers: one entry for each answer.

    ``key``: the counter, 0, 1, ...; ``number``; ``write``: the answer to a write, which makes the number new;
    ``start`` and ``end`` of the op in ns. An answer was before another when its end is less than the other's start.
    """

    key: Ints
    number: Ints
    write: Flags
    start: Ints
    end: Ints


@dataclass(frozen=True)
class Backsteps:
    """``count``, and the places of some of them (earlier answer, later answer with a number that is too small)."""

    count: int
    examples: tuple[tuple[int, int], ...]


def backsteps(marks: Marks) -> Backsteps:
    """Answers with a smaller number than an answer before them; for a write, also with the same number."""
    if not marks.key.size:
        return Backsteps(0, ())
    start, end = concatenated(marks.key, marks.start, marks.end)
    (number,) = concatenated(
        marks.key, ints(np.unique(marks.number, return_inverse=True)[1])
    )  # only their order counts
    by_end = np.argsort(end)
    highest = np.maximum.accumulate(number[by_end])
    before = np.searchsorted(end[by_end], start) - 1
    wrong = (before >= 0) & (highest[before] > number - marks.write)
    places = np.flatnonzero(wrong)
    examples = []
    for place in map(int, places[:EXAMPLES]):
        earlier = by_end[: before[place] + 1]
        examples.append((int(earlier[np.argmax(number[earlier])]), place))
    return Backsteps(len(places), tuple(examples))


def shared(marks: Marks) -> Backsteps:
    """Pairs of writes of one key whose answers have the same number: one of them undid the other."""
    writes = np.flatnonzero(marks.write)
    by_number = writes[np.lexsort((marks.number[writes], marks.key[writes]))]
    one, other = by_number[:-1], by_number[1:]
    same = (marks.key[one] == marks.key[other]) & (marks.number[one] == marks.number[other])
    pairs = zip(one[same][:EXAMPLES], other[same][:EXAMPLES], strict=True)
    return Backsteps(int(same.sum()), tuple((int(first), int(second)) for first, second in pairs))
