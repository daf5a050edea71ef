"""Who signed an answer: the site's web servers put their node's name into each (``X-Node``). Pure.

An answer with status 200 that no real server signed is not the site's: ldirectord's fallback page, or another server at
the address. A site of the user's own may sign nothing; then nothing can be said.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness.history.ops import Op, Pair

UNSIGNED = "no real server signed the answer"


def signs(pairs: Iterable[Pair], web: Iterable[str]) -> bool:
    """Whether the site signs its answers: at least one of these is signed by a real server."""
    names = frozenset(web)
    return any(pair.ok and pair.completion is not None and pair.completion.get("node") in names for pair in pairs)


def foreign(answer: Op | None, web: Iterable[str]) -> bool:
    """Whether an answer of a site that signs its answers came from somewhere else. One without the key says nothing."""
    if answer is None or not isinstance(answer.value, dict) or "node" not in answer.value:
        return False
    return answer.value["node"] not in frozenset(web)
