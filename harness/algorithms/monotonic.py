"""Does a number that only grows ever go back, or belong to two writes? On arrays, in O(n log n)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.algorithms.arrays import Flags, Ints, concatenated, ints

EXAMPLES = 10


@dataclass(frozen=True)
class Marks:
    """Numbers that were told: one entry an answer.

    ``key``: whose number, 0, 1, ...; ``number``; ``write``: the answer to a write, which the number is new with;
    ``start`` and ``end`` of the op in ns. An answer was before another when its end is less than the other's start.
    """

    key: Ints
    number: Ints
    write: Flags
    start: Ints
    end: Ints


@dataclass(frozen=True)
class Backsteps:
    """``count``, and of some of them the places (earlier answer, later answer with a number too small)."""

    count: int
    examples: tuple[tuple[int, int], ...]


def backsteps(marks: Marks) -> Backsteps:
    """Answers whose number is less than that of an answer before them, or, of a write, not greater."""
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
    """Pairs of writes of one key that were told the same number: one of them undid the other."""
    writes = np.flatnonzero(marks.write)
    by_number = writes[np.lexsort((marks.number[writes], marks.key[writes]))]
    one, other = by_number[:-1], by_number[1:]
    same = (marks.key[one] == marks.key[other]) & (marks.number[one] == marks.number[other])
    pairs = zip(one[same][:EXAMPLES], other[same][:EXAMPLES], strict=True)
    return Backsteps(int(same.sum()), tuple((int(first), int(second)) for first, second in pairs))
