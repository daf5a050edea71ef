"""Would the clock of one load machine that is off explain what the checks of data found?

The ops of several load machines may be in one record. Where it shows that all clients share a clock (the workers record
the boot of their machine), this cannot be. Else a contradiction between two clients is the site's only if no clock
explains it. Of a single op the site is accused all the same: a clock that is off shows in several.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from harness.history import History, Op
from harness.history.timeline import MS

Ask: TypeAlias = Callable[[History], bool]
"""Whether any of the checks of data finds a history invalid."""

MOST_OPS, MOST_GROUPS = 4_000, 16
"""A larger record is not tried: it is judged again for each shift."""

FEWEST_ANSWERS = 4
"""A machine with fewer answers shows too little of its clock."""

SHIFTS_MS = tuple(
    sign * shift
    for shift in (
        *(digit * ten for ten in (1, 10, 100, 1_000) for digit in (1, 2, 5)),
        *(round(2 * 1.3**step, 3) for step in range(30)),
    )
    for sign in (1, -1)
)
"""From 1 ms to 5 s, in both directions: round numbers first, then steps smaller than the time of a request."""


def explanation(history: History, invalid: Ask) -> tuple[Sequence[str], float] | None:
    """The processes of a machine whose clock explains everything, and by how many ms it is off; None: there is none."""
    if len(history) > MOST_OPS or _shared(history):
        return None
    users = list(dict.fromkeys(op.process for op in history if op.process.startswith("user:")))
    if len(users) < 2:
        return None
    answers = Counter(op.process for op in history if op.type in ("ok", "fail"))
    groups = [group for group in _groups(users) if sum(answers[user] for user in group) >= FEWEST_ANSWERS]
    for group in groups[:MOST_GROUPS]:
        off = next((shift for shift in SHIFTS_MS if not invalid(_shifted(history, group, -shift))), None)
        if off is not None and not _one_op(history, group, invalid):
            return group, off
    return None


def _shared(history: History) -> bool:
    """Whether the record shows that all clients have one clock."""
    boots = {str(op.get("boot")) for op in history.of("worker") if op.get("phase") == "begin"}
    opening = next(iter(history.of("start")), None)
    return len(boots) == 1 or (opening is not None and opening.get("moved_ms") == {})


def _groups(users: Sequence[str]) -> Iterator[Sequence[str]]:
    """The processes that may be those of one machine: each alone, each worker, and every second one."""
    yield from ([user] for user in users)
    workers: dict[str, list[str]] = defaultdict(list)
    for user in users:
        workers[user.rpartition(":")[0]].append(user)
    halves = (users[::2], users[1::2])
    yield from (group for group in (*workers.values(), *halves) if 1 < len(group) < len(users))


def _shifted(history: History, group: Sequence[str], by_ms: float) -> History:
    by = round(by_ms * MS)
    return History(op.copy(time=op.time + by) if op.process in group else op for op in history)


def _one_op(history: History, group: Sequence[str], invalid: Ask) -> bool:
    """Whether one op of these processes explains everything, if it had got no answer."""
    return any(
        not invalid(_unanswered(history, op)) for op in history if op.process in group and op.type in ("ok", "fail")
    )


def _unanswered(history: History, answer: Op) -> History:
    return History(op.copy(type="info") if op is answer else op for op in history)
