"""What a run did not try is said apart from what nobody can tell: by its load, its topology and its faults."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from harness.checks import CHECKS, judge
from harness.history import History
from harness.history.planned_load import OF_PERSONA, PLAYING, planned_ops
from harness.scenario import LoadTable, PlayerOp
from harness.verdict import Outcome, Verdict, overall
from loadtests.feeds import PERSONAS
from loadtests.lib.site import USUAL_MIX
from tests.support import histories as h

DATA = ("durability", "linearizable", "counters", "bank", "uploads")
PARTS = ("DNS round robin", "heartbeat", "real servers")
UNSAID = object()


def run(load: Any = UNSAID, *ops: Any, **cluster: Any) -> History:
    start = h.start(**cluster)
    if load is not UNSAID:
        start = start.copy(value={**start.value, "load": load})
    return h.of([start, *ops, h.end(10_000)])


def of(persona: str, **more: Any) -> dict[str, Any]:
    return LoadTable(persona=persona, **more).model_dump(mode="json")


def asked(history: History, name: str, **settings: Any) -> Verdict:
    [found] = judge(history, {name: settings})
    return found


@pytest.mark.parametrize("check", DATA)
@pytest.mark.parametrize("load", [None, of("visitors")], ids=["no users", "visitors"])
def test_data_that_no_user_was_to_write_were_not_tried(check: str, load: Any) -> None:
    assert asked(run(load), check).word == "not tried"


@pytest.mark.parametrize("check", DATA)
def test_data_that_users_were_to_write_and_no_op_shows_are_unknown(check: str) -> None:
    assert asked(run(of("players")), check).word == "unknown"
    assert asked(run(), check).word == "unknown"  # an older record does not say


@pytest.mark.parametrize("check", DATA)
def test_an_op_that_the_load_was_not_to_do_is_judged(check: str) -> None:
    fs = {"uploads": ("upload", {"name": "a", "sha256": "0", "bytes": 1}), "bank": ("transfer", {"op": "a"})}
    fs |= {"linearizable": ("profile-write", {"player": 1, "motto": "a"})}
    f, value = fs.get(check, ("score", {"op": "a", "player": 1, "points": 1}))
    assert asked(run(of("visitors"), h.op(10, "user:0", f, value, "invoke")), check).word == "unknown"


def test_a_mix_leaves_out_what_it_does_not_have() -> None:
    history = run(of("players", mix={"score": 1, "page": 1, "coins": 0}))
    assert planned_ops(history) == frozenset({"score", "get"})
    assert asked(history, "bank").word == "not tried"
    assert asked(history, "counters").word == "unknown"


def test_durability_asks_for_what_the_load_writes_unless_a_scenario_names_it() -> None:
    history = run(of("players", mix={"score": 1}))
    assert set(asked(history, "durability").numbers) == {"scores"}
    assert set(asked(history, "durability", of=["scores", "uploads"]).numbers) == {"scores", "uploads"}


@pytest.mark.parametrize(
    ("check", "load"),
    [
        ("errors", None),
        ("established", of("visitors")),
        ("knee", of("players")),
        ("arrivals", of("visitors")),
    ],
)
def test_what_the_load_decides(check: str, load: Any) -> None:
    cluster = {"connection_sync": True}
    assert asked(run(load, **cluster), check).word == "not tried"
    assert asked(run(**cluster), check).word == "unknown"


def test_open_arrivals_without_an_op_are_unknown() -> None:
    load = of("visitors", arrivals="constant", phases=({"per_s": 5},))
    for check in ("knee", "arrivals"):
        assert asked(run(load), check).word == "unknown"


@pytest.mark.parametrize("check", ["content", "monitoring", "backup"])
def test_what_the_topology_does_not_have(check: str) -> None:
    assert asked(run(parts=PARTS), check).word == "not tried"
    assert asked(run(parts=[*PARTS, "web data", "variable data", "MySQL", "Ganglia"]), check).word == "unknown"
    assert asked(run(), check).word == "unknown"


def test_a_backup_that_a_scenario_names_must_be_there() -> None:
    assert asked(run(parts=PARTS), "backup", of=["database"]).word == "unknown"


@pytest.mark.parametrize("cluster", [{"persistence_s": 60}, {"scheduler": "sh"}, {"web": ["web-1"]}])
def test_balance_where_nothing_was_promised(cluster: dict[str, Any]) -> None:
    assert asked(run(**cluster), "balance").word == "not tried"


def test_a_run_of_which_nothing_was_tried_is_unknown() -> None:
    verdicts = judge(run(None, parts=PARTS), {"bank": {}, "backup": {}, "errors": {}})
    assert overall(verdicts) is Outcome.UNKNOWN


def test_the_personas_and_their_mix_are_those_of_the_load() -> None:
    assert OF_PERSONA.keys() == PERSONAS.keys()
    assert set(USUAL_MIX) == set(get_args(PlayerOp)) == PLAYING


def test_every_check_has_a_word_for_an_empty_run() -> None:
    for found in judge(run(None, parts=PARTS), {name: {} for name in CHECKS}):
        assert found.outcome is not Outcome.VALID or found.check in {"recovery", "audit"}, found
