"""Comparing runs: a planted regression is found and named, and chance alone does not count as one."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from harness.compare import (
    ALL,
    CompareError,
    CompareSettings,
    Comparison,
    Decision,
    Measures,
    Result,
    Tolerance,
    compare,
    measure,
)
from harness.history import History, Op
from tests.support import histories as h
from tests.support.examples import tries
from tests.support.sites import BASE_MS, Site, request, risen


def test_requests_of_the_warm_up_do_not_count() -> None:
    ops = [
        op
        for number in range(400)
        for op in request(100 * number, f"user:{number % 20}", "get /", 900 if number < 60 else 20)
    ]
    cold, warm = h.start(), h.start()
    warm = warm.copy(value={**warm.value, "warm_up_ms": 6_000})
    slow = measure("cold", h.of([cold, *ops, h.end(42_000)]))
    fast = measure("warm", h.of([warm, *ops, h.end(42_000)]))
    assert (slow.requests["get /"], fast.requests["get /"]) == (400, 340)
    assert (slow.endpoints["get /"]["p90_ms"], fast.endpoints["get /"]["p90_ms"]) == (900, 20)
    strange = warm.copy(value={**warm.value, "warm_up_ms": "long"})
    assert "warm_up_ms" in measure("strange", h.of([strange, *ops, h.end(42_000)])).unusable


COMPARISONS = tries(20)


@cache
def measured(site: Site, name: str, seed: int) -> Measures:
    return site.run(name, seed)


def runs(site: Site, side: str, count: int, seed: int) -> list[Measures]:
    first = 1_000 * seed + (500 if side == "new" else 0)
    return [measured(site, f"{side}-{number}", first + number) for number in range(count)]


def against(new: Site, count: int = 8, seed: int = 1, **settings: Any) -> Result:
    return compare(runs(Site(), "old", count, seed), runs(new, "new", count, seed), CompareSettings(**settings))


def decisions(result: Result) -> dict[str, Decision]:
    return {each.endpoint: each.decision for each in result.endpoints}


def one(result: Result, endpoint: str, statistic: str) -> Comparison:
    (found,) = (
        each
        for group in result.endpoints
        if group.endpoint == endpoint
        for each in group.comparisons
        if each.statistic == statistic
    )
    return found


def test_no_comparison_of_the_same_site_finds_a_difference() -> None:
    found = [against(Site(), seed=seed).decision for seed in range(COMPARISONS)]
    assert found == [Decision.NO_DIFFERENCE] * COMPARISONS


def test_twenty_ms_on_one_endpoint_are_found_and_named() -> None:
    result = against(Site({"get /scores.php": 20}))
    assert result.decision is Decision.REGRESSION
    assert "get /scores.php" in result.summary
    named = {name for name, each in decisions(result).items() if each is Decision.REGRESSION and name != ALL}
    assert named == {"get /scores.php"}
    test = one(result, "get /scores.php", "p50_ms").test
    assert test is not None
    assert test.shift == pytest.approx(20, abs=2)
    assert test.cliffs_delta == 1
    assert test.shift_low is not None
    assert test.shift_high is not None
    assert test.shift_low < 20 < test.shift_high


@pytest.mark.parametrize("endpoint", sorted(BASE_MS))
@pytest.mark.parametrize("size_ms", [12, 15, 40, 300])
def test_a_planted_difference_is_found_either_way(endpoint: str, size_ms: float) -> None:
    old, new = (runs(site, side, 7, 3) for site, side in ((Site(), "old"), (Site({endpoint: size_ms}), "new")))
    there, back = compare(old, new), compare(new, old)
    assert decisions(there)[endpoint] is Decision.REGRESSION
    assert one(back, endpoint, "p50_ms").decision is Decision.IMPROVEMENT
    assert Decision.REGRESSION not in decisions(back).values()
    for name in BASE_MS.keys() - {endpoint}:
        assert decisions(there)[name] is not Decision.REGRESSION


def test_an_improvement_needs_a_decision_on_all_endpoints() -> None:
    old, new = runs(Site({"transfer": 20}), "old", 8, 2), runs(Site(), "new", 8, 2)
    assert compare(old, new).decision is Decision.IMPROVEMENT
    short = [replace(run, endpoints={**run.endpoints, "get /": {"error_share": 0.0}}) for run in new]
    result = compare(old, short)
    assert result.decision is Decision.NOT_ENOUGH
    assert decisions(result)["transfer"] is Decision.IMPROVEMENT


def test_fast_errors_are_no_improvement() -> None:
    result = against(Site(failing=0.1))
    assert result.decision is Decision.REGRESSION
    assert one(result, "transfer", "error_share").decision is Decision.REGRESSION


def test_a_change_below_the_tolerance_is_no_difference() -> None:
    assert against(Site({"transfer": 1}, luck=0.002)).decision is Decision.NO_DIFFERENCE
    strict = {"p50_ms": Tolerance(share=0, least=0.3)}
    assert against(Site({"transfer": 1}, luck=0.002), judged=strict).decision is Decision.REGRESSION


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_too_few_runs_cannot_show_even_the_largest_difference(count: int) -> None:
    result = against(Site({"transfer": 300}), count)
    assert result.decision is Decision.NOT_ENOUGH
    # two statistics of three endpoints and of all: too few answers for the 99th percentile, and no errors at all
    assert result.family == 8
    assert one(result, "transfer", "p50_ms").runs_needed == 6  # 2 / 252 * 8 = 0.063; 2 / 924 * 8 = 0.017
    assert "About" in result.summary
    assert against(Site({"transfer": 300}), 6).decision is Decision.REGRESSION


def test_an_interval_wider_than_the_tolerance_is_no_proof_of_sameness() -> None:
    result = against(Site(luck=0.3), seed=4)
    assert result.decision is Decision.NOT_ENOUGH
    needed = one(result, "get /scores.php", "p50_ms").runs_needed
    assert needed is not None
    assert needed > 8


def test_throughput_is_always_shown_and_judged_on_demand() -> None:
    result = against(Site(failing=0.3))
    shown = one(result, "transfer", "throughput_per_s")
    assert (shown.judged, shown.decision) == (False, None)
    assert shown.test is not None
    assert shown.test.shift < 0
    judged = against(Site(failing=0.3), judged={"throughput_per_s": Tolerance(share=0.05, least=0.1)})
    assert judged.decision is Decision.REGRESSION


# --- bad input


def changed_start(run: History, **cluster: Any) -> History:
    return h.changed(run, lambda op: op.f == "start", lambda _: h.start(**cluster))


def history(seed: int = 1) -> History:
    return h.of(Site(requests=10).ops(random.Random(seed)))


def test_another_topology_is_refused_in_a_sentence() -> None:
    other = measure("b", changed_start(history(), web=["web-1"]))
    with pytest.raises(CompareError, match="different topologies: web is"):
        compare([measure("a", history())], [other])


def test_different_settings_are_noted() -> None:
    new = [measure("b", changed_start(history(), scheduler="rr", resource_start_ms=900))]
    (note, *_) = compare([measure("a", history())], new).notes
    assert note == "Different settings: scheduler is wlc in the baseline and rr in the candidate."


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda run: h.killed(run, 500), "the run was killed"),
        (lambda run: h.with_ops(run, h.op(400, "load", "feed", {"phase": "lost"})), "has gaps"),
        (lambda run: h.without(run, lambda op: op.process.startswith("user:")), "sent no requests"),
        (lambda run: h.without(run, lambda op: op.f == "start"), "has no start"),
        (lambda _: History(()), "has no start"),
    ],
)
def test_a_run_that_cannot_be_used_is_left_out_and_named(spoil: Any, says: str) -> None:
    bad, good = measure("bad", spoil(history())), measure("good", history())
    assert says in bad.unusable
    result = compare([good, bad], [measure("new", history(2))])
    assert result.baseline == ("good",)
    assert any("bad cannot be used" in note for note in result.notes)
    with pytest.raises(CompareError, match=r"The baseline has no usable run\. bad"):
        compare([bad], [good])


def test_each_run_counts_once_and_all_have_one_scenario() -> None:
    run = measure("a", history())
    with pytest.raises(CompareError, match="more than once"):
        compare([run], [run])
    with pytest.raises(CompareError, match="different scenarios"):
        compare([run], [replace(run, name="b", scenario="another")])
    with pytest.raises(CompareError, match="at most 60"):
        compare([replace(run, name=str(number)) for number in range(61)], [run])


def test_runs_without_the_endpoint_are_counted() -> None:
    old, new = runs(Site(), "old", 8, 1), runs(Site(), "new", 8, 1)
    without = [_without(run, "transfer") for run in new[:5]] + new[5:]
    result = compare(old, without)
    assert decisions(result)["transfer"] is Decision.NOT_ENOUGH
    assert "5 of 8 candidate runs have too few of these requests" in one(result, "transfer", "p50_ms").sentence
    gone = one(compare(old, [_without(run, "transfer") for run in new]), "transfer", "p50_ms")
    assert (gone.decision, gone.test) == (Decision.NOT_ENOUGH, None)
    assert "one side has no data" in gone.sentence


def _without(run: Measures, endpoint: str) -> Measures:
    return replace(run, endpoints={name: each for name, each in run.endpoints.items() if name != endpoint})


def test_a_percentile_is_not_judged_if_the_runs_are_too_short() -> None:
    short = Site(requests=99)  # the 90th takes 300 answers, and all three have 297 together
    result = compare(runs(short, "old", 8, 1), runs(short, "new", 8, 1))
    assert any(
        "Not judged: 90th percentile of latency of all, get /, get /scores.php, transfer" in n for n in result.notes
    )
    assert one(result, "get /", "p90_ms").decision is None
    assert one(against(short), "get /", "p90_ms").decision is Decision.NOT_ENOUGH
    assert decisions(result)["get /"] is Decision.NO_DIFFERENCE


# --- numbers


def test_the_numbers_of_a_run() -> None:
    ops: list[Sequence[Op]] = [request(25 * n, f"user:{n % 20}", "get /a", n % 100 + 1.0) for n in range(400)]
    ops += [request(10_000, "user:1", "get /a", 7, failed=True)]
    right = {"status": 409, "written": "no", "ms": 3}
    ops += [[h.op(11_000, "user:1", "transfer", {}, "invoke"), h.op(11_003, "user:1", "transfer", right, "fail")]]
    ops += [
        [
            h.op(12_000, "user:1", "get", {"url": "/a"}, "invoke"),
            h.op(12_400, "user:1", "get", {}, "info", error="stopped"),
        ]
    ]
    ops += [[h.op(0, "probe:1", "http", {}, "invoke"), h.op(1, "probe:1", "http", {}, "ok")]]
    found = measure("a", h.of([h.start(), *(op for each in ops for op in each), h.end(13_000)]))
    assert found.requests == {ALL: 402, "get /a": 401, "transfer": 1}
    assert found.endpoints["get /a"] == {
        "p50_ms": 50,
        "p90_ms": 90,
        "error_share": pytest.approx(1 / 401),
        "throughput_per_s": pytest.approx(400 / 11.003),
    }
    assert found.endpoints["transfer"] == {"error_share": 0, "throughput_per_s": 0}


def cpu(at_ms: float, node: str, used_ms: Any) -> Op:
    return h.op(at_ms, f"cpu:{node}", "cpu", {"node": node, "used_ms": used_ms})


def test_cpu_use_counts_during_the_load_only() -> None:
    load = [request(10_000, "user:1", "get /", 5), request(19_995, "user:1", "get /", 5)]
    samples = [
        *(cpu(at, "lb-1", used) for at, used in ((2_000, 0), (9_999, 9_000), (10_000, 9_100), (14_000, 9_700))),
        *(cpu(at, "lb-1", used) for at, used in ((18_000, 11_100), (20_001, 90_000), (22_000, 99_000))),
        *(cpu(at, "web-1", used) for at, used in ((12_000, 500), (16_000, 6_500))),
        *(cpu(at, "web-2", used) for at, used in ((9_000, 500), (12_000, 500), (21_000, 6_500))),
        *(cpu(at, "web-3", used) for at, used in ((12_000, 700), (14_000, "?"), (16_000, 700))),
    ]
    found = measure("a", h.of([h.start(), *samples, *(op for each in load for op in each), h.end(23_000)]))
    # 2 s of 8 s; 6 s of 4 s, on two processors; nothing of 4 s. web-2 has one sample only in that time.
    assert found.cpu == pytest.approx({"lb-1": 0.25, "web-1": 1.5, "web-3": 0})
    assert measure("b", history()).cpu == {}


def test_a_result_is_json_and_has_every_number() -> None:
    result = against(Site(), 6)
    again = Result.model_validate_json(result.model_dump_json())
    assert again == result
    table = json.loads(result.model_dump_json())
    assert len(table["endpoints"][0]["comparisons"][0]["baseline"]["values"]) == 6


def test_a_single_endpoint_is_not_listed_twice() -> None:
    alone = [replace(_without(_without(run, "get /"), "transfer")) for run in runs(Site(), "old", 2, 1)]
    assert decisions(compare(alone[:1], alone[1:])).keys() == {"get /scores.php"}


def test_a_certain_difference_that_is_too_small_to_matter() -> None:
    """All of the candidate's runs are above all of the baseline's, by 1 ms, with a tolerance of 2 ms."""
    usual = measure("a", history())
    old, new = (
        [replace(usual, name=f"{at}/{n}", endpoints={"get /": {"p50_ms": at + n / 100}}) for n in range(8)]
        for at in (20.0, 21.0)
    )
    result = compare(old, new)
    test = one(result, "get /", "p50_ms").test
    assert test is not None
    assert test.p_corrected < 0.001
    assert result.decision is Decision.NO_DIFFERENCE


# --- the knee, and the course of a run


def test_a_lower_knee_is_a_regression_and_a_higher_one_an_improvement() -> None:
    low, high = ([risen(carries + n / 10, f"{carries}-{n}") for n in range(5)] for carries in (25, 50))
    assert {run.endpoints["get /"]["knee_per_s"] for run in low} == {20}
    only = CompareSettings(judged={"knee_per_s": Tolerance(share=0.25, least=0)})
    assert compare(high, low, only).decision is Decision.REGRESSION
    assert compare(low, high, only).decision is Decision.IMPROVEMENT
    found = one(compare(high, low), "get /", "knee_per_s")
    assert (found.decision, found.sentence[:46]) == (
        Decision.REGRESSION,
        "get /, knee: regression; 40.00/s -> 20.00/s, s",
    )


def test_a_constant_load_has_no_knee() -> None:
    result = against(Site(), count=3)
    statistics = {each.statistic for group in result.endpoints for each in group.comparisons}
    assert "knee_per_s" not in statistics
    assert not any("knee" in note for note in result.notes)


def test_the_course_of_a_run_is_by_second() -> None:
    ops = [op for number in range(100) for op in request(50 * number, "user:1", "get /", 20, failed=number >= 90)]
    found = measure("run", h.of([h.start(), *ops, h.end(60_000)])).course
    assert [found.answered[second] for second in range(5)] == [20, 20, 20, 20, 10]
    assert [found.failed[second] for second in range(5)] == [0, 0, 0, 0, 10]
    assert set(found.p50_ms.values()) == set(found.p90_ms.values()) == {20}
    assert list(found.percentiles_ms) == [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]  # 90 answers have no 99th
